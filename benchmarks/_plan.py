# SPDX-License-Identifier: BSD-3-Clause
"""Which cells make a table: learning rates tuned first, then every method, k and seed; and how long that takes."""

from dataclasses import dataclass

PROBE_STEPS = 20
# A best rate at the end of the grid asks for one more beyond it, so often at most.
MORE_RATES = 3
SECONDS_TO_START = 8.0


@dataclass(frozen=True)
class Settings:
    n_components: int
    n_steps: int
    batch_size: int
    ks: tuple
    seeds: tuple
    tune_k: int
    more_rates: int = MORE_RATES


def score(cell):
    """FVU of the first coding of a cell; infinity where it did not run."""
    codings = (cell or {}).get("codings")
    return next(iter(codings.values()))["fvu"] if codings else float("inf")


class Plan:
    """The cells of some methods on one data set; ``data_of`` gives it for a seed, the same one or one for each.

    ``score`` of a cell, the lower the better, decides between learning rates. ``defaults``: the default rate is run on
    every seed beside the best one.
    """

    def __init__(self, cells, data_of, settings, score=score, defaults=True):
        self.cells, self.data_of, self.settings, self.score = cells, data_of, settings, score
        self.defaults = defaults

    def spec(self, method, k, seed, rate=None, n_steps=None):
        settings = self.settings
        return self.cells.spec(
            method,
            self.data_of(seed),
            n_components=settings.n_components,
            k=k,
            n_steps=n_steps or settings.n_steps,
            batch_size=settings.batch_size,
            seed=seed,
            learning_rate=rate,
        )

    def known(self, method, k, seed, rate=None):
        return self.cells.known(self.spec(method, k, seed, rate), self.cells.limit)

    # ---- learning rates

    def tuning(self, method, rates):
        """Specs of the tuning cells: the default rate and each of ``rates``."""
        k, seed = self.settings.tune_k, self.settings.seeds[0]
        return [self.spec(method, k, seed, rate) for rate in (None, *rates)]

    def tried(self, method):
        """Rates tried so far and their FVU, the default as None first."""
        k, seed = self.settings.tune_k, self.settings.seeds[0]
        rates = [None, *self.rates(method)]
        return {rate: self.score(self.known(method, k, seed, rate)) for rate in rates} if method.rates else {}

    def rates(self, method):
        """The grid of a method, longer by what its results so far ask for."""
        rates = sorted(method.rates)
        for _ in range(self.settings.more_rates if len(rates) > 1 else 0):
            k, seed = self.settings.tune_k, self.settings.seeds[0]
            scores = {rate: self.score(self.known(method, k, seed, rate)) for rate in rates}
            best = min(scores, key=scores.get)
            if scores[best] == float("inf") or float("inf") in (scores[rates[0]], scores[rates[-1]]):
                break  # not all known yet, or the end of the grid does not train at all
            if best == rates[-1]:
                rates.append(2 * best)
            elif best == rates[0]:
                rates.insert(0, best / 2)
            else:
                break
        return rates

    def best_rate(self, method):
        """The rate with the lowest FVU; None where that is the default, or nothing is known."""
        tried = self.tried(method)
        return min(tried, key=tried.get) if tried and min(tried.values()) < float("inf") else None

    # ---- running

    def probe(self, methods, after):
        """Time a few steps of every peer, so that what would take too long is not begun."""
        fraction = PROBE_STEPS / self.settings.n_steps
        allowed = self.cells.limit * fraction + 4 * SECONDS_TO_START + 60.0
        self.cells.run(self._with_data(self._probe(method) for method in methods), after, allowed)

    def _with_data(self, specs):
        return [(spec, self.data_of(spec["arguments"]["seed"])) for spec in specs]

    def _probe(self, method):
        return self.spec(method, self.settings.tune_k, self.settings.seeds[0], None, PROBE_STEPS)

    def seconds(self, method, k):
        """Estimate for one cell, from the probe or from a finished cell; None without either."""
        tune_k, seed = self.settings.tune_k, self.settings.seeds[0]
        for spec in (self.spec(method, tune_k, seed), self._probe(method)):
            cell = self.cells.known(spec)
            if cell and "codings" in cell:
                factor = self.settings.n_steps / spec["arguments"]["n_steps"]
                rest = max(0.0, cell["wall_seconds"] - cell["fit_seconds"])
                return cell["fit_seconds"] * factor * (k / tune_k if method.cost_in_k else 1.0) + rest
            if cell and "stopped_after" in cell:
                return cell["stopped_after"] * self.settings.n_steps / spec["arguments"]["n_steps"]
        return None

    def too_long(self, method, k):
        """Why a cell is not begun, or None."""
        seconds = self.seconds(method, k)
        if seconds is None or seconds <= self.cells.limit:
            return None
        return f"a cell would take {seconds / 60:.0f} min, and the limit is {self.cells.limit / 60:.0f} (--cell-limit)"

    def wanted(self, method):
        """Specs of the final cells of a method: best rate and, if asked for, the default; each k and seed."""
        best = self.best_rate(method)
        rates = dict.fromkeys((None, best) if self.defaults else (best,))
        return [
            self.spec(method, k, seed, rate)
            for k in self.settings.ks
            if not self.too_long(method, k)
            for seed in self.settings.seeds
            for rate in rates
        ]

    def run(self, methods, after):
        """Tune, then run everything; a cell that is known is not run again."""

        def go(specs):
            self.cells.run(self._with_data(specs), after)

        tuned = [method for method in methods if method.rates and not self.too_long(method, self.settings.tune_k)]
        go([spec for method in methods if method not in tuned for spec in self.wanted(method)])
        go([spec for method in tuned for spec in self.tuning(method, method.rates)])
        for _ in range(self.settings.more_rates):
            go([spec for method in tuned for spec in self.tuning(method, self.rates(method))])
        go([spec for method in tuned for spec in self.wanted(method)])

    def estimate(self, methods):
        """Cells still to run and seconds for them, by method: pairs, the seconds None where nothing is known."""
        result = {}
        for method in methods:
            specs = {self.cells.path(spec): spec for spec in self._all(method)}
            missing = [s for s in specs.values() if self.cells.known(s, self.cells.limit) is None]
            times = [self.seconds(method, spec["arguments"]["k"]) for spec in missing]
            result[method] = (len(missing), None if None in times else sum(times))
        return result

    def _all(self, method):
        if self.too_long(method, self.settings.tune_k):
            return []
        specs = self.wanted(method)
        if method.rates:
            specs += self.tuning(method, method.rates)
            if self.best_rate(method) is None:  # a best rate other than the default is to be expected
                specs += [replace_rate(spec) for spec in specs if spec["arguments"]["learning_rate"] is None]
        return specs


def replace_rate(spec):
    """The same cell at a rate that is not known yet."""
    return spec | {"arguments": spec["arguments"] | {"learning_rate": -1.0}}
