"""The tables of the throughput benchmark."""

from collections.abc import Sequence
from typing import Any

from benchmarks.metrics import Figures
from benchmarks.tables import environment_lines, markdown_table, number, percent


def throughput_table(content: dict[str, Any]) -> str:
    """Both parts, as far as they have rows."""
    text = "# Throughput\n\n" + "\n".join(environment_lines(content)) + "\n"
    mapping = [row for row in content["rows"] if row["part"] == "mapping"]
    registration = [row for row in content["rows"] if row["part"] == "registration"]
    text += f"\n## Mapping\n\n{_mapping(mapping)}" if mapping else ""
    return text + (f"\n## Registration\n\n{_registration(registration)}" if registration else "")


def _mapping(rows: Sequence[Figures]) -> str:
    headings = ["set", "images", "head", "patches a step", "steps", "seconds", "steps/s", "inliers"]
    headings += ["Gflop/s", "product, Gflop/s", "share"]
    text = [
        [
            row["set"],
            str(row["images"]),
            f"{row['width']} wide",
            str(row["batch"]),
            str(row["steps"]),
            number(row["seconds"], 2),
            number(row["steps"] / row["seconds"], 1),
            percent(row["inlier_share"]),
            number(row["gflops"], 1),
            number(row["product_gflops"], 1),
            percent(row["product_share"]),
        ]
        for row in rows
    ]
    return markdown_table(headings, text, words=1) + (
        "\nFrom true poses, which stay; the patches are encoded already. Product: what one large matrix product "
        "reaches on the device, in the type that the head is trained in. Operations are those of the head's products, "
        "forwards and backwards; those of its optimiser are in the seconds alone.\n"
    )


def _registration(rows: Sequence[Figures]) -> str:
    headings = ["set", "encoder", "images", "size", "seconds", "images/s", "registered", "rotation"]
    text = [
        [
            row["set"],
            row["encoder"],
            str(row["images"]),
            "{} x {}".format(*row["size"]),
            number(row["seconds"], 2),
            number(row["images_per_s"], 1),
            str(row["registered"]),
            number(row["median_rotation_deg"], 2, "°"),
        ]
        for row in rows
    ]
    return markdown_table(headings, text, words=2) + (
        "\nEncoding, head and solver against the map above; the images are decoded already, none is encoded before "
        "the clock starts. Medians over the repeats.\n"
    )
