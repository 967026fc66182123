/*
 * A frame's way through the device, as in bmv2's simple_switch:
 *
 *     parse -> ingress -+-> clone: parsed again as it arrived, kept field list -> egress
 *                       +-> resubmit: back to parse, as it arrived
 *                       +-> mcast_grp: a copy for each replica            -> egress
 *                       +-> egress_spec: drop, or one port                -> egress
 *     egress -+-> clone: headers as they are, kept field list -> egress
 *             +-> drop, or deparse -+-> recirculate: back to parse
 *                                   +-> out
 *
 * Copies run depth first and before the original; depth, passes and memory are bounded.
 */
#include <string.h>
#include <time.h>

#include "internal.h"

#define LEAST_GROUP 4u /* frames: fewer don't wait for each other */
#define MAX_PASSES 2048u
#define MAX_LOOPS 16u
#define ARENA_BLOCK (256u * 1024)
#define MAX_ARENA 64u
#define MAX_OUTS 16384u
#define PULL 160u /* Ethernet, two tags, and the longest IPv4 and TCP headers */

uint64_t sn_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

struct sn_port *sn_port_of(struct sn_device *d, uint32_t number) {
    if (number < SN_MAX_PORTS && d->by_number[number]) return d->by_number[number];
    return number == d->cpu_port ? &d->cpu : &d->other;
}

int sn_port_up(const struct sn_device *d, uint32_t number) {
    if (number == SN_NONE) return 1;
    return number < SN_MAX_PORTS && d->by_number[number] && d->by_number[number]->up;
}

void sn_drop(struct sn_device *d, uint32_t port, enum sn_drop why) {
    __atomic_fetch_add(&sn_port_of(d, port)->drops[why], 1, __ATOMIC_RELAXED);
}

const struct sn_group *sn_group_find(const struct sn_groups *g, uint32_t id) {
    for (uint32_t i = 0; i < g->n; i++)
        if (g->items[i].id == id) return &g->items[i];
    return NULL;
}

struct sn_copy sn_replica_way(const struct sn_device *d, const struct sn_replica *r) {
    for (uint32_t i = 0; r->n > 1 && i < r->n; i++) {
        uint32_t number = r->ways[i].port;
        const struct sn_port *p = number < SN_MAX_PORTS ? d->by_number[number] : NULL;
        if (number == d->cpu_port || (p && p->up)) return r->ways[i];
    }
    return r->ways[0];
}

/* ---- working memory ---------------------------------------------------------------------- */

int sn_burst_init(struct sn_burst *b) {
    memset(b, 0, sizeof *b);
    b->slots = calloc(SN_MAX_DEPTH, sizeof *b->slots);
    b->arena = calloc(MAX_ARENA, sizeof *b->arena);
    b->cap_outs = 256;
    b->outs = malloc(b->cap_outs * sizeof *b->outs);
    return b->slots && b->arena && b->outs ? 0 : -1;
}

void sn_burst_free(struct sn_burst *b) {
    for (uint32_t i = 0; b->slots && i < SN_MAX_DEPTH; i++) free(b->slots[i].phv);
    for (uint32_t i = 0; i < SN_GROUP; i++) free(b->fronts[i].phv);
    for (uint32_t i = 0; i < b->n_arena; i++) free(b->arena[i]);
    free(b->slots);
    free(b->arena);
    free(b->outs);
}

void sn_burst_reset(struct sn_burst *b, uint64_t now) {
    b->n_outs = 0;
    b->cur_arena = 0;
    b->arena_used = 0;
    b->now_ns = now;
}

int sn_burst_fit(struct sn_burst *b, uint32_t phv_size) {
    if (phv_size <= b->phv_size) return 0;
    for (uint32_t i = 0; i < SN_MAX_DEPTH + SN_GROUP; i++) {
        struct sn_phv_slot *s = i < SN_MAX_DEPTH ? &b->slots[i] : &b->fronts[i - SN_MAX_DEPTH];
        void *p = NULL;
        if (posix_memalign(&p, 64, (phv_size + 63) & ~63u)) return -1;
        free(s->phv);
        s->phv = p;
    }
    b->phv_size = phv_size;
    return 0;
}

uint8_t *sn_burst_alloc(struct sn_burst *b, size_t n) {
    n = (n + 15) & ~(size_t)15;
    if (n > ARENA_BLOCK) return NULL;
    if (b->n_arena && b->arena_used + n > ARENA_BLOCK) b->cur_arena++, b->arena_used = 0;
    if (b->cur_arena == b->n_arena) {
        if (b->n_arena == MAX_ARENA || !(b->arena[b->n_arena] = malloc(ARENA_BLOCK))) return NULL;
        b->n_arena++;
        b->arena_used = 0;
    }
    uint8_t *p = b->arena[b->cur_arena] + b->arena_used;
    b->arena_used += n;
    return p;
}

static struct sn_out *out_new(struct sn_burst *b) {
    if (b->n_outs == b->cap_outs) {
        if (b->cap_outs >= MAX_OUTS) return NULL;
        struct sn_out *p = realloc(b->outs, 2 * b->cap_outs * sizeof *p);
        if (!p) return NULL;
        b->outs = p;
        b->cap_outs *= 2;
    }
    return &b->outs[b->n_outs++];
}

/* ---- passes ------------------------------------------------------------------------------ */

struct pass {
    struct sn_device *d;
    struct sn_burst *b;
    const struct sn_program *prog;
    const struct sn_frame *f; /* as it arrived at this parser */
    uint32_t origin;          /* port that drops are counted on */
    uint32_t loops;
};

static void run_ingress(struct pass *p, uint32_t depth, uint32_t instance,
                        const struct sn_ctx *from, uint32_t list);

/* The record of a traced packet; nothing else does this. */
static inline void note(const struct pass *p, const struct sn_ctx *c, enum sn_trace_kind kind,
                        uint32_t id, uint32_t a, uint32_t b) {
    if (SN_UNLIKELY(p->d->trace)) sn_trace_put(p->d, c, kind, id, a, b);
}

static void lose(const struct pass *p, const struct sn_ctx *c, uint32_t port, enum sn_drop why) {
    sn_drop(p->d, port, why);
    note(p, c, SN_TRACE_DROP, why, port, 0);
}

static void clear_requests(struct sn_ctx *c) {
    c->clone_session = c->clone_list = SN_NONE;
    c->resubmit_list = c->recirculate_list = c->digest_list = SN_NONE;
    c->exit = 0;
}

/* Called by name, memset of a size that the compiler knows becomes a `rep stos`: far slower. */
static void *(*const volatile clear)(void *, int, size_t) = memset;

static struct sn_ctx *open_pass(struct pass *p, struct sn_phv_slot *s) {
    struct sn_ctx *c = &s->c;
    struct sn_device *d = p->d;
    clear(c, 0, sizeof *c);
    memset(s->phv, 0, p->prog->phv_size);
    c->phv = s->phv;
    c->pipe = d->pipe;
    c->data = p->f->data;
    c->len = c->pkt_len = c->ingress_len = p->f->len;
    c->trunc = SN_NONE;
    c->drop_port = d->drop_port;
    clear_requests(c);
    c->l4_start = p->f->vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM ? p->f->vnet.csum_start : SN_NONE;
    c->first_header = c->l4_header = c->first_out = c->l4_out = SN_NONE;
    c->now_ns = p->b->now_ns;
    c->counts = d->counts;
    if (SN_UNLIKELY(d->trace)) sn_trace_open(d, c);
    return c;
}

static struct sn_ctx *copy_pass(struct pass *p, uint32_t depth, const struct sn_ctx *from) {
    struct sn_phv_slot *s = &p->b->slots[depth];
    s->c = *from;
    s->c.phv = s->phv;
    memcpy(s->phv, from->phv, p->prog->phv_size);
    if (SN_UNLIKELY(p->d->trace)) sn_trace_open(p->d, &s->c);
    return &s->c;
}

static int may_pass(struct pass *p, uint32_t depth) {
    if (depth < SN_MAX_DEPTH && p->b->passes) {
        p->b->passes--;
        return 1;
    }
    lose(p, NULL, p->origin, SN_DROP_CLONE_LIMIT);
    return 0;
}

static uint64_t micros(const struct pass *p) { return (p->b->now_ns - p->d->start_ns) / 1000; }

static void keep_fields(struct pass *p, struct sn_ctx *c, const struct sn_ctx *from, uint32_t list,
                        uint32_t instance) {
    memset(&c->std, 0, sizeof c->std);
    p->prog->reset_metadata(c);
    p->prog->copy_list(c, from, list);
    c->std.instance_type = instance;
}

static void emit_frame(struct pass *p, struct sn_ctx *c, uint32_t port, struct sn_out *o) {
    const struct virtio_net_hdr *in = &p->f->vnet;
    uint32_t room = p->prog->max_headers + PULL;
    memset(&o->vnet, 0, sizeof o->vnet);
    o->port = port;
    o->head = sn_burst_alloc(p->b, room);
    if (!o->head) {
        lose(p, c, p->origin, SN_DROP_BURST_FULL);
        p->b->n_outs--;
        return;
    }
    note(p, c, SN_TRACE_DEPARSE, 0, 0, 0);
    o->head_len = p->prog->deparse(c, o->head);
    o->payload = c->data + c->parsed;
    o->payload_len = c->len - c->parsed;
    uint32_t total = o->head_len + o->payload_len;
    int truncated = total > c->trunc;
    if (truncated) {
        if (o->head_len > c->trunc) o->head_len = c->trunc;
        o->payload_len = c->trunc - o->head_len;
    }
    if (in->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM || in->gso_type != VIRTIO_NET_HDR_GSO_NONE)
        if (sn_offload_out(o, c, in, truncated, port == p->d->cpu_port, p->b) < 0) {
            lose(p, c, port, SN_DROP_GSO);
            p->b->n_outs--;
        }
}

static void recirculate(struct pass *p, uint32_t depth, struct sn_ctx *c) {
    if (p->loops >= MAX_LOOPS) {
        lose(p, c, p->origin, SN_DROP_LOOP_LIMIT);
        return;
    }
    struct sn_out *o = out_new(p->b);
    if (!o) {
        lose(p, c, p->origin, SN_DROP_BURST_FULL);
        return;
    }
    uint32_t before = p->b->n_outs;
    emit_frame(p, c, c->std.egress_port, o);
    if (p->b->n_outs != before) return; /* counted there */
    struct sn_out done = *o;
    p->b->n_outs--;
    uint8_t *whole = sn_burst_alloc(p->b, (size_t)done.head_len + done.payload_len);
    if (!whole) {
        lose(p, c, p->origin, SN_DROP_BURST_FULL);
        return;
    }
    note(p, c, SN_TRACE_RECIRCULATE, 0, 0, 0);
    memcpy(whole, done.head, done.head_len);
    memcpy(whole + done.head_len, done.payload, done.payload_len);
    struct sn_frame f = {whole, done.head_len + done.payload_len, p->f->port, done.vnet};
    struct pass again = *p;
    again.f = &f;
    again.loops++;
    run_ingress(&again, depth + 1, SN_RECIRCULATED, c, c->recirculate_list);
}

static void run_egress(struct pass *p, uint32_t depth, struct sn_ctx *c, uint32_t port) {
    note(p, c, SN_TRACE_EGRESS, c->std.instance_type, port, c->std.egress_rid);
    c->std.egress_port = port;
    c->std.egress_spec = (p->d->drop_port + 1) & 0x1ff;
    c->std.packet_length = c->pkt_len;
    c->std.egress_global_timestamp = micros(p);
    clear_requests(c);
    p->prog->egress(c);
    if (c->clone_session != SN_NONE) {
        const struct sn_group *g = sn_group_find(&p->d->sessions, c->clone_session);
        if (!g) lose(p, c, p->origin, SN_DROP_NO_SESSION);
        note(p, c, SN_TRACE_CLONE, c->clone_session, 1, g ? g->n : 0);
        for (uint32_t i = 0; g && i < g->n; i++) {
            if (!may_pass(p, depth + 1)) break;
            struct sn_ctx *k = copy_pass(p, depth + 1, c);
            keep_fields(p, k, c, c->clone_list, SN_EGRESS_CLONE);
            struct sn_copy to = sn_replica_way(p->d, &g->replicas[i]);
            k->std.egress_rid = to.instance;
            k->trunc = g->truncate ? g->truncate : SN_NONE;
            run_egress(p, depth + 1, k, to.port);
        }
    }
    if (c->std.egress_spec == p->d->drop_port) {
        lose(p, c, p->origin, SN_DROP_PROGRAM);
        return;
    }
    if (c->recirculate_list != SN_NONE) {
        recirculate(p, depth, c);
        return;
    }
    struct sn_out *o = out_new(p->b);
    if (!o) {
        lose(p, c, p->origin, SN_DROP_BURST_FULL);
        return;
    }
    uint32_t with = p->b->n_outs;
    emit_frame(p, c, port, o);
    if (SN_UNLIKELY(p->d->trace) && p->b->n_outs == with) sn_trace_out(p->d, c, o);
}

static void clone_ingress(struct pass *p, uint32_t depth, const struct sn_ctx *c) {
    const struct sn_group *g = sn_group_find(&p->d->sessions, c->clone_session);
    if (!g) {
        lose(p, c, p->origin, SN_DROP_NO_SESSION);
        return;
    }
    note(p, c, SN_TRACE_CLONE, c->clone_session, 0, g->n);
    for (uint32_t i = 0; i < g->n; i++) {
        if (!may_pass(p, depth + 1)) return;
        struct sn_ctx *k = open_pass(p, &p->b->slots[depth + 1]);
        k->std.ingress_port = p->f->port;
        note(p, k, SN_TRACE_PASS, SN_INGRESS_CLONE, p->f->port, k->len);
        p->prog->parse(k);
        keep_fields(p, k, c, c->clone_list, SN_INGRESS_CLONE);
        struct sn_copy to = sn_replica_way(p->d, &g->replicas[i]);
        k->std.egress_rid = to.instance;
        k->trunc = g->truncate ? g->truncate : SN_NONE;
        run_egress(p, depth + 1, k, to.port);
    }
}

static void multicast(struct pass *p, uint32_t depth, struct sn_ctx *c) {
    const struct sn_group *g = sn_group_find(&p->d->groups, c->std.mcast_grp);
    if (!g) {
        lose(p, c, p->origin, SN_DROP_NO_GROUP);
        return;
    }
    note(p, c, SN_TRACE_MULTICAST, c->std.mcast_grp, g->n, 0);
    c->std.instance_type = SN_REPLICATED;
    for (uint32_t i = 0; i < g->n; i++) {
        if (!may_pass(p, depth + 1)) return;
        struct sn_ctx *k = copy_pass(p, depth + 1, c);
        struct sn_copy to = sn_replica_way(p->d, &g->replicas[i]);
        k->std.egress_rid = to.instance;
        run_egress(p, depth + 1, k, to.port);
    }
}

static void send_digest(struct pass *p, struct sn_ctx *c) {
    for (uint32_t i = 0; i < p->prog->n_digests; i++) {
        const struct sn_digest_desc *g = &p->prog->digests[i];
        if (g->list != c->digest_list) continue;
        note(p, c, SN_TRACE_DIGEST, i, 0, 0);
        struct sn_event_rec *e = sn_event_new(SN_DIGEST, i, g->size);
        if (e) p->prog->digest(c, g->list, e->data);
        if (sn_ring_put(&p->d->ring, e) < 0) sn_drop(p->d, p->d->cpu_port, SN_DROP_EVENT_FULL);
    }
}

/* A new pass up to the end of its parser. */
static struct sn_ctx *begin(struct pass *p, struct sn_phv_slot *slot, uint32_t instance,
                            const struct sn_ctx *from, uint32_t list) {
    struct sn_ctx *c = open_pass(p, slot);
    if (from)
        p->prog->copy_list(c, from, list);
    else
        c->std.ingress_port = p->f->port;
    c->std.packet_length = c->len;
    c->std.instance_type = instance;
    c->std.ingress_global_timestamp = micros(p);
    note(p, c, SN_TRACE_PASS, instance, c->std.ingress_port, c->len);
    p->prog->parse(c);
    return c;
}

/* Ingress, and what it decided. */
static void finish(struct pass *p, uint32_t depth, struct sn_ctx *c) {
    p->prog->ingress(c);
    c->exit = 0;
    if (c->clone_session != SN_NONE) clone_ingress(p, depth, c);
    if (c->digest_list != SN_NONE) send_digest(p, c);
    if (c->resubmit_list != SN_NONE) {
        if (p->loops >= MAX_LOOPS) {
            lose(p, c, p->origin, SN_DROP_LOOP_LIMIT);
            return;
        }
        note(p, c, SN_TRACE_RESUBMIT, 0, 0, 0);
        struct pass again = *p;
        again.loops++;
        run_ingress(&again, depth + 1, SN_RESUBMITTED, c, c->resubmit_list);
    } else if (c->std.mcast_grp != 0) {
        multicast(p, depth, c);
    } else if (c->std.egress_spec == p->d->drop_port) {
        lose(p, c, p->origin, SN_DROP_PROGRAM);
    } else {
        c->std.instance_type = SN_NORMAL;
        run_egress(p, depth, c, c->std.egress_spec);
    }
}

static void run_ingress(struct pass *p, uint32_t depth, uint32_t instance,
                        const struct sn_ctx *from, uint32_t list) {
    if (may_pass(p, depth))
        finish(p, depth, begin(p, &p->b->slots[depth], instance, from, list));
}

static void switch_frame(struct sn_device *d, struct sn_burst *b, const struct sn_frame *f) {
    b->passes = MAX_PASSES;
    struct pass p = {d, b, d->pipe->prog, f, f->port, 0};
    if (SN_UNLIKELY(d->trace)) sn_trace_begin(d, b, f);
    run_ingress(&p, 0, SN_NORMAL, NULL, 0);
    if (SN_UNLIKELY(d->trace)) sn_trace_end(d);
}

/*
 * Packets side by side: what each does before its first lookup in a large table touches nothing
 * but itself, so it may come before what others do later. The rest is done packet by packet.
 *
 *     parse, ahead | parse, ahead | ...   fetch | fetch | ...   rest | rest | ...
 */
static void switch_group(struct sn_device *d, struct sn_burst *b, const struct sn_frame *frames,
                         uint32_t n) {
    const struct sn_program *g = d->pipe->prog;
    struct pass p = {d, b, g, NULL, 0, 0};
    for (uint32_t i = 0; i < n; i++) {
        p.f = &frames[i];
        g->ahead(begin(&p, &b->fronts[i], SN_NORMAL, NULL, 0));
    }
    for (uint32_t i = 0; i < n; i++) sn_table_fetch(&b->fronts[i].c);
    for (uint32_t i = 0; i < n; i++) {
        p.f = &frames[i];
        p.origin = frames[i].port;
        b->passes = MAX_PASSES - 1;
        finish(&p, 0, &b->fronts[i].c);
    }
}

static int worth_it(const struct sn_device *d) {
    const struct sn_pipe *p = d->pipe;
    if (!p->prog->ahead || d->trace) return 0;
    for (uint32_t i = 0; i < p->n_foreseen; i++)
        if (sn_table_is_large(&p->tables[p->foreseen[i]])) return 1;
    return 0;
}

void sn_switch(struct sn_device *d, struct sn_burst *b, const struct sn_frame *frames, uint32_t n) {
    if (!d->pipe || sn_burst_fit(b, d->pipe->prog->phv_size) < 0) {
        for (uint32_t i = 0; i < n; i++) sn_drop(d, frames[i].port, SN_DROP_NO_PIPELINE);
        return;
    }
    uint32_t at = 0;
    if (n >= LEAST_GROUP && worth_it(d))
        for (uint32_t k; at < n; at += k) {
            k = n - at < SN_GROUP ? n - at : SN_GROUP;
            switch_group(d, b, frames + at, k);
        }
    for (; at < n; at++) switch_frame(d, b, &frames[at]);
}

void sn_punt(struct sn_device *d, const struct sn_out *o) {
    struct sn_event_rec *e = sn_event_new(SN_PACKET_IN, 0, o->head_len + o->payload_len);
    if (e) {
        memcpy(e->data, o->head, o->head_len);
        memcpy(e->data + o->head_len, o->payload, o->payload_len);
    }
    uint32_t len = o->head_len + o->payload_len;
    if (sn_ring_put(d->punts.fd >= 0 ? &d->punts : &d->ring, e) < 0) {
        sn_drop(d, d->cpu_port, SN_DROP_EVENT_FULL);
        return;
    }
    struct sn_port *p = sn_port_of(d, d->cpu_port);
    __atomic_fetch_add(&p->tx_frames, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&p->tx_bytes, len, __ATOMIC_RELAXED);
}

/* ---- idle time-outs ---------------------------------------------------------------------- */

static void report_idle(struct sn_device *d, uint32_t table, struct sn_table *t,
                        struct sn_entry *e) {
    uint32_t n = t->desc->key_size;
    struct sn_event_rec *r = sn_event_new(SN_IDLE, table, 2 * n);
    if (r) {
        r->priority = sn_cold(t, e)->priority;
        memcpy(r->data, sn_entry_key(e), n);
        const uint8_t *mask = sn_entry_mask(t, e);
        if (mask)
            memcpy(r->data + n, mask, n);
        else
            memset(r->data + n, 0xff, n);
    }
    if (sn_ring_put(&d->ring, r) == 0)
        sn_cold(t, e)->reported = e->last_hit;
    else /* told again at the next sweep: nothing is lost */
        sn_drop(d, d->cpu_port, SN_DROP_EVENT_FULL);
}

int sn_sweep(struct sn_device *d, uint64_t now, uint32_t budget) {
    struct sn_pipe *p = d->pipe;
    if (!p) return 1;
    while (budget && p->sweep_table < p->prog->n_tables) {
        struct sn_table *t = &p->tables[p->sweep_table];
        if (!t->desc->with_timeout || p->sweep_index >= t->next_index) {
            p->sweep_table++;
            p->sweep_index = 0;
            continue;
        }
        struct sn_entry *e = sn_table_at(t, p->sweep_index++);
        budget--;
        const struct sn_cold *cold = e ? sn_cold(t, e) : NULL;
        if (e && cold->timeout && cold->reported != e->last_hit && now > e->last_hit &&
            now - e->last_hit >= cold->timeout)
            report_idle(d, p->sweep_table, t, e);
    }
    if (p->sweep_table < p->prog->n_tables) return 0;
    p->sweep_table = p->sweep_index = 0;
    return 1;
}
