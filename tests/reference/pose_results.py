"""Comparison of pose results, image by image, and the settings that tests of the estimator share."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from acezero_gpu.ransac import AbsolutePoseResult, RansacConfig

PRESETS = {
    "fast": RansacConfig.fast(),
    "balanced": RansacConfig.balanced(),
    "robust": replace(RansacConfig.robust(), hypotheses=1024),
}
"""With fewer samples for ``robust``, for the sake of time."""


def pose_rows(result: AbsolutePoseResult) -> Tensor:
    """Poses as plain numbers (batch, 7)."""
    return torch.Tensor(result.cam_from_world)


def identical(
    a: AbsolutePoseResult,
    b: AbsolutePoseResult,
    rows: Sequence[int] | slice = slice(None),
    rows_b: Sequence[int] | slice | None = None,
) -> bool:
    """Whether images ``rows`` of ``a`` and ``rows_b`` (by default the same) of ``b`` agree bit by bit."""
    rows_b = rows if rows_b is None else rows_b
    fields = ("inliers", "inlier_count", "score", "status")
    if not torch.equal(pose_rows(a)[rows], pose_rows(b)[rows_b]):
        return False
    return all(torch.equal(getattr(a, field)[rows], getattr(b, field)[rows_b]) for field in fields)
