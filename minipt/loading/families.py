"""What three families of models are called in Hugging Face's files, and what minipt calls it.

In: a `config.json` as a dict, and the names of the tensors beside it. Out: a `Config`, and for each
of this project's parameters the tensor that holds it. What `model.py` would compute otherwise than
the file asks for is refused by the name of the setting. The story continues in `checkpoint.py`.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from operator import index

from minipt.errors import MiniptError
from minipt.transformer.base import Config


@dataclass(frozen=True)
class Place:
    """Where a parameter stands in a file: a tensor's name, and how it stands there.

    transposed: (out, in), where minipt has (in, out). third: which third of the last axis, of a
    GPT-2's query, key and value, which stand side by side.
    """

    name: str
    transposed: bool = False
    third: int | None = None


@dataclass(frozen=True)
class Family:
    """One family: how its config is read and written and where its tensors are.

    architecture: transformers' class for it. fields: what every such `Config` has. sizes: Config's
    field, the file's key. known: for each key the values that `model.py` computes, the first being
    the one that a missing key means. trunk: the prefix of all tensors but the head's, absent in
    files saved without a head. skipped: parts of names of tensors that no one reads. places: the
    tensors of a config's parameters, without the prefix. defaults: what a missing size or switch
    means. synonyms: other names of keys, which transformers prefers where a file has both.
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


def family_of(found: dict, where: str) -> Family:
    """The family that a `config.json` names.

    Raises MiniptError for any other model type.
    """
    model_type = found.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise MiniptError(
            f"{where} says model_type = {model_type!r}, which minipt does not compute; it knows "
            f"{', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]


def read_config(found: dict, names: Collection[str], where: str) -> Config:
    """The `Config` of a `config.json` and of the names of the tensors that came with it.

    Raises MiniptError for a setting that `model.py` does not compute, by its name, and for sizes
    that are missing or make no sense.
    """
    family = family_of(found, where)
    found = family.defaults | _flat(found)
    found |= {key: found[other] for other, key in family.synonyms.items() if other in found}
    for key, known in family.known.items():
        if found.get(key, known[0]) not in known:
            raise MiniptError(
                f"{where} says {key} = {found[key]!r}, which minipt does not compute; it knows "
                f"{' and '.join(map(repr, known))}"
            )
    try:
        sizes = {
            ours: _number(ours, found[theirs], family.defaults.get(theirs, 0) is None)
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
    config = Config(**family.fields, **sizes, **_particular(found, set(names), where))
    _check_sizes(config, found, where)
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
    """Which family's file a `Config` is written to."""
    if not config.causal:
        return "bert"
    return "llama" if config.positions == "rotary" else "gpt2"


def all_places(config: Config, with_trunk: bool) -> dict[str, Place]:
    """Each parameter's tensor, by the name that it has in a file saved with or without a head."""
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


def _particular(found: dict, names: set[str], where: str) -> dict:
    """What only some families have: biases and a tied output in Llama, a head or none in BERT."""
    if found["model_type"] == "bert":
        masked = any(name.startswith("cls.predictions.") for name in names)
        return {"head": "masked" if masked else None}
    if found["model_type"] == "gpt2":
        return {}
    tied = bool(found["tie_word_embeddings"])
    if not tied and "lm_head.weight" not in names:
        raise MiniptError(
            f"{where} says tie_word_embeddings = False, but the file has no lm_head.weight: it was "
            "saved without its head, so take the one with it"
        )
    biases = {key: bool(found[key]) for key in ("attention_bias", "mlp_bias")}
    return biases | {"tied": tied}


# What `rope_parameters` may hold; older files say type for rope_type.
ROTARY = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


def _flat(found: dict) -> dict:
    """transformers 5 keeps what belongs to rotary positions in a dict of its own."""
    rotary = found.get("rope_parameters") or {}
    if not isinstance(rotary, dict) or rotary.keys() - ROTARY:
        return found
    if any(rotary.get(key, "default") != "default" for key in ("rope_type", "type")):
        return found
    return found | rotary | {"rope_parameters": None}


def _number(name: str, value: object, optional: bool) -> int | float | None:
    """Sizes are whole numbers; None, where it may stand, is one that follows from others."""
    if value is None and optional:
        return None
    return float(value) if name in ("epsilon", "rotary_base") else index(value)


def _check_sizes(config: Config, found: dict, where: str) -> None:
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
    if found.get("head_dim") not in (None, D):
        raise MiniptError(
            f"{where} says head_dim = {found['head_dim']}, which minipt does not compute; it knows "
            f"hidden_size / num_attention_heads = {D}"
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
