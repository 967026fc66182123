/* A connection: HTTP/2 by nghttp2, with the limits and the keep-alives of a gRPC server. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server.h"

#define STREAM_WINDOW (256 << 10) /* bytes of one call that may be under way to us */
#define CONN_WINDOW (4 << 20)     /* of all calls of a connection */
#define READS 8                   /* buffers from one connection before others have their turn */
#define OUT_ENOUGH (48u << 10)    /* bytes worth a system call */
#define KEEPALIVE (10 * SECOND)   /* a primary that vanished must make room */
#define KEEPALIVE_ANSWER (5 * SECOND)
#define SET_UP (20 * SECOND) /* for handshake and preface */
#define PING_INTERVAL SECOND
#define PING_STRIKES 2u

/* ---- what nghttp2 tells ------------------------------------------------------------------- */

static struct call *call_at(nghttp2_session *h2, int32_t stream) {
    return nghttp2_session_get_stream_user_data(h2, stream);
}

static int on_begin_headers(nghttp2_session *h2, const nghttp2_frame *f, void *arg) {
    struct conn *c = arg;
    if (f->hd.type != NGHTTP2_HEADERS || f->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    struct call *call = call_new(c, f->hd.stream_id);
    if (!call) {
        c->server->losses[LOSS_MEMORY]++;
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    nghttp2_session_set_stream_user_data(h2, f->hd.stream_id, call);
    return 0;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *f, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *arg) {
    (void)flags;
    struct call *call = call_at(h2, f->hd.stream_id);
    if (call && f->headers.cat == NGHTTP2_HCAT_REQUEST)
        call_header(call, name, name_len, value, value_len, ((struct conn *)arg)->server->now);
    return 0;
}

/* Pings more often than a gRPC client may send them, with nothing sent to it in between. */
static void ping_came(struct conn *c) {
    uint64_t now = c->server->now;
    if (c->last_ping && now - c->last_ping < PING_INTERVAL && ++c->strikes > PING_STRIKES) {
        static const uint8_t why[] = "too_many_pings";
        nghttp2_submit_goaway(c->h2, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(c->h2),
                              NGHTTP2_ENHANCE_YOUR_CALM, why, sizeof why - 1);
        nghttp2_session_terminate_session(c->h2, NGHTTP2_ENHANCE_YOUR_CALM);
    }
    c->last_ping = now;
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *f, void *arg) {
    struct conn *c = arg;
    struct call *call;
    switch (f->hd.type) {
    case NGHTTP2_SETTINGS: c->established = 1; break;
    case NGHTTP2_PING:
        if (!(f->hd.flags & NGHTTP2_FLAG_ACK)) ping_came(c);
        break;
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        if (!(call = call_at(h2, f->hd.stream_id))) break;
        if (f->hd.type == NGHTTP2_HEADERS && f->headers.cat == NGHTTP2_HCAT_REQUEST)
            call_begun(call);
        if (f->hd.flags & NGHTTP2_FLAG_END_STREAM) call_half_closed(call);
        break;
    default: break;
    }
    return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t stream, const uint8_t *data,
                   size_t len, void *arg) {
    (void)flags, (void)arg;
    struct call *call = call_at(h2, stream);
    nghttp2_session_consume_connection(h2, len);
    if (call)
        call_data(call, data, len);
    else
        nghttp2_session_consume_stream(h2, stream, len);
    return 0;
}

static int on_sent(nghttp2_session *h2, const nghttp2_frame *f, void *arg) {
    struct conn *c = arg;
    if (f->hd.type != NGHTTP2_HEADERS && f->hd.type != NGHTTP2_DATA) return 0;
    c->strikes = 0;
    c->last_ping = 0;
    struct call *call = call_at(h2, f->hd.stream_id);
    /* An answer before the end of the question: the client may stop. */
    if (call && f->hd.flags & NGHTTP2_FLAG_END_STREAM && !call->half_closed)
        nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, f->hd.stream_id, NGHTTP2_NO_ERROR);
    return 0;
}

static int on_close(nghttp2_session *h2, int32_t stream, uint32_t error, void *arg) {
    (void)error, (void)arg;
    struct call *call = call_at(h2, stream);
    if (call) call_gone(call);
    return 0;
}

static nghttp2_session *session(struct conn *c) {
    struct sn_server *s = c->server;
    if (!s->callbacks) {
        if (nghttp2_session_callbacks_new(&s->callbacks)) return NULL;
        nghttp2_session_callbacks_set_on_begin_headers_callback(s->callbacks, on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback(s->callbacks, on_header);
        nghttp2_session_callbacks_set_on_frame_recv_callback(s->callbacks, on_frame);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(s->callbacks, on_data);
        nghttp2_session_callbacks_set_on_frame_send_callback(s->callbacks, on_sent);
        nghttp2_session_callbacks_set_on_stream_close_callback(s->callbacks, on_close);
    }
    if (!s->option) {
        if (nghttp2_option_new(&s->option)) return NULL;
        nghttp2_option_set_no_auto_window_update(s->option, 1);
    }
    nghttp2_session *h2;
    if (nghttp2_session_server_new2(&h2, s->callbacks, c, s->option)) return NULL;
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, MAX_CALLS},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
    };
    if (nghttp2_submit_settings(h2, NGHTTP2_FLAG_NONE, settings, 2) == 0 &&
        nghttp2_session_set_local_window_size(h2, NGHTTP2_FLAG_NONE, 0, CONN_WINDOW) == 0)
        return h2;
    nghttp2_session_del(h2);
    return NULL;
}

/* ---- bytes -------------------------------------------------------------------------------- */

static int reserve(struct conn *c, size_t more) {
    if (c->out_n + more <= c->out_cap) return 0;
    size_t cap = c->out_n + more + OUT_ENOUGH;
    uint8_t *bigger = realloc(c->out, cap);
    if (!bigger) return -1;
    c->out = bigger;
    c->out_cap = cap;
    return 0;
}

/* Several frames go out by one system call; more are made only when these have left. */
static int fill(struct conn *c) {
    c->out_n = c->out_at = 0;
    while (c->out_n < OUT_ENOUGH) {
        const uint8_t *frame;
        ssize_t n = nghttp2_session_mem_send(c->h2, &frame);
        if (n == 0) break;
        if (n < 0 || reserve(c, (size_t)n) < 0) return -1;
        memcpy(c->out + c->out_n, frame, (size_t)n);
        c->out_n += (size_t)n;
    }
    return 0;
}

static void arm(struct conn *c) {
    if (c->wants_write == c->armed_write) return;
    /* Who doesn't take answers isn't asked for more questions. */
    struct epoll_event e = {.events = c->wants_write ? EPOLLOUT : EPOLLIN, .data.ptr = c};
    epoll_ctl(c->server->epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
    c->armed_write = c->wants_write;
}

void conn_flush(struct conn *c) {
    c->wants_write = 0;
    while (!c->dead) {
        if (c->out_at == c->out_n && fill(c) < 0) {
            c->dead = 1;
            return;
        }
        if (c->out_n == 0) {
            if (!nghttp2_session_want_read(c->h2) && !nghttp2_session_want_write(c->h2)) c->dead = 1;
            break;
        }
        ssize_t n = io_write(c, c->out + c->out_at, c->out_n - c->out_at);
        if (n == IO_AGAIN) break;
        if (n < 0) {
            c->dead = 1;
            return;
        }
        c->out_at += (size_t)n;
    }
    arm(c);
}

static int is_h2(struct conn *c) {
    const unsigned char *name;
    unsigned n = 0;
    if (!c->ssl || c->established || !SSL_is_init_finished(c->ssl)) return 1;
    SSL_get0_alpn_selected(c->ssl, &name, &n);
    return n == 2 && !memcmp(name, "h2", 2);
}

static void take_in(struct conn *c, uint64_t now) {
    for (int round = 0; !c->dead; round++) {
        if (round >= READS && !(c->ssl && SSL_pending(c->ssl))) return;
        ssize_t n = io_read(c, c->server->in, sizeof c->server->in);
        if (n == IO_AGAIN) return;
        if (n <= 0 || !is_h2(c) ||
            nghttp2_session_mem_recv(c->h2, c->server->in, (size_t)n) < 0) {
            c->dead = 1;
            return;
        }
        c->heard = now;
        c->ping_sent = 0;
        /* A short read has emptied the socket; of TLS that can't be known. */
        if (!c->ssl && (size_t)n < sizeof c->server->in) return;
    }
}

void conn_event(struct conn *c, uint32_t events, uint64_t now) {
    if (c->dead) return;
    if (events & EPOLLIN || (c->ssl && events & EPOLLOUT))
        take_in(c, now);
    else if (events & (EPOLLERR | EPOLLHUP))
        c->dead = 1;
}

/* ---- life --------------------------------------------------------------------------------- */

int conn_new(struct sn_server *s, int fd, uint64_t now) {
    struct conn *c = calloc(1, sizeof *c);
    if (!c) return -1;
    c->server = s;
    c->fd = fd;
    c->born = c->heard = now;
    LIST_INIT(&c->calls);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* not of a unix socket */
    if (tls_accept(c) < 0 || !(c->h2 = session(c)) ||
        epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0) {
        nghttp2_session_del(c->h2);
        SSL_free(c->ssl);
        free(c);
        return -1;
    }
    LIST_INSERT_HEAD(&s->conns, c, next);
    s->n_conns++;
    if (now + KEEPALIVE < s->due) s->due = now + KEEPALIVE;
    if (!c->ssl) conn_flush(c);
    return 0;
}

static void earlier(uint64_t *due, uint64_t at) {
    if (at < *due) *due = at;
}

/* What is due by now; *due becomes earlier where something will be. */
void conn_care(struct conn *c, uint64_t now, uint64_t *due) {
    struct call *call;
    LIST_FOREACH(call, &c->calls, of_conn) {
        if (!call->deadline || call->ended) continue;
        if (now >= call->deadline)
            call_fail(call, CODE_DEADLINE_EXCEEDED, "Deadline Exceeded");
        else
            earlier(due, call->deadline);
    }
    if (!c->established) {
        if (now - c->born >= SET_UP) c->dead = 1;
        earlier(due, c->born + SET_UP);
        return;
    }
    if (c->ping_sent) {
        if (now - c->ping_sent >= KEEPALIVE_ANSWER) c->dead = 1;
        earlier(due, c->ping_sent + KEEPALIVE_ANSWER);
        return;
    }
    if (now - c->heard >= KEEPALIVE) {
        c->ping_sent = now;
        if (nghttp2_submit_ping(c->h2, NGHTTP2_FLAG_NONE, NULL)) c->dead = 1;
        if (!c->dead) conn_flush(c);
        earlier(due, now + KEEPALIVE_ANSWER);
        return;
    }
    earlier(due, c->heard + KEEPALIVE);
}

void conn_goaway(struct conn *c) {
    nghttp2_submit_goaway(c->h2, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(c->h2),
                          NGHTTP2_NO_ERROR, NULL, 0);
    conn_flush(c);
}

void conn_free(struct conn *c) {
    struct call *call;
    while ((call = LIST_FIRST(&c->calls))) call_gone(call);
    LIST_REMOVE(c, next);
    c->server->n_conns--;
    nghttp2_session_del(c->h2);
    if (c->ssl) SSL_shutdown(c->ssl); /* told once, not waited for */
    SSL_free(c->ssl);
    /* Closing is not enough: a process that was just forked may hold the socket for a moment. */
    epoll_ctl(c->server->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
    close(c->fd);
    free(c->out);
    free(c);
}
