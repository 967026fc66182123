"""What agents must know again after the daemon's death, in the daemon's SQLite file.

Written before anything that follows from it leaves (`flush`, once for all that one wake-up of the
daemon decides): to the operating system, which outlives a killed daemon, and not to the disk; a
machine that loses its power loses the devices' sessions too.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

_SCHEMA = """
create table if not exists journal (
    host text not null, session integer not null, record blob not null,
    primary key (host, session)
) without rowid
"""


class JournalFileError(Exception):
    """The file can't be used; the text says why."""


class Journal:
    """The last record of each session at each host."""

    def __init__(self, path: Path | str) -> None:
        """Open or make it. Raises JournalFileError."""
        self._pending: dict[tuple[str, int], bytes] = {}
        """Not yet in the file; bounded by the sessions that there are."""
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=off")
            self._db.execute(_SCHEMA)
        except sqlite3.Error as error:
            raise JournalFileError(f"{path}: the journal can't be used: {error}") from error

    def close(self) -> None:
        """Nothing may follow. Raises JournalFileError."""
        self.flush()
        self._db.close()

    def keep(self, host: str, session: int, record: bytes) -> None:
        """Replace a record, with the next `flush`; an empty one is taken out."""
        self._pending[host, session] = record

    def flush(self) -> None:
        """All that was kept since the last time, in one transaction. Raises JournalFileError."""
        if not self._pending:
            return
        pending, self._pending = self._pending, {}
        kept = [(*key, record) for key, record in pending.items() if record]
        gone = [key for key, record in pending.items() if not record]
        try:
            self._db.execute("begin")
            self._db.executemany("insert or replace into journal values (?, ?, ?)", kept)
            self._db.executemany("delete from journal where host = ? and session = ?", gone)
            self._db.execute("commit")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("rollback")
            self._pending = pending
            raise JournalFileError(f"the journal can't be written: {error}") from error

    def of(self, host: str) -> tuple[tuple[int, bytes], ...]:
        """All records of a host."""
        rows = self._db.execute(
            "select session, record from journal where host = ? order by session", (host,)
        )
        return tuple((int(session), bytes(record)) for session, record in rows)
