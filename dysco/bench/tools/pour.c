/*
 * Sends as much as it can over COUNT TCP sessions at a time, and counts what was acknowledged
 * between the end of a warm-up and SECONDS later. With `greet`, each session sends one byte and
 * waits for its ACK before the load begins, as a client's small request would.
 *
 *     pour ADDRESS PORT COUNT WARM_UP_S SECONDS greet|rush
 *         prints {"bytes", "seconds", "slowest", "fastest" (bytes of one session), "retransmits"}
 */
#include "common.h"

#include <sys/epoll.h>

#define EVENTS 256
#define CHUNK (128 << 10)
#define LIMIT_S 10

static char chunk[CHUNK];

struct session {
    int fd;
    uint64_t acked;
};

static struct tcp_info info_of(int fd) {
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0) fail("no TCP_INFO");
    return info;
}

static void open_all(struct session *all, long count, const struct sockaddr_in *server, int epoll) {
    struct timeval limit = {LIMIT_S, 0};
    for (long i = 0; i < count; i++) {
        int fd = all[i].fd = tcp_socket(0);
        struct epoll_event e = {.events = EPOLLOUT, .data.fd = fd};
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        if (connect(fd, (const struct sockaddr *)server, sizeof *server) < 0)
            fail("session %ld of %ld was not set up", i + 1, count);
        if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) < 0)
            fail("can't watch a session");
    }
}

/* Linux sends small segments for as long as it has seen no short RTT (tcp_tso_rtt_log), and a
 * handshake that a controller took part in was not short. */
static void greet_all(const struct session *all, long count) {
    for (long i = 0; i < count; i++) {
        uint64_t end = now_ns() + LIMIT_S * NS;
        if (send(all[i].fd, chunk, 1, MSG_NOSIGNAL) != 1) fail("a session broke");
        while (info_of(all[i].fd).tcpi_unacked) {
            if (now_ns() > end) fail("the first byte of a session was not acknowledged");
            usleep(20);
        }
    }
}

static void pour_until(int epoll, uint64_t end) {
    while (now_ns() < end) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll, events, EVENTS, 10);
        for (int i = 0; i < n; i++)
            if (send(events[i].data.fd, chunk, sizeof chunk, MSG_NOSIGNAL) < 0 && errno != EAGAIN)
                fail("a session broke");
    }
}

int main(int argc, char **argv) {
    errno = 0;
    if (argc != 7 || (strcmp(argv[6], "greet") && strcmp(argv[6], "rush")))
        fail("usage: pour ADDRESS PORT COUNT WARM_UP_S SECONDS greet|rush");
    struct sockaddr_in server = endpoint(argv[1], number(argv[2], 1, 65535));
    long count = number(argv[3], 1, 60000), warm_up = number(argv[4], 0, 60);
    long seconds = number(argv[5], 1, 600);
    allow_files((unsigned long)count + 16);
    struct session *all = calloc((size_t)count, sizeof *all);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!all || epoll < 0) fail("no memory");
    open_all(all, count, &server, epoll);
    if (!strcmp(argv[6], "greet")) greet_all(all, count);
    pour_until(epoll, now_ns() + (uint64_t)warm_up * NS);
    uint64_t start = now_ns(), total = 0, slowest = UINT64_MAX, fastest = 0, retransmits = 0;
    for (long i = 0; i < count; i++) {
        struct tcp_info info = info_of(all[i].fd);
        all[i].acked = info.tcpi_bytes_acked;
        retransmits -= info.tcpi_total_retrans;
    }
    pour_until(epoll, start + (uint64_t)seconds * NS);
    double took = (double)(now_ns() - start) / (double)NS;
    for (long i = 0; i < count; i++) {
        struct tcp_info info = info_of(all[i].fd);
        uint64_t bytes = info.tcpi_bytes_acked - all[i].acked;
        total += bytes;
        slowest = bytes < slowest ? bytes : slowest;
        fastest = bytes > fastest ? bytes : fastest;
        retransmits += info.tcpi_total_retrans;
    }
    printf("{\"bytes\": %llu, \"seconds\": %.6f, \"slowest\": %llu, \"fastest\": %llu, "
           "\"retransmits\": %llu}\n", (unsigned long long)total, took,
           (unsigned long long)slowest, (unsigned long long)fastest,
           (unsigned long long)retransmits);
    return 0;
}
