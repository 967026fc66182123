"""The command `softnic trace PROGRAM.json PACKETS.pcap`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from softnic.build import ToolchainError
from softnic.native import NativeDataPlane, NativeProgram, compile_program
from softnic.pcap import read_frames
from softnic.stf.script import Packet, parse
from softnic.trace.entries import fill
from softnic.trace.events import Decoder, Trace
from softnic.trace.render import as_json, as_text


def _packets(file: Path, port: int) -> Iterator[tuple[int, bytes]]:
    """Port and frame of each packet: of a pcap file all at `port`, of a script as it says."""
    if file.suffix == ".stf":
        statements = parse(file.read_text())
        return ((s.port, s.data) for s in statements if isinstance(s, Packet))
    return ((port, frame) for frame in read_frames(file))


def traces(options: argparse.Namespace) -> Iterator[Trace]:
    """Run the packets. Raises `ValueError`, `OSError`, `ToolchainError`."""
    program = compile_program(options.program.read_bytes(), traced=True)
    plane = NativeDataPlane({}, cpu_port=options.cpu_port)
    try:
        plane.load(program)
        for file in options.entries:
            fill(plane, program, file, options.p4info)
        plane.trace()
        yield from _run(plane, program, _packets(options.packets, options.port))
    finally:
        plane.close()


def _run(
    plane: NativeDataPlane, program: NativeProgram, packets: Iterator[tuple[int, bytes]]
) -> Iterator[Trace]:
    decoder = Decoder(program)
    for port, frame in packets:
        plane.inject(port, frame)
        (records,) = plane.traces(0)
        yield decoder.trace(records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="softnic trace",
        description="Tell what packets go through in a program.",
    )
    add = parser.add_argument
    add("program", type=Path, metavar="PROGRAM.json", help="bmv2 JSON")
    add("packets", type=Path, metavar="PACKETS", help="a pcap file, or the packets of a .stf")
    add(
        "--entries",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="what tables hold: a .stf, or a P4Runtime WriteRequest or ReadResponse as text",
    )
    add("--p4info", type=Path, metavar="FILE", help="P4Info as text, for P4Runtime messages")
    add("--port", type=int, default=1, metavar="N", help="where a pcap's packets arrive; 1")
    add("--cpu-port", type=int, default=None, metavar="N")
    add("--json", action="store_true", help="one JSON object a packet and line")
    return parser


def main(argv: Sequence[str]) -> int:
    """Exit status 0, or 2: the program, the packets or the entries can't be used."""
    options = _parser().parse_args(argv)
    try:
        for number, trace in enumerate(traces(options), 1):
            if options.json:
                print(json.dumps({"packet": number} | as_json(trace)))
            else:
                print(*as_text(trace, number), sep="\n")
    except (OSError, ValueError, ToolchainError) as error:
        print(f"softnic trace: {error}", file=sys.stderr)
        return 2
    return 0
