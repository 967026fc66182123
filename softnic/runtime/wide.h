/*
 * Numbers of more than 128 bits, for generated code alone: two's complement in SN_LIMBS words,
 * the least significant first. SN_LIMBS is as large as the program's widest field needs; what
 * goes beyond is cut off, and the compiler lets that happen only where the rest can't matter.
 */
#ifndef SOFTNIC_WIDE_H
#define SOFTNIC_WIDE_H

#include "softnic.h"

typedef struct {
    uint64_t w[SN_LIMBS];
} sn_wide;

static inline sn_wide sn_w_i128(sn_i128 v) {
    sn_wide r;
    r.w[0] = (uint64_t)v, r.w[1] = (uint64_t)(v >> 64);
    for (uint32_t i = 2; i < SN_LIMBS; i++) r.w[i] = v < 0 ? ~0ull : 0;
    return r;
}

static inline sn_wide sn_w_u128(sn_u128 v) {
    sn_wide r = {{(uint64_t)v, (uint64_t)(v >> 64)}};
    return r;
}

static inline sn_u128 sn_w_low(sn_wide a) { return (sn_u128)a.w[1] << 64 | a.w[0]; }

/* From and to the n bytes of a field, most significant first. */
static inline sn_wide sn_w_ld(const uint8_t *p, uint32_t n) {
    sn_wide r = {{0}};
    for (uint32_t i = 0; i < n && i < 8 * SN_LIMBS; i++)
        r.w[i / 8] |= (uint64_t)p[n - 1 - i] << (8 * (i % 8));
    return r;
}

static inline void sn_w_st(uint8_t *p, uint32_t n, uint32_t bits, sn_wide a) {
    for (uint32_t i = 0; i < n; i++) p[n - 1 - i] = (uint8_t)(a.w[i / 8] >> (8 * (i % 8)));
    if (bits % 8) p[0] &= (uint8_t)((1u << bits % 8) - 1);
}

static inline sn_wide sn_w_add(sn_wide a, sn_wide b) {
    uint64_t carry = 0;
    for (uint32_t i = 0; i < SN_LIMBS; i++) {
        sn_u128 s = (sn_u128)a.w[i] + b.w[i] + carry;
        a.w[i] = (uint64_t)s, carry = (uint64_t)(s >> 64);
    }
    return a;
}

static inline sn_wide sn_w_not(sn_wide a) {
    for (uint32_t i = 0; i < SN_LIMBS; i++) a.w[i] = ~a.w[i];
    return a;
}

static inline sn_wide sn_w_sub(sn_wide a, sn_wide b) {
    return sn_w_add(sn_w_add(a, sn_w_not(b)), sn_w_u128(1));
}

static inline sn_wide sn_w_mul(sn_wide a, sn_wide b) {
    sn_wide r = {{0}};
    for (uint32_t i = 0; i < SN_LIMBS; i++) {
        uint64_t carry = 0;
        for (uint32_t k = 0; i + k < SN_LIMBS; k++) {
            sn_u128 s = (sn_u128)a.w[i] * b.w[k] + r.w[i + k] + carry;
            r.w[i + k] = (uint64_t)s, carry = (uint64_t)(s >> 64);
        }
    }
    return r;
}

static inline sn_wide sn_w_and(sn_wide a, sn_wide b) {
    for (uint32_t i = 0; i < SN_LIMBS; i++) a.w[i] &= b.w[i];
    return a;
}

static inline sn_wide sn_w_or(sn_wide a, sn_wide b) {
    for (uint32_t i = 0; i < SN_LIMBS; i++) a.w[i] |= b.w[i];
    return a;
}

static inline sn_wide sn_w_xor(sn_wide a, sn_wide b) {
    for (uint32_t i = 0; i < SN_LIMBS; i++) a.w[i] ^= b.w[i];
    return a;
}

static inline sn_wide sn_w_shl(sn_wide a, sn_u128 n) {
    sn_wide r = {{0}};
    if (n >= 64 * SN_LIMBS) return r;
    uint32_t words = (uint32_t)n / 64, bits = (uint32_t)n % 64;
    for (uint32_t i = words; i < SN_LIMBS; i++) {
        r.w[i] = a.w[i - words] << bits;
        if (bits && i > words) r.w[i] |= a.w[i - words - 1] >> (64 - bits);
    }
    return r;
}

/* Arithmetic: the sign moves in. */
static inline sn_wide sn_w_shr(sn_wide a, sn_u128 n) {
    uint64_t sign = a.w[SN_LIMBS - 1] >> 63 ? ~0ull : 0;
    if (n >= 64 * SN_LIMBS) n = 64 * SN_LIMBS - 1;
    uint32_t words = (uint32_t)n / 64, bits = (uint32_t)n % 64;
    sn_wide r;
    for (uint32_t i = 0; i < SN_LIMBS; i++) {
        uint64_t low = i + words < SN_LIMBS ? a.w[i + words] : sign;
        uint64_t high = i + words + 1 < SN_LIMBS ? a.w[i + words + 1] : sign;
        r.w[i] = bits ? low >> bits | high << (64 - bits) : low;
    }
    return r;
}

/* The low `bits` bits as a signed number. */
static inline sn_wide sn_w_sext(sn_wide a, uint32_t bits) {
    return sn_w_shr(sn_w_shl(a, 64 * SN_LIMBS - bits), 64 * SN_LIMBS - bits);
}

/* -1, 0 or 1 as a is less than, equal to or more than b. */
static inline int sn_w_cmp(sn_wide a, sn_wide b) {
    int64_t x = (int64_t)a.w[SN_LIMBS - 1], y = (int64_t)b.w[SN_LIMBS - 1];
    if (x != y) return x < y ? -1 : 1;
    for (uint32_t i = SN_LIMBS - 1; i-- > 0;)
        if (a.w[i] != b.w[i]) return a.w[i] < b.w[i] ? -1 : 1;
    return 0;
}

/* Of numbers that aren't negative; by 0 both are 0, as in sn_div and sn_mod. */
static inline sn_wide sn_w_divmod(sn_wide a, sn_wide b, int remainder) {
    sn_wide quotient = {{0}}, rest = {{0}}, zero = {{0}};
    if (sn_w_cmp(b, zero) == 0) return zero;
    for (uint32_t i = 64 * SN_LIMBS; i-- > 0;) {
        rest = sn_w_shl(rest, 1);
        rest.w[0] |= a.w[i / 64] >> (i % 64) & 1;
        if (sn_w_cmp(rest, b) < 0) continue;
        rest = sn_w_sub(rest, b);
        quotient.w[i / 64] |= 1ull << (i % 64);
    }
    return remainder ? rest : quotient;
}

static inline sn_wide sn_w_clamp(sn_wide a, sn_wide low, sn_wide high) {
    return sn_w_cmp(a, low) < 0 ? low : sn_w_cmp(a, high) > 0 ? high : a;
}

#endif
