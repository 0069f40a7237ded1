"""The report: one HTML page that a biologist can read, and its key numbers for programs."""

from spaf_analysis.report.options import ReportOptions
from spaf_analysis.report.render import check_places, render_html, write_report
from spaf_analysis.report.report import Report, make_report

__all__ = ["Report", "ReportOptions", "check_places", "make_report", "render_html", "write_report"]
