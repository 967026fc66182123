"""`dysco-ctl reconfigure` and `dysco-ctl events`."""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dysco.controller import output
from dysco.controller.cli_base import Context, Exit, for_each, output_option, pass_context
from dysco.controller.client import ApiError

_PAUSE = 0.1
_FOLLOW_WAIT = 10
_TIMES = ("locked", "switched", "finished")


@click.command()
@click.argument("sessions", metavar="[SESSION]...", nargs=-1)
@click.option("--match", "-m", help="All established sessions that fit, in pcap-filter words.")
@click.option(
    "--delete", "-d", multiple=True, help="A middlebox to take out; again for its neighbour."
)
@click.option("--insert", "-i", help="A middlebox to put in: host name, address or kind.")
@click.option("--after", "-a", help="The host that the new middlebox comes behind.")
@click.option("--replace", "-r", metavar="OLD=NEW", help="One middlebox in another's place.")
@click.option(
    "--migrate-state",
    is_flag=True,
    help="With --replace: the middlebox's own state of the session goes along.",
)
@click.option(
    "--move", metavar="OLD=NEW", help="The session's end goes to another host, with its state."
)
@click.option(
    "--cancel", is_flag=True, help="Go back to the old chain, as long as that is possible."
)
@click.option("--no-wait", is_flag=True, help="Don't wait for the end.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.0),
    default=60.0,
    show_default=True,
    help="Seconds to wait.",
)
@output_option
@pass_context
def reconfigure(
    context: Context,
    *,
    sessions: tuple[str, ...],
    match: str | None,
    delete: tuple[str, ...],
    insert: str | None,
    after: str | None,
    replace: str | None,
    migrate_state: bool,
    move: str | None,
    cancel: bool,
    no_wait: bool,
    timeout: float,
) -> None:
    """Change the service chain of live sessions; neither end of them notices.

    \b
    dysco-ctl reconfigure 0123456789abc --delete nat
    dysco-ctl reconfigure --match 'tcp and dst port 80' --insert scrubber --after client
    dysco-ctl reconfigure 0123456789abc --replace firewall=firewall2 --migrate-state
    dysco-ctl reconfigure --match 'tcp and dst port 80' --move server=server2

    Exit code 5 if not all of the sessions were changed.
    """
    if cancel:
        if delete or migrate_state or {match, insert, after, replace, move} != {None}:
            raise click.UsageError("--cancel goes with sessions' ids alone")
        if not sessions:
            raise click.UsageError("say which sessions to cancel: their ids")
        _cancel(context, sessions)
        return
    if bool(delete) + sum(what is not None for what in (insert, replace, move)) != 1:
        raise click.UsageError("give exactly one of --delete, --insert, --replace and --move")
    if (insert is None) != (after is None):
        raise click.UsageError("--insert and --after go together")
    if bool(sessions) == (match is not None):
        raise click.UsageError("say which sessions: either their ids, or --match")
    if migrate_state and replace is None:
        raise click.UsageError("--migrate-state goes with --replace")
    old, new = _pair("--replace", replace)
    end, to = _pair("--move", move)
    body = {
        "sessions": list(sessions),
        "match": match,
        "delete": list(delete),
        "insert": insert,
        "after": after,
        "replace": old,
        "by": new,
        "migrate_state": migrate_state,
        "move": end,
        "to": to,
    }
    asked = context.client.post("v1", "reconfigurations", body=body)
    started = {a["session"]: a["at"] for a in asked if a["accepted"]}
    if no_wait:
        _say(context, asked)
        return
    ended = _wait(context, started, timeout) if started else {}
    _summary(context, asked, ended)
    if not all(r["state"] == "finished" for r in ended.values()) or len(ended) < len(asked):
        raise SystemExit(Exit.REFUSED)


def _pair(option: str, value: str | None) -> tuple[str | None, str | None]:
    """The two names of OLD=NEW."""
    if value is None:
        return None, None
    old, _, new = value.partition("=")
    if not (old and new):
        raise click.UsageError(f"write {option} OLD=NEW")
    return old, new


def _cancel(context: Context, sessions: Sequence[str]) -> None:
    def act(session: str) -> Any:
        answer = context.client.delete("v1", "reconfigurations", session)
        if not answer["accepted"]:
            raise ApiError(409, f"session {session}: {answer['detail']}")
        return answer

    for_each(context, sessions, act, lambda answer: f"cancelled: {answer['detail']}")


def _say(context: Context, answers: Sequence[dict[str, Any]]) -> None:
    if context.as_json:
        output.show_json(answers)
    else:
        for answer in answers:
            click.echo(f"{'started' if answer['accepted'] else 'refused'}: {answer['detail']}")
    if not all(answer["accepted"] for answer in answers):
        raise SystemExit(Exit.REFUSED)


def _wait(
    context: Context, sessions: dict[str, float], timeout: float
) -> dict[str, dict[str, Any]]:
    """The reconfiguration of each session that began then, until all are over or the time is."""
    until = time.monotonic() + timeout
    found: dict[str, dict[str, Any]] = {}
    with _bar(context, len(sessions)) as show:
        while True:
            for known in context.client.get("v1", "reconfigurations"):
                if known["started"] >= sessions.get(known["session"], math.inf):
                    found[known["session"]] = known
            show(sum(1 for known in found.values() if known["over"]))
            if len(found) == len(sessions) and all(known["over"] for known in found.values()):
                return found
            if not time.monotonic() < until:
                return found
            time.sleep(_PAUSE)


@contextlib.contextmanager
def _bar(context: Context, total: int) -> Iterator[Any]:
    console = Console(stderr=True)
    if context.as_json or not console.is_terminal:
        yield lambda done: None
        return
    columns = (TextColumn("reconfiguring"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.update(task, completed=done)


def _summary(
    context: Context, asked: Sequence[dict[str, Any]], ended: dict[str, dict[str, Any]]
) -> None:
    refused = [a for a in asked if not a["accepted"]]
    if context.as_json:
        output.show_json({"refused": refused, "reconfigurations": list(ended.values())})
        return
    if not asked:
        click.echo("no sessions")
        return
    rows = []
    for name in _TIMES:
        took = [(r[name] - r["started"]) * 1000 for r in ended.values() if r[name] is not None]
        if took:
            took.sort()
            late = took[min(len(took) - 1, int(len(took) * 0.9))]
            times = (statistics.median(took), late, took[-1])
            rows.append((name, len(took), *(f"{t:.1f} ms" for t in times)))
    output.show_table(("", "SESSIONS", "MEDIAN", "90 %", "LAST"), rows, "nothing was begun")
    reasons: Counter[str] = Counter()
    for known in ended.values():
        if known["state"] != "finished":
            reasons[f"{known['state']}: {known['why'] or 'not over yet'}"] += 1
    for answer in refused:
        reasons[f"refused: {answer['detail']}"] += 1
    for reason, count in reasons.most_common(10):
        click.echo(f"{count} {reason}", err=True)


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens from now on.")
@click.option("--session", help="Only of this session.")
@output_option
@pass_context
def events(context: Context, *, follow: bool, session: str | None) -> None:
    """Each step of each reconfiguration, with its time; JSON is one object a line."""
    last = 0
    wait = 0
    shown = False
    while True:
        found = context.client.get("v1", "events", after=last, wait=wait)
        for event in found:
            last = event["number"]
            if session is None or event["session"] == session:
                _show(context, event)
                shown = True
        if not follow:
            if not shown and not context.as_json:
                click.echo("no events")
            return
        wait = _FOLLOW_WAIT


def _show(context: Context, event: dict[str, Any]) -> None:
    if context.as_json:
        click.echo(json.dumps(event))
        return
    at = datetime.fromtimestamp(event["at"]).astimezone().strftime("%H:%M:%S.%f")
    why = f"  {event['why']}" if event["why"] else ""
    which = f"{event['left']}/{event['reconfiguration']}"
    where = f"{event['host']} ({event['role']})"
    click.echo(f"{at}  {event['session']}  {which}  {where}: {event['state']}{why}")
