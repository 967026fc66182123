// Headers in every shape: unions, stacks, stacks of unions, varbit; parser errors; emission order.
#include <core.p4>
#include <v1model.p4>

error { BadShape }

header op_h {
    bit<8> op;
    bit<8> count;
}

header one_h {
    bit<8> kind;
    bit<8> v;
}

header two_h {
    bit<8> kind;
    bit<16> v;
}

header var_h {
    bit<8> kind;
    bit<8> len;
    varbit<64> body;
}

header_union opt_u {
    one_h one;
    two_h two;
    var_h any;
}

header note_h {
    bit<8> error_;
    bit<8> valid;
    bit<8> last;
}

struct headers {
    note_h note;
    op_h op;
    opt_u first;
    opt_u[3] opts;
    one_h[3] ones;
    one_h[3] others;
    var_h tail;
}

struct meta_t {}

parser P(packet_in pkt, out headers h, inout meta_t m, inout standard_metadata_t s) {
    state start {
        pkt.extract(h.op);
        transition select(h.op.op, pkt.lookahead<bit<8>>()) {
            (0, 1): first_one;
            (0, 2): first_two;
            (0, _): first_any;
            (1, _): options;
            (2 .. 9, _): ones;
            (10, 0x40 &&& 0xc0): reject;
            default: accept;
        }
    }
    state first_one { pkt.extract(h.first.one); transition accept; }
    state first_two { pkt.extract(h.first.two); transition accept; }
    state first_any {
        bit<16> head = pkt.lookahead<bit<16>>();
        pkt.extract(h.first.any, (bit<32>) head[7:0] * 8);
        transition accept;
    }
    state options {
        transition select(pkt.lookahead<bit<8>>()) {
            0: accept;
            1: option_one;
            2: option_two;
            default: bad;
        }
    }
    state option_one { pkt.extract(h.opts.next.one); transition options; }
    state option_two { pkt.extract(h.opts.next.two); transition options; }
    state bad { verify(false, error.BadShape); transition accept; }
    state ones {
        pkt.extract(h.ones.next);
        transition select(h.ones.last.kind) {
            0: accept;
            default: ones;
        }
    }
}

control V(inout headers h, inout meta_t m) {
    apply {}
}

control I(inout headers h, inout meta_t m, inout standard_metadata_t s) {
    apply {
        s.egress_spec = 1;
        h.note.setValid();
        if (s.parser_error == error.NoError) { h.note.error_ = 0; }
        else if (s.parser_error == error.PacketTooShort) { h.note.error_ = 1; }
        else if (s.parser_error == error.StackOutOfBounds) { h.note.error_ = 2; }
        else if (s.parser_error == error.HeaderTooShort) { h.note.error_ = 3; }
        else if (s.parser_error == error.BadShape) { h.note.error_ = 4; }
        else { h.note.error_ = 0xff; }
        h.note.valid = (bit<8>) (h.first.one.isValid() ? 1w1 : 1w0)
            | (h.first.two.isValid() ? 8w2 : 0) | (h.first.any.isValid() ? 8w4 : 0)
            | (h.opts[0].one.isValid() ? 8w8 : 0) | (h.opts[0].two.isValid() ? 8w16 : 0)
            | (h.opts[1].one.isValid() ? 8w32 : 0) | (h.opts[1].two.isValid() ? 8w64 : 0)
            | (h.ones[1].isValid() ? 8w128 : 0);
        if (h.op.op == 0 && h.op.count == 7) {
            h.first.two.setValid();
            h.first.two.kind = 2;
            h.first.two.v = 0x7777;
        } else if (h.op.op == 0 && h.op.count == 8) {
            h.tail = h.first.any;
        } else if (h.op.op == 2) {
            h.ones.push_front(1);
            h.ones[0].setValid();
            h.ones[0].kind = 0x99;
        } else if (h.op.op == 3) {
            h.ones.pop_front(2);
        } else if (h.op.op == 4) {
            h.others = h.ones;
            h.others[0].v = 0xaa;
            h.ones[1].setInvalid();
        } else if (h.op.op == 5) {
            h.ones[h.op.count[1:0]].v = 0xbb;
        } else if (h.op.op == 6) {
            h.ones[2] = h.ones[0];
            h.ones[0] = h.ones[1];
        }
        if (h.ones[0].isValid()) { h.note.last = h.ones[0].v; }
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
        pkt.emit(h.note);
        pkt.emit(h.op);
        pkt.emit(h.first);
        pkt.emit(h.opts);
        pkt.emit(h.ones);
        pkt.emit(h.others);
        pkt.emit(h.tail);
    }
}

V1Switch(P(), V(), I(), E(), C(), D()) main;
