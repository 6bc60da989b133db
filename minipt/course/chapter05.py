"""The exercises of chapter 5: Adam, the loop, and which learning rate learns."""

from dataclasses import replace
from functools import cache, partial

import numpy as np

from minipt.course.exercises import Band, Exact, Guess
from minipt.course.sentences import statements_and_questions
from minipt.learning.evaluate import task_question
from minipt.learning.optimizers import Adam
from minipt.learning.tune import tune
from minipt.loading.load import load_base
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.starts import init_prompt
from minipt.prompting.text import batches, encode
from minipt.prompting.wiring import loss_and_gradient
from minipt.tasks.task import Split

TITLE = "Making it learn"

SEEDS = range(5)
RATES = (1e-4, 1e-3, 1e-2, 1e-1)  # the smallest first
ENOUGH = 0.8  # the accuracy from which on we say that a run has learnt


def adam(vectors, gradient, mean, square, step, rate):
    """One step as the library takes it: the vectors, the running mean, that of the square."""
    optimizer, params = Adam(), {"prompt": vectors.copy()}
    optimizer.t = step - 1
    optimizer.state = {"prompt.mean": mean.copy(), "prompt.square": square.copy()}
    optimizer.step(params, {"prompt": gradient}, rate)
    return params["prompt"], optimizer.state["prompt.mean"], optimizer.state["prompt.square"]


def _with_step(change):
    """Adam with the means right and the step itself as `change` has it, of rate, mean and root."""

    def wrong(vectors, gradient, mean, square, step, rate):
        _, mean, square = adam(vectors, gradient, mean, square, step, rate)
        corrected, root = mean / (1 - 0.9**step), np.sqrt(square / (1 - 0.999**step))
        return vectors + change(rate, mean, square, corrected, root), mean, square

    return wrong


def _with_corrected_mean(vectors, gradient, mean, square, step, rate):
    moved, mean, square = adam(vectors, gradient, mean, square, step, rate)
    return moved, mean / (1 - 0.9**step), square / (1 - 0.999**step)


def _with_exchanged_shares(vectors, gradient, mean, square, step, rate):
    mean, square = 0.1 * mean + 0.9 * gradient, 0.001 * square + 0.999 * gradient**2
    corrected, root = mean / (1 - 0.9**step), np.sqrt(square / (1 - 0.999**step))
    return vectors - rate * corrected / (root + 1e-8), mean, square


def _some_steps():
    rng = np.random.default_rng(0)
    vectors, gradient, mean = rng.standard_normal((3, 4, 6))
    square = rng.random((4, 6))
    nothing = np.zeros((4, 6))
    return [
        (vectors, gradient, nothing, nothing, 1, 0.1),
        (vectors, gradient, mean, square, 7, 0.3),
        (vectors, 1e-4 * gradient, nothing, nothing, 1, 0.1),  # here the place of 1e-8 matters
    ]


@cache
def _nano():
    return load_base("nano").astype(np.float64)


@cache
def _eight():
    """A task of eight texts: they are all that it has."""
    task = statements_and_questions()
    few = Split(task.train.texts[:8], task.train.labels[:8])
    return replace(task, train=few, validation=few, test=few)


@cache
def _eight_in_one_batch():
    base, task = _nano(), _eight()
    question = task_question(base, None, task.train, task)
    rows, _ = encode(base, question.template, task.train.texts, base.config.context)
    return next(batches(rows, task.train.labels, question, size=8))[1]


def _loss_and_gradient(vectors):
    """NaN from vectors that are NaN, so that a mistake's sentence can tell of it."""
    if not np.isfinite(vectors).all():
        return np.nan, np.full_like(vectors, np.nan)
    base = _nano()
    prompt = SoftPrompt(np.asarray(vectors), base.fingerprint, base.name, {})
    return loss_and_gradient(base, prompt, _eight_in_one_batch())


def _some_trainings():
    starts = [init_prompt(_nano(), length, seed=length).vectors for length in (20, 5)]
    return [(_loss_and_gradient, starts[0], 12, 0.02), (_loss_and_gradient, starts[1], 6, 0.05)]


def _losses_of_tune(_, vectors, steps, rate):
    """The losses of the library's loop, in which all that is not the loop does nothing."""
    base = _nano()
    start = SoftPrompt(vectors, base.fingerprint, base.name, {})
    still = {"schedule": "constant", "warmup": 0, "clip": 1e9, "batch_size": 8}
    run = tune(base, _eight(), start=start, steps=steps, learning_rate=rate, **still)
    return [record["loss"] for record in run.history[1:]]


def _wrong_loop(fault, loss_and_gradient, vectors, steps, rate):
    """The losses of a loop with one fault, by its name."""
    first = loss_and_gradient(vectors)[1]
    mean = square = zeros = np.zeros_like(vectors)
    losses = []
    for step in range(1, steps + 1 + (fault == "late")):
        loss, gradient = loss_and_gradient(vectors)
        losses.append(loss)
        gradient = first if fault == "once" else gradient
        number = 1 if fault == "first" else step
        vectors, mean, square = adam(vectors, gradient, mean, square, number, rate)
        if fault == "zero":  # 1 - 0.9**0 is zero
            vectors = np.full_like(vectors, np.nan)
        if fault == "forgets":
            mean = square = zeros
    return losses[fault == "late" :]


def _losses_of_descent(loss_and_gradient, vectors, steps, rate):
    losses = []
    for _ in range(steps):
        loss, gradient = loss_and_gradient(vectors)
        losses.append(loss)
        vectors = vectors - rate * gradient
    return losses


def _some_gradients():
    rng = np.random.default_rng(1)
    return [(rng.standard_normal((20, 64)), 0.02), (rng.standard_normal((3, 5)), 0.3)]


def _short_run(rate, seed):
    """The accuracy on validation of a short run, as the chapter takes them by the dozen."""
    base, task = load_base("nano"), statements_and_questions()
    task = replace(task, test=task.validation)
    short = {"steps": 80, "batch_size": 8, "evaluate_every": 80}
    run = tune(base, task, learning_rate=rate, seed=seed, **short)
    return run.history[-1]["validation_accuracy"]


def _smallest_rate():
    return next(rate for rate in RATES if _short_run(rate, seed=0) >= ENOUGH)


def _difference_of_seeds():
    accuracies = [_short_run(0.1, seed) for seed in SEEDS]
    return max(accuracies) - min(accuracies)


def _length(x):
    return float(np.linalg.norm(x))


def _lengths(x):
    return np.linalg.norm(x, axis=-1)


def _some_ways():
    rng = np.random.default_rng(2)
    start, way = rng.standard_normal((2, 6, 8))
    return [(start, start + 0.3 * way), (0.1 * start, start + way)]


def _some_runs():
    shares = np.array([0.02, 0.5, 0.09, 3.0, 0.31, 7.0])
    accuracies = np.array([0.5, 0.95, 0.55, 1.0, 0.85, 0.6])
    return [(shares, accuracies, 0.8), (shares[::-1], accuracies[::-1], 0.95)]


def _some_starts():
    rng = np.random.default_rng(3)
    return [(rng.standard_normal((20, 64)), 200, 0.5), (0.1 * rng.standard_normal((5, 8)), 80, 0.3)]


def _root_mean_square(x):
    return _length(x) / np.sqrt(x.size)


EXERCISES = (
    Exact(
        name="5a",
        title="A step of Adam",
        level=2,
        minutes=15,
        inputs=_some_steps,
        right=adam,
        mistakes={
            "Mean and square begin at zero, so they are too small at first: divide them.": (
                _with_step(lambda rate, mean, square, *_: -rate * mean / (np.sqrt(square) + 1e-8))
            ),
            "This divides by the square's running mean itself: take its root.": (
                _with_step(lambda rate, _, __, c, root: -rate * c / (root**2 + 1e-8))
            ),
            "The vectors climb: the gradient points to where the loss rises, so subtract.": (
                _with_step(lambda rate, _, __, c, root: rate * c / (root + 1e-8))
            ),
            "This follows the mean without dividing by the root: that is momentum, not Adam.": (
                _with_step(lambda rate, _, __, c, root: -rate * c)
            ),
            "The corrected mean and square go into this step only: return the running ones.": (
                _with_corrected_mean
            ),
            "The 1e-8 is added to the root, and not to what stands under it.": (
                _with_step(lambda rate, _, __, c, root: -rate * c / np.sqrt(root**2 + 1e-8))
            ),
            "The shares are exchanged: the old mean keeps 0.9, the old square 0.999.": (
                _with_exchanged_shares
            ),
        },
        hint="mean = 0.9 * mean + 0.1 * gradient, the square so too, then both corrected.",
    ),
    Exact(
        name="5b",
        title="The loop",
        level=3,
        minutes=15,
        inputs=_some_trainings,
        right=_losses_of_tune,
        tolerance=1e-5,
        mistakes={
            "These losses are one step late: note the loss that a step starts from.": (
                partial(_wrong_loop, "late")
            ),
            "The gradient of the start is used in every step: compute it anew each time.": (
                partial(_wrong_loop, "once")
            ),
            "Mean and square are zero again in every step: keep what adam returns.": (
                partial(_wrong_loop, "forgets")
            ),
            "From the second loss on all are NaN: step 0 divides by zero, so count from 1.": (
                partial(_wrong_loop, "zero")
            ),
            "These are the losses of gradient descent: take the step with your adam.": (
                _losses_of_descent
            ),
            "Adam is told in every step that it is the first: count the steps from 1.": (
                partial(_wrong_loop, "first")
            ),
        },
        hint="for step in range(1, steps + 1): loss and gradient, note the loss, then adam.",
    ),
    Exact(
        name="5c",
        title="How long the first step is",
        level=2,
        minutes=5,
        inputs=_some_gradients,
        right=lambda gradient, rate: (rate * _length(gradient), rate * np.sqrt(gradient.size)),
        mistakes={
            "Adam moves each number by the rate; the length is that of all numbers together.": (
                lambda gradient, rate: (rate * _length(gradient), rate)
            ),
            "Adam's way is added up along all axes; a length is the root of the squares' sum.": (
                lambda gradient, rate: (rate * _length(gradient), rate * gradient.size)
            ),
            "Adam's first step is right; that of gradient descent is rate times gradient.": (
                lambda gradient, rate: (_length(gradient), rate * np.sqrt(gradient.size))
            ),
            "Both lack the rate: a step is the rate times something.": (
                lambda gradient, rate: (_length(gradient), np.sqrt(gradient.size))
            ),
            "The two are exchanged: gradient descent comes first.": (
                lambda gradient, rate: (rate * np.sqrt(gradient.size), rate * _length(gradient))
            ),
        },
        hint="In Adam's first step corrected / root is g / |g|: plus or minus 1 in each number.",
    ),
    Guess(
        name="5d",
        title="The smallest rate that learns",
        level=1,
        minutes=5,
        measure=_smallest_rate,
        lesson="A rate that suits a whole network's weights hardly moves a prompt.",
    ),
    Exact(
        name="5e",
        title="How far it has moved",
        level=1,
        minutes=5,
        inputs=_some_ways,
        right=lambda start, end: _length(end - start) / _length(start),
        mistakes={
            "This is how much longer it has become; a vector may turn and stay as long.": (
                lambda start, end: abs(_length(end) - _length(start)) / _length(start)
            ),
            "This is relative to the end; the start is what it had to leave.": (
                lambda start, end: _length(end - start) / _length(end)
            ),
            "This is the mean of a share for each vector; take the norms of the whole arrays.": (
                lambda start, end: np.mean(_lengths(end - start) / _lengths(start))
            ),
            "This is the distance alone: divide it by the start's norm.": (
                lambda start, end: _length(end - start)
            ),
        },
        hint="np.linalg.norm(end - start), and then divide.",
    ),
    Exact(
        name="5f",
        title="From runs to a rule",
        level=2,
        minutes=10,
        inputs=_some_runs,
        right=lambda shares, accuracies, enough: shares[accuracies >= enough].min(),
        mistakes={
            "A run that learnt nothing moved so little: look only at those that learnt.": (
                lambda shares, accuracies, enough: shares.min()
            ),
            "This is the most that a run moved without learning; too far is no use either.": (
                lambda shares, accuracies, enough: shares[accuracies < enough].max()
            ),
            "A run that has exactly `enough` counts too: take >= and not >.": (
                lambda shares, accuracies, enough: shares[accuracies > enough].min()
            ),
            "This is the mean of those that learnt; which of them moved least?": (
                lambda shares, accuracies, enough: shares[accuracies >= enough].mean()
            ),
            "This is the share of the most accurate run; we look for the one that moved least.": (
                lambda shares, accuracies, enough: shares[accuracies.argmax()]
            ),
        },
        hint="shares[accuracies >= enough] has the shares of the runs that learnt.",
    ),
    Exact(
        name="5g",
        title="The least rate for a start",
        level=3,
        minutes=10,
        inputs=_some_starts,
        right=lambda vectors, steps, share: 2 * share * _root_mean_square(vectors) / steps,
        mistakes={
            "The rate is for one number, so take the root mean square and not the norm.": (
                lambda vectors, steps, share: 2 * share * _length(vectors) / steps
            ),
            "The schedule lets the rate fall to zero, so on average it is half of this.": (
                lambda vectors, steps, share: share * _root_mean_square(vectors) / steps
            ),
            "This is the mean of the absolute numbers: take the root of the squares' mean.": (
                lambda vectors, steps, share: 2 * share * np.abs(vectors).mean() / steps
            ),
            "The number of steps does not count here: more steps go further.": (
                lambda vectors, steps, share: share * _root_mean_square(vectors)
            ),
            "This moves a number by its whole size: multiply by the share.": (
                lambda vectors, steps, share: 2 * _root_mean_square(vectors) / steps
            ),
        },
        hint="steps times half the rate is the way; it should be share times the size of a number.",
    ),
    Band(
        name="5h",
        title="Does the rule hold?",
        level=2,
        minutes=10,
        low=0.85,
        high=1.0,
        why="Too small a rate stays at 0.5, too large a one goes past: try ten to fifty times.",
        mistakes={"This is a coin: has the prompt moved far enough?": lambda: 0.5},
    ),
    Guess(
        name="5i",
        title="Five seeds",
        level=1,
        minutes=5,
        measure=_difference_of_seeds,
        lesson="One seed is one draw: a run is told with its seeds, or it is not told.",
    ),
)
