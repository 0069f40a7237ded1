"""What a section of the report is: one class that computes, draws, says, sums up and lays itself out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

from markupsafe import Markup
from matplotlib.figure import Figure

from spaf_analysis.plots.encode import svg_uri
from spaf_analysis.report.inputs import ReportInputs
from spaf_analysis.report.options import ReportOptions

if TYPE_CHECKING:
    import anndata as ad
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Picture:
    """A figure inside a page.

    Attributes
    ----------
    uri
        The image itself, as a data URI.
    alt
        What it shows, for those who do not see it.
    caption
        What the reader should know to read it.
    """

    uri: str
    alt: str
    caption: str

    @classmethod
    def of(cls, drawn: Figure | Axes, alt: str, caption: str) -> Picture:
        """Return a figure, or that of axes, as a picture."""
        # Axes that were drawn belong to a figure.
        figure = drawn if isinstance(drawn, Figure) else cast("Figure", drawn.get_figure(root=True))
        return cls(svg_uri(figure), alt, caption)


@dataclass(frozen=True)
class Card:
    """A number of the summary at the head of the page, and what it is."""

    value: str
    label: str


class Section(ABC):
    """A section of the report. To add one, derive from this class and name it to `make_report`.

    A section is made by `compute` and then only read. What it says in words and numbers it says of its own results, so
    that the page and `summary.json` cannot differ.

    Attributes
    ----------
    anchor
        Name of the section in links.
    title
        Heading.
    doing
        What is shown while it is computed.
    template
        The body, in Jinja: it sees the section as `section`, what `view` returns, the function `show` that lays out
        pictures, and the filters `count`, `figure`, `small` and `duration`.
    figures
        What `show(section.figures)` lays out.
    """

    anchor: ClassVar[str]
    title: ClassVar[str]
    doing: ClassVar[str] = ""
    template: ClassVar[str]
    figures: tuple[Picture, ...] = ()

    @classmethod
    @abstractmethod
    def compute(cls, context: Context) -> Self:
        """Compute and draw everything, from what the stages left."""

    def numbers(self) -> dict[str, Any]:
        """Return what goes into `summary.json`: plain values, None for what could not be computed."""
        return {}

    def sentences(self) -> tuple[str, ...]:
        """Return sentences for the summary at the head of the page; `Markup` where they hold a link."""
        return ()

    def cards(self) -> tuple[Card, ...]:
        """Return numbers for the summary at the head of the page."""
        return ()

    def chosen(self) -> dict[str, Any]:
        """Return options that were left open and what was chosen, for the record of the report."""
        return {}

    def view(self) -> dict[str, Any]:
        """Return what the template sees beside the section itself."""
        return {}


@dataclass(frozen=True)
class StoredSection(Section):
    """A section on what an analysis wrote into `uns`. Derive from it, and give what is different.

    Attributes
    ----------
    stored
        What was written; None where nothing was.
    key
        Of `uns`.
    unwritten
        The body where nothing was written: which command does it, as HTML.
    written
        The body where something was, as `template`.
    """

    stored: dict[str, Any] | None
    figures: tuple[Picture, ...] = ()

    key: ClassVar[str]
    unwritten: ClassVar[str]
    written: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        note = f'<p class="note">{cls.unwritten}</p>'
        cls.template = f"{{% if section.stored is none %}}{note}{{% else %}}{cls.written}{{% endif %}}"

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Read what was written and draw it."""
        stored = context.adata.uns.get(cls.key)
        return cls(None) if stored is None else cls(dict(stored), cls.drawn(context.adata, dict(stored)))

    @classmethod
    @abstractmethod
    def drawn(cls, adata: ad.AnnData, stored: dict[str, Any]) -> tuple[Picture, ...]:
        """Draw what was written."""

    @abstractmethod
    def numbers_of(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return what goes into `summary.json` where something was written."""

    @abstractmethod
    def view_of(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return what the body sees beside the section."""

    def numbers(self) -> dict[str, Any]:
        """Return the numbers of what was written; none where nothing was."""
        return {} if self.stored is None else self.numbers_of(self.stored)

    def view(self) -> dict[str, Any]:
        """Return what the body sees; nothing where nothing was written."""
        return {} if self.stored is None else self.view_of(self.stored)


AnySection = TypeVar("AnySection", bound=Section)


@dataclass(frozen=True)
class Context:
    """What sections are made from.

    Attributes
    ----------
    inputs
        What the stages left.
    options
        The choices of who asked for the report.
    started
        When the report was begun, by `time.perf_counter`.
    step
        Called with what is being done.
    """

    inputs: ReportInputs
    options: ReportOptions
    started: float
    step: Callable[[str], None]
    _made: dict[type[Section], Section] = field(default_factory=dict)

    @property
    def adata(self) -> ad.AnnData:
        """The embedded cells."""
        return self.inputs.adata

    def section(self, kind: type[AnySection]) -> AnySection:
        """Return a section of the report, computed when it is first asked for: by its turn, or by another section."""
        if kind not in self._made:
            if kind.doing:
                self.step(kind.doing)
            self._made[kind] = kind.compute(self)
        return cast("AnySection", self._made[kind])

    def chosen(self) -> dict[str, Any]:
        """Return what the sections made so far have chosen where the options left it open."""
        return {name: value for made in self._made.values() for name, value in made.chosen().items()}


def link(anchor: str, text: str) -> Markup:
    """Return a link to a section of the page."""
    return Markup('<a href="#{}">{}</a>').format(anchor, text)
