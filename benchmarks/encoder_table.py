"""The tables of the encoder benchmark."""

from collections.abc import Sequence
from typing import Any

from benchmarks.growth_figures import NEAR_DEG, NEAR_M, mean_shares
from benchmarks.metrics import Figures
from benchmarks.tables import environment_lines, markdown_table, number, percent


def encoder_table(content: dict[str, Any]) -> str:
    """All parts, as far as they have rows."""
    text = "# Encoders\n\n" + "\n".join(environment_lines(content)) + "\n"
    parts = {
        "speed": ("Time per image of 640 x 480", _speed),
        "matching": ("Cells matched between frames", _matching),
        "growth": ("Growth from one posed frame with depth", _growth),
    }
    for part, (heading, table) in parts.items():
        rows = [row for row in content["rows"] if row["part"] == part]
        text += f"\n## {heading}\n\n{table(rows)}" if rows else ""
    return text


def _speed(rows: Sequence[Figures]) -> str:
    first = rows[0]["milliseconds"]
    headings = ["encoder", "channels", "GFLOP", "ms", "times as fast"]
    cells = [
        [
            row["encoder"],
            str(row["channels"]),
            number(row["gflop"], 1),
            number(row["milliseconds"], 1),
            number(first / row["milliseconds"], 1),
        ]
        for row in rows
    ]
    return markdown_table(headings, cells, words=1) + (
        f"\nOne image at a time, in turns, medians; {rows[0]['threads']} threads. FLOPs of convolutions and products "
        "only.\n"
    )


def _matching(rows: Sequence[Figures]) -> str:
    first = rows[0]["mean"]
    headings = ["set", "encoder", "pairs", "mean", "median", "times"]
    cells = [
        [
            row["set"],
            row["encoder"],
            str(row["pairs"]),
            percent(row["mean"]),
            percent(row["median"]),
            number(row["mean"] / first, 2),
        ]
        for row in rows
    ]
    low, high = rows[0]["angles_deg"]
    return markdown_table(headings, cells) + (
        "\n% of the cells seen in both frames whose most similar cell of the other frame lies within 8 px of the "
        f"truth; frames look {low:g}° to {high:g}° apart.\n"
    )


def _growth(rows: Sequence[Figures]) -> str:
    headings = ["set", "encoder", "seeds", "registered near the truth", "of each seed", "rounds", "seconds"]
    cells = []
    for name, mean in mean_shares(rows).items():
        own = [row for row in rows if row["encoder"] == name]
        cells.append(
            [
                own[0]["set"],
                name,
                str(len(own)),
                percent(mean),
                ", ".join(percent(row["near"]) for row in own),
                number(sum(row["rounds"] for row in own) / len(own), 1),
                number(sum(row["seconds"] for row in own) / len(own), 0),
            ]
        )
    return markdown_table(headings, cells) + (
        f"\n% of the frames that end registered within {100 * NEAR_M:g} cm and {NEAR_DEG:g}° of the truth, in the "
        "frame of the seed: mapping and registration in turns, keypoints and the last refinement left out. Rounds and "
        "seconds are means.\n"
    )
