"""The traces of a running device, to a file: packets are not held up, what lags is left out."""

from __future__ import annotations

import itertools
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from softnic.native import NativeDataPlane, NativeProgram
from softnic.trace.events import Decoder
from softnic.trace.render import as_json, as_text

_log = logging.getLogger(__name__)

_WAIT_S = 0.5
_JOIN_S = 5.0


class TraceLog:
    """Writes until closed."""

    def __init__(self, plane: NativeDataPlane, path: Path) -> None:
        """Begin at once; OSError if the file can't be opened."""
        self._plane = plane
        self._file = path.open("w", buffering=1)
        self._as_json = path.suffix == ".json"
        self._number = itertools.count(1)
        self._stopped = threading.Event()
        self._program: NativeProgram | None = None
        self._decoder: Decoder | None = None
        plane.trace()
        self._thread = threading.Thread(target=self._run, name="trace", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what has come, say what was missed, and stop."""
        self._stopped.set()
        self._thread.join(timeout=_JOIN_S)
        self._file.close()
        if self._plane.traces_missed:
            _log.warning("the traces of %d packets were missed", self._plane.traces_missed)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._take(_WAIT_S)
        self._take(0)

    def _take(self, timeout: float) -> None:
        decoder, program = self._current(), self._program
        records = self._plane.traces(timeout)
        if decoder is None or self._plane.program is not program:
            return  # what came while the program was replaced could be of either
        for one in records:
            for line in self._lines(decoder, one):
                print(line, file=self._file)

    def _lines(self, decoder: Decoder, records: bytes) -> Iterator[str]:
        number, trace = next(self._number), decoder.trace(records)
        if self._as_json:
            return iter([json.dumps({"packet": number} | as_json(trace))])
        return as_text(trace, number)

    def _current(self) -> Decoder | None:
        program = self._plane.program
        if isinstance(program, NativeProgram) and program is not self._program:
            self._program = program
            self._decoder = None if program.probed is None else Decoder(program)
        return self._decoder
