# %% [markdown]
# # 5. Making it learn
#
# **You will** write Adam and the loop, and hold both to `minipt.tune`. Then you tune prompts by
# the dozen, with other learning rates, other starts and other seeds, and make a rule out of what
# you see.
#
# **You will learn** why a prompt needs a large learning rate, how to see that a run has learnt
# nothing although it failed nowhere, and what a single run is worth.
#
# **You need** chapter 1, and what a gradient is (chapter 3). **Time:** 90 minutes.
#
# | | | | |
# |---|---|---|---|
# | P | prompt vectors | g | gradient of the loss by the vectors |
# | C | channels: numbers a vector | T | steps |
#
# An exercise is a function that you finish, or a value. `course.check` answers at once. You may
# run a cell as often as you like. What is still open stops nothing.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

import minipt
from minipt import course
from minipt.maths.gradcheck import compare
from minipt.tasks.task import Split

SEED = 0
plt.rcParams.update({"figure.dpi": 80, "font.size": 13})
course.begin(5)

# %%
base = minipt.load_base("nano")
fingerprint = base.fingerprint
task = course.statements_and_questions()
table = base.params["token.table"]  # (V, C)
print(f"{base.size:,} frozen numbers, {20 * table.shape[1]:,} in a prompt of 20 vectors")
print(f"root mean square of a number in the embeddings: {np.mean(table**2) ** 0.5:.3f}")

# %% [markdown]
# ## Adam
#
# Training repeats one step: compute the loss and its gradient $g$, and move the vectors a little
# against the gradient. *Gradient descent* moves them by $\text{rate} \cdot g$. *Adam* (Kingma and
# Ba 2015) keeps two running means, both zero at first, and in step $t = 1, 2, \dots$ does the
# following with each number:
#
# $$m \leftarrow 0.9\,m + 0.1\,g, \qquad s \leftarrow 0.999\,s + 0.001\,g^2,$$
#
# $$\text{vectors} \leftarrow \text{vectors} -
# \text{rate}\;\frac{m \,/\, (1 - 0.9^t)}{\sqrt{s \,/\, (1 - 0.999^t)} + 10^{-8}}.$$
#
# The divisors $1 - 0.9^t$ and $1 - 0.999^t$ correct the start. After one step $m$ is only a tenth
# of $g$, and $1 - 0.9^1 = 0.1$ makes it $g$ again.
#
# ### 5a. A step of Adam (level 2, 15 min)
#
# Return the new vectors, the new running mean and the new running mean of the square. `step` is
# $t$, counted from 1. Better make new arrays: `mean *= 0.9` also changes the array of the caller.


# %%
def adam(vectors, gradient, mean, square, step, rate):
    """Arrays (P, C), step and rate numbers -> a tuple (vectors, mean, square), each (P, C)"""
    # solution: both running means, then both corrected, then the step
    mean = 0.9 * mean + 0.1 * gradient
    square = 0.999 * square + 0.001 * gradient**2
    corrected = mean / (1 - 0.9**step)
    root = np.sqrt(square / (1 - 0.999**step))
    return vectors - rate * corrected / (root + 1e-8), mean, square
    # end


course.check("5a", adam)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Write four lines, one for each of `mean`, `square`, `corrected` and `root`. Only the corrected
# ones go into the step, and only the running ones are returned.
#
# </details>
#
# ### 5b. The loop (level 3, 15 min)
#
# `loss_and_gradient(vectors)` gives the loss of a batch, a number, and the gradient (P, C). Take
# `steps` steps with your `adam`, and return the list of losses: for each step the one that it
# starts from. The check holds your list to the losses of `minipt.tune` on the same eight texts, in
# float64.


# %%
def train(loss_and_gradient, vectors, steps, rate):
    """vectors (P, C) -> a list of `steps` losses"""
    # solution: two means of zeros, and a loop that notes each loss
    mean, square, losses = np.zeros_like(vectors), np.zeros_like(vectors), []
    for step in range(1, steps + 1):
        loss, gradient = loss_and_gradient(vectors)
        losses.append(loss)
        vectors, mean, square = adam(vectors, gradient, mean, square, step, rate)
    return losses
    # end


course.check("5b", train)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `np.zeros_like(vectors)` makes the two means. `range(1, steps + 1)` counts from 1. Each step
# needs the gradient at the place where the vectors are now.
#
# </details>
#
# `minipt.tune` is the same loop with what a long run needs: random batches, a rate that rises at
# first and then falls in a line (the *schedule*), clipping of large gradients, looks at the
# validation split, checkpoints. In the next cell all of these are set so that they do nothing. So
# its steps are those of 5b. With `optimizer="sgd"` it takes gradient descent instead (with
# momentum: it goes on a little in the direction of the last steps).

# %%
few = Split(task.train.texts[:8], task.train.labels[:8])
eight = replace(task, train=few, validation=few)
still = {"schedule": "constant", "warmup": 0, "clip": 1e9, "batch_size": 8, "method": "vocab"}
rates = {"adam 0.02": 0.02, "sgd 0.02": 0.02, "sgd 0.2": 0.2}
by_heart = {
    name: minipt.tune(
        base, eight, steps=20, seed=SEED, optimizer=name[:4].strip(), learning_rate=rate, **still
    )
    for name, rate in rates.items()
}
figure, axis = plt.subplots(figsize=(9, 4))
for name, one in by_heart.items():
    axis.plot(range(1, 21), [record["loss"] for record in one.history[1:]], label=name)
axis.axhline(np.log(2), color="grey", linestyle=":", label="a coin")
axis.set(xlabel="step", ylabel="loss (nats)", ylim=0, title="twenty steps on eight texts")
axis.set_xticks(range(5, 21, 5))
axis.legend()
figure.tight_layout()

# %% [markdown]
# ### 5c. How long the first step is (level 2, 5 min)
#
# From the gradient (P, C) of the first step and the rate: how far do all the vectors together
# move, by gradient descent and by Adam? Both means are zero before. The length of an array is the
# root of the sum of its squares, `np.linalg.norm`.


# %%
def first_lengths(gradient, rate):
    """gradient (P, C) -> a tuple (length of gradient descent's step, length of Adam's step)"""
    # solution: put step 1 into both formulas
    return rate * np.linalg.norm(gradient), rate * np.sqrt(gradient.size)
    # end


course.check("5c", first_lengths)

# %% [markdown]
# <details><summary>Hint</summary>
#
# After one step $m / 0.1 = g$ and $s / 0.001 = g^2$. What is $g / \sqrt{g^2}$? How many numbers
# are there?
#
# </details>

# %%
for name, one in by_heart.items():
    first, last = one.history[1], one.history[-1]
    print(
        f"{name:<10} |g| = {first['gradient_norm']:.3f}  first step {first['distance']:.4f}"
        f"  after 20 steps {last['distance']:.2f}  loss {last['loss']:.3f}"
    )
first = by_heart["adam 0.02"].history[1]["distance"]
assert compare("first step", first, 0.02 * (20 * base.config.channels) ** 0.5) < 1e-3

# %% [markdown]
# At the same rate gradient descent moves much less, since the gradient is small. It needs a rate
# some ten times as large to fall as fast. Adam asks only for the gradient's sign and steadiness:
# **each number moves by about the rate**, however small the gradient is.
#
# That makes a rate easy to think about. In T steps a number moves by T times the rate at most.
# Compare that with the root mean square above. The base first makes all vectors equally long (its
# layer norm), so it is no use if a vector only grows: it must turn. To turn, it has to move by
# about its own length.
#
# **By heart.** Has the prompt learnt the task from eight texts?

# %%
heart = by_heart["adam 0.02"]
print(f"of the eight texts {heart.history[-1]['validation_accuracy']:.3f} are right")
print(f"of {heart.test.total} new texts {heart.test_accuracy:.3f}")
course.band(heart.history[-1]["validation_accuracy"], 0.75, 1.0, "the eight texts themselves")
course.band(heart.test_accuracy, 0.4, 0.9, "the same prompt on new texts")

# %% [markdown]
# Eight texts can be learnt by heart. Only texts that the prompt has not seen tell what it has
# learnt. From here on we learn from all training texts, in short runs of 80 steps with 8 texts
# each. We look at the *validation* split, and leave the test split alone: we are going to choose
# rates, and a choice must not be made on the test split (chapter 6 shows why).

# %%
tried = replace(task, test=task.validation)  # the test split stays unseen
short = {"steps": 80, "batch_size": 8, "evaluate_every": 80}


def go(rate, factor=1.0, seed=SEED):
    """A short run whose start is `factor` times as long as the usual one."""
    start = minipt.init_prompt(base, length=20, method="vocab", seed=seed)
    start.vectors *= np.float32(factor)
    return minipt.tune(base, tried, start=start, learning_rate=rate, seed=seed, **short)


# %% [markdown]
# ## Explore: rate and length of the start
#
# ### 5d. The smallest rate that learns (level 1, 5 min)
#
# We try the rates 0.0001, 0.001, 0.01 and 0.1, the smallest first. Which is the first whose run
# answers at least 0.8 of the validation texts rightly? Guess one of the four.

# %%
mine = 0.001  # yours: one of the four rates
course.guess("5d", mine)
course.reveal("5d")

# %% [markdown]
# Now the whole map. Six rates, and four starts: words of the base made a thousand times shorter,
# as they are, ten times longer, a thousand times longer. That is 24 runs.

# %%
RATES = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 1.0)
FACTORS = (0.001, 1.0, 10.0, 1000.0)
runs = {(factor, rate): go(rate, factor) for factor in FACTORS[:2] for rate in RATES}

# %%
runs |= {(factor, rate): go(rate, factor) for factor in FACTORS[2:] for rate in RATES}

# %%
losses = np.array([[runs[f, r].history[-1]["validation_loss"] for r in RATES] for f in FACTORS])
accuracies = np.array([[runs[f, r].test_accuracy for r in RATES] for f in FACTORS])
figure, axis = plt.subplots(figsize=(9, 4.5))
picture = axis.imshow(losses, vmin=0, vmax=1, cmap="viridis_r", aspect="auto")
figure.colorbar(picture, label="validation loss (nats)")
for i, j in np.ndindex(losses.shape):
    colour = "white" if losses[i, j] > 0.5 else "black"
    axis.text(
        j,
        i,
        f"{losses[i, j]:.2f}\n({accuracies[i, j]:.2f})",
        ha="center",
        va="center",
        color=colour,
    )
axis.set_xticks(range(len(RATES)), [f"{rate:g}" for rate in RATES])
axis.set_yticks(range(len(FACTORS)), [f"× {factor:g}" for factor in FACTORS])
axis.set(
    xlabel="learning rate", ylabel="length of the start", title="loss (accuracy) after 80 steps"
)
figure.tight_layout()

# %%
course.band(accuracies[1, 0], 0.45, 0.55, "rate 0.0001, the usual start")
course.band(accuracies[1].max(), 0.8, 1.0, "the usual start, its best rate")
course.band(accuracies[0].max(), 0.8, 1.0, "a thousand times shorter, its best rate")
course.band(accuracies[3].max(), 0.3, 0.75, "a thousand times longer, its best rate")

# %% [markdown]
# Read it row by row.
#
# - **Too small.** On the left nothing is learnt, whatever the start. No message says so.
# - **Too large.** On the right the vectors run past what they look for.
# - **The start can be too long, and never too short.** Very long vectors cannot turn: no rate
#   helps in so few steps. Very short ones learn as well as words do. In front of the first block
#   the base adds a position to each vector, so even a vector of zeros is not nothing.
#
# Words of the base are the usual start, since the base knows what to do with a row of this length
# (Lester et al. 2021, section 3.2). `method="normal"` draws vectors which are longer than words,
# as the library PEFT does. Then the rate must be larger too.
#
# ## A rule: distance over norm
#
# ### 5e. How far it has moved (level 1, 5 min)
#
# Return the distance between the end and the start, as a share of the start's norm.


# %%
def share_moved(start, end):
    """start and end (P, C) -> one number"""
    # solution: the norm of the difference over the norm of the start
    return np.linalg.norm(end - start) / np.linalg.norm(start)
    # end


course.check("5e", share_moved)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `np.linalg.norm` of an array (P, C) is the root of the sum of all squares.
#
# </details>
#
# Each point is one of the 24 runs. `history` has the distance from the start for each step.

# %%
starts = {factor: runs[factor, 1.0].learner.start.vectors for factor in FACTORS}
distances = np.array([[runs[f, r].history[-1]["distance"] for r in RATES] for f in FACTORS])
shares = distances / np.array([[np.linalg.norm(starts[f])] for f in FACTORS])
figure, axis = plt.subplots(figsize=(9, 4.5))
for factor, x, y in zip(FACTORS, shares, accuracies, strict=True):
    axis.semilogx(x, y, "o", markersize=9, alpha=0.7, label=f"start × {factor:g}")
axis.axvline(0.1, color="grey", linestyle=":", label="a tenth of its norm")
axis.set(
    xlabel="distance moved / norm of the start", ylabel="accuracy, validation", ylim=(0.4, 1.03)
)
axis.set_title("who does not move does not learn")
axis.legend(fontsize=11)
figure.tight_layout()

# %% [markdown]
# ### 5f. From runs to a rule (level 2, 10 min)
#
# Of the runs that reached an accuracy of `enough`: what is the smallest share that one of them has
# moved? A run that moves less than this has, as far as we know, learnt nothing.


# %%
def least_share(shares, accuracies, enough):
    """shares and accuracies (N,) of N runs -> one number"""
    # solution: the smallest share among the runs that learnt
    return shares[accuracies >= enough].min()
    # end


course.check("5f", least_share)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `accuracies >= enough` is an array of true and false. It can stand in brackets behind another
# array.
#
# </details>

# %%
least = min(
    share for share, right in zip(shares.ravel(), accuracies.ravel(), strict=True) if right >= 0.8
)
below = accuracies[shares < 0.1]
print(f"{len(below)} runs moved less than a tenth; the best of them has {below.max():.3f}")
course.band(least, 0.2, 1.2, "the least share that a run moved and learnt")
course.band(below.max(), 0.45, 0.8, "the best of those that moved less than a tenth")

# %% [markdown]
# The rule says *no* and never *yes*. Many runs moved far and learnt nothing. `minipt tune` prints
# a warning at the end of a run that has moved by less than a tenth of its norm.
#
# ### 5g. The least rate for a start (level 3, 10 min)
#
# Turn the rule into a rate, before any run. With Adam a number moves by at most the rate in each
# step. The schedule of `minipt.tune` lets the rate fall in a line to zero, so on average it is half
# of what you set. (Count all steps, as if it did not rise first.) Which rate could just move a
# number of typical size, the root mean square of the start, by `share` of its size in `steps`
# steps?


# %%
def least_rate(vectors, steps, share):
    """vectors (P, C), steps and share numbers -> a learning rate"""
    # solution: the way needed, over the number of steps at half the rate
    return share * np.mean(vectors**2) ** 0.5 / (steps / 2)
    # end


course.check("5g", least_rate)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The way that is needed is `share * np.mean(vectors**2) ** 0.5`. The way that is possible is
# `steps * rate / 2`.
#
# </details>
#
# This is a lower bound. A number that goes to and fro needs more. Ten to fifty times the least
# rate is a good first try.
#
# ### 5h. Does the rule hold? (level 2, 10 min)
#
# A rule is worth something if it tells what we have not seen yet. Here is a new start of 5 vectors,
# another seed, and 160 steps. Choose a rate by the rule (take 0.4 for the share, a little more than
# the least share above). Tune once with `tried`, as `go` does, and return the accuracy on
# validation, `run.history[-1]["validation_accuracy"]`.

# %%
other_start = minipt.init_prompt(base, length=5, method="vocab", seed=SEED + 10)
longer = {"steps": 160, "batch_size": 8, "evaluate_every": 160, "seed": SEED}


def accuracy_by_rule():
    """-> the accuracy on validation of one run"""
    # solution: minipt.tune of base and tried, with start, rate and **longer
    rate = 50 * 0.4 * np.mean(other_start.vectors**2) ** 0.5 / (160 / 2)
    run = minipt.tune(base, tried, start=other_start, learning_rate=float(rate), **longer)
    return run.history[-1]["validation_accuracy"]
    # end


course.check("5h", accuracy_by_rule)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Call your `least_rate(other_start.vectors, 160, 0.4)`, and multiply.
#
# </details>
#
# ## Trap: one seed
#
# The seed draws the words of the start and the order of the texts. Nothing else about the run
# changes.
#
# ### 5i. Five seeds (level 1, 5 min)
#
# The short run at a rate of 0.1, with seeds 0 to 4. How far apart are the highest and the lowest
# accuracy on validation? Guess a number from 0 to 1.

# %%
mine = 0.1  # yours: a number from 0 to 1
course.guess("5i", mine)
course.reveal("5i")

# %%
seeds = range(SEED, SEED + 5)
by_seed = {rate: [go(rate, seed=seed).test_accuracy for seed in seeds] for rate in (0.01, 0.1)}
figure, axis = plt.subplots(figsize=(9, 3.6))
for row, (rate, found) in enumerate(by_seed.items()):
    axis.plot(found, [row] * 5, "o", markersize=11, alpha=0.6)
    print(f"rate {rate:g}: " + ", ".join(f"{accuracy:.3f}" for accuracy in found))
axis.set_yticks(range(2), [f"rate {rate:g}" for rate in by_seed])
axis.set(xlabel="accuracy, validation", xlim=(0.4, 1.03), ylim=(-0.5, 1.5))
axis.set_title("one point for each of five seeds")
figure.tight_layout()
course.band(float(np.median(by_seed[0.1])), 0.6, 1.0, "rate 0.1, the middle one of five seeds")

# %% [markdown]
# Who runs one seed and draws the lowest may throw a good rate away. Who runs five and shows the
# best hides what will happen to the next one. Tell the middle and the spread. More steps bring the
# seeds together here: chapter 1 had 200 steps of 16 texts.
#
# ## Trap: the processor's last bits
#
# The same seed gives the same bits, on one machine with one installation. Another processor adds
# in another order, and the last bit of a float32 number may differ. How much does that matter? We
# run the same run twice. Then we change the last bit of each number of the start.

# %%
start = minipt.init_prompt(base, length=20, method="vocab", seed=SEED)
moved = np.nextafter(start.vectors, np.float32(9))  # the next float32 number, towards 9
nudge = float(np.abs(moved - start.vectors).max())


def run_from(vectors):
    given = {"learning_rate": 0.1, "seed": SEED} | short
    return minipt.tune(base, tried, start=replace(start, vectors=vectors), **given)


one, again, other = run_from(start.vectors), run_from(start.vectors), run_from(moved)
same = one.learner.prompt.vectors.tobytes() == again.learner.prompt.vectors.tobytes()
gap = float(np.abs(one.learner.prompt.vectors - other.learner.prompt.vectors).max())
print("the same run twice has the same bits:", same)
print(
    f"the start changed by up to {nudge:.0e}: after 80 steps the vectors differ by up to {gap:.0e}"
)
print(f"accuracy {one.test_accuracy:.3f} and {other.test_accuracy:.3f}")
assert same
course.band(np.log10(gap / nudge), 1.0, 7.0, "the last bit has grown: powers of ten")

# %% [markdown]
# Each step multiplies the difference a little. In 80 steps with a small base it stays below what
# an accuracy shows. In long runs of a large base it does not, and the same command on two machines
# ends at two accuracies. Then the last bits are one more seed. (`minipt/studies/README.md` has
# such a case.) So when your numbers differ from your neighbour's in the third digit, neither of
# you is wrong.
#
# **The base has not moved.**

# %%
assert base.fingerprint == fingerprint
print("after all of these runs the base is the same:", fingerprint[:12])

# %% [markdown]
# ## What you have now
#
# You have written the loop that makes a prompt learn. You can say beforehand which rates cannot
# work, and afterwards which runs have not learnt. You know that one run is one draw. Chapter 6
# asks whether what came out is any better than what one would do instead.
#
# **In the source.** `minipt/learning/optimizers.py` has Adam and three others, each with its
# paper. `minipt/learning/loop.py` has the loop, `minipt/learning/settings.py` every setting with
# its default. `minipt/prompting/starts.py` has five kinds of starts. `warn` in
# `minipt/results/report.py` is your rule. `minipt sweep` makes such maps for real tasks, over
# several seeds.

# %%
course.summary(save="answers-05.json")
