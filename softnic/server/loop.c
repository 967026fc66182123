/* The server's thread: who connects, who has something to say, what is due. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "server.h"

#define EVENTS 64
#define BACKLOG 128
#define PUNTS_AT_ONCE 256     /* packet-ins before RPCs have their turn */
#define PAUSE (SECOND / 10)   /* without accepting, where there are no descriptors left */
#define FOREVER (UINT64_MAX / 2)

/* ---- listening ---------------------------------------------------------------------------- */

static int listen_on(struct sn_server *s, int fd, const struct sockaddr *a, socklen_t len) {
    int one = 1, zero = 0;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (a->sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    if (bind(fd, a, len) < 0 || listen(fd, BACKLOG) < 0) return -1;
    s->listeners[s->n_listeners++] = fd;
    return 0;
}

static int open_socket(int family) {
    return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static int listen_unix(struct sn_server *s, const char *path, char *why, size_t cap) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct stat st;
    if (!*path || strlen(path) >= sizeof a.sun_path) {
        snprintf(why, cap, "a unix socket's path has 1 to %zu bytes", sizeof a.sun_path - 1);
        return -1;
    }
    strcpy(a.sun_path, path);
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) unlink(path); /* of one that was killed */
    int fd = open_socket(AF_UNIX);
    if (fd >= 0 && listen_on(s, fd, (struct sockaddr *)&a, sizeof a) == 0) {
        strcpy(s->path, path);
        return 0;
    }
    snprintf(why, cap, "%s", strerror(errno));
    if (fd >= 0) close(fd);
    return -1;
}

static int port_of(int fd) {
    struct sockaddr_storage a;
    socklen_t len = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &len) < 0) return 0;
    return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
                                         : ((struct sockaddr_in *)&a)->sin_port);
}

static int listen_tcp(struct sn_server *s, const char *host, const char *port, char *why,
                      size_t cap) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *all = NULL;
    int rc = getaddrinfo(*host ? host : NULL, port, &hints, &all), error = 0;
    if (rc) {
        snprintf(why, cap, "%s", gai_strerror(rc));
        return -1;
    }
    for (struct addrinfo *i = all; i && s->n_listeners < (int)MAX_LISTENERS; i = i->ai_next) {
        if (s->port && i->ai_family == AF_INET)
            ((struct sockaddr_in *)i->ai_addr)->sin_port = htons((uint16_t)s->port);
        if (s->port && i->ai_family == AF_INET6)
            ((struct sockaddr_in6 *)i->ai_addr)->sin6_port = htons((uint16_t)s->port);
        int fd = open_socket(i->ai_family);
        if (fd >= 0 && listen_on(s, fd, i->ai_addr, i->ai_addrlen) == 0) {
            s->port = port_of(fd);
            continue;
        }
        error = errno;
        if (fd >= 0) close(fd);
        /* One family may be missing on this machine; an address in use is in use. */
        if (error == EADDRINUSE) break;
    }
    freeaddrinfo(all);
    if (s->n_listeners && error != EADDRINUSE) return 0;
    snprintf(why, cap, "%s", strerror(error));
    return -1;
}

/* HOST:PORT (port 0: a free one), [IPV6]:PORT or unix:PATH. */
int server_listen(struct sn_server *s, const char *address, char *why, size_t cap) {
    char host[256];
    if (!strncmp(address, "unix:", 5)) {
        const char *path = address + 5;
        return listen_unix(s, strncmp(path, "///", 3) ? path : path + 2, why, cap);
    }
    const char *colon = strrchr(address, ':');
    size_t n = colon ? (size_t)(colon - address) : 0;
    if (!colon || n >= sizeof host || !colon[1]) {
        snprintf(why, cap, "it is neither HOST:PORT nor unix:PATH");
        return -1;
    }
    memcpy(host, address, n);
    host[n] = 0;
    if (n > 1 && host[0] == '[' && host[n - 1] == ']') {
        memmove(host, host + 1, n - 2);
        host[n - 2] = 0;
    }
    return listen_tcp(s, host, colon + 1, why, cap);
}

static void watch_listeners(struct sn_server *s, int op) {
    for (int i = 0; i < s->n_listeners; i++) {
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = &s->listeners[i]};
        epoll_ctl(s->epoll_fd, op, s->listeners[i], &e);
    }
    s->paused = op == EPOLL_CTL_DEL;
}

static void accept_all(struct sn_server *s, int listener) {
    for (int i = 0; i < BACKLOG; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                watch_listeners(s, EPOLL_CTL_DEL);
                if (s->now + PAUSE < s->due) s->due = s->now + PAUSE;
            }
            return;
        }
        if (s->n_conns < MAX_CONNS && conn_new(s, fd, s->now) == 0) continue;
        s->losses[LOSS_CONNECTIONS]++;
        close(fd);
    }
}

/* ---- the loop ----------------------------------------------------------------------------- */

static void take_packet_ins(struct sn_server *s) {
    struct sn_event_rec *e = NULL;
    for (int i = 0; i < PUNTS_AT_ONCE && (e = sn_ring_pop(&s->dev->punts)); i++) {
        hot_packet_in(s, e->data, e->len);
        free(e);
    }
    uint64_t one = 1;
    if (e && write(s->punt_fd, &one, sizeof one) < 0) return; /* full: still readable */
}

static void drain(int fd) {
    uint64_t ticks;
    if (read(fd, &ticks, sizeof ticks) < 0) return; /* nothing in it: just as well */
}

/* 1 where a connection died of it. */
static int serve_dirty(struct sn_server *s) {
    struct call *c;
    int died = 0;
    while ((c = TAILQ_FIRST(&s->dirty))) {
        struct conn *conn = c->conn;
        TAILQ_REMOVE(&s->dirty, c, dirty);
        c->is_dirty = 0;
        call_flush(c);
        /* Those of one connection leave together. */
        struct call *next = TAILQ_FIRST(&s->dirty);
        if (next && next->conn == conn) continue;
        if (!conn->dead) conn_flush(conn);
        died |= conn->dead;
    }
    return died;
}

/* The device's thread brings a packet-in while this server's sleeps: it is sent without waking it. */
static int packet_in_now(void *server, const uint8_t *frame, uint32_t len) {
    struct sn_server *s = server;
    if (pthread_mutex_trylock(&s->mutex)) return 0;
    s->now = sn_now();
    hot_packet_in(s, frame, len);
    if (serve_dirty(s)) server_wake(s);
    pthread_mutex_unlock(&s->mutex);
    return 1;
}

static void reap(struct sn_server *s) {
    struct conn *c = LIST_FIRST(&s->conns), *after;
    for (; c; c = after) {
        after = LIST_NEXT(c, next);
        if (c->dead) conn_free(c);
    }
}

static void care(struct sn_server *s) {
    struct conn *c;
    if (s->paused && !s->stopping) watch_listeners(s, EPOLL_CTL_ADD);
    s->due = s->now + FOREVER;
    LIST_FOREACH(c, &s->conns, next) if (!c->dead) conn_care(c, s->now, &s->due);
    if (s->stopping && s->stop_at < s->due) s->due = s->stop_at;
}

static int is_idle(const struct sn_server *s) {
    const struct conn *c;
    LIST_FOREACH(c, &s->conns, next) if (!LIST_EMPTY(&c->calls)) return 0;
    return 1;
}

static void handle(struct sn_server *s, const struct epoll_event *e) {
    void *p = e->data.ptr;
    if (p == &s->wake_fd) {
        drain(s->wake_fd);
        s->woken = 0;
    } else if (p == &s->punt_fd) {
        drain(s->punt_fd);
        take_packet_ins(s);
    } else if ((int *)p >= s->listeners && (int *)p < s->listeners + MAX_LISTENERS) {
        accept_all(s, *(int *)p);
    } else {
        struct conn *c = p;
        conn_event(c, e->events, s->now);
        serve_dirty(s);
        if (!c->dead) conn_flush(c);
    }
}

static int wait_ms(const struct sn_server *s) {
    uint64_t now = sn_now();
    if (s->due <= now) return 0;
    uint64_t ms = (s->due - now) / 1000000 + 1;
    return ms > 60000 ? 60000 : (int)ms;
}

static void *loop(void *arg) {
    struct sn_server *s = arg;
    struct epoll_event events[EVENTS];
    pthread_mutex_lock(&s->mutex);
    while (!s->closed) {
        int timeout = wait_ms(s);
        pthread_mutex_unlock(&s->mutex);
        int n = epoll_wait(s->epoll_fd, events, EVENTS, timeout);
        pthread_mutex_lock(&s->mutex);
        s->now = sn_now();
        for (int i = 0; i < n; i++) handle(s, &events[i]);
        if (s->now >= s->due) care(s);
        serve_dirty(s);
        reap(s);
        if (s->stopping && (s->now >= s->stop_at || is_idle(s))) s->closed = 1;
    }
    struct conn *c;
    while ((c = LIST_FIRST(&s->conns))) conn_free(c);
    for (int q = 0; q < N_QUEUES; q++) pthread_cond_broadcast(&s->queues[q].cond);
    pthread_cond_broadcast(&s->room);
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

void server_wake(struct sn_server *s) {
    uint64_t one = 1;
    if (s->woken) return;
    s->woken = 1;
    if (write(s->wake_fd, &one, sizeof one) < 0) return; /* full: it is readable */
}

/* ---- life --------------------------------------------------------------------------------- */

/* After sn_server_stop, when no other thread is in a call any more. */
SN_EXPORT void sn_server_free(struct sn_server *s) {
    struct hand_item *i;
    for (int q = 0; q < N_QUEUES; q++)
        while ((i = STAILQ_FIRST(&s->queues[q].items))) {
            STAILQ_REMOVE_HEAD(&s->queues[q].items, next);
            hand_free(s, i);
        }
    for (int k = 0; k < s->n_listeners; k++) close(s->listeners[k]);
    if (*s->path) unlink(s->path);
    if (s->epoll_fd >= 0) close(s->epoll_fd);
    if (s->wake_fd >= 0) close(s->wake_fd);
    if (s->punt_fd >= 0) close(s->punt_fd);
    hot_free(&s->mirror);
    nghttp2_session_callbacks_del(s->callbacks);
    nghttp2_option_del(s->option);
    SSL_CTX_free(s->tls);
    free(s->slots);
    free(s->free_slots);
    free(s);
}

static int prepare(struct sn_server *s) {
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    s->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    s->punt_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct epoll_event wake = {.events = EPOLLIN, .data.ptr = &s->wake_fd};
    struct epoll_event punt = {.events = EPOLLIN, .data.ptr = &s->punt_fd};
    return s->epoll_fd < 0 || s->wake_fd < 0 || s->punt_fd < 0 ||
                   epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->wake_fd, &wake) < 0 ||
                   epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->punt_fd, &punt) < 0
               ? -1
               : 0;
}

/*
 * A server that listens already and serves from sn_server_start on. Without `cert` nothing is
 * encrypted. NULL: `why` tells in at most `cap` bytes.
 */
SN_EXPORT struct sn_server *sn_server_new(struct sn_device *d, const char *address,
                                          const char *cert, const char *key, const char *ca,
                                          int client_auth, char *why, uint64_t cap) {
    struct sn_server *s = calloc(1, sizeof *s);
    if (!s) {
        snprintf(why, cap, "out of memory");
        return NULL;
    }
    s->dev = d;
    s->now = sn_now();
    s->due = s->now + FOREVER;
    s->epoll_fd = s->wake_fd = s->punt_fd = -1;
    LIST_INIT(&s->conns);
    TAILQ_INIT(&s->dirty);
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->room, NULL);
    for (int q = 0; q < N_QUEUES; q++) {
        STAILQ_INIT(&s->queues[q].items);
        pthread_cond_init(&s->queues[q].cond, NULL);
    }
    if (prepare(s) < 0)
        snprintf(why, cap, "%s", strerror(errno));
    else if ((!cert || (s->tls = tls_new(cert, key, ca, client_auth, why, cap))) &&
             server_listen(s, address, why, cap) == 0)
        return s;
    sn_server_free(s);
    return NULL;
}

/* The port that it listens on; 0 for a unix socket. */
SN_EXPORT int sn_server_port(struct sn_server *s) {
    return s->port;
}

SN_EXPORT int sn_server_start(struct sn_server *s) {
    watch_listeners(s, EPOLL_CTL_ADD);
    if (pthread_create(&s->thread, NULL, loop, s) != 0) return -1;
    s->started = 1;
    sn_ring_tell(&s->dev->punts, s->punt_fd, packet_in_now, s); /* packet-ins come from now on */
    return 0;
}

/* Ends streams that go on after `grace_ns`, and the thread. Takers come back with nothing. */
SN_EXPORT void sn_server_stop(struct sn_server *s, uint64_t grace_ns) {
    struct conn *c;
    sn_ring_tell(&s->dev->punts, -1, NULL, NULL);
    if (!s->started) return;
    pthread_mutex_lock(&s->mutex);
    s->stopping = 1;
    s->stop_at = sn_now() + grace_ns;
    if (s->stop_at < s->due) s->due = s->stop_at;
    if (!s->paused) watch_listeners(s, EPOLL_CTL_DEL);
    LIST_FOREACH(c, &s->conns, next) if (!c->dead) conn_goaway(c);
    server_wake(s);
    pthread_mutex_unlock(&s->mutex);
    pthread_join(s->thread, NULL);
    s->started = 0;
}

/* values: by enum loss, then bytes of requests that are held. */
SN_EXPORT void sn_server_counts(struct sn_server *s, uint64_t *values) {
    pthread_mutex_lock(&s->mutex);
    memcpy(values, s->losses, sizeof s->losses);
    values[N_LOSSES] = s->held;
    pthread_mutex_unlock(&s->mutex);
}
