/* One loaded program: its tables, registers and counters, and what its actions do to them. */
#include <string.h>

#include "internal.h"

/* A default action's meter that nobody has set leaves the field alone, as in bmv2. */
static struct sn_result missed(struct sn_ctx *c, struct sn_table *t) {
    t->default_hits.packets++;
    t->default_hits.bytes += c->ingress_len;
    struct sn_meter *m = t->default_meter;
    int metered = m && m->configured;
    if (metered) c->color = sn_meter_run(m, t->desc->with_meter, c->ingress_len, c->now_ns);
    return (struct sn_result){t->default_params, t->default_action, 0, (uint16_t)metered};
}

struct sn_result sn_table_apply(struct sn_ctx *c, uint32_t table, const uint64_t *key) {
    struct sn_table *t = &c->pipe->tables[table];
    struct sn_entry *e = NULL;
    if (c->ahead_table == t)
        e = sn_table_resume(t, key, c->ahead_hash);
    else if (t->count)
        e = sn_table_lookup(t, key);
    c->ahead_table = NULL;
    if (!e) return missed(c, t);
    e->last_hit = c->now_ns;
    e->packets++;
    e->bytes += c->ingress_len;
    uint32_t kind = t->desc->with_meter;
    if (SN_UNLIKELY(kind))
        c->color = sn_meter_run(sn_entry_meter(t, e), kind, c->ingress_len, c->now_ns);
    return (struct sn_result){sn_entry_params(t, e), e->action, 1, kind != 0};
}

int sn_vset_has(struct sn_ctx *c, uint32_t vset, const uint8_t *key) {
    uint32_t n = c->pipe->prog->vsets[vset].key_size;
    const struct sn_vset *v = &c->pipe->vsets[vset];
    for (uint32_t i = 0; i < v->n; i++) {
        const uint8_t *row = v->rows + (size_t)i * 4 * n;
        uint8_t differs = 0;
        for (uint32_t k = 0; k < n; k++) differs |= (key[k] ^ row[k]) & row[n + k];
        for (uint32_t r = 0; r < v->n_ranges && !differs; r++) {
            uint32_t at = v->ranges[r][0], size = v->ranges[r][1];
            differs = memcmp(key + at, row + 2 * n + at, size) < 0 ||
                      memcmp(key + at, row + 3 * n + at, size) > 0;
        }
        if (!differs) return 1;
    }
    return 0;
}

void sn_say(struct sn_ctx *c, uint32_t message, const sn_u128 *args, uint32_t n) {
    struct sn_device *d = c->pipe->dev;
    if (!d->listening) return;
    struct sn_event_rec *e = sn_event_new(SN_MESSAGE, message, n * 16);
    for (uint32_t i = 0; e && i < n; i++) sn_st128(e->data + (size_t)i * 16, args[i]);
    if (sn_ring_put(&d->ring, e) < 0) sn_drop(d, d->cpu_port, SN_DROP_EVENT_FULL);
}

uint64_t *sn_register64(struct sn_ctx *c, uint32_t reg, uint64_t index) {
    if (SN_LIKELY(index < c->pipe->prog->registers[reg].cells))
        return (uint64_t *)c->pipe->registers[reg] + index;
    sn_note(c, SN_EV_INDEX);
    return NULL;
}

sn_u128 *sn_register128(struct sn_ctx *c, uint32_t reg, uint64_t index) {
    if (SN_LIKELY(index < c->pipe->prog->registers[reg].cells))
        return (sn_u128 *)c->pipe->registers[reg] + index;
    sn_note(c, SN_EV_INDEX);
    return NULL;
}

uint8_t *sn_register_wide(struct sn_ctx *c, uint32_t reg, uint64_t index) {
    const struct sn_array_desc *r = &c->pipe->prog->registers[reg];
    if (SN_LIKELY(index < r->cells))
        return (uint8_t *)c->pipe->registers[reg] + index * sn_register_cell(r);
    sn_note(c, SN_EV_INDEX);
    return NULL;
}

void sn_count(struct sn_ctx *c, uint32_t counter, uint64_t index) {
    if (SN_UNLIKELY(index >= c->pipe->prog->counters[counter].cells)) {
        sn_note(c, SN_EV_INDEX);
        return;
    }
    struct sn_counter_cell *cell = &c->pipe->counters[counter][index];
    cell->packets++;
    cell->bytes += c->ingress_len;
}

uint64_t sn_random(struct sn_ctx *c, uint64_t low, uint64_t high) {
    uint64_t x = c->pipe->random += 0x9e3779b97f4a7c15ull; /* splitmix64 */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    x ^= x >> 31;
    if (low > high) return low;
    uint64_t span = high - low + 1;
    return span ? low + (uint64_t)(((sn_u128)x * span) >> 64) : x;
}

static int fill_table(struct sn_table *t, const struct sn_table_desc *d, uint64_t now) {
    for (uint32_t i = 0; i < d->n_entries; i++) {
        const struct sn_const_entry *e = &d->entries[i];
        struct sn_table_key k = {e->key, e->mask, e->priority};
        struct sn_deed deed = {e->action, e->params, 0, NULL};
        if (sn_table_insert(t, &k, &deed, now, 1) == SN_FULL) return -1;
    }
    return 0;
}

/* A word, two, or (above 128 bits) the number's bytes, most significant first. */
size_t sn_register_cell(const struct sn_array_desc *r) {
    return r->bits <= 64 ? 8 : r->bits <= 128 ? 16 : (r->bits + 7) / 8;
}

struct sn_pipe *sn_pipe_new(const struct sn_program *prog, struct sn_device *dev, uint64_t now,
                            uint64_t seed) {
    struct sn_pipe *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->prog = prog;
    p->dev = dev;
    p->random = seed;
    p->tables = calloc(prog->n_tables + 1, sizeof *p->tables);
    p->registers = calloc(prog->n_registers + 1, sizeof *p->registers);
    p->counters = calloc(prog->n_counters + 1, sizeof *p->counters);
    p->meters = calloc(prog->n_meters + 1, sizeof *p->meters);
    p->profiles = calloc(prog->n_profiles + 1, sizeof *p->profiles);
    p->vsets = calloc(prog->n_vsets + 1, sizeof *p->vsets);
    p->foreseen = calloc(prog->n_tables + 1, sizeof *p->foreseen);
    int ok = p->tables && p->registers && p->counters && p->meters && p->profiles && p->vsets &&
             p->foreseen;
    for (uint32_t i = 0; ok && i < prog->n_profiles; i++) p->profiles[i].desc = &prog->profiles[i];
    for (uint32_t i = 0; ok && i < prog->n_tables; i++)
        ok = sn_table_init(&p->tables[i], &prog->tables[i], (seed + i) * 0x9e3779b97f4a7c15ull) == 0 &&
             fill_table(&p->tables[i], &prog->tables[i], now) == 0;
    for (uint32_t i = 0; ok && i < prog->n_tables; i++)
        if (sn_table_may_be_large(&p->tables[i])) p->foreseen[p->n_foreseen++] = i;
    for (uint32_t i = 0; ok && i < prog->n_registers; i++) {
        const struct sn_array_desc *r = &prog->registers[i];
        ok = (p->registers[i] = calloc((size_t)r->cells + 1, sn_register_cell(r))) != NULL;
    }
    for (uint32_t i = 0; ok && i < prog->n_counters; i++)
        ok = (p->counters[i] = calloc((size_t)prog->counters[i].cells + 1,
                                      sizeof(struct sn_counter_cell))) != NULL;
    for (uint32_t i = 0; ok && i < prog->n_meters; i++)
        ok = (p->meters[i] = calloc((size_t)prog->meters[i].cells + 1,
                                    sizeof(struct sn_meter))) != NULL;
    if (ok) return p;
    sn_pipe_free(p);
    return NULL;
}

void sn_pipe_free(struct sn_pipe *p) {
    if (!p) return;
    for (uint32_t i = 0; p->tables && i < p->prog->n_tables; i++) sn_table_free(&p->tables[i]);
    for (uint32_t i = 0; p->registers && i < p->prog->n_registers; i++) free(p->registers[i]);
    for (uint32_t i = 0; p->counters && i < p->prog->n_counters; i++) free(p->counters[i]);
    for (uint32_t i = 0; p->meters && i < p->prog->n_meters; i++) free(p->meters[i]);
    for (uint32_t i = 0; p->profiles && i < p->prog->n_profiles; i++)
        sn_profile_free(&p->profiles[i]);
    for (uint32_t i = 0; p->vsets && i < p->prog->n_vsets; i++) {
        free(p->vsets[i].rows);
        free(p->vsets[i].ranges);
    }
    free(p->meters);
    free(p->profiles);
    free(p->vsets);
    free(p->foreseen);
    free(p->tables);
    free(p->registers);
    free(p->counters);
    free(p);
}
