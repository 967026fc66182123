"""Expressions and primitives of the JSON as `ir`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from softnic.compiler import ir
from softnic.compiler.jsonread import (
    MOST_BITS,
    Json,
    hexadecimal,
    integer,
    items,
    obj,
    objs,
    pair,
    source_of,
    string,
    within,
)
from softnic.dataplane import UnsupportedConstructError

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


def _names(value: object, what: str, count: int) -> list[str]:
    found = [string(v, what) for v in items(value, what)]
    if len(found) != count:
        raise UnsupportedConstructError(f"{what} of {len(found)} parts")
    return found


def _field(o: Json) -> ir.Expr:
    header, field = _names(o.get("value"), "field", 2)
    return ir.FieldRef(header, field)


def _stack_field(o: Json) -> ir.Expr:
    stack, field = _names(o.get("value"), "stack_field", 2)
    return ir.StackField(stack, field)


def _union_stack_field(o: Json) -> ir.Expr:
    stack, member, field = _names(o.get("value"), "union_stack_field", 3)
    return ir.UnionStackField(stack, member, field)


def _union_stack(o: Json) -> ir.Expr:
    stack, member = _names(o.get("value"), "union_stack", 2)
    return ir.Vector((ir.Named("union_stack", stack), ir.Named("member", member)))


def _hexstr(o: Json) -> ir.Expr:
    bits = o.get("bitwidth")
    value = hexadecimal(o.get("value"), "hexstr")
    return ir.Const(value, None if bits is None else integer(bits, "bitwidth"))


def _lookahead(o: Json) -> ir.Expr:
    offset, bits = pair(o.get("value"), "lookahead")
    return ir.Lookahead(integer(offset, "lookahead"), within(bits, "lookahead", MOST_BITS))


def _vector(o: Json) -> ir.Expr:
    # p4c writes an object where the list would be empty.
    values = items(o.get("value") or [], "parameters_vector")
    return ir.Vector(tuple(expression(x) for x in values))


_READERS: Mapping[str, Callable[[Json], ir.Expr]] = {
    "expression": lambda o: expression(o.get("value")),
    "hexstr": _hexstr,
    "bool": lambda o: ir.Bool(bool(o.get("value"))),
    "string": lambda o: ir.Text(string(o.get("value"), "string")),
    "field": _field,
    "stack_field": _stack_field,
    "union_stack_field": _union_stack_field,
    "union_stack": _union_stack,
    "lookahead": _lookahead,
    "local": lambda o: ir.Local(integer(o.get("value"), "local")),
    "runtime_data": lambda o: ir.Local(integer(o.get("value"), "runtime_data")),
    "payload": lambda _: ir.Payload(),
    "parameters_vector": _vector,
}


def expression(value: object) -> ir.Expr:
    """A `type` and `value` object, or a bare operation."""
    o = obj(value, "expression")
    if "op" in o:
        return _operation(o)
    kind = str(o.get("type"))
    if kind in _NAMED:
        return ir.Named(kind, string(o.get("value"), kind))
    reader = _READERS.get(kind)
    if reader is None:
        raise UnsupportedConstructError(f"value of type '{kind}'")
    return reader(o)


def _operation(o: Json) -> ir.Op:
    op = string(o["op"], "op")
    left, right, cond = o.get("left"), o.get("right"), o.get("cond")
    if op in ("access_field", "access_union_header"):
        return ir.Op(op, expression(left), ir.Const(integer(right, op)))
    return ir.Op(
        op,
        None if left is None else expression(left),
        expression(right),
        None if cond is None else expression(cond),
    )


def primitive(o: Json) -> ir.Primitive:
    """A step of an action."""
    op = string(o.get("op"), "primitive")
    return ir.Primitive(op, tuple(expression(p) for p in objs(o, "parameters")), source_of(o))
