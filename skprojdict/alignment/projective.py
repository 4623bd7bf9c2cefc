# SPDX-License-Identifier: BSD-3-Clause
"""The projective form of alignment search: concepts choose atoms of one dictionary."""

from numbers import Integral, Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._array import OnTensors, from_torch
from ._search import _AlignmentSearch
from .concepts import distinct
from .subspaces import Dictionary, Scores


class ProjectiveAlignmentSearch(_AlignmentSearch):
    """Alignment search over a shared dictionary: each concept projects on the atoms that it chooses (Sklar, 2024).

    Concept c, by its number or description z_c, gives scores ``a_c = W z_c + b``, precisions ``s_c = phi(a_c)`` and the
    ridge projection H_c on unit-norm atoms f_j, shared by all concepts::

        H_c x = sum_j beta_j f_j ,   beta = argmin || x - sum_j beta_j f_j ||^2 + sum_j beta_j^2 / s_cj

    Minimises the weighted mean of ``CE(model(base + H_c (source - base)), label)``, plus, averaged over concepts, the
    quota ``gamma * sum_j s_cj / (1 + s_cj)`` on the effective dimension and the overlap
    ``rho * sum_{i != j} (f_i . f_j)^2 w_i w_j`` with w = s / (1 + s). The choice depends on the concept alone, so base
    and source are projected on the same subspace.

    Parameters
    ----------
    model : callable
        The rest of the network: maps a tensor of activations (and the contexts given to ``fit``) to logits. It is
        frozen: no weight and no ``.grad`` of it changes; a module is put into evaluation mode meanwhile.
    n_atoms : int, default=None
        Atoms of the dictionary. None: 4 times the number of columns.
    penalty : {"inverse_square", "softplus", "exp"} or callable, default="inverse_square"
        phi, from scores to precisions s = 1 / lambda: relu(a)^2 (the paper's), log(1 + e^a), e^a, or an elementwise
        torch function with values >= 0. Only the first leaves the scores of an atom that is out where they are, and
        so lets descriptions be composed.
    quota_strength : float, default=0.05
        gamma, the price of one dimension, in nats of loss.
    overlap_penalty : float, default=0.0
        rho.
    max_atoms : int, default=None
        Only so many atoms of the highest score take part, for each concept. None: all do, each as far as its precision
        goes.
    final_temperature : float, default=1.0
        Below 1, precisions are raised to the power 1 / T, with T falling from 1 to this over training, so that atoms
        end up in or out. 1: they stay as soft as they come.
    hypernetwork : torch.nn.Module, default=None
        Maps concepts (n_concepts, ...) to vectors z (n_concepts, n_outputs). A copy of it is trained along:
        ``hypernetwork_``. None: z is the description itself, or the concept's own row of a table where it is a label.
    weight_decay : float, default=0.2
        Decoupled decay (AdamW) of W where concepts describe themselves: what a description says of atoms that it does
        not need goes to 0, and descriptions add up. Without effect on labels.
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
    components_ : array of shape (n_atoms, n_features)
        Unit-norm atoms.
    precisions_ : array of shape (n_concepts, n_atoms)
        Precision of every atom for each concept of fit; :meth:`precisions` gives those of others.
    directions_ : array of shape (n_concepts, n_directions, n_features)
        Orthonormal directions of each concept's hard subspace: eigenvectors of H_c that it swaps by more than a third,
        the most complete first, padded with rows of zeros where ranks differ.
    rank_ : integer array of shape (n_concepts,)
        Dimensions of the hard subspaces.
    effective_dimension_ : array of shape (n_concepts,)
        ``tr H`` of the soft projections, as training saw them.
    concepts_ : ndarray of shape (n_concepts,) or (n_concepts, ...)
        The distinct concepts of fit, in the order of the other attributes.
    hypernetwork_ : torch.nn.Module or None
    history_ : dict of lists
        "step", "loss", "accuracy" (soft, of the training batches), "effective_dimension"; one entry for 100 steps.
    n_steps_, n_features_in_ : int

    See Also
    --------
    DistributedAlignmentSearch : One rotation for each concept.
    HouseholderAlignmentSearch : One rotation for all, reflected by the concept.

    References
    ----------
    Sklar (2024). Projective Dictionaries, section 6.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.alignment import ProjectiveAlignmentSearch
    >>> rng = np.random.default_rng(0)
    >>> base, source = rng.standard_normal((2, 2000, 2))
    >>> def sign_of_sum(h):  # the model reads one direction, (1, 1)
    ...     return (h.sum(1, keepdim=True) * h.new_tensor([[-9.0, 9.0]]))
    >>> labels = (source.sum(axis=1) > 0).astype(int)
    >>> concepts = np.zeros(2000, dtype=int)
    >>> search = ProjectiveAlignmentSearch(sign_of_sum, max_steps=600, random_state=0)
    >>> search.fit(base, source, labels, concepts).rank_
    array([1])
    >>> bool(search.score(base, source, labels, concepts) > 0.98)
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        **_AlignmentSearch._parameter_constraints,
        "n_atoms": [None, Interval(Integral, 1, None, closed="left")],
        "penalty": [StrOptions({"softplus", "inverse_square", "exp"}), callable],
        "quota_strength": [Interval(Real, 0, None, closed="left")],
        "overlap_penalty": [Interval(Real, 0, None, closed="left")],
        "max_atoms": [None, Interval(Integral, 1, None, closed="left")],
        "final_temperature": [Interval(Real, 0, 1, closed="right")],
        "hypernetwork": [None, nn.Module],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        model,
        n_atoms=None,
        *,
        penalty="inverse_square",
        quota_strength=0.05,
        overlap_penalty=0.0,
        max_atoms=None,
        final_temperature=1.0,
        hypernetwork=None,
        weight_decay=0.2,
        learning_rate=0.01,
        batch_size=512,
        max_iter=10,
        max_steps=None,
        device=None,
        random_state=None,
    ):
        self.model = model
        self.n_atoms = n_atoms
        self.penalty = penalty
        self.quota_strength = quota_strength
        self.overlap_penalty = overlap_penalty
        self.max_atoms = max_atoms
        self.final_temperature = final_temperature
        self.hypernetwork = hypernetwork
        self.weight_decay = weight_decay
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.max_steps = max_steps
        self.device = device
        self.random_state = random_state

    def precisions(self, concepts):
        """Precision of every atom for concepts, also ones that fit did not see.

        Parameters
        ----------
        concepts : array of shape (n_concepts,) or (n_concepts, ...)

        Returns
        -------
        precisions : array of shape (n_concepts, n_atoms)
            In the namespace of the training data. 0 for an atom that the concept does without.
        """
        check_is_fitted(self)
        found = distinct(concepts)
        with torch.no_grad():
            s = self._subspaces.precision(self._read(found.values))
        return from_torch(s[torch.from_numpy(found.ids).to(s.device)], self.directions_)

    def _build(self, n_features, n_concepts, n_inputs, hypernetwork):
        n_atoms = 4 * n_features if self.n_atoms is None else int(self.n_atoms)
        penalty = {"exp": torch.exp}.get(self.penalty, self.penalty) if isinstance(self.penalty, str) else self.penalty
        start = START.get(self.penalty, 1.0) if isinstance(self.penalty, str) else 1.0
        scores = Scores(n_atoms, n_concepts, n_inputs, hypernetwork, start=start, spread=SPREAD)
        return Dictionary(
            scores,
            n_atoms,
            n_features,
            penalty=OnTensors(penalty, "penalty") if callable(penalty) else penalty,
            strength=self.quota_strength,
            overlap=self.overlap_penalty,
            max_atoms=n_atoms if self.max_atoms is None else min(n_atoms, self.max_atoms),
            final_temperature=self.final_temperature,
        )

    def _store(self, base, read):
        super()._store(base, read)
        with torch.no_grad():
            self.precisions_ = from_torch(self._subspaces.precision(read), base)
        self.components_ = from_torch(self._subspaces.components, base)
        self.hypernetwork_ = self._subspaces.scores.hypernetwork


# Scores at the start, where precisions are 1: every atom takes a part, so that all of them hear whether they help. From
# below, atoms learn to need two concepts at once, and say nothing on pairs that training did not show.
START = {"inverse_square": 1.0, "softplus": 0.5, "exp": 0.0}
SPREAD = 0.1
