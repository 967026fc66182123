// A control message for the agent at a subsession's other end, in a segment of that subsession: where a NAT
// of the network, or a firewall, lets nothing else through.
//
//    agent --packet-out--> [ sequence number, ACK, window ] --subsession--> other device --packet-in--> agent
//
// Only the data plane knows numbers fresh enough for a strict NAT. The message lies in front of what the host
// has been given an ACK for: to a NAT it is data sent again; and to a host, were it ever to reach one, it is
// nothing but old.
#ifndef DYSCO_IN_BAND_P4
#define DYSCO_IN_BAND_P4

#include "edit.p4"
#include "leg.p4"

control InBand(inout metadata_t meta) {
    apply {
        bit<32> end;
        bit<32> acknowledged;
        bit<32> edge;
        snd_una.read(end, meta.slot);
        rcv_ack.read(acknowledged, meta.slot);
        edge_in.read(edge, meta.slot);
        if (meta.leg.has_floor == 1) {
            end = latest(end, meta.leg.floor);
        }
        if (meta.reg.switching == 1) {
            end = earliest(end, meta.reg.cutoff_out);
        }
        if (meta.reg.known == 1) {
            acknowledged = earliest(acknowledged, meta.reg.cutoff_in);
        }
        meta.edit.seq = end + meta.leg.seq_out - (bit<32>)meta.payload;
        meta.edit.ack = acknowledged - meta.leg.seq_in;
        meta.edit.window = window_of(edge - acknowledged, meta.leg.scale_own);
        meta.edited = 1;
        meta.outgoing_path = meta.leg.path;
    }
}

#endif
