// What goes to the controller: SYNs that need an agent (the packet itself, and nowhere else), and copies of
// what opens or ends a session, and of what tells a neighbour's MAC (the packet goes on).
//
// A copy of what a host sent shows it as the host sent it (a clone of the ingress packet); a copy of what
// a host receives shows it as the host does (a clone at the end of egress). So each of two hosts of one
// device is shown its own view of the same packet, in the one clone that each pipeline allows.
#ifndef DYSCO_PUNT_P4
#define DYSCO_PUNT_P4

#include "header.p4"

control PacketIn(inout headers_t hdr, in metadata_t meta, in host_id_t host, in Reason reason) {
    apply {
        hdr.packet_in.setValid();
        hdr.packet_in.port = (bit<16>)meta.in_port;
        hdr.packet_in.host = host;
        hdr.packet_in.policy = meta.policy;
        hdr.packet_in.reason = reason;
    }
}

// SYN-ACK, FIN and RST.
control IsWatched(in headers_t hdr, out bool watched) {
    apply {
        watched = hdr.tcp.isValid() && (hdr.tcp.fin == 1 || hdr.tcp.rst == 1
            || (hdr.tcp.syn == 1 && hdr.tcp.ack_flag == 1));
    }
}

// ARP replies and neighbour advertisements.
control IsNeighbour(in headers_t hdr, out bool neighbour) {
    apply {
        neighbour = (hdr.arp.isValid() && hdr.arp.operation == ARP_REPLY)
            || (hdr.ipv6.isValid() && hdr.icmp.isValid()
                && hdr.icmp.type == ICMPV6_NEIGHBOUR_ADVERTISEMENT);
    }
}

#endif
