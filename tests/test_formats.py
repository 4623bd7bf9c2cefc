# SPDX-License-Identifier: BSD-3-Clause
"""The container of our files: what was written comes back, and nothing else does."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skprojdict.formats.container import DTYPES, DamagedFileError, atomic_path, read, write

ARRAYS = {
    "empty": np.zeros((0, 3)),
    "scalar": np.array(3.0),
    "flags": np.array([True, False, True]),
    "turned": np.arange(6.0, dtype=np.float32).reshape(2, 3).T,
    "big": np.arange(3, dtype=">i4"),
}
HEADER = {"text": 'quotes " and ü', "list": [1, 2.5, None, {"x": True}]}


@pytest.fixture
def file(tmp_path):
    write(tmp_path / "file.safetensors", ARRAYS, HEADER)
    return tmp_path / "file.safetensors"


def assert_equal_arrays(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
        assert one[name].shape == other[name].shape
        assert one[name].dtype.newbyteorder("=") == other[name].dtype.newbyteorder("=")


def test_what_is_written_comes_back(file):
    arrays, header = read(file)
    assert header == HEADER
    assert_equal_arrays(arrays, ARRAYS)
    assert all(array.flags.writeable for array in arrays.values())


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_arrays_of_any_dtype_and_shape_come_back(data, tmp_path_factory):
    dtypes = st.sampled_from(sorted(DTYPES, key=str))
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    arrays = data.draw(st.dictionaries(st.text(max_size=5), hnp.arrays(dtypes, shapes), max_size=4))
    arrays.pop("__metadata__", None)
    path = tmp_path_factory.mktemp("container") / "file"
    write(path, arrays, {})
    assert_equal_arrays(read(path)[0], arrays)


def test_any_reader_of_safetensors_opens_it(file):
    from safetensors.numpy import load_file

    assert_equal_arrays(load_file(file), ARRAYS)


def test_every_flipped_bit_and_every_truncation_is_found(file):
    """At every byte. Only the case of an escape's hexadecimal digit means nothing."""
    content, unnoticed = file.read_bytes(), 0
    rng = np.random.default_rng(0)
    for position in range(len(content)):
        altered = bytearray(content)
        altered[position] ^= 1 << rng.integers(8)
        file.write_bytes(altered)
        try:
            arrays, header = read(file)
        except DamagedFileError:
            pass
        else:
            unnoticed += 1
            assert header == HEADER
            assert_equal_arrays(arrays, ARRAYS)
        file.write_bytes(content[:position])
        with pytest.raises(DamagedFileError, match=r"file\.safetensors"):
            read(file)
    assert unnoticed <= 2
    file.write_bytes(content + b"\0")
    with pytest.raises(DamagedFileError):
        read(file)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(content=st.binary(max_size=200), framed=st.booleans())
def test_noise_is_refused(content, framed, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "noise"
    path.write_bytes((len(content).to_bytes(8, "little") if framed else b"") + content)
    with pytest.raises(DamagedFileError):
        read(path)


@pytest.mark.parametrize("header", ["{}", "[]", "3", '"text"', '{"sha256": 1}', "[" * 5000, "null"])
def test_headers_that_are_not_ours_are_refused(header, tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2)}, tmp_path / "file", {"skprojdict": header})
    with pytest.raises(DamagedFileError):
        read(tmp_path / "file")
    save_file({"a": np.zeros(2)}, tmp_path / "file")
    with pytest.raises(DamagedFileError, match="is not a file that skprojdict wrote"):
        read(tmp_path / "file")


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([None]), np.zeros(2, dtype=np.longdouble)], ids=str)
def test_arrays_that_the_format_cannot_hold_are_refused(array, tmp_path):
    with pytest.raises(TypeError, match=r"the array a has dtype .* safetensors cannot hold"):
        write(tmp_path / "file", {"a": array}, {})
    assert list(tmp_path.iterdir()) == []


def test_nan_in_the_header_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path / "file", {}, {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(file, monkeypatch):
    before = file.read_bytes()

    def write_half():
        with atomic_path(file) as temporary:
            temporary.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_the_header_is_plain_json(file):
    content = file.read_bytes()
    frame = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    ours = json.loads(frame["__metadata__"]["skprojdict"])
    assert ours["arrays"]["scalar"]["dtype"] == "F64"
    assert ours["list"] == HEADER["list"]


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read(tmp_path / "none")
