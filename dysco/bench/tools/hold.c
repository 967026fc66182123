/*
 * Opens COUNT TCP sessions, WINDOW at a time, and keeps them until it is ended.
 *
 *     hold ADDRESS PORT COUNT WINDOW SECONDS      says "open N" when they are; fails after SECONDS
 */
#include "common.h"

#include <sys/epoll.h>

#define EVENTS 64

static void start_one(int epoll, const struct sockaddr_in *server) {
    int fd = tcp_socket(SOCK_NONBLOCK);
    struct epoll_event e = {.events = EPOLLOUT | EPOLLONESHOT, .data.fd = fd};
    if (connect(fd, (const struct sockaddr *)server, sizeof *server) < 0 && errno != EINPROGRESS)
        fail("can't connect");
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) < 0) fail("can't watch a session");
}

int main(int argc, char **argv) {
    errno = 0;
    if (argc != 6) fail("usage: hold ADDRESS PORT COUNT WINDOW SECONDS");
    struct sockaddr_in server = endpoint(argv[1], number(argv[2], 1, 65535));
    long count = number(argv[3], 1, 60000), window = number(argv[4], 1, 4096);
    uint64_t end = now_ns() + (uint64_t)number(argv[5], 1, 3600) * NS;
    allow_files((unsigned long)count + 16);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    long started = 0, open = 0;
    while (open < count) {
        struct epoll_event events[EVENTS];
        while (started < count && started - open < window) {
            start_one(epoll, &server);
            started++;
        }
        int n = epoll_wait(epoll, events, EVENTS, 200);
        for (int i = 0; i < n; i++) {
            int why = 0;
            socklen_t size = sizeof why;
            getsockopt(events[i].data.fd, SOL_SOCKET, SO_ERROR, &why, &size);
            errno = why;
            if (why) fail("session %ld of %ld was refused", open + 1, count);
            open++;
        }
        errno = 0;
        if (now_ns() > end) fail("only %ld of %ld sessions were open in time", open, count);
    }
    printf("open %ld\n", open);
    fflush(stdout);
    for (;;) pause();
}
