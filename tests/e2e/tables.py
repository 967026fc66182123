"""What devices hold in the tables of sessions and legs, read over P4Runtime beside `dyscod`.

A program of its own, in the namespace of the devices: each line that it is sent is answered by one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import TracebackType

import grpc
from chained import Network
from finsy.proto import p4r, p4r_grpc

from dysco.controller import pipeline

STATIC = ("port", "bridge", "route_v4", "route_v6", "policy_v4", "policy_v6")


class Tables:
    """Asks the devices of a network, for a `with`."""

    def __init__(self, network: Network) -> None:
        addresses = [
            f"{device.spec.id}@{device.grpc_address}" for device in network.devices.values()
        ]
        with network.topology.devices.entered():
            self._child = subprocess.Popen(
                [sys.executable, __file__, *addresses],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )

    def read(self) -> dict[str, int]:
        """Entries of each table that has some, of all devices."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        return dict(json.loads(self._child.stdout.readline()))

    def __enter__(self) -> Tables:
        """Ready."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the program."""
        self._child.communicate("")


def _serve(devices: list[str]) -> None:
    tables = {table.id: name for name, table in pipeline.load().tables.items()}
    stubs = [(int(d.partition("@")[0]), d.partition("@")[2]) for d in devices]
    channels = [
        (number, p4r_grpc.P4RuntimeStub(grpc.insecure_channel(to)))  # type: ignore[no-untyped-call]
        for number, to in stubs
    ]
    for _ in sys.stdin:
        found: Counter[str] = Counter()
        for number, stub in channels:
            everything = p4r.Entity(table_entry=p4r.TableEntry())
            request = p4r.ReadRequest(device_id=number, entities=[everything])
            for answer in stub.Read(request, timeout=10.0):
                for entity in answer.entities:
                    name = tables[entity.table_entry.table_id]
                    if name not in STATIC and not entity.table_entry.is_default_action:
                        found[name] += 1
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    _serve(sys.argv[1:])
