/* Runs the threads of some blocks at once, in turns of a few basic blocks drawn from `seed`. */
typedef struct {
  uint32_t cta;
  int n_live, n_waiting;
  char *shared;
  BlockState state;
  Registers *registers;
  uint8_t *waits;
} Resident;

static void start(Context *c, Resident *b, uint32_t number, uint32_t cta, uint32_t *turns, uint32_t *n_turns) {
  *b = (Resident){cta, c->ntid, 0, b->shared, {0}, b->registers, b->waits};
  c->shared = b->shared;
  c->block = &b->state;
  start_block(c);
  memset(b->registers, poison, sizeof(Registers) * (size_t)c->ntid);
  memset(b->waits, 0, c->ntid);
  for (uint32_t t = 0; t < c->ntid; t++) {
    b->registers[t].at = 0;
    turns[(*n_turns)++] = number * c->ntid + t;
  }
}
static void release(Context *c, Resident *b, uint32_t number, uint32_t *turns, uint32_t *n_turns) {
  end_phase(&b->state);
  b->n_waiting = 0;
  for (uint32_t t = 0; t < c->ntid; t++)
    if (b->waits[t]) {
      c->tid = t;
      b->waits[t] = 0;
      b->registers[t].at = after_barrier(c, &b->registers[t], -2 - b->registers[t].at);
      turns[(*n_turns)++] = number * c->ntid + t;
    }
}
__attribute__((visibility("default"))) int run_mixed(const char *parameters, uint32_t ncta, uint32_t ntid, uint64_t seed,
                                                     uint8_t poison_byte, uint32_t n_resident) {
  int status = 0;
  uint64_t random = random_start(seed);
  Context c = {.ntid = ntid, .ncta = ncta, .parameters = parameters};
  poison = poison_byte;
  if (n_resident > ncta) n_resident = ncta;
  uint32_t *order = malloc(4 * (size_t)ncta), *turns = malloc(4 * (size_t)n_resident * ntid), n_turns = 0, next = 0;
  for (uint32_t i = 0; i < ncta; i++) order[i] = i;
  shuffle(order, ncta, &random);
  Resident *resident = calloc(n_resident, sizeof(Resident));
  for (uint32_t i = 0; i < n_resident; i++) {
    resident[i] = (Resident){.shared = new_shared(), .registers = malloc(sizeof(Registers) * (size_t)ntid),
                             .waits = malloc(ntid)};
    start(&c, &resident[i], i, order[next++], turns, &n_turns);
  }
  while (n_turns) {
    uint32_t j = next_random(&random) % n_turns, number = turns[j] / ntid, t = turns[j] % ntid;
    Resident *b = &resident[number];
    Registers *r = &b->registers[t];
    c.cta = b->cta; c.tid = t; c.shared = b->shared; c.block = &b->state;
    uint32_t n_steps = 1 + (next_random(&random) & 7) * ((next_random(&random) & 3) == 0);
    while (n_steps-- && r->at >= 0) r->at = block_run(&c, r, r->at);
    if (c.trapped) { status |= 1; c.trapped = 0; }
    if (r->at >= 0) continue;
    turns[j] = turns[--n_turns];
    if (r->at == -1) b->n_live--;
    else { b->waits[t] = 1; b->n_waiting++; }
    if (b->n_live && b->n_waiting == b->n_live) release(&c, b, number, turns, &n_turns);
    else if (!b->n_live && next < ncta) start(&c, b, number, order[next++], turns, &n_turns);
  }
  for (uint32_t i = 0; i < n_resident; i++) {
    free(resident[i].shared); free(resident[i].registers); free(resident[i].waits);
  }
  free(resident); free(order); free(turns);
  return status;
}
