"""Everything that a model of transformers computes, noted by the names of minipt's trace.

The model is untouched: hooks on its modules note what goes in and out, and while it runs, its
attention function and the softmax inside are wrapped to note theirs. Needs the `parity` extra.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.bert import modeling_bert
from transformers.models.gpt2 import modeling_gpt2
from transformers.models.llama import modeling_llama

MODELING = {"gpt2": modeling_gpt2, "llama": modeling_llama, "bert": modeling_bert}
# For each name of the trace the module of the trunk whose input or output it is.
OUTSIDE = {
    "gpt2": {"embedding": ("in", "h.0"), "final": ("out", "ln_f")},
    "llama": {"embedding": ("in", "layers.0"), "final": ("out", "norm")},
    "bert": {
        "embedding": ("in", "embeddings.LayerNorm"),
        "embedding.norm": ("out", "embeddings.LayerNorm"),
    },
}
LAYERS = {"gpt2": "h", "llama": "layers", "bert": "encoder.layer"}
IN_A_LAYER = {
    "gpt2": {
        "ln1": ("out", "ln_1"),
        "attn.out": ("out", "attn.c_proj"),
        "middle": ("in", "ln_2"),
        "ln2": ("out", "ln_2"),
        "mlp.up": ("out", "mlp.c_fc"),
        "mlp.active": ("out", "mlp.act"),
        "mlp.down": ("out", "mlp.c_proj"),
        "out": ("out", ""),
    },
    "llama": {
        "ln1": ("out", "input_layernorm"),
        "attn.out": ("out", "self_attn.o_proj"),
        "middle": ("in", "post_attention_layernorm"),
        "ln2": ("out", "post_attention_layernorm"),
        "mlp.gate": ("out", "mlp.gate_proj"),
        "mlp.up": ("out", "mlp.up_proj"),
        "mlp.active": ("out", "mlp.act_fn"),
        "mlp.product": ("in", "mlp.down_proj"),
        "mlp.down": ("out", "mlp.down_proj"),
        "out": ("out", ""),
    },
    "bert": {
        "attn.out": ("out", "attention.output.dense"),
        "middle": ("in", "attention.output.LayerNorm"),
        "ln1": ("out", "attention.output.LayerNorm"),
        "mlp.up": ("out", "intermediate.dense"),
        "mlp.active": ("out", "intermediate.intermediate_act_fn"),
        "mlp.down": ("out", "output.dense"),
        "out": ("in", "output.LayerNorm"),
        "ln2": ("out", "output.LayerNorm"),
    },
}
MASKED_HEAD = {
    "head.dense": "cls.predictions.transform.dense",
    "head.active": "cls.predictions.transform.transform_act_fn",
    "head.norm": "cls.predictions.transform.LayerNorm",
}
REGISTER = {"in": "register_forward_pre_hook", "out": "register_forward_hook"}


@contextmanager
def watching(model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> Iterator[None]:
    """While this is open, everything that the model computes is put into `tensors`."""
    family, trunk = model.config.model_type, model.base_model
    places = {name: (way, trunk.get_submodule(at)) for name, (way, at) in OUTSIDE[family].items()}
    for i in range(model.config.num_hidden_layers):
        for name, (way, at) in IN_A_LAYER[family].items():
            module = trunk.get_submodule(f"{LAYERS[family]}.{i}{'.' if at else ''}{at}")
            places[f"h{i}.{name}"] = (way, module)
    head = model.get_output_embeddings()
    if head is not None:
        places["whole"] = ("out", head)
    if head is not None and family == "bert":
        places |= {name: ("out", model.get_submodule(at)) for name, at in MASKED_HEAD.items()}
    with ExitStack() as stack:
        for name, (way, module) in places.items():
            register = getattr(module, REGISTER[way])
            stack.callback(register(_noting(tensors, name, way)).remove)
        if model.dtype == torch.float64:
            stack.enter_context(computing_in_float64())
        stack.enter_context(watching_attention(MODELING[family], tensors))
        yield


def _noting(tensors: dict[str, torch.Tensor], name: str, way: str) -> Callable:
    def note_output(module: object, inputs: tuple, output: torch.Tensor) -> None:
        tensors[name] = output[0] if isinstance(output, tuple) else output

    def note_input(module: object, inputs: tuple) -> None:
        tensors[name] = inputs[0]

    return note_output if way == "out" else note_input


@contextmanager
def watching_attention(modeling, tensors: dict[str, torch.Tensor]) -> Iterator[None]:
    attention, softmax = modeling.eager_attention_forward, functional.softmax
    layers = iter(range(10**6))
    layer = ""

    def noted_softmax(scores: torch.Tensor, **options: object) -> torch.Tensor:
        tensors[f"{layer}.scores"] = scores
        tensors[f"{layer}.weights"] = softmax(scores, **options)
        return tensors[f"{layer}.weights"]

    def noted_attention(module, query, key, value, *others, **options):
        nonlocal layer
        layer = f"h{next(layers)}.attn"
        tensors.update({f"{layer}.query": query, f"{layer}.key": key, f"{layer}.value": value})
        context, weights = attention(module, query, key, value, *others, **options)
        tensors[f"{layer}.context"] = context
        return context, weights

    modeling.eager_attention_forward = noted_attention
    functional.softmax = noted_softmax
    try:
        yield
    finally:
        modeling.eager_attention_forward = attention
        functional.softmax = softmax


@contextmanager
def computing_in_float64() -> Iterator[None]:
    """transformers' Llama has norms, angles and softmax in float32 whatever the model's type."""
    plain_softmax = functional.softmax

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        rstd = (x.square().mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()
        return self.weight * x * rstd

    def angles(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple:
        D, base = 2 * len(self.inv_freq), self.config.rope_parameters["rope_theta"]
        paces = base ** -(torch.arange(0, D, 2, dtype=torch.float64) / D)
        turns = position_ids[..., None].double() * paces  # (B, S, D/2)
        turns = torch.cat([turns, turns], -1)
        return turns.cos(), turns.sin()

    def softmax(scores: torch.Tensor, dim: int, dtype: object = None) -> torch.Tensor:
        return plain_softmax(scores, dim=dim)

    kinds = modeling_llama.LlamaRMSNorm, modeling_llama.LlamaRotaryEmbedding
    before = [kind.forward for kind in kinds]
    kinds[0].forward, kinds[1].forward, functional.softmax = norm, angles, softmax
    try:
        yield
    finally:
        functional.softmax = plain_softmax
        for kind, forward in zip(kinds, before, strict=True):
            kind.forward = forward
