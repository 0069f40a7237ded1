"""The report: one HTML page that a biologist can read, and its key numbers for programs."""

from .options import ReportOptions
from .render import check_places, render_html, write_report
from .report import Report, default_sections, make_report
from .section import Card, Context, Picture, Section

__all__ = [
    "Card",
    "Context",
    "Picture",
    "Report",
    "ReportOptions",
    "Section",
    "check_places",
    "default_sections",
    "make_report",
    "render_html",
    "write_report",
]
