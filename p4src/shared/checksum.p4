// Incremental checksums (RFC 1624, eqn. 3: HC' = ~(~HC + ~m + m')): what changes in a packet is summed up
// in words of 16 bits, and one Patch brings a checksum along. A packet's sums have at most 40 terms of at
// most 0x1fffe, so 32 bits hold them.
#ifndef DYSCO_CHECKSUM_P4
#define DYSCO_CHECKSUM_P4

#include "header.p4"

// ~before + after
bit<32> change_16(in bit<16> before, in bit<16> after) {
    return (bit<32>)~before + (bit<32>)after;
}

bit<32> change_v4(in ipv4_t before, in ipv4_t after) {
    return change_16(before[31:16], after[31:16]) + change_16(before[15:0], after[15:0]);
}

bit<32> change_v6(in ipv6_t before, in ipv6_t after) {
    return change_v4(before[127:96], after[127:96]) + change_v4(before[95:64], after[95:64])
         + change_v4(before[63:32], after[63:32]) + change_v4(before[31:0], after[31:0]);
}

control Patch(inout bit<16> checksum, in bit<32> change) {
    apply {
        bit<32> sum = (bit<32>)~checksum + (change & 0xffff) + (change >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        checksum = ~(bit<16>)sum;
    }
}

#endif
