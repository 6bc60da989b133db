"""Ten published claims about prompt tuning, each with its rule for a verdict.

In: a `Plan`, which says how much time there is. Out: for each claim a `Finding`, with the verdict
that its rule gives on what was measured. The rules were written before their numbers were seen. A
claim holds here if the 95 % interval of a mean difference lies on its side of zero, fails if it
lies on the other, and cannot be told if zero is inside. Differences are of test accuracies, paired
by seed and task. The interval is over seeds, pooled with tasks or bases where a rule says so, as if
each pair were a draw of its own: it leaves out that other tasks, and another test split, would
differ. Claim 5 compares plain means, as its rule says. Learning rates are chosen on validation, on
the mean of the seeds; that of claim 9 on the task where its prompts come from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product

import numpy as np

from minipt.loading.load import load_base
from minipt.prompting.starts import init_prompt
from minipt.prompting.verbalizer import label_tokens
from minipt.results.intervals import Difference, minus
from minipt.results.kept import remember
from minipt.results.neighbours import nearest
from minipt.results.tables import spread, tabulate
from minipt.rivals import rates_for
from minipt.studies.ensemble import ensemble
from minipt.studies.jobs import Result, accuracies
from minipt.studies.sweep import Row, sweep
from minipt.studies.transfer import DOMAINS, few_of, head_starts, zero_shot
from minipt.tasks.datasets import load_task
from minipt.tasks.task import Task
from minipt.transformer.base import Base

HOLDS, FAILS, UNCLEAR = "holds here", "does not hold here", "cannot be told at this size"
SMALL_BASES = ("nano", "micro", "tiny")
SMALL_TASKS = ("questions", "sms-spam")
SENTENCE = " Once upon a time there was a little bear who lived in the forest and liked honey"


@dataclass(frozen=True)
class Plan:
    """The size of the runs.

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

    def settings(self, base: str) -> dict[str, int]:
        """The steps that a base learns for."""
        return {"steps": self.large_steps if base in self.large else self.steps}

    @property
    def strong_base(self) -> str:
        """The base of the claims about film reviews, which are hard for the small ones."""
        return self.large[0] if self.large else "tiny"


LARGE = ("minilm", "smollm2-135m")
PLANS = {
    "quick": Plan("quick", 3, 60, 0, 1, ()),
    "default": Plan("default", 3, 250, 100, 2, LARGE[:1]),
    "full": Plan("full", 3, 250, 100, 2, LARGE, ladder=LARGE),
}


@dataclass(frozen=True)
class Finding:
    """The verdict, a sentence with the numbers that decided it, and a table of all numbers.

    lines: for a figure: by name, (mean, lowest, highest) at each setting; of: what the settings
    are of.
    """

    verdict: str
    because: str
    table: list[tuple[str, ...]]
    lines: dict[str, dict[str, tuple[float, float, float]]] = field(default_factory=dict)
    of: str = ""


@dataclass(frozen=True)
class Claim:
    """A published sentence, its source, and the test that it is put to."""

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


def decide(holds: bool, fails: bool) -> str:
    """The verdict of a rule that says when a claim holds and when it fails."""
    if holds:
        return HOLDS
    return FAILS if fails else UNCLEAR


def verdict_on(difference: Difference) -> str:
    """The verdict of a rule that says only which of two is larger."""
    return decide(difference.positive, difference.negative)


class Cells(dict[tuple[str, ...], np.ndarray]):
    """Test accuracies, one a seed, by the names of what they are of."""

    def differences(self, first: str, second: str, *others: str) -> list[np.ndarray]:
        """Each cell with `first` and the others in its name, minus that with `second` instead."""
        return [
            accuracy - self[tuple(second if name == first else name for name in names)]
            for names, accuracy in self.items()
            if {first, *others} <= set(names)
        ]

    def table(self, *head: str) -> list[tuple[str, ...]]:
        """A row a cell: its names, then mean, lowest and highest."""
        entries = ((names, spread(values)) for names, values in self.items())
        return tabulate((*head, "mean", "lowest", "highest"), entries)

    def lines(self, over: int) -> dict[str, dict[str, tuple[float, float, float]]]:
        """For a figure over the names at one place: a line for all that share the others."""
        lines: dict[str, dict] = {}
        for names, values in self.items():
            line = ", ".join(names[:over] + names[over + 1 :])
            lines.setdefault(line, {})[names[over]] = spread(values)
        return lines


@cache
def the_base(name: str) -> Base:
    """A base, loaded once."""
    return load_base(name)


@cache
def the_task(name: str) -> Task:
    """A task, loaded once."""
    return load_task(name)


def best_row(plan: Plan, base: str, task: str, learner: str = "prompt", **settings: object) -> Row:
    """One combination, with the plan's seeds and steps, at the best of the plan's rates."""
    axes = {"learner": [learner], "learning_rate": rates_for(learner, the_base(base))[: plan.rates]}
    settings = plan.settings(base) | settings
    (row,) = sweep(the_base(base), the_task(task), axes, plan.seeds, **settings)
    return row


def measure(plan: Plan, **axes: tuple | str) -> Cells:
    """The test accuracies of every combination of the values in tuples, by these values' names."""
    varied = {name: values for name, values in axes.items() if isinstance(values, tuple)}
    cells = Cells()
    for values in product(*varied.values()):
        row = best_row(plan, **axes | dict(zip(varied, values, strict=True)))
        cells[tuple(map(str, values))] = accuracies(row.results)
    return cells


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
    learners = ("prompt", "full")
    cells = measure(plan, base=SMALL_BASES, task=("questions",), learner=learners)
    cells |= measure(plan, base=plan.ladder, task=("movie-reviews",), learner=learners)
    gaps = {base: cells.differences("full", "prompt", base) for base in SMALL_BASES + plan.ladder}
    change = Difference.of(minus(gaps[SMALL_BASES[0]], gaps[SMALL_BASES[-1]]))
    said = ", ".join(f"{base} {gap.mean():.3f}" for base, (gap,) in gaps.items())
    because = f"the gap by base: {said}; from nano to tiny it closes by {change}"
    table = cells.table("base", "task", "learner")
    return Finding(verdict_on(change), because, table, cells.lines(over=0), "base")


@claim(
    says="Longer prompts help up to about 20 vectors, and little beyond.",
    source="Lester et al. 2021, figure 3a",
    setting="1, 5, 20 and 100 vectors in front of the tiny base, two tasks",
    rule="holds if 20 beat 1, paired by seed and task, and half of that gain is more than what 100 "
    "add; fails if 1 beats 20, or if 100 add more than 20 did",
)
def longer_prompts(plan: Plan) -> Finding:
    """The accuracy by the number of vectors."""
    cells = measure(plan, task=SMALL_TASKS, length=(1, 5, 20, 100), base="tiny")
    gained, added = cells.differences("20", "1"), cells.differences("100", "20")
    up, beyond = Difference.of(gained), Difference.of(added)
    little = Difference.of(minus([gain / 2 for gain in gained], added))
    more = Difference.of(minus(added, gained))
    verdict = decide(up.positive and little.positive, up.negative or more.positive)
    because = (
        f"20 against 1: {up}; 100 against 20: {beyond}; half the first minus the second: {little}"
    )
    table = cells.table("task", "vectors")
    return Finding(verdict, because, table, cells.lines(over=1), "prompt vectors")


@claim(
    says="Starts from the vocabulary or from label words beat uniform ones, less so for larger "
    "bases.",
    source="Lester et al. 2021, figure 3b",
    setting="three starts in front of the nano and the tiny base, two tasks",
    rule="holds if both beat uniform on the tiny base, paired by seed and task, and by less than "
    "on the nano base; fails if uniform beats both on the tiny base",
)
def starts(plan: Plan) -> Finding:
    """The worth of the first vectors."""
    bases, methods = ("nano", "tiny"), ("vocab", "labels")
    cells = measure(plan, base=bases, task=SMALL_TASKS, method=("uniform", *methods))
    gains = {(m, base): cells.differences(m, "uniform", base) for m in methods for base in bases}
    gained = {names: Difference.of(gain) for names, gain in gains.items()}
    less = {m: Difference.of(minus(gains[m, "nano"], gains[m, "tiny"])) for m in methods}
    on_tiny = [gained[m, "tiny"] for m in methods]
    holds = all(gain.positive for gain in (*on_tiny, *less.values()))
    verdict = decide(holds, all(gain.negative for gain in on_tiny))
    because = "; ".join(f"{m} on {base} {gain}" for (m, base), gain in gained.items())
    because += "".join(f"; {m}, nano minus tiny {gain}" for m, gain in less.items())
    return Finding(verdict, because, cells.table("base", "task", "start"))


@claim(
    says="What the base was pre-trained to do matters.",
    source="after Lester et al. 2021, figure 3c, of T5 before and after language modelling",
    setting="a decoder and a masked-word base of the same size that read the same text, two tasks",
    rule="holds if the two differ on both tasks, the interval of each leaving out zero; it cannot "
    "fail, and one base of a kind cannot tell its objective from the luck of its training",
)
def objectives(plan: Plan) -> Finding:
    """Next words against masked words."""
    bases = ("micro", "micro-masked")
    cells = measure(plan, task=SMALL_TASKS, base=bases)
    by_task = {task: Difference.of(cells.differences(*bases, task)) for task in SMALL_TASKS}
    differ = all(gain.positive or gain.negative for gain in by_task.values())
    because = "decoder minus masked: " + ", ".join(f"{task} {d}" for task, d in by_task.items())
    return Finding(decide(differ, False), because, cells.table("task", "base"))


@claim(
    says="An ensemble of five prompts beats their average, and beats or equals the best of them.",
    source="Lester et al. 2021, table 3",
    setting="five seeds in front of the tiny base, three tasks; mean probability, where they vote",
    rule="holds if it beats the members' mean on every task and at least equals the best on "
    "validation on most; fails if it loses to the mean on most",
)
def ensembles(plan: Plan) -> Finding:
    """Five prompts asked together."""
    tasks = (*SMALL_TASKS, "movie-reviews")
    by_task = {task: _five_together(plan, task) for task in tasks}
    over_mean, over_best = (
        [round(a["mean probability"] - a[other], 6) for a in by_task.values()]  # a text is more
        for other in ("members, mean", "best on validation")
    )
    most = len(tasks) // 2
    holds = min(over_mean) > 0 and sum(x >= 0 for x in over_best) > most
    verdict = decide(holds, sum(x < 0 for x in over_mean) > most)
    said = zip(tasks, over_mean, over_best, strict=True)
    because = "over the mean and over the best: "
    because += "; ".join(f"{task} {mean:+.3f}, {best:+.3f}" for task, mean, best in said)
    entries = ((task, answers.values()) for task, answers in by_task.items())
    return Finding(verdict, because, tabulate(("task", *by_task[tasks[0]]), entries))


def _five_together(plan: Plan, task: str) -> dict[str, float]:
    results = best_row(replace(plan, seeds=5), "tiny", task).results

    def ask() -> dict[str, float]:
        prompts = [result.prompt() for result in results]
        return ensemble(the_base("tiny"), prompts, the_task(task)).accuracies()

    return remember("ensemble", [str(result.job.directory) for result in results], ask)


@claim(
    says="In a new domain a tuned prompt holds up better than a fine-tuned base.",
    source="Lester et al. 2021, tables 1 and 2: on four of six domains",
    setting="learnt on film reviews, asked on products, tweets and editorials; minilm, in the "
    "quick plan the tiny base",
    rule="holds if prompts lose less than fine-tuned bases, paired by seed, from their own domain "
    "to the mean of the three others; fails if they lose more",
)
def new_domains(plan: Plan) -> Finding:
    """The loss of accuracy on the way from film reviews to something else."""
    base, (source, *others) = plan.strong_base, DOMAINS
    cells, losses = Cells(), {}
    for learner in ("prompt", "full"):
        results = best_row(plan, base, source, learner).results
        cells[learner, source] = accuracies(results)
        for name in others:
            cells[learner, name] = zero_shot(results, the_task(name))
        elsewhere = np.mean([cells[learner, name] for name in others], axis=0)  # (seeds,)
        losses[learner] = cells[learner, source] - elsewhere
    kept = Difference.of([losses["full"] - losses["prompt"]])
    because = f"base {base}: fine-tuning loses more than prompts by {kept}"
    return Finding(verdict_on(kept), because, cells.table("learner", "asked on"))


@claim(
    says="On small bases, deep prefixes beat shallow prompts.",
    source="Liu et al. 2022 (P-tuning v2), table 2",
    setting="20 vectors in front of, or 20 keys and values in each layer of, three small bases; "
    "questions",
    rule="holds if the prefix beats the prompt, paired by seed and base; fails if it loses",
)
def deep_prefixes(plan: Plan) -> Finding:
    """Vectors in front, against keys and values in every layer."""
    cells = measure(plan, base=SMALL_BASES, learner=("prompt", "prefix"), task="questions")
    gain = Difference.of(cells.differences("prefix", "prompt"))
    return Finding(verdict_on(gain), f"prefix minus prompt: {gain}", cells.table("base", "learner"))


@claim(
    says="Training a prefix through a network helps.",
    source="Li & Liang 2021, section 4.3; by Liu et al. 2022, section 3.3, on some tasks only",
    setting="a prefix of 20 on the tiny base, directly and through a network, two tasks",
    rule="holds if the network's prefix beats the direct one, paired by seed and task; fails if it "
    "loses",
)
def reparameterised(plan: Plan) -> Finding:
    """The same keys and values, made by a network or not."""
    cells = measure(plan, task=SMALL_TASKS, learner=("prefix", "prefix-mlp"), base="tiny")
    gain = Difference.of(cells.differences("prefix-mlp", "prefix"))
    because = f"through the network minus directly: {gain}"
    return Finding(verdict_on(gain), because, cells.table("task", "learner"))


@claim(
    says="A prompt learnt on a related task is a better start.",
    source="Vu et al. 2022 (SPoT), sections 2 and 3.1",
    setting="product reviews in a tenth of the steps, begun with a film review prompt or as usual; "
    "minilm, in the quick plan the tiny base",
    rule="holds if the related prompt's start beats the usual one, paired by seed; fails if it "
    "loses",
)
def related_starts(plan: Plan) -> Finding:
    """The worth of film reviews for product reviews."""
    name, (source, target) = plan.strong_base, DOMAINS[:2]
    settings = plan.settings(name)
    settings |= {"learning_rate": best_row(plan, name, source).rate}
    tasks, few = (the_task(source), the_task(target)), few_of(settings["steps"])
    by_start = head_starts(the_base(name), *tasks, plan.seeds, few, **settings)
    cells = Cells({(start,): np.array(values) for start, values in by_start.items()})
    gain = Difference.of(cells.differences(source, "usual"))
    because = f"base {name}: the film prompt's start minus the usual one: {gain}"
    return Finding(verdict_on(gain), because, cells.table("start"))


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
    base, labels = the_base("tiny"), the_task("sms-spam").label_words
    label_ids = label_tokens(base, labels)
    usual, held = (
        best_row(plan, "tiny", "sms-spam", learner, method="text", text=SENTENCE).results
        for learner in ("prompt", "prompt-wayward")
    )
    length = len(usual[0].prompt().vectors)
    start = init_prompt(base, length, "text", text=SENTENCE).vectors
    tale = nearest(base, start, "cosine", 1).ids  # (P, 1)

    def as_tale(results: Sequence[Result]) -> float:
        near = [nearest(base, result.prompt().vectors, "cosine", 1).ids for result in results]
        return np.mean([ids == tale for ids in near])

    def near_labels(vectors: np.ndarray) -> float:
        return np.isin(nearest(base, vectors, "cosine").ids, label_ids).any(1).mean()

    before = near_labels(start)
    after = np.mean([near_labels(result.prompt().vectors) for result in usual])
    cells = Cells({("usual",): accuracies(usual), ("held near the tale",): accuracies(held)})
    lost = Difference.of(cells.differences("usual", "held near the tale"))
    fails = as_tale(held) >= 0.9 and lost.high < 0.02
    holds = not fails and lost.low > 0.02 and after > before
    because = (
        f"{as_tale(held):.0%} of the held prompts' vectors read as the tale, which costs {lost}; "
        f"of the usual ones {as_tale(usual):.0%} do, and {after:.0%} have a label word near "
        f"({before:.0%} before)"
    )
    return Finding(decide(holds, fails), because, cells.table("prompts"))
