"""One self-contained page about one reconstruction."""

from acezero_gpu.viz.report.content import CloseLook, ReportContent, ReportImage, ReportRound
from acezero_gpu.viz.report.page import render_report, write_report

__all__ = ["CloseLook", "ReportContent", "ReportImage", "ReportRound", "render_report", "write_report"]
