"""transformers' GPT-2 takes a prompt-tuning step and everything it computes is written down.

The model is untouched: hooks on its modules note what goes in and out, and while it runs, its
attention function and the softmax inside are wrapped to note theirs. Needs the `parity` extra.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from comparison import State
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.models.gpt2 import modeling_gpt2

from minipt.text import Batch


def random_gpt2(seed: int, layers: int, channels: int, heads: int, **sizes: int) -> GPT2LMHeadModel:
    """A GPT-2 with random gains and biases too, and weights large enough to matter."""
    config = GPT2Config(
        n_layer=layers,
        n_embd=channels,
        n_head=heads,
        **{"vocab_size": 17, "n_positions": 16, "bos_token_id": 0, "eos_token_id": 0} | sizes,
        attn_implementation="eager",
    )
    model = GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_gain = "ln_" in name and name.endswith("weight")
        spread = parameter.shape[0] ** -0.5 if parameter.ndim == 2 else 0.3
        spread = 1.0 if "wte" in name or "wpe" in name else spread
        parameter.data = (1.0 if is_gain else 0.0) + spread * noise
        parameter.requires_grad_(False)
    return model


def embeddings(model: GPT2LMHeadModel, batch: Batch, vectors: torch.Tensor) -> torch.Tensor:
    """The prompt in front of every text. (B, P+T, C)"""
    text = model.transformer.wte(torch.tensor(batch.ids))
    return torch.cat([vectors.expand(len(text), *vectors.shape), text], 1)


def attention_mask(batch: Batch, length: int) -> torch.Tensor:
    """1 for the prompt and the real tokens, 0 for padding. (B, P+T)"""
    rows = np.arange(length + batch.ids.shape[1])
    return torch.tensor((rows < (batch.lengths + length)[:, None]).astype(int))


def answers(logits: torch.Tensor, batch: Batch, length: int) -> torch.Tensor:
    """What stands where the answer is read, for the choices if there are any. (B, V or K)"""
    rows = logits[torch.arange(len(logits)), torch.tensor(batch.read[:, 0] + length)]
    return rows if batch.choices is None else rows[:, torch.tensor(batch.choices)]


def record(model: GPT2LMHeadModel, batch: Batch, vectors: np.ndarray) -> State:
    """The state of one step, in the model's float type."""
    prompt = torch.tensor(vectors, dtype=model.dtype, requires_grad=True)
    tensors: dict[str, torch.Tensor] = {}
    with watching(model, tensors):
        x = embeddings(model, batch, prompt)
        mask = attention_mask(batch, len(prompt))
        whole = model(inputs_embeds=x, attention_mask=mask, use_cache=False).logits
    tensors["logits"] = answers(whole, batch, len(prompt))
    tensors["probabilities"] = tensors["logits"].softmax(-1)
    tensors["loss"] = functional.cross_entropy(
        tensors["logits"], torch.tensor(batch.targets), reduction="none"
    )
    for tensor in tensors.values():
        tensor.retain_grad()
    tensors["loss"].mean().backward()
    activations = {name: as_in_minipt(name, tensor.detach()) for name, tensor in tensors.items()}
    tensors.pop("probabilities")  # beside the loss, not on the way to it: no gradient
    gradients = {name: as_in_minipt(name, tensor.grad) for name, tensor in tensors.items()}
    scale = (model.config.n_embd // model.config.n_head) ** -0.5
    for name in gradients:
        if name.endswith("attn.query"):  # minipt's is divided by √D where it is made
            activations[name] = activations[name] * scale
            gradients[name] = gradients[name] / scale
    activations |= inside_ops(model, activations)
    return State(batch, vectors, prompt.grad.numpy(), activations, gradients)


def as_in_minipt(name: str, tensor: torch.Tensor) -> np.ndarray:
    """Masked scores are -inf there, and context has its heads before its rows."""
    x = tensor.numpy()
    if name.endswith("attn.scores"):
        return np.where(x < -1e30, -np.inf, x)
    return x.transpose(0, 2, 1, 3) if name.endswith("attn.context") else x


def inside_ops(model: GPT2LMHeadModel, activations: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What minipt keeps for its backward and transformers has inside its ops: xhat, rstd, sigma."""
    layers, epsilon = model.config.n_layer, model.config.layer_norm_epsilon
    inputs = {f"h{i}.ln2": f"h{i}.middle" for i in range(layers)}
    inputs |= {f"h{i}.ln1": f"h{i - 1}.out" if i else "embedding" for i in range(layers)}
    inputs["final"] = f"h{layers - 1}.out"
    found = {}
    for norm, name in inputs.items():
        x = torch.tensor(activations[name])
        found[f"{norm}.xhat"] = functional.layer_norm(x, x.shape[-1:], eps=epsilon).numpy()
        variance = x.var(-1, correction=0, keepdim=True)
        found[f"{norm}.rstd"] = (variance + epsilon).rsqrt().numpy()
    for i in range(layers):
        x = torch.tensor(activations[f"h{i}.mlp.up"])
        inner = (2.0 / np.pi) ** 0.5 * (x + 0.044715 * x**3)
        found[f"h{i}.mlp.sigma"] = (0.5 * (1.0 + inner.tanh())).numpy()
    return found


@contextmanager
def watching(model: GPT2LMHeadModel, tensors: dict[str, torch.Tensor]) -> Iterator[None]:
    """While this is open, everything that the model computes is put into `tensors`."""
    with ExitStack() as stack:

        def note_output(module: torch.nn.Module, name: str) -> None:
            def hook(module: object, inputs: tuple, output: torch.Tensor) -> None:
                tensors[name] = output[0] if isinstance(output, tuple) else output

            stack.callback(module.register_forward_hook(hook).remove)

        def note_input(module: torch.nn.Module, name: str) -> None:
            def hook(module: object, inputs: tuple) -> None:
                tensors[name] = inputs[0]

            stack.callback(module.register_forward_pre_hook(hook).remove)

        for i, block in enumerate(model.transformer.h):
            note_output(block.ln_1, f"h{i}.ln1")
            note_output(block.attn.c_proj, f"h{i}.attn.out")
            note_input(block.ln_2, f"h{i}.middle")
            note_output(block.ln_2, f"h{i}.ln2")
            note_output(block.mlp.c_fc, f"h{i}.mlp.up")
            note_output(block.mlp.act, f"h{i}.mlp.active")
            note_output(block.mlp.c_proj, f"h{i}.mlp.down")
            note_output(block, f"h{i}.out")
        note_input(model.transformer.h[0], "embedding")
        note_output(model.transformer.ln_f, "final")
        stack.enter_context(watching_attention(tensors))
        yield


@contextmanager
def watching_attention(tensors: dict[str, torch.Tensor]) -> Iterator[None]:
    attention, softmax = modeling_gpt2.eager_attention_forward, functional.softmax
    layer = ""

    def noted_softmax(scores: torch.Tensor, **options: object) -> torch.Tensor:
        tensors[f"{layer}.scores"] = scores
        tensors[f"{layer}.weights"] = softmax(scores, **options)
        return tensors[f"{layer}.weights"]

    def noted_attention(module, query, key, value, *others, **options):
        nonlocal layer
        layer = f"h{module.layer_idx}.attn"
        tensors.update({f"{layer}.query": query, f"{layer}.key": key, f"{layer}.value": value})
        context, weights = attention(module, query, key, value, *others, **options)
        tensors[f"{layer}.context"] = context
        return context, weights

    modeling_gpt2.eager_attention_forward = noted_attention
    functional.softmax = noted_softmax
    try:
        yield
    finally:
        modeling_gpt2.eager_attention_forward = attention
        functional.softmax = softmax
