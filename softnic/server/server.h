/*
 * The P4Runtime server in native code. One thread does all of it, from the socket to the tables:
 *
 *     socket --tls.c--> conn.c (HTTP/2: nghttp2) --> call.c (gRPC) --> hot.c   plain Writes,
 *                                                        |               packet-outs, packet-ins
 *                                                        '--> hand.c   everything else: Python
 *
 * It holds `mutex` except while it sleeps; Python's threads take it for moments, to fetch what was
 * handed over and to leave answers.
 */
#ifndef SOFTNIC_SERVER_H
#define SOFTNIC_SERVER_H

#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <sys/queue.h>

#include "internal.h"
#include "protobuf.h"

#define MAX_LISTENERS 8u
#define MAX_CONNS 256u
#define MAX_CALLS 128u                 /* of a connection at a time; more wait at the client */
#define MAX_MESSAGE (128u << 20)       /* bytes: a program's JSON may exceed gRPC's 4 MiB */
#define MAX_HELD ((size_t)512 << 20)   /* bytes of requests, of all clients together */
#define SECOND 1000000000ull           /* ns, as all times here */

/* ---- call.c: a gRPC call ------------------------------------------------------------------ */

/* Names of the methods, in this order, stand in call.c and in softnic/p4runtime/front.py. */
enum method { WRITE, READ, SET_PIPELINE, GET_PIPELINE, CAPABILITIES, STREAM_CHANNEL, NO_METHOD };

/* Canonical codes of google.rpc that this code gives by itself. */
enum code {
    CODE_OK = 0,
    CODE_DEADLINE_EXCEEDED = 4,
    CODE_RESOURCE_EXHAUSTED = 8,
    CODE_UNIMPLEMENTED = 12,
    CODE_INTERNAL = 13
};

struct sn_server;
struct conn;
struct hand_item;

struct message {
    STAILQ_ENTRY(message) next;
    size_t len, at; /* bytes, gRPC's prefix included; how many have left */
    uint8_t bytes[];
};

struct call {
    uint64_t id; /* never used again */
    struct conn *conn;
    int32_t stream;
    uint32_t method;
    uint64_t deadline; /* ns, 0: none */
    int no_grpc;       /* the content type is another */
    /* towards us */
    uint8_t prefix[5];
    uint32_t have_prefix, len, got, cap, messages;
    uint8_t *body; /* of the message that is coming in, or of the one that came */
    size_t held;   /* bytes of it that count in the server's sum */
    int compressed, half_closed;
    struct hand_item *farewell; /* so that Python hears of a stream's end whatever happens */
    uint32_t pending; /* messages of a stream that Python has not done with */
    STAILQ_HEAD(, hand_item) later; /* those of them that don't wait in its queue yet */
    uint32_t n_queued;              /* those that do */
    size_t credit;    /* bytes that the client may send instead of those that are done */
    /* towards the client */
    STAILQ_HEAD(, message) out;
    uint32_t n_out;
    size_t out_bytes;
    int begun, waits, ended, broken, code;
    char *text;
    uint8_t *details;
    size_t details_len;
    int is_dirty;
    TAILQ_ENTRY(call) dirty;
    LIST_ENTRY(call) of_conn;
};

struct call *call_new(struct conn *c, int32_t stream);
void call_header(struct call *c, const uint8_t *name, size_t name_len, const uint8_t *value,
                 size_t value_len, uint64_t now);
void call_begun(struct call *c);
void call_data(struct call *c, const uint8_t *data, size_t len);
void call_half_closed(struct call *c);
void call_gone(struct call *c);
/* Queues a message; `len` bytes at `data` behind `head_len` at `head`. -1 without memory. */
int call_send(struct call *c, const uint8_t *head, size_t head_len, const uint8_t *data, size_t len);
/* Ends it after what is queued; the first end counts. Takes nothing over. */
void call_end(struct call *c, int code, const char *text, size_t text_len, const uint8_t *details,
              size_t details_len);
void call_fail(struct call *c, int code, const char *text);
void call_break(struct call *c); /* ends it at once, as cancelled */
void call_flush(struct call *c); /* gives nghttp2 what has changed */
void call_touch(struct call *c); /* something has changed */
void call_credit(struct call *c, size_t bytes);
struct call *call_of(struct sn_server *s, uint64_t id);

/* ---- hot.c: what is done here ------------------------------------------------------------- */

struct role {
    uint64_t call, high, low; /* stream and election id of its primary */
    uint32_t flags, filter_id;
    const uint8_t *name, *filter;
    uint32_t name_len, filter_len;
};

enum role_flag { HAS_PRIMARY = 1, WRITES_ALL = 2, TAKES_PACKET_INS = 4, FILTERS = 8 };

struct header_field {
    uint32_t id, bits, shift, is_padding;
};

#define MAX_HEADER 256u

struct header {
    uint32_t size, n;
    struct header_field *fields;
};

/* What Python says of clients and pipeline, for the hot path. */
struct mirror {
    struct role *roles;
    uint32_t n_roles;
    uint8_t *role_bytes;
    uint64_t device_id, generation;
    int may_write, has_pipeline;
    const struct sn_wire *plan;
    struct header in, out;
    uint8_t *scratch; /* to write packet-ins in */
};

/* 1: done here (or answered), 0: somebody else must. */
int hot_write(struct call *c, const uint8_t *request, uint32_t len);
int hot_stream_message(struct call *c, const uint8_t *message, uint32_t len);
void hot_packet_in(struct sn_server *s, const uint8_t *frame, uint32_t len);
void hot_free(struct mirror *m);

/* ---- hand.c: what Python does ------------------------------------------------------------- */

enum queue { STREAMS, WRITES, CALLS, PUSHES, N_QUEUES };
enum kind { CALL, FAILED_WRITE, OPENED, MESSAGE, HALF_CLOSED, CLOSED };

struct hand_item {
    STAILQ_ENTRY(hand_item) next;
    uint64_t call;
    uint32_t kind, method, compressed, n;
    uint8_t *data;
    uint64_t len;
    uint8_t *status; /* of a Write that failed in part: of each update, and where they are */
    uint64_t *spans;
    uint64_t generation; /* of the pipeline that it was written to */
    size_t held, credit;
};

struct hand_queue {
    STAILQ_HEAD(, hand_item) items;
    pthread_cond_t cond;
};

/* Takes the call's body over; NULL without memory (the call is ended then). */
struct hand_item *hand_over(struct call *c, enum queue q, enum kind kind);
void hand_message(struct call *c, size_t credit); /* a stream's, in turns with other streams' */
void hand_half_closed(struct call *c);            /* after its messages */
int hand_open(struct call *c);  /* tells Python of a stream; -1 without memory, as above */
void hand_gone(struct call *c); /* and of its end */
void hand_free(struct sn_server *s, struct hand_item *i);

/* ---- conn.c: a connection ----------------------------------------------------------------- */

struct conn {
    LIST_ENTRY(conn) next;
    struct sn_server *server;
    int fd, dead, wants_write, armed_write;
    SSL *ssl;
    nghttp2_session *h2;
    uint8_t *out;
    size_t out_n, out_at, out_cap;
    uint64_t born, heard, ping_sent, last_ping;
    uint32_t strikes;
    int established;
    LIST_HEAD(, call) calls;
};

int conn_new(struct sn_server *s, int fd, uint64_t now);
void conn_event(struct conn *c, uint32_t events, uint64_t now);
void conn_flush(struct conn *c);
void conn_care(struct conn *c, uint64_t now, uint64_t *due);
void conn_goaway(struct conn *c);
void conn_free(struct conn *c);

/* ---- tls.c -------------------------------------------------------------------------------- */

enum { IO_AGAIN = -1, IO_FAILED = -2 }; /* 0: the end */

SSL_CTX *tls_new(const char *cert, const char *key, const char *ca, int client_auth, char *why,
                 size_t cap);
int tls_accept(struct conn *c);
ssize_t io_read(struct conn *c, uint8_t *buf, size_t n);
ssize_t io_write(struct conn *c, const uint8_t *buf, size_t n);

/* ---- loop.c ------------------------------------------------------------------------------- */

/* Why something was not done; names in softnic/p4runtime/front.py. */
enum loss {
    LOSS_SLOW_PACKET,
    LOSS_NO_PRIMARY,
    LOSS_SHORT,
    LOSS_NO_PIPELINE,
    LOSS_CONNECTIONS,
    LOSS_MEMORY,
    N_LOSSES
};

struct sn_server {
    struct sn_device *dev;
    pthread_mutex_t mutex;
    pthread_t thread;
    int started, stopping, closed;
    uint64_t stop_at;
    int epoll_fd, wake_fd, punt_fd;
    int woken; /* wake_fd has been written to and not yet read */
    int listeners[MAX_LISTENERS], n_listeners, port, paused;
    char path[108]; /* of a unix socket, to be removed */
    SSL_CTX *tls;
    LIST_HEAD(, conn) conns;
    uint32_t n_conns;
    TAILQ_HEAD(, call) dirty;
    struct call **slots;
    uint32_t n_slots, n_free;
    uint32_t *free_slots;
    uint64_t next_number;
    size_t held;
    uint64_t now, due;
    pthread_cond_t room; /* a call sent some of what was queued, or is gone */
    struct hand_queue queues[N_QUEUES];
    struct mirror mirror;
    uint64_t losses[N_LOSSES];
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    uint8_t in[64 << 10];
};

void server_wake(struct sn_server *s); /* from another thread, with the mutex held */
int server_listen(struct sn_server *s, const char *address, char *why, size_t cap);

#endif
