// A tracked leg: one host's side of one subsession, or of two while its session is switched from one
// path to another. Its constants are one table entry, so that one write changes them all; what its
// packets leave behind for the next ones is in registers, which the session's SYN-ACK initialises.
//
//    host --from_host--> [ leg | registers ] --> old way, new way, or both
//    host <------------- [                 ] <--from_network-- old way, new way
//
// The rules are those of dysco/agent/reconfigure/, the executable reference; tests/p4 holds them to it.
#ifndef DYSCO_LEG_P4
#define DYSCO_LEG_P4

#include "header.p4"
#include "serial.p4"

const bit<32> MAX_JUMP = 1 << 30;   // the largest window that TCP can offer (RFC 7323, 2.3)

register<bit<32>>(SLOTS) isn;           // of the SYN-ACK that initialised the others
register<bit<32>>(SLOTS) snd_max;
register<bit<32>>(SLOTS) fin_sent;
register<bit<32>>(SLOTS) snd_una;
register<bit<32>>(SLOTS) edge_out;
register<bit<32>>(SLOTS) ts_sent;
register<bit<32>>(SLOTS) rcv_ack;
register<bit<32>>(SLOTS) edge_in;
register<bit<32>>(SLOTS) ts_given;
register<bit<32>>(SLOTS) ts_switch;
register<bit<32>>(SLOTS) ts_old;
register<bit<32>>(SLOTS) latched;
register<bit<32>>(SLOTS) revoked;
register<bit<32>>(SLOTS) known;
register<bit<32>>(SLOTS) told;
register<bit<32>>(SLOTS) drained;
register<bit<32>>(SLOTS) cutoff_out;
register<bit<32>>(SLOTS) cutoff_in;
register<bit<32>>(SLOTS) last_way;      // 1: new
register<bit<32>>(SLOTS) hold;          // this time of holding: over; one more: it held something
register<bit<128>>(SLOTS) own_address;  // of the last announcement that passed; IPv4 in the low bits
register<bit<128>>(SLOTS) peer_address;
register<bit<32>>(SLOTS) peer_port;     // of UDP; another one than ours behind a NAT of the network

counter(12, CounterType.packets) legs;

control Legs(inout metadata_t meta) {
    action one_path(bit<32> seq_out, bit<32> seq_in, bit<32> ts_in, bit<4> scale_in,
                    bit<1> has_floor, bit<32> floor, bit<1> path, bit<4> scale_own,
                    bit<4> scale_heard, bit<32> jump) {
        meta.leg.seq_out = seq_out;
        meta.leg.seq_in = seq_in;
        meta.leg.ts_in = ts_in;
        meta.leg.scale_in = scale_in;
        meta.leg.has_floor = has_floor;
        meta.leg.floor = floor;
        meta.leg.path = path;
        meta.leg.scale_own = scale_own;
        meta.leg.scale_heard = scale_heard;
        meta.leg.jump = jump;
    }
    action two_paths(bit<32> seq_out, bit<32> seq_in, bit<32> ts_in, bit<4> scale_in,
                     bit<1> has_floor, bit<32> floor, bit<1> path, bit<4> scale_own,
                     bit<4> scale_heard, bit<32> jump,
                     bit<64> token, bit<32> epoch, bit<32> isn_out, bit<32> isn_in,
                     bit<32> delta_in, bit<32> delta_out, bit<32> new_ts_in, bit<1> has_ts_shift,
                     bit<32> ts_shift, bit<4> new_scale_in, bit<1> has_edge, bit<32> edge) {
        meta.leg.seq_out = seq_out;
        meta.leg.seq_in = seq_in;
        meta.leg.ts_in = ts_in;
        meta.leg.scale_in = scale_in;
        meta.leg.has_floor = has_floor;
        meta.leg.floor = floor;
        meta.leg.path = path;
        meta.leg.scale_own = scale_own;
        meta.leg.scale_heard = scale_heard;
        meta.leg.jump = jump;
        meta.leg.has_new = 1;
        meta.leg.token = token;
        meta.leg.epoch = epoch;
        meta.leg.start_out = isn_out + 1;
        meta.leg.start_in = isn_in + 1;
        meta.leg.delta_in = delta_in;
        meta.leg.delta_out = delta_out;
        meta.leg.new_ts_in = new_ts_in;
        meta.leg.has_ts_shift = has_ts_shift;
        meta.leg.ts_shift = ts_shift;
        meta.leg.new_scale_in = new_scale_in;
        meta.leg.has_edge = has_edge;
        meta.leg.edge = edge;
    }
    // While the session's state moves: one path, and a gate.
    action gated(bit<32> seq_out, bit<32> seq_in, bit<32> ts_in, bit<4> scale_in,
                 bit<1> has_floor, bit<32> floor, bit<1> path, bit<4> scale_own,
                 bit<4> scale_heard, bit<32> jump, bit<2> gate, bit<32> hold_number) {
        meta.leg.seq_out = seq_out;
        meta.leg.seq_in = seq_in;
        meta.leg.ts_in = ts_in;
        meta.leg.scale_in = scale_in;
        meta.leg.has_floor = has_floor;
        meta.leg.floor = floor;
        meta.leg.path = path;
        meta.leg.scale_own = scale_own;
        meta.leg.scale_heard = scale_heard;
        meta.leg.jump = jump;
        meta.leg.gate = gate;
        meta.leg.hold = hold_number;
    }
    // Tracked, and nothing more is known yet.
    action tracked() {
        meta.leg.jump = MAX_JUMP;
    }
    table leg {
        key = { meta.slot : exact @name("slot"); }
        actions = { one_path; two_paths; gated; @defaultonly tracked; }
        const default_action = tracked();
        size = SLOTS;
    }

    apply {
        leg.apply();
        if (meta.leg.has_new == 1) {
            latched.read(meta.reg.latched, meta.slot);
            if (meta.reg.latched == meta.leg.epoch) {
                meta.reg.switching = 1;
                cutoff_out.read(meta.reg.cutoff_out, meta.slot);
                bit<32> epoch;
                known.read(epoch, meta.slot);
                if (epoch == meta.leg.epoch) {
                    meta.reg.known = 1;
                    cutoff_in.read(meta.reg.cutoff_in, meta.slot);
                    ts_switch.read(meta.reg.ts_switch, meta.slot);
                }
            }
        }
    }
}

// Which leg an announcement is for.
control Tokens(in headers_t hdr, inout metadata_t meta) {
    action leg_of(slot_t slot) {
        meta.slot = slot;
    }
    table token {
        key = { hdr.announcement.token : exact @name("token"); }
        actions = { leg_of; @defaultonly NoAction; }
        const default_action = NoAction();
        size = SLOTS;
    }

    apply {
        token.apply();
    }
}

// Where a leg's second path goes. The first one's five-tuple is in the outbound entry.
control SecondPath(in headers_t hdr, inout metadata_t meta) {
    action to_second_path_v4(ipv4_t src, ipv4_t dst, l4_port_t sport, l4_port_t dport) {
        meta.hit = 1;
        meta.mapped.src_v4 = src;
        meta.mapped.dst_v4 = dst;
        meta.mapped.sport = sport;
        meta.mapped.dport = dport;
    }
    action to_second_path_v6(ipv6_t src, ipv6_t dst, l4_port_t sport, l4_port_t dport) {
        meta.hit = 1;
        meta.mapped.src_v6 = src;
        meta.mapped.dst_v6 = dst;
        meta.mapped.sport = sport;
        meta.mapped.dport = dport;
    }
    table second_path_v4 {
        key = { meta.slot : exact @name("slot"); }
        actions = { to_second_path_v4; @defaultonly NoAction; }
        const default_action = NoAction();
        size = SLOTS;
    }
    table second_path_v6 {
        key = { meta.slot : exact @name("slot"); }
        actions = { to_second_path_v6; @defaultonly NoAction; }
        const default_action = NoAction();
        size = SLOTS;
    }

    apply {
        meta.hit = 0;
        if (hdr.ipv4.isValid()) {
            second_path_v4.apply();
        } else {
            second_path_v6.apply();
        }
    }
}

#endif
