"""Single values with what was seen beside them, and how pairs of them become a point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from dysco.bench.result import Detail, Point
from dysco.bench.usage import cpu_share
from dysco.topo.process import Process


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one side."""

    value: float
    detail: Detail = field(default_factory=dict)


def point_of(
    name: str,
    point: str,
    unit: str,
    samples: tuple[Sequence[Sample], Sequence[Sample]],
    detail: Detail | None = None,
) -> Point:
    """A point of (baseline, measured), with the samples' details as lists beside it."""
    baseline, measured = samples
    sides = {"baseline": _joined(baseline), "measured": _joined(measured)}
    return Point(
        name,
        point,
        unit,
        tuple(sample.value for sample in measured),
        tuple(sample.value for sample in baseline),
        {**(detail or {}), **{side: lists for side, lists in sides.items() if lists}},
    )


@contextmanager
def device_share(process: Process | None, detail: Detail) -> Iterator[None]:
    """Note in `detail` which share of a core a device takes during the `with`, if it has one."""
    if process is None:
        yield
        return
    with cpu_share(process.pid) as share:
        yield
    detail["device_cpu"] = share.as_json()


def _joined(samples: Sequence[Sample]) -> Detail:
    keys = {key: None for sample in samples for key in sample.detail}
    return {key: [sample.detail.get(key) for sample in samples] for key in keys}
