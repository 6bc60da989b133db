# %% [markdown]
# # 1. Twenty vectors, one frozen model
#
# **You will** tune your first prompt in two seconds, read what the run says, save it and load it
# again. Then you meet two results that look like learning and are none.
#
# **You will learn** what is trained and what is frozen, what an accuracy says, and what it hides.
#
# **You need** Python and NumPy. **Time:** 60 minutes.
#
# A language model has learnt from much text to predict the next word. *Transfer learning* uses
# what it knows for another task. *Fine-tuning* changes the model's numbers for that. **Prompt
# tuning** changes none of them (Lester, Al-Rfou and Constant 2021). It trains only P vectors,
# which stand in front of the text as if they were words.
#
# | | | | |
# |---|---|---|---|
# | P | prompt vectors | C | channels: numbers a vector |
# | K | classes | N | texts of a split |
#
# An exercise is a function that you finish, or a value. `course.check` answers at once. You may
# run a cell as often as you like. What is still open stops nothing.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np

import minipt
from minipt import course
from minipt.results.report import compare_with_rivals

SEED = 0
plt.rcParams.update({"figure.dpi": 80, "font.size": 13})
course.begin(1)

# %% [markdown]
# ## The first run
#
# The base is `nano`, a GPT-2 with two layers. It ships with minipt and was trained for it. The
# task is to tell questions from statements.

# %%
base = minipt.load_base("nano")
fingerprint = base.fingerprint  # a hash of every number of the base
task = course.statements_and_questions()
for text, label in zip(task.train.texts[:4], task.train.answers[:4], strict=True):
    print(f"{task.labels[label]:<10} {text}")
print(f"{len(task.train.texts)} texts to learn from, {len(task.test.texts)} to be tested on")

# %%
settings = {"length": 20, "steps": 200, "learning_rate": 0.03}
run = minipt.tune(base, task, seed=SEED, **settings)
print(f"{run.seconds:.1f} seconds")
print(f"right on test: {run.test.correct} of {run.test.total}")

# %% [markdown]
# A step takes a batch of 16 texts, computes the loss, and moves the vectors a little so that the
# loss falls. The loss says how surprised the model is by the right answer. A coin has a loss of
# $\log 2 = 0.69$.

# %%
steps = run.history[1:]
looks = [record for record in run.history if "validation_loss" in record]
figure, axis = plt.subplots(figsize=(9, 4))
axis.plot([s["step"] for s in steps], [s["loss"] for s in steps], color="C0", label="each batch")
axis.plot(
    [s["step"] for s in looks], [s["validation_loss"] for s in looks], "o-C1", label="validation"
)
axis.axhline(np.log(2), color="grey", linestyle=":", label="a coin")
axis.set(xlabel="step", ylabel="loss (nats)", ylim=0, title="the first run")
axis.legend()
figure.tight_layout()

# %% [markdown]
# The prompt answers new texts:

# %%
for answer in minipt.predict(base, run.prompt, ["The bus was late.", "The bus was late, or not?"]):
    print(answer.label, {label: round(p, 3) for label, p in answer.probabilities.items()})

# %% [markdown]
# ### 1a. What is trained (level 1, 5 min)
#
# Return two whole numbers: how many numbers of a prompt are trained, and how many of its base are
# frozen.


# %%
def trained_and_frozen(base, prompt):
    """-> a tuple (trained, frozen)"""
    # solution: the sizes of the prompt's vectors and of the base
    return prompt.vectors.size, base.size
    # end


course.check("1a", trained_and_frozen)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Look at `run.prompt.vectors.shape`, `run.prompt.vectors.size` and `base.size`.
#
# </details>
#
# ## The base has not moved
#
# The arrays of the base are read-only, so that no program can change them by mistake.
#
# ### 1b. Write to the base (level 1, 5 min)
#
# Try to write 1.0 to `base.params["token.table"][0, 0]`. Return the name of the error as a text,
# with `type(error).__name__`, or `"no error"`.


# %%
def error_of_writing(base):
    """-> the name of the error"""
    # solution: try the assignment, and return the name of the error
    try:
        base.params["token.table"][0, 0] = 1.0
    except Exception as error:
        return type(error).__name__
    return "no error"
    # end


course.check("1b", error_of_writing)

# %% [markdown]
# <details><summary>Hint</summary>
#
#     try:
#         ...  # the assignment
#     except Exception as error:
#         return ...
#
# </details>

# %%
assert base.fingerprint == fingerprint
print("after the run and the attempt the base is the same:", fingerprint[:12])

# %% [markdown]
# ## Read it: compared with what?
#
# An accuracy means something only beside others. The report compares with four:
#
# - **majority**: always the most frequent class;
# - **bag of words**: a linear model that only counts words, without any language model;
# - **untuned**: the base, asked without a prompt;
# - **written**: the base, with an instruction in front that was written by hand (*prompt
#   engineering*).
#
# With 120 texts an accuracy is not exact. The black lines are 95 % intervals (Wilson 1927).

# %%
scores = compare_with_rivals(base, task, run.test)
accuracies = np.array([score.accuracy for score in scores.values()])
intervals = np.array([score.interval for score in scores.values()])  # (5, 2)
figure, axis = plt.subplots(figsize=(9, 4))
names = [name.replace("_", " ") for name in scores]
errors = np.abs(intervals.T - accuracies)  # (2, 5)
axis.barh(names, accuracies, xerr=errors, capsize=5, color=["C7"] * 4 + ["C2"])
axis.set(xlabel=f"accuracy on {run.test.total} test texts", xlim=(0, 1.05), title="nano")
axis.invert_yaxis()
figure.tight_layout()
for name, score in scores.items():
    low, high = score.interval
    right = f"{score.correct:3d} of {score.total}"
    print(f"{name:<14} {right}  {score.accuracy:.3f}  {low:.3f} to {high:.3f}")
course.band(scores["tuned"].accuracy, 0.9, 1.0, "the tuned prompt, two classes of equal size")

# %% [markdown]
# The tuned prompt is far above the base as it is. But the bag of words does the task too, since
# every question here ends with the same words. An easy task proves little. Chapter 6 asks the
# question again.
#
# ## Trap: a rate that is too small
#
# The learning rate says how far a step moves each number. Above it was 0.03. Much work with neural
# networks uses rates such as 1e-4.
#
# ### 1c. A small learning rate (level 1, 5 min)
#
# The same run with a rate of 1e-4: which accuracy will it have on test? Guess first, a number from
# 0 to 1.

# %%
mine = 0.8  # yours: a number from 0 to 1
course.guess("1c", mine)
course.reveal("1c")

# %%
slow = minipt.tune(base, task, seed=SEED, **settings | {"learning_rate": 1e-4})
print("answers by class, rows are the right class:", slow.test.counts.tolist())
for name, one in (("rate 0.03", run), ("rate 1e-4", slow)):
    record = one.history[-1]
    moved = record["distance"] / record["prompt_norm"]
    print(f"{name:<10} the prompt moved {moved:.3f} of its length")
course.band(slow.test_accuracy, 0.45, 0.55, "the same at a rate of 1e-4")

# %% [markdown]
# Nothing failed, and no message said so. Two hundred steps of 1e-4 move a number by 0.02 at most.
# A vector has to turn to mean something else, and for that it must move by about its own length.
# Chapter 5 makes a rule of it.
#
# ## Trap: most texts are of one class
#
# In real data the classes are seldom of equal size: most messages are no spam. Now only one
# sentence in twelve is a question. Both runs below have a rate of 0.1.

# %%
rare = course.statements_and_questions(one_in=12)
faster = settings | {"learning_rate": 0.1}
other = minipt.tune(base, rare, seed=SEED, **faster)
print(f"accuracy on test {other.test_accuracy:.3f}")
course.band(other.test_accuracy, 0.85, 1.0, "one question in twelve, accuracy")

# %% [markdown]
# That looks good. The *confusion matrix* says how it came about. Each row is a right class, each
# column an answer.

# %%
print(f"{'':<12}" + "".join(f"{label:>12}" for label in rare.labels))
for label, row in zip(rare.labels, other.test.counts, strict=True):
    print(f"{label:<12}" + "".join(f"{count:12d}" for count in row))

# %% [markdown]
# ### 1d. The majority (level 1, 5 min)
#
# How right is somebody who always gives the most frequent class? Compute it from a confusion
# matrix.


# %%
def majority_accuracy(counts):
    """counts (K, K): right class by rows, answer by columns -> a number from 0 to 1"""
    # solution: the share of the largest class
    return counts.sum(1).max() / counts.sum()
    # end


course.check("1d", majority_accuracy)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `counts.sum(1)` adds along the rows, so it has the number of texts of each class.
#
# </details>
#
# ### 1e. Balanced accuracy (level 2, 10 min)
#
# Balanced accuracy is the mean, over the classes, of the share of each class that was answered
# rightly. A large class counts no more than a small one.


# %%
def balanced_accuracy(counts):
    """counts (K, K): right class by rows, answer by columns -> a number from 0 to 1"""
    # solution: the mean of what each class has right, of all its texts
    return (counts.diagonal() / counts.sum(1)).mean()
    # end


course.check("1e", balanced_accuracy)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The right answers stand on the diagonal. Divide before you take the mean.
#
# </details>

# %%
shares = other.test.counts.diagonal() / other.test.counts.sum(1)  # (K,)
for label, share in zip(rare.labels, shares, strict=True):
    print(f"{label:<10} {share:.3f} answered rightly")
course.band(shares.mean(), 0.45, 0.6, "one question in twelve, balanced accuracy")

# %% [markdown]
# The prompt has found the cheapest way to a low loss: always the same answer. Its accuracy is the
# majority's. Is the task too hard? A larger base with the same settings says no:

# %%
micro = minipt.load_base("micro")
larger = minipt.tune(micro, rare, seed=SEED, **faster)
print(f"{micro.size:,} numbers: accuracy {larger.test_accuracy:.3f}, {larger.test.counts.tolist()}")
course.band(larger.test_accuracy, 0.95, 1.0, "one question in twelve, with micro")

# %% [markdown]
# ## Save it, and load it again
#
# A prompt is a small file. It remembers the task, the settings and the fingerprint of its base.

# %%
with TemporaryDirectory() as folder:
    path = Path(folder) / "prompt.safetensors"
    run.prompt.save(path)
    again = minipt.load_prompt(path, base)
    print(f"{path.stat().st_size / 1000:.0f} kB")
    try:
        minipt.load_prompt(path, micro)
    except minipt.MiniptError as error:
        print("MiniptError:", str(error).replace(str(path), path.name))
assert again.vectors.tobytes() == run.prompt.vectors.tobytes()

# %% [markdown]
# ### 1f. A foreign prompt (level 2, 10 min)
#
# The numbers of a prompt mean something only in front of the base that they were trained for. Say
# whether a prompt was made for a base: `True` or `False`.


# %%
def belongs(prompt, base):
    """Whether the prompt was made for this base."""
    # solution: compare what the prompt remembers of its base
    return prompt.fingerprint == base.fingerprint
    # end


course.check("1f", belongs)

# %% [markdown]
# <details><summary>Hint</summary>
#
# A base may have the same name or the same width and other numbers. What changes with every
# number?
#
# </details>
#
# ## What you have now
#
# You have tuned four prompts, and two of them had learnt nothing. The accuracy alone did not say
# so. The majority, the confusion matrix and the way that the prompt moved did. Chapter 2 looks
# inside: how does a text become an answer?
#
# **In the source.** `minipt/learning/tune.py` has `tune`, `minipt/results/report.py` the
# comparison, and `minipt/prompting/prompt.py` the prompt. `minipt tune` in a terminal does the
# same with real text messages and a larger base.

# %%
course.summary(save="answers-01.json")
