# SPDX-License-Identifier: BSD-3-Clause
"""Small networks, trained here in seconds, whose causal variables are known: where alignment can be checked."""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn

from ..training.pace import schedule
from .loop import DECAY

__all__ = ["EntityTask", "EqualityTask", "Interchanges"]


class Interchanges(NamedTuple):
    """Examples of interchanges, as ndarrays of n rows.

    Parameters
    ----------
    base, source : ndarray of shape (n, d)
        Activations to change, and to copy from.
    labels : integer ndarray of shape (n,)
        Wanted outputs.
    concepts : ndarray of shape (n,) or (n, c)
        What is to be interchanged.
    context : ndarray, tuple of ndarrays or None
        What the rest of the network needs besides.
    cause : bool ndarray of shape (n,)
        Whether the wanted output is the source's.
    counterfactual : ndarray of shape (n, d)
        Activations of the input that truly has the source's value of the concept and the rest from the base.
    """

    base: Any
    source: Any
    labels: Any
    concepts: Any
    context: Any
    cause: Any
    counterfactual: Any

    def __getitem__(self, rows):
        """All fields of some rows (an index array, a mask or a slice); a name or number gives a field."""
        if isinstance(rows, (int, np.integer)):
            return tuple.__getitem__(self, rows)
        return Interchanges(*(None if field is None else field[rows] for field in self))

    def arguments(self):
        """``(base, source, labels, concepts)`` and ``{"context": ...}``: what fit and score of a search take."""
        return (self.base, self.source, self.labels, self.concepts), {"context": self.context}


class _Task:
    """A trained network, cut at the site; it is kept without gradients."""

    def _train(self, network, batch, n_steps, batch_size, learning_rate, weight_decay):
        optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
        for step in range(n_steps):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * schedule(step, n_steps, decay=DECAY)
            logits, labels = batch(batch_size)
            loss = nn.functional.cross_entropy(logits, labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        network.requires_grad_(False).eval()


class EqualityTask(_Task):
    """Hierarchical equality (Geiger et al., 2024): whether "w = x" and "y = z" are both true or both false.

    Trains a ReLU network on four objects, vectors uniform in [-1, 1]; its label is [(w = x) = (y = z)]. The site is the
    first hidden layer, the concepts are 0 for [w = x] and 1 for [y = z].

    Parameters
    ----------
    object_size : int, default=4
        Length of an object.
    width : int, default=16
        Units of a hidden layer; columns of the site.
    n_layers : int, default=3
        Hidden layers.
    n_steps : int, default=5000
        Training steps of 1024 inputs.
    learning_rate : float, default=0.005
        Of AdamW.
    weight_decay : float, default=0.3
        Decides how well the two variables can be told apart at the site: without it networks are as accurate, but no
        8 directions carry more than 80 to 92 % of the interchanges.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    site : torch.nn.Module
        From inputs (n, 4 * object_size) to activations (n, width).
    model : torch.nn.Module
        From activations to logits (n, 2): the ``model`` of an alignment search.
    accuracy : float
        On 16384 fresh inputs.

    References
    ----------
    Geiger, Wu, Potts, Icard, Goodman (2024). Finding alignments between interpretable causal variables and distributed
    neural representations. CLeaR, section 4.

    Examples
    --------
    >>> from skprojdict.alignment.tasks import EqualityTask
    >>> task = EqualityTask(n_steps=20, random_state=0)
    >>> examples = task.interchanges(100, random_state=1)
    >>> examples.base.shape, sorted(set(examples.concepts.tolist()))
    ((100, 16), [0, 1])
    """

    def __init__(
        self,
        *,
        object_size=4,
        width=16,
        n_layers=3,
        n_steps=5000,
        learning_rate=0.005,
        weight_decay=0.3,
        random_state=None,
    ):
        self.object_size = object_size
        rng = check_random_state(random_state)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.randint(2**31 - 1)))
            sizes = [4 * object_size] + [width] * n_layers
            layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
            self.network = nn.Sequential(*layers, nn.Linear(width, 2))
        self.site, self.model = self.network[0], self.network[1:]

        def batch(n):
            inputs, equal = self.inputs(n, rng)
            return self.network(torch.from_numpy(inputs)), torch.from_numpy(_same(equal))

        self._train(self.network, batch, n_steps, 1024, learning_rate, weight_decay)
        logits, labels = batch(16384)
        self.accuracy = float((logits.argmax(1) == labels).float().mean())

    def inputs(self, n, random_state=None):
        """Random inputs and their variables.

        Parameters
        ----------
        n : int
        random_state : int, RandomState instance or None, default=None

        Returns
        -------
        inputs : float32 array of shape (n, 4 * object_size)
        variables : bool array of shape (n, 2)
            [w = x] and [y = z].
        """
        rng = check_random_state(random_state)
        objects = rng.uniform(-1, 1, size=(n, 4, self.object_size)).astype(np.float32)
        equal = rng.uniform(size=(n, 2)) < 0.5
        return _with_equality(objects, equal).reshape(n, -1), equal

    def interchanges(self, n, random_state=None):
        """Random interchanges of one of the two variables.

        Parameters
        ----------
        n : int
        random_state : int, RandomState instance or None, default=None

        Returns
        -------
        examples : Interchanges
            ``cause`` is true where the source's variable differs from the base's: the wanted label then changes.
        """
        rng = check_random_state(random_state)
        (base, equal), (source, other) = self.inputs(n, rng), self.inputs(n, rng)
        concepts = rng.randint(2, size=n)
        swapped = np.arange(2) == concepts[:, None]
        # The counterfactual input takes the source's own pair of objects: it then has the source's value for sure.
        half = 2 * self.object_size
        counterfactual = np.where(np.repeat(swapped, half, axis=1), source, base)
        mixed = np.where(swapped, other, equal)
        return Interchanges(
            base=_read(self.site, base),
            source=_read(self.site, source),
            labels=_same(mixed),
            concepts=concepts,
            context=None,
            cause=_same(mixed) != _same(equal),
            counterfactual=_read(self.site, counterfactual),
        )


class EntityTask(_Task):
    """Entities with attributes, and a network that answers for each attribute which value an entity has.

    An entity of type t is a tuple of attribute values. The network embeds and sums them, and passes through the site;
    its second half is asked for one attribute of a type and answers with the value. Every attribute needs
    ``n_values - 1`` dimensions of the site, so that ``n_types * n_attributes * (n_values - 1)`` against ``n_features``
    decides how much attributes share them. Noise at the site, a tenth of the activations' size, keeps values apart.

    Parameters
    ----------
    n_types, n_attributes, n_values : int, default=1, 6, 4
        Concepts are the ``n_types * n_attributes`` attributes of types.
    n_features : int, default=32
        Columns of the site.
    width : int, default=192
        Units of the other layers.
    n_steps : int, default=4000
        Training steps of 512 entities.
    learning_rate : float, default=0.002
    noise : float, default=0.1
        Relative size of the noise in training.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    model : callable
        ``model(activations, queries)``, with queries (n,) the numbers t * n_attributes + a that are asked for.
    accuracy : float
        On fresh held-out entities, without noise.

    Examples
    --------
    >>> from skprojdict.alignment.tasks import EntityTask
    >>> task = EntityTask(n_attributes=3, width=16, n_steps=20, random_state=0)
    >>> examples = task.interchanges(100, [[0], [0, 2]], random_state=1)
    >>> examples.concepts.shape, examples.context.shape
    ((100, 3), (100,))
    """

    def __init__(
        self,
        *,
        n_types=1,
        n_attributes=6,
        n_values=4,
        n_features=32,
        width=192,
        n_steps=4000,
        learning_rate=0.002,
        noise=0.1,
        random_state=None,
    ):
        self.n_types, self.n_attributes, self.n_values = n_types, n_attributes, n_values
        self.n_features, self.noise = n_features, noise
        rng = check_random_state(random_state)
        with torch.random.fork_rng(devices=[]):
            seed = int(rng.randint(2**31 - 1))
            torch.manual_seed(seed)
            self.network = _Entities(n_types * n_attributes, n_values, n_features, width)
        self.model = self.network.answer
        generator = torch.Generator().manual_seed(seed)

        def batch(n, noise=self.noise, held_out=False):
            types, values = self.entities(n, rng, held_out=held_out)
            asked = rng.randint(n_attributes, size=n)
            h = self.network.embed(torch.from_numpy(self._slots(types, values)))
            scale = noise * h.detach().square().mean().sqrt()
            h = h + scale * torch.randn(h.shape, generator=generator)
            queries = torch.from_numpy(types * n_attributes + asked)
            return self.model(h, queries), torch.from_numpy(values[np.arange(n), asked])

        self._train(self.network, batch, n_steps, 512, learning_rate, 0.0)
        logits, labels = batch(8192, 0.0, True)
        self.accuracy = float((logits.argmax(1) == labels).float().mean())

    def entities(self, n, random_state=None, *, held_out=False):
        """Random entities. A fifth of all tuples of values, by a hash, are held out.

        Parameters
        ----------
        n : int
        random_state : int, RandomState instance or None, default=None
        held_out : bool, default=False
            Draw from the tuples that are held out, instead of from the others.

        Returns
        -------
        types : int array of shape (n,)
        values : int array of shape (n, n_attributes)
        """
        rng = check_random_state(random_state)
        types = rng.randint(self.n_types, size=n)
        values = rng.randint(self.n_values, size=(n, self.n_attributes))
        wrong = np.flatnonzero(_held_out(values) != held_out)
        while wrong.size:
            values[wrong] = rng.randint(self.n_values, size=(wrong.size, self.n_attributes))
            wrong = wrong[_held_out(values[wrong]) != held_out]
        return types, values

    def activations(self, types, values):
        """Activations of entities at the site.

        Parameters
        ----------
        types : int array of shape (n,)
        values : int array of shape (n, n_attributes)

        Returns
        -------
        activations : float32 array of shape (n, n_features)
        """
        return _read(self.network.embed, self._slots(types, values))

    def interchanges(self, n, concepts=None, random_state=None, *, cause_share=0.5, held_out=False):
        """Random interchanges between two entities of one type, with the attribute that is asked for.

        Where the attribute asked for belongs to the concept, the wanted answer is the source's value (cause), else the
        base's (isolation). Only pairs whose two answers differ are drawn.

        Parameters
        ----------
        n : int
        concepts : list of lists of int, default=None
            Sets of attributes that are swapped together, for tasks of one type: concepts are then their indicator
            vectors (n, n_attributes). None: single attributes of types, as numbers t * n_attributes + a.
        random_state : int, RandomState instance or None, default=None
        cause_share : float, default=0.5
            Probability of a cause example.
        held_out : bool, default=False
            Base and source from the held-out entities.

        Returns
        -------
        examples : Interchanges
        """
        rng = check_random_state(random_state)
        types, base = self.entities(n, rng, held_out=held_out)
        members = self._members(n, types, concepts, rng)
        cause = (rng.uniform(size=n) < cause_share) | members.all(axis=1)
        # A random attribute inside the concept for cause, outside for isolation.
        asked = np.argmax(np.where(members == cause[:, None], rng.uniform(size=members.shape), -1.0), axis=1)
        source = self.entities(n, rng, held_out=held_out)[1]
        rows = np.arange(n)
        same = np.flatnonzero(base[rows, asked] == source[rows, asked])
        while same.size:
            source[same] = self.entities(same.size, rng, held_out=held_out)[1]
            same = same[base[same, asked[same]] == source[same, asked[same]]]
        labels = np.where(cause, source[rows, asked], base[rows, asked])
        names = types * self.n_attributes + np.argmax(members, axis=1)
        return Interchanges(
            base=self.activations(types, base),
            source=self.activations(types, source),
            labels=labels,
            concepts=names if concepts is None else members.astype(np.float32),
            context=types * self.n_attributes + asked,
            cause=cause,
            counterfactual=self.activations(types, np.where(members, source, base)),
        )

    def _members(self, n, types, concepts, rng):
        """Which attributes are swapped, bool (n, n_attributes)."""
        if concepts is None:
            return rng.randint(self.n_attributes, size=n)[:, None] == np.arange(self.n_attributes)
        if self.n_types != 1:
            raise ValueError(f"concepts as sets of attributes need a task of one type, got n_types={self.n_types}.")
        table = np.zeros((len(concepts), self.n_attributes), dtype=bool)
        for number, members in enumerate(concepts):
            table[number, list(members)] = True
        if not table.any(axis=1).all():
            raise ValueError("concepts must be sets of at least one attribute.")
        return table[rng.randint(len(concepts), size=n)]

    def _slots(self, types, values):
        """Rows of the embedding table, one for each type, attribute and value."""
        attributes = types[:, None] * self.n_attributes + np.arange(self.n_attributes)
        return attributes * self.n_values + values


class _Entities(nn.Module):
    def __init__(self, n_queries, n_values, n_features, width):
        super().__init__()
        self.embedding = nn.Embedding(n_queries * n_values, width)
        self.inward = nn.Linear(width, n_features)
        self.outward = nn.Linear(n_features, width)
        self.query = nn.Embedding(n_queries, width)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, n_values))
        nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(n_values))

    def embed(self, slots):
        """From rows of the table (n, n_attributes) to the site."""
        return self.inward(torch.relu(self.embedding(slots).sum(1)))

    def answer(self, activations, queries):
        """From the site and the attribute asked for to logits over values."""
        return self.rest(self.outward(activations) + self.query(queries))


def _with_equality(objects, equal):
    objects[:, 1] = np.where(equal[:, :1], objects[:, 0], objects[:, 1])
    objects[:, 3] = np.where(equal[:, 1:], objects[:, 2], objects[:, 3])
    return objects


def _same(pair):
    return (pair[:, 0] == pair[:, 1]).astype(np.int64)


def _held_out(values):
    """A fifth of all tuples: a fixed multiplicative hash, the same for every task."""
    mixed = np.zeros(values.shape[0], dtype=np.uint64)
    for column in values.T:
        mixed = (mixed * np.uint64(31) + column.astype(np.uint64) + np.uint64(7)) * np.uint64(2654435761)
        mixed ^= mixed >> np.uint64(15)
    return mixed % np.uint64(5) == 0


@torch.no_grad()
def _read(function, rows):
    return function(torch.from_numpy(rows)).numpy()
