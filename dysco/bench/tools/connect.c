/*
 * Times connect(): COUNT calls one after the other, GAP microseconds apart, each session ended at once.
 *
 *     connect ADDRESS PORT COUNT GAP_US         prints {"failed": N, "ns": [...]}
 */
#include "common.h"

#define LIMIT_S 5

int main(int argc, char **argv) {
    errno = 0;
    if (argc != 5) fail("usage: connect ADDRESS PORT COUNT GAP_US");
    struct sockaddr_in server = endpoint(argv[1], number(argv[2], 1, 65535));
    long count = number(argv[3], 1, 1000000), gap = number(argv[4], 0, 1000000);
    uint64_t *ns = calloc((size_t)count, sizeof *ns);
    if (!ns) fail("no memory");
    struct timeval limit = {LIMIT_S, 0};
    long good = 0;
    for (long i = 0; i < count; i++) {
        int fd = tcp_socket(0);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        uint64_t start = now_ns();
        int bad = connect(fd, (struct sockaddr *)&server, sizeof server);
        uint64_t took = now_ns() - start;
        if (!bad) ns[good++] = took;
        close(fd);
        if (i + 1 - good >= 10) break; /* a chain that is down is not waited for again and again */
        wait_ns((uint64_t)gap * 1000);
    }
    print_times(ns, good, count - good);
    return 0;
}
