/*
 * What is done without Python: Writes of plain entries, packet-outs and packet-ins. Whatever isn't
 * surely right, by what Python last said of clients and pipeline, is left to Python, which also
 * words the errors.
 */
#include <string.h>

#include "server.h"

#define HOT_BYTES (256u << 10) /* of a Write: longer ones would keep other clients waiting */
#define FEW 64u
#define PACKET_OUT_MAX 65535u
#define SLOW 2048u             /* messages that wait for one client */
#define SLOW_BYTES (32u << 20) /* and bytes */
#define MAX_FIELDS 64u

void hot_free(struct mirror *m) {
    free(m->roles);
    free(m->role_bytes);
    free(m->in.fields);
    free(m->out.fields);
    free(m->scratch);
    memset(m, 0, sizeof *m);
}

/* ---- Write -------------------------------------------------------------------------------- */

static const struct role *writer(const struct mirror *m, const struct sn_wire_head *h,
                                 const uint8_t *request) {
    for (uint32_t i = 0; i < m->n_roles; i++) {
        const struct role *r = &m->roles[i];
        if (r->name_len != h->role_len || memcmp(r->name, request + h->role_at, h->role_len))
            continue;
        int is_primary = r->flags & HAS_PRIMARY && h->has_election_id && r->high == h->high &&
                         r->low == h->low;
        return is_primary && r->flags & WRITES_ALL ? r : NULL;
    }
    return NULL;
}

static void answer(struct call *c, uint8_t *status, uint64_t *spans, uint32_t n) {
    uint32_t ok = 0;
    while (ok < n && status[ok] == SN_OK) ok++;
    if (ok == n) {
        call_send(c, NULL, 0, NULL, 0);
        call_fail(c, CODE_OK, "");
        return;
    }
    uint64_t generation = c->conn->server->mirror.generation;
    struct hand_item *i = hand_over(c, WRITES, FAILED_WRITE);
    if (!i) return;
    i->generation = generation;
    i->n = n;
    i->status = malloc(n);
    i->spans = malloc(2 * n * sizeof *spans);
    if (i->status) memcpy(i->status, status, n);
    if (i->spans) memcpy(i->spans, spans, 2 * n * sizeof *spans);
    if (i->status && i->spans) return;
    i->n = 0;
    call_fail(c, CODE_RESOURCE_EXHAUSTED, "updates failed, and there is no memory to say which");
}

static int write_plain(struct call *c, const uint8_t *request, uint32_t len, uint32_t n) {
    struct sn_server *s = c->conn->server;
    uint8_t few_status[FEW], *status = n <= FEW ? few_status : malloc(n);
    uint64_t few_spans[2 * FEW], *spans = n <= FEW ? few_spans : malloc(2 * n * sizeof *spans);
    int done = 0;
    /* Where somebody reads or writes a batch right now, Python waits for its end, not this thread. */
    if (status && spans && sn_trylock(&s->dev->entities)) {
        struct sn_wire_place place = {0};
        done = sn_wire_plain(s->mirror.plan, request, len);
        if (done) sn_wire_write(s->dev, s->mirror.plan, request, len, &place, status, spans);
        sn_unlock(&s->dev->entities);
    }
    if (done) answer(c, status, spans, n);
    if (status != few_status) free(status);
    if (spans != few_spans) free(spans);
    return done;
}

int hot_write(struct call *c, const uint8_t *request, uint32_t len) {
    const struct mirror *m = &c->conn->server->mirror;
    struct sn_wire_head h;
    if (!m->may_write || len > HOT_BYTES || sn_wire_head(request, len, &h) < 0) return 0;
    if (h.device_id != m->device_id || h.role_id || h.atomicity || !writer(m, &h, request))
        return 0;
    return write_plain(c, request, len, (uint32_t)h.updates);
}

/* ---- packet-out --------------------------------------------------------------------------- */

static const struct role *primary(const struct mirror *m, uint64_t call) {
    for (uint32_t i = 0; i < m->n_roles; i++)
        if (m->roles[i].flags & HAS_PRIMARY && m->roles[i].call == call) return &m->roles[i];
    return NULL;
}

/* `value` into the header, whose last bit has distance 0. -1: it is wider than the field. */
static int put_field(uint8_t *header, uint32_t size, const struct header_field *f,
                     struct span value) {
    if (value.p == value.end) return -1;
    while (value.p < value.end && !*value.p) value.p++;
    uint32_t n = (uint32_t)(value.end - value.p), bits = 8 * n;
    if (n && n <= size)
        for (uint8_t top = 0x80; !(*value.p & top); top >>= 1) bits--;
    if (n > size || bits > f->bits) return -1;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = f->shift + 8 * i, low = size - 1 - at / 8;
        uint32_t b = (uint32_t)value.end[-1 - (int)i] << at % 8;
        header[low] |= (uint8_t)b;
        if (b >> 8) header[low - 1] |= (uint8_t)(b >> 8);
    }
    return 0;
}

static int put_metadata(uint8_t *bytes, const struct header *h, struct span body, uint64_t *seen) {
    struct span value = {0};
    uint64_t id = 0;
    struct item i;
    int more;
    while ((more = next(&body, &i)) > 0) {
        if (i.tag == FIELD(1, VARINT))
            id = i.value;
        else if (i.tag == FIELD(2, BYTES))
            value = i.bytes;
        else
            return -1;
    }
    uint32_t f = 0;
    while (f < h->n && h->fields[f].id != id) f++;
    if (more < 0 || f == h->n || *seen >> f & 1) return -1;
    *seen |= 1ull << f;
    return put_field(bytes, h->size, &h->fields[f], value);
}

/* The frame with its header; NULL where anything is not as it should be. */
static uint8_t *frame_of(const struct header *h, struct span packet, uint32_t *len) {
    uint8_t bytes[MAX_HEADER] = {0};
    struct span payload = {0};
    uint64_t seen = 0;
    struct item i;
    int more;
    while ((more = next(&packet, &i)) > 0) {
        if (i.tag == FIELD(1, BYTES))
            payload = i.bytes;
        else if (i.tag != FIELD(2, BYTES) || put_metadata(bytes, h, i.bytes, &seen) < 0)
            return NULL;
    }
    for (uint32_t f = 0; f < h->n; f++)
        if (!(seen >> f & 1) && !h->fields[f].is_padding) return NULL;
    size_t n = (size_t)(payload.end - payload.p);
    if (more < 0 || h->size + n > PACKET_OUT_MAX) return NULL;
    uint8_t *frame = malloc(h->size + n + 1);
    if (!frame) return NULL;
    memcpy(frame, bytes, h->size);
    if (n) memcpy(frame + h->size, payload.p, n);
    *len = h->size + (uint32_t)n;
    return frame;
}

int hot_stream_message(struct call *c, const uint8_t *message, uint32_t len) {
    struct sn_server *s = c->conn->server;
    const struct header *h = &s->mirror.out;
    struct span body = {message, message + len};
    struct item i;
    if (!s->mirror.has_pipeline || h->size > MAX_HEADER || h->n > MAX_FIELDS ||
        !primary(&s->mirror, c->id))
        return 0;
    if (next(&body, &i) != 1 || i.tag != FIELD(2, BYTES) || body.p != body.end) return 0;
    uint32_t n;
    uint8_t *frame = frame_of(h, i.bytes, &n);
    if (!frame) return 0;
    sn_io_packet_out(s->dev, frame, n); /* counts what doesn't fit its queue */
    free(frame);
    return 1;
}

/* ---- packet-in ---------------------------------------------------------------------------- */

struct writer {
    uint8_t *at;
};

static void put_varint(struct writer *w, uint64_t v) {
    for (; v > 0x7f; v >>= 7) *w->at++ = (uint8_t)(v | 0x80);
    *w->at++ = (uint8_t)v;
}

static uint32_t varint_size(uint64_t v) {
    uint32_t n = 1;
    for (; v > 0x7f; v >>= 7) n++;
    return n;
}

/* A field's value as P4Runtime writes it: no zero bytes in front, at least one byte. */
static uint32_t field_value(const uint8_t *header, uint32_t size, const struct header_field *f,
                            uint8_t *value) {
    uint32_t n = (f->bits + 7) / 8, zeros = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = f->shift + 8 * i, low = size - 1 - at / 8;
        uint32_t b = header[low] | (low ? (uint32_t)header[low - 1] << 8 : 0);
        b = b >> at % 8 & 0xff;
        if (i == n - 1 && f->bits % 8) b &= (1u << f->bits % 8) - 1;
        value[n - 1 - i] = (uint8_t)b;
    }
    while (zeros + 1 < n && !value[zeros]) zeros++;
    memmove(value, value + zeros, n - zeros);
    return n - zeros;
}

/* One PacketMetadata inside a PacketIn. */
static void put_one(struct writer *w, uint32_t id, const uint8_t *value, uint32_t n) {
    put_varint(w, FIELD(2, BYTES));
    put_varint(w, 1 + varint_size(id) + 1 + varint_size(n) + n);
    put_varint(w, FIELD(1, VARINT));
    put_varint(w, id);
    put_varint(w, FIELD(2, BYTES));
    put_varint(w, n);
    memcpy(w->at, value, n);
    w->at += n;
}

/* Room for one value and for all that stands before a payload. */
static size_t scratch_size(const struct header *h) {
    return 2 * h->size + 32 * (size_t)h->n + 64;
}

static int wants(const struct role *r, const struct header *h, const uint8_t *frame,
                 uint8_t *value) {
    if ((r->flags & (HAS_PRIMARY | TAKES_PACKET_INS)) != (HAS_PRIMARY | TAKES_PACKET_INS)) return 0;
    if (!(r->flags & FILTERS)) return 1;
    for (uint32_t f = 0; f < h->n; f++)
        if (h->fields[f].id == r->filter_id &&
            field_value(frame, h->size, &h->fields[f], value) == r->filter_len &&
            !memcmp(value, r->filter, r->filter_len))
            return 1;
    return 0;
}

/* A frame from the CPU port as a StreamMessageResponse to the primary of each role that wants it. */
void hot_packet_in(struct sn_server *s, const uint8_t *frame, uint32_t len) {
    const struct header *h = &s->mirror.in;
    if (!s->mirror.has_pipeline || len < h->size) {
        s->losses[s->mirror.has_pipeline ? LOSS_SHORT : LOSS_NO_PIPELINE]++;
        return;
    }
    uint8_t *value = s->mirror.scratch, *start = value + h->size + 1;
    struct writer w = {start + 16}; /* what stands in front is known last */
    for (uint32_t f = 0; f < h->n; f++) {
        uint32_t n = field_value(frame, h->size, &h->fields[f], value);
        put_one(&w, h->fields[f].id, value, n);
    }
    uint32_t payload = len - h->size;
    put_varint(&w, FIELD(1, BYTES));
    put_varint(&w, payload);
    uint32_t body = (uint32_t)(w.at - (start + 16)) + payload;
    uint8_t *head = start + 16 - 1 - varint_size(body);
    struct writer front = {head};
    put_varint(&front, FIELD(2, BYTES));
    put_varint(&front, body);
    int sent = 0;
    for (uint32_t i = 0; i < s->mirror.n_roles; i++) {
        const struct role *r = &s->mirror.roles[i];
        if (!wants(r, h, frame, value)) continue;
        struct call *c = call_of(s, r->call);
        if (!c || c->ended) continue;
        sent = 1;
        if (c->n_out >= SLOW || c->out_bytes + len > SLOW_BYTES ||
            call_send(c, head, (size_t)(w.at - head), frame + h->size, payload) < 0)
            s->losses[LOSS_SLOW_PACKET]++;
    }
    if (!sent) s->losses[LOSS_NO_PRIMARY]++;
}

/* ---- what Python says --------------------------------------------------------------------- */

/*
 * The roles as they are now: of each seven words (call, high and low of the election id, enum
 * role_flag, id of the filter's field, lengths of name and filter), and name and filter in `bytes`,
 * one role's after another's. 0, or -1 without memory.
 */
SN_EXPORT int sn_server_roles(struct sn_server *s, uint32_t n, const uint64_t *words,
                              const uint8_t *bytes, uint64_t len) {
    struct role *roles = calloc(n + 1, sizeof *roles);
    uint8_t *copy = malloc(len + 1);
    if (!roles || !copy) {
        free(roles);
        free(copy);
        return -1;
    }
    memcpy(copy, bytes, len);
    const uint8_t *at = copy;
    for (uint32_t i = 0; i < n; i++, words += 7) {
        struct role *r = &roles[i];
        r->call = words[0], r->high = words[1], r->low = words[2];
        r->flags = (uint32_t)words[3], r->filter_id = (uint32_t)words[4];
        r->name_len = (uint32_t)words[5], r->filter_len = (uint32_t)words[6];
        r->name = at, r->filter = at + r->name_len;
        at += r->name_len + r->filter_len;
    }
    pthread_mutex_lock(&s->mutex);
    struct mirror *m = &s->mirror;
    struct role *old = m->roles;
    uint8_t *old_bytes = m->role_bytes;
    m->roles = roles, m->role_bytes = copy, m->n_roles = n;
    pthread_mutex_unlock(&s->mutex);
    free(old);
    free(old_bytes);
    return 0;
}

static int read_header(struct header *h, const uint32_t **words) {
    h->size = *(*words)++;
    h->n = *(*words)++;
    h->fields = malloc(h->n * sizeof *h->fields + 1);
    if (!h->fields) return -1;
    memcpy(h->fields, *words, h->n * sizeof *h->fields);
    *words += h->n * sizeof *h->fields / sizeof **words;
    return 0;
}

/*
 * The pipeline as it is now; the plan must live until the next call. words: of packet-ins and of
 * packet-outs the header's bytes, its number of fields, and of each: id, bits, distance from the
 * last bit, whether it is padding; NULL: there is no pipeline. 0, or -1 without memory.
 */
SN_EXPORT int sn_server_pipeline(struct sn_server *s, uint64_t device_id, uint64_t generation,
                                 int may_write, const struct sn_wire *plan,
                                 const uint32_t *words) {
    struct mirror fresh = {.device_id = device_id, .generation = generation, .plan = plan};
    fresh.has_pipeline = words != NULL;
    fresh.may_write = words && plan && may_write;
    int rc = words && (read_header(&fresh.in, &words) < 0 || read_header(&fresh.out, &words) < 0 ||
                       !(fresh.scratch = malloc(scratch_size(&fresh.in))))
                 ? -1
                 : 0;
    if (rc == 0) {
        pthread_mutex_lock(&s->mutex);
        fresh.roles = s->mirror.roles, fresh.role_bytes = s->mirror.role_bytes;
        fresh.n_roles = s->mirror.n_roles;
        struct mirror old = s->mirror;
        s->mirror = fresh;
        pthread_mutex_unlock(&s->mutex);
        fresh = old;
    }
    fresh.roles = NULL, fresh.role_bytes = NULL; /* they are in use */
    hot_free(&fresh);
    return rc;
}
