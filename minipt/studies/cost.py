"""Why 0.1 % of the numbers is not 0.1 % of the work: five ways to learn, counted and measured.

In: a base and the sizes of a step. Out: `Costs`, what `count.py` says of each way beside the
seconds and the memory that its step took here, as a record and as text of at most 96 columns, which
answers the question with these very numbers. The story continues in `compare.py`.
"""

import statistics
import textwrap
import time
import tracemalloc
from dataclasses import asdict, dataclass, replace

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.learner import Learner
from minipt.learning.memory import keep_freed_memory
from minipt.learning.optimizers import OPTIMIZERS, Arrays, Optimizer, clip_gradients
from minipt.learning.settings import Settings, defaults_for
from minipt.learning.tune import PromptLearner
from minipt.prompting.text import Batch
from minipt.prompting.wiring import loss_and_gradient
from minipt.results.report import WIDTH, align
from minipt.rivals import LEARNERS
from minipt.rivals.lora import RANK
from minipt.studies.count import WAYS, Cost, Step, answering_work, count, key_value_numbers
from minipt.tasks.datasets import load_task
from minipt.transformer.base import Base

NAMES = {
    "shared": "prompt, run once for all",
    "concatenated": "prompt, in front of each",
    "full": "full fine-tuning",
    "lora": f"LoRA of rank {RANK}",
    "probe": "linear probe",
}
LABEL_WORDS = ("a", "b")  # any two that no tokenizer begins alike
TASKS = 100  # that one base serves
STEPS = 5  # timed, after one of warm-up
GIGA, MEGA, KILO = 1e9, 1e6, 1e3
DIRECTIONS = ("forward", "to_inputs", "to_weights")
SIZES = ("activations", "gradients", "state")


class TextbookLearner(PromptLearner):
    """The same prompt in the textbook wiring, in front of each text."""

    name = "concatenated"

    def loss_and_gradients(self, batch: Batch, rng: np.random.Generator) -> tuple[float, Arrays]:
        loss, gradient = loss_and_gradient(self.base, self.prompt, batch, wiring="concatenated")
        return loss, {"prompt": gradient}


@dataclass(frozen=True)
class Measured:
    """Of one way's steps here: the median of their seconds, and the most bytes that one allocated.

    The bytes are beside the base, the learner (of LoRA also its copies of the matrices that it
    changes) and the optimizer's state, which stood before.
    """

    seconds: float
    peak: int


@dataclass(frozen=True)
class Costs:
    """What a step costs in front of one base, by the ways of `WAYS`."""

    base: Base
    step: Step
    counted: dict[str, Cost]
    measured: dict[str, Measured]


def compare_ways(base: Base, length: int = 20, batch_size: int = 16, tokens: int = 24) -> Costs:
    """Count and measure a step of `batch_size` texts of `tokens` tokens, the prompt of `length`.

    Full fine-tuning is measured too: with its gradients and Adam's state it needs five times the
    base's memory. Raises MiniptError for sizes below 1 and for texts that do not fit the base.
    """
    if tokens < 1:
        raise MiniptError(f"tokens is at least 1, not {tokens}")
    task = replace(load_task("toy"), label_words=LABEL_WORDS)
    chosen = defaults_for(base, task, length=length, batch_size=batch_size)
    step = Step(P=length, B=batch_size, T=tokens, K=len(task.labels))
    learners = LEARNERS | {"shared": PromptLearner, "concatenated": TextbookLearner}
    ways = [way for way in WAYS if base.config.causal or way != "shared"]
    counted = {way: count(base.config, way, step) for way in ways}
    measured = {way: measure(learners[way](base, task, chosen), chosen, tokens) for way in ways}
    return Costs(base, step, counted, measured)


def measure(learner: Learner, chosen: Settings, tokens: int, answer: int = 1) -> Measured:
    """Take some steps on random tokens: the arithmetic is the same as on words.

    answer: the tokens of an answer, where responses are learnt.
    """
    keep_freed_memory()
    rng, B = np.random.default_rng(chosen.seed), chosen.batch_size
    ids = rng.integers(0, learner.base.config.vocabulary, (B, tokens))
    choices, V = learner.question.choices, learner.base.config.vocabulary
    targets = (
        rng.integers(0, V, (B, answer)) if choices is None else rng.integers(len(choices), size=B)
    )
    # Where a text's mask would be; without one the answer is read at its end, as here.
    read = None if learner.question.mask is None else np.full(B, tokens - 1)
    batch = Batch(ids, np.full(B, tokens), targets, choices, read)
    optimizer = OPTIMIZERS[chosen.optimizer]()
    _take_step(learner, optimizer, batch, chosen)  # the warm-up, and the optimizer's state
    peak = _peak_of_step(learner, optimizer, batch, chosen)
    times = [_take_step(learner, optimizer, batch, chosen) for _ in range(STEPS)]
    return Measured(statistics.median(times), peak)


def _take_step(learner: Learner, optimizer: Optimizer, batch: Batch, chosen: Settings) -> float:
    """As `learn` takes it. Returns its seconds."""
    began = time.perf_counter()
    _, gradients = learner.loss_and_gradients(batch, np.random.default_rng(chosen.seed))
    clip_gradients(gradients, chosen.clip)
    learner.update(optimizer, gradients, chosen.learning_rate)
    return time.perf_counter() - began


def _peak_of_step(learner: Learner, optimizer: Optimizer, batch: Batch, chosen: Settings) -> int:
    """NumPy tells Python's tracer of its arrays' memory."""
    tracemalloc.start()
    try:
        _take_step(learner, optimizer, batch, chosen)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def describe(costs: Costs) -> dict:
    """All that is known, in what JSON knows: operations, bytes, seconds."""
    base, step = costs.base, costs.step
    return {
        "base": base.name,
        "base_numbers": base.size,
        "length": step.P,
        "batch_size": step.B,
        "tokens": step.T,
        "choices": step.K,
        "ways": {way: _describe_way(costs, way) for way in costs.counted},
        "answer_operations": _answering(costs),
        "key_value_bytes": _bytes(costs, key_value_numbers(base.config, step.P)),
    }


def tell(costs: Costs) -> str:
    """What a step costs as two tables, then why it costs that, and where a prompt saves."""
    step = costs.step
    head = (
        f"one step: {step.B} texts of {step.T} tokens, a prompt of {step.P} vectors, Adam\n"
        f"base {costs.base.name}: {costs.base.size:,} numbers, "
        f"{_bytes(costs, costs.base.size) / MEGA:,.1f} MB, beside what is listed\n"
        f"here: measured on this machine, the median of {STEPS} steps; the rest is counted from "
        "the shapes"
    )
    parts = [_why(costs), _where(costs), _once_learnt(costs)]
    parts = [textwrap.fill(part, WIDTH, break_on_hyphens=False) for part in parts]
    return "\n\n".join([head, operations_table(costs), memory_table(costs), *parts])


def operations_table(costs: Costs) -> str:
    """A line a way: its operations and its time, each also as a share of full fine-tuning's."""
    full, here = costs.counted["full"], costs.measured["full"]
    head = ("operations, in GFLOP", "forward", "backward", "for weights", "sum", "of full")
    rows = [(*head, "ms here", "of full")]
    for way, cost in costs.counted.items():
        seconds = costs.measured[way].seconds
        operations = (cost.forward.total, cost.backward, cost.to_weights.total, cost.total)
        shares = (f"{cost.total / full.total:.0%}", f"{seconds / here.seconds:.0%}")
        numbers = [f"{number / GIGA:,.3f}" for number in operations]
        rows.append((NAMES[way], *numbers, shares[0], f"{1000 * seconds:,.1f}", shares[1]))
    return align(rows, "<>>>>>>>")


def memory_table(costs: Costs) -> str:
    """A line a way: what learns, what a step holds beside the base, and what is left to store."""
    head = ("memory, in MB", "trained", "activations", "gradients", "Adam", "peak here")
    rows = [(*head, "stored, kB")]
    for way, cost in costs.counted.items():
        held = [_bytes(costs, each) for each in (cost.activations, cost.gradients, cost.state)]
        held.append(costs.measured[way].peak)
        numbers = [f"{size / MEGA:,.3f}" for size in held]
        stored = f"{_bytes(costs, cost.trained) / KILO:,.1f}"
        rows.append((NAMES[way], f"{cost.trained:,}", *numbers, stored))
    return align(rows, "<>>>>>>")


def _why(costs: Costs) -> str:
    step, counted = costs.step, costs.counted
    prompt, full = counted[_prompt(costs)], counted["full"]
    less = costs.measured[_prompt(costs)].seconds / costs.measured["full"].seconds
    told = (
        f"A prompt trains {prompt.trained / full.trained:.2%} of the numbers and takes "
        f"{prompt.total / full.total:.0%} of full fine-tuning's operations, {less:.0%} of its time "
        "here. Its gradient has to travel from the loss, behind the last layer, to the vectors in "
        f"front of the first: {costs.base.config.layers} layers forward and the same back. What "
        "falls away are the products that give weights their gradients, "
        f"{full.to_weights.total / GIGA:,.3f} of {full.total / GIGA:,.3f} GFLOP, "
        f"{full.to_weights.total / full.total:.0%}, and of the lowest layer those that lead back "
        "to the texts' own tokens."
    )
    rows, all_rows = step.P + step.B * step.T, step.B * (step.P + step.T)
    if costs.base.config.causal:
        told += (
            f" That holds for a prompt that is run once, in {rows:,} rows; in front of each text "
            f"they are {all_rows:,}, and the step takes "
            f"{counted['concatenated'].total / full.total:.0%}."
        )
    else:
        told += (
            f" This base's texts change what the prompt computes, so that it stands in front of "
            f"each: {all_rows:,} rows instead of {step.B * step.T:,}."
        )
    probe = counted["probe"]
    return f"{told} A linear probe needs no way back: {probe.total / full.total:.0%}."


def _where(costs: Costs) -> str:
    prompt, full = costs.counted[_prompt(costs)], costs.counted["full"]
    base, file = _bytes(costs, costs.base.size), _bytes(costs, prompt.trained)
    held = [_bytes(costs, cost.gradients + cost.state) / MEGA for cost in (prompt, full)]
    kept = [_bytes(costs, cost.activations) / MEGA for cost in (prompt, full)]
    return (
        "Where a prompt saves is memory. Gradients and Adam's two numbers for each that learns: "
        f"{held[0]:,.3f} MB instead of {held[1]:,.3f}. Activations are kept in both, since the way "
        f"back reads them, {kept[0]:,.3f} MB and {kept[1]:,.3f}, where full fine-tuning keeps what "
        f"its linear maps multiplied too. And above all what is left: {file / KILO:,.1f} kB a task "
        f"instead of {base / KILO:,.1f}, so that {TASKS} tasks are one base and {TASKS} prompts, "
        f"{(base + TASKS * file) / MEGA:,.1f} MB, instead of {TASKS} bases, "
        f"{TASKS * base / MEGA:,.1f} MB."
    )


def _once_learnt(costs: Costs) -> str:
    per_text = {name: f"{work / GIGA:,.4f}" for name, work in _answering(costs).items()}
    told = (
        f"Once learnt, the answer to a text of {costs.step.T} tokens takes {per_text['plain']} "
        f"GFLOP without a prompt, {per_text['in_front']} with the prompt run in front of it"
    )
    if not costs.base.config.causal:
        return f"{told}, as this base must."
    cached = _bytes(costs, key_value_numbers(costs.base.config, costs.step.P)) / KILO
    return (
        f"{told}, and {per_text['cached']} behind the prompt's keys and values, which are computed "
        f"once and kept: {cached:,.1f} kB."
    )


def _describe_way(costs: Costs, way: str) -> dict:
    cost, measured = costs.counted[way], costs.measured[way]
    directions = {name: asdict(getattr(cost, name)) for name in DIRECTIONS}
    sizes = {name: _bytes(costs, getattr(cost, name)) for name in SIZES}
    return {
        "name": NAMES[way],
        "trained_numbers": cost.trained,
        "operations": directions | {"total": cost.total},
        "operations_of_full": cost.total / costs.counted["full"].total,
        "bytes": sizes | {"stored": _bytes(costs, cost.trained)},
        "measured": asdict(measured),
    }


def _answering(costs: Costs) -> dict[str, int]:
    """Operations of one text's answer."""
    config, one = costs.base.config, replace(costs.step, B=1)
    ways = {"plain": "full", "in_front": "concatenated"}
    ways |= {"cached": "shared"} if config.causal else {}
    return {name: answering_work(config, way, one).total for name, way in ways.items()}


def _prompt(costs: Costs) -> str:
    """The way in which `tune` learns a prompt."""
    return "shared" if costs.base.config.causal else "concatenated"


def _bytes(costs: Costs, numbers: int) -> int:
    return numbers * costs.base.dtype.itemsize
