"""Members and groups of action profiles, members of value sets, replicas of groups."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence

from softnic.dataplane import GroupMember, Replica, Status
from softnic.native.handle import NO_PORT, DataPlaneError, Handle


class Choices(Handle):
    """What a device chooses from, and what it makes copies by."""

    def set_member(self, profile: str, member: int, action: str, params: bytes) -> Status:
        """Create or change a member of an action profile."""
        info = self._loaded().profiles[profile]
        if action not in info.actions or len(params) != self._params_size(action):
            return Status.INVALID
        number = info.actions.index(action)
        data = params.ljust(8, b"\0")
        return Status(
            self._lib.sn_profile_member(
                self._d, self._numbers.profiles[profile], member, number, data
            )
        )

    def delete_member(self, profile: str, member: int) -> Status:
        """Delete a member; IN_USE while an entry or a group has it."""
        number = self._numbers.profiles[profile]
        return Status(self._lib.sn_profile_member(self._d, number, member, 0, None))

    def set_group(self, profile: str, group: int, members: Sequence[GroupMember]) -> Status:
        """Create or change a group of an action profile; INVALID: a member doesn't exist."""
        if not self._loaded().profiles[profile].selector:
            return Status.INVALID
        rows = (ctypes.c_uint32 * (3 * len(members)))()
        for i, m in enumerate(sorted(members, key=lambda m: m.member)):
            watch = NO_PORT if m.watch_port is None else m.watch_port
            rows[3 * i : 3 * i + 3] = [m.member, m.weight, watch]
        number = self._numbers.profiles[profile]
        return Status(self._lib.sn_profile_group(self._d, number, group, rows, len(members)))

    def delete_group(self, profile: str, group: int) -> Status:
        """Delete a group; IN_USE while an entry has it."""
        number = self._numbers.profiles[profile]
        return Status(self._lib.sn_profile_group(self._d, number, group, None, 0))

    def set_value_set(
        self, name: str, members: Sequence[tuple[bytes, bytes]], ranges: Collection[int] = ()
    ) -> Status:
        """Replace the members of a value set (see `dataplane.DataPlane`)."""
        fields = self._loaded().value_sets[name].key
        size = sum(f.size for f in fields)
        if any(len(key) != size or len(mask) != size for key, mask in members):
            return Status.INVALID
        places, at = [], 0
        for number, f in enumerate(fields):
            if number in ranges:
                places.append((at, f.size))
            at += f.size
        rows = b"".join(_row(key, mask, places) for key, mask in members)
        words = [word for place in places for word in place]
        bounds = (ctypes.c_uint32 * max(len(words), 1))(*words)
        number = self._numbers.value_sets[name]
        return Status(
            self._lib.sn_vset_set(self._d, number, rows, len(members), bounds, len(places))
        )

    # ---- replication

    def set_clone_session(
        self, session: int, replicas: Sequence[Replica], truncate: int = 0
    ) -> None:
        """Define a clone session (`truncate` bytes, 0: whole); no replicas: delete it."""
        self._group(1, session, replicas, truncate)

    def set_multicast_group(self, group: int, replicas: Sequence[Replica]) -> None:
        """Define a multicast group; no replicas: delete it."""
        self._group(0, group, replicas, 0)

    def _group(self, kind: int, number: int, replicas: Sequence[Replica], truncate: int) -> None:
        flat: list[int] = []
        for replica in replicas:
            ways = (replica, *replica.backups)
            flat.append(len(ways))
            flat += [value for way in ways for value in (way.port, way.instance)]
        words = (ctypes.c_uint32 * max(len(flat), 1))(*flat)
        if self._lib.sn_group_set(self._d, kind, number, words, len(replicas), truncate) != 0:
            raise DataPlaneError(f"{self.name}: out of memory")


def _row(key: bytes, mask: bytes, ranges: Sequence[tuple[int, int]]) -> bytes:
    """Key, mask, low and high bound; by the mask no bit of a range counts."""
    counts = bytearray(mask)
    for at, size in ranges:
        counts[at : at + size] = bytes(size)
    return key + bytes(counts) + key + mask
