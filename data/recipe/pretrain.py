"""Make one of minipt's GPT-2 bases, from nothing, into `data/` and its name.

    python data/recipe/pretrain.py tiny

needs torch beside minipt. `corpus.py` has the text, `streams.py` makes batches of it, `training.py`
trains; here is the model: its sizes, its mathematics, its names in transformers' files.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from streams import CONTEXT, VOCABULARY
from torch import nn
from training import Trainee, command, make


@dataclass(frozen=True)
class Size:
    """What tells one GPT-2 from another."""

    layers: int
    channels: int
    heads: int


SIZES = {"tiny": Size(6, 192, 6), "micro": Size(4, 128, 4), "nano": Size(2, 64, 2)}
# Our parameter, transformers' name for it.
NAMES = {
    "wte": "wte.weight",
    "wpe": "wpe.weight",
    "attn": "attn.c_attn.weight",
    "attn_bias": "attn.c_attn.bias",
    "attn_proj": "attn.c_proj.weight",
    "attn_proj_bias": "attn.c_proj.bias",
    "fc": "mlp.c_fc.weight",
    "fc_bias": "mlp.c_fc.bias",
    "fc_proj": "mlp.c_proj.weight",
    "fc_proj_bias": "mlp.c_proj.bias",
}


class Block(nn.Module):
    """One pre-LN transformer block, GPT-2's; matrices are (in, out) as in its checkpoints."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        C = size.channels
        self.heads = size.heads
        self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        shapes = {
            "attn": (C, 3 * C),
            "attn_proj": (C, C),
            "fc": (C, 4 * C),
            "fc_proj": (4 * C, C),
        }
        for name, (rows, columns) in shapes.items():
            # What a block adds to the stream starts at zero.
            spread = 0.0 if name.endswith("proj") else rows**-0.5
            setattr(self, name, nn.Parameter(torch.randn(rows, columns) * spread))
            setattr(self, f"{name}_bias", nn.Parameter(torch.zeros(columns)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, C) -> (B, T, C)"""
        B, T, C = x.shape
        qkv = self.ln_1(x) @ self.attn + self.attn_bias  # (B, T, 3C)
        q, k, v = qkv.view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, D)
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, T, D)
        heads = heads.transpose(1, 2).reshape(B, T, C)  # (B, T, C)
        x = x + heads @ self.attn_proj + self.attn_proj_bias
        hidden = F.gelu(self.ln_2(x) @ self.fc + self.fc_bias, approximate="tanh")  # (B, T, 4C)
        return x + hidden @ self.fc_proj + self.fc_proj_bias


class GPT2(Trainee):
    """GPT-2 with tied output."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.wte = nn.Parameter(torch.randn(VOCABULARY, size.channels) * 0.02)
        self.wpe = nn.Parameter(torch.randn(CONTEXT, size.channels) * 0.01)
        self.h = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.ln_f = nn.LayerNorm(size.channels)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The mean cross-entropy of predicting ids[:, 1:] from ids[:, :-1]; ids: (B, T+1)."""
        x = self.wte[ids[:, :-1]] + self.wpe[: ids.shape[1] - 1]  # (B, T, C)
        for block in self.h:
            x = block(x)
        logits = self.ln_f(x) @ self.wte.T  # (B, T, V)
        return F.cross_entropy(logits.view(-1, VOCABULARY), ids[:, 1:].reshape(-1))

    def maps(self, name: str, array: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The blocks' matrices; query, key and value are three that stand side by side."""
        if not name.startswith("h.") or array.ndim != 2:
            return ()
        return array.split(self.size.channels, dim=1) if name.endswith("attn") else (array,)

    def config(self) -> dict:
        """As transformers writes it."""
        return {
            "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "torch_dtype": "float16",
            "vocab_size": VOCABULARY, "n_positions": CONTEXT, "n_ctx": CONTEXT,
            "n_embd": self.size.channels, "n_layer": self.size.layers, "n_head": self.size.heads,
            "n_inner": None, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
            "initializer_range": 0.02, "tie_word_embeddings": True, "resid_pdrop": 0.0,
            "embd_pdrop": 0.0, "attn_pdrop": 0.0, "use_cache": True, "scale_attn_weights": True,
            "bos_token_id": 0, "eos_token_id": 0,
        }  # fmt: skip

    def tensors(self) -> dict[str, torch.Tensor]:
        """The norms are called the same here and there, the rest as in `NAMES`."""
        found = {}
        for name, value in self.named_parameters():
            stem, dot, last = name.rpartition(".")
            found[f"transformer.{stem}{dot}{NAMES.get(last, last)}"] = value
        return found


def main() -> None:
    """Read the arguments, train, export."""
    parser = command("make one of minipt's GPT-2 bases")
    parser.add_argument("name", nargs="?", choices=SIZES, default="tiny")
    chosen = parser.parse_args()
    make(chosen.name, partial(GPT2, SIZES[chosen.name]), chosen)


if __name__ == "__main__":
    main()
