/* Threads, their memory, and what is done at each access: nothing, checks (-DCHECK) or notes for statistics (-DCOUNT).

   Addresses are those of the host: device memory is an array of it (`memory.py`). */

typedef struct { int any, all, n, was_any, were_all, n_were; } BlockState; /* of a barrier that combines predicates */
typedef struct { uint64_t low, high; } Region;
typedef struct { uint32_t launch, writer, written_at, reader, read_at, flags; } Word; /* accesses in a launch */
typedef struct { uint32_t kind, site; uint64_t count, address; uint32_t thread, other; } Finding;
typedef struct {
  uint64_t base, size;         /* device memory */
  uint8_t *state;              /* of each byte: 0 not allocated, 1 not written, 2 written */
  Word *words;                 /* of every 4 bytes */
  Region *regions;             /* arrays in the parameters of the launch */
  Finding *findings;
  uint32_t n_regions, launch, n_findings, max_findings;
} Checker;
typedef struct {
  uint32_t tid, ntid, cta, ncta, phase, trapped, n_accesses;
  const char *parameters;
  char *shared;
  BlockState *block;
  Checker *checker;
  uint64_t *accesses; /* pairs: address, site */
} Context;

enum { OUT_OF_BOUNDS = 1, UNINITIALISED, MISALIGNED, READ_AFTER_WRITE, WRITE_AFTER_READ, WRITE_AFTER_WRITE,
       SAME_VALUE_WRITTEN, DIVIDED_BY_0, NOT_A_PARAMETER, SHARED_OUT_OF_BOUNDS };

static uint8_t poison = 0;

#define PARAMETER(T, offset) (*(const T *)(c->parameters + (offset)))
#define SHARED_BASE ((uint64_t)(uintptr_t)c->shared)
#define LOCAL_BASE ((uint64_t)(uintptr_t)local)
#define LOCAL_MEMORY(n) char local[n] __attribute__((aligned(16))); memset(local, poison, n);
#define AT(T, at) (*(T *)(at))
#define LOAD_L(T, at, site) AT(T, at)
#define STORE_L(T, at, value, site) (AT(T, at) = (value))
#define LOAD_C(T, at, site) AT(T, at)

#ifdef CHECK
#define LOAD_G(T, at, site) AT(T, checked(c, at, sizeof(T), site, LOADS, 0))
#define STORE_G(T, at, value, site) \
  do { T v_ = (value); uint64_t b_ = 0; memcpy(&b_, &v_, sizeof(T)); \
       AT(T, checked(c, at, sizeof(T), site, STORES, b_)) = v_; } while (0)
#define ATOMIC_G(at, n, site) (at = checked(c, at, n, site, CHANGES, 0))
#define LOAD_S(T, at, site) AT(T, checked_shared(c, at, sizeof(T), site, LOADS, 0))
#define STORE_S(T, at, value, site) \
  do { T v_ = (value); uint64_t b_ = 0; memcpy(&b_, &v_, sizeof(T)); \
       AT(T, checked_shared(c, at, sizeof(T), site, STORES, b_)) = v_; } while (0)
#define ATOMIC_S(at, n, site) (at = checked_shared(c, at, n, site, CHANGES, 0))
#define ALIGNED(at, n, site) do { if ((at) % (n)) found(c, MISALIGNED, site, at, 0); } while (0)
#define DIVIDES_BY_0() found(c, DIVIDED_BY_0, 0, 0, 0)
#include "checks.h"
#else
#ifdef COUNT
#define NOTED(at, site) (c->accesses[2 * c->n_accesses] = (at), c->accesses[2 * c->n_accesses++ + 1] = (site))
#else
#define NOTED(at, site) ((void)0)
#endif
#define LOAD_G(T, at, site) (NOTED(at, site), AT(T, at))
#define STORE_G(T, at, value, site) (NOTED(at, site), AT(T, at) = (value))
#define ATOMIC_G(at, n, site) NOTED(at, site)
#define LOAD_S(T, at, site) AT(T, at)
#define STORE_S(T, at, value, site) (AT(T, at) = (value))
#define ATOMIC_S(at, n, site)
#define ALIGNED(at, n, site)
#define DIVIDES_BY_0()
#endif

#define DIVISION(kind, type, lowest) \
  static inline type quotient_##kind(Context *c, type a, type b) { \
    if (b == 0) { DIVIDES_BY_0(); return (type)-1; } \
    return lowest && a == (type)lowest && b == (type)-1 ? a : a / b; \
  } \
  static inline type remainder_##kind(Context *c, type a, type b) { \
    if (b == 0) { DIVIDES_BY_0(); return a; } \
    return lowest && a == (type)lowest && b == (type)-1 ? 0 : a % b; \
  }
DIVISION(s32, int32_t, INT32_MIN)
DIVISION(s64, int64_t, INT64_MIN)
DIVISION(u32, uint32_t, 0)
DIVISION(u64, uint64_t, 0)

static inline uint64_t next_random(uint64_t *s) { *s ^= *s << 13; *s ^= *s >> 7; *s ^= *s << 17; return *s; }
static void shuffle(uint32_t *v, uint32_t n, uint64_t *s) {
  for (uint32_t i = n; i > 1; i--) { uint32_t j = next_random(s) % i, t = v[i - 1]; v[i - 1] = v[j]; v[j] = t; }
}
static inline uint64_t random_start(uint64_t seed) { return seed * 2654435761u + 88172645463325252ull; }
static char *new_shared(void) { return aligned_alloc(256, (SHARED_BYTES + 511) / 256 * 256); }
static void start_block(Context *c) {
  memset(c->shared, poison, SHARED_BYTES);
  memset(c->block, 0, sizeof(BlockState));
  c->block->all = 1;
#ifdef CHECK
  n_blocks_started++;
#endif
}
static void end_phase(BlockState *b) {
  b->was_any = b->any; b->were_all = b->all; b->n_were = b->n;
  b->any = 0; b->all = 1; b->n = 0;
}
