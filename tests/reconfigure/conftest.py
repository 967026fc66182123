"""The simulation is a package of its own, `tests.reconfigure.simulation`, run by `explore` too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
