"""The course's own task: sentences that ship with minipt, some of them made questions.

In: how many sentences make one question. Out: a `Task` that `nano` learns in seconds and that needs
no network.
"""

from dataclasses import replace

import numpy as np

from minipt.tasks.datasets import load_task
from minipt.tasks.task import Split, Task

TRAIN, VALIDATION = 149, 40  # the other 120 sentences are the test split


def statements_and_questions(one_in: int = 2) -> Task:
    """The toy sentences, of which one in `one_in` ends with ", or not?": is it a question?

    The splits have 149, 40 and 120 sentences, each with about the same share of questions. A model
    that always answers "statement" is right in 1 - 1 / one_in of them. The one toy sentence that is
    a question already is left out.
    """
    toy = load_task("toy")
    texts = [text for split in (toy.train, toy.validation, toy.test) for text in split.texts]
    texts = [text for text in texts if "?" not in text]
    parts = np.split(np.array(texts, object), [TRAIN, TRAIN + VALIDATION])
    train, validation, test = (_ask_one_in(one_in, part.tolist()) for part in parts)
    return replace(
        toy,
        name="statements and questions",
        labels=("statement", "question"),
        label_words=(" statement", " question"),
        template="{text}\nKind:",
        instruction="Say whether the following text is a statement or a question.",
        train=train,
        validation=validation,
        test=test,
    )


def _ask_one_in(one_in: int, texts: list[str]) -> Split:
    """Every `one_in`-th text as a question, of class 1."""
    labels = (np.arange(len(texts)) % one_in == one_in - 1).astype(int)  # (N,)
    asked = [
        f"{text.rstrip('.!')}, or not?" if label else text
        for text, label in zip(texts, labels, strict=True)
    ]
    return Split(asked, labels)
