from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab, lab

from dysco.topo import cage


@pytest.fixture(scope="session")
def caged() -> None:
    """What runs devices needs namespaces."""
    if not cage.inside():
        pytest.skip(f"needs a cage: {cage.refusal()}")


@pytest.fixture
def bench(caged: None, tmp_path: Path) -> Iterator[Lab]:
    """A lab with a device, without a daemon."""
    with lab(tmp_path) as made:
        made.softnic()
        made.config()
        yield made
