// Headers and metadata.
#ifndef DYSCO_HEADER_P4
#define DYSCO_HEADER_P4

#include "define.p4"

@controller_header("packet_in")
header packet_in_h {
    bit<16>     port;       // where it came in
    host_id_t   host;       // the host of ours that sent it or is to receive it
    policy_id_t policy;
    Reason      reason;
}

@controller_header("packet_out")
header packet_out_h {
    bit<16> port;           // with Submit.PORT where it leaves, with Submit.BRIDGE where it came in
    Submit  submit;
}

header ethernet_h {
    mac_t   dst;
    mac_t   src;
    bit<16> type;
}

header arp_h {
    bit<48> formats;        // hardware and protocol types and lengths
    bit<16> operation;
}

header ipv4_h {
    bit<4>  version;
    bit<4>  ihl;
    bit<6>  dscp;
    bit<2>  ecn;
    bit<16> length;
    bit<16> id;
    bit<3>  flags;
    bit<13> fragment;
    bit<8>  ttl;
    bit<8>  protocol;
    bit<16> checksum;
    ipv4_t  src;
    ipv4_t  dst;
}

header ipv4_options_h {
    varbit<320> data;
}

header ipv6_h {
    bit<4>  version;
    bit<6>  dscp;
    bit<2>  ecn;
    bit<20> flow;
    bit<16> length;
    bit<8>  next;
    bit<8>  hops;
    ipv6_t  src;
    ipv6_t  dst;
}

header tcp_h {
    l4_port_t sport;
    l4_port_t dport;
    bit<32> seq;
    bit<32> ack;
    bit<4>  offset;
    bit<6>  reserved;       // with CWR and ECE
    bit<1>  urg;
    bit<1>  ack_flag;
    bit<1>  psh;
    bit<1>  rst;
    bit<1>  syn;
    bit<1>  fin;
    bit<16> window;
    bit<16> checksum;
    bit<16> urgent;
}

// What an ICMP error quotes at least (RFC 792: 64 bits).
header tcp_quote_h {
    l4_port_t sport;
    l4_port_t dport;
    bit<32> seq;
}

header tcp_options_h {
    varbit<320> data;
}

header icmp_h {
    bit<8>  type;
    bit<8>  code;
    bit<16> checksum;
    bit<32> rest;           // next-hop MTU and the like
}

struct headers_t {
    packet_in_h    packet_in;
    packet_out_h   packet_out;
    ethernet_h     ethernet;
    arp_h          arp;
    ipv4_h         ipv4;
    ipv4_options_h ipv4_options;
    ipv6_h         ipv6;
    tcp_h          tcp;
    tcp_options_h  tcp_options;
    icmp_h         icmp;
    ipv4_h         quoted_ipv4;
    ipv4_options_h quoted_ipv4_options;
    ipv6_h         quoted_ipv6;
    tcp_quote_h    quoted_tcp;
}

// A five-tuple, of a session or of a subsession; the protocol is always TCP.
// One family's addresses are in use at a time.
struct five_tuple_t {
    ipv4_t    src_v4;
    ipv4_t    dst_v4;
    ipv6_t    src_v6;
    ipv6_t    dst_v6;
    l4_port_t sport;
    l4_port_t dport;
}

struct metadata_t {
    // What copies for the CPU keep. An ingress clone keeps the values of the end of ingress, so the
    // two kinds of copy must not share a field.
    @field_list(1)
    port_t       in_port;
    @field_list(1)
    host_id_t    copy_host;     // of an ingress clone
    @field_list(1)
    Reason       copy_reason;   // of an ingress clone
    @field_list(1)
    host_id_t    received_by;   // of an egress clone

    host_id_t    src_host;      // the host of ours that sent the packet
    host_id_t    dst_host;      // the host of ours that it goes to
    bit<1>       src_is_middlebox;
    port_t       uplink;        // where the host's traffic leaves to the network
    bit<1>       dysco;         // a SYN with a Dysco header
    bit<16>      payload;       // bytes of TCP payload
    five_tuple_t lookup;       // looked up; of an ICMP error: the quoted one, reversed
    five_tuple_t mapped;        // what it becomes
    bit<32>      address_sum;   // of ~lookup + mapped, in 16-bit words (RFC 1624)
    bit<32>      port_sum;
    bit<1>       hit;           // a session table had it
    policy_id_t  policy;
    bit<1>       forwarded;     // Route or Bridge found a way: out_port
    bit<1>       flood;         // Bridge found that nobody knows one
    port_t       out_port;
}

#endif
