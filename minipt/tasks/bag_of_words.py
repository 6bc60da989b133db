"""A classifier that only counts words, and the interval of an accuracy.

In: splits of a task. Out: predictions, and the interval around an accuracy. Every result of a
prompt is compared with them and with `Task.majority_accuracy`. A tuned prompt has learnt something
only if it beats a linear model of the words by more than the size of the test split can explain.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from minipt.tasks.task import Split

# The l2 penalty is 1 / (2 INVERSE_STRENGTH) for the sum of the losses, the C of other libraries.
# Between 10 and 30 the accuracy on each task's validation split changes by a point at most.
INVERSE_STRENGTH = 10.0
GRADIENT_TOLERANCE = 1e-4
MOST_ITERATIONS = 1000
Z_95 = 1.959964  # 97.5 % of a standard normal distribution lies below


@dataclass(frozen=True)
class SparseRows:
    """A matrix X of shape (N, F), stored as its M entries other than zero, in any order."""

    row: np.ndarray  # (M,) int, 0 to N-1
    column: np.ndarray  # (M,) int, 0 to F-1
    value: np.ndarray  # (M,) float
    shape: tuple[int, int]

    def times(self, weights: np.ndarray) -> np.ndarray:
        """X W for weights W of shape (F, K): (N, K)."""
        return self._sum_by(self.row, self.column, weights, self.shape[0])

    def transpose_times(self, errors: np.ndarray) -> np.ndarray:
        """Xᵀ E for errors E of shape (N, K): (F, K)."""
        return self._sum_by(self.column, self.row, errors, self.shape[1])

    def _sum_by(self, target, source, dense, size) -> np.ndarray:
        columns = [np.bincount(target, self.value * d[source], size) for d in dense.T]
        return np.stack(columns, axis=1)  # (size, K)


def bag_of_words(train: Split, evaluation: Split, classes: int) -> np.ndarray:
    """Learn to classify `train` by its words, and predict the classes of `evaluation`.

    The features are the tf-idf of lower-cased words and pairs of neighbouring words (Salton and
    Buckley, 1988): (1 + log count) · (1 + log((1 + N) / (1 + texts that have it))). Each text is
    scaled to length one. The classifier is `fit_logistic`. The same input gives the same bits.

    classes: how many classes there are, K.
    Returns (number of evaluation texts,) int, indices of classes.
    """
    train_counts = [_count_terms(text) for text in train.texts]
    document_frequency = Counter(term for counts in train_counts for term in counts)
    vocabulary = {term: column for column, term in enumerate(sorted(document_frequency))}
    frequency = np.array([document_frequency[term] for term in vocabulary])
    idf = 1 + np.log((1 + len(train.texts)) / (1 + frequency))  # (F,)
    weights, bias = fit_logistic(_tf_idf(train_counts, vocabulary, idf), train.labels, classes)
    evaluation_counts = [_count_terms(text) for text in evaluation.texts]
    scores = _tf_idf(evaluation_counts, vocabulary, idf).times(weights) + bias  # (N, K)
    return scores.argmax(axis=1)


def fit_logistic(
    features: SparseRows, labels: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fit multinomial logistic regression with an l2 penalty. `logistic_loss` is its loss.

    The bias is not learnt. It is the logarithm of each class's share of the labels. So a text
    without any known word falls to the majority, and the problem stays well conditioned.

    The loss is convex. Its curvature is at least the penalty m. It is at most c = m + λ/2, where λ
    is the largest eigenvalue of XᵀX/N, since the softmax has curvature at most 1/2 (Böhning,
    1992). Nesterov's accelerated gradient (Introductory Lectures on Convex
    Optimization, 2004, scheme 2.2.11) with step 1/c and momentum (√c - √m)/(√c + √m) then
    converges at the rate of 1 - √(m/c) a step.

    labels: (N,) int.
    Returns weights (F, K) and bias (K,).
    """
    # One more of each class, so that a class without a text has no infinite bias.
    counts = np.bincount(labels, minlength=classes) + 1
    bias = np.log(counts / counts.sum())  # (K,)
    penalty = 1 / (INVERSE_STRENGTH * len(labels))
    curvature = penalty + _largest_eigenvalue(features) / 2
    momentum = (math.sqrt(curvature) - math.sqrt(penalty)) / (
        math.sqrt(curvature) + math.sqrt(penalty)
    )
    weights = ahead = np.zeros((features.shape[1], classes))  # (F, K)
    for _ in range(MOST_ITERATIONS):
        _, gradient = logistic_loss(ahead, bias, features, labels, penalty)
        if np.linalg.norm(gradient) < GRADIENT_TOLERANCE:
            break
        previous, weights = weights, ahead - gradient / curvature
        ahead = weights + momentum * (weights - previous)
    return ahead, bias


def logistic_loss(
    weights: np.ndarray,
    bias: np.ndarray,
    features: SparseRows,
    labels: np.ndarray,
    penalty: float,
) -> tuple[float, np.ndarray]:
    """The loss of multinomial logistic regression, and its gradient by the weights.

    With x_n a row of the features X, y_n its label and p_n = softmax(x_n W + b),

        loss = -1/N Σ_n log p_n[y_n] + penalty/2 Σ W²
        d loss / d W = Xᵀ (p - onehot(y)) / N + penalty · W

    weights: W, (F, K). bias: b, (K,). labels: y, (N,) int.
    Returns the loss in nats and the gradient (F, K).
    """
    scores = features.times(weights) + bias  # (N, K)
    scores -= scores.max(axis=1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))  # (N, K)
    texts = np.arange(len(labels))
    loss = -log_p[texts, labels].mean() + penalty / 2 * np.sum(weights**2)
    errors = np.exp(log_p)
    errors[texts, labels] -= 1
    gradient = features.transpose_times(errors) / len(labels) + penalty * weights  # (F, K)
    return float(loss), gradient


def confidence_interval(correct: int, total: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy of `correct` out of `total`, after Wilson (1927).

    With p = correct/total, n = total and z = 1.96 it is

        (p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n)

    It stays within 0 and 1 and is not empty at p = 0 or 1, unlike p ± z √(p(1 - p)/n).

    Raises ValueError unless 0 <= correct <= total and total > 0.
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"{correct} correct out of {total} is not an accuracy")
    share = correct / total
    middle = share + Z_95**2 / (2 * total)
    half = Z_95 * math.sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2))
    scale = 1 + Z_95**2 / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def _count_terms(text: str) -> Counter[str]:
    words = re.findall(r"\w+", text.lower())
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    return Counter(words + pairs)


def _tf_idf(counts: list[Counter[str]], vocabulary: dict[str, int], idf: np.ndarray) -> SparseRows:
    """Counts of N texts as rows of F features. Terms outside the vocabulary are ignored."""
    entries = [
        (row, vocabulary[term], count)
        for row, terms in enumerate(counts)
        for term, count in terms.items()
        if term in vocabulary
    ]
    row, column, count = np.array(entries, dtype=int).reshape(-1, 3).T  # (M,) each
    value = (1 + np.log(count)) * idf[column]
    length = np.sqrt(np.bincount(row, value**2, len(counts)))  # (N,)
    return SparseRows(row, column, value / length[row], (len(counts), len(vocabulary)))


def _largest_eigenvalue(features: SparseRows) -> float:
    """The largest eigenvalue of XᵀX/N, by power iteration.

    No feature is negative, so the eigenvector is not negative either (Perron and Frobenius). A
    start vector of ones cannot be orthogonal to it.
    """
    vector = np.ones((features.shape[1], 1))  # (F, 1)
    for _ in range(30):
        product = features.transpose_times(features.times(vector)) / features.shape[0]
        vector = product / np.linalg.norm(product)
    return float(np.linalg.norm(product))
