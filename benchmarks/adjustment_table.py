"""The tables of the adjustment benchmark."""

from collections.abc import Sequence
from typing import Any

from benchmarks.metrics import Figures
from benchmarks.tables import environment_lines, length, markdown_table, number


def adjustment_table(content: dict[str, Any]) -> str:
    """Both parts, as far as they have rows."""
    text = "# Bundle adjustment\n\n" + "\n".join(environment_lines(content)) + "\n"
    bundle = [row for row in content["rows"] if row["part"] == "bundle"]
    scaling = [row for row in content["rows"] if row["part"] == "scaling"]
    fits = [row for row in content["rows"] if row["part"] == "scaling fit"]
    text += f"\n## Beside pycolmap\n\n{_bundle(bundle)}" if bundle else ""
    return text + (f"\n## Growth with the images\n\n{_scaling(scaling, fits)}" if scaling else "")


def _bundle(rows: Sequence[Figures]) -> str:
    headings = [
        "problem",
        "free",
        "loss",
        "system",
        "final cost",
        "steps",
        "seconds",
        "x pycolmap",
        "ends by",
    ]
    text = []
    for row in rows:
        problem = f"{row['views']:,} views, {row['points']:,} points, {row['observations']:,} observations"
        free = "poses, points, focal" + (", k1, k2" if row["radial"] else "")
        for name, system in row["systems"].items():
            share = system.get("seconds_share")
            cells = [problem, free, row["loss"], name, number(system["cost"], 1)]
            cells += [
                f"{system['iterations']:g}",
                number(system["seconds"], 2),
                number(system["cpu_seconds"], 2),
            ]
            text.append([*cells, "" if share is None else number(share, 2), system["end"]])
    largest = max((row["cost_difference"] for row in rows if "cost_difference" in row), default=None)
    threads = ", ".join(sorted({str(row["threads"]) for row in rows}))
    told = "" if largest is None else f" Final costs differ by at most {largest:.1e} of pycolmap's."
    return markdown_table(headings, text, words=4) + (
        f"\nBoth from the same start, with the same two views held, the same loss and the same stop (a step that "
        f"lowers the cost by less than a millionth), {threads} threads each, in turns; medians. Seconds: ours, the "
        f"whole call; pycolmap's, without building its problem; CPU seconds, of all threads. x pycolmap: by "
        f"seconds. Linear solver: what pycolmap chooses.{told}\n"
    )


def _scaling(rows: Sequence[Figures], fits: Sequence[Figures]) -> str:
    stages = list(rows[0]["stages_s"])
    headings = ["set", "images", "points", "observations", "position", *(f"{name}, s" for name in stages)]
    cpu = list(rows[0]["stages_cpu_s"])
    headings += [f"{name}, CPU s" for name in cpu]
    text = [
        [
            row["set"],
            str(row["images"]),
            f"{row['points']:,}",
            f"{row['observations']:,}",
            length(row["median_position"], row["unit_m"]),
            *(number(row["stages_s"][name], 1) for name in stages),
            *(number(row["stages_cpu_s"][name], 1) for name in cpu),
        ]
        for row in rows
    ]
    told = [f"{row['set']}: {row['exponent']:.2f}" for row in fits]
    return markdown_table(headings, text, words=1) + (
        "\nFrom true poses disturbed by 1 cm and 0.5° per axis, true focal length. "
        + (
            f"Exponent of matching and adjustment over the images (by CPU seconds on a CPU): {', '.join(told)}.\n"
            if told
            else "\n"
        )
    )
