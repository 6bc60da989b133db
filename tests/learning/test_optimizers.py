"""Optimizers step by step against the papers' formulas, schedules, clipping, and resuming."""

import copy

import numpy as np
import pytest

from minipt.learning.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    SGD,
    Adafactor,
    Adam,
    clip_gradients,
    root_mean_square,
    schedule,
)

STEPS = 6
every_optimizer = pytest.mark.parametrize("kind", OPTIMIZERS)


def gradients(seed: int = 0, shape: tuple[int, ...] = (3, 4)) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for _ in range(STEPS)]


def walk(optimizer, of: list[np.ndarray], rate: float = 0.1) -> np.ndarray:
    x = np.linspace(-1.0, 1.0, of[0].size).reshape(of[0].shape)
    for gradient in of:
        optimizer.step({"x": x}, {"x": gradient}, rate)
    return x


def start(shape: tuple[int, ...] = (3, 4)) -> np.ndarray:
    return np.linspace(-1.0, 1.0, int(np.prod(shape))).reshape(shape)


def test_sgds_first_steps_by_hand():
    x = np.array([1.0])
    optimizer = SGD(momentum=0.5)
    optimizer.step({"x": x}, {"x": np.array([2.0])}, 0.1)
    assert x == pytest.approx([0.8])
    optimizer.step({"x": x}, {"x": np.array([1.0])}, 0.1)  # velocity 0.5 · 2 + 1 = 2
    assert x == pytest.approx([0.6])


def test_sgd_is_a_weighted_sum_of_all_gradients():
    of = gradients()
    expected = start()
    for t in range(STEPS):
        expected -= 0.1 * sum(0.9 ** (t - s) * of[s] for s in range(t + 1))
    np.testing.assert_allclose(walk(SGD(), of), expected, rtol=1e-12)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_adams_first_step_is_the_rate_whatever_the_gradients_size(size):
    x = np.zeros(3)
    Adam().step({"x": x}, {"x": size * np.array([1.0, -2.0, 0.5])}, 0.1)
    np.testing.assert_allclose(x, [-0.1, 0.1, -0.1], rtol=0.03)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_the_papers_formula(decay):
    of = gradients()
    expected = start()
    for t in range(1, STEPS + 1):
        mean = sum(0.1 * 0.9 ** (t - s) * of[s - 1] for s in range(1, t + 1)) / (1 - 0.9**t)
        square = sum(0.001 * 0.999 ** (t - s) * of[s - 1] ** 2 for s in range(1, t + 1))
        root = np.sqrt(square / (1 - 0.999**t))
        expected = (1 - 0.1 * decay) * expected - 0.1 * mean / (root + 1e-8)
    np.testing.assert_allclose(walk(Adam(weight_decay=decay), of), expected, rtol=1e-9)


def test_adamws_decay_shrinks_where_no_gradient_pulls():
    x = np.array([2.0])
    OPTIMIZERS["adamw"]().step({"x": x}, {"x": np.zeros(1)}, 0.5)
    assert x == pytest.approx([2.0 * (1 - 0.5 * 0.01)])


def adafactor(of: list[np.ndarray], clip: float) -> np.ndarray:
    """Algorithm 4 of Shazeer & Stern, written in sums over rows and columns as it stands there."""
    x, R, C = start(), np.zeros(3), np.zeros(4)
    for t, g in enumerate(of, 1):
        beta = 1 - t**-0.8
        R = beta * R + (1 - beta) * (g**2 + 1e-30).sum(1)
        C = beta * C + (1 - beta) * (g**2 + 1e-30).sum(0)
        U = g / np.sqrt(np.outer(R, C) / R.sum())
        x = x - 0.1 * U / max(1.0, np.sqrt((U**2).mean()) / clip)
    return x


@pytest.mark.parametrize("clip", [1.0, 0.3, 100.0])
def test_adafactor_is_the_papers_formula(clip):
    of = [g * 3.0**t for t, g in enumerate(gradients())]
    np.testing.assert_allclose(walk(Adafactor(clip=clip), of), adafactor(of, clip), rtol=1e-10)


def test_adafactor_keeps_a_row_and_a_column():
    optimizer = Adafactor()
    walk(optimizer, gradients())
    assert {name: x.shape for name, x in optimizer.state.items()} == {
        "x.rows": (3, 1),
        "x.columns": (1, 4),
    }


def test_adafactor_keeps_the_whole_square_of_a_vector():
    of = gradients(shape=(5,))
    x, square = start((5,)), np.zeros(5)
    for t, g in enumerate(of, 1):
        beta = 1 - t**-0.8
        square = beta * square + (1 - beta) * (g**2 + 1e-30)
        U = g / np.sqrt(square)
        x = x - 0.1 * U / max(1.0, np.sqrt((U**2).mean()))
    np.testing.assert_allclose(walk(Adafactor(), of), x, rtol=1e-10)


def test_adafactors_step_is_never_longer_than_the_rate():
    for before, gradient in zip(gradients(0), gradients(1), strict=True):
        optimizer, x = Adafactor(), np.zeros((3, 4))
        optimizer.step({"x": x}, {"x": before}, 0.1)
        moved = x.copy()
        optimizer.step({"x": x}, {"x": 1000 * gradient}, 0.1)
        assert root_mean_square(x - moved) <= 0.1 * (1 + 1e-12)


@every_optimizer
def test_zero_gradients_do_no_harm(kind):
    x = np.ones((2, 3), np.float32)
    for _ in range(3):
        OPTIMIZERS[kind]().step({"x": x}, {"x": np.zeros_like(x)}, 0.1)
    np.testing.assert_allclose(x, 1.0, atol=0.004)


def test_adafactor_takes_the_same_step_for_tiny_gradients_in_float32():
    of = [gradient.astype(np.float32) for gradient in gradients()]
    tiny = [np.float32(1e-12) * gradient for gradient in of]
    np.testing.assert_allclose(walk(Adafactor(), tiny), walk(Adafactor(), of), rtol=1e-4)


@every_optimizer
def test_a_bowl_is_descended(kind):
    optimizer, x = OPTIMIZERS[kind](), np.full((2, 3), 2.0)
    for step in range(400):
        optimizer.step({"x": x}, {"x": 2 * x}, 0.05 * (1 - step / 400))
    assert np.abs(x).max() < 0.02


@every_optimizer
def test_float32_stays_float32_and_changes_in_place(kind):
    optimizer, x = OPTIMIZERS[kind](), np.ones((2, 3), np.float32)
    params = {"x": x}
    for gradient in gradients(shape=(2, 3)):
        optimizer.step(params, {"x": gradient.astype(np.float32)}, 0.1)
    assert params["x"] is x
    assert (x != 1.0).all()
    assert {array.dtype for array in optimizer.state.values()} == {np.dtype(np.float32)}


@every_optimizer
def test_the_gradient_is_left_as_it_was(kind):
    of = gradients()
    before = copy.deepcopy(of)
    walk(OPTIMIZERS[kind](), of)
    np.testing.assert_array_equal(of, before)


@every_optimizer
def test_a_parameter_without_a_gradient_is_left_alone(kind):
    params = {"x": np.ones((2, 3)), "y": np.ones((2, 3))}
    OPTIMIZERS[kind]().step(params, {"x": np.ones((2, 3))}, 0.1)
    assert (params["y"] == 1.0).all() and (params["x"] < 1.0).all()


@every_optimizer
def test_two_parameters_do_not_share_their_memory(kind):
    of, others = gradients(0), gradients(1)
    together, params = OPTIMIZERS[kind](), {"x": start(), "y": start()}
    for x, y in zip(of, others, strict=True):
        together.step(params, {"x": x, "y": y}, 0.1)
    np.testing.assert_array_equal(params["x"], walk(OPTIMIZERS[kind](), of))
    np.testing.assert_array_equal(params["y"], walk(OPTIMIZERS[kind](), others))


@every_optimizer
def test_the_state_and_the_counter_are_enough_to_go_on_with_the_same_bits(kind):
    of = gradients()
    expected = walk(OPTIMIZERS[kind](), of)
    first, x = OPTIMIZERS[kind](), start()
    for gradient in of[:3]:
        first.step({"x": x}, {"x": gradient}, 0.1)
    second, x = OPTIMIZERS[kind](), x.copy()
    second.t, second.state = first.t, {name: array.copy() for name, array in first.state.items()}
    for gradient in of[3:]:
        second.step({"x": x}, {"x": gradient}, 0.1)
    assert x.tobytes() == expected.tobytes()
    assert second.t == STEPS


@pytest.mark.parametrize("kind", SCHEDULES)
def test_the_rate_rises_in_a_line_to_one(kind):
    assert [schedule(kind, step, 20, 4) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("kind", SCHEDULES)
def test_without_warmup_the_rate_begins_at_one(kind):
    assert schedule(kind, 0, 10, 0) == 1.0


def test_the_schedules_at_their_middle_and_end():
    middle = {kind: schedule(kind, 12, 20, 4) for kind in SCHEDULES}
    assert middle == pytest.approx({"constant": 1.0, "linear": 0.5, "cosine": 0.5})
    end = {kind: schedule(kind, 20, 20, 4) for kind in SCHEDULES}
    assert end == pytest.approx({"constant": 1.0, "linear": 0.0, "cosine": 0.0})
    assert schedule("cosine", 8, 20, 4) == pytest.approx(0.5 + 0.5 * 0.5**0.5)
    assert schedule("linear", 8, 20, 4) == pytest.approx(0.75)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_the_last_step_still_moves(kind):
    assert 0.0 < schedule(kind, 19, 20, 4) < 0.1


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (3, 3), (2, 5)])
def test_the_shortest_runs_have_a_rate(steps, warmup):
    for kind in SCHEDULES:
        rates = [schedule(kind, step, steps, warmup) for step in range(steps)]
        assert all(0.0 < rate <= 1.0 for rate in rates)


def test_an_unknown_schedule_is_a_key_error():
    with pytest.raises(KeyError):
        schedule("triangle", 5, 10, 0)


def test_clipping_scales_all_gradients_by_one_factor():
    of = {"x": np.array([3.0, 0.0]), "y": np.array([[4.0]])}
    x = of["x"]
    assert clip_gradients(of, 1.0) == 5.0
    np.testing.assert_allclose(x, [0.6, 0.0])
    np.testing.assert_allclose(of["y"], [[0.8]])


@pytest.mark.parametrize("largest", [5.0, 6.0])
def test_gradients_within_the_bound_are_left_alone(largest):
    of = {"x": np.array([3.0, 4.0], np.float32)}
    assert clip_gradients(of, largest) == 5.0
    assert of["x"].dtype == np.float32
    np.testing.assert_array_equal(of["x"], [3.0, 4.0])


def test_root_mean_square():
    assert root_mean_square(np.array([[3.0, 4.0]])) == pytest.approx(12.5**0.5)
