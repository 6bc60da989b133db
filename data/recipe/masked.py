"""Make `micro-masked`, from nothing, into `data/micro-masked/`: a BERT that reads what `tiny` read.

    python data/recipe/masked.py

needs torch and transformers beside minipt. The text, the order of its windows and the training are
those of `pretrain.py`; only what is predicted differs: not the next token but those under masks,
15 % of them (Devlin et al. 2019, section 3.1).
"""

import numpy as np
import torch
import torch.nn.functional as F
from streams import CONTEXT, VOCABULARY
from tokenizers import AddedToken, Tokenizer, processors
from training import Trainee, command, make
from transformers import BertConfig, BertForMaskedLM

# They follow the streams' own tokens.
CLS, SEP, MASK = range(VOCABULARY, VOCABULARY + 3)
WORDS = CONTEXT - 2  # tokens of the text between [CLS] and [SEP]
HIDDEN = round(0.15 * WORDS)  # of them are to be predicted
SETTINGS = {
    "vocab_size": VOCABULARY + 3, "max_position_embeddings": CONTEXT, "type_vocab_size": 1,
    "num_hidden_layers": 4, "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512,
    "hidden_act": "gelu", "layer_norm_eps": 1e-12, "initializer_range": 0.02,
    "tie_word_embeddings": True, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    # Padding gets no token of its own: attention leaves it out, whatever stands there.
    "pad_token_id": None,
}  # fmt: skip


class Masked(Trainee):
    """transformers' BERT, whose output matrix is its token table."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = BertForMaskedLM(BertConfig(**SETTINGS))

    def examples(self, windows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What the model sees, and below it what it is to predict, -1 elsewhere. (B, 2, T)

        Of the tokens to predict, 80 % are masked, 10 % become any token and 10 % stay, so that the
        model cannot tell which it will be asked about.
        """
        B = len(windows)
        seen = np.full((B, CONTEXT), CLS)
        seen[:, 1:-1], seen[:, -1] = windows[:, :WORDS], SEP
        asked = np.full((B, CONTEXT), -1)
        rows = np.arange(B)[:, None]  # (B, 1)
        places = 1 + rng.random((B, WORDS)).argsort(1)[:, :HIDDEN]  # (B, HIDDEN)
        words = asked[rows, places] = seen[rows, places]
        chance, others = rng.random(words.shape), rng.integers(VOCABULARY, size=words.shape)
        seen[rows, places] = np.select([chance < 0.8, chance < 0.9], [MASK, others], words)
        return np.stack([seen, asked], 1)

    def forward(self, examples: torch.Tensor) -> torch.Tensor:
        """The mean cross-entropy of what is to be predicted; examples: (B, 2, T)."""
        seen, asked = examples.unbind(1)
        hidden = self.bert.bert(seen).last_hidden_state  # (B, T, C)
        # The output matrix is applied only where something is predicted.
        logits = self.bert.cls(hidden[asked >= 0])  # (B * HIDDEN, V)
        return F.cross_entropy(logits, asked[asked >= 0])

    def maps(self, name: str, array: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The matrices of the layers and of the head, which stand there as (out, in)."""
        return (array.T,) if array.ndim == 2 and "embeddings" not in name else ()

    def config(self) -> dict:
        """As transformers writes it."""
        kind = {"architectures": ["BertForMaskedLM"], "model_type": "bert"}
        return kind | {"torch_dtype": "float16"} | SETTINGS

    def tensors(self) -> dict[str, torch.Tensor]:
        """Each once: the output matrix and its bias have second names, which are left out."""
        return dict(self.bert.named_parameters())

    def tokenizer(self, plain: Tokenizer) -> Tokenizer:
        """The streams' tokenizer, with [CLS] and [SEP] around a text, and a mask."""
        # The mask stands for a token and the space before it.
        mask = AddedToken("[MASK]", lstrip=True, special=True)
        plain.add_special_tokens(["[CLS]", "[SEP]", mask])
        plain.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
        )
        return plain


def main() -> None:
    """Read the arguments, train, export."""
    make("micro-masked", Masked, command("make minipt's masked-word base").parse_args())


if __name__ == "__main__":
    main()
