"""Table entries between P4Runtime messages and the packed form of the data plane (9.1).

One codec per table, made when the pipeline is set, so that an update costs one walk over its
match fields and parameters and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableSequence, Sequence

from finsy.proto import p4r

from softnic.dataplane import GROUP, MEMBER, Entry, Match, MatchKind
from softnic.p4runtime.codec import canonical, ones, pack, prefix_len, prefix_mask, within
from softnic.p4runtime.errors import Code, P4RuntimeError, invalid
from softnic.p4runtime.schema import ActionSchema, KeySchema, TableSchema

_Encoded = tuple[bytes, bytes]
"""A field's key and mask; for a range its low and high bound."""

_INDIRECT = {"action_profile_member_id": MEMBER, "action_profile_group_id": GROUP}
_INDIRECT_WORDS = "a member, a group, or a set of actions of its profile"
_MAX_PRIORITY = (1 << 31) - 1


def _exact(key: KeySchema, field: p4r.FieldMatch) -> _Encoded:
    return pack(field.exact.value, key.bits, key.size), ones(key.bits)


def _optional(key: KeySchema, field: p4r.FieldMatch) -> _Encoded:
    return pack(field.optional.value, key.bits, key.size), ones(key.bits)


def _lpm(key: KeySchema, field: p4r.FieldMatch) -> _Encoded:
    length = field.lpm.prefix_len
    if not 0 < length <= key.bits:
        if length == 0:
            raise invalid("prefix length 0 means don't care: leave the field out")
        raise invalid(f"prefix length {length} is not within 1..{key.bits}")
    value, mask = pack(field.lpm.value, key.bits, key.size), prefix_mask(key.bits, length)
    if not within(value, mask):
        raise invalid(f"value 0x{value.hex()} has bits set after its prefix of {length} bits")
    return value, mask


def _ternary(key: KeySchema, field: p4r.FieldMatch) -> _Encoded:
    value = pack(field.ternary.value, key.bits, key.size)
    mask = pack(field.ternary.mask, key.bits, key.size)
    if not any(mask):
        raise invalid("mask 0 means don't care: leave the field out")
    if not within(value, mask):
        raise invalid(f"value 0x{value.hex()} has bits set outside its mask 0x{mask.hex()}")
    return value, mask


def _range(key: KeySchema, field: p4r.FieldMatch) -> _Encoded:
    low = pack(field.range.low, key.bits, key.size)
    high = pack(field.range.high, key.bits, key.size)
    if low > high:
        raise invalid(f"low bound 0x{low.hex()} is above high bound 0x{high.hex()}")
    if not any(low) and high == ones(key.bits):
        raise invalid("the whole range means don't care: leave the field out")
    return low, high


_ENCODE: Mapping[MatchKind, Callable[[KeySchema, p4r.FieldMatch], _Encoded]] = {
    MatchKind.EXACT: _exact,
    MatchKind.LPM: _lpm,
    MatchKind.TERNARY: _ternary,
    MatchKind.RANGE: _range,
    MatchKind.OPTIONAL: _optional,
}


def _wildcard(key: KeySchema) -> _Encoded:
    """What the field is when the client leaves it out (never used for EXACT)."""
    zeros = bytes(key.size)
    return zeros, ones(key.bits) if key.kind is MatchKind.RANGE else zeros


class KeyCodec:
    """Encodes and decodes match fields; errors name what they belong to and the field."""

    def __init__(self, where: str, keys: Sequence[KeySchema]) -> None:
        self.where = where
        self._keys = keys
        self._encoders = {key.id: (key.index, key, _ENCODE[key.kind]) for key in keys}
        self._wild = [_wildcard(key) for key in keys]
        self._all_exact = all(key.kind is MatchKind.EXACT for key in keys)
        self._exact_mask = b"".join(ones(key.bits) for key in keys)
        self._slices = [(key, slice(key.offset, key.offset + key.size)) for key in keys]

    def key(self, fields: Iterable[p4r.FieldMatch]) -> _Encoded:
        """The packed key and mask of match fields in any order."""
        encoded: list[_Encoded | None] = [None] * len(self._wild)
        encoders = self._encoders
        for field in fields:
            slot = encoders.get(field.field_id)
            if slot is None:
                raise self.error(f"no match field has id {field.field_id}")
            index, key, encode = slot
            if field.WhichOneof("field_match_type") != key.kind.value:
                raise self.error(
                    f"{key.name}: the match is {key.kind.value}, "
                    f"{field.WhichOneof('field_match_type') or 'nothing'} given"
                )
            if encoded[index] is not None:
                raise self.error(f"{key.name}: given twice")
            try:
                encoded[index] = encode(key, field)
            except ValueError as error:
                raise self.error(f"{key.name}: {error}", Code.OUT_OF_RANGE) from error
            except P4RuntimeError as error:
                raise self.error(f"{key.name}: {error}", error.code) from error
        if self._all_exact and None not in encoded:
            return b"".join([e[0] for e in encoded if e is not None]), self._exact_mask
        for index, given in enumerate(encoded):
            if given is None:
                if self._keys[index].kind is MatchKind.EXACT:
                    raise self.error(f"{self._keys[index].name}: exact match is missing")
                encoded[index] = self._wild[index]
        pairs = [e for e in encoded if e is not None]
        return b"".join([p[0] for p in pairs]), b"".join([p[1] for p in pairs])

    def decode_key(
        self, packed: bytes, masks: bytes, into: MutableSequence[p4r.FieldMatch]
    ) -> None:
        """Append the fields of a packed key and mask, don't-cares left out."""
        for key, part in self._slices:
            value, mask = packed[part], masks[part]
            found = p4r.FieldMatch(field_id=key.id)
            match key.kind:
                case MatchKind.EXACT:
                    found.exact.value = canonical(value)
                case MatchKind.RANGE:
                    if not any(value) and mask == ones(key.bits):
                        continue
                    found.range.low, found.range.high = canonical(value), canonical(mask)
                case _ if not any(mask):
                    continue
                case MatchKind.OPTIONAL:
                    found.optional.value = canonical(value)
                case MatchKind.LPM:
                    found.lpm.value, found.lpm.prefix_len = canonical(value), prefix_len(mask)
                case MatchKind.TERNARY:
                    found.ternary.value, found.ternary.mask = canonical(value), canonical(mask)
            into.append(found)

    def error(self, text: str, code: Code = Code.INVALID_ARGUMENT) -> P4RuntimeError:
        """An error that says where."""
        return P4RuntimeError(code, f"{self.where}: {text}")


class ActionCodec:
    """Encodes and decodes actions with their parameters; errors name both."""

    def __init__(self, where: str, actions: Iterable[ActionSchema]) -> None:
        self.where = where
        self._actions = {action.name: action for action in actions}

    def params(self, action: ActionSchema, params: Iterable[p4r.Action.Param]) -> bytes:
        """Packed parameters, which must all be given, each once."""
        packed: list[bytes | None] = [None] * len(action.params)
        for param in params:
            index = action.index_by_id.get(param.param_id)
            if index is None:
                raise self._error(f"action {action.name} has no parameter id {param.param_id}")
            target = action.params[index][1]
            if packed[index] is not None:
                raise self._error(f"action {action.name}: parameter {target.name} given twice")
            try:
                packed[index] = pack(param.value, target.bits, target.size)
            except ValueError as error:
                raise self._error(
                    f"action {action.name}, parameter {target.name}: {error}", Code.OUT_OF_RANGE
                ) from error
        given = [p for p in packed if p is not None]
        if len(given) != len(packed):
            missing = [t.name for (_, t), p in zip(action.params, packed, strict=True) if p is None]
            raise self._error(f"action {action.name}: parameters {', '.join(missing)} are missing")
        return b"".join(given)

    def _error(self, text: str, code: Code = Code.INVALID_ARGUMENT) -> P4RuntimeError:
        return P4RuntimeError(code, f"{self.where}: {text}")

    def decode(self, name: str, params: bytes, into: p4r.Action) -> bool:
        """Put an action into a message; False for one that P4Info hides."""
        action = self._actions.get(name)
        if action is None:
            return False
        into.action_id = action.id
        offset = 0
        for param_id, target in action.params:
            end = offset + target.size
            into.params.add(param_id=param_id, value=canonical(params[offset:end]))
            offset = end
        return True


class TableCodec(KeyCodec):
    """Encodes and decodes the entries of one table."""

    def __init__(self, schema: TableSchema) -> None:
        super().__init__(f"table {schema.name}", schema.keys)
        self.schema = schema
        both = (*schema.entry_actions.values(), *schema.default_actions.values())
        self.actions = ActionCodec(self.where, both)

    def match(self, entry: p4r.TableEntry) -> Match:
        """The packed match of an entry, priority rules checked."""
        priority = entry.priority
        if self.schema.needs_priority:
            if not 0 < priority <= _MAX_PRIORITY:
                raise self.error("entries need a priority above 0")
        elif priority:
            raise self.error(f"entries take no priority, {priority} given")
        key, mask = self.key(entry.match)
        return Match(key, mask, priority)

    def action(self, action: p4r.TableAction, *, default: bool) -> tuple[str, bytes]:
        """Name and packed parameters of an entry's (or the default) action."""
        kind = action.WhichOneof("type")
        indirect = _INDIRECT.get(kind or "") if self.schema.profile and not default else None
        if indirect is not None:
            return indirect, getattr(action, str(kind)).to_bytes(4, "big")
        if kind != "action" or (self.schema.profile and not default):
            takes = "an action" if default or not self.schema.profile else _INDIRECT_WORDS
            raise self.error(f"its entries take {takes}, {kind or 'nothing'} given")
        call = action.action
        scope = self.schema.default_actions if default else self.schema.entry_actions
        known = scope.get(call.action_id)
        if known is None:
            raise self._foreign_action(call.action_id, default)
        return known.name, self.actions.params(known, call.params)

    def decode_match(self, match: Match, into: p4r.TableEntry) -> None:
        """Put the match, don't-cares left out, into an entry message."""
        into.priority = match.priority
        self.decode_key(match.key, match.mask, into.match)

    def decode_action(self, name: str, params: bytes, into: p4r.TableEntry) -> None:
        """Put an action into an entry message; one that P4Info hides is left out."""
        if name == MEMBER:
            into.action.action_profile_member_id = int.from_bytes(params, "big")
        elif name == GROUP:
            into.action.action_profile_group_id = int.from_bytes(params, "big")
        elif not self.actions.decode(name, params, into.action.action):
            into.ClearField("action")

    def decode(self, entry: Entry) -> p4r.TableEntry:
        """The message of an entry, without counter and meter."""
        message = p4r.TableEntry(
            table_id=self.schema.id,
            idle_timeout_ns=entry.idle_timeout_ns,
            metadata=entry.metadata,
            controller_metadata=entry.controller_metadata,
        )
        self.decode_match(entry.match, message)
        self.decode_action(entry.action, entry.params, message)
        return message

    def describe(self, match: Match) -> str:
        """A match in words for error texts."""
        parts = [
            f"{key.name}=0x{match.key[part].hex()}"
            + ("" if key.kind is MatchKind.EXACT else f"/0x{match.mask[part].hex()}")
            for key, part in self._slices
        ]
        return ", ".join(parts) + (f", priority {match.priority}" if match.priority else "")

    def _foreign_action(self, action_id: int, default: bool) -> P4RuntimeError:
        other = self.schema.entry_actions if default else self.schema.default_actions
        if action_id in other:
            place = "be the default action" if default else "stand in an entry"
            return self.error(
                f"action {other[action_id].name} may not {place}", Code.PERMISSION_DENIED
            )
        return self.error(f"action id {action_id} is none of its actions")
