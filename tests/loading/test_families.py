"""The files of three families: what is saved is loaded, in all the forms that files have."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.bases import BERT, LLAMA, random_base
from helpers.damage import write_bfloat16
from safetensors.numpy import load_file, save_file

from minipt.errors import MiniptError
from minipt.loading.families import read_config
from minipt.loading.load import load_base, save_base
from minipt.transformer.base import Base

BASES = {
    "gpt2": {},
    "llama": LLAMA,
    "llama, one key head": LLAMA | {"key_value_heads": 1, "rotary_base": 500.0},
    "llama, untied, with biases": LLAMA
    | {"key_value_heads": 2, "tied": False, "attention_bias": True, "mlp_bias": True},
    "bert": BERT,
    "encoder": BERT | {"head": None, "segments": 1},
}
TRUNKS = {"gpt2": "transformer.", "llama": "model.", "encoder": "bert."}
WEIGHTS = "model.safetensors"


@pytest.fixture(params=BASES)
def base(request: pytest.FixtureRequest) -> Base:
    return make(request.param)


def make(name: str) -> Base:
    return random_base(3, channels=16, heads=4, **BASES[name])


@pytest.fixture
def directory(base, tmp_path) -> Path:
    save_base(base, tmp_path / "model")
    return tmp_path / "model"


def saved(name: str, tmp_path: Path, **entries: object) -> Path:
    """A base's directory, with other entries in its config."""
    directory = tmp_path / "model"
    save_base(make(name), directory)
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    return directory


def rewrite(directory: Path, change) -> None:
    tensors = {name: array.copy() for name, array in load_file(directory / WEIGHTS).items()}
    save_file(change(tensors), directory / WEIGHTS)


def test_what_is_saved_is_what_is_loaded(base, directory):
    loaded = load_base(directory)
    assert loaded.config == base.config
    assert loaded.fingerprint == base.fingerprint


@pytest.mark.parametrize("name", TRUNKS)
def test_a_file_saved_without_a_head_has_shorter_names(name, tmp_path):
    directory = saved(name, tmp_path)
    trunk = TRUNKS[name]
    rewrite(directory, lambda x: {key.removeprefix(trunk): array for key, array in x.items()})
    assert load_base(directory).fingerprint == make(name).fingerprint


REPEATED = [
    ("gpt2", "lm_head.weight", "token.table"),
    ("llama", "lm_head.weight", "token.table"),
    ("bert", "cls.predictions.decoder.weight", "token.table"),
    ("bert", "cls.predictions.decoder.bias", "head.bias"),
]


@pytest.mark.parametrize(("name", "again", "ours"), REPEATED)
def test_what_is_tied_may_stand_in_the_file_twice(name, again, ours, tmp_path):
    directory = saved(name, tmp_path)
    array = make(name).params[ours].copy()
    rewrite(directory, lambda x: x | {again: array})
    assert load_base(directory).fingerprint == make(name).fingerprint
    array[-1] += 1.0
    rewrite(directory, lambda x: x | {again: array})
    with pytest.raises(MiniptError, match=rf"{again} differs from .*; minipt ties the two"):
        load_base(directory)


def test_old_llamas_hold_their_wavelengths(tmp_path):
    directory = saved("llama", tmp_path)
    wavelengths = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32)}
    rewrite(directory, lambda x: x | wavelengths)
    assert load_base(directory).fingerprint == make("llama").fingerprint


def test_an_untied_output_without_its_matrix_is_refused(tmp_path):
    directory = saved("llama, untied, with biases", tmp_path)
    rewrite(directory, lambda x: {key: y for key, y in x.items() if key != "lm_head.weight"})
    with pytest.raises(MiniptError, match=r"file has no lm_head\.weight.*take the one with it"):
        load_base(directory)


def test_parts_of_a_bert_for_other_uses_and_its_older_names(tmp_path):
    directory = saved("bert", tmp_path)
    other = {"bert.pooler.dense.weight": np.ones((16, 16), np.float32)}
    other |= {"bert.embeddings.position_ids": np.arange(16)[None]}
    other |= {"cls.seq_relationship.bias": np.ones(2, np.float32)}

    def older(tensors: dict) -> dict:
        renamed = {}
        for name, array in tensors.items():
            for new, old in (("Norm.weight", "Norm.gamma"), ("Norm.bias", "Norm.beta")):
                name = name.replace(new, old)
            renamed[name] = array
        assert renamed.keys() != tensors.keys()
        return renamed | other

    rewrite(directory, older)
    assert load_base(directory).fingerprint == make("bert").fingerprint


def split(directory: Path) -> list[Path]:
    """The weights in three shards and their index."""
    tensors = load_file(directory / WEIGHTS)
    names = sorted(tensors)
    index = {}
    for i in range(3):
        shard = f"model-{i + 1:05}-of-00003.safetensors"
        save_file({name: tensors[name] for name in names[i::3]}, directory / shard)
        index |= dict.fromkeys(names[i::3], shard)
    (directory / WEIGHTS).unlink()
    (directory / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": index}))
    return sorted(directory.glob("model-*.safetensors"))


def test_shards(base, directory):
    assert len(split(directory)) == 3
    assert load_base(directory).fingerprint == base.fingerprint


def test_wrong_shards_are_refused(tmp_path):
    directory = saved("llama", tmp_path)
    shards = split(directory)
    index = directory / f"{WEIGHTS}.index.json"
    whole = shards[1].read_bytes()
    shards[1].write_bytes(whole[:-10])
    with pytest.raises(MiniptError, match=f"{shards[1].name} is truncated"):
        load_base(directory)
    shards[1].unlink()
    with pytest.raises(MiniptError, match=f"has no {shards[1].name}: fetch the model again"):
        load_base(directory)
    save_file({"other": np.ones(1, np.float32)}, shards[1])
    with pytest.raises(MiniptError, match="lacks the tensor"):
        load_base(directory)
    for content, match in (("{}", "has no weight_map"), ("{half", "is not a JSON object")):
        index.write_text(content)
        with pytest.raises(MiniptError, match=match):
            load_base(directory)


def test_half_precision_becomes_float32_without_loss(base, directory):
    rewrite(directory, lambda x: {name: y.astype(np.float16) for name, y in x.items()})
    loaded = load_base(directory)
    for name, array in base.params.items():
        assert loaded.params[name].dtype == np.float32
        np.testing.assert_array_equal(loaded.params[name], array.astype(np.float16), name)


def test_bfloat16_becomes_float32_without_loss(base, directory):
    write_bfloat16(directory / WEIGHTS, load_file(directory / WEIGHTS))
    loaded = load_base(directory)
    for name, array in base.params.items():
        upper = (array.view(np.uint32) >> 16 << 16).view(np.float32)
        np.testing.assert_array_equal(loaded.params[name], upper, name)


@pytest.mark.parametrize(
    ("name", "entries", "named"),
    [
        ("llama", {"model_type": "mistral"}, "model_type = 'mistral'"),
        ("llama", {"model_type": "qwen2"}, "model_type = 'qwen2'"),
        ("bert", {"model_type": "roberta"}, "model_type = 'roberta'"),
        ("bert", {"model_type": "distilbert"}, "model_type = 'distilbert'"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ("llama", {"sliding_window": 4096}, "sliding_window = 4096"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling = "),
        ("llama", {"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters = .*llama3"),
        ("llama", {"rope_parameters": {"type": "linear"}}, "rope_parameters = .*linear"),
        ("llama", {"rope_parameters": {"factor": 2.0}}, "rope_parameters = .*factor"),
        ("llama", {"rope_parameters": {"full_attention": {}}}, "rope_parameters = .*full_att"),
        ("llama", {"rope_parameters": [1]}, "rope_parameters = "),
        ("llama", {"is_causal": False}, "is_causal = False"),
        ("gpt2", {"is_causal": False}, "is_causal = False"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}},
            "partial_rotary_factor = 0.25",
        ),
        ("llama", {"head_dim": 8}, "head_dim = 8"),
        ("bert", {"hidden_act": "relu"}, "hidden_act = 'relu'"),
        ("bert", {"hidden_act": "gelu_new"}, "hidden_act = 'gelu_new'"),
        ("bert", {"position_embedding_type": "relative_key"}, "'relative_key'"),
        ("bert", {"is_decoder": True}, "is_decoder = True"),
        ("bert", {"add_cross_attention": True}, "add_cross_attention = True"),
        ("bert", {"tie_word_embeddings": False}, "tie_word_embeddings = False"),
        ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_scaling = "),
        ("llama", {"rope_scaling": "linear"}, "rope_scaling = 'linear'"),
        ("llama", {"rope_scaling": {"rope_type": ["default"]}}, "rope_scaling = "),
        ("llama", {"attention_bias": "false"}, "attention_bias = 'false'"),
        ("llama", {"mlp_bias": 2}, "mlp_bias = 2"),
        ("llama", {"tie_word_embeddings": []}, r"tie_word_embeddings = \[\]"),
        ("gpt2", {"quantization_config": {"bits": 4}}, "quantization_config = {'bits': 4}"),
    ],
)
def test_what_minipt_does_not_compute_is_refused_by_name(name, entries, named, tmp_path):
    load_base(saved(name, tmp_path / "right"))
    with pytest.raises(MiniptError, match=rf"config\.json says .*{named}.*, which minipt does not"):
        load_base(saved(name, tmp_path / "wrong", **entries))


@pytest.mark.parametrize(
    ("name", "entries", "match"),
    [
        ("llama", {"num_key_value_heads": 3}, "4 heads do not divide among 3 key heads"),
        ("llama", {"num_key_value_heads": 0}, "4 heads do not divide among 0"),
        ("llama", {"intermediate_size": None}, "lacks a size or has one that is no number"),
        ("llama", {"num_attention_heads": 4.5}, "lacks a size or has one that is no number"),
        ("bert", {"num_attention_heads": "4"}, "lacks a size or has one that is no number"),
        ("llama", {"rope_theta": 0}, "rotary positions need"),
        ("llama", {"rope_theta": float("inf")}, "no number of its kind: rope_theta = inf"),
        ("llama", {"rope_theta": float("nan")}, "rotary positions need"),
        ("llama", {"rope_theta": 1e39}, r"no number of its kind: rope_theta = 1e\+39"),
        ("llama", {"rope_theta": "4"}, "no number of its kind: rope_theta = '4'"),
        ("llama", {"rope_theta": True}, "no number of its kind: rope_theta = True"),
        ("llama", {"rope_parameters": {"rope_theta": "4"}}, "rope_theta = '4'"),
        ("llama", {"rms_norm_eps": False}, "no number of its kind: rms_norm_eps = False"),
        ("gpt2", {"layer_norm_epsilon": float("inf")}, "layer_norm_epsilon = inf"),
        ("llama", {"max_position_embeddings": 10**30}, "max_position_embeddings = 10+"),
        ("bert", {"type_vocab_size": 0}, "says type_vocab_size = 0: every size is at least 1"),
        ("bert", {"type_vocab_size": True}, "no number of its kind: type_vocab_size = True"),
        ("llama", {"rms_norm_eps": -1.0}, "epsilon is -1.0"),
        ("llama", {"hidden_size": 24}, "has shape"),
        ("llama", {"num_attention_heads": 16}, "even number of channels a head"),
        ("bert", {"type_vocab_size": 3}, r"segment\.table has shape \(2, 16\)"),
        ("llama", {"attention_bias": True}, r"lacks the tensor '.*q_proj\.bias'"),
        ("llama, untied, with biases", {"mlp_bias": False}, "config has not"),
    ],
)
def test_what_makes_no_sense_is_refused(name, entries, match, tmp_path):
    with pytest.raises(MiniptError, match=match):
        load_base(saved(name, tmp_path, **entries))


def test_settings_that_transformers_5_keeps_together(tmp_path):
    together = {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}}
    assert load_base(saved("llama", tmp_path, **together)).config.rotary_base == 77.0


@pytest.mark.parametrize(
    "neutral",
    [
        {"rope_scaling": {"type": "default"}},
        {"rope_scaling": {"rope_type": "default"}},
        {"rope_scaling": {}},
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.0}},
        {"attention_bias": None},
        {"quantization_config": None},
    ],
)
def test_settings_that_say_nothing(neutral, tmp_path):
    loaded = load_base(saved("llama", tmp_path, **neutral))
    assert loaded.fingerprint == make("llama").fingerprint


def test_transformers_other_names_of_gpt2s_sizes(tmp_path):
    """A number of heads shows in no shape, so it must not be overlooked."""
    assert load_base(saved("gpt2", tmp_path, num_attention_heads=2)).config.heads == 2
    with pytest.raises(MiniptError, match=r"lacks the tensor 'transformer\.h\.2"):
        load_base(saved("gpt2", tmp_path / "deeper", num_hidden_layers=3))


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("gpt2", {"n_inner": 64, "layer_norm_epsilon": 1e-5}),
        ("llama", {"num_key_value_heads": 4, "rope_theta": 10000.0, "rms_norm_eps": 1e-6}),
        ("llama, untied, with biases", {"tie_word_embeddings": False}),
        ("bert", {"layer_norm_eps": 1e-12, "type_vocab_size": 2}),
    ],
)
def test_what_a_config_leaves_out_is_what_transformers_takes_for_it(name, missing, tmp_path):
    directory = saved(name, tmp_path, **missing)
    found = json.loads((directory / "config.json").read_text())
    names = load_file(directory / WEIGHTS)
    left = {key: value for key, value in found.items() if key not in missing}
    assert read_config(left, names, "here") == read_config(found, names, "here")


@pytest.mark.parametrize(
    ("name", "model_type", "architecture"),
    [
        ("gpt2", "gpt2", "GPT2LMHeadModel"),
        ("llama", "llama", "LlamaForCausalLM"),
        ("bert", "bert", "BertForMaskedLM"),
        ("encoder", "bert", "BertModel"),
    ],
)
def test_a_save_says_what_it_is(name, model_type, architecture, tmp_path):
    found = json.loads((saved(name, tmp_path) / "config.json").read_text())
    assert (found["model_type"], found["architectures"]) == (model_type, [architecture])


def test_another_kind_of_model_is_named_before_anything_that_it_lacks(tmp_path):
    directory = saved("llama", tmp_path, model_type="qwen2")
    (directory / WEIGHTS).unlink()
    with pytest.raises(MiniptError, match="model_type = 'qwen2'"):
        load_base(directory)
