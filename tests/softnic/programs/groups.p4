// What the control plane fills: a value set, action profiles with and without a selector, direct
// meters and counters.
#include <core.p4>
#include <v1model.p4>

header data_h {
    bit<16> kind;
    bit<4> tag;
    bit<12> flow;
    bit<8> dst;
    bit<8> seen;
}

struct headers {
    data_h data;
}

struct kind_t {
    bit<16> kind;
    bit<4> tag;
}

struct meta_t {
    bit<1> special;
    bit<8> color;
}

parser P(packet_in pkt, out headers h, inout meta_t m, inout standard_metadata_t s) {
    value_set<kind_t>(4) kinds;

    state start {
        pkt.extract(h.data);
        transition select(h.data.kind, h.data.tag) {
            kinds: special;
            (0, 0): accept;
            default: other;
        }
    }
    state special {
        m.special = 1;
        transition accept;
    }
    state other {
        h.data.seen = 0xee;
        transition accept;
    }
}

control V(inout headers h, inout meta_t m) {
    apply {}
}

control I(inout headers h, inout meta_t m, inout standard_metadata_t s) {
    action_selector(HashAlgorithm.crc16, 32w64, 32w16) hops;
    action_profile(8) fates;
    direct_meter<bit<8>>(MeterType.bytes) rate;
    direct_counter(CounterType.packets) hits;

    action via(bit<9> port) { s.egress_spec = port; }
    action drop() { mark_to_drop(s); }
    action note(bit<8> v) { h.data.seen = v; }
    action paint() {
        rate.read(m.color);
        hits.count();
        h.data.seen = m.color;
    }

    table route {
        key = { h.data.dst: lpm; h.data.flow: selector; }
        actions = { via; drop; }
        default_action = via(9);
        implementation = hops;
    }
    table fate {
        key = { h.data.dst: exact; }
        actions = { note; NoAction; }
        implementation = fates;
    }
    table limit {
        key = { h.data.dst: ternary; }
        actions = { paint; NoAction; }
        default_action = NoAction;
        meters = rate;
        counters = hits;
    }

    apply {
        if (m.special == 1) {
            h.data.seen = 0x55;
        }
        if (fate.apply().hit) {
            h.data.tag = 0xf;
        }
        limit.apply();
        route.apply();
    }
}

control E(inout headers h, inout meta_t m, inout standard_metadata_t s) {
    apply {}
}

control C(inout headers h, inout meta_t m) {
    apply {}
}

control D(packet_out pkt, in headers h) {
    apply {
        pkt.emit(h.data);
    }
}

V1Switch(P(), V(), I(), E(), C(), D()) main;
