// Dysco's data plane for v1model (bmv2, softnic).
//
//            from a host of ours                            to a host of ours
//   Ports --> Outbound --hit--> Rewrite --> Route --+--> Inbound --hit--> Rewrite --> out
//     |           |                                 |       |
//     |          miss ----------------> Bridge -----+      miss -----------------> out
//     |           |                                 |
//     |           +-- SYN of a session, a policy    +-- SYN with a Dysco header
//     |               or a middlebox: punt              for one of our hosts: punt
//     +-- packet-out: out at a port, or Route, or Bridge
//
// Copies of SYN-ACK, FIN, RST: what a host sent by an ingress clone, what it receives by an egress
// clone, so that two hosts of one device each see their own view.
#include <core.p4>
#include <v1model.p4>

#include "../shared/parser.p4"
#include "../shared/policy.p4"
#include "../shared/ports.p4"
#include "../shared/punt.p4"
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

// What a host of ours sends, or its agent: `decided` when nothing is left to be done with it.
control FromHost(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard,
                 in bool has_tuple, in bool first_syn, out bool by_route, out bool decided) {
    Outbound() outbound;
    PolicyLookup() policies;
    Rewrite() rewrite;

    apply {
        by_route = false;
        decided = false;
        if (meta.src_host != NO_HOST && has_tuple) {
            outbound.apply(hdr, meta);
            if (first_syn) {
                if (meta.hit == 0) {
                    policies.apply(hdr, meta);
                }
                if (meta.hit == 1 || meta.src_is_middlebox == 1 || meta.policy != NO_POLICY) {
                    PacketIn.apply(hdr, meta, meta.src_host, Reason.HOST_SYN);
                    standard.egress_spec = CPU_PORT;
                    decided = true;
                }
            } else if (meta.hit == 1) {
                bool watched;
                IsWatched.apply(hdr, watched);
                if (watched) {
                    meta.copy_host = meta.src_host;
                    meta.copy_reason = Reason.SENT;
                    clone_preserving_field_list(CloneType.I2E, CPU_CLONE_SESSION, 1);
                }
                rewrite.apply(hdr, meta, true);
                by_route = true;
            }
        }
    }
}

control ToHost(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard,
               in bool has_tuple, in bool first_syn) {
    Inbound() inbound;
    Rewrite() rewrite;

    apply {
        bool neighbour;
        IsNeighbour.apply(hdr, neighbour);
        if (neighbour) {
            meta.copy_host = meta.dst_host;
            meta.copy_reason = Reason.NEIGHBOUR;
            clone_preserving_field_list(CloneType.I2E, CPU_CLONE_SESSION, 1);
        } else if (meta.dysco == 1) {
            PacketIn.apply(hdr, meta, meta.dst_host, Reason.DYSCO_SYN);
            standard.egress_spec = CPU_PORT;
        } else if (has_tuple && !first_syn) {
            inbound.apply(hdr, meta);
            if (meta.hit == 1) {
                bool watched;
                IsWatched.apply(hdr, watched);
                if (watched) {
                    meta.received_by = meta.dst_host;
                }
                rewrite.apply(hdr, meta, false);
            }
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
    CountDrop() count_drop;

    apply {
        bool has_tuple = hdr.tcp.isValid() || hdr.quoted_tcp.isValid();
        bool first_syn = hdr.tcp.isValid() && hdr.tcp.syn == 1 && hdr.tcp.ack_flag == 0;
        bool by_route = false;
        bool decided = false;
        bool dropped = false;
        Drop reason = Drop.NO_ROUTE;

        FiveTuple.apply(hdr, meta);
        meta.in_port = standard.ingress_port;
        if (hdr.packet_out.isValid()) {
            meta.in_port = (port_t)hdr.packet_out.port;
        }
        ports.apply(meta);
        if (!hdr.packet_out.isValid()) {
            from_host.apply(hdr, meta, standard, has_tuple, first_syn, by_route, decided);
        } else if (hdr.packet_out.submit == Submit.ROUTE) {
            by_route = true;
        } else if (hdr.packet_out.submit == Submit.PORT) {
            standard.egress_spec = meta.in_port;
            decided = true;
        } else if (hdr.packet_out.submit != Submit.BRIDGE) {
            reason = Drop.BAD_PACKET_OUT;
            dropped = true;
        }
        hdr.packet_out.setInvalid();

        if (!decided && !dropped) {
            if (by_route) {
                route.apply(hdr, meta);
                dropped = meta.forwarded == 0;
            } else {
                bridge.apply(hdr, meta);
                reason = Drop.HAIRPIN;
                dropped = meta.forwarded == 1 && meta.out_port == meta.in_port;
            }
            standard.egress_spec = meta.out_port;
            if (meta.flood == 1) {
                standard.mcast_grp = FLOOD_GROUP;
            }
            if (!dropped && meta.dst_host != NO_HOST) {
                to_host.apply(hdr, meta, standard, has_tuple, first_syn);
            }
        }
        if (dropped) {
            count_drop.apply(reason);
            mark_to_drop(standard);
        }
    }
}

control DyscoEgress(inout headers_t hdr, inout metadata_t meta,
               inout standard_metadata_t standard) {
    apply {
        if (standard.instance_type == INSTANCE_INGRESS_CLONE) {
            PacketIn.apply(hdr, meta, meta.copy_host, meta.copy_reason);
        } else if (standard.instance_type == INSTANCE_EGRESS_CLONE) {
            PacketIn.apply(hdr, meta, meta.received_by, Reason.RECEIVED);
        } else if (standard.instance_type == INSTANCE_REPLICATION
                   && standard.egress_port == meta.in_port) {
            mark_to_drop(standard); // a flood does not go back
        } else if (meta.received_by != NO_HOST) {
            clone_preserving_field_list(CloneType.E2E, CPU_CLONE_SESSION, 1);
        }
    }
}

V1Switch(DyscoParser(), NoVerify(), DyscoIngress(), DyscoEgress(), NoCompute(),
         DyscoDeparser()) main;
