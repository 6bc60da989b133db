"""Texts with prompts of their own in one pass: the same answers as one prompt after another."""

import numpy as np
import pytest
from helpers.bases import FAMILIES, random_base, random_batch, random_prompt

from minipt.maths.gradcheck import compare
from minipt.prompting.mixed import hidden_of_each
from minipt.prompting.wiring import hidden_after, run_prompt


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("T", [6, 80])
@pytest.mark.parametrize("family", ["gpt2", "llama", "llama-with-biases"])
def test_one_pass_has_the_hidden_states_of_several(family: str, T: int, dtype: type):
    base = random_base(1, context=100, **FAMILIES[family]).astype(dtype)
    prompts = [random_prompt(base, P, seed=P) for P in (1, 5, 12)]
    parts = [
        (run_prompt(base, prompt), random_batch(base, texts, tokens, seed=texts))
        for prompt, texts, tokens in zip(prompts, (3, 1, 4), (T, 4, T - 1), strict=True)
    ]
    parts.append((run_prompt(base, None) or parts[0][0], random_batch(base, 2, 5)))
    together = hidden_of_each(base, parts)
    for (past, batch), hidden in zip(parts, together, strict=True):
        alone = hidden_after(base, batch, past)
        assert compare("hidden", hidden, alone) < (1e-5 if dtype == np.float32 else 1e-12)
