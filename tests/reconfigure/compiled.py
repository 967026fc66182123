"""The simulations as native code: mypyc compiles their inner loop, and the data plane's rules.

What is compiled are copies, in a folder of their own: everything else goes on with the sources. A
seed does the same either way.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = (
    *("serial", "segment", "state", "sack", "tracking", "departure", "arrival", "handover"),
    *("network", "tcp", "boxes", "node"),
    "plane",
)
FOLDERS = ("dysco/agent", "tests/reconfigure")

_SETUP = """
import sys
from setuptools import setup
from mypyc.build import mypycify
setup(name="simulation", packages=[], ext_modules=mypycify(sys.argv[3:], opt_level="2"),
      script_args=["build_ext", "--inplace"])
"""


def run_compiled(module: str, arguments: Sequence[str]) -> int:
    """Runs a module of the tests with compiled code in its place; its exit status."""
    folder = _built()
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=folder, check=False).returncode


def _built() -> Path:
    """The folder with the compiled copies; made once for each state of the sources."""
    sources = sorted(f for name in FOLDERS for f in (ROOT / name).rglob("*.py"))
    digest = hashlib.sha256(b"".join(f.read_bytes() for f in sources)).hexdigest()[:16]
    folder = ROOT / "out" / "compiled" / digest
    if (folder / ".ready").exists():
        return folder
    shutil.rmtree(folder.parent, ignore_errors=True)
    for source in (ROOT / "dysco/__init__.py", *sources):
        copy = folder / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, copy)
    for package in (folder / "tests", *(p for p in folder.glob("tests/**/") if p.is_dir())):
        (package / "__init__.py").touch()
    hot = [str(f.relative_to(folder)) for f in sorted(folder.rglob("*.py")) if f.stem in MODULES]
    built = subprocess.run(
        [sys.executable, "-c", _SETUP, "-", "-", *hot],
        cwd=folder,
        env=os.environ | {"MYPYPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        raise RuntimeError(f"the simulation does not compile:\n{built.stdout}{built.stderr}")
    (folder / ".ready").touch()
    return folder
