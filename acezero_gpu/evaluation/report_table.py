"""A pose report as a table for the terminal."""

from collections.abc import Mapping

from rich.table import Table

from acezero_gpu.evaluation.pose_errors import PoseReport


def report_table(reports: PoseReport | Mapping[str, PoseReport], title: str = "Pose errors") -> Table:
    """One column per report; rows are the figures of ``PoseReport.as_dict`` in words and units."""
    named = {"estimate": reports} if isinstance(reports, PoseReport) else reports
    columns = [_cells(report) for report in named.values()]
    table = Table(title=title)
    table.add_column("measure")
    for name in named:
        table.add_column(name, justify="right")
    labels = dict.fromkeys(label for column in columns for label in column)
    for label in labels:
        table.add_row(label, *(column.get(label, "–") for column in columns))
    return table


def _cells(report: PoseReport) -> dict[str, str]:
    figures = report.as_dict()
    unit_m = figures["truth_unit_m"]
    cells = {
        "registered": f"{figures['registered']} / {figures['images']}",
        "median rotation (all)": _number(figures["median_rotation_deg"], "°"),
        "median translation (all)": _length(figures["median_translation"], unit_m, figures["extent"]),
        "median rotation (registered)": _number(figures["median_rotation_registered_deg"], "°"),
        "median translation (registered)": _length(
            figures["median_translation_registered"], unit_m, figures["extent"]
        ),
    }
    for key, share in figures["accuracy"].items():
        length, angle = key.split("_")
        length = length.replace("cm", " cm").replace("%", " % of extent")
        cells[f"within {length} and {angle.removesuffix('deg')}°"] = _percent(share)
    cells |= {f"RRA@{key}": _percent(share) for key, share in figures["rra"].items()}
    cells |= {f"RTA@{key}": _percent(share) for key, share in figures["rta"].items()}
    auc = f"auc_{report.config.auc_threshold_deg}"
    cells[f"AUC@{report.config.auc_threshold_deg}"] = _percent(figures[auc])
    cells["focal length, estimate / truth"] = _number(figures["median_focal_ratio"], "")
    cells["alignment"] = report.alignment.status.value
    return cells


def _number(value: float | None, unit: str) -> str:
    return "none" if value is None else f"{value:.3f}{unit}"


def _length(value: float | None, unit_m: float | None, extent: float) -> str:
    if value is None or (unit_m is None and extent <= 0):
        return "none"
    return f"{100 * value / extent:.2f} % of extent" if unit_m is None else f"{100 * value * unit_m:.2f} cm"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f} %"
