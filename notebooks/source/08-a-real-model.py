# %% [markdown]
# # 8. A real model, and another family
#
# **You will** take one step in front of a Llama and of a BERT, and compare every array with the
# library's. You write what the two families have and GPT-2 has not: RMS norm, rotary positions,
# grouped heads, a mask in both directions, pooling. At the end three families learn.
#
# **You will learn** what changes between the families and what stays. You see why a BERT's prompt
# cannot be shared, and what goes wrong if the prompt itself is part of the answer.
#
# **You need** chapters 2 and 3. **Time:** 90 minutes. Exercise 8i is a task for home.
#
# Chapters 2 and 3 took one step in front of a small GPT-2 (Radford et al. 2019). This chapter
# takes the same step in front of a Llama (Touvron et al. 2023) and in front of a BERT (Devlin et
# al. 2019). Embedding, softmax, linear maps and the residual do not change.
#
# | | | | |
# |---|---|---|---|
# | B | texts | C | channels |
# | P | prompt vectors | H | heads |
# | T | tokens | Hkv | heads that have keys and values |
# | S | rows, P + T | D | channels a head, C / H |
# | K | label words | F | channels inside the MLP |
# | R | rows with a query | L | layers (blocks) |

# %%
import json
import math
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from safetensors.numpy import load_file

import minipt
from minipt import course
from minipt.course import chapter08
from minipt.learning.optimizers import Adam
from minipt.loading.named_bases import base_is_here
from minipt.maths import ops
from minipt.maths.gradcheck import check_gradient, compare
from minipt.prompting.readout import TEMPERATURE
from minipt.prompting.text import batches, encode
from minipt.prompting.verbalizer import embed, question_format
from minipt.transformer.base import Base, parameter_shapes

SEED = 0
plt.rcParams.update({"figure.dpi": 72, "font.size": 13, "image.cmap": "Greys"})
course.begin(8)


def agrees(name, ours, reference, tolerance=1e-9):
    difference = compare(name, ours, reference)
    assert difference < tolerance, f"{name} differs by {difference:.1e}"
    print(f"{name:<22} {np.shape(ours)!s:<16} differs by {difference:.0e}")


# %% [markdown]
# ## Three bases
#
# The Llama is SmolLM2-135M-Instruct (Ben Allal et al. 2025), from weights of 4 bits. The BERT is
# all-MiniLM-L6-v2, which was trained to embed sentences (Reimers and Gurevych 2019). This chapter
# fetches nothing. If a model is not in your cache, a small one of its family stands in, made of
# random numbers. Every check holds for it too, but its answers mean nothing. To have the real
# models, run `minipt.load_base("smollm2-135m")` and `minipt.load_base("minilm")` once, and start
# again.

# %%
for name in ("smollm2-135m", "minilm"):
    here = base_is_here(name)
    print(name, "out of the cache" if here else "is not in the cache: a small model stands in")
tiny = minipt.load_base("tiny")
smollm2, minilm = chapter08.llama(), chapter08.encoder()
families = {"GPT-2": tiny, "Llama": smollm2, "BERT": minilm}
fingerprints = [base.fingerprint for base in families.values()]
for family, base in families.items():
    print(f"{family:<6} {base.name}")

# %% [markdown]
# The families differ in the fields of `Config`, not in classes. `minipt/transformer/model.py` has
# one forward and one backward, and takes the norm and the activation from two small tables.

# %%
fields = ["layers", "channels", "heads", "key_value_heads", "hidden", "vocabulary", "context"]
fields += ["norm", "norm_first", "positions", "activation", "gated", "attention_bias", "mlp_bias"]
fields += ["causal", "segments", "tied", "head"]


def table(title, rows, columns):  # columns: for each family what stands in a row, by its name
    print(f"{title:<18}" + "".join(f"{family:>18}" for family in families))
    for row in rows:
        print(f"{row:<18}" + "".join(f"{column.get(row, '-')!s:>18}" for column in columns))


table("Config", fields, [vars(base.config) for base in families.values()])
print(f"{'parameters':<18}" + "".join(f"{base.size:>18,}" for base in families.values()))

# %% [markdown]
# The table shows what block 0 of each model is made of. A Llama has no biases. Its maps for keys
# and values are narrow, and its MLP has one matrix more.

# %%
blocks = [
    {name[3:]: array.shape for name, array in base.params.items() if name.startswith("h0.")}
    for base in families.values()
]
table("block 0", blocks[0] | blocks[1], blocks)

# %% [markdown]
# **Tokens.** Each base has a tokenizer of its own, and with it a vocabulary. `Ġ` is a leading
# space and `Ċ` the end of a line. MiniLM knows lower case only, and its tokens that continue a
# word begin with `##`. A BERT's tokenizer also adds two special tokens, as in its training:
# `[CLS]` in front and `[SEP]` at the end. The prompt stands in front of `[CLS]`.

# %%
message = "The soup was lukewarm, 1 of 5 stars."
for family, base in families.items():
    (ids,), _ = encode(base, "{text}", [message], base.config.context)
    pieces = [base.tokenizer.id_to_token(i) for i in ids]
    print(f"{family:<6} {len(ids):2d} tokens:", *pieces)


# %% [markdown]
# **One step, traced.** We compute in float64, to see ten digits or more, and stop after the first
# two blocks. Two blocks of the real model, with the read-out behind them, are a model too. The
# whole models come at the end. The right answer is "negative", label 0.


# %%
def first_blocks(base, layers=2):
    config = replace(base.config, layers=layers)
    params = {name: base.params[name].astype(np.float64) for name in parameter_shapes(config)}
    return Base(base.name, config, params, base.tokenizer)


def ask(base):
    question = question_format(base, "{text}\nSentiment:", (" negative", " positive"))
    (ids,), _ = encode(base, question.template, [message], base.config.context)
    return minipt.Batch(ids[None], [len(ids)], [0], question.choices)  # (B, T), B = 1


def one_step(base):
    batch = ask(base)
    prompt = minipt.init_prompt(base, length=5, method="vocab", seed=0)
    trace = minipt.Trace()
    loss, gradient = minipt.loss_and_gradient(base, prompt, batch, trace, wiring="concatenated")
    return prompt, batch, trace, loss, gradient


llama, bert = first_blocks(smollm2), first_blocks(minilm)
prompt, batch, trace, loss, gradient = one_step(llama)
bert_prompt, bert_batch, bert_trace, bert_loss, bert_gradient = one_step(bert)
p, b = llama.params, bert.params
P, T = len(prompt.vectors), batch.ids.shape[1]
S = P + T
H, Hkv = llama.config.heads, llama.config.key_value_heads
D = llama.config.channels // H


# %% [markdown]
# The table lists what the step computes in block 0, by name, in the order of the Llama. The Llama
# has two arrays more, those of its gated MLP. In a BERT `ln1` comes after `middle` and `ln2` after
# `out`.


# %%
def shapes(trace):
    helpers = ("xhat", "rstd", "y_over_x")  # what only an op's backward needs
    return {
        name.removeprefix("text.h0."): array.shape
        for name, array in trace.activations.items()
        if name.startswith("text.h0.") and not name.endswith(helpers)
    }


tiny_trace = one_step(first_blocks(tiny))[2]
table("text.h0.", shapes(trace), [shapes(one) for one in (tiny_trace, trace, bert_trace)])


# %% [markdown]
# ## Norm
#
# Layer norm (Ba, Kiros and Hinton 2016) subtracts a row's mean, divides by its standard deviation,
# scales and shifts. **RMS norm** (Zhang and Sennrich 2019) only divides by the root mean square
# and scales:
#
# $$\hat x_i = x_i r, \qquad r = \Big(\tfrac1C \sum_j x_j^2 + \epsilon\Big)^{-1/2}, \qquad
# y_i = g_i \hat x_i.$$
#
# A Llama's block begins with RMS norm. A BERT's embeddings go through layer norm once, before
# block 0.


# %%
def rms_norm(x, name):
    rstd = (np.mean(x**2, axis=-1, keepdims=True) + llama.config.epsilon) ** -0.5
    return p[f"{name}.gain"] * x * rstd


def layer_norm(x, name):
    centred = x - x.mean(-1, keepdims=True)
    rstd = (np.mean(centred**2, axis=-1, keepdims=True) + bert.config.epsilon) ** -0.5
    return b[f"{name}.gain"] * centred * rstd + b[f"{name}.bias"]


x = trace["text.embedding"]  # (B, S, C)
normed = rms_norm(x, "h0.ln1")
agrees("h0.ln1", normed, trace["text.h0.ln1"])
bert_x = layer_norm(bert_trace["text.embedding"], "embedding.norm")
agrees("embedding.norm, BERT", bert_x, bert_trace["text.embedding.norm"])
for one, name in ((trace, "h0.ln1"), (bert_trace, "embedding.norm")):
    xhat = one[f"text.{name}.xhat"][0, -1]  # (C,)
    print(f"{name:<15} last row: mean {xhat.mean():7.4f}, mean square {np.mean(xhat**2):.4f}")

# %% [markdown]
# On the way back, $x_i$ reaches $\hat x_j$ directly, if $j = i$, and through $r$. Since
# $\partial r / \partial x_i = -r^3 x_i / C = -r^2 \hat x_i / C$,
#
# $$\frac{\partial \hat x_j}{\partial x_i} = r\left([i = j] - \frac{\hat x_i \hat x_j}{C}\right).$$
#
# ### 8a. RMS norm, backward (level 2, 10 min)
#
# `dy` is the gradient of the loss by $y$. Sum over $j$, and return the gradient by $x$. The
# forward pass has left `xhat` and `rstd`, which is $r$.


# %%
def rms_norm_dx(dy, gain, xhat, rstd):
    """dy (..., C), gain (C,), xhat (..., C), rstd (..., 1) -> dx (..., C)"""
    # solution: r (d less xhat times the mean of d xhat), d = gain dy
    d = gain * dy
    return rstd * (d - xhat * (d * xhat).mean(-1, keepdims=True))
    # end


course.check("8a", rms_norm_dx)

# %% [markdown]
# <details><summary>Hint</summary>
#
# $dx_i = \sum_j \hat d_j\, \partial \hat x_j / \partial x_i$ with $\hat d_j = g_j\, dy_j$. The sum
# over $j$ of $\hat d_j \hat x_j / C$ is a mean over the last axis, one number a row.
#
# </details>
#
# This is layer norm's formula without the term of the mean: $dx_i = r\,(\hat d_i - \hat x_i\,
# \text{mean}(\hat d\, \hat x))$.
#
# ### 8b. The lost direction (level 1, 5 min)
#
# Layer norm forgets a row's mean and its length. What does RMS norm forget? There is one direction
# in which a small step from `x` changes no output (apart from $\epsilon$). Return it: a step of
# length 1 that makes the row longer.


# %%
def lost_direction(x, gain):
    """One row x (C,), gain (C,) -> a direction of length 1, (C,)"""
    # solution: the direction in which only the length of x changes
    return x / np.linalg.norm(x)
    # end


course.check("8b", lost_direction)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Whatever `dy` is, `rms_norm_dx` is orthogonal to this direction. Which vector did you project
# away in 8a?
#
# </details>
#
# The library's op goes on from here. The residual adds the gradient that goes past attention. In
# block 1, the last one here, only the row that is read has such a gradient.


# %%
def llama_norm_dx(dy, name):
    return ops.rmsnorm_dx(
        dy, p[f"{name}.gain"], trace[f"text.{name}.xhat"], trace[f"text.{name}.rstd"]
    )


dx = llama_norm_dx(trace.grad("text.h1.ln1"), "h1.ln1")  # (B, S, C)
rows = trace["text.h0.out"]  # (B, S, C): what the norm of block 1 read
along = np.abs((dx * rows).sum(-1)) / np.linalg.norm(dx, axis=-1) / np.linalg.norm(rows, axis=-1)
print(f"cosine of the gradient and its row: {along.max():.0e} at the most")
dx[:, -1:] += trace.grad("text.h1.middle")
agrees("d h0.out", dx, trace.grad("text.h0.out"))

# %% [markdown]
# ## Positions
#
# GPT-2 and BERT add a row of a position table to each token's row. A BERT adds one more row for
# the segment, which is always the first segment here. **Rotary positions** (Su et al. 2021) add
# nothing: they rotate queries and keys. Of a head's D channels, $i$ and $i + D/2$ are the
# coordinates of a point in a plane. At position $t$ this point is rotated by the angle
#
# $$\varphi_{ti} = t \cdot \theta^{-2i/D}, \qquad i = 0, \dots, D/2 - 1,$$
#
# where $\theta$ is `rotary_base`. The first pair rotates fast, the last slowly:
#
# $$y_i = x_i \cos\varphi_{ti} - x_{i+D/2} \sin\varphi_{ti}, \qquad
# y_{i+D/2} = x_{i+D/2} \cos\varphi_{ti} + x_i \sin\varphi_{ti}.$$
#
# (The paper pairs neighbours, $2i$ and $2i + 1$; that is only another order of the channels.)
#
# ### 8c. Rotary positions (level 2, 10 min)
#
# Write the rotation. `angles` has the angle of each row and pair.


# %%
def turn(x, angles):
    """x (..., S, D), angles (S, D/2) -> same as x"""
    # solution: both halves of the channels, rotated
    one, two = np.split(x, 2, axis=-1)  # (..., S, D/2) each
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([one * cos - two * sin, two * cos + one * sin], axis=-1)
    # end


course.check("8c", turn)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `one, two = np.split(x, 2, axis=-1)` are the first coordinates of all points and the second.
# `np.concatenate([..., ...], axis=-1)` puts two halves together. Or take a pair as a complex
# number: then the rotation is a product with `np.exp(1j * angles)`.
#
# </details>

# %%
paces = llama.config.rotary_base ** (-2 * np.arange(D // 2) / D)  # (D/2,)
cos, sin = ops.rotary_angles(np.arange(S), D, llama.config.rotary_base, np.float64)  # (S, D)


def heads(x):  # (B, S, C) -> (B, H, S, D), of keys and values (B, Hkv, S, D)
    return x.reshape(*x.shape[:2], -1, D).transpose(0, 2, 1, 3)


def merge(x):  # (B, H, S, D) -> (B, S, C)
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


query = ops.rotary(heads(normed @ p["h0.attn.query.weight"]), cos, sin) / D**0.5
key = ops.rotary(heads(normed @ p["h0.attn.key.weight"]), cos, sin)
value = heads(normed @ p["h0.attn.value.weight"])
agrees("h0.attn.query", query, trace["text.h0.attn.query"])
agrees("h0.attn.key", key, trace["text.h0.attn.key"])
agrees("h0.attn.value", value, trace["text.h0.attn.value"])
rounds = 2 * np.pi / paces
print(f"pair 0 comes round after {rounds[0]:.1f} positions, the last after {rounds[-1]:,.0f}")

# %% [markdown]
# If both points are rotated by one more angle, their inner product stays the same. So a score
# depends on how far apart two rows stand, and not on where they stand. The left picture shows the
# cosines of the angles. The slow pairs hardly rotate within a text, and compare rows almost as if
# they had no position. The right picture shows the products of one query at each position $r$ with
# one key at each position $s$. Along a diagonal they are equal.

# %%
q, k = np.random.default_rng(0).standard_normal((2, 1, D))
far = ops.rotary_angles(np.arange(80), D, llama.config.rotary_base, np.float64)  # (80, D) each
places = [each[:40] for each in far]
products = ops.rotary(q, *places) @ ops.rotary(k, *places).T  # (40, 40)
agrees("one row further", products[1:, 1:], products[:-1, :-1])
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=(2, 1))
cosine = far[0][:, : D // 2].T
left.imshow(cosine, aspect="auto", vmin=-1, vmax=1, interpolation="nearest")
left.set(xlabel="position t", ylabel="pair i", title="cosine of the angle: black 1, white -1")
right.imshow(products, interpolation="nearest")
right.set(xlabel="position s of the key", ylabel="position r of the query", title="rotated q · k")
figure.tight_layout()

# %% [markdown]
# **Without turning** a causal row would not know the order of the rows before it. We exchange two
# tokens of the text and look at the last row's context in block 0. Which row's query does not
# change by turning?


# %%
def last_context(rows, cos, sin):
    """The last row's context (H, D) in block 0, of rows (S, C) in front of it and itself."""
    normed = rms_norm(rows, "h0.ln1")[None]
    query = ops.rotary(heads(normed @ p["h0.attn.query.weight"]), cos, sin)[:, :, -1:] / D**0.5
    key = ops.rotary(heads(normed @ p["h0.attn.key.weight"]), cos, sin).repeat(H // Hkv, axis=1)
    value = heads(normed @ p["h0.attn.value.weight"]).repeat(H // Hkv, axis=1)
    return (ops.softmax(query @ key.swapaxes(-1, -2)) @ value)[0, :, 0]


order = np.arange(S)
order[[P, S - 2]] = order[[S - 2, P]]  # the first token of the text and the last but one
still = np.ones_like(cos), np.zeros_like(sin)  # of the angle 0
changes = [
    compare("context", last_context(x[0, order], *angles), last_context(x[0], *angles))
    for angles in (still, (cos, sin))
]
print("the last row's context changes by {:.0e} without turning, {:.0e} with it".format(*changes))
assert changes[0] < 1e-9 < 1e-6 < changes[1]
unturned = heads(normed @ p["h0.attn.query.weight"]) / D**0.5
same = [r for r in range(S) if np.allclose(query[0, :, r], unturned[0, :, r], atol=1e-12)]
print("rows whose query turning does not change:", same)

# %% [markdown]
# As in the other families, the prompt takes positions 0 to P − 1, and the text takes the positions
# from P on. In the shared wiring the prompt runs alone. The text finds the prompt's keys as a past
# of P rows. So the text's own keys are rotated from position P on, and come out the same.

# %%
once = minipt.Trace()
shared_loss, shared_gradient = minipt.loss_and_gradient(llama, prompt, batch, once, "shared")
agrees("the text's keys", key[:, :, P:], once["text.h0.attn.key"])
agrees("the prompt's keys", key[:, :, :P], once["prompt.h0.attn.key"])

# %% [markdown]
# ### 8d. Turning back (level 1, 5 min)
#
# `dy` is the gradient of the loss by the rotated rows. Return the gradient by the rows before the
# rotation. One line is enough, with your `turn` of 8c or without.


# %%
def turn_dx(dy, angles):
    """dy (..., S, D), angles (S, D/2) -> same as dy"""
    # solution: the gradient by the rows before the rotation
    return turn(dy, -angles)
    # end


course.check("8d", turn_dx)

# %% [markdown]
# <details><summary>Hint</summary>
#
# A rotation is a linear map, and its backward is the transposed map. For a rotation the transposed
# is the inverse. What undoes a rotation?
#
# </details>
#
# ## Heads
#
# GPT-2 and BERT have a key and a value for every head. In the Llama, H / Hkv neighbouring query
# heads share one key and one value (**grouped queries**, Ainslie et al. 2023). So the maps are
# narrower. Generation has to keep the keys and values of every row, and there are fewer of these
# too. In attention each key and value serves its whole group.


# %%
def spread(x):  # (B, Hkv, S, D) -> (B, H, S, D): the same one for each head of a group
    return x.repeat(H // Hkv, axis=1)


mask = np.where(np.arange(S) <= np.arange(S)[:, None], 0.0, -np.inf)  # (S, S)
scores = query @ spread(key).swapaxes(-1, -2) + mask  # (B, H, S, S)
weights = ops.softmax(scores.copy())
context = weights @ spread(value)  # (B, H, S, D)
agrees("h0.attn.scores", scores, trace["text.h0.attn.scores"])
agrees("h0.attn.context", context, trace["text.h0.attn.context"])
kept = 2 * smollm2.config.layers * D
print(f"kept for a row, all blocks: {kept * Hkv:,} numbers, and {kept * H:,} with {H} key heads")

# %% [markdown]
# The gradient of an array that is used several times is the sum over all its uses. So the gradient
# of a key is the sum over the queries of its group,
#
# $$dk_s = \sum_{h\, \in\, \text{group}} \sum_r da_{hrs}\, q_{hr}.$$
#
# The gradient of a value is such a sum too.
#
# ### 8e. A group's gradient (level 2, 5 min)
#
# `dx` has a gradient for each of H heads. Of neighbouring heads, as many as H / groups belong to
# one group. Return one gradient for each group.


# %%
def gather(dx, groups):
    """dx (B, H, S, D), groups the number of key heads -> (B, groups, S, D)"""
    # solution: the sum over the heads of each group
    B, H, S, D = dx.shape
    return dx.reshape(B, groups, H // groups, S, D).sum(2)
    # end


course.check("8e", gather)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `reshape` can split one axis into two: (B, H, S, D) into (B, groups, H / groups, S, D). Then
# heads that are neighbours lie along the third axis. The other order of the two new axes has the
# same shape in the end, and adds the wrong heads.
#
# </details>
#
# At the last block, where one row has a query. `np.add.reduceat` adds up what lies from one start
# to the next.


# %%
def sums(x):  # (B, H, S, D) -> (B, Hkv, S, D)
    return np.add.reduceat(x, np.arange(0, H, H // Hkv), axis=1)


dscores, dcontext = (trace.grad(f"text.h1.attn.{name}") for name in ("scores", "context"))
dkey = sums(dscores.swapaxes(-1, -2) @ trace["text.h1.attn.query"])
dvalue = sums(trace["text.h1.attn.weights"].swapaxes(-1, -2) @ dcontext)
dquery = dscores @ spread(trace["text.h1.attn.key"])  # (B, H, 1, D)
agrees("d h1.attn.key", dkey, trace.grad("text.h1.attn.key"))
agrees("d h1.attn.value", dvalue, trace.grad("text.h1.attn.value"))
agrees("d h1.attn.query", dquery, trace.grad("text.h1.attn.query"))

# %% [markdown]
# Back to the rows: we rotate keys and query back by the angles of their rows, and go through the
# three maps. Values were never rotated.

# %%
dnormed = merge(ops.rotary_dx(dkey, cos, sin)) @ p["h1.attn.key.weight"].T
dnormed += merge(dvalue) @ p["h1.attn.value.weight"].T
dturned = ops.rotary_dx(dquery, cos[-1:], sin[-1:]) / D**0.5
dnormed[:, -1:] += merge(dturned) @ p["h1.attn.query.weight"].T
agrees("d h1.ln1", dnormed, trace.grad("text.h1.ln1"))

# %% [markdown]
# ## Mask
#
# In a causal model a row reads itself and the rows before it. In a BERT a row reads all rows but
# padding. The pictures show the first block's weights, as means over the heads, and as square
# roots, so that small weights can be seen. The lines separate prompt and text.


# %%
def label_rows(base, batch):
    return [f"p{i}" for i in range(P)] + [base.tokenizer.id_to_token(i) for i in batch.ids[0]]


pictures = [("causal", llama, batch, trace), ("both directions", bert, bert_batch, bert_trace)]
figure, axes = plt.subplots(1, 2, figsize=(11, 5.6))
for axis, (title, base, one, seen) in zip(axes, pictures, strict=True):
    labels = label_rows(base, one)
    axis.imshow(seen["text.h0.attn.weights"][0].mean(0) ** 0.5, vmin=0, interpolation="nearest")
    axis.axhline(P - 0.5, color="C3", linewidth=1.2)
    axis.axvline(P - 0.5, color="C3", linewidth=1.2)
    axis.set_xticks(range(len(labels)), labels, rotation=90)
    axis.set_yticks(range(len(labels)), labels)
    axis.set(title=title, xlabel="row that is read")
axes[0].set_ylabel("row that reads")
figure.tight_layout()

# %% [markdown]
# In a batch of texts of different length the shorter ones are padded on the right. The causal mask
# hides padding from every real row, since padding stands behind them. A BERT needs a mask of its
# own for padding.
#
# ### 8f. BERT's mask (level 2, 5 min)
#
# The S = P + T columns of a text are: the prompt's, the text's tokens, the padding. Return what is
# added to the scores of each text, the same for all rows and heads: 0 in a real column, `-np.inf`
# in a column of padding.


# %%
def padding_mask(lengths, P, T):
    """lengths (B,): real tokens of each text -> (B, P + T)"""
    # solution: 0 in real columns, -inf in those of padding
    return np.where(np.arange(P + T) < P + lengths[:, None], 0.0, -np.inf)
    # end


course.check("8f", padding_mask)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Compare `np.arange(P + T)`, which counts columns, with a column of numbers, one a text:
# `lengths[:, None]` has shape (B, 1).
#
# </details>
#
# We add three tokens that do not count. The scores of their columns are minus infinity, and the
# gradient stays the same:

# %%
padded = replace(bert_batch, ids=np.pad(bert_batch.ids, ((0, 0), (0, 3)), constant_values=7))
seen = minipt.Trace()
_, padded_gradient = minipt.loss_and_gradient(bert, bert_prompt, padded, seen)
padded_scores = seen["text.h0.attn.scores"]  # (B, H, S + 3, S + 3)
assert np.isneginf(padded_scores[..., -3:]).all() and np.isfinite(padded_scores[..., :-3]).all()
products = seen["text.h0.attn.query"] @ seen["text.h0.attn.key"].swapaxes(-1, -2)
agrees("h0.attn.scores, BERT", products[..., :-3], padded_scores[..., :-3])
agrees("d prompt, padded", padded_gradient, bert_gradient)


# %% [markdown]
# The upper right corner of the pictures decides which wiring is possible. Where it is white, the
# prompt never sees the text. It computes the same in front of every text, so once is enough. In a
# BERT the prompt sees the text. We change one token of the text and look at the prompt's keys in
# block 1:


# %%
def prompt_keys(base, prompt, batch):
    seen = minipt.Trace()
    minipt.loss_and_gradient(base, prompt, batch, seen, wiring="concatenated")
    return seen["text.h1.attn.key"][:, :, :P]  # (B, Hkv, P, D)


def change_of_keys(base, prompt, batch):
    other = batch.ids.copy()
    other[0, 2] = other[0, 1]
    both = (prompt_keys(base, prompt, one) for one in (batch, replace(batch, ids=other)))
    return compare("keys", *both)


changes = change_of_keys(llama, prompt, batch), change_of_keys(bert, bert_prompt, bert_batch)
print("the prompt's keys change by {:.0e} in the Llama, by {:.0e} in the BERT".format(*changes))
assert changes[0] < 1e-9 < 1e-4 < changes[1]

# %% [markdown]
# So the shared wiring is right for the Llama, and refused for the BERT:

# %%
agrees("d prompt, shared", shared_gradient, gradient)
agrees("loss, shared", shared_loss, loss)
try:
    minipt.loss_and_gradient(bert, bert_prompt, bert_batch, wiring="shared")
except minipt.MiniptError as error:
    print("MiniptError:", error)
else:
    raise AssertionError("the prompt was shared")


# %% [markdown]
# ## MLP
#
# The MLP of GPT-2 and BERT goes up to F channels, through an activation function, and down again.
# A Llama's MLP is **gated** (Shazeer 2020). Two maps go up. One of them goes through SiLU
# (Hendrycks and Gimpel 2016) and multiplies the other:
#
# $$\text{mlp}(y) = \big(\text{silu}(y W_\text{gate}) \cdot y W_\text{up}\big)\, W_\text{down},
# \qquad \text{silu}(a) = a\,\sigma(a), \qquad \sigma(a) = \frac{1}{1 + e^{-a}}.$$
#
# There is one matrix more, so F is usually smaller than 4C.


# %%
def sigmoid(a):
    return 1 / (1 + np.exp(-a))


middle = x + merge(context) @ p["h0.attn.out.weight"]  # (B, S, C)
normed = rms_norm(middle, "h0.ln2")
gate, up = normed @ p["h0.mlp.gate.weight"], normed @ p["h0.mlp.up.weight"]  # (B, S, F)
product = gate * sigmoid(gate) * up
out = middle + product @ p["h0.mlp.down.weight"]
agrees("h0.mlp.gate", gate, trace["text.h0.mlp.gate"])
agrees("h0.mlp.product", product, trace["text.h0.mlp.product"])
agrees("h0.out", out, trace["text.h0.out"])


# %% [markdown]
# The gradient of each factor of a product is the product's gradient times the other factor. And
# $\sigma' = \sigma (1 - \sigma)$ gives $\text{silu}'(a) = \sigma(a)\,\big(1 + a\,(1 -
# \sigma(a))\big)$.


# %%
def product_dx(dproduct, gate, up):  # -> dgate, dup
    sigma = sigmoid(gate)
    return dproduct * up * sigma * (1 + gate * (1 - sigma)), dproduct * gate * sigma


dproduct = trace.grad("text.h0.out") @ p["h0.mlp.down.weight"].T  # (B, S, F)
dgate, dup = product_dx(dproduct, gate, up)
agrees("d h0.mlp.gate", dgate, trace.grad("text.h0.mlp.gate"))
agrees("d h0.mlp.up", dup, trace.grad("text.h0.mlp.up"))


# %% [markdown]
# ## Where the norm stands
#
# GPT-2 and Llama apply the norm to the input of attention and to the input of the MLP
# (*pre-norm*). They leave the sums alone, except for one norm at the end. BERT applies the norm to
# the sums (*post-norm*):
#
# $$\text{ln}_1 = \text{norm}(x + \text{attention}(x)), \qquad
# \text{ln}_2 = \text{norm}(\text{ln}_1 + \text{mlp}(\text{ln}_1)).$$
#
# BERT's activation function is the exact GELU, $x\,\Phi(x)$. Here $\Phi$ is the normal
# distribution function, where GPT-2 has a tanh. NumPy has no error function, so `ops.gelu_erf`
# reads $\Phi$ from a table and continues it by Taylor's formula. The cell uses Python's
# `math.erfc`, number by number.


# %%
def gelu(x):
    return x * np.vectorize(lambda one: 0.5 * math.erfc(-one / 2**0.5))(x)


ln1 = layer_norm(bert_x + bert_trace["text.h0.attn.out"], "h0.ln1")
bert_up = ln1 @ b["h0.mlp.up.weight"] + b["h0.mlp.up.bias"]  # (B, S, F)
down = gelu(bert_up) @ b["h0.mlp.down.weight"] + b["h0.mlp.down.bias"]
agrees("h0.ln1, BERT", ln1, bert_trace["text.h0.ln1"])
agrees("h0.ln2, BERT", layer_norm(ln1 + down, "h0.ln2"), bert_trace["text.h0.ln2"])


# %% [markdown]
# On the way back, a pre-norm sum passes its gradient on unchanged. In a BERT a norm stands after
# each sum. So we first add the gradient that comes back through the MLP and the gradient that
# comes past it. Then the sum of both goes through layer norm's backward:


# %%
def layer_norm_dx(dy, name):
    xhat, rstd = bert_trace[f"text.{name}.xhat"], bert_trace[f"text.{name}.rstd"]
    d = b[f"{name}.gain"] * dy
    return rstd * (d - d.mean(-1, keepdims=True) - xhat * (d * xhat).mean(-1, keepdims=True))


dout = layer_norm_dx(bert_trace.grad("text.h0.ln2"), "h0.ln2")
dln1 = dout + bert_trace.grad("text.h0.mlp.up") @ b["h0.mlp.up.weight"].T
agrees("d h0.out, BERT", dout, bert_trace.grad("text.h0.out"))
agrees("d h0.middle, BERT", layer_norm_dx(dln1, "h0.ln1"), bert_trace.grad("text.h0.middle"))

# %% [markdown]
# ## Where the answer is read
#
# There are three ways, and the base's head decides which. Each way makes one vector of C channels
# from a text, and multiplies it with a table (K, C).
#
# | head | the vector | the table |
# |---|---|---|
# | "language" | the last row | the output matrix at the label words |
# | "masked" | the row at `[MASK]` in the template, after a small map | the same, and a bias |
# | none | the mean of the text's rows, at length 1 | embeddings of "Sentiment: negative" etc. |
#
# **At the end**, for a Llama as for GPT-2. RMS norm comes once more, then the K rows of the label
# words.

# %%
words = p.get("output.table", p["token.table"])[batch.choices]  # (K, C); tied: the token table
hidden = rms_norm(trace["text.h1.out"], "final")[:, -1]  # (B, C)
logits = hidden @ words.T  # (B, K)
probabilities = ops.softmax(logits.copy())
agrees("logits, Llama", logits, trace["text.logits"])
agrees("loss, Llama", -np.log(probabilities[0, 0]), loss)

# %% [markdown]
# **At a mask**, as BERT was trained (Devlin et al. 2019). One token of the text was hidden behind
# `[MASK]`. The row at this place had to guess the token, through a linear map, GELU and a norm. A
# task then becomes "The soup was lukewarm. Sentiment: [MASK]." MiniLM comes without this head, so
# `micro-masked` shows it, a small BERT that ships with minipt.

# %%
guesser = minipt.load_base("micro-masked").astype(np.float64)
cloze = question_format(guesser, "{text}\nSentiment:", (" negative", " positive"))
(ids,), _ = encode(guesser, cloze.template, [message], guesser.config.context)
place = ids.tolist().index(cloze.mask)
blank = minipt.Batch(ids[None], [len(ids)], [0], cloze.choices, positions=[place])
print(f"{cloze.template!r}: of {len(ids)} tokens number {place} is {cloze.mask} [MASK]")
guess = minipt.Trace()
before = minipt.init_prompt(guesser, length=P, seed=0)
minipt.loss_and_gradient(guesser, before, blank, guess)
g, last = guesser.params, guesser.config.layers - 1
row = guess[f"text.h{last}.ln2"][:, 0]  # (B, C): only this row went through the last block
active = gelu(row @ g["head.dense.weight"] + g["head.dense.bias"])
centred = active - active.mean(-1, keepdims=True)
xhat = centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + guesser.config.epsilon)
features = g["head.norm.gain"] * xhat + g["head.norm.bias"]
by_hand = features @ g["token.table"][blank.choices].T + g["head.bias"][blank.choices]
agrees("logits, at a mask", by_hand, guess["text.logits"])

# %% [markdown]
# **By cosine**, for MiniLM. It was trained to embed sentences so that similar ones lie close
# together (Reimers and Gurevych 2019), and it has no words to answer with. So the frozen base
# embeds one sentence for each label, once and without a prompt. The answer is the label whose
# vector is closest to the text's vector. The text's vector is the mean of its rows, without the
# prompt's rows. Cosines differ little, so they are divided by a fixed temperature to become
# logits.

# %%
prototypes = embed(bert, ["Sentiment: negative", "Sentiment: positive"])  # (K, C)
pooled = bert_trace["text.h1.ln2"].mean(1)  # (B, C): the trace has the T rows of the text here
length = np.linalg.norm(pooled)
unit = pooled / length
cosines = unit @ prototypes.T  # (B, K)
agrees("lengths", np.linalg.norm(prototypes, axis=1), np.ones(2))
agrees("pooled", pooled, bert_trace["text.pooled"])
agrees("logits, BERT", cosines / TEMPERATURE, bert_trace["text.logits"])
print("cosines", cosines.round(4), "and logits", (cosines / TEMPERATURE).round(3))

# %% [markdown]
# On the way back, $\partial\,\text{length} / \partial\,\text{pooled} = u$ for $u = \text{pooled} /
# \text{length}$, so
#
# $$d\text{pooled} = \frac{du - u\,(u \cdot du)}{\text{length}}.$$
#
# The part of $du$ along $u$ is lost, since it would only make the vector longer. The mean gives
# each of the T rows one T-th of the gradient. So in a BERT the loss enters at all rows of the
# text. In the Llama it enters at the last row alone.

# %%
dunit = bert_trace.grad("text.logits") / TEMPERATURE @ prototypes  # (B, C)
dpooled = (dunit - unit * (unit * dunit).sum(-1, keepdims=True)) / length
agrees("d pooled", dpooled, bert_trace.grad("text.pooled"))
drows = np.repeat(dpooled[:, None] / bert_batch.lengths[0], bert_batch.lengths[0], axis=1)
agrees("d h1.ln2, BERT", drows, bert_trace.grad("text.h1.ln2"))

# %% [markdown]
# Why this **temperature**? The table has the loss and the size of the gradient at the pooled
# vector for three temperatures, for the right answer and for the wrong one. At a high temperature
# all texts count nearly alike. At a low one, a text that is answered rightly counts hardly at all.

# %%
print("temperature  label     loss  size of the gradient")
for temperature in (1.0, TEMPERATURE, 0.005):
    p_of = ops.softmax(cosines / temperature)  # (B, K)
    for label, word in enumerate(("negative", "positive")):
        dcosines = (p_of - np.eye(2)[[label]]) / temperature  # (B, K)
        du = dcosines @ prototypes  # (B, C)
        dp = (du - unit * (unit * du).sum(-1, keepdims=True)) / length
        print(f"{temperature:11g}  {word}  {-np.log(p_of[0, label]):.3f}  {np.linalg.norm(dp):.1e}")

# %% [markdown]
# ### 8g. Pool without the prompt (level 2, 10 min)
#
# `hidden` has the last hidden states of a padded batch: of each text the prompt's P rows, then
# those of its tokens, then padding. Return the mean of the text's own rows.


# %%
def pool(hidden, lengths, P):
    """hidden (B, P + T, C), lengths (B,): real tokens of each text -> (B, C)"""
    # solution: the mean of the rows of the text's tokens, for each text
    pairs = zip(hidden, lengths, strict=True)
    return np.stack([rows[P : P + length].mean(0) for rows, length in pairs])
    # end


course.check("8g", pool)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `hidden[b, P : P + lengths[b]]` are the rows of text b. A loop over the texts is good enough, and
# `np.stack` makes one array of a list of rows.
#
# </details>
#
# **The trap.** Libraries that add a prompt to an encoder see P + T rows behind the last block, and
# a mean over all real rows is soon written. It runs, and gives a vector of the right shape. Here
# are four sentences that have nothing to do with each other, in front of them a prompt of 20
# vectors that has learnt nothing. Pooled rightly:

# %%
together = chapter08.unrelated_batch(minilm)
print(*chapter08.UNRELATED, sep="\n")
fresh = minipt.init_prompt(minilm, length=20, method="vocab", seed=0)
seen = minipt.Trace()
minipt.loss_and_gradient(minilm, fresh, together, seen)
right = chapter08.mean_distance(seen["text.pooled"])
print(f"mean distance of two of them: {right:.2f}")

# %% [markdown]
# ### 8h. The prompt pooled too (level 1, 3 min)
#
# Now the mean is taken over the prompt's rows as well. What will the mean distance be, divided by
# the right one? Guess first: below 1 the sentences come closer together, above 1 they move apart.

# %%
mine = 0.9  # yours: a number, 1 if nothing changes
course.guess("8h", mine)
course.reveal("8h")

# %% [markdown]
# No error tells of this, and the shape is right. The vectors are worse all the same: sentences
# that have nothing in common come closer together. A prompt that was trained with one of the two
# means gives other answers with the other. `course.pool_all` makes this mistake on purpose.

# %%
wrong = chapter08.mean_distance(course.pool_all(minilm, fresh, together))
print(f"mean distance {right:.2f} without the prompt's rows, {wrong:.2f} with them")
course.band(wrong / right, 0.2, 0.8, "the distance with the prompt's rows by the right one")

# %% [markdown]
# **The whole models**, with all blocks, answer the message without a prompt. The Llama gives its
# next word after "Sentiment:", over all its vocabulary. The BERT gives two probabilities. Neither
# was trained for this question. A prompt is to change that.

# %%
everything = ops.softmax(minipt.logits(smollm2, replace(ask(smollm2), choices=None)))[0]  # (V,)
for token in np.argsort(-everything)[:5]:
    print(f"{everything[token]:.3f}  {smollm2.tokenizer.decode([token])!r}")
closeness = ops.softmax(minipt.logits(minilm, ask(minilm)))[0]  # (K,)
print("negative {:.3f}, positive {:.3f}".format(*closeness))


# %% [markdown]
# ## The whole step
#
# We put the pieces into one function: the backward of a Llama's block, from its last line to its
# first. From its queries on, the last block has R = 1 row, and the first block has R = S rows.
# They are the last R of the S rows.


# %%
def block_dx(i, dout):
    """(B, R, C) -> (B, S, C)"""
    R = dout.shape[1]

    def take(name):
        return trace[f"text.h{i}.{name}"]

    def back(part, dy):
        return dy @ p[f"h{i}.{part}.weight"].T

    dgate, dup = product_dx(back("mlp.down", dout), take("mlp.gate"), take("mlp.up"))
    dmiddle = dout + llama_norm_dx(back("mlp.gate", dgate) + back("mlp.up", dup), f"h{i}.ln2")
    dcontext = heads(back("attn.out", dmiddle))
    dweights = dcontext @ spread(take("attn.value")).swapaxes(-1, -2)
    dscores = ops.softmax_dx(dweights, take("attn.weights"))
    dquery = dscores @ spread(take("attn.key")) / D**0.5
    dkey = sums(dscores.swapaxes(-1, -2) @ take("attn.query"))
    dvalue = sums(take("attn.weights").swapaxes(-1, -2) @ dcontext)
    dnormed = back("attn.key", merge(ops.rotary_dx(dkey, cos, sin)))
    dnormed += back("attn.value", merge(dvalue))
    dnormed[:, -R:] += back("attn.query", merge(ops.rotary_dx(dquery, cos[-R:], sin[-R:])))
    dx = llama_norm_dx(dnormed, f"h{i}.ln1")
    dx[:, -R:] += dmiddle
    return dx


# %% [markdown]
# From the loss to the prompt we go through $d\text{logits} = p - [j = \text{target}]$, the label
# words, the final norm and two blocks. Nothing was added to the prompt's rows, so the first P rows
# are its gradient.

# %%
dlogits = probabilities - [[1.0, 0.0]]  # (B, K): "negative" is right
dhidden = (dlogits @ words)[:, None]  # (B, 1, C)
by_hand = block_dx(0, block_dx(1, llama_norm_dx(dhidden, "final")))[:, :P].sum(0)  # (P, C)
agrees("d prompt", by_hand, gradient)

# %% [markdown]
# Finite differences along five random directions, for both bases, as in chapter 3:

# %%
cuts = {
    "Llama": (llama, prompt, batch, by_hand),
    "BERT": (bert, bert_prompt, bert_batch, bert_gradient),
}
for family, (base, origin, one, found) in cuts.items():

    def loss_at(vectors, base=base, origin=origin, one=one):
        return minipt.loss_and_gradient(base, replace(origin, vectors=vectors), one)[0]

    error = check_gradient(loss_at, origin.vectors, found)
    print(f"{family:<6} {error:.0e}")
    assert error < 1e-7

# %% [markdown]
# Now the whole Llama with all its blocks, in float32, the type that training uses. The two wirings
# agree as well as float32 allows after so many sums.

# %%
start = minipt.init_prompt(smollm2, length=P, method="vocab", seed=0)
both = [
    minipt.loss_and_gradient(smollm2, start, ask(smollm2), wiring=wiring)[1]
    for wiring in ("shared", "concatenated")
]
agrees("d prompt, all blocks", *both, tolerance=1e-4)

# %% [markdown]
# ### 8i. The BERT's whole step (level 3, 30 min)
#
# For home: the same for a BERT. `drows` is the gradient by the last block's output, which has the
# text's rows only. `trace` has what the forward pass left, under names such as
# `text.h0.mlp.up`; its queries are divided by the root of D already. What is left to do in front
# of block 0? The ops are those of `minipt/maths/ops.py`, such as `ops.layernorm_dx`,
# `ops.gelu_erf_dx` and `ops.softmax_dx`.


# %%
def bert_prompt_gradient(base, trace, drows, P):
    """drows (B, R, C): gradient of the last R of S rows -> the prompt's gradient (P, C)"""

    # solution: the blocks from last to first, then the first norm
    def take(name):
        return trace[f"text.{name}"]

    def norm_dx(name, dy):
        gain = base.params[f"{name}.gain"]
        return ops.layernorm_dx(dy, gain, take(f"{name}.xhat"), take(f"{name}.rstd"))

    def back(name, dy):
        return dy @ base.params[f"{name}.weight"].T

    H, dx = base.config.heads, drows
    for h in (f"h{i}" for i in reversed(range(base.config.layers))):
        R, dout = dx.shape[1], norm_dx(f"{h}.ln2", dx)
        dactive = back(f"{h}.mlp.down", dout)  # (B, R, F)
        dup = ops.gelu_erf_dx(dactive, take(f"{h}.mlp.up"), take(f"{h}.mlp.y_over_x"))
        dmiddle = norm_dx(f"{h}.ln1", dout + back(f"{h}.mlp.up", dup))  # (B, R, C)
        weights, query, key, value = (
            take(f"{h}.attn.{part}") for part in ("weights", "query", "key", "value")
        )
        dcontext = ops.split_heads(back(f"{h}.attn.out", dmiddle), H)  # (B, H, R, D)
        dscores = ops.softmax_dx(dcontext @ value.swapaxes(-1, -2), weights)  # (B, H, R, S)
        dquery = dscores @ key / key.shape[-1] ** 0.5
        dkey = dscores.swapaxes(-1, -2) @ query  # (B, H, S, D)
        dvalue = weights.swapaxes(-1, -2) @ dcontext
        dx = back(f"{h}.attn.key", ops.merge_heads(dkey))  # (B, S, C)
        dx += back(f"{h}.attn.value", ops.merge_heads(dvalue))
        dx[:, -R:] += back(f"{h}.attn.query", ops.merge_heads(dquery)) + dmiddle
    return norm_dx("embedding.norm", dx)[:, :P].sum(0)
    # end


course.check("8i", bert_prompt_gradient)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Take `block_dx` above, and change four things. The norms come after the sums: begin with `ln2`,
# and go through `ln1` after you have added the way past the MLP. The activation is GELU without a
# gate. Nothing is rotated, and no head is shared. In front of block 0 stands `embedding.norm`.
#
# </details>
#
# ## Three families learn
#
# Training repeats this step. We take the three whole bases, four sentences that ship with minipt,
# and eight steps of Adam.

# %%
task = minipt.load_task("toy")
classes = task.train.labels
chosen = np.concatenate([np.flatnonzero(classes == k)[:2] for k in range(2)])
texts = [task.train.texts[i] for i in chosen]
learnt, curves = {}, {}
for family, base in families.items():
    question = question_format(base, task.template, task.label_words)
    ids, _ = encode(base, question.template, texts, base.config.context - P)
    _, four = next(batches(ids, classes[chosen], question, size=4))
    learner, adam = minipt.init_prompt(base, length=P, method="vocab", seed=SEED), Adam()
    losses = []
    for _ in range(8):
        now, dvectors = minipt.loss_and_gradient(base, learner, four)
        losses.append(now)
        adam.step({"prompt": learner.vectors}, {"prompt": dvectors}, 0.02)
    learnt[family], curves[family] = learner, losses
    print(f"{family:<6} {losses[0]:.3f} to {losses[-1]:.3f} nats")

# %%
figure, axis = plt.subplots(figsize=(9, 3.4))
for family, losses in curves.items():
    axis.plot(range(1, 9), losses, "o-", label=family)
axis.axhline(np.log(2), color="grey", linestyle=":", label="a coin")
axis.set(xlabel="step", ylabel="loss (nats)", ylim=0, title="eight steps, four texts")
axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
figure.tight_layout()
for family, losses in curves.items():
    course.band(losses[-1] / losses[0], 0.0, 1.0, f"{family}: last loss by first")

# %% [markdown]
# Four sentences are soon learnt by heart. So now the BERT takes forty steps on the toy sentences,
# and answers others.

# %%
settings = {"length": 20, "steps": 40, "learning_rate": 0.02, "warmup": 5, "evaluate_every": 10}
run = minipt.tune(minilm, task, batch_size=16, seed=SEED, **settings)
untuned = minipt.evaluate(minilm, None, task.test, task).accuracy
steps = run.history[1:]
looks = [record for record in run.history if "validation_loss" in record]
figure, axis = plt.subplots(figsize=(9, 3.4))
axis.plot([s["step"] for s in steps], [s["loss"] for s in steps], color="C0", label="each batch")
points = [s["step"] for s in looks], [s["validation_loss"] for s in looks]
axis.plot(*points, "o-C1", label="validation")
axis.axhline(np.log(2), color="grey", linestyle=":", label="a coin")
axis.set(xlabel="step", ylabel="loss (nats)", ylim=0, title=f"forty steps of {minilm.name}")
axis.legend()
figure.tight_layout()
print(f"test: {untuned:.3f} without a prompt, {run.test_accuracy:.3f} after forty steps")
fall = np.mean([s["loss"] for s in steps[-8:]]) / steps[0]["loss"]
most = 0.9 if base_is_here("minilm") else 1.1  # random numbers have little to offer
course.band(float(fall), 0.2, most, "forty steps: the last eight losses by the first")

# %% [markdown]
# The real job takes thousands of film reviews and many minutes. It is measured on texts that the
# prompt has not learnt from:
#
#     minipt tune --base minilm
#     minipt tune --base minilm --seed 1
#     minipt tune --base smollm2-135m
#
# The numbers of the figure are what these commands printed (`minipt/studies/README.md`). Each run
# also leaves its curves, in `runs/NAME/curves.png`.

# %%
reviews = {  # accuracy on the 1,056 test texts
    "MiniLM": {"base alone": 0.647, "written": 0.654, "tuned, seed 0": 0.825, "seed 1": 0.818},
    "SmolLM2": {"base alone": 0.738, "written": 0.764, "tuned, seed 0": 0.855},
}
figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), sharey=True)
for axis, (name, bars) in zip(axes, reviews.items(), strict=True):
    axis.bar_label(axis.bar(bars.keys(), bars.values(), color="C0"), fmt="%.3f")
    axis.axhline(0.504, color="grey", linestyle=":", label="majority")
    axis.axhline(0.794, color="C3", linestyle="--", label="bag of words")
    axis.set(title=f"{name}, film reviews", ylim=(0, 1.3))
axes[0].set_ylabel("accuracy on test")
axes[0].legend(loc="upper left", ncols=2)
figure.tight_layout()

# %% [markdown]
# ## Handing it over
#
# A tuned prompt is P vectors. Hugging Face's PEFT keeps them in two files, a small JSON and one
# tensor. `to_peft` writes both without PEFT, so that the prompt can stand in front of the same
# Llama in transformers. It writes a third file, which PEFT does not read, for everything else that
# a `SoftPrompt` knows. `from_peft` reads them. The same numbers come out only with the same
# weights. Our weights were rounded to 4 bits; those of the hub's SmolLM2-135M-Instruct were not.
# To tell PEFT which model to load, call `to_peft(directory,
# base_name="HuggingFaceTB/SmolLM2-135M-Instruct")`.

# %%
with TemporaryDirectory() as folder:
    directory = Path(folder) / "adapter"
    learnt["Llama"].to_peft(directory)
    print(*sorted(file.name for file in directory.iterdir()))
    adapter = json.loads((directory / "adapter_config.json").read_text())
    for name in ("peft_type", "task_type", "num_virtual_tokens", "token_dim"):
        print(f"{name:<19} {adapter[name]}")
    for name, tensor in load_file(directory / "adapter_model.safetensors").items():
        print(f"{name:<19} {tensor.shape} {tensor.dtype}")
    again = minipt.from_peft(directory, smollm2)
assert again.vectors.tobytes() == learnt["Llama"].vectors.tobytes()
assert [base.fingerprint for base in families.values()] == fingerprints
print("the bases are unchanged:", *(fingerprint[:12] for fingerprint in fingerprints))

# %% [markdown]
# ## What you have now
#
# You have taken one step in three families, and know which five things tell them apart: norm,
# positions, heads, mask and the place of the answer. Chapter 9 lets a prompt write, and keeps it
# running.
#
# **In the source.** `minipt/transformer/base.py` has the fields of `Config`, and
# `minipt/loading/families.py` what each is called in Hugging Face's files. `minipt/maths/ops.py`
# derives every op of this chapter. `minipt/prompting/readout.py` has the three ways to an answer,
# and `minipt/prompting/verbalizer.py` chooses between them. `minipt generate` writes on after a
# text, token by token, with the same past that makes the prompt cheap:
# `minipt/prompting/generate.py`.

# %%
course.summary(save="answers-08.json")
