# SPDX-License-Identifier: BSD-3-Clause
"""Markdown of the benchmarks: headers, tables, means with their spread."""

import datetime
import math
import os
import platform
import statistics
from importlib import metadata


def processor():
    """Name of the processor, as far as the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def machine(threads):
    return (
        f"{processor()}, {os.cpu_count()} CPUs ({platform.machine()}), {threads} threads a fit, "
        f"{platform.system()}, Python {platform.python_version()}; {datetime.date.today()}"
    )


def versions(cells):
    """All versions that the cells were made with; more than one of a package where cells are of different age."""
    found = {"skprojdict": {metadata.version("skprojdict")}}
    for cell in cells:
        for name, version in cell.get("versions", {}).items():
            found.setdefault(name, set()).add(version or "not installed")
    return ", ".join(f"{name} {' and '.join(sorted(found[name]))}" for name in sorted(found, key=str.lower))


def spread(values, form=".4f"):
    """Mean, and the standard deviation over seeds where there is more than one."""
    values = [value for value in values if value is not None and not math.isnan(value)]
    if not values:
        return ""
    text = f"{statistics.fmean(values):{form}}"
    return f"{text} ± {statistics.stdev(values):{form}}" if len(values) > 1 else text


def interval(differences):
    """Mean of paired differences and half the width of its 95 % interval (Student's t); None for less than two."""
    from scipy.stats import t

    n = len(differences)
    if n < 2:
        return (differences[0] if n else math.nan), None
    half = t.ppf(0.975, n - 1) * statistics.stdev(differences) / math.sqrt(n)
    return statistics.fmean(differences), float(half)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return [*lines, *("| " + " | ".join(str(value) for value in row) + " |" for row in rows)]


def duration(seconds):
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
