"""Action profiles: members that entries share, and groups of them (9.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from finsy.proto import p4r

from softnic.dataplane import DataPlane, GroupMember, Op, Status
from softnic.p4runtime.codec import canonical
from softnic.p4runtime.errors import Code, P4RuntimeError, invalid
from softnic.p4runtime.pipeline import State
from softnic.p4runtime.schema import ProfileSchema
from softnic.p4runtime.tables import ActionCodec

_MAX_PORT = 0xFFFFFFFE

_REFUSED = {
    Status.NOT_FOUND: (Code.NOT_FOUND, "it doesn't exist"),
    Status.FULL: (Code.RESOURCE_EXHAUSTED, "the action profile is full"),
    Status.INVALID: (Code.INVALID_ARGUMENT, "it names a member that doesn't exist"),
    Status.IN_USE: (Code.FAILED_PRECONDITION, "an entry or a group still has it"),
}


def write_member(
    dp: DataPlane, state: State, op: Op, profile: ProfileSchema, message: p4r.ActionProfileMember
) -> None:
    """Insert, modify or delete a member."""
    where = f"action profile {profile.name}, member {message.member_id}"
    key = (profile.id, message.member_id)
    _check_no_shots(where, state, profile)
    _check_existence(where, op, message.member_id, key in state.members)
    if op is Op.DELETE:
        check_status(where, dp.delete_member(profile.name, message.member_id))
        del state.members[key]
        return
    _set_member(where, dp, profile, message)
    kept = p4r.ActionProfileMember()
    kept.CopyFrom(message)
    for param in kept.action.params:
        param.value = canonical(param.value)
    state.members[key] = kept


def _set_member(
    where: str, dp: DataPlane, profile: ProfileSchema, message: p4r.ActionProfileMember
) -> None:
    action = profile.actions.get(message.action.action_id)
    if action is None:
        raise invalid(f"{where}: action id {message.action.action_id} is none of its actions")
    params = ActionCodec(where, (action,)).params(action, message.action.params)
    check_status(where, dp.set_member(profile.name, message.member_id, action.name, params))


def keep_member(
    dp: DataPlane, state: State, profile: ProfileSchema, number: int
) -> Callable[[], None]:
    """What brings a member back to what it is now."""
    key = (profile.id, number)
    old = state.members.get(key)
    where = f"action profile {profile.name}, member {number}"

    def bring_back() -> None:
        if state.members.get(key) is old:
            return
        if old is None:
            check_status(where, dp.delete_member(profile.name, number))
            del state.members[key]
        else:
            _set_member(where, dp, profile, old)
            state.members[key] = old

    return bring_back


def keep_group(
    dp: DataPlane, state: State, profile: ProfileSchema, number: int
) -> Callable[[], None]:
    """What brings a group back to what it is now."""
    key = (profile.id, number)
    old = state.groups.get(key)
    where = f"action profile {profile.name}, group {number}"

    def bring_back() -> None:
        if state.groups.get(key) is old:
            return
        if old is None:
            check_status(where, dp.delete_group(profile.name, number))
            del state.groups[key]
        else:
            members = [_group_member(where, m) for m in old.members]
            check_status(where, dp.set_group(profile.name, number, members))
            state.groups[key] = old

    return bring_back


def write_group(
    dp: DataPlane, state: State, op: Op, profile: ProfileSchema, message: p4r.ActionProfileGroup
) -> None:
    """Insert, modify or delete a group."""
    where = f"action profile {profile.name}, group {message.group_id}"
    if not profile.has_selector:
        raise invalid(f"{where}: it has no selector, so no groups")
    key = (profile.id, message.group_id)
    _check_no_shots(where, state, profile)
    _check_existence(where, op, message.group_id, key in state.groups)
    if op is Op.DELETE:
        check_status(where, dp.delete_group(profile.name, message.group_id))
        del state.groups[key]
        return
    _check_size(where, profile, message, state.groups.get(key))
    members = [_group_member(where, m) for m in message.members]
    if len({m.member for m in members}) < len(members):
        raise invalid(f"{where}: a member is there twice; use its weight")
    for member in members:
        if (profile.id, member.member) not in state.members:
            raise P4RuntimeError(Code.NOT_FOUND, f"{where}: there is no member {member.member}")
    check_status(where, dp.set_group(profile.name, message.group_id, members))
    kept = p4r.ActionProfileGroup()
    kept.CopyFrom(message)
    for entry in kept.members:
        if entry.watch_port:
            entry.watch_port = canonical(entry.watch_port)
    if key in state.groups:
        kept.max_size = state.groups[key].max_size
    state.groups[key] = kept


def read_members(
    state: State, profiles: Mapping[int, ProfileSchema], wanted: p4r.ActionProfileMember
) -> Iterator[p4r.ActionProfileMember]:
    """The members with the ids asked for; 0 means all."""
    for (profile_id, member_id), member in state.members.items():
        if profile_id in profiles and wanted.member_id in (0, member_id):
            yield member


def read_groups(
    state: State, profiles: Mapping[int, ProfileSchema], wanted: p4r.ActionProfileGroup
) -> Iterator[p4r.ActionProfileGroup]:
    """The groups with the ids asked for; 0 means all."""
    for (profile_id, group_id), group in state.groups.items():
        if profile_id in profiles and wanted.group_id in (0, group_id):
            yield group


def _check_no_shots(where: str, state: State, profile: ProfileSchema) -> None:
    if state.shot_numbers.get(profile.id):
        raise invalid(f"{where}: its tables are programmed by one-shot action sets")


def _check_existence(where: str, op: Op, number: int, exists: bool) -> None:
    if not number:
        raise invalid(f"{where}: the number must not be 0")
    if op is Op.INSERT and exists:
        raise P4RuntimeError(Code.ALREADY_EXISTS, f"{where} exists")
    if op is not Op.INSERT and not exists:
        raise P4RuntimeError(Code.NOT_FOUND, f"{where} doesn't exist")


def _check_size(
    where: str,
    profile: ProfileSchema,
    message: p4r.ActionProfileGroup,
    old: p4r.ActionProfileGroup | None,
) -> None:
    if message.max_size < 0 or (
        profile.max_group_size and message.max_size > profile.max_group_size
    ):
        raise invalid(
            f"{where}: max_size {message.max_size} is not within 0..{profile.max_group_size}"
        )
    if old is not None and message.max_size not in (0, old.max_size):
        raise invalid(f"{where}: max_size can't change from {old.max_size} to {message.max_size}")
    most = (old or message).max_size or profile.max_group_size
    total = sum(m.weight for m in message.members)
    if most and total > most:
        raise P4RuntimeError(
            Code.RESOURCE_EXHAUSTED, f"{where}: weights of {total} together, {most} are the most"
        )


def _group_member(where: str, message: p4r.ActionProfileGroup.Member) -> GroupMember:
    if message.weight <= 0:
        raise invalid(f"{where}: member {message.member_id} has weight {message.weight}")
    return GroupMember(message.member_id, message.weight, watched_port(where, message))


def watched_port(
    where: str, message: p4r.ActionProfileGroup.Member | p4r.ActionProfileAction
) -> int | None:
    """The port that must be up for a member, if any."""
    match message.WhichOneof("watch_kind"):
        case "watch_port":
            port: int | None = int.from_bytes(message.watch_port, "big")
        case "watch":
            port = message.watch
        case _:
            port = None
    if port is not None and not 0 <= port <= _MAX_PORT:
        raise P4RuntimeError(Code.OUT_OF_RANGE, f"{where}: watched port {port} is no port")
    return port


def check_status(where: str, status: Status) -> None:
    """Raise what a refusal of the data plane means."""
    if status is not Status.OK:
        code, text = _REFUSED[status]
        raise P4RuntimeError(code, f"{where}: {text}")
