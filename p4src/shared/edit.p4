// A segment's numbers, out of its headers and back into them, with the checksums for it.
//
// SACK blocks are clipped first, then shifted; what is left of none is removed, and the segment gets
// shorter. A bare segment is made anew from the numbers: nothing but ACK, timestamps and SACK blocks.
#ifndef DYSCO_EDIT_P4
#define DYSCO_EDIT_P4

#include "checksum.p4"
#include "serial.p4"

const bit<16> NOPS = 0x0101;
const bit<16> TIMESTAMPS_KIND = 0x080a;
const bit<8>  SACK_KIND = 5;

bit<32> change_32(in bit<32> before, in bit<32> after) {
    return (bit<32>)~before[31:16] + (bit<32>)~before[15:0] + (bit<32>)after[31:16]
         + (bit<32>)after[15:0];
}

control LoadEdit(in headers_t hdr, inout metadata_t meta) {
    apply {
        // A length that the IP header does not bear out: no payload that anybody would take.
        if ((bit<16>)hdr.tcp.offset << 2 > meta.l4_length) {
            meta.payload = 0;
        }
        meta.edit.seq = hdr.tcp.seq;
        meta.edit.ack = hdr.tcp.ack;
        meta.edit.window = hdr.tcp.window;
        meta.edit.fin = hdr.tcp.fin;
        meta.edit.psh = hdr.tcp.psh;
        if (hdr.timestamps.isValid()) {
            meta.edit.has_ts = 1;
            meta.edit.ts_value = hdr.timestamps.value;
            meta.edit.ts_echo = hdr.timestamps.echo;
        } else if (hdr.late_timestamps.isValid()) {
            meta.edit.has_ts = 1;
            meta.edit.ts_value = hdr.late_timestamps.value;
            meta.edit.ts_echo = hdr.late_timestamps.echo;
        }
    }
}

// `sum`: what changes in the checksum's words, were the option aligned; `lost`: the block is gone.
control EditBlock(inout block_h block, in bit<2> clip, in bit<32> cut, in bit<32> shift,
                  inout bit<32> sum, inout bit<8> lost) {
    apply {
        if (block.isValid()) {
            bit<32> left = block.left;
            bit<32> right = block.right;
            bit<1> keep = 1;
            if (clip == CLIP_BELOW) {
                keep = is_before(left, cut) ? (bit<1>)1 : 0;
                right = earliest(right, cut);
            } else if (clip == CLIP_ABOVE) {
                keep = is_before(cut, right) ? (bit<1>)1 : 0;
                left = latest(left, cut);
            } else if (clip == CLIP_ALL) {
                keep = 0;
            }
            if (keep == 1) {
                left = left + shift;
                right = right + shift;
                sum = sum + change_32(block.left, left) + change_32(block.right, right);
                block.left = left;
                block.right = right;
            } else {
                sum = sum + change_32(block.left, 0) + change_32(block.right, 0);
                lost = lost + 1;
                block.setInvalid();
            }
        }
    }
}

// What the host's IP header says of the length follows.
control ChangeLength(inout headers_t hdr, in bit<16> before, in bit<16> after) {
    apply {
        if (hdr.ipv4.isValid()) {
            bit<16> length = hdr.ipv4.length - before + after;
            Patch.apply(hdr.ipv4.checksum, change_16(hdr.ipv4.length, length));
            hdr.ipv4.length = length;
        } else {
            hdr.ipv6.length = hdr.ipv6.length - before + after;
        }
    }
}

control StoreEdit(inout headers_t hdr, inout metadata_t meta) {
    apply {
        bit<32> sum = 0;
        bit<32> odd = 0;    // of what lies across words: byte-swapped in the end (RFC 1071, 2 B)
        bit<8> lost = 0;
        bit<32> blocks = 0;

        bit<16> flags_before = hdr.tcp.offset ++ hdr.tcp.reserved ++ hdr.tcp.urg ++ hdr.tcp.ack_flag
            ++ hdr.tcp.psh ++ hdr.tcp.rst ++ hdr.tcp.syn ++ hdr.tcp.fin;
        sum = change_32(hdr.tcp.seq, meta.edit.seq) + change_32(hdr.tcp.ack, meta.edit.ack)
            + change_16(hdr.tcp.window, meta.edit.window);
        hdr.tcp.seq = meta.edit.seq;
        hdr.tcp.ack = meta.edit.ack;
        hdr.tcp.window = meta.edit.window;
        hdr.tcp.fin = meta.edit.fin;
        hdr.tcp.psh = meta.edit.psh;

        if (meta.edit.has_ts == 1) {
            bit<32> stamps = 0;
            if (hdr.timestamps.isValid()) {
                stamps = change_32(hdr.timestamps.value, meta.edit.ts_value)
                    + change_32(hdr.timestamps.echo, meta.edit.ts_echo);
                hdr.timestamps.value = meta.edit.ts_value;
                hdr.timestamps.echo = meta.edit.ts_echo;
            } else if (hdr.late_timestamps.isValid()) {
                stamps = change_32(hdr.late_timestamps.value, meta.edit.ts_value)
                    + change_32(hdr.late_timestamps.echo, meta.edit.ts_echo);
                hdr.late_timestamps.value = meta.edit.ts_value;
                hdr.late_timestamps.echo = meta.edit.ts_echo;
            }
            if (meta.ts_odd == 1) {
                odd = stamps;
            } else {
                sum = sum + stamps;
            }
        }

        if (hdr.sack.isValid()) {
            EditBlock.apply(hdr.blocks[0], meta.edit.clip, meta.edit.cut, meta.edit.shift, blocks,
                            lost);
            EditBlock.apply(hdr.blocks[1], meta.edit.clip, meta.edit.cut, meta.edit.shift, blocks,
                            lost);
            EditBlock.apply(hdr.blocks[2], meta.edit.clip, meta.edit.cut, meta.edit.shift, blocks,
                            lost);
            EditBlock.apply(hdr.blocks[3], meta.edit.clip, meta.edit.cut, meta.edit.shift, blocks,
                            lost);
            if (lost != 0) {
                bit<16> option = hdr.sack.kind ++ hdr.sack.length;
                hdr.sack.length = hdr.sack.length - (lost << 3);
                if (hdr.sack.length == 2) {
                    hdr.sack.kind = 1;
                    hdr.sack.length = 1;
                }
                blocks = blocks + change_16(option, hdr.sack.kind ++ hdr.sack.length);
                bit<16> shorter = meta.l4_length - (bit<16>)(lost << 3);
                sum = sum + change_16(meta.l4_length, shorter);
                ChangeLength.apply(hdr, meta.l4_length, shorter);
                meta.l4_length = shorter;
                hdr.tcp.offset = hdr.tcp.offset - (bit<4>)(lost << 1);
            }
            if (meta.sack_odd == 1) {
                odd = odd + blocks;
            } else {
                sum = sum + blocks;
            }
        }

        bit<16> flags = hdr.tcp.offset ++ hdr.tcp.reserved ++ hdr.tcp.urg ++ hdr.tcp.ack_flag
            ++ hdr.tcp.psh ++ hdr.tcp.rst ++ hdr.tcp.syn ++ hdr.tcp.fin;
        sum = sum + change_16(flags_before, flags);
        odd = (odd & 0xffff) + (odd >> 16);
        odd = (odd & 0xffff) + (odd >> 16);
        meta.tcp_sum = sum + ((odd & 0xff) << 8) + (odd >> 8);
    }
}

// After StoreEdit: leaves nothing but the header. Its checksum is made in Seal, when all else is done.
control Strip(inout headers_t hdr, inout metadata_t meta) {
    apply {
        hdr.before[0].setInvalid();
        hdr.before[1].setInvalid();
        hdr.before[2].setInvalid();
        hdr.before[3].setInvalid();
        hdr.before[4].setInvalid();
        hdr.before[5].setInvalid();
        hdr.between[0].setInvalid();
        hdr.between[1].setInvalid();
        hdr.between[2].setInvalid();
        hdr.between[3].setInvalid();
        hdr.behind[0].setInvalid();
        hdr.behind[1].setInvalid();
        hdr.behind[2].setInvalid();
        hdr.behind[3].setInvalid();
        hdr.late_timestamps.setInvalid();
        hdr.before_nops.setInvalid();
        hdr.timestamps.setInvalid();

        bit<16> size = 20;
        if (meta.edit.has_ts == 1) {
            hdr.before_nops.setValid();
            hdr.before_nops.kinds = NOPS;
            hdr.timestamps.setValid();
            hdr.timestamps.kind = TIMESTAMPS_KIND;
            hdr.timestamps.value = meta.edit.ts_value;
            hdr.timestamps.echo = meta.edit.ts_echo;
            size = size + 12;
        }
        if (hdr.sack.isValid() && hdr.sack.kind == SACK_KIND) {
            hdr.between_nops.setValid();
            hdr.between_nops.kinds = NOPS;
            size = size + 2 + (bit<16>)hdr.sack.length;
        } else {
            hdr.between_nops.setInvalid();
            hdr.sack.setInvalid();
        }

        hdr.tcp.offset = size[5:2];
        // CWR was the data's, ECE the ACK's (RFC 3168): an answer or a RST has neither.
        hdr.tcp.reserved = hdr.tcp.reserved & 0b111101;
        if (meta.kind == Kind.ANSWER || meta.kind == Kind.HOST_ANSWER || hdr.tcp.rst == 1) {
            hdr.tcp.reserved = hdr.tcp.reserved & 0b111100;
        }
        hdr.tcp.urg = 0;
        hdr.tcp.urgent = 0;
        hdr.tcp.syn = 0;
        hdr.tcp.fin = 0;
        hdr.tcp.psh = 0;
        if (meta.kind != Kind.HOST_BARE) {
            hdr.tcp.ack_flag = 1;
        }
        ChangeLength.apply(hdr, meta.l4_length, size);
        meta.l4_length = size;
        meta.payload = 0;
        meta.frame = 14 + (bit<32>)size;
        if (hdr.ipv4.isValid()) {
            meta.frame = meta.frame + ((bit<32>)hdr.ipv4.ihl << 2);
        } else {
            meta.frame = meta.frame + 40;
        }
    }
}

// The checksum of a bare segment, in full (RFC 9293, 3.1).
control Seal(inout headers_t hdr, in bit<16> size) {
    apply {
        bit<32> sum = (bit<32>)PROTO_TCP + (bit<32>)size;
        if (hdr.ipv4.isValid()) {
            sum = sum + change_v4(0, hdr.ipv4.src) + change_v4(0, hdr.ipv4.dst);
        } else {
            sum = sum + change_v6(0, hdr.ipv6.src) + change_v6(0, hdr.ipv6.dst);
        }
        bit<16> flags = hdr.tcp.offset ++ hdr.tcp.reserved ++ hdr.tcp.urg ++ hdr.tcp.ack_flag
            ++ hdr.tcp.psh ++ hdr.tcp.rst ++ hdr.tcp.syn ++ hdr.tcp.fin;
        sum = sum + (bit<32>)hdr.tcp.sport + (bit<32>)hdr.tcp.dport + change_32(0, hdr.tcp.seq)
            + change_32(0, hdr.tcp.ack) + (bit<32>)flags + (bit<32>)hdr.tcp.window
            + (bit<32>)hdr.tcp.urgent;
        if (hdr.timestamps.isValid()) {
            sum = sum + (bit<32>)NOPS + (bit<32>)TIMESTAMPS_KIND
                + change_32(0, hdr.timestamps.value) + change_32(0, hdr.timestamps.echo);
        }
        if (hdr.sack.isValid()) {
            sum = sum + (bit<32>)NOPS + (bit<32>)(hdr.sack.kind ++ hdr.sack.length);
        }
        if (hdr.blocks[0].isValid()) {
            sum = sum + change_32(0, hdr.blocks[0].left) + change_32(0, hdr.blocks[0].right);
        }
        if (hdr.blocks[1].isValid()) {
            sum = sum + change_32(0, hdr.blocks[1].left) + change_32(0, hdr.blocks[1].right);
        }
        if (hdr.blocks[2].isValid()) {
            sum = sum + change_32(0, hdr.blocks[2].left) + change_32(0, hdr.blocks[2].right);
        }
        if (hdr.blocks[3].isValid()) {
            sum = sum + change_32(0, hdr.blocks[3].left) + change_32(0, hdr.blocks[3].right);
        }
        hdr.tcp.checksum = 0xffff;
        Patch.apply(hdr.tcp.checksum, sum);
    }
}

#endif
