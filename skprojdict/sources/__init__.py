# SPDX-License-Identifier: BSD-3-Clause
"""Rows that do not fit into memory: shards, chunked files and data sets of other libraries, behind one small face.

Everything here is NumPy; libraries of the files are imported where one of their files is met.
"""

from .ahead import ForwardRows, Prefetched, ReadAhead, forward
from .codes import read_codes, write_codes
from .dask_rows import DaskRows, is_dask
from .opening import RowSource, UnreadableRowsError, as_source, is_source, open_rows, prototype
from .order import ShuffledRows, rows

__all__ = [
    "DaskRows",
    "ForwardRows",
    "Prefetched",
    "ReadAhead",
    "RowSource",
    "ShuffledRows",
    "UnreadableRowsError",
    "as_source",
    "forward",
    "is_dask",
    "is_source",
    "open_rows",
    "prototype",
    "read_codes",
    "rows",
    "write_codes",
]
