// Which new sessions take a service chain: only a host's first SYN is asked about. Session affinity is
// free: an existing session never looks here.
#ifndef DYSCO_POLICY_P4
#define DYSCO_POLICY_P4

#include "header.p4"

control PolicyLookup(in headers_t hdr, inout metadata_t meta) {
    direct_counter(CounterType.packets_and_bytes) policy_v4_counter;
    direct_counter(CounterType.packets_and_bytes) policy_v6_counter;

    action chain(policy_id_t policy) {
        meta.policy = policy;
    }
    action direct() {
        meta.policy = NO_POLICY;
    }
    table policy_v4 {
        key = {
            meta.src_host     : ternary @name("host");
            meta.lookup.src_v4 : ternary @name("src");
            meta.lookup.dst_v4 : ternary @name("dst");
            meta.lookup.sport  : ternary @name("sport");
            meta.lookup.dport  : ternary @name("dport");
            hdr.ipv4.dscp     : ternary @name("dscp");
        }
        actions = { chain; direct; }
        default_action = direct();
        counters = policy_v4_counter;
        size = 4096;
    }
    table policy_v6 {
        key = {
            meta.src_host     : ternary @name("host");
            meta.lookup.src_v6 : ternary @name("src");
            meta.lookup.dst_v6 : ternary @name("dst");
            meta.lookup.sport  : ternary @name("sport");
            meta.lookup.dport  : ternary @name("dport");
            hdr.ipv6.dscp     : ternary @name("dscp");
        }
        actions = { chain; direct; }
        default_action = direct();
        counters = policy_v6_counter;
        size = 4096;
    }

    apply {
        if (hdr.ipv4.isValid()) {
            policy_v4.apply();
        } else {
            policy_v6.apply();
        }
    }
}

#endif
