/*
 * What Python does: calls and messages wait here for its threads, which leave answers.
 *
 *     hand_over --> queue --sn_server_take--> a handler --sn_server_send, _end--> call
 *                                                      '--sn_server_done--> the item is free
 *
 * What waits is bounded: by calls, by a stream's window, and by MAX_HELD bytes.
 */
#include <errno.h>
#include <time.h>

#include "server.h"

#define TURN 32u /* messages of one stream that wait in Python's queue */

enum sent { SENT, DROPPED, BROKEN, GONE };

static void put(struct sn_server *s, enum queue q, struct hand_item *i) {
    STAILQ_INSERT_TAIL(&s->queues[q].items, i, next);
    pthread_cond_signal(&s->queues[q].cond);
}

static struct hand_item *item(struct call *c, enum kind kind) {
    struct hand_item *i = calloc(1, sizeof *i);
    if (!i) {
        c->conn->server->losses[LOSS_MEMORY]++;
        call_fail(c, CODE_RESOURCE_EXHAUSTED, "out of memory");
        return NULL;
    }
    i->call = c->id;
    i->kind = kind;
    i->method = c->method;
    if (kind == CALL || kind == MESSAGE || kind == FAILED_WRITE) {
        i->compressed = (uint32_t)c->compressed;
        i->data = c->body;
        i->len = c->len;
        i->held = c->held;
        c->body = NULL;
        c->cap = 0;
        c->held = 0;
    }
    return i;
}

struct hand_item *hand_over(struct call *c, enum queue q, enum kind kind) {
    struct hand_item *i = item(c, kind);
    if (i) put(c->conn->server, q, i);
    return i;
}

/* As many of one stream wait at a time, so that a flood is no hindrance to other streams. */
static void feed(struct call *c) {
    struct hand_item *i;
    while (c->n_queued < TURN && (i = STAILQ_FIRST(&c->later))) {
        STAILQ_REMOVE_HEAD(&c->later, next);
        c->n_queued++;
        put(c->conn->server, STREAMS, i);
    }
}

static void hand_later(struct call *c, struct hand_item *i) {
    if (!i) return;
    c->pending++;
    STAILQ_INSERT_TAIL(&c->later, i, next);
    feed(c);
}

void hand_message(struct call *c, size_t credit) {
    struct hand_item *i = item(c, MESSAGE);
    if (i) i->credit = credit;
    hand_later(c, i);
}

void hand_half_closed(struct call *c) {
    hand_later(c, item(c, HALF_CLOSED));
}

int hand_open(struct call *c) {
    c->farewell = calloc(1, sizeof *c->farewell);
    if (c->farewell && hand_over(c, STREAMS, OPENED)) return 0;
    call_fail(c, CODE_RESOURCE_EXHAUSTED, "out of memory");
    return -1;
}

void hand_gone(struct call *c) {
    struct hand_item *i;
    while ((i = STAILQ_FIRST(&c->later))) {
        STAILQ_REMOVE_HEAD(&c->later, next);
        hand_free(c->conn->server, i);
    }
    if (!c->farewell) return;
    *c->farewell = (struct hand_item){.call = c->id, .kind = CLOSED, .method = c->method};
    put(c->conn->server, STREAMS, c->farewell);
}

void hand_free(struct sn_server *s, struct hand_item *i) {
    s->held -= i->held;
    free(i->data);
    free(i->status);
    free(i->spans);
    free(i);
}

/* The next item of a queue, waited for; NULL: the server has stopped. sn_server_done frees it. */
SN_EXPORT struct hand_item *sn_server_take(struct sn_server *s, uint32_t queue) {
    struct hand_queue *q = &s->queues[queue];
    pthread_mutex_lock(&s->mutex);
    while (!s->closed && STAILQ_EMPTY(&q->items)) pthread_cond_wait(&q->cond, &s->mutex);
    struct hand_item *i = s->closed ? NULL : STAILQ_FIRST(&q->items);
    if (i) STAILQ_REMOVE_HEAD(&q->items, next);
    pthread_mutex_unlock(&s->mutex);
    return i;
}

SN_EXPORT void sn_server_done(struct sn_server *s, struct hand_item *i) {
    pthread_mutex_lock(&s->mutex);
    struct call *c = i->kind == MESSAGE || i->kind == HALF_CLOSED ? call_of(s, i->call) : NULL;
    if (c) {
        c->pending--;
        c->n_queued--;
        feed(c);
        call_credit(c, i->credit);
        server_wake(s);
    }
    hand_free(s, i);
    pthread_mutex_unlock(&s->mutex);
}

/* Queues a message. Where `limit` of them wait it is dropped; with `must` the call is broken off. */
SN_EXPORT int sn_server_send(struct sn_server *s, uint64_t call, const uint8_t *data, uint64_t len,
                             uint32_t limit, int must) {
    enum sent what = SENT;
    pthread_mutex_lock(&s->mutex);
    struct call *c = call_of(s, call);
    if (!c || c->ended) {
        what = GONE;
    } else if (c->n_out >= limit || call_send(c, NULL, 0, data, len) < 0) {
        what = must ? BROKEN : DROPPED;
        if (must) call_break(c);
    }
    if (what == SENT || what == BROKEN) server_wake(s);
    pthread_mutex_unlock(&s->mutex);
    return (int)what;
}

/* Waits until at most `bytes` of a call are queued: 0, or GONE where it ended. */
SN_EXPORT int sn_server_wait(struct sn_server *s, uint64_t call, uint64_t bytes) {
    pthread_mutex_lock(&s->mutex);
    struct call *c;
    while ((c = s->closed ? NULL : call_of(s, call)) && !c->ended && c->out_bytes > bytes)
        pthread_cond_wait(&s->room, &s->mutex);
    int gone = !c || c->ended;
    pthread_mutex_unlock(&s->mutex);
    return gone ? GONE : 0;
}

/* Ends a call after what is queued, and `len` bytes more where `data` isn't NULL. */
SN_EXPORT void sn_server_end(struct sn_server *s, uint64_t call, const uint8_t *data, uint64_t len,
                             int code, const char *text, uint64_t text_len, const uint8_t *details,
                             uint64_t details_len) {
    pthread_mutex_lock(&s->mutex);
    struct call *c = call_of(s, call);
    if (c) {
        if (data && !c->ended && call_send(c, NULL, 0, data, len) < 0)
            call_fail(c, CODE_RESOURCE_EXHAUSTED, "out of memory");
        call_end(c, code, text, text_len, details, details_len);
        server_wake(s);
    }
    pthread_mutex_unlock(&s->mutex);
}
