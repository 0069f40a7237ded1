"""The site: the pages of this folder, the READMEs and the API. ``nox -s docs`` builds it into ``docs/_build``."""

import importlib.metadata
import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

from site_pages import Described, check_api_pages, link_within_site, write_pages  # noqa: E402

project = "SpaF"
author = copyright = "The SpaF developers"
release = importlib.metadata.version("spaf-analysis")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "generated/tables"]
suppress_warnings = [
    "mystnb.unknown_mime_type",  # progress bars
    "ref.python",  # four packages have an InputError, and docstrings name the one of their own
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
myst_url_schemes = ("http", "https", "mailto")

# What commands print is to be that of a log: a kernel says that it is a terminal in colours, where bars move. And tqdm
# asks for widgets that a page does not have.
os.environ |= {"TTY_COMPATIBLE": "0", "NO_COLOR": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}
nb_execution_mode = "cache"
nb_execution_excludepatterns = os.environ.get("SPAF_DOCS_NOT_RUN", "").split()  # an option -D cannot give a list of it
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_render_image_options = {"alt": "Figure drawn by the code above it"}

# Single backticks of docstrings are names of arguments and keys, and no references.
default_role = "code"
add_module_names = False
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "set_fit_request, set_score_request"}  # of every estimator
autosummary_ignore_module_all = False
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
python_use_unqualified_type_names = True

# Types of other libraries, type variables and private modules have no page here; what a package shows must have one.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!spaf_).*"), ("py:.*", r"spaf_\w+\.\w+\..*")]

html_theme = "sphinx_book_theme"
html_title = "SpaF"
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": False, "use_download_button": False}
html_static_path = []


def setup(app):
    """Write what is made from other files before the pages are read, and check afterwards that no name is missing."""
    app.add_directive("described", Described)
    app.connect("builder-inited", lambda app: write_pages(DOCS))
    app.connect("source-read", lambda app, name, source: link_within_site(DOCS, name, source))
    app.connect("env-check-consistency", lambda app, env: check_api_pages(env))
