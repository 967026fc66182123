// Checksums with and without the payload, every hash, messages, assertions, random numbers, time.
#include <core.p4>
#include <v1model.p4>

header data_h {
    bit<8> op;
    bit<8> arg;
    bit<16> sum;
    bit<16> total;
    bit<48> x;
}

header out_h {
    bit<32> a;
    bit<32> b;
    bit<16> c;
    bit<16> d;
}

struct headers {
    data_h data;
    out_h result;
}

struct meta_t {}

parser P(packet_in pkt, out headers h, inout meta_t m, inout standard_metadata_t s) {
    state start {
        pkt.extract(h.data);
        transition accept;
    }
}

control V(inout headers h, inout meta_t m) {
    apply {
        verify_checksum(h.data.op == 1, { h.data.op, h.data.arg, h.data.x }, h.data.sum,
                        HashAlgorithm.csum16);
        verify_checksum_with_payload(h.data.op == 2, { h.data.op, h.data.arg, h.data.x },
                                     h.data.total, HashAlgorithm.csum16);
    }
}

control I(inout headers h, inout meta_t m, inout standard_metadata_t s) {
    apply {
        s.egress_spec = 1;
        if (s.checksum_error == 1) {
            s.egress_spec = 9;
        }
        log_msg("op {} of x {}", { h.data.op, h.data.x });
        assert(h.data.arg != 0xff);
        if (h.data.op == 5) {
            h.result.setValid();
            hash(h.result.a, HashAlgorithm.crc32_custom, 32w0, { h.data.x }, 64w0x100000000);
            hash(h.result.b, HashAlgorithm.identity, 32w7, { h.data.x }, 32w1000);
            hash(h.result.c, HashAlgorithm.xor16, 16w0, { h.data.arg, h.data.x }, 32w0x10000);
            hash(h.result.d, HashAlgorithm.crc16_custom, 16w0, { h.data.x[11:0], 4w5 }, 32w0x10000);
        } else if (h.data.op == 6) {
            h.result.setValid();
            random(h.result.a, (bit<32>) h.data.arg, 32w200);
            random(h.result.c, 16w3, 16w3);
            h.result.b = (bit<32>) s.ingress_global_timestamp;
        }
    }
}

control E(inout headers h, inout meta_t m, inout standard_metadata_t s) {
    apply {}
}

control C(inout headers h, inout meta_t m) {
    apply {
        update_checksum(h.data.op == 3, { h.data.op, h.data.arg, h.data.x }, h.data.sum,
                        HashAlgorithm.csum16);
        update_checksum_with_payload(h.data.op == 4, { h.data.op, h.data.arg, h.data.x },
                                     h.data.total, HashAlgorithm.csum16);
        update_checksum_with_payload(h.data.op == 7, { h.data.op, h.data.arg, h.data.x },
                                     h.data.total, HashAlgorithm.crc16);
        update_checksum_with_payload(h.data.op == 8, { h.data.op }, h.data.total,
                                     HashAlgorithm.xor16);
    }
}

control D(packet_out pkt, in headers h) {
    apply {
        pkt.emit(h.data);
        pkt.emit(h.result);
    }
}

V1Switch(P(), V(), I(), E(), C(), D()) main;
