// What comes for a tracked host, by either path.
//
//    old path   data below C_in for the host; once the host has acknowledged C_in, answered by the
//               anchor with ACK C_in; from C_in on dropped. ACK at most C_out; of data, not less than what
//               the host was told last.
//    new path   nothing before the other side's announcement. A stale ACK becomes what the host was
//               told last.
//
// Timestamps never go backwards while there are two paths, one of which overtakes the other: PAWS would
// drop the slower one's segments. Every window that the host is told ends at max(what the other host
// offered, C_out).
#ifndef DYSCO_ARRIVAL_P4
#define DYSCO_ARRIVAL_P4

#include "departure.p4"

// From the old path's numbers to the host's.
control InHostSpace(in headers_t hdr, inout metadata_t meta) {
    apply {
        meta.edit.seq = meta.edit.seq + meta.leg.seq_in;
        if (hdr.tcp.ack_flag == 1) {
            meta.edit.ack = meta.edit.ack - meta.leg.seq_out;
        }
        meta.edit.shift = 0 - meta.leg.seq_out;
        if (meta.edit.has_ts == 1) {
            meta.edit.ts_value = meta.edit.ts_value + meta.leg.ts_in;
            if (meta.leg.has_floor == 1) {
                bit<32> given;
                ts_given.read(given, meta.slot);
                meta.edit.ts_value = latest(meta.edit.ts_value, given);
            }
        }
    }
}

// A sender whose window shrank, as it does where a proxy had offered more than the other host, says what it
// has to say from the window's end (Linux: tcp_acceptable_seq), which may be behind what our host has: it
// would take no ACK from there. A keep-alive, one behind, stays one. And by the new path all is said from
// the cutoff on, which may be beyond our host's window as long as old data is still to come.
control ToldAgain(inout metadata_t meta, in bool by_new) {
    apply {
        bit<32> acknowledged;
        rcv_ack.read(acknowledged, meta.slot);
        if (is_before(meta.edit.seq + 1, acknowledged)
            || (by_new && is_before(acknowledged, meta.reg.cutoff_in))) {
            meta.edit.seq = acknowledged;
        }
    }
}

control ArriveByOne(in headers_t hdr, inout metadata_t meta, in bool content) {
    apply {
        InHostSpace.apply(hdr, meta);
        if (meta.leg.has_floor == 1 && !content && hdr.tcp.rst == 0 && hdr.tcp.syn == 0) {
            ToldAgain.apply(meta, false);
        }
        meta.kind = Kind.HOST;
        TrackReceived.apply(hdr, meta);
        if (hdr.tcp.syn == 0) {
            bit<32> offered = (bit<32>)hdr.tcp.window << meta.leg.scale_in;
            if (meta.leg.scale_in != meta.leg.scale_heard) {
                meta.edit.window = window_of(offered, meta.leg.scale_heard);
            }
            if (hdr.tcp.ack_flag == 1 && hdr.tcp.rst == 0) {
                bit<32> edge;
                bit<1> wider;
                Hear.apply(meta.slot, meta.edit.ack + offered, meta.leg.jump, edge, wider);
            }
        }
    }
}

// The field that tells the host how far it may send.
control TellWindow(inout metadata_t meta) {
    apply {
        bit<32> edge;
        edge_out.read(edge, meta.slot);
        meta.edit.window = window_of(latest(edge, meta.reg.cutoff_out) - meta.edit.ack,
                                     meta.leg.scale_heard);
    }
}

control ArriveByOld(in headers_t hdr, inout metadata_t meta, in bool content) {
    apply {
        if (meta.edit.has_ts == 1) {
            ts_old.write(meta.slot, meta.edit.ts_value + meta.leg.ts_in);
        }
        InHostSpace.apply(hdr, meta);
        meta.kind = Kind.HOST;
        bit<32> acknowledged;
        bit<32> acked;
        rcv_ack.read(acknowledged, meta.slot);
        snd_una.read(acked, meta.slot);
        if (hdr.tcp.rst == 1) {
            if (meta.reg.known == 1 && !is_before(acknowledged, meta.reg.cutoff_in)
                && !is_before(acked, meta.reg.cutoff_out)) {
                meta.kind = Kind.NOTHING;
                legs.count((bit<32>)(bit<8>)Count.OLD_RESET);
            }
        } else {
            if (meta.leg.has_edge == 0) {
                bit<32> edge;
                bit<1> wider;
                Hear.apply(meta.slot,
                           meta.edit.ack + ((bit<32>)hdr.tcp.window << meta.leg.scale_in),
                           meta.leg.jump, edge, wider);
            }
            meta.edit.clip = CLIP_BELOW;
            meta.edit.cut = meta.reg.cutoff_out + meta.leg.seq_out;
            meta.edit.ack = earliest(meta.edit.ack, meta.reg.cutoff_out);
            if (meta.reg.known == 1) {
                bool done = !is_before(acknowledged, meta.reg.cutoff_in);
                bit<32> top = meta.edit.seq + (bit<32>)meta.payload;
                bool beyond = is_before(meta.reg.cutoff_in, top + (bit<32>)hdr.tcp.fin);
                if (content && (done || beyond)) {
                    if (done) {
                        legs.count((bit<32>)(bit<8>)Count.OLD_REPEATED);
                    } else {
                        legs.count((bit<32>)(bit<8>)Count.OLD_BEYOND);
                    }
                    if (done || !is_before(meta.edit.seq, meta.reg.cutoff_in)) {
                        // Nothing of it is for the host, but perhaps its ACK.
                        meta.kind = Kind.ANSWER;
                        if (is_before(acked, meta.edit.ack)) {
                            meta.kind = Kind.HOST_BARE;
                            meta.extra = Kind.ANSWER;
                        }
                        meta.edit.seq = acknowledged;
                    } else if (is_before(meta.reg.cutoff_in, top)) {
                        meta.kind = Kind.NOTHING;
                    } else {
                        meta.edit.fin = 0;
                        meta.edit.psh = 0;
                    }
                } else if (!content && !is_before(meta.edit.seq, meta.reg.cutoff_in)) {
                    meta.edit.seq = acknowledged;
                }
            }
            if (meta.kind == Kind.HOST || meta.kind == Kind.HOST_BARE) {
                bit<32> given;
                ts_given.read(given, meta.slot);
                if (meta.reg.known == 1 && meta.leg.has_ts_shift == 0) {
                    meta.edit.ts_value = given;
                }
                meta.edit.ts_value = latest(meta.edit.ts_value, given);
                last_way.write(meta.slot, 0);
                if (meta.kind == Kind.HOST && content && is_before(meta.edit.ack, acked)) {
                    // What a proxy still holds may come when the new path has acknowledged far more: a host
                    // believes no data with an ACK from before its window (RFC 5961, 5.2).
                    meta.edit.ack = acked;
                    meta.edit.clip = CLIP_ALL;
                }
                TellWindow.apply(meta);
                TrackReceived.apply(hdr, meta);
            }
        }
    }
}

control ArriveByNew(in headers_t hdr, inout metadata_t meta, in bool content) {
    apply {
        bit<32> acked;
        snd_una.read(acked, meta.slot);
        bit<32> ahead = meta.edit.ack - meta.leg.start_out;
        bool acks_new = ahead != 0 && ahead < HALF;
        if (!acks_new) {
            ahead = 0;
        }
        meta.edit.ack = acks_new ? meta.reg.cutoff_out + ahead : acked;
        meta.kind = Kind.HOST;
        if (hdr.tcp.rst == 1) {
            // The sender's numbers are past what our host has: let it take the end for real.
            rcv_ack.read(meta.edit.seq, meta.slot);
            meta.edit.window = 0;
            meta.edit.has_ts = 0;
            meta.edit.clip = CLIP_ALL;
            meta.kind = Kind.HOST_BARE;
        } else {
            bit<32> edge;
            bit<1> wider;
            Hear.apply(meta.slot, meta.reg.cutoff_out + ahead
                       + ((bit<32>)hdr.tcp.window << meta.leg.new_scale_in), meta.leg.jump, edge, wider);
            bool behind = !acks_new && is_before(acked, meta.reg.cutoff_out);
            meta.edit.shift = meta.reg.cutoff_out - meta.leg.start_out;
            if (behind) {
                meta.edit.clip = CLIP_ALL;
            }
            bool waits = edge == acked || is_before(edge, acked);
            if (!content && !acks_new && wider == 0
                && (behind || (!hdr.sack.isValid() && !waits))) {
                meta.kind = Kind.NOTHING;
                legs.count((bit<32>)(bit<8>)Count.STALE_ACK);
            } else {
                bit<32> given;
                bit<32> shift;
                ts_given.read(given, meta.slot);
                TsShift.apply(meta, shift);
                meta.edit.seq = meta.edit.seq + meta.reg.cutoff_in - meta.leg.start_in;
                if (!content) {
                    ToldAgain.apply(meta, true);
                }
                meta.edit.ts_value = latest(meta.edit.ts_value + shift, given);
                last_way.write(meta.slot, 1);
                TellWindow.apply(meta);
                TrackReceived.apply(hdr, meta);
            }
        }
    }
}

// An ACK for old data that the host has, without asking it, back to where that came from.
control Answer(in headers_t hdr, inout metadata_t meta) {
    apply {
        bit<32> acknowledged;
        bit<32> edge;
        rcv_ack.read(acknowledged, meta.slot);
        edge_in.read(edge, meta.slot);
        LoadEdit.apply(hdr, meta);
        bit<32> echo = meta.edit.ts_value;
        if (meta.leg.has_floor == 1 && meta.leg.has_ts_shift == 1) {
            bit<32> given;
            ts_given.read(given, meta.slot);
            echo = latest(echo + meta.leg.ts_in, given) - meta.leg.ts_in;
        }
        meta.edit.ts_value = meta.edit.ts_echo;
        meta.edit.ts_echo = echo;
        bit<32> ack = earliest(acknowledged, meta.reg.cutoff_in);
        meta.edit.window = window_of(edge - ack, meta.leg.scale_own);
        meta.edit.seq = meta.reg.cutoff_out + meta.leg.seq_out;
        meta.edit.ack = ack - meta.leg.seq_in;
        meta.edit.clip = CLIP_ALL;
        meta.edited = 1;
        meta.bare = 1;
    }
}

// Sets meta.kind, and the segment's numbers if the host is to get it.
control Arrival(in headers_t hdr, inout metadata_t meta) {
    apply {
        bool content = meta.payload != 0 || hdr.tcp.fin == 1;
        bool changed = true;
        if (meta.arrival_path != meta.leg.path) {
            if (hdr.tcp.syn == 1 || (meta.reg.switching == 0 && !content)) {
                meta.kind = Kind.NEW_PATH;
            } else if (meta.reg.known == 0) {
                meta.kind = Kind.NOTHING;
                legs.count((bit<32>)(bit<8>)Count.EARLY_NEW);
            } else {
                ArriveByNew.apply(hdr, meta, content);
            }
        } else if (meta.reg.switching == 0) {
            ArriveByOne.apply(hdr, meta, content);
            changed = meta.leg.has_floor == 1 || meta.leg.scale_in != meta.leg.scale_heard
                || (meta.leg.seq_out | meta.leg.seq_in | meta.leg.ts_in) != 0;
        } else {
            ArriveByOld.apply(hdr, meta, content);
        }
        CheckDrained.apply(meta);
        if (changed && meta.kind == Kind.HOST) {
            meta.edited = 1;
        } else if (meta.kind == Kind.HOST_BARE) {
            meta.edited = 1;
            meta.bare = 1;
        }
    }
}

#endif
