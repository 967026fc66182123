"""Rates of meters between P4Runtime messages and the data plane (9.3, 9.4)."""

from __future__ import annotations

from finsy.proto import p4r

from softnic.dataplane import Colors, CounterValue, MeterConfig
from softnic.p4runtime.errors import invalid


def encode(where: str, message: p4r.MeterConfig) -> MeterConfig:
    """The rates of a message; INVALID_ARGUMENT where they make no sense."""
    for name in ("cir", "cburst", "pir", "pburst"):
        if getattr(message, name) < 0:
            raise invalid(f"{where}: {name} {getattr(message, name)} is negative")
    if message.eburst:
        raise invalid(f"{where}: eburst is for single-rate meters, this one has two rates")
    if message.pir < message.cir:
        raise invalid(f"{where}: peak rate {message.pir} is below committed rate {message.cir}")
    return MeterConfig(message.cir, message.cburst, message.pir, message.pburst)


def decode(config: MeterConfig) -> p4r.MeterConfig:
    """The message of rates."""
    return p4r.MeterConfig(
        cir=config.cir, cburst=config.cburst, pir=config.pir, pburst=config.pburst
    )


def is_zero(message: p4r.MeterCounterData) -> bool:
    """True if no count is set; nothing else can be written (9.1.2)."""
    counts = (message.green, message.yellow, message.red)
    return not any(count.byte_count or count.packet_count for count in counts)


def decode_colors(colors: Colors) -> p4r.MeterCounterData:
    """The message of what a meter marked."""
    green, yellow, red = map(_count, colors)
    return p4r.MeterCounterData(green=green, yellow=yellow, red=red)


def _count(value: CounterValue) -> p4r.CounterData:
    return p4r.CounterData(byte_count=value.bytes, packet_count=value.packets)
