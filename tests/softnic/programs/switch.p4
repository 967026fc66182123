// An Ethernet switch: exact table with counters and idle time-outs, flooding by multicast,
// learning by digest, an access list (ternary, range, optional), packet-in and packet-out.
#include <core.p4>
#include <v1model.p4>

const bit<9> CPU = 510;

@controller_header("packet_in")
header packet_in_h {
    bit<9> port;
    bit<7> pad;
}

@controller_header("packet_out")
header packet_out_h {
    bit<9> port;
    bit<7> pad;
}

header ethernet_h {
    bit<48> dst;
    bit<48> src;
    bit<16> type;
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
}

header ports_h {
    bit<16> src;
    bit<16> dst;
}

struct headers {
    packet_in_h packet_in;
    packet_out_h packet_out;
    ethernet_h eth;
    ipv4_h ip;
    ports_h l4;
}

struct learn_t {
    bit<48> mac;
    bit<9> port;
}

struct meta_t {}

parser P(packet_in pkt, out headers h, inout meta_t m, inout standard_metadata_t s) {
    state start {
        transition select(s.ingress_port) {
            CPU: packet_out;
            default: ethernet;
        }
    }
    state packet_out {
        pkt.extract(h.packet_out);
        transition ethernet;
    }
    state ethernet {
        pkt.extract(h.eth);
        transition select(h.eth.type) {
            0x0800: ipv4;
            default: accept;
        }
    }
    state ipv4 {
        pkt.extract(h.ip);
        transition select(h.ip.ihl, h.ip.offset, h.ip.proto) {
            (5, 0, 6): l4;
            (5, 0, 17): l4;
            default: accept;
        }
    }
    state l4 {
        pkt.extract(h.l4);
        transition accept;
    }
}

control V(inout headers h, inout meta_t m) {
    apply {}
}

control I(inout headers h, inout meta_t m, inout standard_metadata_t s) {
    direct_counter(CounterType.packets_and_bytes) hits;
    counter(4, CounterType.packets_and_bytes) kinds;
    register<bit<32>>(8) seen;

    action forward(bit<9> port) {
        s.egress_spec = port;
        hits.count();
    }
    action flood() {
        s.mcast_grp = 1;
    }
    action drop() {
        mark_to_drop(s);
    }
    action punt() {
        s.egress_spec = CPU;
    }
    table l2 {
        key = { h.eth.dst: exact; }
        actions = { forward; flood; drop; }
        default_action = flood;
        counters = hits;
        support_timeout = true;
        size = 200000;
    }
    table acl {
        key = {
            h.ip.src: ternary;
            h.l4.dst: range;
            h.ip.proto: optional;
        }
        actions = { drop; punt; NoAction; }
        default_action = NoAction;
        size = 64;
    }
    table kind {
        key = { h.eth.type: exact; }
        actions = { NoAction; drop; }
        const entries = {
            0x88cc: drop();
        }
        default_action = NoAction;
    }
    apply {
        if (h.packet_out.isValid()) {
            s.egress_spec = h.packet_out.port;
            h.packet_out.setInvalid();
        } else {
            digest<learn_t>(1, { h.eth.src, s.ingress_port });
            bit<32> n;
            seen.read(n, (bit<32>) s.ingress_port & 7);
            seen.write((bit<32>) s.ingress_port & 7, n + 1);
            kinds.count(h.ip.isValid() ? 32w1 : 32w0);
            l2.apply();
            kind.apply();
            if (h.ip.isValid()) {
                acl.apply();
            }
        }
    }
}

control E(inout headers h, inout meta_t m, inout standard_metadata_t s) {
    apply {
        if (s.egress_port == CPU) {
            h.packet_in.setValid();
            h.packet_in.port = s.ingress_port;
        } else if (s.instance_type == 5 && s.egress_port == s.ingress_port) {
            mark_to_drop(s);
        }
    }
}

control C(inout headers h, inout meta_t m) {
    apply {}
}

control D(packet_out pkt, in headers h) {
    apply {
        pkt.emit(h.packet_in);
        pkt.emit(h.eth);
        pkt.emit(h.ip);
        pkt.emit(h.l4);
    }
}

V1Switch(P(), V(), I(), E(), C(), D()) main;
