/*
 * What a generated pipeline and the runtime know of each other.
 *
 *     generated C  --- reads and writes packet, metadata ---> struct sn_ctx
 *         |    ^
 *         v    |  sn_table_apply, sn_register_*, sn_count, sn_csum16 ...   (this file, no libc)
 *       runtime
 *
 * A pass of a packet is: parse, ingress, (replication in the runtime), egress, deparse.
 * Nothing here allocates, blocks or calls the system, so that the same generated code can be
 * built for another place (eBPF) by giving these functions other bodies.
 */
#ifndef SOFTNIC_H
#define SOFTNIC_H

#include <stdint.h>

#define SN_ABI 5u

typedef unsigned __int128 sn_u128;
typedef __int128 sn_i128;

#define SN_LIKELY(x) __builtin_expect(!!(x), 1)
#define SN_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define SN_NONE 0xffffffffu

/* v1model's standard metadata; whatever the program calls these fields, they live here. */
struct sn_std {
    uint32_t ingress_port, egress_spec, egress_port, instance_type, packet_length;
    uint32_t enq_timestamp, enq_qdepth, deq_timedelta, deq_qdepth;
    uint32_t mcast_grp, egress_rid, checksum_error, parser_error, priority;
    uint64_t ingress_global_timestamp, egress_global_timestamp; /* microseconds since start */
};

enum sn_instance {
    SN_NORMAL = 0,
    SN_INGRESS_CLONE = 1,
    SN_EGRESS_CLONE = 2,
    SN_RECIRCULATED = 4,
    SN_REPLICATED = 5,
    SN_RESUBMITTED = 6,
};

struct sn_pipe;

/* One packet in one pass. */
struct sn_ctx {
    struct sn_std std;
    void *phv;           /* the program's headers and metadata */
    struct sn_pipe *pipe;
    const uint8_t *data; /* the frame as it arrived at the parser */
    uint32_t len;
    uint32_t parsed;      /* bytes the parser took: the payload starts there */
    uint32_t pkt_len;     /* length as headers are added and removed (bmv2: packet length register) */
    uint32_t ingress_len; /* what byte counters count */
    uint32_t trunc;       /* longest output, SN_NONE: no limit */
    uint32_t exit;
    uint32_t drop_port;
    uint32_t color; /* what the direct meter of the last entry hit says */
    /* Requests of the program; SN_NONE: none. The last call wins, as in bmv2. */
    uint32_t clone_session, clone_list, resubmit_list, recirculate_list, digest_list;
    /* Which header instance was found at the start of the frame, and at l4_start, and where the
     * deparser put them: an offloaded checksum moves with its header. */
    uint32_t l4_start, first_header, l4_header, first_out, l4_out;
    uint64_t now_ns;
    uint64_t *counts; /* enum sn_event */
    /* Of a packet whose next lookup was foreseen: where ingress goes on, the table, the hash. */
    uint32_t resume;
    const void *ahead_table;
    uint64_t ahead_hash;
};

/* Things a program does that an operator may want to know of. */
enum sn_event { SN_EV_LOG, SN_EV_ASSERT, SN_EV_INDEX, SN_EV_LOOP, SN_EV_COUNT };

static inline void sn_note(struct sn_ctx *c, enum sn_event event) { c->counts[event]++; }

/* ---- tables ---------------------------------------------------------------------------- */

enum sn_match { SN_EXACT, SN_LPM, SN_TERNARY, SN_RANGE, SN_OPTIONAL };

struct sn_field_desc {
    uint16_t offset, size; /* bytes in the packed key */
    uint16_t bits;
    uint16_t match; /* enum sn_match */
};

struct sn_const_entry {
    const uint8_t *key, *mask, *params;
    uint32_t priority, action;
};

struct sn_table_desc {
    const char *name;
    const struct sn_field_desc *fields;
    uint32_t n_fields, key_size, max_params, max_entries;
    const uint32_t *params_size; /* of each action, in bytes */
    uint32_t n_actions;
    uint32_t default_action;
    const uint8_t *default_params;
    uint32_t with_counter, with_timeout;
    const struct sn_const_entry *entries;
    uint32_t n_entries;
    uint32_t profile;    /* SN_NONE: none; else the last two actions are a member and a group */
    uint32_t with_meter; /* enum sn_meter_kind, 0: none */
};

enum sn_meter_kind { SN_METER_PACKETS = 1, SN_METER_BYTES = 2 };

struct sn_result {
    const uint8_t *params;
    uint32_t action; /* index in the table's list of actions */
    uint16_t hit, metered; /* metered: the colour is in the context */
};

/* `key`: the packed key, zero-padded to whole words. Counts the hit and stamps its time. */
struct sn_result sn_table_apply(struct sn_ctx *c, uint32_t table, const uint64_t *key);

/* The next lookup of the packet is to come; of a large table, what it needs first is fetched. */
void sn_table_ahead(struct sn_ctx *c, uint32_t table, const uint64_t *key);

/* The member that an entry of a table with a profile stands for; `hash`: of its selector. */
struct sn_result sn_profile_pick(struct sn_ctx *c, uint32_t profile, struct sn_result r,
                                 uint64_t hash);

/* ---- externs --------------------------------------------------------------------------- */

struct sn_array_desc {
    const char *name;
    uint32_t cells, bits; /* bits: of a meter enum sn_meter_kind, of a counter 0 */
};

struct sn_profile_desc {
    const char *name;
    uint32_t max_size, n_actions, max_params;
    const uint32_t *params_size;
};

struct sn_vset_desc {
    const char *name;
    uint32_t key_size, max_size;
};

/* True if the packed key is a member of a parser value set. */
int sn_vset_has(struct sn_ctx *c, uint32_t vset, const uint8_t *key);

/* A register's cell, or none where the index is out of bounds (noted). */
uint64_t *sn_register64(struct sn_ctx *c, uint32_t reg, uint64_t index);
sn_u128 *sn_register128(struct sn_ctx *c, uint32_t reg, uint64_t index);
uint8_t *sn_register_wide(struct sn_ctx *c, uint32_t reg, uint64_t index);
void sn_count(struct sn_ctx *c, uint32_t counter, uint64_t index);
/* The colour, or `color` where the index is out of bounds (noted). */
uint32_t sn_meter(struct sn_ctx *c, uint32_t meter, uint64_t index, uint32_t color);
/* A message of the program (its number) with its arguments, 16 bytes each. */
void sn_say(struct sn_ctx *c, uint32_t message, const sn_u128 *args, uint32_t n);
uint64_t sn_random(struct sn_ctx *c, uint64_t low, uint64_t high);

/* Each over two pieces of any length, of which the second may be empty. */
uint32_t sn_crc32_2(const uint8_t *p, uint32_t n, const uint8_t *q, uint32_t m);
uint32_t sn_crc16_2(const uint8_t *p, uint32_t n, const uint8_t *q, uint32_t m);
uint32_t sn_csum16_2(const uint8_t *p, uint32_t n, const uint8_t *q, uint32_t m);
uint32_t sn_xor16_2(const uint8_t *p, uint32_t n, const uint8_t *q, uint32_t m);
uint64_t sn_identity_2(const uint8_t *p, uint32_t n, const uint8_t *q, uint32_t m);

/* ---- the program ----------------------------------------------------------------------- */

struct sn_digest_desc {
    const char *name;
    uint32_t list, size;
};

/* Where the value of a field stands, for the traced build to show what changed. */
struct sn_trace_field {
    uint32_t offset, size; /* in bytes, in the headers and metadata, or in struct sn_std */
    uint32_t valid_at;     /* of the header's validity; SN_NONE: always valid */
    uint32_t bits_at;      /* of a varbit field's length; SN_NONE: as long as `size` */
    uint8_t in_std, is_bytes; /* else a number in host order */
};

struct sn_program {
    uint32_t abi, phv_size;
    uint32_t max_headers; /* most bytes the deparser can emit */
    uint32_t n_tables, n_registers, n_counters, n_digests, n_meters, n_profiles, n_vsets;
    const struct sn_table_desc *tables;
    const struct sn_array_desc *registers, *counters;
    const struct sn_digest_desc *digests;
    const struct sn_array_desc *meters;
    const struct sn_profile_desc *profiles;
    const struct sn_vset_desc *vsets;
    void (*parse)(struct sn_ctx *c);
    /* The beginning of ingress, as far as it touches nothing but its own packet, until a large
     * table: ingress goes on there. NULL: the program has no such beginning. */
    void (*ahead)(struct sn_ctx *c);
    void (*ingress)(struct sn_ctx *c);
    void (*egress)(struct sn_ctx *c);
    uint32_t (*deparse)(struct sn_ctx *c, uint8_t *out);
    void (*reset_metadata)(struct sn_ctx *c);
    void (*copy_list)(struct sn_ctx *to, const struct sn_ctx *from, uint32_t list);
    uint32_t (*digest)(struct sn_ctx *c, uint32_t list, uint8_t *out);
    const struct sn_trace_field *trace_fields; /* of the traced build only */
    uint32_t n_trace_fields;
};

/* ---- the traced build: calls that the ordinary one hasn't ------------------------------- */

void sn_trace_state(struct sn_ctx *c, uint32_t state);
void sn_trace_parsed(struct sn_ctx *c);
struct sn_result sn_trace_apply(struct sn_ctx *c, uint32_t table, const uint64_t *key);
void sn_trace_pick(struct sn_ctx *c, uint32_t profile, struct sn_result entry,
                   struct sn_result picked);
void sn_trace_action(struct sn_ctx *c, uint32_t action, const uint8_t *params, uint32_t size);
void sn_trace_if(struct sn_ctx *c, uint32_t conditional, int value);
/* What an extern or the like is asked for; its result is among the changes that follow. */
void sn_trace_step(struct sn_ctx *c, uint32_t step, const sn_u128 *values, uint32_t n);

/* ---- bytes and bits -------------------------------------------------------------------- */

static inline uint64_t sn_ld8(const uint8_t *p) { return p[0]; }

static inline uint64_t sn_ld16(const uint8_t *p) {
    uint16_t v;
    __builtin_memcpy(&v, p, 2);
    return __builtin_bswap16(v);
}

static inline uint64_t sn_ld32(const uint8_t *p) {
    uint32_t v;
    __builtin_memcpy(&v, p, 4);
    return __builtin_bswap32(v);
}

static inline uint64_t sn_ld64(const uint8_t *p) {
    uint64_t v;
    __builtin_memcpy(&v, p, 8);
    return __builtin_bswap64(v);
}

static inline uint64_t sn_ld24(const uint8_t *p) { return sn_ld16(p) << 8 | p[2]; }
static inline uint64_t sn_ld40(const uint8_t *p) { return sn_ld32(p) << 8 | p[4]; }
static inline uint64_t sn_ld48(const uint8_t *p) { return sn_ld32(p) << 16 | sn_ld16(p + 4); }
static inline uint64_t sn_ld56(const uint8_t *p) { return sn_ld32(p) << 24 | sn_ld24(p + 4); }

static inline sn_u128 sn_ldn(const uint8_t *p, uint32_t n) {
    sn_u128 v = 0;
    for (uint32_t i = 0; i < n; i++) v = v << 8 | p[i];
    return v;
}

static inline sn_u128 sn_ld128(const uint8_t *p) {
    return (sn_u128)sn_ld64(p) << 64 | sn_ld64(p + 8);
}

static inline void sn_st8(uint8_t *p, uint64_t v) { p[0] = (uint8_t)v; }

static inline void sn_st16(uint8_t *p, uint64_t v) {
    uint16_t w = __builtin_bswap16((uint16_t)v);
    __builtin_memcpy(p, &w, 2);
}

static inline void sn_st32(uint8_t *p, uint64_t v) {
    uint32_t w = __builtin_bswap32((uint32_t)v);
    __builtin_memcpy(p, &w, 4);
}

static inline void sn_st64(uint8_t *p, uint64_t v) {
    uint64_t w = __builtin_bswap64(v);
    __builtin_memcpy(p, &w, 8);
}

static inline void sn_st24(uint8_t *p, uint64_t v) { sn_st16(p, v >> 8), sn_st8(p + 2, v); }
static inline void sn_st40(uint8_t *p, uint64_t v) { sn_st32(p, v >> 8), sn_st8(p + 4, v); }
static inline void sn_st48(uint8_t *p, uint64_t v) { sn_st32(p, v >> 16), sn_st16(p + 4, v); }
static inline void sn_st56(uint8_t *p, uint64_t v) { sn_st32(p, v >> 24), sn_st24(p + 4, v); }

static inline void sn_st128(uint8_t *p, sn_u128 v) {
    sn_st64(p, (uint64_t)(v >> 64)), sn_st64(p + 8, (uint64_t)v);
}

static inline void sn_stn(uint8_t *p, uint32_t n, sn_u128 v) {
    for (uint32_t i = n; i-- > 0; v >>= 8) p[i] = (uint8_t)v;
}

/* Append `bits` low bits of v at bit position *pos; the buffer must be zero there. */
static inline void sn_put_bits(uint8_t *buf, uint32_t *pos, sn_u128 v, uint32_t bits) {
    for (uint32_t i = bits; i-- > 0; (*pos)++)
        buf[*pos >> 3] |= (uint8_t)(((uint32_t)(v >> i) & 1u) << (7 - (*pos & 7)));
}

/* Copy `bits` bits that start `off` bits into src to dst, right-aligned in (bits + 7) / 8 bytes. */
static inline void sn_get_wide(uint8_t *dst, const uint8_t *src, uint32_t off, uint32_t bits) {
    uint32_t n = (bits + 7) / 8, pad = n * 8 - bits;
    for (uint32_t i = 0; i < n; i++) dst[i] = 0;
    for (uint32_t i = 0; i < bits; i++) {
        uint32_t s = off + i, d = pad + i;
        dst[d >> 3] |= (uint8_t)((src[s >> 3] >> (7 - (s & 7)) & 1) << (7 - (d & 7)));
    }
}

static inline void sn_put_wide(uint8_t *dst, uint32_t *pos, const uint8_t *src, uint32_t bits) {
    uint32_t n = (bits + 7) / 8, pad = n * 8 - bits;
    for (uint32_t i = 0; i < bits; i++, (*pos)++) {
        uint32_t s = pad + i;
        dst[*pos >> 3] |= (uint8_t)((src[s >> 3] >> (7 - (s & 7)) & 1) << (7 - (*pos & 7)));
    }
}

/* The low 128 bits of a big-endian number of n bytes, shifted right. */
static inline sn_u128 sn_wide_shr(const uint8_t *p, uint32_t n, uint32_t shift) {
    sn_u128 v = 0;
    uint32_t skip = shift / 8, rest = shift % 8;
    for (uint32_t i = 0; i < 17 && skip + i < n; i++) {
        if (i == 16 && !rest) break;
        sn_u128 b = p[n - 1 - skip - i];
        v |= i ? b << (8 * i - rest) : b >> rest;
    }
    return v;
}

static inline int sn_wide_eq(const uint8_t *a, const uint8_t *b, uint32_t n) {
    uint8_t d = 0;
    for (uint32_t i = 0; i < n; i++) d |= a[i] ^ b[i];
    return d == 0;
}

static inline void sn_copy(uint8_t *d, const uint8_t *s, uint32_t n) {
    __builtin_memcpy(d, s, n);
}

static inline void sn_zero(void *d, uint32_t n) { __builtin_memset(d, 0, n); }

static inline int64_t sn_sext(uint64_t v, uint32_t bits) {
    return (int64_t)(v << (64 - bits)) >> (64 - bits);
}

static inline sn_i128 sn_sext128(sn_u128 v, uint32_t bits) {
    return (sn_i128)(v << (128 - bits)) >> (128 - bits);
}

static inline sn_u128 sn_shl(sn_u128 v, sn_u128 n) { return n < 128 ? v << (uint32_t)n : 0; }
static inline sn_u128 sn_shr(sn_u128 v, sn_u128 n) { return n < 128 ? v >> (uint32_t)n : 0; }
static inline uint64_t sn_shr64(uint64_t v, uint64_t n) { return n < 64 ? v >> n : 0; }
static inline sn_i128 sn_sar(sn_i128 v, sn_u128 n) { return v >> (n < 127 ? (uint32_t)n : 127); }
static inline sn_u128 sn_div(sn_u128 a, sn_u128 b) { return b ? a / b : 0; }
static inline sn_u128 sn_mod(sn_u128 a, sn_u128 b) { return b ? a % b : 0; }

#endif
