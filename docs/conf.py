# SPDX-License-Identifier: BSD-3-Clause
"""Sphinx configuration. ``make docs`` builds with warnings as errors."""

import os
import re
from importlib.metadata import version as installed_version

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # for the example on GPU arrays; before SciPy is imported

project = "skprojdict"
author = "The skprojdict developers"
copyright = f"2026, {author}"
release = version = installed_version("skprojdict")

extensions = [
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
templates_path = ["_templates"]
autosummary_generate = True
# autosummary lists members; numpydoc's own tables would ask for a page for each inherited one.
numpydoc_show_class_members = False
# References between projects would need the network at build time.
myst_enable_extensions = ["colon_fence", "dollarmath"]

# Figures are drawn at every build, from docs/figures: they cannot fall behind the code.
plot_formats = [("png", 110)]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_include_source = False

# An example that fails stops the build. Two at a time: none uses more than one core well.
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "parallel": 2,
    "show_memory": False,
    "download_all_examples": False,
}

html_theme = "pydata_sphinx_theme"
html_title = f"skprojdict {release}"
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}
html_sidebars = {"**": []}
html_show_sourcelink = False


def quote_names_in_shapes(app, what, name, obj, options, lines):
    """Quote fitted names in shapes, such as (n_features_in_,): docutils would take the underscore for a link."""
    lines[:] = [re.sub(r"(?<=[(, ])([a-z_]+_)(?=,?[, )])(?=[^(]*\)$)", r"``\1``", line) for line in lines]


def setup(app):
    # Before numpydoc, which renders the types.
    app.connect("autodoc-process-docstring", quote_names_in_shapes, priority=100)
