"""The tables of the pipeline benchmark."""

from collections.abc import Sequence
from typing import Any

from benchmarks.metrics import Figures
from benchmarks.tables import environment_lines, length, markdown_table, number, percent


def pipeline_table(content: dict[str, Any]) -> str:
    """Cost over the images, then seconds and images per second of each stage."""
    runs = [row for row in content["rows"] if row["part"] == "run"]
    growth = [row for row in content["rows"] if row["part"] == "growth"]
    text = "# Cost of a whole reconstruction\n\n" + "\n".join(environment_lines(content)) + "\n\n"
    text += _totals(runs)
    told = ", ".join(f"{row['system']} {row['exponent']:.2f} (by {_words(row['by'])})" for row in growth)
    text += f"\nExponent of the cost over the images: {told}.\n" if told else ""
    text += (
        "\nSeconds from the files on disk to the last result; every run in a process of its own. Mapping: operations "
        "of the head's products per second, without those of its optimiser, and what one large matrix product reaches "
        "on the device.\n"
    )
    return text + f"\n## Stages: seconds (images per second)\n\n{_stages(runs)}{_failures(runs)}"


def _totals(rows: Sequence[Figures]) -> str:
    headings = ["set", "system", "images", "registered", "position", "AUC@30", "seconds", "CPU s"]
    headings += ["memory, GiB", "on the GPU, GiB", "mapping steps", "mapping, Gflop/s", "product, Gflop/s"]
    text = [
        [
            row["set"],
            row["system"],
            str(row["images"]),
            str(row["registered"]),
            length(row["median_translation"], row["unit_m"]),
            percent(row["auc_30"]),
            number(row["seconds"], 1),
            number(row["cpu_seconds"], 1),
            number(row["peak_memory_gib"]),
            *(f"{_of(row, key):g}" if _of(row, key) is not None else "" for key in OF_OURS),
        ]
        for row in rows
    ]
    return markdown_table(headings, text)


OF_OURS = ("gpu_memory_gib", "mapping_steps", "mapping_gflops", "product_gflops")
"""Figures that another program's runs do not have."""


def _of(row: Figures, key: str) -> float | None:
    return row.get(key, row["details"].get(key))


def _stages(rows: Sequence[Figures]) -> str:
    text = [
        [
            row["system"],
            str(row["images"]),
            ", ".join(
                f"{name} {seconds:.1f} ({row['images'] / seconds:.3g})" if seconds > 0 else f"{name} 0"
                for name, seconds in row["stages_s"].items()
            ),
        ]
        for row in rows
    ]
    return markdown_table(["system", "images", "stages"], text, words=3)


def _failures(rows: Sequence[Figures]) -> str:
    failed = [
        f"- {row['system']}, {row['images']} images: {row['failure']}" for row in rows if row["failure"]
    ]
    return "\n## Without a result\n\n" + "\n".join(failed) + "\n" if failed else ""


def _words(key: str) -> str:
    return {"cpu_seconds": "CPU seconds", "seconds": "seconds"}[key]
