# SPDX-License-Identifier: BSD-3-Clause
"""Rows that lie elsewhere: the same rows whatever holds them, in an order that can be repeated, and codes on disk."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skprojdict import ProjectiveDictionaryLearning
from skprojdict.sources import Prefetched, as_source, is_source, open_rows, order, read_codes, rows, write_codes


@pytest.fixture
def data(rng):
    return rng.standard_normal((300, 6)).astype(np.float32)


def npy(data, folder):
    np.save(folder / "rows.npy", data)
    return folder / "rows.npy"


def shards(data, folder):
    paths = []
    for i, part in enumerate(np.split(data, [40, 41, 200])):
        paths.append(folder / f"{i}.npy")
        np.save(paths[-1], part)
    return paths


def safetensors(data, folder):
    from safetensors.numpy import save_file

    save_file({"acts": data, "tokens": np.arange(3)}, folder / "rows.safetensors")
    return folder / "rows.safetensors"


def memory_map(data, folder):
    return np.load(npy(data, folder), mmap_mode="r")


def torch_data(data, folder):
    import torch

    return torch.utils.data.TensorDataset(torch.from_numpy(data))


def torch_loader(data, folder):
    import torch

    return torch.utils.data.DataLoader(torch_data(data, folder), batch_size=7, shuffle=True)


def hdf5(data, folder):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(folder / "rows.h5", "w") as file:
        file.create_dataset("acts", data=data, chunks=(64, 6))
    return f"{folder / 'rows.h5'}::acts"


def zarr_array(data, folder):
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    array = zarr.create_array(str(folder / "rows.zarr"), shape=data.shape, chunks=(64, 6), dtype="float32")
    array[...] = data
    return folder / "rows.zarr"


def dask_array(data, folder):
    return pytest.importorskip("dask.array", reason="dask is not installed").from_array(data, chunks=(90, 4))


KINDS = [npy, shards, safetensors, memory_map, torch_data, torch_loader, hdf5, zarr_array, dask_array]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rows_whatever_holds_them(data, tmp_path, kind, rng):
    source = open_rows(kind(data, tmp_path))
    assert (source.shape, source.dtype, len(source), source.ndim) == (data.shape, np.float32, 300, 2)
    assert_array_equal(source[:], data)
    assert_array_equal(source[39:205], data[39:205])
    assert_array_equal(source[5:5], data[5:5])
    asked = rng.permutation(300)[:50]
    assert_array_equal(source[asked], data[asked])
    starts, stops = source.blocks()
    assert_array_equal(np.concatenate([np.arange(a, b) for a, b in zip(starts, stops, strict=True)]), np.arange(300))


def test_what_is_a_source(data, tmp_path):
    assert is_source(npy(data, tmp_path))
    assert is_source([data, data])
    assert not is_source(data)
    assert not is_source([[1.0, 2.0], [3.0, 4.0]])
    assert as_source(data) is data


@pytest.mark.parametrize("batch_size", [1, 7, 64, 300, 1000])
def test_a_pass_gives_every_row_once_in_an_order_that_can_be_repeated(tmp_path, batch_size, monkeypatch):
    numbered = np.arange(600.0).reshape(300, 2)
    monkeypatch.setattr("skprojdict.sources.opening.BLOCK_BYTES", 10 * 16)
    monkeypatch.setattr(order, "WINDOW_BYTES", 70 * 16)
    paths = shards(numbered, tmp_path)
    first = list(rows(paths, batch_size, random_state=0))
    assert [len(batch) for batch in first[:-1]] == [batch_size] * (len(first) - 1)
    seen = np.concatenate(first)[:, 0]
    assert_array_equal(np.sort(seen), numbered[:, 0])
    assert (np.diff(seen) != 2).mean() > 0.8  # neighbours are parted
    again = list(rows(paths, batch_size, random_state=0))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(np.concatenate(list(rows(paths, batch_size, random_state=1))), np.concatenate(first))


def test_going_on_in_the_middle_of_a_pass(data, monkeypatch):
    monkeypatch.setattr("skprojdict.sources.opening.BLOCK_BYTES", 240)
    monkeypatch.setattr(order, "WINDOW_BYTES", 2400)
    whole = order.ShuffledRows((open_rows([data]),), 32, np.random.RandomState(0))
    taken = [next(whole)[0] for _ in range(25)]
    later = order.ShuffledRows((open_rows([data]),), 32, np.random.RandomState(0))
    later.go_on(np.random.RandomState(0), 4)
    assert later.position == 4
    for batch in taken[4:]:
        assert_array_equal(next(later)[0], batch)


def test_the_first_batch_of_a_pass_waits_for_a_small_window(monkeypatch):
    """Batches wait for the first window, which is small; windows double up to their limit, and two are held at most."""
    monkeypatch.setattr("skprojdict.sources.opening.BLOCK_BYTES", 10 * 16)
    monkeypatch.setattr(order, "WINDOW_BYTES", 640 * 16)
    source = open_rows([np.arange(6000.0).reshape(3000, 2)])
    asked = []
    read = source._read
    monkeypatch.setattr(source, "_read", lambda start, stop: asked.append(stop - start) or read(start, stop))
    batches = order.ShuffledRows((source,), 20, np.random.RandomState(0))
    for _ in range(3):
        asked.clear()
        next(batches)
        assert sum(asked) == 40
        ahead = []
        for taken in range(40, 3020, 20):
            next(batches)
            ahead.append(sum(asked) - taken)
        assert 600 <= max(ahead) <= 2 * 640
        assert sum(asked) == 3000


def test_two_views_stay_side_by_side(data):
    batches = order.ShuffledRows((open_rows([data]), open_rows([2 * data[:, :3]])), 50, np.random.RandomState(0))
    for _ in range(8):
        inputs, targets = next(batches)
        assert_array_equal(2 * inputs[:, :3], targets)


def test_reading_ahead_gives_the_same_and_ends(data):
    ahead = Prefetched(iter(range(100)), depth=3)
    assert list(ahead) == list(range(100))
    ahead.close()
    assert not ahead._thread.is_alive()
    idle = Prefetched(iter(range(100)), depth=3)
    next(idle)
    idle.close()
    assert not idle._thread.is_alive()


def test_an_error_of_the_reader_reaches_the_user():
    def breaking():
        yield 1
        raise OSError("the disk is gone")

    ahead = Prefetched(breaking())
    assert next(ahead) == 1
    for _ in range(2):
        with pytest.raises(OSError, match="the disk is gone"):
            next(ahead)
    ahead.close()


def test_fitting_batch_by_batch_from_shards(data, tmp_path):
    model = ProjectiveDictionaryLearning(16, n_nonzero_coefs=2, random_state=0)
    before = None
    for _ in range(3):
        for batch in rows(shards(data, tmp_path), 64, random_state=0):
            model.partial_fit(batch)
        before = before or model.score(data)
    assert model.n_steps_ == 15
    assert model.score(data) > before


# ---- faults


def test_a_row_that_is_not_finite_is_named(data, tmp_path):
    data[150, 2] = np.nan
    source = open_rows(shards(data, tmp_path))
    assert source[:150].shape == (150, 6)
    with pytest.raises(ValueError, match=r"row 150 \(row 109 of .*2\.npy\)"):
        source[100:200]


def test_a_shard_that_vanishes_or_changes(data, tmp_path):
    paths = shards(data, tmp_path)
    source = open_rows(paths)
    np.save(paths[3], data[:5])
    with pytest.raises(OSError, match="has changed since it was opened"):
        source[:]
    paths[2].unlink()
    with pytest.raises(OSError, match="cannot be read any more"):
        source[:]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("missing.npy", FileNotFoundError, "no such file"),
        ([], ValueError, "no shards"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], ValueError, "as many columns"),
        ([np.zeros((2, 3), dtype=complex)], ValueError, "not real numbers"),
    ],
)
def test_what_cannot_be_opened(given, error, message):
    with pytest.raises(error, match=message):
        open_rows(given)


def test_files_that_lie_about_themselves(tmp_path):
    for name in ("rows.npy", "rows.safetensors", "rows.csv"):
        (tmp_path / name).write_bytes(b"not what the name says")
        with pytest.raises(ValueError, match=r"cannot be read|is no file of rows"):
            open_rows(tmp_path / name)


def test_a_file_of_several_arrays_wants_a_name(data, tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": data, "b": data + 1}, tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="Name one of them"):
        open_rows(tmp_path / "two.safetensors")
    assert_array_equal(open_rows(f"{tmp_path / 'two.safetensors'}::b")[:], data + 1)


# ---- codes on disk


def test_codes_on_disk_are_those_in_memory(data, tmp_path):
    model = ProjectiveDictionaryLearning(16, n_nonzero_coefs=2, max_steps=20, random_state=0).fit(data)
    paths = write_codes(model, shards(data, tmp_path), tmp_path / "codes", rows_a_shard=70)
    assert len(paths) == 5
    stacked = np.concatenate([shard.toarray() for shard in read_codes(tmp_path / "codes")])
    np.testing.assert_allclose(stacked, model.transform(data), atol=1e-5)
    assert model.sparse_output is False
    with pytest.raises(FileExistsError, match="resume=True"):
        write_codes(model, data, tmp_path / "codes")
    paths[2].unlink()
    with pytest.raises(FileNotFoundError):
        list(read_codes(tmp_path / "codes"))
    untouched = paths[0].stat().st_mtime_ns
    write_codes(model, data, tmp_path / "codes", rows_a_shard=70, resume=True)
    assert paths[0].stat().st_mtime_ns == untouched
    assert sum(shard.shape[0] for shard in read_codes(tmp_path / "codes")) == 300
    for other, step in ((model.partial_fit(data), 70), (model, 50)):
        with pytest.raises(ValueError, match=r"holds codes of another (coder|rows_a_shard).*force=True"):
            write_codes(other, data, tmp_path / "codes", rows_a_shard=step, resume=True)
    write_codes(model, data, tmp_path / "codes", rows_a_shard=200, force=True)
    assert [shard.shape[0] for shard in read_codes(tmp_path / "codes")] == [200, 100]


def test_incomplete_codes_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="incomplete"):
        list(read_codes(tmp_path))
