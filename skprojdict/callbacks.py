# SPDX-License-Identifier: BSD-3-Clause
"""Callbacks for scikit-learn's callback protocol (``estimator.set_callbacks``)."""

__all__ = ["EarlyStopping", "ObjectiveMonitor"]


class ObjectiveMonitor:
    """Record the training objective of every iteration.

    scikit-learn's ``ScoringMonitor`` records nothing when y is None, so it is blind to an unsupervised fit; this one
    reads what the fit reports of itself and costs nothing. Records of a fit in another process (``GridSearchCV`` with
    ``n_jobs``) stay in that process.

    Attributes
    ----------
    records : list of dict
        One entry an iteration of any fit: "estimator", "iteration" (from 0) and what the fit reports, as in its
        ``history_``: "step", "loss", "fvu", "learning_rate", "n_dead".

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skprojdict import ProjectiveDictionaryLearning
    >>> from skprojdict.callbacks import ObjectiveMonitor
    >>> monitor = ObjectiveMonitor()
    >>> model = ProjectiveDictionaryLearning(max_iter=2, random_state=0).set_callbacks(monitor)
    >>> _ = model.fit(load_digits().data)
    >>> [record["iteration"] for record in monitor.records]
    [0, 1]
    """

    def __init__(self):
        self.records = []

    def setup(self, estimator, context):
        """Nothing to set up."""

    def teardown(self, estimator, context):
        """Nothing to tear down."""

    def on_fit_task_begin(self, estimator, context):
        """Nothing to do before an iteration."""

    def on_fit_task_end(self, estimator, context, *, metadata=None):
        """Record an iteration that reports its objective."""
        if metadata is not None and "loss" in metadata:
            name = type(estimator).__name__
            self.records.append({"estimator": name, "iteration": context.task_id, **metadata})
        return False


class EarlyStopping:
    """Stop a fit whose objective has not improved for some iterations.

    Parameters
    ----------
    metric : str, default="fvu"
        What to watch; a key of the fit's ``history_`` that falls as training goes well.
    patience : int, default=5
        Iterations without improvement before the fit stops.
    min_delta : float, default=0.0
        Relative fall of the metric that counts as improvement.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skprojdict import MethodOfOptimalDirections
    >>> from skprojdict.callbacks import EarlyStopping
    >>> model = MethodOfOptimalDirections(64, n_nonzero_coefs=4, max_iter=100, random_state=0)
    >>> _ = model.set_callbacks(EarlyStopping(patience=1, min_delta=0.05)).fit(load_digits().data)
    >>> model.n_iter_ < 100
    True
    """

    def __init__(self, metric="fvu", patience=5, min_delta=0.0):
        self.metric, self.patience, self.min_delta = metric, patience, min_delta
        self._reset()

    def _reset(self):
        self._best, self._waited = float("inf"), 0

    def setup(self, estimator, context):
        """Forget earlier fits."""
        self._reset()

    def teardown(self, estimator, context):
        """Nothing to tear down."""

    def on_fit_task_begin(self, estimator, context):
        """Nothing to do before an iteration."""

    def on_fit_task_end(self, estimator, context, *, metadata=None):
        """Whether to stop, told the newest value of the metric."""
        if metadata is None or self.metric not in metadata:
            return False
        value = metadata[self.metric]
        if value < self._best * (1 - self.min_delta):
            self._best, self._waited = value, 0
        else:
            self._waited += 1
        return self._waited >= self.patience
