"""Why 0.1 % of the numbers is not 0.1 % of the work: five ways to learn, counted and measured.

In: a base and the sizes of a step. Out: `Costs`: the counts of `count.py` for each way, beside the
seconds and the memory that its step took here. They become a record, and text of at most 96 columns
that answers the question with these numbers.
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
from minipt.learning.optimizers import OPTIMIZERS, Arrays, clip_gradients
from minipt.learning.settings import Settings, defaults_for
from minipt.learning.tune import PromptLearner
from minipt.prompting.text import Batch
from minipt.prompting.wiring import loss_and_gradient
from minipt.results.tables import WIDTH, align
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
    """The costs of a step in front of one base, by the ways of `WAYS`."""

    base: Base
    step: Step
    counted: dict[str, Cost]
    measured: dict[str, Measured]

    @property
    def prompts_way(self) -> str:
        """The way in which `tune` learns a prompt."""
        return "shared" if self.base.config.causal else "concatenated"

    def bytes(self, numbers: int) -> int:
        """The memory of so many numbers of the base's type."""
        return numbers * self.base.dtype.itemsize


def compare_ways(base: Base, length: int = 20, batch_size: int = 16, tokens: int = 24) -> Costs:
    """Count and measure a step of `batch_size` texts of `tokens` tokens, the prompt of `length`.

    Full fine-tuning is measured too: with its gradients and Adam's state it needs five times the
    base's memory. Raises MiniptError for sizes below 1 and for texts that do not fit the base.
    """
    if tokens < 1:
        raise MiniptError(f"tokens is at least 1, not {tokens}")
    task = replace(load_task("toy"), label_words=LABEL_WORDS)
    settings = defaults_for(base, task, length=length, batch_size=batch_size)
    step = Step(P=length, B=batch_size, T=tokens, K=len(task.labels))
    learners = LEARNERS | {"shared": PromptLearner, "concatenated": TextbookLearner}
    ways = [way for way in WAYS if base.config.causal or way != "shared"]
    counted = {way: count(base.config, way, step) for way in ways}
    measured = {way: measure(learners[way](base, task, settings), settings, tokens) for way in ways}
    return Costs(base, step, counted, measured)


def measure(learner: Learner, settings: Settings, tokens: int, answer: int = 1) -> Measured:
    """Take some steps on random tokens: the arithmetic is the same as on words.

    answer: the tokens of an answer, where responses are learnt.
    """
    keep_freed_memory()
    rng, B = np.random.default_rng(settings.seed), settings.batch_size
    choices, V = learner.question.choices, learner.base.config.vocabulary
    ids = rng.integers(0, V, (B, tokens))
    size, limit = ((B, answer), V) if choices is None else (B, len(choices))
    targets = rng.integers(0, limit, size)
    # Where a text's mask would be; without one the answer is read at its end, as here.
    positions = None if learner.question.mask is None else np.full(B, tokens - 1)
    batch = Batch(ids, np.full(B, tokens), targets, choices, positions)
    optimizer = OPTIMIZERS[settings.optimizer]()

    def take_step() -> float:  # as `learn` does; returns its seconds
        began = time.perf_counter()
        _, gradients = learner.loss_and_gradients(batch, np.random.default_rng(settings.seed))
        clip_gradients(gradients, settings.clip)
        learner.update(optimizer, gradients, settings.learning_rate)
        return time.perf_counter() - began

    take_step()  # the warm-up, and the optimizer's state
    tracemalloc.start()  # NumPy tells Python's tracer of its arrays' memory
    try:
        take_step()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return Measured(statistics.median(take_step() for _ in range(STEPS)), peak)


def describe(costs: Costs) -> dict:
    """Operations, bytes and seconds, in types that JSON knows."""
    base, step, ways = costs.base, costs.step, {}
    for way, cost in costs.counted.items():
        record = asdict(cost)
        directions = {name: record[name] for name in ("forward", "to_inputs", "to_weights")}
        sizes = {name: costs.bytes(record[name]) for name in ("activations", "gradients", "state")}
        ways[way] = {
            "name": NAMES[way],
            "trained_numbers": cost.trained,
            "operations": directions | {"total": cost.total},
            "operations_of_full": cost.total / costs.counted["full"].total,
            "bytes": sizes | {"stored": costs.bytes(cost.trained)},
            "measured": asdict(costs.measured[way]),
        }
    return {
        "base": base.name,
        "base_numbers": base.size,
        "length": step.P,
        "batch_size": step.B,
        "tokens": step.T,
        "choices": step.K,
        "ways": ways,
        "answer_operations": _answering(costs),
        "key_value_bytes": costs.bytes(key_value_numbers(base.config, step.P)),
    }


def tell(costs: Costs) -> str:
    """The costs as two tables, then their reasons, and where a prompt saves."""
    step, base = costs.step, costs.base
    head = (
        f"one step: {step.B} texts of {step.T} tokens, a prompt of {step.P} vectors, Adam\n"
        f"base {base.name}: {base.size:,} numbers, {costs.bytes(base.size) / MEGA:,.1f} MB, beside "
        f"what is listed\nhere: measured on this machine, the median of {STEPS} steps; the rest is "
        "counted from the shapes"
    )
    prose = [
        textwrap.fill(part, WIDTH, break_on_hyphens=False)
        for part in (_why(costs), _where(costs), _once_learnt(costs))
    ]
    return "\n\n".join([head, operations_table(costs), memory_table(costs), *prose])


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
    return align(rows)


def memory_table(costs: Costs) -> str:
    """A line a way: the numbers that learn, the memory beside the base, and the bytes to store."""
    head = ("memory, in MB", "trained", "activations", "gradients", "Adam", "peak here")
    rows = [(*head, "stored, kB")]
    for way, cost in costs.counted.items():
        held = [costs.bytes(each) for each in (cost.activations, cost.gradients, cost.state)]
        held.append(costs.measured[way].peak)
        numbers = [f"{size / MEGA:,.3f}" for size in held]
        stored = f"{costs.bytes(cost.trained) / KILO:,.1f}"
        rows.append((NAMES[way], f"{cost.trained:,}", *numbers, stored))
    return align(rows)


def _why(costs: Costs) -> str:
    step, counted = costs.step, costs.counted
    prompt, full = counted[costs.prompts_way], counted["full"]
    less = costs.measured[costs.prompts_way].seconds / costs.measured["full"].seconds
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
    prompt, full = costs.counted[costs.prompts_way], costs.counted["full"]
    base, file = costs.bytes(costs.base.size), costs.bytes(prompt.trained)
    held = [costs.bytes(cost.gradients + cost.state) / MEGA for cost in (prompt, full)]
    kept = [costs.bytes(cost.activations) / MEGA for cost in (prompt, full)]
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
    cached = costs.bytes(key_value_numbers(costs.base.config, costs.step.P)) / KILO
    return (
        f"{told}, and {per_text['cached']} behind the prompt's keys and values, which are computed "
        f"once and kept: {cached:,.1f} kB."
    )


def _answering(costs: Costs) -> dict[str, int]:
    """Operations of one text's answer."""
    config, one = costs.base.config, replace(costs.step, B=1)
    ways = {"plain": "full", "in_front": "concatenated"}
    ways |= {"cached": "shared"} if config.causal else {}
    return {name: answering_work(config, way, one).total for name, way in ways.items()}
