"""Ten published claims about prompt tuning, each with its rule for a verdict.

In: a `Plan`, which says how much time there is. Out: for each claim a `Finding`, with the verdict
that its rule gives on what was measured. The rules were written before their numbers were seen: a
claim holds here if the 95 % interval of a mean difference lies on its side of zero, fails if it
lies on the other, and cannot be told if zero is inside. Differences are of test accuracies, paired
by seed and task. The interval is over seeds, pooled with tasks or bases where a rule says so, as if
each pair were a draw of its own: it leaves out that other tasks, and another test split, would
differ. Claim 5 compares plain means, as its rule says. Learning rates are chosen on validation, on
the mean of the seeds; that of claim 9 on the task where its prompts come from. The story continues
in `evidence.py`, which runs all and writes the report.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from minipt.loading.load import load_base
from minipt.prompting.starts import init_prompt
from minipt.prompting.verbalizer import label_tokens
from minipt.rivals import rates_for
from minipt.studies.ensemble import ensemble
from minipt.studies.jobs import Result, accuracies, remember
from minipt.studies.neighbours import nearest
from minipt.studies.sweep import Row, sweep
from minipt.studies.transfer import DOMAINS, few_of, head_starts, zero_shot
from minipt.tasks.datasets import load_task
from minipt.tasks.task import Task
from minipt.transformer.base import Base

HOLDS, FAILS, UNCLEAR = "holds here", "does not hold here", "cannot be told at this size"
# Student's t at 97.5 %, for 1 to 12 degrees of freedom; for more, the last, which is a little wide.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18)
SMALL_BASES = ("nano", "micro", "tiny")
SMALL_TASKS = ("questions", "sms-spam")
SENTENCE = " Once upon a time there was a little bear who lived in the forest and liked honey"

Table = list[tuple[str, ...]]


@dataclass(frozen=True)
class Plan:
    """How much is run.

    seeds: of every cell. steps: of the small bases; large_steps: of the others, whose names are in
    `large`. rates: how many learning rates each cell chooses from, on validation. ladder: the bases
    that claim 1 climbs beside the small ones.
    """

    name: str
    seeds: int
    steps: int
    large_steps: int
    rates: int
    large: tuple[str, ...]
    ladder: tuple[str, ...] = ()


LARGE = ("minilm", "smollm2-135m")
PLANS = {
    "quick": Plan("quick", 3, 60, 0, 1, ()),
    "default": Plan("default", 3, 250, 100, 2, LARGE[:1]),
    "full": Plan("full", 3, 250, 100, 2, LARGE, ladder=LARGE),
}


@dataclass(frozen=True)
class Finding:
    """What was found: the verdict, a sentence with the numbers that decided it, and all numbers.

    lines: for a figure: by name, (mean, lowest, highest) at each setting; of: what the settings
    are of.
    """

    verdict: str
    because: str
    table: Table
    lines: dict[str, dict[str, tuple[float, float, float]]] = field(default_factory=dict)
    of: str = ""


@dataclass(frozen=True)
class Claim:
    """What is claimed, by whom, and how it is put to the test."""

    number: int
    says: str
    source: str
    setting: str
    rule: str
    test: Callable[[Plan], Finding]


CLAIMS: list[Claim] = []


def claim(says: str, source: str, setting: str, rule: str) -> Callable:
    """Enter the function below as the next claim's test."""

    def enter(test: Callable[[Plan], Finding]) -> Callable[[Plan], Finding]:
        CLAIMS.append(Claim(len(CLAIMS) + 1, says, source, setting, rule, test))
        return test

    return enter


@dataclass(frozen=True)
class Difference:
    """The mean of n paired differences and its 95 % interval, by Student's t (Student 1908)."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, differences: Iterable[np.ndarray]) -> "Difference":
        """All differences of all arrays together."""
        pairs = np.concatenate(list(differences))
        n, mean = len(pairs), float(pairs.mean())
        half = STUDENT[min(n - 1, len(STUDENT)) - 1] * float(pairs.std(ddof=1)) / math.sqrt(n)
        return cls(mean, mean - half, mean + half)

    @property
    def verdict(self) -> str:
        """Whether the first is larger."""
        if self.low > 0:
            return HOLDS
        return FAILS if self.high < 0 else UNCLEAR

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def minus(first: Iterable[np.ndarray], second: Iterable[np.ndarray]) -> list[np.ndarray]:
    """The differences of arrays in two lists, pair by pair."""
    return [a - b for a, b in zip(first, second, strict=True)]


@cache
def the_base(name: str) -> Base:
    """A base, loaded once."""
    return load_base(name)


@cache
def the_task(name: str) -> Task:
    """A task, loaded once."""
    return load_task(name)


def rows_of(
    plan: Plan, base_name: str, task_name: str, learner: str = "prompt", **axes: Sequence
) -> list[Row]:
    """A sweep over the axes, with the plan's seeds, steps and rates."""
    base, task = the_base(base_name), the_task(task_name)
    rates = rates_for(learner, base)[: plan.rates]
    axes = {"learner": [learner], "learning_rate": rates} | axes
    return sweep(base, task, axes, plan.seeds, **settings_of(plan, base_name))


def settings_of(plan: Plan, base_name: str) -> dict[str, int]:
    """How long a base learns."""
    return {"steps": plan.large_steps if base_name in plan.large else plan.steps}


def tests_of(plan: Plan, base: str, task: str, learner: str = "prompt", **axes) -> np.ndarray:
    """The test accuracies of the one combination. (seeds,)"""
    return accuracies(results_of(plan, base, task, learner, **axes))


def results_of(plan: Plan, base: str, task: str, learner: str = "prompt", **axes) -> list[Result]:
    """The results of the one combination, one a seed."""
    (row,) = rows_of(plan, base, task, learner, **axes)
    return row.results


def spread(values: np.ndarray) -> tuple[float, float, float]:
    """The mean, the lowest and the highest."""
    return float(values.mean()), float(values.min()), float(values.max())


def tabulated(head: Sequence[str], cells: Mapping[Sequence[str], np.ndarray]) -> Table:
    """A row a cell: its names, then mean, lowest and highest."""
    rows = [(*head, "mean", "lowest", "highest")]
    for names, values in cells.items():
        rows.append((*names, *(f"{number:.3f}" for number in spread(values))))
    return rows


def by_first(cells: Mapping[tuple[str, str], np.ndarray]) -> dict:
    """For a figure: a line for each first name, over the second."""
    lines: dict[str, dict] = {}
    for (line, at), values in cells.items():
        lines.setdefault(line, {})[at] = spread(values)
    return lines


@claim(
    says="Prompt tuning closes in on full fine-tuning as the base grows.",
    source="Lester et al. 2021, figure 1",
    setting="questions on three small bases of one family; in the full plan film reviews too, on "
    "minilm and smollm2-135m",
    rule="holds if the gap (full minus prompt) is smaller at the largest small base than at the "
    "smallest, fails if it is larger",
)
def closing_gap(plan: Plan) -> Finding:
    """The gap between full fine-tuning and 20 vectors, by size."""
    cells, gaps, lines = {}, {}, {}
    places = [(base, "questions") for base in SMALL_BASES]
    places += [(base, "movie-reviews") for base in plan.ladder]
    for base, task in places:
        for learner in ("prompt", "full"):
            found = cells[base, task, learner] = tests_of(plan, base, task, learner)
            lines.setdefault(f"{learner}, {task}", {})[base] = spread(found)
        gaps[base] = cells[base, task, "full"] - cells[base, task, "prompt"]
    change = Difference.of([gaps[SMALL_BASES[0]] - gaps[SMALL_BASES[-1]]])
    said = ", ".join(f"{base} {gap.mean():.3f}" for base, gap in gaps.items())
    because = f"the gap by base: {said}; from nano to tiny it closes by {change}"
    table = tabulated(("base", "task", "learner"), cells)
    return Finding(change.verdict, because, table, lines, "base")


@claim(
    says="Longer prompts help up to about 20 vectors, and little beyond.",
    source="Lester et al. 2021, figure 3a",
    setting="1, 5, 20 and 100 vectors in front of the tiny base, two tasks",
    rule="holds if 20 beat 1, paired by seed and task, and half of that gain is more than what 100 "
    "add; fails if 1 beats 20, or if 100 add more than 20 did",
)
def longer_prompts(plan: Plan) -> Finding:
    """How accuracy grows with the number of vectors."""
    lengths, cells = (1, 5, 20, 100), {}
    for task in SMALL_TASKS:
        for row in rows_of(plan, "tiny", task, length=list(lengths)):
            cells[task, str(row.values["length"])] = accuracies(row.results)
    one, twenty, hundred = ([cells[t, n] for t in SMALL_TASKS] for n in ("1", "20", "100"))
    gained, added = minus(twenty, one), minus(hundred, twenty)
    up, beyond = Difference.of(gained), Difference.of(added)
    little = Difference.of(minus([gain / 2 for gain in gained], added))
    if up.verdict == little.verdict == HOLDS:
        verdict = HOLDS
    elif up.verdict == FAILS or Difference.of(minus(added, gained)).verdict == HOLDS:
        verdict = FAILS
    else:
        verdict = UNCLEAR
    because = (
        f"20 against 1: {up}; 100 against 20: {beyond}; half the first minus the second: {little}"
    )
    table = tabulated(("task", "vectors"), cells)
    return Finding(verdict, because, table, by_first(cells), "prompt vectors")


@claim(
    says="Starts from the vocabulary or from label words beat uniform ones, less so for larger "
    "bases.",
    source="Lester et al. 2021, figure 3b",
    setting="three starts in front of the nano and the tiny base, two tasks",
    rule="holds if both beat uniform on the tiny base, paired by seed and task, and by less than "
    "on the nano base; fails if uniform beats both on the tiny base",
)
def starts(plan: Plan) -> Finding:
    """What the first vectors are worth."""
    methods, cells = ["uniform", "vocab", "labels"], {}
    for base in ("nano", "tiny"):
        for task in SMALL_TASKS:
            for row in rows_of(plan, base, task, method=methods):
                cells[base, task, row.values["method"]] = accuracies(row.results)

    def gains(base: str, method: str) -> list[np.ndarray]:
        found, uniform = ([cells[base, t, m] for t in SMALL_TASKS] for m in (method, "uniform"))
        return minus(found, uniform)

    gained = {
        (m, base): Difference.of(gains(base, m)) for m in methods[1:] for base in ("nano", "tiny")
    }
    on_tiny = [gained[m, "tiny"].verdict for m in methods[1:]]
    less = {m: Difference.of(minus(gains("nano", m), gains("tiny", m))) for m in methods[1:]}
    if on_tiny + [found.verdict for found in less.values()] == [HOLDS] * 4:
        verdict = HOLDS
    else:
        verdict = FAILS if on_tiny == [FAILS] * 2 else UNCLEAR
    because = "; ".join(f"{m} on {base} {found}" for (m, base), found in gained.items())
    because += "".join(f"; {m}, nano minus tiny {found}" for m, found in less.items())
    return Finding(verdict, because, tabulated(("base", "task", "start"), cells))


@claim(
    says="What the base was pre-trained to do matters.",
    source="after Lester et al. 2021, figure 3c, of T5 before and after language modelling",
    setting="a decoder and a masked-word base of the same size that read the same text, two tasks",
    rule="holds if the two differ on both tasks, the interval of each leaving out zero; it cannot "
    "fail, and one base of a kind cannot tell its objective from the luck of its training",
)
def objectives(plan: Plan) -> Finding:
    """Next words against masked words."""
    bases, cells = ("micro", "micro-masked"), {}
    for task in SMALL_TASKS:
        for base in bases:
            cells[task, base] = tests_of(plan, base, task)
    found = {
        task: Difference.of([cells[task, bases[0]] - cells[task, bases[1]]]) for task in SMALL_TASKS
    }
    differ = [difference.verdict != UNCLEAR for difference in found.values()]
    because = "decoder minus masked: " + ", ".join(f"{task} {d}" for task, d in found.items())
    table = tabulated(("task", "base"), cells)
    return Finding(HOLDS if all(differ) else UNCLEAR, because, table)


@claim(
    says="An ensemble of five prompts beats their average, and beats or equals the best of them.",
    source="Lester et al. 2021, table 3",
    setting="five seeds in front of the tiny base, three tasks; mean probability, where they vote",
    rule="holds if it beats the members' mean on every task and at least equals the best on "
    "validation on most; fails if it loses to the mean on most",
)
def ensembles(plan: Plan) -> Finding:
    """Five prompts asked together."""
    tasks, found = (*SMALL_TASKS, "movie-reviews"), {}
    five = replace(plan, seeds=5)
    for task in tasks:
        results = results_of(five, "tiny", task)
        decides = [str(result.job.directory) for result in results]
        found[task] = remember("ensemble", decides, lambda r=results, t=task: _together(r, t))
    over_mean, over_best = (
        [round(f["mean probability"] - f[other], 6) for f in found.values()]  # a text is more
        for other in ("members, mean", "best on validation")
    )
    most = len(tasks) // 2
    if min(over_mean) > 0 and sum(x >= 0 for x in over_best) > most:
        verdict = HOLDS
    else:
        verdict = FAILS if sum(x < 0 for x in over_mean) > most else UNCLEAR
    said = zip(tasks, over_mean, over_best, strict=True)
    because = "over the mean and over the best: "
    because += "; ".join(f"{task} {mean:+.3f}, {best:+.3f}" for task, mean, best in said)
    names = list(found[tasks[0]])
    table = [("task", *names)]
    table += [(task, *(f"{found[task][name]:.3f}" for name in names)) for task in tasks]
    return Finding(verdict, because, table)


def _together(results: Sequence[Result], task: str) -> dict[str, float]:
    prompts = [result.prompt() for result in results]
    return ensemble(results[0].job.base, prompts, the_task(task)).accuracies()


@claim(
    says="In a new domain a tuned prompt holds up better than a fine-tuned base.",
    source="Lester et al. 2021, tables 1 and 2: on four of six domains",
    setting="learnt on film reviews, asked on products, tweets and editorials; minilm, in the "
    "quick plan the tiny base",
    rule="holds if prompts lose less than fine-tuned bases, paired by seed, from their own domain "
    "to the mean of the three others; fails if they lose more",
)
def new_domains(plan: Plan) -> Finding:
    """What is lost on the way from film reviews to something else."""
    base = plan.large[0] if plan.large else "tiny"
    source, *others = DOMAINS
    cells, losses = {}, {}
    for learner in ("prompt", "full"):
        results = results_of(plan, base, source, learner)
        cells[learner, source] = accuracies(results)
        for name in others:
            cells[learner, name] = zero_shot(results, the_task(name))
        elsewhere = np.mean([cells[learner, name] for name in others], axis=0)  # (seeds,)
        losses[learner] = cells[learner, source] - elsewhere
    kept = Difference.of([losses["full"] - losses["prompt"]])
    because = f"base {base}: fine-tuning loses more than prompts by {kept}"
    return Finding(kept.verdict, because, tabulated(("learner", "asked on"), cells))


@claim(
    says="On small bases, deep prefixes beat shallow prompts.",
    source="Liu et al. 2022 (P-tuning v2), table 2",
    setting="20 vectors in front of, or 20 keys and values in each layer of, three small bases; "
    "questions",
    rule="holds if the prefix beats the prompt, paired by seed and base; fails if it loses",
)
def deep_prefixes(plan: Plan) -> Finding:
    """Vectors in front, against keys and values in every layer."""
    cells = {
        (base, learner): tests_of(plan, base, "questions", learner)
        for base in SMALL_BASES
        for learner in ("prompt", "prefix")
    }
    gain = Difference.of(cells[base, "prefix"] - cells[base, "prompt"] for base in SMALL_BASES)
    because = f"prefix minus prompt: {gain}"
    return Finding(gain.verdict, because, tabulated(("base", "learner"), cells))


@claim(
    says="Training a prefix through a network helps.",
    source="Li & Liang 2021, section 4.3; by Liu et al. 2022, section 3.3, on some tasks only",
    setting="a prefix of 20 on the tiny base, directly and through a network, two tasks",
    rule="holds if the network's prefix beats the direct one, paired by seed and task; fails if it "
    "loses",
)
def reparameterised(plan: Plan) -> Finding:
    """The same keys and values, made by a network or not."""
    cells = {
        (task, learner): tests_of(plan, "tiny", task, learner)
        for task in SMALL_TASKS
        for learner in ("prefix", "prefix-mlp")
    }
    gain = Difference.of(cells[task, "prefix-mlp"] - cells[task, "prefix"] for task in SMALL_TASKS)
    because = f"through the network minus directly: {gain}"
    return Finding(gain.verdict, because, tabulated(("task", "learner"), cells))


@claim(
    says="A prompt learnt on a related task is a better start.",
    source="Vu et al. 2022 (SPoT), sections 2 and 3.1",
    setting="product reviews in a tenth of the steps, begun with a film review prompt or as usual; "
    "minilm, in the quick plan the tiny base",
    rule="holds if the related prompt's start beats the usual one, paired by seed; fails if it "
    "loses",
)
def related_starts(plan: Plan) -> Finding:
    """What film reviews teach about products."""
    name = plan.large[0] if plan.large else "tiny"
    base, (source, target) = the_base(name), map(the_task, DOMAINS[:2])
    settings = settings_of(plan, name)
    rate = rows_of(plan, name, DOMAINS[0])[0].rate
    few = few_of(settings["steps"])
    found = head_starts(base, source, target, plan.seeds, few, learning_rate=rate, **settings)
    cells = {(start,): np.array(values) for start, values in found.items()}
    usual, related = cells.values()
    gain = Difference.of([related - usual])
    because = f"base {name}: the film prompt's start minus the usual one: {gain}"
    return Finding(gain.verdict, because, tabulated(("start",), cells))


@claim(
    says="The nearest tokens of a tuned prompt hint at its task.",
    source="Lester et al. 2021, section 7, with reservations; against it Khashabi et al. 2022",
    setting="sms-spam, the tiny base: prompts as usual, and prompts held near the words of a fairy "
    "tale; both begin with that tale",
    rule="fails if the held prompts read as the tale in nine vectors of ten and lose less than two "
    "points to the others; holds if they lose more, and a label word is among the five nearest "
    "tokens of more vectors than before tuning",
)
def nearest_tokens(plan: Plan) -> Finding:
    """Two prompts that do the same and read differently, or not."""
    told = {"method": ["text"], "text": [SENTENCE]}
    base, task = the_base("tiny"), the_task("sms-spam")
    usual, held = (
        results_of(plan, "tiny", "sms-spam", learner, **told)
        for learner in ("prompt", "prompt-wayward")
    )
    start = init_prompt(base, len(usual[0].prompt().vectors), "text", text=SENTENCE)
    sentence = nearest(base, start.vectors, "cosine", 1).ids[:, 0]  # (P,)
    labels = label_tokens(base, task.label_words)
    as_tale, of_labels = {}, {}
    for name, results in (("usual", usual), ("held", held)):
        near = [nearest(base, result.prompt().vectors, "cosine").ids for result in results]
        as_tale[name] = np.array([(ids[:, 0] == sentence).mean() for ids in near])
        of_labels[name] = np.array([np.isin(ids, labels).any(1).mean() for ids in near])
    before = np.isin(nearest(base, start.vectors, "cosine").ids, labels).any(1).mean()
    lost = Difference.of([accuracies(usual) - accuracies(held)])
    if as_tale["held"].mean() >= 0.9 and lost.high < 0.02:
        verdict = FAILS
    else:
        telling = lost.low > 0.02 and of_labels["usual"].mean() > before
        verdict = HOLDS if telling else UNCLEAR
    because = (
        f"{as_tale['held'].mean():.0%} of the held prompts' vectors read as the tale, which costs "
        f"{lost}; of the usual ones {as_tale['usual'].mean():.0%} do, and "
        f"{of_labels['usual'].mean():.0%} have a label word near ({before:.0%} before)"
    )
    cells = {("usual",): accuracies(usual), ("held near the tale",): accuracies(held)}
    return Finding(verdict, because, tabulated(("prompts",), cells))
