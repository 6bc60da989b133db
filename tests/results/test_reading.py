"""Reading a prompt: near words, yardsticks, map, attention, ablation; and the wayward prompt."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.bases import (
    BERT,
    LLAMA,
    SENTENCES,
    base_with_tokenizer,
    random_base,
    random_batch,
    random_prompt,
    small_tokenizer,
)

from minipt.errors import MiniptError
from minipt.learning.evaluate import evaluate
from minipt.learning.loop import learn
from minipt.learning.settings import defaults_for
from minipt.learning.tune import PromptLearner
from minipt.maths.gradcheck import check_gradient
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.starts import frequent_ids, init_prompt, word_ids
from minipt.prompting.text import Batch, encode
from minipt.prompting.verbalizer import question_format
from minipt.prompting.wiring import loss_and_gradient
from minipt.results.influence import ablate, attention
from minipt.results.neighbours import COMPARED, MEASURES, closest, nearest, principal_plane
from minipt.results.reading import describe, find_start, page, read, tell
from minipt.results.tables import WIDTH
from minipt.rivals import LEARNERS
from minipt.rivals.wayward import GAMMA, WaywardLearner
from minipt.tasks.task import Pairs, Split, Task
from minipt.transformer.base import Base
from minipt.transformer.trace import Trace

P = 4
KINDS = {"gpt2": {}, "llama": LLAMA | {"key_value_heads": 1}, "encoder": BERT | {"head": None}}
every_measure = pytest.mark.parametrize("measure", MEASURES)
every_kind = pytest.mark.parametrize("kind", KINDS)


def base_of(kind: str) -> Base:
    tokenizer = small_tokenizer()
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    base = random_base(0, vocabulary=size, context=48, tokenizer=tokenizer, **KINDS[kind])
    return base.astype(np.float64)


def small_task() -> Task:
    texts = [*SENTENCES, "a kind film", "the people were bad and cruel", "good good good"]
    split = Split(texts, np.array([1, 0, 1, 0, 1, 0, 1]))
    words = (" good", " bad")
    return Task("small", ("no", "yes"), words, "{text}\nLabel:", split, split, split, "")


def distance_to(x: np.ndarray, row: np.ndarray, measure: str) -> float:
    """Euclid's, or the negative cosine: lower is nearer."""
    if measure == "cosine":
        return -(x @ row) / (np.linalg.norm(x) * np.linalg.norm(row))
    return np.sqrt(sum((a - b) ** 2 for a, b in zip(x, row, strict=True)))


@every_measure
def test_the_nearest_tokens_are_those_of_a_plain_loop(measure):
    base = base_of("gpt2")
    vectors = random_prompt(base, P).vectors
    near = nearest(base, vectors, measure, count=3)
    sign = -1 if measure == "cosine" else 1
    for p, x in enumerate(vectors):
        table = base.params["token.table"]
        ranked = sorted((distance_to(x, table[i], measure), i) for i in word_ids(base))[:3]
        assert near.ids[p].tolist() == [i for _, i in ranked]
        np.testing.assert_allclose(near.values[p], [sign * value for value, _ in ranked])
        assert near.tokens[p] == [base.tokenizer.decode([i]) for _, i in ranked]


@every_measure
def test_a_word_is_nearest_to_itself_exactly(measure):
    base = base_with_tokenizer()  # float32, where |t|² - 2 t·x + |x|² would leave more than nothing
    ids = np.array([5, 70, 289])
    near = nearest(base, base.params["token.table"][ids], measure)
    assert near.ids[:, 0].tolist() == ids.tolist()
    expected = 1.0 if measure == "cosine" else 0.0
    np.testing.assert_allclose(near.values[:, 0], expected, rtol=1e-6, atol=0)


def test_a_special_token_is_no_word():
    base = base_with_tokenizer()
    special = base.tokenizer.token_to_id("<|endoftext|>")
    assert special not in word_ids(base)
    assert len(word_ids(base)) == base.config.vocabulary - 1
    assert special not in nearest(base, base.params["token.table"][[special]], "distance").ids
    tokens = nearest(random_base(0), random_prompt(random_base(0), 1).vectors, "cosine").tokens
    assert all(token.startswith("#") for token in tokens[0])  # that base has no tokenizer


@every_measure
def test_the_yardsticks_are_seeded_and_a_word_is_not_its_own_neighbour(measure):
    base = base_of("gpt2")
    vectors = random_prompt(base, P).vectors
    closeness, again = (closest(base, vectors, measure, seed=3) for _ in range(2))
    for who, values in closeness.items():
        np.testing.assert_array_equal(values, again[who])
    assert len(closeness["words"]) == len(closeness["random"]) == COMPARED
    np.testing.assert_allclose(closeness["prompt"], nearest(base, vectors, measure).values[:, 0])

    rng = np.random.default_rng(3)
    table = base.params["token.table"][word_ids(base)]
    sign = -1 if measure == "cosine" else 1
    for n, i in enumerate(rng.choice(len(frequent_ids(base)), COMPARED)[:20]):
        others = [distance_to(table[i], row, measure) for j, row in enumerate(table) if j != i]
        assert closeness["words"][n] == pytest.approx(sign * min(others))


def test_random_vectors_have_the_vectors_norms():
    """So long that the nearest word is as good as the origin."""
    base = base_of("gpt2")
    vectors = 1e6 * random_prompt(base, P).vectors
    closeness = closest(base, vectors, "distance")["random"]
    norms = np.resize(np.linalg.norm(vectors, axis=1), COMPARED)
    np.testing.assert_allclose(closeness, norms, rtol=1e-4)


def test_the_maps_axes_are_the_principal_components():
    base = base_of("gpt2")
    plane = principal_plane(base)
    table = base.params["token.table"][frequent_ids(base)]
    centred = table - table.mean(0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs((plane.axes * axes[:2]).sum(1)), 1.0)
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-12)
    assert plane.share == pytest.approx((singular[:2] ** 2).sum() / (singular**2).sum())
    assert (plane.axes[[0, 1], np.abs(plane.axes).argmax(1)] > 0).all()
    places = plane.project(table)
    np.testing.assert_allclose(places.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(places.var(0), singular[:2] ** 2 / len(table))


@every_kind
def test_attention_is_the_traces_own(kind):
    base, task = base_of(kind), small_task()
    prompt = random_prompt(base, P)
    expected = np.zeros((base.config.layers, P))
    reading = question_format(base, task.template, task.label_words)
    rows, _ = encode(base, reading.template, task.validation.texts[:3], 40)
    for ids in rows:  # one text a batch: no padding, which the function must leave out
        trace = Trace()
        batch = Batch(ids[None], [len(ids)], [0], reading.choices)
        loss_and_gradient(base, prompt, batch, trace)
        for i in range(base.config.layers):
            weights = trace[f"text.h{i}.attn.weights"][0]  # (H, R, P+T)
            if kind == "encoder" and i < base.config.layers - 1:
                weights = weights[:, P:]  # without the rows of the prompt
            expected[i] += weights[:, :, :P].mean((0, 1)) / 3
    weights = attention(base, prompt, task, texts=3)
    np.testing.assert_allclose(weights, expected, rtol=1e-10)
    assert (weights > 0).all() and (weights.sum(1) < 1).all()


def test_attention_of_responses():
    base = base_of("gpt2")
    pairs = Pairs(["a good", "the film was"], [" day", " good and kind"])
    task = Task("pairs", (), (), "{text}", pairs, pairs, pairs, "", instruction="")
    weights = attention(base, random_prompt(base, P), task)
    assert weights.shape == (base.config.layers, P)
    assert (weights > 0).all() and (weights.sum(1) < 1).all()


@every_kind
def test_ablation_is_an_evaluation_without_one_vector(kind):
    base, task = base_of(kind), small_task()
    prompt = random_prompt(base, P)
    before = prompt.vectors.copy()
    ablation = ablate(base, prompt, task, texts=5)
    np.testing.assert_array_equal(prompt.vectors, before)
    split = Split(task.validation.texts[:5], task.validation.labels[:5])
    whole = evaluate(base, prompt, split, task)
    assert (ablation.accuracy, ablation.loss, ablation.texts) == (whole.accuracy, whole.loss, 5)
    vectors = before.copy()
    vectors[2] = base.params["token.table"][frequent_ids(base)].mean(0)
    one = evaluate(base, replace(prompt, vectors=vectors), split, task)
    assert (ablation.accuracies[2], ablation.losses[2]) == (one.accuracy, one.loss)
    assert len(set(ablation.losses)) == P and ablation.loss not in ablation.losses


def test_the_start_is_found_again():
    base = base_with_tokenizer()
    for method in ("uniform", "vocab", "labels", "text"):
        start = init_prompt(base, P, method, 3, "a good day", [" good", " bad"])
        start.about["label_words"] = [" good", " bad"]
        tuned = start.with_arrays({"prompt": start.vectors + 1})
        np.testing.assert_array_equal(find_start(base, tuned), start.vectors)
    del tuned.about["text"]
    assert find_start(base, tuned) is None  # the words are not known
    assert find_start(base, SoftPrompt(start.vectors, "", "", {"method": "peft"})) is None


@pytest.mark.parametrize("kind", ["gpt2", "encoder"])
def test_a_reading_is_told_described_and_drawn(kind):
    base, task = base_of(kind), small_task()
    prompt = init_prompt(base, P, seed=1)
    reading = read(base, prompt, task, texts=4, start=find_start(base, prompt))
    told = tell(reading)
    assert max(map(len, told.splitlines())) <= WIDTH
    for words in ("nearest by cosine", "random vectors", "layer 1", "4 validation texts", "their"):
        assert words in told
    described = json.loads(json.dumps(describe(reading)))
    assert [vector["vector"] for vector in described["vectors"]] == list(range(P))
    first = described["vectors"][0]
    assert first["place_of_prompt"] == first["place_of_start"]
    assert first["nearest_by_distance"][0]["distance"] == 0  # it is the start, which is words
    assert first["nearest_by_distance"][0]["id"] in word_ids(base)
    assert len(first["attention_by_layer"]) == base.config.layers
    assert described["quantiles"]["distance_to_nearest"]["prompt"]["highest"] == 0
    assert len(page(reading).axes) == 6

    unknown = read(base, prompt, task, texts=4)
    assert "start" not in tell(unknown).split("norm")[-1].split("real")[0]
    assert "place_of_start" not in describe(unknown)["vectors"][0]


def test_what_cannot_be_read_is_refused():
    base, task = base_of("gpt2"), small_task()
    with pytest.raises(MiniptError, match="at least 1 validation text"):
        read(base, random_prompt(base, P), task, texts=0)
    narrow = random_prompt(random_base(0, channels=6), P)
    with pytest.raises(MiniptError, match="needs vectors of 8 channels"):
        read(base, narrow, task)


def wayward(base: Base, task: Task, **settings) -> WaywardLearner:
    settings = {"length": P, "method": "text", "text": "a long and happy life"} | settings
    return WaywardLearner(base, task, defaults_for(base, task, **settings))


def test_the_wayward_gradient_is_that_of_the_sum():
    base, task = base_of("gpt2"), small_task()
    learner = wayward(base, task)
    sentence = learner.start.vectors
    learner.prompt.vectors[:] += np.random.default_rng(0).standard_normal((P, 8))
    batch = random_batch(base, 3, 6, choices=2)
    loss, gradients = learner.loss_and_gradients(batch, np.random.default_rng(0))

    def objective(vectors: np.ndarray) -> float:
        plain, _ = loss_and_gradient(base, replace(learner.prompt, vectors=vectors), batch)
        return plain + GAMMA * ((vectors - sentence) ** 2).sum() / P

    assert loss == loss_and_gradient(base, learner.prompt, batch)[0]  # without the pull
    assert check_gradient(objective, learner.prompt.vectors, gradients["prompt"]) < 1e-8


def test_the_wayward_prompt_learns_stays_near_and_leaves_the_base():
    base, task = base_with_tokenizer(context=48), small_task()
    fingerprint = base.fingerprint
    away = {}
    for kind in (PromptLearner, WaywardLearner):
        settings = defaults_for(base, task, length=P, method="text", text="a long and happy life")
        settings = replace(settings, steps=60, batch_size=8, evaluate_every=10)
        learner = kind(base, task, settings)
        if kind is WaywardLearner:
            learner.gamma = 1.0
        learnt = learn(learner, task, settings)
        losses = [entry["loss"] for entry in learnt.history[1:]]
        assert np.mean(losses[-10:]) < np.mean(losses[:10])
        away[kind] = learnt.history[-1]["distance"]
    assert 0 < away[WaywardLearner] < away[PromptLearner] / 2
    assert base.fingerprint == fingerprint


def test_the_wayward_prompt_needs_a_sentence():
    with pytest.raises(MiniptError, match="towards a sentence"):
        wayward(base_of("gpt2"), small_task(), method="vocab")
    assert LEARNERS["prompt-wayward"] is WaywardLearner
