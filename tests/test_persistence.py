# SPDX-License-Identifier: BSD-3-Clause
"""What is saved comes back the same; what is foreign, cut short or altered is refused."""

import contextlib
import json
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.exceptions import NotFittedError

from skprojdict import (
    GatedDictionaryLearning,
    JumpReLUDictionaryLearning,
    MethodOfOptimalDirections,
    ProjectiveDictionaryLearning,
    ReLUDictionaryLearning,
    TopKDictionaryLearning,
)
from skprojdict.datasets import make_sparse_features
from skprojdict.formats import container
from skprojdict.persistence import archive, atomic_path, load, save
from skprojdict.persistence.archive import HEADER

X = make_sparse_features(300, n_features=8, n_components=12, n_nonzero=2, random_state=0).X.astype(np.float32)
NEURAL = {"max_steps": 5, "batch_size": 64, "random_state": 0}
ESTIMATORS = [
    ProjectiveDictionaryLearning(12, n_nonzero_coefs=2, **NEURAL),
    ProjectiveDictionaryLearning(12, n_nonzero_coefs=2, tied=True, penalty="softplus", n_refinements=1, **NEURAL),
    ProjectiveDictionaryLearning(12, n_nonzero_coefs=2, selection="threshold", prefix_sizes=(4, 8), **NEURAL),
    TopKDictionaryLearning(12, n_nonzero_coefs=None, **NEURAL),
    TopKDictionaryLearning(12, n_nonzero_coefs=2, selection="batch", prefix_sizes=(4, 8), **NEURAL),
    ReLUDictionaryLearning(12, n_nonzero_coefs=2, **NEURAL),
    JumpReLUDictionaryLearning(12, n_nonzero_coefs=2, **NEURAL),
    GatedDictionaryLearning(12, n_nonzero_coefs=2, **NEURAL),
    MethodOfOptimalDirections(12, n_nonzero_coefs=2, max_iter=2, sparse_output=True, random_state=0),
]


@pytest.fixture
def fitted():
    return TopKDictionaryLearning(12, n_nonzero_coefs=2, **NEURAL).fit(X)


@pytest.fixture(params=["model.npz", "model.safetensors"])
def path(request, tmp_path):
    """Both frames of a file."""
    return tmp_path / request.param


@pytest.fixture
def saved(fitted, tmp_path):
    save(fitted, tmp_path / "model.npz")
    return tmp_path / "model.npz"


def rewrite(path, change):
    """Rewrite the archive with its members changed by ``change``."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_a_loaded_estimator_is_the_saved_one(estimator, path):
    estimator.fit(X)
    save(estimator, path)
    loaded = load(path)
    assert type(loaded) is type(estimator)
    assert loaded.get_params() == estimator.get_params()
    public = {name for name in vars(estimator) if name.endswith("_")}
    assert public <= vars(loaded).keys()
    assert loaded.history_ == estimator.history_
    codes, expected = loaded.transform(X), estimator.transform(X)
    assert type(codes) is type(expected)
    assert_array_equal(getattr(codes, "toarray", lambda: codes)(), getattr(expected, "toarray", lambda: expected)())
    assert codes.dtype == np.float32
    assert loaded.score(X) == estimator.score(X)
    loaded.partial_fit(X)  # training goes on


def test_a_partially_fitted_estimator_goes_on_after_loading(tmp_path):
    for estimator in ESTIMATORS[0], ESTIMATORS[-1]:
        estimator.partial_fit(X)
        save(estimator, tmp_path / "model.npz", overwrite=True)
        loaded = load(tmp_path / "model.npz")
        steps = loaded.n_steps_
        assert loaded.partial_fit(X).n_steps_ == steps + 1


def test_arrays_can_be_read_with_numpy_alone(saved, fitted):
    with np.load(saved, allow_pickle=False) as archive:
        assert_array_equal(archive["components_"], fitted.components_)
        assert json.loads(archive[HEADER])["class"] == "TopKDictionaryLearning"


def test_safetensors_are_open_to_any_reader(fitted, tmp_path):
    from safetensors.numpy import load_file

    save(fitted, tmp_path / "model.safetensors")
    assert_array_equal(load_file(tmp_path / "model.safetensors")["components_"], fitted.components_)
    arrays, header = container.read(tmp_path / "model.safetensors")
    assert header["class"] == "TopKDictionaryLearning"
    assert arrays["n_activations_"].dtype == np.int64


def test_checkpoint_folders_are_kept_as_text(fitted, path):
    fitted.set_params(checkpoint_dir=path.parent / "checkpoints")
    save(fitted, path)
    assert load(path).checkpoint_dir == str(path.parent / "checkpoints")


def test_torch_estimators_come_back_as_numpy(tmp_path):
    torch = pytest.importorskip("torch")
    import sklearn

    with sklearn.config_context(array_api_dispatch=True):
        estimator = TopKDictionaryLearning(12, n_nonzero_coefs=2, **NEURAL).fit(torch.asarray(X))
        save(estimator, tmp_path / "model.npz")
    assert_array_equal(load(tmp_path / "model.npz").components_, estimator.components_.numpy())


def test_feature_names_and_init_arrays_survive(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"column {i}" for i in range(X.shape[1])])
    init = np.random.RandomState(0).standard_normal((12, 8))
    estimator = TopKDictionaryLearning(12, init=init, **NEURAL).set_output(transform="pandas").fit(frame)
    save(estimator, tmp_path / "model.npz")
    loaded = load(tmp_path / "model.npz")
    assert_array_equal(loaded.feature_names_in_, estimator.feature_names_in_)
    assert loaded.feature_names_in_.dtype == object
    assert_array_equal(loaded.init, init)
    assert_array_equal(loaded.transform(frame), estimator.transform(frame))


def test_what_needs_pickle_is_refused_by_name(fitted, tmp_path):
    fitted.set_params(init=lambda rows, p, rng: rows[:p])
    with pytest.raises(TypeError, match=r"the parameter init is <function .* cannot be written without pickle"):
        save(fitted, tmp_path / "model.npz")
    fitted.set_params(init="data", random_state=np.random.RandomState(0))
    with pytest.raises(TypeError, match=r"the parameter random_state is RandomState.*Set it to a number"):
        save(fitted, tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []


def test_only_our_fitted_estimators_are_saved(tmp_path):
    with pytest.raises(TypeError, match=r"estimator must be one of .* got int"):
        save(3, tmp_path / "model.npz")
    with pytest.raises(NotFittedError):
        save(TopKDictionaryLearning(), tmp_path / "model.npz")

    class TopKDictionaryLearning_(TopKDictionaryLearning):
        pass

    TopKDictionaryLearning_.__name__ = "TopKDictionaryLearning"
    with pytest.raises(TypeError, match="estimator must be one of"):
        save(TopKDictionaryLearning_(12, **NEURAL).fit(X), tmp_path / "model.npz")


def test_an_existing_file_is_kept_unless_asked(path, fitted):
    save(fitted, path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        save(fitted, path)
    assert path.read_bytes() == before
    save(fitted, path, overwrite=True)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(saved):
    before = saved.read_bytes()

    def write_half():
        with atomic_path(saved) as temporary:
            temporary.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.npz")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(path, fitted, share):
    save(fitted, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="not an estimator saved by skprojdict"):
        load(path)


def test_no_flipped_bit_goes_unnoticed_in_what_is_loaded(path, fitted):
    saved = path
    save(fitted, saved)
    content = bytearray(saved.read_bytes())
    rng = np.random.RandomState(0)
    refused = 0
    for position in rng.choice(len(content), size=150, replace=False):
        altered = content.copy()
        altered[position] ^= 1 << rng.randint(8)
        saved.write_bytes(altered)
        try:
            loaded = load(saved)
        except ValueError as error:
            refused += str(saved) in str(error)
        else:  # bits of a zip archive that mean nothing, such as times
            assert loaded.get_params() == fitted.get_params()
            assert_array_equal(loaded.components_, fitted.components_)
    assert refused > 100


@pytest.mark.parametrize("method", [0, 9, 12, 14, 95])
def test_another_compression_than_ours_is_refused(saved, method):
    content = bytearray(saved.read_bytes())
    entry = content.rindex(b"PK\x01\x02")  # the last record of the central directory; its method is at byte 10
    assert content[entry + 10] == zipfile.ZIP_DEFLATED
    content[entry + 10] = method
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        load(saved)


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "foreign.npz"
    for write in (
        lambda: container.write(path, {"components_": X}, {}),
        lambda: container.write(path, {"components_": X}, {"format": "skprojdict-checkpoint"}),
        lambda: path.write_bytes(pickle.dumps({})),
        lambda: np.savez(path, components_=X),
        lambda: path.write_text("{}"),
    ):
        write()
        with pytest.raises(ValueError, match=r"foreign\.npz is not an estimator saved by skprojdict"):
            load(path)


def test_altered_members_are_refused(saved):
    def change_header(members):
        members[HEADER] = members[HEADER].replace(b'"batch_size": 64', b'"batch_size": 65')

    rewrite(saved, change_header)
    with pytest.raises(ValueError, match=rf"altered: the checksum of its {HEADER}"):
        load(saved)


@pytest.mark.parametrize("change", ["swap", "drop", "add"])
def test_altered_arrays_are_refused(saved, change):
    def alter(members):
        if change == "swap":
            members["components_.npy"] = members["encoder_components_.npy"]
        elif change == "drop":
            del members["components_.npy"]
        else:
            members["extra.npy"] = members["components_.npy"]

    rewrite(saved, alter)
    with pytest.raises(ValueError, match=r"altered: the checksum of (components_|extra)\.npy"):
        load(saved)


def test_a_later_format_names_the_version_that_reads_it(saved, fitted, tmp_path):
    later = tmp_path / "later.safetensors"
    save(fitted, later)

    def age(members):
        header = json.loads(members[HEADER]) | {"format_version": 2}
        del header["header_sha256"]
        members[HEADER] = json.dumps(header | {"header_sha256": archive._digest(header)}).encode()

    rewrite(saved, age)
    with pytest.raises(ValueError, match="format version 2; this skprojdict reads 1"):
        load(saved)
    arrays, header = container.read(later)
    container.write(later, arrays, {**header, "format_version": 2})
    with pytest.raises(ValueError, match="format version 2; this skprojdict reads 1"):
        load(later)


NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["transform", "__class__", "_k"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_header_with_a_checksum_but_without_sense_is_refused(data, saved):
    """Nothing but a ValueError, or an estimator whose methods are its own."""
    arrays, header = archive.read(saved)
    header = json.loads(json.dumps(header))
    part = data.draw(st.sampled_from([header, header["params"], header["fitted"]]))
    name = data.draw(st.sampled_from([*sorted(part), "transform", "__class__", "_k", "new_"]))
    if data.draw(st.booleans()) and name in part:
        del part[name]
    else:
        part[name] = data.draw(NONSENSE)
    path = saved.with_name("nonsense.npz")
    archive.write(path, arrays, header)
    with contextlib.suppress(ValueError):
        loaded = load(path)
        assert type(loaded) is TopKDictionaryLearning
        assert loaded.transform.__func__ is TopKDictionaryLearning.transform


@pytest.mark.parametrize("nonsense", [{}, {"float": "x"}, {"array": "none"}, {"dict": 3}, {"a": 1, "b": 2}], ids=str)
def test_values_without_sense_are_an_error_that_names_the_file(nonsense, saved):
    arrays, header = archive.read(saved)
    header["fitted"]["scale_"] = nonsense
    archive.write(saved, arrays, header)
    with pytest.raises(ValueError, match=r"model\.npz has a header that save does not write"):
        load(saved)


@pytest.mark.parametrize("name", ["transform", "__class__", "_k", "no name"])
def test_methods_are_not_replaced_by_what_a_file_says(name, saved):
    arrays, header = archive.read(saved)
    header["fitted"][name] = 3
    archive.write(saved, arrays, header)
    with pytest.raises(ValueError, match=r"has a fitted attribute '.*', which save does not write"):
        load(saved)
