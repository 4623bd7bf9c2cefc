# SPDX-License-Identifier: BSD-3-Clause
"""The same numbers for every transcoder: what it predicts from X alone, and what its atoms could do with y known."""

import numpy as np
from _judge import HEAD_ROWS, codes_of, resolve

from skprojdict.metrics import fraction_of_variance_unexplained, l0, n_unused, selection_skill


class PairJudge:
    """Judges codes of held-out rows that hold both views side by side.

    Parameters
    ----------
    data : Data
    n_inputs : int
        Columns of the first view.
    """

    def __init__(self, data, n_inputs):
        rows = np.asarray(data.load()[-data.test_rows :], dtype=np.float64)
        self.X, self.Y = rows[:, :n_inputs], rows[:, n_inputs:]

    def __call__(self, spec, report, arrays):
        """``fvu`` is predictive; names that begin with ``oracle`` have seen y."""
        atoms, centre = arrays["atoms"].astype(np.float64), arrays["centre"].astype(np.float64)
        numbers = {}
        for name in report["codings"]:
            codes = codes_of(report, arrays, name)
            Y = self.Y[: codes.shape[0]]
            beside = centre
            if "skip" in arrays:
                beside = centre + (self.X[: len(Y)] - arrays["input_mean"]) @ arrays["skip"].T.astype(np.float64)
            head = slice(0, min(HEAD_ROWS, len(Y)))
            rest = np.broadcast_to(Y - beside, Y.shape)
            skill = selection_skill(rest[head], atoms, codes[head], random_state=0)
            # Shares are of the variance that the skip leaves over: back to that of y, so that all rows have one scale.
            kept = _variance(rest[head]) / _variance(Y[head])
            numbers[name] = {
                "fvu": fraction_of_variance_unexplained(Y, beside + codes @ atoms),
                "oracle": fraction_of_variance_unexplained(Y, beside + resolve(rest, atoms, codes)),
                "oracle_random": kept * (1 - skill.random),
                "oracle_pursued": kept * (1 - skill.pursued),
                "skill": skill.skill,
                "beside_alone": fraction_of_variance_unexplained(Y, np.broadcast_to(beside, Y.shape)),
                "l0": l0(codes),
                "unused": n_unused(codes),
            }
        return {name: {key: float(value) for key, value in values.items()} for name, values in numbers.items()}


def _variance(rows):
    return float(((rows - rows.mean(axis=0)) ** 2).sum())


def affine_map(data, n_inputs):
    """FVU of the least-squares affine map on the held-out rows."""
    from sklearn.linear_model import LinearRegression

    rows = np.asarray(data.load(), dtype=np.float64)
    X, Y = rows[:, :n_inputs], rows[:, n_inputs:]
    train = slice(0, -data.test_rows)
    model = LinearRegression().fit(X[train], Y[train])
    return fraction_of_variance_unexplained(Y[-data.test_rows :], model.predict(X[-data.test_rows :]))
