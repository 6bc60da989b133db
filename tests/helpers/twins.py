"""transformers' model with the numbers of a base of ours."""

from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import BertForMaskedLM, GPT2LMHeadModel, LlamaForCausalLM, PreTrainedModel

from minipt.loading.families import family_name
from minipt.loading.load import save_base
from minipt.transformer.base import Base

KINDS = {"gpt2": GPT2LMHeadModel, "llama": LlamaForCausalLM, "bert": BertForMaskedLM}


def twin(base: Base) -> PreTrainedModel:
    """The model that computes what `base` does, in the same float type, frozen."""
    with TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        save_base(base, directory)
        kind = KINDS[family_name(base.config)]
        model = kind.from_pretrained(directory, dtype=base.dtype.name)
    return model.eval().requires_grad_(False)
