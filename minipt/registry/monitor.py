"""Is what is asked and answered now as it was on validation? All tests together, at one level.

In: what a version's validation split left, and what was logged of it. Out: a `Report`: a finding
for each test, the sums over time, and where truth is known the accuracy and the calibration.
"""

from dataclasses import asdict, dataclass

import numpy as np

from minipt.learning.observe import Observation
from minipt.registry.log import Logged
from minipt.statistics.calibration import Reliability, fit_temperature, reliability, rescale
from minipt.statistics.chi_squared import chi_squared, has_rare, merge_rare
from minipt.statistics.cusum import cusum, group, highest, p_value, smoothed
from minipt.statistics.fisher import fisher
from minipt.statistics.holm import holm
from minipt.statistics.kolmogorov_smirnov import kolmogorov_smirnov
from minipt.statistics.permutation import distance_of_means
from minipt.tasks.bag_of_words import confidence_interval

LEVEL = 0.001  # of all tests together, fixed on validation: see this folder's README
SAMPLE = 1_000  # rows of hidden states that are enough to compare
SEED = 0
OVER_TIME = "answers over time"


@dataclass(frozen=True)
class Finding:
    """One test. validation, logged: the number that is shown; None: there is none.

    p: its own p-value. adjusted: after Holm, to be held to the level.
    """

    name: str
    test: str
    validation: float | None
    logged: float | None
    p: float
    adjusted: float = 1.0

    @property
    def alarms(self) -> bool:
        """Whether it alone is an alarm of the family of tests."""
        return self.adjusted <= LEVEL


@dataclass(frozen=True)
class Truth:
    """How N answers whose truth is known did, on validation or in the log.

    before, after: their reliability, as the prompt says it and at the temperature.
    """

    correct: int
    total: int
    before: Reliability
    after: Reliability

    @property
    def accuracy(self) -> float:
        """correct / total"""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        return confidence_interval(self.correct, self.total)


@dataclass(frozen=True)
class Report:
    """What `watch` found in N logged answers with K labels.

    sums (G, K): the cumulative sums over G groups of answers. threshold: the height that is an
    alarm whatever the other tests say. temperature: the one that suits validation. truths: of
    validation, and of the log's answers whose truth is known; only the first if none is.
    """

    reference: str
    validation: Observation
    logged: Logged
    findings: list[Finding]
    sums: np.ndarray
    threshold: float
    temperature: float
    truths: list[Truth]

    @property
    def alarms(self) -> list[Finding]:
        """The findings that are an alarm."""
        return [finding for finding in self.findings if finding.alarms]

    @property
    def growing(self) -> tuple[str, int] | None:
        """The label whose share grows, and the index of the answer since which; None: no alarm.

        Since its sum was 0 for the last time before its height (Page 1954).
        """
        if OVER_TIME not in [finding.name for finding in self.alarms]:
            return None
        top, k = np.unravel_index(self.sums.argmax(), self.sums.shape)
        zeros = np.flatnonzero(self.sums[:top, k] == 0)
        size = -(-len(self.logged.ids) // len(self.sums))
        first = size * int(zeros[-1] + 1) if len(zeros) else 0
        return self.validation.labels[k], first


def watch(
    reference: str, validation: Observation, right: np.ndarray, logged: Logged, seed: int = SEED
) -> Report:
    """Compare N logged answers, at least one, with M of validation. right (M,): the right labels

    seed: of what is drawn: the sample of hidden states, relabellings, simulated logs.
    """
    seen, known = logged.observation, logged.right >= 0
    temperature = fit_temperature(validation.probabilities, right)
    truths = [_truth(validation.probabilities, right, temperature)]
    if known.any():
        truths.append(_truth(seen.probabilities[known], logged.right[known], temperature))
    findings = compare(validation, seen, seed)
    findings += [_accuracy_finding(*truths)] if len(truths) > 1 else []
    findings = at_one_level(findings)
    sums, highs = over_time(validation, seen, seed)
    threshold = float(highs[-max(1, round(LEVEL / len(findings) * len(highs)))])
    return Report(reference, validation, logged, findings, sums, threshold, temperature, truths)


def compare(validation: Observation, seen: Observation, seed: int = SEED) -> list[Finding]:
    """The tests that need no truth, each by itself."""
    findings = []
    counts = [answer_counts(each) for each in (validation, seen)]
    findings.append(_shares_finding("answers", counts, None, None))
    sums, highs = over_time(validation, seen, seed)
    height = float(sums.max())
    findings.append(Finding(OVER_TIME, "CUSUM", None, height, p_value(height, highs)))
    for name, both in {
        "confidence": [each.probabilities.max(1) for each in (validation, seen)],
        "tokens": [validation.tokens, seen.tokens],
        "unknown tokens": [validation.unknown, seen.unknown],
    }.items():
        means = [float(values.mean(dtype=np.float64)) for values in both]
        _, p = kolmogorov_smirnov(*both)
        findings.append(Finding(name, "Kolmogorov-Smirnov", *means, p))
    hidden = [_sample(each.hidden, seed) for each in (validation, seen)]
    distance, p = distance_of_means(*hidden, seed=seed)
    findings.append(Finding("hidden states", "permutations", 0.0, distance, p))
    return findings


def at_one_level(findings: list[Finding]) -> list[Finding]:
    """The same findings with Holm's adjusted p-values."""
    adjusted = holm(np.array([finding.p for finding in findings]))
    return [
        Finding(**asdict(finding) | {"adjusted": float(p)})
        for finding, p in zip(findings, adjusted, strict=True)
    ]


def answer_counts(seen: Observation) -> np.ndarray:
    """How often each answer was given. (K,)"""
    return np.bincount(seen.answers, minlength=len(seen.labels))


def over_time(
    validation: Observation, seen: Observation, seed: int = SEED
) -> tuple[np.ndarray, np.ndarray]:
    """The sums of the answers over time (G, K), and the heights of logs without a change (S,)."""
    expected = answer_counts(validation)
    counts = group(seen.answers, len(seen.labels))  # (G, K)
    highs = highest(expected, counts.sum(1), seed=seed)
    return cusum(counts, smoothed(expected)), highs


def _sample(rows: np.ndarray, seed: int) -> np.ndarray:
    """At most SAMPLE rows, drawn without replacement."""
    if len(rows) <= SAMPLE:
        return rows
    return rows[np.random.default_rng(seed).choice(len(rows), SAMPLE, replace=False)]


def _truth(probabilities: np.ndarray, right: np.ndarray, temperature: float) -> Truth:
    correct = int((probabilities.argmax(1) == right).sum())
    before = reliability(probabilities, right)
    after = reliability(rescale(probabilities, temperature), right)
    return Truth(correct, len(right), before, after)


def _accuracy_finding(validation: Truth, logged: Truth) -> Finding:
    both = [np.array([each.correct, each.total - each.correct]) for each in (validation, logged)]
    accuracies = (validation.accuracy, logged.accuracy)
    return _shares_finding("accuracy", both, *accuracies)


def _shares_finding(
    name: str, counts: list[np.ndarray], before: float | None, now: float | None
) -> Finding:
    """Whether two samples have the same shares; the exact test of two answers, one of them rare."""
    merged = merge_rare(*counts)
    if len(merged[0]) == 2 and has_rare(*merged):
        return Finding(name, "Fisher", before, now, fisher(*merged))
    return Finding(name, "chi-squared", before, now, chi_squared(*merged))
