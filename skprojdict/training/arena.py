# SPDX-License-Identifier: BSD-3-Clause
"""Memory on the host that every step of a training uses again.

What a step allocates in large blocks (scores of all atoms, then gradients) would go back to the system when the step
ends, and costs more to touch anew than it costs to fill: 50 MB are written in 4 ms, and in 8 to 100 where the pages are
fresh, most in virtual machines that give free memory back to their host.
"""

import math
import weakref

import numpy as np

from .._memory import ALIGNMENT, aligned_bytes


class Arena:
    """A block of memory that is lent in pieces, each of which comes back when its array is garbage.

    It is as large as what was ever lent at once: what finds no room gets memory of its own, and has room from the time
    on when nothing is lent.
    """

    def __init__(self):
        self._room = np.empty(0, dtype=np.uint8)
        self._wanted = 0
        self._lent = {}  # where each piece starts: its end, and a reference that knows when it is garbage

    def take(self, shape, dtype):
        """An array whose entries are yet to be written."""
        number = math.prod(shape)
        size = -(-number * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT
        if not size:
            return np.empty(shape, dtype=dtype)
        start = 0
        for first, (end, _) in sorted(self._lent.copy().items()):  # a copy: pieces may come back while it is sorted
            if first - start >= size:
                break
            start = end
        if not self._lent and self._wanted > self._room.size:
            self._room = np.empty(0, dtype=np.uint8)  # before there is a larger one
            self._room = aligned_bytes(self._wanted)
        self._wanted = max(self._wanted, start + size)
        place = aligned_bytes(size) if start + size > self._room.size else self._room[start : start + size]
        piece = place.view(dtype)[:number].reshape(shape)
        lent = self._lent  # not self: the arena has to end with its owner, not with a collection of cycles
        lent[start] = start + size, weakref.ref(piece, lambda _: lent.pop(start))
        return piece
