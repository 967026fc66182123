"""`dysco-ctl session` and `dysco-ctl chain`: sessions under way, and their chains hop by hop."""

from __future__ import annotations

import re
from typing import Any

import click

from dysco.controller import output
from dysco.controller.cli_base import Context, for_each, output_option, pass_context
from dysco.controller.client import ApiError, Client

_SESSION_ID = re.compile(r"[0-9a-f]{13}")


@click.group()
def session() -> None:
    """Sessions under way."""


@session.command("list")
@click.option("--match", "-m", help="In pcap-filter words, about the session's five-tuple.")
@click.option("--host", help="Only sessions that cross this host.")
@click.option(
    "--state",
    type=click.Choice(["received", "sent", "established", "closing", "reset"]),
    help="Only sessions in this state.",
)
@click.option(
    "--limit",
    type=click.IntRange(0, 100_000),
    default=100,
    show_default=True,
    help="How many at most.",
)
@output_option
@pass_context
def session_list(
    context: Context, *, match: str | None, host: str | None, state: str | None, limit: int
) -> None:
    """Sessions, the youngest first."""
    found = context.client.get("v1", "sessions", match=match, host=host, state=state, limit=limit)
    context.show(
        found,
        ("ID", "SESSION", "STATE", "HOSTS", "AGE"),
        lambda: (
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
    if not context.as_json and found["total"] > len(found["sessions"]):
        click.echo(f"{len(found['sessions'])} of {found['total']}; see more with --limit", err=True)


@session.command("show")
@click.argument("session_id", metavar="SESSION")
@output_option
@pass_context
def session_show(context: Context, session_id: str) -> None:
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
    _say_change(context.client.get("v1", "reconfigurations", session=session_id))
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


def _say_change(known: list[dict[str, Any]]) -> None:
    """What becomes of the last change of its chain, unless that went well."""
    if not known or known[-1]["state"] == "finished":
        return
    last = known[-1]
    where = " > ".join((last["left"], *last["through"], last["right"]))
    why = f": {last['why']}" if last["why"] else ""
    click.echo(f"change   {last['state']}{why} ({where}), began {output.age(last['started'])} ago")


def _policy_name(client: Client, number: int) -> str:
    try:
        return str(client.get("v1", "policies", str(number))["name"])
    except ApiError:
        return f"{number} (removed since)"


@session.command("close")
@click.argument("session_ids", metavar="SESSION...", nargs=-1, required=True)
@output_option
@pass_context
def session_close(context: Context, session_ids: tuple[str, ...]) -> None:
    """Release sessions' mappings and ports. Their packets then find no way: the hosts time out."""
    for_each(
        context,
        session_ids,
        lambda number: context.client.delete("v1", "sessions", number),
        lambda s: f"session {s['id']} is closed: {output.ends(s['session'])}",
    )


@click.group()
def chain() -> None:
    """Chains as their hops saw them."""


@chain.command("show")
@click.argument("which", metavar="[SESSION|MATCH]", default="")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=10,
    show_default=True,
    help="How many at most.",
)
@output_option
@pass_context
def chain_show(context: Context, which: str, limit: int) -> None:
    """The chain of a session, or of the youngest that fit a match in pcap-filter words."""
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
