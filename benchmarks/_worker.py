# SPDX-License-Identifier: BSD-3-Clause
"""Train and code in a process of its own, in whichever environment its Python belongs to.

    python benchmarks/_worker.py JOBS.json

Each job names a function (``module:function``), its arguments, the file of rows and where to leave the result. Two
lines on standard output tell when a job has its imports behind it and when it is done; a job that fails leaves its
reason, and the next one starts.
"""

import importlib
import json
import os
import resource
import sys
import time
import traceback
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "peers")]

from _rows import Rows, as_csr  # noqa: E402

TIMED_SECONDS = 1.0  # a fast coder is repeated until it has run so long
LONGEST_SECONDS = 120.0  # a slow one is stopped then, and judged on the rows that it has coded


def code(coder, test, n_components, timed):
    """Codes of the held-out rows, and rows a second: the median of passes, which are repeated where ``timed``."""
    test = test[: coder.n_rows]
    size = coder.batch_size or len(test)
    batches = [np.ascontiguousarray(test[start : start + size]) for start in range(0, len(test), size)]
    coder.encode(batches[0][:64])  # first calls allocate and compile
    speeds, started, codes = [], time.perf_counter(), None
    while not speeds or (timed and time.perf_counter() - started < TIMED_SECONDS and len(speeds) < 5):
        found, start = [], time.perf_counter()
        for batch in batches:
            found.append(coder.encode(batch))
            if time.perf_counter() - started > LONGEST_SECONDS:
                break
        seconds = time.perf_counter() - start
        matrices = [as_csr(part, n_components) for part in found]
        speeds.append(sum(matrix.shape[0] for matrix in matrices) / seconds)
        codes = codes or matrices
    from scipy import sparse

    return sparse.vstack(codes, format="csr"), float(np.median(speeds))


def run(job, fit):
    """Do one job; returns the report and the arrays of the result."""
    array = np.load(job["rows"], mmap_mode="r")
    n_test = job["test_rows"]
    rows, test = Rows(array[:-n_test]), np.asarray(array[-n_test:], dtype=np.float32)
    started = time.process_time()
    learnt = fit(rows, **job["arguments"], **job["options"])
    cpu_seconds = time.process_time() - started
    if not np.isfinite(learnt.atoms).all():
        raise FloatingPointError("the dictionary is not finite")
    report = {
        "fit_seconds": learnt.seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "learning_rate": learnt.learning_rate,
        "versions": {name: version(name) for name in [*job["distributions"], "torch", "numpy"]},
        "codings": {},
    }
    arrays = {"atoms": learnt.atoms, "centre": learnt.centre, **learnt.notes}
    scale = 1.0
    if learnt.standardised:
        test, scale = rows.standardise(test), rows.scale
        arrays["centre"] = rows.mean + scale * learnt.centre
    for number, (name, coder) in enumerate(learnt.coders.items()):
        codes, speed = code(coder, test, len(learnt.atoms), job["timed"])
        report["codings"][name] = {"rows_per_second": speed, "rows": codes.shape[0], "number": number}
        arrays |= {
            f"data{number}": codes.data * scale,
            f"indices{number}": codes.indices,
            f"indptr{number}": codes.indptr,
        }
    return report, arrays


def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def main():
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not part of the answer
    warnings.simplefilter("ignore")
    jobs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if jobs and jobs[0]["peer"]:
        from stubs import install

        install()
    for number, job in enumerate(jobs):
        output = Path(job["output"])
        try:
            module, function = job["entry"].split(":")
            fit = getattr(importlib.import_module(module), function)
            print("begin", number, file=channel, flush=True)
            report, arrays = run(job, fit)
            np.savez(output.with_suffix(".npz"), **arrays)
        except Exception as error:
            traceback.print_exc()
            report = {"why": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"}
        output.write_text(json.dumps(report), encoding="utf-8")
        print("end", number, file=channel, flush=True)


if __name__ == "__main__":
    main()
