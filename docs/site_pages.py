"""Pages that are made from other files of the repository: READMEs, cards, and the tables of the benchmarks.

Links of READMEs and pages name files of the repository, so that they work where the repository is read; on the site
they lead to the page that the file became.
"""

import inspect
import posixpath
import re
import shutil
from importlib import import_module
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from result_tables import result_tables
from sphinx.util.docutils import SphinxDirective
from sphinx.util.logging import getLogger

logger = getLogger(__name__)

PACKAGES = ("spaf_data", "spaf_model", "spaf_train", "spaf_analysis")
# Files of the repository, and the pages that they become.
COPIED = {
    **{f"packages/{name.replace('_', '-')}/README.md": f"generated/{name.replace('_', '-')}" for name in PACKAGES},
    **{
        f"packages/{name.replace('_', '-')}/CHANGELOG.md": f"generated/{name.replace('_', '-')}-changes"
        for name in PACKAGES
    },
    "ARCHITECTURE.md": "generated/architecture",
    "CONTRIBUTING.md": "generated/contributing",
    "RELEASING.md": "generated/releasing",
    "SECURITY.md": "generated/security",
    "benchmarks/starter.md": "generated/starter-1",
    "benchmarks/starter2.md": "generated/starter",
    "packages/spaf-model/src/spaf_model/models/starter/card.md": "generated/card-starter",
    "packages/spaf-model/src/spaf_model/models/starter-1/card.md": "generated/card-starter-1",
}
_LINK = re.compile(r"(\]\()([^)#\s:]+)(#[^)\s]*)?(\))")


def write_pages(docs: Path) -> None:
    """Write the copies and the tables below ``docs/generated``; what has not changed keeps its time."""
    wanted = {f"{page}.md": (docs.parent / file).read_text(encoding="utf-8") for file, page in COPIED.items()}
    for name, table in result_tables(docs.parent / "benchmarks" / "results").items():
        wanted[f"generated/tables/{name}.md"] = table
    for page, text in wanted.items():
        path = docs / page
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    shutil.copyfile(docs.parent / "CITATION.cff", docs / "generated" / "CITATION.cff")


def link_within_site(docs: Path, name: str, source: list[str]) -> None:
    """Turn links to files of the repository into links to their pages, or into plain names where they have none."""
    original = next((file for file, page in COPIED.items() if page == name), f"docs/{name}.md")
    here = posixpath.dirname(f"docs/{name}")

    def turned(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(original), match[2]))
        readme = f"{target}/README.md"  # a link to a folder shows its README
        page = COPIED.get(target) or COPIED.get(readme)
        if page is not None:
            target = f"docs/{page}.md"
        elif original == f"docs/{name}.md":
            return match[0]
        return f"{match[1]}{posixpath.relpath(target, here)}{match[3] or ''}{match[4]}"

    source[0] = _LINK.sub(turned, source[0])


class Described(SphinxDirective):
    """A table of names in one line each, and below it what autodoc says of each.

    All names of a group are on one page: a page for each name would be hundreds, and a menu of all of them on each.
    """

    has_content = True

    def run(self) -> list[nodes.Node]:
        names = [name.strip() for name in self.content if name.strip()]
        lines = [".. autosummary::", "   :nosignatures:", "", *(f"   {name}" for name in names), ""]
        for name in names:
            module, _, attribute = name.rpartition(".")
            thing = getattr(import_module(module), attribute)
            if inspect.isclass(thing):
                lines += [f".. autoclass:: {name}", "   :members:", "   :show-inheritance:", ""]
            else:
                lines += [f".. autofunction:: {name}" if callable(thing) else f".. autodata:: {name}", ""]
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source=self.env.docname), self.content_offset, node)
        return node.children


def check_api_pages(env) -> None:
    """Warn of public names of the packages that no page describes."""
    described = set(env.get_domain("py").objects)
    for package in PACKAGES:
        module = import_module(package)
        missing = [
            name
            for name in module.__all__
            if not {f"{package}.{name}", f"{package}.tl.{name}"} & described
            and not isinstance(getattr(module, name), type(module))
        ]
        if missing:
            logger.warning("docs/api describes nothing of %s: %s", package, ", ".join(missing))
