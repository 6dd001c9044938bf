/* Runs the threads of a grid, each up to its next barrier, in order or in an order drawn from `seed`. */
enum { TRAPPED = 1, AT_DIFFERENT_BARRIERS = 2, ENDED_BEFORE_BARRIER = 4 };

#if HAS_BARRIERS
enum { RUNS, ENDED };
static int run_block(Context *c, Registers *registers, uint8_t *state, uint32_t *order, uint64_t *random) {
  int status = 0;
  start_block(c);
  for (uint32_t t = 0; t < c->ntid; t++) {
    order[t] = t;
    state[t] = RUNS;
    memset(&registers[t], poison, sizeof(Registers));
    registers[t].at = 0;
  }
  for (c->phase = 0;; c->phase++) {
    uint32_t n_waiting = 0;
    int at = -1;
    if (*random) shuffle(order, c->ntid, random);
    for (uint32_t j = 0; j < c->ntid; j++) {
      uint32_t t = order[j];
      if (state[t] == ENDED) continue;
      c->tid = t;
      int waits = thread_run(c, &registers[t]);
      if (waits <= 0) { state[t] = ENDED; status |= waits < 0 ? TRAPPED : 0; continue; }
      n_waiting++;
      if (at >= 0 && at != registers[t].at) status |= AT_DIFFERENT_BARRIERS;
      at = registers[t].at;
    }
    if (!n_waiting) return status;
    if (n_waiting < c->ntid) status |= ENDED_BEFORE_BARRIER;
    end_phase(c->block);
  }
}
#endif

__attribute__((visibility("default"))) int run_grid(const char *parameters, uint32_t ncta, uint32_t ntid, uint64_t seed,
                                                    uint8_t poison_byte, Checker *checker) {
  int status = 0;
  uint64_t random = seed ? random_start(seed) : 0;
  BlockState block;
  Context c = {.ntid = ntid, .ncta = ncta, .parameters = parameters, .shared = new_shared(), .block = &block,
               .checker = checker};
  poison = poison_byte;
#if HAS_BARRIERS
  uint32_t *blocks = malloc(4 * (size_t)ncta), *order = malloc(4 * (size_t)ntid);
  Registers *registers = malloc(sizeof(Registers) * ntid);
  uint8_t *state = malloc(ntid);
  for (uint32_t i = 0; i < ncta; i++) blocks[i] = i;
  if (seed) shuffle(blocks, ncta, &random);
  for (uint32_t i = 0; i < ncta; i++) {
    c.cta = blocks[i];
    status |= run_block(&c, registers, state, order, &random);
  }
  free(blocks); free(order); free(registers); free(state);
#else
  size_t n = (size_t)ncta * ntid;
  uint32_t *order = malloc(4 * n);
  Registers unused;
  for (size_t i = 0; i < n; i++) order[i] = i;
  if (seed) shuffle(order, n, &random);
  for (size_t i = 0; i < n; i++) {
    c.cta = order[i] / ntid;
    c.tid = order[i] % ntid;
    if (thread_run(&c, &unused) < 0) status |= TRAPPED;
  }
  free(order);
#endif
  free(c.shared);
  return status;
}
