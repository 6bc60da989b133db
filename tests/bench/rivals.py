"""The contestants of `step.py`: minipt, PEFT, and two that one can write by hand in PyTorch.

Each is made of a model's directory and a prompt's vectors (P, C). `collate` makes a batch of rows
of token ids and their answers; `step` takes one step on it, with Adam, and returns the loss and the
gradient of the vectors. PEFT is used as its guide does: the answer stands behind the text and
`labels` are -100 elsewhere, so its texts are one token longer.
"""

import warnings
from pathlib import Path

import numpy as np

import minipt
from minipt.learning.memory import keep_freed_memory
from minipt.learning.optimizers import Adam
from minipt.prompting.wiring import prompt_step

RATE = 1e-3
Rows = list[np.ndarray]  # the token ids of each text


class Ours:
    """minipt as `tune` uses it."""

    def __init__(self, directory: Path, vectors: np.ndarray) -> None:
        keep_freed_memory()
        self.base = minipt.load_base(directory)
        self.prompt = minipt.SoftPrompt(vectors.copy(), self.base.fingerprint, self.base.name)
        self.optimizer = Adam()

    def collate(self, rows: Rows, answers: np.ndarray) -> minipt.Batch:
        ids, lengths = padded(rows)
        return minipt.Batch(ids, lengths, answers)

    def step(self, batch: minipt.Batch) -> tuple[float, np.ndarray]:
        loss, gradients = prompt_step(self.base, self.prompt, batch)
        self.optimizer.step(self.prompt.arrays(), gradients, RATE)
        return loss, gradients["prompt"]


class Peft:
    """Hugging Face PEFT's prompt tuning on transformers' model."""

    def __init__(self, directory: Path, vectors: np.ndarray) -> None:
        import peft
        import torch

        config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(vectors))
        self.model = peft.get_peft_model(load_transformers(directory), config).train()
        self.vectors = self.model.prompt_encoder["default"].embedding.weight
        self.vectors.data = torch.tensor(vectors)
        self.optimizer = torch.optim.Adam([self.vectors], lr=RATE)

    def collate(self, rows: Rows, answers: np.ndarray) -> dict:
        import torch

        pairs = zip(rows, answers, strict=True)
        ids, lengths = padded([np.append(row, answer) for row, answer in pairs])
        labels = np.full_like(ids, -100)
        labels[np.arange(len(ids)), lengths - 1] = answers
        real = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
        named = {"input_ids": ids, "attention_mask": real, "labels": labels}
        return {name: torch.from_numpy(array) for name, array in named.items()}

    def step(self, batch: dict) -> tuple[float, np.ndarray]:
        self.optimizer.zero_grad()
        loss = self.model(**batch).loss
        loss.backward()
        self.optimizer.step()
        return loss.item(), self.vectors.grad.numpy()


class Plain:
    """A decoder in PyTorch's functions, with nothing that prompt tuning does not need."""

    def __init__(self, directory: Path, vectors: np.ndarray) -> None:
        import torch

        model = load_transformers(directory)
        self.config = model.config
        self.params = {name: p.requires_grad_(False) for name, p in model.named_parameters()}
        self.vectors = torch.tensor(vectors, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.vectors], lr=RATE)

    def collate(self, rows: Rows, answers: np.ndarray) -> tuple:
        import torch

        ids, lengths = padded(rows)
        return torch.from_numpy(ids), torch.from_numpy(lengths), torch.from_numpy(answers)

    def step(self, batch: tuple) -> tuple[float, np.ndarray]:
        import torch

        ids, lengths, answers = batch
        self.optimizer.zero_grad()
        B, P = len(ids), len(self.vectors)
        table = next(iter(self.params.values()))  # (V, C), tied
        x = torch.cat([self.vectors.expand(B, -1, -1), table[ids]], 1)  # (B, P+T, C)
        if self.config.model_type != "llama":
            x = x + self.params["transformer.wpe.weight"][: x.shape[1]]
        turns = self.turns_of(*x.shape[1:])
        for i in range(self.config.num_hidden_layers):
            heads = self.heads(i, x, turns, 0)
            x = self.rest(i, x, attend(*heads, is_causal=True))
        last = self.final_norm(x[torch.arange(B), P + lengths - 1])  # (B, C)
        loss = torch.nn.functional.cross_entropy(last @ table.T, answers)
        loss.backward()
        self.optimizer.step()
        return loss.item(), self.vectors.grad.numpy()

    def turns_of(self, S: int, C: int) -> tuple | None:
        import torch

        if self.config.model_type != "llama":
            return None
        D = C // self.config.num_attention_heads
        base = self.config.rope_parameters["rope_theta"]
        angles = torch.outer(torch.arange(S), base ** -(torch.arange(0, D, 2) / D))
        return angles.cos(), angles.sin()  # (S, D/2) each

    def heads(self, i: int, x, turns: tuple | None, start: int) -> tuple:
        """Query, key and value (B, H or Hkv, S, D) of the rows x (B, S, C) from position start."""
        from torch.nn import functional as F

        B, S, C = x.shape
        if turns is None:
            at = f"transformer.h.{i}."
            heads = self.conv(f"{at}attn.c_attn", self.layer_norm(f"{at}ln_1", x))
            return heads.view(B, S, 3, self.config.n_head, -1).permute(2, 0, 3, 1, 4)
        at, D = f"model.layers.{i}.", C // self.config.num_attention_heads
        normed = self.rms_norm(f"{at}input_layernorm", x)
        parts = [F.linear(normed, self.params[f"{at}self_attn.{p}_proj.weight"]) for p in "qkv"]
        query, key, value = (part.view(B, S, -1, D).transpose(1, 2) for part in parts)
        places = [each[start : start + S] for each in turns]
        return self.turn(query, *places), self.turn(key, *places), value

    def rest(self, i: int, x, context):
        """What follows attention in a layer: the rows x (B, S, C) and their context -> rows."""
        from torch.nn import functional as F

        context = context.transpose(1, 2).reshape(x.shape)
        if self.config.model_type != "llama":
            at = f"transformer.h.{i}."
            x = x + self.conv(f"{at}attn.c_proj", context)
            up = self.conv(f"{at}mlp.c_fc", self.layer_norm(f"{at}ln_2", x))
            return x + self.conv(f"{at}mlp.c_proj", F.gelu(up, approximate="tanh"))
        at = f"model.layers.{i}."
        x = x + F.linear(context, self.params[f"{at}self_attn.o_proj.weight"])
        normed = self.rms_norm(f"{at}post_attention_layernorm", x)
        gate = F.silu(F.linear(normed, self.params[f"{at}mlp.gate_proj.weight"]))
        up = F.linear(normed, self.params[f"{at}mlp.up_proj.weight"])
        return x + F.linear(gate * up, self.params[f"{at}mlp.down_proj.weight"])

    def final_norm(self, x):
        if self.config.model_type == "llama":
            return self.rms_norm("model.norm", x)
        return self.layer_norm("transformer.ln_f", x)

    def conv(self, name: str, x):
        import torch

        weight, bias = self.params[f"{name}.weight"], self.params[f"{name}.bias"]
        rows = torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight)
        return rows.view(*x.shape[:-1], -1)

    def layer_norm(self, name: str, x):
        from torch.nn import functional as F

        weight, bias = self.params[f"{name}.weight"], self.params[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, self.config.layer_norm_epsilon)

    def turn(self, x, cos, sin):
        import torch

        first, second = x.chunk(2, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    def rms_norm(self, name: str, x):
        from torch.nn import functional as F

        weight = self.params[f"{name}.weight"]
        return F.rms_norm(x, weight.shape, weight, self.config.rms_norm_eps)


class SameSavings(Plain):
    """Plain PyTorch that makes minipt's savings too.

    The prompt runs once for all texts, the texts' rows are one matrix, and the last layer computes
    only the rows that are read. Attention is fused, and reads the prompt's keys and values in front
    of each text's own.
    """

    def step(self, batch: tuple) -> tuple[float, np.ndarray]:
        import torch

        ids, lengths, answers = batch
        self.optimizer.zero_grad()
        P, T = len(self.vectors), ids.shape[1]
        table = next(iter(self.params.values()))  # (V, C), tied
        prompt, text = self.vectors[None], table[ids]  # (1, P, C), (B, T, C)
        if self.config.model_type != "llama":
            places = self.params["transformer.wpe.weight"]
            prompt, text = prompt + places[:P], text + places[P : P + T]
        read = (torch.arange(len(ids)), lengths - 1)
        mask = torch.ones(T, P + T, dtype=torch.bool).tril(P)
        last = self.through_layers(prompt, text, read, mask)  # (B, C)
        loss = torch.nn.functional.cross_entropy(last @ table.T, answers)
        loss.backward()
        self.optimizer.step()
        return loss.item(), self.vectors.grad.numpy()

    def through_layers(self, prompt, text, read: tuple, mask):
        """The prompt alone, the texts behind it. -> the texts' read rows (B, C)"""
        import torch

        P, L = prompt.shape[1], self.config.num_hidden_layers
        turns = self.turns_of(P + text.shape[1], prompt.shape[2])
        for i in range(L):
            of_prompt = self.heads(i, prompt, turns, 0)
            query, *own = self.heads(i, text, turns, P)
            pasts = (each.expand(len(text), -1, -1, -1) for each in of_prompt[1:])
            key, value = (torch.cat(pair, 2) for pair in zip(pasts, own, strict=True))
            if i < L - 1:
                prompt = self.rest(i, prompt, attend(*of_prompt, is_causal=True))
                text = self.rest(i, text, attend(query, key, value, attn_mask=mask))
            else:
                query = query[read[0], :, read[1]][:, :, None]  # (B, H, 1, D)
                seen = mask[read[1]][:, None, None]  # (B, 1, 1, P+T)
                context = attend(query, key, value, attn_mask=seen)
                text = self.rest(i, text[read][:, None], context)
        return self.final_norm(text[:, 0])


def attend(query, key, value, **how):
    from torch.nn import functional as F

    grouped = key.shape[1] < query.shape[1]
    return F.scaled_dot_product_attention(query, key, value, enable_gqa=grouped, **how)


def padded(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Ids (B, T), zeros behind each text, and lengths (B,)."""
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), np.int64)
    for b, row in enumerate(rows):
        ids[b, : len(row)] = row
    return ids, lengths


def load_transformers(directory: Path):
    import transformers

    quieten(transformers)
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype="float32")


def quieten(transformers) -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module="transformers")


CONTESTANTS = {"ours": Ours, "peft": Peft, "plain": Plain, "savings": SameSavings}
