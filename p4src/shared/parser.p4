// Parser and deparser. What is not understood in full is left as payload, so that it passes as it came:
//
//   start --cpu port--> packet_out --> ethernet --> arp
//                                        |--> leg, of a query
//                                        |--> ipv4 (+options) --> tcp --first SYN--> options --> magic?
//                                        |                    |     |-> timestamps, SACK blocks
//                                        |                    |     \-> control message, in band?
//                                        |                    |-> udp --> announcement | control message?
//                                        |                    \-> icmp error --> quoted ipv4 --> quoted tcp
//                                        \--> ipv6 --> as ipv4
//
// Fragments, IPv6 with extension headers and tagged frames count as "not understood".
//
// TCP options may come in any order. In front of the timestamps or the SACK option, whichever is first,
// there may be six more, four between the two and four behind them: what is further back, and what comes
// after an option of impossible length, is passed on as it is.
#ifndef DYSCO_PARSER_P4
#define DYSCO_PARSER_P4

#include "header.p4"

parser DyscoParser(packet_in packet, out headers_t hdr, inout metadata_t meta,
                   inout standard_metadata_t standard) {
    bit<16> l4_length = 0;
    bit<16> left = 0;       // bytes of TCP options not parsed yet
    bit<8>  blocks = 0;     // SACK blocks likewise
    bit<1>  stamped = 0;    // timestamps are parsed already

    state start {
        transition select(standard.ingress_port) {
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
        transition select(hdr.ethernet.type) {
            ETHERTYPE_IPV4: check_ipv4;
            ETHERTYPE_IPV6: check_ipv6;
            ETHERTYPE_ARP: parse_arp;
            ETHERTYPE_LEG: check_leg;
            default: accept;
        }
    }
    state check_leg {
        transition select(standard.ingress_port) {
            CPU_PORT: parse_leg;
            default: accept;
        }
    }
    state parse_leg {
        packet.extract(hdr.leg);
        transition accept;
    }
    state parse_arp {
        packet.extract(hdr.arp);
        transition accept;
    }

    // IPv4: version and ihl as one byte, 0x45 to 0x4f.
    state check_ipv4 {
        transition select(packet.lookahead<bit<8>>()) {
            0x45 .. 0x4f: parse_ipv4;
            default: accept;
        }
    }
    state parse_ipv4 {
        packet.extract(hdr.ipv4);
        l4_length = hdr.ipv4.length - ((bit<16>)hdr.ipv4.ihl << 2);
        transition select(hdr.ipv4.ihl) {
            5: parse_ipv4_payload;
            default: parse_ipv4_options;
        }
    }
    state parse_ipv4_options {
        packet.extract(hdr.ipv4_options, ((bit<32>)hdr.ipv4.ihl - 5) << 5);
        transition parse_ipv4_payload;
    }
    state parse_ipv4_payload {
        // More-fragments and the offset must be zero for the ports to be there and to be alone.
        transition select(hdr.ipv4.flags[0:0], hdr.ipv4.fragment, hdr.ipv4.protocol) {
            (0, 0, PROTO_TCP): check_tcp;
            (0, 0, PROTO_UDP): check_udp;
            (0, 0, PROTO_ICMP): check_icmp;
            default: accept;
        }
    }
    state check_ipv6 {
        transition select(packet.lookahead<bit<4>>()) {
            6: parse_ipv6;
            default: accept;
        }
    }
    state parse_ipv6 {
        packet.extract(hdr.ipv6);
        l4_length = hdr.ipv6.length;
        transition select(hdr.ipv6.next) {
            PROTO_TCP: check_tcp;
            PROTO_UDP: check_udp;
            PROTO_ICMPV6: check_icmpv6;
            default: accept;
        }
    }

    // The data offset is the high nibble of byte 12: below 5 this is no TCP header.
    state check_tcp {
        bit<104> start_of_tcp = packet.lookahead<bit<104>>();
        transition select(start_of_tcp[7:4]) {
            0 .. 4: accept;
            default: parse_tcp;
        }
    }
    state parse_tcp {
        packet.extract(hdr.tcp);
        meta.l4_length = l4_length;
        meta.payload = l4_length - ((bit<16>)hdr.tcp.offset << 2);
        left = ((bit<16>)hdr.tcp.offset - 5) << 2;
        transition select(hdr.tcp.syn, hdr.tcp.ack_flag, hdr.tcp.offset) {
            (1, 0, 5): check_dysco;
            (1, 0, _): parse_tcp_options;
            (_, _, 5): accept;
            (_, _, 6): before_next;
            (_, _, 7): check_in_band;
            default: check_aligned;
        }
    }
    // What has this option is never for a host.
    state check_in_band {
        transition select(packet.lookahead<bit<64>>()) {
            IN_BAND_OPTION: is_control;
            default: before_next;
        }
    }
    state parse_tcp_options {
        packet.extract(hdr.tcp_options, ((bit<32>)hdr.tcp.offset - 5) << 5);
        transition check_dysco;
    }

    // What most segments have: two NOPs and the timestamps.
    state check_aligned {
        transition select(packet.lookahead<bit<32>>()) {
            0x0101080a: parse_before_nops;
            default: before_next;
        }
    }
    state parse_before_nops {
        packet.extract(hdr.before_nops);
        packet.extract(hdr.timestamps);
        stamped = 1;
        left = left - 12;
        transition select(left) {
            0: accept;
            12 .. 40: check_aligned_sack;
            default: between_next;
        }
    }
    state check_aligned_sack {
        transition select(packet.lookahead<bit<24>>()) {
            0x010105: parse_between_nops;
            default: between_next;
        }
    }
    state parse_between_nops {
        packet.extract(hdr.between_nops);
        left = left - 2;
        transition between_next;
    }

    // Before the first of the two.
    state before_next {
        transition select(left) {
            0 .. 1: accept;
            default: before_kind;
        }
    }
    state before_kind {
        transition select(packet.lookahead<bit<16>>()) {
            0x0000 &&& 0xff00: accept;
            0x0100 &&& 0xff00: before_nop;
            0x080a: check_timestamps;
            0x050a: check_sack;
            0x0512: check_sack;
            0x051a: check_sack;
            0x0522: check_sack;
            default: before_other;
        }
    }
    state before_nop {
        packet.extract(hdr.before.next, 8);
        left = left - 1;
        transition before_next;
    }
    state before_other {
        bit<16> start_of_option = packet.lookahead<bit<16>>();
        left = left - (bit<16>)start_of_option[7:0];
        transition select(start_of_option[7:0], left) {
            (0 .. 1, _): accept;
            (_, 0x8000 &&& 0x8000): accept;
            default: parse_before;
        }
    }
    state parse_before {
        bit<16> start_of_option = packet.lookahead<bit<16>>();
        packet.extract(hdr.before.next, (bit<32>)start_of_option[7:0] << 3);
        transition before_next;
    }
    state check_timestamps {
        transition select(left) {
            0 .. 9: accept;
            default: parse_timestamps;
        }
    }
    state parse_timestamps {
        packet.extract(hdr.timestamps);
        stamped = 1;
        meta.ts_odd = left[0:0];
        left = left - 10;
        transition between_next;
    }

    // Between the timestamps and the SACK option.
    state between_next {
        transition select(left) {
            0 .. 1: accept;
            default: between_kind;
        }
    }
    state between_kind {
        transition select(packet.lookahead<bit<16>>()) {
            0x0000 &&& 0xff00: accept;
            0x0100 &&& 0xff00: between_nop;
            0x050a: check_sack;
            0x0512: check_sack;
            0x051a: check_sack;
            0x0522: check_sack;
            default: between_other;
        }
    }
    state between_nop {
        packet.extract(hdr.between.next, 8);
        left = left - 1;
        transition between_next;
    }
    state between_other {
        bit<16> start_of_option = packet.lookahead<bit<16>>();
        left = left - (bit<16>)start_of_option[7:0];
        transition select(start_of_option[7:0], left) {
            (0 .. 1, _): accept;
            (_, 0x8000 &&& 0x8000): accept;
            default: parse_between;
        }
    }
    state parse_between {
        bit<16> start_of_option = packet.lookahead<bit<16>>();
        packet.extract(hdr.between.next, (bit<32>)start_of_option[7:0] << 3);
        transition between_next;
    }

    // One to four blocks.
    state check_sack {
        bit<16> start_of_option = packet.lookahead<bit<16>>();
        blocks = start_of_option[7:0] >> 3;
        meta.sack_odd = left[0:0];
        left = left - (bit<16>)start_of_option[7:0];
        transition select(left) {
            0x8000 &&& 0x8000: accept;
            default: parse_sack;
        }
    }
    state parse_sack {
        packet.extract(hdr.sack);
        transition parse_block;
    }
    state parse_block {
        packet.extract(hdr.blocks.next);
        blocks = blocks - 1;
        transition select(blocks, stamped) {
            (0, 1): accept;
            (0, 0): behind_next;
            default: parse_block;
        }
    }

    // Timestamps behind the SACK option.
    state behind_next {
        transition select(left) {
            0 .. 1: accept;
            default: behind_kind;
        }
    }
    state behind_kind {
        transition select(packet.lookahead<bit<16>>()) {
            0x0000 &&& 0xff00: accept;
            0x0100 &&& 0xff00: behind_nop;
            0x080a: check_late_timestamps;
            default: behind_other;
        }
    }
    state behind_nop {
        packet.extract(hdr.behind.next, 8);
        left = left - 1;
        transition behind_next;
    }
    state behind_other {
        bit<16> start_of_option = packet.lookahead<bit<16>>();
        left = left - (bit<16>)start_of_option[7:0];
        transition select(start_of_option[7:0], left) {
            (0 .. 1, _): accept;
            (_, 0x8000 &&& 0x8000): accept;
            default: parse_behind;
        }
    }
    state parse_behind {
        bit<16> start_of_option = packet.lookahead<bit<16>>();
        packet.extract(hdr.behind.next, (bit<32>)start_of_option[7:0] << 3);
        transition behind_next;
    }
    state check_late_timestamps {
        transition select(left) {
            0 .. 9: accept;
            default: parse_late_timestamps;
        }
    }
    state parse_late_timestamps {
        packet.extract(hdr.late_timestamps);
        meta.ts_odd = left[0:0];
        transition accept;
    }

    state check_dysco {
        // Ethernet pads short frames: the length that counts is the IP header's.
        transition select(meta.payload) {
            0 .. DYSCO_MAGIC_SIZE - 1: accept;
            0x8000 .. 0xffff: accept;
            default: match_magic;
        }
    }
    state match_magic {
        transition select(packet.lookahead<bit<32>>()) {
            DYSCO_MAGIC: is_dysco;
            default: accept;
        }
    }
    state is_dysco {
        meta.dysco = 1;
        transition accept;
    }

    state check_udp {
        bit<32> ports = packet.lookahead<bit<32>>();
        transition select(ports[15:0]) {
            ANNOUNCEMENT_PORT: check_announcement;
            default: accept;
        }
    }
    state check_announcement {
        bit<96> start_of_udp = packet.lookahead<bit<96>>();
        transition select(start_of_udp[31:0]) {
            ANNOUNCEMENT_MAGIC: parse_announcement;
            CONTROL_MAGIC: is_control;
            default: accept;
        }
    }
    state parse_announcement {
        packet.extract(hdr.udp);
        packet.extract(hdr.announcement);
        transition accept;
    }
    state is_control {
        meta.for_agent = 1;
        transition accept;
    }

    // ICMP errors: unreachable, source quench, time exceeded, parameter problem.
    state check_icmp {
        transition select(packet.lookahead<bit<8>>()) {
            3: parse_icmp;
            4: parse_icmp;
            11: parse_icmp;
            12: parse_icmp;
            default: accept;
        }
    }
    state parse_icmp {
        packet.extract(hdr.icmp);
        transition select(packet.lookahead<bit<8>>()) {
            0x45 .. 0x4f: parse_quoted_ipv4;
            default: accept;
        }
    }
    state parse_quoted_ipv4 {
        packet.extract(hdr.quoted_ipv4);
        transition select(hdr.quoted_ipv4.ihl, hdr.quoted_ipv4.fragment, hdr.quoted_ipv4.protocol) {
            (5, 0, PROTO_TCP): parse_quoted_tcp;
            (_, 0, PROTO_TCP): parse_quoted_ipv4_options;
            default: accept;
        }
    }
    state parse_quoted_ipv4_options {
        packet.extract(hdr.quoted_ipv4_options, ((bit<32>)hdr.quoted_ipv4.ihl - 5) << 5);
        transition parse_quoted_tcp;
    }
    // ICMPv6 errors are types 1 to 127: unreachable, too big, time exceeded, parameter problem.
    state check_icmpv6 {
        transition select(packet.lookahead<bit<8>>()) {
            1 .. 4: parse_icmpv6;
            ICMPV6_NEIGHBOUR_ADVERTISEMENT: parse_neighbour_advertisement;
            default: accept;
        }
    }
    state parse_neighbour_advertisement {
        packet.extract(hdr.icmp);
        transition accept;
    }
    state parse_icmpv6 {
        packet.extract(hdr.icmp);
        transition select(packet.lookahead<bit<4>>()) {
            6: parse_quoted_ipv6;
            default: accept;
        }
    }
    state parse_quoted_ipv6 {
        packet.extract(hdr.quoted_ipv6);
        transition select(hdr.quoted_ipv6.next) {
            PROTO_TCP: parse_quoted_tcp;
            default: accept;
        }
    }
    state parse_quoted_tcp {
        packet.extract(hdr.quoted_tcp);
        transition accept;
    }
}

control DyscoDeparser(packet_out packet, in headers_t hdr) {
    apply {
        packet.emit(hdr.packet_in);
        packet.emit(hdr.ethernet);
        packet.emit(hdr.leg);
        packet.emit(hdr.arp);
        packet.emit(hdr.ipv4);
        packet.emit(hdr.ipv4_options);
        packet.emit(hdr.ipv6);
        packet.emit(hdr.udp);
        packet.emit(hdr.announcement);
        packet.emit(hdr.tcp);
        packet.emit(hdr.tcp_options);
        packet.emit(hdr.before);
        packet.emit(hdr.before_nops);
        packet.emit(hdr.timestamps);
        packet.emit(hdr.between);
        packet.emit(hdr.between_nops);
        packet.emit(hdr.sack);
        packet.emit(hdr.blocks);
        packet.emit(hdr.behind);
        packet.emit(hdr.late_timestamps);
        packet.emit(hdr.icmp);
        packet.emit(hdr.quoted_ipv4);
        packet.emit(hdr.quoted_ipv4_options);
        packet.emit(hdr.quoted_ipv6);
        packet.emit(hdr.quoted_tcp);
    }
}

#endif
