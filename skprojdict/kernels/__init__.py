# SPDX-License-Identifier: BSD-3-Clause
"""Loops over rows of NumPy arrays, compiled by Numba: what array code spends most of its time on.

Each stands for array code elsewhere, which serves all other arrays and those without the extra "numba". Importing a
file with kernels needs that extra.
"""
