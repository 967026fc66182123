"""What all commands of `dysco-ctl` share: the daemon, how to print, and the exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Never, TypeVar

import click

from dysco.controller import output
from dysco.controller.client import ApiError, Client

_OUTPUT = "dysco.output"
_F = TypeVar("_F", bound=Callable[..., Any])


class Exit(IntEnum):
    """Exit codes, for scripts; 0 is success, and 2 is click's for bad usage."""

    MISSING = 1
    UNREACHABLE = 3
    NOT_FOUND = 4
    REFUSED = 5
    DEVICE = 6


_EXITS = {404: Exit.NOT_FOUND, 409: Exit.REFUSED, 422: Exit.REFUSED, 503: Exit.DEVICE}
"""By the status of the API's answer."""


@dataclass(slots=True)
class Context:
    """What a command works with."""

    client: Client
    as_json: bool

    def show(
        self,
        found: Any,
        columns: Sequence[str],
        rows: Callable[[], Iterable[Sequence[object]]],
        empty: str,
    ) -> None:
        """Print what was found: as JSON, or `rows` as a table (`empty` if there are none)."""
        if self.as_json:
            output.show_json(found)
        else:
            output.show_table(columns, rows(), empty)


pass_context = click.make_pass_decorator(Context)


def output_option(function: _F) -> _F:
    """`-o`, of the whole program and of each command: either place will do."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        callback=_set_output,
        expose_value=False,
        help="How to print; default: table.",
    )(function)


def _set_output(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.find_root().meta[_OUTPUT] = value
        if isinstance(ctx.obj, Context):
            ctx.obj.as_json = value == "json"


def wants_json(ctx: click.Context) -> bool:
    """Whether `-o json` came before the command."""
    return bool(ctx.meta.get(_OUTPUT) == "json")


def tell(text: str) -> None:
    """A line about what went wrong, to standard error."""
    click.echo(f"dysco-ctl: {text}", err=True)


def fail(text: str, code: int) -> Never:
    """End the program with a line on standard error."""
    tell(text)
    sys.exit(code)


def for_each(
    context: Context, names: Sequence[str], act: Callable[[str], Any], done: Callable[[Any], str]
) -> None:
    """Act on each and tell it; one that fails is told, keeps none of the others, and is the code.

    With `-o json`, prints the list of what succeeded.
    """
    succeeded = []
    code: int | None = None
    for name in names:
        try:
            answer = act(name)
        except ApiError as error:
            tell(error.detail)
            code = exit_code(error)
            continue
        succeeded.append(answer)
        if not context.as_json:
            click.echo(done(answer))
    if context.as_json:
        output.show_json(succeeded)
    if code is not None:
        sys.exit(code)


def exit_code(error: ApiError) -> int:
    """What an error of the API makes the program end with."""
    return _EXITS.get(error.status, 1)
