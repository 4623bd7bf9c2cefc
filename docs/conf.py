# SPDX-License-Identifier: BSD-3-Clause
"""Sphinx configuration. ``make docs`` builds with warnings as errors."""

from importlib.metadata import version as installed_version

project = "skprojdict"
author = "The skprojdict developers"
copyright = f"2026, {author}"  # noqa: A001
release = version = installed_version("skprojdict")

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
templates_path = ["_templates"]
autosummary_generate = True
# autosummary lists members; numpydoc's own tables would ask for a page for each inherited one.
numpydoc_show_class_members = False
# References between projects would need the network at build time.
myst_enable_extensions = ["colon_fence", "dollarmath"]

html_theme = "pydata_sphinx_theme"
html_title = f"skprojdict {release}"
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}
html_sidebars = {"**": []}
html_show_sourcelink = False
