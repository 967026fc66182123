"""`dysco-ctl policy`: which sessions take which chain."""

from __future__ import annotations

import click

from dysco.controller import output
from dysco.controller.cli_base import Context, for_each, output_option, pass_context
from dysco.controller.client import DEFAULT_SERVER, ApiError, Client, UnreachableError


@click.group()
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
@click.option(
    "--priority", type=click.IntRange(0, 32767), default=100, show_default=True, help="Higher wins."
)
@click.option("--host", help="Only sessions that this host starts.")
@click.option(
    "--on-failure",
    type=click.Choice(["refuse", "direct"]),
    default="refuse",
    show_default=True,
    help="What becomes of a session whose chain can't be built.",
)
@click.option("--name", help="Default: policyN.")
@output_option
@pass_context
def policy_add(
    context: Context,
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
    hops = [hop.strip() for hop in chain.split(",")] if chain else []
    if not all(hops):
        raise click.UsageError(
            "--chain has an empty element; write --chain '' for a chain without any"
        )
    body = {
        "match": match,
        "chain": None if direct else hops,
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
@output_option
@pass_context
def policy_list(context: Context) -> None:
    """All policies, the one that wins first."""
    found = context.client.get("v1", "policies")
    context.show(
        found,
        ("ID", "NAME", "PRIORITY", "MATCH", "CHAIN", "HOST", "ON FAILURE", "SESSIONS"),
        lambda: (
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
@click.argument(
    "policies", metavar="POLICY...", nargs=-1, required=True, shell_complete=_policy_names
)
@output_option
@pass_context
def policy_remove(context: Context, policies: tuple[str, ...]) -> None:
    """Remove policies, by name or id. Sessions that they started go on."""
    for_each(
        context,
        policies,
        lambda name: context.client.delete("v1", "policies", name),
        lambda p: f"policy {p['name']} (id {p['id']}) is removed",
    )
