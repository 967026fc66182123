"""The P4 program's sources and what was compiled from them, as Python values."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dysco.controller.pipeline import Pipeline, load

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / "p4src" / "shared"

_COMMENT = re.compile(r"//[^\n]*")
_CONSTANT = re.compile(r"\bconst\s+[\w<>]+\s+(\w+)\s*=\s*(0x[0-9a-fA-F]+|\d+)\s*;")
_ENUM = re.compile(r"\benum\s+bit<\d+>\s+(\w+)\s*\{([^}]*)\}")
_MEMBER = re.compile(r"(\w+)\s*=\s*(0x[0-9a-fA-F]+|\d+)")


class Define:
    """define.p4: its constants, and its enums as name to value."""

    def __init__(self, source: str) -> None:
        plain = _COMMENT.sub("", source)
        self.constants = {name: int(value, 0) for name, value in _CONSTANT.findall(plain)}
        self.enums = {
            name: {member: int(value, 0) for member, value in _MEMBER.findall(body)}
            for name, body in _ENUM.findall(plain)
        }


@pytest.fixture(scope="session")
def define() -> Define:
    return Define((SHARED / "define.p4").read_text())


@pytest.fixture(scope="session")
def pipeline() -> Pipeline:
    return load()


def module_at(path: str) -> ModuleType:
    """A module outside of any package, by its path in the repository."""
    name = "_".join(Path(path).with_suffix("").parts)
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
