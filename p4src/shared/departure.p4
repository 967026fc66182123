// What a tracked host sends: which of the two paths, and with which fields.
//
//                          ACK below C_in                     ACK of C_in or more
//    data below C_out      old, as it is                      old with ACK C_in; ACK split off: new
//    data from C_out on    new with a stale ACK; ACK          new, as it is
//                          split off: old
//    no data               old at min(seq, C_out)             new at max(seq, C_out)
//
// An ACK is split off only if it says something new, and in a pass of its own (meta.extra). A stale ACK is
// the new path's first number; the other anchor puts in what its host knows already. Ahead of new data goes
// an announcement, until the other side is known to have it.
#ifndef DYSCO_DEPARTURE_P4
#define DYSCO_DEPARTURE_P4

#include "edit.p4"
#include "tracking.p4"

control HasBlockBelow(in headers_t hdr, in bit<32> cut, out bool found) {
    apply {
        found = (hdr.blocks[0].isValid() && is_before(hdr.blocks[0].left, cut))
            || (hdr.blocks[1].isValid() && is_before(hdr.blocks[1].left, cut))
            || (hdr.blocks[2].isValid() && is_before(hdr.blocks[2].left, cut))
            || (hdr.blocks[3].isValid() && is_before(hdr.blocks[3].left, cut));
    }
}

// While the session has one path: only what is below the floor that it began with is special.
control DepartByOne(in headers_t hdr, inout metadata_t meta, in bool content) {
    apply {
        meta.kind = Kind.OLD;
        if (meta.leg.has_floor == 1 && hdr.tcp.syn == 0
            && is_before(hdr.tcp.seq, meta.leg.floor)) {
            if (!content || hdr.tcp.rst == 1) {
                bit<32> acked;
                snd_una.read(acked, meta.slot);
                if (!is_before(hdr.tcp.seq, acked)) {
                    bit<32> sent;
                    snd_max.read(sent, meta.slot);
                    meta.edit.seq = latest(sent, meta.leg.floor);
                } else {
                    // A probe stays below all that is acknowledged.
                    meta.edit.seq = latest(hdr.tcp.seq, meta.leg.floor - 1);
                }
            } else if (is_before(meta.leg.floor,
                                 hdr.tcp.seq + (bit<32>)meta.payload + (bit<32>)hdr.tcp.fin)) {
                meta.kind = Kind.SPLIT;
                legs.count((bit<32>)(bit<8>)Count.STRADDLES);
            } else {
                meta.kind = Kind.HOST_ANSWER;
                legs.count((bit<32>)(bit<8>)Count.LATE_OLD);
            }
        }
    }
}

// The table above.
control DepartByTwo(in headers_t hdr, inout metadata_t meta, in bool content, in bool acks_new) {
    apply {
        bool news = meta.reg.ack_moved == 1 || meta.reg.edge_moved == 1;
        bool old_hears_last = acks_new && is_before(meta.reg.ack_before, meta.reg.cutoff_in);
        if (hdr.tcp.rst == 1) {
            meta.kind = Kind.OLD_RESET;
            meta.extra = Kind.NEW_RESET;
        } else if (!content) {
            if (acks_new) {
                bit<32> acked;
                snd_una.read(acked, meta.slot);
                meta.kind = Kind.NEW_BARE;
                if (is_before(hdr.tcp.seq, acked) && hdr.tcp.seq == meta.reg.cutoff_out - 1) {
                    // A probe below the new path's first byte: the other host answers it, as it should.
                    meta.kind = Kind.NEW;
                }
                if (old_hears_last) {
                    meta.extra = Kind.OLD_LAST;
                }
            } else if (meta.reg.known == 0) {
                meta.kind = Kind.OLD_BARE;
            } else {
                bit<32> by_new;
                bit<32> edge;
                bool below;
                last_way.read(by_new, meta.slot);
                edge_in.read(edge, meta.slot);
                HasBlockBelow.apply(hdr, meta.reg.cutoff_in, below);
                meta.kind = Kind.NOTHING;
                if (by_new == 1
                    || (meta.reg.edge_moved == 1 && is_before(meta.reg.cutoff_in, edge))) {
                    meta.kind = Kind.NEW_BARE;
                }
                if (news || below || by_new == 0) {
                    meta.extra = meta.kind == Kind.NEW_BARE ? Kind.NEW_BARE : Kind.AS_IS;
                    meta.kind = Kind.OLD_BARE;
                } else {
                    legs.count((bit<32>)(bit<8>)Count.DUPLICATE_ACK);
                }
            }
        } else if (!is_before(hdr.tcp.seq, meta.reg.cutoff_out)) {
            meta.kind = Kind.NEW;
            if (old_hears_last) {
                meta.extra = Kind.OLD_LAST;
            } else if (!acks_new && news) {
                meta.extra = Kind.OLD_BARE;
            }
            bit<32> epoch;
            told.read(epoch, meta.slot);
            if (epoch != meta.leg.epoch) {
                meta.copies = meta.copies | COPY_ANNOUNCE;
            }
        } else if (!is_before(meta.reg.cutoff_out,
                              hdr.tcp.seq + (bit<32>)meta.payload + (bit<32>)hdr.tcp.fin)) {
            meta.kind = Kind.OLD;
            if (acks_new) {
                meta.kind = Kind.OLD_CLAMPED;
                if (news) {
                    meta.extra = Kind.NEW_BARE;
                }
            }
        } else {
            meta.kind = Kind.SPLIT;
            legs.count((bit<32>)(bit<8>)Count.STRADDLES);
        }
    }
}

// The old path's numbers.
control ToOld(in headers_t hdr, inout metadata_t meta) {
    apply {
        if (meta.reg.switching == 1) {
            if (meta.kind == Kind.OLD_BARE || meta.kind == Kind.OLD_LAST
                || meta.kind == Kind.OLD_RESET) {
                meta.edit.seq = earliest(meta.edit.seq, meta.reg.cutoff_out);
            }
            if (meta.reg.known == 1) {
                meta.edit.clip = CLIP_BELOW;
                meta.edit.cut = meta.reg.cutoff_in;
            }
            if (meta.kind == Kind.OLD_RESET) {
                meta.edit.clip = CLIP_NOT;
                if (meta.reg.known == 1 && hdr.tcp.ack_flag == 1) {
                    meta.edit.ack = earliest(meta.edit.ack, meta.reg.cutoff_in);
                }
            } else if (meta.kind == Kind.OLD_CLAMPED || meta.kind == Kind.OLD_LAST) {
                bit<32> edge;
                edge_in.read(edge, meta.slot);
                meta.edit.ack = meta.reg.cutoff_in;
                meta.edit.window = window_of(edge - meta.reg.cutoff_in, meta.leg.scale_own);
                meta.edit.clip = CLIP_ALL;
            }
        }
        meta.edit.seq = meta.edit.seq + meta.leg.seq_out;
        if (hdr.tcp.ack_flag == 1) {
            meta.edit.ack = meta.edit.ack - meta.leg.seq_in;
            if (meta.reg.known == 1 && meta.leg.has_ts_shift == 0) {
                // The host may echo the new path's timestamps already. What a proxy hears must be its own
                // last one: from an old one it would learn round-trip times as long as ago it was.
                ts_old.read(meta.edit.ts_echo, meta.slot);
            }
            meta.edit.ts_echo = meta.edit.ts_echo - meta.leg.ts_in;
        }
        meta.edit.shift = 0 - meta.leg.seq_in;
    }
}

// What the new path adds to timestamps that arrive.
control TsShift(inout metadata_t meta, out bit<32> shift) {
    apply {
        shift = meta.leg.ts_shift;
        if (meta.leg.has_ts_shift == 0) {
            bit<32> given = meta.reg.ts_switch;
            if (meta.reg.known == 0) {
                ts_given.read(given, meta.slot);
            }
            shift = given - meta.leg.new_ts_in;
        }
    }
}

// The new path's numbers; the ACK is stale if it is of old data.
control ToNew(in headers_t hdr, inout metadata_t meta, in bool content, in bool acks_new) {
    apply {
        if (meta.kind == Kind.NEW_RESET) {
            meta.edit.seq = latest(meta.edit.seq, meta.reg.cutoff_out);
        } else if (meta.kind == Kind.NEW_BARE
                   && (content || is_before(meta.edit.seq, meta.reg.cutoff_out))) {
            // Where the new path's boxes and the other host expect it.
            bit<32> sent;
            bit<32> room;
            snd_max.read(sent, meta.slot);
            edge_out.read(room, meta.slot);
            room = latest(room, meta.reg.cutoff_out);
            meta.edit.seq = latest(earliest(sent, room), meta.reg.cutoff_out);
        }
        meta.edit.seq = meta.edit.seq + meta.leg.start_out - meta.reg.cutoff_out;
        meta.edit.shift = meta.leg.start_in - meta.reg.cutoff_in;
        if (acks_new) {
            if (hdr.tcp.ack_flag == 1) {
                meta.edit.ack = meta.edit.ack + meta.leg.start_in - meta.reg.cutoff_in;
            }
        } else {
            if (hdr.tcp.ack_flag == 1) {
                meta.edit.ack = meta.leg.start_in;
            }
            meta.edit.window = 0;
            meta.edit.clip = CLIP_ALL;
            if (meta.reg.known == 1) {
                bit<32> edge;
                edge_in.read(edge, meta.slot);
                meta.edit.window = window_of(edge - meta.reg.cutoff_in, meta.leg.scale_own);
                meta.edit.clip = CLIP_ABOVE;
                meta.edit.cut = meta.reg.cutoff_in;
            }
        }
        bit<32> shift;
        TsShift.apply(meta, shift);
        meta.edit.ts_echo = meta.edit.ts_echo - shift;
    }
}

// An ACK to the host for what it sent, with what it knows already.
control ToSender(in headers_t hdr, inout metadata_t meta) {
    apply {
        bit<32> edge;
        rcv_ack.read(meta.edit.seq, meta.slot);
        snd_una.read(meta.edit.ack, meta.slot);
        edge_out.read(edge, meta.slot);
        meta.edit.window = window_of(edge - meta.edit.ack, meta.leg.scale_heard);
        meta.edit.ts_echo = meta.edit.ts_value;
        ts_given.read(meta.edit.ts_value, meta.slot);
        meta.edit.clip = CLIP_ALL;
    }
}

// Sets meta.kind, and the segment's numbers unless it is to be split.
control Departure(in headers_t hdr, inout metadata_t meta) {
    apply {
        bool content = meta.payload != 0 || hdr.tcp.fin == 1;
        bool acks_new = meta.reg.known == 1 && !is_before(hdr.tcp.ack, meta.reg.cutoff_in);
        if (meta.again == Kind.AS_IS) {
            TrackSent.apply(hdr, meta);
            if (meta.reg.switching == 0) {
                DepartByOne.apply(hdr, meta, content);
            } else {
                DepartByTwo.apply(hdr, meta, content, acks_new);
                CheckDrained.apply(meta);
            }
        } else if (meta.reg.switching == 1) {
            meta.kind = meta.again;
        } else {
            meta.kind = Kind.NOTHING;   // settled or withdrawn meanwhile
        }
        bool changed = meta.reg.switching == 1 || meta.leg.has_floor == 1
            || (meta.leg.seq_out | meta.leg.seq_in | meta.leg.ts_in) != 0;
        meta.outgoing_path = meta.leg.path;
        if (changed && meta.kind != Kind.SPLIT && meta.kind != Kind.NOTHING) {
            if (meta.kind == Kind.NEW || meta.kind == Kind.NEW_BARE
                || meta.kind == Kind.NEW_RESET) {
                meta.outgoing_path = ~meta.leg.path;
                ToNew.apply(hdr, meta, content, acks_new);
            } else if (meta.kind == Kind.HOST_ANSWER) {
                ToSender.apply(hdr, meta);
            } else {
                ToOld.apply(hdr, meta);
            }
            meta.edited = 1;
            if (meta.kind == Kind.OLD_BARE || meta.kind == Kind.OLD_LAST
                || meta.kind == Kind.NEW_BARE || meta.kind == Kind.HOST_ANSWER) {
                meta.bare = 1;
            }
        }
    }
}

#endif
