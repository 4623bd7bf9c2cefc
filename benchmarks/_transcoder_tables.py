# SPDX-License-Identifier: BSD-3-Clause
"""The page of the transcoder benchmark: what is predicted and what an oracle reaches, in tables of their own."""

import math

from _fidelity_tables import Row
from _report import duration, interval, machine, spread, table, versions

GOAL = 0.97


def page(plan, methods, affine, command):
    """The whole page as text."""
    (k,) = plan.settings.ks
    rows = {method.key: Row(plan, method, k, plan.best_rate(method), "") for method in methods}
    done = {key: row for key, row in rows.items() if row.cells}
    missing = [
        (row.method.label, next(iter(row.failures), "not asked for yet")) for row in rows.values() if not row.cells
    ]
    settings, data = plan.settings, plan.data_of(plan.settings.seeds[0])
    cells = [cell for row in done.values() for cell in row.cells]
    shape = data.load().shape
    lines = [
        "# Transcoders",
        "",
        f"`{command}`; {versions(cells)}.",
        "",
        f"{machine(plan.cells.threads)}. {data.name}: {shape[0] - data.test_rows} pairs to train, the last "
        f"{data.test_rows} held out. {settings.n_components} atoms, k = {k}, {settings.n_steps} steps of "
        f"{settings.batch_size} rows, seeds {', '.join(map(str, settings.seeds))}. The cells of these tables took "
        f"{duration(sum(cell['wall_seconds'] for cell in cells))}, those of the tuning apart. Each method at the "
        f"best of its learning rates (the last table), chosen by the predictive FVU of seed {settings.seeds[0]} on the "
        "held-out rows, ours and theirs alike.",
        "",
        "## Predictive: y from X alone",
        "",
        f"FVU: fraction of variance unexplained. An affine map alone: {affine:.4f}. Goal of ours against sparsify's of "
        f"the same kind (skip or none): at most {GOAL} times its FVU; ratios are geometric means of those of each "
        "seed, with their 95 % interval (Student's t on logarithms) where there are at least three seeds.",
        "",
        *table(
            ("method", "lr", "FVU", "/ sparsify of its kind", "L0", "unused", "fit s", "seeds"),
            [
                *(_predictive(row, done) for row in done.values()),
                *((label, "", f"not run: {why}", *[""] * 5) for label, why in missing),
            ],
        ),
        "",
        "## Oracle: y is known to the solver",
        "",
        "Least squares of y (less the skip) on as many atoms of the method's dictionary, as many a row as its code "
        "has: those that X selects, atoms at random, and those that orthogonal matching pursuit finds with y before it "
        "(the last two on the first 1024 rows). **Not predictions**: k numbers of y pass to the output. Skill: 0 for "
        "random atoms, 1 for pursued ones.",
        "",
        *table(
            ("method", "FVU, selected by X", "random atoms", "OMP on y", "selection skill", "skip alone"),
            [_oracle(row) for row in done.values()],
        ),
        "",
        "## Learning rates tried",
        "",
        *table(("method", "FVU at each rate"), [(row.method.label, _tried(plan, row.method)) for row in rows.values()]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _predictive(row, rows):
    return (
        row.method.label,
        row.rate_text(),
        spread(row.values("fvu")),
        _against(row, rows),
        spread(row.values("l0"), ".2f").split(" ")[0],
        spread(row.values("unused"), ".0f").split(" ")[0],
        spread(row.of_fit("fit_seconds"), ".1f").split(" ")[0],
        len(row.cells),
    )


def _against(row, rows):
    rival = rows.get("sparsify-skip" if row.method.key.endswith("-skip") else "sparsify")
    if row.method.peer or rival is None:
        return ""
    mine, theirs = (
        {cell["spec"]["arguments"]["seed"]: cell["codings"][""]["fvu"] for cell in each.cells} for each in (row, rival)
    )
    return ratio([math.log(mine[seed] / theirs[seed]) for seed in sorted(mine.keys() & theirs.keys())])


def ratio(logarithms):
    """Geometric mean, and its interval for three values or more."""
    mean, half = interval(logarithms)
    text = f"{math.exp(mean):.3f}"
    if half is None or len(logarithms) < 3:
        return text
    return f"{text} [{math.exp(mean - half):.3f}, {math.exp(mean + half):.3f}]"


def _oracle(row):
    names = ("oracle", "oracle_random", "oracle_pursued", "skill", "beside_alone")
    texts = [spread(row.values(name)) for name in names]
    return (row.method.label, *texts[:-1], texts[-1] if row.method.key.endswith("-skip") else "")


def _tried(plan, method):
    shown = (("default" if rate is None else f"{rate:g}", fvu) for rate, fvu in plan.tried(method).items())
    return ", ".join(f"{rate}: {fvu:.4f}" if math.isfinite(fvu) else f"{rate}: not run" for rate, fvu in shown)
