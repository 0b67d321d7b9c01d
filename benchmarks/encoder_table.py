"""The tables of the encoder benchmark."""

from collections.abc import Sequence
from typing import Any

from benchmarks.metrics import Figures
from benchmarks.tables import environment_lines, markdown_table, number, percent


def encoder_table(content: dict[str, Any]) -> str:
    """Both parts, as far as they have rows."""
    text = "# Encoders\n\n" + "\n".join(environment_lines(content)) + "\n"
    speed = [row for row in content["rows"] if row["part"] == "speed"]
    matching = [row for row in content["rows"] if row["part"] == "matching"]
    text += f"\n## Time per image of 640 x 480\n\n{_speed(speed)}" if speed else ""
    return text + (f"\n## Cells matched between frames\n\n{_matching(matching)}" if matching else "")


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
