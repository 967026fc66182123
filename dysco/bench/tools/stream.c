/*
 * One TCP stream at a steady rate, and when what of it came. Times are of the real-time clock, as the
 * controller's are.
 *
 *     stream send ADDRESS PORT MBIT_S
 *         sends until SIGTERM; prints {"port", "resent": [[ns, segments so far], ...]}
 *     stream receive PORT
 *         says "ready", takes one session to its end; prints {"start_ns", "bytes": one number a ms}
 */
#include "common.h"

#include <poll.h>
#include <signal.h>

#define CHUNK (64 << 10)
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

/* The kernel spaces the segments (SO_MAX_PACING_RATE): what was missed is not made up for later. */
static int send_all(const struct sockaddr_in *server, long mbit) {
    static struct { uint64_t ns; unsigned segments; } steps[MAX_STEPS];
    unsigned long rate = (unsigned long)mbit * 125000;
    struct sigaction action = {.sa_handler = stop};
    struct sockaddr_in own = {0};
    socklen_t size = sizeof own;
    int fd = tcp_socket(0), count = 0;
    unsigned last = 0;
    sigaction(SIGTERM, &action, NULL);
    if (setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof rate) < 0) fail("no pacing");
    if (connect(fd, (const struct sockaddr *)server, sizeof *server) < 0) fail("not connected");
    getsockname(fd, (struct sockaddr *)&own, &size);
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) fail("no O_NONBLOCK");
    printf("{\"port\": %u, ", ntohs(own.sin_port));
    fflush(stdout);
    while (!stopped) {
        struct pollfd p = {fd, POLLOUT, 0};
        poll(&p, 1, 1);
        if (p.revents & POLLOUT && send(fd, chunk, CHUNK, MSG_NOSIGNAL) < 0 && errno != EAGAIN)
            fail("the session broke");
        unsigned now = resent_by(fd);
        if (now != last && count < MAX_STEPS) {
            steps[count].ns = real_ns();
            steps[count++].segments = last = now;
        }
    }
    printf("\"resent\": [");
    for (int i = 0; i < count; i++)
        printf(i ? ", [%llu, %u]" : "[%llu, %u]", (unsigned long long)steps[i].ns, steps[i].segments);
    printf("]}\n");
    return 0;
}

static int receive_all(long port) {
    static unsigned bytes[MAX_MS];
    int one = 1, listener = tcp_socket(0);
    struct sockaddr_in a = endpoint("0.0.0.0", port);
    uint64_t start = 0, ms = 0;
    if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(listener, (struct sockaddr *)&a, sizeof a) < 0 || listen(listener, 1) < 0)
        fail("can't listen on port %ld", port);
    puts("ready");
    fflush(stdout);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) fail("can't accept");
    ssize_t got;
    while ((got = recv(fd, chunk, CHUNK, 0)) > 0) {
        uint64_t now = real_ns();
        if (!start) start = now;
        ms = (now - start) / MS;
        if (ms >= MAX_MS) fail("longer than %d s", MAX_MS / 1000);
        bytes[ms] += (unsigned)got;
    }
    if (got < 0) fail("the session broke");
    printf("{\"start_ns\": %llu, \"bytes\": [", (unsigned long long)start);
    for (uint64_t i = 0; i <= ms; i++) printf(i ? ", %u" : "%u", bytes[i]);
    printf("]}\n");
    return 0;
}

int main(int argc, char **argv) {
    errno = 0;
    if (argc == 5 && !strcmp(argv[1], "send")) {
        struct sockaddr_in server = endpoint(argv[2], number(argv[3], 1, 65535));
        return send_all(&server, number(argv[4], 1, 100000));
    }
    if (argc == 3 && !strcmp(argv[1], "receive")) return receive_all(number(argv[2], 1, 65535));
    fail("usage: stream send ADDRESS PORT MBIT_S | stream receive PORT");
}
