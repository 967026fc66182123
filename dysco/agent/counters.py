"""What an agent counts: the one list of counter names, and of the ways in which a set-up fails."""

from __future__ import annotations

from enum import StrEnum


class Count(StrEnum):
    """Names of counters."""

    STARTED = "session_started"
    """This host's session was given its chain."""
    RECEIVED = "session_received"
    """A session of another host came here."""
    SENT_ON = "session_sent_on"
    """The host sent a session's SYN on, and it went to the next host."""
    ESTABLISHED = "session_established"
    RETRANSMITTED = "syn_retransmitted"
    """A SYN that was known already, handled as the first one."""
    BRIDGED = "syn_bridged"
    """A SYN of a middlebox with neither record nor policy: let through."""
    BYPASSED = "syn_bypassed"
    """A SYN of a session that goes on unchained."""
    RECOVERED = "session_recovered"

    CLOSED = "session_closed"
    RESET = "session_reset"
    IDLE = "session_idle"
    REPLACED = "session_replaced"
    """A new session came with the old one's five-tuple."""
    CLOSED_BY_OPERATOR = "session_closed_by_operator"
    UNFINISHED = "session_unfinished"
    """Its set-up failed after it had mappings."""
    LOST = "session_lost"
    """The device, after a restart, knows nothing of it."""
    PENDING_TIMEOUT = "pending_timeout"
    """The host neither answered a SYN nor sent it on."""
    SETUP_TIMEOUT = "setup_timeout"
    """No SYN-ACK came back."""

    UNKNOWN_POLICY = "unknown_policy"
    UNKNOWN_PEER = "unknown_peer"
    POLICY_LOOP = "policy_loop"
    SESSION_LOOP = "session_loop"
    """A session came to a host that it had crossed before, or crosses too many."""
    OUTSIDE_GROUP = "destination_outside_group"
    NO_ADDRESS = "no_address_of_family"
    HEADER_TOO_LONG = "header_too_long"
    PORTS_EXHAUSTED = "ports_exhausted"
    TOO_MANY_SESSIONS = "too_many_sessions"
    TOO_MANY_PENDING = "too_many_pending"
    INSTALL_FAILED = "install_failed"
    WRONG_HOST = "wrong_host"
    """A SYN for an end host that is not this one."""
    REFUSED = "session_refused"
    DIRECT = "session_direct"

    BAD_PACKET = "bad_packet"
    BAD_CHECKSUM = "bad_checksum"
    UNEXPECTED = "unexpected_packet"
    TAG_UNKNOWN = "tag_unknown"
    TAG_NO_ROOM = "tag_no_room"
    OPEN_DATA_DROPPED = "open_data_dropped"
    """TCP Fast Open data that did not fit beside the header; TCP sends it again."""
    SYN_AGAINST_SESSION = "syn_against_session"
    """A host's SYN in a session that came to it from the other side."""
    STALE_ANSWER = "stale_answer"
    """A SYN-ACK or RST that does not answer the SYN."""
    COPY_UNKNOWN = "copy_without_session"

    HEADER_MALFORMED = "header_malformed"
    HEADER_VERSION = "header_wrong_version"
    HEADER_GROUP = "header_unknown_group"
    HEADER_FORGED = "header_forged"
    HEADER_REPLAYED = "header_replayed"
    HEADER_MISDIRECTED = "header_misdirected"
    NETWORK_NAT = "network_nat"
    """The network changed a subsession's five-tuple on the way."""

    CHAIN_SET = "chain_set"
    UPSTREAM_SET = "upstream_set"
    REQUEST_REFUSED = "request_refused"
    """A middlebox or an operator asked for something that can't be."""
    METADATA_UNKNOWN = "metadata_unknown"
    ORPHANED = "mapping_orphaned"
    """A mapping of a set-up that a restart interrupted: taken out."""


class SetupError(Exception):
    """A session can't get its chain: `count` says which way, the text why."""

    def __init__(self, count: Count, why: str) -> None:
        super().__init__(why)
        self.count = count
