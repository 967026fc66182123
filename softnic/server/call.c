/*
 * A gRPC call on an HTTP/2 stream, as in grpc/doc/PROTOCOL-HTTP2.md:
 *
 *     HEADERS (path, timeout)   DATA: 0 | length | message ...   end of stream
 *     HEADERS (200)             DATA: 0 | length | message ...   HEADERS (grpc-status ...)
 */
#include <openssl/evp.h>
#include <string.h>

#include "server.h"

#define PREFIX 5u
#define SLOT_BITS 16
#define MAX_TEXT 2048u /* bytes of a status text that are sent */
#define BIG (64u << 10)  /* bytes of a stream's message that must not wait for its window */
#define SECOND_REQUEST "a second request in one call"
#define NANOSECONDS_MAX (UINT64_MAX / 4)

static const char *const PATHS[] = {
    [WRITE] = "Write",
    [READ] = "Read",
    [SET_PIPELINE] = "SetForwardingPipelineConfig",
    [GET_PIPELINE] = "GetForwardingPipelineConfig",
    [CAPABILITIES] = "Capabilities",
    [STREAM_CHANNEL] = "StreamChannel",
};
static const char SERVICE[] = "/p4.v1.P4Runtime/";

/* ---- numbers ------------------------------------------------------------------------------ */

static int more_slots(struct sn_server *s) {
    uint32_t n = s->n_slots ? 2 * s->n_slots : 64;
    struct call **slots = realloc(s->slots, n * sizeof *slots);
    if (slots) s->slots = slots;
    uint32_t *unused = realloc(s->free_slots, n * sizeof *unused);
    if (unused) s->free_slots = unused;
    if (!slots || !unused || n > 1u << SLOT_BITS) return -1;
    for (uint32_t i = n; i-- > s->n_slots;) {
        s->slots[i] = NULL;
        s->free_slots[s->n_free++] = i;
    }
    s->n_slots = n;
    return 0;
}

struct call *call_of(struct sn_server *s, uint64_t id) {
    uint64_t slot = id & ((1u << SLOT_BITS) - 1);
    struct call *c = slot < s->n_slots ? s->slots[slot] : NULL;
    return c && c->id == id ? c : NULL;
}

struct call *call_new(struct conn *conn, int32_t stream) {
    struct sn_server *s = conn->server;
    if (!s->n_free && more_slots(s) < 0) return NULL;
    struct call *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    uint32_t slot = s->free_slots[--s->n_free];
    c->id = ++s->next_number << SLOT_BITS | slot;
    c->conn = conn;
    c->stream = stream;
    c->method = NO_METHOD;
    c->no_grpc = 1;
    STAILQ_INIT(&c->out);
    STAILQ_INIT(&c->later);
    s->slots[slot] = c;
    LIST_INSERT_HEAD(&conn->calls, c, of_conn);
    return c;
}

static void let_go(struct call *c) {
    c->conn->server->held -= c->held;
    c->held = 0;
    free(c->body);
    c->body = NULL;
    c->cap = 0;
}

static void clear_out(struct call *c) {
    struct message *m;
    while ((m = STAILQ_FIRST(&c->out))) {
        STAILQ_REMOVE_HEAD(&c->out, next);
        free(m);
    }
    c->n_out = 0;
    c->out_bytes = 0;
}

/* The stream is no more. */
void call_gone(struct call *c) {
    struct sn_server *s = c->conn->server;
    hand_gone(c);
    uint32_t slot = c->id & ((1u << SLOT_BITS) - 1);
    s->slots[slot] = NULL;
    s->free_slots[s->n_free++] = slot;
    LIST_REMOVE(c, of_conn);
    if (c->is_dirty) TAILQ_REMOVE(&s->dirty, c, dirty);
    pthread_cond_broadcast(&s->room);
    let_go(c);
    clear_out(c);
    free(c->text);
    free(c->details);
    free(c);
}

/* ---- the question ------------------------------------------------------------------------- */

static int is(const uint8_t *a, size_t n, const char *b) {
    return n == strlen(b) && !memcmp(a, b, n);
}

static uint64_t duration(const uint8_t *p, size_t n) {
    static const struct {
        char unit;
        uint64_t ns;
    } units[] = {{'n', 1},           {'u', 1000},          {'m', 1000000},
                 {'S', SECOND},      {'M', 60 * SECOND},   {'H', 3600 * SECOND}};
    uint64_t v = 0;
    if (n < 2 || n > 9) return 0;
    for (size_t i = 0; i + 1 < n; i++) {
        if (p[i] < '0' || p[i] > '9') return 0;
        v = v * 10 + (uint64_t)(p[i] - '0');
    }
    for (size_t u = 0; u < sizeof units / sizeof *units; u++)
        if (units[u].unit == (char)p[n - 1])
            return v > NANOSECONDS_MAX / units[u].ns ? NANOSECONDS_MAX : v * units[u].ns;
    return 0;
}

static uint32_t method_of(const uint8_t *path, size_t n) {
    size_t head = sizeof SERVICE - 1;
    if (n < head || memcmp(path, SERVICE, head)) return NO_METHOD;
    for (uint32_t m = 0; m < NO_METHOD; m++)
        if (is(path + head, n - head, PATHS[m])) return m;
    return NO_METHOD;
}

void call_header(struct call *c, const uint8_t *name, size_t name_len, const uint8_t *value,
                 size_t value_len, uint64_t now) {
    static const char grpc[] = "application/grpc";
    if (is(name, name_len, ":path")) {
        c->method = method_of(value, value_len);
    } else if (is(name, name_len, "content-type")) {
        c->no_grpc = value_len < sizeof grpc - 1 || memcmp(value, grpc, sizeof grpc - 1);
    } else if (is(name, name_len, "grpc-timeout")) {
        c->deadline = now + duration(value, value_len);
        if (c->deadline < c->conn->server->due) c->conn->server->due = c->deadline;
    }
}

void call_begun(struct call *c) {
    if (c->no_grpc) {
        nghttp2_nv status = {(uint8_t *)":status", (uint8_t *)"415", 7, 3, NGHTTP2_NV_FLAG_NONE};
        nghttp2_submit_response(c->conn->h2, c->stream, &status, 1, NULL);
        c->begun = c->ended = 1;
    } else if (c->method == NO_METHOD) {
        call_fail(c, CODE_UNIMPLEMENTED, "Method not found!");
    } else if (c->method == STREAM_CHANNEL) {
        hand_open(c);
    }
}

static void dispatch(struct call *c) {
    static const uint8_t queue[] = {[WRITE] = WRITES,
                                    [READ] = CALLS,
                                    [SET_PIPELINE] = PUSHES,
                                    [GET_PIPELINE] = CALLS,
                                    [CAPABILITIES] = CALLS};
    if (c->method == WRITE && !c->compressed && hot_write(c, c->body, c->len))
        let_go(c);
    else
        hand_over(c, queue[c->method], CALL);
}

static void message_came(struct call *c) {
    c->messages++;
    if (c->method != STREAM_CHANNEL) return; /* begins when the client has sent all */
    size_t whole = PREFIX + (c->len > BIG ? 0 : c->len);
    if (!c->pending && !c->compressed && hot_stream_message(c, c->body, c->len)) {
        let_go(c);
        call_credit(c, whole);
    } else {
        hand_message(c, whole);
    }
    c->have_prefix = 0;
}

static int room_for(struct call *c, size_t more) {
    struct sn_server *s = c->conn->server;
    size_t need = c->got + more;
    if (need <= c->cap) return 0;
    size_t cap = need < c->len / 2 ? 2 * need : c->len; /* what was announced may never come */
    if (s->held - c->held + cap > MAX_HELD) {
        call_fail(c, CODE_RESOURCE_EXHAUSTED, "the requests of all clients are too many bytes");
        return -1;
    }
    uint8_t *bigger = realloc(c->body, cap ? cap : 1);
    if (!bigger) {
        call_fail(c, CODE_RESOURCE_EXHAUSTED, "out of memory");
        return -1;
    }
    s->held += cap - c->held;
    c->held = cap;
    c->body = bigger;
    c->cap = (uint32_t)cap;
    return 0;
}

static int prefix_came(struct call *c) {
    c->compressed = c->prefix[0];
    c->len = sn_ld32(c->prefix + 1);
    c->got = 0;
    if (c->prefix[0] > 1)
        call_fail(c, CODE_INTERNAL, "a message's first byte is neither 0 nor 1");
    else if (c->len > MAX_MESSAGE)
        call_fail(c, CODE_RESOURCE_EXHAUSTED, "the message has more than 134217728 bytes");
    return c->ended || room_for(c, c->len < 4096 ? c->len : 0) < 0 ? -1 : 0;
}

void call_data(struct call *c, const uint8_t *data, size_t len) {
    /* A stream's client may send more when what it sent is done; what is big must come whole. */
    if (c->method != STREAM_CHANNEL || c->ended) call_credit(c, len);
    if (c->method != STREAM_CHANNEL && c->messages) call_fail(c, CODE_INTERNAL, SECOND_REQUEST);
    while (!c->ended && (len || (c->have_prefix == PREFIX && c->got == c->len))) {
        if (c->have_prefix < PREFIX) {
            c->prefix[c->have_prefix++] = *data++;
            len--;
            if (c->have_prefix == PREFIX && prefix_came(c) < 0) return;
        } else if (c->got < c->len) {
            size_t n = len < c->len - c->got ? len : c->len - c->got;
            if (room_for(c, n) < 0) return;
            memcpy(c->body + c->got, data, n);
            if (c->method == STREAM_CHANNEL && c->len > BIG) call_credit(c, n);
            c->got += (uint32_t)n;
            data += n;
            len -= n;
        }
        if (c->have_prefix < PREFIX || c->got < c->len) continue;
        if (c->method != STREAM_CHANNEL && len) {
            call_fail(c, CODE_INTERNAL, SECOND_REQUEST);
            return;
        }
        message_came(c);
        if (c->method != STREAM_CHANNEL) return;
    }
}

void call_half_closed(struct call *c) {
    c->half_closed = 1;
    if (c->ended) return;
    if (c->have_prefix && (c->method == STREAM_CHANNEL || !c->messages))
        call_fail(c, CODE_INTERNAL, "the request ends in the middle of a message");
    else if (c->method == STREAM_CHANNEL)
        hand_half_closed(c);
    else if (!c->messages)
        call_fail(c, CODE_INTERNAL, "the call has no request");
    else
        dispatch(c);
}

/* ---- the answer --------------------------------------------------------------------------- */

void call_touch(struct call *c) {
    if (c->is_dirty) return;
    c->is_dirty = 1;
    TAILQ_INSERT_TAIL(&c->conn->server->dirty, c, dirty);
}

void call_credit(struct call *c, size_t bytes) {
    c->credit += bytes;
    call_touch(c);
}

int call_send(struct call *c, const uint8_t *head, size_t head_len, const uint8_t *data,
              size_t len) {
    struct message *m = malloc(sizeof *m + PREFIX + head_len + len);
    if (!m) return -1;
    m->len = PREFIX + head_len + len;
    m->at = 0;
    m->bytes[0] = 0;
    sn_st32(m->bytes + 1, (uint32_t)(head_len + len));
    if (head_len) memcpy(m->bytes + PREFIX, head, head_len);
    if (len) memcpy(m->bytes + PREFIX + head_len, data, len);
    STAILQ_INSERT_TAIL(&c->out, m, next);
    c->n_out++;
    c->out_bytes += m->len;
    call_touch(c);
    return 0;
}

static void *copy_of(const void *p, size_t n) {
    void *copy = n ? malloc(n + 1) : NULL;
    if (copy) {
        memcpy(copy, p, n);
        ((char *)copy)[n] = 0;
    }
    return copy;
}

void call_end(struct call *c, int code, const char *text, size_t text_len, const uint8_t *details,
              size_t details_len) {
    if (c->ended) return;
    c->ended = 1;
    c->code = code;
    c->text = copy_of(text, text_len < MAX_TEXT ? text_len : MAX_TEXT);
    c->details = copy_of(details, details_len);
    c->details_len = c->details ? details_len : 0;
    call_touch(c);
}

void call_fail(struct call *c, int code, const char *text) {
    call_end(c, code, text, strlen(text), NULL, 0);
}

void call_break(struct call *c) {
    c->ended = c->broken = 1;
    call_touch(c);
}

static nghttp2_nv header(const char *name, const char *value, size_t len) {
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name), len,
                        NGHTTP2_NV_FLAG_NONE};
}

static size_t percent(const char *text, char *out) {
    static const char hex[] = "0123456789ABCDEF";
    size_t n = 0;
    for (; *text; text++) {
        uint8_t b = (uint8_t)*text;
        if (b >= 0x20 && b < 0x7f && b != '%') {
            out[n++] = *text;
        } else {
            out[n++] = '%';
            out[n++] = hex[b >> 4];
            out[n++] = hex[b & 15];
        }
    }
    return n;
}

/* Writes grpc-status and what belongs to it behind `nv`; what must live until it is sent is in
 * *text and *more. */
static size_t status(struct call *c, nghttp2_nv *nv, char *number, char **text, char **more) {
    size_t n = 0;
    int len = 0;
    if (c->code >= 10) number[len++] = (char)('0' + c->code / 10);
    number[len++] = (char)('0' + c->code % 10);
    nv[n++] = header("grpc-status", number, (size_t)len);
    if (c->text && (*text = malloc(3 * strlen(c->text) + 1)))
        nv[n++] = header("grpc-message", *text, percent(c->text, *text));
    if (c->details && (*more = malloc(4 * (c->details_len / 3 + 2)))) {
        int encoded = EVP_EncodeBlock((uint8_t *)*more, c->details, (int)c->details_len);
        while (encoded && (*more)[encoded - 1] == '=') encoded--;
        nv[n++] = header("grpc-status-details-bin", *more, (size_t)encoded);
    }
    return n;
}

static const char GRPC_TYPE[] = "application/grpc";

static void send_end(struct call *c, int trailers_only) {
    nghttp2_nv nv[5];
    char number[4], *text = NULL, *more = NULL;
    size_t n = 0;
    if (trailers_only) {
        nv[n++] = header(":status", "200", 3);
        nv[n++] = header("content-type", GRPC_TYPE, sizeof GRPC_TYPE - 1);
    }
    n += status(c, nv + n, number, &text, &more);
    if (trailers_only)
        nghttp2_submit_response(c->conn->h2, c->stream, nv, n, NULL);
    else
        nghttp2_submit_trailer(c->conn->h2, c->stream, nv, n);
    free(text); /* nghttp2 has copied them */
    free(more);
}

/* nghttp2 asks for up to `room` bytes of the answer. */
static ssize_t read_out(nghttp2_session *h2, int32_t stream, uint8_t *buf, size_t room,
                        uint32_t *flags, nghttp2_data_source *source, void *arg) {
    (void)h2, (void)stream, (void)arg;
    struct call *c = source->ptr;
    struct message *m;
    size_t at = 0;
    while (at < room && (m = STAILQ_FIRST(&c->out))) {
        size_t n = m->len - m->at < room - at ? m->len - m->at : room - at;
        memcpy(buf + at, m->bytes + m->at, n);
        at += n;
        m->at += n;
        c->out_bytes -= n;
        if (m->at < m->len) break;
        STAILQ_REMOVE_HEAD(&c->out, next);
        c->n_out--;
        free(m);
    }
    if (at) pthread_cond_broadcast(&c->conn->server->room);
    if (STAILQ_EMPTY(&c->out) && c->ended) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        send_end(c, 0);
        return (ssize_t)at;
    }
    if (at) return (ssize_t)at;
    c->waits = 1;
    return NGHTTP2_ERR_DEFERRED;
}

void call_flush(struct call *c) {
    nghttp2_session *h2 = c->conn->h2;
    if (c->credit) nghttp2_session_consume_stream(h2, c->stream, c->credit);
    c->credit = 0;
    if (c->broken) {
        nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, c->stream, NGHTTP2_CANCEL);
    } else if (!c->begun && c->ended && STAILQ_EMPTY(&c->out)) {
        c->begun = 1;
        send_end(c, 1);
    } else if (!c->begun && !STAILQ_EMPTY(&c->out)) {
        nghttp2_nv nv[] = {header(":status", "200", 3),
                           header("content-type", GRPC_TYPE, sizeof GRPC_TYPE - 1)};
        nghttp2_data_provider provider = {.source.ptr = c, .read_callback = read_out};
        c->begun = 1;
        nghttp2_submit_response(h2, c->stream, nv, 2, &provider);
    } else if (c->waits && (c->ended || !STAILQ_EMPTY(&c->out))) {
        c->waits = 0;
        nghttp2_session_resume_data(h2, c->stream);
    }
}
