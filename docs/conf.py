# SPDX-License-Identifier: BSD-3-Clause
"""Sphinx configuration. ``make docs`` builds with warnings as errors."""

import os
import re
import zlib
from importlib.metadata import version as installed_version
from pathlib import Path

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
    "sphinx.ext.intersphinx",
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
myst_enable_extensions = ["colon_fence", "dollarmath"]

# What is linked to in scikit-learn. Its own inventory would have to be fetched at every build, from a network that may
# not be there; a test looks whether these still exist.
SCIKIT_LEARN = {
    "sklearn.datasets.get_data_home": "function",
    "sklearn.decomposition.DictionaryLearning": "class",
    "sklearn.decomposition.MiniBatchDictionaryLearning": "class",
    "sklearn.decomposition.NMF": "class",
    "sklearn.decomposition.SparseCoder": "class",
    "sklearn.exceptions.NotFittedError": "exception",
    "sklearn.exceptions.UndefinedMetricWarning": "exception",
    "sklearn.model_selection.GridSearchCV": "class",
    "sklearn.pipeline.Pipeline": "class",
    "sklearn.utils.Bunch": "class",
}


def inventory(project, names):
    """Write an inventory of Sphinx: where in the pages of another project its names are."""
    path = Path(__file__).parent / "_build" / f"{project}.inv"
    path.parent.mkdir(exist_ok=True)
    entries = "".join(f"{name} py:{role} 1 modules/generated/{name}.html#$ -\n" for name, role in names.items())
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n# The rest is compressed with zlib.\n"
    path.write_bytes(head.encode() + zlib.compress(entries.encode()))
    return str(path)


intersphinx_mapping = {
    "sklearn": ("https://scikit-learn.org/stable/", inventory("scikit-learn", SCIKIT_LEARN)),
}

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


def compile_kernels(app):
    """Compile what the gallery calls, where Numba is there: it would count as the time of the example that is first."""
    from skprojdict import MethodOfOptimalDirections, ProjectiveDictionaryLearning, TopKDictionaryLearning
    from skprojdict.datasets import make_sparse_features

    X = make_sparse_features(1000, n_features=64, n_components=128, n_nonzero=8, random_state=0).X
    options = {"n_components": 128, "n_nonzero_coefs": 8, "random_state": 0}
    for rows in (X.astype("float32"), X):
        MethodOfOptimalDirections(**options, max_iter=1).fit(rows).transform(rows)
        TopKDictionaryLearning(**options, max_steps=2).fit(rows).transform(rows)
        projective = ProjectiveDictionaryLearning(**options, max_steps=2).fit(rows)
        for n_refinements in (0, 1):
            projective.set_params(n_refinements=n_refinements).transform(rows)


def quote_names_in_shapes(app, what, name, obj, options, lines):
    """Quote fitted names in shapes, such as (n_features_in_,): docutils would take the underscore for a link."""
    lines[:] = [re.sub(r"(?<=[(, ])([a-z_]+_)(?=,?[, )])(?=[^(]*\)$)", r"``\1``", line) for line in lines]


def setup(app):
    app.connect("builder-inited", compile_kernels, priority=0)  # before sphinx-gallery's
    # Before numpydoc, which renders the types.
    app.connect("autodoc-process-docstring", quote_names_in_shapes, priority=100)
