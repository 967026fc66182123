/*
 * Accepts any number of TCP sessions and keeps each until its client ends it.
 *
 *     server echo|discard PORT         says "ready" when it listens
 */
#include "common.h"

#include <sys/epoll.h>

#define EVENTS 256
#define BUFFER (256 << 10)

static char buffer[BUFFER];

static void watch(int epoll, int fd) {
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) < 0) fail("can't watch a session");
}

static void accept_all(int epoll, int listener) {
    int one = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(epoll, fd);
    }
    if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) fail("can't accept");
}

static void serve(int fd, int echo) {
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got > 0 && (!echo || send(fd, buffer, (size_t)got, MSG_NOSIGNAL) == got)) return;
    if (got < 0 && errno == EAGAIN) return;
    close(fd);
}

int main(int argc, char **argv) {
    errno = 0;
    if (argc != 3 || (strcmp(argv[1], "echo") && strcmp(argv[1], "discard")))
        fail("usage: server echo|discard PORT");
    int echo = !strcmp(argv[1], "echo"), one = 1;
    allow_files(1024);
    int listener = tcp_socket(SOCK_NONBLOCK), epoll = epoll_create1(EPOLL_CLOEXEC);
    struct sockaddr_in a = endpoint("0.0.0.0", number(argv[2], 1, 65535));
    if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(listener, (struct sockaddr *)&a, sizeof a) < 0 || listen(listener, 4096) < 0)
        fail("can't listen on port %s", argv[2]);
    watch(epoll, listener);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listener) accept_all(epoll, listener);
            else serve(events[i].data.fd, echo);
        }
    }
}
