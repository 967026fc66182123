"""`dyscod`: runs the agents of the devices in its configuration, and the API for `dysco-ctl`.

Stopping it, in whatever way, leaves sessions in place: the devices go on by themselves, and the
next start finds what they hold.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import click

from dysco.controller import config as configuration
from dysco.controller import pipeline as program
from dysco.controller.config import Config, ConfigError
from dysco.controller.journal import Journal, JournalFileError
from dysco.controller.pipeline import PipelineError
from dysco.controller.policies import PolicyError, PolicyStore
from dysco.controller.service import Service

log = logging.getLogger("dyscod")

EXIT_CONFIG = 2
EXIT_START = 1


class _ElectionId(click.ParamType[int]):
    name = "HI,LO"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """A 128-bit election id, as p4runtime-shell takes it."""
        high, comma, low = str(value).partition(",")
        if not (high.isdigit() and (low.isdigit() or not comma)):
            self.fail(f"{value!r}: write HI,LO, or one number", param, ctx)
        number = int(high) << 64 | int(low) if comma else int(high)
        if not 0 < number < 1 << 128:
            self.fail("must be 1 to 2^128 - 1", param, ctx)
        return number


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "-c",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("dyscod.toml"),
    show_default=True,
    help="The configuration file.",
)
@click.option("--check-config", is_flag=True, help="Check the configuration and leave.")
@click.option(
    "--pipeline",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with dysco.json and dysco.p4info.txtpb, if not those of this package.",
)
@click.option(
    "--push-pipeline",
    is_flag=True,
    help="Replace the program of a device even if that ends sessions.",
)
@click.option("--election-id", type=_ElectionId(), help="P4Runtime election id; default: the time.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Overrides the configuration's.",
)
@click.version_option(package_name="dysco-p4")
def main(
    *,
    config_path: Path,
    check_config: bool,
    pipeline: Path | None,
    push_pipeline: bool,
    election_id: int | None,
    log_level: str | None,
) -> None:
    """Run Dysco's agents beside the hosts of one or more P4 devices.

    \b
    Exit codes: 0 stopped by SIGTERM or SIGINT, 1 can't start, 2 bad usage or configuration.
    SIGHUP reads the peers in the configuration again. Sessions outlive the daemon.
    """
    try:
        config = configuration.load(config_path)
        key = configuration.load_key(config)
    except ConfigError as error:
        click.echo(error, err=True)
        sys.exit(EXIT_CONFIG)
    if check_config:
        hosts = sum(len(device.hosts) for device in config.devices)
        click.echo(f"{config_path}: good: {len(config.devices)} devices, {hosts} hosts")
        return
    _log_to_stderr(log_level or config.daemon.log_level)
    try:
        service = Service(
            config,
            key,
            program.load(pipeline),
            PolicyStore(config.daemon.state),
            election_id=election_id,
            push_pipeline=push_pipeline,
            journal=Journal(config.daemon.state),
        )
        asyncio.run(_run(service, config_path))
    except (PipelineError, PolicyError, JournalFileError, OSError) as error:
        click.echo(f"dyscod can't start: {error}", err=True)
        sys.exit(EXIT_START)


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    # Libraries speak up only when something is wrong; finsy logs every failed attempt to connect.
    for name in ("finsy", "uvicorn", "grpc", "asyncio"):
        logging.getLogger(name).setLevel(logging.ERROR)


async def _run(service: Service, config_path: Path) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    reloading: set[asyncio.Task[None]] = set()
    loop.add_signal_handler(signal.SIGHUP, _reload, service, config_path, reloading)
    devices = asyncio.create_task(service.run())
    # The API takes a third of a second to import: the devices connect meanwhile.
    server: Any = await asyncio.to_thread(importlib.import_module, "dysco.controller.server")
    sock = server.listen(service.config.daemon.endpoint)
    api = asyncio.create_task(server.serve(service, sock, stopping))
    log.info("API at %s", service.config.daemon.listen)
    announcing = asyncio.create_task(_announce(service))
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait((devices, api, stop), return_when=asyncio.FIRST_COMPLETED)
    stopping.set()
    for task in (devices, announcing):
        task.cancel()
    outcomes = await asyncio.gather(devices, announcing, stop, api, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    log.info("stopped; sessions go on in the devices")


async def _announce(service: Service) -> None:
    await service.wait_ready()
    _tune_collector()
    names = ", ".join(nic.name for nic in service.nics) or "none"
    print(f"dyscod is ready; API at {service.config.daemon.listen}; devices: {names}", flush=True)


def _tune_collector() -> None:
    """What is there when all is ready stays, and what sessions make has hardly any cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _reload(service: Service, config_path: Path, reloading: set[asyncio.Task[None]]) -> None:
    try:
        config: Config = configuration.load(config_path)
    except ConfigError as error:
        log.error("configuration not read again: %s", error)
        return
    if config.devices != service.config.devices:
        log.warning("devices and their hosts changed: that takes effect with the next start only")
    task = asyncio.get_running_loop().create_task(service.set_peers(config))
    reloading.add(task)
    task.add_done_callback(reloading.discard)
