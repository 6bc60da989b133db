# %% [markdown]
# # 2. From text to answer
#
# **You will** take one message through a model: from its tokens through the first block to the
# answer and its loss. You write the mask, the softmax, attention and the loss, and you say which
# row the answer is read from.
#
# **You will learn** what attention computes, where the prompt enters, and how one wrong row ruins
# a good prompt without any error.
#
# **You need** matrix products, Python and NumPy. **Time:** 75 minutes.
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
# An exercise is a function that you finish. `course.check` answers at once. A stub that is still
# open stops nothing, and no later cell needs your functions.

# %%
import matplotlib.pyplot as plt
import numpy as np

import minipt
from minipt import course
from minipt.maths import ops
from minipt.maths.gradcheck import compare
from minipt.prompting.text import batches, encode
from minipt.prompting.verbalizer import question_format
from minipt.transformer import model
from minipt.transformer.layer import StreamLayout, causal_mask
from minipt.transformer.ragged import Stream

SEED = 0
plt.rcParams.update({"figure.dpi": 80, "font.size": 13, "image.cmap": "Greys"})
course.begin(2)

# %% [markdown]
# This chapter computes in float64, so that "the same" means ten digits or more. Training uses
# float32, and the base is loaded in it.

# %%
base = minipt.load_base("tiny").astype(np.float64)
params = base.params
L, C, H, V = (getattr(base.config, n) for n in ("layers", "channels", "heads", "vocabulary"))
D = C // H
print(f"L={L}  C={C}  H={H}  D={D}  V={V}   {base.size:,} frozen numbers")

# %% [markdown]
# ## From a message to rows
#
# A template and label words turn a language model into a classifier. The template is the text,
# then `Sentiment:`. The model's next word is the answer. The *verbalizer* says which word stands
# for which label. Of all V words we compare only the K label words.

# %%
task = minipt.load_task("toy")
message, answer = "The soup was warm and the waiter was kind.", "positive"
filled = task.template.replace("{text}", message)
question = question_format(base, task.template, task.label_words)
choices = question.choices  # (K,)
target = task.labels.index(answer)
print(repr(filled))
print("label words", task.label_words, "token ids", choices, "target", target)

# %% [markdown]
# The tokenizer cuts the text into tokens and knows each by a number. A rare word takes several
# tokens. A leading space is part of a token.

# %%
ids = np.array([base.tokenizer.encode(filled, add_special_tokens=False).ids])  # (B, T), B = 1
B, T = ids.shape
print(" t    id  token")
for t, token in enumerate(ids[0]):
    print(f"{t:2d}  {token:4d}  {base.tokenizer.decode([token])!r}")

# %% [markdown]
# **Embedding.** Token $v$ is row $v$ of a table (V, C). In the library: `ops.embedding`.
#
# **The prompt** adds P rows of the same width. They belong to no token. Here they begin as copies
# of frequent tokens' rows, and training may move them anywhere. Nothing else is trained: P · C
# numbers.
#
# **Positions.** The model knows the order of rows only from a second table, which is added to the
# embeddings. The prompt takes positions 0 to P − 1, and the text takes the positions from P on.

# %%
tokens = params["token.table"][ids]  # (B, T, C)
prompt = minipt.init_prompt(base, length=5, method="vocab", seed=0)
P, S = len(prompt.vectors), len(prompt.vectors) + T
positions = params["position.table"][:S]  # (S, C)
x = np.concatenate([prompt.vectors[None], tokens], axis=1) + positions  # (B, S, C)
print("prompt", prompt.vectors.shape, f"{prompt.vectors.size / base.size:.3%} of the base")
print("rows  ", x.shape)

# %% [markdown]
# The library takes the whole step in one call and returns the loss and the gradient. It writes
# every array into a `Trace` under a name. `wiring="concatenated"` is what we have done so far: the
# prompt stands in front of the text. `agrees` compares an array that we computed with the
# library's. It prints the largest difference, relative to the largest number. (The difference is
# rounding. Its digits may be others on your machine.)

# %%
batch = minipt.Batch(ids, lengths=[T], targets=[target], choices=choices)
trace = minipt.Trace()
loss, gradient = minipt.loss_and_gradient(base, prompt, batch, trace, wiring="concatenated")
print(len(trace.activations), "activations and", len(trace.gradients), "gradients in the trace")


def agrees(name, ours, reference=None):
    reference = trace[f"text.{name}"] if reference is None else reference
    difference = compare(name, ours, reference)
    assert difference < 1e-9, f"{name} differs by {difference:.1e}"
    print(f"{name:<18} {np.shape(ours)!s:<16} differs by {difference:.0e}")


agrees("embedding", x)

# %% [markdown]
# ## One block
#
# A block adds two things to its rows: what each row reads in the others (attention), and what it
# computes from itself (the MLP). For block 0:
#
# $$\text{middle} = x + \text{attention}(\text{norm}_1(x)), \qquad
# \text{out} = \text{middle} + \text{mlp}(\text{norm}_2(\text{middle})).$$

# %%
block = {name[3:]: array for name, array in params.items() if name.startswith("h0.")}
for name, array in block.items():
    print(f"{name:<18} {array.shape}")


# %% [markdown]
# **Norm.** Each row is centred, divided by its standard deviation, scaled and shifted:
# $\hat x_i = (x_i - \mu)\, r$ with $r = (\sigma^2 + \epsilon)^{-1/2}$, and
# $y_i = g_i \hat x_i + b_i$. In the library: `ops.layernorm`.


# %%
def norm(x, gain, bias):
    centred = x - x.mean(-1, keepdims=True)
    rstd = (np.mean(centred**2, axis=-1, keepdims=True) + base.config.epsilon) ** -0.5
    return gain * centred * rstd + bias


normed = norm(x, block["ln1.gain"], block["ln1.bias"])  # (B, S, C)
agrees("h0.ln1", normed)


# %% [markdown]
# **Query, key, value.** Three linear maps turn each row into a query, a key and a value. The query
# says what the row looks for. The key says what other rows can find it by. The value is what it
# hands over. The C channels are then split into H heads of D channels, and each head has its own
# attention.


# %%
def heads(x):  # (B, R, C) -> (B, H, R, D)
    return x.reshape(*x.shape[:2], H, D).transpose(0, 2, 1, 3)


query, key, value = (
    heads(normed @ block[f"attn.{part}.weight"] + block[f"attn.{part}.bias"])
    for part in ("query", "key", "value")
)
agrees("h0.attn.query", query / D**0.5)  # the library divides once here, for all scores
agrees("h0.attn.key", key)
agrees("h0.attn.value", value)

# %% [markdown]
# **Scores and mask.** Row $r$ compares its query with every key $s$: $\text{scores}_{rs} = q_r
# \cdot k_s / \sqrt D$. No row may read a later row. So a mask is added to the scores: 0 where row
# $r$ may read column $s$, and $-\infty$ where it may not.
#
# ### 2a. The mask (level 1, 5 min)
#
# Return the mask (S, S): 0 where the column is not later than the row, `-np.inf` elsewhere.


# %%
def mask_of(S):
    """S rows -> (S, S)"""
    # solution: 0 where the column is not later than the row, -inf elsewhere
    rows, columns = np.arange(S)[:, None], np.arange(S)
    return np.where(columns <= rows, 0.0, -np.inf)
    # end


course.check("2a", mask_of)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `np.arange(S)[:, None]` has shape (S, 1) and counts rows. `np.arange(S)` counts columns. Compare
# them, and choose with `np.where`.
#
# </details>
#
# **Softmax.** $w_{rs} = e^{\text{scores}_{rs}} / \sum_u e^{\text{scores}_{ru}}$: each row's
# weights sum to 1, and $e^{-\infty} = 0$. Subtracting the row's maximum first changes no weight
# and keeps the exponentials finite.
#
# ### 2b. The softmax (level 2, 10 min)
#
# Return the weights of scores of any shape (..., S). Each row of the last axis sums to 1. Scores
# may be as large as 1,000.


# %%
def softmax(scores):
    """(..., S) -> same"""
    # solution: exponentials of scores less the row's maximum, by their sum
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)
    # end


course.check("2b", softmax)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `scores.max(-1, keepdims=True)` is the maximum of each row, with a shape that can be subtracted.
# `sum` takes the same arguments.
#
# </details>
#
# **Context.** Row $r$ receives the sum of the values, each times its weight,
# $\text{context}_r = \sum_s w_{rs} v_s$.
#
# ### 2c. Attention (level 2, 15 min)
#
# Put it together: scores, divided by $\sqrt D$, then mask, softmax, and the sum of the values.
# Take your own functions, or `ops.softmax` and `causal_mask(S, query.dtype)` of the library. The
# check gives other sizes than the notebook's: take S and D from `query.shape`.


# %%
def attend(query, key, value):
    """Each (B, H, S, D) -> the context (B, H, S, D)"""
    # solution: the softmax of the masked scores, times the values
    S, D = query.shape[-2:]
    scores = query @ key.swapaxes(-1, -2) / D**0.5 + mask_of(S)  # (B, H, S, S)
    return softmax(scores) @ value
    # end


course.check("2c", attend)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `key.swapaxes(-1, -2)` has shape (B, H, D, S), so `query @ key.swapaxes(-1, -2)` has a score for
# each pair of rows. `@` multiplies the last two axes and repeats over the others.
#
# </details>
#
# The library's functions go on from here, so that nothing below waits for yours.

# %%
mask = causal_mask(S, np.float64)  # (S, S)
scores = query @ key.swapaxes(-1, -2) / D**0.5 + mask  # (B, H, S, S)
weights = ops.softmax(scores.copy())
context = weights @ value  # (B, H, S, D)
agrees("h0.attn.scores", scores)
agrees("h0.attn.weights", weights)
agrees("h0.attn.context", context)

# %% [markdown]
# The picture shows the weights of the H heads: how much row $r$ reads column $s$. Black is 1. It
# shows square roots, so that small weights can be seen. The lines separate prompt and text. The
# upper right is white: the prompt does not read the text.

# %%
figure, axes = plt.subplots(1, H, figsize=(14, 3.2), sharey=True)
for h, axis in enumerate(axes):
    axis.imshow(weights[0, h] ** 0.5, vmin=0, vmax=1)
    axis.axhline(P - 0.5, color="C3", linewidth=1.2)
    axis.axvline(P - 0.5, color="C3", linewidth=1.2)
    axis.set_title(f"head {h}")
    axis.set_xlabel("row that is read")
axes[0].set_ylabel("row that reads")
figure.tight_layout()


# %% [markdown]
# ### 2d. Without the mask (level 2, 5 min)
#
# Suppose that nobody had added the mask in block 0. Of S rows, which rows of `context` would still
# be right? Return their indices as a list. Then think: would the model's answer still be right?
# Could the prompt still be computed once for all texts?


# %%
def rows_still_right(S):
    """The rows of the context that need no mask, as a list."""
    # solution: a list of rows, in terms of S
    return [S - 1]
    # end


course.check("2d", rows_still_right)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The mask only takes away later rows. For which row is there nothing to take away?
#
# </details>
#
# **Out, and the residual.** The heads are put side by side again. A linear map mixes them, and
# the result is added to the row.


# %%
def merge(x):  # (B, H, R, D) -> (B, R, C)
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], C)


attended = merge(context) @ block["attn.out.weight"] + block["attn.out.bias"]  # (B, S, C)
middle = x + attended
agrees("h0.attn.out", attended)
agrees("h0.middle", middle)


# %% [markdown]
# **MLP.** A linear map goes up to 4C channels, an activation function follows, and a second linear
# map goes down again. Each row is computed by itself. The activation function is GPT-2's GELU,
#
# $$\text{gelu}(x) = \tfrac12\, x\,(1 + \tanh u), \qquad u = \sqrt{2/\pi}\,(x + 0.044715\, x^3).$$
#
# `ops.gelu` computes the same as $x\,\sigma(2u)$, since $\tfrac12(1 + \tanh u) = \sigma(2u)$. An
# exponential is cheaper than a tanh.


# %%
def gelu(x):
    return 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))


normed = norm(middle, block["ln2.gain"], block["ln2.bias"])
up = normed @ block["mlp.up.weight"] + block["mlp.up.bias"]  # (B, S, 4C)
down = gelu(up) @ block["mlp.down.weight"] + block["mlp.down.bias"]  # (B, S, C)
out = middle + down
agrees("h0.mlp.up", up)
agrees("h0.mlp.active", gelu(up))
agrees("h0.mlp.down", down)
agrees("h0.out", out)

# %% [markdown]
# ## The other blocks and the answer
#
# The other blocks do the same with numbers of their own. `model.forward` runs them all. The answer
# is read at the text's last row only. So the last block computes keys and values for all rows, but
# a query for the last row only. From its queries on it has R = 1 row, where block 0 has S.

# %%
answer_rows = np.array([[S - 1]])  # (B, R)
again = minipt.Trace()
hidden, _ = model.forward(StreamLayout(base, Stream("text", x, answer_rows), again))  # (B, 1, C)
agrees("h0.out, by forward", out, again["text.h0.out"])
last = f"h{L - 1}"
for name in ("h0.attn.weights", f"{last}.attn.weights", "h0.out", f"{last}.out"):
    print(f"{name:<16} {again[f'text.{name}'].shape}")

# %% [markdown]
# The prompt reaches the answer through attention alone. The picture shows how much of the last
# row's attention goes to each row, in each block, as a mean over heads. White is 0. Left of the
# line stands the prompt.

# %%
shares = np.stack([again[f"text.h{i}.attn.weights"][0, :, -1].mean(0) for i in range(L)])  # (L, S)
figure, axis = plt.subplots(figsize=(11, 4))
picture = axis.imshow(shares, vmin=0, aspect="auto")
figure.colorbar(picture, label="weight")
axis.axvline(P - 0.5, color="C3", linewidth=1.2)
axis.set(xlabel="row that is read", ylabel="block", title="attention of the last row")
names = [f"p{p}" for p in range(P)] + [repr(base.tokenizer.decode([t]))[1:-1] for t in ids[0]]
axis.set_xticks(range(S), names, rotation=60)
axis.set_yticks(range(L))
figure.tight_layout()

# %% [markdown]
# **Read-out.** The output matrix is the token table again (the two are "tied"). The logit of a
# word is the inner product of its embedding and the last hidden row. The most likely of all V
# words:

# %%
everything = ops.softmax(hidden[:, 0] @ params["token.table"].T)[0]  # (V,)
for token in np.argsort(-everything)[:5]:
    print(f"{everything[token]:.3f}  {base.tokenizer.decode([token])!r}")

# %% [markdown]
# The task needs only the K rows of the label words, so we multiply only these.

# %%
table = params["token.table"][choices]  # (K, C)
logits = hidden[:, 0] @ table.T  # (B, K)
agrees("logits", logits)

# %% [markdown]
# ## The loss
#
# The loss is the cross-entropy, in nats: $\text{loss} = -\log p_{\text{target}}$ with $p =
# \text{softmax}(\text{logits})$. Of a batch it is the mean over the texts. A blind guess among K
# labels has a loss of $\log K$.
#
# ### 2e. The loss (level 1, 10 min)
#
# Return the mean loss of a batch as one number. `targets` has the index of the right label for
# each text.


# %%
def mean_loss(logits, targets):
    """logits (B, K), targets (B,) -> one number"""
    # solution: the mean over the texts of -log p at the target
    p = ops.softmax(logits.copy())
    return -np.log(p[np.arange(len(targets)), targets]).mean()
    # end


course.check("2e", mean_loss)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `p[np.arange(B), targets]` takes one number from each row: the one in the target's column. Here
# B is `len(logits)`. The notebook's own `B` is 1.
#
# </details>

# %%
probabilities = ops.softmax(logits.copy())  # (B, K)
agrees("loss", -np.log(probabilities[0, target]), loss)
print(dict(zip(task.labels, probabilities[0].round(3).tolist(), strict=True)))
print(f"{loss:.4f} nats; blind: {np.log(len(choices)):.4f}")

# %% [markdown]
# ## A batch, and the trap
#
# A batch holds B texts of different lengths. Shorter texts are padded on the right to T tokens.
# The causal mask hides the padding from every real row, since padding stands behind them. So
# padding changes no answer, as long as the answer is read in the right row.
#
# ### 2f. The row that is read (level 2, 10 min)
#
# In the concatenated wiring the S = P + T rows of a text are: the prompt's, the text's tokens, the
# padding. Return for each of B texts the row in which its answer is read.


# %%
def rows_to_read(lengths, P):
    """lengths (B,): real tokens of each text; P prompt vectors -> rows (B,), counted from 0"""
    # solution: one row for each text, from its length and P
    return P + lengths - 1
    # end


course.check("2f", rows_to_read)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Take P = 2 and a text of 3 tokens, and write down what stands in rows 0, 1, 2, 3, 4, 5.
#
# </details>
#
# Does it matter? We tune a prompt for the small base `nano` on the course's own task: is a
# sentence a statement or a question? Half of the 120 test sentences are questions, so a coin is
# right in 0.50.

# %%
nano = minipt.load_base("nano")
asked = course.statements_and_questions()
run = minipt.tune(nano, asked, steps=200, learning_rate=0.03, seed=SEED)
form = question_format(nano, asked.template, asked.label_words)
token_rows, _ = encode(nano, form.template, asked.test.texts, nano.config.context)
_, test = next(batches(token_rows, asked.test.labels, form, size=len(token_rows)))
print(f"{len(token_rows)} texts of {test.lengths.min()} to {test.lengths.max()} tokens")
print(f"test accuracy {run.test_accuracy:.3f}")

# %% [markdown]
# ### 2g. Read too early (level 1, 5 min)
#
# Somebody forgets that the prompt stands in front, and reads row `lengths - 1`: P rows too early.
# What will the accuracy be? Guess first, a number from 0 to 1.

# %%
mine = 0.8  # yours: a number from 0 to 1
course.guess("2g", mine)
course.reveal("2g")

# %% [markdown]
# Here are three faults, each of them found in real programs. `course.read_at` and
# `course.pad_left` do on purpose what the library does not do. None of them raises an error.
#
# - **The last column.** The answer is read in row S − 1. For shorter texts this row is padding.
# - **P rows too early.** The answer is read inside the text, before its end.
# - **Padding on the left.** Padding stands between the prompt and the text, and is read as words.
#   The text's words get later positions.


# %%
def accuracy(logits):
    return float((logits.argmax(1) == test.targets).mean())


length, width = len(run.prompt.vectors), test.ids.shape[1]
ways = {
    "right row": test.lengths + length - 1,
    "last column": np.full(len(test.ids), length + width - 1),
    "P rows too early": test.lengths - 1,
}
found = {
    name: accuracy(course.read_at(nano, run.prompt, test, rows)) for name, rows in ways.items()
}
found["padding on the left"] = accuracy(minipt.logits(nano, course.pad_left(test), run.prompt))
course.band(found["right row"], 0.9, 1.0, "the right row")
course.band(found["last column"], 0.4, 0.65, "the last column")
course.band(found["P rows too early"], 0.4, 0.65, "P rows too early")
course.band(found["padding on the left"], 0.4, 0.75, "padding on the left")

# %%
figure, axis = plt.subplots(figsize=(9, 3.6))
bars = axis.barh(list(found), list(found.values()), color=["C2", "C3", "C3", "C3"])
axis.bar_label(bars, fmt="%.2f", padding=4)
axis.axvline(0.5, color="grey", linestyle=":", label="a coin")
axis.set(xlabel="accuracy on 120 test texts", xlim=(0, 1.1), title="one prompt, read in four ways")
axis.invert_yaxis()
axis.legend(loc="lower right")
figure.tight_layout()

# %% [markdown]
# The prompt, the base and the texts are the same in all four bars. Only a test with a known answer
# finds such a fault: padding must not change an answer. That is easy to try. We answer one short
# text alone, and the same text in the batch:

# %%
short = int(test.lengths.argmin())
row = test.ids[short : short + 1, : test.lengths[short]]  # (1, T) without padding
alone = minipt.Batch(row, [row.shape[1]], test.targets[[short]], test.choices)
together = minipt.logits(nano, test, run.prompt)[[short]]  # (1, K)
difference = compare("alone", minipt.logits(nano, alone, run.prompt), together)
assert difference < 1e-4
print(f"alone and in the batch the logits differ by {difference:.0e}, in float32")

# %% [markdown]
# ## What you have now
#
# You have the forward pass of a transformer with a prompt in front, and know by which row it
# answers. Chapter 3 goes the way back, from the loss to the prompt's gradient.
#
# **In the source.** `minipt/plain.py` has this chapter as functions: `embed`, `block`, `read_out`.
# `minipt/maths/ops.py` has every op with its derivation. `minipt xray "a text"` prints such a step
# for a text of yours.

# %%
course.summary(save="answers-02.json")
