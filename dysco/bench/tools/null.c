/*
 * null PORT COUNT: a P4Runtime server that does nothing, so that what a client takes is its own.
 *
 * It serves one connection after another: every call is answered with an empty message, the first
 * message of a stream with an empty one. Then, after the first call (the client has set itself up),
 * COUNT packet-ins are sent on the stream, each when the one before has been answered; prints
 * {"failed": 0, "ns": [...]}, the time from each to its answer.
 *
 * HTTP/2 in ready-made frames: it reads frames' heads only, and never looks at a header block.
 */
#include "common.h"

enum { DATA = 0, HEADERS = 1, SETTINGS = 4, PING = 6, WINDOW_UPDATE = 8 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };

#define PREFACE 24u
#define HEAD 9u

struct link {
    int fd;
    uint8_t in[1 << 20], out[1 << 16];
    size_t have, n_out;
    uint32_t stream; /* the StreamChannel */
    int is_set_up;
    uint64_t sent_at;
    long left, done;
    uint64_t *ns;
};

static void put(struct link *l, uint32_t type, uint32_t flags, uint32_t stream, const void *p,
                size_t len) {
    uint8_t *o = l->out + l->n_out;
    uint8_t head[HEAD] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, (uint8_t)type,
                          (uint8_t)flags};
    if (l->n_out + HEAD + len > sizeof l->out) fail("the client reads nothing");
    stream = htonl(stream);
    memcpy(head + 5, &stream, 4);
    memcpy(o, head, HEAD);
    if (len) memcpy(o + HEAD, p, len);
    l->n_out += HEAD + len;
}

/* :status 200 (indexed), and literals that nobody keeps. */
static const char BEGIN[] = "\x88\x00\x0c" "content-type" "\x10" "application/grpc";
static const char END[] = "\x00\x0b" "grpc-status" "\x01" "0";
static const char EMPTY[] = "\0\0\0\0";

static void begin(struct link *l, uint32_t stream) {
    put(l, HEADERS, END_HEADERS, stream, BEGIN, sizeof BEGIN - 1);
}

/* StreamMessageResponse: packet {metadata {metadata_id: 1 value: "\2"} payload: 64 bytes} */
static void packet_in(struct link *l) {
    uint8_t m[5 + 2 + 7 + 2 + 64] = {0, 0, 0, 0, 2 + 7 + 2 + 64, 0x12, 7 + 2 + 64,
                                     0x12, 5, 0x08, 1, 0x12, 1, 2, 0x0a, 64};
    put(l, DATA, 0, l->stream, m, sizeof m);
    l->sent_at = now_ns();
}

static void on_stream_data(struct link *l) {
    if (!l->is_set_up) {
        begin(l, l->stream);
        put(l, DATA, 0, l->stream, EMPTY, 5);
    } else if (l->left) {
        l->ns[l->done++] = now_ns() - l->sent_at;
        if (--l->left) packet_in(l);
    }
}

static void on_frame(struct link *l, const uint8_t *f, size_t len) {
    uint32_t type = f[3], flags = f[4], stream;
    memcpy(&stream, f + 5, 4);
    stream = ntohl(stream);
    if (type == SETTINGS && !(flags & ACK)) put(l, SETTINGS, ACK, 0, NULL, 0);
    if (type == PING && !(flags & ACK)) put(l, PING, ACK, 0, f + HEAD, len);
    if (type != DATA || !len) return;
    uint32_t size = htonl((uint32_t)len);
    put(l, WINDOW_UPDATE, 0, 0, &size, 4);
    if (flags & END_STREAM) {
        begin(l, stream);
        put(l, DATA, 0, stream, EMPTY, 5);
        put(l, HEADERS, END_STREAM | END_HEADERS, stream, END, sizeof END - 1);
        if (!l->is_set_up && l->left) packet_in(l);
        l->is_set_up = 1;
        return;
    }
    put(l, WINDOW_UPDATE, 0, stream, &size, 4);
    if (!l->stream) l->stream = stream;
    if (stream == l->stream) on_stream_data(l);
}

static void take(struct link *l) {
    size_t at = 0;
    while (l->have - at >= HEAD) {
        const uint8_t *f = l->in + at;
        size_t len = (size_t)f[0] << 16 | (size_t)f[1] << 8 | f[2];
        if (l->have - at < HEAD + len) break;
        on_frame(l, f, len);
        at += HEAD + len;
    }
    memmove(l->in, l->in + at, l->have - at);
    l->have -= at;
}

static void serve(struct link *l) {
    int one = 1, is_first = 1;
    setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    l->have = l->n_out = 0;
    l->stream = 0;
    l->is_set_up = 0;
    put(l, SETTINGS, 0, 0, NULL, 0);
    for (;;) {
        if (l->n_out && send(l->fd, l->out, l->n_out, MSG_NOSIGNAL) != (ssize_t)l->n_out) return;
        l->n_out = 0;
        if (l->done && !l->left) return;
        ssize_t n = recv(l->fd, l->in + l->have, sizeof l->in - l->have, 0);
        if (n <= 0) return;
        l->have += (size_t)n;
        if (is_first && l->have < PREFACE) continue;
        if (is_first) memmove(l->in, l->in + PREFACE, l->have -= PREFACE);
        is_first = 0;
        take(l);
    }
}

static void tell(struct link *l) {
    printf("{\"failed\": 0, \"ns\": [");
    for (long i = 0; i < l->done; i++)
        printf("%s%llu", i ? ", " : "", (unsigned long long)l->ns[i]);
    printf("]}\n");
    fflush(stdout);
    l->done = 0;
}

int main(int argc, char **argv) {
    static struct link l;
    errno = 0;
    if (argc != 3) fail("usage: null PORT COUNT");
    struct sockaddr_in a = endpoint("127.0.0.1", number(argv[1], 1, 65535));
    int one = 1, fd = tcp_socket(0);
    l.left = number(argv[2], 0, 1000000);
    l.ns = calloc((size_t)l.left + 1, sizeof *l.ns);
    if (!l.ns) fail("no memory");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 8) < 0)
        fail("can't listen on port %s", argv[1]);
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        l.fd = accept(fd, NULL, NULL);
        if (l.fd < 0) fail("no connection");
        serve(&l);
        close(l.fd);
        if (l.done && !l.left) tell(&l);
    }
}
