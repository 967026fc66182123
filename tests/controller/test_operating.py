"""docs/operating.md is held to the code: keys, settings, commands, counters, metrics, routes."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import click
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dysco.agent.counters import Count
from dysco.agent.settings import Settings
from dysco.controller import (
    api,
    cli,
    cli_base,
    daemon,
    grpc_link,
    neighbours,
    nic,
    p4device,
    policies,
    ternary,
    writer,
)
from dysco.controller import config as configuration
from dysco.controller.metrics import exposition
from dysco.controller.pipeline import load
from dysco.controller.policies import PolicyStore
from dysco.controller.service import Service

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "operating.md").read_text()
CONTROLLER = ROOT / "dysco" / "controller"


def table(name: str) -> list[list[str]]:
    """The rows of the table behind a comment, each a list of cells."""
    _, found, rest = TEXT.partition(f"<!-- {name} -->\n")
    assert found, name
    rows = []
    for line in rest.splitlines()[2:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def names(name: str) -> list[str]:
    """The code in the first cells of a table, without backticks."""
    return [code for row in table(name) for code in re.findall(r"`([^`]+)`", row[0])]


def example() -> str:
    _, _, rest = TEXT.partition("<!-- example -->\n```toml\n")
    return rest.partition("```")[0]


def load_example(tmp_path: Path) -> configuration.Config:
    path = tmp_path / "dyscod.toml"
    path.write_text(example())
    return configuration.load(path)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    config = load_example(tmp_path)
    return Service(config, bytes(32), load(), PolicyStore(tmp_path / "policies.sqlite"))


def test_the_example_works(tmp_path: Path) -> None:
    config = load_example(tmp_path)
    assert [h.name for h in config.devices[0].hosts] == ["client", "fw1"]
    assert config.settings.idle_timeout == 3600
    assert [p.name for p in config.all_peers()] == ["client", "fw1", "server"]


def test_every_key_is_there_with_its_default() -> None:
    models = {
        "[daemon]": configuration.DaemonConfig,
        "[group]": configuration.GroupConfig,
        "[[device]]": configuration.DeviceConfig,
        "[[device.host]]": configuration.HostConfig,
        "[device.host.state]": configuration.StateConfig,
        "[[device.route]]": configuration.RouteConfig,
        "[[peer]]": configuration.PeerConfig,
    }
    told: dict[str, dict[str, str]] = {}
    section = ""
    for where, key, default, *_ in table("keys"):
        section = where.strip("`") or section
        told.setdefault(section, {})[key.strip("`")] = default.strip("`")
    assert told.keys() == models.keys()
    for section, model in models.items():
        known = dict(model.model_fields)
        known.pop("hosts", None)
        known.pop("routes", None)
        known = {field.alias or key: field for key, field in known.items()}
        if section == "[[device.host]]":
            known.pop("state")
            known |= configuration.InterfaceConfig.model_fields
        assert told[section].keys() == known.keys(), section
        for key, field in known.items():
            default = told[section][key]
            if default in ("required", ""):
                assert field.is_required(), key
            elif default == "none":
                assert field.default is None, key
            elif default.startswith('"'):
                assert default == f'"{field.default}"', key
            elif default == "[]":
                assert field.default == (), key
            elif default.isdigit():
                assert int(default) == field.default, key


def test_every_setting_is_there_with_its_default() -> None:
    told = {row[0].strip("`"): row[1].strip("`") for row in table("settings")}
    assert told == {field.name: str(field.default) for field in fields(Settings)}


def options_of(command: click.Command) -> set[str]:
    return {
        option
        for parameter in command.params
        for option in parameter.opts
        if isinstance(parameter, click.Option)
    }


def test_every_option_and_command_is_there() -> None:
    assert set(names("options dyscod")) == options_of(daemon.main) | {"-h", "--help"}

    def commands(group: click.Group, path: str = "") -> set[str]:
        found: set[str] = set()
        for name, command in group.commands.items():
            if isinstance(command, click.Group):
                found |= commands(command, f"{path}{name} ")
            else:
                found.add(f"{path}{name}")
        return found

    assert set(names("commands")) == commands(cli.main)
    statuses = {int(row[0]) for row in table("statuses")}
    assert statuses == {0, 2} | {int(code) for code in cli_base.Exit}


def test_every_counter_is_there() -> None:
    told, known = set(names("agent counters")), {count.value for count in Count}
    assert told == known, f"docs/operating.md and Count differ in: {told ^ known}"
    source = "\n".join(path.read_text() for path in CONTROLLER.glob("*.py"))
    counted = set(re.findall(r'counters\["(\w+)"\]', source))
    told = set(names("device counters"))
    kinds = {name for name in told if name.startswith("packet_in_")}
    assert counted <= told | set(names("device counters of reconfigurations")), (
        f"document these in docs/operating.md: {counted - told}"
    )
    assert told - counted <= kinds, told - counted
    assert names("drops") == list(nic._DROPS)


async def test_every_metric_is_there(service: Service) -> None:
    text = (await exposition(service)).decode()
    told = {name.removesuffix("_total") for name in names("metrics")}
    assert told == {family.name for family in text_string_to_metric_families(text)}


def test_every_route_is_there(service: Service) -> None:
    described = api.make_app(service).openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path in described for method in described[path]}
    assert set(names("routes")) == routes


def test_limits_are_what_the_code_says() -> None:
    for number, where in [
        (ternary.MAX_CUBES, "at most {} entries for each family"),
        (policies.TABLE_ENTRIES, "all of them {}"),
        (policies.MAX_CHAIN, "at most {} middleboxes"),
        (api.MAX_LIMIT, "at most {} sessions at once"),
        (f"{grpc_link.MAX_QUEUED >> 20} MiB", "more than {} were waiting: dropped"),
        (writer.MAX_WAITING, "more than {} jobs were waiting"),
        (neighbours.MAX_NEIGHBOURS, "more than {} neighbours"),
        (f"{p4device.WRITE_TIMEOUT:g}", "without an answer for {} s"),
    ]:
        assert where.format(number) in TEXT
    assert f"{load().tables['outbound_v4'].size} session entries" in TEXT
