/*
 * A ticket lock on a futex: first come, first served. The worker takes it once a burst and would,
 * with a plain mutex, take it again before a waiting writer wakes up; here the writer is next.
 */
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

#define SPINS 200

static void pause_cpu(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

void sn_lock(struct sn_lock *l) {
    uint32_t mine = atomic_fetch_add(&l->next, 1);
    for (int spin = 0;; spin++) {
        uint32_t now = atomic_load_explicit(&l->serving, memory_order_acquire);
        if (now == mine) return;
        if (spin < SPINS)
            pause_cpu();
        else
            syscall(SYS_futex, &l->serving, FUTEX_WAIT_PRIVATE, now, NULL, NULL, 0);
    }
}

int sn_trylock(struct sn_lock *l) {
    uint32_t now = atomic_load_explicit(&l->serving, memory_order_acquire);
    return atomic_compare_exchange_strong(&l->next, &now, now + 1);
}

void sn_unlock(struct sn_lock *l) {
    uint32_t now = atomic_fetch_add(&l->serving, 1) + 1;
    /* Several may wait for different tickets on this one word: wake all, they sort it out. */
    if (atomic_load(&l->next) != now)
        syscall(SYS_futex, &l->serving, FUTEX_WAKE_PRIVATE, 1 << 30, NULL, NULL, 0);
}

/* ---- a device's lock, kept over several calls of one thread ------------------------------- */

static _Thread_local struct sn_device *held; /* one at a time */
static _Thread_local uint32_t depth;

void sn_hold(struct sn_device *d) {
    if (depth++) return;
    sn_lock(&d->lock);
    held = d;
}

void sn_release(struct sn_device *d) {
    if (--depth) return;
    held = NULL;
    sn_unlock(&d->lock);
}

void sn_enter(struct sn_device *d) {
    if (held != d) sn_lock(&d->lock);
}

void sn_leave(struct sn_device *d) {
    if (held != d) sn_unlock(&d->lock);
}
