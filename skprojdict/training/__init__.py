# SPDX-License-Identifier: BSD-3-Clause
"""Training in torch: losses, gradients in adjoint form, the loop. Only this package and ``_array`` import torch."""
