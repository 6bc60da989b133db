"""The whole idea, for GPT-2, in functions on arrays: read this file first.

A prompt is P vectors in front of the text, and the base is frozen. `concatenated` is the textbook:
a copy of the prompt stands in front of each of B texts, and B·(P+T) rows go through the layers.
`shared` uses that no text changes what a causal prompt computes. The prompt goes through the layers
once, and all texts read the keys and values that it leaves there: P + B·T rows.

    vectors (P, C) --> block --> block --> ...             the gradient takes every arrow back
                         | keys, values (H, P, D)
    text (B, T, C) --> block --> block --> ... --> loss

The rest of minipt does the same for three families, with a name for every array and in less time: a
step of this file takes 1.2 to 1.6 times as long. `maths/ops.py` derives every op. Shapes: B texts,
P vectors, T tokens, C channels, H heads, D = C / H, F in the MLP, N answers, K choices.
"""

import numpy as np

from minipt.maths import ops

NOBODY = (0.0, 0.0)  # the gradients of keys and values that nobody else reads


def shared(base, vectors, batch):
    """The prompt runs once for all texts. -> loss, d loss / d vectors (P, C)"""
    prompt = embed(base, vectors.astype(base.dtype)[None], 0)  # (1, P, C)
    text = embed(base, base.params["token.table"][batch.ids], len(vectors))  # (B, T, C)
    unread, prompt_kv, saved_prompt = forward(base, prompt)  # kv (1, H, P, D) twice a block
    hidden, _, saved_text = forward(base, text, [(key[0], value[0]) for key, value in prompt_kv])
    loss, dhidden = read_out(base, hidden, batch, batch.answer_rows)
    _, dprompt_kv = backward(base, dhidden, saved_text, [NOBODY] * base.config.layers)
    dprompt, _ = backward(base, np.zeros_like(unread), saved_prompt, dprompt_kv)
    return loss, dprompt[0]


def concatenated(base, vectors, batch):
    """A copy of the prompt stands in front of every text. -> the same loss and gradient"""
    B, P = len(batch.ids), len(vectors)
    prompts = np.broadcast_to(vectors.astype(base.dtype), (B, *vectors.shape))  # (B, P, C)
    tokens = base.params["token.table"][batch.ids]  # (B, T, C)
    x = embed(base, np.concatenate([prompts, tokens], axis=1), 0)  # (B, P+T, C)
    hidden, _, saved = forward(base, x)
    loss, dhidden = read_out(base, hidden, batch, batch.answer_rows + P)
    dx, _ = backward(base, dhidden, saved, [NOBODY] * base.config.layers)  # (B, P+T, C)
    return loss, dx[:, :P].sum(0)  # the same vectors stand in front of every text


def forward(base, x, past=None):
    """All blocks, behind a past. -> x (B, T, C), keys and values of each block, what it saves"""
    config = base.config
    empty = np.empty((config.heads, 0, config.channels // config.heads), x.dtype)  # (H, P = 0, D)
    own_kv, saved = [None] * config.layers, [None] * config.layers
    for i, past_kv in enumerate(past or [(empty, empty)] * config.layers):
        x, own_kv[i], saved[i] = block(base, f"h{i}", x, past_kv)
    return x, own_kv, saved


def backward(base, dx, saved, dkv_from_readers):
    """`forward` from its last block to its first. -> dx (B, T, C), d past_kv of each block"""
    dpast = [None] * len(saved)
    for i in reversed(range(len(saved))):
        dx, dpast[i] = block_dx(base, f"h{i}", dx, saved[i], dkv_from_readers[i])
    return dx, dpast


def block(base, at, x, past_kv):
    """x + attention(norm(x)), then the same with the MLP. x (B, T, C), past_kv (H, P, D) twice"""
    # Row t reads the columns s <= t: no padding, since that stands behind all real tokens.
    mask = np.triu(np.full((x.shape[1],) * 2, -np.inf, x.dtype), k=1)  # (T, T)
    normed, *ln1 = norm(base, f"{at}.ln1", x)
    parts = [linear(base, f"{at}.attn.{part}", normed) for part in ("query", "key", "value")]
    query, key, value = (ops.split_heads(part, base.config.heads) for part in parts)  # (B, H, T, D)
    query *= query.shape[-1] ** -0.5
    context, weights, _ = ops.attention(query, key, value, past_kv, mask)  # weights (B, H, T, P+T)
    middle = x + linear(base, f"{at}.attn.out", ops.merge_heads(context))  # (B, T, C)
    normed, *ln2 = norm(base, f"{at}.ln2", middle)
    up = linear(base, f"{at}.mlp.up", normed)  # (B, T, F)
    activated, y_over_x = ops.gelu(up)
    out = middle + linear(base, f"{at}.mlp.down", activated)  # (B, T, C)
    return out, (key, value), (ln1, query, key, value, past_kv, weights, ln2, up, y_over_x)


def block_dx(base, at, dout, saved, dkv_from_readers):
    """`block` from its last line to its first. -> dx (B, T, C), d past_kv (H, P, D) twice"""
    ln1, query, key, value, (past_key, past_value), weights, ln2, up, y_over_x = saved
    dup = ops.gelu_dx(linear_dx(base, f"{at}.mlp.down", dout), up, y_over_x)  # (B, T, F)
    dnormed = linear_dx(base, f"{at}.mlp.up", dup)  # (B, T, C)
    dmiddle = dout + ops.layernorm_dx(dnormed, base.params[f"{at}.ln2.gain"], *ln2)
    dcontext = ops.split_heads(linear_dx(base, f"{at}.attn.out", dmiddle), query.shape[1])
    _, dscores = ops.attention_dscores(dcontext, value, past_value, weights)  # (B, H, T, P+T)
    dpast_kv = ops.attention_dpast(dcontext, dscores, query, weights, past_key)  # Σ over texts
    dparts = ops.attention_dx(dcontext, dscores, query, key, past_key, weights, key.shape[2])
    dquery, dkey, dvalue = dparts  # (B, H, T, D)
    dkey += dkv_from_readers[0]  # in the prompt's blocks: here the texts' gradients enter its keys
    dvalue += dkv_from_readers[1]  # and its values
    dnormed = linear_dx(base, f"{at}.attn.query", ops.merge_heads(dquery) * query.shape[-1] ** -0.5)
    dnormed += linear_dx(base, f"{at}.attn.key", ops.merge_heads(dkey))
    dnormed += linear_dx(base, f"{at}.attn.value", ops.merge_heads(dvalue))
    return dmiddle + ops.layernorm_dx(dnormed, base.params[f"{at}.ln1.gain"], *ln1), dpast_kv


def read_out(base, hidden, batch, answer_rows):
    """The rows that answer, their mean loss, and back. hidden (B, T, C) -> loss, dhidden"""
    if np.ndim(batch.choices) > 1 or batch.labels is not None:
        raise ValueError("a choice is one token here: use minipt.loss_and_gradient")
    at = batch.counted.nonzero()[0], answer_rows[batch.counted]  # texts (N,), rows (N,)
    features, *final = norm(base, "final", hidden[at])  # (N, C)
    table = base.params.get("output.table", base.params["token.table"])  # (V, C)
    table = table if batch.choices is None else table[batch.choices]  # (K, C)
    targets, logits = batch.counted_targets, features @ table.T  # (N,), (N, K)
    losses, probabilities = ops.cross_entropy(logits, targets)  # (N,), (N, K)
    dlosses = np.full_like(losses, 1 / len(losses))
    dfeatures = ops.cross_entropy_dx(dlosses, probabilities, targets) @ table  # (N, C)
    dhidden = np.zeros_like(hidden)
    dhidden[at] = ops.layernorm_dx(dfeatures, base.params["final.gain"], *final)
    return float(losses.mean()), dhidden


def embed(base, x, start):
    """Vectors or token embeddings (B, T, C) at the positions from `start` on; GPT-2's only."""
    gpt2, fields = vars(type(base.config)), vars(base.config) | {"tied": True}  # or not tied
    if any(gpt2.get(name, value) != value for name, value in fields.items()):  # its defaults
        raise ValueError(f"base {base.name!r} is not GPT-2: use minipt.loss_and_gradient")
    return x + base.params["position.table"][start : start + x.shape[1]]


def linear(base, name, x):
    """x (..., I) times the weight (I, J) of this name, plus its bias (J,)"""
    return ops.linear(x, base.params[f"{name}.weight"], base.params[f"{name}.bias"])


def linear_dx(base, name, dy):
    """dy (..., J) -> dx (..., I)"""
    return ops.linear_dx(dy, base.params[f"{name}.weight"])


def norm(base, name, x):
    """y, and xhat and rstd for the way back"""
    gain, bias = base.params[f"{name}.gain"], base.params[f"{name}.bias"]
    return ops.layernorm(x, gain, bias, base.config.epsilon)
