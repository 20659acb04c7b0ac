"""The documentation: guides, the notebooks with their stored outputs, the API reference; built without a network."""

from __future__ import annotations

import shutil
import tomllib
from importlib.metadata import version as installed
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

from cryotwin_nb.cli.main import COMMANDS, parser_of

project = "cryotwin_nb"
author = "cryotwin_nb authors"
version = release = installed("cryotwin_nb")
copyright = author

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.doctest", "sphinx.ext.viewcode", "myst_nb"]
exclude_patterns = ["_build", "_generated", "notebooks/own-data", "notebooks/models"]
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
suppress_warnings = [
    "myst.header",
    "misc.highlighting_failure",
    "mystnb.unknown_mime_type",
]  # last: the explorer's views

napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_ivar = True
napoleon_use_rtype = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
default_role = "code"

html_theme = "furo"
html_title = "cryotwin_nb"
html_copy_source = False
html_static_path: list[str] = []
# The repository's address, once it is known, stands in pyproject.toml alone.
_project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
if address := _project.get("urls", {}).get("Repository"):
    html_theme_options = {"source_repository": address, "source_branch": "main", "source_directory": "docs/"}


def _visit_math(self, node: nodes.math) -> None:
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _visit_math_block(self, node: nodes.math_block) -> None:
    text = node.astext().replace("\\begin{align*}", "\\begin{aligned}").replace("\\end{align*}", "\\end{aligned}")
    self.body.append(f'<div class="math">{convert(text, display="block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Formulas become MathML, which browsers draw themselves: no script, no network."""
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math_block, None))
    app.config.html_math_renderer = "mathml"
    app.connect("builder-inited", _gather)
    app.connect("autodoc-process-docstring", _escape)


def _gather(app: Sphinx) -> None:
    """Copy the notebooks, and write down the options of every command, out of the parsers themselves."""
    here = Path(app.srcdir)
    shutil.copytree(here.parent / "notebooks", here / "notebooks", dirs_exist_ok=True)
    parts = []
    for name, command in COMMANDS.items():
        parts.append(f"## cryotwin {name}\n\n{command.help.capitalize()}.\n")
        parts.append(f"```text\n{parser_of(name).format_help()}```\n")
    (here / "_generated").mkdir(exist_ok=True)
    (here / "_generated" / "commands.md").write_text("\n".join(parts), encoding="utf-8")


def _escape(app: Sphinx, what: str, name: str, subject: object, options: object, lines: list[str]) -> None:
    """Bars are norms and absolute values in our docstrings, not substitutions."""
    lines[:] = [line.replace("|", "\\|") for line in lines]
