# SPDX-License-Identifier: BSD-3-Clause
"""The page of the family benchmark: one table for each data set, every form of ours right before its peer."""

import math

from _fidelity_tables import Row
from _report import duration, machine, spread, table, versions

# What is within so much of the peer's error counts as equal.
GOAL = 1.03
# Where more atoms fire than that, a lower error has won nothing.
MOST_SURPLUS = 1.15
TRUTH = (("mcc", "MCC"), ("f1", "F1"))


def page(plans, command):
    """The whole page as text; ``plans`` maps the name of the data to a plan and its methods."""
    rows = {name: rows_of(plan, methods) for name, (plan, methods) in plans.items()}
    cells = [cell for found in rows.values() for row in found.values() for cell in row.cells]
    threads = next(iter(plans.values()))[0].cells.threads
    lines = [
        "# The family of sparse autoencoders",
        "",
        f"`{command}`; {versions(cells)}.",
        "",
        f"{machine(threads)}. The fits in these tables took {duration(sum(cell['fit_seconds'] for cell in cells))}, "
        "those of the tuning apart. Ours at their defaults; the peers at the best of the learning rates in the last "
        "table, by the error on held-out rows of the first seed, among rates with at most 1.15 k atoms a row where "
        "there are any. The penalties of its Standard and Gated trainers are steered to k atoms a row by the rule of "
        "ours; they and its JumpReLU train without their warm-up of 2000 steps. Its BatchTopK forms code batches, with "
        "k on average; ours code row by row with the learnt threshold.",
        "",
        "FVU: fraction of variance unexplained of held-out rows. Projected: after least squares on the support that "
        "the method chose, which is what `ProjectiveDictionaryLearning.from_sae` computes. / peer: over the FVU of "
        f"the same form right below; the goal is at most {GOAL}. Errors compare at equal L0 only, so none is given "
        "where one of the two is off k by more than 15 %. Unused: atoms that no held-out row uses. MCC: mean absolute "
        "cosine of true and learned atoms after matching them one to one. F1: of a matched atom as a detector of its "
        "feature. CPU s: processor time of a fit, which depends less than the clock on what else the machine does; the "
        "first projective fit of a run compiles its kernels in it (some 20 s).",
        "",
    ]
    for name, (plan, methods) in plans.items():
        lines += [f"## {name}", "", _setting(plan), "", *_table(rows[name], methods), ""]
    return "\n".join([*lines, *_tuning(plans)]).rstrip() + "\n"


def rows_of(plan, methods):
    """Rows by the key of their method, each at its best learning rate."""
    (k,) = plan.settings.ks
    return {method.key: Row(plan, method, k, plan.best_rate(method), "") for method in methods}


def _setting(plan):
    settings, data = plan.settings, plan.data_of(plan.settings.seeds[0])
    n, d = data.load().shape
    return (
        f"{n - data.test_rows} rows of {d} columns to train, {data.test_rows} held out; {settings.n_components} atoms, "
        f"k = {settings.ks[0]}, {settings.n_steps} steps of {settings.batch_size} rows, "
        f"{'seed' if len(settings.seeds) == 1 else 'seeds'} {', '.join(map(str, settings.seeds))}."
    )


def _table(rows, methods):
    measured = [row for row in rows.values() if row.cells]
    truth = [each for each in TRUTH if any(each[0] in cell["codings"][""] for row in measured for cell in row.cells)]
    head = ("form", "lr", "FVU", "/ peer", "projected", *(title for _, title in truth), "L0", "unused", "CPU s")
    lines = []
    for method in methods:
        row = rows[method.key]
        if not row.cells:
            why = next(iter(row.failures), "not asked for yet")
            lines.append((method.label, "", f"not run: {why}", *[""] * (len(head) - 3)))
            continue
        lines.append(
            (
                method.label,
                row.rate_text(),
                spread(row.values("fvu")),
                against(row, rows.get(f"dl-{method.key}")),
                spread(row.values("fvu_resolved")),
                *(spread(row.values(name), ".3f") for name, _ in truth),
                spread(row.values("l0"), ".1f").split(" ")[0],
                spread(row.values("unused"), ".0f").split(" ")[0],
                spread(row.of_fit("cpu_seconds"), ".1f").split(" ")[0],
            )
        )
    return table(head, lines)


def against(row, rival):
    """Our error over that of the peer, as a geometric mean over the seeds that both have."""
    if rival is None or not row.cells or not rival.cells:
        return ""
    k = row.k
    if not all(k / MOST_SURPLUS <= each.mean("l0") <= k * MOST_SURPLUS for each in (row, rival)):
        return "L0 differs"
    mine, other = (
        {cell["spec"]["arguments"]["seed"]: cell["codings"][""]["fvu"] for cell in each.cells} for each in (row, rival)
    )
    both = mine.keys() & other.keys()
    return f"{math.exp(math.fsum(math.log(mine[s] / other[s]) for s in both) / len(both)):.3f}" if both else ""


def _tuning(plans):
    lines = []
    for name, (plan, methods) in plans.items():
        for method in methods:
            tried = plan.tried(method)
            shown = (f"{'default' if rate is None else f'{rate:g}'}: {_at(plan, method, rate)}" for rate in tried)
            if tried:
                lines.append((name, method.label, ", ".join(shown)))
    if not lines:
        return []
    head = ("rows", "method", "FVU at each rate, and L0 where it is above 1.15 k")
    return ["## Learning rates of the peers", "", *table(head, lines)]


def _at(plan, method, rate):
    row = Row(plan, method, plan.settings.tune_k, rate, "")
    cells = [cell for cell in row.cells if cell["spec"]["arguments"]["seed"] == plan.settings.seeds[0]]
    if not cells:
        return "not run"
    coding = cells[0]["codings"][""]
    surplus = coding["l0"] > MOST_SURPLUS * plan.settings.tune_k
    return f"{coding['fvu']:.4f}" + (f" (L0 {coding['l0']:.0f})" if surplus else "")
