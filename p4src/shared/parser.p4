// Parser and deparser. What is not understood in full is left as payload, so that it passes as it came:
//
//   start --cpu port--> packet_out --> ethernet --> arp
//                                        |--> ipv4 (+options) --> tcp --SYN--> options --> magic?
//                                        |                    \-> icmp error --> quoted ipv4 --> quoted tcp
//                                        \--> ipv6 --> tcp | icmpv6 error --> quoted ipv6 --> quoted tcp
//
// Fragments, IPv6 with extension headers and tagged frames count as "not understood".
#ifndef DYSCO_PARSER_P4
#define DYSCO_PARSER_P4

#include "header.p4"

parser DyscoParser(packet_in packet, out headers_t hdr, inout metadata_t meta,
                   inout standard_metadata_t standard) {
    bit<16> l4_length = 0;

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
            default: accept;
        }
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
        meta.payload = l4_length - ((bit<16>)hdr.tcp.offset << 2);
        transition select(hdr.tcp.syn, hdr.tcp.ack_flag, hdr.tcp.offset) {
            (1, 0, 5): check_dysco;
            (1, 0, _): parse_tcp_options;
            default: accept;
        }
    }
    state parse_tcp_options {
        packet.extract(hdr.tcp_options, ((bit<32>)hdr.tcp.offset - 5) << 5);
        transition check_dysco;
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
        packet.emit(hdr.arp);
        packet.emit(hdr.ipv4);
        packet.emit(hdr.ipv4_options);
        packet.emit(hdr.ipv6);
        packet.emit(hdr.tcp);
        packet.emit(hdr.tcp_options);
        packet.emit(hdr.icmp);
        packet.emit(hdr.quoted_ipv4);
        packet.emit(hdr.quoted_ipv4_options);
        packet.emit(hdr.quoted_ipv6);
        packet.emit(hdr.quoted_tcp);
    }
}

#endif
