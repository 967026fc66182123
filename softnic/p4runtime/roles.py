"""What a role may do: the role configuration of Stratum (`P4RoleConfig`), the one in use.

P4Runtime leaves the scheme open (5.2). No configuration means everything is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass

from finsy.proto import p4r, stratum
from google.protobuf.message import DecodeError

from softnic.p4runtime.errors import invalid


@dataclass(frozen=True, slots=True)
class RoleConfig:
    """Rights of a role; `ids` None: every P4 object."""

    ids: frozenset[int] | None = None
    receives_packet_ins: bool = True
    can_push_pipeline: bool = True
    packet_in_filter: tuple[int, bytes] | None = None
    """Only packet-ins with this metadata id and canonical value."""
    raw: bytes = b""
    """The serialised google.protobuf.Any, to send back in notices."""

    def covers(self, p4_id: int) -> bool:
        """True if objects with this P4Info id belong to the role."""
        return self.ids is None or p4_id in self.ids


ANY = RoleConfig()


def parse_role(role: p4r.Role) -> tuple[str, RoleConfig]:
    """Name and rights from an arbitration message; INVALID_ARGUMENT for another scheme."""
    if role.id:
        raise invalid(f"role id {role.id}: numeric role ids ended with P4Runtime 1.3, use the name")
    if not role.HasField("config"):
        return role.name, ANY
    config = stratum.P4RoleConfig()
    try:
        matched = role.config.Unpack(config)
    except DecodeError as error:
        raise invalid(f"role {role.name!r}: config is damaged: {error}") from error
    if not matched:
        raise invalid(
            f"role {role.name!r}: config is a {role.config.type_url!r}, "
            f"this target takes {config.DESCRIPTOR.full_name}"
        )
    packet_filter = config.packet_in_filter
    return role.name, RoleConfig(
        ids=frozenset(config.exclusive_p4_ids) | frozenset(config.shared_p4_ids),
        receives_packet_ins=config.receives_packet_ins,
        can_push_pipeline=config.can_push_pipeline,
        packet_in_filter=(
            (packet_filter.metadata_id, packet_filter.value)
            if config.HasField("packet_in_filter")
            else None
        ),
        raw=role.config.SerializeToString(),
    )
