"""Each op's backward against central differences, and facts about the forwards that need none."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from helpers.op_checks import (
    CHECKS,
    Attention,
    Case,
    Draw,
    assert_right,
    backward_names,
    outputs,
    public_functions,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minipt.maths import matrix_products, normal, ops
from minipt.transformer import model

cases = st.builds(
    Case,
    B=st.integers(1, 3),
    T=st.integers(1, 4),
    P=st.integers(0, 3),
    R=st.integers(0, 3),
    H=st.integers(1, 3),
    G=st.integers(1, 3),
    D=st.integers(1, 5),
    rows=st.integers(0, 4),
    masked=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
SMALLEST = Case(B=1, T=1, P=0, R=1, H=1, G=1, D=1, rows=1)
ONE_OF_EACH = Case(B=1, T=1, P=1, R=1, H=1, G=1, D=1, rows=1)
NO_QUERY_ROWS = Case(B=1, T=2, P=1, R=0, H=1, G=1, D=2, rows=0)


def random(*shape: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(0).standard_normal(shape)


def test_every_backward_op_has_a_check():
    assert sorted(backward_names()) == sorted(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
@settings(max_examples=40)
@given(case=cases)
@example(case=SMALLEST)
@example(case=ONE_OF_EACH)
@example(case=NO_QUERY_ROWS)
@example(case=Case())
def test_backward_agrees_with_central_differences(name: str, case: Case):
    assert_right(name, case)


def test_every_op_is_called_in_both_float_types():
    assert sorted(outputs(Case(), np.float32)) == sorted(public_functions())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", [Case(), ONE_OF_EACH, Case(P=0), Case(R=0)])
def test_the_float_type_that_goes_in_comes_out(case: Case, dtype: type):
    for name, arrays in outputs(case, dtype).items():
        assert {array.dtype for array in arrays} == {np.dtype(dtype)}, name


def test_the_constants_are_pythons_numbers():
    """A NumPy scalar is a float64: the work on float32 would silently be done in it."""
    names = vars(ops) | vars(normal) | vars(matrix_products)
    constants = {name: value for name, value in names.items() if name.isupper()}
    assert {"GELU_LINEAR", "GELU_CUBIC", "NORMAL_PEAK", "TABLE_END"} <= constants.keys()
    assert {type(value) for value in constants.values()} == {float, int}


@given(case=cases)
@settings(max_examples=20)
def test_merge_heads_undoes_split_heads(case: Case):
    x = case.draw().normal(case.B, case.T, case.C)
    split = ops.split_heads(x, case.H)
    assert split.shape == (case.B, case.H, case.T, case.D)
    np.testing.assert_array_equal(ops.merge_heads(split), x)


def test_a_head_is_a_run_of_neighbouring_channels():
    x = random(2, 3, 6)
    np.testing.assert_array_equal(ops.split_heads(x, 2)[:, 1], x[:, :, 3:])


def test_embedding_takes_the_rows_of_the_table():
    table = random(5, 3)
    np.testing.assert_array_equal(ops.embedding(np.array([[4, 0]]), table)[0, 0], table[4])


def test_a_row_used_twice_collects_both_gradients():
    dy = random(1, 3, 2)
    dtable = ops.embedding_dw(dy, np.array([[1, 0, 1]]), 3)
    np.testing.assert_allclose(dtable, [dy[0, 1], dy[0, 0] + dy[0, 2], [0, 0]], rtol=1e-15)


def test_linear_is_a_sum_over_the_inputs():
    x, weight, bias = random(2, 3, 4), random(4, 5), random(5)
    expected = np.einsum("bti,ij->btj", x, weight) + bias
    np.testing.assert_allclose(ops.linear(x, weight, bias), expected, rtol=1e-13, atol=1e-13)


def test_layernorm_centres_and_scales_every_row():
    x = random(3, 4, 50, scale=7.0) + 5.0
    gain, bias = random(50), random(50)
    y, xhat, rstd = ops.layernorm(x, gain, bias, 1e-5)
    np.testing.assert_allclose(xhat.mean(-1), 0.0, atol=1e-14)
    variance = x.var(-1)
    np.testing.assert_allclose(xhat.var(-1), variance / (variance + 1e-5), rtol=1e-12)
    np.testing.assert_allclose(rstd[..., 0], 1.0 / np.sqrt(variance + 1e-5), rtol=1e-12)
    np.testing.assert_allclose(y, gain * xhat + bias, rtol=1e-14)


def test_layernorm_of_equal_numbers_is_its_bias():
    y, xhat, rstd = ops.layernorm(np.full((1, 4), 3.0), np.ones(4), np.arange(4.0), 0.25)
    np.testing.assert_array_equal(y[0], np.arange(4.0))
    np.testing.assert_array_equal(xhat, 0.0)
    assert rstd == 2.0


def test_gelu_is_the_tanh_formula():
    x = np.linspace(-8.0, 8.0, 2001)
    y, y_over_x = ops.gelu(x)
    half = 0.5 * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(y_over_x, half, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(y, x * half, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("activation", [ops.gelu, ops.gelu_erf, ops.silu])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_far_out_are_x_or_nothing(activation: Callable, dtype: type):
    y, _ = activation(np.array([-1e30, -1e4, -100.0, 100.0, 1e4, 1e30], dtype))
    np.testing.assert_allclose(y, [0.0, 0.0, 0.0, 100.0, 1e4, 1e30], rtol=1e-6, atol=1e-30)


def test_gelu_by_erf_is_x_times_the_normal_distribution():
    x = np.linspace(-12.0, 12.0, 20_001)
    y, y_over_x = ops.gelu_erf(x)
    expected = np.array([0.5 * math.erfc(-one / 2.0**0.5) for one in x])
    np.testing.assert_allclose(y_over_x, expected, rtol=0, atol=2e-13)
    np.testing.assert_allclose(y, x * expected, rtol=0, atol=2e-13)
    assert np.isnan(ops.gelu_erf(np.array([np.nan]))[0]).all()


def test_gelu_by_erf_keeps_the_precision_of_float32():
    """Just below 1 its numbers lie 6e-8 apart."""
    x = np.linspace(-10.0, 10.0, 20_001).astype(np.float32)
    y, y_over_x = ops.gelu_erf(x)
    expected = np.array([0.5 * math.erfc(-one / 2.0**0.5) for one in x.tolist()])
    np.testing.assert_allclose(y_over_x, expected, rtol=0, atol=1.2e-7)
    np.testing.assert_allclose(y, x * expected, rtol=1.2e-7, atol=1.2e-7)


def test_silu_is_x_times_the_logistic_function():
    x = np.linspace(-30.0, 30.0, 2001)
    y, y_over_x = ops.silu(x)
    expected = 0.5 * (1.0 + np.tanh(0.5 * x))
    np.testing.assert_allclose(y_over_x, expected, rtol=0, atol=1e-15)
    np.testing.assert_allclose(y, x * expected, rtol=0, atol=1e-14)


def test_rmsnorm_divides_by_the_root_mean_square():
    x, gain = random(3, 4, 50, scale=7.0) + 5.0, random(50)
    y, xhat, rstd = ops.rmsnorm(x, gain, 1e-5)
    np.testing.assert_allclose(rstd[..., 0], (np.mean(x**2, -1) + 1e-5) ** -0.5, rtol=1e-13)
    np.testing.assert_allclose(xhat, x * rstd, rtol=1e-14)
    np.testing.assert_allclose(y, gain * xhat, rtol=1e-14)


def test_rotary_rotates_each_pair_at_its_own_pace():
    cos, sin = ops.rotary_angles(np.arange(7), 8, 10_000.0, np.float64)  # (T, D)
    angles = np.arange(7)[:, None] * np.array([1.0, 0.1, 0.01, 0.001])
    np.testing.assert_allclose(cos, np.cos(np.tile(angles, 2)), rtol=1e-13)
    np.testing.assert_allclose(sin, np.sin(np.hstack([-angles, angles])), rtol=1e-13)
    x = random(2, 3, 7, 8)
    as_complex = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * angles)
    y = ops.rotary(x, cos, sin)
    np.testing.assert_allclose(y[..., :4], as_complex.real, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(y[..., 4:], as_complex.imag, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(np.vecdot(y, y), np.vecdot(x, x), rtol=1e-13)
    np.testing.assert_allclose(ops.rotary_dx(y, cos, sin), x, rtol=1e-12, atol=1e-14)


def test_late_positions_are_rotated_as_precisely_as_early_ones():
    """In float32 the last angle would be wrong by 4e-3: only its cosine and sine are rounded."""
    late = np.array([8191, 131_071])
    for narrow, wide in zip(
        ops.rotary_angles(late, 64, 10_000.0, np.float32),
        ops.rotary_angles(late, 64, 10_000.0, np.float64),
        strict=True,
    ):
        np.testing.assert_array_equal(narrow, wide.astype(np.float32))


def test_a_rotated_product_depends_on_the_distance_only():
    query, key = random(2, 6)
    rotated = [
        [ops.rotary(x[None], *ops.rotary_angles(at, 6, 100.0, np.float64))[0] for at in positions]
        for x, positions in ((query, np.arange(5)[:, None]), (key, np.arange(5)[:, None] + 3))
    ]
    products = np.vecdot(*rotated)  # five places, always three rows apart
    np.testing.assert_allclose(products, products[0], rtol=1e-12)
    assert abs(products[0] - query @ key) > 0.1


def test_the_mean_is_over_real_rows_only():
    x, real = random(2, 3, 4), np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    expected = [x[0, :2].mean(0), x[1, 0]]
    np.testing.assert_allclose(ops.mean_pool(x, real), expected, rtol=1e-14)
    np.testing.assert_array_equal(ops.mean_pool_dx(random(2, 4), real)[real == 0.0], 0.0)


def test_normalized_rows_have_length_one_and_their_direction():
    x = random(5, 4, scale=3.0)
    y, length = ops.normalize(x)
    np.testing.assert_allclose(np.vecdot(y, y), 1.0, rtol=1e-14)
    np.testing.assert_allclose(y * length, x, rtol=1e-14)
    np.testing.assert_allclose(
        np.vecdot(ops.normalize_dx(random(5, 4), y, length), y), 0, atol=1e-15
    )


def test_softmax_is_exponentials_over_their_sum():
    scores = random(3, 4, 5)
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(ops.softmax(scores), expected, rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_rows_sum_to_one_and_masked_scores_weigh_exactly_nothing(dtype: type):
    draw = Draw(np.random.default_rng(0), dtype)
    mask = draw.mask(3, 4, 6)
    weights = ops.softmax(draw.normal(3, 4, 6) + mask)
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-6 if dtype == np.float32 else 1e-14)
    assert np.isneginf(mask).any()
    np.testing.assert_array_equal(weights == 0.0, np.isneginf(mask))
    dscores = ops.softmax_dx(draw.normal(3, 4, 6), weights)
    np.testing.assert_array_equal(dscores == 0.0, np.isneginf(mask))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_huge_scores_stay_finite(dtype: type, size: float):
    scores = np.array([[size, -size, 0.0], [-size, -size, -size], [0.0, -np.inf, -size]], dtype)
    np.testing.assert_allclose(
        ops.softmax(scores), [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [1, 0, 0]], rtol=1e-6
    )
    losses, probabilities = ops.cross_entropy(scores[:2], np.array([1, 1]))
    np.testing.assert_allclose(losses, [2 * size, np.log(3)], rtol=1e-6)
    assert np.isfinite(ops.cross_entropy_dx(np.ones(2, dtype), probabilities, [1, 1])).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_inputs_give_finite_gradients_and_no_warning(dtype: type):
    x = np.array([[-1e4, -50.0, 0.0, 50.0, 1e4]], dtype)
    one = np.ones(5, dtype)
    for forward, backward in model.ACTIVATIONS.values():
        _, y_over_x = forward(x)
        np.testing.assert_allclose(backward(one, x, y_over_x), [[0, 0, 0.5, 1, 1]], atol=1e-6)
    for rows in (x, np.zeros_like(x), 1e-20 * x):
        for forward, backward, weights in (
            (ops.layernorm, ops.layernorm_dx, (one, one)),
            (ops.rmsnorm, ops.rmsnorm_dx, (one,)),
        ):
            y, xhat, rstd = forward(rows, *weights, 1e-5)
            assert np.isfinite(y).all() and np.isfinite(backward(x, one, xhat, rstd)).all()


def naive_attention(at: Attention) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values in one array each, the past repeated for every text, all for every query."""
    B, (_, P, _) = len(at.key), at.past_key.shape
    G = at.query.shape[1] // at.key.shape[1]
    key = np.concatenate([np.broadcast_to(at.past_key, (B, *at.past_key.shape)), at.key], 2)
    value = np.concatenate([np.broadcast_to(at.past_value, (B, *at.past_value.shape)), at.value], 2)
    key, value = key.repeat(G, 1), value.repeat(G, 1)  # (B, G·H, P+T, D)
    scores = np.einsum("bhrd,bhsd->bhrs", at.query, key)
    scores += np.concatenate([np.zeros((*at.mask.shape[:3], P)), at.mask], -1)
    exponentials = np.exp(scores)
    weights = exponentials / exponentials.sum(-1, keepdims=True)
    return np.einsum("bhrs,bhsd->bhrd", weights, value), weights


@given(case=cases)
@example(case=SMALLEST)
@example(case=NO_QUERY_ROWS)
@settings(max_examples=40)
def test_attention_with_a_past_is_attention_over_joined_keys(case: Case):
    at = Attention.of(case, case.draw())
    context, weights, scores = at.forward()
    expected_context, expected_weights = naive_attention(at)
    np.testing.assert_allclose(context, expected_context, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-11, atol=1e-14)
    hidden = np.broadcast_to(np.isneginf(at.mask), (case.B, case.G * case.H, case.R, case.T))
    np.testing.assert_array_equal(np.isneginf(scores[..., case.P :]), hidden)
    np.testing.assert_array_equal(weights[..., case.P :][hidden], 0.0)


def test_gradients_of_fewer_rows_are_the_leading_ones_of_all():
    at = Attention.of(Case(T=4, R=4), Case().draw())
    weights, _, dscores = at.backward()
    factors = (at.dcontext, dscores, at.query, at.key, at.past_key, weights)
    for few, every in zip(
        ops.attention_dx(*factors, 2), ops.attention_dx(*factors, 4), strict=True
    ):
        assert few.shape[2] == 2
        np.testing.assert_allclose(few, every[:, :, :2], rtol=1e-14)


def test_cross_entropy_is_minus_the_log_of_the_targets_probability():
    logits, targets = random(4, 3), np.array([0, 2, 1, 2])
    losses, probabilities = ops.cross_entropy(logits, targets)
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-13)
    np.testing.assert_allclose(losses, -np.log(expected[np.arange(4), targets]), rtol=1e-12)


def test_cross_entropy_of_equal_logits_is_the_log_of_their_number():
    losses, _ = ops.cross_entropy(np.zeros((1, 8)), np.array([3]))
    np.testing.assert_allclose(losses, np.log(8.0), rtol=1e-15)
