// How a packet gets on. Subsessions are routed by their destination address, to a neighbour's MAC; all
// else is bridged, untouched, as if the device were a wire. Both only say where; an architecture's glue
// sends.
#ifndef DYSCO_ROUTE_P4
#define DYSCO_ROUTE_P4

#include "header.p4"

control Route(inout headers_t hdr, inout metadata_t meta) {
    action next_hop(port_t port, mac_t dst_mac) {
        meta.out_port = port;
        hdr.ethernet.dst = dst_mac;
        meta.forwarded = 1;
    }
    action to_host(port_t port, mac_t dst_mac, host_id_t host) {
        meta.out_port = port;
        hdr.ethernet.dst = dst_mac;
        meta.dst_host = host;
        meta.forwarded = 1;
    }
    table route_v4 {
        key = { hdr.ipv4.dst : lpm @name("dst"); }
        actions = { next_hop; to_host; @defaultonly NoAction; }
        default_action = NoAction();
        size = 4096;
    }
    table route_v6 {
        key = { hdr.ipv6.dst : lpm @name("dst"); }
        actions = { next_hop; to_host; @defaultonly NoAction; }
        default_action = NoAction();
        size = 4096;
    }

    apply {
        if (hdr.ipv4.isValid()) {
            route_v4.apply();
        } else if (hdr.ipv6.isValid()) {
            route_v6.apply();
        }
    }
}

control Bridge(in headers_t hdr, inout metadata_t meta) {
    action bridge_to_host(port_t port, host_id_t host) {
        meta.out_port = port;
        meta.dst_host = host;
        meta.forwarded = 1;
    }
    action bridge_to_port(port_t port) {
        meta.out_port = port;
        meta.forwarded = 1;
    }
    // Unicast of a host of ours leaves at its uplink; what else there is floods.
    action bridge_elsewhere() {
        meta.out_port = meta.uplink;
        meta.forwarded = (bit<1>)(meta.src_host != NO_HOST) & ~hdr.ethernet.dst[40:40];
        meta.flood = ~meta.forwarded;
    }
    table bridge {
        key = { hdr.ethernet.dst : exact @name("dst_mac"); }
        actions = { bridge_to_host; bridge_to_port; bridge_elsewhere; }
        default_action = bridge_elsewhere();
        size = 4096;
    }

    apply {
        bridge.apply();
    }
}

#endif
