// Everything dropped is counted, with its reason. Sessions are counted by their own entries.
#ifndef DYSCO_STATS_P4
#define DYSCO_STATS_P4

#include "header.p4"

control CountDrop(in Drop reason) {
    counter(8, CounterType.packets_and_bytes) drops;
    apply {
        drops.count((bit<32>)(bit<8>)reason);
    }
}

#endif
