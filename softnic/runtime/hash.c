/* Checksums and hashes of v1model, as bmv2 computes them. */
#include "internal.h"

static uint32_t crc32_table[256];
static uint16_t crc16_table[256];

__attribute__((constructor)) static void make_tables(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i, s = i;
        for (int k = 0; k < 8; k++) {
            c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1; /* IEEE 802.3, reflected */
            s = s & 1 ? 0xa001u ^ (s >> 1) : s >> 1;     /* CRC-16/ARC, reflected */
        }
        crc32_table[i] = c;
        crc16_table[i] = (uint16_t)s;
    }
}

static uint32_t crc32_on(uint32_t c, const uint8_t *p, uint32_t n) {
    while (n--) c = crc32_table[(c ^ *p++) & 0xff] ^ (c >> 8);
    return c;
}

static uint32_t crc16_on(uint32_t c, const uint8_t *p, uint32_t n) {
    while (n--) c = crc16_table[(c ^ *p++) & 0xff] ^ (c >> 8);
    return c;
}

uint32_t sn_crc32_2(const uint8_t *p, uint32_t n, const uint8_t *q, uint32_t m) {
    return ~crc32_on(crc32_on(0xffffffffu, p, n), q, m);
}

uint32_t sn_crc16_2(const uint8_t *p, uint32_t n, const uint8_t *q, uint32_t m) {
    return crc16_on(crc16_on(0, p, n), q, m);
}

/* The sum of big-endian 16-bit words, not folded to the end; an odd last byte counts as high. */
static uint64_t sum16(const uint8_t *p, uint32_t n) {
    uint64_t sum = 0;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t v = sn_ld64(p);
        sum += (v >> 32) + (v & 0xffffffffu);
    }
    for (; n >= 2; p += 2, n -= 2) sum += sn_ld16(p);
    if (n) sum += (uint64_t)p[0] << 8;
    return sum;
}

static uint32_t fold(uint64_t sum) {
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint32_t)sum;
}

uint32_t sn_csum16_2(const uint8_t *p, uint32_t n, const uint8_t *q, uint32_t m) {
    uint32_t a = fold(sum16(p, n)), b = fold(sum16(q, m));
    if (n & 1) b = ((b & 0xff) << 8) | b >> 8; /* the second piece starts at an odd byte */
    return ~fold((uint64_t)a + b) & 0xffff;
}

static uint32_t xor16(const uint8_t *p, uint32_t n) {
    uint32_t x = 0;
    for (; n >= 2; p += 2, n -= 2) x ^= (uint32_t)sn_ld16(p);
    return n ? x ^ (uint32_t)p[0] << 8 : x;
}

uint32_t sn_xor16_2(const uint8_t *p, uint32_t n, const uint8_t *q, uint32_t m) {
    uint32_t b = xor16(q, m);
    return xor16(p, n) ^ (n & 1 ? ((b & 0xff) << 8) | b >> 8 : b);
}

uint64_t sn_identity_2(const uint8_t *p, uint32_t n, const uint8_t *q, uint32_t m) {
    if (n >= 8) return (uint64_t)sn_ldn(p, 8);
    uint32_t more = m < 8 - n ? m : 8 - n;
    return (uint64_t)(sn_ldn(p, n) << (8 * more) | sn_ldn(q, more));
}
