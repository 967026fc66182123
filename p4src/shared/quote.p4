// The sequence number that an ICMP error quotes, in the space of whom it goes to: hosts ignore errors
// about what they have not sent (RFC 5927, 4).
#ifndef DYSCO_QUOTE_P4
#define DYSCO_QUOTE_P4

#include "edit.p4"
#include "leg.p4"

// An error about what came for the host; it goes where that came from.
control QuoteOut(inout headers_t hdr, inout metadata_t meta) {
    apply {
        bit<32> seq = hdr.quoted_tcp.seq - meta.leg.seq_in;
        meta.outgoing_path = meta.leg.path;
        if (meta.reg.known == 1 && !is_before(hdr.quoted_tcp.seq, meta.reg.cutoff_in)) {
            seq = hdr.quoted_tcp.seq + meta.leg.start_in - meta.reg.cutoff_in;
            meta.outgoing_path = ~meta.leg.path;
        }
        meta.tcp_sum = change_32(hdr.quoted_tcp.seq, seq);
        hdr.quoted_tcp.seq = seq;
    }
}

// An error about what the host sent.
control QuoteIn(inout headers_t hdr, inout metadata_t meta) {
    apply {
        bit<32> seq = hdr.quoted_tcp.seq - meta.leg.seq_out;
        if (meta.arrival_path != meta.leg.path) {
            seq = hdr.quoted_tcp.seq - meta.leg.start_out + meta.reg.cutoff_out;
        }
        meta.tcp_sum = change_32(hdr.quoted_tcp.seq, seq);
        hdr.quoted_tcp.seq = seq;
    }
}

#endif
