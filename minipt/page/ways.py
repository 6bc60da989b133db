"""How the gradient reached the prompt: how much came through each layer, by keys and by values.

In: a step's trace. Out: parts of the gradient, which sum to it. A path from a vector to the loss
first runs through the prompt's rows alone. In some layer it leaves them for the text, through a key
or a value. After that nothing matters but the gradient that the text sends back to that key or
value. The prompt's way back is linear in these gradients. So it is run once for each layer, with
the keys' gradients alone and with the values' alone.

In the concatenated wiring, and in a BERT, the prompt's rows are cut out of the text's. What they
read of the text stands in front of them as a past.
"""

from dataclasses import replace

import numpy as np

from minipt.maths import ops
from minipt.page.steps import Subject
from minipt.transformer.base import Base
from minipt.transformer.layer import KeyValue, Past, StreamLayout
from minipt.transformer.model import backward
from minipt.transformer.ragged import Stream
from minipt.transformer.trace import Tape, Trace


def from_text(subject: Subject, trace: Trace) -> list[KeyValue]:
    """What all text rows ask of the prompt's keys and values in each layer: (Hkv, P, D) twice."""
    P, found = len(subject.prompt.vectors), []
    for layer in range(subject.base.config.layers):
        at = f"text.h{layer}.attn."
        key = trace[f"{at}key"]
        past = np.empty((key.shape[1], P, key.shape[3]), key.dtype)  # only its shape is read
        rows = _text_rows(subject, trace[f"{at}query"])
        found.append(
            ops.attention_dpast(
                trace.grad(f"{at}context")[:, :, rows],
                trace.grad(f"{at}scores")[:, :, rows],
                trace[f"{at}query"][:, :, rows],
                trace[f"{at}weights"][:, :, rows],
                past,
            )
        )
    return found


def gradient_by_way(subject: Subject, trace: Trace) -> np.ndarray:
    """The parts of the gradient of the vectors. (2, L, P, C): by keys, by values"""
    asked = from_text(subject, trace)
    parts = [_one_layer(subject, trace, layer, asked[layer]) for layer in range(len(asked))]
    return np.stack(parts, axis=1)


def _text_rows(subject: Subject, query: np.ndarray) -> slice:
    """The rows of the text among the queries (B, H, R, D); in the last layer all are the text's."""
    joined = subject.wiring == "concatenated"
    P, T = len(subject.prompt.vectors), subject.batch.ids.shape[1]
    return slice(P if joined and query.shape[2] == P + T else 0, None)


def _one_layer(subject: Subject, trace: Trace, layer: int, asked: KeyValue) -> np.ndarray:
    """What comes to the vectors through this layer. (2, P, C)

    The prompt runs back as if this were the last layer, of which no row is read out.
    """
    base, dtype = subject.base, subject.base.dtype
    P, C = subject.prompt.vectors.shape
    config = replace(base.config, layers=layer + 1)
    lower = Base(base.name, config, base.params, base.tokenizer)
    x, no_rows = np.empty((2, P, C), dtype), np.empty((2, 0), np.int64)
    stream = Stream("prompt", x, no_rows, leading_grads=P)
    replay = Replay(subject, trace, layer)
    layout = StreamLayout(lower, stream, replay, replay.past())
    dkeys, dvalues = np.zeros((2, 2, *asked[0].shape), dtype)  # (2, Hkv, P, D) each
    dkeys[0], dvalues[1] = asked
    nothing = (np.zeros((), dtype),) * 2
    dx, _ = backward(layout, np.empty((2, 0, C), dtype), [nothing] * layer + [(dkeys, dvalues)])
    return dx


class Replay(Tape):
    """A tape that has what a trace has of the prompt's rows, twice: by keys, by values.

    last: the layer that is taken for the last, so that it has no queries.
    """

    is_watched = True  # so that attention keeps its weights, as in the trace

    def __init__(self, subject: Subject, trace: Trace, last: int) -> None:
        super().__init__()
        self.subject, self.trace, self.last = subject, trace, last
        self.P, self.shared = len(subject.prompt.vectors), subject.wiring == "shared"
        self.past_reads = not subject.base.config.causal  # the prompt reads the text

    def take(self, name: str) -> np.ndarray:
        """The rows of the prompt out of the trace, (2, H, n, D) in attention, else (2·n, E)"""
        name = name if self.shared else name.replace("prompt.", "text.", 1)
        array = self.trace[name][:1]
        queries = f".h{self.last}." in name and not self._is_of_all_rows(name)
        n = 0 if queries or ".final." in name else self.P
        if name.endswith("attn.weights"):
            array = self._columns(array)
        rows = array[..., :n, :]
        twice = rows.repeat(2, axis=0)  # (2, ..., n, E)
        return twice if ".attn." in name else twice.reshape(-1, rows.shape[-1])

    def past(self) -> Past | None:
        """What the prompt reads of the text in each layer: keys and values (Hkv, T, D)."""
        if not self.past_reads:
            return None
        arrays = [
            [self.trace[f"text.h{layer}.attn.{each}"][0, :, self.P :] for each in ("key", "value")]
            for layer in range(self.last + 1)
        ]
        return [tuple(each) for each in arrays]

    def _columns(self, weights: np.ndarray) -> np.ndarray:
        """The text's columns stand in front of the prompt's own, as a past does."""
        own, text = weights[..., : self.P], weights[..., self.P :]
        return np.concatenate([text, own], axis=-1) if self.past_reads else own

    def _is_of_all_rows(self, name: str) -> bool:
        of_all_rows = ("attn.key", "attn.value")
        before = ("ln1.xhat", "ln1.rstd") if self.subject.base.config.norm_first else ()
        return name.endswith((*of_all_rows, *before))
