"""The gradients of a base's own parameters: of each family, each against finite differences."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.bases import FAMILIES, random_base, random_batch

from minipt.maths.gradcheck import check_gradient
from minipt.prompting.wiring import text_step
from minipt.transformer.base import Base
from minipt.transformer.trace import Tape, Trace

every_family = pytest.mark.parametrize("family", FAMILIES)


def case(family: str, choices: int = 4):
    base = random_base(1, **FAMILIES[family]).astype(np.float64)
    return base, random_batch(base, 3, 5, choices=choices)


def with_one(base: Base, name: str, array: np.ndarray) -> Base:
    return Base(base.name, base.config, base.params | {name: array.copy()}, None)


def gradients_of(base: Base, batch, names) -> dict[str, np.ndarray]:
    gradients = dict.fromkeys(names)
    text_step(base, batch, Tape(gradients), gradients=gradients)
    return gradients


@every_family
def test_every_parameters_gradient_agrees_with_finite_differences(family):
    base, batch = case(family)
    for name, gradient in gradients_of(base, batch, base.params).items():
        if name.endswith("key.bias") and base.config.positions == "learned":
            # It adds the same to all scores of a row, which the softmax takes away again.
            assert np.abs(gradient).max() < 1e-14
            continue

        def loss(array: np.ndarray, name: str = name) -> float:
            return text_step(with_one(base, name, array), batch, Trace())[0]

        assert gradient.shape == base.params[name].shape
        assert check_gradient(loss, base.params[name], gradient) < 1e-6, name


def test_without_choices_the_whole_output_matrix_learns():
    base, batch = case("gpt2", choices=0)
    gradient = gradients_of(base, batch, ["token.table"])["token.table"]
    assert (np.abs(gradient).sum(1) > 0).all()

    def loss(array: np.ndarray) -> float:
        return text_step(with_one(base, "token.table", array), batch, Trace())[0]

    assert check_gradient(loss, base.params["token.table"], gradient) < 1e-6


@pytest.mark.parametrize("name", ["token.table", "head.bias"])
def test_a_choice_that_stands_twice_learns_twice(name):
    base, batch = case("bert", choices=3)
    batch = replace(batch, choices=batch.choices[[0, 1, 0]])
    gradient = gradients_of(base, batch, [name])[name]

    def loss(array: np.ndarray) -> float:
        return text_step(with_one(base, name, array), batch, Trace())[0]

    assert check_gradient(loss, base.params[name], gradient) < 1e-7


@every_family
def test_only_what_is_wanted_is_filled_and_the_same(family):
    base, batch = case(family)
    whole = gradients_of(base, batch, base.params)
    names = [name for name in base.params if name.startswith("h0.")]
    some = gradients_of(base, batch, names)
    assert list(some) == names
    for name in names:
        np.testing.assert_array_equal(some[name], whole[name])


@pytest.mark.parametrize(
    ("names", "expected"), [(["h1.mlp.up.bias"], 0), (["h1.mlp.up.weight"], 1), (None, 6 * 2)]
)
def test_the_cache_keeps_no_input_that_no_gradient_needs(names, expected, monkeypatch):
    base, batch = case("gpt2")
    gradients, most = dict.fromkeys(names or base.params), []
    trace = Tape(gradients)
    original = Tape.keep_input

    def save(self, name, x):
        original(self, name, x)
        most.append(len(self.inputs))

    monkeypatch.setattr(Tape, "keep_input", save)
    text_step(base, batch, trace, gradients=gradients)
    assert max(most) == expected
    assert not trace.inputs  # all were taken


def test_a_full_trace_serves_as_well():
    base, batch = case("llama")
    gradients = dict.fromkeys(base.params)
    text_step(base, batch, Trace(), gradients=gradients)
    for name, expected in gradients_of(base, batch, base.params).items():
        np.testing.assert_array_equal(gradients[name], expected)
