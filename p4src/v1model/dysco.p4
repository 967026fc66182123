// Dysco's data plane for v1model (bmv2, softnic).
//
//              from a host of ours                         to a host of ours
//   Ports --> Outbound --hit--> Departure --> Route --> (another pass)
//     |          |                               |           |
//     |         miss ---------> Bridge --------> out         v
//     |          |                 '------------------> Inbound --hit--> Arrival --> out
//     |          +-- SYN of a session, a policy              |     miss -----------> out
//     |              or a middlebox: punt                    +-- SYN with a Dysco header,
//     +-- packet-out: out at a port, or Route, or Bridge,        control message: punt
//         or as if from a host, or for a leg                     announcement: turned round
//
// A pass is for one leg of a session: what is routed to a host of this device takes another one. So does
// what a rule splits off: a clone, made into the second segment in a pass of its own (Kind, COPY_EXTRA).
//
// Copies of SYN-ACK, FIN, RST: what a host sent by an ingress clone, what it receives by an egress
// clone, so that two hosts of one device each see their own view.
#include <core.p4>
#include <v1model.p4>

#include "../shared/arrival.p4"
#include "../shared/gate.p4"
#include "../shared/handover.p4"
#include "../shared/in_band.p4"
#include "../shared/parser.p4"
#include "../shared/policy.p4"
#include "../shared/ports.p4"
#include "../shared/punt.p4"
#include "../shared/quote.p4"
#include "../shared/rewrite.p4"
#include "../shared/route.p4"
#include "../shared/session.p4"
#include "../shared/stats.p4"

const bit<32> INSTANCE_INGRESS_CLONE = 1;
const bit<32> INSTANCE_EGRESS_CLONE = 2;
const bit<32> INSTANCE_REPLICATION = 5;

// Checksums are brought along in Rewrite: nothing is verified here, and nothing recomputed.
control NoVerify(inout headers_t hdr, inout metadata_t meta) {
    apply { }
}

control NoCompute(inout headers_t hdr, inout metadata_t meta) {
    apply { }
}

// What a host of ours sends, or its agent: `departs` if it is of a session, `punted` if it is for the agent.
control FromHost(inout headers_t hdr, inout metadata_t meta, in bool has_tuple, in bool first_syn,
                 out bool departs, out bool punted) {
    Outbound() outbound;
    PolicyLookup() policies;

    apply {
        departs = false;
        punted = false;
        if (meta.src_host != NO_HOST && has_tuple) {
            outbound.apply(hdr, meta);
            if (first_syn) {
                if (meta.hit == 0) {
                    policies.apply(hdr, meta);
                }
                if (meta.hit == 1 || meta.src_is_middlebox == 1 || meta.policy != NO_POLICY) {
                    PacketIn.apply(hdr, meta, meta.src_host, Reason.HOST_SYN);
                    punted = true;
                }
            } else if (meta.hit == 1) {
                departs = true;
                bool watched;
                IsWatched.apply(hdr, watched);
                if (watched && meta.again == Kind.AS_IS) {
                    meta.copy_host = meta.src_host;
                    meta.copy_reason = Reason.SENT;
                    meta.copies = COPY_WATCH;
                }
            }
        }
    }
}

// What goes to a host of ours: `arrives` if it is of a session, `punted` if it is for the agent.
control ToHost(inout headers_t hdr, inout metadata_t meta, in bool has_tuple, in bool first_syn,
               out bool arrives, out bool punted) {
    Inbound() inbound;

    apply {
        arrives = false;
        punted = false;
        bool neighbour;
        IsNeighbour.apply(hdr, neighbour);
        if (neighbour) {
            meta.copy_host = meta.dst_host;
            meta.copy_reason = Reason.NEIGHBOUR;
            meta.copies = COPY_WATCH;
        } else if (meta.dysco == 1) {
            PacketIn.apply(hdr, meta, meta.dst_host, Reason.DYSCO_SYN);
            punted = true;
        } else if (meta.for_agent == 1) {
            PacketIn.apply(hdr, meta, meta.dst_host, Reason.CONTROL);
            punted = true;
        } else if (has_tuple && !first_syn) {
            inbound.apply(hdr, meta);
            arrives = meta.hit == 1;
        }
    }
}

control DyscoIngress(inout headers_t hdr, inout metadata_t meta,
                inout standard_metadata_t standard) {
    Ports() ports;
    FromHost() from_host;
    Route() route;
    Bridge() bridge;
    ToHost() to_host;
    Tokens() tokens;
    Legs() legs_of;
    SecondPath() second_path;
    Rewrite() rewrite;
    CountDrop() count_drop;

    apply {
        bool has_tuple = hdr.tcp.isValid() || hdr.quoted_tcp.isValid();
        bool first_syn = hdr.tcp.isValid() && hdr.tcp.syn == 1 && hdr.tcp.ack_flag == 0;
        bool by_route = false;
        bool by_bridge = false;
        bool departs = false;
        bool arrives = false;
        bool punted = false;
        bool dropped = false;
        Drop reason = Drop.NO_ROUTE;
        Submit submit = Submit.HOST;

        // Whose packet it is: of which host, and of which leg.
        FiveTuple.apply(hdr, meta);
        if (meta.again == Kind.AS_IS) {
            meta.in_port = standard.ingress_port;
        } else {
            // Another pass: what the last one meant for its own copies is over.
            meta.copy_host = NO_HOST;
            meta.copy_reason = Reason.NONE;
            meta.received_by = NO_HOST;
            meta.frame = 0;
            meta.extra = Kind.AS_IS;
        }
        if (hdr.packet_out.isValid()) {
            meta.in_port = (port_t)hdr.packet_out.port;
            submit = hdr.packet_out.submit;
            hdr.packet_out.setInvalid();
        }
        ports.apply(meta);
        if (meta.again == Kind.DELIVER) {
            meta.slot = NO_SLOT;
            meta.events = 0;
            meta.dst_host = meta.deliver_to;
            meta.out_port = meta.deliver_port;
        } else if (meta.again == Kind.ANSWER || meta.again == Kind.REPORT
                   || meta.again == Kind.ANNOUNCE) {
            meta.kind = meta.again;
        } else if (submit == Submit.HOST || submit == Submit.IN_BAND || submit == Submit.RELEASED) {
            from_host.apply(hdr, meta, has_tuple, first_syn, departs, punted);
            by_bridge = !departs && !punted && submit != Submit.IN_BAND;
        } else if (submit == Submit.ROUTE) {
            by_route = true;
        } else if (submit == Submit.BRIDGE) {
            by_bridge = true;
        } else if (submit == Submit.PORT) {
            meta.out_port = meta.in_port;
        } else if (submit == Submit.QUERY && hdr.leg.isValid()) {
            meta.slot = hdr.leg.slot;
            meta.kind = Kind.REPORT;
        } else if ((submit == Submit.END_HOLD || submit == Submit.SEED) && hdr.leg.isValid()) {
            meta.slot = hdr.leg.slot;
        } else if (!hdr.announcement.isValid()
                   || (submit != Submit.LATCH && submit != Submit.REVOKE)) {
            reason = Drop.BAD_PACKET_OUT;
            dropped = true;
        }
        if (by_bridge) {
            bridge.apply(hdr, meta);
            if (meta.forwarded == 1 && meta.out_port == meta.in_port) {
                reason = Drop.HAIRPIN;
                dropped = true;
            }
        }
        if (!dropped && meta.dst_host != NO_HOST) {
            to_host.apply(hdr, meta, has_tuple, first_syn, arrives, punted);
        }
        bool announced = hdr.announcement.isValid() && !dropped
            && (meta.dst_host != NO_HOST || submit == Submit.LATCH || submit == Submit.REVOKE);
        if (announced) {
            tokens.apply(hdr, meta);
        }
        if (meta.slot >= SLOTS) {
            meta.slot = NO_SLOT;
        }
        if (meta.slot != NO_SLOT) {
            legs_of.apply(meta);
        } else if (submit == Submit.IN_BAND) {
            // Of a session that is over, or not tracked: nobody knows its numbers.
            departs = false;
            reason = Drop.BAD_PACKET_OUT;
            dropped = true;
        }

        // What becomes of it.
        if (announced) {
            if (submit != Submit.LATCH && submit != Submit.REVOKE) {
                Announced.apply(hdr, meta);
                by_route = meta.kind == Kind.ANSWER;
                meta.dst_host = NO_HOST;
            } else if (meta.leg.has_new == 0) {
                reason = Drop.BAD_PACKET_OUT;
                dropped = true;
            } else if (submit == Submit.LATCH) {
                LatchOut.apply(hdr, meta);
                by_route = meta.kind != Kind.REPORT;
            } else {
                Revoke.apply(meta);
            }
        } else if (meta.slot != NO_SLOT && hdr.tcp.isValid()) {
            if (meta.leg.gate != GATE_OPEN && (departs || arrives)
                && submit != Submit.IN_BAND) {
                PassGate.apply(meta, departs && submit != Submit.RELEASED);
            }
            LoadEdit.apply(hdr, meta);
            if (submit == Submit.IN_BAND) {
                InBand.apply(meta);
            } else if (meta.kind == Kind.NOTHING || meta.kind == Kind.HELD) {
                departs = false;
                arrives = false;
            } else if (departs) {
                Departure.apply(hdr, meta);
            } else if (arrives) {
                Arrival.apply(hdr, meta);
            }
        } else if (submit == Submit.END_HOLD) {
            EndHold.apply(meta, hdr.leg.latched);
        } else if (submit == Submit.SEED) {
            Seed.apply(hdr, meta);
        } else if (meta.slot != NO_SLOT && hdr.quoted_tcp.isValid()) {
            if (departs) {
                QuoteOut.apply(hdr, meta);
            } else {
                QuoteIn.apply(hdr, meta);
            }
        }
        if (departs && meta.outgoing_path == 1) {
            second_path.apply(hdr, meta);
        }
        if (meta.kind == Kind.ANSWER && !announced) {
            departs = false;
            arrives = false;
            if (meta.reg.known == 1) {
                Answer.apply(hdr, meta);
                by_route = true;
                meta.dst_host = NO_HOST;
            } else {
                meta.kind = Kind.NOTHING;   // settled or withdrawn meanwhile
            }
        } else if (meta.kind == Kind.ANNOUNCE) {
            if (meta.reg.switching == 1) {
                MakeAnnouncement.apply(hdr, meta);
                by_route = true;
            } else {
                meta.kind = Kind.NOTHING;
            }
        }
        if (meta.edited == 1) {
            StoreEdit.apply(hdr, meta);
            if (meta.bare == 1) {
                Strip.apply(hdr, meta);
            }
        }
        if (meta.kind == Kind.ANSWER || meta.kind == Kind.HOST_ANSWER) {
            TurnRound.apply(hdr);
        }
        if (meta.kind == Kind.REPORT || meta.kind == Kind.SPLIT || meta.kind == Kind.NEW_PATH
            || meta.kind == Kind.HELD) {
            punted = true;
            Reason why = Reason.NEW_PATH;
            host_id_t host = meta.dst_host;
            if (meta.kind == Kind.REPORT) {
                why = Reason.LEG;
                MakeReport.apply(hdr, meta);
            } else if (meta.kind == Kind.SPLIT) {
                why = Reason.SPLIT;
                host = meta.src_host;
            } else if (meta.kind == Kind.HELD) {
                why = Reason.HELD;
                host = meta.src_host;
            }
            PacketIn.apply(hdr, meta, host, why);
        } else if (meta.kind == Kind.HOST_ANSWER) {
            meta.out_port = meta.in_port;
        } else if ((departs || arrives) && meta.kind != Kind.NOTHING) {
            if (meta.hit == 1) {
                rewrite.apply(hdr, meta, departs);
                by_route = departs;
            } else {
                dropped = true;     // its second path is not known
            }
        }
        if (arrives && !punted && meta.kind != Kind.NOTHING) {
            bool watched;
            IsWatched.apply(hdr, watched);
            if (watched) {
                meta.received_by = meta.dst_host;
            }
        }
        if (meta.bare == 1) {
            Seal.apply(hdr, meta.l4_length);
        }
        if (by_route) {
            route.apply(hdr, meta);
            if (meta.forwarded == 0) {
                dropped = true;
            } else if (meta.dst_host != NO_HOST) {
                meta.delivers = 1;
                meta.deliver_to = meta.dst_host;
                meta.deliver_port = meta.out_port;
            }
        }

        // And where it goes.
        standard.egress_spec = punted ? CPU_PORT : meta.out_port;
        if (meta.flood == 1) {
            standard.mcast_grp = FLOOD_GROUP;
        }
        if (dropped) {
            count_drop.apply(reason);
        }
        if (dropped || meta.kind == Kind.NOTHING) {
            mark_to_drop(standard);
        }
        if (meta.extra != Kind.AS_IS) {
            meta.copies = meta.copies | COPY_EXTRA;
        }
        if (meta.copies != 0) {
            clone_preserving_field_list(CloneType.I2E, (bit<32>)meta.copies, 1);
        }
    }
}

control DyscoEgress(inout headers_t hdr, inout metadata_t meta,
               inout standard_metadata_t standard) {
    apply {
        if (standard.instance_type == INSTANCE_INGRESS_CLONE) {
            if (standard.egress_rid == (bit<16>)COPY_EXTRA) {
                meta.again = meta.extra;
                recirculate_preserving_field_list(1);
            } else if (standard.egress_rid == (bit<16>)COPY_REPORT) {
                meta.again = Kind.REPORT;
                recirculate_preserving_field_list(1);
            } else if (standard.egress_rid == (bit<16>)COPY_ANNOUNCE) {
                meta.again = Kind.ANNOUNCE;
                recirculate_preserving_field_list(1);
            } else {
                PacketIn.apply(hdr, meta, meta.copy_host, meta.copy_reason);
            }
        } else if (standard.instance_type == INSTANCE_EGRESS_CLONE) {
            PacketIn.apply(hdr, meta, meta.received_by, Reason.RECEIVED);
            if (meta.frame != 0) {
                truncate(meta.frame + PACKET_IN_SIZE);
            }
        } else if (standard.instance_type == INSTANCE_REPLICATION
                   && standard.egress_port == meta.in_port) {
            mark_to_drop(standard); // a flood does not go back
        } else {
            if (meta.received_by != NO_HOST) {
                clone_preserving_field_list(CloneType.E2E, CPU_CLONE_SESSION, 1);
            }
            if (meta.frame != 0) {
                truncate(meta.frame);
            }
            if (meta.delivers == 1) {
                meta.again = Kind.DELIVER;
                recirculate_preserving_field_list(1);
            }
        }
    }
}

V1Switch(DyscoParser(), NoVerify(), DyscoIngress(), DyscoEgress(), NoCompute(),
         DyscoDeparser()) main;
