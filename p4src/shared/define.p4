// Constants and types of the Dysco data plane: the one place for numbers that Python must know too.
// tests/p4/test_constants.py holds the Python side to them.
#ifndef DYSCO_DEFINE_P4
#define DYSCO_DEFINE_P4

typedef bit<9>   port_t;
typedef bit<48>  mac_t;
typedef bit<32>  ipv4_t;
typedef bit<128> ipv6_t;
typedef bit<16>  l4_port_t;
typedef bit<16>  host_id_t;     // a host behind this device; NO_HOST: not one of ours
typedef bit<16>  policy_id_t;   // NO_POLICY: none matched

const host_id_t   NO_HOST = 0;
const policy_id_t NO_POLICY = 0;

const port_t  CPU_PORT = 255;
const bit<32> CPU_CLONE_SESSION = 1;
const bit<16> FLOOD_GROUP = 1;

const bit<16> ETHERTYPE_IPV4 = 0x0800;
const bit<16> ETHERTYPE_ARP = 0x0806;
const bit<16> ETHERTYPE_IPV6 = 0x86dd;
const bit<8>  PROTO_ICMP = 1;
const bit<8>  PROTO_TCP = 6;
const bit<8>  PROTO_ICMPV6 = 58;
const bit<8>  ICMPV6_NEIGHBOUR_ADVERTISEMENT = 136;
const bit<16> ARP_REPLY = 2;

// First bytes of a Dysco header, in front of a SYN's payload: "DySC". However short it is cut, such a SYN
// is for the agent, which counts it: no host shall see it.
const bit<32> DYSCO_MAGIC = 0x44795343;
const bit<16> DYSCO_MAGIC_SIZE = 4;

// Why a packet went to the controller.
enum bit<8> Reason {
    NONE = 0,
    HOST_SYN = 1,       // a host's SYN: first or again, with a policy or from a middlebox
    DYSCO_SYN = 2,      // a SYN with a Dysco header for one of our hosts
    SENT = 3,           // copy of a SYN-ACK, FIN or RST that a host of ours sent in a session
    RECEIVED = 4,       // copy of one that a host of ours receives
    NEIGHBOUR = 5       // copy of an ARP reply or a neighbour advertisement
}

// What the pipeline does with a packet-out.
enum bit<8> Submit {
    PORT = 0,           // leaves at `port` as it is
    ROUTE = 1,          // routed by its destination address, like a subsession's packet
    BRIDGE = 2          // bridged as if it had come in at `port`, outside of any session
}

// Index of the `drops` counter.
enum bit<8> Drop {
    NO_ROUTE = 0,       // a subsession's packet, but no route to its next host
    HAIRPIN = 1,        // would leave where it came in
    BAD_PACKET_OUT = 2  // packet-out with an unknown submit mode
}

#endif
