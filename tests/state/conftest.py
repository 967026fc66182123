from __future__ import annotations

import pytest

from dysco.topo import cage


@pytest.fixture(autouse=True, scope="session")
def caged() -> None:
    """Every test here makes network namespaces."""
    if not cage.inside():
        pytest.skip(f"needs a cage: {cage.refusal()}")
