"""Measuring: what a prompt, or a base without one, answers on a split of a task.

In: a base, a prompt and texts with the right answers. Out: an `Evaluation`, how many were right and
how sure the answers were. The reading of a task and its texts as token ids are made here too, since
learning and measuring must not differ in them. The story continues in `learn.py`.
"""

from dataclasses import dataclass, replace

import numpy as np

from minipt.errors import MiniptError
from minipt.maths.ops import cross_entropy
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.responses import encode_responses, response_format
from minipt.prompting.text import QuestionFormat, Targets, batches, encode
from minipt.prompting.verbalizer import question_format
from minipt.prompting.wiring import Answer, answerer
from minipt.tasks.task import Pairs, Split, Task
from minipt.transformer.base import Base

# Nothing is learnt from a text here, so a batch may be as large as the processor's cache likes.
EVALUATION_BATCH = 32
# A response's logits are as many as its tokens times the vocabulary, and four arrays of that size
# exist at once: as many numbers as these keep them within 200 MB of float32.
MOST_LOGITS = 12_000_000


@dataclass(frozen=True)
class Evaluation:
    """What a prompt, or a base without one, did on a split of N texts.

    right (N,): which texts were answered rightly; accuracy: their share. counts (K, K): how many
    texts of the row's class got the column's answer. probabilities (N, K), in the order of the
    split's texts; loss: the mean cross-entropy in nats. cut: how many texts lost their beginning.

    Of responses, K is 0, and the loss is the mean of all tokens. A response is right if each of its
    tokens, the end included, is the likeliest after the right ones before it: these are exactly the
    responses that greedy generation writes, since until the first wrong token it reads the same.
    """

    accuracy: float
    loss: float
    correct: int
    total: int
    right: np.ndarray
    counts: np.ndarray
    probabilities: np.ndarray
    cut: int


def evaluate(
    base: Base, prompt: SoftPrompt | None, split: Split | Pairs, task: Task | None = None
) -> Evaluation:
    """The accuracy, loss and per-class counts of a prompt on a split.

    task: where the template and the label words come from; None: a tuned prompt knows them.
    prompt=None measures the base as it is. Texts that are too long lose their beginning.
    Raises MiniptError when neither the prompt nor a task says how the answer is read, for a
    response that does not fit and for a base that writes none.
    """
    question = task_question(base, prompt, split, task)
    room = base.config.context - (len(prompt.vectors) if prompt else 0)
    return measure(base, answerer(base, prompt), question, split, room)


def measure(
    base: Base, answer: Answer, question: QuestionFormat, split: Split | Pairs, room: int
) -> Evaluation:
    """The same of whatever answers: a function from batches to logits (N, K).

    room: the positions that are left to a text.
    """
    token_rows, targets, cut = encode_split(base, question, split, room)
    N, K = len(token_rows), 0 if question.choices is None else len(question.choices)
    losses, right = np.zeros(N), np.ones(N, bool)  # of each text
    counts, probabilities = np.zeros((K, K), np.int64), np.empty((N, K), base.dtype)
    answers = 0
    for indices, batch in batches(token_rows, targets, question, _batch_size(base, targets)):
        logits = answer(batch)  # (M, K or V), M answers
        each, shares = cross_entropy(logits, batch.answers)  # (M,), (M, K or V)
        guesses = logits.argmax(1)  # (M,)
        whose = indices[batch.counted.nonzero()[0]]  # (M,) the text that an answer belongs to
        np.add.at(losses, whose, each)
        np.logical_and.at(right, whose, guesses == batch.answers)
        answers += len(each)
        if K:
            probabilities[indices] = shares
            np.add.at(counts, (batch.answers, guesses), 1)
    correct = int(right.sum())
    return Evaluation(
        accuracy=correct / N,
        loss=float(losses.sum()) / answers,
        correct=correct,
        total=N,
        right=right,
        counts=counts,
        probabilities=probabilities,
        cut=cut,
    )


def task_question(
    base: Base, prompt: SoftPrompt | None, split: Split | Pairs, task: Task | None
) -> QuestionFormat:
    """How the answers of a split are read: as the task says, or as the prompt remembers.

    Raises MiniptError when neither says it.
    """
    about = prompt.about if prompt else {}
    if isinstance(split, Pairs):
        return response_format(base, task.template if task else about.get("template", "{text}"))
    if task is not None:
        template, label_words = task.template, list(task.label_words)
    elif about.get("label_words"):
        template, label_words = about["template"], about["label_words"]
    else:
        raise MiniptError("only a tuned prompt knows its task: name the task to evaluate on")
    question = question_format(base, template, label_words)
    if prompt is None or prompt.head is None:
        return question
    return replace(question, choices=prompt.head)


def encode_split(
    base: Base, question: QuestionFormat, split: Split | Pairs, room: int
) -> tuple[list[np.ndarray], Targets, int]:
    """A split's texts as token ids, the targets of each, and how many texts had to be cut.

    room: the positions that are left to a text. Raises MiniptError for what cannot be read.
    """
    if isinstance(split, Pairs):
        return encode_responses(base, question.template, split.texts, split.responses, room)
    token_rows, cut = encode(base, question.template, split.texts, room)
    return token_rows, split.labels, cut


def _batch_size(base: Base, targets: Targets) -> int:
    if isinstance(targets, np.ndarray):
        return EVALUATION_BATCH
    logits = max(map(len, targets)) * base.config.vocabulary  # of one text
    return max(1, min(EVALUATION_BATCH, MOST_LOGITS // logits))
