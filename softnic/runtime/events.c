/* What the data plane has to tell: a bounded ring that a reader can wait on. */
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#define SPARSE_NS 100000ull /* events this far apart are not worth a thread's wake-up */

int sn_ring_init(struct sn_ring *r, uint32_t cap, size_t max_bytes) {
    memset(r, 0, sizeof *r);
    r->slots = calloc(cap, sizeof *r->slots);
    if (!r->slots) return -1;
    r->cap = cap;
    r->max_bytes = max_bytes;
    r->fd = -1;
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&r->cond, &a);
    pthread_condattr_destroy(&a);
    pthread_mutex_init(&r->mutex, NULL);
    return 0;
}

void sn_ring_free(struct sn_ring *r) {
    for (uint32_t i = 0; i < r->count; i++) free(r->slots[(r->head + i) % r->cap]);
    free(r->slots);
    pthread_cond_destroy(&r->cond);
    pthread_mutex_destroy(&r->mutex);
}

void sn_ring_close(struct sn_ring *r) {
    pthread_mutex_lock(&r->mutex);
    r->closed = 1;
    pthread_cond_broadcast(&r->cond);
    pthread_mutex_unlock(&r->mutex);
}

/* A reader that waits comes back now, or the next one at once. */
SN_EXPORT void sn_wake(struct sn_device *d) {
    pthread_mutex_lock(&d->ring.mutex);
    d->ring.woken = 1;
    pthread_cond_broadcast(&d->ring.cond);
    pthread_mutex_unlock(&d->ring.mutex);
}

struct sn_event_rec *sn_event_new(uint32_t kind, uint32_t id, uint32_t len) {
    struct sn_event_rec *e = malloc(sizeof *e + len);
    if (e) *e = (struct sn_event_rec){kind, id, len, 0};
    return e;
}

/* A single event goes at once, by this thread; of many the reader, once awake, takes all. */
static int at_once(struct sn_ring *r, struct sn_event_rec *e) {
    if (!r->now) return 0;
    uint64_t now = sn_now(), since = now - r->last;
    r->last = now;
    if (r->count || since < SPARSE_NS || !r->now(r->reader, e->data, e->len)) return 0;
    free(e);
    return 1;
}

int sn_ring_put(struct sn_ring *r, struct sn_event_rec *e) {
    if (!e) return -1;
    pthread_mutex_lock(&r->mutex);
    int full = r->count == r->cap || r->bytes + e->len > r->max_bytes || r->closed;
    if (!full && !at_once(r, e)) {
        r->slots[(r->head + r->count++) % r->cap] = e;
        r->bytes += e->len;
        pthread_cond_signal(&r->cond);
        uint64_t one = 1;
        if (r->fd >= 0 && r->count == 1 && write(r->fd, &one, sizeof one) < 0)
            full = 0; /* the eventfd's counter is full: it is readable, which is all we want */
    }
    pthread_mutex_unlock(&r->mutex);
    if (full) free(e);
    return full ? -1 : 0;
}

static struct sn_event_rec *take(struct sn_ring *r) {
    struct sn_event_rec *e = r->slots[r->head];
    r->bytes -= e->len;
    r->head = (r->head + 1) % r->cap;
    r->count--;
    return e;
}

void sn_ring_tell(struct sn_ring *r, int fd, int (*now)(void *, const uint8_t *, uint32_t),
                  void *reader) {
    pthread_mutex_lock(&r->mutex);
    r->fd = fd;
    r->now = now;
    r->reader = reader;
    pthread_mutex_unlock(&r->mutex);
}

struct sn_event_rec *sn_ring_pop(struct sn_ring *r) {
    pthread_mutex_lock(&r->mutex);
    struct sn_event_rec *e = r->count ? take(r) : NULL;
    pthread_mutex_unlock(&r->mutex);
    return e;
}

/*
 * Waits up to `timeout_ns` for events and writes them one after another to `buf`, each as struct
 * sn_event_rec followed by its data, padded to 8 bytes. Returns the bytes written; `cap` is more
 * than one event takes.
 */
uint64_t sn_ring_read(struct sn_ring *r, uint8_t *buf, uint64_t cap, int64_t timeout_ns) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + timeout_ns % 1000000000;
    until.tv_sec += timeout_ns / 1000000000 + ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    uint64_t at = 0;
    pthread_mutex_lock(&r->mutex);
    while (r->count == 0 && !r->closed && !r->woken)
        if (timeout_ns <= 0 || pthread_cond_timedwait(&r->cond, &r->mutex, &until)) break;
    r->woken = 0;
    while (r->count) {
        struct sn_event_rec *e = r->slots[r->head];
        uint64_t size = (sizeof *e + e->len + 7) & ~7ull;
        if (at + size > cap) break;
        memcpy(buf + at, e, sizeof *e + e->len);
        at += size;
        free(take(r));
    }
    pthread_mutex_unlock(&r->mutex);
    return at;
}

SN_EXPORT uint64_t sn_events(struct sn_device *d, uint8_t *buf, uint64_t cap, int64_t timeout_ns) {
    return sn_ring_read(&d->ring, buf, cap, timeout_ns);
}
