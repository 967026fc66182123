/*
 * What the control plane calls, through ctypes: any thread, blocking for one burst at most.
 * Batches cross as packed records, so that a thousand entries cost one call.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "internal.h"

#define LOCKED_UPDATES 32u /* as many before a burst may go in between */
#define RING_EVENTS 8192u
#define RING_BYTES (64u << 20)

SN_EXPORT struct sn_device *sn_device_new(uint32_t cpu_port, uint32_t drop_port) {
    struct sn_device *d = calloc(1, sizeof *d);
    if (!d) return NULL;
    d->cpu_port = cpu_port;
    d->drop_port = drop_port;
    d->start_ns = sn_now();
    d->epoll_fd = d->wake_fd = d->link_fd = -1;
    d->cpu.number = cpu_port;
    d->cpu.fd = d->other.fd = -1;
    pthread_mutex_init(&d->inject_mutex, NULL);
    pthread_mutex_init(&d->out_mutex, NULL);
    pthread_mutex_init(&d->ports_mutex, NULL);
    if (sn_ring_init(&d->ring, RING_EVENTS, RING_BYTES) < 0 ||
        sn_ring_init(&d->punts, RING_EVENTS, RING_BYTES) < 0 ||
        sn_burst_init(&d->worker_burst) < 0 || sn_burst_init(&d->inject_burst) < 0)
        return NULL;
    return d;
}

SN_EXPORT int sn_device_add_port(struct sn_device *d, uint32_t number, const char *ifname) {
    if (d->n_ports == SN_MAX_PORTS || number >= SN_MAX_PORTS || d->by_number[number]) return -EINVAL;
    struct sn_port *p = &d->ports[d->n_ports++];
    p->number = number;
    p->fd = -1;
    snprintf(p->ifname, sizeof p->ifname, "%s", ifname);
    d->by_number[number] = p;
    return 0;
}

SN_EXPORT int sn_device_start(struct sn_device *d) {
    return sn_io_start(d) < 0 ? -(errno ? errno : ENOMEM) : 0;
}

SN_EXPORT void sn_device_stop(struct sn_device *d) {
    sn_ring_close(&d->ring);
    sn_trace_close(d);
    sn_ring_close(&d->punts);
    sn_io_stop(d);
}

static void group_clear(struct sn_group *g) {
    free(g->replicas); /* their ways are in the same block */
    g->replicas = NULL;
}

static void groups_free(struct sn_groups *g) {
    for (uint32_t i = 0; i < g->n; i++) group_clear(&g->items[i]);
    free(g->items);
    g->items = NULL;
    g->n = 0;
}

/* After sn_device_stop, when no other thread is in a call any more. */
SN_EXPORT void sn_device_free(struct sn_device *d) {
    sn_pipe_free(d->pipe);
    sn_trace_free(d);
    sn_ring_free(&d->ring);
    sn_ring_free(&d->punts);
    sn_burst_free(&d->worker_burst);
    sn_burst_free(&d->inject_burst);
    groups_free(&d->sessions);
    groups_free(&d->groups);
    free(d);
}

SN_EXPORT int sn_device_load(struct sn_device *d, const struct sn_program *prog) {
    if (prog->abi != SN_ABI) return -EPROTO;
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != sizeof seed) seed = sn_now();
    struct sn_pipe *fresh = sn_pipe_new(prog, d, sn_now(), seed);
    if (!fresh) return -ENOMEM;
    sn_lock(&d->lock);
    struct sn_pipe *old = d->pipe;
    d->pipe = fresh;
    sn_unlock(&d->lock);
    sn_pipe_free(old);
    return 0;
}

/* Between these two no Write of the server comes in. Blocks while one is under way. */
SN_EXPORT void sn_entities_lock(struct sn_device *d) {
    sn_lock(&d->entities);
}

SN_EXPORT void sn_entities_unlock(struct sn_device *d) {
    sn_unlock(&d->entities);
}

/* Between these two no packet passes; this thread's calls go on. They may be nested. */
SN_EXPORT void sn_packets_hold(struct sn_device *d) {
    sn_hold(d);
}

SN_EXPORT void sn_packets_release(struct sn_device *d) {
    sn_release(d);
}

/* ---- tables ------------------------------------------------------------------------------ */

/* Followed by key, mask (key_size bytes each), parameters and note, padded to 8 bytes. */
struct update {
    uint32_t size;
    uint16_t op, action;
    uint32_t table, priority;
    uint64_t timeout, note_number;
    uint32_t note_len, unused;
};

static enum sn_status put(struct sn_table *t, const struct update *u,
                          const struct sn_table_key *k, const uint8_t *params, uint64_t now) {
    int failed = 0;
    const uint8_t *note = params + t->desc->params_size[u->action];
    struct sn_deed deed = {u->action, params, u->timeout,
                           sn_note_new(u->note_number, note, u->note_len, &failed)};
    if (failed) return SN_FULL;
    enum sn_status st = u->op == SN_OP_INSERT ? sn_table_insert(t, k, &deed, now, 0)
                                           : sn_table_modify(t, k, &deed, now);
    if (st != SN_OK) free(deed.note);
    return st;
}

/* As `put` and the deletion, with the references that entries hold on members and groups. */
static enum sn_status put_indirect(struct sn_profile *p, struct sn_table *t, const struct update *u,
                                   const struct sn_table_key *k, const uint8_t *params,
                                   uint64_t now) {
    uint32_t old_action = SN_NONE;
    uint8_t old[4] = {0};
    struct sn_entry *e = u->op == SN_OP_INSERT ? NULL : sn_table_find(t, k);
    if (e) {
        old_action = e->action;
        memcpy(old, sn_entry_params(t, e), 4);
    }
    if (u->op != SN_OP_DELETE && sn_profile_ref(p, u->action, params, 1) < 0) return SN_INVALID;
    enum sn_status st = u->op == SN_OP_DELETE ? sn_table_delete(t, k) : put(t, u, k, params, now);
    if (st == SN_OK && old_action != SN_NONE) sn_profile_ref(p, old_action, old, -1);
    if (st != SN_OK && u->op != SN_OP_DELETE) sn_profile_ref(p, u->action, params, -1);
    return st;
}

static enum sn_status apply(struct sn_pipe *p, const struct update *u, uint64_t now) {
    if (!p || u->table >= p->prog->n_tables) return SN_INVALID;
    struct sn_table *t = &p->tables[u->table];
    const uint8_t *key = (const uint8_t *)(u + 1);
    uint32_t n = t->desc->key_size;
    if (t->desc->n_fields == 0 || sizeof *u + 2 * n > u->size) return SN_INVALID;
    struct sn_table_key k = {key, key + n, t->by_prio ? u->priority : 0};
    int indirect = t->desc->profile != SN_NONE;
    if (u->op == SN_OP_DELETE && !indirect) return sn_table_delete(t, &k);
    if (u->op != SN_OP_DELETE &&
        (u->action >= t->desc->n_actions ||
         sizeof *u + 2 * n + t->desc->params_size[u->action] + u->note_len > u->size))
        return SN_INVALID;
    if (indirect)
        return put_indirect(&p->profiles[t->desc->profile], t, u, &k, key + 2 * n, now);
    return put(t, u, &k, key + 2 * n, now);
}

SN_EXPORT void sn_write(struct sn_device *d, const uint8_t *records, uint32_t n, uint8_t *status) {
    for (uint32_t i = 0; i < n;) {
        sn_enter(d);
        uint64_t now = sn_now();
        for (uint32_t stop = i + LOCKED_UPDATES; i < n && i < stop; i++) {
            const struct update *u = (const struct update *)records;
            status[i] = (uint8_t)apply(d->pipe, u, now);
            records += u->size;
        }
        sn_leave(d);
    }
}

/* An entry as it is read back; followed by key, mask (exact: ones), parameters and note. */
struct reading {
    uint32_t size, action, priority, is_const;
    uint64_t timeout, packets, bytes, idle, note_number;
    uint32_t note_len, unused;
};

static uint32_t put_entry(const struct sn_table *t, const struct sn_entry *e, uint8_t *buf,
                          uint64_t now) {
    uint32_t n = t->desc->key_size, m = t->desc->params_size[e->action];
    struct reading *r = (struct reading *)buf;
    const struct sn_cold *cold = sn_cold(t, e);
    *r = (struct reading){0, e->action, cold->priority, e->is_const, cold->timeout, e->packets, e->bytes,
                          now > e->last_hit ? now - e->last_hit : 0, 0, 0, 0};
    uint8_t *at = buf + sizeof *r;
    memcpy(at, sn_entry_key(e), n);
    if (sn_entry_mask(t, e))
        memcpy(at + n, sn_entry_mask(t, e), n);
    else
        memset(at + n, 0xff, n);
    memcpy(at + 2 * n, sn_entry_params(t, e), m);
    if (cold->note) {
        r->note_number = cold->note->number;
        r->note_len = cold->note->len;
        memcpy(at + 2 * n + m, cold->note->bytes, cold->note->len);
    }
    return r->size = (uint32_t)((sizeof *r + 2 * n + m + r->note_len + 7) & ~7u);
}

static uint32_t entry_room(const struct sn_table *t) {
    return (uint32_t)sizeof(struct reading) + 2 * t->desc->key_size + t->desc->max_params +
           SN_MAX_NOTE + 8;
}

/* Reads on from *cursor (0 at first) as much as `buf` holds; returns bytes, 0 at the end. */
SN_EXPORT uint64_t sn_entries(struct sn_device *d, uint32_t table, uint32_t *cursor, uint8_t *buf,
                              uint64_t cap) {
    uint64_t at = 0;
    int more = 1;
    while (more && at == 0) {
        sn_enter(d);
        if (!d->pipe || table >= d->pipe->prog->n_tables) {
            more = 0;
        } else {
            struct sn_table *t = &d->pipe->tables[table];
            uint64_t now = sn_now();
            for (uint32_t k = 0; k < 1024 && at + entry_room(t) <= cap; k++) {
                if (*cursor >= t->next_index) {
                    more = 0;
                    break;
                }
                struct sn_entry *e = sn_table_at(t, (*cursor)++);
                if (e) at += put_entry(t, e, buf + at, now);
            }
        }
        sn_leave(d);
    }
    return at;
}

static struct sn_entry *find(struct sn_device *d, uint32_t table, const uint8_t *key,
                             const uint8_t *mask, uint32_t priority, struct sn_table **out) {
    if (!d->pipe || table >= d->pipe->prog->n_tables) return NULL;
    struct sn_table *t = *out = &d->pipe->tables[table];
    struct sn_table_key k = {key, mask, t->by_prio ? priority : 0};
    return t->desc->n_fields ? sn_table_find(t, &k) : NULL;
}

/* 0 where there is no such entry, else the bytes written (as sn_entries). */
SN_EXPORT uint32_t sn_entry_read(struct sn_device *d, uint32_t table, const uint8_t *key,
                                 const uint8_t *mask, uint32_t priority, uint8_t *buf,
                                 uint32_t cap) {
    struct sn_table *t;
    sn_enter(d);
    struct sn_entry *e = find(d, table, key, mask, priority, &t);
    uint32_t n = e && entry_room(t) <= cap ? put_entry(t, e, buf, sn_now()) : 0;
    sn_leave(d);
    return n;
}

SN_EXPORT uint32_t sn_entry_set_counter(struct sn_device *d, uint32_t table, const uint8_t *key,
                                        const uint8_t *mask, uint32_t priority, uint64_t packets,
                                        uint64_t bytes) {
    struct sn_table *t;
    sn_enter(d);
    struct sn_entry *e = find(d, table, key, mask, priority, &t);
    if (e) e->packets = packets, e->bytes = bytes;
    sn_leave(d);
    return e ? SN_OK : SN_NOT_FOUND;
}

/* `params` NULL: the default that the program came with. */
SN_EXPORT uint32_t sn_default_set(struct sn_device *d, uint32_t table, uint32_t action,
                                  const uint8_t *params) {
    uint32_t st = SN_INVALID;
    sn_enter(d);
    if (d->pipe && table < d->pipe->prog->n_tables) {
        struct sn_table *t = &d->pipe->tables[table];
        const struct sn_table_desc *td = t->desc;
        if (!params) action = td->default_action, params = td->default_params;
        if (action < td->n_actions) {
            t->default_action = action;
            memcpy(t->default_params, params, td->params_size[action]);
            st = SN_OK;
        }
    }
    sn_leave(d);
    return st;
}

SN_EXPORT uint32_t sn_default_read(struct sn_device *d, uint32_t table, uint8_t *params) {
    uint32_t action = SN_NONE;
    sn_enter(d);
    if (d->pipe && table < d->pipe->prog->n_tables) {
        struct sn_table *t = &d->pipe->tables[table];
        action = t->default_action;
        if (action < t->desc->n_actions)
            memcpy(params, t->default_params, t->desc->params_size[action]);
    }
    sn_leave(d);
    return action;
}

/* ---- action profiles, value sets, meters ------------------------------------------------- */

static struct sn_profile *profile_of(struct sn_device *d, uint32_t profile) {
    return d->pipe && profile < d->pipe->prog->n_profiles ? &d->pipe->profiles[profile] : NULL;
}

/* `params` NULL: delete. */
SN_EXPORT uint32_t sn_profile_member(struct sn_device *d, uint32_t profile, uint32_t id,
                                     uint32_t action, const uint8_t *params) {
    sn_enter(d);
    struct sn_profile *p = profile_of(d, profile);
    uint32_t st = !p       ? SN_INVALID
                  : params ? sn_member_set(p, id, action, params)
                           : sn_member_delete(p, id);
    sn_leave(d);
    return st;
}

/* rows: member, weight, watched port of each; NULL: delete. */
SN_EXPORT uint32_t sn_profile_group(struct sn_device *d, uint32_t profile, uint32_t id,
                                    const uint32_t *rows, uint32_t n) {
    sn_enter(d);
    struct sn_profile *p = profile_of(d, profile);
    uint32_t st = !p     ? SN_INVALID
                  : rows ? sn_choice_set(p, id, rows, n)
                         : sn_choice_delete(p, id);
    sn_leave(d);
    return st;
}

/*
 * rows: key, mask, low and high bound of each of the `n` members, which replace those that there
 * were; ranges: offset and size of the fields for which the bounds count.
 */
SN_EXPORT uint32_t sn_vset_set(struct sn_device *d, uint32_t vset, const uint8_t *rows, uint32_t n,
                               const uint32_t *ranges, uint32_t n_ranges) {
    uint32_t st = SN_INVALID;
    struct sn_vset v = {NULL, n, NULL, n_ranges};
    sn_enter(d);
    if (d->pipe && vset < d->pipe->prog->n_vsets) {
        const struct sn_vset_desc *vd = &d->pipe->prog->vsets[vset];
        size_t bytes = (size_t)n * 4 * vd->key_size;
        v.rows = n <= vd->max_size ? malloc(bytes + 1) : NULL;
        v.ranges = malloc(n_ranges * sizeof *v.ranges + 1);
        st = v.rows && v.ranges ? SN_OK : SN_FULL;
        if (st == SN_OK) {
            memcpy(v.rows, rows, bytes);
            memcpy(v.ranges, ranges, n_ranges * sizeof *v.ranges);
            struct sn_vset old = d->pipe->vsets[vset];
            d->pipe->vsets[vset] = v;
            v = old;
        }
    }
    sn_leave(d);
    free(v.rows);
    free(v.ranges);
    return st;
}

/* Of a meter: rates, and what was of each colour. */
struct meter_view {
    struct sn_rates rates;
    struct sn_counter_cell colors[3];
};

enum meter_op { METER_READ, METER_SET, METER_UNSET, METER_COLORS };

static int meter_view(struct sn_meter *m, struct meter_view *v, int op) {
    if (!m) return -1;
    if (op == METER_SET || op == METER_UNSET)
        sn_meter_set(m, op == METER_SET ? &v->rates : NULL, sn_now());
    if (op == METER_COLORS) memcpy(m->colors, v->colors, sizeof m->colors);
    v->rates = m->rates;
    memcpy(v->colors, m->colors, sizeof v->colors);
    return (int)m->configured;
}

/* op: enum meter_op. Returns 1 where rates are set (then), 0 where not, -1: no such cell. */
SN_EXPORT int sn_meter_access(struct sn_device *d, uint32_t meter, uint32_t index,
                              struct meter_view *view, int op) {
    sn_enter(d);
    const struct sn_program *g = d->pipe ? d->pipe->prog : NULL;
    int there = g && meter < g->n_meters && index < g->meters[meter].cells;
    int rc = meter_view(there ? &d->pipe->meters[meter][index] : NULL, view, op);
    sn_leave(d);
    return rc;
}

SN_EXPORT int sn_entry_meter_access(struct sn_device *d, uint32_t table, const uint8_t *key,
                                    const uint8_t *mask, uint32_t priority,
                                    struct meter_view *view, int op) {
    struct sn_table *t;
    sn_enter(d);
    struct sn_entry *e = find(d, table, key, mask, priority, &t);
    int rc = meter_view(e && t->desc->with_meter ? sn_entry_meter(t, e) : NULL, view, op);
    sn_leave(d);
    return rc;
}

static struct sn_table *table_of(struct sn_device *d, uint32_t table) {
    return d->pipe && table < d->pipe->prog->n_tables ? &d->pipe->tables[table] : NULL;
}

SN_EXPORT uint32_t sn_entry_count(struct sn_device *d, uint32_t table) {
    sn_enter(d);
    struct sn_table *t = table_of(d, table);
    uint32_t count = t ? t->count : 0;
    sn_leave(d);
    return count;
}

/* As sn_meter_access, of a table's default action. */
SN_EXPORT int sn_default_meter_access(struct sn_device *d, uint32_t table,
                                      struct meter_view *view, int op) {
    sn_enter(d);
    struct sn_table *t = table_of(d, table);
    int rc = meter_view(t ? t->default_meter : NULL, view, op);
    sn_leave(d);
    return rc;
}

/* Packets and bytes that found no entry. */
SN_EXPORT int sn_default_counter_access(struct sn_device *d, uint32_t table, uint64_t *values,
                                        int write) {
    sn_enter(d);
    struct sn_table *t = table_of(d, table);
    if (t && write) t->default_hits = (struct sn_counter_cell){values[0], values[1]};
    if (t) values[0] = t->default_hits.packets, values[1] = t->default_hits.bytes;
    sn_leave(d);
    return t ? 0 : -1;
}

/* ---- counters and registers -------------------------------------------------------------- */

SN_EXPORT int sn_counter_access(struct sn_device *d, uint32_t counter, uint32_t index,
                                uint64_t *values, int write) {
    int rc = -1;
    sn_enter(d);
    if (d->pipe && counter < d->pipe->prog->n_counters &&
        index < d->pipe->prog->counters[counter].cells) {
        struct sn_counter_cell *c = &d->pipe->counters[counter][index];
        if (write)
            c->packets = values[0], c->bytes = values[1];
        else
            values[0] = c->packets, values[1] = c->bytes;
        rc = 0;
    }
    sn_leave(d);
    return rc;
}

/* cell: as many bytes as sn_register_cell says. */
SN_EXPORT int sn_register_access(struct sn_device *d, uint32_t reg, uint32_t index,
                                 uint8_t *cell, int write) {
    int rc = -1;
    sn_enter(d);
    if (d->pipe && reg < d->pipe->prog->n_registers &&
        index < d->pipe->prog->registers[reg].cells) {
        size_t size = sn_register_cell(&d->pipe->prog->registers[reg]);
        uint8_t *c = (uint8_t *)d->pipe->registers[reg] + index * size;
        memcpy(write ? c : cell, write ? cell : c, size);
        rc = 0;
    }
    sn_leave(d);
    return rc;
}

/* ---- replication ------------------------------------------------------------------------- */

/* words: of each replica the number of its ways, then port and instance of each way. */
static struct sn_replica *replicas_new(const uint32_t *words, uint32_t n) {
    size_t ways = 0;
    const uint32_t *w = words;
    for (uint32_t i = 0; i < n; i++) ways += *w, w += 1 + 2 * *w;
    struct sn_replica *r = malloc(n * sizeof *r + ways * sizeof *r->ways);
    if (!r) return NULL;
    struct sn_copy *next = (struct sn_copy *)(r + n);
    for (uint32_t i = 0; i < n; i++) {
        r[i] = (struct sn_replica){*words++, next};
        for (uint32_t k = 0; k < r[i].n; k++, words += 2)
            *next++ = (struct sn_copy){words[0], words[1]};
    }
    return r;
}

static int group_set(struct sn_groups *g, uint32_t id, const uint32_t *words, uint32_t n,
                     uint32_t truncate) {
    uint32_t i = 0;
    while (i < g->n && g->items[i].id != id) i++;
    if (n == 0) {
        if (i == g->n) return 0;
        group_clear(&g->items[i]);
        g->items[i] = g->items[--g->n];
        return 0;
    }
    struct sn_replica *r = replicas_new(words, n);
    if (!r) return -1;
    if (i == g->n) {
        struct sn_group *p = realloc(g->items, (g->n + 1) * sizeof *p);
        if (!p) {
            free(r);
            return -1;
        }
        g->items = p;
        g->items[g->n++] = (struct sn_group){.id = id};
    }
    group_clear(&g->items[i]);
    g->items[i] = (struct sn_group){id, n, truncate, r};
    return 0;
}

/* `words` as above; no replicas: the group is deleted. */
SN_EXPORT int sn_group_set(struct sn_device *d, int is_clone, uint32_t id, const uint32_t *words,
                           uint32_t n, uint32_t truncate) {
    sn_enter(d);
    int rc = group_set(is_clone ? &d->sessions : &d->groups, id, words, n, truncate);
    sn_leave(d);
    return rc;
}

/* ---- packets and statistics -------------------------------------------------------------- */

SN_EXPORT int sn_packet_out(struct sn_device *d, const uint8_t *data, uint32_t len) {
    return sn_io_packet_out(d, data, len);
}

/* Of one frame out: followed by the frame, padded to 8 bytes. */
struct out_record {
    uint32_t size, port, len, unused;
    struct virtio_net_hdr vnet;
    uint8_t pad[6];
};

/* As much of what came out as `buf` holds, -1 when that isn't all. */
static int64_t inject(struct sn_device *d, const struct sn_frame *frames, uint32_t n, uint8_t *buf,
                      uint64_t cap) {
    struct sn_burst *b = &d->inject_burst;
    int64_t at = 0;
    pthread_mutex_lock(&d->inject_mutex);
    sn_burst_reset(b, sn_now());
    sn_lock(&d->lock);
    sn_switch(d, b, frames, n);
    sn_unlock(&d->lock);
    for (uint32_t i = 0; i < b->n_outs && at >= 0; i++) {
        struct sn_out *o = &b->outs[i];
        struct out_record r = {0, o->port, o->head_len + o->payload_len, 0, o->vnet, {0}};
        r.size = (uint32_t)((sizeof r + r.len + 7) & ~7u);
        if ((uint64_t)at + r.size > cap) {
            at = -1;
            break;
        }
        memcpy(buf + at, &r, sizeof r);
        memcpy(buf + at + sizeof r, o->head, o->head_len);
        memcpy(buf + at + sizeof r + o->head_len, o->payload, o->payload_len);
        at += r.size;
    }
    pthread_mutex_unlock(&d->inject_mutex);
    return at;
}

/*
 * Runs one frame through now, without any port: what comes out is written to `buf`; returns the
 * bytes written, or -1 when `cap` was too small. Digests go to the events as usual.
 */
SN_EXPORT int64_t sn_inject(struct sn_device *d, uint32_t port, const uint8_t *data, uint32_t len,
                            const struct virtio_net_hdr *vnet, uint8_t *buf, uint64_t cap) {
    struct sn_frame f = {.data = data, .len = len, .port = port};
    if (vnet) f.vnet = *vnet;
    return inject(d, &f, 1, buf, cap);
}

/* As sn_inject, of a burst: `n` frames, one after another in `data`, with their ports and lengths. */
SN_EXPORT int64_t sn_inject_burst(struct sn_device *d, const uint32_t *ports, const uint8_t *data,
                                  const uint32_t *lens, uint32_t n, uint8_t *buf, uint64_t cap) {
    struct sn_frame f[SN_BURST];
    if (n > SN_BURST) return -1;
    for (uint32_t i = 0; i < n; data += lens[i++])
        f[i] = (struct sn_frame){.data = data, .len = lens[i], .port = ports[i]};
    return inject(d, f, n, buf, cap);
}

/* Runs the frames (`n`, one after another, each `len` bytes) `rounds` times; returns ns taken. */
SN_EXPORT uint64_t sn_loop(struct sn_device *d, uint32_t port, const uint8_t *data, uint32_t len,
                           uint32_t n, uint32_t rounds, uint64_t *out_frames) {
    struct sn_burst *b = &d->inject_burst;
    pthread_mutex_lock(&d->inject_mutex);
    uint64_t start = sn_now();
    *out_frames = 0;
    for (uint32_t r = 0; r < rounds; r++)
        for (uint32_t i = 0; i < n;) {
            sn_burst_reset(b, sn_now());
            struct sn_frame f[SN_BURST];
            uint32_t k = 0;
            for (; k < SN_BURST && i < n; k++, i++)
                f[k] = (struct sn_frame){.data = data + (size_t)i * len, .len = len, .port = port};
            sn_lock(&d->lock);
            sn_switch(d, b, f, k);
            sn_unlock(&d->lock);
            *out_frames += b->n_outs;
        }
    uint64_t took = sn_now() - start;
    pthread_mutex_unlock(&d->inject_mutex);
    return took;
}

/* values: number, up, rx frames, rx bytes, tx frames, tx bytes, then drops by reason. */
SN_EXPORT uint32_t sn_port_stats(struct sn_device *d, uint32_t i, uint64_t *values) {
    struct sn_port *p = i < d->n_ports ? &d->ports[i] : i == d->n_ports ? &d->cpu : &d->other;
    uint64_t head[] = {p->number,   (uint64_t)p->up, p->rx_frames,
                       p->rx_bytes, p->tx_frames,    p->tx_bytes};
    memcpy(values, head, sizeof head);
    memcpy(values + 6, p->drops, sizeof p->drops);
    return SN_DROP_COUNT;
}

/* Whether what programs say (log_msg, failed assertions) becomes events. */
SN_EXPORT void sn_device_listen(struct sn_device *d, uint32_t on) {
    sn_lock(&d->lock);
    d->listening = on;
    sn_unlock(&d->lock);
}

SN_EXPORT void sn_event_counts(struct sn_device *d, uint64_t *values) {
    memcpy(values, d->counts, sizeof d->counts);
}
