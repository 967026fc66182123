"""What can be set about an agent. Times are in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits and time-outs of one agent; raises ValueError when they make no sense together."""

    first_port: int = 61000
    """Lowest port of subsessions. Linux gives its own sockets 32768 to 60999."""
    last_port: int = 65535
    """Highest port of subsessions, included."""
    port_quarantine: float = 60.0
    """How long a released port pair rests: as long as TIME_WAIT on Linux, so that what still
    travels in the network, and a peer that lingers, can't meet the next session."""
    mtu: int = 1500
    """Longest IP packet that may be sent between hosts, in bytes."""
    pending_timeout: float = 5.0
    """How long a host may keep a SYN before it answers it or sends it on."""
    setup_timeout: float = 20.0
    """How long a SYN that was sent on may stay without its SYN-ACK: five tries of Linux."""
    syn_spacing: float = 0.5
    """SYNs of one session closer together than this are one: no TCP repeats them so soon (RFC 6298:
    after a second), so they have waited in a queue. Handling each would keep the queue long."""
    closing_linger: float = 10.0
    """How long a session stays after its FINs: five retransmissions of the last ACK or FIN."""
    reset_linger: float = 2.0
    """How long a session stays after a RST, for what is still in flight."""
    idle_timeout: float = 7440.0
    """Without a packet for so long, a session is gone: 2 h 4 min, RFC 5382 REQ-5."""
    bypass_time: float = 120.0
    """How long the SYN of a session that failed to a direct one is let through."""
    lock_timeout: float = 3.0
    """How long a change of a chain may wait for its lock."""
    connect_timeout: float = 2.0
    """How long it may then wait for its new path to open."""
    move_timeout: float = 2.0
    """How long it may take until a session's state has come from one host to the next."""
    hold_time: float = 0.2
    """How long packets are held meanwhile; later ones are dropped, and TCP sends them again."""
    changes_at_once: int = 256
    """How many changes of chains that begin here may be between their start and their switch."""
    max_sessions: int = 65536
    max_pending: int = 8192
    """Sessions under set-up at once."""
    max_hops: int = 32
    """Hosts that one chain may cross."""
    replay_window: int = 4096
    """How far out of order set-up headers of one sender may come."""
    max_senders: int = 16384
    """Senders whose headers are remembered at once."""

    def __post_init__(self) -> None:
        if not 1024 <= self.first_port < self.last_port <= 65535:
            raise ValueError(
                f"port range {self.first_port}-{self.last_port}: needs two ports within 1024-65535"
            )
        for field in fields(self):
            if not math.isfinite(getattr(self, field.name)):
                raise ValueError(f"{field.name} must be a number, not {getattr(self, field.name)}")
        for name in (
            "mtu",
            "pending_timeout",
            "setup_timeout",
            "idle_timeout",
            "lock_timeout",
            "connect_timeout",
            "move_timeout",
            "hold_time",
            "changes_at_once",
            "max_sessions",
            "max_pending",
            "max_hops",
            "replay_window",
            "max_senders",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in (
            "port_quarantine",
            "syn_spacing",
            "closing_linger",
            "reset_linger",
            "bypass_time",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
