// The gate of a leg while a session's state moves from one host to another.
//
//    host --> HELD? --yes--> agent: a queue --RELEASED--> as if the host had sent it now
//               |
//               no --> Departure               SHUT: nothing passes, in either direction
//
// A segment that is held was never seen here: the registers learn of it when it is let go. Holding ends
// only when nothing was held since the agent asked last, so that what it lets go has left before the first
// segment that passes by itself.
#ifndef DYSCO_GATE_P4
#define DYSCO_GATE_P4

#include "leg.p4"

// A segment at a gate that is not open; `holds`: it is the host's own, and was not held before. Sets
// meta.kind to HELD or NOTHING if it does not pass.
control PassGate(inout metadata_t meta, in bool holds) {
    apply {
        if (meta.leg.gate == GATE_SHUT) {
            meta.kind = Kind.NOTHING;
            legs.count((bit<32>)(bit<8>)Count.SHUT);
        } else if (holds) {
            bit<32> over;
            hold.read(over, meta.slot);
            if (over != meta.leg.hold) {
                hold.write(meta.slot, meta.leg.hold + 1);
                meta.kind = Kind.HELD;
                legs.count((bit<32>)(bit<8>)Count.HELD);
            }
        }
        if (meta.kind == Kind.NOTHING || meta.kind == Kind.HELD) {
            // Nor does a copy of it go to the controller.
            meta.copies = 0;
            meta.copy_host = NO_HOST;
            meta.copy_reason = Reason.NONE;
        }
    }
}

// The agent's packet-out: holding ends if nothing was held since the last one. `number` is the time of
// holding that is meant; of another one it is over.
control EndHold(inout metadata_t meta, in bit<32> number) {
    apply {
        meta.events = EVENT_HOLD_OVER;
        if (meta.leg.gate == GATE_HELD && meta.leg.hold == number) {
            bit<32> held;
            hold.read(held, meta.slot);
            if (held == number + 1) {
                hold.write(meta.slot, 0);
                meta.events = EVENT_STILL_HELD;
            } else {
                hold.write(meta.slot, number);
            }
        }
        meta.kind = Kind.REPORT;
    }
}

// The agent's packet-out: a leg goes on where another device's ended.
control Seed(in headers_t hdr, inout metadata_t meta) {
    apply {
        fin_sent.write(meta.slot, (bit<32>)hdr.leg.fin_sent);
        snd_max.write(meta.slot, hdr.leg.snd_max);
        snd_una.write(meta.slot, hdr.leg.snd_una);
        edge_out.write(meta.slot, hdr.leg.edge_out);
        ts_sent.write(meta.slot, hdr.leg.ts_sent);
        rcv_ack.write(meta.slot, hdr.leg.rcv_ack);
        edge_in.write(meta.slot, hdr.leg.edge_in);
        ts_given.write(meta.slot, hdr.leg.ts_given);
        latched.write(meta.slot, 0);
        revoked.write(meta.slot, 0);
        known.write(meta.slot, 0);
        told.write(meta.slot, 0);
        drained.write(meta.slot, 0);
        meta.kind = Kind.NOTHING;
    }
}

#endif
