# SPDX-License-Identifier: BSD-3-Clause
"""The toy model of superposition: hidden activations of a small network that was trained to squeeze features in."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import Interval, validate_params

__all__ = ["make_toy_superposition"]


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_features": [Interval(Integral, 1, None, closed="left")],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "density": [Interval(Real, 0, 1, closed="right")],
        "importance": [Interval(Real, 0, 1, closed="right"), "array-like"],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_toy_superposition(
    n_samples=1000,
    *,
    n_features=20,
    n_components=80,
    density=0.05,
    importance=0.97,
    n_steps=3000,
    batch_size=1024,
    learning_rate=1e-2,
    random_state=None,
):
    """Train the ReLU output model of Elhage et al. and return its hidden activations, with the features behind them.

    The model minimises the expected ``sum_i importance_i (x_i - relu(W (W^T x) + b)_i)^2`` over the weights W
    (n_components, n_features) and the bias b, for features x_i that are 0 with probability ``1 - density`` and uniform
    in [0, 1] else. With sparse features it represents more of them than it has dimensions. The hidden activations
    ``x @ W`` are the data of a dictionary learner; here the truth was *learned*, so its atoms avoid each other, while
    those of :func:`make_sparse_features` overlap by chance.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of rows.
    n_features : int, default=20
        Columns of the data: hidden dimensions of the model.
    n_components : int, default=80
        Features that the model is asked to represent.
    density : float, default=0.05
        Probability that a feature is on (one minus the paper's sparsity).
    importance : float or array of shape (n_components,), default=0.97
        Weights of the features in the loss; a number r stands for ``r ** i``, and 1 makes all alike.
    n_steps : int, default=3000
        Steps of Adam; the learning rate decays to 0 along a half cosine. The default takes seconds.
    batch_size : int, default=1024
        Fresh draws of x in a step.
    learning_rate : float, default=1e-2
        Learning rate of the first step.
    random_state : int, RandomState instance or None, default=None
        Decides everything; the global state of torch is neither read nor changed.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        ``X`` of shape (n_samples, n_features), the hidden activations; ``dictionary`` of shape (n_components,
        n_features), the directions of the features (rows of W with unit norm); ``codes`` of shape (n_samples,
        n_components), the features in units of their directions, so that ``X = codes @ dictionary``; ``features`` of
        the same shape, x itself; ``weights`` W, ``bias`` b and ``importance`` of the model. All float64 ndarrays. A
        feature that the model gave up has a row of W near zero: leave those out of what is to be recovered.

    Raises
    ------
    ValueError
        If ``importance`` is an array of another length or has a negative or non-finite entry.

    References
    ----------
    Elhage et al., "Toy models of superposition", Transformer Circuits Thread, 2022, "Demonstrating superposition".

    Examples
    --------
    >>> from skprojdict.datasets import make_toy_superposition
    >>> data = make_toy_superposition(200, n_features=2, n_components=5, importance=1.0, n_steps=50, random_state=0)
    >>> data.X.shape, data.dictionary.shape
    ((200, 2), (5, 2))
    """
    if isinstance(importance, Real):
        importance = float(importance) ** np.arange(n_components)
    importance = np.asarray(importance, dtype=np.float64)
    if importance.shape != (n_components,):
        raise ValueError(
            f"importance has shape {importance.shape}: pass one number, or one weight for each of the "
            f"n_components={n_components} features."
        )
    if not (np.isfinite(importance).all() and (importance >= 0).all()):
        raise ValueError("importance has an entry that is negative or not finite: pass weights of at least 0.")
    rng = check_random_state(random_state)
    seed = int(rng.randint(2**31 - 1))
    weights, bias = _train(n_features, importance, density, n_steps, batch_size, learning_rate, seed)
    features = rng.uniform(size=(n_samples, n_components)) * (rng.uniform(size=(n_samples, n_components)) < density)
    norms = np.linalg.norm(weights, axis=1)
    return Bunch(
        X=features @ weights,
        dictionary=weights / np.maximum(norms, np.finfo(np.float64).tiny)[:, None],
        codes=features * norms,
        features=features,
        weights=weights,
        bias=bias,
        importance=importance,
    )


def _train(n_features, importance, density, n_steps, batch_size, learning_rate, seed):
    """Weights (n_components, n_features) and bias (n_components,) after ``n_steps`` of Adam, as float64."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    n_components = importance.size
    scale = (2 / (n_components + n_features)) ** 0.5  # Glorot's, as in the paper's notebook
    weights = torch.randn(n_components, n_features, generator=generator).mul_(scale).requires_grad_()
    bias = torch.zeros(n_components, requires_grad=True)
    importances = torch.from_numpy(importance).float()
    optimizer = torch.optim.Adam([weights, bias], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    shape = batch_size, n_components
    for _ in range(n_steps):
        x = torch.rand(shape, generator=generator) * (torch.rand(shape, generator=generator) < density)
        output = torch.relu(x @ weights @ weights.T + bias)
        loss = (importances * (x - output) ** 2).sum() / batch_size
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return weights.detach().numpy().astype(np.float64), bias.detach().numpy().astype(np.float64)
