// How control flows: controls within controls, switches, loops, exits, returns; const entries by
// priority with ternary, range and prefix; arithmetic of odd widths.
#include <core.p4>
#include <v1model.p4>

header kind_h {
    bit<8> kind;
    bit<8> n;
}

header odd_h {
    bit<4> x;
    int<12> y;
    bit<33> z;
    bit<7> w;
    bit<1> f;
    bit<7> g;
}

header body_h {
    varbit<128> v;
}

enum bit<8> Kind {
    odd = 1
}

struct headers {
    kind_h head;
    odd_h odd;
    body_h body;
    body_h copy;
    kind_h[4] list;
}

struct meta_t {
    bit<8> count;
    bool shift;
}

parser P(packet_in pkt, out headers h, inout meta_t m, inout standard_metadata_t s) {
    state start {
        pkt.extract(h.head);
        transition select(h.head.kind, s.ingress_port) {
            (Kind.odd, 1): odd;
            (0x10 &&& 0xf0, _): body;
            (0x20 .. 0x2f, 9w1 &&& 9w1): list;
            default: accept;
        }
    }
    state odd {
        pkt.extract(h.odd);
        verify(h.odd.y >= 0, error.ParserInvalidArgument);
        transition select(h.odd.y) {
            12s5: accept;
            12s3 &&& 3: body;
            default: accept;
        }
    }
    state body {
        pkt.extract(h.body, (bit<32>) h.head.n);
        transition accept;
    }
    state list {
        pkt.extract(h.list.next);
        m.count = m.count + h.list.last.n;
        transition select(h.list.last.kind) {
            0: accept;
            default: list;
        }
    }
}

control V(inout headers h, inout meta_t m) {
    apply {}
}

control Add(inout headers h, in bit<8> kind)(bit<8> by) {
    apply {
        if (kind == 7) {
            return;
        }
        h.head.n = h.head.n + by;
    }
}

control I(inout headers h, inout meta_t m, inout standard_metadata_t s) {
    Add(3) three;
    Add(5) five;

    action drop() { mark_to_drop(s); }
    action one(bit<8> v) {
        h.odd.w = (bit<7>) v;
        h.odd.y = h.odd.y |+| 12s2000;
        h.odd.x = h.odd.x |-| 5;
    }
    action two() {
        h.odd.z = h.odd.z * 3 + (bit<33>) h.odd.w;
        h.odd.y = -h.odd.y >> 1;
        h.odd.f = ~h.odd.f;
        h.odd.g = h.odd.g[0:0] ++ h.odd.g[6:1];
    }
    action three_() {
        h.odd.y = (int<12>) (bit<12>) h.odd.z[20:9];
        h.odd.x = (bit<4>) (h.odd.y < 0 ? 4w1 : 4w2);
        h.odd.w = (bit<7>) (h.head.n >> 3);
    }

    table by_mask {
        key = { h.odd.x: exact; h.odd.f: ternary; }
        actions = { one; two; three_; drop; }
        default_action = three_;
        const entries = {
            (1, 0): one(3);
            (1, _): two();
            (2, 1): one(0xff);
            (2, _): two();
            (3, _): drop();
        }
    }
    table by_range {
        key = { h.odd.z: range; h.odd.y: ternary; }
        actions = { one; two; three_; }
        default_action = two;
        entries = {
            (0 .. 100, _): one(1);
            (50 .. 0xffffff, 12s0 &&& 1): three_();
            (_, 12s7): one(9);
        }
    }
    table by_prefix {
        key = { h.odd.z[31:0]: lpm; }
        actions = { one; two; three_; NoAction; }
        default_action = NoAction;
        const entries = {
            32w0x80000000 &&& 32w0xc0000000: one(7);
            32w0xc0000000 &&& 32w0xff000000: two();
        }
    }

    apply {
        three.apply(h, h.head.kind);
        five.apply(h, h.head.n);
        if (h.odd.isValid()) {
            if (by_mask.apply().hit) {
                h.head.kind = 0xee;
            }
            if (by_range.apply().miss) {
                h.head.kind = h.head.kind ^ 0xff;
            }
            switch (by_prefix.apply().action_run) {
                one: { h.head.n = 1; }
                two:
                NoAction: { h.head.n = 2; }
                default: { h.head.n = 3; exit; }
            }
        }
        switch (h.head.n) {
            1:
            2: { m.count = 9; }
            3: { m.count = 10; }
            default: { m.shift = true; }
        }
        for (bit<8> i = 1; i <= (h.head.n & 3); i = i + 1) {
            m.count = m.count + i;
        }
        if (h.body.isValid()) {
            h.copy = h.body;
            if (h.head.n > 100) {
                h.body.setInvalid();
            }
        }
        h.list[h.head.kind & 3].n = m.count;
        if (m.shift && h.list[0].isValid()) {
            h.list.push_front(1);
            h.list[0] = { 0x77, m.count };
        }
        h.odd.setValid();
        s.egress_spec = (bit<9>) (m.count & 7);
    }
}

control E(inout headers h, inout meta_t m, inout standard_metadata_t s) {
    apply {
        if (h.head.kind == 0xee) {
            h.head.n = (bit<8>) s.packet_length;
        }
        if (s.egress_port == 3) {
            mark_to_drop(s);
        }
        truncate(32w20);
    }
}

control C(inout headers h, inout meta_t m) {
    apply {}
}

control D(packet_out pkt, in headers h) {
    apply {
        pkt.emit(h.head);
        pkt.emit(h.odd);
        pkt.emit(h.body);
        pkt.emit(h.copy);
        pkt.emit(h.list);
    }
}

V1Switch(P(), V(), I(), E(), C(), D()) main;
