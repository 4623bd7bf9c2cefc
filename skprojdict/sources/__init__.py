# SPDX-License-Identifier: BSD-3-Clause
"""Rows that do not fit into memory: shards, chunked files and data sets of other libraries, behind one small face.

Everything here is NumPy; libraries of the files are imported where one of their files is met.
"""

# Named as themselves: for the rest of the package. What users need is in __all__.
from .ahead import ForwardRows as ForwardRows
from .ahead import Prefetched as Prefetched
from .ahead import ReadAhead as ReadAhead
from .ahead import forward as forward
from .codes import read_codes, write_codes
from .dask_rows import DaskRows as DaskRows
from .dask_rows import is_dask as is_dask
from .opening import RowSource as RowSource
from .opening import UnreadableRowsError, open_rows
from .opening import as_source as as_source
from .opening import is_source as is_source
from .opening import prototype as prototype
from .order import ShuffledRows as ShuffledRows
from .order import rows

__all__ = ["UnreadableRowsError", "open_rows", "read_codes", "rows", "write_codes"]
