"""What Prometheus reads of a device."""

from __future__ import annotations

import re
import urllib.request

import pytest
from conftest import CPU, Loader

from softnic.cli import parse
from softnic.dataplane import Entry, Match, Op, Update
from softnic.metrics import MetricsServer
from softnic.p4runtime.drops import Drops


def scrape(server: MetricsServer) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{server.address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def test_a_scrape(load: Loader) -> None:
    plane, drops = load("entities"), Drops()
    server = MetricsServer(plane, drops, "127.0.0.1:0")
    table = 'softnic_table_entries{table="IngressImpl.exact_table"}'
    assert scrape(server)[table] == 0
    entry = Entry(Match(bytes(6), b"\xff" * 6), "IngressImpl.forward", b"\0\7")
    plane.write([Update(Op.INSERT, "IngressImpl.exact_table", entry)])
    plane.inject(1, b"\1" * 60)  # the table's default action drops it
    drops.count("slow client: packet", 3)
    found = scrape(server)
    assert found[table] == 1
    assert found[table.replace("entries", "size")] == 1024
    assert found[f'softnic_port_up{{interface="cpu",port="{CPU}"}}'] == 1
    lost = 'softnic_port_dropped_packets_total{interface="",port="none",reason="program"}'
    assert found[lost] == 1  # of a port that the device doesn't have
    assert found['softnic_server_dropped_total{reason="slow client: packet"}'] == 3
    assert found['softnic_program_events_total{event="assertion-failed"}'] == 0
    assert all(re.match(r"softnic_[a-z_]+(\{|$)", name) for name in found)
    server.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "host:x", ":70000"])
def test_an_address_that_is_none(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--no-p4", "--metrics-addr", address])
    assert "is not HOST:PORT" in capsys.readouterr().err
