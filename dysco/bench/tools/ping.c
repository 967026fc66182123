/*
 * Times round trips of one byte over one TCP session to `server echo`, GAP microseconds apart.
 *
 *     ping ADDRESS PORT SOURCE_PORT COUNT GAP_US     prints {"failed": 0, "ns": [...]}
 */
#include "common.h"

#define LIMIT_S 5

int main(int argc, char **argv) {
    errno = 0;
    if (argc != 6) fail("usage: ping ADDRESS PORT SOURCE_PORT COUNT GAP_US");
    struct sockaddr_in server = endpoint(argv[1], number(argv[2], 1, 65535));
    struct sockaddr_in own = endpoint("0.0.0.0", number(argv[3], 0, 65535));
    long count = number(argv[4], 1, 1000000), gap = number(argv[5], 0, 1000000);
    uint64_t *ns = calloc((size_t)count, sizeof *ns);
    struct timeval limit = {LIMIT_S, 0};
    int fd = tcp_socket(0), one = 1;
    if (!ns) fail("no memory");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&own, sizeof own) < 0) fail("source port %s", argv[3]);
    if (connect(fd, (struct sockaddr *)&server, sizeof server) < 0) fail("not connected");
    for (long i = 0; i < count; i++) {
        char byte = 'x';
        uint64_t start = now_ns();
        if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1 || recv(fd, &byte, 1, 0) != 1)
            fail("round trip %ld failed", i + 1);
        ns[i] = now_ns() - start;
        wait_ns((uint64_t)gap * 1000);
    }
    print_times(ns, count, 0);
    return 0;
}
