"""`minipt.plain`: both wirings equal the library's, to 1e-12, and the gradient is right."""

import ast
from pathlib import Path

import numpy as np
import pytest
from helpers.bases import BERT, LLAMA, random_base, random_batch, random_prompt

import minipt
from minipt import plain
from minipt.maths.gradcheck import check_gradient, compare

TOLERANCE = 1e-12
CASES = {
    "ragged": {"P": 3, "texts": 4, "tokens": 6},
    "one vector": {"P": 1, "texts": 3, "tokens": 5},
    "one token": {"P": 2, "texts": 2, "tokens": 1},
    "one of all": {"P": 1, "texts": 1, "tokens": 1, "layers": 1},
    "one layer": {"P": 4, "texts": 3, "tokens": 5, "layers": 1},
    "three layers, one head": {"P": 2, "texts": 3, "tokens": 4, "layers": 3, "heads": 1},
    "choices": {"P": 3, "texts": 4, "tokens": 6, "choices": 3},
    "read inside": {"P": 3, "texts": 4, "tokens": 6, "choices": 2, "middle": True},
    "an output table": {"P": 2, "texts": 3, "tokens": 4, "tied": False},
}
NAMES = ("linear", "linear_dx", "layernorm", "attention", "attention_dscores", "cross_entropy")
OPS = {name: getattr(plain.ops, name) for name in NAMES}
each_wiring = pytest.mark.parametrize("wiring", ["shared", "concatenated"])


def make(P, texts, tokens, choices=0, middle=False, seed=1, **sizes):
    base = random_base(seed, **sizes).astype(np.float64)
    return base, random_prompt(base, P), random_batch(base, texts, tokens, 2, choices, middle)


@each_wiring
@pytest.mark.parametrize("case", CASES)
def test_equals_the_library(case, wiring):
    base, prompt, batch = make(**CASES[case])
    loss, gradient = getattr(plain, wiring)(base, prompt.vectors, batch)
    for way in ("shared", "concatenated"):
        expected, d_expected = minipt.loss_and_gradient(base, prompt, batch, wiring=way)
        assert loss == pytest.approx(expected, rel=TOLERANCE)
        assert compare("gradient", gradient, d_expected) < TOLERANCE


@each_wiring
def test_answers_of_several_tokens_equal_the_librarys(wiring):
    base, prompt, _ = make(2, 1, 1)
    ids = np.random.default_rng(0).integers(0, 17, (2, 5))
    batch = minipt.Batch(ids, [5, 3], np.array([[4, 2, 7], [-1, 3, 1]]))
    loss, gradient = getattr(plain, wiring)(base, prompt.vectors, batch)
    expected, d_expected = minipt.loss_and_gradient(base, prompt, batch)
    assert loss == pytest.approx(expected, rel=TOLERANCE)
    assert compare("gradient", gradient, d_expected) < TOLERANCE


@each_wiring
def test_gradient_equals_finite_differences(wiring):
    base, prompt, batch = make(**CASES["ragged"])
    step = getattr(plain, wiring)
    _, gradient = step(base, prompt.vectors, batch)
    assert check_gradient(lambda x: step(base, x, batch)[0], prompt.vectors, gradient) < 1e-7


@each_wiring
def test_float32_stays_float32(wiring, monkeypatch):
    base = random_base(1)
    prompt, batch = random_prompt(base, 3), random_batch(base, 4, 6)
    seen = set()
    for name in OPS:

        def noted(x, *rest, op=OPS[name]):
            seen.update(array.dtype for array in (x, *rest) if isinstance(array, np.ndarray))
            return op(x, *rest)

        monkeypatch.setattr(plain.ops, name, noted)
    _, gradient = getattr(plain, wiring)(base, prompt.vectors, batch)
    assert gradient.dtype == np.float32
    assert {dtype for dtype in seen if dtype.kind == "f"} == {np.dtype(np.float32)}


def test_vectors_and_base_are_left_alone():
    base, prompt, batch = make(**CASES["ragged"])
    before, fingerprint = prompt.vectors.copy(), base.fingerprint
    plain.shared(base, prompt.vectors, batch)
    plain.concatenated(base, prompt.vectors, batch)
    assert (prompt.vectors == before).all()
    assert base.fingerprint == fingerprint


@each_wiring
@pytest.mark.parametrize(
    "fields", [LLAMA, BERT, {"activation": "silu"}, {"gated": True}, {"attention_bias": False}]
)
def test_another_family_is_refused(fields, wiring):
    base = random_base(1, **fields)
    with pytest.raises(ValueError, match="is not GPT-2: use minipt"):
        getattr(plain, wiring)(base, random_prompt(base, 2).vectors, random_batch(base, 2, 3))


@each_wiring
def test_choices_that_are_vectors_are_refused(wiring):
    base = random_base(1)
    batch = minipt.Batch([[1, 2]], [2], [0], np.ones((2, 8), np.float32))
    with pytest.raises(ValueError, match="a choice is one token here"):
        getattr(plain, wiring)(base, random_prompt(base, 2).vectors, batch)


def test_reads_at_two_screens_and_uses_only_ops():
    text = Path(plain.__file__).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 140
    nodes = list(ast.walk(ast.parse(text)))
    imported = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imported] == [
        "import numpy as np",
        "from minipt.maths import ops",
    ]
    assert not any(isinstance(node, ast.ClassDef) for node in nodes)
