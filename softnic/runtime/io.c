/*
 * The worker: one thread that waits for frames on all ports, runs each burst under the lock, and
 * sends what came out, one system call a burst and port.
 *
 *     AF_PACKET --recvmmsg--> vnet header | room for a tag | frame --> pipeline
 *     AF_PACKET <--sendmmsg-- vnet header | new headers (arena) | payload where it was received
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "internal.h"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

/* Of each received frame. It starts so that what follows 66 bytes of headers (Ethernet, IPv4, TCP
 * with time stamps) is at a whole cache line: the kernel copies that much faster. */
#define RX_START (SN_HEADROOM + 62u)
#define RX_ROOM (SN_HEADROOM + SN_FRAME_MAX + 128u)
#define HUGE_PAGE ((size_t)2 << 20)
#define OUT_QUEUE 1024u
#define SOCK_BYTES (16 << 20)
#define CARE_NS 1000000000ull /* how often ports are looked after */
#define SWEEP_NS 100000000ull /* idle time-outs are this exact, at best */
#define SWEEP_BUDGET 2048u
#define SEND_TRIES 20
#define SEND_TRIES_NOW 2 /* of who has more to do than to wait for a queue */
#define SPARSE_NS 100000ull /* packet-outs this far apart are not worth a thread's wake-up */
#define WAKE_TAG 0xffffffffu
#define LINK_TAG 0xfffffffeu

struct sn_tx {
    struct iovec iov[SN_BURST][3];
    struct mmsghdr msg[SN_BURST];
    int tries; /* ms to wait for a full queue */
};

/* Counters of ports that two threads send to. */
#define COUNT(counter, n) __atomic_fetch_add(&(counter), (uint64_t)(n), __ATOMIC_RELAXED)

struct sn_io {
    uint8_t *rx;
    struct virtio_net_hdr rx_vnet[SN_BURST];
    struct iovec rx_iov[SN_BURST][2];
    struct mmsghdr rx_msg[SN_BURST];
    uint8_t rx_ctl[SN_BURST][CMSG_SPACE(sizeof(struct tpacket_auxdata))];
    struct sn_tx tx, tx_now; /* of the worker, of a packet-out that does not wait for it */
};

/* ---- ports ------------------------------------------------------------------------------- */

static void port_close(struct sn_device *d, struct sn_port *p) {
    if (p->fd < 0) return;
    epoll_ctl(d->epoll_fd, EPOLL_CTL_DEL, p->fd, NULL);
    close(p->fd);
    p->fd = -1;
    p->up = 0;
}

static int port_setup(struct sn_port *p, int fd, int ifindex) {
    int one = 1, big = SOCK_BYTES;
    struct packet_mreq m = {.mr_ifindex = ifindex, .mr_type = PACKET_MR_PROMISC};
    struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_ifindex = ifindex};
    /* Big buffers are wished for only: without CAP_NET_ADMIN the kernel's limit stays. */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big) < 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof big) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
    if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one) < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &one, sizeof one) < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one) < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, sizeof m) < 0)
        return -1;
    a.sll_protocol = htons(ETH_P_ALL);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0) return -1;
    p->ifindex = ifindex;
    return 0;
}

static int port_open(struct sn_device *d, struct sn_port *p) {
    unsigned ifindex = if_nametoindex(p->ifname);
    if (!ifindex) return -1;
    /* Protocol 0 until bound: nothing of other interfaces gets in. */
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    struct epoll_event ev = {.events = EPOLLIN, .data.u32 = (uint32_t)(p - d->ports)};
    if (port_setup(p, fd, (int)ifindex) < 0 || epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
        int why = errno;
        close(fd);
        errno = why;
        return -1;
    }
    p->fd = fd;
    return 0;
}

static void port_care(struct sn_device *d, struct sn_port *p) {
    if (p->fd >= 0 && (int)if_nametoindex(p->ifname) != p->ifindex) port_close(d, p);
    if (p->fd < 0 && port_open(d, p) < 0) return;
    struct ifreq r;
    memset(&r, 0, sizeof r);
    memcpy(r.ifr_name, p->ifname, IFNAMSIZ - 1);
    p->up = ioctl(p->fd, SIOCGIFFLAGS, &r) == 0 && (r.ifr_flags & IFF_UP) &&
            (r.ifr_flags & IFF_RUNNING);
    struct tpacket_stats st;
    socklen_t n = sizeof st;
    if (getsockopt(p->fd, SOL_PACKET, PACKET_STATISTICS, &st, &n) == 0)
        p->drops[SN_DROP_RX_OVERRUN] += st.tp_drops;
}

static void care_for_ports(struct sn_device *d) {
    pthread_mutex_lock(&d->ports_mutex);
    for (uint32_t i = 0; i < d->n_ports; i++) port_care(d, &d->ports[i]);
    pthread_mutex_unlock(&d->ports_mutex);
}

/* The kernel tells of links that come, go, rise and fall; which ones is looked up, not parsed. */
static int link_open(void) {
    struct sockaddr_nl a = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0) return fd;
    if (fd >= 0) close(fd);
    return -1;
}

static void link_changed(struct sn_device *d) {
    uint8_t ignored[8192];
    for (int i = 0; i < 64 && (recv(d->link_fd, ignored, sizeof ignored, 0) > 0 || errno == ENOBUFS);)
        i++;
    care_for_ports(d);
}

/* ---- out --------------------------------------------------------------------------------- */

static enum sn_drop reason_of(int e) {
    switch (e) {
    case EAGAIN:
    case ENOBUFS: return SN_DROP_TX_FULL;
    case EMSGSIZE: return SN_DROP_TOO_BIG;
    case ENETDOWN:
    case ENXIO:
    case ENODEV: return SN_DROP_PORT_DOWN;
    default: return SN_DROP_TX_ERROR;
    }
}

static void send_all(struct sn_port *p, struct mmsghdr *m, uint32_t n, int most_tries) {
    uint32_t at = 0;
    int tries = 0;
    while (at < n) {
        int sent = sendmmsg(p->fd, m + at, n - at, MSG_DONTWAIT);
        if (sent > 0) {
            uint64_t bytes = 0;
            for (uint32_t end = at + (uint32_t)sent; at < end; at++)
                bytes += m[at].msg_len - sizeof(struct virtio_net_hdr);
            COUNT(p->tx_frames, sent);
            COUNT(p->tx_bytes, bytes);
            tries = 0;
            continue;
        }
        if ((errno == EAGAIN || errno == ENOBUFS) && tries++ < most_tries) {
            struct pollfd f = {.fd = p->fd, .events = POLLOUT};
            poll(&f, 1, 1);
            continue;
        }
        COUNT(p->drops[reason_of(errno)], 1);
        at++;
        tries = most_tries; /* a full queue is waited for once a burst, not once a frame */
    }
}

static void flush_port(struct sn_port *p, const struct sn_burst *b, struct sn_tx *tx) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->n_outs; i++) {
        struct sn_out *o = &b->outs[i];
        if (o->port != p->number) continue;
        if (p->fd < 0) {
            COUNT(p->drops[SN_DROP_PORT_DOWN], 1);
            continue;
        }
        tx->iov[n][0] = (struct iovec){&o->vnet, sizeof o->vnet};
        tx->iov[n][1] = (struct iovec){o->head, o->head_len};
        tx->iov[n][2] = (struct iovec){(void *)(uintptr_t)o->payload, o->payload_len};
        tx->msg[n].msg_hdr = (struct msghdr){.msg_iov = tx->iov[n], .msg_iovlen = 3};
        if (++n == SN_BURST) {
            send_all(p, tx->msg, n, tx->tries);
            n = 0;
        }
    }
    if (n) send_all(p, tx->msg, n, tx->tries);
}

/* Packets go before packet-ins, which may take a way through the server. */
static void flush(struct sn_device *d, struct sn_burst *b, struct sn_tx *tx) {
    uint64_t seen[SN_MAX_PORTS / 64] = {0};
    uint32_t punts = 0;
    for (uint32_t i = 0; i < b->n_outs; i++) {
        uint32_t number = b->outs[i].port;
        if (number == d->cpu_port) {
            punts++;
        } else if (number >= SN_MAX_PORTS || !d->by_number[number]) {
            sn_drop(d, number, SN_DROP_NO_PORT);
        } else if (!(seen[number / 64] >> (number % 64) & 1)) {
            seen[number / 64] |= 1ull << (number % 64);
            flush_port(d->by_number[number], b, tx);
        }
    }
    for (uint32_t i = 0; punts && i < b->n_outs; i++)
        if (b->outs[i].port == d->cpu_port) {
            sn_punt(d, &b->outs[i]);
            punts--;
        }
}

/* ---- in ---------------------------------------------------------------------------------- */

static void restore_tag(struct sn_frame *f, struct msghdr *m) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA) continue;
        struct tpacket_auxdata a;
        memcpy(&a, CMSG_DATA(c), sizeof a);
        if (!(a.tp_status & TP_STATUS_VLAN_VALID) || f->len < 14) return;
        uint8_t *p = (uint8_t *)(uintptr_t)f->data - 4;
        memmove(p, f->data, 12);
        sn_st16(p + 12, a.tp_status & TP_STATUS_VLAN_TPID_VALID ? a.tp_vlan_tpid : ETH_P_8021Q);
        sn_st16(p + 14, a.tp_vlan_tci);
        f->data = p;
        f->len += 4;
        if (f->vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) f->vnet.csum_start += 4;
        return;
    }
}

static uint32_t receive(struct sn_device *d, struct sn_port *p, struct sn_frame *frames) {
    struct sn_io *io = d->io;
    /* Super-segments in small bursts, so that they are still in the cache when sent on. */
    uint32_t want = p->rx_big ? SN_BURST / 4 : SN_BURST;
    for (uint32_t i = 0; i < want; i++) {
        io->rx_msg[i].msg_hdr.msg_control = io->rx_ctl[i];
        io->rx_msg[i].msg_hdr.msg_controllen = sizeof io->rx_ctl[i];
    }
    int n = recvmmsg(p->fd, io->rx_msg, want, MSG_DONTWAIT, NULL);
    if (n <= 0) return 0;
    uint32_t out = 0;
    uint64_t bytes = 0;
    for (int i = 0; i < n; i++) {
        uint32_t len = io->rx_msg[i].msg_len;
        if (len <= sizeof(struct virtio_net_hdr) ||
            (io->rx_msg[i].msg_hdr.msg_flags & MSG_TRUNC)) {
            p->drops[SN_DROP_RX_TRUNCATED]++;
            continue;
        }
        struct sn_frame *f = &frames[out++];
        f->data = io->rx + (size_t)i * RX_ROOM + RX_START;
        f->len = len - (uint32_t)sizeof(struct virtio_net_hdr);
        f->port = p->number;
        f->vnet = io->rx_vnet[i];
        bytes += f->len;
        restore_tag(f, &io->rx_msg[i].msg_hdr);
    }
    p->rx_frames += out;
    p->rx_bytes += bytes;
    p->rx_big = out && bytes / out > 8192;
    return out;
}

static void run(struct sn_device *d, struct sn_burst *b, struct sn_tx *tx,
                const struct sn_frame *frames, uint32_t n) {
    sn_burst_reset(b, sn_now());
    sn_lock(&d->lock);
    sn_switch(d, b, frames, n);
    sn_unlock(&d->lock);
    flush(d, b, tx);
}

static void count_packet_outs(struct sn_device *d, const struct sn_frame *frames, uint32_t n) {
    struct sn_port *p = sn_port_of(d, d->cpu_port);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++) bytes += frames[i].len;
    COUNT(p->rx_frames, n);
    COUNT(p->rx_bytes, bytes);
}

static void wake(struct sn_device *d) {
    uint64_t one = 1;
    if (write(d->wake_fd, &one, sizeof one) < 0) return; /* counter full: still readable */
}

static void take_packet_outs(struct sn_device *d) {
    struct sn_frame frames[SN_BURST];
    uint32_t n = 0;
    pthread_mutex_lock(&d->out_mutex);
    while (!d->out_busy && d->out_count && n < SN_BURST) {
        frames[n++] = d->out_queue[d->out_head];
        d->out_head = (d->out_head + 1) % OUT_QUEUE;
        d->out_count--;
    }
    if (n) d->out_busy = 1;
    pthread_mutex_unlock(&d->out_mutex);
    if (!n) return;
    count_packet_outs(d, frames, n);
    run(d, &d->worker_burst, &d->io->tx, frames, n);
    for (uint32_t i = 0; i < n; i++) free((void *)(uintptr_t)frames[i].data);
    pthread_mutex_lock(&d->out_mutex);
    d->out_busy = 0;
    uint32_t left = d->out_count;
    pthread_mutex_unlock(&d->out_mutex);
    if (left) wake(d);
}

/* By this thread, where nobody else is at it: 1. `ports` keeps the worker from closing them. */
static int packet_out_now(struct sn_device *d, const struct sn_frame *f) {
    if (pthread_mutex_trylock(&d->inject_mutex)) return 0;
    int free_to = !pthread_mutex_trylock(&d->ports_mutex);
    if (free_to) {
        count_packet_outs(d, f, 1);
        run(d, &d->inject_burst, &d->io->tx_now, f, 1);
        pthread_mutex_unlock(&d->ports_mutex);
    }
    pthread_mutex_unlock(&d->inject_mutex);
    return free_to;
}

static int enqueue(struct sn_device *d, const uint8_t *data, uint32_t len) {
    uint8_t *copy = malloc(len ? len : 1);
    if (copy) memcpy(copy, data, len);
    if (!copy || d->out_count == OUT_QUEUE) {
        sn_drop(d, d->cpu_port, SN_DROP_PACKET_OUT_FULL);
        free(copy);
        return -1;
    }
    d->out_queue[(d->out_head + d->out_count++) % OUT_QUEUE] =
        (struct sn_frame){.data = copy, .len = len, .port = d->cpu_port};
    return 0;
}

/* In order. A single one goes at once, by the caller's thread; of many the worker makes bursts. */
int sn_io_packet_out(struct sn_device *d, const uint8_t *data, uint32_t len) {
    struct sn_frame f = {.data = data, .len = len, .port = d->cpu_port};
    int done = 0, rc = 0;
    pthread_mutex_lock(&d->out_mutex);
    uint64_t now = sn_now(), since = now - d->last_out;
    d->last_out = now;
    if (!d->out_busy && !d->out_count && since >= SPARSE_NS) {
        d->out_busy = 1; /* who comes now is queued behind it */
        pthread_mutex_unlock(&d->out_mutex);
        done = packet_out_now(d, &f);
        pthread_mutex_lock(&d->out_mutex);
        d->out_busy = 0;
    }
    if (!done) rc = enqueue(d, data, len);
    int left = d->out_count > 0;
    pthread_mutex_unlock(&d->out_mutex);
    if (left) wake(d);
    return rc;
}

/* ---- the loop ---------------------------------------------------------------------------- */

static void housekeeping(struct sn_device *d) {
    uint64_t now = sn_now();
    if (now - d->last_care >= CARE_NS) {
        d->last_care = now;
        care_for_ports(d);
    }
    if (now - d->last_sweep >= SWEEP_NS) {
        sn_lock(&d->lock);
        int done = sn_sweep(d, now, SWEEP_BUDGET);
        sn_unlock(&d->lock);
        if (done) d->last_sweep = now;
    }
}

static void *worker(void *arg) {
    struct sn_device *d = arg;
    struct epoll_event ev[SN_BURST];
    struct sn_frame frames[SN_BURST];
    while (!atomic_load(&d->stop)) {
        int n = epoll_wait(d->epoll_fd, ev, SN_BURST, SWEEP_NS / 1000000);
        for (int i = 0; i < n; i++) {
            if (ev[i].data.u32 == WAKE_TAG) {
                uint64_t ticks;
                if (read(d->wake_fd, &ticks, sizeof ticks) > 0) take_packet_outs(d);
                continue;
            }
            if (ev[i].data.u32 == LINK_TAG) {
                link_changed(d);
                continue;
            }
            struct sn_port *p = &d->ports[ev[i].data.u32];
            uint32_t got = p->fd >= 0 ? receive(d, p, frames) : 0;
            if (got) run(d, &d->worker_burst, &d->io->tx, frames, got);
        }
        housekeeping(d);
    }
    return NULL;
}

static uint8_t *rx_alloc(void) {
    size_t n = ((size_t)SN_BURST * RX_ROOM + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    uint8_t *p = aligned_alloc(HUGE_PAGE, n);
    if (p) madvise(p, n, MADV_HUGEPAGE); /* a wish; without it only slower */
    return p;
}

static void io_prepare(struct sn_io *io) {
    for (uint32_t i = 0; i < SN_BURST; i++) {
        io->rx_iov[i][0] = (struct iovec){&io->rx_vnet[i], sizeof io->rx_vnet[i]};
        io->rx_iov[i][1] =
            (struct iovec){io->rx + (size_t)i * RX_ROOM + RX_START, SN_FRAME_MAX};
        io->rx_msg[i].msg_hdr = (struct msghdr){.msg_iov = io->rx_iov[i], .msg_iovlen = 2};
    }
}

int sn_io_start(struct sn_device *d) {
    d->io = calloc(1, sizeof *d->io);
    d->out_queue = calloc(OUT_QUEUE, sizeof *d->out_queue);
    if (!d->io || !d->out_queue || !(d->io->rx = rx_alloc())) return -1;
    io_prepare(d->io);
    d->io->tx.tries = SEND_TRIES;
    d->io->tx_now.tries = SEND_TRIES_NOW;
    d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    d->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (d->epoll_fd < 0 || d->wake_fd < 0) return -1;
    struct epoll_event ev = {.events = EPOLLIN, .data.u32 = WAKE_TAG};
    if (epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, d->wake_fd, &ev) < 0) return -1;
    /* Where there is no netlink, ports are still looked after every CARE_NS. */
    ev.data.u32 = LINK_TAG;
    if ((d->link_fd = link_open()) >= 0) epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, d->link_fd, &ev);
    for (uint32_t i = 0; i < d->n_ports; i++)
        if (port_open(d, &d->ports[i]) < 0) return -1;
    care_for_ports(d);
    d->last_care = d->last_sweep = sn_now();
    if (pthread_create(&d->thread, NULL, worker, d) != 0) return -1;
    d->started = 1;
    return 0;
}

void sn_io_stop(struct sn_device *d) {
    uint64_t one = 1;
    atomic_store(&d->stop, 1);
    if (d->started && write(d->wake_fd, &one, sizeof one) >= 0) pthread_join(d->thread, NULL);
    d->started = 0;
    for (uint32_t i = 0; i < d->n_ports; i++)
        if (d->epoll_fd >= 0) port_close(d, &d->ports[i]);
    if (d->epoll_fd >= 0) close(d->epoll_fd);
    if (d->wake_fd >= 0) close(d->wake_fd);
    if (d->link_fd >= 0) close(d->link_fd);
    d->epoll_fd = d->wake_fd = d->link_fd = -1;
    for (uint32_t i = 0; d->out_queue && i < d->out_count; i++)
        free((void *)(uintptr_t)d->out_queue[(d->out_head + i) % OUT_QUEUE].data);
    if (d->io) free(d->io->rx);
    free(d->io);
    free(d->out_queue);
    d->io = NULL;
    d->out_queue = NULL;
}
