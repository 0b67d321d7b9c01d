"""The figures of an experiment, scene by scene, beside the published ones."""

from collections.abc import Sequence
from typing import Any

from acezero_gpu.cli.experiment_file import Experiment

Row = dict[str, Any]
COLUMNS = {
    "registered": "registered",
    "rotation_deg": "rotation",
    "position": "position",
    "accuracy": "within 5 cm and 5°",
    "auc_30": "AUC@30",
    "seconds": "seconds",
    "queries_rotation_deg": "queries: rotation",
    "queries_position": "queries: position",
    "queries_accuracy": "queries within 5 cm and 5°",
    "queries_accuracy_own_alignment": "the same, aligned on the queries",
}
"""Keys of a row and their headings; a column without any value is left out."""
_SHARES = {
    "registered",
    "accuracy",
    "auc_30",
    "queries_accuracy",
    "queries_accuracy_own_alignment",
}


def as_markdown(experiment: Experiment, rows: Sequence[Row]) -> str:
    """A table with a line for each scene, their mean, and what was published."""
    columns = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
    lines = [
        f"# {experiment.title}",
        "",
        " | ".join(["| scene", *(COLUMNS[key] for key in columns)]) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row in rows:
        if row.get("failure"):
            lines.append(f"| {row['scene']} | {row['failure']} |" + " |" * (len(columns) - 1))
        else:
            lines.append(f"| {row['scene']} | " + " | ".join(_shown(row, key) for key in columns) + " |")
    good = [row for row in rows if not row.get("failure")]
    if len(good) > 1:
        means = {key: _mean(good, key) for key in columns}
        lines.append("| **mean** | " + " | ".join(_shown(means, key) for key in columns) + " |")
    lines += ["", f"{len(good)} of {len(rows)} scenes have a result."]
    if experiment.published:
        figures = ", ".join(f"{name} {value:g}" for name, value in experiment.published.items())
        lines += ["", f"Published ({experiment.source}): {figures}."]
    else:
        lines += ["", f"No published figure is recorded here; see {experiment.source}."]
    if experiment.note:
        lines += ["", experiment.note]
    return "\n".join(lines) + "\n"


def _mean(rows: Sequence[Row], key: str) -> float | None:
    values = [row[key] for row in rows if row.get(key) is not None]
    return sum(values) / len(values) if values else None


def _shown(row: Row, key: str) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if key in _SHARES:
        return f"{100 * value:.1f} %"
    if key.endswith("_deg"):
        return f"{value:.2f}°"
    return f"{value:.0f}" if key == "seconds" else f"{value:.4f}"
