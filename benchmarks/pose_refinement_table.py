"""The Markdown of ``python -m benchmarks pose-refinement``."""

from typing import Any

from benchmarks.metrics import Figures
from benchmarks.tables import environment_lines, length, markdown_table, number, percent

SHIFT_SHARE, TURN_DEG = 0.02, 1.0
"""Root mean square of the disturbance: a share of the median scene depth, and degrees."""
GIVEN = "as given"
"""The disturbed poses before any refinement."""


def pose_refinement_table(content: dict[str, Any]) -> str:
    """One row for each set, disturbance and kind of refinement."""
    headings = ["set", "disturbance", "refinement", "rotation", "position", "% of depth", "AUC@30"]
    headings += ["inliers", "seconds"]
    rows = content["rows"]
    steps = " and ".join(dict.fromkeys(f"{row['map_steps']} + {row['steps']}" for row in rows)) or "no"
    failed = [f"- {row['set']}, {row['variant']}: {row['failure']}" for row in rows if row["failure"]]
    text = "# Pose refinement while mapping\n\n" + "\n".join(environment_lines(content)) + "\n\n"
    text += markdown_table(headings, [_cells(row) for row in rows], words=3)
    text += (
        f"\nTrue poses with a disturbance of {100 * SHIFT_SHARE:g} % of the median scene depth and "
        f"{TURN_DEG:g}° (root mean squares), `independent` from frame to frame or a `drift` along the "
        "sequence. First a map of these poses as they are, then from it a second round with each kind of "
        f"refinement, {steps} steps, with the true focal length and the same seed for all. Medians over all "
        "frames after one similarity alignment, in which orientations take part; AUC@30 over all pairs needs "
        f"none. `{GIVEN}`: the disturbed poses. Inliers: share of the last training batches. Seconds: of the "
        "second round.\n"
    )
    return text + ("\n## Without a result\n\n" + "\n".join(failed) + "\n" if failed else "")


def _cells(row: Figures) -> list[str]:
    trained = row["variant"] != GIVEN
    in_depths = row["median_translation_depths"]
    return [
        row["set"],
        row["start"],
        row["variant"],
        number(row["median_rotation_deg"], 3, "°"),
        length(row["median_translation"], row["unit_m"]),
        number(None if in_depths is None else 100 * in_depths),
        percent(row["auc_30"]),
        percent(row["inlier_share"]) if trained else "",
        number(row["seconds"], 1) if trained else "",
    ]
