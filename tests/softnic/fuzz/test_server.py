"""The native server's own tests once more, with it and the runtime built with sanitizers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from test_frames import CHECKS

from softnic.build import compiler, runtime_object, server_object

TESTS = Path(__file__).parents[1] / "p4runtime"
WHAT = ("test_p4rt_front.py", "test_p4rt_packets.py")

_RUN = """
import sys
from pathlib import Path
import pytest
from softnic import clib
from softnic.p4runtime import front
runtime, server, *tests = sys.argv[1:]
clib.runtime_object = lambda: Path(runtime)
front.server_object = lambda: Path(server)
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests]))
"""


def test_the_server_under_sanitizers() -> None:
    path, _ = compiler()
    found = subprocess.run(
        [path, "-print-file-name=libasan.so"],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    env = os.environ | {
        "LD_PRELOAD": found.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",
        "PYTHONMALLOC": "malloc",
    }
    objects = [str(runtime_object(flags=CHECKS)), str(server_object(flags=CHECKS))]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *objects, *(str(TESTS / name) for name in WHAT)],
        env=env,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
