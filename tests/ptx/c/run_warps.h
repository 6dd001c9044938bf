/* Runs blocks one after the other, their warps in lockstep: of the lanes that stand at different basic blocks, those at
   the smallest number go first. Counts what is issued, and the accesses that caches and memory would see. */
typedef struct {
  const uint32_t *cost, *latency, *latency_hit; /* of each basic block: instructions; cycles, loads found in L1 or not */
  const uint8_t *is_load;                       /* of each instruction that accesses memory */
  uint64_t *thread_instructions, *warp_instructions, *warp_cycles, *block_cycles; /* issued, and spent */
  uint64_t *cycles_at;                          /* of warps, in each basic block */
  uint64_t *requests, *hits, *sectors, *lanes;  /* of each instruction that accesses memory */
  uint8_t *touched;                             /* of every 32 bytes of device memory */
  uint64_t base;                                /* of device memory */
} Counts;

enum { LANES = 32, MAX_ACCESSES = 8192, SECTOR_BITS = 5 };
#define CACHE 1024 /* sectors: a warp's share of the 256 kB of L1 where 8 warps are resident */

static uint64_t cached[CACHE], cached_by[CACHE], accesses[LANES][2 * MAX_ACCESSES];
static uint32_t n_accesses[LANES];

static int was_cached(uint64_t sector, uint64_t warp) {
  uint32_t place = sector * 2654435761u % CACHE;
  if (cached[place] == sector && cached_by[place] == warp) return 1;
  cached[place] = sector;
  cached_by[place] = warp;
  return 0;
}
/* The k-th access of each lane belongs to the same instruction, but for guarded ones. */
static void count_accesses(Counts *s, uint64_t warp, uint32_t mask, uint32_t n, uint64_t *loads, uint64_t *found) {
  for (uint32_t k = 0; k < n; k++) {
    uint64_t seen[LANES], n_seen = 0, site = 0, missed = 0;
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
      int lane = __builtin_ctz(rest);
      if (k >= n_accesses[lane]) continue;
      uint64_t sector = accesses[lane][2 * k] >> SECTOR_BITS, i = 0;
      site = accesses[lane][2 * k + 1];
      s->lanes[site]++;
      while (i < n_seen && seen[i] != sector) i++;
      if (i == n_seen) seen[n_seen++] = sector;
      missed |= !was_cached(sector, warp);
      s->touched[sector - (s->base >> SECTOR_BITS)] = 1;
    }
    s->requests[site]++;
    s->sectors[site] += n_seen;
    if (s->is_load[site]) { s->hits[site] += !missed; *loads += 1; *found += !missed; }
  }
}
static void issue(Context *c, Registers *registers, Counts *s, uint32_t first, uint64_t warp, int at, uint32_t mask) {
  uint32_t most = 0;
  uint64_t loads = 0, found = 0;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    int lane = __builtin_ctz(rest);
    c->tid = first + lane;
    c->accesses = accesses[lane];
    c->n_accesses = 0;
    registers[c->tid].at = block_run(c, &registers[c->tid], at);
    n_accesses[lane] = c->n_accesses;
    if (c->n_accesses > most) most = c->n_accesses;
    s->thread_instructions[(uint64_t)c->cta * c->ntid + c->tid] += s->cost[at];
  }
  count_accesses(s, warp, mask, most, &loads, &found);
  s->warp_instructions[warp] += s->cost[at];
  uint64_t of_misses = s->latency[at] - s->latency_hit[at];
  uint64_t cycles = s->latency_hit[at] + (loads ? of_misses * (loads - found) / loads : 0);
  s->warp_cycles[warp] += cycles;
  s->cycles_at[at] += cycles;
}
/* Runs a warp until each lane ended or waits at a barrier; returns whether any waits. */
static int run_warp(Context *c, Registers *registers, Counts *s, uint32_t first, uint64_t warp) {
  uint32_t n = c->ntid - first < LANES ? c->ntid - first : LANES;
  for (;;) {
    int at = INT32_MAX, waits = 0;
    uint32_t mask = 0;
    for (uint32_t lane = 0; lane < n; lane++) {
      int own = registers[first + lane].at;
      waits |= own < -1;
      if (own < 0 || own > at) continue;
      mask = own < at ? 1u << lane : mask | 1u << lane;
      at = own;
    }
    if (!mask) return waits;
    issue(c, registers, s, first, warp, at, mask);
  }
}
/* Between two barriers a block takes as long as its slowest warp. */
static void run_block(Context *c, Registers *registers, Counts *s) {
  uint32_t n_warps = (c->ntid + LANES - 1) / LANES;
  start_block(c);
  memset(registers, poison, sizeof(Registers) * (size_t)c->ntid);
  for (uint32_t t = 0; t < c->ntid; t++) registers[t].at = 0;
  for (int waits = 1; waits;) {
    uint64_t slowest = 0;
    waits = 0;
    for (uint32_t w = 0; w < n_warps; w++) {
      uint64_t warp = (uint64_t)c->cta * n_warps + w, before = s->warp_cycles[warp];
      waits |= run_warp(c, registers, s, w * LANES, warp);
      uint64_t cycles = s->warp_cycles[warp] - before;
      if (cycles > slowest) slowest = cycles;
    }
    s->block_cycles[c->cta] += slowest;
    end_phase(c->block);
    for (uint32_t t = 0; t < c->ntid; t++)
      if (registers[t].at < -1) {
        c->tid = t;
        registers[t].at = after_barrier(c, &registers[t], -2 - registers[t].at);
      }
  }
}
__attribute__((visibility("default"))) int run_warps(const char *parameters, uint32_t ncta, uint32_t ntid, Counts *s) {
  BlockState block;
  Context c = {.ntid = ntid, .ncta = ncta, .parameters = parameters, .shared = new_shared(), .block = &block};
  Registers *registers = malloc(sizeof(Registers) * (size_t)ntid);
  memset(cached_by, 0xff, sizeof cached_by);
  for (c.cta = 0; c.cta < ncta; c.cta++) run_block(&c, registers, s);
  free(registers);
  free(c.shared);
  return c.trapped;
}
