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

typedef bit<32>  slot_t;        // a leg that is tracked; NO_SLOT: none

const host_id_t   NO_HOST = 0;
const policy_id_t NO_POLICY = 0;
const slot_t      NO_SLOT = 0;
const bit<32>     SLOTS = 32768;

const port_t  CPU_PORT = 255;
const bit<16> FLOOD_GROUP = 1;

// What an ingress clone is for: a bit each, which is also the replica's egress_rid. The clone session's
// number is the sum of what is wanted, so that one clone a pass serves them all.
const bit<8> COPY_WATCH = 1;    // a copy for the controller
const bit<8> COPY_EXTRA = 2;    // a second segment, made in a pass of its own
const bit<8> COPY_REPORT = 4;   // a report of the leg's registers, likewise
const bit<8> COPY_ANNOUNCE = 8; // an announcement, likewise
const bit<32> CPU_CLONE_SESSION = 1;    // COPY_WATCH alone; egress clones too

const bit<16> ETHERTYPE_IPV4 = 0x0800;
const bit<16> ETHERTYPE_ARP = 0x0806;
const bit<16> ETHERTYPE_IPV6 = 0x86dd;
const bit<8>  PROTO_ICMP = 1;
const bit<8>  PROTO_TCP = 6;
const bit<8>  PROTO_UDP = 17;
const bit<8>  PROTO_ICMPV6 = 58;
const bit<8>  ICMPV6_NEIGHBOUR_ADVERTISEMENT = 136;
const bit<16> ARP_REPLY = 2;
const bit<16> ETHERTYPE_LEG = 0x88b5;   // queries and reports, to and from the CPU port only

// First bytes of a Dysco header, in front of a SYN's payload: "DySC". However short it is cut, such a SYN
// is for the agent, which counts it: no host shall see it.
const bit<32> DYSCO_MAGIC = 0x44795343;
const bit<16> DYSCO_MAGIC_SIZE = 4;
// UDP, from host to host: announcements for data planes ("DySA"), messages for agents ("DyCo").
const bit<16> ANNOUNCEMENT_PORT = 17529;
const bit<32> ANNOUNCEMENT_MAGIC = 0x44795341;
const bit<32> CONTROL_MAGIC = 0x4479436f;
// In a segment's first and only option, in front of a message for an agent: experimental (RFC 6994).
const bit<64> IN_BAND_OPTION = 0xfd08d75c4479436f;

// Why a packet went to the controller.
enum bit<8> Reason {
    NONE = 0,
    HOST_SYN = 1,       // a host's SYN: first or again, with a policy or from a middlebox
    DYSCO_SYN = 2,      // a SYN with a Dysco header for one of our hosts
    SENT = 3,           // copy of a SYN-ACK, FIN or RST that a host of ours sent in a session
    RECEIVED = 4,       // copy of one that a host of ours receives
    NEIGHBOUR = 5,      // copy of an ARP reply or a neighbour advertisement
    NEW_PATH = 6,       // a segment of the handshake of a leg's other path, as the network has it
    SPLIT = 7,          // a host's segment that lies across the cutoff
    LEG = 8,            // a report of a leg's registers
    CONTROL = 9,        // a control message for a host's agent
    HELD = 10           // a host's segment, on a leg whose gate holds
}

// What the pipeline does with a packet-out.
enum bit<8> Submit {
    PORT = 0,           // leaves at `port` as it is
    ROUTE = 1,          // routed by its destination address, like a subsession's packet
    BRIDGE = 2,         // bridged as if it had come in at `port`, outside of any session
    HOST = 3,           // as if the host at `port` had sent it
    LATCH = 4,          // an announcement: its leg takes the new path, and it goes to the other anchor
    REVOKE = 5,         // an announcement: its leg never latches; a report comes back
    QUERY = 6,          // a report comes back
    IN_BAND = 7,        // a control message in a segment of the host's session: numbered, and sent
    RELEASED = 8,       // as HOST, for what was held: it passes the gate
    END_HOLD = 9,       // the leg's gate holds no more, unless it held something since; a report comes back
    SEED = 10            // a report's numbers for the registers of a leg that came from another device
}

// Index of the `drops` counter.
enum bit<8> Drop {
    NO_ROUTE = 0,       // a subsession's packet, but no route to its next host
    HAIRPIN = 1,        // would leave where it came in
    BAD_PACKET_OUT = 2  // packet-out with an unknown submit mode, or a frame that does not fit it
}

// Index of the `legs` counter: what a reconfiguration dropped, held back or changed.
enum bit<8> Count {
    EARLY_NEW = 0,      // new path, before the other side's announcement
    LATE_OLD = 1,       // old data from the host, after the old path
    OLD_BEYOND = 2,     // data from the cutoff on that came by the old path
    OLD_REPEATED = 3,   // old data that the host has, answered by the anchor
    DUPLICATE_ACK = 4,  // not sent twice
    STALE_ACK = 5,      // says nothing to the host
    JUMP = 6,           // a sequence number out of bounds moved nothing
    OLD_RESET = 7,      // the end of the old path, swallowed
    STRADDLES = 8,      // across the cutoff, sent to the agent
    ANNOUNCEMENT = 9,   // an announcement that is not for this switch
    HELD = 10,          // kept by the agent while the session's state moves
    SHUT = 11           // dropped, because the session's state is being copied, or has moved
}

// Why a report comes; a bit each.
const bit<16> EVENT_ANNOUNCED = 1;
const bit<16> EVENT_DRAINED = 2;
const bit<16> EVENT_CLOSING = 4;
const bit<16> EVENT_REVOKED = 8;
const bit<16> EVENT_HOLD_OVER = 16;
const bit<16> EVENT_STILL_HELD = 32;

// What a leg lets pass while a session's state moves from one host to another.
const bit<2> GATE_OPEN = 0;
const bit<2> GATE_HELD = 1;         // what the host sends goes to its agent
const bit<2> GATE_SHUT = 2;         // nothing, in either direction

// What becomes of a segment of a tracked leg. The first ones are also what a second pass is for.
enum bit<8> Kind {
    AS_IS = 0,          // by the only way there is
    OLD_BARE = 1,       // only its ACK, on the old path
    OLD_LAST = 2,       // only its ACK, as far as the old path goes
    NEW_BARE = 3,       // only its ACK, on the new path
    NEW_RESET = 4,      // a RST's second half
    ANSWER = 5,         // an ACK for old data, back to where it came from
    REPORT = 6,
    DELIVER = 7,        // it has been routed to a host of this device
    ANNOUNCE = 8,       // an announcement, ahead of data by the new path
    OLD = 9,            // the segment, on the old path
    OLD_CLAMPED = 10,   // likewise, its ACK only as far as the old path goes
    OLD_RESET = 11,
    NEW = 12,           // the segment, on the new path
    HOST_ANSWER = 13,   // an ACK for the host that sent it
    SPLIT = 14,         // across the cutoff: for the agent
    HOST = 15,          // the segment, to the host
    HOST_BARE = 16,     // only its ACK, to the host
    NEW_PATH = 17,      // of its handshake: for the agent
    NOTHING = 18,
    HELD = 19           // not seen yet: for the agent
}

#endif
