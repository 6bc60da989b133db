"""Three families of models: the names in Hugging Face's files, and minipt's names for the same.

In: a `config.json` as a dict, and the names of the tensors beside it. Out: a `Config`, and for each
of minipt's parameters the tensor that holds it. A setting that minipt does not compute is refused
by its name.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from operator import index

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
    the head's, absent in files saved without a head. skipped: parts of names of tensors that no one
    reads. places: the tensors of a config's parameters, without the prefix. defaults: the value of
    a missing size or switch. synonyms: other names of keys; transformers prefers them where a file
    has both.
    """

    architecture: str
    fields: dict
    sizes: dict[str, str]
    known: dict[str, tuple]
    trunk: str
    skipped: tuple[str, ...]
    places: Callable[[Config], dict[str, Place]]
    defaults: dict = field(default_factory=dict)
    synonyms: dict[str, str] = field(default_factory=dict)


def family_of(config_json: dict, where: str) -> Family:
    """The family that a `config.json` names. Raises MiniptError for any other model type."""
    model_type = config_json.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise MiniptError(
            f"{where} says model_type = {model_type!r}, which minipt does not compute; it knows "
            f"{', '.join(FAMILIES)}"
        )
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
    for key, known in family.known.items():
        if config_json.get(key, known[0]) not in known:
            raise MiniptError(
                f"{where} says {key} = {config_json[key]!r}, which minipt does not compute; "
                f"it knows {' and '.join(map(repr, known))}"
            )
    try:
        sizes = {
            ours: _number(ours, config_json[theirs], family.defaults.get(theirs, 0) is None)
            for ours, theirs in family.sizes.items()
        }
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise MiniptError(f"{where} lacks a size or has one that is no number ({error})") from error
    if sizes["layers"] > len(names):
        raise MiniptError(
            f"{where} says {family.sizes['layers']} = {sizes['layers']}, more than the "
            f"{len(names)} tensors beside it: fetch the model again"
        )
    if sizes["hidden"] is None:
        sizes["hidden"] = 4 * sizes["channels"]
    if sizes.get("key_value_heads") == sizes["heads"]:
        sizes["key_value_heads"] = None
    config = Config(**family.fields, **sizes, **_particular(config_json, set(names), where))
    _check_sizes(config, config_json, where)
    return config


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


def _particular(config_json: dict, names: set[str], where: str) -> dict:
    """Fields of some families only: biases and a tied output of Llama, a head or none of BERT."""
    if config_json["model_type"] == "bert":
        masked = any(name.startswith("cls.predictions.") for name in names)
        return {"head": "masked" if masked else None}
    if config_json["model_type"] == "gpt2":
        return {}
    tied = bool(config_json["tie_word_embeddings"])
    if not tied and "lm_head.weight" not in names:
        raise MiniptError(
            f"{where} says tie_word_embeddings = False, but the file has no lm_head.weight: it was "
            "saved without its head, so take the one with it"
        )
    biases = {key: bool(config_json[key]) for key in ("attention_bias", "mlp_bias")}
    return biases | {"tied": tied}


# What `rope_parameters` may hold; older files say type for rope_type.
ROTARY = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


def _flat(config_json: dict) -> dict:
    """The config without the dict in which transformers 5 puts the keys of rotary positions."""
    rotary = config_json.get("rope_parameters") or {}
    if not isinstance(rotary, dict) or rotary.keys() - ROTARY:
        return config_json
    if any(rotary.get(key, "default") != "default" for key in ("rope_type", "type")):
        return config_json
    return config_json | rotary | {"rope_parameters": None}


def _number(name: str, value: object, optional: bool) -> int | float | None:
    """Sizes are whole numbers. An optional one may be None: it follows from other sizes."""
    if value is None and optional:
        return None
    return float(value) if name in ("epsilon", "rotary_base") else index(value)


def _check_sizes(config: Config, config_json: dict, where: str) -> None:
    sizes = {"layers", "channels", "heads", "hidden", "vocabulary", "context"}
    if min(getattr(config, name) for name in sizes) < 1 or config.channels % config.heads:
        raise MiniptError(
            f"{where}: every size is at least 1 and {config.channels} channels divide into "
            f"{config.heads} heads"
        )
    shared = config.heads if config.key_value_heads is None else config.key_value_heads
    if shared < 1 or config.heads % shared:
        raise MiniptError(f"{where}: {config.heads} heads do not divide among {shared} key heads")
    D = config.channels // config.heads
    if config_json.get("head_dim") not in (None, D):
        raise MiniptError(
            f"{where} says head_dim = {config_json['head_dim']}, which minipt does not compute; "
            f"it knows hidden_size / num_attention_heads = {D}"
        )
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
        # Old files hold the causal mask as if it were a parameter.
        skipped=(".attn.bias", ".attn.masked_bias"),
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
        skipped=(".rotary_emb.inv_freq",),
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
        skipped=("embeddings.position_ids", "pooler.dense.", "cls.seq_relationship."),
        places=_bert_places,
        defaults={"layer_norm_eps": 1e-12, "type_vocab_size": 2},
    ),
}
