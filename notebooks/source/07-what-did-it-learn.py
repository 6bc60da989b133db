# %% [markdown]
# # 7. What did it learn?
#
# **You will** look for words in a tuned prompt, compare them with noise, see who reads the
# vectors, and take vectors away. At the end you make a prompt that does its job and reads as a
# sentence about something else.
#
# **You will learn** how to ask what a trained thing has learnt: near compared with what, read by
# whom, and lost without it? And how far each answer can be trusted.
#
# **You need** chapters 1 and 2. **Time:** 75 minutes.
#
# | | | | |
# |---|---|---|---|
# | P | prompt vectors | C | channels |
# | W | words: rows of the token table | L | layers (blocks) |
# | B | texts | H | heads |
# | T | tokens | R | rows with a query |
# | S | rows that are read, P + T | | |

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

import minipt
from minipt import course
from minipt.learning.evaluate import encode_split, task_question
from minipt.learning.loop import learn
from minipt.learning.settings import defaults_for
from minipt.maths.gradcheck import compare
from minipt.prompting.starts import frequent_ids, word_ids
from minipt.prompting.text import batches, tokens
from minipt.results import influence, neighbours
from minipt.rivals.wayward import WaywardLearner

SEED = 0
plt.rcParams.update({"figure.dpi": 80, "font.size": 13, "image.cmap": "Blues"})
course.begin(7)


def agrees(name, ours, reference):
    difference = compare(name, ours, reference)
    assert difference < 1e-4, f"{name} differs by {difference:.1e}"
    print(f"{name:<30} {np.shape(ours)!s:<12} differs by {difference:.0e}")


# %% [markdown]
# ## A tuned prompt
#
# The base is `micro`. The task is to find the questions among statements, where one sentence in
# eight is a question. The prompt begins as the words of a tale. The tale has nothing to do with
# the task, and we need it again at the end.

# %%
base = minipt.load_base("micro")
fingerprint = base.fingerprint
task = course.statements_and_questions(one_in=8)
tale = " Once upon a time there was a little house by the sea."
tale_ids = tokens(base, tale)  # (P,)
P, C, L = len(tale_ids), base.config.channels, base.config.layers
settings = {"length": P, "steps": 120, "learning_rate": 0.1, "seed": SEED}
run = minipt.tune(base, task, method="text", text=tale, **settings)
prompt, vectors = run.prompt, run.prompt.vectors  # (P, C)
start = minipt.init_prompt(base, P, method="text", text=tale).vectors  # (P, C)
majority = task.test.answers.count(task.majority) / len(task.test.texts)
print(f"{P} vectors of {C} numbers")
print(f"test: {run.test_accuracy:.3f}, always {task.majority_name!r}: {majority:.3f}")
course.band(run.test_accuracy, 0.95, 1.0, "the prompt that began as a tale, on test")

# %% [markdown]
# ## Near words
#
# A tuned vector is no word. But one may ask which word it resembles. The usual measure is the
# cosine of the angle between two vectors: 1 for the same direction, 0 for orthogonal ones. It does
# not ask how long they are.
#
# ### 7a. The nearest word (level 2, 10 min)
#
# Return for each of P vectors its largest cosine with a row of a table (W, C).


# %%
def nearest_cosines(vectors, table):
    """vectors (P, C), table (W, C) -> (P,)"""
    # solution: the largest cosine of each vector with the rows of the table
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    words = table / np.linalg.norm(table, axis=1, keepdims=True)
    return (units @ words.T).max(1)
    # end


course.check("7a", nearest_cosines)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `np.linalg.norm(x, axis=1, keepdims=True)` is the length of each row, with a shape that you can
# divide by. The product of the (P, C) and the transposed (W, C) has a number for each pair.
#
# </details>
#
# Here are the four nearest words of each vector, by the library. Do they make sense for the task?
# Do they make a sentence?

# %%
near = neighbours.nearest(base, vectors, "cosine", count=4)
print("vector  cosine  nearest words")
for p in range(P):
    print(f"{p:6d}  {near.values[p, 0]:6.3f}  ", *map(repr, near.tokens[p]))
table = base.params["token.table"][word_ids(base)]  # (W, C), without the special token
units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
cosines = units @ (table / np.linalg.norm(table, axis=1, keepdims=True)).T  # (P, W)
agrees("cosines", cosines.max(1), near.values[:, 0])
same = int((near.ids[:, 0] == tale_ids).sum())
print(f"{same} of {P} vectors are nearest to the word that they began as")
course.band(same / P, 0.5, 1.0, "share of vectors that still read as their word of the tale")

# %% [markdown]
# The prompt finds the questions, and reads almost as the tale. Somebody who saw only these words
# would say that it was made for children's stories. The words tell where the prompt *began*.
#
# ## Near compared with what?
#
# Every direction has a nearest word. So a cosine says something only beside a *null model*: the
# same measure of vectors that have learnt nothing. Noise of the same length is one. It has the
# norms of the prompt's vectors, and directions drawn at random.
#
# ### 7b. The null model (level 2, 10 min)
#
# `noise` (P, C) holds random numbers. Give each row of it the norm of the vector in the same row,
# and leave its direction as it is.


# %%
def noise_of_same_norms(vectors, noise):
    """vectors (P, C), noise (P, C) -> (P, C)"""
    # solution: the noise, each row with the norm of its vector
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)  # (P, 1)
    return noise * norms / np.linalg.norm(noise, axis=1, keepdims=True)
    # end


course.check("7b", noise_of_same_norms)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Make each row of the noise as long as 1 first. Then multiply it by the other norm.
#
# </details>
#
# We compare four groups: the tuned prompt; a second prompt that learnt the same task and began as
# random numbers, so that it never was near a word; random vectors; and real words, each with the
# nearest *other* word.

# %%
other = minipt.tune(base, task, method="uniform", **settings)
print(f"the second prompt on test: {other.test_accuracy:.3f}")
groups = neighbours.closest(base, vectors, "cosine", seed=SEED)
beside = {
    "random vectors": groups["random"],
    "prompt that\nbegan as noise": neighbours.closest(base, other.prompt.vectors, "cosine")[
        "prompt"
    ],
    "prompt that\nbegan as a tale": groups["prompt"],
    "words, to\nanother word": groups["words"],
}
figure, axis = plt.subplots(figsize=(10, 4.2))
axis.boxplot(list(beside.values()), tick_labels=list(beside), whis=(5, 95))
axis.set(ylabel="cosine to the nearest word", ylim=(0, 1), title="near compared with what?")
figure.tight_layout()
medians = [float(np.median(values)) for values in beside.values()]
for who, median in zip(beside, medians, strict=True):
    print(f"median cosine {median:.3f}  {who.replace(chr(10), ' ')}")
course.band(other.test_accuracy, 0.95, 1.0, "the prompt that began as noise, on test")
course.band(medians[1] - medians[0], -0.05, 0.08, "its median cosine less that of noise")
course.band(medians[2] - medians[0], 0.1, 0.3, "the first prompt's less that of noise")

# %% [markdown]
# The second prompt does the task as well, and is hardly nearer to words than noise is. Its
# "nearest words" are those that any vector has. The first prompt is nearer only because of its
# start.
#
# Euclid's distance asks for length too. It is another measure, and has its own null model:

# %%
shares = (0.1, 0.5, 0.9)
for measure in neighbours.MEASURES:
    print(f"{measure + ' to the nearest word':<30}{'10 %':>8}{'median':>8}{'90 %':>8}")
    for who, values in neighbours.closest(base, vectors, measure).items():
        print(f"  {who:<28}" + "".join(f"{q:8.3f}" for q in np.quantile(values, shares)))
by_hand = np.linalg.norm(vectors[:, None] - table, axis=-1).min(1)  # (P,)
agrees("distances", by_hand, neighbours.closest(base, vectors, "distance")["prompt"])

# %% [markdown]
# ## Norms
#
# The distances are so large because the vectors are so long. Nothing holds them at the length of a
# word. Adam moves every coordinate by about the learning rate at each step (chapter 5). Every
# block looks at a row through layer norm, which forgets how long the row was. (The residual does
# not forget it: what a block adds turns a long row less than a short one.) The prompt began as
# words, so the norms of its start are those of words.

# %%
long = {"prompt": vectors, "start": start, "words": table}
norms = {who: np.linalg.norm(x, axis=1) for who, x in long.items()}
print(f"{'norm':<10}{'10 %':>8}{'median':>8}{'90 %':>8}")
for who, values in norms.items():
    print(f"{who:<10}" + "".join(f"{q:8.2f}" for q in np.quantile(values, shares)))
ratio = float(np.median(norms["prompt"]) / np.median(norms["words"]))
course.band(ratio, 2, 10, "the prompt's median norm, in those of a word")

# %% [markdown]
# ## A map
#
# C dimensions do not fit a page. The two directions in which the words differ most are the
# eigenvectors of their covariance with the largest eigenvalues (principal components, Pearson
# 1901). How far do the vectors leave the cloud? Do not believe the map too much: its title says
# how much of the words' variance it shows.

# %%
frequent = base.params["token.table"][frequent_ids(base)].astype(np.float64)
centre = frequent.mean(0)
covariance = (frequent - centre).T @ (frequent - centre) / len(frequent)  # (C, C)
variances, directions = np.linalg.eigh(covariance)  # ascending; directions as columns
axes = directions[:, [-1, -2]].T  # (2, C)
share = variances[-2:].sum() / variances.sum()
plane = neighbours.principal_plane(base)
agrees("axes, but for the sign", np.abs(axes), np.abs(plane.axes))
agrees("share of the variance", share, plane.share)

figure, axis = plt.subplots(figsize=(8, 5))
axis.scatter(*plane.project(frequent).T, s=2, color="silver", label="words")
begin, end = plane.project(start), plane.project(vectors)  # (P, 2)
axis.plot(*np.stack([begin, end]).transpose(2, 0, 1), color="C1", linewidth=0.8)
axis.scatter(*begin.T, s=20, color="C2", label="start", zorder=2)
axis.scatter(*end.T, s=28, color="C1", label="prompt", zorder=3)
for p in range(P):
    axis.annotate(str(p), end[p], (4, 3), textcoords="offset points")
title = f"a map that shows {share:.0%} of the variance of words"
axis.set(xlabel="first component", ylabel="second component", title=title)
axis.legend()
figure.tight_layout()

# %% [markdown]
# ## Who reads them
#
# A prompt acts only where a text attends to it. The trace of one step holds all weights, (B, H, R,
# P + T), whose first P columns are the prompt's.
#
# ### 7c. Who reads them (level 2, 10 min)
#
# Return for each prompt vector how much of its attention a row of the text gives to it: the mean
# over texts, heads and rows. (All texts have the same length here, so that no row is padding.)


# %%
def attention_to_prompt(weights, P):
    """weights (B, H, R, P + T) -> (P,)"""
    # solution: the mean of the prompt's columns, of all rows
    return weights[..., :P].mean((0, 1, 2))
    # end


course.check("7c", attention_to_prompt)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `weights[..., :P]` takes the first P numbers of the last axis. `mean` takes several axes at once,
# as a tuple.
#
# </details>
#
# By hand for one text, with the library for 32 of them. Each row of weights sums to 1 over prompt
# and text, so the attention that a layer gives to all vectors together is a share. The last layer
# computes only the row that the answer is read from.

# %%
one_text = replace(task.validation, texts=task.validation.texts[:1], labels=[0])
question = task_question(base, prompt, one_text, task)
rows, targets, _ = encode_split(base, question, one_text, base.config.context - P)
_, batch = next(batches(rows, targets, question, 1))
trace = minipt.Trace()
minipt.loss_and_gradient(base, prompt, batch, trace)
weights = [trace[f"text.h{i}.attn.weights"] for i in range(L)]  # (1, H, R, P + T) each
print("rows and columns:", weights[0].shape[2:], "and in the last layer", weights[-1].shape[2:])
by_hand = np.stack([layer[..., :P].mean((0, 1, 2)) for layer in weights])  # (L, P)
agrees("attention of one text", by_hand, influence.attention(base, prompt, task, texts=1))

attention = influence.attention(base, prompt, task, texts=32)  # (L, P)
assert (attention.sum(1) < 1).all()
print("to the whole prompt, by layer:", attention.sum(1).round(2))
figure, axis = plt.subplots(figsize=(10, 3))
picture = axis.imshow(attention, vmin=0, aspect="auto")
figure.colorbar(picture, label="share of attention")
axis.set(xlabel="prompt vector", ylabel="layer", title="who is read, and in which layer")
axis.set(xticks=range(P), yticks=range(L))
figure.tight_layout()

# %% [markdown]
# ## What is lost without each
#
# A text may attend to a vector and not use it. So we take one vector away and measure how much the
# loss rises (*ablation*).
#
# ### 7d. Which vectors matter? (level 1, 5 min)
#
# You have seen the words and the attention. Without which three vectors, each alone, is the loss
# largest? Guess a list of three numbers, the most important first. (The value is that of `SEED =
# 0`.)

# %%
mine = [6, 7, 12]  # yours: a list of three vectors, such as [0, 1, 2]
course.guess("7d", mine)
course.reveal("7d")

# %% [markdown]
# If the place of a vector were left empty, all rows behind it would move by one position. That
# alone changes what the model computes. So another vector takes its place: the mean of the words,
# which says nothing in particular.
#
# ### 7e. Take one away (level 1, 5 min)
#
# Return the vectors with vector `p` replaced by `nothing` (C,), and all others as they are.


# %%
def without(vectors, p, nothing):
    """vectors (P, C), p a row, nothing (C,) -> (P, C), a copy"""
    # solution: a copy of the vectors, with `nothing` in row p
    copy = vectors.copy()
    copy[p] = nothing
    return copy
    # end


course.check("7e", without)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Begin with `copy = vectors.copy()`.
#
# </details>
#
# By hand for vector 0, then with the library for all of them, in P + 1 evaluations.

# %%
nothing = frequent.mean(0).astype(np.float32)  # (C,)


def measure(some, split=task.validation):
    """Accuracy and loss of vectors (P, C) in front of a split."""
    return minipt.evaluate(base, replace(prompt, vectors=some), split, task)


copy = vectors.copy()
copy[0] = nothing
ablation = influence.ablate(base, prompt, task)
agrees("loss without vector 0", measure(copy).loss, ablation.losses[0])
order = np.argsort(-ablation.losses)  # (P,) the most important first
print(f"all vectors: accuracy {ablation.accuracy:.3f}, loss {ablation.loss:.4f}")
print("without  accuracy    loss  attention  nearest word")
for p in order:
    numbers = f"{ablation.accuracies[p]:8.3f}{ablation.losses[p]:8.4f}"
    print(f"{p:7d}  {numbers}{attention[:, p].mean():11.3f}  {near.tokens[p][0]!r}")
course.band(
    float(ablation.accuracies.min()), 0.7, 1.0, "accuracy without the vector that matters most"
)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8))
left.bar(range(P), ablation.losses, color="C0")
left.axhline(ablation.loss, color="C3", linestyle=":", label="with all vectors")
left.set(xlabel="vector taken away", ylabel="loss (nats)", title="lost without each")
left.set(xticks=range(P), ylim=(0, 1.3 * ablation.losses.max()))
left.legend()
right.scatter(attention.mean(0), ablation.losses, color="C0")
for p in range(P):
    point = attention[:, p].mean(), ablation.losses[p]
    right.annotate(str(p), point, (4, 3), textcoords="offset points")
right.margins(0.12)
right.set(xlabel="mean attention", ylabel="loss without it", title="read much, or needed?")
figure.tight_layout()

# %% [markdown]
# Most vectors can be taken away, one at a time, and little is lost. Are the few that cost
# something those with the sensible words? Are they those that are read most? Two more questions
# show how careful one must be with "what is lost without each".
#
# **Left out instead of replaced.** We delete vector 0, so that P − 1 are left and all rows behind
# move by one position. And we only move the prompt: one more `nothing` stands in front.

# %%
for name, some in (
    ("as it is", vectors),
    ("vector 0 replaced", copy),
    ("vector 0 left out", np.delete(vectors, 0, axis=0)),
    ("moved by one position", np.concatenate([nothing[None], vectors])),
):
    print(f"{name:<22} {len(some)} vectors, loss {measure(some).loss:.4f}")
left_out = [measure(np.delete(vectors, p, axis=0)).loss for p in range(P)]
differences = np.abs(left_out - ablation.losses)
print(f"left out or replaced differ most for vector {differences.argmax()}:")
print(f"loss {left_out[differences.argmax()]:.4f} or {ablation.losses[differences.argmax()]:.4f}")

# %% [markdown]
# **Two at a time.** Is the loss without the two most important vectors what the two changes add up
# to?

# %%
copy = vectors.copy()
copy[order[:2]] = nothing
together = measure(copy).loss - ablation.loss
summed = (ablation.losses[order[:2]] - ablation.loss).sum()
print(f"without both the loss rises by {together:.4f}; the two changes sum to {summed:.4f}")

# %% [markdown]
# ### 7f. Keep a few only (level 2, 10 min)
#
# Now the other way round. Keep the vectors in `kept`, in their places, and put `nothing` in all
# other places.


# %%
def keep_only(vectors, kept, nothing):
    """vectors (P, C), kept a list of rows, nothing (C,) -> (P, C)"""
    # solution: `nothing`, and the kept vectors in their own rows
    copy = np.tile(nothing, (len(vectors), 1))
    copy[kept] = vectors[kept]
    return copy
    # end


course.check("7f", keep_only)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `np.tile(nothing, (P, 1))` has `nothing` in each of P rows. A list of rows can be an index:
# `copy[kept] = vectors[kept]`.
#
# </details>
#
# The most important vectors are those whose loss without them is largest. The orange curve keeps
# only so many of them. The blue curve takes so many of them away.

# %%
kept, taken = [], []
for count in range(P + 1):
    some, others = np.tile(nothing, (P, 1)), vectors.copy()
    some[order[:count]], others[order[:count]] = vectors[order[:count]], nothing
    kept.append(measure(some, task.test).accuracy)
    taken.append(measure(others, task.test).accuracy)
figure, axis = plt.subplots(figsize=(9, 4))
axis.plot(kept, "o-C1", label="only these are kept")
axis.plot(taken, "o-C0", label="these are taken away")
axis.axhline(majority, color="grey", linestyle=":", label="the majority")
axis.set(xlabel="so many of the most important vectors", ylabel="accuracy on test", ylim=(0, 1.05))
axis.set_title("needed alone is not enough alone")
axis.legend(loc="lower center")
figure.tight_layout()
course.band(taken[2], 0.85, 1.0, "without the two most important")
course.band(kept[2], 0.0, majority, "only the two most important")
course.band(kept[P], 0.95, 1.0, "all of them")

# %% [markdown]
# Without its two most important vectors the prompt still does the task. With these two alone, it
# answers no better than the majority. Ablation asks what a vector adds *while the others are
# there*. Where several can do the same job, none of them seems to matter.
#
# ## The wayward prompt
#
# Khashabi et al. (2022) turned the question round: can a prompt be made to read as *any* sentence
# and still do its job? Each vector $v_p$ is to read as a given word, with embedding $e_p$. They
# add the squared distance from this embedding to the loss:
#
# $$\text{objective} = \text{loss} + \frac{\gamma}{P} \sum_p |v_p - e_p|^2.$$
#
# ### 7g. The pull (level 2, 10 min)
#
# Return the gradient, by the vectors, of the second term alone.


# %%
def pull(vectors, words, gamma):
    """vectors (P, C), words (P, C), gamma a number -> (P, C)"""
    # solution: the gradient of gamma / P times the sum of squared distances
    return 2 * gamma / len(vectors) * (vectors - words)
    # end


course.check("7g", pull)

# %% [markdown]
# <details><summary>Hint</summary>
#
# $\partial\,|v - e|^2 / \partial v = 2\,(v - e)$, and a vector's pull does not depend on other
# vectors.
#
# </details>
#
# `WaywardLearner` adds this to the gradient and changes nothing else.

# %%
chosen = defaults_for(base, task, method="text", text=tale, **settings)
wayward = WaywardLearner(base, task, chosen)
wayward.prompt.vectors[:] = vectors  # away from the tale, where the pull is not zero
_, pulled = wayward.loss_and_gradients(batch, None)
_, plain = minipt.loss_and_gradient(base, prompt, batch)
by_hand = plain + 2 * wayward.gamma / P * (vectors - start)
agrees("the gradient of the sum", by_hand, pulled["prompt"])


def held_near_the_tale(gamma):
    """A prompt that learns the task under a pull: its accuracy, its share of words, its cosine."""
    learner = WaywardLearner(base, task, chosen, gamma=gamma)
    found = learn(learner, task, chosen)
    held = found.best_arrays["prompt"]  # (P, C)
    reads = neighbours.nearest(base, held, "distance", count=1)
    words = "".join(token for (token,) in reads.tokens)
    share = float((reads.ids[:, 0] == tale_ids).mean())
    cosine = float((held * start).sum() / np.linalg.norm(held) / np.linalg.norm(start))
    return found.test.accuracy, share, cosine, words


held = {0.02: held_near_the_tale(0.02)}  # by gamma; this one is the learner's own
print("it reads:", repr(held[0.02][3]))

# %% [markdown]
# The same with a pull that is a hundred and a thousand times as strong:

# %%
held |= {gamma: held_near_the_tale(gamma) for gamma in (2, 20)}
print(" gamma  accuracy  its word  cosine  it reads")
for gamma, (accuracy, share, cosine, words) in held.items():
    print(f"{gamma:6g}  {accuracy:8.3f}  {share:8.2f}  {cosine:6.3f}  {words!r}")
accuracy, share, cosine, _ = held[2]
course.band(accuracy, 0.9, 1.0, "held near the tale, gamma 2: accuracy")
course.band(share, 0.99, 1.0, "held near the tale, gamma 2: share that reads as its word")
course.band(cosine, 0.9, 1.0, "held near the tale, gamma 2: cosine with the tale")

# %% [markdown]
# So we chose every word that this prompt reads as, and it still does the task. It even
# lies nearer to its words than words lie to each other. One reason is room: in C dimensions a
# vector can move in many directions that bring it no nearer to another word, and a small move is
# enough for the task.
#
# `minipt evidence --claim 10` does the same with real text messages, another base, another tale
# and three seeds (`minipt/studies/README.md`).
#
# ### 7h. Too strong a pull (level 2, 15 min)
#
# At which gamma does the prompt answer no better than the majority, since nothing is left to
# learn? Try a few, and keep one. Do not look for the edge: any gamma beyond it will do.

# %%
gamma = 1000  # yours: a number above 20
course.check("7h", gamma if gamma is ... else held_near_the_tale(gamma)[0])

# %% [markdown]
# <details><summary>Hint</summary>
#
# The table above goes up by factors of ten. Go on so. One run takes a few seconds.
#
# </details>
#
# The words of a soft prompt show, at best, where it lies. Who reads a vector is seen in the
# attention, and what it does is seen when it is gone, while the others are there. None of the
# three is an explanation alone.

# %%
assert base.fingerprint == fingerprint
print("the base is unchanged:", fingerprint[:12])

# %% [markdown]
# ## What you have now
#
# You have four ways to question a prompt, and for each of them something to compare with. Chapter
# 8 leaves the small GPT-2s for other families of models.
#
# **In the source.** `minipt/results/neighbours.py` and `minipt/results/influence.py` compute what
# this chapter computed by hand. `minipt/results/reading.py` puts it on one page: `minipt read
# runs/NAME` in a terminal. `minipt/rivals/wayward.py` is the learner that is held near the tale.

# %%
course.summary(save="answers-07.json")
