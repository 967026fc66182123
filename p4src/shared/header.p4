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

// TCP options, of segments that are not a session's first SYN. What is not looked at is kept in pieces.
header option_h {
    varbit<320> data;
}

header nops_h {             // in front of an option, to align it
    bit<16> kinds;
}

header timestamps_h {       // RFC 7323
    bit<16> kind;           // with the length: 0x080a
    bit<32> value;
    bit<32> echo;
}

header sack_h {             // RFC 2018
    bit<8>  kind;
    bit<8>  length;
}

header block_h {
    bit<32> left;
    bit<32> right;
}

header udp_h {
    l4_port_t sport;
    l4_port_t dport;
    bit<16> length;
    bit<16> checksum;
}

// From anchor to anchor; all numbers in the sender's host's spaces.
header announcement_h {
    bit<32> magic;
    bit<64> token;          // of this reconfiguration
    bit<32> epoch;          // of this leg's
    bit<32> cutoff;
    bit<32> edge;           // right edge of the window that the sender's host offers
    bit<16> known;          // 1: the sender has the receiver's announcement
}

const bit<16> ANNOUNCEMENT_SIZE = 34;   // bytes with the UDP header

// A query (only the slot counts), and a report: the leg's registers.
header leg_h {
    slot_t  slot;
    bit<16> events;
    bit<8>  fin_sent;
    bit<8>  last_way;       // 1: new
    bit<32> snd_max;
    bit<32> snd_una;
    bit<32> edge_out;
    bit<32> ts_sent;
    bit<32> rcv_ack;
    bit<32> edge_in;
    bit<32> ts_given;
    bit<32> ts_switch;
    bit<32> ts_old;
    bit<32> latched;
    bit<32> revoked;
    bit<32> known;
    bit<32> told;
    bit<32> cutoff_out;
    bit<32> cutoff_in;
}

const bit<32> LEG_FRAME = 14 + 68;      // bytes with the Ethernet header
const bit<32> PACKET_IN_SIZE = 7;

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
    option_h[6]    before;          // of the first of the two below
    nops_h         before_nops;
    timestamps_h   timestamps;
    option_h[4]    between;
    nops_h         between_nops;
    sack_h         sack;
    block_h[4]     blocks;
    option_h[4]    behind;
    timestamps_h   late_timestamps; // behind the SACK option
    udp_h          udp;
    announcement_h announcement;
    leg_h          leg;
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

// Constants of a tracked leg, and how far its hosts have got. All registers are in the spaces of the host
// itself: `out` is what it sends, `in` what it receives. dysco/agent/reconfigure/state.py explains each.
struct leg_t {
    bit<32> seq_out;
    bit<32> seq_in;
    bit<32> ts_in;
    bit<4>  scale_in;
    bit<1>  has_floor;
    bit<32> floor;
    bit<1>  path;           // which of the two the old way is
    bit<4>  scale_own;
    bit<4>  scale_heard;
    bit<32> jump;

    bit<1>  has_new;
    bit<64> token;
    bit<32> epoch;
    bit<32> start_out;      // the cutoff on the new path: one past the handshake's number
    bit<32> start_in;
    bit<32> delta_in;
    bit<32> delta_out;
    bit<32> new_ts_in;
    bit<1>  has_ts_shift;
    bit<32> ts_shift;
    bit<4>  new_scale_in;
    bit<1>  has_edge;
    bit<32> edge;

    bit<2>  gate;           // GATE_*
    bit<32> hold;           // names this time of holding: even
}

// What the registers of the leg say, as far as this packet asked.
struct reg_t {
    bit<32> latched;
    bit<1>  switching;      // the host's new data takes the new way
    bit<1>  known;          // the other side's announcement has come
    bit<32> cutoff_out;
    bit<32> cutoff_in;      // if known
    bit<32> ts_switch;      // if known
    bit<32> ack_before;     // the host's last ACK before this segment's
    bit<1>  ack_moved;
    bit<1>  edge_moved;
}

// A segment's fields as the rules leave them.
struct edit_t {
    bit<32> seq;
    bit<32> ack;
    bit<16> window;
    bit<1>  fin;
    bit<1>  psh;
    bit<1>  has_ts;
    bit<32> ts_value;
    bit<32> ts_echo;
    bit<2>  clip;           // CLIP_*: what becomes of SACK blocks
    bit<32> cut;            // where they are clipped
    bit<32> shift;          // what is then added to them
}

const bit<2> CLIP_NOT = 0;
const bit<2> CLIP_BELOW = 1;        // what is before the cut stays
const bit<2> CLIP_ABOVE = 2;        // what is after it stays
const bit<2> CLIP_ALL = 3;

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
    @field_list(1)
    bit<32>      frame;         // length to truncate to; 0: none

    // What another pass of the same packet knows already.
    @field_list(1)
    Kind         extra;         // what a COPY_EXTRA is to become
    @field_list(1)
    Kind         again;         // what this pass is for; AS_IS: a first pass
    @field_list(1)
    slot_t       slot;          // the leg
    @field_list(1)
    bit<16>      events;        // for a report
    @field_list(1)
    host_id_t    deliver_to;
    @field_list(1)
    port_t       deliver_port;

    bit<8>       copies;        // sum of COPY_*
    Kind         kind;
    bit<1>       arrival_path;  // by which of the leg's two an inbound packet came
    bit<1>       outgoing_path;
    leg_t        leg;
    reg_t        reg;
    edit_t       edit;
    bit<1>       for_agent;     // a control message for an agent
    bit<1>       ts_odd;        // where in a 16-bit word of the checksum the options begin
    bit<1>       sack_odd;
    bit<32>      tcp_sum;       // what changed in the TCP header, of ~before + after
    bit<32>      tcp_odd_sum;   // the same for what lies across words
    bit<1>       edited;        // meta.edit is to be stored
    bit<1>       bare;          // and nothing but the header is left
    bit<1>       delivers;      // another pass follows: it goes to a host of this device
    bit<16>      l4_length;

    host_id_t    src_host;      // the host of ours that sent the packet
    host_id_t    dst_host;      // the host of ours that it goes to
    bit<1>       src_is_middlebox;
    port_t       uplink;        // where the host's traffic leaves to the network
    bit<1>       dysco;         // a SYN with a Dysco header
    bit<16>      payload;       // bytes of TCP payload
    five_tuple_t lookup;       // looked up; of an ICMP error: the quoted one, reversed
    five_tuple_t mapped;        // what it becomes
    bit<1>       hit;           // a session table had it
    policy_id_t  policy;
    bit<1>       forwarded;     // Route or Bridge found a way: out_port
    bit<1>       flood;         // Bridge found that nobody knows one
    port_t       out_port;
}

#endif
