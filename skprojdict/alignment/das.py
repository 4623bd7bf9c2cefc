# SPDX-License-Identifier: BSD-3-Clause
"""Distributed alignment search as an estimator."""

from numbers import Integral, Real
from typing import ClassVar

from sklearn.utils._param_validation import Interval, StrOptions

from ._search import _AlignmentSearch
from .subspaces import MaskedRotations, Rotations, Scores


class DistributedAlignmentSearch(_AlignmentSearch):
    """Distributed alignment search: a rotated subspace for each concept (Geiger et al., 2024).

    Minimises, over orthonormal R_c (d, k), the weighted mean of ``CE(model(base + R_c R_c^T (source - base)), label)``.
    With ``width="mask"`` the number of directions is learned: ``R_c diag(m_c) R_c^T`` with ``m_c = sigmoid(a_c / T)``,
    T falling over training, and ``quota_strength`` times the mean ``sum m_c`` added to the loss.

    Parameters
    ----------
    model : callable
        The rest of the network: maps a tensor of activations (and the contexts given to ``fit``) to logits. It is
        frozen: no weight and no ``.grad`` of it changes; a module is put into evaluation mode meanwhile.
    n_directions : int, default=None
        Directions k of a concept; with ``width="mask"`` at most so many. None: half of the columns, or all with a mask.
    width : {"fixed", "mask"}, default="fixed"
        Whether all k directions are swapped, or a learned choice among them.
    shared_rotation : bool, default=False
        One rotation for all concepts: disjoint blocks of k columns (as many concepts as fit), or with
        ``width="mask"`` a mask of each concept over common columns; masks then also follow descriptions, if concepts
        are vectors, and reach concepts not seen at fit.
    quota_strength : float, default=0.02
        With a mask: price of one dimension, in nats of loss.
    final_temperature : float, default=0.1
        With a mask: T at the end of training; it starts at 1.
    weight_decay : float, default=0.2
        Decoupled decay (AdamW) of the map from descriptions to masks, where masks follow descriptions.
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
        Orthonormal directions of each concept's hard subspace, padded with rows of zeros where ranks differ.
    rank_ : integer array of shape (n_concepts,)
        Dimensions of the hard subspaces.
    effective_dimension_ : array of shape (n_concepts,)
        ``tr H`` of the soft projections, equal to ``rank_`` without a mask.
    concepts_ : ndarray of shape (n_concepts,) or (n_concepts, ...)
        The distinct concepts of fit, in the order of the other attributes.
    history_ : dict of lists
        "step", "loss", "accuracy" (soft, of the training batches), "effective_dimension"; one entry for 100 steps.
    n_steps_, n_features_in_ : int

    See Also
    --------
    ProjectiveAlignmentSearch : A shared dictionary of atoms at any angle, for many or composed concepts.

    References
    ----------
    Geiger, Wu, Potts, Icard, Goodman (2024). Finding alignments between interpretable causal variables and distributed
    neural representations. CLeaR, section 3. Wu et al. (2023). Interpretability at scale. NeurIPS (the mask).

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.alignment import DistributedAlignmentSearch
    >>> rng = np.random.default_rng(0)
    >>> base, source = rng.standard_normal((2, 2000, 2))
    >>> def sign_of_sum(h):  # the model reads one direction, (1, 1)
    ...     return (h.sum(1, keepdim=True) * h.new_tensor([[-9.0, 9.0]]))
    >>> labels = (source.sum(axis=1) > 0).astype(int)
    >>> concepts = np.zeros(2000, dtype=int)
    >>> search = DistributedAlignmentSearch(sign_of_sum, n_directions=1, max_steps=200, random_state=0)
    >>> search.fit(base, source, labels, concepts).score(base, source, labels, concepts) > 0.98
    True
    >>> abs(search.directions_[0]).round(1)
    array([[0.7, 0.7]])
    """

    _parameter_constraints: ClassVar[dict] = {
        **_AlignmentSearch._parameter_constraints,
        "n_directions": [None, Interval(Integral, 1, None, closed="left")],
        "width": [StrOptions({"fixed", "mask"})],
        "shared_rotation": ["boolean"],
        "quota_strength": [Interval(Real, 0, None, closed="left")],
        "final_temperature": [Interval(Real, 0, 1, closed="right")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        model,
        n_directions=None,
        *,
        width="fixed",
        shared_rotation=False,
        quota_strength=0.02,
        final_temperature=0.1,
        weight_decay=0.2,
        learning_rate=0.01,
        batch_size=512,
        max_iter=10,
        max_steps=None,
        device=None,
        random_state=None,
    ):
        self.model = model
        self.n_directions = n_directions
        self.width = width
        self.shared_rotation = shared_rotation
        self.quota_strength = quota_strength
        self.final_temperature = final_temperature
        self.weight_decay = weight_decay
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.max_steps = max_steps
        self.device = device
        self.random_state = random_state

    def _is_table(self, values):
        return super()._is_table(values) or not (self.shared_rotation and self.width == "mask")

    def _build(self, n_features, n_concepts, n_inputs, hypernetwork):
        mask = self.width == "mask"
        width = self.n_directions
        if width is None:
            width = n_features if mask else max(1, n_features // 2)
            if self.shared_rotation and not mask:
                width = max(1, n_features // n_concepts)
        if width > n_features:
            raise ValueError(
                f"n_directions={width} is more than the {n_features} columns of the activations. Lower n_directions."
            )
        if not mask:
            if self.shared_rotation and n_concepts * width > n_features:
                raise ValueError(
                    f"shared_rotation=True gives each of the {n_concepts} concepts its own {width} of {n_features} "
                    "columns, which are too few. Lower n_directions, or set shared_rotation=False or width='mask'."
                )
            return Rotations(n_concepts, n_features, width, blocks=self.shared_rotation)
        scores = Scores(width, n_concepts, n_inputs, hypernetwork, start=0.0, spread=0.1)
        return MaskedRotations(
            scores,
            n_concepts,
            n_features,
            width,
            shared=self.shared_rotation,
            strength=self.quota_strength,
            final_temperature=self.final_temperature,
        )
