"""Deep prefix tuning: what learns is the keys and values that vectors would leave in each layer.

Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", section 4; Liu et
al. 2022, "P-Tuning v2", section 3. In a causal base a prompt reaches the texts only through the
keys and values that it leaves in each layer, the `past` of `model.py`. Here these are trained, each
layer's for itself: 2 L Hkv D numbers a position instead of C. A step is the texts' own, and its
backward ends at the past. The start is the past that a prompt leaves: with few texts, keys and
values of real words do better than random ones (Li and Liang, section 7.4).

In a base that is not causal, all rows of a text read the keys and values in front of it too. But no
text changes them there, as it would change the rows of a prompt. So the start is what a prompt
leaves that stands alone. In every base a text's positions begin at P, as behind a prompt, and as
transformers counts behind `past_key_values`. A rotary key keeps the rotation of its own position.

In: a frozen base and a task. Out: keys and values.
"""

import numpy as np

from minipt.learning.evaluate import task_question
from minipt.learning.learner import Learner
from minipt.learning.optimizers import Arrays
from minipt.learning.settings import Settings
from minipt.maths import ops
from minipt.prompting.starts import init_prompt
from minipt.prompting.text import Batch
from minipt.prompting.wiring import Answerer, logits_after, run_prompt, text_step
from minipt.tasks.task import Task
from minipt.transformer.base import Base
from minipt.transformer.layer import Past
from minipt.transformer.trace import Tape

WIDTH = 64  # M, of the network's inner rows


class PrefixLearner(Learner):
    """arrays: "keys" and "values" (L, Hkv, P, D), P being the `length` of the settings.

    Raises MiniptError as `init_prompt` does.
    """

    name = "prefix"

    def __init__(self, base: Base, task: Task, settings: Settings) -> None:
        self.base = base
        self.question = task_question(base, None, task.train, task)
        self.room = base.config.context - settings.length
        self.arrays = start(base, task, settings)

    def loss_and_gradients(self, batch: Batch, rng: np.random.Generator) -> tuple[float, Arrays]:
        return prefix_step(self.base, batch, self.to_store())

    def answerer(self) -> Answerer:
        past = as_past(self.to_store())
        return lambda batch: logits_after(self.base, batch, past)


class MlpPrefixLearner(PrefixLearner):
    """Keys and values out of a smaller matrix, through a network (Li and Liang, section 4.3).

        hidden = tanh(rows weight1 + bias1)     (P, M)
        out    = hidden weight2 + bias2         (P, 2 L Hkv D)

    A row of `out` holds a position's keys and values, and a user stores these only. The five arrays
    serve the training: one step moves all layers and positions together, which Li and Liang found
    steadier than to train `out` itself.

    The start is that of `PrefixLearner`. Rows and weight1 are drawn; weight2 is the smallest that
    turns `hidden` into a prompt's past. It exists where P <= M, since P random rows of M numbers
    are independent; for a longer prefix it is the closest. (PEFT draws weight2 too.)

    arrays: "rows" (P, M), "weight1" (M, M), "bias1" (M,), "weight2" (M, 2 L Hkv D), "bias2".
    """

    name = "prefix-mlp"

    def __init__(self, base: Base, task: Task, settings: Settings) -> None:
        super().__init__(base, task, settings)
        self.shape = self.arrays["keys"].shape  # (L, Hkv, P, D)
        out = _as_rows(self.arrays)  # (P, 2 L Hkv D)
        rng = np.random.default_rng(settings.seed)
        rows = rng.standard_normal((len(out), WIDTH))
        weight1 = rng.standard_normal((WIDTH, WIDTH)) * WIDTH**-0.5
        weight2 = np.linalg.lstsq(np.tanh(rows @ weight1), out)[0]
        drawn = {"rows": rows, "weight1": weight1, "bias1": np.zeros(WIDTH)}
        drawn |= {"weight2": weight2, "bias2": np.zeros(out.shape[1])}
        self.arrays = {name: array.astype(base.dtype) for name, array in drawn.items()}

    def to_store(self) -> Arrays:
        """The keys and values that the network gives now; nobody needs the network later."""
        return _from_rows(network(self.arrays)[0], self.shape)

    def loss_and_gradients(self, batch: Batch, rng: np.random.Generator) -> tuple[float, Arrays]:
        out, hidden = network(self.arrays)
        loss, dprefix = prefix_step(self.base, batch, _from_rows(out, self.shape))
        return loss, network_dw(_as_rows(dprefix), hidden, self.arrays)


def start(base: Base, task: Task, settings: Settings) -> Arrays:
    """The keys and values that a prompt of these settings leaves, copied, (L, Hkv, P, D) each."""
    prompt = init_prompt(
        base, settings.length, settings.method, settings.seed, settings.text, task.label_words
    )
    return _from_past(run_prompt(base, prompt))


def prefix_step(base: Base, batch: Batch, prefix: Arrays) -> tuple[float, Arrays]:
    """The loss of a batch behind "keys" and "values" (L, Hkv, P, D), and their gradients."""
    loss, dpast = text_step(base, batch, Tape(), as_past(prefix))
    return loss, _from_past(dpast)


def as_past(prefix: Arrays) -> Past:
    """Views of "keys" and "values" (L, Hkv, P, D), a pair (Hkv, P, D) for each layer."""
    return list(zip(prefix["keys"], prefix["values"], strict=True))


def network(arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """All keys and values, a position a row: out (P, 2 L Hkv D), and hidden (P, M)."""
    hidden = np.tanh(ops.linear(arrays["rows"], arrays["weight1"], arrays["bias1"]))
    return ops.linear(hidden, arrays["weight2"], arrays["bias2"]), hidden


def network_dw(dout: np.ndarray, hidden: np.ndarray, arrays: Arrays) -> Arrays:
    """`network` from its last line to its first.

    Both lines are linear maps, between them y = tanh(x), of which dy/dx = 1 - y². So

        dweight2 = hiddenᵀ dout,    dhidden = dout weight2ᵀ,    dinner = dhidden (1 - hidden²),
        dweight1 = rowsᵀ dinner,    drows = dinner weight1ᵀ

    and a bias collects its map's gradient over the P rows.

    dout (P, 2 L Hkv D), hidden (P, M) -> the gradients of all five arrays
    """
    dinner = ops.linear_dx(dout, arrays["weight2"]) * (1.0 - hidden**2)  # (P, M)
    return {
        "rows": ops.linear_dx(dinner, arrays["weight1"]),
        "weight1": ops.linear_dw(dinner, arrays["rows"]),
        "bias1": ops.linear_db(dinner),
        "weight2": ops.linear_dw(dout, hidden),
        "bias2": ops.linear_db(dout),
    }


def _from_past(past: Past) -> Arrays:
    """All layers' keys in one array and all values in another, contiguous for a file."""
    keys, values = zip(*past, strict=True)
    return {"keys": np.array(keys), "values": np.array(values)}


def _as_rows(prefix: Arrays) -> np.ndarray:
    """A position's keys and values in a row: (L, Hkv, P, D) twice -> (P, 2 L Hkv D)"""
    both = np.stack([prefix["keys"], prefix["values"]])  # (2, L, Hkv, P, D)
    P = both.shape[3]
    return both.transpose(3, 0, 1, 2, 4).reshape(P, -1)


def _from_rows(rows: np.ndarray, shape: tuple[int, ...]) -> Arrays:
    """The inverse of `_as_rows`: rows (P, 2 L Hkv D), shape (L, Hkv, P, D)"""
    L, Hkv, P, D = shape
    both = rows.reshape(P, 2, L, Hkv, D).transpose(1, 2, 3, 0, 4)
    keys, values = np.ascontiguousarray(both)
    return {"keys": keys, "values": values}
