"""The Markdown of ``python -m benchmarks solver``."""

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.metrics import Figures
from benchmarks.tables import environment_lines, markdown_table, number, percent

PEER = "OpenCV USAC"


def solver_table(content: dict[str, Any]) -> str:
    """One section for each part that has rows."""
    text = "# Absolute pose solvers\n\n" + "\n".join(environment_lines(content)) + "\n"
    for part, (title, section) in _PARTS.items():
        rows = [row for row in content["rows"] if row["part"] == part]
        if rows:
            text += f"\n## {title}\n\n{section(rows)}"
    return text


def _cases(rows: Sequence[Figures]) -> str:
    layouts = list(dict.fromkeys((row["processes"], row["threads"]) for row in rows))
    headings = ["case", "solver", "rotation", "position", "within 5 cm, 5°", "failures"]
    headings += [f"frames/s, {processes} x {threads}" for processes, threads in layouts]
    headings += [f"x {PEER}"]
    text = []
    groups = dict.fromkeys((row["case"], row["solver"]) for row in rows)
    speed = {
        (row["case"], row["solver"], row["processes"], row["threads"]): row["frames_per_s"] for row in rows
    }
    cores = max(row["processes"] for row in rows)
    for case, solver in groups:
        row = next(row for row in rows if (row["case"], row["solver"]) == (case, solver))
        cells = [
            case,
            solver,
            number(row["median_rotation_deg"], 3, "°"),
            number(row["median_translation_cm"], 3, " cm"),
            percent(row["within"]),
            f"{row['failures']} of {row['frames']}",
        ]
        for layout in layouts:
            frames_per_s = speed.get((case, solver, *layout))
            cells.append("" if frames_per_s is None else number(frames_per_s, 1))
        ours, theirs = speed.get((case, solver, cores, 1)), speed.get((case, PEER, cores, 1))
        cells.append(number(ours / theirs, 1) if ours and theirs else "")
        text.append(cells)
    return markdown_table(headings, text) + (
        "\nMedians over all frames; one without a pose is infinitely wrong. Frames/s, processes x threads in "
        "each: the frames are divided among the processes, and the time runs from the first start to the "
        "last end, after a warm-up. The last column compares all cores, one process on each. PoseLib, "
        "pycolmap and OpenCV take one frame at a time; only the smallest of their settings was made: the "
        "threshold, and OpenCV's 10,000 iterations. All others are their own.\n"
    )


def _p3p(rows: Sequence[Figures]) -> str:
    headings = ["solver", "dtype", "problems", "tolerance", "solved, %", "valid but not finite"]
    text = [
        [
            row["solver"],
            row["dtype"],
            f"{row['problems']:,}",
            f"{row['tolerance']:g}",
            f"{100 * row['solved']:.3f}",
            str(row["not_finite_but_valid"]),
        ]
        for row in rows
    ]
    peer = [row["problems_per_s"] for row in rows if "problems_per_s" in row]
    told = f"PoseLib: {peer[0]:,} problems/s on one thread, its Python call included.\n" if peer else ""
    return markdown_table(headings, text) + (
        "\nSolved: the true pose is among the roots, every entry of [R | t] within the tolerance. " + told
    )


def _p3p_speed(rows: Sequence[Figures]) -> str:
    text = [[row["solver"], row["dtype"], str(row["threads"]), f"{row['problems_per_s']:,}"] for row in rows]
    return markdown_table(["solver", "dtype", "threads", "problems/s"], text)


def _batches(rows: Sequence[Figures]) -> str:
    text = [
        [row["preset"], "yes" if row["compiled"] else "no", str(row["batch"]), number(row["frames_per_s"], 1)]
        for row in rows
    ]
    return markdown_table(["preset", "compiled", "frames per call", "frames/s"], text)


def _memory(rows: Sequence[Figures]) -> str:
    text = [
        [row["preset"], str(row["batch"]), number(row["temporary_mb"], 0), number(row["total_mb"], 0)]
        for row in rows
    ]
    headings = ["preset", "frames per call", "peak of the call, MB", "peak of the process, MB"]
    return markdown_table(headings, text, words=1) + "\nBoth without inputs and outputs.\n"


_PARTS: dict[str, tuple[str, Callable[[Sequence[Figures]], str]]] = {
    "cases": ("Frames", _cases),
    "p3p": ("P3P", _p3p),
    "p3p speed": ("P3P in one call", _p3p_speed),
    "batching": ("Frames per call, one thread", _batches),
    "throughput": ("Large calls", _batches),
    "memory": ("Memory", _memory),
}
