"""Rates of meters between P4Runtime messages and the data plane (9.3, 9.4)."""

from __future__ import annotations

from finsy.proto import p4r

from softnic.dataplane import MeterConfig
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
