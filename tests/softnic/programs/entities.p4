// Every kind of P4Runtime entity that softnic serves, once: for the tests of its server.
//
//   packet-out --> port of its header        port_acl (const) --> drop
//   other      --> exact_table (forward, or clone, digest, copy to CPU, multicast)
//                  then the LPM, ternary, range and optional tables mark the source MAC
#include <core.p4>
#include <v1model.p4>

const bit<9> CPU_PORT = 510;
const bit<32> CLONE_SESSION = 5;

@controller_header("packet_in")
header packet_in_t {
    bit<9>  ingress_port;
    bit<7>  _pad;
    bit<16> reason;
}

@controller_header("packet_out")
header packet_out_t {
    bit<9> egress_port;
    bit<7> _pad;
}

header ethernet_t {
    bit<48> dst;
    bit<48> src;
    bit<16> type;
}

struct headers_t {
    packet_in_t  packet_in;
    packet_out_t packet_out;
    ethernet_t   ethernet;
}

struct metadata_t {
    @field_list(1)
    bit<9> from_port;
}

struct learn_t {
    bit<48> mac;
    bit<9>  port;
}

parser ParserImpl(packet_in packet, out headers_t hdr, inout metadata_t meta,
                  inout standard_metadata_t std) {
    state start {
        transition select(std.ingress_port) {
            CPU_PORT: parse_packet_out;
            default: parse_ethernet;
        }
    }
    state parse_packet_out {
        packet.extract(hdr.packet_out);
        transition parse_ethernet;
    }
    state parse_ethernet {
        packet.extract(hdr.ethernet);
        transition accept;
    }
}

control VerifyImpl(inout headers_t hdr, inout metadata_t meta) { apply { } }

control IngressImpl(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t std) {
    direct_counter(CounterType.packets_and_bytes) hits;
    counter(16, CounterType.packets_and_bytes) ports;
    register<bit<33>>(8) seen;

    action drop() {
        mark_to_drop(std);
    }
    action forward(bit<9> port) {
        std.egress_spec = port;
    }
    action flood(bit<16> group) {
        std.mcast_grp = group;
    }
    action punt(bit<16> reason) {
        hdr.packet_in.setValid();
        hdr.packet_in.ingress_port = std.ingress_port;
        hdr.packet_in.reason = reason;
        std.egress_spec = CPU_PORT;
    }
    action sample(bit<9> port) {
        std.egress_spec = port;
        meta.from_port = std.ingress_port;
        clone_preserving_field_list(CloneType.I2E, CLONE_SESSION, 1);
    }
    action learn(bit<9> port) {
        std.egress_spec = port;
        digest<learn_t>(1, { hdr.ethernet.src, std.ingress_port });
    }
    action mark(bit<48> mac) {
        hdr.ethernet.src = mac;
    }

    table port_acl {
        key = { std.ingress_port: exact; }
        actions = { drop; NoAction; }
        const entries = { 9w13: drop(); }
        const default_action = NoAction();
    }
    table exact_table {
        key = { hdr.ethernet.dst: exact; }
        actions = { forward; flood; punt; sample; learn; @tableonly mark; @defaultonly drop; }
        default_action = drop();
        counters = hits;
        support_timeout = true;
        size = 1024;
    }
    table lpm_table {
        key = { hdr.ethernet.type: lpm; }
        actions = { mark; NoAction; }
        default_action = NoAction();
        size = 64;
    }
    table ternary_table {
        key = {
            hdr.ethernet.dst: ternary @name("dst");
            std.ingress_port: ternary @name("port");
        }
        actions = { mark; NoAction; }
        default_action = NoAction();
        size = 8;
    }
    table range_table {
        key = { hdr.ethernet.type: range; std.ingress_port: exact; }
        actions = { mark; NoAction; }
        default_action = NoAction();
        size = 64;
    }
    table optional_table {
        key = { hdr.ethernet.type: optional; std.ingress_port: optional; }
        actions = { mark; NoAction; }
        default_action = NoAction();
        size = 64;
    }

    apply {
        if (hdr.packet_out.isValid()) {
            std.egress_spec = hdr.packet_out.egress_port;
            hdr.packet_out.setInvalid();
            return;
        }
        ports.count((bit<32>) std.ingress_port);
        bit<33> n;
        seen.read(n, 0);
        seen.write(0, n + 1);
        if (!port_acl.apply().hit) {
            exact_table.apply();
            lpm_table.apply();
            ternary_table.apply();
            range_table.apply();
            optional_table.apply();
        }
    }
}

control EgressImpl(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t std) {
    apply {
        if (std.egress_port == CPU_PORT && std.instance_type == 1) {
            hdr.packet_in.setValid();
            hdr.packet_in.ingress_port = meta.from_port;
            hdr.packet_in.reason = 0xc10e;
        }
    }
}

control ComputeImpl(inout headers_t hdr, inout metadata_t meta) { apply { } }

control DeparserImpl(packet_out packet, in headers_t hdr) {
    apply {
        packet.emit(hdr.packet_in);
        packet.emit(hdr.ethernet);
    }
}

V1Switch(ParserImpl(), VerifyImpl(), IngressImpl(), EgressImpl(), ComputeImpl(), DeparserImpl()) main;
