"""The packet replication engine: clone sessions and multicast groups (9.7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from finsy.proto import p4r

from softnic.dataplane import DataPlane, Op, Replica
from softnic.p4runtime.codec import canonical
from softnic.p4runtime.errors import Code, P4RuntimeError, invalid, unimplemented
from softnic.p4runtime.pipeline import State

_MAX_SESSION = 32767
"""The highest clone session of v1model targets."""
_MAX_GROUP = 0xFFFF
"""`mcast_grp` of v1model has 16 bits."""
_MAX_INSTANCE = 0xFFFF
"""`egress_rid` of v1model has 16 bits."""
_MAX_PORT = 0xFFFFFFFF
"""P4Runtime port numbers have 32 bits."""

_EntryT = TypeVar("_EntryT", p4r.CloneSessionEntry, p4r.MulticastGroupEntry)


def write(dp: DataPlane, state: State, op: Op, entry: p4r.PacketReplicationEngineEntry) -> None:
    """Insert, modify or delete one entry."""
    match entry.WhichOneof("type"):
        case "clone_session_entry":
            _write_session(dp, state, op, entry.clone_session_entry)
        case "multicast_group_entry":
            _write_group(dp, state, op, entry.multicast_group_entry)
        case _:
            raise invalid("packet replication entry: neither multicast group nor clone session")


def read(
    state: State, entry: p4r.PacketReplicationEngineEntry
) -> Iterator[p4r.PacketReplicationEngineEntry]:
    """The entries with the id asked for, or all of the kind asked for (id 0)."""
    match entry.WhichOneof("type"):
        case "clone_session_entry":
            for session in _select(state.clone_sessions, entry.clone_session_entry.session_id):
                yield p4r.PacketReplicationEngineEntry(clone_session_entry=session)
        case "multicast_group_entry":
            wanted = entry.multicast_group_entry.multicast_group_id
            for group in _select(state.multicast_groups, wanted):
                yield p4r.PacketReplicationEngineEntry(multicast_group_entry=group)
        case _:
            raise invalid("packet replication entry: neither multicast group nor clone session")


def keep(
    dp: DataPlane, state: State, entry: p4r.PacketReplicationEngineEntry
) -> Callable[[], None]:
    """What brings the entry with this number back to what it is now."""
    if entry.WhichOneof("type") == "clone_session_entry":
        session = entry.clone_session_entry.session_id
        return _keeper(
            state.clone_sessions,
            session,
            lambda replicas, old: dp.set_clone_session(
                session, replicas, old.packet_length_bytes if old else 0
            ),
        )
    group = entry.multicast_group_entry.multicast_group_id
    return _keeper(
        state.multicast_groups, group, lambda replicas, _: dp.set_multicast_group(group, replicas)
    )


def _keeper(
    entries: dict[int, _EntryT],
    number: int,
    set_replicas: Callable[[tuple[Replica, ...], _EntryT | None], None],
) -> Callable[[], None]:
    old = entries.get(number)

    def bring_back() -> None:
        if entries.get(number) is old:
            return
        set_replicas(_replicas(str(number), old.replicas) if old else (), old)
        if old:
            entries[number] = old
        else:
            del entries[number]

    return bring_back


def clear(dp: DataPlane, state: State) -> None:
    """Remove every entry from the data plane, before another pipeline starts."""
    for session in state.clone_sessions:
        dp.set_clone_session(session, ())
    for group in state.multicast_groups:
        dp.set_multicast_group(group, ())
    state.clone_sessions.clear()
    state.multicast_groups.clear()


def _select(entries: dict[int, _EntryT], wanted: int) -> list[_EntryT]:
    if not wanted:
        return list(entries.values())
    return [entries[wanted]] if wanted in entries else []


def _write_session(dp: DataPlane, state: State, op: Op, entry: p4r.CloneSessionEntry) -> None:
    number = entry.session_id
    where = f"clone session {number}"
    _check_id(where, number, _MAX_SESSION)
    if op is not Op.DELETE:
        if entry.class_of_service:
            raise unimplemented(f"{where}: class of service {entry.class_of_service}; only 0 is")
        if entry.packet_length_bytes < 0:
            raise invalid(f"{where}: packet_length_bytes {entry.packet_length_bytes} is negative")
    _apply(
        where,
        state.clone_sessions,
        op,
        number=number,
        entry=entry,
        set_replicas=lambda replicas: dp.set_clone_session(
            number, replicas, entry.packet_length_bytes
        ),
    )


def _write_group(dp: DataPlane, state: State, op: Op, entry: p4r.MulticastGroupEntry) -> None:
    number = entry.multicast_group_id
    where = f"multicast group {number}"
    _check_id(where, number, _MAX_GROUP)
    _apply(
        where,
        state.multicast_groups,
        op,
        number=number,
        entry=entry,
        set_replicas=lambda replicas: dp.set_multicast_group(number, replicas),
    )


def _apply(
    where: str,
    entries: dict[int, _EntryT],
    op: Op,
    *,
    number: int,
    entry: _EntryT,
    set_replicas: Callable[[tuple[Replica, ...]], None],
) -> None:
    if op is Op.INSERT and number in entries:
        raise P4RuntimeError(Code.ALREADY_EXISTS, f"{where} exists")
    if op is not Op.INSERT and number not in entries:
        raise P4RuntimeError(Code.NOT_FOUND, f"{where} doesn't exist")
    if op is Op.DELETE:
        set_replicas(())
        del entries[number]
        return
    replicas = _replicas(where, entry.replicas)
    try:
        set_replicas(replicas)
    except ValueError as error:
        raise invalid(f"{where}: {error}") from error
    kept = type(entry)()
    kept.CopyFrom(entry)
    for replica in kept.replicas:
        if replica.port:
            replica.port = canonical(replica.port)
        for backup in replica.backup_replicas:
            backup.port = canonical(backup.port)
    entries[number] = kept


def _check_id(where: str, number: int, highest: int) -> None:
    if not 0 < number <= highest:
        raise invalid(f"{where}: the number must be within 1..{highest}")


def _replicas(where: str, messages: Iterable[p4r.Replica]) -> tuple[Replica, ...]:
    replicas: list[Replica] = []
    seen: set[tuple[int, int]] = set()
    for message in messages:
        match message.WhichOneof("port_kind"):
            case "port":
                port = _port(where, message.port)
            case "egress_port":
                port = message.egress_port
            case _:
                raise invalid(f"{where}: a replica has no port")
        backups = tuple(
            _replica(where, _port(where, backup.port), backup.instance)
            for backup in message.backup_replicas
        )
        replica = _replica(where, port, message.instance, backups)
        if (port, replica.instance) in seen:
            raise invalid(f"{where}: port {port} with instance {replica.instance} is there twice")
        seen.add((port, replica.instance))
        ports = [way.port for way in (replica, *backups)]
        if len(set(ports)) < len(ports):
            raise invalid(f"{where}: port {port} and its backups must all differ")
        replicas.append(replica)
    return tuple(replicas)


def _port(where: str, value: bytes) -> int:
    if not value:
        raise P4RuntimeError(Code.OUT_OF_RANGE, f"{where}: a replica's port is empty")
    port = int.from_bytes(value, "big")
    if port > _MAX_PORT:
        raise P4RuntimeError(Code.OUT_OF_RANGE, f"{where}: port {port} is wider than 32 bits")
    return port


def _replica(where: str, port: int, instance: int, backups: tuple[Replica, ...] = ()) -> Replica:
    if instance > _MAX_INSTANCE:
        raise invalid(f"{where}: instance {instance} is above {_MAX_INSTANCE}")
    return Replica(port, instance, backups)
