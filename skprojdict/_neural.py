# SPDX-License-Identifier: BSD-3-Clause
"""What the two neural estimators share: views of the data, the fit, the second view's methods."""

import math
import os
import warnings
from abc import abstractmethod
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ._array import array_namespace, check_same_namespace, device, to_numpy
from ._base import SAMPLE_ROWS, _Patience
from ._exchange import _ExchangeDictionary
from ._fitted import attributes_of, check_parts, forget_parts, weights_of
from ._progress import COUNTED, Progress, check_identity, found_checkpoint, identity, restore, save_checkpoint
from ._validation import (
    check_initial_components,
    check_prediction,
    check_selection_dtype,
    check_tied,
    coding_dtype,
    resolve_n_components,
    resolve_n_nonzero,
    shape_kept,
    torch_device,
    validate_rows,
    validate_second_view,
)
from .solvers.select import score_all
from .sources import ReadAhead, RowSource, ShuffledRows, as_source, is_source, open_rows, prototype

STEPS_PER_ITERATION = 100

_CONSTRAINTS = {
    "n_components": [None, Interval(Integral, 1, None, closed="left")],
    "n_nonzero_coefs": [None, StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "tied": ["boolean"],
    "target": [StrOptions({"X", "y"})],
    "predict_mode": [StrOptions({"additive", "regressed", "surrogate"})],
    "skip": ["boolean"],
    "auxk_coef": [Interval(Real, 0, None, closed="left")],
    "dead_after": [StrOptions({"auto"}), Interval(Real, 1, None, closed="left")],
    "init": [StrOptions({"data", "random", "svd"}), "array-like", callable],
    "center": [StrOptions({"mean", "geometric_median"})],
    "learning_rate": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
    "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "max_steps": [None, Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "warm_start": ["boolean"],
    "device": "no_validation",  # torch is not loaded to look at a parameter; _device checks it
    "selection_dtype": [None, StrOptions({"auto", "bfloat16", "float16"})],
    "chunk_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "sparse_output": ["boolean"],
    "checkpoint_dir": [None, str, os.PathLike],
    "checkpoint_every": [Interval(Integral, 1, None, closed="left")],
    "random_state": ["random_state"],
}


class _NeuralDictionary(_ExchangeDictionary):
    """A dictionary trained by minibatches in torch. A subclass names its loss and codes its rows."""

    _trainer: Any = None  # weights and moments between calls of partial_fit; plain arrays after unpickling
    history_: dict[str, list]

    @abstractmethod
    def _loss(self, n_components, n_targets, k):
        """The loss of one batch, as a picklable callable."""

    def _coding(self, k):
        """How rows are coded in training, where that is more than the weights say; None: it is not."""

    def _suit(self, weights, k, views, n, *, new=False):
        """Bring weights that training goes on with to parameters that have changed, in place.

        By some of the n rows of ``views``; parts may be added where the weights are ``new``, and no trainer's yet.
        """

    @abstractmethod
    def _parts(self):
        """Optional parts of the weights that the form has: keywords of :func:`fresh_weights`. False: not this one."""

    def _check_options(self, n_features, n_targets):
        """Refuse combinations of parameters that cannot mean anything."""
        check_selection_dtype(self)
        check_prediction(self)
        check_tied(self, n_features=n_features, n_targets=n_targets)

    # ---- fitting

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, resume=False):
        """Learn the dictionary and its encoder from X.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Training rows: NumPy (memory-mapped and float16 arrays are read batch by batch and never copied whole),
            torch, CuPy or another array API namespace. Or rows that lie elsewhere, whatever
            :func:`skprojdict.sources.open_rows` opens: they are read in blocks, in a random order that
            ``random_state`` fixes, and ahead of the step that needs them. Inside an initialised process group of
            torch.distributed every process is given all rows, and trains on its share of each batch.
        y : array of shape (n_samples, n_targets) or (n_samples,), default=None
            With ``target="y"`` what to reconstruct; ignored otherwise. Like X it may lie elsewhere.
        resume : bool or path-like, default=False
            True: go on from the newest good checkpoint in ``checkpoint_dir``, or start where there is none yet: the
            same call starts a fit and takes it up again. A path: go on from that checkpoint, or the newest in that
            folder. With the same parameters, rows, machine and threads the result is the same to the last bit as
            without the interruption, unless callbacks with a memory of their own stopped it.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            For NaN or infinity (naming the first such row), fewer than 2 rows, or parameters that exclude each other;
            for a checkpoint of other rows or parameters, or that is damaged; for a ``checkpoint_dir`` with the
            checkpoints of another fit, unless it is to be resumed.
        FloatingPointError
            When the loss stops being finite; the last good weights stay in the estimator.
        skprojdict.sources.UnreadableRowsError
            When a file of rows has gone or changed since it was opened; the weights stay in the estimator.
        skprojdict.training.distributed.LostRankError
            When another process of the group has stopped.
        """
        from .training.distributed import Ranks
        from .training.loop import NonFiniteLossError

        ranks = Ranks.of_this_process()
        found = ranks.from_first(lambda: found_checkpoint(self, resume))
        fresh = found is not None or not (self.warm_start and hasattr(self, "components_"))
        with shape_kept(self):
            X, Y = ranks.together(lambda: self._views(X, y, reset=fresh, min_samples=2, method="fit"))
            progress = self._begin(X, Y, found, ranks, fresh=fresh)
        trainer = progress.trainer
        self._trainer = None  # moments of an earlier partial_fit
        try:
            self._train(progress, X, Y, y)
        except NonFiniteLossError:
            trainer.back_to_good()
            raise
        except BaseException:  # Ctrl-C among others
            trainer.settle()
            raise
        finally:  # an interrupted or diverged fit keeps its last good weights
            progress.batches.close()
            self._store(trainer, X, copy=False)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None):
        """One minibatch step on X, all of its rows at once, at a constant learning rate.

        The first call sets centres, scale and starting atoms from its batch. Every call brings the weights back to the
        namespace of X, a copy of the dictionary and its encoder. It knows nothing of other processes.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            A batch of rows, or what :func:`skprojdict.sources.open_rows` opens: all of its rows are one batch.
        y : array of shape (n_samples, n_targets), default=None
            With ``target="y"`` what to reconstruct; ignored otherwise.

        Returns
        -------
        self : object
        """
        from .training.loop import NonFiniteLossError

        first = not hasattr(self, "components_")
        X = open_rows(X)[:] if is_source(X) else X
        y = open_rows(y)[:] if self.target == "y" and is_source(y) else y
        with shape_kept(self):
            X, Y = self._views(X, y, reset=first, min_samples=2 if first else 1, method="partial_fit")
            trainer, views = self._resumed(X, Y) if self._trainer else self._start(X, Y, fresh=first)[:2]
        self._trainer = trainer
        try:
            values = trainer.step(*views.take(slice(0, X.shape[0])), judge=True)
        except NonFiniteLossError:
            trainer.back_to_good()
            self._trainer = None
            raise
        except BaseException:
            trainer.settle()
            self._trainer = None  # its moments are of half a step
            raise
        finally:
            self._store(trainer, X, copy=True)
        self._record(trainer, [values], trainer.learning_rate)
        self.n_iter_ += 1
        return self

    def _views(self, X, y, *, reset, min_samples, method):
        """Validated rows of both views; with ``target="X"`` the second is the first and y is not looked at."""
        X = as_source(X)
        if self.target == "y" and is_source(y):
            X = open_rows(X)
        if not reset and not isinstance(X, RowSource):
            check_same_namespace(X, self, attribute="components_", method=method)
        X = validate_rows(self, X, reset=reset, min_samples=min_samples)
        flat = getattr(y, "ndim", 2) == 1
        Y = X if self.target == "X" else validate_second_view(self, X, y)
        if not reset:
            self._check_targets(Y)
            self._check_size()
        self._check_options(X.shape[1], Y.shape[1])
        if reset:
            self._flat_target = flat
        return X, Y

    def _check_size(self):
        """Training goes on with the atoms that there are."""
        fitted, wanted = self.components_.shape[0], resolve_n_components(self.n_components, self.components_.shape[1])
        if wanted != fitted:
            raise ValueError(
                f"n_components={self.n_components!r} asks for {wanted} atoms, but training goes on with the {fitted} "
                "fitted ones. Set n_components as at the first fit, or fit anew with warm_start=False."
            )

    def _resumed(self, X, Y):
        """The trainer of the last partial_fit, with the parameters as they are now, and its next batch."""
        from .training.rows import Views

        self._check_form()
        trainer = self._revived(X) if isinstance(self._trainer, dict) else self._trainer
        p, d = self.components_.shape
        trainer.loss, trainer.learning_rate = self._loss(p, d, self._k), self._peak_rate(p)
        trainer.dead.dead_after = self._dead_after(p, self._k)
        like = trainer.weights.components
        views = Views(X, Y, self.encoder_scale_, self.scale_, like.dtype, like.device)
        self._suit(trainer.weights, self._k, views, X.shape[0])
        return trainer, views

    def _revived(self, X):
        """The trainer that was pickled or saved as plain arrays."""
        from .training.checkpoints import restore_trainer, weights_from

        arrays = self._trainer["arrays"]
        trainer = self._trainer_of(weights_from(arrays, "weights", self._device(X)), self._k)
        restore_trainer(trainer, arrays, self._trainer["numbers"])
        return trainer

    def __getstate__(self):
        state = super().__getstate__()
        if self._trainer is not None and not isinstance(self._trainer, dict):
            from .training.checkpoints import trainer_state

            state["_trainer"] = dict(zip(("arrays", "numbers"), trainer_state(self._trainer), strict=True))
        return state

    def _dead_after(self, n_components, k):
        if self.dead_after == "auto":
            return 64 * n_components / (k or max(1, n_components // 10))
        return self.dead_after

    def _begin(self, X, Y, found, ranks, *, fresh):
        """A fit at its start, or where the found checkpoint left it."""
        from .training.checkpoints import difference

        n = X.shape[0]
        batch_size = max(32, min(1024, n // 16)) if self.batch_size == "auto" else self.batch_size
        ranks.check_batch(min(n, batch_size))
        if ranks.size > 1:
            ranks.agree(identity(self, X, Y), difference)
        if found is None:
            trainer, views, rng = self._start(X, Y, fresh=fresh, ranks=ranks)
        else:
            trainer, views, rng = self._taken_up(X, Y, *found)
        trainer.join(ranks)
        progress = Progress(trainer, views, _order(X, Y, batch_size, rng), _Patience(self.tol), self.n_iter_)
        if found is not None:
            restore(self, progress, *found)
        return progress

    def _taken_up(self, X, Y, arrays, header):
        """What :meth:`_start` gives, from a checkpoint."""
        from .training.checkpoints import weights_from
        from .training.rows import Views

        check_identity(header, identity(self, X, Y))
        weights = weights_from(arrays, "weights", self._device(X))
        forget_parts(self)
        for name in COUNTED:
            setattr(self, name, header["fitted"][name])
        like = weights.components
        k = resolve_n_nonzero(self.n_nonzero_coefs, *like.shape)
        views = Views(X, Y, self.encoder_scale_, self.scale_, like.dtype, like.device)
        return self._trainer_of(weights, k), views, check_random_state(0)  # whose state comes from the checkpoint

    def _trainer_of(self, weights, k):
        from .training.dead import DeadFeatures
        from .training.loop import Trainer

        p, d = weights.components.shape
        dead = DeadFeatures(p, self._dead_after(p, k), weights.components.device)
        return Trainer(
            weights,
            self._loss(p, d, k),
            dead,
            learning_rate=self._peak_rate(p),
            bias_rate=self._pace.bias_rate,
            unit_gradient=self._pace.unit_gradient,
        )

    def _start(self, X, Y, *, fresh, ranks=None):
        """A trainer with fresh or fitted weights, and the batches to feed it; a fresh start sets the units."""
        import torch

        from .training.rows import Views

        where = self._device(X)
        like = X if fresh else self.components_
        dtype = torch.float32 if "float32" in str(like.dtype) or "float16" in str(like.dtype) else torch.float64
        rng = check_random_state(self.random_state)
        rng = rng if ranks is None else ranks.from_first(lambda: rng)
        p = resolve_n_components(self.n_components, Y.shape[1]) if fresh else self.components_.shape[0]
        k = resolve_n_nonzero(self.n_nonzero_coefs, p, Y.shape[1])
        if fresh:
            weights = self._fresh_weights(X, Y, p, k, rng, ranks, dtype=dtype, device=where)
            self.n_steps_ = self.n_iter_ = 0
            self.history_ = {name: [] for name in ("step", "loss", "fvu", "learning_rate", "n_dead")}
        else:
            self._check_form()
            weights = weights_of(self, dtype, where)
        views = Views(X, Y, self.encoder_scale_, self.scale_, dtype, where)
        if not fresh:
            self._suit(weights, k, views, X.shape[0], new=True)
        trainer = self._trainer_of(weights, k)
        if not fresh:
            trainer.dead.activations += torch.as_tensor(to_numpy(self.n_activations_)).to(where)
        return trainer, views, rng

    def _fresh_weights(self, X, Y, n_components, k, rng, ranks, **kind):
        """Weights to start from, and the units; the sample that both are made of ends here."""
        from .training.rows import measure_units, units_behind_skip
        from .training.start import fresh_weights

        n_sample = max(SAMPLE_ROWS, n_components)
        units = measure_units(X, Y, n_sample=n_sample, center=self.center, rng=rng, ranks=ranks)
        if self._parts().get("skip") and units.scale_out:
            units = units_behind_skip(units)
        given = self._given_components(units.sample_out, n_components, rng)
        self._set_units(units)
        return fresh_weights(
            units.sample_in,
            units.sample_out,
            components=given,
            init=self.init,
            n_components=n_components,
            k=k,
            input_mean=None if Y is X else units.mean_in / self.encoder_scale_,
            mean=units.mean_out / self.scale_,
            rng=rng,
            coding=self._coding(k),
            **kind,
            **self._parts(),
        )

    def _set_units(self, units):
        """Forget an earlier fit and take on the units of this one."""
        forget_parts(self)
        if units.scale_out == 0:
            warnings.warn(
                "every row to reconstruct is the same: there is no variance to explain, and the atoms are arbitrary.",
                UserWarning,
                stacklevel=6,
            )
        self.scale_, self.encoder_scale_ = units.scale_out or 1.0, units.scale_in or 1.0

    def _given_components(self, sample, n_components, rng):
        if isinstance(self.init, str):
            return None
        given = self.init(sample, n_components, rng) if callable(self.init) else self.init
        return check_initial_components(given, n_components, sample.shape[1])

    @property
    def _optional(self) -> tuple[str, ...]:
        """Parts that fitted weights may have or lack."""
        return ()

    @property
    def _pace(self):
        return self._PACE

    def _peak_rate(self, n_components):
        if self.learning_rate == "auto":
            return self._pace.peak(n_components)
        return float(self.learning_rate)

    def _device(self, X):
        """Where to train: the device of X unless one is named, tried with an empty tensor."""
        import torch

        if self.device is None:
            X = prototype(X)
            where = device(X)
            if isinstance(where, torch.device):
                return where
            return torch.device("cuda", where.id) if "cupy" in array_namespace(X).__name__ else torch.device("cpu")
        return torch_device(self.device)

    def _train(self, progress, X, Y, y):
        """Minibatch steps with callbacks; one iteration is a pass over the rows, or 100 steps of a longer one."""
        from .training.rows import steps_per_pass

        trainer, batches = progress.trainer, progress.batches
        a_pass = steps_per_pass(batches.n, batches.batch_size)
        total = self.max_iter * a_pass if self.max_steps is None else self.max_steps
        block = min(a_pass, STEPS_PER_ITERATION)
        # Where a checkpoint was taken at the end of an iteration, that iteration is still to be recorded.
        first = progress.step // block - (not progress.step % block and bool(progress.values))
        starts = range(first * block, 0 if progress.finished else total, block)
        writes = self.checkpoint_dir is not None and trainer.ranks.first
        expected = identity(self, X, Y) if writes else None
        context = self._init_callback_context(max_subtasks=len(starts))
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        for start in starts:
            iteration = context.subcontext(task_name="iteration")
            iteration.call_on_fit_task_begin(estimator=self)
            try:
                self._iterate(progress, min(total, start + block), total, expected)
            finally:  # what an interrupted iteration has done is recorded, too
                factor = self._pace.factor(progress.step - 1, total)
                self._record(trainer, progress.values, trainer.learning_rate * factor)
                progress.values = []
                self.n_iter_ = progress.n_iter_before + math.ceil(trainer.n_steps / a_pass)
            stop = iteration.call_on_fit_task_end(
                estimator=self,
                metadata={name: series[-1] for name, series in self.history_.items()},
                reconstruction_attributes=lambda: self._fitted_attributes(trainer, X),
            )
            stop = trainer.ranks.from_first(lambda stop=stop: stop)  # a callback may look at the clock
            if stop or progress.patience.exhausted(self.history_["loss"][-1]):
                break
        if expected and not progress.finished:
            progress.finished = True
            save_checkpoint(self, progress, expected)
        context.call_on_fit_task_end(
            estimator=self, reconstruction_attributes=lambda: self._fitted_attributes(trainer, X)
        )

    def _iterate(self, progress, end, total, expected):
        """Steps up to ``end``, and the checkpoints that fall due on the way."""
        trainer, batches = progress.trainer, progress.batches
        n_rows = min(batches.n, batches.batch_size)
        while progress.step < end:
            rows = progress.views.take(next(batches), trainer.ranks)
            rate = self._pace.factor(progress.step, total)
            progress.values.append(trainer.step(*rows, rate, n_rows, judge=not progress.values))
            progress.step += 1
            if expected and progress.step % self.checkpoint_every == 0 and progress.step < total:
                save_checkpoint(self, progress, expected)

    def _record(self, trainer, values, rate):
        if not values:
            return
        loss, error, variance = np.mean(values, axis=0)
        self.n_steps_ += len(values)
        entry = (self.n_steps_, loss, error / variance if variance > 0 else 0.0, rate, int(trainer.dead.mask().sum()))
        for series, value in zip(self.history_.values(), entry, strict=True):
            series.append(value if isinstance(value, int) else float(value))

    # ---- between fitted attributes and weights

    def _fitted_attributes(self, trainer, like, *, copy=True):
        return attributes_of(trainer, like, scale=self.scale_, encoder_scale=self.encoder_scale_, copy=copy)

    def _store(self, trainer, like, *, copy):
        for name, value in self._fitted_attributes(trainer, like, copy=copy).items():
            setattr(self, name, value)

    def _check_form(self):
        """Refuse to go on with a form that the fitted weights are not of."""
        check_parts(self, self._parts(), self._optional)

    # ---- coding

    @property
    def _threshold(self):
        """What the rule of selection compares with; 0 where it does not."""
        return getattr(self, "threshold_", 0.0)

    def _scores(self, X, n_exact):
        """Centred encoder input and scores (n, p) of a chunk of rows, in training units."""
        inputs = X - self.encoder_mean_
        inputs /= self.encoder_scale_  # in place: fresh memory costs more than the division
        precision = {"selection_dtype": coding_dtype(self), "n_exact": n_exact, "chunk_size": self.chunk_size}
        return inputs, score_all(inputs, self.encoder_components_, self.encoder_bias_, **precision)

    def _validate_fitted(self, X, method):
        check_is_fitted(self)
        self._check_form()
        self._check_options(self.n_features_in_, self.components_.shape[1])
        return super()._validate_fitted(X, method)


def _order(X, Y, batch_size, rng):
    """Batches pass after pass: of row numbers where rows are at hand, of rows where they have to be read."""
    from .training.rows import BatchOrder

    if not isinstance(X, RowSource):
        return BatchOrder(X.shape[0], batch_size, rng)
    return ReadAhead(ShuffledRows((X,) if Y is X else (X, Y), batch_size, rng))
