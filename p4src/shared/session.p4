// Sessions and subsessions: one exact match each way.
//
//   host --[session's five-tuple]--> Outbound --[subsession's]--> network
//   host <--[session's five-tuple]-- Inbound  <--[subsession's]-- network
//
// A packet between two hosts of this device passes through both, in this order, a pass each.
// An ICMP error about a packet that went one way is looked up as a packet that goes the other way:
// FiveTuple reverses what it quotes, so that the same entries serve.
#ifndef DYSCO_SESSION_P4
#define DYSCO_SESSION_P4

#include "header.p4"

control FiveTuple(in headers_t hdr, inout metadata_t meta) {
    apply {
        if (hdr.tcp.isValid()) {
            meta.lookup.sport = hdr.tcp.sport;
            meta.lookup.dport = hdr.tcp.dport;
            if (hdr.ipv4.isValid()) {
                meta.lookup.src_v4 = hdr.ipv4.src;
                meta.lookup.dst_v4 = hdr.ipv4.dst;
            } else {
                meta.lookup.src_v6 = hdr.ipv6.src;
                meta.lookup.dst_v6 = hdr.ipv6.dst;
            }
        } else if (hdr.quoted_tcp.isValid()) {
            meta.lookup.sport = hdr.quoted_tcp.dport;
            meta.lookup.dport = hdr.quoted_tcp.sport;
            if (hdr.ipv4.isValid()) {
                meta.lookup.src_v4 = hdr.quoted_ipv4.dst;
                meta.lookup.dst_v4 = hdr.quoted_ipv4.src;
            } else {
                meta.lookup.src_v6 = hdr.quoted_ipv6.dst;
                meta.lookup.dst_v6 = hdr.quoted_ipv6.src;
            }
        }
    }
}

control Outbound(in headers_t hdr, inout metadata_t meta) {
    direct_counter(CounterType.packets_and_bytes) outbound_v4_counter;
    direct_counter(CounterType.packets_and_bytes) outbound_v6_counter;

    action to_subsession_v4(ipv4_t src, ipv4_t dst, l4_port_t sport, l4_port_t dport, slot_t slot) {
        outbound_v4_counter.count();
        meta.hit = 1;
        meta.slot = slot;
        meta.mapped.src_v4 = src;
        meta.mapped.dst_v4 = dst;
        meta.mapped.sport = sport;
        meta.mapped.dport = dport;
    }
    action to_subsession_v6(ipv6_t src, ipv6_t dst, l4_port_t sport, l4_port_t dport, slot_t slot) {
        outbound_v6_counter.count();
        meta.hit = 1;
        meta.slot = slot;
        meta.mapped.src_v6 = src;
        meta.mapped.dst_v6 = dst;
        meta.mapped.sport = sport;
        meta.mapped.dport = dport;
    }
    table outbound_v4 {
        key = {
            meta.src_host     : exact @name("host");
            meta.lookup.src_v4 : exact @name("src");
            meta.lookup.dst_v4 : exact @name("dst");
            meta.lookup.sport  : exact @name("sport");
            meta.lookup.dport  : exact @name("dport");
        }
        actions = { to_subsession_v4; @defaultonly NoAction; }
        default_action = NoAction();
        counters = outbound_v4_counter;
        support_timeout = true;
        size = 131072;
    }
    table outbound_v6 {
        key = {
            meta.src_host     : exact @name("host");
            meta.lookup.src_v6 : exact @name("src");
            meta.lookup.dst_v6 : exact @name("dst");
            meta.lookup.sport  : exact @name("sport");
            meta.lookup.dport  : exact @name("dport");
        }
        actions = { to_subsession_v6; @defaultonly NoAction; }
        default_action = NoAction();
        counters = outbound_v6_counter;
        support_timeout = true;
        size = 131072;
    }

    apply {
        meta.hit = 0;
        if (hdr.ipv4.isValid()) {
            outbound_v4.apply();
        } else {
            outbound_v6.apply();
        }
    }
}

control Inbound(in headers_t hdr, inout metadata_t meta) {
    direct_counter(CounterType.packets_and_bytes) inbound_v4_counter;
    direct_counter(CounterType.packets_and_bytes) inbound_v6_counter;

    action to_session_v4(ipv4_t src, ipv4_t dst, l4_port_t sport, l4_port_t dport, slot_t slot,
                         bit<1> path) {
        inbound_v4_counter.count();
        meta.hit = 1;
        meta.slot = slot;
        meta.arrival_path = path;
        meta.mapped.src_v4 = src;
        meta.mapped.dst_v4 = dst;
        meta.mapped.sport = sport;
        meta.mapped.dport = dport;
    }
    action to_session_v6(ipv6_t src, ipv6_t dst, l4_port_t sport, l4_port_t dport, slot_t slot,
                         bit<1> path) {
        inbound_v6_counter.count();
        meta.hit = 1;
        meta.slot = slot;
        meta.arrival_path = path;
        meta.mapped.src_v6 = src;
        meta.mapped.dst_v6 = dst;
        meta.mapped.sport = sport;
        meta.mapped.dport = dport;
    }
    table inbound_v4 {
        key = {
            meta.dst_host     : exact @name("host");
            meta.lookup.src_v4 : exact @name("src");
            meta.lookup.dst_v4 : exact @name("dst");
            meta.lookup.sport  : exact @name("sport");
            meta.lookup.dport  : exact @name("dport");
        }
        actions = { to_session_v4; @defaultonly NoAction; }
        default_action = NoAction();
        counters = inbound_v4_counter;
        support_timeout = true;
        size = 131072;
    }
    table inbound_v6 {
        key = {
            meta.dst_host     : exact @name("host");
            meta.lookup.src_v6 : exact @name("src");
            meta.lookup.dst_v6 : exact @name("dst");
            meta.lookup.sport  : exact @name("sport");
            meta.lookup.dport  : exact @name("dport");
        }
        actions = { to_session_v6; @defaultonly NoAction; }
        default_action = NoAction();
        counters = inbound_v6_counter;
        support_timeout = true;
        size = 131072;
    }

    apply {
        meta.hit = 0;
        if (hdr.ipv4.isValid()) {
            inbound_v4.apply();
        } else {
            inbound_v6.apply();
        }
    }
}

#endif
