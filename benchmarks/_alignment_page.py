# SPDX-License-Identifier: BSD-3-Clause
"""The page of the alignment benchmark, from its trials alone: tables, and ours beside the best of each sweep."""

import math
import re

from _report import duration, interval, machine, spread, table, versions

from skprojdict.alignment import least_rank

# The score that a section is judged by, its name, and its columns: test rows by name.
ACCURACY, DISENTANGLE = ("hard_accuracy", "IIA"), ("hard_disentangle", "D")
FAMILIES = (
    ("DAS", r"DAS k"),
    ("shared mask", r"shared mask"),
    ("Householder", r"Householder"),
    ("joined DAS", "joined"),
)
WITHIN = 0.01


def tests_of(section):
    """Names of the test rows of a section."""
    if section.kind == "compositional":
        return "singles", "pairs", "unseen pairs", "unseen triples"
    return ("test",)


def score_of(section):
    return ACCURACY if section.kind == "equality" else DISENTANGLE


def values(found, test, name):
    """One number of every seed's trial, in the order of the seeds."""
    return [found[seed]["numbers"][test][name] for seed in sorted(found)]


def best_of_sweep(results, pattern, test, name):
    """The setting of a family with the best mean score, of those that most networks have seen: its name, or None."""
    members = swept(results, pattern)
    return max(members, key=lambda method: mean(values(members[method], test, name)), default=None)


def swept(results, pattern):
    """The settings of a family that most networks have seen."""
    members = {method: found for method, found in results.items() if re.match(pattern, method) and found}
    most = max(map(len, members.values()), default=0)
    return {method: found for method, found in members.items() if len(found) == most}


def mean(numbers):
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


def paired(first, second, test, name):
    """Differences of two methods on the networks that both saw."""
    seeds = sorted(first.keys() & second.keys())
    return [first[seed]["numbers"][test][name] - second[seed]["numbers"][test][name] for seed in seeds]


def with_interval(numbers, form=".4f", sign=False):
    """Mean and half the width of its 95 % interval, as text."""
    if not numbers:
        return ""
    centre, half = interval(numbers)
    text = f"{centre:{'+' if sign else ''}{form}}"
    return text if half is None else f"{text} ± {half:{form}}"


def least_das_rank(methods, seed, score="hard_accuracy"):
    """Least k of one network's DAS sweep that comes within 0.01 of its best; NaN without a sweep."""
    sweep = [
        (float(method.split("=")[1]), found[seed]["numbers"]["test"][score])
        for method, found in methods.items()
        if method.startswith("DAS k=") and seed in found
    ]
    return least_rank(*zip(*sweep, strict=True), within=WITHIN) if sweep else math.nan


def targets(results):
    """The lines of "what it must show" that this benchmark decides, as rows (claim, measured, verdict)."""
    lines = []
    for section, methods in results:
        if section.title == "Hierarchical equality":
            lines += _equality_targets(methods)
        if section.title == "Composed attributes":
            lines += _compositional_targets(methods)
    return lines


def _equality_targets(methods):
    lines = []
    for method in ("DAS k=8", "projective"):
        found = values(methods.get(method, {}), "test", "hard_accuracy")
        if found:
            verdict = "holds" if mean(found) >= 0.97 else "does not"
            lines.append((f"equality, {method}: mean IIA >= 0.97", with_interval(found), verdict))
    projective = methods.get("projective", {})
    excess = []
    for seed, trial in sorted(projective.items()):
        least = least_das_rank(methods, seed)
        if not math.isnan(least):
            excess.append(trial["numbers"]["test"]["rank"] - least)
    if excess:
        verdict = "holds" if max(excess) <= 1 else f"does not, on {sum(each > 1 for each in excess)} networks"
        text = ", ".join(f"{each:+.1f}" for each in excess)
        lines.append(("equality: hard rank at most 1 above the least k of DAS, in each network", text, verdict))
    return lines


def _compositional_targets(methods):
    lines = []
    for test in ("unseen pairs", "unseen triples"):
        found = values(methods.get("projective", {}), test, "hard_disentangle")
        if found:
            verdict = "holds" if mean(found) >= 0.99 else "does not"
            lines.append((f"composed, projective: hard D on {test} >= 0.99", with_interval(found), verdict))
    return lines


def comparisons(section, methods):
    """The projective form less the best setting of each baseline, paired by network: rows of a table."""
    name, _ = score_of(section)
    lines = []
    for family, pattern in FAMILIES:
        for test in tests_of(section):
            best = best_of_sweep(methods, pattern, test, name)
            ours = methods.get("projective", {})
            if best is None or not ours:
                continue
            differences = paired(ours, methods[best], test, name)
            ranks = paired(ours, methods[best], test, "rank")
            setting = f"{best} (of {len(swept(methods, pattern))} run)"
            shown = with_interval(differences, sign=True), with_interval(ranks, ".1f", sign=True)
            lines.append((family, test, setting, *shown))
    return lines


def rows(section, methods):
    """Rows of a section's table: every method and its numbers on every kind of test rows."""
    name, _ = score_of(section)
    lines = []
    for method, found in methods.items():
        for test in tests_of(section):
            if not found:
                continue
            kind = name.removeprefix("hard_")
            lines.append(
                (
                    method,
                    *([test] if len(tests_of(section)) > 1 else []),
                    with_interval(values(found, test, f"hard_{kind}")),
                    spread(values(found, test, "rank"), ".2f"),
                    with_interval(values(found, test, f"soft_{kind}")),
                    spread(values(found, test, "effective_dimension"), ".2f"),
                    *(f"{mean(values(found, test, f'hard_{each}')):.3f}" for each in ("cause", "isolation")),
                    f"{mean(values(found, test, 'hard_divergence')):.3f}",
                    f"{found[min(found)]['numbers'][test]['n_parameters']}",
                    len(found),
                )
            )
    return lines


def page(results, seeds):
    """The whole page as text."""
    known = [trial for _, methods in results for found in methods.values() for trial in found.values()]
    lines = [
        "# Alignment search on networks whose causal variables are known",
        "",
        f"{versions([])}. {machine(1)}. {len(known)} trials, {duration(sum(t['cpu_seconds'] for t in known))} of "
        f"processor time, networks and data included; {seeds} networks of each kind asked for. `python "
        "benchmarks/alignment.py`",
        "",
        "IIA: share of the interchanges after which the network says the wanted label. D: mean of cause (the source's "
        "value where the swapped attribute is asked for) and isolation (the base's elsewhere), each averaged over "
        "concepts; 0.5 is what doing nothing or swapping everything gives. Hard: orthogonal projection of the rank "
        "beside it. Soft: the ridge or masked projection of training, with its tr H; soft scores flatter, as a swap in "
        "part can flip an answer. KL: from the output on the input that truly has the source's value, in nats. Means ± "
        "half of the 95 % interval (Student's t) over networks; ranks ± standard deviation.",
        "",
    ]
    claims = targets(results)
    if claims:
        lines += [*table(("target", "measured", "verdict"), claims), ""]
    for section, methods in results:
        lines += _section(section, methods)
    return "\n".join(lines).rstrip() + "\n"


def _section(section, methods):
    _, title = score_of(section)
    body = rows(section, methods)
    if not body:
        return [f"## {section.title}", "", "Not run yet.", ""]
    some = next(found for found in methods.values() if found)
    accuracy = [trial["numbers"]["network"] for trial in some.values()]
    head = ["search", *(["concepts"] if len(tests_of(section)) > 1 else [])]
    head += [f"{title} hard", "rank", f"{title} soft", "tr H", "cause", "isolation", "KL", "parameters", "networks"]
    lines = [
        f"## {section.title}",
        "",
        f"Networks: {', '.join(f'{key} {value}' for key, value in section.network.items())}; accuracy "
        f"{min(accuracy):.4f} to {max(accuracy):.4f}. Searches: "
        f"{', '.join(f'{key} {value}' for key, value in section.sizes.items())}.",
        "",
        *table(head, body),
        "",
    ]
    compared = comparisons(section, methods)
    if compared:
        head = ("baseline", "concepts", "its best setting", f"projective less it, {title} hard", "rank")
        lines += [*table(head, compared), ""]
    return lines
