# SPDX-License-Identifier: BSD-3-Clause
"""Rows that do not fit into memory: shards, chunked files and data sets of other libraries, behind one small face.

Everything here is NumPy; libraries of the files are imported where one of their files is met.
"""

from .codes import read_codes, write_codes
from .opening import RowSource, as_source, is_source, open_rows
from .order import Prefetched, ShuffledRows, rows

__all__ = [
    "Prefetched",
    "RowSource",
    "ShuffledRows",
    "as_source",
    "is_source",
    "open_rows",
    "read_codes",
    "rows",
    "write_codes",
]
