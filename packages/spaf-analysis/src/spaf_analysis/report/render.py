"""A report laid out as one HTML file that needs nothing beside itself."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from spaf_analysis.errors import InputError
from spaf_analysis.report import words
from spaf_analysis.report.report import Report
from spaf_data import write_text
from spaf_model import check_output


def render_html(report: Report) -> str:
    """Lay a report out.

    Parameters
    ----------
    report
        The content.

    Returns
    -------
    str
        A self-contained page: style and figures are inside, nothing is loaded.
    """
    environment = Environment(
        loader=PackageLoader("spaf_analysis.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": words.count, "figure": words.figure, "small": words.small, "duration": words.duration,
    }  # fmt: skip
    show: Any = environment.get_template("figures.html.j2").module
    environment.globals["show"] = show.show
    bodies = [
        (section, Markup(environment.from_string(section.template).render(section=section, **section.view()).strip()))
        for section in report.sections
    ]
    return environment.get_template("page.html.j2").render(
        report=report,
        sections=bodies,
        sentences=[sentence for section in report.sections for sentence in section.sentences()],
        cards=[card for section in report.sections for card in section.cards()],
        title=", ".join(report.slides[:4]) or "tissue",
    )


def write_report(report: Report, html: Path, summary: Path | None = None) -> None:
    """Write the page, and the key numbers as JSON.

    Parameters
    ----------
    report
        The content.
    html
        The page to write; an older one is replaced when the new one is complete.
    summary
        The JSON file to write; none if None.

    Raises
    ------
    InputError
        If a folder to write to does not exist.
    """
    check_places(html, summary)
    write_text(html, render_html(report))
    if summary is not None:
        write_text(summary, json.dumps(report.summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def check_places(*paths: Path | None) -> None:
    """Raise InputError where a file could not be written: better before a report is made than after."""
    for path in paths:
        if path is not None and not path.absolute().parent.exists():
            raise InputError(
                f"the folder {path.parent} does not exist; make it or choose another place for {path.name}."
            )
    check_output(*paths)
