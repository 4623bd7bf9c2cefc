# SPDX-License-Identifier: BSD-3-Clause
"""The arguments of every command, and their help."""

import argparse
from importlib import import_module

METHODS = {
    "projective": "ProjectiveDictionaryLearning",
    "topk": "TopKDictionaryLearning",
    "relu": "ReLUDictionaryLearning",
    "jumprelu": "JumpReLUDictionaryLearning",
    "gated": "GatedDictionaryLearning",
    "mod": "MethodOfOptimalDirections",
}
# What "compare" fits: these, and scikit-learn's learner.
SKLEARN = "sklearn"
COMPARED = ("projective", "topk", "mod", SKLEARN)

_DATA = "files of rows: .npy, .safetensors, HDF5 or Zarr (FILE::NAME for one of several arrays); several are shards"


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show defaults, and keep the line breaks of descriptions and examples."""

    def _get_help_string(self, action):
        # An empty default says nothing; the help text then tells what happens.
        silent = action.default is None or action.default is False or action.default == []
        if not silent and isinstance(action.default, list):
            return f"{action.help} (default: {' '.join(action.default)})"
        return action.help if silent else super()._get_help_string(action)


def build_parser():
    """Return the parser of the whole command line; each command stores its function as ``run``."""
    parser = argparse.ArgumentParser(
        prog="skprojdict",
        formatter_class=_Help,
        description="Sparse dictionaries: explain each row of a table of numbers by a few atoms out of many.",
        epilog="""Examples:
  skprojdict compare                                   four methods on patches of photographs
  skprojdict fit acts.npy --output model.npz           learn a dictionary from a file of activations
  skprojdict transform model.npz acts.npy --output codes.npz --sparse
  skprojdict score model.npz heldout.npy

'skprojdict COMMAND --help' tells about one command. Data are .npy, .safetensors, HDF5 or Zarr files, one
sample a row; they are read from disk as needed, so they may be larger than memory, and may hold float16.""",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_compare(commands)
    _add_fit(commands)
    _add_transform(commands)
    _add_score(commands)
    return parser


def _add(commands, name, function, summary, description, examples):
    parser = commands.add_parser(
        name, help=summary, description=description, epilog=f"Examples:\n{examples}", formatter_class=_Help
    )
    parser.set_defaults(run=_lazy(name if name == "compare" else "steps", function))
    return parser


def _lazy(module, function):
    """Run a command's function; its module, with all that it imports, is loaded only then."""

    def run(options):
        getattr(import_module(f"skprojdict.cli.{module}"), function)(options)

    return run


def _add_compare(commands):
    parser = _add(
        commands,
        "compare",
        "compare",
        "fit several kinds of dictionary on the same rows, and compare them",
        "Fits a projective dictionary (also coded with one refinement), a TopK sparse autoencoder, the method of\n"
        "optimal directions and scikit-learn's MiniBatchDictionaryLearning with its OMP coder on the same training\n"
        "rows, with as many atoms and as many nonzero coefficients a row; or the methods that are asked for. Prints\n"
        "a table of held-out results and writes compare.png (fidelity against sparsity, and atoms) and best.npz (our\n"
        "best dictionary, for 'skprojdict transform') into the output folder.\n"
        "relu, jumprelu and gated steer to K coefficients a row on average; see L0 for what came of it.",
        "  skprojdict compare\n"
        "  skprojdict compare --quick --output /tmp/try\n"
        "  skprojdict compare --methods projective topk relu jumprelu gated\n"
        "  skprojdict compare --data acts.npy --n-components 2048 --n-nonzero-coefs 32",
    )
    parser.add_argument("--data", metavar="FILE.npy", help="rows to use; without it, patches of two photographs")
    parser.add_argument("--n-components", metavar="P", type=_count, default=256, help="atoms")
    parser.add_argument("--n-nonzero-coefs", metavar="K", type=_count, default=8, help="nonzero coefficients a row")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=[*METHODS, SKLEARN],
        metavar="METHOD",
        default=list(COMPARED),
        help=f"what to fit, of {', '.join([*METHODS, SKLEARN])}",
    )
    parser.add_argument("--train-rows", metavar="N", type=_count, help="training rows: the first N (default: 20000)")
    parser.add_argument("--test-rows", metavar="N", type=_count, help="held-out rows: the last N (default: 4000)")
    parser.add_argument(
        "--steps", metavar="N", type=_count, default=300, help="training steps of those that have an encoder"
    )
    parser.add_argument("--seed", metavar="S", type=_seed, default=0, help="fixes every random choice")
    parser.add_argument("--output", metavar="DIR", default="skprojdict-compare", help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="a tenth of the default rows and steps: a look, no result")
    parser.add_argument("--force", action="store_true", help="replace results that are already in the folder")


def _add_fit(commands):
    parser = _add(
        commands,
        "fit",
        "fit",
        "learn a dictionary from files of rows, and save it",
        "Learns a dictionary from the rows of files and saves it in a file without pickle. What a fit that was\n"
        "interrupted, or whose loss stopped being finite, has learnt is saved as well, in MODEL.partial.npz.\n"
        "One .npy file is memory-mapped, and batches are drawn from all of it; several files, and other kinds, are\n"
        "read in blocks, in a random order.",
        "  skprojdict fit acts.npy --output model.npz\n"
        "  skprojdict fit acts.npy --output model.npz --n-components 4096 --n-nonzero-coefs 32 --steps 5000\n"
        "  skprojdict fit acts.npy --output model.npz --checkpoint-dir checkpoints --resume\n"
        "  skprojdict fit acts.npy --output mod.npz --method mod --set coder=omp --set max_iter=5\n"
        "  skprojdict fit acts.npy --output batchtopk.npz --method topk --set selection=batch\n"
        "  skprojdict fit shards/*.npy --output model.npz\n"
        "  skprojdict fit acts.safetensors::layer3 --output model.npz\n"
        "  torchrun --nproc-per-node 2 -m skprojdict fit shards/*.npy --output model.npz",
    )
    parser.add_argument("data", metavar="DATA", nargs="+", help=_DATA)
    parser.add_argument("--output", "-o", metavar="MODEL.npz", required=True, help="file to write")
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="projective",
        help="projective: an encoder picks atoms, least squares finds coefficients; topk, relu, jumprelu, gated: "
        "sparse autoencoders; mod: classical dictionary learning by pursuit",
    )
    parser.add_argument("--n-components", metavar="P", type=_count, help="atoms (default: 8 times the columns)")
    parser.add_argument(
        "--n-nonzero-coefs",
        metavar="K",
        type=_count,
        help="nonzero coefficients a row, on average but for topk and mod (default: a tenth of the columns)",
    )
    parser.add_argument("--steps", metavar="N", type=_count, help="training steps (default: 20 passes over the rows)")
    parser.add_argument("--seed", metavar="S", type=_seed, help="fixes every random choice (default: 0)")
    parser.add_argument(
        "--stream",
        action="store_true",
        help="read a single .npy file in blocks, too: for one that is larger than memory, and on a slow disk",
    )
    parser.add_argument("--checkpoint-dir", metavar="DIR", help="folder for checkpoints of this one fit")
    parser.add_argument(
        "--checkpoint-every", metavar="N", type=_count, help="steps between two of them (default: 1000)"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the newest checkpoint in --checkpoint-dir, to the same bits as without the interruption; "
        "start where there is none yet",
    )
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="any other parameter of the estimator, the value in JSON; may be repeated",
    )
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")


def _add_transform(commands):
    parser = _add(
        commands,
        "transform",
        "transform",
        "write the codes of the rows of files",
        "Writes one row of coefficients for each row of the data: a dense .npy file, with --sparse the CSR .npz that\n"
        "scipy.sparse.load_npz reads, or with --rows-a-shard a folder of such files, for codes that do not fit into\n"
        "memory (skprojdict.sources.read_codes reads them one after the other).",
        "  skprojdict transform model.npz acts.npy --output codes.npy\n"
        "  skprojdict transform model.npz acts.npy --output codes.npz --sparse\n"
        "  skprojdict transform model.npz shards/*.npy --output codes --rows-a-shard 65536",
    )
    parser.add_argument("model", metavar="MODEL.npz", help="what 'skprojdict fit' wrote")
    parser.add_argument("data", metavar="DATA", nargs="+", help=_DATA)
    parser.add_argument("--output", "-o", metavar="FILE", required=True, help="file or folder to write")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--sparse", action="store_true", help="write nonzeros only (CSR .npz)")
    form.add_argument(
        "--rows-a-shard", metavar="N", type=_count, help="write a folder of CSR .npz files of N rows each"
    )
    parser.add_argument("--resume", action="store_true", help="complete a folder of shards: write the missing ones")
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")


def _add_score(commands):
    parser = _add(
        commands,
        "score",
        "score",
        "tell how well a dictionary explains the rows of files",
        "Prints the fraction of variance unexplained (FVU: 0 is perfect, 1 no better than the mean), the mean number\n"
        "of nonzero coefficients a row (L0), and how many atoms no row uses.",
        "  skprojdict score model.npz heldout.npy",
    )
    parser.add_argument("model", metavar="MODEL.npz", help="what 'skprojdict fit' wrote")
    parser.add_argument("data", metavar="DATA", nargs="+", help=_DATA)


def _count(text):
    value = int(text) if text.lstrip("+-").isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; give a whole number of at least 1")
    return value


def _seed(text):
    if not text.isdigit() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"got {text!r}; give a whole number from 0 to 4294967295")
    return int(text)
