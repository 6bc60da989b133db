"""The whole step: both wirings, the exact savings, the trace, and a base that stays frozen."""

import gc
import weakref
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from helpers.bases import BERT, LLAMA, random_base, random_batch, random_prompt

from minipt.errors import MiniptError
from minipt.maths import ops
from minipt.maths.blocked_attention import LONG_TEXT
from minipt.maths.gradcheck import check_gradient, compare
from minipt.prompting import wiring as wiring_module
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.text import Batch
from minipt.prompting.wiring import (
    WIRINGS,
    _text_stream,
    logits,
    logits_after,
    loss_and_gradient,
    run_prompt,
    text_step,
)
from minipt.transformer import layer, model
from minipt.transformer.base import Base, parameter_shapes
from minipt.transformer.layer import StreamLayout, causal_mask, padding_mask
from minipt.transformer.trace import Tape, Trace

SIZES = [
    {"layers": 1, "channels": 3, "heads": 1},
    {"layers": 2, "channels": 8, "heads": 2},
    {"layers": 3, "channels": 12, "heads": 4, "vocabulary": 40},
    {"layers": 1, "channels": 8, "heads": 2} | LLAMA,
    {"layers": 2, "channels": 16, "heads": 4, "key_value_heads": 1} | LLAMA,
    {"layers": 3, "channels": 24, "heads": 4, "key_value_heads": 2, "tied": False}
    | LLAMA
    | {"attention_bias": True, "mlp_bias": True},
]
# The batch, and P.
TEXTS = [
    ({"texts": 1, "tokens": 1}, 1),
    ({"texts": 3, "tokens": 6}, 1),
    ({"texts": 4, "tokens": 5, "choices": 3}, 4),
    ({"texts": 5, "tokens": 7, "middle": True}, 2),
]
# One of each family, three layers deep; test_encoder.py has more of what is BERT's own.
FAMILIES = {"gpt2": SIZES[2], "llama": SIZES[5]}
FAMILIES["bert"] = SIZES[2] | BERT
FAMILIES["encoder"] = FAMILIES["bert"] | {"head": None}
STEPS = [(family, wiring) for family in ("gpt2", "llama") for wiring in WIRINGS]
STEPS += [(family, "concatenated") for family in ("bert", "encoder")]
OPS_OF = {"gpt2": {"layernorm", "gelu_dx"}, "llama": {"rmsnorm_dx", "silu_dx", "rotary_dx"}}
OPS_OF |= {"bert": {"layernorm", "gelu_erf_dx"}, "encoder": {"mean_pool_dx", "normalize_dx"}}
every_size = pytest.mark.parametrize("sizes", SIZES)
every_text = pytest.mark.parametrize(("texts", "length"), TEXTS)
every_wiring = pytest.mark.parametrize("wiring", WIRINGS)
every_step = pytest.mark.parametrize(("family", "wiring"), STEPS)


def make(
    sizes: dict, texts: dict, length: int, dtype: type = np.float64
) -> tuple[Base, SoftPrompt, Batch]:
    base = random_base(5, **sizes).astype(dtype)
    if base.config.head is None:
        texts = texts | {"choices": 3}
    return base, random_prompt(base, length), random_batch(base, **texts)


def traced(dtype: type = np.float32, wiring: str = "shared", family: str = "gpt2") -> Trace:
    trace = Trace()
    loss_and_gradient(*make(FAMILIES[family], TEXTS[3][0], 2, dtype), trace, wiring)
    return trace


@every_size
@every_text
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_both_wirings_are_equal(sizes, texts, length, dtype, tolerance):
    step = make(sizes, texts, length, dtype)
    loss, gradient = loss_and_gradient(*step, wiring="shared")
    other_loss, other_gradient = loss_and_gradient(*step, wiring="concatenated")
    assert gradient.shape == (length, sizes["channels"])
    assert loss == pytest.approx(other_loss, rel=tolerance)
    assert compare("gradient", gradient, other_gradient) < tolerance


@every_size
@every_text
@every_wiring
def test_the_gradient_agrees_with_finite_differences(sizes, texts, length, wiring):
    base, prompt, batch = make(sizes, texts, length)

    def loss(vectors: np.ndarray) -> float:
        moved = SoftPrompt(vectors, prompt.fingerprint, prompt.base_name)
        return loss_and_gradient(base, moved, batch, wiring=wiring)[0]

    _, gradient = loss_and_gradient(base, prompt, batch, wiring=wiring)
    assert np.abs(gradient).max() > 1e-4
    assert check_gradient(loss, prompt.vectors, gradient) < 1e-7


@every_size
@every_wiring
def test_padding_ids_change_no_bit(sizes, wiring):
    base, prompt, batch = make(sizes, {"texts": 4, "tokens": 7}, 3, np.float32)
    padding = np.arange(7) >= batch.lengths[:, None]
    assert padding.any()
    ids = np.where(padding, (batch.ids + 1) % base.config.vocabulary, batch.ids)
    changed = Batch(ids, batch.lengths, batch.targets)
    loss, gradient = loss_and_gradient(base, prompt, batch, wiring=wiring)
    other_loss, other_gradient = loss_and_gradient(base, prompt, changed, wiring=wiring)
    assert loss == other_loss
    np.testing.assert_array_equal(gradient, other_gradient)
    np.testing.assert_array_equal(logits(base, batch, prompt), logits(base, changed, prompt))


@every_step
def test_padding_goes_through_attention_only(family, wiring):
    """A norm, a map or an MLP has no row for it, and the trace shows zeros in its place."""
    base, prompt, batch = make(FAMILIES[family], {"texts": 4, "tokens": 7}, 3)
    trace = Trace()
    loss_and_gradient(base, prompt, batch, trace, wiring)
    before = 3 if wiring == "concatenated" else 0  # the prompt's rows
    real = np.arange(before + 7) < before + batch.lengths[:, None]  # (B, T)
    assert not real.all()
    for name in ("ln1", "middle", "mlp.down", "out"):
        shown = trace[f"text.h0.{name}"]
        assert shown[real].any(-1).all() and not shown[~real].any(), name


@every_step
def test_every_real_token_counts(family, wiring):
    base, prompt, batch = make(FAMILIES[family], {"texts": 2, "tokens": 4}, 2)
    loss, _ = loss_and_gradient(base, prompt, batch, wiring=wiring)
    real = np.argwhere(np.arange(4) < batch.lengths[:, None])
    assert len(real) > 4
    for b, t in real:
        ids = batch.ids.copy()
        ids[b, t] = (ids[b, t] + 1) % base.config.vocabulary
        changed = Batch(ids, batch.lengths, batch.targets, batch.choices)
        other, _ = loss_and_gradient(base, prompt, changed, wiring=wiring)
        assert abs(other - loss) > 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_only_where_rows_read_ahead_does_a_text_change_what_the_prompt_computes(family):
    base, prompt, batch = make(FAMILIES[family], {"texts": 1, "tokens": 4}, 2)
    changed = batch.ids.copy()
    changed[0, -1] = (changed[0, -1] + 1) % base.config.vocabulary
    rows = []
    for ids in (batch.ids, changed):
        trace = Trace()
        other = Batch(ids, batch.lengths, batch.targets, batch.choices)
        loss_and_gradient(base, prompt, other, trace, "concatenated")
        rows.append(trace["text.h1.out"][:, :2])  # (B, P, C)
    if base.config.causal:
        np.testing.assert_array_equal(*rows)
    else:
        assert np.abs(rows[0] - rows[1]).max(-1).min() > 1e-6


@every_size
@every_wiring
def test_a_batch_is_the_mean_of_its_texts(sizes, wiring):
    base, prompt, batch = make(sizes, {"texts": 4, "tokens": 6}, 2)
    loss, gradient = loss_and_gradient(base, prompt, batch, wiring=wiring)
    parts = []
    for b, length in enumerate(batch.lengths):
        alone = Batch(batch.ids[b : b + 1, :length], [length], batch.targets[b : b + 1])
        parts.append(loss_and_gradient(base, prompt, alone, wiring=wiring))
    assert loss == pytest.approx(np.mean([part[0] for part in parts]), rel=1e-12)
    mean = np.mean([part[1] for part in parts], axis=0)
    assert compare("gradient", gradient, mean) < 1e-12


@every_size
@every_wiring
def test_reading_in_the_middle_is_cutting_the_text_there(sizes, wiring):
    base, prompt, batch = make(sizes, TEXTS[3][0], 2)
    assert (batch.positions < batch.lengths - 1).any()
    cut = Batch(batch.ids, batch.positions + 1, batch.targets)
    loss, gradient = loss_and_gradient(base, prompt, batch, wiring=wiring)
    other_loss, other_gradient = loss_and_gradient(base, prompt, cut, wiring=wiring)
    assert loss == other_loss
    np.testing.assert_array_equal(gradient, other_gradient)


def test_choices_are_columns_of_the_vocabulary():
    base, prompt, batch = make(SIZES[1], {"texts": 3, "tokens": 4, "choices": 4}, 2)
    targets = batch.choices[batch.targets]
    whole = logits(base, Batch(batch.ids, batch.lengths, targets), prompt)
    assert whole.shape == (3, base.config.vocabulary)
    chosen = logits(base, batch, prompt)
    assert compare("logits", chosen, whole[:, batch.choices]) < 1e-14


def test_choosing_from_the_whole_vocabulary_is_no_choice():
    base, prompt, batch = make(SIZES[1], {"texts": 3, "tokens": 4}, 2)
    every = np.arange(base.config.vocabulary)
    chosen = Batch(batch.ids, batch.lengths, batch.targets, every)
    loss, gradient = loss_and_gradient(base, prompt, batch)
    other_loss, other_gradient = loss_and_gradient(base, prompt, chosen)
    assert loss == pytest.approx(other_loss, rel=1e-13)
    assert compare("gradient", gradient, other_gradient) < 1e-12


@every_text
@every_wiring
def test_logits_are_those_of_the_loss(texts, length, wiring):
    base, prompt, batch = make(SIZES[1], texts, length)
    trace = Trace()
    loss, _ = loss_and_gradient(base, prompt, batch, trace, wiring)
    answers = logits(base, batch, prompt)
    assert compare("logits", answers, trace["text.logits"]) < 1e-12
    shares = np.exp(answers) / np.exp(answers).sum(-1, keepdims=True)
    expected = -np.log(shares[np.arange(len(shares)), batch.targets]).mean()
    assert loss == pytest.approx(expected, rel=1e-12)


def test_without_a_prompt_positions_begin_at_the_text():
    """A prompt that holds the first words' own embeddings is those words."""
    base, _, batch = make(SIZES[1], {"texts": 1, "tokens": 6}, 1)
    vectors = base.params["token.table"][batch.ids[0, :2]]
    prompt = SoftPrompt(vectors, base.fingerprint, base.name)
    rest = Batch(batch.ids[:, 2:], [4], batch.targets)
    assert compare("logits", logits(base, rest, prompt), logits(base, batch)) < 1e-13


def test_a_prompt_read_once_serves_every_batch():
    base, prompt, batch = make(SIZES[1], {"texts": 3, "tokens": 4}, 2)
    past = run_prompt(base, prompt)
    expected = logits(base, batch, prompt)
    for _ in range(2):
        np.testing.assert_array_equal(logits_after(base, batch, past), expected)


@every_size
def test_every_parameter_changes_the_answer(sizes):
    """No layer and no bias may be skipped: each one is seen in the loss."""
    base, prompt, batch = make(sizes, {"texts": 2, "tokens": 3}, 2)
    loss, _ = loss_and_gradient(base, prompt, batch)
    for name in parameter_shapes(base.config):
        # It moves all scores of a row alike, which softmax forgets, unless it is turned.
        if name.endswith("attn.key.bias") and base.config.positions == "learned":
            continue
        params = base.params | {
            name: base.params[name]
            + np.linspace(0.1, 1, base.params[name].size).reshape(base.params[name].shape)
        }
        other = Base(base.name, base.config, params, None)
        assert abs(loss_and_gradient(other, prompt, batch)[0] - loss) > 1e-9, name


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [(family, "epsilon", 0.1) for family in FAMILIES]
    + [(family, "heads", 2) for family in ("gpt2", "bert", "encoder")]
    + [(family, "activation", "gelu") for family in ("gpt2", "llama")]
    + [("gpt2", "causal", False), ("llama", "rotary_base", 100.0), ("bert", "causal", True)],
)
def test_every_setting_that_no_parameter_shows_changes_the_answer(family, field, value):
    base, prompt, batch = make(FAMILIES[family], {"texts": 2, "tokens": 4}, 2)
    other = Base(base.name, replace(base.config, **{field: value}), base.params, None)
    loss, _ = loss_and_gradient(base, prompt, batch)
    assert parameter_shapes(other.config) == parameter_shapes(base.config)
    assert abs(loss_and_gradient(other, prompt, batch)[0] - loss) > 1e-6


# The exact savings.


def test_the_last_layer_computes_only_the_rows_that_are_read():
    trace, (B, P, T, C) = traced(), (5, 2, 7, 12)
    assert trace["text.h1.out"].shape == (B, T, C)
    assert trace["text.h2.out"].shape == (B, 1, C)
    assert trace["text.h2.attn.weights"].shape == (B, 4, 1, P + T)
    assert trace["text.h2.attn.key"].shape == (B, 4, T, C // 4)
    assert trace["text.final"].shape == (B, 1, C)
    assert trace["prompt.h1.out"].shape == (1, P, C)
    assert trace["prompt.h2.attn.query"].shape == (1, 4, 0, C // 4)
    assert trace["prompt.h2.out"].shape == (1, 0, C)
    assert trace["prompt.h2.attn.key"].shape == (1, 4, P, C // 4)


def test_the_output_matrix_meets_only_the_rows_that_are_read():
    assert traced()["text.logits"].shape == (5, 40)


def test_the_shared_prompt_is_a_batch_of_one():
    trace = traced()
    prompts = [array for name, array in trace.activations.items() if name.startswith("prompt.h")]
    assert {len(array) for array in prompts} == {1}


# The rows of each `linear_dx` of a step, in order, where three texts of 5, 4 and 3 tokens stand
# behind P = 2, in two layers: down, up, out, key, value, query. Padding is no row. In the shared
# wiring the texts go back first, and stop at layer 0's scores; of the prompt nothing is read out.
# In the concatenated one layer 0 stops at the 6 rows that hold the prompt.
ROWS = {
    ("gpt2", "shared"): [3, 3, 3, 12, 12, 3, 12, 12, 12, *[0] * 6, 2, 2, 0, 2, 2, 2, 2, 2, 2],
    ("gpt2", "concatenated"): [3, 3, 3, 18, 18, 3, 18, 18, 18, 6, 6, 6],
    # With a gate: down, gate, up, out, key, value, query.
    ("llama", "shared"): [
        *[3, 3, 3, 3, 12, 12, 3, 12, 12, 12, 12],
        *[0] * 7,
        *[2, 2, 0, 2, 2, 2, 2, 2, 2, 2],
    ],
    ("llama", "concatenated"): [3, 3, 3, 3, 18, 18, 3, 18, 18, 18, 18, 6, 6, 6],
    # First the masked-word head.
    ("bert", "concatenated"): [3, 3, 3, 3, 18, 18, 3, 18, 18, 18, 6, 6, 6],
    # The mean reads every row of the texts, and none of the prompt's.
    ("encoder", "concatenated"): [12, 12, 12, 18, 18, 12, 18, 18, 18, 6, 6, 6],
}


@every_step
def test_the_backward_computes_no_row_that_nobody_needs(family, wiring, monkeypatch):
    rows, original = [], ops.linear_dx
    monkeypatch.setattr(
        ops, "linear_dx", lambda dy, w: rows.append(dy.size // dy.shape[-1]) or original(dy, w)
    )
    step = make(FAMILIES[family] | {"layers": 2}, {"texts": 3, "tokens": 5}, 2)
    assert list(step[2].lengths) == [5, 4, 3]
    loss_and_gradient(*step, wiring=wiring)
    assert rows == ROWS[family, wiring]


@every_step
def test_no_parameters_gradient_is_computed(family, wiring, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a frozen base has no gradient")

    for name in ("embedding_dw", "linear_dw", "linear_db", "layernorm_dw", "rmsnorm_dw"):
        monkeypatch.setattr(ops, name, refuse)
    loss_and_gradient(*make(FAMILIES[family], TEXTS[1][0], 2), wiring=wiring)


# The trace.


@every_size
@every_text
@every_wiring
def test_a_gradient_has_its_activations_shape(sizes, texts, length, wiring):
    trace = Trace()
    loss_and_gradient(*make(sizes, texts, length), trace, wiring)
    assert trace.gradients.keys() <= trace.activations.keys()
    for name, gradient in trace.gradients.items():
        assert gradient.shape == trace[name].shape, name


@every_step
def test_a_step_leaves_nothing_that_only_a_collector_finds(family, wiring):
    """Objects in a circle would hold a step's arrays into the next ones."""
    step = make(FAMILIES[family], TEXTS[1][0], 2)
    gradients = dict.fromkeys(step[0].params)
    gc.collect()
    gc.disable()
    try:
        loss_and_gradient(*step, wiring=wiring)
        text_step(step[0], step[2], Tape(gradients), gradients=gradients)
        logits(step[0], step[2], step[1])
        assert gc.collect() == 0
    finally:
        gc.enable()


@every_size
@every_text
@every_wiring
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_step_stays_in_its_float_type(sizes, texts, length, wiring, dtype):
    trace = Trace()
    base, prompt, batch = make(sizes, texts, length, dtype)
    _, gradient = loss_and_gradient(base, prompt, batch, trace, wiring)
    arrays = trace.activations | {f"d {name}": x for name, x in trace.gradients.items()}
    arrays |= {"gradient": gradient, "logits": logits(base, batch, prompt)}
    assert {name: x.dtype for name, x in arrays.items() if x.dtype != dtype} == {}


@every_step
def test_no_array_of_float64_is_made_in_a_float32_step(family, wiring, monkeypatch):
    """Not only what the trace keeps: what every op takes and gives back."""
    seen = {}
    for name, op in list(vars(ops).items()):
        if callable(op) and getattr(op, "__module__", "").startswith("minipt.maths."):

            def watched(*arguments, op=op, name=name, **named):
                result = op(*arguments, **named)
                flat = [*arguments, *(result if isinstance(result, tuple) else (result,))]
                flat += [x for x in flat if isinstance(x, tuple) for x in x]
                seen.setdefault(name, set()).update(
                    str(x.dtype) for x in flat if isinstance(x, np.ndarray)
                )
                return result

            monkeypatch.setattr(ops, name, watched)
    for table in (layer.NORMS, model.ACTIVATIONS):
        for key, pair in table.items():
            named = tuple(getattr(ops, function.__name__) for function in pair)
            monkeypatch.setitem(table, key, named)
    traced(wiring=wiring, family=family)
    assert {"linear", "softmax", "softmax_dx"} | OPS_OF[family] <= seen.keys()
    assert {name: types for name, types in seen.items() if "float64" in types} == {}


NORM = {at: [f"{at}.xhat", f"{at}.rstd", at] for at in ("ln1", "ln2", "final", "embedding.norm")}
OF_ATTENTION = [f"attn.{x}" for x in ("key", "value", "query", "scores", "weights", "context")]
ATTENTION = [*OF_ATTENTION, "attn.out", "middle"]
MLP = ["mlp.up", "mlp.y_over_x", "mlp.active", "mlp.down", "out"]
GATED_MLP = ["mlp.gate", "mlp.y_over_x", "mlp.up", "mlp.active", "mlp.product", "mlp.down", "out"]
LAYER = {
    "gpt2": [*NORM["ln1"], *ATTENTION, *NORM["ln2"], *MLP],
    "llama": [*NORM["ln1"], *ATTENTION, *NORM["ln2"], *GATED_MLP],
    "bert": [*ATTENTION, *NORM["ln1"], *MLP, *NORM["ln2"]],
}
LAYER["encoder"] = LAYER["bert"]
BEFORE = {"gpt2": [], "llama": [], "bert": NORM["embedding.norm"]}
BEFORE["encoder"] = BEFORE["bert"]
AFTER = {"gpt2": NORM["final"], "llama": NORM["final"], "bert": [], "encoder": []}
HEAD = {"gpt2": [], "llama": [], "encoder": ["text.pooled", "text.length"]}
HEAD["bert"] = [f"text.head.{part}" for part in ("dense", "y_over_x", "active")]
HEAD["bert"] += ["text.head.norm.xhat", "text.head.norm.rstd", "text.head.norm"]
KEPT_FOR_BACKWARD = ("xhat", "rstd", "y_over_x", "length")


def expected_names(family: str, wiring: str) -> list[str]:
    """The prompt goes through all layers, and after it the text."""
    layers = [f"h{i}.{part}" for i in range(3) for part in LAYER[family]]
    parts = [*BEFORE[family], *layers, *AFTER[family]]
    prompt = [f"prompt.{part}" for part in parts] if wiring == "shared" else []
    text = [f"text.{part}" for part in parts]
    names = ["prompt.vectors", *prompt, "text.embedding", *text, *HEAD[family]]
    return [*names, "text.features", "text.logits", "text.probabilities", "text.loss"]


@every_step
def test_the_trace_has_every_activation_in_the_order_of_computation(family, wiring):
    names = list(traced(wiring=wiring, family=family).activations)
    assert names == expected_names(family, wiring)


@every_step
def test_gradients_are_missing_only_where_nothing_needs_them(family, wiring):
    """What only the backward uses has none, nor what lies below the text's layer 0."""
    trace = traced(wiring=wiring, family=family)
    below = {f"text.h0.attn.{part}" for part in ("query", "key", "value")}
    below |= {"text.embedding", "text.probabilities"}
    below |= {"text.h0.ln1"} if family in ("gpt2", "llama") else {"text.embedding.norm"}
    missing = {name for name in trace.activations if name not in trace.gradients}
    assert {name for name in missing if not name.endswith(KEPT_FOR_BACKWARD)} == below
    with pytest.raises(KeyError, match=r"text\.h0\.attn\.query has no gradient"):
        trace.grad("text.h0.attn.query")
    with pytest.raises(KeyError):
        trace["text.h9.out"]
    assert "text.h9.out" not in trace


@every_step
def test_the_traced_gradients_follow_the_chain_rule(family, wiring):
    """Where the rule is one line, the noted gradients obey it."""
    trace = traced(np.float64, wiring, family)
    dlosses = trace.grad("text.loss")
    np.testing.assert_allclose(dlosses, 1 / 5)
    expected = trace["text.probabilities"].copy()
    np.testing.assert_allclose(trace.grad("text.logits").sum(1), 0, atol=1e-16)
    rows = trace.grad("text.logits") * 5 - expected
    np.testing.assert_allclose(rows.min(1), -1.0, rtol=1e-12)
    for i in range(3):
        at = f"text.h{i}"
        np.testing.assert_array_equal(trace.grad(f"{at}.out"), trace.grad(f"{at}.mlp.down"))
        np.testing.assert_array_equal(trace.grad(f"{at}.middle"), trace.grad(f"{at}.attn.out"))
        dscores = ops.softmax_dx(trace.grad(f"{at}.attn.weights"), trace[f"{at}.attn.weights"])
        np.testing.assert_array_equal(trace.grad(f"{at}.attn.scores"), dscores)
        if family == "llama":
            dproduct = trace.grad(f"{at}.mlp.product")
            for part, other in (("up", "active"), ("active", "up")):
                expected = dproduct * trace[f"{at}.mlp.{other}"]
                np.testing.assert_array_equal(trace.grad(f"{at}.mlp.{part}"), expected)


@every_step
def test_the_trace_is_not_overwritten_by_what_follows(family, wiring):
    """The activations as the forward left them: gelu of what up says, weights of the scores."""
    trace, config = traced(np.float64, wiring, family), random_base(0, **FAMILIES[family]).config
    for i in range(3):
        at = f"text.h{i}"
        bent = trace[f"{at}.mlp.gate" if config.gated else f"{at}.mlp.up"]
        active, _ = model.ACTIVATIONS[config.activation][0](bent)
        np.testing.assert_array_equal(trace[f"{at}.mlp.active"], active)
        if config.gated:
            product = active * trace[f"{at}.mlp.up"]
            np.testing.assert_array_equal(trace[f"{at}.mlp.product"], product)
        weights = ops.softmax(trace[f"{at}.attn.scores"])
        np.testing.assert_array_equal(trace[f"{at}.attn.weights"], weights)
        skipped = trace[f"{at}.middle" if config.norm_first else f"{at}.ln1"]
        np.testing.assert_array_equal(trace[f"{at}.out"], skipped + trace[f"{at}.mlp.down"])


@every_size
@every_wiring
def test_a_cache_gives_the_same_bits_and_is_empty_at_the_end(sizes, wiring):
    step = make(sizes, TEXTS[1][0], 3, np.float32)
    cache = Tape()
    loss, gradient = loss_and_gradient(*step, cache, wiring)
    traced_loss, traced_gradient = loss_and_gradient(*step, Trace(), wiring)
    default_loss, default_gradient = loss_and_gradient(*step, wiring=wiring)
    assert loss == traced_loss == default_loss
    np.testing.assert_array_equal(gradient, traced_gradient)
    np.testing.assert_array_equal(gradient, default_gradient)
    assert cache.saved == cache.inputs == {}


@every_wiring
def test_what_the_backward_has_read_is_freed(wiring):
    """Of the texts; a shared prompt's keys and values are few, and live as long as the step."""

    class Watched(Tape):
        def __init__(self) -> None:
            super().__init__()
            self.taken, self.alive = {}, []

        def take(self, name: str) -> np.ndarray:
            if ".h0." in name:
                above = [name for name in self.taken if name.startswith("text.h1.")]
                self.alive += [name for name in above if self.taken[name]() is not None]
            array = super().take(name)
            memory = array if array.base is None else array.base
            self.taken[name] = weakref.ref(memory)
            return array

    cache = Watched()
    loss_and_gradient(*make(SIZES[1], TEXTS[1][0], 3), cache, wiring)
    assert {"text.h1.attn.key", "text.h0.ln1.xhat"} <= cache.taken.keys()
    assert not cache.alive


def test_training_without_a_trace_keeps_a_cache_only(monkeypatch):
    made = []

    class Watched(Tape):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(wiring_module, "Tape", Watched)
    loss_and_gradient(*make(SIZES[1], TEXTS[1][0], 2))
    assert [vars(cache) for cache in made] == [{"trained": (), "saved": {}, "inputs": {}}]


def test_the_traces_prompt_gradient_is_the_one_returned():
    trace = Trace()
    _, gradient = loss_and_gradient(*make(SIZES[1], TEXTS[1][0], 2), trace)
    np.testing.assert_array_equal(trace.grad("prompt.vectors"), gradient)


def test_the_table_tells_sizes_with_masked_scores_left_out():
    trace = traced()
    rows = {row["name"]: row for row in trace.table()}
    assert list(rows) == list(trace.activations)
    scores = rows["text.h0.attn.scores"]
    finite = trace["text.h0.attn.scores"][np.isfinite(trace["text.h0.attn.scores"])]
    assert scores["shape"] == (5, 4, 7, 9)
    assert scores["size"] == pytest.approx(np.abs(finite).mean(), rel=1e-6)
    gradient = np.abs(trace.grad("text.h0.attn.scores")).mean()
    assert scores["gradient_size"] == pytest.approx(gradient, rel=1e-6)
    assert rows["text.embedding"]["gradient_size"] is None
    assert rows["prompt.h2.out"]["size"] == 0.0


def test_the_causal_mask_hides_what_comes_later():
    expected = [[0, -np.inf, -np.inf], [0, 0, -np.inf], [0, 0, 0]]
    np.testing.assert_array_equal(causal_mask(3, np.dtype("f4")), np.array(expected, np.float32))


def test_the_padding_mask_hides_what_stands_behind_each_text():
    mask = padding_mask(np.array([3, 1]), 3, np.dtype("f4"))
    expected = [[[[0, 0, 0]]], [[[0, -np.inf, -np.inf]]]]
    np.testing.assert_array_equal(mask, np.array(expected, np.float32), strict=True)


# Frozen.


def test_a_bases_arrays_refuse_to_be_written():
    for name, array in random_base(0).params.items():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0
        with pytest.raises(ValueError, match="read-only"):
            array *= 2.0
        assert not array.flags.writeable, name


def test_the_fingerprint_sees_every_parameter_and_the_config():
    base = random_base(0)
    prints = {base.fingerprint}
    for name, array in base.params.items():
        changed = array.copy()
        changed.reshape(-1).view(np.uint32)[-1] ^= 1
        prints.add(Base("b", base.config, base.params | {name: changed}, None).fingerprint)
    config = replace(base.config, epsilon=1e-6)
    prints.add(Base("b", config, base.params, None).fingerprint)
    assert len(prints) == len(base.params) + 2


def test_the_fingerprint_is_of_the_numbers_alone():
    assert random_base(0).fingerprint == random_base(0).fingerprint
    base = random_base(0)
    renamed = Base("other", base.config, dict(reversed(base.params.items())), None)
    assert renamed.fingerprint == base.fingerprint
    assert len(base.fingerprint) == 64


@every_step
def test_a_step_leaves_the_base_the_prompt_and_the_batch_as_they_were(family, wiring):
    base, prompt, batch = make(FAMILIES[family], TEXTS[2][0] | {"middle": True}, 2, np.float32)
    fingerprint, vectors, before = base.fingerprint, prompt.vectors.copy(), deepcopy(vars(batch))
    loss_and_gradient(base, prompt, batch, wiring=wiring)
    logits(base, batch, prompt)
    assert base.fingerprint == fingerprint
    np.testing.assert_array_equal(prompt.vectors, vectors)
    for name, array in before.items():
        np.testing.assert_array_equal(getattr(batch, name), array, err_msg=name)


def test_a_base_in_another_float_type_has_the_same_numbers_and_is_frozen_too():
    base = random_base(0)
    double = base.astype(np.float64)
    for name, array in double.params.items():
        assert array.dtype == np.float64 and not array.flags.writeable
        np.testing.assert_array_equal(array, base.params[name])
    assert (
        double.size == base.size == sum(np.prod(s) for s in parameter_shapes(base.config).values())
    )


# What does not fit together is refused.


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": [1, 2]}, r"ids have shape \(B, T\), B and T at least 1, not \(2,\)"),
        ({"ids": np.zeros((0, 3))}, r"not \(0, 3\)"),
        ({"ids": np.zeros((2, 0))}, r"not \(2, 0\)"),
        ({"lengths": [1]}, r"2 texts has lengths of shape \(2,\), not \(1,\)"),
        ({"targets": [[1, 2]]}, r"targets of shape \(2,\), not \(1, 2\)"),
        ({"positions": [0, 0, 0]}, r"positions of shape \(2,\), not \(3,\)"),
        ({"lengths": [0, 2]}, "lengths lie between 1 and T = 3"),
        ({"lengths": [2, 4]}, "lengths lie between 1 and T = 3"),
        ({"positions": [-1, 0]}, "positions lie inside"),
        ({"positions": [0, 2]}, "positions lie inside"),
        ({"ids": [[1.0, 2, 3], [4, 5, 6]]}, "ids are whole numbers, not float64"),
        ({"ids": [[1, 2, 3], [4, 5]]}, "ids are no array"),
        ({"ids": None}, "ids are whole numbers, not object"),
        ({"lengths": [3.0, 2.0]}, "lengths are whole numbers, not float64"),
        ({"targets": [True, False]}, "targets are whole numbers, not bool"),
        ({"targets": ["a", "b"]}, "targets are whole numbers"),
        ({"positions": [0.0, 1.0]}, "positions are whole numbers"),
        ({"choices": [1.0, 2.0]}, "choices are whole numbers, not float64"),
    ],
)
def test_a_batch_that_does_not_fit_together_is_refused(arrays, message):
    fitting = {"ids": [[1, 2, 3], [4, 5, 6]], "lengths": [3, 2], "targets": [0, 1]}
    Batch(**fitting)
    with pytest.raises(MiniptError, match=message):
        Batch(**fitting | arrays)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": [[1, 17]]}, "ids lie outside 0 to 16"),
        ({"ids": [[-1, 1]]}, "ids lie outside"),
        ({"targets": [17]}, "targets lie outside 0 to 16"),
        ({"targets": [-1]}, "targets lie outside"),
        ({"targets": [2], "choices": [3, 4]}, "targets lie outside 0 to 1"),
        ({"choices": [3, 17]}, "choices lie outside 0 to 16"),
        ({"ids": [[1] * 14], "lengths": [14]}, "3 prompt vectors and 14 tokens exceed the 16"),
    ],
)
@pytest.mark.parametrize(
    "ask", [loss_and_gradient, lambda base, prompt, batch: logits(base, batch, prompt)]
)
def test_a_batch_for_another_base_is_refused(arrays, message, ask):
    base = random_base(0)
    fitting = {"ids": [[1, 2]], "lengths": [2], "targets": [0]}
    ask(base, random_prompt(base, 3), Batch(**fitting))
    with pytest.raises(MiniptError, match=message):
        ask(base, random_prompt(base, 3), Batch(**fitting | arrays))


def test_the_last_position_may_be_used():
    base = random_base(0)
    batch = random_batch(base, texts=2, tokens=13)
    loss, _ = loss_and_gradient(base, random_prompt(base, 3), batch)
    assert np.isfinite(loss)


def test_a_prompt_of_another_width_and_an_unknown_wiring_are_refused():
    base = random_base(0)
    batch = random_batch(base, 2, 3)
    narrow = SoftPrompt(np.zeros((3, 7), np.float32), base.fingerprint, base.name)
    with pytest.raises(MiniptError, match=r"needs vectors of 8 channels.*\(3, 7\)"):
        loss_and_gradient(base, narrow, batch)
    none = SoftPrompt(np.zeros((0, 8), np.float32), base.fingerprint, base.name)
    with pytest.raises(MiniptError, match=r"needs vectors of 8 channels.*\(0, 8\)"):
        loss_and_gradient(base, none, batch)
    with pytest.raises(MiniptError, match="unknown wiring 'serial': choose one of shared"):
        loss_and_gradient(base, random_prompt(base, 3), batch, wiring="serial")


def test_the_bases_parameters_do_not_learn_beside_a_prompt():
    base = random_base(0)
    gradients = {"choices": None, "h0.ln1.gain": None}
    with pytest.raises(MiniptError, match=r"h0\.ln1\.gain does not learn beside a prompt"):
        loss_and_gradient(
            base, random_prompt(base, 3), random_batch(base, 2, 3), None, None, gradients
        )


@pytest.mark.parametrize(("T", "in_blocks"), [(LONG_TEXT - 1, False), (LONG_TEXT, True)])
def test_long_texts_keep_no_weights_and_watched_ones_do(T: int, in_blocks: bool):
    base = random_base(0, context=LONG_TEXT + 3)
    prompt, batch = random_prompt(base, 3), random_batch(base, 2, T)
    layout = StreamLayout(base, _text_stream(base, batch, None), tape := Tape())
    model.forward(layout)
    assert ("text.h0.attn.log_sums" in tape.saved) == in_blocks
    assert ("text.h0.attn.weights" in tape.saved) != in_blocks
    loss_and_gradient(base, prompt, batch, trace := Trace())
    assert trace["text.h0.attn.weights"].shape == (2, 2, T, 3 + T)
