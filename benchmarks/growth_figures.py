"""What the growth part of the encoder benchmark counts."""

import statistics
from collections.abc import Sequence

from benchmarks.metrics import Figures

NEAR_M, NEAR_DEG = 0.20, 10.0
"""A frame counts as registered if its pose is this near to the truth."""


def mean_shares(rows: Sequence[Figures]) -> dict[str, float]:
    """Mean over the seeds for each encoder, in the order of the rows."""
    names = list(dict.fromkeys(row["encoder"] for row in rows))
    return {name: statistics.mean(row["near"] for row in rows if row["encoder"] == name) for name in names}
