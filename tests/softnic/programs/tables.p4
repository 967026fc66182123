// One table of each match kind over one header; each writes its answer next to the others.
#include <core.p4>
#include <v1model.p4>

header key_h {
    bit<8> a;
    bit<32> b;
    bit<128> c;
    bit<16> d;
    bit<4> e;
    bit<12> f;
}

header answer_h {
    bit<32> exact_;
    bit<32> lpm_;
    bit<32> lpm6;
    bit<32> mixed;
    bit<160> wide;
}

struct headers {
    key_h key;
    answer_h answer;
}

struct meta_t {}

parser P(packet_in pkt, out headers h, inout meta_t m, inout standard_metadata_t s) {
    state start {
        pkt.extract(h.key);
        transition accept;
    }
}

control V(inout headers h, inout meta_t m) {
    apply {}
}

control I(inout headers h, inout meta_t m, inout standard_metadata_t s) {
    action exact_set(bit<32> v) { h.answer.exact_ = v; }
    action lpm_set(bit<32> v) { h.answer.lpm_ = v; }
    action lpm6_set(bit<32> v) { h.answer.lpm6 = v; }
    action mixed_set(bit<32> v) { h.answer.mixed = v; }
    action wide_set(bit<160> v) { h.answer.wide = v; }

    table t_exact {
        key = { h.key.c: exact; h.key.b: exact; h.key.e: exact; }
        actions = { exact_set; NoAction; }
        default_action = NoAction;
        size = 1048576;
    }
    table t_lpm {
        key = { h.key.a: exact; h.key.b: lpm; }
        actions = { lpm_set; NoAction; }
        default_action = NoAction;
    }
    table t_lpm6 {
        key = { h.key.c: lpm; }
        actions = { lpm6_set; NoAction; }
        default_action = NoAction;
    }
    table t_mixed {
        key = {
            h.key.a: ternary;
            h.key.d: range;
            h.key.b: lpm;
            h.key.f: range;
            h.key.e: optional;
        }
        actions = { mixed_set; NoAction; }
        default_action = NoAction;
    }
    table t_wide {
        key = { h.key.f: exact; }
        actions = { wide_set; NoAction; }
        const entries = {
            12w1: wide_set(160w0x0102030405060708090a0b0c0d0e0f1011121314);
        }
        const default_action = NoAction;
    }
    apply {
        h.answer.setValid();
        t_exact.apply();
        t_lpm.apply();
        t_lpm6.apply();
        t_mixed.apply();
        t_wide.apply();
        s.egress_spec = 1;
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
        pkt.emit(h.answer);
    }
}

V1Switch(P(), V(), I(), E(), C(), D()) main;
