/*
 * TCP sessions at a steady rate, and when what of them came. Times are of the real-time clock, as the
 * controller's are.
 *
 *     stream send ADDRESS PORT COUNT MBIT_S
 *         COUNT sessions, MBIT_S of them all together (0: as much as they can), until SIGTERM; prints
 *         {"port" (of the first), "resent": [[ns, segments so far], ...]}
 *     stream receive PORT
 *         says "ready", takes all sessions to their end; prints {"start_ns", "bytes": one number a ms}
 */
#include "common.h"

#include <signal.h>
#include <sys/epoll.h>

#define CHUNK (64 << 10)
#define EVENTS 256
#define LIMIT_S 10
#define MS 1000000ull
#define MAX_MS 600000
#define MAX_STEPS 10000

static char chunk[CHUNK];
static volatile sig_atomic_t stopped;

static void stop(int number) {
    (void)number;
    stopped = 1;
}

static uint64_t real_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

static unsigned resent_by(int fd) {
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0) fail("no TCP_INFO");
    return info.tcpi_total_retrans;
}

static void watch(int epoll, int fd, uint32_t events) {
    struct epoll_event e = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) < 0) fail("can't watch a session");
}

/* The kernel spaces the segments (SO_MAX_PACING_RATE): what was missed is not made up for later. */
static int open_one(const struct sockaddr_in *server, unsigned long rate, long number) {
    struct timeval limit = {LIMIT_S, 0};
    int fd = tcp_socket(0);
    if (rate && setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof rate) < 0)
        fail("no pacing");
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd, (const struct sockaddr *)server, sizeof *server) < 0)
        fail("session %ld was not set up", number);
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) fail("no O_NONBLOCK");
    return fd;
}

static int send_all(const struct sockaddr_in *server, long count, long mbit) {
    static struct { uint64_t ns; unsigned segments; } steps[MAX_STEPS];
    unsigned long rate = (unsigned long)mbit * 125000 / (unsigned long)count;
    struct sigaction action = {.sa_handler = stop};
    struct sockaddr_in own = {0};
    socklen_t size = sizeof own;
    int known = 0, epoll = epoll_create1(EPOLL_CLOEXEC);
    int *fds = calloc((size_t)count, sizeof *fds);
    unsigned *resent = calloc((size_t)count, sizeof *resent), total = 0;
    if (!fds || !resent || epoll < 0) fail("no memory");
    sigaction(SIGTERM, &action, NULL);
    allow_files((unsigned long)count + 16);
    for (long i = 0; i < count; i++) fds[i] = open_one(server, rate, i + 1);
    for (long i = 0; i < count; i++) watch(epoll, fds[i], EPOLLOUT);
    getsockname(fds[0], (struct sockaddr *)&own, &size);
    printf("{\"port\": %u, ", ntohs(own.sin_port));
    fflush(stdout);
    for (long look = 0; !stopped; look = (look + 1) % count) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll, events, EVENTS, 1);
        for (int i = 0; i < n; i++)
            if (send(events[i].data.fd, chunk, CHUNK, MSG_NOSIGNAL) < 0 && errno != EAGAIN)
                fail("a session broke");
        unsigned now = resent_by(fds[look]);
        if (now != resent[look] && known < MAX_STEPS) {
            total += now - resent[look];
            resent[look] = now;
            steps[known].ns = real_ns();
            steps[known++].segments = total;
        }
    }
    printf("\"resent\": [");
    for (int i = 0; i < known; i++)
        printf(i ? ", [%llu, %u]" : "[%llu, %u]", (unsigned long long)steps[i].ns, steps[i].segments);
    printf("]}\n");
    return 0;
}

static int receive_all(long port) {
    static unsigned bytes[MAX_MS];
    int one = 1, open = 0, fd, listener = tcp_socket(SOCK_NONBLOCK);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct sockaddr_in a = endpoint("0.0.0.0", port);
    uint64_t start = 0, ms = 0;
    allow_files(1024);
    if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(listener, (struct sockaddr *)&a, sizeof a) < 0 || listen(listener, 4096) < 0)
        fail("can't listen on port %ld", port);
    watch(epoll, listener, EPOLLIN);
    puts("ready");
    fflush(stdout);
    do {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listener) {
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                    watch(epoll, fd, EPOLLIN);
                    open++;
                }
                continue;
            }
            ssize_t got = recv(events[i].data.fd, chunk, CHUNK, 0);
            if (got < 0 && errno == EAGAIN) continue;
            if (got < 0) fail("a session broke");
            if (!got) {
                close(events[i].data.fd);
                open--;
                continue;
            }
            uint64_t now = real_ns();
            if (!start) start = now;
            ms = (now - start) / MS;
            if (ms >= MAX_MS) fail("longer than %d s", MAX_MS / 1000);
            bytes[ms] += (unsigned)got;
        }
    } while (open || !start);
    printf("{\"start_ns\": %llu, \"bytes\": [", (unsigned long long)start);
    for (uint64_t i = 0; i <= ms; i++) printf(i ? ", %u" : "%u", bytes[i]);
    printf("]}\n");
    return 0;
}

int main(int argc, char **argv) {
    errno = 0;
    if (argc == 6 && !strcmp(argv[1], "send")) {
        struct sockaddr_in server = endpoint(argv[2], number(argv[3], 1, 65535));
        return send_all(&server, number(argv[4], 1, 60000), number(argv[5], 0, 100000));
    }
    if (argc == 3 && !strcmp(argv[1], "receive")) return receive_all(number(argv[2], 1, 65535));
    fail("usage: stream send ADDRESS PORT COUNT MBIT_S | stream receive PORT");
}
