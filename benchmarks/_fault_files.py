# SPDX-License-Identifier: BSD-3-Clause
"""Files that are cut short, altered or of another kind, shown to every loader of the package.

A loader may refuse a file with a ValueError (or say that there is none), or give what the undamaged file gives: bits of
a zip archive that mean nothing, such as a time, may flip. Anything else is counted as wrong. Some files are pickles and
archives of pickles that leave a mark when something in them is executed.
"""

import io
import json
import pickle
import shutil
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

import skprojdict
from skprojdict.persistence import load, save, save_for_sae_lens
from skprojdict.training import checkpoints

P, D, K = 24, 8, 3


class Bomb:
    """What a pickle can do: it touches a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path(self.mark).touch, ())


def arrays_of(model):
    """Everything numeric that a fitted estimator holds, to compare."""
    found = {name: getattr(model, name) for name in sorted(vars(model)) if name.endswith("_")}
    return {name: np.asarray(value) for name, value in found.items() if not isinstance(value, dict)}


def same(one, other):
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one
    )


def estimator_loader(path):
    model = load(path)
    return arrays_of(model) | {"params": np.asarray(repr(sorted(model.get_params().items())))}


def checkpoint_loader(path):
    arrays, header = checkpoints.read(path)
    return arrays | {"header": np.asarray(json.dumps(header, sort_keys=True))}


def sae_loader(path):
    return arrays_of(skprojdict.ProjectiveDictionaryLearning.from_sae(path.parent))


def make_targets(folder, X):
    """``{name: (loader, file to damage, whether its format has checksums)}``: one good file for every loader."""
    import torch

    options = {"n_nonzero_coefs": K, "max_steps": 6, "batch_size": 32, "random_state": 0}
    model = skprojdict.TopKDictionaryLearning(P, **options).fit(X)
    save(model, folder / "model.safetensors")
    save(model, folder / "model.npz")
    skprojdict.TopKDictionaryLearning(P, **options, checkpoint_dir=folder / "fit", checkpoint_every=3).fit(X)
    save_for_sae_lens(model, folder / "sae_lens")
    encoder = torch.from_numpy(model.encoder_components_.copy())
    decoder, centre = torch.from_numpy(model.components_.copy()), torch.from_numpy(model.mean_.copy())
    state = {"encoder.weight": encoder, "encoder.bias": torch.zeros(P), "decoder.weight": decoder.T.contiguous()}
    (folder / "dl").mkdir()
    torch.save(state | {"b_dec": centre, "k": torch.tensor(K)}, folder / "dl" / "ae.pt")
    from safetensors.torch import save_file

    (folder / "sparsify").mkdir()
    tensors = {"encoder.weight": encoder, "encoder.bias": torch.zeros(P), "W_dec": decoder, "b_dec": centre}
    save_file(tensors, folder / "sparsify" / "sae.safetensors")
    (folder / "sparsify" / "cfg.json").write_text(json.dumps({"activation": "topk", "k": K, "d_in": D}))
    newest = checkpoints.CheckpointFolder(folder / "fit").files()[-1]
    return {
        "estimator, .safetensors": (estimator_loader, folder / "model.safetensors", True),
        "estimator, .npz": (estimator_loader, folder / "model.npz", True),
        "checkpoint": (checkpoint_loader, newest, True),
        "folder for SAELens": (sae_loader, folder / "sae_lens" / "sae_weights.safetensors", True),
        "dictionary_learning's ae.pt": (sae_loader, folder / "dl" / "ae.pt", True),
        "sparsify's sae.safetensors": (sae_loader, folder / "sparsify" / "sae.safetensors", False),
    }


def truncated(content, rng):
    return content[: rng.integers(len(content))]


def flipped(content, rng):
    altered = bytearray(content)
    altered[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return bytes(altered)


def overwritten(content, rng):
    altered, start, size = bytearray(content), rng.integers(len(content)), rng.integers(1, 65)
    altered[start : start + size] = rng.bytes(len(altered[start : start + size]))
    return bytes(altered)


def zeroed(content, rng):
    """A block that never reached the disk."""
    altered, start, size = bytearray(content), rng.integers(len(content)), rng.choice([16, 512, 4096])
    altered[start : start + size] = bytes(len(altered[start : start + size]))
    return bytes(altered)


def shifted(content, rng):
    """A few bytes left out or put in."""
    at, size = rng.integers(len(content)), rng.integers(1, 9)
    return content[:at] + (rng.bytes(size) + content[at:] if rng.integers(2) else content[at + size :])


def appended(content, rng):
    return content + rng.bytes(rng.integers(1, 65))


DAMAGES = {
    "truncated": truncated,
    "bit flipped": flipped,
    "bytes overwritten": overwritten,
    "block zeroed": zeroed,
    "bytes missing or inserted": shifted,
    "bytes appended": appended,
}


def foreign_files(targets, mark, rng):
    """Whole files of other kinds: noise, other formats, and pickles that leave a mark where they are executed."""
    import torch

    def written(write):
        buffer = io.BytesIO()
        write(buffer)
        return buffer.getvalue()

    bomb = pickle.dumps(Bomb(mark))
    yield from (b"", b"PK", b"{}", b"null", b"[" * 9999, b"\x93NUMPY\x01\x00v\x00{'descr'")
    yield from (rng.bytes(rng.integers(1, 3000)) for _ in range(60))
    yield from (len(noise).to_bytes(8, "little") + noise for noise in (rng.bytes(40) for _ in range(30)))
    yield bomb
    yield written(lambda file: np.save(file, np.array([Bomb(mark)], dtype=object), allow_pickle=True))
    yield written(lambda file: np.savez(file, components_=np.array([Bomb(mark)], dtype=object)))
    yield written(lambda file: torch.save({"encoder.weight": Bomb(mark)}, file))
    yield written(lambda file: np.savez(file, components_=np.zeros((3, 3))))
    for member in ("skprojdict.json", "components_.npy", "data.pkl", "archive/data.pkl"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(member, bomb)
        yield buffer.getvalue()
    yield from (path.read_bytes() for _, path, _ in targets.values())


def shown(loader, path, good):
    """What a loader makes of a file: "refused", "same", or what went wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = loader(path)
    except (ValueError, FileNotFoundError):
        return "refused"
    except Exception as error:  # no crash is acceptable either
        return f"{type(error).__name__}: {str(error)[:80]}"
    return "same" if same(found, good) else "loaded something else"


def run(folder, X, n_files, seed=0, say=print):
    """Show at least ``n_files`` damaged files: ``{target: Counter by outcome}``, and whether anything was executed."""
    rng = np.random.default_rng(seed)
    targets = make_targets(folder, X)
    mark = folder / "executed"
    counts = {}
    a_damage = -(-n_files // (len(targets) * len(DAMAGES)))
    for name, (loader, path, has_checksums) in targets.items():
        content, good = path.read_bytes(), loader(path)
        outcomes = counts[name] = Counter()
        for damage, damaged in DAMAGES.items():
            if not has_checksums and damage != "truncated":
                continue  # nothing in such a file could tell: counted apart, and documented
            for _ in range(a_damage if has_checksums else a_damage * len(DAMAGES)):
                altered = damaged(content, rng)
                if altered == content:
                    continue
                path.write_bytes(altered)
                outcomes[shown(loader, path, good)] += 1
        for foreign in foreign_files(targets, mark, rng):
            if foreign != content:
                path.write_bytes(foreign)
                outcomes[shown(loader, path, good)] += 1
        path.write_bytes(content)
        say(f"  {name}: {dict(outcomes)}")
    executed = int(mark.exists())
    shutil.rmtree(folder, ignore_errors=True)
    return counts, executed
