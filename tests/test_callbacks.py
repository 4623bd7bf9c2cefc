# SPDX-License-Identifier: BSD-3-Clause
"""scikit-learn's callbacks, and ours."""

import numpy as np
import pytest
from sklearn.callback import ProgressBar
from sklearn.model_selection import GridSearchCV

from skprojdict import MethodOfOptimalDirections, ProjectiveDictionaryLearning, TopKDictionaryLearning
from skprojdict.callbacks import EarlyStopping, ObjectiveMonitor

from .data import sparse_rows

SMALL = {"n_components": 24, "n_nonzero_coefs": 3, "max_iter": 4, "random_state": 0}
ALL = [ProjectiveDictionaryLearning, TopKDictionaryLearning, MethodOfOptimalDirections]


@pytest.mark.parametrize("Estimator", ALL)
def test_progress_bar_runs(Estimator, capsys):
    Estimator(**SMALL).set_callbacks(ProgressBar()).fit(sparse_rows(200))
    assert Estimator.__name__ in capsys.readouterr().out


@pytest.mark.parametrize("Estimator", ALL)
def test_objective_monitor_records_every_iteration(Estimator):
    monitor = ObjectiveMonitor()
    model = Estimator(**SMALL).set_callbacks(monitor).fit(sparse_rows(200))
    assert [record["iteration"] for record in monitor.records] == [0, 1, 2, 3]
    assert [record["fvu"] for record in monitor.records] == model.history_["fvu"]


@pytest.mark.parametrize("Estimator", ALL)
def test_early_stopping_ends_the_fit(Estimator):
    patient = EarlyStopping(patience=2, min_delta=0.9)  # nothing improves by nine tenths
    model = Estimator(**{**SMALL, "max_iter": 30}).set_callbacks(patient).fit(sparse_rows(200))
    assert len(model.history_["fvu"]) == 3
    assert len(model.fit(sparse_rows(200)).history_["fvu"]) == 3  # a second fit starts to count anew


@pytest.mark.parametrize("Estimator", ALL)
def test_callbacks_may_look_at_a_fitted_copy(Estimator):
    class Coder:
        def __init__(self):
            self.errors = []

        def setup(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context): ...

        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
            if context.task_name == "iteration":
                self.errors.append(1 - fitted_estimator.score(X))

    X, coder = sparse_rows(200), Coder()
    model = Estimator(**SMALL).set_callbacks(coder).fit(X)
    assert len(coder.errors) == 4
    assert coder.errors[-1] == pytest.approx(1 - model.score(X), abs=1e-12)


@pytest.mark.parametrize("Estimator", ALL)
def test_callbacks_reach_the_estimator_through_a_search(Estimator):
    monitor = ObjectiveMonitor()
    estimator = Estimator(**SMALL).set_callbacks(monitor)
    GridSearchCV(estimator, {"n_nonzero_coefs": [1, 2]}, cv=2).fit(sparse_rows(100))
    assert len(monitor.records) == 5 * 4  # four fits of the search and the refit
    assert np.isfinite([record["loss"] for record in monitor.records]).all()
