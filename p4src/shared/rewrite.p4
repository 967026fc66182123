// Puts the mapped five-tuple into the packet and brings its checksums along, incrementally
// (RFC 1624, eqn. 3: HC' = ~(~HC + ~m + m')), so that a corrupt segment stays corrupt end to end.
//
//   TCP:         addresses and ports; the IPv4 and TCP checksums follow, the latter also what changed
//                in the header already (meta.tcp_sum).
//   ICMP error:  the quoted five-tuple (reversed again) and the outer destination, which is the
//                quoted source; the outer source too where the error leaves a host of ours, so that
//                no router on the way sees its own address come back.
//
// The quoted TCP checksum is left alone: RFC 792 quotes 8 bytes, which end before it.
#ifndef DYSCO_REWRITE_P4
#define DYSCO_REWRITE_P4

#include "checksum.p4"

control Rewrite(inout headers_t hdr, inout metadata_t meta, in bool outward) {
    apply {
        bit<32> addresses;  // what changes in the five-tuple: ~before + after
        bit<32> l4;         // and beside the addresses
        bit<32> outer;      // and in an ICMP error's own addresses

        if (hdr.ipv4.isValid()) {
            addresses = change_v4(meta.lookup.src_v4, meta.mapped.src_v4)
                      + change_v4(meta.lookup.dst_v4, meta.mapped.dst_v4);
        } else {
            addresses = change_v6(meta.lookup.src_v6, meta.mapped.src_v6)
                      + change_v6(meta.lookup.dst_v6, meta.mapped.dst_v6);
        }
        l4 = change_16(meta.lookup.sport, meta.mapped.sport)
           + change_16(meta.lookup.dport, meta.mapped.dport) + meta.tcp_sum;

        if (hdr.tcp.isValid()) {
            hdr.tcp.sport = meta.mapped.sport;
            hdr.tcp.dport = meta.mapped.dport;
            Patch.apply(hdr.tcp.checksum, addresses + l4);
            if (hdr.ipv4.isValid()) {
                hdr.ipv4.src = meta.mapped.src_v4;
                hdr.ipv4.dst = meta.mapped.dst_v4;
                Patch.apply(hdr.ipv4.checksum, addresses);
            } else {
                hdr.ipv6.src = meta.mapped.src_v6;
                hdr.ipv6.dst = meta.mapped.dst_v6;
            }
        } else {
            hdr.quoted_tcp.sport = meta.mapped.dport;
            hdr.quoted_tcp.dport = meta.mapped.sport;
            if (hdr.ipv4.isValid()) {
                // The quoted checksum moves against its addresses: the ICMP one sees ports only.
                hdr.quoted_ipv4.src = meta.mapped.dst_v4;
                hdr.quoted_ipv4.dst = meta.mapped.src_v4;
                Patch.apply(hdr.quoted_ipv4.checksum, addresses);
                Patch.apply(hdr.icmp.checksum, l4);
                outer = change_v4(hdr.ipv4.dst, meta.mapped.dst_v4);
                hdr.ipv4.dst = meta.mapped.dst_v4;
                if (outward) {
                    outer = outer + change_v4(hdr.ipv4.src, meta.mapped.src_v4);
                    hdr.ipv4.src = meta.mapped.src_v4;
                }
                Patch.apply(hdr.ipv4.checksum, outer);
            } else {
                hdr.quoted_ipv6.src = meta.mapped.dst_v6;
                hdr.quoted_ipv6.dst = meta.mapped.src_v6;
                outer = change_v6(hdr.ipv6.dst, meta.mapped.dst_v6);
                hdr.ipv6.dst = meta.mapped.dst_v6;
                if (outward) {
                    outer = outer + change_v6(hdr.ipv6.src, meta.mapped.src_v6);
                    hdr.ipv6.src = meta.mapped.src_v6;
                }
                // ICMPv6 covers the pseudo-header and all that is quoted (RFC 4443, 2.3).
                outer = outer + addresses + l4;
                Patch.apply(hdr.icmp.checksum, outer);
            }
        }
    }
}

#endif
