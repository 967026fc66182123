"""`dysco-ctl`: looks at a `dyscod` and gives it policies."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import get_completion_class

from dysco.controller.cli_base import (
    Context,
    Exit,
    exit_code,
    fail,
    output_option,
    pass_context,
    wants_json,
)
from dysco.controller.cli_policy import policy
from dysco.controller.cli_reconfigure import events, reconfigure
from dysco.controller.cli_session import chain, session
from dysco.controller.client import DEFAULT_SERVER, ApiError, Client, UnreachableError
from dysco.controller.doctor import examine


class _Group(click.Group):
    """Turns the daemon's errors into a line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UnreachableError as error:
            hint = (
                "Is it running? Start it with: dyscod --config FILE; or is it elsewhere? --server"
            )
            fail(f"{error}\n{hint}", Exit.UNREACHABLE)
        except ApiError as error:
            fail(error.detail, exit_code(error))


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExit codes: 0 done, 1 doctor found something missing, 2 bad usage,\n"
    "3 the daemon can't be reached, 4 not found, 5 refused or invalid,\n"
    "6 a device can't be used now.",
)
@click.option(
    "--server",
    envvar="DYSCO_SERVER",
    default=DEFAULT_SERVER,
    show_default=True,
    help="Where dyscod listens: http://ADDRESS:PORT or unix:/path; env DYSCO_SERVER.",
)
@output_option
@click.version_option(package_name="dysco-p4")
@click.pass_context
def main(ctx: click.Context, server: str) -> None:
    """Service chains for live TCP connections: policies, sessions, devices."""
    try:
        client = Client(server)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--server") from error
    ctx.obj = Context(client, wants_json(ctx))


for _command in (policy, session, chain, reconfigure, events):
    main.add_command(_command)


@main.group()
def device() -> None:
    """P4 devices."""


@device.command("list")
@output_option
@pass_context
def device_list(context: Context) -> None:
    """All devices, and why one is not ready."""
    found = context.client.get("v1", "devices")
    context.show(
        found,
        ("NAME", "ADDRESS", "STATE", "HOSTS", "ENTRIES", "PROBLEM"),
        lambda: (
            (d["name"], d["address"], d["state"], ", ".join(d["hosts"]), d["entries"], d["problem"])
            for d in found
        ),
        "no devices in the configuration",
    )


@main.command()
@output_option
@pass_context
def counters(context: Context) -> None:
    """Everything that was counted: by device, by host, and dropped packets by reason."""
    found = context.client.get("v1", "counters")
    context.show(
        found,
        ("", "NAME", "COUNTER", "VALUE"),
        lambda: (
            (kind, name, counter, value)
            for kind, group in (("device", "devices"), ("host", "hosts"), ("drops", "drops"))
            for name, counted in found[group].items()
            for counter, value in sorted(counted.items())
            if value
        ),
        "nothing counted yet",
    )


# This machine


@main.command()
@output_option
@pass_context
def doctor(context: Context) -> None:
    """What is missing on this machine, and how to get it."""
    findings = examine(context.client.server)
    lacking = [f for f in findings if f.required and not f.ok]
    context.show(
        [
            {
                "name": f.name,
                "ok": f.ok,
                "required": f.required,
                "purpose": f.purpose,
                "remedy": None if f.ok else f.remedy,
            }
            for f in findings
        ],
        ("", "WHAT", "FOR", "HOW TO GET IT"),
        lambda: (
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
        fail(f"missing: {', '.join(f.name for f in lacking)}", Exit.MISSING)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """The completion script for a shell: eval "$(dysco-ctl completion bash)"."""
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"click knows no completion for {shell}")
    click.echo(found(main, {}, "dysco-ctl", "_DYSCO_CTL_COMPLETE").source())
