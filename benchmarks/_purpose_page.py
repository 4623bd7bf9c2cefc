# SPDX-License-Identifier: BSD-3-Clause
"""The page of the five purposes, from numbers alone: every table, sentence and verdict follows from them."""

import math
import re

import _alignment_page as alignment
from _report import duration, interval, machine, spread, table, versions

BETTER, WORSE, EQUAL = "better", "worse", "no different"
FULL_SEEDS = 5
COMMAND = "`python benchmarks/purposes.py`"
DOUBLE = ", twice the atoms"


# ---- from paired numbers to words


def compare(differences, more_is_better=True, tolerance=0.0):
    """In a word what paired differences, ours less theirs, say; None for less than two.

    Better or worse by an interval that excludes 0; worse only where the mean is beyond the tolerance, too.
    """
    if len(differences) < 2:
        return None
    centre, half = interval(differences)
    gain = centre if more_is_better else -centre
    if gain - half > 0:
        return BETTER
    if gain + half < 0 and gain < -tolerance:
        return WORSE
    return EQUAL


def verdict(outcomes, n_seeds, good=(BETTER,)):
    """Holds, does not hold or depends on what, from outcomes by setting; None stands for a setting that was not run."""
    known = {setting: outcome for setting, outcome in outcomes.items() if outcome is not None}
    if not known:
        return NOTHING
    fine = [setting for setting, outcome in known.items() if outcome in good]
    if len(fine) == len(known):
        text = "holds"
    elif not fine:
        text = "does not hold"
    else:
        rest = [f"{setting} ({outcome})" for setting, outcome in known.items() if setting not in fine]
        text = f"depends on the data: holds on {', '.join(fine)}; not on {', '.join(rest)}"
    missing = [setting for setting, outcome in outcomes.items() if outcome is None]
    if missing:
        text += f". Not measured yet: {', '.join(missing)}"
    return text if n_seeds >= FULL_SEEDS else f"{text} (preliminary: {n_seeds} seeds)"


def column(found, name, coding=""):
    """One number of every seed, None where the trial does not have it."""
    return [found[seed].get(coding, {}).get(name) for seed in sorted(found)]


def paired(first, second, name, codings=("", ""), names=None):
    """Differences of two methods on the seeds that both have."""
    one, other = names or (name, name)
    seeds = sorted(first.keys() & second.keys())
    pairs = [(first[s][codings[0]].get(one), second[s][codings[1]].get(other)) for s in seeds]
    return [a - b for a, b in pairs if not (_missing(a) or _missing(b))]


def _missing(value):
    """Whether a trial has no such number, or an undefined one: the absorption of a parent that was never found, say."""
    return value is None or math.isnan(value)


def interaction(methods, name):
    """(tied - untied) of the projective form less (tied - untied) of TopK, for each seed that has all four."""
    cells = [methods.get(key, {}) for key in ("projective, tied", "projective", "TopK, tied", "TopK")]
    seeds = sorted(set.intersection(*(set(each) for each in cells)))
    numbers = [[each[seed][""].get(name) for each in cells] for seed in seeds]
    return [(a - b) - (c - d) for a, b, c, d in numbers if not any(map(_missing, (a, b, c, d)))]


def shown(differences, form=".3f"):
    return alignment.with_interval(differences, form, sign=True) if differences else ""


def average(values):
    values = [value for value in values if not _missing(value)]
    return math.fsum(values) / len(values) if values else math.nan


def best_additive(methods):
    """The TopK form, tied or not, that explains most after least squares on its own support."""
    names = [name for name in ("TopK", "TopK, tied") if methods.get(name)]
    return max(names, key=lambda name: average(column(methods[name], "ev_resolved")), default=None)


def fewest(n_seeds, here):
    """The fewest seeds of what was measured at all; one is as good as none."""
    return min(n_seeds, here) if here > 1 else n_seeds


# ---- the page


NOTHING = "not measured yet"
KEPT = "*Kept from the page of "


def earlier(text):
    """Title, verdict and lines of every purpose that an earlier page had measured, by title."""
    date = re.search(r"; (\d{4}-\d\d-\d\d)\.$", text, flags=re.MULTILINE)
    verdicts = dict(re.findall(r"^\| (.+?) \| (.+) \|$", text, flags=re.MULTILINE))
    kept = {}
    for part in re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]:
        heading, *body = part.rstrip().splitlines()
        title = heading.removeprefix("## ").partition(". ")[2]
        if date is None or verdicts.get(title, NOTHING).startswith(NOTHING):
            continue
        if not any(line.startswith(KEPT) for line in body):
            body = ["", f"{KEPT}{date[1]}: its trials are not in this cache.*", *body]
        kept[title] = (title, verdicts[title], [heading, *body])
    return kept


def page(aligned, found, rows, trials, seeds, quick=False, before=""):
    """The whole page as text; of purposes without a single trial, what the page ``before`` says."""
    sections = {section.title: (section, methods) for section, methods in aligned}
    searches = [t for _, methods in aligned for by_seed in methods.values() for t in by_seed.values()]
    used = [*searches, *trials]
    seconds = sum(trial["cpu_seconds"] for trial in used)
    parts = [
        purpose_1(sections),
        purpose_2(sections),
        purpose_3(found, rows),
        purpose_4(found, rows),
        purpose_5(found, rows),
    ]
    kept = earlier(before)
    parts = [kept.get(part[0], part) if part[1].startswith(NOTHING) else part for part in parts]
    lines = [
        "# The paper's five purposes",
        "",
        "The paper ends with a call to measure the five purposes that it hopes projective dictionaries serve. This "
        f"page is written by `benchmarks/purposes.py`; {'a quick run, ' if quick else ''}{len(used)} fits that took "
        f"{duration(seconds)} of processor time, networks and data included, of at most {seeds} seeds. {versions([])}. "
        f"{machine(1)}.",
        "",
        "All comparisons are paired: the same data, truth and seed for both sides. ± is half of the 95 % interval "
        "(Student's t) over seeds. *Better* and *worse* need an interval that excludes 0. With few seeds a verdict is "
        "called preliminary; what was not run says so. Defaults of the package on our side; TopK is its "
        "`TopKDictionaryLearning`, at the best of its default learning rate and two others on a seed apart.",
        "",
        "Dictionaries (atoms, k, steps x rows a step): "
        + "; ".join(f"{r.title} {r.n_components}, {r.k}, {r.n_steps} x {r.batch_size}" for r in rows)
        + ".",
        "",
        *table(("purpose", "verdict"), [(title, short) for title, short, _ in parts]),
        "",
    ]
    for _, _, text in parts:
        lines += [*text, ""]
    return "\n".join(lines).rstrip() + "\n"


def _heading(number, title, claim, experiment, controls):
    return [
        f"## {number}. {title}",
        "",
        f"**Claim.** {claim}",
        "",
        f"**Experiment.** {experiment}",
        "",
        f"**Controls.** {controls}",
        "",
        f"**Command.** {COMMAND.removesuffix('`')} --only {number}`",
        "",
    ]


def purpose_1(sections):
    """Footprint: hard rank learned in one run, against the least rank of a sweep of DAS."""
    title = "A smaller footprint for alignment search"
    outcomes, lines, n_seeds = {}, [], FULL_SEEDS
    for name, score in (("Hierarchical equality", "hard_accuracy"), ("6 independent concepts", "hard_disentangle")):
        _, methods = sections.get(name, (None, {}))
        ours = methods.get("projective", {})
        rows = [(seed, alignment.least_das_rank(methods, seed, score)) for seed in sorted(ours)]
        rows = [(seed, least) for seed, least in rows if not math.isnan(least)]
        excess = [ours[seed]["numbers"]["test"]["rank"] - least for seed, least in rows]
        outcomes[name] = compare(excess, more_is_better=False) if excess else None
        n_seeds = fewest(n_seeds, len(excess))
        if excess:
            numbers = [ours[seed]["numbers"]["test"] for seed, _ in rows]
            lines.append(
                (
                    name,
                    alignment.with_interval([each[score] for each in numbers], ".3f"),
                    spread([each["rank"] for each in numbers], ".2f"),
                    spread([each["effective_dimension"] for each in numbers], ".2f"),
                    spread([least for _, least in rows], ".2f"),
                    shown(excess, ".2f"),
                )
            )
    text = verdict(outcomes, n_seeds)
    head = ("task", "projective, hard score", "hard rank", "tr H", "least k of DAS", "rank above it")
    body = _heading(
        1,
        title,
        "Concepts are isolated by fewer dimensions than distributed alignment search (DAS) takes.",
        "Interchanges on networks trained here; the projective form chooses its rank in one run, DAS is swept over k. "
        "Least k: the smallest that comes within 0.01 of the sweep's best.",
        "Hard rank, not tr H, is compared: a soft projection swaps in part, which is enough to flip an answer, so it "
        "flatters. All settings are in `benchmarks/results/alignment.md`.",
    )
    body += [f"**Verdict: {text}.**", ""]
    if lines:
        body += [*table(head, lines), ""]
        body += [
            "A concept that a network codes in r dimensions cannot be swapped in fewer, and a sweep of DAS finds r. "
            "What the projective form can save is the sweep.",
        ]
    return title, text, body


def purpose_2(sections):
    """Scaling: concepts that training did not show, and many concepts in one space."""
    title = "Alignment search for many features and entities"
    outcomes, lines, n_seeds, swept = {}, [], FULL_SEEDS, True
    for name, tests in (
        ("Composed attributes", ("unseen pairs", "unseen triples")),
        *((f"{n} independent concepts", ("test",)) for n in (6, 48, 144)),
    ):
        _, methods = sections.get(name, (None, {}))
        ours = methods.get("projective", {})
        for test in tests:
            setting = test if test != "test" else name
            rivals = []
            for family, pattern in alignment.FAMILIES:
                best = alignment.best_of_sweep(methods, pattern, test, "hard_disentangle")
                if best is None or not ours:
                    continue
                differences = alignment.paired(ours, methods[best], test, "hard_disentangle")
                n_settings = len(alignment.swept(methods, pattern))
                swept = swept and n_settings > 1
                rivals.append((family, f"{best} (of {n_settings})", differences))
            outcomes[setting] = None
            if rivals and ours:
                words = [compare(differences) for _, _, differences in rivals]
                worst = next((w for w in (None, WORSE, EQUAL) if w in words), BETTER)
                outcomes[setting] = worst
                n_seeds = fewest(n_seeds, len(ours))
                own = alignment.values(ours, test, "hard_disentangle")
                lines.append(
                    (
                        setting,
                        alignment.with_interval(own, ".3f"),
                        spread(alignment.values(ours, test, "rank"), ".1f"),
                        "; ".join(f"{best} {shown(differences)}" for _, best, differences in rivals),
                        worst or "one network",
                    )
                )
    text = verdict(outcomes, n_seeds) + ("" if swept else ". Against baselines that are not swept yet")
    body = _heading(
        2,
        title,
        "One projective dictionary serves many concepts, also ones that it was not trained on.",
        "Networks that answer questions about entities with attributes. Composed: sets of ten attributes in 24 "
        "dimensions, trained on single ones and 23 of 45 pairs, tested on the other pairs and all triples, for "
        "entities that training did not show. Independent: 6, 48 and 144 attributes of types, in 32 dimensions. The "
        "score is hard Disentangle, 0.5 for doing nothing.",
        "Householder reflections (HyperDAS) and one masked rotation, both swept; one DAS for each attribute, of which "
        'sets take the joint span ("joined"): it knows that sets are unions, which the others have to find out.',
    )
    body += [f"**Verdict: {text}.**", ""]
    if lines:
        head = (
            "concepts",
            "projective, hard D",
            "rank",
            "projective less each baseline's best setting (of so many run)",
            "outcome",
        )
        body += [*table(head, lines), ""]
        body += [
            "What composes is a description that is added up in one space with a cost on its dimensions; overcomplete "
            "atoms are one such space, and a masked rotation is another once its cost is low enough. Reflections do "
            "not add up. Concepts that share nothing need as many atoms as they have dimensions together, 432 for 144 "
            "concepts of three, where the default is four times the width, 128; a row of "
            "`benchmarks/results/alignment.md` has 512. One DAS for each has fewer parameters there.",
        ]
    return title, text, body


def purpose_3(found, rows):
    """Explained variance at equal sparsity, beside recovery of the truth."""
    title = "More variance explained at a given sparsity"
    outcomes, lines, n_seeds = {}, [], FULL_SEEDS
    for each in _main(rows):
        methods = found.get(each.title, {})
        rival = best_additive(methods)
        ours = methods.get("projective", {})
        if rival is None or not ours:
            outcomes[each.title] = None
            continue
        gain = paired(ours, methods[rival], "ev", names=("ev", "ev_resolved"))
        truth = [paired(ours, methods[rival], name) for name in ("mcc", "f1")]
        words = [compare(gain), *(compare(t, tolerance=0.01) for t in truth if t)]
        outcomes[each.title] = None if words[0] is None else words[0] if WORSE not in words[1:] else "truth is lost"
        n_seeds = fewest(n_seeds, len(gain))
        for method, by_seed in methods.items():
            if by_seed and "overlap" not in method:
                lines.append(_fidelity_row(each, method, by_seed))
        lines.append((f"{each.title}: projective less {rival}, re-solved", shown(gain), "", "", "", *map(shown, truth)))
    text = verdict(outcomes, n_seeds)
    body = _heading(
        3,
        title,
        "Projecting on the selected features explains more variance than adding them up, at the same number of them.",
        "Rows whose features are known: a tree of twenty features in twenty and in twelve dimensions, fifty correlated "
        "ones, 256 with a hierarchy in 64 dimensions; real activations where `--data` gave them. The same k "
        "(projections have it on average), rows and steps for all.",
        "The honest baseline is a TopK autoencoder re-solved by least squares on its own support. Better selection "
        'must not cost the truth, or it only fits the noise of superposition: MCC and F1 stand beside, and "truth is '
        'lost" where one of them falls by more than 0.01. OMP: greedy pursuit on the same dictionary. Other '
        "libraries: `benchmarks/fidelity.py` and `recovery.py`.",
    )
    body += [f"**Verdict: {text}.**", ""]
    if lines:
        head = ("rows, method", "EV", "re-solved", "refined once", "OMP", "MCC", "F1")
        body += table(head, lines)
    return title, text, body


def _fidelity_row(each, method, by_seed):
    cells = [("ev", ""), ("ev_resolved", ""), ("ev", "refined once"), ("ev_omp", ""), ("mcc", ""), ("f1", "")]
    return (f"{each.title}: {method}", *(spread(column(by_seed, name, coding), ".3f") for name, coding in cells))


def _main(rows):
    return [each for each in rows if not each.data.startswith("families") and DOUBLE not in each.title]


def purpose_4(found, rows):
    """Tied encoders: the interaction of tying with projecting."""
    title = "An encoder tied to the dictionary becomes tolerable"
    outcomes, lines, n_seeds = {}, [], FULL_SEEDS
    for each in _main(rows):
        methods = found.get(each.title, {})
        effect = interaction(methods, "ev")
        outcomes[each.title] = compare(effect)
        n_seeds = fewest(n_seeds, len(effect))
        if effect:
            costs = [
                paired(methods[f"{form}, tied"], methods[form], name)
                for form in ("projective", "TopK")
                for name in ("ev", "f1")
            ]
            unused = [f"{average(column(methods[form], 'unused')):.1f}" for form in ("projective, tied", "TopK, tied")]
            lines.append(
                (
                    each.title,
                    shown(costs[0], ".4f"),
                    shown(costs[2], ".4f"),
                    shown(effect, ".4f"),
                    shown(costs[1]),
                    shown(costs[3]),
                    shown(interaction(methods, "f1")),
                    " / ".join(unused),
                )
            )
    text = verdict(outcomes, n_seeds)
    body = _heading(
        4,
        title,
        "Tying costs reconstruction, and projecting takes that cost away.",
        "Two by two: tied or not, projective or additive. The number is the interaction, (tied - untied) of the "
        "projective form less the same of TopK: positive where projecting makes tying cheaper.",
        "The same k, rows and steps; F1 of the known features beside, and features that never fire.",
    )
    body += [f"**Verdict: {text}.**", ""]
    if lines:
        head = (
            "rows",
            "EV, tied less untied: projective",
            "TopK",
            "interaction in EV",
            "F1, tied less untied: projective",
            "TopK",
            "interaction in F1",
            "unused, tied: projective / TopK",
        )
        body += table(head, lines)
    return title, text, body


LOWER = (("holes", "holes"), ("absorption", "absorption"), ("leak", "leak"))


def purpose_5(found, rows):
    """Absorption and splitting, the leak that projection brings, and the overlap penalty against it."""
    title = "Less feature absorption and splitting"
    outcomes, lines, n_seeds = {}, [], FULL_SEEDS
    related = [each for each in rows if each.data.startswith(("tree", "families", "hierarchy"))]
    for each in related:
        if DOUBLE in each.title:
            continue
        methods = found.get(each.title, {})
        ours, theirs = methods.get("projective", {}), methods.get("TopK", {})
        words = {name: compare(paired(ours, theirs, name), more_is_better=False) for name, _ in LOWER}
        n_seeds = fewest(n_seeds, len(ours.keys() & theirs.keys()))
        outcomes[each.title] = absorption_outcome(words)
        lines += [_absorption_row(each, method, by_seed) for method, by_seed in methods.items()]
    text = verdict(outcomes, n_seeds)
    body = _heading(
        5,
        title,
        "As a few features project well, there is less to gain from a child's feature that absorbs its parent, or from "
        "splitting one.",
        "The trees and the hierarchy above; families of one parent and one child, the child on with growing "
        "probability where its parent is. Holes: how much more often a parent's atom is silent with a child on than "
        "alone. Absorption: SAEBench's fraction for the parents, with true directions in place of probes. Leak: cosine "
        "of the child's atom with its parent, above the true one. Better: holes and absorption fall and leak does not "
        "rise.",
        "MCC and F1, as a dictionary that found nothing absorbs nothing. Atoms over which a feature is split, also "
        "with twice the atoms.",
    )
    body += [f"**Verdict: {text}.**", ""]
    lines = [line for line in lines if line is not None]
    if lines:
        head = ("rows, method", "EV", "MCC", "F1", "F1 parents", "holes", "absorption", "leak", "split", "negative")
        body += [*table(head, lines), ""]
    body += _splitting(found, related)
    body += _leak(found, related)
    return title, text, body


def absorption_outcome(words):
    """One word for a setting from the words for holes, absorption and leak; holes need parents that fire alone."""
    if None in (words["absorption"], words["leak"]):
        return None
    if words["leak"] == WORSE:
        return "more leak"
    both = {words["holes"], words["absorption"]}
    return WORSE if WORSE in both else BETTER if BETTER in both else EQUAL


def _absorption_row(each, method, by_seed):
    names = ("ev", "mcc", "f1", "f1_parent", "holes", "absorption", "leak", "split", "negative")
    if not by_seed or average(column(by_seed, "leak")) != average(column(by_seed, "leak")):
        return None
    return (f"{each.title}: {method}", *(spread(column(by_seed, name), ".3f") for name in names))


def _splitting(found, related):
    lines = []
    for each in related:
        narrow = each.title.removesuffix(DOUBLE)
        if narrow == each.title:
            continue
        for method, by_seed in found.get(each.title, {}).items():
            before = found.get(narrow, {}).get(method, {})
            if by_seed and before:
                growth = paired(by_seed, before, "split")
                lines.append((narrow, method, spread(column(before, "split"), ".3f"), shown(growth)))
    if not lines:
        return []
    return [
        "Atoms a feature, and how many more with twice the atoms:",
        "",
        *table(("rows", "", "split", "more"), lines),
        "",
    ]


def _leak(found, related):
    """The leak explained by a problem of one number, and what the overlap penalty does to it."""
    from _purpose_trials import best_lean

    precisions = (1.0, 4.0, 16.0, 100.0)
    leans = [
        (objective, *(f"{best_lean(precision, objective):.2f}" for precision in precisions))
        for objective in ("squared error", "ridge")
    ]
    lines = [
        "### The leak of child atoms towards their parents",
        "",
        "A child that implies its parent never needs an atom at a right angle to it: the pair spans the same plane. "
        "An exact projection does not care, and a ridge prefers a lean. Two orthogonal true features, magnitudes "
        "1 ± 0.15, half of the rows with the parent alone: the cosine of the child's atom with its parent at which "
        "ridge projection loses least, for equal precisions s:",
        "",
        *table(("objective", *(f"s = {precision:g}" for precision in precisions)), leans),
        "",
    ]
    changes = []
    for each in related:
        methods = found.get(each.title, {})
        for method, by_seed in methods.items():
            if "overlap" not in method or not by_seed:
                continue
            plain = methods.get("projective, tied" if "tied" in method else "projective", {})
            numbers = [paired(by_seed, plain, name) for name in ("leak", "holes", "ev", "mcc", "f1")]
            if len(numbers[0]) < 3:
                continue
            above = paired(by_seed, methods.get("TopK", {}), "leak")
            changes.append((f"{each.title}: {method}", *map(shown, numbers), shown(above)))
    if changes:
        head = ("rows, penalty", "leak", "holes", "EV", "MCC", "F1", "leak less that of TopK")
        lines += ["What the overlap penalty changes, against the same form without it:", "", *table(head, changes), ""]
        lines += [cure(found, related), ""]
    else:
        lines += ["What the overlap penalty does to it: not measured yet.", ""]
    return lines


def cure(found, related):
    """Which penalties bring the leak no higher than TopK's everywhere, and what they cost."""
    settings = {}
    for each in related:
        methods = found.get(each.title, {})
        for method, by_seed in methods.items():
            if method.startswith("projective, overlap") and by_seed:
                above = paired(by_seed, methods.get("TopK", {}), "leak")
                cost = paired(by_seed, methods.get("projective", {}), "ev")
                if min(len(above), len(cost)) > 2:
                    settings.setdefault(method, []).append((average(above) <= 0, average(cost)))
    parts = [
        f"{method.removeprefix('projective, ')}: on {sum(ok for ok, _ in seen)} of {len(seen)} kinds of rows, for "
        f"{average([cost for _, cost in seen]):+.3f} of explained variance on average"
        for method, seen in settings.items()
    ]
    return "Mean leak no higher than TopK's: " + "; ".join(parts) + "." if parts else ""
