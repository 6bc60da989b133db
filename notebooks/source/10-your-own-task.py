# %% [markdown]
# # 10. Your own task
#
# **You will** tune a prompt for a task of your own, as one does it at work: say first what counts,
# measure the baselines, choose a setting on validation, take three seeds, test once, write a
# report that somebody else can reproduce.
#
# **You will learn** to keep choosing and testing apart, and to say honestly how good a prompt is.
#
# **You need** chapters 1 and 5, and a CSV file with a column `text` and a column `label`, in
# UTF-8, with at least 30 texts. Without a file you work on the example below. **Time:** 90
# minutes.
#
# | | | | |
# |---|---|---|---|
# | P | prompt vectors | K | classes |
# | N | texts of a split | n | seeds |

# %%
import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np

import minipt
from minipt import course
from minipt.results.report import baselines, make_record
from minipt.statistics.mcnemar import mcnemar, paired_difference
from minipt.tasks.bag_of_words import bag_of_words, confidence_interval

SEED = 0
plt.rcParams.update({"figure.dpi": 80, "font.size": 13})
course.begin(10)

# %% [markdown]
# ## The task
#
# The example: does the word "honestly" open a sentence or end it? Both classes have the same words
# and differ in their order. Replace `own` by the path of your file, if you have one.

# %%
own = None  # yours: the path of your CSV file, or None for the example


def example(path):
    """Write the example's sentences as a CSV file."""
    made = course.statements_and_questions()
    texts = [text for split in (made.train, made.validation, made.test) for text in split.texts]
    plain = [text.replace(", or not?", "").rstrip(".!") for text in texts]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i, text in enumerate(plain):
            keep = text.split()[0] in ("I", "I'm", "I've", "I'd")
            small = text if keep else text[0].lower() + text[1:]
            row = (f"{text}, honestly.", "ending") if i % 2 else (f"Honestly, {small}.", "opening")
            writer.writerow(row)


with TemporaryDirectory() as folder:
    path = Path(folder) / "example.csv"
    example(path)
    task = minipt.load_csv(path if own in (None, ...) else own, "text", "label")
base = minipt.load_base("nano")  # or "micro" or "tiny", which are larger and slower
print(task.summary())
for text, label in zip(task.train.texts[:4], task.train.answers[:4], strict=True):
    print(f"{task.labels[label]:<10} {text}")

# %% [markdown]
# Read twenty of your texts, not four. Are the labels right? Would two people give the same? Do
# texts of one class come from another place, so that something else tells them apart?
#
# ### 10a. The task analysis sheet (level 3, 20 min)
#
# Fill it in **before** the first run. What is written down cannot be bent to fit a result. The
# summary above has the numbers.
#
# | key | what |
# |---|---|
# | `question` | what the prompt shall answer, as a sentence |
# | `labels` | a list of their names |
# | `source` | where texts and labels come from, as a sentence |
# | `texts` | how many |
# | `majority` | the share of the largest class |
# | `measure` | `"accuracy"` or `"balanced accuracy"` |
# | `baselines` | some of `"majority"`, `"bag of words"`, `"untuned"`, `"written"` |
# | `target` | the smallest value of the measure that would be of use |
# | `costly error` | which error costs more, as a sentence |
# | `give up` | which result would end the project, as a sentence |


# %%
def my_sheet():
    """-> a dict with the keys of the table"""
    # solution: the sheet of your task
    return {
        "question": "Does the word honestly open a sentence or end it?",
        "labels": ["ending", "opening"],
        "source": "Made by a rule from sentences that were written for minipt.",
        "texts": 309,
        "majority": 0.502,
        "measure": "accuracy",
        "baselines": ["majority", "bag of words", "untuned", "written"],
        "target": 0.8,
        "costly error": "Neither error costs more than the other one.",
        "give up": "No setting beats the bag of words on validation.",
    }
    # end


course.check("10a", my_sheet)

# %% [markdown]
# <details><summary>Hint</summary>
#
# With a large majority the accuracy looks good for doing nothing: chapter 1. The target lies
# above what the majority gets.
#
# </details>
#
# ## The baselines
#
# What costs nothing comes first. The bag of words counts words and pairs of words. The base
# without a prompt is the *zero-shot* answer. Instructions written by hand (*prompt engineering*)
# stand in chapter 6.

# %%
scores = baselines(base, task)
for name, score in scores.items():
    low, high = score.interval
    print(f"{name.replace('_', ' '):<13} {score.accuracy:.3f}  {low:.3f} to {high:.3f}")
strongest, best = max(scores.items(), key=lambda item: item[1].accuracy)
print("the best of them:", strongest.replace("_", " "))

# %% [markdown]
# ## Length and start
#
# How many vectors, and from where do they begin? `vocab` begins at frequent tokens, `uniform` at
# random numbers. We look at **validation only**. One seed each is little, but shows the way.

# %%
settings = {"steps": 200, "learning_rate": 0.03}
found = {}
for method in ("vocab", "uniform"):
    for length in (1, 5, 20):
        run = minipt.tune(base, task, length=length, method=method, seed=SEED, **settings)
        found[length, method] = run.history[run.best_step]["validation_accuracy"]
        print(f"{length:2d} vectors from {method:<8} validation {found[length, method]:.3f}")

# %%
figure, axis = plt.subplots(figsize=(9, 4))
for method, mark in (("vocab", "o-"), ("uniform", "s--")):
    lengths = [length for length, name in found if name == method]
    axis.plot(lengths, [found[length, method] for length in lengths], mark, label=method)
axis.axhline(task.majority_accuracy, color="grey", linestyle=":", label="majority (test)")
axis.set(xlabel="vectors", ylabel="validation accuracy", ylim=(0, 1.05), title="length and start")
axis.set_xticks([1, 5, 20])
axis.legend(loc="lower right")
figure.tight_layout()

# %% [markdown]
# ### 10b. Choose a setting (level 2, 10 min)
#
# Somebody has tried some settings with several seeds each, and noted the accuracies on validation
# and on test. Return the setting to take.


# %%
def choose(results):
    """results: {(length, start): (validation accuracies, test accuracies)} -> (length, start)"""
    # solution: the setting with the largest mean of one of the two lists
    return max(results, key=lambda setting: np.mean(results[setting][0]))
    # end


course.check("10b", choose)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Whatever you choose by, you can no longer test on. And the seed that was luckiest once will not
# be there the next time.
#
# </details>
#
# ## Three seeds
#
# The seed decides where the prompt begins and in which order the texts come. We take the best
# setting on validation with three seeds. Only now do we look at test.

# %%
length, method = max(found, key=found.get)
runs = [
    minipt.tune(base, task, length=length, method=method, seed=seed, **settings)
    for seed in range(10 * SEED, 10 * SEED + 3)
]
for run in runs:
    validation = run.history[run.best_step]["validation_accuracy"]
    print(f"seed {run.settings.seed}: validation {validation:.3f}, test {run.test_accuracy:.3f}")
accuracies = [run.test_accuracy for run in runs]
if own in (None, ...):
    course.band(float(np.mean(accuracies)), 0.65, 1.0, "the example, mean test accuracy of 3 seeds")

# %% [markdown]
# The setting was chosen by one of these seeds, and so this seed is a lucky one more often than
# not. Its accuracy alone promises too much. The others say what to expect.
#
# ### 10c. Mean and spread (level 1, 5 min)
#
# Return the mean of the seeds' accuracies and their standard deviation. The mean comes from the
# same few values, and so the squares are divided by n − 1.


# %%
def mean_and_spread(values):
    """values: a list of n numbers -> (mean, standard deviation)"""
    # solution: two calls of NumPy
    return np.mean(values), np.std(values, ddof=1)
    # end


course.check("10c", mean_and_spread)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `np.std` divides by n, unless you say `ddof=1`.
#
# </details>
#
# ## Is it better?
#
# Prompt and baseline have answered the same test texts. Where both are right, or both wrong, the
# text says nothing about which is better.
#
# ### 10d. The same texts twice (level 2, 10 min)
#
# Return how many texts only the second has right (gained), and how many only the first has right
# (lost).


# %%
def gained_and_lost(first, second):
    """first, second (N,): booleans, which texts each has right -> (gained, lost)"""
    # solution: count where only one of the two is right
    return int((~first & second).sum()), int((first & ~second).sum())
    # end


course.check("10d", gained_and_lost)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `first & second` is true where both are. `~first` is true where the first is not.
#
# </details>
#
# The library makes of them the difference with its 95 % interval (Agresti and Min 2005), and
# McNemar's exact test. The three seeds share their texts, so we take the one in the middle.

# %%
middle = sorted(runs, key=lambda run: run.test_accuracy)[1]
words = bag_of_words(task.train, task.test, len(task.labels)) == task.test.labels  # (N,)
difference = paired_difference(words, middle.test.right)
print(f"prompt less bag of words {difference.mean:+.3f}", end="")
print(f", 95 % interval {difference.low:+.3f} to {difference.high:+.3f}")
print(f"p = {mcnemar(words, middle.test.right):.2g} that both are equally good")

# %%
names = [key.replace("_", " ") for key in scores] + [f"seed {run.settings.seed}" for run in runs]
values = [score.accuracy for score in scores.values()] + accuracies
total = len(task.test.texts)
limits = np.array([confidence_interval(round(value * total), total) for value in values])
figure, axis = plt.subplots(figsize=(9, 4))
colours = ["C7"] * len(scores) + ["C2"] * len(runs)
axis.barh(names, values, xerr=np.abs(limits.T - values), capsize=5, color=colours)
axis.set(xlabel=f"accuracy on {total} test texts", xlim=(0, 1.05), title="baselines and prompt")
axis.invert_yaxis()
figure.tight_layout()

# %% [markdown]
# If the prompt is **not** better, that is a result too. Look for the reason:
#
# - The base does not know it: a larger base (`micro`, `tiny`, `smollm2-135m`).
# - It did not move: the rate (chapter 5). It moved and forgot: more texts, early stopping
#   (*regularisation*, chapter 6).
# - Single words decide the task: then a bag of words is hard to beat.
# - There are too few test texts: the interval says so.
#
# ## Once more, the same
#
# A result counts when somebody else gets it too. `run.json` keeps all settings, the seed, the
# digest of the data and the versions. On one kind of processor the same run gives the same bits.
#
# ### 10e. The same run again (level 2, 15 min)
#
# You get a base, its task, and the text of a `run.json`. Return the prompt's vectors of the same
# run, to the last bit.


# %%
def reproduce(base, task, text):
    """text: the content of run.json -> vectors (P, C)"""
    # solution: the run with all settings of the record
    record = json.loads(text)
    return minipt.tune(base, task, **record["settings"]).prompt.vectors
    # end


course.check("10e", reproduce)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `print(json.dumps(record, indent=1))` shows what is in it. Look at `record["settings"]`:
# `minipt.tune` knows all of these names.
#
# </details>

# %%
record = make_record(base, task, middle, scores)
again = minipt.tune(base, task, **record["settings"])
assert again.prompt.vectors.tobytes() == middle.prompt.vectors.tobytes()
print("the same bytes again, of the data", record["data"]["sha256"][:12])

# %% [markdown]
# ### 10f. The report (level 3, 20 min)
#
# Return your report. `accuracies`, `task`, `scores` and `found` have the numbers. The interval is
# Wilson's, of the rounded mean number of right texts: `confidence_interval(correct, total)`.
#
# | key | what |
# |---|---|
# | `accuracies` | on test, one a seed |
# | `texts` | how many test texts |
# | `interval` | two numbers, around the mean accuracy |
# | `baseline`, `baseline accuracy` | the name and the accuracy of the best one |
# | `beaten` | True if the mean is above it |
# | `chosen on` | which split the setting was chosen on |
# | `conclusion` | at least twelve words: how good, and why it is or is not better |


# %%
def my_report():
    """-> a dict with the keys of the table"""
    # solution: the report of your task
    mean = float(np.mean(accuracies))
    return {
        "accuracies": accuracies,
        "texts": total,
        "interval": confidence_interval(round(mean * total), total),
        "baseline": strongest.replace("_", " "),
        "baseline accuracy": best.accuracy,
        "beaten": mean > best.accuracy,
        "chosen on": "validation",
        "conclusion": "The prompt beats the bag of words, since only the order of the words tells "
        "the classes apart. The seeds differ, and few test texts leave a wide interval.",
    }
    # end


course.check("10f", my_report)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `round(np.mean(accuracies) * len(task.test.texts))` is the mean number of right texts.
#
# </details>
#
# Hand in the report, the sheet, and `run.json`. Compare with the target on your sheet: was it
# reached?
#
# ## What you have now
#
# You have a result with its baselines, its spread and its interval, and a record from which it
# comes again.
#
# **In the source.** `minipt tune --csv mine.csv --text-column text --label-column label` does the
# same in a terminal, and writes `run.json`. `minipt sweep` tries lengths, starts and seeds.
# `minipt/results/report.py` compares, and `minipt/statistics/` tests.

# %%
course.summary(save="answers-10.json")
