# SPDX-License-Identifier: BSD-3-Clause
"""Tests: numerical truth first, then behaviour, then faults."""
