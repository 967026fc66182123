"""Reads bmv2 JSON (format 2.x) into `ir`; what this target can't do is refused by name here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from softnic.compiler import ir
from softnic.compiler.jsonread import (
    MOST_BITS,
    MOST_CELLS,
    BadProgramError,
    Json,
    hexadecimal,
    integer,
    items,
    obj,
    objs,
    optional,
    pair,
    source_of,
    string,
    well_formed,
    within,
)
from softnic.compiler.values import expression, primitive
from softnic.dataplane import MatchKind, UnsupportedConstructError

_METERS = {"packets": 1, "bytes": 2}
_MATCH = {
    "exact": MatchKind.EXACT,
    "valid": MatchKind.EXACT,
    "lpm": MatchKind.LPM,
    "ternary": MatchKind.TERNARY,
    "range": MatchKind.RANGE,
    "optional": MatchKind.OPTIONAL,
}


# ---- declarations ------------------------------------------------------------------------------


def _header_types(root: Json) -> dict[str, ir.HeaderType]:
    types = {}
    for o in objs(root, "header_types"):
        name = string(o.get("name"), "header type")
        rows = [items(r, name) for r in items(o.get("fields"), name)]
        fixed = sum(integer(r[1], name) for r in rows if r[1] != "*")
        most = o.get("max_length")
        fields = []
        for row in rows:
            signed = bool(row[2]) if len(row) > 2 else False
            if row[1] != "*":
                bits = within(row[1], f"width of {name}.{row[0]}", MOST_BITS)
                fields.append(ir.FieldDecl(string(row[0], name), bits, signed))
            elif isinstance(most, int):
                fields.append(ir.FieldDecl(string(row[0], name), most * 8 - fixed, False, True))
            else:
                raise BadProgramError(f"header type {name}: a varbit field without max_length")
        types[name] = ir.HeaderType(name, tuple(fields))
    return types


def _headers(root: Json, types: Mapping[str, ir.HeaderType]) -> dict[int, ir.Header]:
    out = {}
    for o in objs(root, "headers"):
        name, number = string(o.get("name"), "header"), integer(o.get("id"), "header id")
        kind = _type_of(o, types, name)
        out[number] = ir.Header(name, number, kind, bool(o.get("metadata")))
    return out


def _type_of(o: Json, types: Mapping[str, ir.HeaderType], name: str) -> ir.HeaderType:
    kind = string(o.get("header_type"), name)
    if kind not in types:
        raise BadProgramError(f"'{name}' is of type '{kind}', which isn't declared")
    return types[kind]


def _unions(root: Json, by_id: Mapping[int, ir.Header]) -> dict[int, ir.Union]:
    members = {}
    for o in objs(root, "header_union_types"):
        pairs = [items(p, "union type") for p in items(o.get("headers"), "union type")]
        members[string(o.get("name"), "union type")] = tuple(string(p[0], "member") for p in pairs)
    out = {}
    for o in objs(root, "header_unions"):
        name = string(o.get("name"), "union")
        ids = [integer(i, name) for i in items(o.get("header_ids"), name)]
        kind = string(o.get("union_type"), name)
        out[integer(o.get("id"), name)] = ir.Union(
            name, members[kind], tuple(by_id[i].name for i in ids)
        )
    return out


def _stacks(
    root: Json, types: Mapping[str, ir.HeaderType], by_id: Mapping[int, ir.Header]
) -> dict[str, ir.Stack]:
    out = {}
    for o in objs(root, "header_stacks"):
        name = string(o.get("name"), "stack")
        ids = [integer(i, name) for i in items(o.get("header_ids"), name)]
        kind = _type_of(o, types, name)
        out[name] = ir.Stack(name, kind, tuple(by_id[i].name for i in ids))
    return out


def _union_stacks(root: Json, unions: Mapping[int, ir.Union]) -> dict[str, ir.UnionStack]:
    out = {}
    for o in objs(root, "header_union_stacks"):
        name = string(o.get("name"), "union stack")
        ids = [integer(i, name) for i in items(o.get("header_union_ids"), name)]
        out[name] = ir.UnionStack(name, unions[ids[0]].members, tuple(unions[i].name for i in ids))
    return out


def _field_lists(root: Json, key: str) -> list[ir.FieldList]:
    return [
        ir.FieldList(
            integer(o.get("id"), key),
            string(o.get("name"), key),
            tuple(expression(e) for e in items(o.get("elements"), key)),
        )
        for o in objs(root, key)
    ]


def _flat(values: Iterable[object]) -> Iterator[object]:
    """p4c writes a struct among the inputs of a hash as a list of its own."""
    for v in values:
        if isinstance(v, list):
            yield from _flat(v)
        else:
            yield v


def _calculations(root: Json) -> dict[str, ir.Calculation]:
    out = {}
    for o in objs(root, "calculations"):
        name = string(o.get("name"), "calculation")
        inputs = tuple(map(expression, _flat(items(o.get("input"), name))))
        out[name] = ir.Calculation(name, string(o.get("algo"), name), inputs, source_of(o))
    return out


def _checksums(root: Json) -> list[ir.Checksum]:
    out = []
    for o in objs(root, "checksums"):
        header, field = pair(o.get("target"), "checksum")
        cond = o.get("if_cond")
        out.append(
            ir.Checksum(
                ir.FieldRef(string(header, "checksum"), string(field, "checksum")),
                string(o.get("calculation"), "checksum"),
                bool(o.get("verify", True)),
                bool(o.get("update", True)),
                None if cond is None else expression(cond),
            )
        )
    return out


def _arrays(root: Json, key: str) -> tuple[ir.Array, ...]:
    return tuple(
        ir.Array(
            string(o.get("name"), key),
            within(o.get("size"), f"size of {o.get('name')}", MOST_CELLS),
            within(o.get("bitwidth"), key, MOST_BITS) if "bitwidth" in o else 0,
        )
        for o in objs(root, key)
        if not o.get("is_direct")
    )


def _meters(root: Json) -> tuple[tuple[ir.Array, ...], dict[str, ir.DirectMeter]]:
    arrays, direct = [], {}
    for o in objs(root, "meter_arrays"):
        name = string(o.get("name"), "meter")
        unit, rates = string(o.get("type"), name), integer(o.get("rate_count", 2), name)
        if unit not in _METERS or rates != 2:
            raise UnsupportedConstructError(f"meter '{name}' of {rates} rates in {unit}")
        if o.get("is_direct"):
            header, field = pair(o.get("result_target"), name)
            target = ir.FieldRef(string(header, name), string(field, name))
            direct[name] = ir.DirectMeter(_METERS[unit], target)
        else:
            arrays.append(ir.Array(name, within(o.get("size"), name, MOST_CELLS), _METERS[unit]))
    return tuple(arrays), direct


def _profiles(pipelines: Sequence[Json]) -> tuple[ir.Profile, ...]:
    out = []
    for o in (p for pipeline in pipelines for p in objs(pipeline, "action_profiles")):
        name = string(o.get("name"), "action profile")
        selector = None
        if o.get("selector") is not None:
            s = obj(o["selector"], name)
            inputs = tuple(map(expression, _flat(items(s.get("input"), name))))
            selector = ir.Calculation(name, string(s.get("algo"), name), inputs, source_of(o))
        out.append(ir.Profile(name, integer(o.get("max_size", 1024), name) or 1024, selector))
    return tuple(out)


def _actions(root: Json) -> dict[int, ir.Action]:
    out = {}
    for o in objs(root, "actions"):
        name, number = string(o.get("name"), "action"), integer(o.get("id"), "action")
        params = tuple(
            (string(p.get("name"), name), within(p.get("bitwidth"), f"width in {name}", MOST_BITS))
            for p in objs(o, "runtime_data")
        )
        out[number] = ir.Action(
            name, number, params, tuple(primitive(p) for p in objs(o, "primitives"))
        )
    return out


# ---- parser, pipelines -------------------------------------------------------------------------


def _transition(o: Json) -> ir.Transition:
    kind, mask = o.get("type"), o.get("mask")
    value = o.get("value")
    go = optional(o.get("next_state"), "next_state")
    if kind == "default" or (kind is None and value == "default"):
        return ir.Transition(None, None, None, go)
    mask_value = None if mask is None else hexadecimal(mask, "mask")
    if kind == "parse_vset":
        return ir.Transition(None, mask_value, string(value, "parse_vset"), go)
    return ir.Transition(hexadecimal(value, "transition"), mask_value, None, go)


def _parser_op(o: Json, state: str) -> ir.Primitive:
    op = string(o.get("op"), state)
    params = items(o.get("parameters") or [], state)
    if op == "primitive":
        return primitive(obj(params[0], state))
    if op == "shift":
        return ir.Primitive(op, (ir.Const(integer(params[0], op)),), source_of(o))
    return ir.Primitive(op, tuple(expression(p) for p in params), source_of(o))


def _parser(o: Json) -> ir.Parser:
    states = []
    for s in objs(o, "parse_states"):
        name = string(s.get("name"), "parse state")
        states.append(
            ir.ParseState(
                name,
                tuple(_parser_op(p, name) for p in objs(s, "parser_ops")),
                tuple(expression(k) for k in items(s.get("transition_key") or [], name)),
                tuple(_transition(t) for t in objs(s, "transitions")),
            )
        )
    return ir.Parser(
        string(o.get("name"), "parser"), string(o.get("init_state"), "parser"), tuple(states)
    )


def _entry_field(o: Json, bits: int) -> tuple[int, int]:
    ones = (1 << bits) - 1
    match o.get("match_type"):
        case "exact":
            return hexadecimal(o.get("key"), "entry"), ones
        case "valid":
            return int(bool(o.get("key"))), 1
        case "lpm":
            length = integer(o.get("prefix_length"), "entry")
            return hexadecimal(o.get("key"), "entry"), ones ^ (ones >> length)
        case "ternary" | "optional":
            return hexadecimal(o.get("key"), "entry"), hexadecimal(o.get("mask"), "entry") & ones
        case "range":
            return hexadecimal(o.get("start"), "entry"), hexadecimal(o.get("end"), "entry")
    raise UnsupportedConstructError(f"entry with match type {o.get('match_type')!r}")


def _entries(rows: Sequence[Json], widths: Sequence[int]) -> tuple[ir.ConstEntry, ...]:
    worst = max((integer(r.get("priority", 1), "priority") for r in rows), default=0)
    out = []
    for r in rows:
        action = obj(r.get("action_entry"), "entry")
        keys = objs(r, "match_key")
        out.append(
            ir.ConstEntry(
                tuple(_entry_field(k, w) for k, w in zip(keys, widths, strict=True)),
                # In the JSON the lowest number wins, at this interface the highest.
                worst + 1 - integer(r.get("priority", 1), "priority"),
                integer(action.get("action_id"), "entry"),
                tuple(hexadecimal(v, "entry") for v in items(action.get("action_data"), "entry")),
            )
        )
    return tuple(out)


def _table_key(o: Json) -> ir.TableKey:
    kind = string(o.get("match_type"), "key")
    if kind not in _MATCH:
        raise UnsupportedConstructError(f"match kind {kind!r}")
    target = o.get("target")
    if isinstance(target, str):
        ref = ir.FieldRef(target, "$valid$")
    else:
        header, field = pair(target, "key")
        ref = ir.FieldRef(string(header, "key"), string(field, "key"))
    mask = o.get("mask")
    name = string(o.get("name") or f"{ref.header}.{ref.field}", "key")
    return ir.TableKey(name, ref, _MATCH[kind], None if mask is None else hexadecimal(mask, "mask"))


def _table(o: Json, headers: Mapping[str, ir.Header]) -> ir.Table:
    name, source = string(o.get("name"), "table"), source_of(o)
    kind = string(o.get("type"), name)
    if kind not in ("simple", "indirect", "indirect_ws"):
        raise UnsupportedConstructError(f"table '{name}' of type '{kind}'{source}")
    try:
        key = tuple(_table_key(k) for k in objs(o, "key"))
    except UnsupportedConstructError as e:
        raise UnsupportedConstructError(f"{e} in table '{name}'{source}") from None
    rows = objs(o, "entries")
    default = o.get("default_entry")
    d = obj(default, name) if default is not None else {}
    data = items(d.get("action_data") or [], name)
    return ir.Table(
        name=name,
        key=key,
        actions=tuple(integer(i, name) for i in items(o.get("action_ids"), name)),
        size=integer(o.get("max_size", 1024), name),
        with_counters=bool(o.get("with_counters")),
        support_timeout=bool(o.get("support_timeout")),
        next={k: optional(v, name) for k, v in obj(o.get("next_tables"), name).items()},
        base_next=optional(o.get("base_default_next"), name),
        default_action=None if default is None else integer(d.get("action_id"), name),
        default_params=tuple(hexadecimal(v, name) for v in data),
        default_const=bool(d.get("action_entry_const")),
        entries=_entries(rows, [field_bits(headers, k.target) for k in key]),
        is_const="entries" in o,
        source=source,
        profile=None if kind == "simple" else string(o.get("action_profile"), name),
        meter=optional(o.get("direct_meters"), name),
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
        name=string(o.get("name"), "pipeline"),
        init=optional(o.get("init_table"), "init_table"),
        tables=tuple(_table(t, headers) for t in objs(o, "tables")),
        conditionals=tuple(
            ir.Conditional(
                string(c.get("name"), "conditional"),
                expression(c.get("expression")),
                optional(c.get("true_next"), "true_next"),
                optional(c.get("false_next"), "false_next"),
                source_of(c),
            )
            for c in objs(o, "conditionals")
        ),
        calls=tuple(
            ir.ActionCall(
                string(c.get("name"), "action call"),
                integer(c.get("action_id"), "action call"),
                optional(c.get("next_node"), "next_node"),
            )
            for c in objs(o, "action_calls")
        ),
    )


def _one(root: Json, key: str, name: str) -> Json:
    for o in objs(root, key):
        if o.get("name") == name:
            return o
    raise UnsupportedConstructError(
        f"a program without {key[:-1]} '{name}': only the v1model architecture runs here"
    )


def load(data: bytes) -> ir.Program:
    """Read a program. Raises `BadProgramError` or `UnsupportedConstructError`."""
    try:
        root = obj(json.loads(data), "program")
    except (UnicodeDecodeError, json.JSONDecodeError) as e:
        raise BadProgramError(f"not JSON: {e}") from None
    except RecursionError:
        raise BadProgramError("not bmv2 JSON as p4c writes it: nested too deeply") from None
    with well_formed():
        return _program(root)


def _program(root: Json) -> ir.Program:
    for o in objs(root, "extern_instances"):
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
    for row in items(root.get("field_aliases") or [], "field_aliases"):
        alias, target = pair(row, "field_aliases")
        header, field = pair(target, "field_aliases")
        aliases[string(header, "alias"), string(field, "alias")] = string(alias, "alias")
    meters, direct_meters = _meters(root)
    return ir.Program(
        headers=headers,
        stacks=_stacks(root, types, by_id),
        unions={u.name: u for u in unions.values()},
        union_stacks=_union_stacks(root, unions),
        errors={
            string(row[0], "errors"): integer(row[1], "errors")
            for row in (items(r, "errors") for r in items(root.get("errors") or [], "errors"))
        },
        parser=_parser(_one(root, "parsers", "parser")),
        deparser=tuple(string(n, "deparser") for n in items(deparser.get("order"), "deparser")),
        ingress=_pipeline(_one(root, "pipelines", "ingress"), headers),
        egress=_pipeline(_one(root, "pipelines", "egress"), headers),
        actions=_actions(root),
        calculations=_calculations(root),
        checksums=tuple(_checksums(root)),
        field_lists={f.id: f for f in _field_lists(root, "field_lists")},
        digests=tuple(_field_lists(root, "learn_lists")),
        registers=_arrays(root, "register_arrays"),
        counters=_arrays(root, "counter_arrays"),
        meters=meters,
        direct_meters=direct_meters,
        profiles=_profiles(objs(root, "pipelines")),
        value_sets={
            string(o.get("name"), "value set"): integer(o.get("max_size", 1024), "value set")
            for o in objs(root, "parse_vsets")
        },
        aliases=aliases,
    )
