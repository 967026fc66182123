"""Clients that nobody here wrote: p4runtime-shell and finsy, each as its documentation shows it."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import finsy as fy
import pytest
from finsy.proto import p4r
from p4rt import CPU_PORT, PROGRAMS, frame, mac
from target import Target

_ROOT = Path(__file__).parents[3]
_SHELL_PYTHON = _ROOT / ".venv-ptf" / "bin" / "python"

_SHELL = """
import sys
import p4runtime_sh.shell as sh
from p4runtime_sh.context import P4Type

address, p4info, program = sys.argv[1:]
sh.setup(device_id=1, grpc_addr=address, election_id=(0, 1),
         config=sh.FwdPipeConfig(p4info, program))
try:
    te = sh.TableEntry("exact_table")(action="forward")
    te.match["hdr.ethernet.dst"] = "02:00:00:00:00:01"
    te.action["port"] = "3"
    te.idle_timeout_ns = 10**12
    te.insert()
    assert len(list(te.read())) == 1
    te.action["port"] = "4"
    te.modify()

    prefix = sh.TableEntry("lpm_table")(action="mark")
    prefix.match["hdr.ethernet.type"] = "0x0800/8"
    prefix.action["mac"] = "02:00:00:00:00:09"
    prefix.insert()

    ternary = sh.TableEntry("ternary_table")(action="NoAction")
    ternary.match["dst"] = "02:00:00:00:00:00 &&& ff:00:00:00:00:00"
    ternary.priority = 5
    ternary.insert()
    assert [e.priority for e in ternary.read()] == [5]

    group = sh.MulticastGroupEntry(7)
    group.add(1, 1).add(2, 1)
    group.insert()
    group.read(lambda e: print("group", len(e.replicas)))
    session = sh.CloneSessionEntry(5)
    session.add(1)
    session.insert()

    cell = sh.CounterEntry("ports")
    cell.index = 5
    cell.packet_count = 9
    cell.modify()
    cell.read(lambda c: print("counter", c.packet_count))
    direct = sh.DirectCounterEntry("hits")
    direct.table_entry.match["hdr.ethernet.dst"] = "02:00:00:00:00:01"
    direct.read(lambda c: print("hits", c.packet_count))

    digest = sh.DigestEntry("learn_t")
    digest.ack_timeout_ns = 0
    digest.insert()

    default = sh.TableEntry("exact_table")(action="forward", is_default=True)
    default.action["port"] = "6"
    default.modify()

    try:
        te.insert()
    except Exception as error:
        print(type(error).__name__, "ALREADY_EXISTS" in str(error))

    packet_in = sh.PacketIn()
    packet = sh.PacketOut()
    packet.payload = b"0123456789"
    packet.metadata["egress_port"] = "510"
    packet.metadata["_pad"] = "0"
    packet.send()
    for received in packet_in.sniff(timeout=1):
        print("packet-in", received.packet.payload)
        break
    prefix.delete()
finally:
    sh.teardown()
"""


def test_p4runtime_shell(bare: Target) -> None:
    if not _SHELL_PYTHON.exists():
        pytest.skip("p4runtime-shell isn't installed: make ptf sets it up")
    files = (PROGRAMS / "entities.p4info.txtpb", PROGRAMS / "entities.json")
    done = subprocess.run(
        [_SHELL_PYTHON, "-c", _SHELL, bare.server.address, *files],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    for line in ("group 2", "counter 9", "hits 0", "P4RuntimeWriteException True"):
        assert line in said
    assert "packet-in b'456789'" in said
    assert bare.plane.inject(5, frame(1)) == [(4, frame(1))]
    assert bare.plane.inject(5, frame(77)) == [(6, frame(77))]


def _learning() -> fy.P4TableEntry:
    return fy.P4TableEntry(
        "exact_table",
        match=fy.Match(**{"hdr.ethernet.dst": int.from_bytes(mac(1), "big")}),
        action=fy.Action("learn", port=1),
        idle_timeout_ns=50_000_000,
    )


async def test_finsy(bare: Target) -> None:
    """Pipeline, entries, deletion of everything, digests, packet-ins and time-outs."""
    options = fy.SwitchOptions(
        p4info=PROGRAMS / "entities.p4info.txtpb", p4blob=PROGRAMS / "entities.json"
    )
    async with fy.Switch("sw", bare.server.address, options) as switch:
        await switch.delete_all()
        await switch.write(
            [
                +_learning(),
                +fy.P4DigestEntry("learn_t", max_list_size=1),
                +fy.P4MulticastGroupEntry(7, replicas=(1, (2, 1))),
                +fy.P4CloneSessionEntry(5, replicas=(1,)),
                ~fy.P4RegisterEntry("seen", index=3, data=77),
                ~fy.P4CounterEntry("ports", index=2, data=fy.P4CounterData(packet_count=4)),
            ]
        )
        packets = asyncio.ensure_future(anext(aiter(switch.read_packets())))
        timeouts = asyncio.ensure_future(anext(aiter(switch.read_idle_timeouts())))
        await asyncio.sleep(0)  # both listen now: finsy drops what nobody waits for
        found = [e async for e in switch.read(fy.P4TableEntry("exact_table"))]
        assert [e.action for e in found] == [fy.Action("learn", port=1)]
        (register,) = [e async for e in switch.read(fy.P4RegisterEntry("seen", index=3))]
        assert register.data == 77
        bare.plane.inject(5, frame(src=10))
        async for digest in switch.read_digests("learn_t"):
            assert digest.data[0]["mac"] == int.from_bytes(mac(10), "big")
            await switch.write([fy.P4DigestListAck(digest.digest_id, digest.list_id)])
            break
        await switch.write([fy.P4PacketOut(frame(), egress_port=CPU_PORT, _pad=0)])
        assert (await packets).payload == frame()[4:]
        assert len((await timeouts).table_entry) == 1
        with pytest.raises(fy.P4ClientError) as error:
            await switch.write([+_learning()])
        assert error.value.details[0].canonical_code == fy.GRPCStatusCode.ALREADY_EXISTS
        await switch.delete_all()
        left = [e async for e in switch.read(fy.P4TableEntry())]
        assert all(e.is_const for e in left)
    assert bare.plane.inject(5, frame(1)) == []
    assert bare.device.get_pipeline(p4r.GetForwardingPipelineConfigRequest(device_id=1)) is not None
