"""transformers' Llama and BERT with the numbers of a base of ours."""

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from minipt.base import Base

KINDS = {"weight": "weight", "gain": "weight", "table": "weight", "bias": "bias"}


def twin(base: Base) -> PreTrainedModel:
    """The model that computes what `base` does, in the same float type, frozen."""
    model, names = _llama(base) if base.config.causal else _bert(base)
    state = {}
    for theirs, ours in names.items():
        for kind, their_kind in KINDS.items():
            if (array := base.params.get(f"{ours}.{kind}")) is not None:
                array = array.T if kind == "weight" else array
                state[f"{theirs}.{their_kind}"] = torch.tensor(np.ascontiguousarray(array))
    missing, unknown = model.load_state_dict(state, strict=False)
    # BERT's decoder.bias is the same tensor as predictions.bias.
    assert (set(missing) - {"cls.predictions.decoder.bias"}, unknown) == (set(), [])
    return model.to(getattr(torch, base.dtype.name)).eval().requires_grad_(False)


def _llama(base: Base) -> tuple[LlamaForCausalLM, dict[str, str]]:
    c = base.config
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=c.vocabulary,
            hidden_size=c.channels,
            intermediate_size=c.hidden,
            num_hidden_layers=c.layers,
            num_attention_heads=c.heads,
            num_key_value_heads=c.key_value_heads or c.heads,
            max_position_embeddings=c.context,
            rms_norm_eps=c.epsilon,
            rope_parameters={"rope_type": "default", "rope_theta": c.rotary_base},
            attention_bias=c.attention_bias,
            mlp_bias=c.mlp_bias,
            tie_word_embeddings=c.tied,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    names = {"model.embed_tokens": "token", "model.norm": "final"}
    names["lm_head"] = "token" if c.tied else "output"
    for i in range(c.layers):
        layer = f"model.layers.{i}"
        names |= {f"{layer}.input_layernorm": f"h{i}.ln1"}
        names |= {f"{layer}.post_attention_layernorm": f"h{i}.ln2"}
        for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "out")):
            names[f"{layer}.self_attn.{theirs}_proj"] = f"h{i}.attn.{ours}"
        names |= {f"{layer}.mlp.{part}_proj": f"h{i}.mlp.{part}" for part in ("gate", "up", "down")}
    return model, names


def _bert(base: Base) -> tuple[BertForMaskedLM, dict[str, str]]:
    c = base.config
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=c.vocabulary,
            hidden_size=c.channels,
            intermediate_size=c.hidden,
            num_hidden_layers=c.layers,
            num_attention_heads=c.heads,
            max_position_embeddings=c.context,
            layer_norm_eps=c.epsilon,
            type_vocab_size=c.segments,
        )
    )
    names = {f"bert.embeddings.{part}": ours for part, ours in BERT_EMBEDDINGS.items()}
    for i in range(c.layers):
        layer = f"bert.encoder.layer.{i}"
        names |= {f"{layer}.{theirs}": f"h{i}.{ours}" for theirs, ours in BERT_LAYER.items()}
    return model, names | BERT_HEAD


BERT_EMBEDDINGS = {
    "word_embeddings": "token",
    "position_embeddings": "position",
    "token_type_embeddings": "segment",
    "LayerNorm": "embedding.norm",
}
BERT_LAYER = {
    "attention.self.query": "attn.query",
    "attention.self.key": "attn.key",
    "attention.self.value": "attn.value",
    "attention.output.dense": "attn.out",
    "attention.output.LayerNorm": "ln1",
    "intermediate.dense": "mlp.up",
    "output.dense": "mlp.down",
    "output.LayerNorm": "ln2",
}
BERT_HEAD = {
    "cls.predictions.transform.dense": "head.dense",
    "cls.predictions.transform.LayerNorm": "head.norm",
    "cls.predictions": "head",
    "cls.predictions.decoder": "token",
}
