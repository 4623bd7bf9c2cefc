# SPDX-License-Identifier: BSD-3-Clause
"""How fast the weights of a form move: what its estimator states, and the training loop follows."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Step sizes of one form.

    Parameters
    ----------
    rate, largest_rate : float
        The peak learning rate of p atoms is ``rate / sqrt(p)``, and ``largest_rate`` at most.
    decay : float, default=0.9
        Share of the steps, the last ones, over which the rate falls to 0.
    bias_rate : float, default=1.0
        Learning rate of the encoder's bias, relative to the others'.
    unit_gradient : bool, default=False
        Bring the gradient of every step to norm 1, instead of cutting it off there. Adam divides by a running mean of
        about 1000 squared gradients, in which the large first ones shrink all steps of a short fit.
    """

    rate: float
    largest_rate: float
    decay: float = 0.9
    bias_rate: float = 1.0
    unit_gradient: bool = False

    def peak(self, n_components):
        """The peak learning rate of so many atoms."""
        return min(self.largest_rate, self.rate / math.sqrt(n_components))

    def factor(self, step, n_steps):
        """What the peak rate is multiplied by in one of ``n_steps``."""
        return schedule(step, n_steps, self.decay)


def schedule(step, n_steps, decay=0.9):
    """Factor of the learning rate: linear warm-up over the first 5 % of the steps, linear decay over a last share."""
    warm_up = max(1, round(0.05 * n_steps))
    falling = max(1, round(decay * n_steps))
    return min(1.0, (step + 1) / warm_up, (n_steps - step) / falling)
