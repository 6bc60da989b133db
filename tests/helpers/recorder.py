"""A model of transformers takes a prompt-tuning step and everything it computes is written down.

`watching.py` notes what the model computes; here it takes the form that minipt's trace has. Needs
the `parity` extra.
"""

import numpy as np
import torch
from torch.nn import functional
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from helpers.comparison import State
from helpers.watching import watching
from minipt.prompting.readout import TEMPERATURE
from minipt.prompting.text import Batch


def random_gpt2(seed: int, layers: int, channels: int, heads: int, **sizes) -> GPT2LMHeadModel:
    ends = {"vocab_size": 17, "n_positions": 16, "bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(n_layer=layers, n_embd=channels, n_head=heads, **ends | sizes)
    return _randomized(GPT2LMHeadModel, config, seed)


def random_llama(seed: int, layers: int, channels: int, heads: int, **sizes) -> LlamaForCausalLM:
    named = {"num_hidden_layers": layers, "hidden_size": channels, "num_attention_heads": heads}
    named |= {"intermediate_size": 3 * channels, "max_position_embeddings": 16, "vocab_size": 17}
    named |= {"bos_token_id": 0, "eos_token_id": 0}
    return _randomized(LlamaForCausalLM, LlamaConfig(**named | sizes), seed)


def random_bert(
    seed: int, layers: int, channels: int, heads: int, head: bool = True, **sizes
) -> BertForMaskedLM | BertModel:
    named = {"num_hidden_layers": layers, "hidden_size": channels, "num_attention_heads": heads}
    named |= {"intermediate_size": 3 * channels, "max_position_embeddings": 16, "vocab_size": 17}
    kind = BertForMaskedLM if head else BertModel
    return _randomized(kind, BertConfig(**named | sizes), seed)


def _randomized(kind: type, config: object, seed: int) -> PreTrainedModel:
    """Random gains and biases too, and weights large enough to matter."""
    config._attn_implementation = "eager"
    model = kind(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_gain = parameter.ndim == 1 and name.endswith("weight")
        spread = parameter.shape[0] ** -0.5 if parameter.ndim == 2 else 0.3
        is_table = any(part in name for part in ("wte", "wpe", "embed_tokens", "_embeddings"))
        spread = 1.0 if is_table else spread
        parameter.data = (1.0 if is_gain else 0.0) + spread * noise
        parameter.requires_grad_(False)
    return model


def embeddings(model: PreTrainedModel, batch: Batch, vectors: torch.Tensor) -> torch.Tensor:
    """The prompt in front of every text. (B, P+T, C)"""
    text = model.get_input_embeddings()(torch.tensor(batch.ids))
    return torch.cat([vectors.expand(len(text), *vectors.shape), text], 1)


def attention_mask(batch: Batch, length: int) -> torch.Tensor:
    """1 for the prompt and the real tokens, 0 for padding. (B, P+T)"""
    rows = np.arange(length + batch.ids.shape[1])
    return torch.tensor((rows < (batch.lengths + length)[:, None]).astype(int))


def rows_read(x: torch.Tensor, batch: Batch, length: int) -> torch.Tensor:
    """What stands where the answer is read. (B, P+T, ...) -> (B, ...)"""
    return x[torch.arange(len(x)), torch.tensor(batch.answer_rows[:, 0] + length)]


def answers(whole: torch.Tensor, batch: Batch, length: int) -> torch.Tensor:
    """What stands where the answer is read, for the choices if there are any. (B, V or K)"""
    rows = rows_read(whole, batch, length)
    return rows if batch.choices is None else rows[:, torch.tensor(batch.choices)]


def record(model: PreTrainedModel, batch: Batch, vectors: np.ndarray) -> State:
    """The state of one step, in the model's float type."""
    prompt = torch.tensor(vectors, dtype=model.dtype, requires_grad=True)
    tensors: dict[str, torch.Tensor] = {}
    with watching(model, tensors):
        x = embeddings(model, batch, prompt)
        mask = attention_mask(batch, len(prompt))
        model(inputs_embeds=x, attention_mask=mask, use_cache=False)
        tensors |= read_out(model, batch, len(prompt), tensors)
    tensors["loss"] = functional.cross_entropy(
        tensors["logits"], torch.tensor(batch.targets), reduction="none"
    )
    tensors.pop("whole", None)
    for tensor in tensors.values():
        tensor.retain_grad()
    tensors["loss"].mean().backward()
    activations, gradients = as_in_minipt(model, batch, len(prompt), tensors)
    activations["probabilities"] = tensors["logits"].detach().softmax(-1).numpy()
    activations |= inside_ops(model, activations)
    return State(batch, vectors, prompt.grad.numpy(), activations, gradients)


def read_out(
    model: PreTrainedModel, batch: Batch, length: int, tensors: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The answers' logits (B, V or K), and what a model without a head makes them from."""
    if "whole" in tensors:
        return {"logits": answers(tensors["whole"], batch, length)}
    last = tensors[f"h{model.config.num_hidden_layers - 1}.ln2"][:, length:]  # (B, T, C)
    real = torch.tensor(np.arange(last.shape[1]) < batch.lengths[:, None]).to(last.dtype)
    pooled = (last * real[..., None]).sum(1) / real.sum(1, keepdim=True)
    features = functional.normalize(pooled, dim=-1)
    choices = torch.tensor(batch.choices).to(last.dtype)
    return {"pooled": pooled, "features": features, "logits": features @ choices.T / TEMPERATURE}


def as_in_minipt(
    model: PreTrainedModel, batch: Batch, length: int, tensors: dict[str, torch.Tensor]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Activations and gradients in minipt's form.

    Masked scores are -inf, context has its heads before its rows, a query is divided by √D where it
    is made, and heads compute the rows that are read only. What the last norm says of those are the
    features.
    """
    scale = (model.config.hidden_size // model.config.num_attention_heads) ** -0.5
    activations, gradients = {}, {}
    for name, tensor in tensors.items():
        x, dx = tensor.detach(), tensor.grad
        if name.endswith("attn.scores"):
            x = x.masked_fill(x < -1e30, -torch.inf)
        if name.endswith("attn.context"):
            x, dx = x.transpose(1, 2), dx.transpose(1, 2)
        if name.endswith("attn.query"):
            x, dx = x * scale, dx / scale
        if name.startswith("head."):
            x, dx = rows_read(x, batch, length), rows_read(dx, batch, length)
        activations[name], gradients[name] = x.numpy(), dx.numpy()
        if name == "final":
            x, dx = rows_read(x, batch, length), rows_read(dx, batch, length)
        if name in ("final", "head.norm"):
            activations["features"], gradients["features"] = x.numpy(), dx.numpy()
    return activations, gradients


def inside_ops(model: PreTrainedModel, activations: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What minipt keeps for its backward and transformers has inside its ops: xhat, rstd, y / x."""
    family, layers = model.config.model_type, model.config.num_hidden_layers
    found = {}
    for norm, name in norm_inputs(family, layers, activations).items():
        x, epsilon = torch.tensor(activations[name]), EPSILON[family](model.config)
        if family != "llama":
            x = x - x.mean(-1, keepdim=True)
        rstd = (x.square().mean(-1, keepdim=True) + epsilon).rsqrt()
        found |= {f"{norm}.xhat": (x * rstd).numpy(), f"{norm}.rstd": rstd.numpy()}
    for name in [f"h{i}.mlp" for i in range(layers)] + ["head"]:
        bent = {"llama": f"{name}.gate"}.get(family, f"{name}.up")
        bent = "head.dense" if name == "head" else bent
        if bent in activations:
            found[f"{name}.y_over_x"] = SIGMA[family](torch.tensor(activations[bent])).numpy()
    if "pooled" in activations:
        found["length"] = np.linalg.norm(activations["pooled"], axis=-1, keepdims=True)
    return found


EPSILON = {
    "gpt2": lambda config: config.layer_norm_epsilon,
    "llama": lambda config: config.rms_norm_eps,
    "bert": lambda config: config.layer_norm_eps,
}
SIGMA = {
    "gpt2": lambda x: 0.5 * (1 + ((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)).tanh()),
    "llama": torch.sigmoid,
    "bert": lambda x: 0.5 * (1 + (x / 2**0.5).erf()),
}


def norm_inputs(family: str, layers: int, activations: dict[str, np.ndarray]) -> dict[str, str]:
    """For each norm of the trace what goes in."""
    if family == "bert":
        inputs = {f"h{i}.ln1": f"h{i}.middle" for i in range(layers)}
        inputs |= {f"h{i}.ln2": f"h{i}.out" for i in range(layers)}
        head = {"head.norm": "head.active"} if "head.active" in activations else {}
        return {"embedding.norm": "embedding"} | inputs | head
    inputs = {f"h{i}.ln2": f"h{i}.middle" for i in range(layers)}
    inputs |= {f"h{i}.ln1": f"h{i - 1}.out" if i else "embedding" for i in range(layers)}
    return inputs | {"final": f"h{layers - 1}.out"}
