# SPDX-License-Identifier: BSD-3-Clause
"""The method of optimal directions as an estimator: the classical baseline in the projective dictionary's frame."""

import warnings
from numbers import Integral, Real
from typing import ClassVar

from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if

from ._array import array_namespace, asarray_like, check_same_namespace
from ._base import SAMPLE_ROWS, _BaseDictionary, _Patience
from ._passes import Passes
from ._portable import as_plain, from_plain
from ._validation import (
    check_initial_components,
    check_sparse_output,
    resolve_n_components,
    resolve_n_nonzero,
    shape_kept,
    validate_rows,
)
from .solvers.initial import initial_components
from .solvers.learner import DictionaryLearner
from .solvers.mod import StreamingStatistics
from .solvers.omp import orthogonal_matching_pursuit
from .sources import RowSource, as_source, is_source, open_rows, prototype


def _can_stream(estimator):
    if estimator.update == "mod":
        return True
    raise AttributeError(f"partial_fit needs update='mod': K-SVD works on whole passes; update={estimator.update!r}")


class MethodOfOptimalDirections(_BaseDictionary):
    r"""Method of optimal directions: dictionary learning by pursuit and least squares in turn.

    Seeks unit-norm atoms f_j and codes z_i of at most k nonzeros that minimise::

        sum_i || x_i - mu - sum_j z_ij f_j ||^2

    by coding rows greedily at fixed atoms (orthogonal matching pursuit, or orthogonal least squares) and then solving
    for all atoms at fixed codes, ``F <- (Z'Z + r I)^-1 (Z'X + r F)``, rows normalised. The streaming algorithm does so
    after every batch, from statistics in which old batches fade: at equal numbers of passes it finds better
    dictionaries than whole passes do. Data are scaled inside so that the mean centred row has norm 1.

    Parameters
    ----------
    n_components : int, default=None
        Number of atoms p. None: 8 times the number of columns.
    n_nonzero_coefs : int, "auto" or None, default="auto"
        Active atoms k a row, at most. "auto": a tenth of the columns, at least 1. None: as many as ``coder_tol`` asks
        for. Clipped to ``n_components`` with one warning.
    coder : {"ols", "omp"}, default="ols"
        Pursuit, at fit and at transform. "ols" (orthogonal least squares, also known as order-recursive matching
        pursuit) takes the atom that lowers the residual most, "omp" the one that correlates with it most.
    coder_tol : float, default=None
        Squared norm of a row's residual, in squared units of X, at which its code stops growing.
    algorithm : {"streaming", "full"}, default="streaming"
        A dictionary step after every batch, or after every pass.
    update : {"mod", "ksvd", "approximate_ksvd"}, default="mod"
        Least squares for all atoms at once, or K-SVD's sweep over atoms with their coefficients (by singular value
        decompositions, or one power iteration each), which needs ``algorithm="full"`` and holds X in memory.
    forgetting : {"growing", "linear"} or float in (0, 1], default="growing"
        How statistics of earlier batches fade when streaming. "growing": the memory that estimates the average atom
        to a tenth of its length in spite of the residuals; at least 20 uses of it, at most half of the rows seen.
        "linear": the weight of a batch grows linearly over two passes, older passes are dropped. A number: the factor
        applied once a batch; 1 forgets nothing.
    init : {"data", "random", "svd"}, array of shape (n_components, n_features) or callable, default="data"
        Starting atoms. A callable gets ``(rows, n_components, random_state)`` with centred, scaled sample rows.
    batch_size : int or "auto", default="auto"
        Rows a step when streaming. "auto": a sixteenth of all, but no fewer than there are atoms and no more than
        twice as many, between 32 and 4096. Smaller batches learn more from a pass, and spend more time on atoms than on
        codes.
    max_iter : int, default=20
        Passes over the rows.
    tol : float, default=0.0
        Stop after five passes in a row without a relative improvement of the training loss by this much. 0: never.
    warm_start : bool, default=False
        Start a new ``fit`` from the fitted atoms, centre and scale.
    chunk_size : int or "auto", default="auto"
        Rows coded at once; scratch is about 4 p numbers a row. "auto": tens of megabytes, more on a GPU.
    sparse_output : bool, default=False
        ``transform`` returns CSR (NumPy only).
    random_state : int, RandomState instance or None, default=None
        Fixes starting atoms and the order of rows.

    Attributes
    ----------
    components_ : array of shape (n_components, n_features)
        Unit-norm atoms.
    mean_ : array of shape (n_features,)
        Mean of the training rows.
    scale_ : float
        Mean norm of the centred training rows.
    n_activations_ : int64 array of shape (n_components,)
        Rows coded in training that used each atom since it was last replaced.
    n_iter_, n_steps_ : int
        Passes over the rows (or calls of ``partial_fit``) and dictionary steps.
    n_resampled_ : int
        Atoms replaced because too rarely used, or too close to another.
    history_ : dict of lists
        "step", "loss" (mean squared residual of the scaled rows before the dictionary step), "fvu" and "n_resampled",
        one entry an iteration.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)

    See Also
    --------
    ProjectiveDictionaryLearning : An encoder proposes the atoms, which takes one product where a pursuit takes k.
    sklearn.decomposition.MiniBatchDictionaryLearning : Penalises the coefficients by their sum instead of counting.
    sklearn.decomposition.SparseCoder : Codes rows in a given dictionary.

    References
    ----------
    Engan, Aase and Husoy (1999). Method of optimal directions for frame design. ICASSP.
    Aharon, Elad and Bruckstein (2006). K-SVD: an algorithm for designing overcomplete dictionaries for sparse
    representation. IEEE Transactions on Signal Processing 54(11).
    Skretting and Engan (2010). Recursive least squares dictionary learning algorithm. IEEE Transactions on Signal
    Processing 58(4).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skprojdict import MethodOfOptimalDirections
    >>> X = load_digits().data
    >>> model = MethodOfOptimalDirections(n_components=128, n_nonzero_coefs=6, random_state=0).fit(X)
    >>> model.transform(X).shape
    (1797, 128)
    """

    _parameter_constraints: ClassVar[dict] = {
        "n_components": [None, Interval(Integral, 1, None, closed="left")],
        "n_nonzero_coefs": [None, StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "coder": [StrOptions({"omp", "ols"})],
        "coder_tol": [None, Interval(Real, 0, None, closed="left")],
        "algorithm": [StrOptions({"streaming", "full"})],
        "update": [StrOptions({"mod", "ksvd", "approximate_ksvd"})],
        "forgetting": [StrOptions({"growing", "linear"}), Interval(Real, 0, 1, closed="right")],
        "init": [StrOptions({"data", "random", "svd"}), "array-like", callable],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "chunk_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "sparse_output": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components=None,
        *,
        n_nonzero_coefs="auto",
        coder="ols",
        coder_tol=None,
        algorithm="streaming",
        update="mod",
        forgetting="growing",
        init="data",
        batch_size="auto",
        max_iter=20,
        tol=0.0,
        warm_start=False,
        chunk_size="auto",
        sparse_output=False,
        random_state=None,
    ):
        self.n_components = n_components
        self.n_nonzero_coefs = n_nonzero_coefs
        self.coder = coder
        self.coder_tol = coder_tol
        self.algorithm = algorithm
        self.update = update
        self.forgetting = forgetting
        self.init = init
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start
        self.chunk_size = chunk_size
        self.sparse_output = sparse_output
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the dictionary from X.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Training rows: NumPy (memory-mapped and float16 arrays are read batch by batch and never copied whole),
            torch, CuPy or another array API namespace. Or rows that lie elsewhere, whatever
            :func:`skprojdict.sources.open_rows` opens: they are read in blocks, in a random order that
            ``random_state`` fixes, and ahead of the step that needs them. With ``algorithm="full"`` the chunks of a
            Dask array stay where they are: each pass is one map over them and a tree of sums.
        y : ignored

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            For NaN or infinity (naming the first such row), fewer than 2 rows, or parameters that exclude each other.
        """
        fresh = not (self.warm_start and hasattr(self, "components_"))
        with shape_kept(self):
            X, rng = self._begin(X, fresh=fresh, streaming=self.algorithm == "streaming")
        learner = self._learner_of(X, rows_a_pass=X.shape[0])
        self._learner = None  # statistics of an earlier partial_fit
        try:
            self._learn(learner, X, y, rng)
        finally:  # an interrupted fit keeps its last atoms
            self._store(learner)
        return self

    @available_if(_can_stream)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None):
        """One streaming step on X, all of its rows at once.

        The first call sets mean, scale and starting atoms from its batch. Statistics of earlier calls are kept, and
        fade as ``forgetting`` says ("linear" without dropping anything, since a stream has no passes).

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            A batch of rows, or what :func:`skprojdict.sources.open_rows` opens: all of its rows are one batch.
        y : ignored

        Returns
        -------
        self : object
        """
        fresh = not hasattr(self, "components_")
        X = open_rows(X)[:] if is_source(X) else X
        with shape_kept(self):
            X, _ = self._begin(X, fresh=fresh, streaming=True)
        learner = getattr(self, "_learner", None) or self._learner_of(X)
        if isinstance(learner, dict):  # it was pickled or saved
            learner = from_plain(DictionaryLearner, learner, self.components_, statistics=StreamingStatistics)
        learner.configure(**self._coding())
        sums = learner.step(self._passes(X).rows(slice(0, X.shape[0])))
        self._learner = learner
        self._store(learner)
        self._record(sums, 1, X.shape[0])
        self.n_iter_ += 1
        return self

    def _begin(self, X, *, fresh, streaming):
        """Validated rows, and the generator; a fresh start sets units, atoms and counters."""
        if streaming and self.update != "mod":
            raise ValueError(
                f"update={self.update!r} works on whole passes, got a streaming fit. Set algorithm='full' and call "
                "fit, or update='mod'."
            )
        if self.n_nonzero_coefs is None and self.coder_tol is None:
            raise ValueError(
                "n_nonzero_coefs=None leaves the length of a code to coder_tol, which is None too. Set one of them."
            )
        X = as_source(X)
        elsewhere = isinstance(X, RowSource)
        if elsewhere and self.update != "mod":
            raise ValueError(
                f"update={self.update!r} holds all rows in memory, got rows that lie elsewhere. Set update='mod', or "
                "read them where they fit: skprojdict.sources.open_rows(X)[:]."
            )
        if not fresh and not elsewhere:
            check_same_namespace(X, self, attribute="components_", method="fit")
        X = validate_rows(self, X, reset=fresh, min_samples=2 if fresh else 1)
        if self.sparse_output:
            check_sparse_output(prototype(X))
        rng = check_random_state(self.random_state)
        if not fresh:
            self._check_size()
        else:
            p, d = resolve_n_components(self.n_components, X.shape[1]), X.shape[1]
            resolve_n_nonzero(self.n_nonzero_coefs, p, d)  # warns of a number that is clipped
            self._set_units(X, p, rng)
            self._learner = None
            self.n_iter_ = self.n_steps_ = self.n_resampled_ = 0
            self.history_: dict[str, list] = {name: [] for name in ("step", "loss", "fvu", "n_resampled")}
        return X, rng

    def _check_size(self):
        """Training goes on with the atoms that there are."""
        fitted, wanted = self.components_.shape[0], resolve_n_components(self.n_components, self.components_.shape[1])
        if wanted != fitted:
            raise ValueError(
                f"n_components={self.n_components!r} asks for {wanted} atoms, but training goes on with the {fitted} "
                "fitted ones. Set n_components as at the first fit, or fit anew with warm_start=False."
            )

    def _set_units(self, X, n_components, rng):
        from .training.rows import measure_units  # imports torch

        units = measure_units(X, X, n_sample=max(SAMPLE_ROWS, n_components), center="mean", rng=rng)
        if units.scale_out == 0:
            warnings.warn(
                "every row is the same: there is no variance to explain, and the atoms are arbitrary.",
                UserWarning,
                stacklevel=5,
            )
        if isinstance(self.init, str):
            atoms = initial_components(self.init, units.sample_out, n_components, rng)
        else:
            given = self.init(units.sample_out, n_components, rng) if callable(self.init) else self.init
            atoms = check_initial_components(given, n_components, X.shape[1])
        self.scale_ = units.scale_out or 1.0
        X = prototype(X)
        dtype = self._dtype(X)
        self.mean_ = asarray_like(units.mean_out, X, dtype=dtype)
        self.components_ = asarray_like(atoms, X, dtype=dtype)
        self.n_activations_ = None

    def _dtype(self, X):
        xp = array_namespace(X)
        return xp.float32 if str(X.dtype).rpartition(".")[2] in ("float32", "float16") else xp.float64

    def __getstate__(self):
        state = super().__getstate__()
        return state | ({"_learner": as_plain(state["_learner"])} if "_learner" in state else {})

    def _learner_of(self, X, rows_a_pass=None):
        return DictionaryLearner(
            self.components_,
            **self._coding(),
            update=self.update,
            rows_a_pass=rows_a_pass,
            n_activations=self.n_activations_,
            n_resampled=self.n_resampled_,
        )

    def _coding(self):
        """What may change between two calls of ``partial_fit``."""
        return {
            "k": self._k,
            "coder": self.coder,
            "tol": self._scaled_tol(),
            "chunk_size": self.chunk_size,
            "forgetting": self.forgetting,
        }

    def _scaled_tol(self):
        return None if self.coder_tol is None else self.coder_tol / self.scale_**2

    def _passes(self, X):
        return Passes(X, self.mean_, self.scale_)

    def _learn(self, learner, X, y, rng):
        """Passes over the rows, with callbacks."""
        context = self._init_callback_context(max_subtasks=self.max_iter)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        patience, passes = _Patience(self.tol), self._passes(X)
        for i in range(self.max_iter):
            iteration = context.subcontext(task_name="iteration")
            iteration.call_on_fit_task_begin(estimator=self)
            last = i == self.max_iter - 1
            if self.algorithm == "full":
                sums = passes.whole(learner, last=last)
                self._record(sums, 1, X.shape[0], learner)
            else:
                sums, n_steps, n_rows = passes.streamed(learner, self.batch_size, rng, last=last)
                self._record(sums, n_steps, n_rows, learner)
            self.n_iter_ += 1
            stop = iteration.call_on_fit_task_end(
                estimator=self,
                metadata={name: series[-1] for name, series in self.history_.items()},
                reconstruction_attributes=lambda: self._fitted_attributes(learner),
            )
            if stop or patience.exhausted(self.history_["loss"][-1]):
                break
        context.call_on_fit_task_end(estimator=self, reconstruction_attributes=lambda: self._fitted_attributes(learner))

    def _record(self, sums, n_steps, n_rows, learner=None):
        error, energy = sums
        self.n_steps_ += n_steps
        n_resampled = self.n_resampled_ if learner is None else learner.n_resampled
        entry = (self.n_steps_, error / n_rows, error / energy if energy > 0 else 0.0, n_resampled)
        for series, value in zip(self.history_.values(), entry, strict=True):
            series.append(value)

    def _fitted_attributes(self, learner):
        return {
            "components_": learner.components,
            "n_activations_": learner.n_activations,
            "n_resampled_": learner.n_resampled,
        }

    @property
    def _k(self):
        """Atoms a row at most; without a number ``coder_tol`` ends a code, at the latest when its atoms span all."""
        return min(self.components_.shape) if self.n_nonzero_coefs is None else super()._k

    def _store(self, learner):
        for name, value in self._fitted_attributes(learner).items():
            setattr(self, name, value)

    def _code(self, X, Y):
        codes = orthogonal_matching_pursuit(
            (X - self.mean_) / self.scale_,
            self.components_,
            self._k,
            tol=self._scaled_tol(),
            method=self.coder,
            chunk_size=self.chunk_size,
        )
        return codes.indices, codes.coefs * self.scale_
