# SPDX-License-Identifier: BSD-3-Clause
"""What the displays share: axes, styles that differ without colour, and readable logarithmic ticks."""

import numpy as np

MARKERS = "osD^vPX*"
DASHES = ("-", "--", "-.", ":")


def axes_or_new(ax, size=(6.4, 4.8)):
    """``ax``, or the only axes of a new figure."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def line_style(number):
    """Marker and dash of the line with this number on its axes, so that lines differ without colour."""
    return {"marker": MARKERS[number % len(MARKERS)], "linestyle": DASHES[number % len(DASHES)], "markersize": 5}


def names_of(estimators, names):
    """A name for each estimator: those given, or the classes."""
    names = [type(estimator).__name__ for estimator in estimators] if names is None else list(names)
    if len(names) != len(estimators):
        raise ValueError(f"names has {len(names)} entries for {len(estimators)} estimators: give one name for each.")
    return names


def log_y(ax):
    """Logarithmic y axis that has several labels even where the data span less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in ax.lines])
    drawn = drawn[np.isfinite(drawn) & (drawn > 0)]
    if not drawn.size:  # nothing to show: a perfect fit has no logarithm
        return
    ax.set_yscale("log")
    if drawn.max() / drawn.min() < 100:
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7), numticks=20))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
