"""The soft prompt with one thing added against learning its training texts by heart: five of them.

In: what `PromptLearner` takes. Out: the same, a prompt (P, C), learnt a little differently. Three
learners add a penalty to the loss, a spring from each vector to a place of its own:

    minimised = cross-entropy + STRENGTH / 2 Σ_p |vector_p - place_p|²

Two learners let the base read other vectors, drawn in each step, and minimise their cross-entropy:

    read = scale · vectors + shift,    so d loss / d vectors = scale · d loss / d read

The reported loss is always the cross-entropy alone, and the vectors as they are give the answers.
The penalty's gradient passes through Adam with the rest. Loshchilov & Hutter 2019 call this L2
regularisation, to tell it from the decay of AdamW.
"""

import numpy as np

from minipt.learning.optimizers import Arrays
from minipt.learning.tune import PromptLearner
from minipt.prompting.text import Batch
from minipt.prompting.wiring import Answerer

# At the rate 1.0 the tiny base's prompt grows to a norm of about 200. There the cross-entropy's
# gradient has a norm of about 0.05, and the penalty's of 0.02.
STRENGTH = 1e-4
DROPPED = 0.1  # the share of vectors: two of twenty
NOISE = 1.0  # in units of the deviation of the base's token embeddings


class PulledLearner(PromptLearner):
    """A prompt with a penalty."""

    strength = STRENGTH

    def places(self) -> np.ndarray:
        """The place that each vector is pulled to. (P, C), or what broadcasts to it"""
        raise NotImplementedError

    def loss_and_gradients(self, batch: Batch, rng: np.random.Generator) -> tuple[float, Arrays]:
        loss, gradients = super().loss_and_gradients(batch, rng)
        gradients["prompt"] += self.strength * (self.prompt.vectors - self.places())
        return loss, gradients


class DecayLearner(PulledLearner):
    """Towards zero: weight decay (Krogh & Hertz 1992)."""

    name = "prompt-decay"

    def places(self) -> np.ndarray:
        """0"""
        return np.zeros(1, self.base.dtype)


class DecayToStartLearner(PulledLearner):
    """Towards the start (L2-SP: Li, Grandvalet & Davoine 2018, section 3)."""

    name = "prompt-decay-to-start"

    def places(self) -> np.ndarray:
        """start"""
        return self.start.vectors


class NearestLearner(PulledLearner):
    """Towards words: each vector to the token embedding nearest to it.

    The commitment loss of van den Oord, Vinyals & Kavukcuoglu 2017 (eq. 3, its third term). The
    place stands still while the nearest stays the same, so the gradient is that of the distance.
    """

    name = "prompt-nearest"

    def places(self) -> np.ndarray:
        """table[nearest] (P, C)"""
        table = self.base.params["token.table"]
        return table[nearest_rows(table, self.prompt.vectors)]


class DrawnLearner(PromptLearner):
    """A prompt that is drawn anew in each step. prompt: what the base read last."""

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The scale and the shift of one step, each broadcasting to (P, C)."""
        raise NotImplementedError

    def loss_and_gradients(self, batch: Batch, rng: np.random.Generator) -> tuple[float, Arrays]:
        scale, shift = (part.astype(self.base.dtype) for part in self.draw(rng))
        self._read(scale * self.arrays["prompt"] + shift)
        loss, gradients = super().loss_and_gradients(batch, rng)
        gradients["prompt"] *= scale
        return loss, gradients

    def answerer(self) -> Answerer:
        self._read(self.arrays["prompt"])
        return super().answerer()

    def measurements(self) -> dict[str, float]:
        self._read(self.arrays["prompt"])
        return super().measurements()

    def _read(self, vectors: np.ndarray) -> None:
        self.prompt = self.prompt.with_arrays(self.arrays | {"prompt": vectors})


class DropoutLearner(DrawnLearner):
    """Some vectors become zero, and the others larger by the share that is missing on average.

    Dropout (Srivastava et al. 2014, section 4) of vectors instead of coordinates, as Iyyer et al.
    2015 (section 3.1) drop words.
    """

    name = "prompt-dropout"

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """scale = [u ≥ DROPPED] / (1 - DROPPED), u uniform (P, 1); shift = 0"""
        stays = rng.random((len(self.arrays["prompt"]), 1)) >= DROPPED  # (P, 1)
        return stays / (1.0 - DROPPED), np.zeros(1)


class NoiseLearner(DrawnLearner):
    """Gaussian noise on every coordinate; Jain et al. 2024 (NEFTune) add uniform to embeddings.

    Small noise acts like a penalty on the output's slope (Bishop 1995).
    """

    name = "prompt-noise"

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """scale = 1; shift = NOISE σ n, n normal (P, C), σ the deviation of the token table"""
        deviation = NOISE * self.base.params["token.table"].std()
        return np.ones(1), deviation * rng.standard_normal(self.arrays["prompt"].shape)


def nearest_rows(table: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """For each vector the row of the table at the least distance, by its index.

    |v - e|² = |v|² - 2 (v · e - |e|² / 2), and |v|² is the same for all rows.

    table (V, C), vectors (P, C) -> (P,)
    """
    return (vectors @ table.T - np.vecdot(table, table) / 2).argmax(1)
