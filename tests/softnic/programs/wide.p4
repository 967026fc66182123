// Numbers of more than 128 bits: every operator, a register, a key and a parameter.
#include <core.p4>
#include <v1model.p4>

header numbers_h {
    bit<8> op;
    bit<8> n;
    bit<256> a;
    bit<256> b;
    int<200> s;
    int<200> t;
    bit<1000> big;
    bit<8> flags;
}

struct headers {
    numbers_h x;
}

struct meta_t {
    bit<256> ahead;
}

parser P(packet_in pkt, out headers h, inout meta_t m, inout standard_metadata_t std) {
    state start {
        m.ahead = pkt.lookahead<bit<256>>();
        pkt.extract(h.x);
        transition accept;
    }
}

control V(inout headers h, inout meta_t m) {
    apply {}
}

control I(inout headers h, inout meta_t m, inout standard_metadata_t std) {
    register<bit<300>>(3) store;

    action set_b(bit<256> v) { h.x.b = v; }
    table find {
        key = { h.x.a: exact; }
        actions = { set_b; NoAction; }
        default_action = NoAction;
    }

    action add() { h.x.a = h.x.a + h.x.b; h.x.s = h.x.s + h.x.t; }
    action sub() { h.x.a = h.x.a - h.x.b; h.x.s = h.x.s - h.x.t; }
    action mul() { h.x.a = h.x.a * h.x.b; h.x.s = h.x.s * h.x.t; }
    action sat_add() { h.x.a = h.x.a |+| h.x.b; h.x.s = h.x.s |+| h.x.t; }
    action sat_sub() { h.x.a = h.x.a |-| h.x.b; h.x.s = h.x.s |-| h.x.t; }
    action left() { h.x.a = h.x.a << h.x.n; h.x.s = h.x.s << h.x.n; }
    action right() { h.x.a = h.x.a >> h.x.n; h.x.s = h.x.s >> h.x.n; }
    action bits() { h.x.a = (h.x.a & h.x.b) ^ ~(h.x.a | h.x.b); h.x.s = -h.x.s; }
    action compare() {
        h.x.flags = 2w0 ++ (bit<1>) (h.x.a < h.x.b) ++ (bit<1>) (h.x.a == h.x.b)
            ++ (bit<1>) (h.x.a >= h.x.b) ++ (bit<1>) (h.x.s < h.x.t)
            ++ (bit<1>) (h.x.s != h.x.t) ++ (bit<1>) (h.x.s > h.x.t);
    }
    action slices() {
        h.x.a[255:128] = h.x.b[199:72];
        h.x.b = h.x.big[999:800] ++ h.x.a[99:44];
        h.x.big = h.x.big + (44w0 ++ h.x.a ++ 700w0);
    }
    action keep() {
        bit<300> old;
        store.read(old, (bit<32>) h.x.n);
        store.write((bit<32>) h.x.n, h.x.b[43:0] ++ h.x.a);
        h.x.b = old[299:44];
    }
    action look() { h.x.b = m.ahead; }

    apply {
        std.egress_spec = 1;
        if (h.x.op == 0) { add(); }
        else if (h.x.op == 1) { sub(); }
        else if (h.x.op == 2) { mul(); }
        else if (h.x.op == 3) { sat_add(); }
        else if (h.x.op == 4) { sat_sub(); }
        else if (h.x.op == 5) { left(); }
        else if (h.x.op == 6) { right(); }
        else if (h.x.op == 7) { bits(); }
        else if (h.x.op == 8) { compare(); }
        else if (h.x.op == 9) { slices(); }
        else if (h.x.op == 10) { keep(); }
        else if (h.x.op == 11) { look(); }
        else { find.apply(); }
    }
}

control E(inout headers h, inout meta_t m, inout standard_metadata_t std) {
    apply {}
}

control C(inout headers h, inout meta_t m) {
    apply {}
}

control D(packet_out pkt, in headers h) {
    apply {
        pkt.emit(h.x);
    }
}

V1Switch(P(), V(), I(), E(), C(), D()) main;
