// What moves a leg from one path to the other: latch, announce, turn round.
//
//    left anchor                                   right anchor
//    latch: C_L := sent      -- C_L -->            C_in := C_L; C_R := sent
//    C_in := C_R             <-- C_R, known --
//                            -- C_L, known -->     told
//
// Each is one pass; each may be lost, repeated or late: the controller latches again until it is known.
#ifndef DYSCO_HANDOVER_P4
#define DYSCO_HANDOVER_P4

#include "edit.p4"
#include "tracking.p4"

// What the host sends from now on takes the new path; `done` is false if it has sent a FIN. Again, it
// changes nothing.
control Latch(inout metadata_t meta, out bool done) {
    apply {
        done = true;
        if (meta.reg.switching == 0) {
            bit<32> closing;
            fin_sent.read(closing, meta.slot);
            if (closing == 1) {
                done = false;
                meta.events = meta.events | EVENT_CLOSING;
            } else {
                snd_max.read(meta.reg.cutoff_out, meta.slot);
                cutoff_out.write(meta.slot, meta.reg.cutoff_out);
                latched.write(meta.slot, meta.leg.epoch);
                last_way.write(meta.slot, 0);
                if (meta.leg.has_edge == 1) {
                    edge_out.write(meta.slot, meta.leg.edge);
                }
                meta.reg.switching = 1;
            }
        }
    }
}

// The announcement in the packet becomes this leg's.
control Announce(inout headers_t hdr, inout metadata_t meta) {
    apply {
        bit<32> sum = change_32(hdr.announcement.cutoff, meta.reg.cutoff_out)
            + change_16(hdr.announcement.known, (bit<16>)meta.reg.known);
        hdr.announcement.cutoff = meta.reg.cutoff_out;
        hdr.announcement.known = (bit<16>)meta.reg.known;
        bit<32> edge;
        edge_in.read(edge, meta.slot);
        sum = sum + change_32(hdr.announcement.edge, edge);
        hdr.announcement.edge = edge;
        if (hdr.udp.checksum != 0) {
            Patch.apply(hdr.udp.checksum, sum);
            if (hdr.udp.checksum == 0) {
                hdr.udp.checksum = 0xffff;
            }
        }
    }
}

// A segment of the host becomes an announcement to whom the last one went.
control MakeAnnouncement(inout headers_t hdr, inout metadata_t meta) {
    apply {
        bit<128> own;
        bit<128> peer;
        bit<32> edge;
        bit<32> port;
        own_address.read(own, meta.slot);
        peer_address.read(peer, meta.slot);
        peer_port.read(port, meta.slot);
        edge_in.read(edge, meta.slot);

        hdr.tcp.setInvalid();
        hdr.udp.setValid();
        hdr.udp.sport = ANNOUNCEMENT_PORT;
        hdr.udp.dport = port[15:0];
        hdr.udp.length = ANNOUNCEMENT_SIZE;
        hdr.announcement.setValid();
        hdr.announcement.magic = ANNOUNCEMENT_MAGIC;
        hdr.announcement.token = meta.leg.token;
        hdr.announcement.epoch = meta.leg.epoch;
        hdr.announcement.cutoff = meta.reg.cutoff_out;
        hdr.announcement.edge = edge;
        hdr.announcement.known = (bit<16>)meta.reg.known;
        // The length stands twice: in the pseudo-header too.
        bit<32> sum = (bit<32>)PROTO_UDP + (bit<32>)ANNOUNCEMENT_SIZE * 2
            + (bit<32>)ANNOUNCEMENT_PORT + port + change_32(0, ANNOUNCEMENT_MAGIC)
            + change_32(0, meta.leg.token[63:32]) + change_32(0, meta.leg.token[31:0])
            + change_32(0, meta.leg.epoch) + change_32(0, meta.reg.cutoff_out) + change_32(0, edge)
            + (bit<32>)meta.reg.known + change_v6(0, own) + change_v6(0, peer);
        hdr.udp.checksum = 0xffff;
        Patch.apply(hdr.udp.checksum, sum);
        if (hdr.udp.checksum == 0) {
            hdr.udp.checksum = 0xffff;
        }

        if (hdr.ipv4.isValid()) {
            hdr.ipv4_options.setInvalid();
            hdr.ipv4.ihl = 5;
            hdr.ipv4.length = 20 + ANNOUNCEMENT_SIZE;
            hdr.ipv4.dscp = 0;
            hdr.ipv4.ecn = 0;
            hdr.ipv4.protocol = PROTO_UDP;
            hdr.ipv4.src = own[31:0];
            hdr.ipv4.dst = peer[31:0];
            bit<32> words = 0x4500 + (bit<32>)hdr.ipv4.length + (bit<32>)hdr.ipv4.id
                + (bit<32>)(hdr.ipv4.flags ++ hdr.ipv4.fragment)
                + (bit<32>)(hdr.ipv4.ttl ++ hdr.ipv4.protocol)
                + change_v4(0, hdr.ipv4.src) + change_v4(0, hdr.ipv4.dst);
            hdr.ipv4.checksum = 0xffff;
            Patch.apply(hdr.ipv4.checksum, words);
            meta.frame = 14 + 20 + (bit<32>)ANNOUNCEMENT_SIZE;
        } else {
            hdr.ipv6.length = ANNOUNCEMENT_SIZE;
            hdr.ipv6.dscp = 0;
            hdr.ipv6.ecn = 0;
            hdr.ipv6.next = PROTO_UDP;
            hdr.ipv6.src = own;
            hdr.ipv6.dst = peer;
            meta.frame = 14 + 40 + (bit<32>)ANNOUNCEMENT_SIZE;
        }
    }
}

// The agent's packet-out: meta.kind is REPORT if the host has sent a FIN, else ours leaves.
control LatchOut(inout headers_t hdr, inout metadata_t meta) {
    apply {
        bool done;
        Latch.apply(meta, done);
        if (done) {
            if (hdr.ipv4.isValid()) {
                own_address.write(meta.slot, (bit<128>)hdr.ipv4.src);
                peer_address.write(meta.slot, (bit<128>)hdr.ipv4.dst);
            } else {
                own_address.write(meta.slot, hdr.ipv6.src);
                peer_address.write(meta.slot, hdr.ipv6.dst);
            }
            peer_port.write(meta.slot, (bit<32>)hdr.udp.dport);
            Announce.apply(hdr, meta);
        } else {
            meta.kind = Kind.REPORT;
        }
    }
}

// The agent's packet-out; a packet-out, because a table write would race with an announcement.
control Revoke(inout metadata_t meta) {
    apply {
        if (meta.reg.switching == 0) {
            revoked.write(meta.slot, meta.leg.epoch);
            meta.events = EVENT_REVOKED;
        }
        meta.kind = Kind.REPORT;
    }
}

// Back to where it came from.
control TurnRound(inout headers_t hdr) {
    apply {
        mac_t mac = hdr.ethernet.src;
        hdr.ethernet.src = hdr.ethernet.dst;
        hdr.ethernet.dst = mac;
        if (hdr.ipv4.isValid()) {
            ipv4_t address = hdr.ipv4.src;
            hdr.ipv4.src = hdr.ipv4.dst;
            hdr.ipv4.dst = address;
        } else {
            ipv6_t address = hdr.ipv6.src;
            hdr.ipv6.src = hdr.ipv6.dst;
            hdr.ipv6.dst = address;
        }
        if (hdr.udp.isValid()) {
            l4_port_t port = hdr.udp.sport;
            hdr.udp.sport = hdr.udp.dport;
            hdr.udp.dport = port;
        } else {
            l4_port_t port = hdr.tcp.sport;
            hdr.tcp.sport = hdr.tcp.dport;
            hdr.tcp.dport = port;
        }
    }
}

// The other anchor's announcement: meta.kind is ANSWER if ours goes back.
control Announced(inout headers_t hdr, inout metadata_t meta) {
    apply {
        bit<32> never;
        revoked.read(never, meta.slot);
        meta.kind = Kind.NOTHING;
        if (meta.leg.has_new == 0 || hdr.announcement.token != meta.leg.token
            || hdr.announcement.epoch != meta.leg.epoch || never == meta.leg.epoch) {
            legs.count((bit<32>)(bit<8>)Count.ANNOUNCEMENT);
        } else {
            bool latch_done;
            Latch.apply(meta, latch_done);
            if (!latch_done) {
                meta.kind = Kind.REPORT;
            } else {
                bool news = meta.reg.known == 0;
                if (news) {
                    bit<32> given;
                    bit<32> edge;
                    bit<1> wider;
                    meta.reg.cutoff_in = hdr.announcement.cutoff + meta.leg.delta_in;
                    cutoff_in.write(meta.slot, meta.reg.cutoff_in);
                    known.write(meta.slot, meta.leg.epoch);
                    ts_given.read(given, meta.slot);
                    ts_switch.write(meta.slot, given);
                    ts_old.write(meta.slot, given);
                    Hear.apply(meta.slot, hdr.announcement.edge - meta.leg.delta_out, meta.leg.jump,
                               edge, wider);
                    meta.reg.known = 1;
                    meta.events = meta.events | EVENT_ANNOUNCED;
                    meta.copies = meta.copies | COPY_REPORT;
                    CheckDrained.apply(meta);
                }
                if (hdr.announcement.known == 1) {
                    told.write(meta.slot, meta.leg.epoch);
                }
                if (hdr.ipv4.isValid()) {
                    own_address.write(meta.slot, (bit<128>)hdr.ipv4.dst);
                    peer_address.write(meta.slot, (bit<128>)hdr.ipv4.src);
                } else {
                    own_address.write(meta.slot, hdr.ipv6.dst);
                    peer_address.write(meta.slot, hdr.ipv6.src);
                }
                peer_port.write(meta.slot, (bit<32>)hdr.udp.sport);
                if (news || hdr.announcement.known == 0) {
                    meta.kind = Kind.ANSWER;
                    Announce.apply(hdr, meta);
                }
            }
        }
    }
}

// The packet becomes a report of the leg's registers; what else it has is cut off at the end of egress.
control MakeReport(inout headers_t hdr, inout metadata_t meta) {
    apply {
        bit<32> value;
        hdr.ethernet.type = ETHERTYPE_LEG;
        hdr.leg.setValid();
        hdr.leg.slot = meta.slot;
        hdr.leg.events = meta.events;
        fin_sent.read(value, meta.slot);
        hdr.leg.fin_sent = value[7:0];
        last_way.read(value, meta.slot);
        hdr.leg.last_way = value[7:0];
        snd_max.read(hdr.leg.snd_max, meta.slot);
        snd_una.read(hdr.leg.snd_una, meta.slot);
        edge_out.read(hdr.leg.edge_out, meta.slot);
        ts_sent.read(hdr.leg.ts_sent, meta.slot);
        rcv_ack.read(hdr.leg.rcv_ack, meta.slot);
        edge_in.read(hdr.leg.edge_in, meta.slot);
        ts_given.read(hdr.leg.ts_given, meta.slot);
        ts_switch.read(hdr.leg.ts_switch, meta.slot);
        ts_old.read(hdr.leg.ts_old, meta.slot);
        latched.read(hdr.leg.latched, meta.slot);
        revoked.read(hdr.leg.revoked, meta.slot);
        known.read(hdr.leg.known, meta.slot);
        told.read(hdr.leg.told, meta.slot);
        cutoff_out.read(hdr.leg.cutoff_out, meta.slot);
        cutoff_in.read(hdr.leg.cutoff_in, meta.slot);
        meta.frame = PACKET_IN_SIZE + LEG_FRAME;
    }
}

#endif
