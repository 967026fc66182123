"""`dysco-ctl`: looks at a `dyscod` and gives it policies."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click
from click.shell_completion import get_completion_class

from dysco.controller import output
from dysco.controller.cli_reconfigure import events, reconfigure
from dysco.controller.client import DEFAULT_SERVER, ApiError, Client, UnreachableError
from dysco.controller.doctor import examine

EXIT_MISSING = 1
EXIT_UNREACHABLE = 3
EXIT_NOT_FOUND = 4
EXIT_REFUSED = 5
EXIT_DEVICE = 6
_EXITS = {404: EXIT_NOT_FOUND, 409: EXIT_REFUSED, 422: EXIT_REFUSED, 503: EXIT_DEVICE}

_SESSION_ID = re.compile(r"[0-9a-f]{13}")
_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(slots=True)
class _Context:
    client: Client
    as_json: bool


class _Group(click.Group):
    """Turns the daemon's errors into a line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UnreachableError as error:
            hint = (
                "Is it running? Start it with: dyscod --config FILE; or is it elsewhere? --server"
            )
            _fail(f"{error}\n{hint}", EXIT_UNREACHABLE)
        except ApiError as error:
            _fail(error.detail, _EXITS.get(error.status, 1))


def _fail(text: str, code: int) -> None:
    click.echo(f"dysco-ctl: {text}", err=True)
    sys.exit(code)


def _set_output(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.find_root().meta["dysco.output"] = value
        if isinstance(ctx.obj, _Context):
            ctx.obj.as_json = value == "json"


def _output_option(function: _F) -> _F:
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        callback=_set_output,
        expose_value=False,
        help="How to print; default: table.",
    )(function)


_pass = click.make_pass_decorator(_Context)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExit codes: 0 done, 1 doctor found something missing, 2 bad usage,\n"
    "3 the daemon can't be reached, 4 not found, 5 refused or invalid,\n"
    "6 a device can't be used now.",
)
@click.option(
    "--server",
    "--api",
    envvar="DYSCO_SERVER",
    default=DEFAULT_SERVER,
    show_default=True,
    help="Where dyscod listens: http://ADDRESS:PORT or unix:/path; env DYSCO_SERVER.",
)
@_output_option
@click.version_option(package_name="dysco-p4")
@click.pass_context
def main(ctx: click.Context, server: str) -> None:
    """Service chains for live TCP connections: policies, sessions, devices."""
    try:
        client = Client(server)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--server") from error
    ctx.obj = _Context(client, ctx.meta.get("dysco.output") == "json")


# Policies


@main.group()
def policy() -> None:
    """Which sessions take which chain."""


def _policy_names(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """For completion: silent where the daemon is not there."""
    server = ctx.find_root().params.get("server") or DEFAULT_SERVER
    try:
        found = Client(str(server), timeout=0.5).get("v1", "policies")
    except (UnreachableError, ApiError, ValueError):
        return []
    return [p["name"] for p in found if p["name"].startswith(typed)]


@policy.command("add")
@click.option(
    "--match",
    "-m",
    required=True,
    help="In pcap-filter words: 'tcp and dst port 80 and src net 10.0.0.0/8'.",
)
@click.option(
    "--chain",
    "-c",
    help="Middleboxes, comma-separated: names, addresses or kinds. "
    "Empty (''): sessions are tracked, but go directly.",
)
@click.option("--direct", is_flag=True, help="No chain: an exception from policies that win less.")
@click.option("--priority", type=int, default=100, show_default=True, help="Higher wins.")
@click.option("--host", help="Only sessions that this host starts.")
@click.option(
    "--on-failure",
    type=click.Choice(["refuse", "direct"]),
    default="refuse",
    show_default=True,
    help="What becomes of a session whose chain can't be built.",
)
@click.option("--name", help="Default: policyN.")
@_output_option
@_pass
def policy_add(
    context: _Context,
    *,
    match: str,
    chain: str | None,
    direct: bool,
    priority: int,
    host: str | None,
    on_failure: str,
    name: str | None,
) -> None:
    """Add a policy. It holds for sessions to come, at once, on all connected devices."""
    if direct == (chain is not None):
        raise click.UsageError("give either --chain or --direct")
    hops = None if chain is None else [hop.strip() for hop in chain.split(",") if hop.strip()]
    body = {
        "match": match,
        "chain": hops,
        "priority": priority,
        "host": host,
        "on_failure": on_failure,
        "name": name,
    }
    added = context.client.post("v1", "policies", body=body)
    if context.as_json:
        output.show_json(added)
    else:
        click.echo(f"policy {added['name']} (id {added['id']}) is in force")


@policy.command("list")
@_output_option
@_pass
def policy_list(context: _Context) -> None:
    """All policies, the one that wins first."""
    found = context.client.get("v1", "policies")
    if context.as_json:
        output.show_json(found)
        return
    output.show_table(
        ("ID", "NAME", "PRIORITY", "MATCH", "CHAIN", "HOST", "ON FAILURE", "SESSIONS"),
        (
            (
                p["id"],
                p["name"],
                p["priority"],
                p["match"],
                _chain(p["chain"]),
                p["host"] or "all",
                p["on_failure"],
                p["sessions"],
            )
            for p in found
        ),
        "no policies; add one with: dysco-ctl policy add --match 'tcp and dst port 80' --chain ...",
    )


def _chain(chain: list[str] | None) -> str:
    return "(untouched)" if chain is None else ", ".join(chain) or "(tracked, direct)"


@policy.command("remove")
@click.argument("policies", nargs=-1, required=True, shell_complete=_policy_names)
@_output_option
@_pass
def policy_remove(context: _Context, policies: tuple[str, ...]) -> None:
    """Remove policies, by name or id. Sessions that they started go on."""
    _delete_each(
        context, "policies", policies, lambda p: f"policy {p['name']} (id {p['id']}) is removed"
    )


def _delete_each(
    context: _Context, kind: str, names: Sequence[str], told: Callable[[Any], str]
) -> None:
    """Each on its own: one that fails is told, keeps none of the others, and makes the status."""
    gone, failed = [], []
    for name in names:
        try:
            gone.append(context.client.delete("v1", kind, name))
        except ApiError as error:
            failed.append(error)
            continue
        if not context.as_json:
            click.echo(told(gone[-1]))
    if context.as_json:
        output.show_json(gone)
    for earlier in failed[:-1]:
        click.echo(f"dysco-ctl: {earlier.detail}", err=True)
    if failed:
        raise failed[-1]


# Sessions


@main.group()
def session() -> None:
    """Sessions under way."""


@session.command("list")
@click.option("--match", "-m", help="In pcap-filter words, about the session's five-tuple.")
@click.option("--host", help="That cross this host.")
@click.option("--state", type=click.Choice(["received", "sent", "established", "closing", "reset"]))
@click.option("--limit", type=click.IntRange(0, 100_000), default=100, show_default=True)
@_output_option
@_pass
def session_list(
    context: _Context, *, match: str | None, host: str | None, state: str | None, limit: int
) -> None:
    """Sessions, the youngest first."""
    found = context.client.get("v1", "sessions", match=match, host=host, state=state, limit=limit)
    if context.as_json:
        output.show_json(found)
        return
    output.show_table(
        ("ID", "SESSION", "STATE", "HOSTS", "AGE"),
        (
            (
                s["id"],
                output.ends(s["session"]),
                s["state"],
                " > ".join(s["hosts"]),
                output.age(s["created"]),
            )
            for s in found["sessions"]
        ),
        "no sessions",
    )
    if found["total"] > len(found["sessions"]):
        click.echo(f"{len(found['sessions'])} of {found['total']}; see more with --limit", err=True)


@session.command("show")
@click.argument("session_id", metavar="SESSION")
@_output_option
@_pass
def session_show(context: _Context, session_id: str) -> None:
    """One session, with what its devices counted."""
    found = context.client.get("v1", "sessions", session_id)
    if context.as_json:
        output.show_json(found)
        return
    click.echo(f"session {found['id']}  {output.ends(found['session'])}  {found['state']}")
    name = _policy_name(context.client, found["policy"])
    click.echo(f"policy {name}, {output.age(found['created'])} old")
    click.echo(f"chain    {' > '.join(found['hosts'])}")
    if found["new_path"]:
        click.echo(f"new path {' > '.join(found['new_path'])}")
    if found["leaving"]:
        click.echo(f"leaving  {', '.join(found['leaving'])}")
    rows = [
        (
            hop["host"],
            hop["device"],
            hop["state"],
            side,
            output.ends(leg["subsession"]),
            output.traffic(leg, "sent"),
            output.traffic(leg, "received"),
        )
        for hop in found["hops"]
        for side, leg in (("left", hop["previous"]), ("right", hop["next"]))
        if leg is not None
    ]
    columns = ("HOST", "DEVICE", "STATE", "SIDE", "SUBSESSION", "SENT PKT/BYTE", "GOT PKT/BYTE")
    output.show_table(columns, rows, "no hops")


def _policy_name(client: Client, number: int) -> str:
    try:
        return str(client.get("v1", "policies", str(number))["name"])
    except ApiError:
        return f"{number} (removed since)"


@session.command("close")
@click.argument("session_ids", metavar="SESSION...", nargs=-1, required=True)
@_output_option
@_pass
def session_close(context: _Context, session_ids: tuple[str, ...]) -> None:
    """Release sessions' mappings and ports. Their packets then find no way: the hosts time out."""
    _delete_each(
        context,
        "sessions",
        session_ids,
        lambda s: f"session {s['id']} is closed: {output.ends(s['session'])}",
    )


main.add_command(_output_option(reconfigure))
main.add_command(_output_option(events))


# Devices, chains, counters


@main.group()
def device() -> None:
    """P4 devices."""


@device.command("list")
@_output_option
@_pass
def device_list(context: _Context) -> None:
    """All devices, and why one is not ready."""
    found = context.client.get("v1", "devices")
    if context.as_json:
        output.show_json(found)
        return
    output.show_table(
        ("NAME", "ADDRESS", "STATE", "HOSTS", "ENTRIES", "PROBLEM"),
        (
            (d["name"], d["address"], d["state"], ", ".join(d["hosts"]), d["entries"], d["problem"])
            for d in found
        ),
        "no devices in the configuration",
    )


@main.group()
def chain() -> None:
    """Chains as their hops saw them."""


@chain.command("show")
@click.argument("which", metavar="[SESSION|FILTER]", default="")
@click.option("--limit", type=click.IntRange(1, 10_000), default=10, show_default=True)
@_output_option
@_pass
def chain_show(context: _Context, which: str, limit: int) -> None:
    """The chain of a session, or of the youngest that fit a filter in pcap-filter words."""
    client = context.client
    if _SESSION_ID.fullmatch(which):
        numbers = [which]
    else:
        listed = client.get("v1", "sessions", match=which, limit=limit)
        numbers = [s["id"] for s in listed["sessions"]]
    chains = [client.get("v1", "chains", number) for number in numbers]
    if context.as_json:
        output.show_json(chains)
        return
    if not chains:
        click.echo("no sessions")
    for found in chains:
        missing = "" if found["complete"] else "  (hops of other daemons are not shown)"
        click.echo(
            f"session {found['id']}  {output.ends(found['session'])}  {found['state']}{missing}"
        )
        output.show_table(
            ("HOST", "CAME AS", "HOST GOT", "HOST SENT", "WENT AS"),
            (
                (
                    hop["host"],
                    output.ends(hop["came_as"]),
                    output.ends(hop["host_got"]),
                    output.ends(hop["host_sent"]),
                    output.ends(hop["went_as"]),
                )
                for hop in found["hops"]
            ),
            "no hops",
        )


@main.command()
@_output_option
@_pass
def counters(context: _Context) -> None:
    """Everything that was counted: by device, by host, and dropped packets by reason."""
    found = context.client.get("v1", "counters")
    if context.as_json:
        output.show_json(found)
        return
    rows = [
        (kind, name, counter, value)
        for kind, group in (("device", "devices"), ("host", "hosts"), ("drops", "drops"))
        for name, counted in found[group].items()
        for counter, value in sorted(counted.items())
        if value
    ]
    output.show_table(("", "NAME", "COUNTER", "VALUE"), rows, "nothing counted yet")


# This machine


@main.command()
@_output_option
@_pass
def doctor(context: _Context) -> None:
    """What is missing on this machine, and how to get it."""
    findings = examine(context.client.server)
    lacking = [f for f in findings if f.required and not f.ok]
    if context.as_json:
        output.show_json(
            [
                {
                    "name": f.name,
                    "ok": f.ok,
                    "required": f.required,
                    "purpose": f.purpose,
                    "remedy": None if f.ok else f.remedy,
                }
                for f in findings
            ]
        )
    else:
        output.show_table(
            ("", "WHAT", "FOR", "HOW TO GET IT"),
            (
                (
                    "ok" if f.ok else "MISSING" if f.required else "optional",
                    f.name,
                    f.purpose,
                    "" if f.ok else f.remedy,
                )
                for f in findings
            ),
            "nothing to examine",
        )
    if lacking:
        _fail(f"missing: {', '.join(f.name for f in lacking)}", EXIT_MISSING)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """The completion script for a shell: eval "$(dysco-ctl completion bash)"."""
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"click knows no completion for {shell}")
    click.echo(found(main, {}, "dysco-ctl", "_DYSCO_CTL_COMPLETE").source())
