"""Variants of the soft prompt, a search over tokens and prompts written by hand.

Gradients are held to the objective that each learner states; the base stays; a resumed run goes on.
"""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from helpers.bases import BERT, base_with_tokenizer, random_base, small_tokenizer
from tokenizers import processors

from minipt.errors import MiniptError
from minipt.learning.evaluate import encode_split, evaluate
from minipt.learning.loop import learn
from minipt.learning.settings import Settings
from minipt.learning.tune import PromptLearner
from minipt.maths.gradcheck import check_gradient
from minipt.prompting.prompt import load_prompt
from minipt.prompting.text import Batch, batches, tokens
from minipt.prompting.wiring import answerer, logits, loss_and_gradient
from minipt.rivals import LEARNERS, regularised
from minipt.rivals import discrete as searching
from minipt.rivals import written as writing
from minipt.rivals.discrete import batch_loss
from minipt.tasks.task import Pairs, Split, Task

QUICK = {"length": 3, "steps": 12, "batch_size": 4, "evaluate_every": 4, "warmup": 2}
SUBJECTS = ("film", "day", "night", "life", "word", "people", "end", "song")
PULLED = ("prompt-decay", "prompt-decay-to-start", "prompt-nearest")
DRAWN = ("prompt-dropout", "prompt-noise")
VARIANTS = (*PULLED, *DRAWN, "prompt-residual", "discrete")
every_variant = pytest.mark.parametrize("name", VARIANTS)


@pytest.fixture(scope="module")
def base():
    return base_with_tokenizer()


@pytest.fixture(scope="module")
def task():
    texts = [f"the {s} was {w}" for s in SUBJECTS for w in ("good", "kind", "bad", "cruel")]
    labels = np.array([0, 0, 1, 1] * len(SUBJECTS))
    split = {"train": slice(0, 16), "validation": slice(16, 24), "test": slice(24, 32)}
    parts = {name: Split(texts[part], labels[part]) for name, part in split.items()}
    return Task("words", ("good", "bad"), (" good", " bad"), "{text}\n:", **parts, source="here")


@pytest.fixture(scope="module")
def encoder():
    """A BERT without a head, whose tokenizer puts a token at both ends."""
    tokenizer = small_tokenizer()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    size = tokenizer.get_vocab_size()
    fields = BERT | {"head": None}
    return random_base(3, vocabulary=size, context=64, tokenizer=tokenizer, **fields)


def make(name: str, base, task, **settings):
    return LEARNERS[name](base, task, Settings(**QUICK | settings))


def moved(name: str, base, task, **settings):
    """A learner in float64 whose arrays have left their start, and a batch."""
    learner = make(name, base.astype(np.float64), task, **settings)
    rng = np.random.default_rng(1)
    for array in learner.arrays.values():
        array += 0.3 * rng.standard_normal(array.shape)
    return learner, a_batch(learner, task)


def a_batch(learner, task) -> Batch:
    rows, targets, _ = encode_split(learner.base, learner.question, task.train, learner.room)
    return next(batches(rows, targets, learner.question, 4, np.random.default_rng(0)))[1]


def cross_entropy(learner, vectors: np.ndarray, batch: Batch) -> float:
    return loss_and_gradient(learner.base, replace(learner.start, vectors=vectors), batch)[0]


def hold_to_objective(learner, batch: Batch, objective) -> None:
    """The gradient of every array against finite differences of the objective."""
    _, gradients = learner.loss_and_gradients(batch, np.random.default_rng(7))
    assert gradients.keys() == learner.arrays.keys()
    for name, gradient in gradients.items():
        array = learner.arrays[name]
        kept = array.copy()

        def at(values: np.ndarray, array: np.ndarray = array) -> float:
            array[...] = values
            return objective()

        assert check_gradient(at, kept, gradient) < 1e-7, name
        array[...] = kept


def place_of(name: str, learner, vectors: np.ndarray) -> np.ndarray:
    """Where a vector is pulled, found one vector at a time."""
    if name == "prompt-decay":
        return np.zeros_like(vectors)
    if name == "prompt-decay-to-start":
        return learner.start.vectors
    table = learner.base.params["token.table"]
    return np.stack([table[np.square(table - vector).sum(1).argmin()] for vector in vectors])


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("name", PULLED)
def test_a_pull_is_the_gradient_of_its_penalty(base, task, name, head, monkeypatch):
    monkeypatch.setattr(regularised.PulledLearner, "strength", 0.4)
    learner, batch = moved(name, base, task, head=head)

    def objective() -> float:
        vectors = learner.arrays["prompt"]
        away = vectors - place_of(name, learner, vectors)
        return cross_entropy(learner, vectors, batch) + 0.4 / 2 * np.square(away).sum()

    hold_to_objective(learner, batch, objective)


@pytest.mark.parametrize("name", PULLED)
def test_the_loss_that_is_reported_has_no_penalty(base, task, name):
    learner, batch = moved(name, base, task)
    loss, _ = learner.loss_and_gradients(batch, np.random.default_rng(0))
    assert loss == cross_entropy(learner, learner.arrays["prompt"], batch)


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_is_differentiated_through(base, task, name, head):
    learner, batch = moved(name, base, task, head=head, length=9)
    scale, shift = learner.draw(np.random.default_rng(7))
    assert (scale != 1).any() or (shift != 0).any()

    def objective() -> float:
        return cross_entropy(learner, scale * learner.arrays["prompt"] + shift, batch)

    hold_to_objective(learner, batch, objective)
    assert learner.loss_and_gradients(batch, np.random.default_rng(7))[0] == objective()
    assert learner.loss_and_gradients(batch, np.random.default_rng(8))[0] != objective()


def test_dropout_takes_whole_vectors_and_keeps_the_mean(base, task):
    learner = make("prompt-dropout", base, task, length=20)
    rng = np.random.default_rng(0)
    scales = np.stack([learner.draw(rng)[0] for _ in range(2000)])  # (2000, P, 1)
    assert scales.shape == (2000, 20, 1)
    np.testing.assert_allclose(np.unique(scales), [0.0, 1 / (1 - regularised.DROPPED)])
    assert scales.mean() == pytest.approx(1.0, abs=0.01)
    assert not learner.draw(rng)[1].any()


def test_noise_is_as_wide_as_the_token_embeddings(base, task):
    learner = make("prompt-noise", base, task, length=20)
    rng = np.random.default_rng(0)
    shifts = np.stack([learner.draw(rng)[1] for _ in range(500)])  # (500, P, C)
    width = regularised.NOISE * base.params["token.table"].std()
    assert shifts.shape == (500, 20, base.config.channels)
    assert shifts.std() == pytest.approx(width, rel=0.01)
    assert abs(shifts.mean()) < 0.02 * width


@pytest.mark.parametrize("name", DRAWN)
def test_answers_and_measures_are_those_of_the_vectors_as_they_are(base, task, name):
    learner = make(name, base, task, length=9)
    plain = make("prompt", base, task, length=9)
    batch = a_batch(learner, task)
    learner.loss_and_gradients(batch, np.random.default_rng(7))
    assert learner.prompt.vectors.tobytes() != learner.arrays["prompt"].tobytes()
    assert learner.measurements() == plain.measurements()
    learner.loss_and_gradients(batch, np.random.default_rng(7))
    assert learner.answerer()(batch).tobytes() == plain.answerer()(batch).tobytes()


@pytest.mark.parametrize("head", [False, True])
def test_the_residual_networks_gradients_agree_with_finite_differences(base, task, head):
    learner, batch = moved("prompt-residual", base, task, head=head)

    def objective() -> float:
        arrays = learner.arrays
        inner = arrays["prompt"] @ arrays["down.weight"] + arrays["down.bias"]
        out = np.maximum(inner, 0) @ arrays["up.weight"] + arrays["up.bias"]
        centred = out - out.mean(1, keepdims=True)
        deviation = np.sqrt(np.square(centred).mean(1, keepdims=True) + base.config.epsilon)
        normed = centred / deviation * arrays["norm.gain"] + arrays["norm.bias"]
        return cross_entropy(learner, arrays["prompt"] + normed, batch)

    hold_to_objective(learner, batch, objective)


def test_of_a_residual_prompt_only_the_vectors_need_to_be_kept(base, task, tmp_path):
    learner = make("prompt-residual", base, task)
    learnt = learn(learner, task, Settings(**QUICK, learning_rate=0.05))
    learner.prompt.save(tmp_path / "prompt.safetensors")
    kept = load_prompt(tmp_path / "prompt.safetensors", base)
    found = evaluate(base, kept, task.test, task)
    assert found.probabilities.tobytes() == learnt.test.probabilities.tobytes()


def bits(learnt) -> tuple:
    arrays = {name: array.tobytes() for name, array in learnt.best_arrays.items()}
    probabilities = learnt.test.probabilities.tobytes()
    return arrays, json.dumps(learnt.history), learnt.best_step, probabilities


def run(name: str, base, task, *arguments, **settings):
    chosen = Settings(**QUICK | {"learning_rate": 0.05} | settings)
    return learn(LEARNERS[name](base, task, chosen), task, chosen, *arguments)


@every_variant
def test_the_same_seed_gives_the_same_bits_and_the_base_stays(base, task, name):
    before = base.fingerprint
    first = bits(run(name, base, task, seed=1))
    assert first == bits(run(name, base, task, seed=1))
    assert first != bits(run(name, base, task, seed=2))
    assert base.fingerprint == before


@every_variant
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(base, task, name, ctrl_c, tmp_path):
    whole = run(name, base, task)
    path = tmp_path / "checkpoint.safetensors"
    with ctrl_c(7):
        assert run(name, base, task, path).interrupted
    resumed = run(name, base, task, path, True)
    assert not resumed.interrupted
    assert bits(resumed) == bits(whole)


@pytest.mark.parametrize("name", (*PULLED, *DRAWN))
def test_a_variant_differs_from_the_plain_prompt(base, task, name):
    plain, variant = (run(each, base, task) for each in ("prompt", name))
    assert plain.best_arrays["prompt"].shape == variant.best_arrays["prompt"].shape
    assert plain.history != variant.history


@pytest.mark.parametrize("method", ["vocab", "uniform", "labels"])
def test_the_search_starts_at_the_tokens_nearest_to_a_start(base, task, method):
    learner = make("discrete", base, task, method=method, length=6)
    table = base.params["token.table"]
    ordinary = [i for i in range(len(table)) if base.tokenizer.id_to_token(i) != "<|endoftext|>"]
    for token, vector in zip(learner.arrays["tokens"], learner.start.vectors, strict=True):
        distances = np.square(table[ordinary] - vector).sum(1)
        assert token == ordinary[distances.argmin()]
    if method == "vocab":
        assert learner.soft(learner.arrays["tokens"]).vectors.tobytes() == (
            learner.start.vectors.tobytes()
        )


def test_candidates_are_those_of_the_lowest_first_order_loss(base, task):
    special = base.tokenizer.token_to_id("<|endoftext|>")
    table = base.params["token.table"].copy()
    table[special] *= 10  # along its own direction no token promises more
    longer = replace(base, params=base.params | {"token.table": table})
    found = make("discrete", longer, task).candidates(-table[special]).tolist()
    promises = table @ table[special]
    assert promises.argmax() == special
    order = [i for i in np.argsort(-promises, kind="stable") if i != special]
    assert found == order[: searching.CANDIDATES]


def test_a_step_of_the_search_takes_the_best_candidate_and_never_raises_the_loss(base, task):
    learner, kept, changed = make("discrete", base, task), 0, 0
    for step in range(25):
        rng = np.random.default_rng([0, step])
        batch = a_batch(learner, task)
        before, tokens_before = learner.loss_and_gradients(batch, rng)[0], learner.arrays["tokens"]
        tokens_before = tokens_before.copy()
        _, gradients = learner.loss_and_gradients(batch, np.random.default_rng([0, step]))
        place = int(np.random.default_rng([0, step]).integers(3))
        tried = []
        for token in learner.candidates(gradients["tokens"][place]):
            ids = tokens_before.copy()
            ids[place] = token
            tried.append(batch_loss(base, learner.soft(ids), batch))
        learner.update(None, gradients, 1.0)
        after, _ = learner.loss_and_gradients(batch, rng)
        assert after == pytest.approx(min(before, *tried), rel=1e-6)
        assert after <= before
        different = np.flatnonzero(learner.arrays["tokens"] != tokens_before).tolist()
        assert different == ([place] if min(tried) < before else [])
        kept, changed = kept + (not different), changed + bool(different)
    assert kept
    assert changed
    assert learner.arrays["tokens"].dtype == np.int64


def test_found_tokens_answer_like_the_soft_prompt_of_their_embeddings(base, task):
    learner = make("discrete", base, task)
    learnt = learn(learner, task, Settings(**QUICK))
    ids = learnt.best_arrays["tokens"]
    assert not set(ids) & set(base.tokenizer.get_added_tokens_decoder())
    vectors = base.params["token.table"][ids]
    prompt = replace(learner.start, vectors=vectors)
    found = evaluate(base, prompt, task.test, task)
    assert found.probabilities.tobytes() == learnt.test.probabilities.tobytes()
    assert learner.text() == base.tokenizer.decode(ids.tolist())
    batch = a_batch(learner, task)
    (written,) = [np.concatenate([ids, batch.ids[0, : batch.lengths[0]]])]
    alone = Batch(written[None], [len(written)], [0], batch.choices)
    ours = learner.answerer()(batch)[0]
    np.testing.assert_allclose(ours, logits(base, alone)[0], rtol=1e-4, atol=1e-5)


def test_the_search_works_in_front_of_an_encoder(encoder, task):
    learner = make("discrete", encoder, task)
    batch = a_batch(learner, task)
    losses = []
    for step in range(8):
        loss, gradients = learner.loss_and_gradients(batch, np.random.default_rng(step))
        learner.update(None, gradients, 1.0)
        losses.append(loss)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


@pytest.fixture(scope="module")
def wide():
    """A base with room for examples."""
    return base_with_tokenizer(context=96)


def test_the_wording_is_chosen_on_validation_alone(wide, task, monkeypatch):
    seen = []

    def scripted(base, prompt, split, task):
        found = evaluate(base, prompt, split, task)
        seen.append((split, task.template))
        accuracy = {1: 0.75, 3: 0.75}.get(wordings.index(task.template), 0.5)
        return replace(found, accuracy=accuracy, loss=0.4 if len(seen) == 4 else 0.5)

    wordings = writing.templates(task)
    monkeypatch.setattr(writing, "evaluate", scripted)
    writing.written(wide, task, task.test)
    assert [template for _, template in seen] == [*wordings, wordings[3]]
    assert all(split is task.validation for split, _ in seen[:-1])
    assert seen[-1][0] is task.test


def test_wordings_stand_in_front_of_the_text_and_behind(task):
    wordings = writing.templates(task)
    assert wordings == [
        "{text}\n:",
        "Text: {text}\n:",
        "Answer with one word.\n\n{text}\n:",
        "{text}\n\nAnswer with one word.\n:",
        "Possible answers: good, bad.\n\n{text}\n:",
    ]
    bare = replace(task, instruction="", label_words=(), labels=())
    assert writing.templates(bare) == ["{text}\n:", "Text: {text}\n:"]


def test_what_was_written_is_measured_as_a_template_is(wide, task):
    best = writing.choose_template(wide, task)
    found = writing.written(wide, task, task.test)
    expected = evaluate(wide, None, task.test, replace(task, template=best))
    assert found.probabilities.tobytes() == expected.probabilities.tobytes()
    merits = [
        (-measured.accuracy, measured.loss, place)
        for place, template in enumerate(writing.templates(task))
        for measured in [evaluate(wide, None, task.validation, replace(task, template=template))]
    ]
    assert best == writing.templates(task)[min(merits)[2]]


def parts(prompt, base) -> list[str]:
    table = base.params["token.table"]
    ids = [int(np.square(table - vector).sum(1).argmin()) for vector in prompt.vectors]
    return base.tokenizer.decode(ids).split("\n\n")[:-1]


@pytest.mark.parametrize("seed", range(5))
def test_examples_are_rounds_of_training_texts_that_fit(wide, task, seed):
    prompt = writing.examples(wide, task, seed)
    shots = parts(prompt, wide)
    assert len(prompt.vectors) <= wide.config.context // 2
    assert len(shots) == prompt.about["examples"] > 0
    assert len(set(shots)) == len(shots)
    known = {
        f"{text}\n:{task.label_words[label]}"
        for text, label in zip(task.train.texts, task.train.labels, strict=True)
    }
    assert set(shots) <= known
    for first, second in zip(shots[::2], shots[1::2], strict=True):
        assert {first.rsplit(":", 1)[1], second.rsplit(":", 1)[1]} == {" good", " bad"}


def test_examples_fill_half_of_the_context_but_no_more_rounds_than_are_worth_it(wide, task):
    prompt = writing.examples(wide, task)
    longest = max(len(tokens(wide, f"{text}\n: good\n\n")) for text in task.train.texts)
    assert len(prompt.vectors) + 2 * longest > wide.config.context // 2
    large = base_with_tokenizer(context=2000)
    assert writing.examples(large, task).about["examples"] == 2 * writing.MOST_ROUNDS


def test_the_same_seed_draws_the_same_examples(wide, task):
    drawn = [writing.examples(wide, task, seed).vectors.tobytes() for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_examples_answer_as_if_they_stood_in_the_text(wide, task):
    found = writing.shown(wide, task, task.test, seed=3)
    before = "".join(f"{part}\n\n" for part in parts(writing.examples(wide, task, 3), wide))
    whole = replace(task, template=before + task.template)
    expected = evaluate(wide, None, task.test, whole)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-4, atol=1e-6)


def test_a_long_text_is_cut_and_the_examples_stay(wide, task):
    long = replace(task.test, texts=["cruel words " * 60 + text for text in task.test.texts])
    found = writing.shown(wide, task, long)
    assert found.cut == found.total == len(long.texts)
    assert math.isfinite(found.loss)


def test_texts_too_long_for_their_share_are_not_drawn(wide, task):
    texts = ["bad words " * 40 + text for text in task.train.texts[:12]] + task.train.texts[12:]
    longer = replace(task, train=Split(texts, task.train.labels))
    for seed in range(8):
        shots = parts(writing.examples(wide, longer, seed), wide)
        assert shots
        assert not any("words" in shot for shot in shots)
    everything = replace(task, train=Split([12 * t for t in texts], task.train.labels))
    with pytest.raises(MiniptError, match="texts of words are too long for examples in 48 pos"):
        writing.examples(wide, everything)


def test_responses_are_shown_with_their_texts(wide, task):
    pairs = Pairs([f"the {s} was" for s in SUBJECTS], [" good", " bad"] * 4)
    splits = {"train": pairs, "validation": pairs, "test": pairs}
    shown = replace(task, template="{text}", labels=(), label_words=(), **splits)
    known = {f"{text}{answer}" for text, answer in zip(pairs.texts, pairs.responses, strict=True)}
    assert set(parts(writing.examples(wide, shown), wide)) <= known
    assert writing.shown(wide, shown, pairs).total == len(SUBJECTS)


def test_an_encoder_is_shown_no_examples_but_its_wording_is_chosen(encoder, task):
    with pytest.raises(MiniptError, match="choose a causal language model"):
        writing.examples(encoder, task)
    assert writing.written(encoder, task, task.test).total == len(task.test.texts)


def test_a_plain_prompt_is_read_the_same(base, task):
    """What the variants inherit from has not changed what it reads."""
    learner = make("prompt", base, task)
    assert type(learner) is PromptLearner
    batch = a_batch(learner, task)
    assert learner.answerer()(batch).tobytes() == answerer(base, learner.start)(batch).tobytes()
