"""The charts of a report: matplotlib figures, as SVG whose colours follow the page's light or dark theme."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from acezero_gpu.viz.report.content import ReportContent, ReportImage, ReportRound

SIZE_IN = (4.1, 2.75)
"""Small enough to be shown at its own size on a telephone, so that its letters never shrink."""
INK, RULE, FIRST, SECOND, THIRD = "#010203", "#010204", "#010205", "#010206", "#010207"
"""Stand for the page's own colours; no other element has them."""
_THEME = {
    "#000000": "var(--ink)",
    INK: "var(--ink)",
    RULE: "var(--rule)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    THIRD: "var(--third)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.8,
}
MOST_ROUND_LABELS = 8


def charts_of(content: ReportContent) -> list[tuple[str, str, Markup]]:
    """Title, description and picture of each chart that there is data for."""
    charts: list[tuple[str, str, Figure]] = []
    with mpl.rc_context(_STYLE):
        if content.rounds:
            charts.append(_registration(content.rounds, len(content.images)))
        if content.images:
            charts.append(_confidence(content))
        if content.rounds:
            charts.append(_focal(content.rounds))
        if any(round_.training for round_ in content.rounds):
            charts += [_loss(content.rounds), _inliers(content.rounds)]
        if content.stage_seconds:
            charts.append(_stages(content.stage_seconds))
        return [(title, text, themed_svg(figure, title)) for title, text, figure in charts]


def themed_svg(figure: Figure, name: str) -> Markup:
    """The figure as an ``svg`` element to stand in a page: real text, no background, and the page's colours for those
    above and for black. Photographs in it keep their pixels."""
    figure.set_facecolor("none")
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "image.composite_image": False}):
        target = io.StringIO()
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None})
    svg = target.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg.replace("\n", " "), count=1)
    # Numbers of nine digits in paths cost bytes and show nothing.
    svg = re.sub(r"(\d+\.\d\d)\d+", r"\1", svg)
    # The page's own font, at the sizes that the chart gives.
    svg = re.sub(r"(font: )([0-9.]+px) [^;\"]*", r"\1\2 var(--sans)", svg)
    for stand_in, colour in _THEME.items():
        svg = svg.replace(stand_in, colour)
    return Markup(svg)


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_IN, layout="constrained", facecolor="none")
    axes = figure.subplots()
    axes.set_facecolor("none")
    return figure, axes


def _round_axis(axes: Axes, rounds: Sequence[ReportRound]) -> None:
    step = -(-len(rounds) // MOST_ROUND_LABELS)
    shown = list(range(0, len(rounds), step))
    if shown[-1] != len(rounds) - 1:
        # The last round is the one that counts; its neighbour makes room for it.
        shown = [*(place for place in shown if place <= len(rounds) - 1 - step), len(rounds) - 1]
    axes.set_xticks(shown, [rounds[place].label for place in shown])
    axes.set_xlabel("round")
    axes.set_xlim(-0.4, len(rounds) - 0.6)


def _registration(rounds: Sequence[ReportRound], total: int) -> tuple[str, str, Figure]:
    figure, axes = _axes()
    places = np.arange(len(rounds))
    by_map = [round_.registered_by_map for round_ in rounds]
    axes.axhline(total, color=THIRD, linewidth=1.2, linestyle=":", label=f"all {total}")
    axes.plot(
        places, [round_.registered for round_ in rounds], color=FIRST, marker="o", label="with a pose", ms=4.5
    )
    known = [(place, count) for place, count in enumerate(by_map) if count is not None]
    if known:
        axes.plot(
            *zip(*known, strict=True),
            color=SECOND,
            marker="s",
            ms=4,
            ls="--",
            label="by the map alone",
        )
    axes.set_ylim(0, 1.08 * max(total, 1))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_ylabel("images")
    _round_axis(axes, rounds)
    _legend_above(figure)
    text = "Images with a pose after each round, and those among them that the map places without keypoints."
    return "Registration", text, figure


def _legend_above(figure: Figure) -> None:
    figure.legend(loc="outside upper left", ncols=3, columnspacing=1.2, handlelength=1.5, borderaxespad=0)


def _focal(rounds: Sequence[ReportRound]) -> tuple[str, str, Figure]:
    figure, axes = _axes()
    focal = [round_.focal_px for round_ in rounds]
    axes.plot(np.arange(len(rounds)), focal, color=FIRST, marker="o", ms=4.5)
    spread = max(focal) - min(focal)
    margin = max(0.15 * spread, 0.01 * max(focal))
    axes.set_ylim(min(focal) - margin, max(focal) + margin)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylabel("focal length (px of the files)")
    _round_axis(axes, rounds)
    return "Focal length", "The camera's focal length, estimated anew in each round.", figure


def _confidence(content: ReportContent) -> tuple[str, str, Figure]:
    figure, axes = _axes()
    percent = content.confidence_unit == "% of cells"
    values = [image.confidence for image in content.images if np.isfinite(image.confidence)]
    top = 100.0 if percent else max([*values, content.min_confidence, 1.0])
    edges = np.linspace(0, top, 26)
    groups = (
        ("map", FIRST, "", ("map", "unknown")),
        ("keypoints", SECOND, "", ("keypoints",)),
        ("no pose", THIRD, "////", ("none",)),
    )
    base = np.zeros(len(edges) - 1)
    for label, colour, hatch, kinds in groups:
        members = [image for image in content.images if image.placed_by in kinds]
        if not members:
            continue
        counts, _ = np.histogram(_confidences(members, top), bins=edges)
        axes.bar(
            edges[:-1],
            counts,
            width=np.diff(edges) * 0.9,
            bottom=base,
            align="edge",
            color="none" if hatch else colour,
            edgecolor=colour,
            hatch=hatch,
            linewidth=0.8,
            label=f"{label} ({len(members)})",
        )
        base = base + counts
    axes.axvline(content.min_confidence, color=INK, linewidth=1, linestyle="--")
    axes.annotate(
        f"needed: {content.min_confidence:.3g}{' %' if percent else ''}",
        (content.min_confidence, 1),
        xytext=(5, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
        fontsize=8,
    )
    axes.set_ylim(0, 1.18 * max(base.max(), 1))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlim(0, top)
    axes.set_xlabel(f"cells that agree with the pose{' (%)' if percent else ' (number)'}")
    axes.set_ylabel("images")
    _legend_above(figure)
    text = (
        "How large a part of each image agrees with its pose in the map. Images that keypoints alone hold are "
        "written down with the least confidence that counts."
    )
    return "Confidence", text, figure


def _confidences(images: Sequence[ReportImage], top: float) -> np.ndarray:
    return np.clip([image.confidence for image in images], 0, top)


def _loss(rounds: Sequence[ReportRound]) -> tuple[str, str, Figure]:
    figure, axes = _over_steps(rounds, "loss")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("mean loss (px)")
    text = "Robust reprojection loss while the maps were trained; a new round starts at each vertical line."
    return "Training loss", text, figure


def _inliers(rounds: Sequence[ReportRound]) -> tuple[str, str, Figure]:
    figure, axes = _over_steps(rounds, "inlier_share", 100.0)
    axes.set_ylim(0, 102)
    axes.set_ylabel("inliers (% of patches)")
    text = "Share of training patches that the map explains, the least since the last look."
    return "Inliers in training", text, figure


def _over_steps(rounds: Sequence[ReportRound], key: str, factor: float = 1.0) -> tuple[Figure, Axes]:
    """A value over the steps of all rounds, laid end to end."""
    figure, axes = _axes()
    start = 0
    trained = [round_ for round_ in rounds if round_.training]
    total = sum(round_.training[-1].iteration for round_ in trained)
    last_label = -total
    for number, round_ in enumerate(trained):
        steps = [start + entry.iteration for entry in round_.training]
        values = [factor * getattr(entry, key) for entry in round_.training]
        axes.plot(steps, values, color=FIRST, marker="o" if len(steps) < 3 else None, ms=3)
        if number:
            axes.axvline(start, color=INK, linewidth=0.6, alpha=0.5)
        # Labels stand at the top; one that would touch its neighbour is left out.
        if start - last_label >= 0.11 * total:
            axes.annotate(
                round_.label,
                (start, 1),
                xytext=(3, 2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                va="bottom",
                fontsize=8,
            )
            last_label = start
        start += round_.training[-1].iteration
    axes.set_xlim(0, start)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("training step, all rounds end to end")
    return figure, axes


def _stages(seconds: Mapping[str, float]) -> tuple[str, str, Figure]:
    figure, axes = _axes()
    ordered = sorted(seconds.items(), key=lambda stage: stage[1])[-10:]
    names, values = [name for name, _ in ordered], [value for _, value in ordered]
    bars = axes.barh(names, values, color=FIRST, height=0.66)
    axes.bar_label(bars, [f"{value:,.1f}" for value in values], fontsize=8, padding=4)
    axes.set_xlim(0, 1.16 * max(values))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("seconds")
    return "Where the time went", "Seconds in each stage, added over all rounds.", figure
