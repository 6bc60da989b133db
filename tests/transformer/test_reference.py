"""minipt against stored steps of transformers' models: no framework is needed to compare them."""

from pathlib import Path

import numpy as np
import pytest
from helpers.comparison import State, assert_matches

import minipt

HERE = Path(__file__).parents[1] / "reference"
STATES = sorted(path.parent.name for path in HERE.glob("*/state.safetensors"))


def test_the_states_are_there():
    assert STATES == ["bert", "choices", "encoder", "llama", "ragged", "smallest"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", STATES)
def test_every_intermediate_and_gradient_is_as_stored(name: str, dtype: type):
    base = minipt.load_base(HERE / name).astype(dtype)
    assert_matches(base, State.load(HERE / name / "state.safetensors"))


@pytest.mark.parametrize("factor", [1.0001, np.nan])
@pytest.mark.parametrize("kind", ["activations", "gradients"])
@pytest.mark.parametrize("name", ["ragged", "llama", "bert", "encoder"])
def test_one_part_in_ten_thousand_is_seen_wherever_it_is(name: str, kind: str, factor: float):
    """The comparison itself: no array may be changed unseen, nor be no number."""
    base = minipt.load_base(HERE / name).astype(np.float64)
    state = State.load(HERE / name / "state.safetensors")
    arrays = getattr(state, kind)
    # At the bottom minipt's trace has the gradient of the prompt's vectors only.
    below = {"embedding", "embedding.norm"} if kind == "gradients" else set()
    if kind == "gradients" and not base.config.causal:
        below |= {f"h0.attn.{part}" for part in ("query", "key", "value")}
    for changed in arrays.keys() - below:
        array = arrays[changed]
        arrays[changed] = factor * array
        with pytest.raises(AssertionError, match="differs by"):
            assert_matches(base, state)
        arrays[changed] = array
    assert_matches(base, state)


def test_the_stored_batch_has_padding():
    """Otherwise leaving padding out of the comparison would be untested."""
    batch = State.load(HERE / "ragged" / "state.safetensors").batch
    assert batch.lengths.min() < batch.ids.shape[1]
