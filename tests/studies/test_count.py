"""What is counted from the shapes is what a step takes: product by product, array by array.

The products are counted as they are really called: every array of the base belongs to a class that
sees each matrix product it takes part in.
"""

import sys
from collections import Counter
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
from helpers.bases import BERT, LLAMA, random_base, random_batch, random_prompt

from minipt.learning.optimizers import Adam
from minipt.learning.settings import Settings
from minipt.prompting.text import Batch, QuestionFormat
from minipt.prompting.wiring import answerer, logits_together, loss_and_gradient, text_step
from minipt.rivals import LEARNERS
from minipt.rivals.lora import ADAPTED
from minipt.studies.count import Step, activations, answering_work, count
from minipt.tasks.datasets import load_task
from minipt.transformer.base import Base
from minipt.transformer.trace import Tape

FAMILIES = {
    "gpt2": {},
    "llama": LLAMA | {"key_value_heads": 1, "tied": False},
    "llama-of-4-heads": LLAMA | {"heads": 4, "key_value_heads": 2},
    "bert": BERT,
    "bert-without-a-head": BERT | {"head": None},
}
# P, B, T, R, K, layers.
SIZES = ((3, 2, 5, 1, 4, 2), (1, 3, 4, 1, 4, 1), (6, 1, 3, 1, 4, 4), (2, 3, 6, 3, 4, 2))
every_family = pytest.mark.parametrize("family", FAMILIES)
every_size = pytest.mark.parametrize("sizes", SIZES)
WAYS = ("shared", "concatenated", *(name for name in ("full", "lora", "probe") if name in LEARNERS))
QUESTION = QuestionFormat("{text}", np.arange(4), None, "by nothing")
every_way = pytest.mark.parametrize("way", WAYS)

# What part a product belongs to, by the function that asked for it, directly or through others.
PARTS = {
    "linear": ("forward", "linear"),
    "linear_dx": ("to_inputs", "linear"),
    "linear_dw": ("to_weights", "linear"),
    "attention": ("forward", "attention"),
    "attention_dscores": ("to_inputs", "attention"),
    "attention_dx": ("to_inputs", "attention"),
    "attention_dpast": ("to_inputs", "attention"),
    "mean_pool": ("forward", "readout"),
    "readout": ("forward", "readout"),
    "readout_dx": ("to_inputs", "readout"),
    "readout_dw": ("to_weights", "readout"),
    "_merge": ("forward", "linear"),  # of LoRA's A B
    "loss_and_gradients": ("to_weights", "linear"),  # of its dW Bᵀ and Aᵀ dW
}
# Linear maps that stand behind the layers: a masked-word head's, and a probe's own.
BEHIND = {"_masked_head", "_masked_head_dx", "_logits"}
SEEN = Counter()


class Counting(np.ndarray):
    """An array that counts the operations of every matrix product it takes part in."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [x.view(np.ndarray) if isinstance(x, Counting) else x for x in inputs]
        if ufunc is np.matmul:
            SEEN[part_of(sys._getframe(1))] += 2 * plain[0].shape[-1] * np.matmul(*plain).size
        if out is not None:
            options["out"] = tuple(x.view(np.ndarray) for x in out)
        result = getattr(ufunc, method)(*plain, **options)
        if out is not None:
            return out[0]
        return None if result is None else np.asarray(result).view(Counting)


def part_of(frame) -> tuple[str, str]:
    names = []
    while frame:
        if frame.f_code.co_name not in (
            "times",
            "times_transposed",
        ):  # each op's own way to multiply
            names.append(frame.f_code.co_name)
        frame = frame.f_back
    direction, part = next(PARTS[name] for name in names if name in PARTS)
    of_a_probe = names[:2] == ["linear_dw", "loss_and_gradients"]
    return direction, "readout" if of_a_probe or BEHIND.intersection(names) else part


class Fullest:
    """Mixed into a trace: how many numbers it holds when the backward begins to take."""

    most = None

    def take(self, name):
        if self.most is None:
            arrays = (*self.saved.values(), *self.inputs.values())
            roots = {id(root): root for root in map(root_of, arrays)}
            self.most = sum(root.size for root in roots.values())
        return super().take(name)


class FullestTape(Fullest, Tape):
    pass


def root_of(array: np.ndarray) -> np.ndarray:
    """The array whose memory a view shows."""
    while array.base is not None:
        array = array.base
    return array


def case(family: str, sizes: tuple, counted: bool = False) -> tuple[Base, Step, Batch]:
    P, B, T, R, K, layers = sizes
    base = random_base(1, layers=layers, **FAMILIES[family])
    if counted:
        params = {name: array.view(Counting) for name, array in base.params.items()}
        base = Base(base.name, base.config, params, None)
    batch = replace(random_batch(base, B, T, choices=K), lengths=[T] * B)
    if R > 1:  # answers of several tokens, out of the whole vocabulary
        targets = np.random.default_rng(0).integers(0, base.config.vocabulary, (B, R))
        batch = Batch(batch.ids, batch.lengths, targets)
    return base, Step(P, B, T, R, len(base.params["token.table"]) if R > 1 else K), batch


def gradients_of(base: Base, way: str, batch: Batch, P: int) -> dict[str, np.ndarray]:
    """What the way's own learner finds."""
    if way in ("shared", "concatenated"):
        return {"prompt": loss_and_gradient(base, random_prompt(base, P), batch, wiring=way)[1]}
    learner = LEARNERS[way](base, load_task("toy"), Settings())
    return learner.loss_and_gradients(batch, np.random.default_rng(0))[1]


def skip_what_is_not(family: str, way: str, sizes: tuple) -> None:
    if way == "shared" and "bert" in family:
        pytest.skip("a base that is not causal has one wiring")
    if sizes[3] > 1 and (way == "probe" or "bert" in family):
        pytest.skip("responses are for a base that writes, and no probe's")


@pytest.fixture(autouse=True)
def _no_tokenizer_is_asked(monkeypatch):
    """The batches here are made of random ids; the learners need no reading."""
    for name, asks in (
        ("full", "task_question"),
        ("lora", "task_question"),
        ("probe", "question_format"),
    ):
        module = LEARNERS[name].__module__
        monkeypatch.setattr(f"{module}.{asks}", lambda *_: QUESTION)


@every_family
@every_size
@every_way
def test_every_product_is_counted(family, sizes, way):
    skip_what_is_not(family, way, sizes)
    base, step, batch = case(family, sizes, counted=True)
    SEEN.clear()
    gradients_of(base, way, batch, step.P)
    cost = count(base.config, way, step)
    for direction in ("forward", "to_inputs", "to_weights"):
        for part, expected in asdict(getattr(cost, direction)).items():
            assert SEEN[direction, part] == expected, (direction, part)
    assert cost.total == SEEN.total() > 0


@every_family
@every_size
@pytest.mark.parametrize("way", ("shared", "concatenated"))
def test_every_product_of_an_answer_is_counted(family, sizes, way):
    skip_what_is_not(family, way, sizes)
    base, step, batch = case(family, sizes, counted=True)
    prompt = random_prompt(base, step.P)
    if way == "shared":
        answer = answerer(base, prompt)
    else:
        answer = partial(logits_together, base, prompt.vectors)
    SEEN.clear()
    answer(batch)
    assert answering_work(base.config, way, step).total == SEEN.total() > 0


@every_family
@every_size
@pytest.mark.parametrize("way", ("shared", "concatenated", "full", "lora"))
def test_every_number_that_is_kept_is_counted(family, sizes, way):
    skip_what_is_not(family, way, sizes)
    base, step, batch = case(family, sizes)
    if way in ("shared", "concatenated"):
        trace = FullestTape()
        loss_and_gradient(base, random_prompt(base, step.P), batch, trace, way)
    else:
        names = [name for name in base.params if way == "full" or name.endswith(ADAPTED)]
        gradients = dict.fromkeys(names)
        trace = FullestTape(gradients)
        text_step(base, batch, trace, gradients=gradients)
    assert activations(base.config, way, step) == trace.most


@every_family
@every_way
def test_what_learns_is_counted_with_its_gradients_and_adams_state(family, way):
    skip_what_is_not(family, way, SIZES[0])
    base, step, batch = case(family, SIZES[0])
    cost = count(base.config, way, step)
    gradients = gradients_of(base, way, batch, step.P)
    of_matrices = sum(base.params[name].size for name in base.params if name.endswith(ADAPTED))
    numbers = sum(gradient.size for gradient in gradients.values())
    assert cost.trained == numbers
    assert cost.gradients == numbers + (of_matrices if way == "lora" else 0)
    adam = Adam()
    adam.step({name: np.zeros_like(array) for name, array in gradients.items()}, gradients, 0.1)
    assert cost.state == sum(array.size for array in adam.state.values())


def test_the_products_of_weights_are_as_many_as_those_forward():
    """All three directions of linear maps are equal, but for what nobody needs."""
    config, step = random_base(1).config, Step(P=3, B=2, T=5)
    full = count(config, "full", step)
    assert full.forward.linear == full.to_inputs.linear == full.to_weights.linear
    assert 2 * full.forward.attention == full.to_inputs.attention
    prompt = count(config, "concatenated", step)
    assert prompt.to_inputs.linear < prompt.forward.linear  # the lowest layer: P rows of P + T
    assert prompt.to_weights.total == 0
