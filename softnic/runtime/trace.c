/*
 * What one packet went through, as records of the traced build (compiler/probes.py) and of the
 * switch, one after another. After each record come the fields that changed since: the values are
 * compared with what they were, so that no statement of a program needs a probe of its own.
 *
 *     begin  pass  state changes.. state changes..  parsed  table action changes..  ..  out  end
 *
 * A packet's records go as one event to a bounded ring; what doesn't fit is counted.
 */
#include <string.h>

#include "internal.h"

#define MOST_BYTES (1u << 20) /* of one packet's records */
#define RING_TRACES 4096u
#define RING_BYTES (64u << 20)

struct record {
    uint32_t size;
    uint16_t kind, depth;
    uint32_t id, a, b, len; /* len: bytes of data, which are padded to 8 */
};

struct shadow {
    struct sn_std std;
    uint8_t *phv;
};

struct sn_trace {
    struct sn_ring ring;
    uint64_t missed; /* traces that the ring had no room for */
    struct shadow shadows[SN_MAX_DEPTH];
    uint32_t phv_size;
    const struct sn_burst *burst; /* of the packet that is traced now */
    const struct sn_ctx *last;    /* whose changes aren't recorded yet */
    uint32_t len, cut;
    uint8_t buf[MOST_BYTES];
};

static uint32_t depth_of(const struct sn_trace *t, const struct sn_ctx *c) {
    return (uint32_t)((const struct sn_phv_slot *)c - t->burst->slots);
}

static void add(struct sn_trace *t, const struct sn_ctx *c, enum sn_trace_kind kind, uint32_t id,
                uint32_t a, uint32_t b, const void *data, uint32_t len) {
    uint32_t size = (uint32_t)((sizeof(struct record) + len + 7) & ~7u);
    /* The end always fits. */
    if (kind != SN_TRACE_END && t->len + size + sizeof(struct record) > MOST_BYTES) {
        t->cut++;
        return;
    }
    struct record r = {size, (uint16_t)kind, (uint16_t)(c ? depth_of(t, c) : 0), id, a, b, len};
    memset(t->buf + t->len, 0, size);
    memcpy(t->buf + t->len, &r, sizeof r);
    if (len) memcpy(t->buf + t->len + sizeof r, data, len);
    t->len += size;
}

/* ---- changes ----------------------------------------------------------------------------- */

static const uint8_t *place(const struct sn_trace_field *f, const void *std, const void *phv) {
    return (const uint8_t *)(f->in_std ? std : phv) + f->offset;
}

static int is_valid(const struct sn_trace_field *f, const uint8_t *phv) {
    return f->valid_at == SN_NONE || phv[f->valid_at];
}

static int varbit_changed(const struct sn_trace_field *f, const uint8_t *now, const uint8_t *was) {
    return f->bits_at != SN_NONE && memcmp(now + f->bits_at, was + f->bits_at, 4) != 0;
}

static void add_value(struct sn_trace *t, const struct sn_ctx *c, uint32_t id,
                      const struct sn_trace_field *f) {
    const uint8_t *at = place(f, &c->std, c->phv);
    uint32_t n = f->size;
    if (f->bits_at != SN_NONE) {
        uint32_t bits;
        memcpy(&bits, (const uint8_t *)c->phv + f->bits_at, 4);
        n = (bits + 7) / 8 < n ? (bits + 7) / 8 : n;
    }
    if (f->is_bytes) {
        add(t, c, SN_TRACE_CHANGE, id, 0, 0, at, n);
        return;
    }
    uint8_t value[16];
    for (uint32_t i = 0; i < n; i++) value[i] = at[n - 1 - i]; /* little-endian hosts */
    add(t, c, SN_TRACE_CHANGE, id, 0, 0, value, n);
}

static void settle(struct sn_trace *t) {
    const struct sn_ctx *c = t->last;
    t->last = NULL;
    if (!c) return;
    const struct sn_program *g = c->pipe->prog;
    struct shadow *s = &t->shadows[depth_of(t, c)];
    for (uint32_t i = 0; i < g->n_trace_fields; i++) {
        const struct sn_trace_field *f = &g->trace_fields[i];
        if (!is_valid(f, c->phv)) continue;
        const uint8_t *now = place(f, &c->std, c->phv), *was = place(f, &s->std, s->phv);
        /* Of a header that became valid, all fields. */
        if (!is_valid(f, s->phv) || memcmp(now, was, f->size) || varbit_changed(f, c->phv, s->phv))
            add_value(t, c, i, f);
    }
    s->std = c->std;
    memcpy(s->phv, c->phv, g->phv_size);
}

static struct sn_trace *record(const struct sn_ctx *c) {
    struct sn_trace *t = c->pipe->dev->trace;
    if (!t || !t->burst) return NULL;
    settle(t);
    t->last = c;
    return t;
}

/* ---- of the program ---------------------------------------------------------------------- */

void sn_trace_state(struct sn_ctx *c, uint32_t state) {
    struct sn_trace *t = record(c);
    if (t) add(t, c, SN_TRACE_STATE, state, 0, 0, NULL, 0);
}

void sn_trace_parsed(struct sn_ctx *c) {
    struct sn_trace *t = record(c);
    if (t) add(t, c, SN_TRACE_PARSED, 0, c->std.parser_error, c->parsed, NULL, 0);
}

struct sn_result sn_trace_apply(struct sn_ctx *c, uint32_t table, const uint64_t *key) {
    struct sn_trace *t = record(c);
    const struct sn_table *tb = &c->pipe->tables[table];
    const struct sn_entry *e = t && tb->count ? sn_table_lookup(&c->pipe->tables[table], key) : NULL;
    struct sn_result r = sn_table_apply(c, table, key);
    if (!t) return r;
    uint8_t data[8 + 256];
    uint32_t more[2] = {e ? e->index : SN_NONE, e ? sn_cold(tb, e)->priority : 0};
    memcpy(data, more, sizeof more);
    memcpy(data + sizeof more, key, tb->desc->key_size);
    add(t, c, SN_TRACE_TABLE, table, r.hit, r.action, data,
        (uint32_t)sizeof more + tb->desc->key_size);
    return r;
}

void sn_trace_pick(struct sn_ctx *c, uint32_t profile, struct sn_result entry,
                   struct sn_result picked) {
    const struct sn_profile_desc *d = &c->pipe->prog->profiles[profile];
    if (!entry.hit || entry.action < d->n_actions || entry.action == SN_NONE) return;
    struct sn_trace *t = record(c);
    uint32_t ids[2] = {(uint32_t)sn_ld32(entry.params), SN_NONE};
    if (picked.params)
        ids[1] = ((const struct sn_member *)(picked.params - offsetof(struct sn_member, params)))->id;
    if (t) add(t, c, SN_TRACE_PICK, profile, entry.action - d->n_actions, 0, ids, sizeof ids);
}

void sn_trace_action(struct sn_ctx *c, uint32_t action, const uint8_t *params, uint32_t size) {
    struct sn_trace *t = record(c);
    if (t) add(t, c, SN_TRACE_ACTION, action, 0, 0, params, size);
}

void sn_trace_if(struct sn_ctx *c, uint32_t conditional, int value) {
    struct sn_trace *t = record(c);
    if (t) add(t, c, SN_TRACE_IF, conditional, value != 0, 0, NULL, 0);
}

void sn_trace_step(struct sn_ctx *c, uint32_t step, const sn_u128 *values, uint32_t n) {
    struct sn_trace *t = record(c);
    uint8_t data[16 * 64];
    if (n > 64) n = 64;
    for (uint32_t i = 0; i < n; i++) sn_st128(data + (size_t)i * 16, values[i]);
    if (t) add(t, c, SN_TRACE_STEP, step, 0, 0, data, 16 * n);
}

/* ---- of the switch ----------------------------------------------------------------------- */

void sn_trace_put(struct sn_device *d, const struct sn_ctx *c, enum sn_trace_kind kind,
                  uint32_t id, uint32_t a, uint32_t b) {
    struct sn_trace *t = d->trace;
    if (!t->burst) return;
    settle(t);
    t->last = c;
    add(t, c, kind, id, a, b, NULL, 0);
}

void sn_trace_out(struct sn_device *d, const struct sn_ctx *c, const struct sn_out *o) {
    struct sn_trace *t = d->trace;
    if (!t->burst) return;
    settle(t);
    uint32_t at = t->len, head = o->head_len, total = head + o->payload_len;
    add(t, c, SN_TRACE_OUT, 0, o->port, total, o->head, head);
    uint32_t room = (uint32_t)((sizeof(struct record) + total + 7) & ~7u);
    if (t->len == at || at + room + sizeof(struct record) > MOST_BYTES) return;
    struct record *r = (struct record *)(t->buf + at);
    memset(t->buf + at + sizeof *r + head, 0, room - sizeof *r - head);
    if (o->payload_len) memcpy(t->buf + at + sizeof *r + head, o->payload, o->payload_len);
    r->size = room;
    r->len = total;
    t->len = at + room;
}

void sn_trace_open(struct sn_device *d, struct sn_ctx *c) {
    struct sn_trace *t = d->trace;
    if (!t->burst) return;
    settle(t);
    struct shadow *s = &t->shadows[depth_of(t, c)];
    s->std = c->std;
    memcpy(s->phv, c->phv, c->pipe->prog->phv_size);
}

static int fit(struct sn_trace *t, uint32_t phv_size) {
    if (phv_size <= t->phv_size) return 0;
    for (uint32_t i = 0; i < SN_MAX_DEPTH; i++) {
        uint8_t *p = realloc(t->shadows[i].phv, phv_size);
        if (!p) return -1;
        t->shadows[i].phv = p;
    }
    t->phv_size = phv_size;
    return 0;
}

void sn_trace_begin(struct sn_device *d, const struct sn_burst *b, const struct sn_frame *f) {
    struct sn_trace *t = d->trace;
    if (!d->pipe->prog->n_trace_fields || fit(t, d->pipe->prog->phv_size) < 0) return;
    t->burst = b;
    t->last = NULL;
    t->len = t->cut = 0;
    uint64_t ns = b->now_ns - d->start_ns;
    add(t, NULL, SN_TRACE_BEGIN, 0, f->port, f->len, &ns, sizeof ns);
}

void sn_trace_end(struct sn_device *d) {
    struct sn_trace *t = d->trace;
    if (!t->burst) return;
    settle(t);
    add(t, NULL, SN_TRACE_END, 0, t->cut, 0, NULL, 0);
    struct sn_event_rec *e = sn_event_new(SN_TRACE, 0, t->len);
    if (e) memcpy(e->data, t->buf, t->len);
    if (sn_ring_put(&t->ring, e) < 0) t->missed++;
    t->burst = NULL;
}

void sn_trace_close(struct sn_device *d) {
    if (d->trace) sn_ring_close(&d->trace->ring);
}

void sn_trace_free(struct sn_device *d) {
    struct sn_trace *t = d->trace;
    if (!t) return;
    for (uint32_t i = 0; i < SN_MAX_DEPTH; i++) free(t->shadows[i].phv);
    sn_ring_free(&t->ring);
    free(t);
    d->trace = NULL;
}

/* From now on every packet is traced, under programs of the traced build. 0, or -1: no memory. */
SN_EXPORT int sn_trace_start(struct sn_device *d) {
    struct sn_trace *t = calloc(1, sizeof *t);
    if (!t || sn_ring_init(&t->ring, RING_TRACES, RING_BYTES) < 0) {
        free(t);
        return -1;
    }
    sn_lock(&d->lock);
    struct sn_trace *old = d->trace;
    if (!old) d->trace = t;
    sn_unlock(&d->lock);
    if (old) {
        sn_ring_free(&t->ring);
        free(t);
    }
    return 0;
}

/* As sn_events; `missed`: how many traces there was no room for, so far. */
SN_EXPORT uint64_t sn_traces(struct sn_device *d, uint8_t *buf, uint64_t cap, int64_t timeout_ns,
                             uint64_t *missed) {
    uint64_t n = sn_ring_read(&d->trace->ring, buf, cap, timeout_ns);
    sn_lock(&d->lock);
    *missed = d->trace->missed;
    sn_unlock(&d->lock);
    return n;
}
