# SPDX-License-Identifier: BSD-3-Clause
"""What the alignment searches share: rows in, subspaces out, interventions and scores."""

import copy
import math
from abc import abstractmethod
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from .._array import from_torch, to_numpy
from .concepts import Reader, distinct
from .interventions import Intervention
from .loop import frozen, logits_of, train
from .rows import labels_of, rows_of, weights_of

# Rows that go through the model at once when there is nothing to learn.
SCORED_AT_ONCE = 8192


class _AlignmentSearch(BaseEstimator):
    """An alignment search: a subclass builds the module that maps concepts to subspaces, in ``_build``."""

    _parameter_constraints: ClassVar[dict] = {
        "model": [callable],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "max_steps": [None, Interval(Integral, 1, None, closed="left")],
        "device": "no_validation",
        "random_state": ["random_state"],
    }

    _subspaces: Any
    _not_saved: ClassVar[tuple] = ("model",)  # a network has files of its own

    @abstractmethod
    def _build(self, n_features, n_concepts, n_inputs, hypernetwork):
        """The trainable module, called with torch seeded.

        ``n_inputs`` is the length of a concept's description, or None where concepts are numbered.
        """

    def _is_table(self, values):
        """Whether concepts are numbered; else they describe themselves."""
        return values.ndim == 1 and getattr(self, "hypernetwork", None) is None

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, base, source, labels, concepts=None, *, context=None, sample_weight=None):
        """Learn the subspace of every concept from interchanges and the label that each should lead to.

        Parameters
        ----------
        base, source : arrays of shape (n_samples, n_features)
            Activations at the site, of the run that is changed and of the run that is copied from.
        labels : integer array of shape (n_samples,)
            The output that the interchange should lead to: the one that follows from the source's value of the concept
            (a cause example), or the base's own where the concept should not matter (an isolation example).
        concepts : array of shape (n_samples,) or (n_samples, ...), default=None
            The concept of every example: a label, or its description. None: all are about one concept.
        context : array or tuple of arrays with n_samples rows, default=None
            Passed on to the model after the activations: what else the rest of the network needs.
        sample_weight : array of shape (n_samples,), default=None
            Weights of the examples in the loss, for instance of cause against isolation.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            For shapes that do not match, values that are not finite, or parameters that do not suit the data.
        FloatingPointError
            When the loss stops being finite.
        """
        rows = rows_of(base, source, context, self.device)
        labels = labels_of(labels, rows.base)
        weight = weights_of(sample_weight, rows.base)
        found = distinct(concepts, rows.base.shape[0])
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        hypernetwork = copy.deepcopy(getattr(self, "hypernetwork", None))
        reader = Reader(found.values, table=self._is_table(found.values), raw=hypernetwork is not None)
        read = reader(found.values, rows.base)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if hypernetwork is not None:
                hypernetwork.to(dtype=rows.base.dtype, device=rows.base.device)
            n_inputs = None if reader.table else _length(read, hypernetwork)
            module = self._build(rows.base.shape[1], found.values.shape[0], n_inputs, hypernetwork)
        module = module.to(dtype=rows.base.dtype, device=rows.base.device)
        self._n_inputs = n_inputs
        ids = torch.from_numpy(found.ids.astype(np.int64)).to(rows.base.device)
        n, batch_size = rows.base.shape[0], min(self.batch_size, rows.base.shape[0])
        n_steps = self.max_iter * math.ceil(n / batch_size) if self.max_steps is None else self.max_steps
        with frozen(self.model):
            self.history_ = train(
                module,
                self.model,
                (rows.base, rows.source, labels, ids, weight, *rows.context),
                read,
                learning_rate=self.learning_rate,
                batch_size=batch_size,
                n_steps=n_steps,
                seed=seed,
                weight_decay=getattr(self, "weight_decay", 0.0),
            )
        self.n_features_in_ = rows.base.shape[1]
        self.concepts_ = found.values
        self.n_steps_ = n_steps
        self._reader, self._subspaces = reader, module.frozen()
        self._store(base, read)
        return self

    def _store(self, base, read):
        """Fitted arrays, in the namespace of the training data."""
        with torch.no_grad():
            hard, rank = self._subspaces.hard(read)
            dimension = self._subspaces(read, 1.0)[0].dimension()
        self.directions_ = from_torch(hard.factors, base)
        self.rank_ = from_torch(rank, base)
        self.effective_dimension_ = from_torch(dimension, base)

    def _plain_state(self):
        """What fit stored, as arrays and numbers; :meth:`_from_plain_state` takes it up again."""
        state: Any = self.__getstate__()
        state = {name: value for name, value in state.items() if name not in ("_subspaces", "_reader")}
        if state.pop("hypernetwork_", None) is not None:
            raise TypeError(
                "hypernetwork is a torch module, which cannot be written without pickle. Keep the search with joblib, "
                "or fit it on what the hypernetwork makes of the concepts."
            )
        weights = self._subspaces.state_dict()
        fresh = self._rebuilt()
        if (shapes(fresh.state_dict()), plain(fresh)) != (shapes(weights), plain(self._subspaces)):
            raise ValueError(
                "parameters of the search were changed since it was fitted, so that they do not say any more what was "
                "learned. Set them back, or fit again, before saving."
            )
        return state | {"_subspaces": {name: to_numpy(tensor) for name, tensor in weights.items()}}

    def _from_plain_state(self):
        """Make subspaces of the arrays of a file."""
        weights = {name: torch.from_numpy(array) for name, array in self._subspaces.items()}
        module = self._rebuilt().to(next(iter(weights.values())).dtype)
        module.load_state_dict(weights)
        self._reader = Reader(self.concepts_, table=self._is_table(self.concepts_), raw=False)
        self._subspaces = module

    def _rebuilt(self):
        """The module as fit began with it, without what training changes."""
        with torch.random.fork_rng(devices=[]):
            return self._build(self.n_features_in_, self.concepts_.shape[0], self._n_inputs, None).frozen()

    def intervene(self, base, source, concepts=None, *, hard=True):
        """Interchange: ``base + H_c (source - base)`` with the subspace of each row's concept.

        Parameters
        ----------
        base, source : arrays of shape (n_samples, n_features)
            Activations.
        concepts : array of shape (n_samples,) or (n_samples, ...), default=None
            Concepts, labelled or described as at fit; None where fit had none.
        hard : bool, default=True
            With the orthogonal projection of rank ``rank_``. False: with the soft projection that training saw, which
            swaps in part only and therefore flatters.

        Returns
        -------
        out : array of shape (n_samples, n_features)
            In the namespace of ``base``.
        """
        check_is_fitted(self)
        rows = rows_of(base, source, None, self.device)
        return from_torch(self._interchanged(rows, concepts, hard), base)

    def decision_function(self, base, source, concepts=None, *, context=None, hard=True):
        """The model's logits after each interchange.

        Parameters
        ----------
        base, source, concepts, hard
            As in :meth:`intervene`.
        context : array or tuple of arrays, default=None
            As at fit.

        Returns
        -------
        logits : array of shape (n_samples, n_classes)
        """
        check_is_fitted(self)
        if self.model is None:
            raise ValueError(
                "model is None: a search that was loaded from a file comes without its network. Give it with "
                "set_params(model=network)."
            )
        rows = rows_of(base, source, context, self.device)
        out = self._interchanged(rows, concepts, hard)
        with torch.no_grad(), frozen(self.model):
            parts = [
                logits_of(self.model, part, contexts)
                for part, *contexts in zip(
                    *(each.split(SCORED_AT_ONCE) for each in (out, *rows.context)),
                    strict=True,
                )
            ]
        return from_torch(torch.cat(parts), base)

    def predict(self, base, source, concepts=None, *, context=None, hard=True):
        """The model's most likely label after each interchange.

        Parameters
        ----------
        base, source, concepts, hard
            As in :meth:`intervene`.
        context : array or tuple of arrays, default=None
            As at fit.

        Returns
        -------
        labels : integer ndarray of shape (n_samples,)
        """
        logits = to_numpy(self.decision_function(base, source, concepts, context=context, hard=hard))
        return np.argmax(logits, axis=1)

    def score(self, base, source, labels, concepts=None, *, context=None, sample_weight=None, hard=True):
        """Interchange accuracy: share of the interchanges after which the model says the wanted label.

        Parameters
        ----------
        base, source, concepts, hard
            As in :meth:`intervene`.
        labels : integer array of shape (n_samples,)
            Wanted outputs.
        context : array or tuple of arrays, default=None
            As at fit.
        sample_weight : array of shape (n_samples,), default=None
            Weights of the examples.

        Returns
        -------
        score : float
        """
        said, wanted = self.predict(base, source, concepts, context=context, hard=hard), to_numpy(labels)
        if wanted.shape != said.shape:
            raise ValueError(f"labels must have shape {said.shape}, one for each sample, got {wanted.shape}.")
        weights = None if sample_weight is None else to_numpy(sample_weight)
        return float(np.average(said == wanted, weights=weights))

    def report(self, base, source, labels, concepts=None, *, context=None, sample_weight=None):
        """Hard and soft score side by side, each with the dimensions that it took.

        Parameters
        ----------
        base, source, labels, concepts, context, sample_weight
            As in :meth:`score`.

        Returns
        -------
        report : Bunch
            ``score`` and ``rank`` of the hard projections, ``soft_score`` and ``effective_dimension`` of the soft ones;
            dimensions are means over the distinct concepts.
        """
        options = {"context": context, "sample_weight": sample_weight}
        footprint = self.footprint(distinct(concepts).values)
        return Bunch(
            score=self.score(base, source, labels, concepts, hard=True, **options),
            rank=float(footprint.rank.mean()),
            soft_score=self.score(base, source, labels, concepts, hard=False, **options),
            effective_dimension=float(footprint.effective_dimension.mean()),
        )

    def footprint(self, concepts):
        """How many dimensions concepts take, also ones that fit did not see.

        Parameters
        ----------
        concepts : array of shape (n_concepts,) or (n_concepts, ...)

        Returns
        -------
        footprint : Bunch
            Arrays of shape (n_concepts,): ``rank`` of the hard projections (int), and ``effective_dimension``, the
            ``tr H`` of the soft ones (float).
        """
        check_is_fitted(self)
        found = distinct(concepts)
        with torch.no_grad():
            read = self._read(found.values)
            rank = self._subspaces.hard(read)[1]
            dimension = self._subspaces(read, 1.0)[0].dimension()
        return Bunch(rank=to_numpy(rank)[found.ids], effective_dimension=to_numpy(dimension)[found.ids])

    def intervention(self, concept, *, hard=True):
        """The intervention on one concept by itself, to run where you like, also inside a network.

        Parameters
        ----------
        concept : label, or array of the shape of one description
        hard : bool, default=True
            As in :meth:`intervene`.

        Returns
        -------
        intervention : Intervention
            On arrays like those of fit.
        """
        check_is_fitted(self)
        with torch.no_grad():
            read = self._read(np.asarray(to_numpy(concept))[None, ...])
            if hard:
                subspaces, rank = self._subspaces.hard(read)
                return Intervention(from_torch(subspaces.factors[0, : int(rank[0])], self.directions_))
            values, vectors = torch.linalg.eigh(self._subspaces(read, 1.0)[0].dense()[0])
        # H = sum_i mu_i q_i q_i^T is the ridge projection on its own eigenvectors with s = mu / (1 - mu).
        eps = torch.finfo(values.dtype).eps
        real = values > values.shape[0] * eps
        precision = values[real] / (1 - values[real]).clamp_min(eps)
        return Intervention(from_torch(vectors.mT[real], self.directions_), from_torch(precision, self.directions_))

    def _read(self, values):
        return self._reader(values, next(self._subspaces.parameters()))

    @torch.no_grad()
    def _interchanged(self, rows, concepts, hard):
        if rows.base.shape[1] != self.n_features_in_:
            raise ValueError(
                f"base has {rows.base.shape[1]} columns, but the search was fitted with {self.n_features_in_}."
            )
        found = distinct(concepts, rows.base.shape[0])
        self._subspaces.to(rows.base.device)
        read = self._read(found.values)
        subspaces = self._subspaces.hard(read)[0] if hard else self._subspaces(read, 1.0)[0]
        ids = torch.from_numpy(found.ids.astype(np.int64)).to(rows.base.device)
        change = subspaces.apply((rows.source - rows.base).to(next(self._subspaces.parameters()).dtype), ids)
        return rows.base + change.to(rows.base.dtype)


def shapes(tensors):
    """Shapes of named tensors, in order."""
    return [(name, tuple(tensor.shape)) for name, tensor in tensors.items()]


def plain(module):
    """Numbers, names and functions that a module and its parts hold beside their weights."""
    kinds = (bool, int, float, str)
    return [
        (name, value)
        for part in module.modules()
        for name, value in sorted(vars(part).items())
        if isinstance(value, kinds) and not name.startswith("_") and name != "training"
    ]


def _length(read, hypernetwork):
    """Length of a description, or of what the hypernetwork makes of it."""
    if hypernetwork is not None:
        with torch.no_grad():
            read = hypernetwork(read[:1])
        if not isinstance(read, torch.Tensor) or read.ndim != 2:
            raise ValueError(
                "hypernetwork must map concepts (n_concepts, ...) to vectors (n_concepts, n_outputs), got "
                f"{tuple(read.shape) if isinstance(read, torch.Tensor) else type(read).__name__}."
            )
    if read.ndim != 2:
        raise ValueError(
            "concepts without a hypernetwork must be labels or vectors, got descriptions of shape "
            f"{tuple(read.shape[1:])}."
        )
    return read.shape[1]
