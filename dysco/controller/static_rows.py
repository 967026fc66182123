"""The table rows and replication groups that a device's configuration asks for."""

from __future__ import annotations

from collections.abc import Iterator

from finsy.proto import p4r

from dysco.controller.config import CPU_PORT, DeviceConfig
from dysco.controller.pipeline import Row, RowKey

COPIES = (1, 2, 4, 8)
"""What an ingress clone is for, the P4 program's COPY_*: a clone session for each sum of them."""
FLOOD_GROUP = 1


def port_rows(config: DeviceConfig) -> Iterator[Row]:
    """Which ports have hosts behind them, and where hosts are."""
    for number in config.network_ports:
        yield Row(RowKey("port", ((number, 0),)), "network_port")
    for host in config.hosts:
        for interface in host.interfaces:
            uplink = config.default_uplink if interface.uplink is None else interface.uplink
            params = (host.host_id, int(host.kind is not None), uplink)
            yield Row(RowKey("port", ((interface.port, 0),)), "host_port", params)
            mac = int.from_bytes(interface.mac, "big")
            yield Row(
                RowKey("bridge", ((mac, 0),)), "bridge_to_host", (interface.port, host.host_id)
            )


def replication(config: DeviceConfig) -> list[p4r.Entity]:
    """The clone sessions, for copies and for passes of their own, and the flood group."""
    clones = [
        p4r.CloneSessionEntry(
            session_id=session,
            replicas=[
                p4r.Replica(egress_port=CPU_PORT, instance=copy)
                for copy in COPIES
                if session & copy
            ],
        )
        for session in range(1, sum(COPIES) + 1)
    ]
    flood = p4r.MulticastGroupEntry(
        multicast_group_id=FLOOD_GROUP,
        replicas=[p4r.Replica(egress_port=port, instance=1) for port in config.ports],
    )
    wrap = p4r.PacketReplicationEngineEntry
    return [
        *(
            p4r.Entity(packet_replication_engine_entry=wrap(clone_session_entry=clone))
            for clone in clones
        ),
        p4r.Entity(packet_replication_engine_entry=wrap(multicast_group_entry=flood)),
    ]
