// Uses what the target refuses: a meter.
#include <core.p4>
#include <v1model.p4>

struct headers {}

struct meta_t {
    bit<8> color;
}

parser P(packet_in pkt, out headers h, inout meta_t m, inout standard_metadata_t s) {
    state start {
        transition accept;
    }
}

control V(inout headers h, inout meta_t m) {
    apply {}
}

control I(inout headers h, inout meta_t m, inout standard_metadata_t s) {
    meter(16, MeterType.packets) rate;

    action limit() {
        rate.execute_meter((bit<32>) s.ingress_port, m.color);
    }
    apply {
        limit();
        s.egress_spec = (bit<9>) m.color;
    }
}

control E(inout headers h, inout meta_t m, inout standard_metadata_t s) {
    apply {}
}

control C(inout headers h, inout meta_t m) {
    apply {}
}

control D(packet_out pkt, in headers h) {
    apply {}
}

V1Switch(P(), V(), I(), E(), C(), D()) main;
