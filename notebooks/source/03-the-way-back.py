# %% [markdown]
# # 3. The way back
#
# **You will** take the loss of one message back through the whole model to the prompt's vectors.
# You write the backward of the loss, the norm, GELU, the softmax and attention. Then you sum up
# the prompt's gradient, in both wirings.
#
# **You will learn** how the chain rule goes through a transformer, what is trainable in it, and
# how finite differences find an error that no message tells.
#
# **You need** chapter 2 and the chain rule. **Time:** 90 minutes.
#
# | | | | |
# |---|---|---|---|
# | B | texts | C | channels |
# | P | prompt vectors | H | heads |
# | T | tokens | D | channels a head, C / H |
# | S | rows, P + T | V | vocabulary |
# | K | label words | L | layers (blocks) |
# | R | rows with a query: S, in the last block 1 | | |
#
# A check does not know your formula. It measures the gradient by finite differences and compares.

# %%
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np

import minipt
from minipt import course, plain
from minipt.maths import ops
from minipt.maths.gradcheck import check_gradient, compare
from minipt.prompting.text import batches, encode
from minipt.prompting.verbalizer import question_format

plt.rcParams.update({"figure.dpi": 80, "font.size": 13, "image.cmap": "Greys"})
course.begin(3)

# %% [markdown]
# The step is that of chapter 2: one message, a prompt of five vectors, the base `tiny`, all in
# float64. The trace holds every array of the forward pass, and the library's gradients to compare
# with.

# %%
shipped = minipt.load_base("tiny")
base = shipped.astype(np.float64)
params = base.params
L, C, H, V = (getattr(base.config, n) for n in ("layers", "channels", "heads", "vocabulary"))
D, last = C // H, f"h{L - 1}"
task = minipt.load_task("toy")
message, answer = "The soup was warm and the waiter was kind.", "positive"
question = question_format(base, task.template, task.label_words)
choices, target = question.choices, task.labels.index(answer)  # (K,)
prompt = minipt.init_prompt(base, length=5, method="vocab", seed=0)
P = len(prompt.vectors)


def batch_of(texts, targets):
    rows, _ = encode(base, question.template, texts, base.config.context - P)
    return next(batches(rows, np.array(targets), question, size=len(texts)))[1]


batch = batch_of([message], [target])
ids = batch.ids  # (B, T), B = 1
S = P + ids.shape[1]
trace = minipt.Trace()
loss, gradient = minipt.loss_and_gradient(base, prompt, batch, trace, wiring="concatenated")
print(f"P={P}  S={S}  loss {loss:.4f} nats")
print(len(trace.activations), "activations and", len(trace.gradients), "gradients in the trace")

# %% [markdown]
# `agrees` compares an array that we computed with the library's gradient of the same name. It
# prints the largest difference, relative to the largest number. (The difference is rounding. Its
# digits may be others on your machine.)


# %%
def agrees(name, ours, reference=None):
    reference = trace.grad(f"text.{name}") if reference is None else reference
    difference = compare(name, ours, reference)
    assert difference < 1e-9, f"{name} differs by {difference:.1e}"
    print(f"d {name:<20} {np.shape(ours)!s:<16} differs by {difference:.0e}")


# %% [markdown]
# ## What is trainable
#
# For any array $y$ that we have computed, let $dy$ be the array of $\partial\,\text{loss}/\partial
# y$. It has the shape of $y$. If $y$ is computed from $x$, the chain rule gives
#
# $$dx_i = \sum_j dy_j \, \frac{\partial y_j}{\partial x_i}.$$
#
# In the library this is the function `op_dx(dy, ...)`, directly below `op`. We go from the last
# line of chapter 2 to its first.
#
# The base is frozen, so we need no weight's gradient. Backpropagation has two halves. `linear_dx`
# carries the gradient on to the rows. `linear_dw` turns it into a weight's gradient. A step of
# prompt tuning calls only the first. We count the calls:

# %%
with (
    patch.object(ops, "linear_dx", wraps=ops.linear_dx) as to_rows,
    patch.object(ops, "linear_dw", wraps=ops.linear_dw) as to_weights,
):
    minipt.loss_and_gradient(base, prompt, batch, minipt.Trace())
print(f"linear_dx {to_rows.call_count} calls, linear_dw {to_weights.call_count} calls")
assert to_rows.call_count > to_weights.call_count == 0

# %% [markdown]
# **Trap: frozen does not mean that no gradient passes.** The gradient goes through every frozen
# block, since the prompt stands in front of them all. A program that runs the frozen model
# "without gradients", to save time, gives the prompt no gradient. Its loss never falls.
#
# ## From the loss to the last row
#
# **Cross-entropy.** $\text{loss} = \log \sum_j e^{z_j} - z_{\text{target}}$ for the logits $z$ of
# one text, so
#
# $$dz_j = p_j - [j = \text{target}].$$
#
# The gradient is the probability itself, minus 1 at the right answer. The loss of a batch is the
# mean over its B texts.
#
# ### 3a. The logits (level 1, 5 min)
#
# Return the gradient of the batch's mean loss for the logits.


# %%
def logits_dx(logits, targets):
    """logits (B, K), targets (B,) -> dlogits (B, K)"""
    # solution: the probabilities, minus 1 at the targets, divided by B
    dlogits = ops.softmax(logits)
    dlogits[np.arange(len(targets)), targets] -= 1
    return dlogits / len(targets)
    # end


course.check("3a", logits_dx)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `p[np.arange(len(targets)), targets] -= 1` changes one number in each row. Do not forget the mean.
#
# </details>

# %%
dlogits = ops.softmax(trace["text.logits"])  # (B, K)
dlogits[0, target] -= 1
agrees("logits", dlogits)

# %% [markdown]
# **Output matrix.** $z_k = \sum_c \text{hidden}_c \, E_{kc}$, so $d\text{hidden}_c = \sum_k dz_k\,
# E_{kc}$. With two labels this is a multiple of the difference of their embeddings.

# %%
table = params["token.table"][choices]  # (K, C)
dhidden = (dlogits @ table)[:, None]  # (B, 1, C)
agrees("final", dhidden)

# %% [markdown]
# **Norm.** Let $\hat d_i = g_i\, dy_i$. If $x_i$ moves, $\hat x_j = (x_j - \mu)\, r$ moves in
# three ways: directly if $j = i$, through the mean $\mu$, and through the deviation in $r$, where
# $\partial r / \partial x_i = -r^2 \hat x_i / C$:
#
# $$\frac{\partial \hat x_j}{\partial x_i} = r\left([i = j] - \frac1C - \frac{\hat x_i \hat
# x_j}{C}\right) \quad\Rightarrow\quad dx_i = r\left(\hat d_i - \text{mean}(\hat d) - \hat x_i\,
# \text{mean}(\hat d\, \hat x)\right).$$
#
# Two directions are lost. Adding a constant to the row changes nothing, and (apart from
# $\epsilon$) neither does scaling it.
#
# ### 3b. The norm (level 2, 15 min)
#
# Return the gradient of the rows. `xhat` is $\hat x$, and `rstd` is $r$, one number a row.


# %%
def norm_dx(dy, gain, xhat, rstd):
    """dy, xhat (..., C), gain (C,), rstd (..., 1) -> dx (..., C)"""
    # solution: the direct path, less those through mean and deviation
    d = gain * dy
    along = (d * xhat).mean(-1, keepdims=True)
    return rstd * (d - d.mean(-1, keepdims=True) - xhat * along)
    # end


course.check("3b", norm_dx)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Begin with `d = gain * dy`. A mean over a row that keeps its axis is `d.mean(-1, keepdims=True)`.
#
# </details>
#
# The library's function goes on from here, so that nothing below waits for yours.


# %%
def back_through_norm(dy, name):
    gain = params[f"{name}.gain"]
    return ops.layernorm_dx(dy, gain, trace[f"text.{name}.xhat"], trace[f"text.{name}.rstd"])


dout = back_through_norm(dhidden, "final")  # (B, 1, C)
agrees(f"{last}.out", dout)
xhat = trace["text.final.xhat"]
print(
    f"along a constant {abs(dout.sum()):.0e}, along the row itself {abs((dout * xhat).sum()):.0e}"
)

# %% [markdown]
# ## The last block
#
# We take the activations from the trace. The backward pass reads what the forward pass has left
# there.

# %%
block = {name[3:]: array for name, array in params.items() if name.startswith(f"{last}.")}
act = {
    name.removeprefix(f"text.{last}."): array
    for name, array in trace.activations.items()
    if name.startswith(f"text.{last}.")
}
print(*act)

# %% [markdown]
# **Residual.** $\text{out} = \text{middle} + \text{down}$: a sum hands its gradient to both sides
# unchanged. So $d\text{down} = d\text{out}$, and $d\text{middle}$ is $d\text{out}$ plus what comes
# back through the MLP. Therefore there is always a way back that no weight matrix weakens.
#
# **Linear.** $y_j = \sum_i x_i W_{ij} + b_j$ gives $dx_i = \sum_j dy_j W_{ij}$, which is $dx =
# dy\, W^\top$.

# %%
dactive = dout @ block["mlp.down.weight"].T  # (B, 1, 4C)
agrees(f"{last}.mlp.active", dactive)

# %% [markdown]
# **GELU.** $\text{gelu}(x) = \tfrac12\, x\,(1 + \tanh u)$ with $u = \sqrt{2/\pi}\,(x + 0.044715\,
# x^3)$. The product rule, with $(\tanh u)' = (1 - \tanh^2 u)\, u'$, gives
#
# $$\text{gelu}'(x) = \tfrac12 (1 + \tanh u) + \tfrac12\, x\, (1 - \tanh^2 u)\, \sqrt{2/\pi}\,(1 + 3
# \cdot 0.044715\, x^2).$$
#
# ### 3c. GELU (level 2, 10 min)
#
# Return the gradient of `x`. Each number is computed by itself.


# %%
def gelu_dx(dy, x):
    """dy, x (...) -> dx (...)"""
    # solution: dy times the slope of GELU
    tanh = np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))
    inner = (2 / np.pi) ** 0.5 * (1 + 3 * 0.044715 * x**2)
    return dy * (0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * inner)
    # end


course.check("3c", gelu_dx)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Compute `tanh` and $u'$ first, each in a line of its own. Then write the two terms of the product
# rule, and multiply by `dy`.
#
# </details>

# %%
dup = ops.gelu_dx(dactive, act["mlp.up"], act["mlp.y_over_x"])  # (B, 1, 4C)
agrees(f"{last}.mlp.up", dup)

# %% [markdown]
# Now the linear map up, the norm, and the other side of the residual:

# %%
dnormed = dup @ block["mlp.up.weight"].T  # (B, 1, C)
dmiddle = dout + back_through_norm(dnormed, f"{last}.ln2")
agrees(f"{last}.ln2", dnormed)
agrees(f"{last}.middle", dmiddle)


# %% [markdown]
# ## Attention
#
# The map `out` is linear, and splitting into heads undoes the merging:


# %%
def heads(x):  # (B, R, C) -> (B, H, R, D)
    return x.reshape(*x.shape[:2], H, D).transpose(0, 2, 1, 3)


def merge(x):  # (B, H, R, D) -> (B, R, C)
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], C)


dcontext = heads(dmiddle @ block["attn.out.weight"].T)  # (B, H, 1, D)
agrees(f"{last}.attn.context", dcontext)

# %% [markdown]
# **Value and weights.** $\text{context}_r = \sum_s w_{rs} v_s$ is linear in each factor:
#
# $$dv_s = \sum_r w_{rs}\, d\text{context}_r, \qquad dw_{rs} = d\text{context}_r \cdot v_s.$$
#
# Only one row $r$ has a query here. Yet every value gets a gradient, and so do the prompt's
# values. This is where the loss first reaches the prompt.

# %%
dvalue = act["attn.weights"].swapaxes(-1, -2) @ dcontext  # (B, H, S, D)
dweights = dcontext @ act["attn.value"].swapaxes(-1, -2)  # (B, H, 1, S)
agrees(f"{last}.attn.value", dvalue)
agrees(f"{last}.attn.weights", dweights)

# %% [markdown]
# **Softmax.** For one row, $\partial w_s / \partial a_u = w_s ([s = u] - w_u)$ for scores $a$, so
#
# $$da_u = w_u \left( dw_u - \sum_s dw_s w_s \right).$$
#
# A score's gradient compares its own $dw_u$ with the weighted mean. A masked score has $w_u = 0$,
# so its gradient is 0. The mask is a constant and needs no line of its own.
#
# ### 3d. The softmax, backward (level 2, 10 min)
#
# Return the gradient of the scores.


# %%
def softmax_dx(dweights, weights):
    """Both (..., S) -> dscores (..., S)"""
    # solution: the weights times what dweights is above its weighted mean
    mean = (dweights * weights).sum(-1, keepdims=True)
    return weights * (dweights - mean)
    # end


course.check("3d", softmax_dx)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The weighted mean of a row is `(dweights * weights).sum(-1, keepdims=True)`.
#
# </details>

# %%
dscores = ops.softmax_dx(dweights, act["attn.weights"])  # (B, H, 1, S)
agrees(f"{last}.attn.scores", dscores)

# %% [markdown]
# **Query and key.** $a_{rs} = q_r \cdot k_s$, again linear in each: $dq_r = \sum_s da_{rs} k_s$
# and $dk_s = \sum_r da_{rs} q_r$.
#
# ### 3e. Attention, backward (level 3, 10 min)
#
# Put it together. From `dcontext` come the gradients of the values and of the weights, from these
# the scores', and from these the query's and the key's. The query is divided by $\sqrt D$ already.


# %%
def attend_dx(dcontext, query, key, value, weights):
    """dcontext, query, key, value (B, H, S, D), weights (B, H, S, S) -> dquery, dkey, dvalue"""
    # solution: dscores times the keys, and sums over the rows that read
    dscores = ops.softmax_dx(dcontext @ value.swapaxes(-1, -2), weights)  # (B, H, S, S)
    dvalue = weights.swapaxes(-1, -2) @ dcontext
    return dscores @ key, dscores.swapaxes(-1, -2) @ query, dvalue
    # end


course.check("3e", attend_dx)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `weights[b, h, r, s]`: row r reads column s. A sum over s is `weights @ ...`. A sum over r is
# `weights.swapaxes(-1, -2) @ ...`. Which of the two does each gradient need? Take `ops.softmax_dx`
# or your own.
#
# </details>

# %%
dquery = dscores @ act["attn.key"]  # (B, H, 1, D)
dkey = dscores.swapaxes(-1, -2) @ act["attn.query"]  # (B, H, S, D)
agrees(f"{last}.attn.query", dquery)
agrees(f"{last}.attn.key", dkey)

# %% [markdown]
# **Back to the rows.** Three linear maps read the same `ln1`, so their gradients add. The query's
# gradient belongs to the one row that has a query, and is divided by $\sqrt D$.

# %%
dnormed = merge(dkey) @ block["attn.key.weight"].T + merge(dvalue) @ block["attn.value.weight"].T
dnormed[:, -1:] += merge(dquery / D**0.5) @ block["attn.query.weight"].T  # (B, S, C)
agrees(f"{last}.ln1", dnormed)

# %% [markdown]
# We go through the norm and the residual once more. Then we are in front of the last block, with a
# gradient for all S rows.

# %%
dx = back_through_norm(dnormed, f"{last}.ln1")  # (B, S, C)
dx[:, -1:] += dmiddle
agrees(f"h{L - 2}.out", dx)


# %% [markdown]
# ## The blocks below
#
# The same lines as a function. It uses the library's ops where they are shorter. Here all S rows
# have a query.


# %%
def block_dx(i, dout, gelu_dx=ops.gelu_dx):
    """Block i from its last line to its first. (B, S, C) -> (B, S, C)"""

    def weight(name):
        return params[f"h{i}.{name}.weight"]

    def take(name):
        return trace[f"text.h{i}.{name}"]

    def back(part, dy):  # (B, H, S, D) -> (B, S, C)
        return ops.linear_dx(ops.merge_heads(dy), weight(f"attn.{part}"))

    dactive = ops.linear_dx(dout, weight("mlp.down"))
    dup = gelu_dx(dactive, take("mlp.up"), take("mlp.y_over_x"))
    dnormed = ops.linear_dx(dup, weight("mlp.up"))
    dmiddle = dout + back_through_norm(dnormed, f"h{i}.ln2")
    dcontext = ops.split_heads(ops.linear_dx(dmiddle, weight("attn.out")), H)
    dvalue = take("attn.weights").swapaxes(-1, -2) @ dcontext
    dweights = dcontext @ take("attn.value").swapaxes(-1, -2)
    dscores = ops.softmax_dx(dweights, take("attn.weights"))
    dquery = dscores @ take("attn.key") / D**0.5
    dkey = dscores.swapaxes(-1, -2) @ take("attn.query")
    dnormed = back("key", dkey) + back("value", dvalue) + back("query", dquery)
    return dmiddle + back_through_norm(dnormed, f"h{i}.ln1")


flow = [dx]  # the gradient in front of block L-1, L-2, ..., 0
for i in reversed(range(L - 1)):
    flow.append(block_dx(i, flow[-1]))
    if i > 0:
        agrees(f"h{i - 1}.out", flow[-1])

# %% [markdown]
# The positions were added as constants, and the concatenation only put rows side by side. So the
# gradient of the embeddings is what arrives in front of block 0.
#
# ### 3f. The prompt's gradient (level 1, 5 min)
#
# `dx` is the gradient of all S rows of B texts. The same prompt stands in front of each text.
# Return the gradient of its P vectors.


# %%
def prompt_gradient(dx, P):
    """dx (B, S, C) -> (P, C)"""
    # solution: the first P rows, summed over the texts
    return dx[:, :P].sum(0)
    # end


course.check("3f", prompt_gradient)

# %% [markdown]
# <details><summary>Hint</summary>
#
# If a vector moves, the rows of all texts move. What does the chain rule do when one number goes
# to several places?
#
# </details>

# %%
by_hand = flow[-1][:, :P].sum(0)  # (P, C)
agrees("prompt", by_hand, gradient)

# %% [markdown]
# The picture shows how large the gradient is: $|dx_r|$ for each row, in front of each block. The
# loss enters at the upper right. In the lowest line the first P rows are the prompt's, and the
# library does not compute the others. This line is the darkest, because embeddings are small. The
# first norm enlarges them by the factor $r$, and it enlarges the gradient on its way back by the
# same factor.

# %%
sizes = np.stack([np.linalg.norm(dx[0], axis=-1) for dx in flow])  # (L, S)
figure, axis = plt.subplots(figsize=(11, 4.4))
picture = axis.imshow(np.log10(sizes), aspect="auto")
figure.colorbar(picture, label="log10 of the size")
axis.axvline(P - 0.5, color="C3", linewidth=1.2)
names = [f"p{p}" for p in range(P)] + [repr(base.tokenizer.decode([t]))[1:-1] for t in ids[0]]
axis.set_xticks(range(S), names, rotation=60)
axis.set_yticks(range(L), range(L - 1, -1, -1))
axis.set(xlabel="row", ylabel="in front of block", title="size of the gradient")
figure.tight_layout()

# %% [markdown]
# ## Is it right?
#
# Two programs that agree may share an error. Finite differences know nothing of backpropagation.
# Along a random direction $v$ the slope of the loss is about $\big(f(x + hv) - f(x - hv)\big)/2h$,
# and it must be $\langle dx, v\rangle$. Five directions test all P · C numbers at once. An error
# looks smaller than it is: in the second line only one vector of five is wrong, and a random
# direction in P · C coordinates sees about $1/\sqrt{P C}$ of the error. The last line shows what
# float32 costs.


# %%
def loss_at(vectors, batch=batch):
    return minipt.loss_and_gradient(base, replace(prompt, vectors=vectors), batch)[0]


error = check_gradient(loss_at, prompt.vectors, by_hand)
wrong = by_hand.copy()
wrong[0] *= 1.01
print(f"P C = {P * C}, 1 / √(P C) = {(P * C) ** -0.5:.3f}")
print(f"by hand                    {error:.0e}")
print(f"first vector 1 % too large {check_gradient(loss_at, prompt.vectors, wrong):.0e}")
prompt32 = replace(prompt, vectors=prompt.vectors.astype(np.float32))
_, gradient32 = minipt.loss_and_gradient(shipped, prompt32, batch)
print(f"float32 against float64    {compare('float32', gradient32, by_hand):.0e}")
assert error < 1e-7


# %% [markdown]
# **Break an op.** What if somebody writes 0.05 for 0.044715 in the backward of GELU? Nothing
# fails. We follow the error down, through all blocks but the last:


# %%
def broken_gelu_dx(dy, x, y_over_x):
    tanh = np.tanh((2 / np.pi) ** 0.5 * (x + 0.05 * x**3))
    inner = (2 / np.pi) ** 0.5 * (1 + 3 * 0.05 * x**2)
    return dy * (0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * inner)


broken = [dx]
for i in reversed(range(L - 1)):
    broken.append(block_dx(i, broken[-1], broken_gelu_dx))
    print(f"in front of h{i}: {compare(f'h{i}', broken[-1], flow[L - 1 - i]):.1e} too far")
broken_prompt = broken[-1][:, :P].sum(0)
angle = (broken_prompt * by_hand).sum() / np.linalg.norm(broken_prompt) / np.linalg.norm(by_hand)
seen = check_gradient(loss_at, prompt.vectors, broken_prompt)
print(f"at the prompt {compare('prompt', broken_prompt, by_hand):.1e}, cosine {angle:.6f}")
print(f"finite differences {seen:.0e}, of the right one {error:.0e}")
assert seen > 100 * error

# %% [markdown]
# The broken gradient points nearly the same way, so a prompt would learn with it, and no message
# would tell. The finite differences do.
#
# ## Trap: the sum over texts
#
# With one text, a sum over texts changes nothing, and a forgotten one is not seen. So we take two
# texts. The loss of a batch is the mean over its texts, so the factor 1 / B stands in `dlogits`
# already. The prompt's gradient is then a sum.

# %%
two = batch_of([message, "Never again. The rooms are dirty and the staff is rude."], [target, 0])
_, of_two = minipt.loss_and_gradient(base, prompt, two)
alone = [
    minipt.loss_and_gradient(
        base, prompt, minipt.Batch(row[None, :n], [n], [label], choices=choices)
    )[1]
    for row, n, label in zip(two.ids, two.lengths, two.counted_targets, strict=True)
]
agrees("two, by each", sum(alone) / 2, of_two)
candidates = {"sum of both halves": of_two, "their mean": of_two / 2, "the first text": alone[0]}
for name, each in candidates.items():
    error = check_gradient(lambda x: loss_at(x, two), prompt.vectors, each)
    print(f"{name:<20} {error:.0e}")


# %% [markdown]
# A mean instead of the sum is B times too small. Adam divides by the size of the gradient, so the
# prompt would learn all the same. Gradient descent would seem to need a rate B times as large.
#
# ## Train one token's row instead
#
# In *fine-tuning* the table of embeddings learns too. Then one row of it needs a gradient, and the
# row may be used in several places.
#
# ### 3g. A token's gradient (level 3, 10 min)
#
# Return the gradient of a token's row of the table (V, C). The token may stand in the texts
# several times. The table is also the output matrix: the logit of choice $k$ of text $b$ is
# $\text{features}_b \cdot \text{table}_{\text{choices}_k}$. So a label word has a second part.
# `dx` (B, S, C) is the gradient of all rows, with the prompt in front.


# %%
def token_gradient(dx, P, ids, token, features, dlogits, choices):
    """ids (B, T), features (B, C), dlogits (B, K), choices (K,) -> (C,)"""
    # solution: a sum over the places in the texts, plus the output's part
    from_texts = dx[:, P:][ids == token].sum(0)  # (C,)
    from_output = (dlogits.T @ features)[choices == token].sum(0)  # zeros for other tokens
    return from_texts + from_output
    # end


course.check("3g", token_gradient)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `ids == token` has shape (B, T), and `dx[:, P:]` has shape (B, T, C). An array that is indexed by
# such a mask gives the rows where it is true. `dlogits.T @ features` has shape (K, C): a row for
# each choice.
#
# </details>
#
# The token `' was'` stands twice in our message and is no label word. The library has
# `ops.embedding_dw` for all tokens at once. We check it by changing the row in a copy of the base:

# %%
(was,) = base.tokenizer.encode(" was", add_special_tokens=False).ids
places = np.flatnonzero(ids[0] == was)
whole = ops.embedding_dw(flow[-1][:, P:], ids, V)[was]  # (C,)


def loss_with_row(row):
    changed = params["token.table"].copy()
    changed[was] = row
    other = replace(base, params=params | {"token.table": changed})
    return minipt.loss_and_gradient(other, prompt, batch)[0]


def error_of(gradient):
    return check_gradient(loss_with_row, params["token.table"][was].copy(), gradient)


print("the token stands in rows", places.tolist(), "of the text")
print(f"both places    {error_of(whole):.0e}")
print(f"only the first {error_of(flow[-1][0, P + places[0]]):.0e}")
assert error_of(whole) < 1e-7 and was not in choices

# %% [markdown]
# If all V words were compared, in place of K label words, every row of the table would be used by
# the output. Then the part from the output would be missing here.
#
# ## The shared wiring
#
# No row reads a later row, so the prompt computes the same in front of every text. It can run
# once. Each text then reads the prompt's keys and values as its *past*. `minipt/plain.py` has this
# as functions on arrays. We run it beside the library, array by array. Forward:

# %%
once = minipt.Trace()
shared_loss, shared_gradient = minipt.loss_and_gradient(base, prompt, two, once, wiring="shared")
front = plain.embed(base, prompt.vectors[None], 0)  # (1, P, C)
unread, prompt_kv, saved_prompt = plain.forward(base, front)
behind = plain.embed(base, params["token.table"][two.ids], P)  # (B, T, C)
past = [(key[0], value[0]) for key, value in prompt_kv]  # (H, P, D) twice, of each block
hidden, _, saved_text = plain.forward(base, behind, past)
plain_loss, dhidden = plain.read_out(base, hidden, two, two.answer_rows)
for i in range(L):
    for part, ours in zip(("key", "value"), prompt_kv[i], strict=True):
        difference = compare(part, ours, once[f"prompt.h{i}.attn.{part}"])
        assert difference < 1e-9
        print(f"h{i}.attn.{part:<6} {ours.shape} differs by {difference:.0e}")
assert abs(plain_loss - shared_loss) < 1e-9
print(f"loss {plain_loss:.6f}, in the library {shared_loss:.6f}")

# %% [markdown]
# Backward, the texts ask for changes of the past: they have a gradient for the prompt's keys and
# values. All texts read the same keys and values, so these gradients are summed over the texts:
#
# $$dk_p = \sum_b \sum_r da_{brp}\, q_{br}, \qquad dv_p = \sum_b \sum_r w_{brp}\,
# d\text{context}_{br}.$$
#
# ### 3h. What texts ask of the prompt (level 2, 10 min)
#
# Return both gradients. The prompt's columns are the first P of `dscores` and `weights`.


# %%
def past_dx(dcontext, dscores, query, weights, P):
    """dcontext, query (B, H, R, D), dscores, weights (B, H, R, P+T) -> two (H, P, D): key, value"""
    # solution: the products of a key and a value, summed over the texts
    dkey = dscores[..., :P].swapaxes(-1, -2) @ query  # (B, H, P, D)
    dvalue = weights[..., :P].swapaxes(-1, -2) @ dcontext
    return dkey.sum(0), dvalue.sum(0)
    # end


course.check("3h", past_dx)

# %% [markdown]
# <details><summary>Hint</summary>
#
# It is exercise 3e for the first P columns, and then a sum over axis 0.
#
# </details>
#
# In the last block only texts read the prompt, since no row of the prompt is read out there. So
# these sums are the whole gradient of its keys and values:

# %%
dscores, dcontext = (once.grad(f"text.{last}.attn.{n}") for n in ("scores", "context"))
query, weights = (once[f"text.{last}.attn.{n}"] for n in ("query", "weights"))
dkey = np.einsum("bhrp,bhrd->hpd", dscores[..., :P], query)  # (H, P, D)
dvalue = np.einsum("bhrp,bhrd->hpd", weights[..., :P], dcontext)
agrees(f"prompt.{last}.attn.key", dkey[None], once.grad(f"prompt.{last}.attn.key"))
agrees(f"prompt.{last}.attn.value", dvalue[None], once.grad(f"prompt.{last}.attn.value"))

# %% [markdown]
# In the blocks below, rows of the prompt read the prompt too. There the texts' gradients are added
# to those of the prompt's own rows, on the prompt's own way back. (`ops.attention_dpast` is the
# sum over the texts.)

# %%
_, dpast_kv = plain.backward(base, dhidden, saved_text, [plain.NOBODY] * L)
dprompt, _ = plain.backward(base, np.zeros_like(unread), saved_prompt, dpast_kv)  # (1, P, C)
for i in range(L):
    whole = once.grad(f"prompt.h{i}.attn.key")[0]  # (H, P, D)
    own = np.linalg.norm(whole - dpast_kv[i][0]) / np.linalg.norm(whole)
    print(f"h{i}: the prompt's own rows ask for {own:.2f} of its keys' gradient")
agrees("prompt, plain.shared", plain.shared(base, prompt.vectors, two)[1], dprompt[0])
agrees("prompt, shared", shared_gradient, dprompt[0])
_, in_front = minipt.loss_and_gradient(base, prompt, two, wiring="concatenated")
agrees("prompt, concatenated", in_front, dprompt[0])

# %% [markdown]
# Both wirings give the same gradient. Chapter 4 counts which one is cheaper.
#
# ## The whole step, to click on
#
# `minipt.xray` takes such a step and keeps every array of it. It can save them as one page for a
# browser. There each array opens with its shape, its formula, its numbers and its gradient. To
# keep the page, save it to a path of yours, such as `page.save("step.html")`, and open that file.

# %%
page = minipt.xray(base, prompt, message, label=answer, task=task)
with TemporaryDirectory() as folder:
    path = Path(folder) / "step.html"
    page.save(path)
    print(f"{path.stat().st_size / 1e6:.1f} MB")
agrees("prompt, xray", page.gradient, gradient)

# %% [markdown]
# ## What you have now
#
# You have the gradient of a prompt, in both wirings, and you know that it is right. Chapter 5
# makes steps of it.
#
# **In the source.** `minipt/plain.py` is chapters 2 and 3 as a few functions: GPT-2, both wirings,
# forward and backward. Read it next. `minipt/maths/ops.py` has every derivation of this chapter in
# its docstrings, each forward above its backward. `minipt/transformer/model.py` has the block of
# the library, and `minipt/prompting/wiring.py` the two wirings. `minipt xray "a text"` prints such
# a step for a text of yours.

# %%
course.summary(save="answers-03.json")
