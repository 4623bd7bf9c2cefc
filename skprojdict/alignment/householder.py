# SPDX-License-Identifier: BSD-3-Clause
"""HyperDAS's choice of a subspace, as a baseline."""

from numbers import Integral
from typing import ClassVar

from sklearn.utils._param_validation import Interval
from torch import nn

from ._search import _AlignmentSearch
from .subspaces import Reflections


class HouseholderAlignmentSearch(_AlignmentSearch):
    """Alignment search by reflections of one shared subspace (Sun et al., 2025; HyperDAS).

    Minimises the weighted mean of ``CE(model(base + R_c R_c^T (source - base)), label)`` over one orthonormal R (d, k)
    shared by all concepts and a network v from concepts to unit vectors, with ``R_c = (I - 2 v_c v_c^T) R``. The choice
    of token positions, HyperDAS's other half, is left out: the site is given.

    Parameters
    ----------
    model : callable
        The rest of the network: maps a tensor of activations (and the contexts given to ``fit``) to logits. It is
        frozen: no weight and no ``.grad`` of it changes; a module is put into evaluation mode meanwhile.
    n_directions : int, default=None
        Dimensions k of every concept's subspace. None: half of the columns.
    hidden_size : int, default=64
        Hidden units between the concept and its vector.
    hypernetwork : torch.nn.Module, default=None
        Maps concepts (n_concepts, ...) to vectors first; a copy is trained along.
    learning_rate : float, default=0.01
        Peak step size of Adam, warmed up over 5 % of the steps and decayed over the last 30 %.
    batch_size : int, default=512
        Rows a step.
    max_iter : int, default=10
        Passes over the rows.
    max_steps : int, default=None
        Number of steps; wins over ``max_iter``.
    device : str, torch.device or None, default=None
        Where torch trains; the model has to be there. None: where ``base`` is.
    random_state : int, RandomState instance or None, default=None
        Fixes start and order of rows.

    Attributes
    ----------
    directions_ : array of shape (n_concepts, n_directions, n_features)
        Orthonormal directions of each concept.
    rank_ : integer array of shape (n_concepts,)
        ``n_directions`` throughout.
    effective_dimension_ : array of shape (n_concepts,)
        The same, as a float.
    concepts_ : ndarray of shape (n_concepts,) or (n_concepts, ...)
        The distinct concepts of fit, in the order of the other attributes.
    history_ : dict of lists
        "step", "loss", "accuracy" (of the training batches), "effective_dimension"; one entry for 100 steps.
    n_steps_, n_features_in_ : int

    References
    ----------
    Sun, Huang, Baskaran, D'Oosterlinck, Potts, Sklar, Geiger (2025). HyperDAS: towards automating mechanistic
    interpretability with hypernetworks. ICLR, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skprojdict.alignment import HouseholderAlignmentSearch
    >>> class Sign(torch.nn.Module):  # the rest of a network that reads nothing but the first column
    ...     def forward(self, x):
    ...         return torch.stack([-x[:, 0], x[:, 0]], dim=1)
    >>> rng = np.random.default_rng(0)
    >>> base, source = rng.normal(size=(2, 2000, 4)).astype(np.float32)
    >>> labels = (source[:, 0] > 0).astype(np.int64)  # what the network should say after the interchange
    >>> search = HouseholderAlignmentSearch(Sign(), n_directions=1, random_state=0)
    >>> search.fit(base, source, labels).score(base, source, labels) > 0.9
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        **_AlignmentSearch._parameter_constraints,
        "n_directions": [None, Interval(Integral, 1, None, closed="left")],
        "hidden_size": [Interval(Integral, 1, None, closed="left")],
        "hypernetwork": [None, nn.Module],
    }

    def __init__(
        self,
        model,
        n_directions=None,
        *,
        hidden_size=64,
        hypernetwork=None,
        learning_rate=0.01,
        batch_size=512,
        max_iter=10,
        max_steps=None,
        device=None,
        random_state=None,
    ):
        self.model = model
        self.n_directions = n_directions
        self.hidden_size = hidden_size
        self.hypernetwork = hypernetwork
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.max_steps = max_steps
        self.device = device
        self.random_state = random_state

    def _build(self, n_features, n_concepts, n_inputs, hypernetwork):
        width = max(1, n_features // 2) if self.n_directions is None else self.n_directions
        if width > n_features:
            raise ValueError(
                f"n_directions={width} is more than the {n_features} columns of the activations. Lower n_directions."
            )
        table = n_inputs is None
        first = nn.Embedding(n_concepts, self.hidden_size) if table else nn.Linear(n_inputs, self.hidden_size)
        parts = [first, nn.ReLU(), nn.Linear(self.hidden_size, n_features)]
        return Reflections(nn.Sequential(*([] if hypernetwork is None else [hypernetwork]), *parts), n_features, width)
