"""One-shot programming of tables with a selector: an entry with the group it chooses from (9.2.3).

For the data plane that is a group with members of its own, under numbers that nobody else uses:
the tables of a selector take either one shots, or members and groups.
"""

from __future__ import annotations

from collections.abc import Iterator

from finsy.proto import p4r

from softnic.dataplane import DataPlane, GroupMember
from softnic.p4runtime.codec import canonical
from softnic.p4runtime.errors import P4RuntimeError, unimplemented
from softnic.p4runtime.pipeline import OneShot, State
from softnic.p4runtime.profiles import check_status, watched_port
from softnic.p4runtime.schema import ProfileSchema
from softnic.p4runtime.tables import TableCodec


def make(
    dp: DataPlane,
    state: State,
    codec: TableCodec,
    profile: ProfileSchema,
    message: p4r.ActionProfileActionSet,
) -> OneShot:
    """Program members and a group; nothing is left of them when one is refused."""
    if not profile.has_selector:
        raise codec.error("its profile has no selector, so it takes no action sets")
    if any(key[0] == profile.id for key in (*state.members, *state.groups)):
        raise codec.error("its selector is programmed by members and groups already")
    _check(codec, profile, message)
    numbers = _free(state, profile.id)
    group, members = next(numbers), list[GroupMember]()
    try:
        for part in message.action_profile_actions:
            action = profile.actions.get(part.action.action_id)
            if action is None:
                raise codec.error(f"action id {part.action.action_id} is none of its own")
            params = codec.actions.params(action, part.action.params)
            member = GroupMember(next(numbers), part.weight or 1, watched_port(codec.where, part))
            status = dp.set_member(profile.name, member.member, action.name, params)
            check_status(codec.where, status)
            members.append(member)
        check_status(codec.where, dp.set_group(profile.name, group, members))
    except P4RuntimeError:
        for member in members:
            dp.delete_member(profile.name, member.member)
        raise
    shot = OneShot(profile.id, group, tuple(m.member for m in members), _canonical(message))
    state.shot_numbers.setdefault(profile.id, set()).update((group, *shot.members))
    return shot


def unmake(dp: DataPlane, state: State, profile: ProfileSchema, shot: OneShot) -> None:
    """Give up the group and its members, which no entry has any more."""
    dp.delete_group(profile.name, shot.group)
    for member in shot.members:
        dp.delete_member(profile.name, member)
    state.shot_numbers[profile.id].difference_update((shot.group, *shot.members))


def _free(state: State, profile: int) -> Iterator[int]:
    """Numbers that no one shot of the profile has; there are more than any memory holds."""
    used = state.shot_numbers.get(profile, frozenset[int]())
    while True:
        state.last_shot = state.last_shot % 0xFFFFFFFF + 1
        if state.last_shot not in used:
            yield state.last_shot


def _check(codec: TableCodec, profile: ProfileSchema, message: p4r.ActionProfileActionSet) -> None:
    kinds = p4r.ActionProfileActionSet
    if message.action_selection_mode not in (
        kinds.DEFAULT_MODE_DETERMINED_BY_ACTION_SELECTOR,
        kinds.HASH,
    ):
        raise unimplemented(f"{codec.where}: selectors of v1model choose by a hash")
    own = kinds.SUM_OF_MEMBERS if profile.counts_members else kinds.SUM_OF_WEIGHTS
    if message.size_semantics not in (kinds.DEFAULT_SIZE_DETERMINED_BY_ACTION_SELECTOR, own):
        raise unimplemented(f"{codec.where}: the size of its groups is as P4Info says")
    weights = [part.weight for part in message.action_profile_actions]
    if any(weight != 0 if profile.weightless else weight <= 0 for weight in weights):
        rule = "take no weight" if profile.weightless else "need a weight above 0"
        raise codec.error(f"the actions of a set {rule}: {weights}")
    size, most = len(weights) if profile.counts_members else sum(weights), profile.max_group_size
    if most and size > most:
        raise codec.error(f"an action set of size {size}, {most} is the most")
    heaviest = profile.max_member_weight
    if heaviest and max(weights, default=0) > heaviest:
        raise codec.error(f"a weight of {max(weights)}, {heaviest} is the most")


def _canonical(message: p4r.ActionProfileActionSet) -> p4r.ActionProfileActionSet:
    """As it is read back."""
    kept = p4r.ActionProfileActionSet()
    kept.CopyFrom(message)
    for part in kept.action_profile_actions:
        for param in part.action.params:
            param.value = canonical(param.value)
        if part.watch_port:
            part.watch_port = canonical(part.watch_port)
    return kept
