"""Calls of the API that are damaged: functions, and sound arguments for each."""

from collections.abc import Callable

import numpy as np
from helpers.bases import base_that_reads, small_task

import minipt
from minipt.tasks.task import Pairs, Split

BASE, TASK = base_that_reads("gpt2"), small_task()
TEXT = "the film was good"
VECTORS = minipt.init_prompt(BASE, 2).vectors
BATCH = {"ids": np.array([[1, 2, 3], [4, 5, 6]]), "lengths": np.array([3, 2])}
BATCH |= {"targets": np.array([0, 1]), "vectors": VECTORS}
ABOUT = {"template": "{text}:", "labels": ["good", "bad"], "label_words": [" good", " bad"]}
TUNED = {"vectors": VECTORS, "texts": [TEXT, "a bad day"]}
DRAWN = {"limit": 2, "temperature": 0.5, "top_k": 3, "top_p": 0.5, "seed": 0}
LEARNT = {"length": 2, "steps": 1, "seed": 0, "batch_size": 4, "learning_rate": 0.3, "text": None}
LEARNT |= {"method": "vocab", "optimizer": "adam", "schedule": "linear", "warmup": 1, "clip": 1.0}
LEARNT |= {"evaluate_every": 1, "patience": None, "head": False}
COLUMNS = {"path": "texts.csv", "text_column": "text", "label_column": "label"}


def prompt_of(vectors: object, about: dict | None = None) -> minipt.SoftPrompt:
    """A prompt for BASE with these vectors."""
    return minipt.SoftPrompt(vectors, BASE.fingerprint, BASE.name, about or {})


def start(**arguments: object) -> object:
    return minipt.init_prompt(BASE, **arguments).vectors


def step(vectors: object, wiring: object, **batch: object) -> None:
    """The loss of vectors that are not finite may be NaN: it shows itself."""
    made, prompt = minipt.Batch(**batch), prompt_of(vectors)
    minipt.logits(BASE, made, prompt)
    minipt.loss_and_gradient(BASE, prompt, made, wiring=wiring)


def generate(vectors: object, text: object, **settings: object) -> object:
    return "".join(minipt.generate(BASE, prompt_of(vectors), text, **settings))


def predict(vectors: object, texts: object, **about: object) -> object:
    return minipt.predict(BASE, prompt_of(vectors, about), texts)


def evaluate(vectors: object, texts: object, answers: object) -> object:
    return minipt.evaluate(BASE, prompt_of(vectors), Split(texts, answers), TASK)


def evaluate_pairs(vectors: object, texts: object, answers: object) -> object:
    return minipt.evaluate(BASE, prompt_of(vectors), Pairs(texts, answers))


def tune(**settings: object) -> object:
    return minipt.tune(BASE, TASK, **settings).history


def save(path: object, base_name: object, vectors: object, about: object) -> None:
    prompt_of(vectors, about).save(path)
    prompt_of(vectors, about).to_peft("new", base_name)


Call = tuple[Callable[..., object], dict[str, object]]
CALLS: tuple[Call, ...] = (
    (step, BATCH | {"choices": [5, 6], "wiring": "shared"}),
    (step, BATCH | {"positions": [1, 0], "wiring": "concatenated"}),
    (start, {"length": 3, "method": "labels", "seed": 0, "label_words": [" good", " bad"]}),
    (start, {"length": 3, "method": "text", "text": TEXT}),
    (generate, {"vectors": VECTORS, "text": TEXT} | DRAWN),
    (predict, TUNED | ABOUT),
    (evaluate, TUNED | {"answers": np.array([0, 1])}),
    (evaluate_pairs, TUNED | {"answers": [" good", " bad"]}),
    (tune, LEARNT),
    (minipt.load_csv, COLUMNS | {"label_words": {"good": " kind", "bad": " cruel"}}),
    (minipt.load_pairs, {"path": "pairs.csv"}),
    (lambda path: minipt.load_base(path).params, {"path": "base"}),
    (lambda path: minipt.load_prompt(path, BASE).vectors, {"path": "prompt"}),
    (lambda path: minipt.from_peft(path, BASE).vectors, {"path": "adapter"}),
    (save, {"path": "new.safetensors", "base_name": "a/b", "vectors": VECTORS, "about": ABOUT}),
)
