# %% [markdown]
# # 6. Is it better?
#
# **You will** compare a prompt with what one would do instead: words written by hand, a linear
# probe, LoRA, full fine-tuning and others. You join five prompts to an ensemble. Then you make two
# results look better than they are, by choosing on the test split and by letting it leak.
#
# **You will learn** what an accuracy is worth, how to compare fairly, and where false wins come
# from.
#
# **You need** chapters 1 and 5. **Time:** 75 minutes.
#
# | | | | |
# |---|---|---|---|
# | N | texts of a split | K | classes |
# | k | prompts | p | a share, right of all |

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

import minipt
from minipt import course
from minipt.learning.loop import learn
from minipt.learning.settings import defaults_for
from minipt.results.report import baselines
from minipt.rivals import LEARNERS, RIVALS, rates_for
from minipt.rivals.written import shown, templates, written
from minipt.studies.ensemble import ensemble, losses_between
from minipt.tasks.bag_of_words import confidence_interval
from minipt.tasks.task import Split

SEED = 0
plt.rcParams.update({"figure.dpi": 80, "font.size": 13})
course.begin(6)

# %% [markdown]
# Two tasks, with 150 texts to learn from, 40 to validate and 120 to test. The easy one asks for
# questions or statements. The hard one asks whether the same sentences, all of them statements,
# are positive or negative.

# %%
base = minipt.load_base("nano")
fingerprint = base.fingerprint
easy = course.statements_and_questions()
toy = minipt.load_task("toy")
whole = [
    (text, label)
    for split in (toy.train, toy.validation, toy.test)
    for text, label in zip(split.texts, split.answers, strict=True)
]


def part(begin, end):
    texts, labels = zip(*whole[begin:end], strict=True)
    return Split(list(texts), np.array(labels))


splits = {"train": part(0, 150), "validation": part(150, 190), "test": part(190, 310)}
hard = replace(toy, name="sentiment", **splits)
for task in (easy, hard):
    print(f"{task.name}: {', '.join(task.labels)}; for example {task.test.texts[1]!r}")

# %% [markdown]
# ## Written by hand
#
# *Prompt engineering* changes words and trains nothing. The library tries five wordings, and the
# validation split chooses among them. It also puts labelled training texts in front of the text
# (*in-context learning*, Brown et al. 2020). Below are all results for the test split.

# %%
for template in templates(easy):
    print(repr(template))
by_hand = {}
for task in (easy, hard):
    scores = {name: score.correct for name, score in baselines(base, task).items()}
    scores["written"] = written(base, task, task.test).correct
    scores["examples"] = shown(base, task, task.test, SEED).correct
    by_hand[task.name] = scores
    print(task.name, {name: f"{right} of 120" for name, right in scores.items()})
course.band(by_hand[easy.name]["written"] / 120, 0.4, 0.8, "easy task, the best wording by hand")

# %% [markdown]
# ### 6a. A prompt of your own (level 1, 10 min)
#
# Can you do better with words? Write a template for the easy task. `{text}` stands for the text,
# and the answer is read at the end: ` statement` or ` question`. The next cell measures it on the
# validation split. Try three or four.

# %%
template = 'Say "question" or "statement".\n\n{text}\nKind:'  # yours: a text with {text} in it
course.check("6a", template)

# %%
if isinstance(template, str) and "{text}" in template:
    own = minipt.evaluate(base, None, easy.validation, replace(easy, template=template))
    print(f"{own.correct} of {own.total} right, loss {own.loss:.2f}, a coin's {np.log(2):.2f}")
    print("rows are the right class, columns the answer:", own.counts.tolist())

# %% [markdown]
# A base as small as this one does not follow instructions. A large one does
# (`minipt/studies/README.md` has SmolLM2). So the same comparison has another winner for another
# base.
#
# ## How exact is an accuracy?
#
# A test split is a sample. If each text is right with the same probability $p$, then of $n$ texts
# the share that is right scatters by $\sqrt{p(1-p)/n}$. Wilson's interval (1927) has the true $p$
# in it in 95 of 100 cases. With $z = 1.96$ it is
#
# $$\frac{p + \frac{z^2}{2n} \;\pm\;
# z\sqrt{\frac{p(1-p)}{n} + \frac{z^2}{4n^2}}}{1 + \frac{z^2}{n}}.$$
#
# ### 6b. The interval of an accuracy (level 2, 15 min)
#
# Return the lower and the upper end.


# %%
def interval(correct, total):
    """Right answers, of all -> a tuple (low, high), each from 0 to 1"""
    # solution: the middle and the half width, divided by 1 + z² / n
    p, n, z = correct / total, total, 1.959964
    middle = p + z**2 / (2 * n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)
    # end


course.check("6b", interval)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Compute `p`, then the middle, then the half width. Both are divided by the same number. At p = 1
# the interval is not empty.
#
# </details>

# %%
for total in (32, 120, 1000, 10000):
    low, high = confidence_interval(round(0.8 * total), total)
    print(f"0.80 of {total:>6,} texts: {low:.3f} to {high:.3f}, {high - low:.3f} wide")

# %% [markdown]
# Four times as many texts halve the interval. With 120 texts two accuracies which are five points
# apart may well be the same.
#
# ## The rivals
#
# What would one do instead? Each rival is a `Learner` in `minipt/rivals/`: arrays that learn, and
# a way from a batch to their gradients. The loop, the texts and the steps are the same for all.
#
# - `prompt`: vectors in front of the text (Lester et al. 2021);
# - `full`: *fine-tuning* of every number of the base; `bitfit`: of its biases (Ben Zaken et al.
#   2022);
# - `lora`: two narrow matrices learn, and their product is added to a matrix of the base (Hu et
#   al. 2022);
# - `probe`: a linear map of the base's hidden state, and nothing inside the base: the oldest form
#   of *transfer learning*;
# - `prefix`: keys and values in every layer (Liu et al. 2022, P-tuning v2); `prefix-mlp`: the
#   same, made by a small network, as Li and Liang (2021) train them;
# - `discrete`: a search for real tokens to put in front.
#
# A good learning rate depends on what learns: a prompt's vectors must turn, while a matrix of the
# base must hardly move. So each rival gets two rates of its own (the search over tokens uses
# none), and the validation split chooses. A comparison in which only your own method has a well
# chosen rate is the most common unfair one.


# %%
def settings_for(task, rate, steps):
    given = {"length": 20, "method": "vocab", "steps": steps, "evaluate_every": steps // 2}
    return defaults_for(base, task, learning_rate=rate, seed=SEED, **given)


def learnt(name, task, rate, steps):
    """A rival's run, which keeps what did best on validation."""
    settings = settings_for(task, rate, steps)
    return learn(LEARNERS[name](base, task, settings), task, settings)


def numbers_of(run):
    return sum(array.size for array in run.learner.arrays.values())


def best_of_two(name, task, steps):
    rates = {"prompt": (0.1, 0.3), "discrete": (1.0,)}.get(name) or rates_for(name, base)
    runs = [learnt(name, task, rate, steps) for rate in rates]
    return min(runs, key=lambda run: run.history[run.best_step]["validation_loss"])


# %%
names = [rival.name for rival in RIVALS]
found = {easy.name: {name: best_of_two(name, easy, steps=40) for name in names}}

# %%
found[hard.name] = {name: best_of_two(name, hard, steps=40) for name in names}

# %%
print(f"{'':<12}{'numbers':>9}{'seconds':>9}{'rate':>8}{'easy':>8}{'hard':>8}   right of 120")
for name in names:
    runs = [found[task.name][name] for task in (easy, hard)]
    rate = "-" if name == "discrete" else f"{runs[0].settings.learning_rate:g}"
    rights = "".join(f"{run.test.correct:>8}" for run in runs)
    print(f"{name:<12}{numbers_of(runs[0]):>9,}{runs[0].seconds:>9.1f}{rate:>8}{rights}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(12, 4.8), sharey=True)
for axis, task in zip(axes, (easy, hard), strict=True):
    for name, run in found[task.name].items():
        low, high = confidence_interval(run.test.correct, run.test.total)
        x, y = numbers_of(run), run.test.accuracy
        error = np.clip([[y - low], [high - y]], 0, 1)
        axis.errorbar(x, y, error, fmt="o", markersize=8, capsize=4, label=name)
    for name, style in (("majority", ":"), ("bag_of_words", "--"), ("written", "-.")):
        share = by_hand[task.name][name] / 120
        axis.axhline(share, color="grey", linestyle=style, label=name.replace("_", " "))
    axis.set(xscale="log", xlabel="numbers trained", title=task.name, ylim=(0.35, 1.03))
axes[0].set_ylabel("accuracy on 120 test texts")
axes[1].legend(fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5))
figure.tight_layout()

# %%
accuracy = {name: run.test.accuracy for name, run in found[easy.name].items()}
course.band(accuracy["prompt"], 0.6, 1.0, "easy task, a prompt after 40 steps")
course.band(accuracy["full"], 0.95, 1.0, "easy task, full fine-tuning after 40 steps")
course.band(accuracy["probe"], 0.95, 1.0, "easy task, a linear probe after 40 steps")
course.band(found[hard.name]["prompt"].test.accuracy, 0.4, 0.65, "hard task, a prompt")

# %% [markdown]
# On the easy task almost all reach the top, so it ranks nobody, and the simplest ones do: a probe
# of a few numbers, and a bag of words without any language model. Two lag behind, the search over
# tokens and the prefix through a network: forty steps are few for them. On the hard task the
# intervals overlap, and hardly one of them leaves the line of the majority. A base of this size
# does not read sentiment. What a base does not know, a prompt does not add.
#
# So neither picture says that a prompt is better. What it has for itself is its size: one base in
# memory serves as many tasks as you have prompts. Who is more *accurate* takes real data, a larger
# base, several seeds, and rates for each learner: see the tables in `minipt/studies/README.md`.
#
# ## An ensemble
#
# Five prompts that differ in their seed are five models for the price of one base. An *ensemble*
# lets them answer together (Lester et al. 2021, section 6). There are three ways to take a mean:
#
# - **vote**: each prompt has one vote;
# - **mean probability**: the mean of the five probabilities;
# - **mean of the vectors**: one prompt, whose vectors are the mean of the five.
#
# ### 6c. Which average fails (level 1, 5 min)
#
# Five prompts were stopped early, after 60 steps. One of the three ways is far worse than a single
# prompt. Guess which: `"vote"`, `"mean probability"` or `"mean of the vectors"`.

# %%
mine = "vote"  # yours: one of the three
course.guess("6c", mine)
course.reveal("6c")

# %%
early = {"steps": 60, "learning_rate": 0.1, "evaluate_every": 60}
prompts = [minipt.tune(base, easy, seed=SEED + i, **early).prompt for i in range(5)]
joined = ensemble(base, prompts, easy).accuracies()
for name, share in joined.items():
    print(f"{name:<22} {share:.3f}")
course.band(joined["members, mean"], 0.6, 1.0, "five prompts, the mean of their accuracies")
added = joined["mean probability"] - joined["members, mean"]
course.band(added, -0.01, 0.25, "what the mean probability adds to a member")
course.band(joined["mean of the vectors"], 0.4, 0.9, "the mean of the vectors")

# %%
late = early | {"steps": 200, "evaluate_every": 200}
pair = [minipt.tune(base, easy, seed=SEED + i, **late).prompt for i in range(2)]
between = losses_between(base, *pair, easy, points=9)
figure, axis = plt.subplots(figsize=(9, 3.8))
axis.plot(np.linspace(0, 1, 9), between, "o-")
axis.axhline(np.log(2), color="grey", linestyle=":", label="a coin")
axis.set(xlabel="share of the second prompt in the mean", ylabel="validation loss (nats)", ylim=0)
axis.set_title("on the way from one prompt to another")
axis.legend()
figure.tight_layout()
hill = max(between) / max(between[0], between[-1])
course.band(hill, 1.5, 30.0, "the highest loss on the way, over that of the worse end")

# %% [markdown]
# This picture has two prompts of 200 steps. Both ends know the task, and what lies between them
# knows less. Prompts that begin at different words end at different places. Their answers are of
# one kind, and so can be averaged. Where members err on different texts, the ensemble is right
# more often than they are.
#
# ## Trap: the winner on the test split
#
# Somebody tunes twenty prompts for the hard task, and reports the one that is best on the test
# split. Each of them is honest. What about the winner?

# %%
quick = {"steps": 15, "batch_size": 8, "learning_rate": 0.1, "evaluate_every": 15}
twenty = [minipt.tune(base, hard, seed=SEED + i, **quick) for i in range(20)]
right = np.array([run.test.right for run in twenty])  # (k, N): which texts each has right
accuracies = right.mean(1)
low, high = accuracies.min(), accuracies.max()
print(f"twenty prompts: {low:.3f} to {high:.3f}, mean {accuracies.mean():.3f}")

# %% [markdown]
# ### 6d. The winner, here and there (level 2, 10 min)
#
# `here` (k, N) says of k prompts which of N texts each has right, `there` (k, M) the same for M
# other texts. Choose the best prompt *here*. Return its accuracy here, and its accuracy there.


# %%
def winner(here, there):
    """here (k, N) and there (k, M), true and false -> a tuple of two accuracies"""
    # solution: the row with the highest mean here, and its mean in both
    best = here.mean(1).argmax()
    return here[best].mean(), there[best].mean()
    # end


course.check("6d", winner)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `here.mean(1)` is the accuracy of each prompt, and `argmax` the index of the largest.
#
# </details>
#
# ### 6e. What winning adds (level 2, 10 min)
#
# Cut the 120 test texts into two random halves, choose the winner in one, and look at it in the
# other. Do that 200 times. Return the mean of the difference: the winner's accuracy in the half
# where it won, minus that in the other half. `right[:, order[:60]]` has the first half, where
# `order` is a random order of the texts.

# %%
rng = np.random.default_rng(SEED)


def gained_by_winning():
    """-> the mean difference over 200 random halves, one number"""
    # solution: 200 random orders, and the winner of each first half
    differences = []
    for _ in range(200):
        order = rng.permutation(right.shape[1])
        here, there = winner(right[:, order[:60]], right[:, order[60:]])
        differences.append(here - there)
    return float(np.mean(differences))
    # end


course.check("6e", gained_by_winning)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `order = rng.permutation(120)` in a loop. Append `here - there` to a list, and take `np.mean` at
# the end.
#
# </details>
#
# So many points of the winner's accuracy are luck. They are gone on the next texts. Whoever
# chooses among more prompts wins more luck. That is why there is a validation split: choose on it,
# and look at the test split once.
#
# ## Trap: leakage
#
# A test text that stands in the training split too *leaks*: the model may know it by heart. To see
# it sharply, we take away all that could be learnt honestly. **A coin draws each label.** Then
# nobody can be right in more than half of the new texts.
#
# ### 6f. Labels drawn by a coin (level 1, 5 min)
#
# By mistake the test texts, with their labels, stand in the training split. All numbers of the
# base learn (full fine-tuning). What will the accuracy on the test split be? Guess a number from 0
# to 1.

# %%
mine = 0.6  # yours: a number from 0 to 1
course.guess("6f", mine)
course.reveal("6f")

# %%
coins = np.random.default_rng([SEED, 6])
known = Split(easy.train.texts[:60], coins.integers(0, 2, 60))
new = Split(easy.test.texts[:60], coins.integers(0, 2, 60))
both = Split(known.texts + new.texts, np.concatenate([known.labels, new.labels]))
honest = replace(easy, train=known, validation=known, test=new)
leaky = replace(easy, train=both, validation=known, test=new)
leaks = {
    (name, way): learnt(name, task, rate, steps=100).test.accuracy
    for name, rate in (("full", 1e-3), ("prompt", 0.1))
    for way, task in (("honest", honest), ("leak", leaky))
}
figure, axis = plt.subplots(figsize=(9, 3.6))
bars = axis.barh([f"{n}, {w}" for n, w in leaks], leaks.values(), color=["C2", "C3"] * 2)
axis.bar_label(bars, fmt="%.2f", padding=4)
axis.axvline(0.5, color="grey", linestyle=":")
axis.set(xlabel="accuracy on 60 test texts", xlim=(0, 1.1), title="labels drawn by a coin")
axis.invert_yaxis()
figure.tight_layout()
course.band(leaks["full", "leak"], 0.9, 1.0, "full fine-tuning, test texts in training")
course.band(leaks["full", "honest"], 0.3, 0.7, "full fine-tuning, no leak")
course.band(leaks["prompt", "leak"], 0.35, 0.75, "a prompt, test texts in training")

# %% [markdown]
# Such a result would win any comparison, and it is worth nothing. A prompt of so few numbers
# hardly learns by heart, so a leak helps it less. That makes a comparison with a leak unfair as
# well.
#
# A leak of this kind is easy to find. Shuffle the labels and train: what is better than the
# majority is a leak. Or count.
#
# ### 6g. How many texts leak (level 2, 10 min)
#
# How many of the test texts stand in the training texts? Texts which differ only in upper and
# lower case or in white space are the same.


# %%
def count_leaked(train, test):
    """Two lists of texts -> how many of `test` stand in `train`"""
    # solution: one form for all texts, and a set of the training texts
    seen = {" ".join(text.lower().split()) for text in train}
    return sum(" ".join(text.lower().split()) in seen for text in test)
    # end


course.check("6g", count_leaked)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `" ".join(text.lower().split())` brings a text into one form.
#
# </details>
#
# `minipt.load_csv` takes equal texts once, before it splits. It cannot know two texts that say the
# same in other words, or two of one author.
#
# ## The gap
#
# Without a leak, too, a model knows its training texts better than others. The difference is the
# *gap*. Here are four learners on the hard task. After 80 steps we measure the training split and
# the test split.

# %%
trained = replace(hard, validation=hard.train)  # so that the end is kept, and not the best
RATES = {"prompt": 0.1, "probe": 0.03, "lora": 0.01, "full": 1e-3}
ends = {name: learnt(name, trained, rate, steps=80) for name, rate in RATES.items()}
on_train = {name: run.history[-1]["validation_accuracy"] for name, run in ends.items()}
on_test = {name: run.test.accuracy for name, run in ends.items()}
figure, axis = plt.subplots(figsize=(9, 4))
places = np.arange(len(ends))
axis.bar(places - 0.2, on_train.values(), 0.4, label="150 training texts")
axis.bar(places + 0.2, on_test.values(), 0.4, label="120 test texts")
axis.axhline(0.5, color="grey", linestyle=":")
axis.set_xticks(places, [f"{name}\n{numbers_of(ends[name]):,}" for name in ends])
axis.set(ylabel="accuracy", ylim=(0, 1.2), title="the gap, by numbers trained")
axis.legend(loc="upper left", ncols=2)
figure.tight_layout()
gaps = {name: on_train[name] - on_test[name] for name in ends}
course.band(gaps["full"], 0.15, 0.55, "the gap of full fine-tuning")
course.band(gaps["prompt"], -0.15, 0.15, "the gap of a prompt")

# %% [markdown]
# Full fine-tuning knows nearly all of its training texts, and the new ones little better than a
# coin. A prompt has too few numbers for that. Being small is a kind of *regularisation*: it keeps
# a learner from learning by heart. Others are
#
# - **early stopping**: `minipt.tune` keeps the vectors that did best on validation;
# - **a penalty** on long vectors (*weight decay*), or on leaving the start;
# - **dropout**: in each step some of the vectors are left out; **noise** on them.
#
# `minipt/rivals/regularised.py` has them for a prompt. A gap must be there before anything can
# close it. Eight texts give one:

# %%
few = Split(easy.train.texts[:8], easy.train.labels[:8])
little = replace(easy, train=few, validation=few)
print(f"{'':<24}{'8 texts':>9}{'new texts':>11}")
for name in ("prompt", "prompt-decay", "prompt-dropout", "prompt-noise"):
    run = learnt(name, little, 0.1, steps=60)
    print(f"{name:<24}{run.history[-1]['validation_accuracy']:>9.3f}{run.test.accuracy:>11.3f}")

# %% [markdown]
# Which of them is best? You know what to ask by now: how wide is the interval, how many seeds, and
# who chose the strength of the penalty? With a larger base and three seeds no variant helped by
# more than the seeds differ (`minipt/studies/README.md`).
#
# ## The base has not moved
#
# Not even in full fine-tuning, which learns in a copy.

# %%
assert base.fingerprint == fingerprint
print("unchanged:", fingerprint[:12])

# %% [markdown]
# ## What you have now
#
# You can say what an accuracy is worth. You have seen four ways to a false win: an easy task, a
# test split on which one chooses, texts that leak, and accuracy on the texts one has learnt from.
# Chapter 7 asks what a prompt has learnt.
#
# **In the source.** `minipt/rivals/` has a short file for each idea, `minipt/rivals/written.py`
# the wordings, `minipt/studies/ensemble.py` the averages, `minipt/tasks/bag_of_words.py` the
# interval. `minipt rivals`, `minipt ensemble` and `minipt transfer` (a prompt on other texts, and
# as the start for another task: *transfer learning* between prompts) do all of this with real
# tasks and several seeds.

# %%
course.summary(save="answers-06.json")
