/* Checks of each access to global memory, and of the bounds of shared memory. */
enum { LOADS, STORES, CHANGES };                       /* what an access does; CHANGES: atomically */
enum { WRITTEN = 1, READ = 2, READ_BY_MANY = 4, CHANGED = 8 }; /* flags of a word */

static uint8_t nowhere[64]; /* for accesses that have no memory */
#define NOWHERE ((uint64_t)(uintptr_t)nowhere)

static __attribute__((noinline, cold)) void found(Context *c, uint32_t kind, uint32_t site, uint64_t at, uint32_t other) {
  Checker *k = c->checker;
  for (uint32_t i = 0; i < k->n_findings; i++)
    if (k->findings[i].kind == kind && k->findings[i].site == site) { k->findings[i].count++; return; }
  if (k->n_findings < k->max_findings)
    k->findings[k->n_findings++] = (Finding){kind, site, 1, at, c->cta * c->ntid + c->tid, other};
}
static inline int in_launch(Checker *k, uint64_t at, uint32_t n) {
  static uint32_t last = 0;
  if (last < k->n_regions && at >= k->regions[last].low && at + n <= k->regions[last].high) return 1;
  for (uint32_t i = 0; i < k->n_regions; i++)
    if (at >= k->regions[i].low && at + n <= k->regions[i].high) { last = i; return 1; }
  return 0;
}
/* Whether an access of another thread came before a barrier that this thread has passed, too. */
static inline int is_ordered(Context *c, uint32_t other, uint32_t phase) {
  return other / c->ntid == c->cta && phase < c->phase;
}
static void note_load(Context *c, Word *w, uint64_t at, uint32_t site) {
  uint32_t self = c->cta * c->ntid + c->tid;
  if ((w->flags & WRITTEN) && w->writer != self && !is_ordered(c, w->writer, w->written_at))
    found(c, READ_AFTER_WRITE, site, at, w->writer);
  int many = (w->flags & READ) && w->reader != self && !is_ordered(c, w->reader, w->read_at);
  w->flags = (w->flags & ~READ_BY_MANY) | READ | (many ? READ_BY_MANY : 0);
  w->reader = self;
  w->read_at = c->phase;
}
static void note_store(Context *c, Word *w, uint64_t at, uint32_t site, int what, int is_same) {
  uint32_t self = c->cta * c->ntid + c->tid;
  int read_by_others = w->reader != self ? !is_ordered(c, w->reader, w->read_at)
                                         : (w->flags & READ_BY_MANY) && w->read_at >= c->phase;
  if ((w->flags & READ) && read_by_others) found(c, WRITE_AFTER_READ, site, at, w->reader);
  if ((w->flags & WRITTEN) && w->writer != self && !is_ordered(c, w->writer, w->written_at) &&
      !(what == CHANGES && (w->flags & CHANGED)))
    found(c, is_same && what == STORES ? SAME_VALUE_WRITTEN : WRITE_AFTER_WRITE, site, at, w->writer);
  w->flags = (w->flags & ~CHANGED) | WRITTEN | (what == CHANGES ? CHANGED : 0);
  w->writer = self;
  w->written_at = c->phase;
}
static void note(Context *c, Word *w, uint32_t launch, uint64_t at, uint32_t site, int what, int is_same) {
  if (w->launch != launch) *w = (Word){.launch = launch};
  if (what == LOADS) note_load(c, w, at, site);
  else note_store(c, w, at, site, what, is_same);
}
static int holds(uint64_t at, uint32_t n, uint64_t value) {
  uint64_t now = 0;
  memcpy(&now, (void *)at, n);
  return now == value;
}
/* Returns the address, or that of memory where nothing can be harmed. */
static uint64_t checked(Context *c, uint64_t at, uint32_t n, uint32_t site, int what, uint64_t value) {
  Checker *k = c->checker;
  uint64_t o = at - k->base;
  if (at % n) found(c, MISALIGNED, site, at, 0);
  if (at < k->base || at + n > k->base + k->size || !k->state[o] || !k->state[o + n - 1]) {
    found(c, OUT_OF_BOUNDS, site, at, 0);
    return NOWHERE;
  }
  if (!in_launch(k, at, n)) found(c, NOT_A_PARAMETER, site, at, 0);
  if (what != STORES)
    for (uint32_t i = 0; i < n; i++)
      if (k->state[o + i] != 2) { found(c, UNINITIALISED, site, at, 0); break; }
  if (what != LOADS) memset(k->state + o, 2, n);
  for (uint32_t i = 0; i < n; i += 4)
    note(c, &k->words[(o + i) >> 2], k->launch, at, site, what, holds(at, n, value));
  return at;
}
/* The same for shared memory, which is new for each block of threads. */
static Word shared_words[SHARED_BYTES / 4 + 1];
static uint32_t n_blocks_started = 0;
static uint64_t checked_shared(Context *c, uint64_t at, uint32_t n, uint32_t site, int what, uint64_t value) {
  uint64_t o = at - SHARED_BASE;
  if (at % n) found(c, MISALIGNED, site, at, 0);
  if (at < SHARED_BASE || o + n > SHARED_BYTES) {
    found(c, SHARED_OUT_OF_BOUNDS, site, at, 0);
    return NOWHERE;
  }
  for (uint32_t i = 0; i < n; i += 4) {
    Word *w = &shared_words[(o + i) >> 2];
    int is_written = w->launch == n_blocks_started && (w->flags & WRITTEN);
    if (what != STORES && !is_written) found(c, UNINITIALISED, site, at, 0);
    note(c, w, n_blocks_started, at, site, what, holds(at, n, value));
  }
  return at;
}
