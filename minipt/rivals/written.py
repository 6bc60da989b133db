"""What learns nothing: prompts written by hand, in words or in examples.

In: a base, a task and the split to measure. Out: an `Evaluation`. Words stand in front of the text
or behind it, and validation chooses the wording. Examples are labelled training texts in front of
the text, and a language model may go on from them (Brown et al. 2020, section 2). No gradient is
taken, yet examples show more of the task than an instruction tells.
"""

from dataclasses import replace
from itertools import islice

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.evaluate import Evaluation, evaluate
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.text import tokens
from minipt.tasks.task import Pairs, Split, Task
from minipt.transformer.base import Base

MOST_ROUNDS = 8  # of examples, one a class
APART = "\n\n"  # between an example and the next


def written(base: Base, task: Task, split: Split | Pairs) -> Evaluation:
    """The base on a split, asked in the wording that did best on the validation split.

    A text that is too long loses its beginning, and with it the words in front.
    """
    return evaluate(base, None, split, replace(task, template=choose_template(base, task)))


def choose_template(base: Base, task: Task) -> str:
    """The best of `templates` on the validation split, of equally good ones the first.

    An encoder without a head reads the text alone. There the template changes the sentences that
    the text is compared with, one for each label, see `question_format`.
    """

    def merit(template: str) -> tuple[float, float]:
        measured = evaluate(base, None, task.validation, replace(task, template=template))
        return measured.accuracy, -measured.loss

    return max(templates(task), key=merit)


def templates(task: Task) -> list[str]:
    """The task's template alone, and with its own words in front of the text or behind it."""
    words = ",".join(task.label_words)
    behind = f"{{text}}{APART}{task.instruction}" if task.instruction else "{text}"
    wordings = [
        task.template,
        f"Text: {task.template}",
        task.opening + task.template,
        task.template.replace("{text}", behind),
    ]
    if words:
        wordings.append(f"Possible answers:{words}.{APART}{task.template}")
    return list(dict.fromkeys(wordings))  # without an instruction, some are the same


def shown(base: Base, task: Task, split: Split | Pairs, seed: int = 0) -> Evaluation:
    """The base on a split, with examples in front of each text. Raises as `examples` does.

    Where a text is too long for what is left, its beginning is cut and the examples stay.
    """
    return evaluate(base, examples(base, task, seed), split, task)


def examples(base: Base, task: Task, seed: int = 0) -> SoftPrompt:
    """Training texts with their answers as a prompt that all texts share, in half of the context.

    They come in rounds, as many as fit, each with one text of every class in random order; the seed
    draws them. Texts that take more than their class's share of the room are not drawn. The vectors
    are the embeddings of the examples' tokens, so that a causal base reads them once.

    Raises MiniptError for a class without a text that is short enough, and for a base that does not
    predict next tokens: its embedding of a text would only mix the examples in.
    """
    if base.config.head != "language":
        raise MiniptError(
            f"base {base.name!r} does not go on from a text, so examples in front of it show "
            "nothing: choose a causal language model such as tiny"
        )
    rng, room = np.random.default_rng(seed), base.config.context // 2
    answered = _answered(task)
    classes = [_draw(base, texts, room // len(answered), rng) for texts in answered]
    if not all(classes):
        raise MiniptError(
            f"the texts of {task.name} are too long for examples in {room} positions, half of the "
            f"context of base {base.name!r}: choose another base"
        )
    rows: list[np.ndarray] = []
    for drawn in zip(*classes, strict=False):  # the class with the fewest texts ends first
        longer = rows + [drawn[k] for k in rng.permutation(len(drawn))]
        if sum(map(len, longer)) > room:
            break
        rows = longer
    vectors = base.params["token.table"][np.concatenate(rows)]  # (P, C)
    about = {"examples": len(rows)}
    return SoftPrompt(vectors, base.fingerprint, base.name, about)


def _draw(base: Base, texts: list[str], longest: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Some of the texts as token ids, in random order, none of more than `longest` tokens."""
    rows = (tokens(base, texts[i]) for i in rng.permutation(len(texts)))
    return list(islice((row for row in rows if len(row) <= longest), MOST_ROUNDS))


def _answered(task: Task) -> list[list[str]]:
    """The training texts in the template with their answers, class by class; responses are one."""
    filled = [task.template.replace("{text}", text) for text in task.train.texts]
    if isinstance(task.train, Pairs):
        pairs = zip(filled, task.train.responses, strict=True)
        return [[text + response + APART for text, response in pairs]]
    return [
        [filled[i] + word + APART for i in np.flatnonzero(task.train.labels == k)]
        for k, word in enumerate(task.label_words)
    ]
