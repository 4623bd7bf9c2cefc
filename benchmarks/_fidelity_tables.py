# SPDX-License-Identifier: BSD-3-Clause
"""The page of the fidelity benchmark: a table for each k, what the comparisons come to, and the tuning."""

import statistics

from _report import duration, machine, spread, table, versions

HEAD = (
    "method",
    "lr",
    "FVU",
    "re-solved",
    "/ best peer",
    "/ re-solved best peer",
    "L0",
    "unused %",
    "fit s",
    "rows/s",
    "peak MB",
    "seeds",
)


class Row:
    """All seeds of one coding of one method at one k and learning rate."""

    def __init__(self, plan, method, k, rate, coding=None):
        cells = [plan.known(method, k, seed, rate) for seed in plan.settings.seeds]
        self.method, self.k, self.rate, self.coding = method, k, rate, coding
        self.cells = [cell for cell in cells if cell and "codings" in cell]
        self.failures = [cell["why"] for cell in cells if cell and "why" in cell]

    def codings(self):
        return list(self.cells[0]["codings"]) if self.cells else []

    def values(self, name):
        return [cell["codings"][self.coding][name] for cell in self.cells if self.coding in cell["codings"]]

    def mean(self, name):
        values = self.values(name)
        return statistics.fmean(values) if values else None

    def of_fit(self, name):
        return [cell[name] for cell in self.cells if cell.get(name) is not None]

    def label(self):
        return f"{self.method.label}: {self.coding}" if self.coding else self.method.label

    def rate_text(self):
        rates = self.of_fit("learning_rate")
        if not rates:
            return ""
        # Of ours the cell knows the highest rate in the history, which is past the peak.
        return f"{rates[0]:.2g} (default)" if self.rate is None else f"{self.rate:.2g} (tuned)"


def rows_of(plan, methods, k):
    """Rows of a table, and (label, why) of methods that have none."""
    rows, missing = [], []
    for method in methods:
        for rate in dict.fromkeys((None, plan.best_rate(method))):
            fits = Row(plan, method, k, rate)
            rows += [Row(plan, method, k, rate, coding) for coding in fits.codings()]
            if not fits.cells:
                why = next(iter(fits.failures), None) or plan.too_long(method, k)
                missing.append((method.label, f"not run: {why or 'not asked for yet'}"))
    return rows, missing


def best_rival(rows):
    rivals = [row for row in rows if row.method.rival]
    return min(rivals, key=lambda row: row.mean("fvu"), default=None)


def _ratio(value, base):
    return f"{value / base:.3f}" if value is not None and base else ""


def _line(row, rival, n_components):
    n_rows = row.values("rows")
    partial = f" ({n_rows[0]} rows)" if n_rows and n_rows[0] < row.cells[0]["spec"]["data"]["test_rows"] else ""
    rival = None if partial else rival  # other rows
    speed = row.mean("rows_per_second")
    return (
        row.label() + partial,
        row.rate_text(),
        spread(row.values("fvu")),
        spread(row.values("fvu_resolved")),
        _ratio(row.mean("fvu"), rival and rival.mean("fvu")),
        _ratio(row.mean("fvu"), rival and rival.mean("fvu_resolved")),
        spread(row.values("l0"), ".2f"),
        f"{100 * row.mean('unused') / n_components:.1f}",
        spread(row.of_fit("fit_seconds"), ".0f"),
        "" if steered(row) else f"{speed:.0f}" if speed >= 10 else f"{speed:.1f}",
        spread(row.of_fit("peak_mb"), ".0f").split(" ")[0],
        len(row.cells),
    )


def steered(row):
    """Whether the time of a coder is that of finding its threshold."""
    return (row.coding or "").endswith("mean L0 k")


def page(plan, methods):
    """The whole page as text."""
    settings, data = plan.settings, plan.data_of(plan.settings.seeds[0])
    tables, cells, comparisons = [], [], []
    for k in settings.ks:
        rows, missing = rows_of(plan, methods, k)
        rival = best_rival(rows)
        lines = [_line(row, rival, settings.n_components) for row in rows]
        lines += [(label, "", why, *[""] * (len(HEAD) - 3)) for label, why in missing]
        cells += [cell for row in rows for cell in row.cells]
        named = f"Best TopK or BatchTopK peer: {rival.label()}, lr {rival.rate_text()}." if rival else ""
        tables += [f"## k = {k}", "", *([named, ""] if named else []), *table(HEAD, lines), ""]
        comparisons += _comparisons(k, rows)
    fits = {id(cell): cell for cell in cells}.values()
    hours = sum(cell["wall_seconds"] for cell in fits)
    lines = [
        f"# Fidelity: {data.name}, {' x '.join(map(str, data.load().shape))} {data.load().dtype}",
        "",
        f"{versions(cells)}.",
        "",
        f"{machine(plan.cells.threads)}. p = {settings.n_components}, {settings.n_steps} steps of "
        f"{settings.batch_size} rows, {len(settings.seeds)} seeds; the last {data.test_rows} rows held out. "
        f"The cells of these tables took {duration(hours)}.",
        "",
        "FVU: fraction of variance unexplained of the held-out rows, mean ± standard deviation over seeds. Re-solved: "
        "after least squares, in double precision, on the support that the method chose. / best peer: over the lowest "
        "FVU of a TopK or BatchTopK autoencoder of another library at this k, at its best learning rate; / re-solved "
        "best peer: over that peer's re-solved FVU. Unused: atoms that no held-out row uses. Rows/s: from rows to "
        f"codes in the library's own form, {plan.cells.threads} threads. Ours are at their defaults except for what "
        "the row names, and code with the number of refinements that it names; their threshold is that of training, "
        'and in the rows "mean L0 k" the one that gives the held-out rows k atoms on average, as the batches of '
        "BatchTopK have them.",
        "",
        *tables,
        *_comparison_lines(comparisons),
        *_tuning_lines(plan, methods),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _comparisons(k, rows):
    """Our default against OMP on its own dictionary and against SPAMS, on the same rows."""
    ours = [row for row in rows if row.method.key == "ours"]
    pursuit = next((row for row in ours if row.coding.startswith("OMP")), None)
    spams = next((row for row in rows if row.method.key == "spams"), None)
    result = []
    for row in ours:
        if row is pursuit:
            continue
        result.append(
            (
                k,
                row.coding,
                f"{row.mean('fvu_head'):.4f}",
                _ratio(row.mean("fvu_head"), pursuit and pursuit.mean("fvu_head")),
                _ratio(row.mean("fvu"), spams and spams.mean("fvu")),
                "" if steered(row) else _ratio(row.mean("rows_per_second"), spams and spams.mean("rows_per_second")),
            )
        )
    return result


def _comparison_lines(comparisons):
    if not comparisons:
        return []
    head = ("k", "projective, defaults", "FVU", "/ OMP on its dictionary", "FVU / SPAMS", "rows/s / SPAMS")
    return [
        "## Against pursuits",
        "",
        "FVU and the ratio to OMP are on the first 1024 held-out rows, which OMP coded; those to SPAMS are on all.",
        "",
        *table(head, comparisons),
        "",
    ]


def _tuning_lines(plan, methods):
    lines = []
    for method in methods:
        tried = plan.tried(method)
        if any(score < float("inf") for score in tried.values()):
            best = min(tried, key=tried.get)
            text = ", ".join(
                f"{'default' if rate is None else f'{rate:g}'}: {'-' if score == float('inf') else f'{score:.4f}'}"
                for rate, score in tried.items()
            )
            lines.append((method.label, text, "default" if best is None else f"{best:g}"))
    if not lines:
        return []
    settings = plan.settings
    return [
        "## Learning rates of the peers",
        "",
        f"FVU at k = {settings.tune_k}, seed {settings.seeds[0]}; the best is used at every k and seed.",
        "",
        *table(("method", "learning rate: FVU", "best"), lines),
        "",
    ]
