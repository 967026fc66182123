"""Compile the P4 program, and record which sources the result belongs to.

python p4src/build.py           compile with p4c-bm2-ss ($P4C, or from PATH)
python p4src/build.py --check   exit 1 if the committed result is not of these sources
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
MAIN = HERE / "v1model" / "dysco.p4"
BUILD = HERE / "v1model" / "build"
COMPILER = "p4c-bm2-ss"


def sources_hash() -> str:
    """SHA-256 over the names and contents of all P4 sources."""
    digest = hashlib.sha256()
    for source in sorted(HERE.rglob("*.p4")):
        name = source.relative_to(HERE).as_posix()
        digest.update(f"{name}\0{source.read_text()}\0".encode())
    return digest.hexdigest()


def is_current() -> bool:
    """True if the committed result was compiled from the sources as they are."""
    stamp = BUILD / "sources.sha256"
    return stamp.exists() and stamp.read_text().strip() == sources_hash()


def one_element_a_line(text: str) -> str:
    """The same JSON, laid out so that a change to the program shows as few changed lines."""
    sections = []
    for name, value in json.loads(text).items():
        if isinstance(value, list) and value:
            lines = ",\n".join(json.dumps(item, separators=(",", ":")) for item in value)
            sections.append(f"{json.dumps(name)}:[\n{lines}\n]")
        else:
            sections.append(f"{json.dumps(name)}:{json.dumps(value, separators=(',', ':'))}")
    return "{\n" + ",\n".join(sections) + "\n}\n"


def compile_program() -> None:
    """Run p4c and replace what is in v1model/build."""
    compiler = shutil.which(os.environ.get("P4C", COMPILER))
    if compiler is None:
        sys.exit(f"{COMPILER} is not on the PATH: install p4c, or name its compiler in $P4C")
    with tempfile.TemporaryDirectory() as scratch:
        program, info = Path(scratch, "dysco.json"), Path(scratch, "dysco.p4info.txtpb")
        command = [compiler, "--arch", "v1model", "--Werror"]
        command += ["-o", str(program), "--p4runtime-files", str(info)]
        # Relative: the file names in the result must not tell where it was compiled.
        subprocess.run([*command, MAIN.relative_to(HERE).as_posix()], cwd=HERE, check=True)
        BUILD.mkdir(exist_ok=True)
        (BUILD / program.name).write_text(one_element_a_line(program.read_text()))
        (BUILD / info.name).write_text(info.read_text())
    (BUILD / "sources.sha256").write_text(sources_hash() + "\n")


def main() -> None:
    """See the file's head."""
    if sys.argv[1:] == ["--check"]:
        if not is_current():
            sys.exit("p4src/v1model/build is not of these sources: run `make p4` and commit it")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        compile_program()


if __name__ == "__main__":
    main()
