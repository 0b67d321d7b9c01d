"""Markdown tables of results."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.metrics import Figures, median_row

NONE = "none"
"""An error that is infinite: half of the images or more have failed."""

Column = tuple[str, Callable[[Figures], str]]
"""A heading and the text of a row's cell."""


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]], words: int = 2) -> str:
    """The first ``words`` columns to the left, numbers to the right; a vertical bar in a cell is escaped."""
    lines = ["| " + " | ".join(headings) + " |"]
    lines.append("|" + "|".join(["---"] * words + ["---:"] * (len(headings) - words)) + "|")
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def number(value: float | None, digits: int = 2, unit: str = "") -> str:
    """With so many decimals; ``none`` for None."""
    return NONE if value is None else f"{value:.{digits}f}{unit}"


def percent(share: float | None) -> str:
    """A share as per cent, one decimal."""
    return NONE if share is None else f"{100 * share:.1f}"


def length(value: float | None, unit_m: float | None) -> str:
    """In cm or m where the unit is known, else in the truth's own unit with three figures."""
    if value is None:
        return NONE
    if unit_m is None:
        return f"{value:.3g}"
    metres = value * unit_m
    if not math.isfinite(metres):
        return NONE
    return f"{metres:.2f} m" if metres >= 1 else f"{100 * metres:.2f} cm"


def environment_lines(content: dict[str, Any]) -> list[str]:
    """What the results were made with, as a list of Markdown."""
    found = content["environment"]
    commit = found["commit"] or "unknown"
    changed = " with uncommitted changes" if found.get("uncommitted_changes") else ""
    return [
        f"- `{content['command']}`",
        f"- {found['date']}, commit {commit[:12]}{changed}",
        f"- {found['device']}; {found['cpu']}, {found['cores']} cores, {found['threads']} threads",
        f"- torch {found['torch']}, Python {found['python']}; preset {content['preset']}",
    ]


def reconstruction_table(content: dict[str, Any]) -> str:
    """The comparison, the seconds of each stage, and what failed."""
    groups = _groups(content["rows"], ("set", "system"))
    merged = [median_row(rows) for rows in groups]
    text = "# Reconstruction from pictures alone\n\n"
    text += "\n".join(environment_lines(content)) + "\n\n"
    text += _table(_RECONSTRUCTION_COLUMNS, merged)
    text += (
        "\nMedians are over all images; an image without a pose counts as infinitely wrong, and every pair "
        "with it as failed. Position: distance of camera centres after one similarity alignment, and the "
        "same in % of the true trajectory's extent. RRA, RTA, AUC: % of all pairs. Focal: estimate / truth."
    )
    text += " Repeated runs: medians.\n" if any(row["runs"] > 1 for row in merged) else "\n"
    if any(_rough(row) for row in merged):
        text += (
            "\n\\* Too few cameras agree on an alignment; rotation and position after it are rough at best.\n"
        )
    text += "\n## Seconds of each stage\n\n"
    text += markdown_table(
        ["set", "system", "seconds"], [[row["set"], row["system"], _stages(row)] for row in merged], words=3
    )
    return text + _failures(content["rows"])


def relocalisation_table(content: dict[str, Any]) -> str:
    """Queries against maps of one place."""
    merged = [median_row(rows) for rows in _groups(content["rows"], ("set", "map"))]
    text = "# Relocalisation\n\n" + "\n".join(environment_lines(content)) + "\n\n"
    text += _table(_RELOCALISATION_COLUMNS, merged)
    text += (
        "\nMedians and shares are over all queries; one without a pose counts as infinitely wrong. `given "
        "poses`: the map was made from the mapping images' true poses and focal length, and errors are in "
        "the frame of the truth. `pictures alone`: by reconstruction from the mapping images; the frame is "
        "that of an alignment of the mapping images, in which no query takes part. "
        "Any confidence: poses with too few inliers count as well, as they do in ACE's figures.\n"
    )
    text += "\n## Seconds of each stage\n\n"
    text += markdown_table(["map", "seconds"], [[row["map"], _stages(row)] for row in merged])
    return text + _failures(content["rows"])


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "reconstruction": reconstruction_table,
    "demo": reconstruction_table,
    "relocalisation": relocalisation_table,
}
"""By the kind that stands in a result file."""


def _rough(row: Figures) -> bool:
    return row["alignment"] == "no_consensus"


def _star(row: Figures) -> str:
    return " \\*" if _rough(row) else ""


def _registered(row: Figures) -> str:
    low, high = row["registered_range"]
    return f"{row['registered']:g}" if low == high else f"{row['registered']:g} ({low}–{high})"


_RECONSTRUCTION_COLUMNS: list[Column] = [
    ("set", lambda row: row["set"]),
    ("system", lambda row: row["system"]),
    ("images", lambda row: str(row["images"])),
    ("registered", _registered),
    ("rotation", lambda row: number(row["median_rotation_deg"], 3, "°") + _star(row)),
    ("position", lambda row: length(row["median_translation"], row["unit_m"]) + _star(row)),
    ("% of extent", lambda row: _in_percent(row["median_translation_share"])),
    ("RRA@5", lambda row: percent(row["rra_5"])),
    ("RTA@5", lambda row: percent(row["rta_5"])),
    ("AUC@30", lambda row: percent(row["auc_30"])),
    ("focal", lambda row: number(row["focal_ratio"], 4)),
    ("seconds", lambda row: number(row["seconds"], 1)),
]

_RELOCALISATION_COLUMNS: list[Column] = [
    ("set", lambda row: row["set"]),
    ("map from", lambda row: row["map"]),
    ("mapped", lambda row: f"{row['mapped']:g} of {row['mapping_images']}"),
    ("queries", lambda row: str(row["images"])),
    ("registered", _registered),
    ("position", lambda row: length(row["median_translation_m"], 1.0)),
    ("rotation", lambda row: number(row["median_rotation_deg"], 3, "°")),
    ("within 5 cm, 5°", lambda row: percent(row["within_5cm_5deg"])),
    ("within 10 cm, 5°", lambda row: percent(row["within_10cm_5deg"])),
    ("5 cm, 5°, any confidence", lambda row: percent(row["any_confidence"]["within_5cm_5deg"])),
    ("map, s", lambda row: number(row["map_seconds"], 1)),
    ("register, s", lambda row: number(row["seconds"], 1)),
]


def _in_percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.2f}"


def _table(columns: list[Column], rows: Sequence[Figures]) -> str:
    return markdown_table(
        [heading for heading, _ in columns], [[cell(row) for _, cell in columns] for row in rows]
    )


def _groups(rows: Sequence[Figures], keys: tuple[str, ...]) -> list[list[Figures]]:
    """Rows that share these keys, in the order of their first appearance."""
    groups: dict[tuple[Any, ...], list[Figures]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(groups.values())


def _stages(row: Figures) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in row["stages_s"].items()) or NONE


def _failures(rows: Sequence[Figures]) -> str:
    failed = [
        f"- {row['set']}, {row.get('system', row.get('map'))}, seed {row['seed']}: {row['failure']}"
        for row in rows
        if row["failure"]
    ]
    return "\n## Without a result\n\n" + "\n".join(failed) + "\n" if failed else ""
