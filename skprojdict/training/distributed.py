# SPDX-License-Identifier: BSD-3-Clause
"""One fit in several processes: each takes its rows of every batch, and what the whole batch decides is summed.

The semantics are those of DistributedDataParallel: the same weights in every process, gradients averaged over all rows
of the batch, the same step everywhere. It is written with the collectives themselves, since the losses here have
statistics of the whole batch in them, which the wrapper of a module does not see. A process alone is a group of one,
for which nothing is sent: there is one training loop.
"""

import os
import pickle
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

# How long a process waits for the others. One that has died is noticed at once, by its closed connection or by
# torchrun; this is for machines that fall silent, and longer than the writing of any checkpoint.
TIMEOUT = timedelta(minutes=10)


class LostRankError(RuntimeError):
    """Another process of the same fit has stopped."""


class Ranks:
    """The processes that share a fit.

    Attributes
    ----------
    rank, size : int
        Which of how many this process is; 0 of 1 where it is alone.
    """

    def __init__(self, rank=0, size=1):
        self.rank, self.size = rank, size

    @classmethod
    def of_this_process(cls):
        """Those of the default process group, where one is initialised."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def first(self):
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, n):
        """Slice of the rows that this process takes of a batch of n."""
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def check_batch(self, n):
        """Refuse a batch that leaves a process without a row."""
        if n < self.size:
            raise ValueError(
                f"a batch of {n} rows cannot be split over {self.size} processes. Raise batch_size, or start fewer."
            )

    # ---- the same everywhere

    def from_first(self, function):
        """What ``function`` returns in the first process, or the exception that it raises there, in every process."""
        if self.size == 1:
            return function()
        outcome: list[Any] = [_attempt(function) if self.first else None]
        with _all_there():
            dist.broadcast_object_list(outcome, src=0)
        value, error = outcome[0]
        if error is not None:
            raise error
        return value

    def together(self, function):
        """What ``function`` returns in this process; an exception of one process is raised in all of them."""
        if self.size == 1:
            return function()
        value, error = _attempt(function)
        errors: list[Any] = [None] * self.size
        with _all_there():
            dist.all_gather_object(errors, None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, message in enumerate(errors):
            if message is not None:
                raise LostRankError(f"process {rank} of {self.size} has stopped. {message}")
        return value

    def agree(self, value, difference):
        """Refuse to train where a process was called with something else than the first.

        Parameters
        ----------
        value : plain JSON
        difference : callable
            ``difference(value, first)`` says in words what differs, or gives None.
        """
        if self.size == 1:
            return
        values: list[Any] = [None] * self.size
        with _all_there():
            dist.all_gather_object(values, value)
        for rank, other in enumerate(values):
            reason = difference(values[0], other)
            if reason:
                raise ValueError(
                    f"process {rank} of {self.size} fits something else than process 0: {reason}. Call fit with the "
                    "same parameters and all rows in every process; the rows are split there."
                )

    def spread(self, tensors):
        """Put the first process's values into the tensors of all."""
        if self.size > 1:
            with _all_there(), torch.no_grad():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)

    # ---- sums

    def sum(self, tensor):
        """The sum over all processes, in place."""
        if self.size > 1:
            with _all_there():
                dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters, values):
        """Sum the gradients of all processes in place; return the sums of ``values`` (a 1-d tensor).

        A parameter that no process has a gradient for keeps none.
        """
        if self.size == 1:
            return values
        has = torch.tensor([p.grad is not None for p in parameters], dtype=values.dtype, device=values.device)
        both = self.sum(torch.cat([values, has]))
        with _all_there():
            works = []
            for parameter, count in zip(parameters, both[len(values) :].tolist(), strict=True):
                if count:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    works.append(dist.all_reduce(parameter.grad, async_op=True))
            for work in works:
                work.wait()
        return both[: len(values)]

    @contextmanager
    def batch(self, n, n_rows):
        """For the losses: this process holds n of the ``n_rows`` rows of a batch."""
        token = _place.set(_Place(self, n, n_rows) if self.size > 1 else None)
        try:
            yield
        finally:
            _place.reset(token)


# ---- statistics of the whole batch, for the losses


class _Place(NamedTuple):
    """What a process holds of a batch."""

    ranks: Ranks
    n: int
    n_rows: int


_place: ContextVar[_Place | None] = ContextVar("place", default=None)


@torch.no_grad()
def batch_mean(mean):
    """The mean over the whole batch, from the mean over the rows at hand; without gradient where they differ."""
    place = _place.get()
    if place is None:
        return mean
    return place.ranks.sum(mean.detach() * (place.n / place.n_rows))


def batch_rows(n):
    """``(first, n_rows)``: the place of the n rows at hand in the whole batch, and its number of rows."""
    place = _place.get()
    return (0, n) if place is None else (place.ranks.share(place.n_rows).start, place.n_rows)


@torch.no_grad()
def batch_values(rows, fill):
    """Values (n, c) of the rows of the whole batch, in a process that holds some; missing ones are ``fill``."""
    place = _place.get()
    if place is None:
        return rows
    most = -(-place.n_rows // place.ranks.size)
    padded = torch.nn.functional.pad(rows.detach(), (0, 0, 0, most - rows.shape[0]), value=fill).contiguous()
    parts = [torch.empty_like(padded) for _ in range(place.ranks.size)]
    with _all_there():
        dist.all_gather(parts, padded)
    return torch.cat(parts)


# ---- processes


@contextmanager
def launched():
    """Join the processes that torchrun started, for as long as the context lasts; alone there is nothing to join.

    Yields
    ------
    ranks : Ranks
    """
    if not dist.is_available() or not dist.is_torchelastic_launched() or dist.is_initialized():
        yield Ranks.of_this_process()
        return
    cuda = torch.cuda.is_available() and dist.is_nccl_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=TIMEOUT)
    try:
        yield Ranks.of_this_process()
    finally:
        dist.destroy_process_group()


def _attempt(function):
    """``(value, None)`` or ``(None, exception)``; the exception can be pickled."""
    try:
        return function(), None
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return None, error


@contextmanager
def _all_there():
    try:
        yield
    except RuntimeError as error:  # what torch.distributed raises for all that can go wrong
        raise LostRankError(
            f"another process of this fit has stopped or cannot be reached ({str(error).splitlines()[0]}). The last "
            "checkpoint is whole: start all processes again with fit(resume=True)."
        ) from error
