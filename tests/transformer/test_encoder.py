"""BERT: every row reads every other, so a prompt belongs to its text; and two ways to an answer."""

import numpy as np
import pytest
from helpers.bases import BERT, random_base, random_batch, random_prompt

from minipt.errors import MiniptError
from minipt.maths.gradcheck import check_gradient, compare
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.text import Batch
from minipt.prompting.wiring import logits, loss_and_gradient
from minipt.transformer.base import Base, parameter_shapes
from minipt.transformer.trace import Tape, Trace

KINDS = {
    "masked": BERT,
    "masked, one layer": BERT | {"layers": 1, "segments": 1},
    "no head": BERT | {"head": None},
    "no head, three layers": BERT | {"head": None, "layers": 3, "channels": 12, "heads": 3},
}


@pytest.fixture(params=KINDS)
def base(request: pytest.FixtureRequest) -> Base:
    return random_base(4, **KINDS[request.param]).astype(np.float64)


def step_of(base: Base, texts: int = 4, tokens: int = 6) -> tuple[Base, SoftPrompt, Batch]:
    choices = 3 if base.config.head is None else 0
    return base, random_prompt(base, 3), random_batch(base, texts, tokens, 1, choices, middle=True)


def with_ids(batch: Batch, ids: np.ndarray) -> Batch:
    return Batch(ids, batch.lengths, batch.targets, batch.choices, batch.positions)


def test_the_gradient_agrees_with_finite_differences(base):
    base, prompt, batch = step_of(base)

    def loss(vectors: np.ndarray) -> float:
        moved = SoftPrompt(vectors, prompt.fingerprint, prompt.base_name)
        return loss_and_gradient(base, moved, batch)[0]

    _, gradient = loss_and_gradient(base, prompt, batch)
    assert np.abs(gradient).max() > 1e-4
    assert check_gradient(loss, prompt.vectors, gradient) < 1e-7


def test_sharing_the_prompt_is_refused_with_the_reason(base):
    with pytest.raises(MiniptError, match="reads in both directions, so that every text changes"):
        loss_and_gradient(*step_of(base), wiring="shared")


@pytest.mark.parametrize("kind", ["masked", "no head"])
def test_a_text_changes_what_the_prompt_computes(kind):
    base, prompt, batch = step_of(random_base(4, **KINDS[kind]), texts=1)
    ids = batch.ids.copy()
    ids[0, 0] = (ids[0, 0] + 1) % base.config.vocabulary
    rows = []
    for one in (batch, with_ids(batch, ids)):
        trace = Trace()
        loss_and_gradient(base, prompt, one, trace)
        rows.append(trace["text.h0.attn.context"][:, :, 0])
    assert compare("the first prompt row", *rows) > 1e-6


def test_padding_is_not_read(base):
    base, prompt, batch = step_of(base)
    padding = np.arange(batch.ids.shape[1]) >= batch.lengths[:, None]
    assert padding.any()
    other = with_ids(batch, np.where(padding, (batch.ids + 1) % base.config.vocabulary, batch.ids))
    loss, gradient = loss_and_gradient(base, prompt, batch)
    other_loss, other_gradient = loss_and_gradient(base, prompt, other)
    assert loss == other_loss
    np.testing.assert_array_equal(gradient, other_gradient)
    np.testing.assert_array_equal(logits(base, batch), logits(base, other))


def test_a_batch_is_the_mean_of_its_texts(base):
    base, prompt, batch = step_of(base)
    loss, gradient = loss_and_gradient(base, prompt, batch)
    parts = []
    for b, length in enumerate(batch.lengths):
        alone = Batch(
            batch.ids[b : b + 1, :length],
            [length],
            batch.targets[b : b + 1],
            batch.choices,
            batch.positions[b : b + 1],
        )
        parts.append(loss_and_gradient(base, prompt, alone))
    assert loss == pytest.approx(np.mean([part[0] for part in parts]), rel=1e-12)
    assert compare("gradient", gradient, np.mean([part[1] for part in parts], axis=0)) < 1e-12


def test_logits_are_those_of_the_loss(base):
    base, prompt, batch = step_of(base)
    trace = Trace()
    loss, _ = loss_and_gradient(base, prompt, batch, trace)
    answers = logits(base, batch, prompt)
    assert compare("logits", answers, trace["text.logits"]) < 1e-12
    shares = np.exp(answers) / np.exp(answers).sum(-1, keepdims=True)
    expected = -np.log(shares[np.arange(len(shares)), batch.targets]).mean()
    assert loss == pytest.approx(expected, rel=1e-12)


def test_every_parameter_changes_the_answer(base):
    base, prompt, batch = step_of(base)
    loss, _ = loss_and_gradient(base, prompt, batch)
    for name in parameter_shapes(base.config):
        if name.endswith("attn.key.bias"):  # it moves all scores of a row alike
            continue
        array = base.params[name]
        changed = array + np.linspace(0.1, 1, array.size).reshape(array.shape)
        other = Base(base.name, base.config, base.params | {name: changed}, None)
        assert abs(loss_and_gradient(other, prompt, batch)[0] - loss) > 1e-9, name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_trace(base, dtype):
    """Gradients have their activations' shapes, all is of one type, a cache gives the same bits."""
    base, prompt, batch = step_of(base.astype(dtype))
    trace, cache = Trace(), Tape()
    loss, gradient = loss_and_gradient(base, prompt, batch, trace)
    cached_loss, cached_gradient = loss_and_gradient(base, prompt, batch, cache)
    assert loss == cached_loss
    np.testing.assert_array_equal(gradient, cached_gradient)
    assert cache.saved == cache.inputs == {}
    for name, array in trace.gradients.items():
        assert array.shape == trace[name].shape, name
    everything = [*trace.activations.values(), *trace.gradients.values(), gradient]
    assert {array.dtype for array in everything} == {np.dtype(dtype)}


def test_the_last_layer_computes_only_the_rows_that_are_read(base):
    base, prompt, batch = step_of(base)
    trace = Trace()
    loss_and_gradient(base, prompt, batch, trace)
    rows = batch.ids.shape[1] if base.config.head is None else 1
    last = f"text.h{base.config.layers - 1}"
    assert trace[f"{last}.ln2"].shape == (4, rows, base.config.channels)
    assert trace[f"{last}.attn.key"].shape[2] == 3 + batch.ids.shape[1]
    assert len(trace["text.logits"]) == 4


def test_a_base_without_a_head_needs_vectors_to_compare_with():
    base = random_base(4, **BERT | {"head": None})
    for choices in (None, [1, 2]):
        with pytest.raises(MiniptError, match=r"has no head to predict tokens with.*\(K, 8\)"):
            logits(base, Batch([[1, 2]], [2], [0], choices))
    with pytest.raises(MiniptError, match=r"choices of 8 channels.*\(2, 5\)"):
        logits(base, Batch([[1, 2]], [2], [0], np.ones((2, 5), np.float32)))
