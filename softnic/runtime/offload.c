/*
 * Offloaded checksums and super-segments. The kernel hands over frames whose TCP or UDP checksum
 * field holds only the pseudo-header's sum, and segments of up to 64 KiB; a program rewrites
 * addresses, ports and lengths without knowing. On output the pseudo-header sum is made again
 * from the headers as they are, and the offsets moved; where nobody behind us would complete the
 * checksum (CPU port, truncated frames, unknown encapsulation), it is completed here.
 */
#include <string.h>

#include "internal.h"

#define L2_TO_L4 142u /* Ethernet, two tags, and the longest IPv4 and TCP headers */

struct l4 {
    uint32_t off, len, header; /* offset in the frame; bytes of segment, of its header */
    uint32_t csum_offset;
    uint32_t proto, v6;
    uint64_t addresses; /* their sum */
};

static uint64_t sum_words(const uint8_t *p, uint32_t n) {
    uint64_t s = 0;
    for (uint32_t i = 0; i < n; i += 2) s += sn_ld16(p + i);
    return s;
}

static uint32_t fold(uint64_t s) {
    while (s >> 16) s = (s & 0xffff) + (s >> 16);
    return (uint32_t)s;
}

static int find_l4(const uint8_t *h, uint32_t n, uint32_t at, struct l4 *l) {
    if (at + 14 > n) return 0;
    uint32_t type = (uint32_t)sn_ld16(h + at + 12);
    at += 14;
    for (int tags = 0; tags < 2 && (type == 0x8100 || type == 0x88a8); tags++, at += 4) {
        if (at + 4 > n) return 0;
        type = (uint32_t)sn_ld16(h + at + 2);
    }
    if (type == 0x0800) {
        if (at + 20 > n) return 0;
        uint32_t ihl = (h[at] & 15u) * 4, total = (uint32_t)sn_ld16(h + at + 2);
        if (h[at] >> 4 != 4 || ihl < 20 || total < ihl || (sn_ld16(h + at + 6) & 0x3fff)) return 0;
        l->v6 = 0;
        l->proto = h[at + 9];
        l->addresses = sum_words(h + at + 12, 8);
        l->off = at + ihl;
        l->len = total - ihl;
    } else if (type == 0x86dd) {
        if (at + 40 > n) return 0;
        l->v6 = 1;
        l->proto = h[at + 6];
        l->addresses = sum_words(h + at + 8, 32);
        l->off = at + 40;
        l->len = (uint32_t)sn_ld16(h + at + 4);
    } else {
        return 0;
    }
    if (l->proto == 6 && l->off + 20 <= n) {
        l->csum_offset = 16;
        l->header = (h[l->off + 12] >> 4) * 4u;
        return l->header >= 20;
    }
    if (l->proto == 17 && l->off + 8 <= n) {
        l->csum_offset = 6;
        l->header = 8;
        return 1;
    }
    return 0;
}

/* Completes the sum over `len` bytes from `off`; the field holds the pseudo-header's. */
static void complete(struct sn_out *o, uint32_t off, uint32_t len, uint32_t csum_offset, int udp) {
    uint32_t total = o->head_len + o->payload_len;
    if (off >= total || off + csum_offset + 2 > o->head_len) return; /* the field was cut off */
    if (len > total - off) len = total - off;
    uint32_t in_head = o->head_len - off;
    if (in_head > len) in_head = len;
    uint32_t sum = sn_csum16_2(o->head + off, in_head, o->payload, len - in_head);
    sn_st16(o->head + off + csum_offset, udp && sum == 0 ? 0xffff : sum);
}

/* Where the header that started at csum_start is now, if that is known. */
static uint32_t expected_l4(const struct sn_ctx *c, uint32_t deparsed) {
    if (c->l4_start == SN_NONE) return SN_NONE;
    if (c->l4_start >= c->parsed) return c->l4_start - c->parsed + deparsed;
    return c->l4_out;
}

/* Headers that the program left in the payload are needed in one piece. */
static void pull(struct sn_out *o, uint32_t upto) {
    if (upto <= o->head_len) return;
    uint32_t n = upto - o->head_len;
    if (n > o->payload_len) n = o->payload_len;
    memcpy(o->head + o->head_len, o->payload, n);
    o->head_len += n;
    o->payload += n;
    o->payload_len -= n;
}

/* What was pulled and isn't header goes back: the payload is aligned where it was received. */
static void unpull(struct sn_out *o, uint32_t upto, const uint8_t *from) {
    if (upto >= o->head_len) return;
    uint32_t n = o->head_len - upto, most = (uint32_t)(o->payload - from);
    if (n > most) n = most;
    o->head_len -= n;
    o->payload -= n;
    o->payload_len += n;
}

int sn_offload_out(struct sn_out *o, const struct sn_ctx *c, const struct virtio_net_hdr *in,
                   int truncated, int to_cpu, struct sn_burst *b) {
    (void)b;
    uint32_t start = c->first_out == SN_NONE ? 0 : c->first_out;
    uint32_t expected = expected_l4(c, o->head_len);
    int needs = in->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
    int gso = in->gso_type != VIRTIO_NET_HDR_GSO_NONE;
    struct l4 l;
    const uint8_t *payload = o->payload;
    pull(o, start + L2_TO_L4);
    if (!find_l4(o->head, o->head_len, start, &l) || (expected != SN_NONE && expected != l.off)) {
        if (gso && !to_cpu && !truncated) return -1;
        if (!needs) return 0;
        if (expected == SN_NONE) return -1;
        complete(o, expected, SN_NONE, in->csum_offset, in->csum_offset == 6);
        return 0;
    }
    uint32_t total = o->head_len + o->payload_len;
    if (l.len > total - l.off) l.len = total - l.off;
    if (needs)
        sn_st16(o->head + l.off + l.csum_offset, fold(l.addresses + l.proto + l.len));
    if (gso && (to_cpu || truncated || l.len <= l.header + in->gso_size)) gso = 0;
    if (needs && (to_cpu || truncated)) {
        complete(o, l.off, l.len, l.csum_offset, l.proto == 17);
        needs = 0;
    }
    if (needs) {
        o->vnet.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        o->vnet.csum_start = (uint16_t)l.off;
        o->vnet.csum_offset = (uint16_t)l.csum_offset;
    }
    if (gso) {
        uint8_t ecn = in->gso_type & VIRTIO_NET_HDR_GSO_ECN;
        o->vnet.gso_type = in->gso_type;
        if (l.proto == 6)
            o->vnet.gso_type =
                (l.v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4) | ecn;
        o->vnet.gso_size = in->gso_size;
        o->vnet.hdr_len = (uint16_t)(l.off + l.header);
        unpull(o, l.off + l.header, payload);
    }
    return 0;
}
