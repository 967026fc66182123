// Where a packet came in: at a host of ours, or from the network. Both are table entries, not code.
#ifndef DYSCO_PORTS_P4
#define DYSCO_PORTS_P4

#include "header.p4"

control Ports(inout metadata_t meta) {
    action host_port(host_id_t host, bit<1> is_middlebox, port_t uplink) {
        meta.src_host = host;
        meta.src_is_middlebox = is_middlebox;
        meta.uplink = uplink;
    }
    action network_port() {
    }
    table port {
        key = { meta.in_port : exact @name("ingress_port"); }
        actions = { host_port; network_port; }
        default_action = network_port();
        size = 256;
    }

    apply {
        port.apply();
    }
}

#endif
