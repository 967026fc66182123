/* Protocol buffers as they are on the wire, as far as P4Runtime's hot messages need them. */
#ifndef SOFTNIC_PROTOBUF_H
#define SOFTNIC_PROTOBUF_H

#include <stdint.h>

struct span {
    const uint8_t *p, *end;
};

enum { VARINT = 0, BYTES = 2 };

#define FIELD(number, type) ((number) << 3 | (type))

struct item {
    uint64_t tag, value;
    struct span bytes;
};

static inline int varint(struct span *s, uint64_t *v) {
    *v = 0;
    for (uint32_t shift = 0; shift < 64 && s->p < s->end; shift += 7) {
        uint8_t b = *s->p++;
        *v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) return 0;
    }
    return -1;
}

/* 1: an item, 0: the end, -1: damaged, or of a type that no field known here has. */
static inline int next(struct span *s, struct item *i) {
    if (s->p == s->end) return 0;
    if (varint(s, &i->tag) < 0) return -1;
    i->bytes = (struct span){0};
    if ((i->tag & 7) == VARINT) return varint(s, &i->value) < 0 ? -1 : 1;
    if ((i->tag & 7) != BYTES || varint(s, &i->value) < 0 ||
        i->value > (uint64_t)(s->end - s->p))
        return -1;
    i->bytes = (struct span){s->p, s->p + i->value};
    s->p += i->value;
    return 1;
}

#endif
