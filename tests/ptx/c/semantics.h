/* What PTX instructions mean where C has no operator for them. */
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline uint32_t f2u(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
static inline float u2f(uint32_t u) { float x; memcpy(&x, &u, 4); return x; }
static inline uint64_t d2u(double x) { uint64_t u; memcpy(&u, &x, 8); return u; }
static inline double u2d(uint64_t u) { double x; memcpy(&x, &u, 8); return x; }

static inline float flushed(float x) { return (f2u(x) & 0x7f800000u) ? x : u2f(f2u(x) & 0x80000000u); }
static inline float saturated(float x) { return x != x ? 0.0f : x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x; }

static __attribute__((noinline)) float fma_rounded(int mode, float a, float b, float c) {
  int before = fegetround();
  fesetround(mode);
  volatile float x = a, y = b, z = c, result;
  result = fmaf(x, y, z);
  fesetround(before);
  return result;
}
#define fma_rm(a, b, c) fma_rounded(FE_DOWNWARD, a, b, c)
#define fma_rp(a, b, c) fma_rounded(FE_UPWARD, a, b, c)
#define fma_rz(a, b, c) fma_rounded(FE_TOWARDZERO, a, b, c)

static inline float min_f32(float a, float b) {
  return a != a ? b : b != b ? a : a == b ? u2f(f2u(a) | f2u(b)) : a < b ? a : b;
}
static inline float max_f32(float a, float b) {
  return a != a ? b : b != b ? a : a == b ? u2f(f2u(a) & f2u(b)) : a > b ? a : b;
}
static inline double min_f64(double a, double b) { return fmin(a, b); }
static inline double max_f64(double a, double b) { return fmax(a, b); }

#define CONVERSION(kind, type, low, low_value, high, high_value) \
  static inline type to_##kind(double x) { \
    return x != x ? 0 : x <= low ? low_value : x >= high ? high_value : (type)x; \
  }
CONVERSION(s16, int16_t, -32768.0, INT16_MIN, 32767.0, INT16_MAX)
CONVERSION(s32, int32_t, -2147483648.0, INT32_MIN, 2147483647.0, INT32_MAX)
CONVERSION(u32, uint32_t, 0.0, 0, 4294967295.0, UINT32_MAX)
CONVERSION(s64, int64_t, -9223372036854775808.0, INT64_MIN, 9223372036854775808.0, INT64_MAX)
CONVERSION(u64, uint64_t, 0.0, 0, 18446744073709551616.0, UINT64_MAX)

static inline uint32_t low_bits(uint32_t n) { return n >= 32 ? ~0u : (1u << n) - 1; }
static inline uint32_t bfe_u32(uint32_t a, uint32_t at, uint32_t n) {
  at &= 255; n &= 255;
  return n == 0 || at > 31 ? 0 : (a >> at) & low_bits(n);
}
static inline int32_t bfe_s32(int32_t a, uint32_t at, uint32_t n) {
  at &= 255; n &= 255;
  if (n == 0) return 0;
  if (at > 31) return a < 0 ? -1 : 0;
  if (at + n >= 32) return a >> at;
  return (int32_t)((uint32_t)a << (32 - at - n)) >> (32 - n);
}
static inline uint32_t bfi_b32(uint32_t a, uint32_t b, uint32_t at, uint32_t n) {
  at &= 255; n &= 255;
  if (n == 0 || at > 31) return b;
  uint32_t mask = low_bits(n) << at;
  return (b & ~mask) | ((a << at) & mask);
}
static inline uint64_t bfi_b64(uint64_t a, uint64_t b, uint32_t at, uint32_t n) {
  at &= 255; n &= 255;
  if (n == 0 || at > 63) return b;
  uint64_t mask = (n >= 64 ? ~0ull : (1ull << n) - 1) << at;
  return (b & ~mask) | ((a << at) & mask);
}
static inline uint32_t brev_b32(uint32_t x) {
  uint32_t r = 0;
  for (int i = 0; i < 32; i++) r |= ((x >> i) & 1u) << (31 - i);
  return r;
}
static inline uint32_t prmt_b32(uint32_t a, uint32_t b, uint32_t selector) {
  uint64_t both = (uint64_t)b << 32 | a;
  uint32_t r = 0;
  for (int i = 0; i < 4; i++) {
    uint32_t q = (selector >> (4 * i)) & 15, byte = (both >> (8 * (q & 7))) & 255;
    if (q & 8) byte = byte & 128 ? 255 : 0;
    r |= byte << (8 * i);
  }
  return r;
}
static inline uint32_t shf_l_wrap(uint32_t a, uint32_t b, uint32_t n) {
  return (uint32_t)((((uint64_t)b << 32 | a) << (n & 31)) >> 32);
}
static inline uint32_t shf_r_wrap(uint32_t a, uint32_t b, uint32_t n) {
  return (uint32_t)(((uint64_t)b << 32 | a) >> (n & 31));
}
static inline uint32_t shf_l_clamp(uint32_t a, uint32_t b, uint32_t n) { return n >= 32 ? a : shf_l_wrap(a, b, n); }
static inline uint32_t shf_r_clamp(uint32_t a, uint32_t b, uint32_t n) {
  return (uint32_t)(((uint64_t)b << 32 | a) >> (n > 32 ? 32 : n));
}
