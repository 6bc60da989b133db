# %% [markdown]
# # 9. Writing, and keeping it running
#
# **You will** let a base write, one token a step, and write one such step yourself. You tune a
# prompt that answers instructions. Then you keep versions of a prompt, watch one of them while its
# texts change, and build an alarm.
#
# **You will learn** what decoding keeps from step to step, what instruction tuning asks of a
# prompt, and why confidence does not tell when a prompt fails.
#
# **You need** chapters 1 and 2. **Time:** 60 minutes.
#
# | | | | |
# |---|---|---|---|
# | P | prompt vectors | H | heads |
# | T | tokens of the text | D | channels a head |
# | n | tokens that were written | S | rows of the past |
#
# An exercise is a function that you finish, or a value. `course.check` answers at once. What is
# still open stops nothing.

# %%
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np

import minipt
from minipt import course
from minipt.learning.observe import Observation, observe
from minipt.prompting.generate import advance
from minipt.prompting.wiring import run_prompt
from minipt.registry.monitor import watch
from minipt.tasks.task import Pairs, Split

SEED = 0
plt.rcParams.update({"figure.dpi": 80, "font.size": 13})
course.begin(9)
place = TemporaryDirectory()  # for this chapter's files; the last cell removes it
folder = Path(place.name)

# %%
nano, micro = minipt.load_base("nano"), minipt.load_base("micro")
task = course.statements_and_questions()
run = minipt.tune(nano, task, steps=200, learning_rate=0.03, seed=SEED)
course.band(run.test_accuracy, 0.9, 1.0, "statement or question, test accuracy")

# %% [markdown]
# ## Trap: a classifier does not write its label
#
# This prompt answers nearly every text rightly. Now let its base write on after the text:

# %%
for text in task.test.texts[:3]:
    (answer,) = minipt.predict(nano, run.prompt, [text])
    words = "".join(minipt.generate(nano, run.prompt, text, limit=4))
    print(f"{answer.label:<10} is the class; written is {words!r}")
labels = [" statement", " question"]
starts = ["".join(minipt.generate(nano, run.prompt, text, limit=1)) for text in task.test.texts]
share = float(np.mean([start in labels for start in starts]))
course.band(share, 0.0, 0.5, "share of test texts after which a label is written")

# %% [markdown]
# The class is the likelier of **two** words. Whoever writes takes the likeliest of all V words.
# Training compared the two words only, and so the others could be anything. A prompt that shall
# write has to be tuned for it.
#
# ## Decoding
#
# A causal base writes like this: it computes the logits of the next token, a token is chosen, and
# the token is appended. Then it does the same again. The rows that were there before do not
# change, since no row reads a later one. So their keys and values are kept. They are called the
# *past* (or the KV cache). The prompt's keys and values are the first P rows of it.
#
# ### 9a. The rows of a step (level 1, 5 min)
#
# There are P prompt vectors, a text of T tokens, and n tokens that were written. Now the token
# after these is wanted. Return three whole numbers: the position of the newest token, how many
# rows run in this step if the past was kept, and how many if nothing was kept.


# %%
def rows_of_a_step(P, T, n):
    """n is at least 1 -> (position, rows with the past, rows without it)"""
    # solution: the newest token's position, and two numbers of rows
    return P + T + n - 1, 1, P + T + n
    # end


course.check("9a", rows_of_a_step)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Take P = 2, T = 3 and n = 1, and write down what stands at positions 0, 1, 2, 3, 4, 5.
#
# </details>
#
# ### 9b. One decoding step (level 2, 10 min)
#
# One layer, one new row. Its query, key and value are (H, 1, D), and the past has S rows. Return
# the context (H, 1, D), and the keys and values that the next step finds as its past. No mask is
# needed: why?


# %%
def decode(query, key, value, past_key, past_value):
    """query, key, value (H, 1, D); past_key, past_value (H, S, D)

    -> context (H, 1, D), key (H, S + 1, D), value (H, S + 1, D)
    """
    # solution: append key and value to the past, then attention
    key = np.concatenate([past_key, key], axis=1)
    value = np.concatenate([past_value, value], axis=1)
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(query.shape[-1])  # (H, 1, S + 1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ value, key, value
    # end


course.check("9b", decode)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The row reads the past and itself, so its own key and value come behind the past's. Chapter 2's
# attention does the rest. All rows are earlier or its own, so there is nothing to mask.
#
# </details>
#
# The library's `advance` does this in every layer. We write six tokens with it. Beside it runs a
# second way, which keeps nothing and computes all rows anew each time.

# %%
text = "The ferry was late and the sea was"
ids = np.array(micro.tokenizer.encode(text, add_special_tokens=False).ids)  # (T,)
prompt = minipt.init_prompt(micro, length=20, seed=SEED)
past = run_prompt(micro, prompt)  # by layer: keys and values (H, P, D)
new, written = ids, ids
for _ in range(6):
    logits, past = advance(micro, new, past)  # (V,)
    batch = minipt.Batch(written[None], [len(written)], [0])
    anew = minipt.logits(micro, batch, prompt)[0]  # (V,)
    difference = minipt.compare("with and without the past", logits, anew)
    assert difference < 1e-3, f"the logits differ by {difference:.1e}"
    new = np.array([logits.argmax()])
    rows = past[0][0].shape[1]
    print(f"past {rows:2d} rows, differs by {difference:.0e}: {micro.tokenizer.decode(new)!r}")
    written = np.append(written, new)

# %% [markdown]
# ## Instruction tuning
#
# *Instruction tuning* teaches a model to do what a text asks for. It usually changes all numbers
# of a model, with thousands of different instructions (Wei et al. 2022). Here a prompt learns it,
# with three. Each line of the file is a pair:

# %%
pairs = course.instructions(task.train.texts + task.validation.texts)
path = folder / "instructions.jsonl"
path.write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
for line in path.read_text(encoding="utf-8").splitlines()[3:6]:
    print(line)
asked = minipt.load_pairs(path)
print(asked.summary())

# %% [markdown]
# `minipt tune --pairs instructions.jsonl` reads the same file. The same sentence stands in it
# three times, so `load_pairs` may put one of the three into its test split and the others into
# training. That leaks (chapter 6). The 120 sentences of the test are therefore kept out of the
# file, and we measure on them.
#
# ### 9c. A row and its target (level 2, 5 min)
#
# A pair becomes a row of tokens, and a target: the tokens that should follow the row's last ones.
# The loss is the mean over these. Return both as lists of token ids. The response ends with the
# token `end`, at which generation stops.


# %%
def row_and_target(text, response, end):
    """text, response: lists of token ids; end: one token id -> (row, target), two lists"""
    # solution: what is read, and what should follow its last tokens
    return text + response, [*response, end]
    # end


course.check("9c", row_and_target)

# %% [markdown]
# <details><summary>Hint</summary>
#
# For the text "The film was" and the response "very good": after "was" follows "very", after
# "very" follows "good", and after "good" follows the end. So which tokens are read?
#
# </details>
#
# A response is right if all of its tokens are, the end included.

# %%
writer = minipt.tune(micro, asked, length=20, steps=200, learning_rate=0.1, seed=SEED)


def unseen(texts, instruction=None):
    """The pairs of these texts; with an instruction only those with it."""
    rows = [row for row in course.instructions(texts) if (instruction or "") in row["prompt"]]
    return Pairs([row["prompt"] for row in rows], [f" {row['response']}" for row in rows])


print(f"{writer.seconds:.0f} seconds")
for each in unseen(task.test.texts[:1]).texts:
    print(repr(each), "->", repr("".join(minipt.generate(micro, writer.prompt, each, limit=6))))
alone = minipt.evaluate(micro, None, unseen(task.test.texts), asked).accuracy
print(f"the base without a prompt: {alone:.3f}")
for instruction in ("Name the kind.", "Is it a question?", "Is it a statement?"):
    right = minipt.evaluate(micro, writer.prompt, unseen(task.test.texts, instruction)).accuracy
    print(f"{instruction:<20} {right:.3f}")
both = minipt.evaluate(micro, writer.prompt, unseen(task.test.texts))
course.band(both.accuracy, 0.55, 1.0, "right responses to three instructions, new sentences")

# %% [markdown]
# The same prompt answers one text in three ways, as it is told. Does it understand instructions?
# Here are the same questions in words that it has not seen.

# %%
others = {
    "Is this a question?": ("no", "yes"),
    "Question or statement?": ("statement", "question"),
    "Which kind is it?": ("statement", "question"),
}
shares = []
for instruction, responses in others.items():
    texts = [f"{text}\n{instruction}\nAnswer:" for text in task.test.texts]
    wanted = [f" {responses[label]}" for label in task.test.answers]
    shares.append(minipt.evaluate(micro, writer.prompt, Pairs(texts, wanted)).accuracy)
    print(f"{instruction:<24} {shares[-1]:.3f}")
course.band(np.mean(shares), 0.0, 0.6, "right responses to instructions in new words, mean")

# %% [markdown]
# What is near to a known wording works, the rest does not. Twenty vectors and three instructions
# do not make a base understand a fourth. Large models with many instructions do that. The command
# `minipt tune --pairs` is the same for them.
#
# ## Trap: the prompt put in twice
#
# The past holds the prompt. A program that puts the prompt in front again, in a later step or
# beside the one that a library already put there, runs without any error. `course.prompt_twice`
# makes such a prompt of 2P vectors.
#
# ### 9d. The prompt twice (level 1, 5 min)
#
# Guess two numbers from 0 to 1, both on the test sentences with the prompt twice: the accuracy of
# the *classes* (with `nano`), and the share of right *responses* (with `micro`).

# %%
mine = (0.9, 0.9)  # yours: a pair of numbers from 0 to 1, classes and responses
course.guess("9d", mine)
course.reveal("9d")

# %%
doubled = course.prompt_twice(run.prompt)
class_twice = minipt.evaluate(nano, doubled, task.test).accuracy
twice = minipt.evaluate(micro, course.prompt_twice(writer.prompt), unseen(task.test.texts))
print(f"once: classes {run.test_accuracy:.3f}, responses {both.accuracy:.3f}")
course.band(class_twice, 0.4, 1.0, "classes, the prompt twice")
course.band(twice.accuracy, 0.2, 0.95, "right responses, the prompt twice")

# %% [markdown]
# How much is lost differs from run to run, in classes and in texts. With some prompts no class
# changes at all, and the fault stays hidden until the next version. So test a program with a known
# text, and compare its logits with those of the library, not its answers.
#
# ## Handing it over
#
# A tuned prompt is P vectors. Hugging Face's library PEFT keeps them in two files. `to_peft`
# writes both, without PEFT, and a third for what PEFT has no place for. `from_peft` reads them
# again.

# %%
adapter = folder / "adapter"
run.prompt.to_peft(adapter)
config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
for file in sorted(adapter.iterdir()):
    print(f"{file.stat().st_size:6,} bytes  {file.name}")
for name in ("peft_type", "task_type", "num_virtual_tokens", "token_dim"):
    print(f"{name:<19} {config[name]}")
again = minipt.from_peft(adapter, nano)
assert again.vectors.tobytes() == run.prompt.vectors.tobytes()
print("there and back: the same bytes")

# %% [markdown]
# With PEFT installed, `PeftModel.from_pretrained(model, "adapter")` puts these vectors in front of
# the same base in transformers. PEFT puts the prompt in front by itself: do not put it in again.
#
# ## Versions
#
# A prompt that is used by others needs *versioning*: each one that was ever in use can be found
# again, and one knows how it was made. `minipt.Registry` is a directory of versions. A version
# never changes. A **tag** is a name that can be moved from one version to another.

# %%
registry = minipt.Registry(folder / "prompts")
registry.save(run, "kind", message="the first one")
short = minipt.tune(nano, task, steps=100, length=5, learning_rate=0.03, seed=SEED)
registry.save(short, "kind", message="five vectors, half the steps")
registry.tag("kind", 2, "production")
registry.tag("kind", 1, "production")
for version in registry.versions("kind"):
    print(version.reference, version.tags, f"{version.accuracy:.3f}", version.message)
for move in registry.moves("kind"):
    print(f"{move.tag}: from {move.before} to {move.after}")

# %% [markdown]
# ### 9e. Where a tag stands (level 1, 5 min)
#
# You get the moves of all tags in the order in which they were made, as pairs of a tag and the
# version's number. `None` as a number takes the tag away. Return a dict: each tag that stands
# somewhere, and its number.


# %%
def tags_now(moves):
    """moves: a list of (tag, number or None) -> {tag: number}"""
    # solution: the last move of each tag, unless it was taken away
    return {tag: number for tag, number in dict(moves).items() if number is not None}
    # end


course.check("9e", tags_now)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `dict(moves)` keeps the last of several pairs with the same tag.
#
# </details>
#
# ## A stream that drifts
#
# The prompt `kind@production` answers texts day by day. In the course of 800 texts something
# changes. From text 400 on, more and more people leave out the comma and the question mark: "The
# bus was late or not". After text 600 all do. To them it is a question as before.

# %%
sentences = [text.replace(", or not?", ".").rstrip(".!") for text in task.test.texts]
texts = [f"{s}." for s in sentences] + [f"{s}, or not?" for s in sentences]
texts += [f"{s} or not" for s in sentences]
prompt = registry.load("kind@production", nano)
answered = observe(nano, prompt, texts)  # what each of the three forms gets, once
N, CHANGE, ALL = 800, 400, 600


def stream(seed):
    """Which of the texts come, and which class each is: two arrays (N,)"""
    rng = np.random.default_rng(seed)
    question = rng.random(N) < 0.5
    newer = rng.random(N) < np.clip((np.arange(N) - CHANGE) / (ALL - CHANGE), 0, 1)
    form = question * (1 + newer)  # 0 statement, 1 question, 2 question in the new form
    return form * len(sentences) + rng.integers(len(sentences), size=N), question.astype(int)


def part(seen, rows):
    """Some rows of an observation."""
    columns = ("probabilities", "tokens", "cut", "unknown", "hidden")
    return Observation(seen.labels, *(getattr(seen, name)[rows] for name in columns))


which, truth = stream(SEED)
seen = part(answered, which)


def means(values, width=50):
    """The means of every `width` values: (N / width,)"""
    return np.asarray(values, float).reshape(-1, width).mean(1)


figure, axis = plt.subplots(figsize=(9, 4.2))
middle = means(np.arange(N))
axis.plot(middle, means(seen.answers == truth), "o-C3", label="accuracy (hidden)")
axis.plot(middle, means(seen.probabilities.max(1)), "s-C0", label="confidence")
axis.plot(middle, means(seen.answers), "^-C2", label='share of "question"')
axis.axvspan(CHANGE, ALL, color="C7", alpha=0.3, label="the change")
axis.set(xlabel="text", ylabel="mean of 50 texts", ylim=(-0.05, 1.05), title="a stream that drifts")
axis.legend(loc="lower left", fontsize=11)
figure.tight_layout()

# %% [markdown]
# Nobody tells the right answers while the texts come, so the red line is **hidden**. What one sees
# are the other two.

# %%
last = slice(ALL, N)
confidence = seen.probabilities.max(1)
course.band((seen.answers == truth)[last].mean(), 0.35, 0.65, "accuracy after the change")
course.band(confidence[last].mean(), 0.85, 1.0, "mean confidence after the change")
course.band(seen.answers[:CHANGE].mean(), 0.4, 0.6, "share of questions before the change")
course.band(seen.answers[last].mean(), 0.0, 0.15, "share of questions after the change")

# %% [markdown]
# The confidence stays high while half of the answers are wrong: the prompt is sure of what it has
# never seen. The share of the answers tells. It can be watched without knowing one right answer.
#
# ### 9f. How far is far (level 2, 5 min)
#
# On validation a share of the answers was "question". Of n later answers (1 for "question") the
# mean is another one. By how many standard deviations? An answer is a coin with that share, and
# has the variance share · (1 − share).


# %%
def deviations(answers, share):
    """answers (n,) of 0 and 1, share: expected -> one number, negative if there are too few 1s"""
    # solution: the difference over the standard deviation of a mean of n
    return (answers.mean() - share) / np.sqrt(share * (1 - share) / len(answers))
    # end


course.check("9f", deviations)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The mean of n answers has the variance share · (1 − share) / n. The standard deviation is its
# root.
#
# </details>
#
# ### 9g. An alarm (level 3, 10 min)
#
# Write a rule. It gets all answers so far and says whether to alarm. It is asked after every ten
# texts, on twenty streams. The value is the mean number of texts from the change to the alarm. If
# the rule alarms before the change in any stream, the value is the number of such streams, below
# 0.


# %%
def texts_until(alarm):
    """The mean delay over the streams, or below 0 the number of streams with a false alarm."""
    delays, false_alarms = [], 0
    for seed in range(100 * SEED, 100 * SEED + 20):
        answers = answered.answers[stream(seed)[0]]
        first = next((n for n in range(10, N + 1, 10) if alarm(answers[:n], 0.5)), N)
        false_alarms += first <= CHANGE
        delays.append(first - CHANGE)
    return -float(false_alarms) if false_alarms else float(np.mean(delays))


def alarm(answers, share):
    """answers (n,) of 0 and 1, so far; share: the expected share of 1 -> True or False"""
    # solution: compare the share of the last answers with the expected one
    recent = answers[-100:]
    far = (recent.mean() - share) / np.sqrt(share * (1 - share) / len(recent))
    return len(recent) == 100 and abs(far) > 4
    # end


course.check("9g", lambda: texts_until(alarm))

# %% [markdown]
# <details><summary>Hint</summary>
#
# All answers since the beginning forget slowly: take the last 50 or 100. Two standard deviations
# are exceeded by chance once in 20 looks, and you look 40 times before the change. Wait until
# there are enough answers.
#
# </details>
#
# ## The library's monitor
#
# *Monitoring* is to watch what a model is asked and answers, while it is used. `minipt predict
# --log` keeps each answer's numbers, without its text. `minipt watch` compares them with the
# validation split: the answers, their sums over time, the confidence, the lengths, unknown tokens,
# hidden states. All tests together have one level, so that looking at many does not alarm by
# chance. Here the log has a text an hour. We look at three parts of it.

# %%
HOUR = 3600.0  # seconds
hours = HOUR * np.arange(N)
registry.log("kind@production", part(seen, np.arange(CHANGE)), times=hours[:CHANGE])
early = registry.logged("kind@production")
registry.log("kind@production", part(seen, np.arange(CHANGE, N)), times=hours[CHANGE:])
everything = registry.logged("kind@production")
late = registry.logged("kind@production", since=HOUR * ALL)
validation, right = registry.validation("kind@production")
alarms = {}
for name, each in {"before": early, "all of it": everything, "the last 200": late}.items():
    report = watch("kind@production", validation, right, each, seed=SEED)
    alarms[name] = len(report.alarms)
    print(f"{name}: {len(each.ids)} answers, {alarms[name]} alarms")
    for finding in report.findings:
        mark = "ALARM" if finding.alarms else ""
        print(f"   {finding.name:<18} p = {finding.adjusted:<9.2g} {mark}")
course.band(float(alarms["before"]), 0, 0, "alarms of the monitor before the change")
course.band(float(alarms["the last 200"]), 1, 6, "alarms of the monitor over the last 200")

# %% [markdown]
# The validation split has 40 texts, so the monitor knows the expected share only roughly, and is
# careful. Some tests then say nothing: p is 1. The monitor sees more in what came last: `minipt
# watch kind@production --since 7d`. A larger validation split makes it sharper. Your rule was told
# the true share.

# %% [markdown]
# ## The next version
#
# Somebody labels some texts in the new form. We tune on from the version in use, with old and new
# forms, in training **and** in validation. A validation split without the new form would choose
# the old prompt again: on the old texts nothing can be better.


# %%
def with_new_form(split):
    """Every second question in the new form."""
    questions = np.cumsum(split.labels) * split.labels  # 1, 2, 3 ... at the questions
    texts = [
        text.replace(", or not?", " or not") if number and number % 2 == 0 else text
        for text, number in zip(split.texts, questions, strict=True)
    ]
    return Split(texts, split.labels)


splits = {name: with_new_form(getattr(task, name)) for name in ("train", "validation", "test")}
mixed = replace(task, name="statements and questions, two forms", **splits)
next_run = minipt.tune(nano, mixed, start=prompt, steps=200, learning_rate=0.03, seed=SEED)
kept = registry.save(next_run, "kind", message="knows questions without a mark", parent="kind@1")
diff = registry.diff("kind@production", kept.reference, task=mixed, base=nano)
mean, low, high = (getattr(diff.answers.difference, n) for n in ("mean", "low", "high"))
print(f"{diff.first} {diff.answers.correct[0]}, {diff.second} {diff.answers.correct[1]} right")
print(f"difference {mean:.3f}, 95 % interval {low:.3f} to {high:.3f}")
registry.tag("kind", kept.number, "production")
print("production is on", registry.find("kind@production").reference)
better = observe(nano, registry.load("kind@production", nano), texts).answers[which] == truth
course.band(better[last].mean(), 0.8, 1.0, "accuracy after the change, with the new version")

# %% [markdown]
# Should the new version fail, `registry.tag("kind", 1, "production")` brings the old one back. The
# log says which version gave which answer.
#
# ## What you have now
#
# You can let a prompt write, keep it in versions, and notice without right answers that its texts
# have changed. Chapter 10 is a project of your own.
#
# **In the source.** `minipt/prompting/generate.py` writes, `minipt/prompting/responses.py` makes
# rows and targets, `minipt/registry/` keeps and watches; its README has all commands.
# `minipt/statistics/` has the tests, each with its derivation.

# %%
place.cleanup()
course.summary(save="answers-09.json")
