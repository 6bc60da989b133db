"""The result of a finished run: beside its rivals, in examples, and with the proof of the base.

In: a base, a task and a finished run. Out: the record for `run.json`, and the same as plain text of
at most 100 columns. Accuracies are of the test split and stand with their 95 % intervals.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np

from minipt.errors import MiniptError
from minipt.files.versions import machine, versions
from minipt.learning.evaluate import Evaluation, evaluate, task_question
from minipt.learning.settings import Settings
from minipt.learning.tune import PromptLearner, Run
from minipt.prompting.generate import write
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.responses import encode_responses
from minipt.prompting.text import QuestionFormat
from minipt.results.tables import align, one_line, shorten
from minipt.tasks.bag_of_words import bag_of_words, confidence_interval
from minipt.tasks.task import Task
from minipt.transformer.base import Base

MESSAGES = 10
MOST_CLASSES = 8  # a table of more would not fit a line
COLUMN = 29  # three texts side by side fit a line
SMALL_MOVE = 0.1  # of the start's length; less is hardly another prompt
BEYOND = 5  # how many tokens more than the right response has the base may write


@dataclass(frozen=True)
class Score:
    """How many of the test split's texts were answered rightly, and the mean loss in nats."""

    correct: int
    total: int
    loss: float | None = None

    @classmethod
    def of(cls, evaluation: Evaluation) -> "Score":
        """An evaluation without its answers to each text."""
        return cls(evaluation.correct, evaluation.total, evaluation.loss)

    @property
    def accuracy(self) -> float:
        """correct / total"""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        return confidence_interval(self.correct, self.total)


def compare_with_rivals(base: Base, task: Task, tuned: Evaluation) -> dict[str, Score]:
    """Scores on the test split: those to compare with, and last that of the tuned prompt.

    The first are those of `baselines` and, if the task has an instruction, "written": the base with
    these words, written by hand, in front of the text.
    """
    scores = baselines(base, task)
    if task.opening and "untuned" in scores:
        instructed = replace(task, template=task.opening + task.template)
        scores["written"] = Score.of(evaluate(base, None, task.test, instructed))
    return scores | {"tuned": Score.of(tuned)}


def baselines(base: Base, task: Task) -> dict[str, Score]:
    """Scores on the test split that need no prompt.

    majority: the training split's most frequent answer, always. bag_of_words: a linear model of the
    words, for labels only. untuned: the base as it is; left out where its label words cannot be
    told apart, so that only a head tells the labels apart.
    """
    test = task.test
    scores = {"majority": Score(test.answers.count(task.majority), len(test.texts))}
    if task.labels:
        words = bag_of_words(task.train, test, len(task.labels))
        scores["bag_of_words"] = Score(int((words == test.labels).sum()), len(test.texts))
    if is_answered(base, task):
        scores["untuned"] = Score.of(evaluate(base, None, test, task))
    return scores


def is_answered(base: Base, task: Task) -> bool:
    """Whether the base can tell the answers of a task apart without a head for them."""
    try:
        task_question(base, None, task.test, task)
    except MiniptError:
        return False
    return True


def make_record(base: Base, task: Task, run: Run, scores: dict[str, Score]) -> dict:
    """The content of `run.json` without the place of the base, in types that JSON knows."""
    best = run.history[run.best_step]
    others = {f"{name}_accuracy": score.accuracy for name, score in scores.items()}
    losses = {f"{name}_loss": score.loss for name, score in scores.items()}
    others |= {name: loss for name, loss in losses.items() if loss is not None}
    others["test_accuracy"] = others.pop("tuned_accuracy", run.test_accuracy)
    others["test_loss"] = others.pop("tuned_loss", run.test.loss)
    intervals = {name: list(score.interval) for name, score in scores.items()}
    return {
        "task": task.name,
        "base": base.name,
        "fingerprint": run.prompt.fingerprint,
        "fingerprint_after": base.fingerprint,
        "seed": run.settings.seed,
        "length": run.settings.length,
        "steps": run.history[-1]["step"],
        "best_step": run.best_step,
        **others,
        "validation_accuracy": best.get("validation_accuracy"),
        "interval": list(Score(run.test.correct, run.test.total).interval),
        "intervals": intervals,
        "correct": run.test.correct,
        "total": run.test.total,
        "labels": list(task.labels),
        "label_words": list(task.label_words),
        "template": task.template,
        "instruction": task.instruction,
        "reading": run.reading,
        "counts": run.test.counts.tolist(),
        "trained_numbers": sum(array.size for array in run.prompt.arrays().values()),
        "base_numbers": base.size,
        "texts_cut": run.cut,
        "seconds": round(run.seconds, 3),
        "settings": asdict(run.settings),
        "source": task.source,
        "data": {"sha256": task.digest} | task.sizes,
        "versions": versions(),
        "machine": machine(),
    }


def introduce(task: Task, learner: PromptLearner, settings: Settings) -> str:
    """The task, the frozen base and the prompt, to be shown before the first step."""
    base = learner.base
    lines = [
        f"{task.summary()}\n",
        f"base {base.name}: {base.size:,} parameters in {base.config.layers} layers of "
        f"{base.config.channels} channels, frozen",
        f"prompt: {settings.length} vectors from {_start_in_words(learner, settings)}",
        f"tuning: {settings.steps} steps of {settings.batch_size} texts, {settings.optimizer} at "
        f"{settings.learning_rate:g}, seed {settings.seed}",
    ]
    if labels := _labels_in_words(base, task, learner.question):
        lines.append(f"labels: {labels}")
    return "\n".join(lines)


def _start_in_words(learner: PromptLearner, settings: Settings) -> str:
    if learner.goes_on_from:
        return f"the prompt at {settings.method}"
    if settings.method == "text":
        return f"the words {shorten(settings.text.strip(), 60)!r}"
    if settings.method != "normal":
        return repr(settings.method)
    norms = [
        float(np.linalg.norm(vectors, axis=1).mean())
        for vectors in (learner.start.vectors, learner.base.params["token.table"])
    ]
    times = norms[0] / norms[1] if norms[1] else np.inf
    return f"'normal', {times:.1f} times as long as words: the learning rate must fit"


def _labels_in_words(base: Base, task: Task, question: QuestionFormat) -> str:
    """How labels are read that have no token of their own; "" for the usual ones."""
    behind = ""
    if question.lead:
        shared = base.tokenizer.decode(list(question.lead), skip_special_tokens=False)
        behind = f" behind {shared!r}, with which all begin"
    if question.label_tails is not None:
        return f"read by all their tokens{behind}, since one token does not tell them apart"
    if question.lead:
        return f"read{behind}"
    if task.labels and not is_answered(base, task):
        return "told apart by the head only, so the base is not asked without it"
    return ""


def tell(base: Base, task: Task, run: Run, scores: dict[str, Score]) -> str:
    """The result as text: comparison, counts, ten messages, how it was read, size and proof."""
    parts = [comparison_table(task, scores)]
    if 0 < len(task.labels) <= MOST_CLASSES:
        parts.append(class_table(task, run.test))
    parts.append(message_table(task, run.test) if task.labels else response_table(base, task, run))
    parts.append(f"read by: {run.reading}\n{account(base, run.prompt)}")
    if run.cut:
        parts.append(
            f"training texts too long for the base, which lost their beginning: {run.cut:,}"
        )
    return "\n\n".join(parts)


def warn(task: Task, run: Run) -> str:
    """What is wrong with a finished run, why, and what to do; "" where nothing is."""
    used = np.flatnonzero(run.test.counts.sum(0))  # of the labels
    only = ""
    if len(used) == 1 and len(np.unique(task.test.labels)) > 1:
        only = f"the prompt answers {task.labels[used[0]]!r} to every test text"
    start = float(np.linalg.norm(run.learner.start.vectors))
    distance, rate = run.history[-1].get("distance", 0.0), run.settings.learning_rate
    if distance < SMALL_MOVE * start:
        moved = f"the prompt moved by only {distance / start:.1%} of its start's length"
        return (
            f"{f'{only}, and ' if only else ''}{moved}: the learning rate, {rate:g}, is too small, "
            f"or {run.step:,} steps are too few: try --learning-rate {10 * rate:g}"
        )
    advice = f"try another learning rate than {rate:g}, more --steps, or another base"
    return f"{only}: {advice}" if only else ""


def comparison_table(task: Task, scores: dict[str, Score]) -> str:
    """One line a rival: how many right, the accuracy, its interval; of responses the loss too."""
    names = {
        "majority": f"always {task.majority_name!r:.24}",
        "bag_of_words": "bag of words",
        "untuned": "the base without a prompt",
        "written": "the base with a hand-written prompt",
        "tuned": "the base with the tuned prompt",
    }
    head = ("on the test split", "right", "accuracy", "95 % interval")
    rows = [head if task.labels else (*head, "loss a token")]
    for name, score in scores.items():
        low, high = score.interval
        right = f"{score.correct:,} of {score.total:,}"
        row = (names[name], right, f"{score.accuracy:.3f}", f"{low:.3f} to {high:.3f}")
        loss = "" if score.loss is None else f"{score.loss:.3f}"
        rows.append(row if task.labels else (*row, loss))
    return align(rows)


def class_table(task: Task, evaluation: Evaluation) -> str:
    """How many texts of each class got each answer from the tuned prompt."""
    rows = [("class \\ answer", *task.labels)]
    for label, counts in zip(task.labels, evaluation.counts, strict=True):
        rows.append((label, *(f"{count:,}" for count in counts)))
    return align(rows)


def message_table(task: Task, evaluation: Evaluation) -> str:
    """Ten test texts with the tuned prompt's verdicts, an x before the wrong ones."""
    rows = [("", "class", "answer", "sure", "text")]
    for i in choose_messages(task.test.labels, MESSAGES):
        probabilities = evaluation.probabilities[i]
        answer = int(probabilities.argmax())
        truth = int(task.test.labels[i])
        mark = "" if answer == truth else "x"
        sure = f"{probabilities[answer]:.3f}"
        rows.append((mark, task.labels[truth], task.labels[answer], sure, task.test.texts[i]))
    head = f"the first test texts of each class (x: wrong), {len(rows) - 1} of {evaluation.total:,}"
    return f"{head}\n{align(rows, '<<<><')}"


def response_table(base: Base, task: Task, run: Run) -> str:
    """The ends of ten test prompts, their responses, and what the base writes; an x: wrong."""
    texts, responses = task.test.texts[:MESSAGES], task.test.responses[:MESSAGES]
    room = base.config.context - len(run.prompt.vectors)
    token_rows, targets, _ = encode_responses(base, task.template, texts, responses, room)
    rows = [("", "the prompt's end", "response", "written")]
    for i, (row, target) in enumerate(zip(token_rows, targets, strict=True)):
        asked = row[: len(row) - len(target) + 1]  # (T,)
        limit = len(target) + BEYOND
        written = "".join(write(base, run.prompt, asked, limit, lambda x: int(x.argmax())))
        mark = "" if run.test.right[i] else "x"
        end, *others = map(one_line, (texts[i], responses[i], written))
        end = end if len(end) <= COLUMN else f"...{end[3 - COLUMN :]}"
        rows.append((mark, end, *(shorten(text, COLUMN) for text in others)))
    head = f"the first test prompts (x: wrong), {len(texts)} of {run.test.total:,}"
    return f"{head}\n{align(rows, '<<<<')}"


def choose_messages(labels: np.ndarray, count: int) -> list[int]:
    """Indices of the first texts, taken from each class in turn. labels (N,)"""
    queues = [list(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    indices: list[int] = []
    while len(indices) < count and any(queues):
        indices += [int(queue.pop(0)) for queue in queues if queue]
    return indices[:count]


def account(base: Base, prompt: SoftPrompt) -> str:
    """The size of what was trained, beside the base's, and the proof that the base is the same."""
    P, C = prompt.vectors.shape
    numbers = sum(array.size for array in prompt.arrays().values())
    head = "" if prompt.head is None else " and a head of {} x {}".format(*prompt.head.shape)
    after = base.fingerprint
    same = "the same" if after == prompt.fingerprint else "CHANGED"
    frozen = all(not array.flags.writeable for array in base.params.values())
    return (
        f"trained: {P} x {C}{head} = {numbers:,} numbers, {4 * numbers / 1000:.1f} kB, "
        f"{numbers / base.size:.2%} of the base's {base.size:,}\n"
        f"frozen:  sha256 of the base {prompt.fingerprint[:16]}... before, {after[:16]}... after: "
        f"{same};\n"
        f"         its {len(base.params)} arrays are {'' if frozen else 'NOT '}read-only"
    )
