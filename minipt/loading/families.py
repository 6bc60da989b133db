"""Three families of models: the names in Hugging Face's files, and minipt's names for the same.

In: a `config.json` as a dict, and the names of the tensors beside it. Out: a `Config`, and for each
of minipt's parameters the tensor that holds it. A setting that minipt does not compute is refused
by its name.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from operator import index

import numpy as np

from minipt.errors import MiniptError
from minipt.transformer.base import Config


@dataclass(frozen=True)
class Place:
    """The place of a parameter in a file: a tensor's name, and the parameter's form in it.

    transposed: the tensor is (out, in), the parameter (in, out). third: the parameter is this third
    of the tensor's last axis. GPT-2's query, key and value stand side by side in one tensor.
    """

    name: str
    transposed: bool = False
    third: int | None = None


@dataclass(frozen=True)
class Family:
    """One family: how its config is read and written, and where its tensors are.

    architecture: the name of its class in transformers. fields: the fields that every such `Config`
    has. sizes: from a field of `Config` to the file's key. known: for each key the values that
    minipt computes; the first is the value of a missing key. trunk: the prefix of all tensors but
    the head's, absent in files saved without a head. places: the tensors of a config's parameters,
    without the prefix. defaults: the value of a missing size or switch. synonyms: other names of
    keys; transformers prefers them where a file has both.
    """

    architecture: str
    fields: dict
    sizes: dict[str, str]
    known: dict[str, tuple]
    trunk: str
    places: Callable[[Config], dict[str, Place]]
    defaults: dict = field(default_factory=dict)
    synonyms: dict[str, str] = field(default_factory=dict)


def family_of(config_json: dict, where: str) -> Family:
    """The family that a `config.json` names. Raises MiniptError for any other model type.

    Without a model type, the model's class in transformers tells the family.
    """
    model_type = config_json.get("model_type")
    if model_type is None and isinstance(classes := config_json.get("architectures"), list):
        model_type = next((known for name, known in CLASSES.items() if name in classes), None)
    if model_type is None:
        raise MiniptError(
            f"{where} does not say which model_type it is: add it, such as "
            f'"model_type": "gpt2"; minipt knows {", ".join(FAMILIES)}'
        )
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise not_computed(where, "model_type", model_type, ", ".join(FAMILIES))
    return FAMILIES[model_type]


def read_config(config_json: dict, names: Collection[str], where: str) -> Config:
    """The `Config` of a `config.json` and of the names of the tensors that came with it.

    Raises MiniptError for a setting that minipt does not compute, by its name, and for sizes that
    are missing or make no sense.
    """
    family = family_of(config_json, where)
    config_json = family.defaults | _flat(config_json)
    synonyms = family.synonyms.items()
    config_json |= {key: config_json[other] for other, key in synonyms if other in config_json}
    for key, known in (COMMON | family.known).items():
        if config_json.get(key, known[0]) not in known:
            raise not_computed(where, key, config_json[key], " and ".join(map(repr, known)))
    sizes = {
        ours: _size(ours, theirs, config_json, family.defaults.get(theirs, 0) is None, where)
        for ours, theirs in family.sizes.items()
    }
    if sizes["layers"] > len(names):
        raise MiniptError(
            f"{where} says {family.sizes['layers']} = {sizes['layers']}, more than the "
            f"{len(names)} tensors beside it: fetch the model again"
        )
    if sizes["hidden"] is None:
        sizes["hidden"] = 4 * sizes["channels"]
    if sizes.get("key_value_heads") == sizes["heads"]:
        sizes["key_value_heads"] = None
    sizes |= _particular(family, config_json, set(names), where)
    config = Config(**family.fields, **sizes)
    _check_sizes(config, family, config_json, where)
    return config


def not_computed(where: object, key: str, value: object, known: str) -> MiniptError:
    """The error for a setting of a file that minipt would have to read past."""
    return MiniptError(
        f"{where} says {key} = {value!r:.200}, which minipt does not compute; it knows {known}"
    )


def write_config(config: Config) -> dict:
    """The `config.json` of a `Config`, as transformers reads it."""
    name = family_name(config)
    family = FAMILIES[name]
    described = {key: known[0] for key, known in family.known.items() if known[0] is not None}
    described |= {theirs: getattr(config, ours) for ours, theirs in family.sizes.items()}
    described |= {"architectures": [family.architecture], "model_type": name}
    if name == "llama":
        described["num_key_value_heads"] = config.key_value_heads or config.heads
        described |= {"attention_bias": config.attention_bias, "mlp_bias": config.mlp_bias}
        described |= {"tie_word_embeddings": config.tied}
    if name == "bert" and config.head is None:
        described["architectures"] = ["BertModel"]
    return described


def family_name(config: Config) -> str:
    """The family whose file a `Config` is written to."""
    if not config.causal:
        return "bert"
    return "llama" if config.positions == "rotary" else "gpt2"


def all_places(config: Config, with_trunk: bool) -> dict[str, Place]:
    """The place of each parameter in a file that was saved with or without a head."""
    family = FAMILIES[family_name(config)]
    trunk = family.trunk if with_trunk else ""
    places = {
        ours: Place(trunk + place.name, place.transposed, place.third)
        for ours, place in family.places(config).items()
    }
    if not config.tied:
        places["output.table"] = Place("lm_head.weight")
    if config.head == "masked":
        transform = "cls.predictions.transform"
        places |= _linear("head.dense", f"{transform}.dense", True)
        places |= _norm("head.norm", f"{transform}.LayerNorm", True)
        places["head.bias"] = Place("cls.predictions.bias")
    return places


def _particular(family: Family, config_json: dict, names: set[str], where: str) -> dict:
    """Fields of some families only: biases and a tied output of Llama, a head or none of BERT."""
    if family is FAMILIES["bert"]:
        masked = any(name.startswith("cls.predictions.") for name in names)
        return {"head": "masked" if masked else None}
    if family is FAMILIES["gpt2"]:
        return {}
    for key in ("tie_word_embeddings", "attention_bias", "mlp_bias"):
        if config_json[key] not in (True, False, None):
            raise not_computed(where, key, config_json[key], "True and False")
    tied = bool(config_json["tie_word_embeddings"])
    if not tied and "lm_head.weight" not in names:
        raise MiniptError(
            f"{where} says tie_word_embeddings = False, but the file has no lm_head.weight: it was "
            "saved without its head, so take the one with it"
        )
    biases = {key: bool(config_json[key]) for key in ("attention_bias", "mlp_bias")}
    return biases | {"tied": tied}


# Above them no model is, and below them all arithmetic with sizes is exact.
LARGEST, FLOAT32 = 2**31, float(np.finfo(np.float32).max)
# What `rope_parameters` may hold; older files say type for rope_type.
ROTARY = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


def _flat(config_json: dict) -> dict:
    """The config without the dict in which transformers 5 puts the keys of rotary positions.

    Older files have it under another name, and only where the positions are changed.
    """
    for key in ("rope_scaling", "rope_parameters"):
        rotary = config_json.get(key) or {}
        if not isinstance(rotary, dict) or rotary.keys() - ROTARY:
            continue
        if all(rotary.get(each, "default") == "default" for each in ("rope_type", "type")):
            config_json = config_json | rotary | {key: None}
    return config_json


def _size(
    ours: str, theirs: str, config_json: dict, optional: bool, where: str
) -> int | float | None:
    """Sizes are whole numbers. An optional one may be None: it follows from other sizes."""
    value = config_json.get(theirs)
    if value is None and optional:
        return None
    whole = ours not in ("epsilon", "rotary_base")
    try:
        if isinstance(value, bool | str) or abs(value) > (LARGEST if whole else FLOAT32):
            raise TypeError
        return index(value) if whole else float(value)
    except TypeError:
        said = f"{theirs} = {value!r:.200}" if theirs in config_json else theirs
        raise MiniptError(
            f"{where} lacks a size or has one that is no number of its kind: {said}"
        ) from None


def _check_sizes(config: Config, family: Family, config_json: dict, where: str) -> None:
    counts = family.sizes.keys() - {"key_value_heads", "rotary_base", "epsilon"}
    wrong = [ours for ours in sorted(counts) if getattr(config, ours) < 1]
    if wrong or config.channels % config.heads:
        said = [f" says {family.sizes[ours]} = {getattr(config, ours)}" for ours in wrong]
        raise MiniptError(
            f"{where}{''.join(said[:1])}: every size is at least 1 and {config.channels} channels "
            f"divide into {config.heads} heads"
        )
    shared = config.heads if config.key_value_heads is None else config.key_value_heads
    if shared < 1 or config.heads % shared:
        raise MiniptError(f"{where}: {config.heads} heads do not divide among {shared} key heads")
    D = config.channels // config.heads
    if config_json.get("head_dim") not in (None, D):
        known = f"hidden_size / num_attention_heads = {D}"
        raise not_computed(where, "head_dim", config_json["head_dim"], known)
    if config.positions == "rotary" and (D % 2 or not config.rotary_base > 0):
        raise MiniptError(f"{where}: rotary positions need an even number of channels a head")
    if not 0.0 <= config.epsilon < 1.0:
        raise MiniptError(f"{where}: the norms' epsilon is {config.epsilon}, not a small number")


def _linear(ours: str, theirs: str, bias: bool, transposed: bool = True) -> dict[str, Place]:
    weight = {f"{ours}.weight": Place(f"{theirs}.weight", transposed)}
    return weight | {f"{ours}.bias": Place(f"{theirs}.bias")} if bias else weight


def _norm(ours: str, theirs: str, bias: bool) -> dict[str, Place]:
    gain = {f"{ours}.gain": Place(f"{theirs}.weight")}
    return gain | {f"{ours}.bias": Place(f"{theirs}.bias")} if bias else gain


def _gpt2_places(config: Config) -> dict[str, Place]:
    places = {"token.table": Place("wte.weight"), "position.table": Place("wpe.weight")}
    places |= _norm("final", "ln_f", True)
    for i in range(config.layers):
        places |= _norm(f"h{i}.ln1", f"h.{i}.ln_1", True) | _norm(f"h{i}.ln2", f"h.{i}.ln_2", True)
        for third, part in enumerate(("query", "key", "value")):
            for kind in ("weight", "bias"):
                name = f"h.{i}.attn.c_attn.{kind}"
                places[f"h{i}.attn.{part}.{kind}"] = Place(name, third=third)
        places |= _linear(f"h{i}.attn.out", f"h.{i}.attn.c_proj", True, transposed=False)
        places |= _linear(f"h{i}.mlp.up", f"h.{i}.mlp.c_fc", True, transposed=False)
        places |= _linear(f"h{i}.mlp.down", f"h.{i}.mlp.c_proj", True, transposed=False)
    return places


def _llama_places(config: Config) -> dict[str, Place]:
    places = {"token.table": Place("embed_tokens.weight")} | _norm("final", "norm", False)
    parts = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
    for i in range(config.layers):
        at = f"layers.{i}"
        places |= _norm(f"h{i}.ln1", f"{at}.input_layernorm", False)
        places |= _norm(f"h{i}.ln2", f"{at}.post_attention_layernorm", False)
        for ours, theirs in parts.items():
            places |= _linear(
                f"h{i}.attn.{ours}", f"{at}.self_attn.{theirs}", config.attention_bias
            )
        for ours in ("gate", "up", "down"):
            places |= _linear(f"h{i}.mlp.{ours}", f"{at}.mlp.{ours}_proj", config.mlp_bias)
    return places


def _bert_places(config: Config) -> dict[str, Place]:
    tables = {"token": "word", "position": "position", "segment": "token_type"}
    places = {
        f"{ours}.table": Place(f"embeddings.{theirs}_embeddings.weight")
        for ours, theirs in tables.items()
    }
    places |= _norm("embedding.norm", "embeddings.LayerNorm", True)
    parts = {"query": "self.query", "key": "self.key", "value": "self.value"}
    for i in range(config.layers):
        at = f"encoder.layer.{i}"
        places |= _norm(f"h{i}.ln1", f"{at}.attention.output.LayerNorm", True)
        places |= _norm(f"h{i}.ln2", f"{at}.output.LayerNorm", True)
        for ours, theirs in (parts | {"out": "output.dense"}).items():
            places |= _linear(f"h{i}.attn.{ours}", f"{at}.attention.{theirs}", True)
        places |= _linear(f"h{i}.mlp.up", f"{at}.intermediate.dense", True)
        places |= _linear(f"h{i}.mlp.down", f"{at}.output.dense", True)
    return places


# Of every family: what transformers does to the weights before it computes.
COMMON = {"quantization_config": (None,)}
# Parts of the names of tensors that no one reads: masks and wavelengths that old files hold as if
# they were parameters, and parts of a BERT for other uses.
BUFFERS = (
    ".attn.bias",
    ".attn.masked_bias",
    ".rotary_emb.inv_freq",
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    "pooler.dense.",
    "cls.seq_relationship.",
)
CLASSES = dict.fromkeys(("GPT2LMHeadModel", "GPT2Model"), "gpt2")
CLASSES |= dict.fromkeys(("LlamaForCausalLM", "LlamaModel"), "llama")
CLASSES |= dict.fromkeys(("BertForMaskedLM", "BertForPreTraining", "BertModel"), "bert")
FAMILIES = {
    "gpt2": Family(
        architecture="GPT2LMHeadModel",
        fields={},
        sizes={
            "layers": "n_layer",
            "channels": "n_embd",
            "heads": "n_head",
            "hidden": "n_inner",
            "vocabulary": "vocab_size",
            "context": "n_positions",
            "epsilon": "layer_norm_epsilon",
        },
        known={
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
            "is_causal": (None, True),
            "tie_word_embeddings": (True,),
        },
        trunk="transformer.",
        places=_gpt2_places,
        defaults={"n_inner": None, "layer_norm_epsilon": 1e-5},
        synonyms={
            "num_hidden_layers": "n_layer",
            "hidden_size": "n_embd",
            "num_attention_heads": "n_head",
            "max_position_embeddings": "n_positions",
        },
    ),
    "llama": Family(
        architecture="LlamaForCausalLM",
        fields={"norm": "rms", "positions": "rotary", "activation": "silu", "gated": True},
        sizes={
            "layers": "num_hidden_layers",
            "channels": "hidden_size",
            "heads": "num_attention_heads",
            "key_value_heads": "num_key_value_heads",
            "hidden": "intermediate_size",
            "vocabulary": "vocab_size",
            "context": "max_position_embeddings",
            "rotary_base": "rope_theta",
            "epsilon": "rms_norm_eps",
        },
        known={
            "hidden_act": ("silu", "swish"),
            "rope_scaling": (None,),
            "rope_parameters": (None,),
            "sliding_window": (None,),
            "is_causal": (None, True),
            "partial_rotary_factor": (None, 1.0),
        },
        trunk="model.",
        places=_llama_places,
        defaults={
            "num_key_value_heads": None,
            "rope_theta": 10000.0,
            "rms_norm_eps": 1e-6,
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": False,
        },
    ),
    "bert": Family(
        architecture="BertForMaskedLM",
        fields={"norm_first": False, "activation": "gelu", "causal": False},
        sizes={
            "layers": "num_hidden_layers",
            "channels": "hidden_size",
            "heads": "num_attention_heads",
            "hidden": "intermediate_size",
            "vocabulary": "vocab_size",
            "context": "max_position_embeddings",
            "segments": "type_vocab_size",
            "epsilon": "layer_norm_eps",
        },
        known={
            "hidden_act": ("gelu",),
            "position_embedding_type": ("absolute", None),
            "is_decoder": (False,),
            "add_cross_attention": (False,),
            "tie_word_embeddings": (True,),
        },
        trunk="bert.",
        places=_bert_places,
        defaults={"layer_norm_eps": 1e-12, "type_vocab_size": 2},
    ),
}
