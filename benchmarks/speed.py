# SPDX-License-Identifier: BSD-3-Clause
"""Speed: training steps, transform, pursuit and dictionary learning beside the libraries that do the same.

    make bench-env                                   # the peers, once
    python benchmarks/speed.py --quick               # every section at small sizes, under 3 minutes on a quiet machine
    python benchmarks/speed.py training --threads 2  # one section at full size

Sections: floor, training, memory, transform, refinement, grid, coder, learner, gpu. Contestants take turns, one round
each, on the same rows, shapes and threads, in two processes of which one works at a time. A ratio is the median over
rounds of the ratio of CPU times (which other programs disturb less), with its quartiles; wall times stand beside. Every
section writes ``benchmarks/results/speed-SECTION.md``.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from _duel import Contestant, Duel, Stage, ratio
from _report import machine, table
from scipy import sparse

from skprojdict._products import multiplies_bfloat16

HERE = Path(__file__).resolve().parent
OURS = ("skprojdict", "torch", "numpy", "scipy", "numba")
PEERS = ("eai-sparsify", "sae-lens", "dictionary-learning", "Overcomplete", "spams-bin", "scikit-learn", "dictlearn")
PEERS += ("orthogonal-matching-pursuit-gpu",)


# ---- data


def structured_rows(folder, n, d, dtype="float32", seed=0, rank=None):
    """Sums of a few of many directions, and noise: neither white noise nor easy."""
    path = folder / f"rows-{n}-{d}-{dtype}-{seed}.npy"
    if not path.exists():
        rng = np.random.default_rng(seed)
        directions = np.random.default_rng(99).standard_normal((rank or 4 * d, d), dtype=np.float32) / np.sqrt(d)
        out = np.lib.format.open_memmap(path, "w+", dtype=dtype, shape=(n, d))
        for start in range(0, n, 2048):
            size = min(2048, n - start)
            places = rng.integers(0, len(directions), 24 * size)
            weights = rng.exponential(size=24 * size).astype(np.float32)
            codes = sparse.csr_array((weights, places, np.arange(0, 24 * size + 1, 24)), (size, len(directions)))
            rows = codes @ directions
            out[start : start + size] = rows + 0.05 * rng.standard_normal((size, d), dtype=np.float32) / np.sqrt(d)
        out.flush()
    return path


def patches(folder, n, seed=0, columns=(0.0, 0.75)):
    """8 x 8 patches of two photographs (of those columns), mean removed, the flat ones dropped."""
    from skprojdict.datasets import load_image_patches

    path = folder / f"patches-{n}-{seed}.npy"
    if not path.exists():
        X = np.asarray(
            load_image_patches((8, 8), n_patches=2 * n, columns=columns, random_state=seed), dtype=np.float32
        )
        X = X - X.mean(axis=1, keepdims=True)
        X = X[X.std(axis=1) > np.quantile(X.std(axis=1), 0.2)][:n]
        np.save(path, X)
    return path


def atoms_from(path, p, folder):
    """Unit-norm atoms made of the first rows of a file."""
    X = np.array(np.load(path, mmap_mode="r")[:p], dtype=np.float32)
    out = folder / f"atoms-{path.stem}-{p}.npy"
    np.save(out, X / np.linalg.norm(X, axis=1, keepdims=True))
    return out


OWN_PRODUCT = "float32 product, by the library that ours choose"


# ---- sections: each takes (duel, args, folder) and returns lines of Markdown


def floor(duel, args, folder):
    n, d, p = sizes(args)[:3]
    rows = str(structured_rows(folder, n, d))
    contestants = [
        Contestant("float32 product", "_speed_ours:product", {"rows": rows, "p": p}),
        Contestant(OWN_PRODUCT, "_speed_ours:own_product", {"rows": rows, "p": p}),
        Contestant("bfloat16 product", "_speed_ours:product", {"rows": rows, "p": p, "dtype": "bfloat16"}),
        Contestant("fused Adam step", "_speed_ours:optimiser", {"d": d, "p": p}),
    ]
    results = duel.run(contestants, args.rounds, args.seconds)
    gigaflop, moved = 2e-9 * n * d * p, 7 * 4e-9 * (2 * p * d + p + d)
    lines = [f"{n} rows, d = {d}, p = {p}.", ""]
    head = ("floor", "CPU ms", "wall ms", "work", "rate (CPU)")
    found = []
    for label, times in results.items():
        work, unit = (moved, "GB") if "Adam" in label else (gigaflop, "GFLOP")
        seconds = middle(times.cpu)
        rate = "" if seconds is None else f"{work / seconds:.0f} {unit}/s"
        found.append([label, ms(times.cpu), ms(times.wall), f"{work:.2f} {unit}", rate])
    lines += table(head, found)
    return lines


def sizes(args):
    """Rows a step, d, p, k of the training sections."""
    return (256, 256, 4096, 16) if args.quick else (1024, 768, 16384, 32)


FULL = ", all in float32"
# Steps in a row of which the median counts: those of a training follow each other.
STEPS = 3
PLAIN, DEFAULTS, REFINED = "projective, candidate_factor=1", "projective, defaults", "projective, n_refinements=1"


def training(duel, args, folder):
    n, d, p, k = sizes(args)
    rows = str(structured_rows(folder, 4 * n, d))
    one = str(structured_rows(folder, n, d))
    shape = {"rows": rows, "p": p, "k": k, "batch_size": n}

    def ours(label, name="ProjectiveDictionaryLearning", **parameters):
        options = {**shape, "name": name, "parameters": parameters}
        return Contestant(label, "_speed_ours:training", options, calls=STEPS)

    def peer(label, function, **options):
        return Contestant(label, f"speed_steps:{function}", {**shape, **options}, peer=True, calls=STEPS)

    forms = {
        "TopK": {"name": "TopKDictionaryLearning"},
        PLAIN: {"candidate_factor": 1.0},
        DEFAULTS: {},
        REFINED: {"n_refinements": 1},
    }
    contestants = [
        *(ours(label, **form) for label, form in forms.items()),
        *(ours(label + FULL, **form, selection_dtype=None) for label, form in forms.items()),
        ours('projective, selection="top_k"', selection="top_k"),
        ours('projective, tied="metric"', tied="metric"),
        Contestant("float32 product", "_speed_ours:product", {"rows": one, "p": p}, calls=STEPS),
        Contestant(OWN_PRODUCT, "_speed_ours:own_product", {"rows": one, "p": p}, calls=STEPS),
        Contestant("fused Adam step", "_speed_ours:optimiser", {"d": d, "p": p}, calls=STEPS),
        peer("sparsify", "sparsify"),
        peer("SAELens, sparse codes", "sae_lens", sparse=True),
        peer("SAELens, dense codes", "sae_lens", sparse=False),
        peer("dictionary_learning", "dictionary_learning"),
        peer("overcomplete", "overcomplete"),
    ]
    results = duel.run(contestants, args.rounds, args.seconds)
    lines = [
        f"One step of {n} rows, d = {d}, p = {p}, k = {k}, the median of {STEPS} in a row. Ours take products in "
        "bfloat16 where the processor is fast at that, and score again what is selected, except for those that say "
        "float32.",
        "",
    ]
    lines += step_table(results, "TopK")
    lines += ["", *targets(training_targets(results))]
    if multiplies_bfloat16():
        options = {"n_steps": 10 if args.quick else 30, "selection_dtype": "bfloat16"}
        curve = duel.run([Contestant("", "_speed_ours:loss_curve", {**shape, **options})], 1, args.seconds)[""].value
        lines += ["", f"Largest difference of a loss, scores in bfloat16 against float32: {show(curve, '.1%')}."]
    return lines


def step_table(results, reference):
    base, floors = results[reference], floor_of(results)
    head = (
        "step",
        "CPU ms",
        "wall ms",
        f"over {reference} (CPU)",
        f"over {reference} (wall)",
        "over product + Adam (CPU)",
    )
    found = []
    for label, times in results.items():
        if times.why is not None:
            found.append([label, f"not run: {times.why}", "", "", "", ""])
            continue
        against = None if floors is None else ratio(times, floors)
        found.append(
            [
                label,
                ms(times.cpu),
                ms(times.wall),
                spread(ratio(times, base)),
                spread(ratio(times, base, "wall")),
                spread(against),
            ]
        )
    return table(head, found)


def floor_of(results):
    """Product and optimiser together, round by round."""
    product, adam = results["float32 product"], results["fused Adam step"]
    if product.why or adam.why:
        return None
    both = type(product)()
    both.cpu = [a + b for a, b in zip(product.cpu, adam.cpu, strict=False)]
    both.wall = [a + b for a, b in zip(product.wall, adam.wall, strict=False)]
    return both


def training_targets(results):
    """Lines 1 to 3 of the goals: what, the least or most allowed, and which way."""
    floors = floor_of(results)
    for precision in ("", FULL):
        topk = results["TopK" + precision]
        yield f"sparsify over TopK{precision}", results["sparsify"], topk, ">=", 3.0
        yield f"dictionary_learning over TopK{precision}", results["dictionary_learning"], topk, ">=", 9.0
        for form, bound in ((PLAIN, 1.3), (DEFAULTS, 1.6), (REFINED, 2.2)):
            yield f"{form}, over TopK{precision or ' at defaults'}", results[form + precision], topk, "<=", bound
        if floors is not None:
            low = not precision and multiplies_bfloat16()
            yield f"TopK{precision}, over product + Adam", topk, floors, "<=", 1.0 if low else 1.6
            times = results[DEFAULTS + precision]
            yield f"{DEFAULTS}{precision}, over product + Adam", times, floors, "<=", 1.5 if low else 2.1


def targets(asked):
    found = []
    for what, times, reference, sign, bound in asked:
        measured = None if times is None or reference is None else ratio(times, reference)
        if measured is None:
            found.append([what, f"{sign} {bound:g}", "not run", ""])
            continue
        holds = measured[0] >= bound if sign == ">=" else measured[0] <= bound
        found.append([what, f"{sign} {bound:g}", spread(measured), "holds" if holds else "does not hold"])
    return table(("ratio of CPU times", "goal", "measured", ""), found)


HEAPS = 3


def memory(duel, args, folder):
    n, d, p, k = sizes(args)
    few, many = structured_rows(folder, 4 * n, d, "float16"), structured_rows(folder, 32 * n, d, "float16")
    found, heaps = [], 1 if args.quick else HEAPS
    for name in ("TopKDictionaryLearning", "ProjectiveDictionaryLearning"):
        row = [name]
        for options in ({"rows": str(few)}, {"rows": str(few), "fit": True}, {"rows": str(many), "fit": True}):
            peaks = []
            for _ in range(heaps):  # a fresh one each: what an allocator keeps of what was freed is chance
                with Stage(sys.executable, args.threads) as stage:
                    given = {"p": p, "k": k, "batch_size": n, "name": name, **options}
                    stage.ask(op="load", key="it", entry="_speed_ours:training_memory", options=given)
                    answer = stage.ask(op="run", key="it")
                if "value" not in answer:
                    break
                peaks.append(answer["value"])
            row.append(f"{max(peaks):.2f}" if len(peaks) == heaps else f"not run: {answer['why']}")
        found.append(row)
    head = ("estimator", "steps alone", f"fit on {4 * n} rows", f"fit on {32 * n} rows")
    title = f"Peak of anonymous memory above parameters, gradients and moments, over that of a ({n}, {p}) score matrix"
    return [
        f"{title}; goal <= 1.5, whatever the number of rows. The largest of {heaps} process(es), which have trained a",
        f"small dictionary before, so that Numba and the like are loaded. d = {d}, k = {k}, memory-mapped float16.",
        "",
        *table(head, found),
    ]


def coding(label, *, rows, p, k, **options):
    """Ours as a coder of rows."""
    return Contestant(label, "_speed_ours:transform", {"rows": rows, "p": p, "k": k, **options})


def spams_coding(args, **given):
    return Contestant("SPAMS OLS", "speed_steps:spams", {**given, "threads": args.threads}, peer=True)


def transform(duel, args, folder):
    d, p, k, n = (128, 1024, 16, 1024) if args.quick else (384, 3072, 32, 2048)
    path = structured_rows(folder, n, d)
    atoms = str(atoms_from(structured_rows(folder, p, d, seed=1), p, folder))
    rows, few = str(path), 8 if args.quick else 16
    shape = {"rows": rows, "p": p, "k": k}
    ours = partial(coding, **shape)
    contestants = [
        ours("candidate_factor=1", parameters={"candidate_factor": 1.0}),
        ours("defaults"),
        ours("defaults, torch input", library="torch"),
        ours("n_refinements=1", parameters={"n_refinements": 1}),
        ours("defaults, half the rows", n_rows=n // 2),
        spams_coding(args, rows=rows, atoms=atoms, k=k),
        Contestant(
            "scikit-learn OMP",
            "speed_steps:scikit_learn",
            {"rows": rows, "atoms": atoms, "k": k, "n_rows": few},
            peer=True,
        ),
    ]
    results = duel.run(contestants, args.rounds, args.seconds)
    counts = {"scikit-learn OMP": few, "defaults, half the rows": n // 2}
    for label, times in results.items():  # seconds a row from here on
        times.cpu = [each / counts.get(label, n) for each in times.cpu]
        times.wall = [each / counts.get(label, n) for each in times.wall]
    found = [
        [label, us(times.cpu), us(times.wall), spread(ratio(results["SPAMS OLS"], times))]
        if times.why is None
        else [label, f"not run: {times.why}", "", ""]
        for label, times in results.items()
    ]
    lines = [f"{n} rows, d = {d}, p = {p}, k = {k}.", ""]
    lines += table(("coder", "CPU us a row", "wall us a row", "times faster than SPAMS (CPU)"), found)
    plain, default = results["candidate_factor=1"], results["defaults"]
    asked = [
        ("SPAMS OLS over candidate_factor=1", results["SPAMS OLS"], plain, ">=", 7.0),
        ("SPAMS OLS over defaults", results["SPAMS OLS"], default, ">=", 4.0),
        ("scikit-learn OMP over defaults", results["scikit-learn OMP"], default, ">=", 300.0),
        ("refined once over defaults", results["n_refinements=1"], default, "<=", 2.2),
        ("NumPy input over torch input", default, results["defaults, torch input"], "<=", 1.1),
        ("a row among n over a row among n / 2", default, results["defaults, half the rows"], "<=", 1.1),
    ]
    lines += ["", *targets(asked)]
    found = []
    for size in (n, 4 * n, 16 * n):
        mapped = str(structured_rows(folder, size, d, "float16"))
        with Stage(sys.executable, args.threads) as stage:  # a fresh heap each
            stage.ask(op="load", key="it", entry="_speed_ours:transform_memory", options={**shape, "rows": mapped})
            answer = stage.ask(op="run", key="it")
        copy = f"{4e-6 * size * d:.0f}"
        found.append([size, copy, f"{answer['value']:.0f}" if "value" in answer else f"not run: {answer['why']}"])
    lines += [
        "",
        "Peak of anonymous memory, above the codes, while memory-mapped float16 rows are coded at the defaults:",
        "",
    ]
    return lines + table(("rows", "a float32 copy, MB", "peak, MB"), found)


def refinement(duel, args, folder):
    d, p, n, ks = (128, 1024, 512, (8,)) if args.quick else (384, 3072, 1024, (16, 32, 64))
    rows = str(structured_rows(folder, n, d))
    atoms = str(atoms_from(structured_rows(folder, p, d, seed=1), p, folder))
    numbers = (0, 1, 3)
    asked, found = [], []
    for k in ks:
        contestants = [
            *(coding(str(number), rows=rows, p=p, k=k, parameters={"n_refinements": number}) for number in numbers),
            spams_coding(args, rows=rows, atoms=atoms, k=k),
        ]
        *ours, spams = duel.run(contestants, args.rounds, args.seconds).values()
        rates = [f"not run: {each.why}" if each.why else f"{n / middle(each.cpu):.0f}" for each in (*ours, spams)]
        found.append([k, *rates, *(spread(ratio(spams, each)) for each in ours)])
        asked += [
            (f"k = {k}: SPAMS OLS over one refinement", spams, ours[1], ">=", 2.5),
            (f"k = {k}: SPAMS OLS over three refinements", spams, ours[2], ">=", 1.0),
        ]
    head = ("k", *(f"{number} refinements, rows/s" for number in numbers), "SPAMS OLS, rows/s")
    head += tuple(f"{number} refinements, times faster than SPAMS" for number in numbers)
    lines = [f"{n} rows, d = {d}, p = {p}, by CPU time; k atoms a row, of ours on average.", "", *table(head, found)]
    return [*lines, "", *targets(asked)]


def grid(duel, args, folder):
    d = 128 if args.quick else 384
    ps = (1024, 4096) if args.quick else (1024, 4096, 16384, 65536)
    ks = (8, 32) if args.quick else (8, 32, 128)
    n = 256 if args.quick else 512
    rows = str(structured_rows(folder, n, d))
    found = []
    for p in ps:
        row = [p]
        for k in ks:
            contestants = [
                coding(str(factor), rows=rows, p=p, k=k, parameters={"candidate_factor": factor})
                for factor in (1.0, 2.0)
            ]
            results = duel.run(contestants, max(1, args.rounds // 2), args.seconds)
            row.append(
                " / ".join(
                    "not run" if each.why else us([value / n for value in each.cpu]) for each in results.values()
                )
            )
        found.append(row)
    head = ("p", *(f"k = {k}" for k in ks))
    return [
        f"CPU microseconds a row of transform, candidate_factor = 1 / 2; {n} rows, d = {d}.",
        "",
        *table(head, found),
    ]


def coder(duel, args, folder):
    cases = [(64, 256, 5, 4096), (64, 256, 10, 4096)] + ([] if args.quick else [(384, 3072, 32, 1024)])
    lines = []
    for d, p, k, n in cases:
        path = patches(folder, n) if d == 64 else structured_rows(folder, n, d)
        source = patches(folder, p, seed=1) if d == 64 else structured_rows(folder, p, d, seed=1)
        rows, atoms = str(path), str(atoms_from(source, p, folder))
        given = {"rows": rows, "atoms": atoms, "k": k}
        few = max(8, n // 256) if p > 1000 else n // 8
        counts = {
            "scikit-learn OMP": few,
            "dictlearn OMP": n // 2,
            "omp-gpu v0 (CPU)": n // 2,
            "omp-gpu naive (CPU)": n // 2,
        }

        def ours(label, method, form="auto", given=given):
            return Contestant(label, "_speed_ours:pursuit", {**given, "method": method, "form": form})

        def peer(label, function, given=given, counts=counts, **options):
            rows_of = {} if function == "spams" else {"n_rows": counts[label]}
            return Contestant(label, f"speed_steps:{function}", {**given, **rows_of, **options}, peer=True)

        contestants = [
            ours("OLS", "ols"),
            ours("OMP", "omp"),
            ours("OLS without Numba (residual form)", "ols", "residual"),
            ours("OMP without Numba (residual form)", "omp", "residual"),
            peer("SPAMS OLS", "spams", threads=args.threads),
            peer("scikit-learn OMP", "scikit_learn"),
            peer("dictlearn OMP", "dictlearn"),
            peer("omp-gpu v0 (CPU)", "omp_gpu"),
            peer("omp-gpu naive (CPU)", "omp_gpu", algorithm="naive"),
        ]
        results = duel.run(contestants, args.rounds, args.seconds)
        for label, times in results.items():
            times.cpu = [each / counts.get(label, n) for each in times.cpu]
            times.wall = [each / counts.get(label, n) for each in times.wall]
        found = [
            [label, us(times.cpu), us(times.wall), spread(ratio(times, results["SPAMS OLS"]))]
            if times.why is None
            else [label, f"not run: {times.why}", "", ""]
            for label, times in results.items()
        ]
        bound = 1.0 if p > 1000 else 1.5
        lines += [f"d = {d}, p = {p}, k = {k}, {n} rows.", ""]
        lines += table(("coder", "CPU us a row", "wall us a row", "over SPAMS (CPU)"), found)
        lines += ["", *targets([
            ("OLS over SPAMS OLS", results["OLS"], results["SPAMS OLS"], "<=", bound),
            ("OLS without Numba over OLS", results["OLS without Numba (residual form)"], results["OLS"], ">=", 1.5),
        ]), ""]  # fmt: skip
    return lines


def learner(duel, args, folder):
    n, p, k, n_passes = (4000, 128, 5, 2) if args.quick else (20_000, 256, 5, 10)
    train, test = patches(folder, n), patches(folder, 4000, seed=2, columns=(0.75, 1.0))
    rows, atoms = str(train), str(atoms_from(patches(folder, p, seed=1), p, folder))
    out = {
        label: str(folder / f"{number}.npy")
        for number, label in enumerate(("ours", "256", "1024", "spams", "sklearn", "dictlearn"))
    }
    given = {"rows": rows, "atoms": atoms, "k": k}
    contestants = [
        Contestant("MOD, streaming", "_speed_ours:dictionary", {**given, "n_passes": n_passes, "out": out["ours"]}),
        Contestant(
            "MOD, streaming, batches of 256",
            "_speed_ours:dictionary",
            {**given, "n_passes": n_passes, "out": out["256"], "batch_size": 256},
        ),
        Contestant(
            "MOD, streaming, batches of 1024",
            "_speed_ours:dictionary",
            {**given, "n_passes": n_passes, "out": out["1024"], "batch_size": 1024},
        ),
        Contestant(
            "SPAMS trainDL",
            "speed_steps:spams_dictionary",
            {**given, "n_passes": n_passes, "out": out["spams"], "threads": args.threads},
            peer=True,
        ),
        Contestant(
            "scikit-learn mini-batch",
            "speed_steps:scikit_learn_dictionary",
            {**given, "n_passes": 1, "out": out["sklearn"]},
            peer=True,
            warm=False,
        ),
        Contestant(
            "dictlearn MOD",
            "speed_steps:dictlearn_dictionary",
            {**given, "n_passes": 1, "out": out["dictlearn"]},
            peer=True,
        ),
    ]
    results = duel.run(contestants, max(1, args.rounds // 2), args.seconds)
    found, errors = [], {}
    passes = {"scikit-learn mini-batch": 1, "dictlearn MOD": 1}
    for label, times in results.items():
        times.cpu = [each / passes.get(label, n_passes) for each in times.cpu]
        times.wall = [each / passes.get(label, n_passes) for each in times.wall]
    for (label, times), path in zip(results.items(), out.values(), strict=True):
        if times.why is not None:
            found.append([label, f"not run: {times.why}", "", "", "", ""])
            continue
        errors[label] = held_out(path, test, k)
        values = [f"{value:.4f}" for value in errors[label]]
        found.append(
            [
                label,
                passes.get(label, n_passes),
                ms(times.cpu),
                ms(times.wall),
                spread(ratio(times, results["SPAMS trainDL"])),
                " / ".join(values),
            ]
        )
    lines = [
        f"{n} patches of 8 x 8, p = {p}, k = {k}, the same starting atoms. Error: share of the energy of 4000 patches "
        "from another part of the photographs.",
        "",
    ]
    head = (
        "learner",
        "passes",
        "CPU ms a pass",
        "wall ms a pass",
        "over SPAMS (CPU)",
        "held-out error, OLS / OMP codes",
    )
    lines += table(head, found)
    asked = [
        (f"{name}, over SPAMS, a pass", results[name], results["SPAMS trainDL"], "<=", 1.5)
        for name in ("MOD, streaming", "MOD, streaming, batches of 1024")
    ]
    asked.append(
        (
            "scikit-learn over MOD, a pass",
            results["scikit-learn mini-batch"],
            results["MOD, streaming"],
            ">=",
            20.0,
        )
    )
    return [*lines, "", *targets(asked)]


def held_out(path, test, k):
    """Share of energy left on other rows, by our OLS and OMP, whoever learnt the atoms."""
    from skprojdict.solvers.omp import orthogonal_matching_pursuit

    Y, F = np.load(test), np.load(path).astype(np.float32)
    errors = []
    for method in ("ols", "omp"):
        codes = orthogonal_matching_pursuit(Y, F, k, method=method)
        left = Y - np.einsum("nk,nkd->nd", codes.coefs, F[codes.indices])
        errors.append(float((left**2).sum() / (Y**2).sum()))
    return errors


def gpu(duel, args, folder):
    import torch

    if not torch.cuda.is_available():
        return ["Not run: torch finds no CUDA device here."]
    n, d, p, k = (1024, 512, 8192, 32) if args.quick else (8192, 2048, 65536, 64)
    rows = str(structured_rows(folder, n, d))
    found = []
    for name in ("TopKDictionaryLearning", "ProjectiveDictionaryLearning"):
        options = {"rows": rows, "p": p, "k": k, "batch_size": n, "name": name, "device": "cuda"}
        times = duel.run([Contestant(name, "_speed_ours:training", options, calls=STEPS)], args.rounds, args.seconds)[
            name
        ]
        seconds = middle(times.wall)  # a step ends by reading its loss, so the device has finished
        rate = "" if seconds is None else f"{2e-12 * n * d * p / seconds:.0f} TFLOP/s of the scores' product alone"
        found.append([name, times.why or ms(times.wall), rate])
    lines = [f"{n} rows, d = {d}, p = {p}, k = {k}, {torch.cuda.get_device_name()}.", ""]
    return lines + table(("step", "wall ms", ""), found)


SECTIONS = {
    "floor": floor,
    "training": training,
    "memory": memory,
    "transform": transform,
    "refinement": refinement,
    "grid": grid,
    "coder": coder,
    "learner": learner,
    "gpu": gpu,
}


# ---- numbers as text


def middle(values):
    return statistics.median(values) if values else None


def ms(seconds):
    return "" if not seconds else f"{1e3 * statistics.median(seconds):.3g}"


def us(seconds):
    return "" if not seconds else f"{1e6 * statistics.median(seconds):.3g}"


def show(value, form):
    return "not run" if value is None else f"{value:{form}}"


def spread(measured):
    return "" if measured is None else f"{measured[0]:.3g} ({measured[1]:.3g} to {measured[2]:.3g})"


def header(section, duel, args, seconds, load):
    now = os.getloadavg()[0]
    busy = max(load, now) > args.threads + 0.5
    state = "**busy machine**: other programs ran, and ratios are worth more than times" if busy else "quiet machine"
    versions = ", ".join(f"{name} {version}" for name, version in sorted(duel.versions(OURS, PEERS).items()))
    size = " (--quick: small sizes)" if args.quick else ""
    command = f"python benchmarks/speed.py {section} --threads {args.threads} --rounds {args.rounds}"
    return [
        f"# Speed: {section}{size}",
        "",
        f"`{command}{' --quick' if args.quick else ''}`, {seconds:.0f} s.",
        f"{machine(args.threads).replace('threads a fit', 'thread(s)')}. {versions}.",
        f"Load average {load:.1f} before, {now:.1f} after: {state}.",
        "Ratios: median over rounds (quartiles).",
        "",
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=None, help="rounds of each contestant (5; --quick: 3)")
    parser.add_argument("--seconds", type=float, default=None, help="of CPU time after which a contestant sits out")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    args = parser.parse_args()
    unknown = [name for name in args.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {unknown[0]!r}: choose from {', '.join(SECTIONS)}")
    args.rounds = args.rounds or (3 if args.quick else 5)
    args.seconds = args.seconds or (4.0 if args.quick else 60.0)
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="skprojdict-speed-") as folder:
        for name in args.sections or SECTIONS:
            start, load = time.perf_counter(), os.getloadavg()[0]
            with Duel(args.threads) as duel:
                lines = SECTIONS[name](duel, args, Path(folder))
                lines = header(name, duel, args, time.perf_counter() - start, load) + lines
            print("\n".join(lines), flush=True)
            suffix = "-quick" if args.quick else ""
            (args.output / f"speed-{name}{suffix}.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
