# SPDX-License-Identifier: BSD-3-Clause
"""Run ``skprojdict`` or ``python -m skprojdict``."""

import sys

from skprojdict.cli import main

if __name__ == "__main__":
    sys.exit(main())
