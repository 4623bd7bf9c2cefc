# SPDX-License-Identifier: BSD-3-Clause
"""The command line: ``skprojdict compare | fit | transform | score``, for people with a file of activations.

Results go to standard output, progress and errors to standard error. Exit codes: 0, 2 for input that must be repaired
(one line says which, and how) or a fit that diverged, 1 for a write that failed or another process of the fit that has
stopped, 130 for an interruption.
"""

import os
import sys

from skprojdict.cli.files import InputError, StoppedError
from skprojdict.cli.parser import build_parser

__all__ = ["main"]


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments without the program's name. None takes those of the process.

    Returns
    -------
    code : int
        Exit code.
    """
    options = build_parser().parse_args(argv)
    try:
        options.run(options)
    except (InputError, FloatingPointError) as error:
        return _fail(error, 2)
    except StoppedError as error:
        return _fail(error, 1)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'writing'}: {error.strerror or error}; nothing half-written was kept.", 1)
    except KeyboardInterrupt as error:
        return _fail(str(error) or "interrupted; nothing half-written was kept.", 130)
    return 0


def _fail(message, code):
    print(f"skprojdict: error: {' '.join(str(message).split())}", file=sys.stderr)
    return code
