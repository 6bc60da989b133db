"""Make `adapter/` beside this file: a prompt that PEFT saved, and what PEFT computes with it.

    python tests/reference/make_adapter.py

Needs the `parity` extra. The prompt stands in front of the GPT-2 in `ragged/`, which `make.py`
makes first; `answers.safetensors` holds texts, right-padded, and the logits (N, T, V) at each of
their tokens in float64.
`tests/test_adapter.py` holds minipt to them without any framework.
"""

import shutil
from pathlib import Path

import peft
import torch
from safetensors.torch import save_file
from transformers import GPT2LMHeadModel

HERE = Path(__file__).parent
TEXTS, TOKENS, VECTORS = 3, 5, 4


def make(directory: Path) -> None:
    """Write the adapter and its answers."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel.from_pretrained(HERE / "ragged")
    model.name_or_path = "random-gpt2"  # not the path of the machine that this runs on
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=VECTORS)
    tuned = peft.get_peft_model(model, config).eval()
    ids = torch.randint(model.config.vocab_size, (TEXTS, TOKENS))
    lengths = torch.tensor([TOKENS, 1, 3])
    mask = (torch.arange(TOKENS) < lengths[:, None]).long()
    shutil.rmtree(directory, ignore_errors=True)
    tuned.save_pretrained(directory)
    (directory / "README.md").unlink()
    with torch.no_grad():
        logits = tuned.double()(input_ids=ids, attention_mask=mask).logits[:, VECTORS:]
    answers = {"ids": ids, "lengths": lengths, "logits": logits.contiguous()}
    save_file(answers, directory / "answers.safetensors")


if __name__ == "__main__":
    make(HERE / "adapter")
