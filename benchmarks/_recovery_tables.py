# SPDX-License-Identifier: BSD-3-Clause
"""The page of the recovery benchmark: a table for each data set, and our differences to the peers, paired by seed."""

from _fidelity_tables import rows_of
from _report import duration, interval, machine, spread, table, versions

# Name, column, and whether more is better.
TRUTH = (("mcc", "MCC", True), ("f1", "F1", True))
HIERARCHY = (("holes", "holes", False), ("leak", "leak", False))
FAMILY = (("f1_parent", "F1 parents"), ("f1_child", "F1 children"), ("holes", "holes"), ("leak", "leak"))
TOLERANCE = 0.01
# Of ours, what is compared with the peers: the defaults, and the options that a user would take in their place.
COMPARED = ("ours", "ours-fixed", "ours-apart")


def page(plans, methods):
    """The whole page as text."""
    sections, verdicts, cells = [], [], {}
    for (generator, d), plan in plans.items():
        (k,) = plan.settings.ks
        rows, missing = rows_of(plan, methods, k)
        rows = [row for row in rows if row.rate == plan.best_rate(row.method)]
        cells |= {id(cell): cell for row in rows for cell in row.cells}
        sections += [f"## {generator}, d = {d}", "", *_table(rows, missing, generator == "hierarchical"), ""]
        verdicts += _verdicts(generator, d, rows)
    plan = next(iter(plans.values()))
    settings = plan.settings
    seconds = sum(cell["wall_seconds"] for cell in cells.values())
    head = ("features", "d", "ours", "measure", "against", "difference", "verdict")
    lines = [
        "# Recovery of known features",
        "",
        f"{versions(cells.values())}.",
        "",
        f"{machine(plan.cells.threads)}. {settings.n_components} features and as many atoms, k = {settings.ks[0]}, "
        f"{settings.n_steps} steps of {settings.batch_size} rows, {len(settings.seeds)} seeds with a truth each. The "
        f"cells of these tables took {duration(seconds)}, those of the tuning apart.",
        "",
        "Means ± standard deviations over seeds, on held-out rows. MCC: mean absolute cosine of true and learned atoms "
        "after matching them one to one. F1: of a matched atom as a detector of its feature, averaged over features. "
        "Uniqueness: true atoms that are the closest one of some learned atom, over the learned atoms. Holes: how much "
        "more often a parent's atom is silent when a child is on than when the parent is on alone. Leak: cosine of "
        "children's atoms with their parent above the true one.",
        "",
        "## Differences, paired by seed",
        "",
        "Ours less the peer that is best in the measure, or TopK for holes and leak; mean and 95 % interval (Student's "
        f"t). Worse: by more than {TOLERANCE} (holes, leak: by anything), with an interval that excludes 0.",
        "",
        *table(head, verdicts),
        "",
        *sections,
    ]
    return "\n".join(lines).rstrip() + "\n"


def _table(rows, missing, family):
    names = ["method", "lr", "FVU", "MCC", "F1", "uniqueness", *([title for _, title in FAMILY] if family else [])]
    names += ["L0", "unused", "fit s", "seeds"]
    lines = [
        (
            row.label(),
            row.rate_text(),
            spread(row.values("fvu"), ".3f"),
            *(spread(row.values(name), ".3f") for name in ("mcc", "f1", "uniqueness")),
            *(spread(row.values(name), ".3f") for name, _ in FAMILY if family),
            spread(row.values("l0"), ".2f").split(" ")[0],
            spread(row.values("unused"), ".0f").split(" ")[0],
            spread(row.of_fit("fit_seconds"), ".1f").split(" ")[0],
            len(row.cells),
        )
        for row in rows
    ]
    lines += [(label, "", why, *[""] * (len(names) - 3)) for label, why in missing]
    return table(names, lines)


def _verdicts(generator, d, rows):
    peers = [row for row in rows if row.method.peer]
    topks = [row for row in peers if row.method.rival and "batch" not in row.method.key]
    result = []
    for ours in (row for row in rows if row.method.key in COMPARED):
        measures = [(*measure, peers) for measure in TRUTH]
        if generator == "hierarchical":
            measures += [(*measure, topks) for measure in HIERARCHY]
        for name, title, more, others in measures:
            other = (max if more else min)(others, key=lambda row: row.mean(name), default=None)
            if other is None:
                continue
            mean, half = interval(_paired(ours, other, name))
            text = f"{mean:+.3f}" if half is None else f"{mean:+.3f} ± {half:.3f}"
            result.append(
                (generator, d, ours.label(), title, other.label(), text, verdict(mean if more else -mean, half, more))
            )
    return result


def _paired(ours, other, name):
    def by_seed(row):
        return {cell["spec"]["arguments"]["seed"]: cell["codings"][row.coding][name] for cell in row.cells}

    mine, theirs = by_seed(ours), by_seed(other)
    return [mine[seed] - theirs[seed] for seed in mine.keys() & theirs.keys()]


def verdict(gain, half, tolerant):
    """In words: is ours better or worse? ``gain`` is positive where it is, ``half`` the interval's half width."""
    if half is None:
        return "one seed"
    if gain - half > 0:
        return "better"
    if gain + half < 0 and gain < (-TOLERANCE if tolerant else 0.0):
        return "worse"
    return "no worse"
