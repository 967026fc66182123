// How far a leg's host has sent and acknowledged, and the other host.
//
// One segment moves a register forwards by at most `jump`, so that an absurd sequence number (which a
// host would ignore, or a stranger made up) poisons nothing.
#ifndef DYSCO_TRACKING_P4
#define DYSCO_TRACKING_P4

#include "leg.p4"

// `moved`: `at` was behind `now`, and is there now.
control Advance(inout bit<32> at, in bit<32> now, in bit<32> jump, out bit<1> moved) {
    apply {
        moved = 0;
        bit<32> ahead = now - at;
        if (ahead >= HALF) {
            if (at - now > jump) {
                legs.count((bit<32>)(bit<8>)Count.JUMP);
            }
        } else if (ahead > jump) {
            legs.count((bit<32>)(bit<8>)Count.JUMP);
        } else if (ahead != 0) {
            at = now;
            moved = 1;
        }
    }
}

// The SYN-ACK begins a connection: whatever was in the registers is of another one. Not so if it is sent
// again. `out` is the space of the leg's own host.
control Begin(in slot_t slot, in bit<32> number, in bit<32> out_max, in bit<32> out_una,
              in bit<32> out_edge, in bit<32> in_ack, in bit<32> right_edge, in bit<32> stamp_out,
              in bit<32> stamp_in) {
    apply {
        bit<32> before;
        isn.read(before, slot);
        if (before != number) {
            isn.write(slot, number);
            snd_max.write(slot, out_max);
            fin_sent.write(slot, 0);
            snd_una.write(slot, out_una);
            edge_out.write(slot, out_edge);
            ts_sent.write(slot, stamp_out);
            rcv_ack.write(slot, in_ack);
            edge_in.write(slot, right_edge);
            ts_given.write(slot, stamp_in);
            latched.write(slot, 0);
            revoked.write(slot, 0);
            known.write(slot, 0);
            told.write(slot, 0);
            drained.write(slot, 0);
        }
    }
}

// The host sends a segment.
control TrackSent(in headers_t hdr, inout metadata_t meta) {
    apply {
        bit<32> top = hdr.tcp.seq + (bit<32>)meta.payload;
        if (hdr.tcp.syn == 1) {
            Begin.apply(meta.slot, hdr.tcp.seq, top + 1, hdr.tcp.seq, hdr.tcp.seq + 1, hdr.tcp.ack,
                        hdr.tcp.ack + (bit<32>)hdr.tcp.window, meta.edit.ts_value,
                        meta.edit.ts_echo);
        } else {
            bit<1> moved;
            if (meta.payload != 0 || hdr.tcp.fin == 1) {
                bit<32> sent;
                snd_max.read(sent, meta.slot);
                if (meta.payload != 0 && hdr.tcp.rst == 0) {
                    Advance.apply(sent, top, meta.leg.jump, moved);
                    snd_max.write(meta.slot, sent);
                }
                if (hdr.tcp.fin == 1) {
                    // Also ahead of bytes that a box, as host, is still to send on.
                    bit<32> ahead = top + 1 - sent;
                    if (ahead <= meta.leg.jump || 0 - ahead <= meta.leg.jump) {
                        fin_sent.write(meta.slot, 1);
                    }
                }
            }
            if (hdr.tcp.rst == 1) {
                // It goes by the old path alone: a latch behind it would take it for that path's end.
                fin_sent.write(meta.slot, 1);
            }
            if (meta.edit.has_ts == 1) {
                ts_sent.write(meta.slot, meta.edit.ts_value);
            }
            if (hdr.tcp.ack_flag == 1 && hdr.tcp.rst == 0) {
                bit<32> heard;
                rcv_ack.read(heard, meta.slot);
                meta.reg.ack_before = heard;
                Advance.apply(heard, hdr.tcp.ack, meta.leg.jump, meta.reg.ack_moved);
                rcv_ack.write(meta.slot, heard);
                bit<32> edge;
                edge_in.read(edge, meta.slot);
                Advance.apply(edge, hdr.tcp.ack + ((bit<32>)hdr.tcp.window << meta.leg.scale_own),
                              meta.leg.jump, meta.reg.edge_moved);
                edge_in.write(meta.slot, edge);
            }
        }
    }
}

// The host is given a segment; meta.edit has its numbers in the host's own space.
control TrackReceived(in headers_t hdr, inout metadata_t meta) {
    apply {
        if (hdr.tcp.syn == 1) {
            Begin.apply(meta.slot, meta.edit.seq, meta.edit.ack, meta.edit.ack,
                        meta.edit.ack + (bit<32>)hdr.tcp.window, meta.edit.seq, meta.edit.seq + 1,
                        meta.edit.ts_echo, meta.edit.ts_value);
        } else {
            if (meta.edit.has_ts == 1) {
                bit<32> given;
                ts_given.read(given, meta.slot);
                ts_given.write(meta.slot, latest(meta.edit.ts_value, given));
            }
            if (hdr.tcp.ack_flag == 1 && hdr.tcp.rst == 0) {
                bit<32> acked;
                bit<1> moved;
                snd_una.read(acked, meta.slot);
                Advance.apply(acked, meta.edit.ack, meta.leg.jump, moved);
                snd_una.write(meta.slot, acked);
            }
        }
    }
}

// The other host offers a window up to `edge`; edge_out as it is afterwards is in `now`.
control Hear(in slot_t slot, in bit<32> edge, in bit<32> jump, out bit<32> now, out bit<1> wider) {
    apply {
        edge_out.read(now, slot);
        Advance.apply(now, edge, jump, wider);
        edge_out.write(slot, now);
    }
}

// Tells once that this anchor needs the old path no more.
control CheckDrained(inout metadata_t meta) {
    apply {
        if (meta.reg.known == 1) {
            bit<32> acknowledged;
            bit<32> acked;
            rcv_ack.read(acknowledged, meta.slot);
            snd_una.read(acked, meta.slot);
            if (!is_before(acknowledged, meta.reg.cutoff_in)
                && !is_before(acked, meta.reg.cutoff_out)) {
                bit<32> already;
                drained.read(already, meta.slot);
                if (already != meta.leg.epoch) {
                    drained.write(meta.slot, meta.leg.epoch);
                    meta.events = meta.events | EVENT_DRAINED;
                    meta.copies = meta.copies | COPY_REPORT;
                }
            }
        }
    }
}

#endif
