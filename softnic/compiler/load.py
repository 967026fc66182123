"""Reads bmv2 JSON (format 2.x) into `ir`; what this target can't do is refused by name here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from softnic.compiler import ir
from softnic.dataplane import MatchKind, UnsupportedConstructError

Json = Mapping[str, object]

_MATCH = {
    "exact": MatchKind.EXACT,
    "valid": MatchKind.EXACT,
    "lpm": MatchKind.LPM,
    "ternary": MatchKind.TERNARY,
    "range": MatchKind.RANGE,
    "optional": MatchKind.OPTIONAL,
}
_NAMED = {
    "header",
    "header_stack",
    "header_union",
    "header_union_stack",
    "calculation",
    "register_array",
    "counter_array",
    "meter_array",
    "extern",
    "regular",
    "stack",
}


class BadProgramError(ValueError):
    """The JSON isn't what p4c writes; the text says which part."""


def _obj(value: object, what: str) -> Json:
    if isinstance(value, dict):
        return value
    raise BadProgramError(f"{what}: expected an object, found {type(value).__name__}")


def _list(value: object, what: str) -> Sequence[object]:
    if isinstance(value, list):
        return value
    raise BadProgramError(f"{what}: expected a list, found {type(value).__name__}")


def _objs(parent: Json, key: str) -> list[Json]:
    return [_obj(v, key) for v in _list(parent.get(key) or [], key)]


def _str(value: object, what: str) -> str:
    if isinstance(value, str):
        return value
    raise BadProgramError(f"{what}: expected a string, found {value!r}")


def _int(value: object, what: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise BadProgramError(f"{what}: expected a number, found {value!r}")


def _hex(value: object, what: str) -> int:
    if isinstance(value, int):
        return int(value)
    try:
        return int(_str(value, what), 16)
    except ValueError:
        raise BadProgramError(f"{what}: not a hexadecimal number: {value!r}") from None


def _next(value: object, what: str) -> str | None:
    return None if value is None else _str(value, what)


def source_of(o: Json) -> ir.Source:
    """Where the object stands in the P4 program."""
    info = o.get("source_info")
    if not isinstance(info, dict) or "filename" not in info:
        return ir.Source()
    return ir.Source(PurePath(str(info["filename"])).name, int(info.get("line", 0)))


# ---- expressions -------------------------------------------------------------------------------


def expression(value: object) -> ir.Expr:  # noqa: PLR0912
    """A `type` and `value` object, or a bare operation."""
    o = _obj(value, "expression")
    if "op" in o:
        return _operation(o)
    kind, v = o.get("type"), o.get("value")
    match kind:
        case "expression":
            return expression(v)
        case "hexstr":
            bits = o.get("bitwidth")
            return ir.Const(_hex(v, "hexstr"), None if bits is None else _int(bits, "bitwidth"))
        case "bool":
            return ir.Bool(bool(v))
        case "string":
            return ir.Text(_str(v, "string"))
        case "field":
            header, field = _list(v, "field")
            return ir.FieldRef(_str(header, "field"), _str(field, "field"))
        case "stack_field":
            stack, field = _list(v, "stack_field")
            return ir.StackField(_str(stack, "stack_field"), _str(field, "stack_field"))
        case "union_stack_field":
            a, b, c = (_str(x, "union_stack_field") for x in _list(v, "union_stack_field"))
            return ir.UnionStackField(a, b, c)
        case "union_stack":
            a, b = (_str(x, "union_stack") for x in _list(v, "union_stack"))
            return ir.Vector((ir.Named("union_stack", a), ir.Named("member", b)))
        case "lookahead":
            offset, bits = _list(v, "lookahead")
            return ir.Lookahead(_int(offset, "lookahead"), _int(bits, "lookahead"))
        case "local" | "runtime_data":
            return ir.Local(_int(v, "local"))
        case "payload":
            return ir.Payload()
        case "parameters_vector":
            return ir.Vector(tuple(expression(x) for x in _list(v, "parameters_vector")))
        case str() if kind in _NAMED:
            return ir.Named(kind, _str(v, kind))
    raise UnsupportedConstructError(f"value of type {kind!r}")


def _operation(o: Json) -> ir.Op:
    op = _str(o["op"], "op")
    left, right, cond = o.get("left"), o.get("right"), o.get("cond")
    if op in ("access_field", "access_union_header"):
        index = ir.Const(_int(right, op))
        return ir.Op(op, expression(left), index)
    return ir.Op(
        op,
        None if left is None else expression(left),
        expression(right),
        None if cond is None else expression(cond),
    )


def _primitive(o: Json) -> ir.Primitive:
    op = _str(o.get("op"), "primitive")
    params = []
    for p in _list(o.get("parameters") or [], op):
        if isinstance(p, dict) and p.get("type") == "runtime_data":
            params.append(expression(p))
        else:
            params.append(expression(p))
    return ir.Primitive(op, tuple(params), source_of(o))


# ---- declarations ------------------------------------------------------------------------------


def _header_types(root: Json) -> dict[str, ir.HeaderType]:
    types = {}
    for o in _objs(root, "header_types"):
        name = _str(o.get("name"), "header type")
        rows = [_list(r, name) for r in _list(o.get("fields"), name)]
        fixed = sum(_int(r[1], name) for r in rows if r[1] != "*")
        most = o.get("max_length")
        fields = []
        for row in rows:
            signed = bool(row[2]) if len(row) > 2 else False
            if row[1] != "*":
                fields.append(ir.FieldDecl(_str(row[0], name), _int(row[1], name), signed))
            elif isinstance(most, int):
                fields.append(ir.FieldDecl(_str(row[0], name), most * 8 - fixed, False, True))
            else:
                raise BadProgramError(f"header type {name}: a varbit field without max_length")
        types[name] = ir.HeaderType(name, tuple(fields))
    return types


def _headers(root: Json, types: Mapping[str, ir.HeaderType]) -> dict[int, ir.Header]:
    out = {}
    for o in _objs(root, "headers"):
        name, number = _str(o.get("name"), "header"), _int(o.get("id"), "header id")
        kind = types[_str(o.get("header_type"), name)]
        out[number] = ir.Header(name, number, kind, bool(o.get("metadata")))
    return out


def _unions(root: Json, by_id: Mapping[int, ir.Header]) -> dict[int, ir.Union]:
    members = {}
    for o in _objs(root, "header_union_types"):
        pairs = [_list(p, "union type") for p in _list(o.get("headers"), "union type")]
        members[_str(o.get("name"), "union type")] = tuple(_str(p[0], "member") for p in pairs)
    out = {}
    for o in _objs(root, "header_unions"):
        name = _str(o.get("name"), "union")
        ids = [_int(i, name) for i in _list(o.get("header_ids"), name)]
        kind = _str(o.get("union_type"), name)
        out[_int(o.get("id"), name)] = ir.Union(
            name, members[kind], tuple(by_id[i].name for i in ids)
        )
    return out


def _stacks(
    root: Json, types: Mapping[str, ir.HeaderType], by_id: Mapping[int, ir.Header]
) -> dict[str, ir.Stack]:
    out = {}
    for o in _objs(root, "header_stacks"):
        name = _str(o.get("name"), "stack")
        ids = [_int(i, name) for i in _list(o.get("header_ids"), name)]
        kind = types[_str(o.get("header_type"), name)]
        out[name] = ir.Stack(name, kind, tuple(by_id[i].name for i in ids))
    return out


def _union_stacks(root: Json, unions: Mapping[int, ir.Union]) -> dict[str, ir.UnionStack]:
    out = {}
    for o in _objs(root, "header_union_stacks"):
        name = _str(o.get("name"), "union stack")
        ids = [_int(i, name) for i in _list(o.get("header_union_ids"), name)]
        out[name] = ir.UnionStack(name, unions[ids[0]].members, tuple(unions[i].name for i in ids))
    return out


def _field_lists(root: Json, key: str) -> list[ir.FieldList]:
    return [
        ir.FieldList(
            _int(o.get("id"), key),
            _str(o.get("name"), key),
            tuple(expression(e) for e in _list(o.get("elements"), key)),
        )
        for o in _objs(root, key)
    ]


def _calculations(root: Json) -> dict[str, ir.Calculation]:
    out = {}
    for o in _objs(root, "calculations"):
        name = _str(o.get("name"), "calculation")
        inputs = tuple(expression(e) for e in _list(o.get("input"), name))
        out[name] = ir.Calculation(name, _str(o.get("algo"), name), inputs, source_of(o))
    return out


def _checksums(root: Json) -> list[ir.Checksum]:
    out = []
    for o in _objs(root, "checksums"):
        header, field = _list(o.get("target"), "checksum")
        cond = o.get("if_cond")
        out.append(
            ir.Checksum(
                ir.FieldRef(_str(header, "checksum"), _str(field, "checksum")),
                _str(o.get("calculation"), "checksum"),
                bool(o.get("verify", True)),
                bool(o.get("update", True)),
                None if cond is None else expression(cond),
            )
        )
    return out


def _arrays(root: Json, key: str) -> tuple[ir.Array, ...]:
    return tuple(
        ir.Array(
            _str(o.get("name"), key),
            _int(o.get("size"), key),
            _int(o.get("bitwidth", 0), key),
        )
        for o in _objs(root, key)
        if not o.get("is_direct")
    )


def _actions(root: Json) -> dict[int, ir.Action]:
    out = {}
    for o in _objs(root, "actions"):
        name, number = _str(o.get("name"), "action"), _int(o.get("id"), "action")
        params = tuple(
            (_str(p.get("name"), name), _int(p.get("bitwidth"), name))
            for p in _objs(o, "runtime_data")
        )
        out[number] = ir.Action(
            name, number, params, tuple(_primitive(p) for p in _objs(o, "primitives"))
        )
    return out


# ---- parser, pipelines -------------------------------------------------------------------------


def _transition(o: Json) -> ir.Transition:
    kind, mask = o.get("type"), o.get("mask")
    value = o.get("value")
    go = _next(o.get("next_state"), "next_state")
    if kind == "default" or (kind is None and value == "default"):
        return ir.Transition(None, None, None, go)
    mask_value = None if mask is None else _hex(mask, "mask")
    if kind == "parse_vset":
        return ir.Transition(None, mask_value, _str(value, "parse_vset"), go)
    return ir.Transition(_hex(value, "transition"), mask_value, None, go)


def _parser_op(o: Json, state: str) -> ir.Primitive:
    op = _str(o.get("op"), state)
    params = _list(o.get("parameters") or [], state)
    if op == "primitive":
        return _primitive(_obj(params[0], state))
    if op == "shift":
        return ir.Primitive(op, (ir.Const(_int(params[0], op)),), source_of(o))
    return ir.Primitive(op, tuple(expression(p) for p in params), source_of(o))


def _parser(o: Json) -> ir.Parser:
    states = []
    for s in _objs(o, "parse_states"):
        name = _str(s.get("name"), "parse state")
        states.append(
            ir.ParseState(
                name,
                tuple(_parser_op(p, name) for p in _objs(s, "parser_ops")),
                tuple(expression(k) for k in _list(s.get("transition_key") or [], name)),
                tuple(_transition(t) for t in _objs(s, "transitions")),
            )
        )
    return ir.Parser(
        _str(o.get("name"), "parser"), _str(o.get("init_state"), "parser"), tuple(states)
    )


def _entry_field(o: Json, bits: int) -> tuple[int, int]:
    ones = (1 << bits) - 1
    match o.get("match_type"):
        case "exact":
            return _hex(o.get("key"), "entry"), ones
        case "valid":
            return int(bool(o.get("key"))), 1
        case "lpm":
            length = _int(o.get("prefix_length"), "entry")
            return _hex(o.get("key"), "entry"), ones ^ (ones >> length)
        case "ternary" | "optional":
            return _hex(o.get("key"), "entry"), _hex(o.get("mask"), "entry") & ones
        case "range":
            return _hex(o.get("start"), "entry"), _hex(o.get("end"), "entry")
    raise UnsupportedConstructError(f"entry with match type {o.get('match_type')!r}")


def _entries(rows: Sequence[Json], widths: Sequence[int]) -> tuple[ir.ConstEntry, ...]:
    worst = max((_int(r.get("priority", 1), "priority") for r in rows), default=0)
    out = []
    for r in rows:
        action = _obj(r.get("action_entry"), "entry")
        keys = _objs(r, "match_key")
        out.append(
            ir.ConstEntry(
                tuple(_entry_field(k, w) for k, w in zip(keys, widths, strict=True)),
                # In the JSON the lowest number wins, at this interface the highest.
                worst + 1 - _int(r.get("priority", 1), "priority"),
                _int(action.get("action_id"), "entry"),
                tuple(_hex(v, "entry") for v in _list(action.get("action_data"), "entry")),
            )
        )
    return tuple(out)


def _table_key(o: Json) -> ir.TableKey:
    kind = _str(o.get("match_type"), "key")
    if kind not in _MATCH:
        raise UnsupportedConstructError(f"match kind {kind!r}")
    target = o.get("target")
    if isinstance(target, str):
        ref = ir.FieldRef(target, "$valid$")
    else:
        header, field = _list(target, "key")
        ref = ir.FieldRef(_str(header, "key"), _str(field, "key"))
    mask = o.get("mask")
    name = _str(o.get("name") or f"{ref.header}.{ref.field}", "key")
    return ir.TableKey(name, ref, _MATCH[kind], None if mask is None else _hex(mask, "mask"))


def _table(o: Json, headers: Mapping[str, ir.Header]) -> ir.Table:
    name, source = _str(o.get("name"), "table"), source_of(o)
    if o.get("type") != "simple":
        raise UnsupportedConstructError(f"table '{name}' with an action profile{source}")
    if o.get("direct_meters"):
        raise UnsupportedConstructError(
            f"direct meter '{o['direct_meters']}' of table '{name}'{source}"
        )
    try:
        key = tuple(_table_key(k) for k in _objs(o, "key"))
    except UnsupportedConstructError as e:
        raise UnsupportedConstructError(f"{e} in table '{name}'{source}") from None
    rows = _objs(o, "entries")
    default = o.get("default_entry")
    d = _obj(default, name) if default is not None else {}
    data = _list(d.get("action_data") or [], name)
    return ir.Table(
        name=name,
        key=key,
        actions=tuple(_int(i, name) for i in _list(o.get("action_ids"), name)),
        size=_int(o.get("max_size", 1024), name),
        with_counters=bool(o.get("with_counters")),
        support_timeout=bool(o.get("support_timeout")),
        next={k: _next(v, name) for k, v in _obj(o.get("next_tables"), name).items()},
        base_next=_next(o.get("base_default_next"), name),
        default_action=None if default is None else _int(d.get("action_id"), name),
        default_params=tuple(_hex(v, name) for v in data),
        default_const=bool(d.get("action_entry_const")),
        entries=_entries(rows, [field_bits(headers, k.target) for k in key]),
        is_const="entries" in o,
        source=source,
    )


def field_bits(headers: Mapping[str, ir.Header], ref: ir.FieldRef) -> int:
    """Width of a field."""
    if ref.field == "$valid$":
        return 1
    for f in headers[ref.header].type.fields:
        if f.name == ref.field:
            return f.bits
    raise BadProgramError(f"no field {ref.field} in header {ref.header}")


def _pipeline(o: Json, headers: Mapping[str, ir.Header]) -> ir.Pipeline:
    return ir.Pipeline(
        name=_str(o.get("name"), "pipeline"),
        init=_next(o.get("init_table"), "init_table"),
        tables=tuple(_table(t, headers) for t in _objs(o, "tables")),
        conditionals=tuple(
            ir.Conditional(
                _str(c.get("name"), "conditional"),
                expression(c.get("expression")),
                _next(c.get("true_next"), "true_next"),
                _next(c.get("false_next"), "false_next"),
            )
            for c in _objs(o, "conditionals")
        ),
        calls=tuple(
            ir.ActionCall(
                _str(c.get("name"), "action call"),
                _int(c.get("action_id"), "action call"),
                _next(c.get("next_node"), "next_node"),
            )
            for c in _objs(o, "action_calls")
        ),
    )


def _one(root: Json, key: str, name: str) -> Json:
    for o in _objs(root, key):
        if o.get("name") == name:
            return o
    raise UnsupportedConstructError(
        f"a program without {key[:-1]} '{name}': only the v1model architecture runs here"
    )


def load(data: bytes) -> ir.Program:
    """Read a program. Raises `BadProgramError` or `UnsupportedConstructError`."""
    try:
        root = _obj(json.loads(data), "program")
    except (UnicodeDecodeError, json.JSONDecodeError) as e:
        raise BadProgramError(f"not JSON: {e}") from None
    try:
        return _program(root)
    except (KeyError, IndexError, TypeError) as e:
        raise BadProgramError(f"not bmv2 JSON as p4c writes it: {type(e).__name__} {e}") from e


def _program(root: Json) -> ir.Program:
    for o in _objs(root, "extern_instances"):
        raise UnsupportedConstructError(
            f"extern '{o.get('name')}' of type '{o.get('type')}'{source_of(o)}"
        )
    types = _header_types(root)
    by_id = _headers(root, types)
    headers = {h.name: h for h in by_id.values()}
    unions = _unions(root, by_id)
    deparser = _one(root, "deparsers", "deparser")
    if deparser.get("primitives"):
        raise UnsupportedConstructError("a deparser with statements other than emit")
    aliases = {}
    for row in _list(root.get("field_aliases") or [], "field_aliases"):
        alias, target = _list(row, "field_aliases")
        header, field = _list(target, "field_aliases")
        aliases[_str(header, "alias"), _str(field, "alias")] = _str(alias, "alias")
    return ir.Program(
        headers=headers,
        stacks=_stacks(root, types, by_id),
        unions={u.name: u for u in unions.values()},
        union_stacks=_union_stacks(root, unions),
        errors={
            _str(row[0], "errors"): _int(row[1], "errors")
            for row in (_list(r, "errors") for r in _list(root.get("errors") or [], "errors"))
        },
        parser=_parser(_one(root, "parsers", "parser")),
        deparser=tuple(_str(n, "deparser") for n in _list(deparser.get("order"), "deparser")),
        ingress=_pipeline(_one(root, "pipelines", "ingress"), headers),
        egress=_pipeline(_one(root, "pipelines", "egress"), headers),
        actions=_actions(root),
        calculations=_calculations(root),
        checksums=tuple(_checksums(root)),
        field_lists={f.id: f for f in _field_lists(root, "field_lists")},
        digests=tuple(_field_lists(root, "learn_lists")),
        registers=_arrays(root, "register_arrays"),
        counters=_arrays(root, "counter_arrays"),
        aliases=aliases,
    )
