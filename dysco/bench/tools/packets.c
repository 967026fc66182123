/*
 * Sends minimum-size frames (64 bytes with their FCS) as fast as it can: TCP segments without
 * flags but ACK, with right checksums, of COUNT five-tuples in turn that differ in their source port.
 *
 *     packets IFNAME SRC_MAC DST_MAC SRC_IP DST_IP FIRST_SPORT COUNT DPORT SECONDS
 */
#include "common.h"

#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>

#define FRAME 60
#define BATCH 64

static void mac(uint8_t *out, const char *text) {
    unsigned b[6];
    errno = 0;
    if (sscanf(text, "%x:%x:%x:%x:%x:%x", b, b + 1, b + 2, b + 3, b + 4, b + 5) != 6)
        fail("%s is no MAC address", text);
    for (int i = 0; i < 6; i++) out[i] = (uint8_t)b[i];
}

static uint32_t sum(const uint8_t *p, uint32_t n, uint32_t start) {
    for (uint32_t i = 0; i + 1 < n; i += 2) start += (uint32_t)p[i] << 8 | p[i + 1];
    return start;
}

static uint16_t folded(uint32_t s) {
    while (s >> 16) s = (s & 0xffff) + (s >> 16);
    return htons((uint16_t)~s);
}

static void fill(uint8_t *f, char **a, uint16_t sport, uint16_t dport) {
    memset(f, 0, FRAME);
    struct ether_header *e = (void *)f;
    struct iphdr *ip = (void *)(f + sizeof *e);
    struct tcphdr *tcp = (void *)(f + sizeof *e + sizeof *ip);
    uint16_t tcp_bytes = FRAME - sizeof *e - sizeof *ip;
    mac(e->ether_shost, a[2]);
    mac(e->ether_dhost, a[3]);
    e->ether_type = htons(ETHERTYPE_IP);
    *ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_TCP};
    ip->tot_len = htons(FRAME - sizeof *e);
    ip->saddr = endpoint(a[4], 0).sin_addr.s_addr;
    ip->daddr = endpoint(a[5], 0).sin_addr.s_addr;
    ip->check = folded(sum((uint8_t *)ip, sizeof *ip, 0));
    tcp->source = htons(sport);
    tcp->dest = htons(dport);
    tcp->doff = 5;
    tcp->ack = 1;
    tcp->window = htons(1024);
    uint32_t pseudo = sum((uint8_t *)&ip->saddr, 8, IPPROTO_TCP + tcp_bytes);
    tcp->check = folded(sum((uint8_t *)tcp, tcp_bytes, pseudo));
}

static int bound(const char *ifname) {
    unsigned index = if_nametoindex(ifname);
    if (!index) fail("no interface %s", ifname);
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_ifindex = (int)index};
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0) fail("no packets on %s", ifname);
    if (setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one) < 0)
        fail("can't go past the queue of %s", ifname);
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 10) {
        errno = 0;
        fail("usage: packets IFNAME SRC_MAC DST_MAC SRC_IP DST_IP FIRST_SPORT COUNT DPORT SECONDS");
    }
    long first = number(argv[6], 1, 65535), count = number(argv[7], 1, 65536 - first);
    long dport = number(argv[8], 1, 65535), seconds = number(argv[9], 1, 600);
    long n = (count + BATCH - 1) / BATCH * BATCH;
    uint8_t *frames = malloc((size_t)n * FRAME);
    struct iovec *iov = calloc((size_t)n, sizeof *iov);
    struct mmsghdr *messages = calloc((size_t)n, sizeof *messages);
    if (!frames || !iov || !messages) fail("no memory");
    for (long i = 0; i < n; i++) {
        fill(frames + i * FRAME, argv, (uint16_t)(first + i % count), (uint16_t)dport);
        iov[i] = (struct iovec){frames + i * FRAME, FRAME};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
    }
    int fd = bound(argv[1]);
    uint64_t sent = 0, start = now_ns(), end = start + (uint64_t)seconds * NS;
    for (long at = 0; now_ns() < end; at = (at + BATCH) % n) {
        int got = sendmmsg(fd, messages + at, BATCH, 0);
        if (got > 0) sent += (uint64_t)got;
        else if (errno != ENOBUFS && errno != EAGAIN) fail("can't send on %s", argv[1]);
    }
    printf("{\"sent\": %llu, \"seconds\": %.6f}\n", (unsigned long long)sent,
           (double)(now_ns() - start) / (double)NS);
    return 0;
}
