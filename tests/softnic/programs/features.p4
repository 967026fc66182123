// Parsing with varbit fields, stacks and lookahead; arithmetic up to 128 bits; checksums and
// hashes; clones, resubmission, recirculation and truncation. The first byte says what to do.
#include <core.p4>
#include <v1model.p4>

header op_h {
    bit<8> op;
    bit<8> arg;
}

header label_h {
    bit<20> value;
    bit<3> tc;
    bit<1> bottom;
    bit<8> ttl;
}

header ipv4_h {
    bit<4> version;
    bit<4> ihl;
    bit<8> dscp;
    bit<16> len;
    bit<16> id;
    bit<3> flags;
    bit<13> offset;
    bit<8> ttl;
    bit<8> proto;
    bit<16> sum;
    bit<32> src;
    bit<32> dst;
    varbit<320> options;
}

header numbers_h {
    bit<128> x;
    bit<128> y;
    bit<8> small;
    int<16> signed_;
    bit<32> sum;
    bit<16> fold;
    bit<8> sat;
    bit<1> flag;
    bit<7> rest;
}

header hash_h {
    bit<32> crc;
    bit<16> crc16_;
    bit<16> csum;
    bit<16> id;
}

header trace_h {
    bit<8> instance;
    bit<8> kept;
    bit<8> lost;
    bit<8> rid;
    bit<16> len;
}

struct headers {
    trace_h trace;
    op_h op;
    label_h[4] labels;
    ipv4_h ip;
    numbers_h n;
    hash_h hash;
}

struct meta_t {
    @field_list(1)
    bit<8> kept;
    bit<8> lost;
    bit<8> next;
}

parser P(packet_in pkt, out headers h, inout meta_t m, inout standard_metadata_t s) {
    state start {
        pkt.extract(h.op);
        m.next = pkt.lookahead<bit<8>>();
        transition select(h.op.op) {
            1: labels;
            2: ip;
            3: numbers;
            4: ip;
            5 &&& 0xf5: accept;
            default: accept;
        }
    }
    state labels {
        pkt.extract(h.labels.next);
        transition select(h.labels.last.bottom) {
            0: labels;
            1: accept;
        }
    }
    state ip {
        bit<8> first = pkt.lookahead<bit<8>>();
        verify(first[3:0] >= 5, error.HeaderTooShort);
        pkt.extract(h.ip, ((bit<32>) first[3:0] - 5) << 5);
        transition accept;
    }
    state numbers {
        pkt.extract(h.n);
        transition accept;
    }
}

control V(inout headers h, inout meta_t m) {
    apply {
        verify_checksum(h.ip.isValid(),
            { h.ip.version, h.ip.ihl, h.ip.dscp, h.ip.len, h.ip.id, h.ip.flags, h.ip.offset,
              h.ip.ttl, h.ip.proto, h.ip.src, h.ip.dst, h.ip.options },
            h.ip.sum, HashAlgorithm.csum16);
    }
}

control I(inout headers h, inout meta_t m, inout standard_metadata_t s) {
    register<bit<128>>(2) wide;

    action arithmetic() {
        bit<128> x = h.n.x;
        h.n.x = x + h.n.y;
        h.n.y = (x - h.n.y) ^ (x << 3);
        h.n.signed_ = h.n.signed_ >> 2;
        h.n.sat = h.n.small |+| 8w200;
        bit<32> t = h.n.sum + 32w0xffff0000;
        h.n.fold = t[15:0] + t[31:16];
        h.n.flag = (bit<1>) (x > h.n.x);
        wide.write(1, x);
    }

    apply {
        s.egress_spec = 1;
        if (h.op.op == 1) {
            if (s.parser_error != error.NoError) {
                s.egress_spec = 9;
            }
            h.labels[(bit<2>) h.op.arg].ttl = 8w0xee;
            h.labels.pop_front(1);
        } else if (h.op.op == 2) {
            if (s.checksum_error == 1 || s.parser_error != error.NoError) {
                s.egress_spec = 9;
            }
            h.ip.ttl = h.ip.ttl - 1;
        } else if (h.op.op == 3) {
            arithmetic();
        } else if (h.op.op == 4) {
            h.hash.setValid();
            hash(h.hash.crc, HashAlgorithm.crc32, 32w0, { h.ip.src, h.ip.dst, h.ip.proto },
                 33w0x100000000);
            hash(h.hash.crc16_, HashAlgorithm.crc16, 16w0, { h.ip.src, h.ip.dst }, 17w0x10000);
            hash(h.hash.csum, HashAlgorithm.csum16, 16w0, { h.ip.flags, h.ip.offset, h.ip.src },
                 17w0x10000);
            hash(h.hash.id, HashAlgorithm.identity, 16w5, { h.ip.id }, 16w100);
        } else if (h.op.op == 5) {
            m.kept = h.op.arg;
            m.lost = h.op.arg;
            clone_preserving_field_list(CloneType.I2E, 7, 1);
            h.op.arg = 0xff;
        } else if (h.op.op == 6) {
            if (s.instance_type == 6) {
                h.op.arg = m.kept + m.lost;
            } else {
                m.kept = 33;
                m.lost = 44;
                resubmit_preserving_field_list(1);
            }
        } else if (h.op.op == 8) {
            mark_to_drop(s);
            clone(CloneType.I2E, 99);
        } else if (h.op.op == 9) {
            resubmit_preserving_field_list(1);
        } else if (h.op.op == 13) {
            s.mcast_grp = 3;
        }
    }
}

control E(inout headers h, inout meta_t m, inout standard_metadata_t s) {
    apply {
        if (h.op.op == 5 || h.op.op == 13) {
            h.trace.setValid();
            h.trace.instance = (bit<8>) s.instance_type;
            h.trace.kept = m.kept;
            h.trace.lost = m.lost;
            h.trace.rid = (bit<8>) s.egress_rid;
            h.trace.len = (bit<16>) s.packet_length;
        } else if (h.op.op == 7) {
            h.op.arg = h.op.arg - 1;
            if (h.op.arg != 0) {
                recirculate_preserving_field_list(1);
            }
        } else if (h.op.op == 10) {
            truncate((bit<32>) h.op.arg);
        } else if (h.op.op == 11) {
            if (s.instance_type == 0) {
                clone_preserving_field_list(CloneType.E2E, 7, 1);
                mark_to_drop(s);
            } else {
                h.op.arg = (bit<8>) s.instance_type;
            }
        } else if (h.op.op == 12) {
            clone(CloneType.E2E, 7);
        }
    }
}

control C(inout headers h, inout meta_t m) {
    apply {
        update_checksum(h.ip.isValid() && h.op.op == 2,
            { h.ip.version, h.ip.ihl, h.ip.dscp, h.ip.len, h.ip.id, h.ip.flags, h.ip.offset,
              h.ip.ttl, h.ip.proto, h.ip.src, h.ip.dst, h.ip.options },
            h.ip.sum, HashAlgorithm.csum16);
    }
}

control D(packet_out pkt, in headers h) {
    apply {
        pkt.emit(h.trace);
        pkt.emit(h.op);
        pkt.emit(h.labels);
        pkt.emit(h.ip);
        pkt.emit(h.n);
        pkt.emit(h.hash);
    }
}

V1Switch(P(), V(), I(), E(), C(), D()) main;
