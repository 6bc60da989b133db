"""The claims' rules on numbers made up for them, every claim run once small, and the report."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.bases import base_with_tokenizer, small_task

from minipt.errors import MiniptError
from minipt.loading.load import NAMES
from minipt.results.intervals import Difference, minus
from minipt.results.tables import markdown
from minipt.studies import claims
from minipt.studies.claims import CLAIMS, FAILS, HOLDS, UNCLEAR, Plan, verdict_on
from minipt.studies.evidence import gather, verdict_table, write_report

PLAN = Plan("test", seeds=3, steps=2, large_steps=2, rates=1, large=())


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small(monkeypatch):
    """Every base is a random one, every task the same with another name."""
    bases = {}

    def base(name):
        if name not in bases:
            bases[name] = base_with_tokenizer(seed=len(bases), context=160)
        return bases[name]

    monkeypatch.setattr(claims, "the_base", base)
    monkeypatch.setattr(claims, "the_task", lambda name: replace(small_task(), name=name))
    return bases


def near(mean: float) -> np.ndarray:
    """Three accuracies, a tenth of a point apart."""
    return mean + 0.001 * np.array([-1.0, 0.0, 1.0])


def test_a_difference_has_students_interval():
    difference = Difference.of([np.array([1.0, 2.0])])
    assert (difference.mean, difference.low) == (1.5, pytest.approx(1.5 - 12.71 * 0.5, abs=1e-2))
    assert verdict_on(difference) == UNCLEAR
    assert verdict_on(Difference.of([near(0.1), near(0.2)])) == HOLDS
    assert verdict_on(Difference.of([-near(0.1), -near(0.2)])) == FAILS
    assert str(Difference.of([np.array([0.1, 0.1])])) == "+0.100 (+0.100 to +0.100)"
    (apart,) = minus([near(0.9)], [near(0.8)])
    np.testing.assert_allclose(apart, 0.1)


@pytest.mark.parametrize(
    ("nano", "tiny", "verdict"), [(0.3, 0.1, HOLDS), (0.1, 0.3, FAILS), (0.2, 0.2, UNCLEAR)]
)
def test_the_gap_closes_or_not(monkeypatch, nano, tiny, verdict):
    gaps = {"nano": nano, "micro": 0.2, "tiny": tiny}
    rng = np.random.default_rng(0)

    def best_row(plan, base, task, learner="prompt"):
        noise = rng.normal(0, 1e-3, 3)
        return row(0.8 + noise if learner == "full" else 0.8 - gaps[base] + noise)

    monkeypatch.setattr(claims, "best_row", best_row)
    assert claims.closing_gap(PLAN).verdict == verdict


def row(accuracies: np.ndarray) -> object:
    """What `best_row` returns, as far as a claim reads it."""
    results = [SimpleNamespace(record={"test_accuracy": accuracy}) for accuracy in accuracies]
    return SimpleNamespace(results=results)


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ((0.6, 0.7, 0.8, 0.81), HOLDS),
        ((0.8, 0.8, 0.7, 0.7), FAILS),
        ((0.6, 0.7, 0.75, 0.95), FAILS),
        ((0.6, 0.7, 0.8, 0.95), UNCLEAR),
    ],
)
def test_longer_prompts_help_or_not(monkeypatch, accuracies, verdict):
    means = dict(zip((1, 5, 20, 100), accuracies, strict=True))
    monkeypatch.setattr(claims, "best_row", lambda *_, length, **__: row(near(means[length])))
    assert claims.longer_prompts(PLAN).verdict == verdict


@pytest.mark.parametrize(
    ("nano", "tiny", "verdict"),
    [(0.2, 0.1, HOLDS), (0.1, 0.2, UNCLEAR), (0.1, -0.1, FAILS), (0.1, 0.0, UNCLEAR)],
)
def test_starts_beat_uniform_or_not(monkeypatch, nano, tiny, verdict):
    gains = {"nano": nano, "tiny": tiny}

    def best_row(plan, base, task, method):
        gain = 0.0 if method == "uniform" else gains[base]
        accuracies = near(0.6 + gain)
        return row(accuracies[::-1] if method != "uniform" and gain == 0.0 else accuracies)

    monkeypatch.setattr(claims, "best_row", best_row)
    assert claims.starts(PLAN).verdict == verdict


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: str(claim.number))
def test_every_claim_can_be_run(claim, small):
    before = {}
    finding = claim.test(PLAN)
    before |= {name: base.fingerprint for name, base in small.items()}
    assert finding.verdict in (HOLDS, FAILS, UNCLEAR)
    assert finding.because
    width = len(finding.table[0])
    assert all(len(row) == width for row in finding.table)
    assert claim.test(PLAN) == finding  # read, not run again
    assert {name: base.fingerprint for name, base in small.items()} == before


def test_the_bases_of_the_claims_have_names():
    assert {*claims.SMALL_BASES, "micro-masked"} <= set(NAMES)


def test_the_claims_are_ten_and_say_where_they_come_from():
    assert [claim.number for claim in CLAIMS] == list(range(1, 11))
    for claim in CLAIMS:
        assert claim.says.endswith(".")
        assert claim.source and claim.setting
        assert "holds if" in claim.rule or "fails if" in claim.rule


def test_the_report_tells_all(small, here):
    said = []
    findings = gather(PLAN, [8, 2], said.append)
    assert [claim.number for claim, _ in findings] == [8, 2]
    assert any(findings[0][1].because in line for line in said)
    place = write_report(PLAN, findings, "minipt evidence --claim 8,2")
    assert place.name == "evidence-test-8-2"  # beside that of all claims
    report = (place / "report.md").read_text(encoding="utf-8")
    for claim, finding in findings:
        for part in (claim.says, claim.source, claim.setting, claim.rule, finding.verdict):
            assert part in report
    assert "`minipt evidence --claim 8,2`" in report
    assert (place / "claim-2.png").stat().st_size > 1000
    assert not (place / "claim-8.png").exists()
    described = json.loads((place / "evidence.json").read_text(encoding="utf-8"))
    assert [claim["number"] for claim in described["claims"]] == [8, 2]
    assert verdict_table(findings) in report
    assert findings[1][1].of == "prompt vectors"


def test_a_number_that_no_claim_has():
    with pytest.raises(MiniptError, match="there is no claim 11: they are 1 to 10"):
        gather(PLAN, [11], print)


def test_a_table_in_markdown():
    assert markdown([("a", "b"), ("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
