# SPDX-License-Identifier: BSD-3-Clause
"""What is written on disk, as functions of arrays and dictionaries; nothing here knows an estimator or torch."""
