# SPDX-License-Identifier: BSD-3-Clause
"""Files and objects of the real SAELens, sparsify and dictionary_learning, both ways: ``make test-peers``.

They are no dependency of ours. ``SKPROJDICT_PEERS`` names the site-packages of the benchmarks' environment; stand-ins
for what the peers import and never use would be in the way of other tests, so these run in a process of their own.
"""

import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skprojdict import (
    GatedDictionaryLearning,
    JumpReLUDictionaryLearning,
    ProjectiveDictionaryLearning,
    ReLUDictionaryLearning,
    TopKDictionaryLearning,
)
from skprojdict.persistence import save_for_sae_lens

from .data import sparse_rows

PEERS = os.environ.get("SKPROJDICT_PEERS")
if PEERS:
    sys.path += [PEERS, str(Path(__file__).parents[1] / "benchmarks" / "peers")]
    importlib.import_module("stubs").install()
else:
    pytest.skip("SKPROJDICT_PEERS is not set; make test-peers sets it", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs

D, P, K = 16, 40, 4
X = sparse_rows(n=400, d=D, p=32, k=3).astype(np.float32) * 5
ROWS = torch.from_numpy(X)
SMALL = {"n_components": P, "n_nonzero_coefs": K, "max_steps": 60, "batch_size": 64, "random_state": 0}


FAMILY = [
    *(f"dictionary_learning {form}" for form in ("BatchTopK", "ReLU", "JumpReLU", "gated")),
    *(f"SAELens {form}" for form in ("ReLU", "JumpReLU", "gated")),
]


def randomise(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def sae_lens_top_k(**options):
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    return randomise(TopKSAE(TopKSAEConfig(d_in=D, d_sae=P, k=K, **options)))


def test_sae_lens_opens_a_top_k_dictionary(tmp_path):
    import sae_lens

    model = TopKDictionaryLearning(**SMALL).fit(X)
    save_for_sae_lens(model, tmp_path, metadata={"model_name": "none", "hook_name": "test"})
    sae = sae_lens.SAE.load_from_disk(tmp_path)
    codes = sae.encode(ROWS).detach().numpy()
    assert_allclose(codes, model.transform(X), atol=2e-4)
    decoded = sae.decode(torch.from_numpy(codes)).detach().numpy()
    assert_allclose(decoded, model.inverse_transform(codes), atol=2e-4)
    assert sae.cfg.metadata.hook_name == "test"


def test_sae_lens_opens_a_projective_dictionary_and_projection_comes_back(tmp_path):
    import sae_lens

    model = ProjectiveDictionaryLearning(**SMALL).fit(X)
    save_for_sae_lens(model, tmp_path)
    sae = sae_lens.SAE.load_from_disk(tmp_path)
    additive = sae(ROWS).detach().numpy()
    module = ProjectiveDictionaryLearning.from_sae(sae).to_torch()
    projected = module(ROWS).detach().numpy()
    assert_allclose(projected, model.inverse_transform(model.transform(X)), atol=2e-2)
    assert ((X - projected) ** 2).sum() < 0.9 * ((X - additive) ** 2).sum()


@pytest.mark.parametrize(
    "options", [{}, {"rescale_acts_by_decoder_norm": True}, {"apply_b_dec_to_input": False}], ids=str
)
@pytest.mark.parametrize("live", [True, False])
def test_sae_lens_top_k_comes_in(options, live, tmp_path):
    sae = sae_lens_top_k(**options)
    if live:
        source = sae
    else:
        sae.save_model(tmp_path)
        source = tmp_path
    codes = sae.encode(ROWS).detach().numpy()
    model = ProjectiveDictionaryLearning.from_sae(source, candidate_factor=1)
    assert_array_equal(model.transform(X) != 0, codes > 0)
    if options.get("rescale_acts_by_decoder_norm"):
        additive = TopKDictionaryLearning.from_sae(source)
        assert_allclose(additive.transform(X), codes, atol=1e-4)
        assert_allclose(additive.inverse_transform(codes), sae(ROWS).detach().numpy(), atol=1e-4)


def test_sae_lens_jump_relu_comes_in(tmp_path):
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig

    sae = randomise(JumpReLUSAE(JumpReLUSAEConfig(d_in=D, d_sae=P)))
    with torch.no_grad():
        sae.threshold.abs_()
    sae.save_model(tmp_path)
    for source in (sae, tmp_path):
        model = ProjectiveDictionaryLearning.from_sae(source, penalty="ridge", alpha=1e-3)
        assert_array_equal(model.transform(X) != 0, sae.encode(ROWS).detach().numpy() > 0)


@pytest.mark.parametrize("live", [True, False])
def test_sparsify_comes_in(live, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSIFY_DISABLE_TRITON", "1")
    import sparsify

    sae = randomise(sparsify.SparseCoder(D, sparsify.SparseCoderConfig(num_latents=P, k=K)))
    sae.set_decoder_norm_to_unit_norm()
    sae.save_to_disk(tmp_path)
    found = sae.encode(ROWS)
    codes = torch.zeros(len(X), P).scatter_(1, found.top_indices, found.top_acts).detach().numpy()
    source = sae if live else tmp_path
    additive = TopKDictionaryLearning.from_sae(source)
    assert_allclose(additive.transform(X), codes, atol=1e-4)
    assert_allclose(additive.inverse_transform(codes), sae(ROWS).sae_out.detach().numpy(), atol=1e-4)
    model = ProjectiveDictionaryLearning.from_sae(source, candidate_factor=1)
    assert_array_equal(model.transform(X) != 0, codes > 0)
    assert model.score(X) > additive.score(X)


@pytest.mark.parametrize("live", [True, False])
def test_dictionary_learning_comes_in(live, tmp_path):
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    sae = AutoEncoderTopK(D, P, K)
    with torch.no_grad():
        sae.encoder.bias.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
        sae.b_dec.copy_(ROWS.mean(0))
    torch.save(sae.state_dict(), tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text('{"trainer": {"dict_class": "AutoEncoderTopK", "k": 4}}')
    codes = sae.encode(ROWS).detach().numpy()
    source = sae if live else tmp_path
    additive = TopKDictionaryLearning.from_sae(source)
    assert_allclose(additive.transform(X), codes, atol=1e-4)
    assert_allclose(additive.inverse_transform(codes), sae(ROWS).detach().numpy(), atol=1e-4)
    model = ProjectiveDictionaryLearning.from_sae(source, candidate_factor=1)
    assert_array_equal(model.transform(X) != 0, codes > 0)


def family():
    """Autoencoders of other libraries with weights off their start, and the estimator that computes the same."""
    from dictionary_learning.dictionary import AutoEncoder, GatedAutoEncoder, JumpReluAutoEncoder
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

    size = {"d_in": D, "d_sae": P}
    batch = BatchTopKSAE(D, P, K)
    batch.threshold.fill_(0.3)
    jump, lens_jump = JumpReluAutoEncoder(D, P), JumpReLUSAE(JumpReLUSAEConfig(**size))
    made = {
        "dictionary_learning BatchTopK": (batch, TopKDictionaryLearning),
        "dictionary_learning ReLU": (AutoEncoder(D, P), ReLUDictionaryLearning),
        "dictionary_learning JumpReLU": (jump, JumpReLUDictionaryLearning),
        "dictionary_learning gated": (GatedAutoEncoder(D, P), GatedDictionaryLearning),
        "SAELens ReLU": (StandardSAE(StandardSAEConfig(**size)), ReLUDictionaryLearning),
        "SAELens JumpReLU": (lens_jump, JumpReLUDictionaryLearning),
        "SAELens gated": (GatedSAE(GatedSAEConfig(**size)), GatedDictionaryLearning),
    }
    for sae, _ in made.values():
        randomise(sae)
    with torch.no_grad():
        jump.threshold.abs_()
        lens_jump.threshold.abs_()
        batch.decoder.weight.div_(batch.decoder.weight.norm(dim=0))  # as its trainer leaves it
    return made


@pytest.mark.parametrize("name", FAMILY)
def test_the_family_computes_what_its_peers_do(name):
    """The same weights, the same output, to 1e-5 of the size of the rows."""
    sae, Estimator = family()[name]
    model = Estimator.from_sae(sae)
    theirs = sae(ROWS).detach().numpy()
    codes = sae.encode(ROWS).detach().numpy()
    assert 0 < (codes > 0).mean() < 1
    close = 1e-5 * np.linalg.norm(X, axis=1).max()
    assert_allclose(model.inverse_transform(model.transform(X)), theirs, atol=close)
    assert_allclose(model.to_torch()(ROWS).detach().numpy(), theirs, atol=close)
    projected = ProjectiveDictionaryLearning.from_sae(sae, penalty="ridge", alpha=1e-3)
    assert ((projected.transform(X) != 0) != (codes > 0)).mean() < 1e-3
    assert projected.score(X) > 1 - ((X - theirs) ** 2).sum() / ((X - X.mean(0)) ** 2).sum()
