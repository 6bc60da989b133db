"""How well a prompt, or a base without one, answers the texts of a split.

In: a base, a prompt, and texts with the right answers. Out: an `Evaluation`: how many answers were
right and how sure they were. Learning reads a task in the same way: `task_question` says how it is
asked, `encode_split` makes token ids of its texts.
"""

from dataclasses import dataclass

import numpy as np

from minipt.errors import MiniptError
from minipt.maths.ops import cross_entropy
from minipt.maths.threads import in_threads
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.responses import encode_responses, response_format
from minipt.prompting.text import Batch, QuestionFormat, Targets, batches, encode
from minipt.prompting.verbalizer import question_format
from minipt.prompting.wiring import Answerer, answerer
from minipt.tasks.task import Pairs, Split, Task
from minipt.transformer.base import Base

# Nothing is learnt from a text here, so a batch may be as large as the processor's cache likes.
EVALUATION_BATCH = 32
# A response has as many logits as its tokens times the vocabulary, and four arrays of that size
# exist at once. So many numbers keep them within 200 MB of float32 a thread.
MOST_LOGITS = 12_000_000


@dataclass(frozen=True)
class Evaluation:
    """What a prompt, or a base without one, did on a split of N texts with K labels.

    Of responses, K is 0, and the loss is the mean of all tokens. A response is right if each of its
    tokens, the end included, is the likeliest after the right ones before it. Greedy generation
    writes exactly these responses, since it reads the same until the first wrong token.
    """

    accuracy: float  # the share of the texts that were answered rightly
    loss: float  # the mean cross-entropy in nats
    correct: int
    total: int
    right: np.ndarray  # (N,) which texts were answered rightly
    counts: np.ndarray  # (K, K) how many texts of the row's class got the column's answer
    probabilities: np.ndarray  # (N, K) in the order of the split's texts
    was_cut: np.ndarray  # (N,) which texts lost their beginning

    @property
    def cut(self) -> int:
        """How many texts lost their beginning."""
        return int(self.was_cut.sum())


def evaluate(
    base: Base, prompt: SoftPrompt | None, split: Split | Pairs, task: Task | None = None
) -> Evaluation:
    """The accuracy, loss and per-class counts of a prompt on a split.

    task: says the template and the label words; None: a tuned prompt knows them. prompt=None
    measures the base as it is. Texts that are too long lose their beginning.
    Raises MiniptError when neither the prompt nor a task says how the answer is read, for a
    response that does not fit, a base that writes none, and answers that are not finite.
    """
    question = task_question(base, prompt, split, task)
    room = base.config.context - (len(prompt.vectors) if prompt else 0)
    return measure(base, answerer(base, prompt), question, split, room)


def measure(
    base: Base, answer: Answerer, question: QuestionFormat, split: Split | Pairs, room: int
) -> Evaluation:
    """The same for anything that answers: a function from batches to logits (N, K).

    room: the positions that are left to a text.
    """
    token_rows, targets, was_cut = encode_split(base, question, split, room)
    N, K = len(token_rows), question.label_count
    losses, right = np.zeros(N), np.ones(N, bool)  # of each text
    counts, probabilities = np.zeros((K, K), np.int64), np.empty((N, K), base.dtype)
    answers = 0
    size = batch_size(base, question, targets)
    groups = list(batches(token_rows, targets, question, size))
    answered = in_threads(lambda group: _answer(answer, group[1], K), groups)
    for (indices, batch), (each, guesses, shares) in zip(groups, answered, strict=True):
        # The text that an answer belongs to: a label has one answer, a response one a token. (M,)
        whose = indices if K else indices[batch.counted.nonzero()[0]]
        np.add.at(losses, whose, each)
        np.logical_and.at(right, whose, guesses == batch.right_choices)
        answers += len(each)
        if K:
            probabilities[indices] = shares
            np.add.at(counts, (batch.right_choices, guesses), 1)
    correct, loss = int(right.sum()), float(losses.sum()) / answers
    return Evaluation(correct / N, loss, correct, N, right, counts, probabilities, was_cut)


def _answer(
    answer: Answerer, batch: Batch, K: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Of each of a batch's M answers the loss (M,), the guess (M,), and the probabilities (M, K).

    Of responses, where K is 0, the probabilities of all tokens are forgotten: they are too many.
    """
    logits = answer(batch)  # (M, K or V)
    losses, probabilities = cross_entropy(logits, batch.right_choices)  # (M,), (M, K or V)
    if not np.isfinite(losses).all():
        raise MiniptError("with this prompt the answer is not a finite number: tune it again")
    return losses, logits.argmax(1), probabilities if K else None


def task_question(
    base: Base, prompt: SoftPrompt | None, split: Split | Pairs | None, task: Task | None
) -> QuestionFormat:
    """How the answers of a split are read: as the task says, or as the prompt remembers.

    split: of labels or of responses; None: of labels. Raises MiniptError when neither says it.
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
    return question_format(base, template, label_words, prompt.head if prompt else None)


def encode_split(
    base: Base, question: QuestionFormat, split: Split | Pairs, room: int
) -> tuple[list[np.ndarray], Targets, np.ndarray]:
    """A split's texts as token ids, the targets of each, and which texts were cut. (N,)

    room: the positions that are left to a text. Raises MiniptError for what cannot be read.
    """
    if isinstance(split, Pairs):
        return encode_responses(base, question.template, split.texts, split.responses, room)
    if max(split.labels) >= question.label_count:
        raise MiniptError(
            f"a split has the label {max(split.labels)} where there are {question.label_count} "
            "classes, counted from 0: take the task that the split belongs to"
        )
    if question.label_tails is not None:
        room -= max(map(len, question.label_tails)) - 1  # for a label behind the text
    token_rows, was_cut = encode(base, question.template, split.texts, room, question.lead)
    return token_rows, split.labels, was_cut


def batch_size(base: Base, question: QuestionFormat, targets: Targets) -> int:
    """How many texts are measured at once."""
    answers = question.label_tails or (() if isinstance(targets, np.ndarray) else targets)
    if not answers:
        return EVALUATION_BATCH
    rows = question.label_count or 1  # of one text
    logits = rows * max(map(len, answers)) * base.config.vocabulary
    return max(1, min(EVALUATION_BATCH, MOST_LOGITS // logits))
