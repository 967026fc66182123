/* What the load generators share: errors, time, numbers from the command line, sockets. */
#ifndef DYSCO_BENCH_COMMON_H
#define DYSCO_BENCH_COMMON_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000ull

__attribute__((noreturn, format(printf, 1, 2))) static inline void fail(const char *format, ...) {
    int why = errno;
    va_list list;
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fprintf(stderr, why ? ": %s\n" : "\n", strerror(why));
    exit(1);
}

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

static inline void wait_ns(uint64_t ns) {
    struct timespec t = {(time_t)(ns / NS), (long)(ns % NS)};
    while (nanosleep(&t, &t) < 0 && errno == EINTR) { }
}

static inline long number(const char *text, long low, long high) {
    char *end;
    long value = strtol(text, &end, 10);
    errno = 0;
    if (*end || end == text || value < low || value > high)
        fail("%s is not a number from %ld to %ld", text, low, high);
    return value;
}

static inline struct sockaddr_in endpoint(const char *address, long port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    errno = 0;
    if (inet_pton(AF_INET, address, &a.sin_addr) != 1) fail("%s is no IPv4 address", address);
    return a;
}

static inline int tcp_socket(int flags) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0) fail("no socket");
    return fd;
}

/* Thousands of sockets: as many descriptors as are allowed, and at least `wanted`. */
static inline void allow_files(unsigned long wanted) {
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) < 0) fail("no limit of open files");
    r.rlim_cur = r.rlim_max;
    errno = 0;
    if (r.rlim_max < wanted) fail("%lu open files are needed, %lu allowed", wanted, r.rlim_max);
    if (setrlimit(RLIMIT_NOFILE, &r) < 0) fail("can't raise the limit of open files");
}

static inline void print_times(const uint64_t *ns, long n, long failed) {
    printf("{\"failed\": %ld, \"ns\": [", failed);
    for (long i = 0; i < n; i++) printf(i ? ", %llu" : "%llu", (unsigned long long)ns[i]);
    printf("]}\n");
}

#endif
