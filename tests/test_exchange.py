# SPDX-License-Identifier: BSD-3-Clause
"""Other libraries' autoencoders come in, SAELens' folders and torch modules go out, and all compute the same."""

import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file
from safetensors.torch import save_file

from skprojdict import (
    GatedDictionaryLearning,
    JumpReLUDictionaryLearning,
    MethodOfOptimalDirections,
    ProjectiveDictionaryLearning,
    ReLUDictionaryLearning,
    TopKDictionaryLearning,
)
from skprojdict.persistence import load, save_for_hub, save_for_sae_lens

from .data import fvu, sparse_rows

D, P, K = 16, 40, 4
X = sparse_rows(n=400, d=D, p=32, k=3).astype(np.float32) * 5
SMALL = {"n_components": P, "n_nonzero_coefs": K, "max_steps": 30, "batch_size": 64, "random_state": 0}


def random_weights(*, unit=True, seed=0):
    rng = np.random.default_rng(seed)
    decoder = rng.standard_normal((P, D)).astype(np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    encoder = (decoder + 0.1 * rng.standard_normal((P, D))).astype(np.float32)
    if not unit:
        decoder *= rng.uniform(0.5, 2, (P, 1)).astype(np.float32)
    bias = 0.1 * rng.standard_normal(P).astype(np.float32)
    return encoder, bias, decoder, X.mean(axis=0)


def pre_activations(encoder, bias, centre):
    return (X - centre) @ encoder.T + bias


def top_k_relu(scores, k=K):
    cut = np.sort(scores, axis=1)[:, -k, None]
    return np.where(scores >= cut, np.maximum(scores, 0), 0)


def write_sae_lens(folder, weights, **config):
    encoder, bias, decoder, centre = weights
    tensors = {"W_enc": encoder.T, "b_enc": bias, "W_dec": decoder, "b_dec": centre, **config.pop("more", {})}
    folder.mkdir(exist_ok=True)
    save_file(
        {n: torch.tensor(np.ascontiguousarray(t)) for n, t in tensors.items()}, folder / "sae_weights.safetensors"
    )
    (folder / "cfg.json").write_text(json.dumps({"architecture": "topk", "k": K, "d_in": D, "d_sae": P} | config))
    return folder


def write_sparsify(folder, weights, **config):
    encoder, bias, decoder, centre = (torch.tensor(np.ascontiguousarray(w)) for w in weights)
    more = config.pop("more", {})
    tensors = {"encoder.weight": encoder, "encoder.bias": bias, "W_dec": decoder, "b_dec": centre, **more}
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"activation": "topk", "k": K, "d_in": D} | config))
    return folder


def write_dictionary_learning(folder, weights, *, kind="AutoEncoderTopK", threshold=-1.0):
    encoder, bias, decoder, centre = (torch.tensor(np.ascontiguousarray(w)) for w in weights)
    state = {"encoder.weight": encoder, "encoder.bias": bias, "decoder.weight": decoder.T.contiguous()}
    if kind == "AutoEncoder":
        state["bias"] = centre
    else:
        state |= {"b_dec": centre, "k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(threshold)}
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": kind, "k": K}, "buffer": {}}))
    return folder


WRITERS = {"SAELens": write_sae_lens, "sparsify": write_sparsify, "dictionary_learning": write_dictionary_learning}


# ---- reading


@pytest.mark.parametrize("library", WRITERS)
def test_a_top_k_autoencoder_computes_what_it_did(library, tmp_path):
    weights = random_weights()
    encoder, bias, decoder, centre = weights
    model = TopKDictionaryLearning.from_sae(WRITERS[library](tmp_path / "sae", weights))
    codes = top_k_relu(pre_activations(encoder, bias, centre))
    assert_allclose(model.transform(X), codes, atol=2e-5)
    assert_allclose(model.inverse_transform(model.transform(X)), codes @ decoder + centre, atol=2e-4)
    assert (model.n_components, model.n_nonzero_coefs, model.n_features_in_) == (P, K, D)


@pytest.mark.parametrize("library", WRITERS)
@pytest.mark.parametrize("unit", [True, False])
def test_projection_solves_on_the_autoencoders_support(library, unit, tmp_path):
    """Against NumPy's least squares, row by row."""
    weights = random_weights(unit=unit)
    encoder, bias, decoder, centre = weights
    folder = WRITERS[library](tmp_path / "sae", weights)
    model = ProjectiveDictionaryLearning.from_sae(folder, candidate_factor=1)
    codes = model.transform(X)
    support = top_k_relu(pre_activations(encoder, bias, centre)) > 0
    assert_array_equal(codes != 0, support)
    fitted = np.zeros_like(X)
    for i, active in enumerate(support):
        coefs, *_ = np.linalg.lstsq(decoder[active].T, X[i] - centre, rcond=None)
        fitted[i] = coefs @ decoder[active] + centre
    assert_allclose(model.inverse_transform(codes), fitted, atol=2e-4)
    plain = top_k_relu(pre_activations(encoder, bias, centre)) @ decoder + centre
    assert ((fitted - X) ** 2).sum() < ((plain - X) ** 2).sum()
    assert fvu(ProjectiveDictionaryLearning.from_sae(folder), X) < fvu(model, X)  # twice as many candidates


def test_ranking_by_output_follows_the_norms(tmp_path):
    weights = random_weights(unit=False)
    encoder, bias, decoder, centre = weights
    folder = write_sae_lens(tmp_path / "sae", weights, rescale_acts_by_decoder_norm=True)
    ranked = pre_activations(encoder, bias, centre) * np.linalg.norm(decoder, axis=1)
    codes = TopKDictionaryLearning.from_sae(folder).transform(X)
    assert_allclose(codes, top_k_relu(ranked), atol=5e-5)
    projected = ProjectiveDictionaryLearning.from_sae(folder, candidate_factor=1).transform(X)
    assert_array_equal(projected != 0, codes != 0)
    with pytest.raises(ValueError, match=r"ranks features before .* ProjectiveDictionaryLearning\.from_sae"):
        TopKDictionaryLearning.from_sae(write_sparsify(tmp_path / "other", weights))


@pytest.mark.parametrize("form", ["relu", "jumprelu", "batch top k", "plain autoencoder"])
def test_activations_without_a_k(form, tmp_path):
    weights = random_weights()
    encoder, bias, _, centre = weights
    scores = pre_activations(encoder, bias, centre)
    limits = np.random.default_rng(1).uniform(0.5, 1.5, P).astype(np.float32)
    folder = tmp_path / "sae"
    if form == "relu":
        limits = 0
        write_sae_lens(folder, weights, architecture="standard")
    elif form == "jumprelu":
        write_sae_lens(folder, weights, architecture="jumprelu", more={"threshold": limits})
    elif form == "batch top k":
        limits = 0.75
        write_dictionary_learning(folder, weights, kind="BatchTopKSAE", threshold=limits)
    else:
        limits = 0
        write_dictionary_learning(folder, weights, kind="AutoEncoder")
    model = ProjectiveDictionaryLearning.from_sae(folder, penalty="ridge", alpha=1e-3)
    assert model.n_nonzero_coefs is None
    assert_array_equal(model.transform(X) != 0, scores > limits)
    if form == "jumprelu":
        with pytest.raises(ValueError, match="has thresholds"):
            TopKDictionaryLearning.from_sae(folder)
    else:
        additive = TopKDictionaryLearning.from_sae(folder)
        assert additive.selection == ("batch" if np.any(limits) else "row")
        assert_allclose(additive.transform(X), np.where(scores > limits, scores, 0), atol=2e-5)


def test_projection_solves_where_gate_and_magnitude_are_positive(tmp_path):
    weights = random_weights()
    encoder, bias, _, centre = weights
    rng = np.random.default_rng(2)
    log_gain, shift = rng.uniform(-0.5, 0.5, P).astype(np.float32), rng.uniform(-1, 0.5, P).astype(np.float32)
    more = {"r_mag": log_gain, "b_gate": bias, "b_mag": shift}
    folder = write_sae_lens(tmp_path / "sae", weights, architecture="gated", more=more)
    gate = pre_activations(encoder, bias, centre)
    fires = (gate > 0) & (np.exp(log_gain) * (gate - bias) + shift > 0)
    assert (fires != (gate > 0)).any()
    model = ProjectiveDictionaryLearning.from_sae(folder, penalty="ridge", alpha=1e-3)
    assert_array_equal(model.transform(X) != 0, fires)
    with pytest.raises(ValueError, match="has gates"):
        TopKDictionaryLearning.from_sae(folder)


def test_half_precision_and_dead_atoms(tmp_path):
    encoder, bias, decoder, centre = random_weights()
    decoder[3] = 0
    tensors = {"W_enc": encoder.T.copy(), "b_enc": bias + 5 * (np.arange(P) == 3), "W_dec": decoder, "b_dec": centre}
    save_file({n: torch.tensor(t).bfloat16() for n, t in tensors.items()}, tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps({"architecture": "topk", "k": K}))
    model = ProjectiveDictionaryLearning.from_sae(tmp_path)
    assert model.components_.dtype == np.float32
    assert_allclose(np.linalg.norm(model.components_, axis=1), 1, atol=1e-6)
    assert not (model.transform(X)[:, 3] != 0).any()


def test_an_imported_dictionary_is_an_ordinary_one(tmp_path):
    folder = write_sparsify(tmp_path / "sae", random_weights())
    scale = float(np.linalg.norm(X - X.mean(axis=0), axis=1).mean())
    model = ProjectiveDictionaryLearning.from_sae(folder, scale=scale, max_steps=60, batch_size=64, random_state=0)
    plain = ProjectiveDictionaryLearning.from_sae(folder)
    assert_allclose(model.transform(X), plain.transform(X), atol=1e-3)
    before = fvu(model, X)
    assert fvu(model.set_params(warm_start=True).fit(X), X) < before


@pytest.mark.parametrize(
    ("write", "options", "message"),
    [
        (write_sae_lens, {"architecture": "temporal"}, "architecture='temporal'"),
        (write_sae_lens, {"normalize_activations": "layer_norm"}, "normalize_activations='layer_norm'"),
        (write_sae_lens, {"architecture": "standard", "activation_fn": "tanh-relu"}, "activation_fn='tanh-relu'"),
        (write_sparsify, {"activation": "groupmax"}, "activation='groupmax'"),
        (write_sparsify, {"transcode": True}, "transcode=True"),
        (write_sparsify, {"more": {"W_skip": torch.zeros(D, D)}}, "skip_connection=True"),
        (write_dictionary_learning, {"kind": "CrossCoder"}, "dict_class='CrossCoder'"),
        (write_sae_lens, {"k": 1000}, "k=1000, but 40 features"),
        (write_sae_lens, {"more": {"b_enc": np.zeros(3, np.float32)}}, r"encoder_bias has shape \(3,\)"),
        (write_sae_lens, {"more": {"b_enc": np.full(P, np.nan, np.float32)}}, "encoder_bias holds NaN"),
        (write_sae_lens, {"more": {"W_enc": np.zeros(3, np.float32)}}, "matrices are needed"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(write, options, message, tmp_path):
    folder = write(tmp_path / "sae", random_weights(), **options)
    with pytest.raises(ValueError, match=message):
        ProjectiveDictionaryLearning.from_sae(folder)


@pytest.mark.parametrize(
    ("library", "file", "content", "message"),
    [
        ("SAELens", "sae_weights.safetensors", b"", r"sae_weights\.safetensors is no safetensors file.*copy it again"),
        ("SAELens", "cfg.json", b"{", r"cfg\.json is no JSON"),
        ("SAELens", "cfg.json", b"\xff", r"cfg\.json is no JSON"),
        ("SAELens", "cfg.json", b"[]", r"cfg\.json holds list and no"),
        ("SAELens", "cfg.json", b'{"architecture": "topk"}', r"lacks 'k'"),
        ("SAELens", "cfg.json", b'{"architecture": "topk", "k": "4"}', "k='4', but 40 features"),
        ("SAELens", "cfg.json", b'{"activation_fn": "topk", "activation_fn_kwargs": 3}', "of no known form"),
        ("sparsify", "sae.safetensors", b"x" * 100, r"sae\.safetensors is no safetensors file"),
        ("sparsify", "cfg.json", b'{"k": true}', "k=True, but 40 features"),
        ("dictionary_learning", "ae.pt", b"", r"ae\.pt is no file of torch tensors"),
        ("dictionary_learning", "ae.pt", b"PK" + b"x" * 50, r"ae\.pt is no file of torch tensors"),
        ("dictionary_learning", "config.json", b'{"trainer": 1}', '"trainer" is 1'),
    ],
)
def test_damaged_files_of_other_libraries_are_said_to_be(library, file, content, message, tmp_path):
    folder = WRITERS[library](tmp_path / "sae", random_weights())
    (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        ProjectiveDictionaryLearning.from_sae(folder)


@pytest.mark.parametrize("library", WRITERS)
@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_truncated_files_of_other_libraries_are_refused(library, share, tmp_path):
    folder = WRITERS[library](tmp_path / "sae", random_weights())
    (file,) = (path for path in folder.iterdir() if path.suffix != ".json")
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=file.name):
        ProjectiveDictionaryLearning.from_sae(folder)


def test_a_list_of_tensors_is_no_autoencoder(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "ae.pt")
    with pytest.raises(ValueError, match="holds list, not tensors by name"):
        ProjectiveDictionaryLearning.from_sae(tmp_path)


def test_a_flipped_bit_among_dictionary_learnings_weights_is_found(tmp_path):
    """torch compares no checksums, but the zip archive has them."""
    folder = write_dictionary_learning(tmp_path / "sae", random_weights())
    content = bytearray((folder / "ae.pt").read_bytes())
    content[content.index(random_weights()[0].tobytes()[:64]) + 20] ^= 1
    (folder / "ae.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"ae\.pt .* is damaged .*checksum"):
        ProjectiveDictionaryLearning.from_sae(folder)


@pytest.mark.parametrize("what", ["weight", "k"])
def test_what_we_wrote_for_sae_lens_has_a_checksum(what, tmp_path):
    save_for_sae_lens(TopKDictionaryLearning(**SMALL | {"max_steps": 2}).fit(X), tmp_path)
    if what == "weight":
        content = bytearray((tmp_path / "sae_weights.safetensors").read_bytes())
        content[-10] ^= 1
        (tmp_path / "sae_weights.safetensors").write_bytes(content)
    else:
        config = (tmp_path / "cfg.json").read_text()
        (tmp_path / "cfg.json").write_text(config.replace('"k": 4', '"k": 5'))
    with pytest.raises(ValueError, match=r"or the cfg\.json beside it was altered.*Export it again"):
        TopKDictionaryLearning.from_sae(tmp_path)


def test_the_checksum_is_not_about_what_one_may_write_there(tmp_path):
    save_for_sae_lens(TopKDictionaryLearning(**SMALL | {"max_steps": 2}).fit(X), tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text()) | {"device": "cuda", "metadata": {"hook_name": "x"}}
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    TopKDictionaryLearning.from_sae(tmp_path)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no sae_weights\.safetensors .* Give the folder"):
        ProjectiveDictionaryLearning.from_sae(tmp_path)
    folder = write_sae_lens(tmp_path / "sae", random_weights())
    (folder / "cfg.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"cfg\.json"):
        ProjectiveDictionaryLearning.from_sae(folder)
    save_file({"a": torch.zeros(2)}, tmp_path / "sae.safetensors")
    (tmp_path / "cfg.json").write_text("{}")
    with pytest.raises(ValueError, match=r"has the weights \['a'\]"):
        ProjectiveDictionaryLearning.from_sae(tmp_path)


def test_weights_under_the_name_of_another_library_are_refused(tmp_path):
    folder = write_sae_lens(tmp_path / "sae", random_weights())
    other = write_sparsify(tmp_path / "other", random_weights(seed=1))
    (folder / "sae_weights.safetensors").write_bytes((other / "sae.safetensors").read_bytes())
    with pytest.raises(ValueError, match="has the name that SAELens gives, but other weights"):
        ProjectiveDictionaryLearning.from_sae(folder)


def test_pickled_code_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("exploded").touch, ())

    torch.save({"encoder.weight": Bomb()}, tmp_path / "ae.pt")
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        ProjectiveDictionaryLearning.from_sae(tmp_path)
    assert not (tmp_path / "exploded").exists()


# ---- writing for SAELens


@pytest.mark.parametrize("Estimator", [TopKDictionaryLearning, ProjectiveDictionaryLearning])
@pytest.mark.parametrize("tied", [False, True])
def test_a_sae_lens_folder_holds_the_encoder_in_the_units_of_the_data(Estimator, tied, tmp_path):
    model = Estimator(**SMALL, tied=tied).fit(X)
    save_for_sae_lens(model, tmp_path / "sae", metadata={"hook_name": "blocks.3.hook_resid_post"})
    weights = load_file(tmp_path / "sae" / "sae_weights.safetensors")
    config = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    assert config["metadata"]["hook_name"] == "blocks.3.hook_resid_post"
    assert (config["architecture"], config["k"], config["d_in"], config["d_sae"]) == ("topk", K, D, P)
    codes = top_k_relu((X - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"])
    additive = TopKDictionaryLearning.from_sae(tmp_path / "sae")
    assert_allclose(additive.transform(X), codes, atol=2e-5)
    if Estimator is TopKDictionaryLearning:
        assert_allclose(codes, model.transform(X), atol=2e-4)
        assert_allclose(codes @ weights["W_dec"] + weights["b_dec"], model.inverse_transform(codes), atol=2e-4)
    else:
        back = ProjectiveDictionaryLearning.from_sae(tmp_path / "sae")  # which knows no threshold
        assert_allclose(back.transform(X), model.set_params(selection="top_k").transform(X), atol=5e-3)


def test_sae_lens_folders_are_not_replaced_unasked(tmp_path):
    model = TopKDictionaryLearning(**SMALL | {"n_nonzero_coefs": None, "max_steps": 2}).fit(X)
    save_for_sae_lens(model, tmp_path)
    assert json.loads((tmp_path / "cfg.json").read_text())["architecture"] == "standard"
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_for_sae_lens(model, tmp_path)
    save_for_sae_lens(model, tmp_path, overwrite=True)


def test_forms_that_sae_lens_lacks_are_refused(tmp_path):
    options = SMALL | {"max_steps": 2}
    with pytest.raises(TypeError, match="must have an encoder, got MethodOfOptimalDirections"):
        save_for_sae_lens(MethodOfOptimalDirections(P, n_nonzero_coefs=K, max_iter=1).fit(X), tmp_path)
    with pytest.raises(ValueError, match="target='y'"):
        save_for_sae_lens(ProjectiveDictionaryLearning(**options, target="y").fit(X, X[:, :3]), tmp_path)
    with pytest.raises(ValueError, match="selection='threshold' has no counterpart"):
        save_for_sae_lens(ProjectiveDictionaryLearning(**options, selection="threshold").fit(X), tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---- the torch module


FORMS = {
    "topk": (TopKDictionaryLearning, {}),
    "relu": (TopKDictionaryLearning, {"n_nonzero_coefs": None}),
    "batch topk": (TopKDictionaryLearning, {"selection": "batch"}),
    "relu, penalised": (ReLUDictionaryLearning, {}),
    "jumprelu": (JumpReLUDictionaryLearning, {}),
    "gated": (GatedDictionaryLearning, {}),
    "exact": (ProjectiveDictionaryLearning, {}),
    "tied ridge": (ProjectiveDictionaryLearning, {"tied": True, "penalty": "ridge", "alpha": 0.1}),
    "refined": (ProjectiveDictionaryLearning, {"n_refinements": 1}),
    "importance": (ProjectiveDictionaryLearning, {"penalty": "inverse_square", "quota": "normalize"}),
    "threshold": (ProjectiveDictionaryLearning, {"selection": "threshold"}),
    "metric": (ProjectiveDictionaryLearning, {"tied": "metric"}),
    "adaptive": (ProjectiveDictionaryLearning, {"selection": "adaptive"}),
    "second view": (ProjectiveDictionaryLearning, {"target": "y"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_module_computes_what_the_estimator_does(form):
    Estimator, options = FORMS[form]
    rows = X.astype(np.float64)
    y = rows[:, :7] * 2 if form == "second view" else None
    model = Estimator(**SMALL | options).fit(rows, y)
    module = model.to_torch()
    batch = torch.from_numpy(rows).reshape(20, 20, D)
    codes = module.encode(batch)
    assert codes.shape == (20, 20, P)
    assert_allclose(codes.reshape(-1, P).detach().numpy(), model.transform(rows), atol=1e-9)
    expected = model.predict(rows) if form == "second view" else model.inverse_transform(model.transform(rows))
    for result in (module(batch), module.decode(codes)):
        assert_allclose(result.reshape(400, -1).detach().numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "refined"])
def test_gradients_flow_through_the_module(form):
    """Against finite differences along the input: the support does not change in so small a step."""
    Estimator, options = FORMS[form]
    rows = X[:6].astype(np.float64)
    y = X[:, :7] * 2 if form == "second view" else None
    model = Estimator(**SMALL | options).fit(X.astype(np.float64), y)
    module = model.to_torch()
    x = torch.from_numpy(rows).requires_grad_()
    assert torch.autograd.gradcheck(module, (x,), eps=1e-6, atol=1e-5)
    module(x).square().sum().backward()
    assert all(parameter.grad is not None for name, parameter in module.named_parameters() if name == "components")
    assert x.grad.abs().max() > 0


def test_the_module_works_as_a_hook_and_is_a_copy():
    model = ProjectiveDictionaryLearning(**SMALL).fit(X)
    module = model.to_torch()
    layer = torch.nn.Linear(D, D)
    inputs = torch.from_numpy(X[:8])
    hook = layer.register_forward_hook(lambda _, __, output: module(output))
    replaced = layer(inputs)
    hook.remove()
    assert_allclose(replaced.detach(), module(layer(inputs)).detach())
    before = model.components_.copy()
    with torch.no_grad():
        module.components.zero_()
    assert_array_equal(model.components_, before)
    assert "n_components=40" in repr(module)


# ---- the hub


def test_the_hub_folder_has_a_card_with_the_numbers(tmp_path):
    model = ProjectiveDictionaryLearning(**SMALL).fit(X)
    save_for_hub(model, tmp_path / "digits-40", data="Rows of a test.", licence="mit", X=X)
    card = (tmp_path / "digits-40" / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    for text in ("# digits-40", "Rows of a test.", f"| {fvu(model, X):.4f} |", "`n_nonzero_coefs=4`", "40 x 16"):
        assert text in card
    assert {path.name for path in (tmp_path / "digits-40").iterdir()} == {"README.md", "model.safetensors"}
    loaded = load(tmp_path / "digits-40" / "model.safetensors")
    assert_array_equal(loaded.transform(X), model.transform(X))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_for_hub(model, tmp_path / "digits-40", data="x", licence="mit")


def test_the_card_is_honest_about_what_it_was_not_shown(tmp_path):
    """Without held-out rows the training's own numbers; for an imported dictionary none."""
    model = TopKDictionaryLearning(**SMALL).fit(X)
    save_for_hub(model, tmp_path / "own", data="Rows.", licence="cc-by-4.0")
    card = (tmp_path / "own" / "README.md").read_text()
    for text in (
        f"| Fraction of variance unexplained, last training rows | {model.history_['fvu'][-1]:.4f} |",
        f"| Dead features at the end of training | {model.history_['n_dead'][-1]} of {P} |",
        f"| Features that never fired in training | {(model.n_activations_ == 0).sum()} of {P} |",
        "license: cc-by-4.0",
    ):
        assert text in card
    assert "held" not in card
    imported = TopKDictionaryLearning.from_sae(write_sparsify(tmp_path / "sae", random_weights()))
    save_for_hub(imported, tmp_path / "imported", data="Rows.", licence="mit", X=X)
    card = (tmp_path / "imported" / "README.md").read_text()
    assert "imported, and not trained on" in card
    assert "never fired" not in card
    unused = int((imported.transform(X) == 0).all(axis=0).sum())
    assert f"| Dead features on the held-out rows | {unused} of {P} |" in card
    with pytest.raises(ValueError, match="licence must be an identifier"):
        save_for_hub(model, tmp_path / "other", data="Rows.", licence="mit\nx: y")


def test_a_card_counts_in_slabs_and_takes_frames(tmp_path, monkeypatch):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"column {i}" for i in range(D)])
    model = TopKDictionaryLearning(**SMALL).fit(frame)
    monkeypatch.setattr("skprojdict.persistence.hub.SLAB_ROWS", 33)
    save_for_hub(model, tmp_path / "x", data="Rows.", licence="mit", X=frame)
    nonzero = model.transform(frame) != 0
    assert f"| {nonzero.sum() / len(X):.2f} |" in (tmp_path / "x" / "README.md").read_text()


def test_a_card_reads_held_out_rows_where_they_lie(tmp_path):
    model = TopKDictionaryLearning(**SMALL).fit(X)
    np.save(tmp_path / "a.npy", X[:150])
    np.save(tmp_path / "b.npy", X[150:])
    save_for_hub(model, tmp_path / "x", data="Rows.", licence="mit", X=[tmp_path / "a.npy", tmp_path / "b.npy"])
    save_for_hub(model, tmp_path / "y", data="Rows.", licence="mit", X=X)
    cards = [(tmp_path / name / "README.md").read_text().replace(f"# {name}", "") for name in ("x", "y")]
    assert cards[0] == cards[1]


def test_a_card_says_what_k_means_and_how_a_second_view_is_used(tmp_path):
    """Forms with thresholds aim at k on average, and rows have more."""
    cards = {}
    for name, model in {
        "relu": ReLUDictionaryLearning(**SMALL),
        "gated": GatedDictionaryLearning(**SMALL),
        "batch": TopKDictionaryLearning(**SMALL, selection="batch"),
        "second": ProjectiveDictionaryLearning(**SMALL, target="y"),
    }.items():
        save_for_hub(model.fit(X, X[:, :5]), tmp_path / name, data="Rows.", licence="mit", X=X, y=X[:, :5])
        cards[name] = (tmp_path / name / "README.md").read_text()
    for name in ("relu", "gated", "batch"):
        assert f"| Active atoms a row, mean aimed at in training | {K} |" in cards[name]
        assert "model.inverse_transform(codes)" in cards[name]
    assert f"| Active atoms a row, at most | {K} |" in cards["second"]
    model = ProjectiveDictionaryLearning(**SMALL).fit(X).set_params(n_nonzero_coefs=K + 1)
    save_for_hub(model, tmp_path / "other", data="Rows.", licence="mit", X=X)  # has no threshold for it
    assert f"| Active atoms a row, at most | {K + 1} |" in (tmp_path / "other" / "README.md").read_text()
    assert "prediction = model.predict(X)" in cards["second"]


@pytest.mark.parametrize("missing", ["data", "licence"])
def test_a_card_says_where_the_data_are_from_and_what_may_be_done(missing, tmp_path):
    model = TopKDictionaryLearning(**SMALL | {"max_steps": 2}).fit(X)
    with pytest.raises(ValueError, match=f"{missing} must be a text"):
        save_for_hub(model, tmp_path / "x", **{"data": "d", "licence": "mit", missing: " "})
    assert not (tmp_path / "x").exists()


def test_other_estimators_have_cards_too(tmp_path):
    model = MethodOfOptimalDirections(P, n_nonzero_coefs=K, max_iter=1, random_state=0, sparse_output=True).fit(X)
    save_for_hub(model, tmp_path / "mod", data="Rows.", licence="mit", X=X)
    assert "MethodOfOptimalDirections" in (tmp_path / "mod" / "README.md").read_text()


def test_second_derivatives_of_the_module_raise():
    """Rather than be wrong: some gradients are summed outside of torch."""
    model = TopKDictionaryLearning(**SMALL).fit(X)
    module, batch = model.to_torch(), torch.from_numpy(X[:50]).to(torch.float32)
    module = module.to(torch.float32)
    gradients = torch.autograd.grad(
        (module(batch) - batch).pow(2).mean(), [module.components, module.encoder], create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        sum(g.pow(2).sum() for g in gradients).backward()
