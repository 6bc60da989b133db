"""Prompt tuning by hand: a frozen transformer in NumPy and the vectors in front of the text.

Read the modules in this order: `ops`, `trace`; `base`, `streams`, `layer`, `model`, `text`,
`prompt`, `readout`, `wiring`; `verbalizer`, `generate`, `responses`; `optim`, `evaluate`, `learn`,
`workers`, `tune`, `gradcheck`; `fetch`, `families`, `gguf_file`, `bases`, `checkpoint`; `tasks`,
`datasets`, `baseline`; `adapter`, `store`, `plot`, `report`, `xray`, `doctor`; `rivals`, what one
would try instead; `studies`, to ask whether it works; `arguments`, `cli`. Each one's docstring says
what comes in, what goes out and where the story continues. `errors` and `files` are small and serve
all. The names `minipt.tune`, `minipt.evaluate` and `minipt.generate` are the functions; the modules
are reached by `from minipt.tune import ...`.
"""

from minipt.adapter import from_peft
from minipt.checkpoint import load_base
from minipt.datasets import load_task
from minipt.errors import MiniptError
from minipt.evaluate import evaluate
from minipt.generate import generate
from minipt.gradcheck import check_gradient, compare
from minipt.prompt import SoftPrompt, init_prompt, load_prompt
from minipt.tasks import load_csv, load_pairs
from minipt.text import Batch
from minipt.trace import Trace
from minipt.tune import tune
from minipt.wiring import logits, loss_and_gradient

__all__ = [
    "Batch",
    "MiniptError",
    "SoftPrompt",
    "Trace",
    "check_gradient",
    "compare",
    "evaluate",
    "from_peft",
    "generate",
    "init_prompt",
    "load_base",
    "load_csv",
    "load_pairs",
    "load_prompt",
    "load_task",
    "logits",
    "loss_and_gradient",
    "tune",
]
