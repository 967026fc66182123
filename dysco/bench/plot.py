"""The plots: one panel for each unit, baseline beside measured, every single value as a dot."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("Agg")
