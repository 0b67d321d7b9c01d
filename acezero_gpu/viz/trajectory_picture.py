"""Estimated camera centres beside the true ones."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

COLOURS = "viridis"


def plot_trajectory(
    estimate: Float[Tensor, "n 3"],
    truth: Float[Tensor, "n 3"],
    *,
    registered: Bool[Tensor, " n"] | None = None,
    unit: str = "",
) -> Figure:
    """Two views of both trajectories, along their least and their middle extent, with a line from each true centre to
    its estimate.

    Both are in one frame: align first (``evaluation.align_trajectory``). Cameras are coloured by their distance from
    the truth, on a scale that ends at the 95 % quantile; those that are not ``registered`` are crosses at their true
    places. ``unit`` is that of the coordinates.
    """
    estimate, truth = estimate.detach().cpu().double(), truth.detach().cpu().double()
    found = estimate.isfinite().all(-1) & truth.isfinite().all(-1)
    if registered is not None:
        found &= registered.detach().cpu()
    flat_estimate, flat_truth = _in_principal_axes(estimate, truth, found)
    error = (estimate - truth).norm(dim=-1).numpy()
    limit = max(float(np.quantile(error[found.numpy()], 0.95)), 1e-12) if bool(found.any()) else 1.0
    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    shown = None
    label = f" ({unit})" if unit else ""
    for axes, vertical, name in zip(figure.subplots(1, 2), (1, 2), ("broadside", "edge-on"), strict=True):
        axes.set_aspect("equal", adjustable="datalim")
        axes.plot(flat_truth[:, 0], flat_truth[:, vertical], color="0.6", linewidth=1, label="truth")
        pairs = np.stack([flat_truth[:, [0, vertical]], flat_estimate[:, [0, vertical]]], axis=1)
        axes.add_collection(LineCollection(list(pairs[found.numpy()]), colors="0.45", linewidths=0.8))
        shown = axes.scatter(
            flat_estimate[found.numpy(), 0],
            flat_estimate[found.numpy(), vertical],
            c=error[found.numpy()],
            cmap=COLOURS,
            vmin=0,
            vmax=limit,
            s=18,
            label="estimate",
            zorder=3,
        )
        lost = (~found).numpy()
        if lost.any():
            axes.scatter(
                flat_truth[lost, 0],
                flat_truth[lost, vertical],
                marker="x",
                color="#b83280",
                s=30,
                label="no pose",
                zorder=3,
            )
        axes.set_xlabel(f"first axis{label}")
        axes.set_ylabel(f"{'second' if vertical == 1 else 'third'} axis{label}")
        axes.set_title(name)
        axes.margins(0.08)
    axes.legend(loc="best", fontsize="small")
    assert shown is not None
    figure.colorbar(shown, ax=figure.axes, extend="max", label=f"distance from the truth{label}", shrink=0.85)
    return figure


def _in_principal_axes(
    estimate: Float[Tensor, "n 3"], truth: Float[Tensor, "n 3"], found: Bool[Tensor, " n"]
) -> tuple[np.ndarray, np.ndarray]:
    """Both turned so that the true centres extend most along the first axis and least along the third."""
    known = truth[truth.isfinite().all(-1)]
    middle = known.mean(0) if len(known) else torch.zeros(3, dtype=torch.float64)
    _, axes = torch.linalg.eigh((known - middle).T @ (known - middle))
    turn = axes.flip(-1)
    placed = torch.where(found[:, None], estimate, torch.nan)
    return ((placed - middle) @ turn).numpy(), ((truth - middle) @ turn).numpy()
