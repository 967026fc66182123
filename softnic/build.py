"""C to shared objects: gcc once for each content, kept under $XDG_CACHE_HOME/softnic."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

RUNTIME = Path(__file__).parent / "runtime"
SERVER = Path(__file__).parent / "server"
_FLAGS = ("-std=gnu11", "-fPIC", "-shared", "-fno-strict-aliasing", "-D_GNU_SOURCE", "-pthread")
_SERVER_LIBRARIES = ("-lnghttp2", "-lssl", "-lcrypto")
_TIMEOUT_S = 120
_LOOK_S = 0.02
"""Seconds between two looks whether another process has built what we wait for."""


class ToolchainError(RuntimeError):
    """There is no C compiler, or it failed; the text says what to do."""


def default_cache() -> Path:
    """Where compiled programs are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "softnic"


@cache
def compiler() -> tuple[str, str]:
    """Path of the C compiler ($CC, else gcc, else cc) and the version it reports."""
    for name in (os.environ.get("CC", ""), "gcc", "cc"):
        path = shutil.which(name) if name else None
        if path is None:
            continue
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode == 0:
            return path, done.stdout.partition("\n")[0]
    raise ToolchainError(
        "softnic needs a C compiler to translate P4 programs and found none: "
        "install gcc (Debian: apt install gcc libc6-dev) or set CC"
    )


def _compile(
    sources: Sequence[Path], output: Path, flags: Sequence[str], libraries: Sequence[str]
) -> None:
    path, _ = compiler()
    command = [path, *flags, *_FLAGS, f"-I{RUNTIME}", *map(str, sources), *libraries]
    command += ["-o", str(output)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ToolchainError(f"{path} took more than {_TIMEOUT_S} s on {sources[0].name}") from None
    if done.returncode != 0:
        raise ToolchainError(
            f"{path} failed on {sources[0].name} (are the headers installed? Debian: apt install "
            f"libc6-dev linux-libc-dev libnghttp2-dev libssl-dev):\n{done.stderr[:2000]}"
        )


@contextmanager
def _only_one(target: Path) -> Iterator[None]:
    """Wait while another process builds the same; after too long build it all the same."""
    deadline_s = time.monotonic() + _TIMEOUT_S
    lock = target.with_suffix(".lock")
    with lock.open("w") as file:
        while time.monotonic() < deadline_s:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_LOOK_S)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def shared_object(
    name: str,
    sources: Sequence[Path | str],
    folder: Path | None,
    *,
    flags: Sequence[str] = ("-O2",),
    libraries: Sequence[str] = (),
) -> Path:
    """The shared object made from `sources` (files, or C text), built unless it is in `folder`.

    Of several processes that want it at once one builds and the others wait.
    """
    folder = default_cache() if folder is None else folder
    digest = hashlib.sha256("\0".join((*compiler(), *flags, *_FLAGS, *libraries)).encode())
    headers = sorted(RUNTIME.glob("*.h")) + (sorted(SERVER.glob("*.h")) if libraries else [])
    for part in (*sources, *headers):
        digest.update(part.encode() if isinstance(part, str) else part.read_bytes())
    target = folder / f"{name}-{digest.hexdigest()[:24]}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(target), tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as scratch:
        if target.exists():
            return target
        files = []
        for i, part in enumerate(sources):
            if isinstance(part, str):
                file = Path(scratch) / f"{name}{i}.c"
                file.write_text(part)
                files.append(file)
            else:
                files.append(part)
        built = Path(scratch) / "out.so"
        _compile(files, built, flags, libraries)
        built.rename(target)
    return target


def runtime_object(folder: Path | None = None, *, flags: Sequence[str] = ("-O2",)) -> Path:
    """The runtime, compiled."""
    return shared_object("runtime", sorted(RUNTIME.glob("*.c")), folder, flags=flags)


def server_object(folder: Path | None = None, *, flags: Sequence[str] = ("-O2",)) -> Path:
    """The P4Runtime server, compiled; it finds the runtime's functions by name."""
    sources = sorted(SERVER.glob("*.c"))
    return shared_object("server", sources, folder, flags=flags, libraries=_SERVER_LIBRARIES)
