/*
 * P4Runtime's WriteRequest, read straight from the wire into tables. Only the plain case is known
 * here: an entry of a table in the plan, every value in its place and within its width. Whatever
 * else comes, right or wrong, is left to the server above, which also words the errors.
 *
 *     WriteRequest --updates--> plain: decoded, applied      status
 *                          \--> other: its index and bytes   the server goes on there
 *
 * Numbers of fields are those of p4runtime.proto.
 */
#include <string.h>

#include "internal.h"
#include "protobuf.h"

#define MAX_FIELDS 64u
#define MAX_PARAMS 1024u
#define MAX_KEY 256u
#define LOCKED_UPDATES 32u /* as many before a burst may go in between */

struct field {
    uint32_t id, kind, offset, size, bits;
};

struct param {
    uint32_t id, offset, size, bits;
};

struct action {
    uint32_t id, index, n_params;
    struct param *params;
};

struct wire_table {
    uint32_t id, index, key_size, by_prio, has_timeout, n_fields, n_actions;
    struct field *fields;
    struct action *actions;
};

struct sn_wire {
    uint32_t n;
    struct wire_table *tables;
};

/* ---- the plan ---------------------------------------------------------------------------- */

static void *take_rows(const uint32_t **words, uint32_t n, size_t size) {
    void *p = malloc(n * size + 1);
    if (p) memcpy(p, *words, n * size);
    *words += n * size / sizeof **words;
    return p;
}

SN_EXPORT void sn_wire_free(struct sn_wire *w) {
    for (uint32_t i = 0; w && i < w->n; i++) {
        struct wire_table *t = &w->tables[i];
        for (uint32_t a = 0; t->actions && a < t->n_actions; a++) free(t->actions[a].params);
        free(t->actions);
        free(t->fields);
    }
    if (w) free(w->tables);
    free(w);
}

static int read_table(struct wire_table *t, const uint32_t **words) {
    memcpy(t, *words, 7 * sizeof **words);
    *words += 7;
    t->fields = take_rows(words, t->n_fields, sizeof *t->fields);
    t->actions = calloc(t->n_actions + 1, sizeof *t->actions);
    if (!t->fields || !t->actions) return -1;
    for (uint32_t a = 0; a < t->n_actions; a++) {
        struct action *x = &t->actions[a];
        x->id = (*words)[0], x->index = (*words)[1], x->n_params = (*words)[2];
        *words += 3;
        x->params = take_rows(words, x->n_params, sizeof *x->params);
        if (!x->params) return -1;
    }
    return 0;
}

/*
 * words: number of tables; of each: id, index, bytes of key, whether it has priorities, time-outs,
 * numbers of fields and actions; of each field: id, enum sn_match, offset, bytes, bits; of each
 * action: id, index, number of parameters; of each of these: id, offset, bytes, bits.
 */
SN_EXPORT struct sn_wire *sn_wire_new(const uint32_t *words) {
    struct sn_wire *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    uint32_t n = *words++;
    w->tables = calloc(n + 1, sizeof *w->tables);
    for (; w->tables && w->n < n; w->n++)
        if (read_table(&w->tables[w->n], &words) < 0) {
            w->n++;
            break;
        }
    if (w->tables && w->n == n && (!n || w->tables[n - 1].actions)) return w;
    sn_wire_free(w);
    return NULL;
}

/* ---- one update -------------------------------------------------------------------------- */

struct plain {
    const struct wire_table *table;
    uint32_t op, action;
    struct sn_table_key k;
    uint64_t timeout, note_number;
    struct span note;
    uint8_t key[MAX_KEY], mask[MAX_KEY], params[MAX_PARAMS];
};

struct entry {
    uint64_t table_id, priority, timeout, note_number;
    struct span action, note, match[MAX_FIELDS];
    uint32_t n_match;
};

/* A byte string into its place; -1 where it is empty or too wide. */
static int put_value(uint8_t *dst, uint32_t size, uint32_t bits, struct span v) {
    if (v.p == v.end) return -1;
    while ((size_t)(v.end - v.p) > size)
        if (*v.p++) return -1;
    size_t n = (size_t)(v.end - v.p);
    memset(dst, 0, size - n);
    memcpy(dst + size - n, v.p, n);
    return bits % 8 && dst[0] >> bits % 8 ? -1 : 0;
}

static void ones(uint8_t *dst, const struct field *f) {
    memset(dst, 0xff, f->size);
    if (f->bits % 8) dst[0] = (uint8_t)((1u << f->bits % 8) - 1);
}

static int is_all(const uint8_t *p, uint32_t n, uint8_t what) {
    for (uint32_t i = 0; i < n; i++)
        if (p[i] != what) return 0;
    return 1;
}

static int put_prefix(uint8_t *mask, const struct field *f, uint64_t length) {
    if (length == 0 || length > f->bits) return -1;
    memset(mask, 0, f->size);
    uint32_t first = f->size * 8 - f->bits;
    for (uint32_t b = first; b < first + length; b++) mask[b / 8] |= (uint8_t)(0x80 >> b % 8);
    return 0;
}

static int put_match(struct plain *u, const struct field *f, struct span body) {
    uint8_t *key = u->key + f->offset, *mask = u->mask + f->offset;
    struct span first = {0}, second = {0};
    uint64_t length = 0;
    struct item i;
    int more;
    while ((more = next(&body, &i)) > 0) {
        if (i.tag == FIELD(1, BYTES))
            first = i.bytes;
        else if (i.tag == FIELD(2, BYTES) && (f->kind == SN_TERNARY || f->kind == SN_RANGE))
            second = i.bytes;
        else if (i.tag == FIELD(2, VARINT) && f->kind == SN_LPM)
            length = i.value;
        else
            return -1;
    }
    if (more < 0 || put_value(key, f->size, f->bits, first) < 0) return -1;
    switch (f->kind) {
    case SN_LPM:
        if (put_prefix(mask, f, length) < 0) return -1;
        break;
    case SN_TERNARY:
        if (put_value(mask, f->size, f->bits, second) < 0 || is_all(mask, f->size, 0)) return -1;
        break;
    case SN_RANGE: {
        uint8_t all[MAX_KEY];
        ones(all, f);
        if (put_value(mask, f->size, f->bits, second) < 0 || memcmp(key, mask, f->size) > 0)
            return -1;
        return is_all(key, f->size, 0) && !memcmp(mask, all, f->size) ? -1 : 0;
    }
    default: ones(mask, f); return 0;
    }
    for (uint32_t b = 0; b < f->size; b++)
        if (key[b] & ~mask[b]) return -1;
    return 0;
}

static int decode_match(struct plain *u, const struct entry *e) {
    static const uint8_t number[] = {
        [SN_EXACT] = 2, [SN_LPM] = 4, [SN_TERNARY] = 3, [SN_RANGE] = 6, [SN_OPTIONAL] = 7};
    const struct wire_table *t = u->table;
    uint64_t seen = 0;
    for (uint32_t m = 0; m < e->n_match; m++) {
        struct span s = e->match[m], body = {0};
        uint64_t id = 0, tag = 0;
        struct item i;
        int more;
        while ((more = next(&s, &i)) > 0) {
            if (i.tag == FIELD(1, VARINT))
                id = i.value;
            else if ((i.tag & 7) == BYTES && !tag)
                tag = i.tag, body = i.bytes;
            else
                return -1;
        }
        uint32_t f = m; /* most send them in their order */
        if (f >= t->n_fields || t->fields[f].id != id)
            for (f = 0; f < t->n_fields && t->fields[f].id != id; f++) {}
        if (more < 0 || f == t->n_fields || seen >> f & 1 ||
            tag != FIELD((uint64_t)number[t->fields[f].kind], BYTES) ||
            put_match(u, &t->fields[f], body) < 0)
            return -1;
        seen |= 1ull << f;
    }
    for (uint32_t f = 0; f < t->n_fields; f++) {
        const struct field *d = &t->fields[f];
        if (seen >> f & 1) continue;
        if (d->kind == SN_EXACT) return -1;
        memset(u->key + d->offset, 0, d->size);
        memset(u->mask + d->offset, 0, d->size);
        if (d->kind == SN_RANGE) ones(u->mask + d->offset, d);
    }
    return 0;
}

static int decode_params(struct plain *u, const struct action *a, const struct span *given,
                         uint32_t n) {
    uint64_t seen = 0;
    if (n != a->n_params) return -1;
    for (uint32_t g = 0; g < n; g++) {
        struct span s = given[g], value = {0};
        uint64_t id = 0;
        struct item i;
        int more;
        while ((more = next(&s, &i)) > 0) {
            if (i.tag == FIELD(2, VARINT))
                id = i.value;
            else if (i.tag == FIELD(3, BYTES))
                value = i.bytes;
            else
                return -1;
        }
        uint32_t p = g;
        if (a->params[p].id != id)
            for (p = 0; p < n && a->params[p].id != id; p++) {}
        if (more < 0 || p == n || seen >> p & 1) return -1;
        const struct param *d = &a->params[p];
        if (put_value(u->params + d->offset, d->size, d->bits, value) < 0) return -1;
        seen |= 1ull << p;
    }
    return 0;
}

static int decode_action(struct plain *u, struct span table_action) {
    struct item i;
    if (next(&table_action, &i) != 1 || i.tag != FIELD(1, BYTES) ||
        table_action.p != table_action.end)
        return -1;
    struct span s = i.bytes, params[MAX_FIELDS];
    uint64_t id = 0;
    uint32_t n = 0;
    int more;
    while ((more = next(&s, &i)) > 0) {
        if (i.tag == FIELD(1, VARINT))
            id = i.value;
        else if (i.tag == FIELD(4, BYTES) && n < MAX_FIELDS)
            params[n++] = i.bytes;
        else
            return -1;
    }
    if (more < 0) return -1;
    for (uint32_t a = 0; a < u->table->n_actions; a++)
        if (u->table->actions[a].id == id) {
            u->action = u->table->actions[a].index;
            return decode_params(u, &u->table->actions[a], params, n);
        }
    return -1;
}

static int decode_entry(struct span s, struct entry *e) {
    struct item i;
    int more;
    e->table_id = e->priority = e->timeout = e->note_number = 0;
    e->action = e->note = (struct span){0};
    e->n_match = 0;
    while ((more = next(&s, &i)) > 0) {
        switch (i.tag) {
        case FIELD(1, VARINT): e->table_id = i.value; break;
        case FIELD(2, BYTES):
            if (e->n_match == MAX_FIELDS) return -1;
            e->match[e->n_match++] = i.bytes;
            break;
        case FIELD(3, BYTES):
            if (e->action.p) return -1;
            e->action = i.bytes;
            break;
        case FIELD(4, VARINT): e->priority = i.value; break;
        case FIELD(5, VARINT): e->note_number = i.value; break;
        case FIELD(9, VARINT): e->timeout = i.value; break;
        case FIELD(11, BYTES): e->note = i.bytes; break;
        default: return -1;
        }
    }
    return more;
}

static int decode_update(const struct sn_wire *w, struct span s, struct plain *u) {
    struct span entity = {0}, body;
    struct item i;
    struct entry e;
    uint64_t op = 0;
    int more;
    while ((more = next(&s, &i)) > 0) {
        if (i.tag == FIELD(1, VARINT))
            op = i.value;
        else if (i.tag == FIELD(2, BYTES) && !entity.p)
            entity = i.bytes;
        else
            return -1;
    }
    if (more < 0 || op < SN_OP_INSERT || op > SN_OP_DELETE || !entity.p) return -1;
    if (next(&entity, &i) != 1 || i.tag != FIELD(2, BYTES) || entity.p != entity.end) return -1;
    body = i.bytes;
    if (decode_entry(body, &e) < 0) return -1;
    u->table = NULL;
    for (uint32_t t = 0; t < w->n && !u->table; t++)
        if (w->tables[t].id == e.table_id) u->table = &w->tables[t];
    if (!u->table || (u->table->by_prio ? e.priority - 1 >= INT32_MAX : e.priority != 0)) return -1;
    if (op != SN_OP_DELETE && (e.timeout > (u->table->has_timeout ? INT64_MAX : 0) ||
                               (uint64_t)(e.note.end - e.note.p) > SN_MAX_NOTE))
        return -1;
    u->op = (uint32_t)op;
    u->timeout = e.timeout;
    u->note_number = e.note_number;
    u->note = e.note;
    u->k = (struct sn_table_key){u->key, u->mask, (uint32_t)e.priority};
    if (decode_match(u, &e) < 0) return -1;
    return u->op == SN_OP_DELETE ? 0 : decode_action(u, e.action);
}

static enum sn_status apply(struct sn_pipe *p, const struct plain *u, uint64_t now) {
    if (!p || u->table->index >= p->prog->n_tables) return SN_INVALID;
    struct sn_table *t = &p->tables[u->table->index];
    if (u->op == SN_OP_DELETE) return sn_table_delete(t, &u->k);
    int failed = 0;
    struct sn_deed deed = {u->action, u->params, u->timeout,
                           sn_note_new(u->note_number, u->note.p,
                                       (uint32_t)(u->note.end - u->note.p), &failed)};
    if (failed) return SN_FULL;
    enum sn_status st = u->op == SN_OP_INSERT ? sn_table_insert(t, &u->k, &deed, now, 0)
                                              : sn_table_modify(t, &u->k, &deed, now);
    if (st != SN_OK) free(deed.note);
    return st;
}

/* ---- a request --------------------------------------------------------------------------- */

/* What stands around the updates; -1 where the request is damaged. */
SN_EXPORT int sn_wire_head(const uint8_t *request, uint64_t len, struct sn_wire_head *h) {
    struct span s = {request, request + len};
    struct item i, k;
    int more;
    memset(h, 0, sizeof *h);
    while ((more = next(&s, &i)) > 0) {
        switch (i.tag) {
        case FIELD(1, VARINT): h->device_id = i.value; break;
        case FIELD(2, VARINT): h->role_id = i.value; break;
        case FIELD(3, BYTES):
            h->has_election_id = 1;
            while ((more = next(&i.bytes, &k)) > 0) {
                if (k.tag == FIELD(1, VARINT)) h->high = k.value;
                if (k.tag == FIELD(2, VARINT)) h->low = k.value;
            }
            if (more < 0) return -1;
            break;
        case FIELD(4, BYTES): h->updates++; break;
        case FIELD(5, VARINT): h->atomicity = i.value; break;
        case FIELD(6, BYTES):
            h->role_at = (uint64_t)(i.bytes.p - request);
            h->role_len = i.value;
            break;
        default: break; /* of a later version */
        }
    }
    return more;
}

/* 1 where all updates are plain, so that sn_wire_write does them at one go. */
int sn_wire_plain(const struct sn_wire *w, const uint8_t *request, uint64_t len) {
    struct span s = {request, request + len};
    struct plain u;
    struct item i;
    int more;
    while ((more = next(&s, &i)) > 0)
        if (i.tag == FIELD(4, BYTES) && decode_update(w, i.bytes, &u) < 0) return 0;
    return more == 0;
}

/*
 * Applies updates from `place` on, until one comes that isn't plain (returns 1: it is the one
 * before place->index, its status SN_OTHER) or the end (returns 0). Of each update that it passes
 * `status` and `spans` (offset and length) are set. A NULL plan makes all updates others.
 */
SN_EXPORT int sn_wire_write(struct sn_device *d, const struct sn_wire *w, const uint8_t *request,
                            uint64_t len, struct sn_wire_place *place, uint8_t *status,
                            uint64_t *spans) {
    struct span s = {request + place->at, request + len};
    struct plain u;
    struct item i;
    uint32_t held = 0;
    uint64_t now = 0;
    int other = 0;
    while (!other && next(&s, &i) > 0) {
        if (i.tag != FIELD(4, BYTES)) continue;
        uint32_t n = place->index++;
        spans[2 * n] = (uint64_t)(i.bytes.p - request);
        spans[2 * n + 1] = i.value;
        if (!held) {
            sn_enter(d);
            now = sn_now();
        }
        held++;
        other = !w || decode_update(w, i.bytes, &u) < 0;
        status[n] = other ? SN_OTHER : (uint8_t)apply(d->pipe, &u, now);
        if (held == LOCKED_UPDATES) {
            sn_leave(d);
            held = 0;
        }
    }
    if (held) sn_leave(d);
    place->at = (uint64_t)(s.p - request);
    return other;
}
