// Sequence numbers and timestamps: modulo 2**32, compared by their difference (RFC 1982).
#ifndef DYSCO_SERIAL_P4
#define DYSCO_SERIAL_P4

const bit<32> HALF = 0x80000000;

bool is_before(in bit<32> one, in bit<32> other) {
    return one - other >= HALF;
}

bit<32> latest(in bit<32> one, in bit<32> other) {
    return one - other >= HALF ? other : one;
}

bit<32> earliest(in bit<32> one, in bit<32> other) {
    return one - other >= HALF ? one : other;
}

// The window field that stands for `room` bytes; a negative room is none.
bit<16> window_of(in bit<32> room, in bit<4> scale) {
    bit<32> scaled = room >= HALF ? 0 : room >> scale;
    return scaled > 0xffff ? 0xffff : scaled[15:0];
}

#endif
