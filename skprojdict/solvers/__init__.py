# SPDX-License-Identifier: BSD-3-Clause
"""Solvers: pure functions of arrays, in any array API namespace. They know nothing of estimators."""
