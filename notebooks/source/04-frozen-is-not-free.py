# %% [markdown]
# # 4. Frozen is not free
#
# **You will** count the operations of a training step by hand and hold the count to real steps.
#
# **You will learn** why one prompt can serve all texts, what a prompt saves and what it does not,
# and why a BERT cannot share its prompt.
#
# **You need** chapters 2 and 3. **Time:** 60 minutes.
#
# | | | | |
# |---|---|---|---|
# | B | texts | C | channels |
# | P | prompt vectors | F | channels inside the MLP |
# | T | tokens | L | layers |
# | K | label words | r | rank of LoRA's matrices |
#
# A prompt of 20 vectors trains a thousandth of a small base's numbers. Why does its step not take
# a thousandth of the time?

# %%
import time
from dataclasses import replace
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np

import minipt
from minipt import course
from minipt.maths import ops
from minipt.prompting.text import batches, encode
from minipt.prompting.verbalizer import question_format
from minipt.rivals.lora import RANK
from minipt.rivals.weights import weights_step
from minipt.studies.cost import compare_ways, tell
from minipt.studies.count import Step, activations, count
from minipt.transformer.base import Config
from minipt.transformer.trace import Tape

plt.rcParams.update({"figure.dpi": 80, "font.size": 13})
course.begin(4)

# %%
base = minipt.load_base("tiny")
config = base.config
L, C, F = config.layers, config.channels, config.hidden
P, B, T, K = 20, 16, 24, 2
print(f"L={L}  C={C}  F={F}   {base.size:,} frozen numbers, {P * C:,} in a prompt")
print(f"a prompt has {P * C / base.size:.2%} of the numbers")

# %% [markdown]
# ## The prompt need not see the text
#
# No row reads a later row. So the prompt's P rows are the same in front of every text, in every
# block. We put one prompt in front of two texts and compare the keys and values of its rows:

# %%
TEXTS = [
    "The soup was warm and the waiter was kind.",
    "Never again. The rooms are dirty and the staff is rude.",
]
task = minipt.load_task("toy")


def keys_and_values(base, length):
    """The trace of one prompt in front of both texts."""
    question = question_format(base, task.template, task.label_words)
    rows, _ = encode(base, question.template, TEXTS, base.config.context - length)
    _, two = next(batches(rows, np.array([1, 0]), question, size=2))
    prompt = minipt.init_prompt(base, length=length, method="vocab", seed=0)
    trace = minipt.Trace()
    minipt.loss_and_gradient(base, prompt, two, trace, wiring="concatenated")
    return trace


def differences(base, length=5):
    """By how much the prompt's keys and values differ between the texts, for each block."""
    trace = keys_and_values(base, length)
    both = [
        [trace[f"text.h{i}.attn.{part}"][:, :, :length] for part in ("key", "value")]
        for i in range(base.config.layers)
    ]  # (2, H, P, D) each
    return [max(float(abs(x[0] - x[1]).max()) for x in block) for block in both]


print("tiny, by block:", [f"{each:.0e}" for each in differences(base)])
first = keys_and_values(base, 5)["text.h3.attn.key"][:, :, 5]  # (2, H, D), each text's first row
print(f"but the texts' own first keys in h3 differ by {abs(first[0] - first[1]).max():.1f}")
assert max(differences(base)) < 1e-4

# %% [markdown]
# The text meets the prompt in one place only: it reads these keys and values. So they can be
# computed once for all texts. `wiring="shared"` does that. Each text then has the prompt's keys
# and values as its *past* (chapter 3 has its way back).
#
# ### 4a. Rows (level 1, 5 min)
#
# How many rows go through a block? Return two numbers: with the prompt in front of each of B
# texts, and with one prompt for all.


# %%
def rows(B, P, T):
    """B texts of T tokens, P prompt vectors -> a tuple (concatenated, shared)"""
    # solution: B (P + T), and P + B T
    return B * (P + T), P + B * T
    # end


course.check("4a", rows)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Draw two texts of three tokens, with a prompt of one vector. Count the boxes in both wirings.
#
# </details>

# %%
print("   P   in front of each   shared     16 texts of 24 tokens")
for length in (5, 20, 100):
    print(f"{length:4d} {B * (length + T):18d} {length + B * T:8d}")

# %% [markdown]
# **A prompt of one vector.** Which arrays change their shape with P, and which do not? We trace
# the shared wiring with five vectors and with one:


# %%
def shapes(length):
    prompt = minipt.init_prompt(base, length=length, method="vocab", seed=0)
    ids = np.zeros((2, 7), int)
    trace, batch = minipt.Trace(), minipt.Batch(ids, [7, 7], [1, 0], choices=[780, 770])
    minipt.loss_and_gradient(base, prompt, batch, trace, wiring="shared")
    return {name: array.shape for name, array in trace.activations.items()}


five, one = shapes(5), shapes(1)
of_text = [name for name in five if name.startswith("text.")]
changed = [name for name in of_text if five[name] != one[name]]
print(f"{len(changed)} of {len(of_text)} arrays of the text change their shape:")
for name in changed[:2]:
    print(f"  {name:<22} {five[name]} and {one[name]}")
print("the same parts of each block:", sorted({name.split(".", 2)[2] for name in changed}))

# %% [markdown]
# Of the text's arrays only scores and attention's weights know P: a row reads P columns more. All
# others have a row for each token, whatever the prompt.
#
# ## Trap: a BERT cannot share
#
# In a BERT every row reads every other. So the prompt's rows read the text, and are others in
# front of another text. The base `micro-masked` is a small BERT:

# %%
masked = minipt.load_base("micro-masked")
print("micro-masked, by block:", [f"{each:.0e}" for each in differences(masked)])
try:
    prompt = minipt.init_prompt(masked, length=5, method="vocab", seed=0)
    batch = minipt.Batch(np.zeros((1, 4), int), [4], [0], choices=[10, 11], positions=[3])
    minipt.loss_and_gradient(masked, prompt, batch, wiring="shared")
except minipt.MiniptError as error:
    print("MiniptError:", error)
else:
    raise AssertionError("a BERT's prompt was shared")
assert differences(masked)[0] < 1e-4 < min(differences(masked)[1:])

# %% [markdown]
# In block 0 the keys still agree, since they are made of the embeddings. From block 1 on they do
# not. In front of a BERT the prompt must run with each text.
#
# ## Guess
#
# ### 4b. A thousandth of the numbers (level 1, 5 min)
#
# A step of full fine-tuning changes every number of the base `tiny`. A prompt of 20 vectors has a
# thousandth of them. It runs once for 16 texts of 24 tokens. Which share of full fine-tuning's
# operations does its step take? Guess first, a number from 0 to 1. The value is a count.

# %%
mine = 0.3  # yours: a number from 0 to 1
course.guess("4b", mine)
course.reveal("4b")

# %% [markdown]
# ## The count
#
# A product of (m, k) and (k, n) has m n entries. Each is a sum of k products, so the product takes
# $2\,m\,k\,n$ operations. Everything else in a layer (norms, activations, softmax) takes a few
# operations a number, where a product takes $2k$. It costs passes over memory and is not counted.
#
# **Forward.** A layer has six matrices: query, key, value and out (C, C), up (C, F), down (F, C).
# Every row of every text goes through each of them. Attention has two products more: all queries
# with all keys, and all weights with all values. The heads share the C channels, so their number
# does not matter. A masked product is computed as any other.
#
# ### 4c. One layer (level 2, 10 min)
#
# Return the operations of one layer's forward pass, for B texts of T tokens without a prompt. All
# rows have a query.


# %%
def layer_forward(B, T, C, F):
    """-> a whole number"""
    # solution: 2 B T a number of the matrices, plus attention
    matrices = 4 * C * C + 2 * C * F
    return 2 * B * T * matrices + 2 * (2 * B * T * T * C)
    # end


course.check("4c", layer_forward)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The map `query` multiplies (B T, C) by (C, C). The scores of one head of one text multiply (T, D)
# by (D, T), and there are C / D heads.
#
# </details>
#
# Here is the count part by part. `agrees` compares it with the library's. Both are whole numbers,
# so they are equal or one is wrong.


# %%
def agrees(name, ours, theirs):
    assert ours == theirs, f"{name}: {ours:,} by hand, {theirs:,} in the library"
    print(f"{name:<44} {ours:>14,}")


sizes = {"query": C * C, "key": C * C, "value": C * C, "out": C * C, "up": C * F, "down": F * C}
linear = {part: 2 * B * T * size for part, size in sizes.items()}
attention = 2 * 2 * B * T * T * C
for part, operations in (linear | {"attention": attention}).items():
    print(f"{part:<10} {operations:>12,}")
layer = sum(linear.values()) + attention
print(f"{'a layer':<10} {layer:>12,}   of it attention {attention / layer:.0%}")

# %% [markdown]
# The last layer is cheaper. The answer is read in one row of each text. So all rows get keys and
# values, but only B rows go through the rest. Then each answer is compared with the K label words.

# %%
offered = linear["key"] + linear["value"]
last = offered + (sum(linear.values()) - offered + attention) // T
answer = 2 * B * K * C
step = Step(P, B, T, K=K)
forward = (L - 1) * layer + last + answer
full = count(config, "full", step)
agrees("forward", forward, full.forward.total)

# %% [markdown]
# **Backward.** On the way back each linear map $y = x W$ has two products. Each is as large as the
# forward product:
#
# $$dx = dy\,W^\top, \qquad dW = x^\top dy.$$
#
# The first carries the gradient on to the layer below. The second is needed only where $W$ itself
# learns. Attention has no weights. Each of its two products has two inputs that need a gradient,
# so its way back takes twice as much. Full fine-tuning takes all of this.
#
# ### 4d. What only weights need (level 2, 5 min)
#
# Full fine-tuning has three parts: forward, to inputs, to weights. You know how many operations
# forward takes, and how many of these are attention's. Which share of all operations is to
# weights?


# %%
def share_of_weights(forward, attention):
    """Operations forward, attention's among them -> a number from 0 to 1"""
    # solution: to weights, by the sum of all three parts
    to_weights, to_inputs = forward - attention, forward + attention
    return to_weights / (forward + to_inputs + to_weights)
    # end


course.check("4d", share_of_weights)

# %% [markdown]
# <details><summary>Hint</summary>
#
# To inputs: a linear map takes as much as forward, attention twice as much. To weights: a linear
# map takes as much as forward, attention nothing.
#
# </details>

# %%
all_attention = (L - 1) * attention + attention // T
to_inputs, to_weights = forward + all_attention, forward - all_attention
agrees("backward, to inputs", to_inputs, full.to_inputs.total)
agrees("backward, to weights", to_weights, full.to_weights.total)
agrees("a step of full fine-tuning", forward + to_inputs + to_weights, full.total)
print(f"to weights: {to_weights / full.total:.1%} of all")

# %% [markdown]
# ## Trap: frozen is not free
#
# What does a prompt not need? It needs no gradients of weights (`to_weights`), and in the lowest
# layer no way back to the texts' own tokens. What does it need? Everything else. The loss stands
# behind the last layer and the vectors stand in front of the first, so the gradient has to come
# all the way down. So about a third can be saved, however few vectors there are.
#
# And the prompt itself has to be computed. Without a prompt there are B T rows. With the prompt in
# front of each text there are B (P + T). If it runs once there are P + B T. `minipt.studies.cost`
# counts each way, measures a few steps of it here, and says all of this with your machine's
# numbers:

# %%
costs = compare_ways(base, length=P, batch_size=B, tokens=T)
print(tell(costs))

# %% [markdown]
# "For weights" is a part of "backward", so the sum is forward plus backward. Time follows the
# count only roughly, since passes over memory are not counted and take time too. (Full
# fine-tuning's peak is lower than its activations and gradients together, because an activation is
# let go as soon as the way back has read it.)
#
# The picture shows the shares for prompts of other lengths. A prompt in front of each text takes
# about two thirds of (P + T) / T. This is 1 where P is half of T, so a longer prompt takes more
# than full fine-tuning. The lines are counted, the dots are measured here.

# %%
rng = np.random.default_rng(0)
ids = rng.integers(0, config.vocabulary, (B, T))
batch = minipt.Batch(ids, [T] * B, rng.integers(0, K, B), choices=[780, 770])


def seconds(take_step):
    """The shortest of three steps, after one of warm-up."""
    times = []
    for _ in range(4):
        began = time.perf_counter()
        take_step()
        times.append(time.perf_counter() - began)
    return min(times[1:])


def prompt_step(length, wiring):
    prompt = minipt.init_prompt(base, length=length, method="vocab", seed=0)
    return seconds(lambda: minipt.loss_and_gradient(base, prompt, batch, wiring=wiring))


full_seconds = seconds(lambda: weights_step(base, batch, base.params))
lengths, tried = np.arange(1, 101), (10, 40, 80)
figure, axis = plt.subplots(figsize=(9, 4.4))
for way, name, colour in (
    ("concatenated", "in front of each text", "C3"),
    ("shared", "run once for all", "C2"),
):
    totals = [count(config, way, replace(step, P=int(each))).total for each in lengths]
    axis.plot(lengths, np.array(totals) / full.total, color=colour, label=f"{name}, counted")
    measured = [prompt_step(length, way) / full_seconds for length in tried]
    axis.plot(tried, measured, "o", color=colour, label=f"{name}, measured")
axis.axhline(1, color="grey", linestyle=":", label="full fine-tuning")
axis.set(xlabel="P, prompt vectors", ylabel="share of full fine-tuning", ylim=0, title="a step")
axis.legend(fontsize=10)
figure.tight_layout()

# %% [markdown]
# ## LoRA
#
# *LoRA* is a rival (Hu et al. 2022; chapter 6 runs it). A frozen $W$ (C, C) is used as $W + UV$,
# where $U$ (C, r) and $V$ (r, C) learn, here for query and value of every layer. The source adds
# $UV$ to a copy of $W$ before each step. On the way back it computes $dW$, then $dU = dW V^\top$
# and $dV = U^\top dW$.
#
# ### 4e. LoRA's share (level 3, 10 min)
#
# Count what LoRA takes to weights: $dW$ of query and value in every layer, then $dU$ and $dV$ of
# each. All T rows of a text have a value. All have a query too, but in the last layer one row
# only.


# %%
def lora_to_weights(L, C, B, T, r):
    """-> a whole number"""
    # solution: a dW for each matrix, then two narrow products each
    queries = (L - 1) * T + 1  # rows of a text that have a query, in all layers
    values = L * T
    whole = 2 * B * (queries + values) * C * C
    return whole + L * 2 * (2 * 2 * r * C * C)
    # end


course.check("4e", lora_to_weights)

# %% [markdown]
# <details><summary>Hint</summary>
#
# $dW = x^\top dy$ multiplies (C, N) by (N, C), where N counts the rows of all texts. $dW V^\top$
# multiplies (C, C) by (C, r).
#
# </details>

# %%
whole = 2 * B * ((L - 1) * T + 1 + L * T) * C * C
narrow = L * 2 * 2 * (2 * RANK * C * C)
lora = count(config, "lora", step)
agrees("LoRA to weights", whole + narrow, lora.to_weights.total)
for name, cost in (("LoRA", lora), ("full fine-tuning", full)):
    print(f"{name:<18} to weights {cost.to_weights.total / cost.total:.1%} of its step")
prompts = count(config, "shared", step)
for name, cost in (("LoRA", lora), ("a prompt", prompts)):
    print(f"{name:<18} its step takes {cost.total / full.total:.1%} of full fine-tuning's")
rows_of_both = B * ((L - 1) * T + 1 + L * T)
apart = 3 * 2 * rows_of_both * RANK * C  # dy Vᵀ, xᵀ (dy Vᵀ) and (x U)ᵀ dy
print(f"without ever forming dW {apart:,} in place of {whole + narrow:,}")

# %% [markdown]
# One may compute $xU$, then $(xU)V$, and never form $dW$. A narrow product takes $2 N r C$ for N
# rows, where $dW$ takes $2 N C^2$. So this is cheaper where r is much smaller than C, as here. For
# wide layers nobody forms $dW$.
#
# ## Long texts
#
# Attention grows with T², linear maps with T.
#
# ### 4f. Long texts (level 2, 5 min)
#
# At which T do attention and the linear maps of a layer take the same, forward?


# %%
def equal_length(C, F):
    """-> T"""
    # solution: T from 2 B T (4 C C + 2 C F) = 4 B T T C
    return 2 * C + F
    # end


course.check("4f", equal_length)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Write down both sides from exercise 4c. B and one T cancel.
#
# </details>

# %%
for tokens in (24, 2 * C + F, 4 * (2 * C + F)):
    long = count(replace(config, context=10**6), "full", replace(step, T=tokens))
    parts = f"attention {long.forward.attention / long.forward.total:.0%} of forward"
    print(f"T = {tokens:5d}: {parts}, to weights {long.to_weights.total / long.total:.0%} of all")

# %% [markdown]
# The share of `to_weights` is the most that a prompt can save. The longer the texts, the less it
# is, since attention has no weights.
#
# **A real model.** SmolLM2-135M is a Llama. `count` needs no more than its shape, so we write that
# down and fetch nothing. What is the readout's share if K is the whole vocabulary?

# %%
smollm2 = Config(
    layers=30,
    channels=576,
    heads=9,
    hidden=1536,
    vocabulary=49152,
    context=8192,
    epsilon=1e-5,
    key_value_heads=3,
    norm="rms",
    positions="rotary",
    activation="silu",
    gated=True,
    attention_bias=False,
    mlp_bias=False,
)
for tokens, words in ((24, 2), (24, smollm2.vocabulary), (1000, 2)):
    cost = count(smollm2, "shared", Step(P, B, tokens, K=words))
    parts = [cost.forward, cost.to_inputs]
    share = {
        part: sum(getattr(work, part) for work in parts) / cost.total
        for part in ("linear", "attention", "readout")
    }
    shares = ", ".join(f"{part} {each:.2%}" for part, each in share.items())
    print(f"T = {tokens:4d}, K = {words:5d}: {shares}")

# %% [markdown]
# ## Who needs no way back
#
# ### 4g. A prompt further up (level 1, 5 min)
#
# Suppose that the vectors stood in front of layer k, counted from 0, and not in front of layer 0.
# Through how many layers do the texts go forward, and through how many does the gradient go back?
# Then think: what do the layers below no longer know?


# %%
def layers_passed(L, k):
    """-> a tuple (forward, back)"""
    # solution: all layers forward, and back those from k on
    return L, L - k
    # end


course.check("4g", layers_passed)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Below the prompt stands the frozen base, as it is. Is anything there that learns?
#
# </details>
#
# In the middle of `tiny`, the way back would take less than half. The layers below would compute
# every text as if there were no task, since they never read the prompt. So what the prompt asks
# for can only be built in the layers above.

# %%
above = count(replace(config, layers=L // 2), "shared", step)
below = (L - L // 2) * layer  # the texts alone, forward
print(f"forward   {(above.forward.total + below) / prompts.forward.total:.0%} of the whole way")
print(f"to inputs {above.to_inputs.total / prompts.to_inputs.total:.0%} of the whole way")

# %% [markdown]
# The extreme is the *linear probe*. It learns behind the last layer and needs no way back at all.
# Who trains only the last layer needs a way back through that one. Does the library stop there? We
# let the weights of the last layer learn, then those of the first, and count the products:

# %%
for name in (f"h{L - 1}.", "h0."):
    learns = [each for each in base.params if each.startswith(name)]
    with (
        patch.object(ops, "linear_dx", wraps=ops.linear_dx) as dx,
        patch.object(ops, "linear_dw", wraps=ops.linear_dw) as dw,
    ):
        weights_step(base, batch, learns)
    print(f"{name} learns: linear_dx {dx.call_count} calls, linear_dw {dw.call_count} calls")

# %% [markdown]
# It does not stop. The backward pass goes through all layers and asks each time whether a weight
# learns there. Among the library's learners a prompt, full fine-tuning, LoRA and prefixes need the
# whole way, so a rule for the last layer alone would have no user.
#
# ## Memory
#
# The backward pass reads what the forward pass has left. One layer leaves its keys, values and
# queries, the attention's weights, each row after each of the two norms with its deviation, and
# two arrays inside the MLP. We count them by hand, and on the tape of a real step just before its
# backward pass begins:


# %%
class Kept(Tape):
    """A tape as training uses it, which notes how full it was before it was emptied."""

    is_watched = True  # a step that is watched is computed in one piece
    numbers = 0

    def take(self, name):
        self.numbers = max(self.numbers, sum(a.size for a in self.saved.values()))
        return super().take(name)


def left_behind(B, T, S, R):
    """Of one layer: T rows offer, R rows of them ask and read S."""
    attended = 2 * T * C + R * C + config.heads * R * S
    return B * (attended + (T + R) * (C + 1) + 2 * R * F)


S = P + T
by_hand = (L - 1) * left_behind(B, T, S, T) + left_behind(B, T, S, 1)  # of the texts
by_hand += (L - 1) * left_behind(1, P, P, P) + left_behind(1, P, P, 0)  # of the prompt
by_hand += B * (C + 1) + B * C  # the outer norm of the rows that are read, and their features

tape = Kept()
minipt.loss_and_gradient(base, minipt.init_prompt(base, P, "vocab", seed=0), batch, tape)
agrees("activations kept, in the library's count", by_hand, activations(config, "shared", step))
agrees("activations kept, in a real step", by_hand, tape.numbers)
print(f"{4 * by_hand / 1e6:.1f} MB, and of gradient and Adam's state {4 * 3 * P * C / 1e3:.1f} kB")
print(f"{base.size // (P * C)} prompts are as large as the base")

# %% [markdown]
# A prompt does not save this memory. It saves everything that is as large as the numbers that
# learn: gradients, the optimizer's state, and the file that a task leaves. However many tasks
# there are, one base in memory serves them all.
#
# ## What you have now
#
# You know what a step takes, and that "0.1 % of the numbers" says nothing about time. What a
# prompt saves is memory and files. Chapter 5 uses cheap steps to try things by the dozen. Chapter
# 6 asks whether a prompt is better than its rivals.
#
# **In the source.** `minipt/studies/count.py` has every formula of this chapter, for three
# families, in its docstrings. `tests/studies/test_count.py` has the class of arrays that counts
# the products of a real step. `minipt/studies/cost.py` measures. `minipt/rivals/lora.py` is LoRA.
# `minipt cost` in a terminal prints the tables for any base.

# %%
course.summary(save="answers-04.json")
