"""A P4Runtime server on the native data plane, with clients; no interfaces are needed."""

from __future__ import annotations

from dataclasses import dataclass

from p4rt import CPU_PORT, DEVICE_ID, Client

from softnic.native import NativeDataPlane, compile_program
from softnic.p4runtime.device import Device
from softnic.p4runtime.server import Server


@dataclass
class Target:
    """A device that serves."""

    plane: NativeDataPlane
    device: Device
    server: Server
    clients: list[Client]

    def client(self) -> Client:
        """Another client, on a connection of its own."""
        made = Client(self.server.address)
        self.clients.append(made)
        return made

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.server.stop(grace_s=0)
        self.plane.close()


def serve(address: str = "127.0.0.1:0", cpu_port: int = CPU_PORT) -> Target:
    plane = NativeDataPlane({}, cpu_port=cpu_port)
    device = Device(DEVICE_ID, plane, compile_program)
    server = Server(device, address)
    server.start()
    return Target(plane, device, server, [])
