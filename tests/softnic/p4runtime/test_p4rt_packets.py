"""Packet-outs and packet-ins, which native code reads and writes: just as Python would."""

from __future__ import annotations

import dataclasses
import random

from finsy.proto import p4r
from p4rt import frame
from target import Target

from softnic.p4runtime.codec import uint_to_bytes
from softnic.p4runtime.errors import P4RuntimeError
from softnic.p4runtime.pipeline import Pipeline
from softnic.p4runtime.schema import ControllerHeader, HeaderField

TO_CPU = b"\x01\xfe"
"""Port 510. What is sent there comes back; the program puts no header of packet-ins before it."""


def test_packet_outs_are_taken_and_refused_as_python_does(target: Target) -> None:
    stream = target.client().primary()
    pipeline = target.device.pipeline
    assert pipeline is not None
    pick = random.Random(3)
    taken = refused = 0
    for number in range(300):
        request = p4r.StreamMessageRequest()
        request.packet.payload = number.to_bytes(4, "big") + bytes(pick.randrange(60))
        for field in pick.choice(((1, 2), (2, 1), (1,), (2,), (1, 1), (1, 3), (3,), ())):
            wrong = pick.choice((b"", b"\xff\xff", b"\x02\0", b"\0\0\x03\xff"))
            right = pick.choice((TO_CPU, b"\0\0" + TO_CPU)) if field == 1 else b"\x7f"
            value = right if pick.randrange(5) else wrong
            request.packet.metadata.add(metadata_id=field, value=value)
        stream.send(request)
        error = _refusal(pipeline, request.packet)
        if error is None:
            taken += 1
            assert stream.expect("packet").payload == request.packet.payload[4:]
        else:
            refused += 1
            told = stream.expect("error")
            assert (told.canonical_code, told.message) == (error.code, error.message)
            assert told.packet_out.packet_out == request.packet
    assert min(taken, refused) > 50


def _refusal(pipeline: Pipeline, packet: p4r.PacketOut) -> P4RuntimeError | None:
    try:
        pipeline.packet_out.encode(packet)
    except P4RuntimeError as error:
        return error
    return None


def test_headers_of_any_shape(target: Target) -> None:
    """Random fields behind the program's own: they come back as they were sent."""
    stream = target.client().primary()
    pipeline = target.device.pipeline
    assert pipeline is not None
    pick = random.Random(9)
    front = target.server._front
    for generation in range(100):
        widths = [pick.choice((1, 3, 7, 8, 9, 16, 31, 48, 65, 128, 200)) for _ in range(6)]
        shown = dataclasses.replace(
            pipeline,
            schema=dataclasses.replace(
                pipeline.schema,
                packet_out=_header((9, 7), widths),
                packet_in=_header((), widths),
            ),
        )
        front.show_pipeline(1, 1000 + generation, shown, may_write=True)
        request = p4r.StreamMessageRequest()
        request.packet.payload = frame()
        request.packet.metadata.add(metadata_id=0x10000, value=TO_CPU)
        sent = {}
        for number, bits in enumerate(widths):
            sent[number + 1] = uint_to_bytes(pick.getrandbits(bits) >> pick.randrange(bits))
        for number in pick.sample(sorted(sent), len(sent)):
            value = bytes(pick.randrange(3)) + sent[number]
            request.packet.metadata.add(metadata_id=number, value=value)
        stream.send(request)
        packet = stream.expect("packet")
        assert {m.metadata_id: m.value for m in packet.metadata if m.metadata_id < 0x10000} == sent
        assert packet.payload == frame()


def _header(own: tuple[int, ...], widths: list[int]) -> ControllerHeader:
    size = (sum(own) + sum(widths) + 7) // 8
    shift, fields = size * 8, []
    numbered = [(0x10000 + i, bits) for i, bits in enumerate(own)]
    for number, bits in numbered + list(enumerate(widths, 1)):
        shift -= bits
        padding = number > 0x10000
        fields.append(HeaderField(number, f"f{number}", bits, shift, padding))
    return ControllerHeader(tuple(fields), size)
