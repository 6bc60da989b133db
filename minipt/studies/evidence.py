"""The evidence: every claim put to the test, and the report of what came out.

In: a plan. Out: `runs/evidence/report.md`, with a table of verdicts, and for each claim its source,
setting, rule, the numbers and, where there is one, a figure. All runs are kept in `runs/study/`: an
interrupted report goes on, and a second one takes seconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from minipt.errors import MiniptError
from minipt.results.plot import draw_lines
from minipt.results.store import RUNS, save_page, write_json, write_text
from minipt.results.tables import markdown
from minipt.studies.claims import CLAIMS, Claim, Finding, Plan

Findings = list[tuple[Claim, Finding]]


def gather(plan: Plan, numbers: Sequence[int], say: Callable[[str], None]) -> Findings:
    """The findings of the claims of these numbers, in their order, each said as it is found.

    No number: all claims. Raises MiniptError for a number that no claim has, and as the runs do.
    """
    known = {claim.number: claim for claim in CLAIMS}
    if unknown := set(numbers) - known.keys():
        raise MiniptError(f"there is no claim {min(unknown)}: they are 1 to {len(CLAIMS)}")
    findings = []
    for number in numbers or known:
        claim = known[number]
        say(f"{number}. {claim.says}")
        finding = claim.test(plan)
        say(f"   {finding.verdict}: {finding.because}\n")
        findings.append((claim, finding))
    return findings


def write_report(plan: Plan, findings: Findings, command: str) -> Path:
    """Write report.md, evidence.json and the figures. command: what was typed.

    Their directory is `runs/evidence`, or, of another plan or some claims only, one beside it.
    """
    words = ["evidence"] if plan.name == "default" else ["evidence", plan.name]
    if len(findings) < len(CLAIMS):
        words += [str(claim.number) for claim, _ in findings]
    place = RUNS / "-".join(words)
    parts = [
        "# Published claims, put to the test\n",
        f"`{command}`: {plan.seeds} seeds, {plan.steps} steps for the small bases"
        + (f", {plan.large_steps} for {' and '.join(plan.large)}" if plan.large else "")
        + f"; each learning rate the best of at most {plan.rates} on validation; accuracies are "
        "of the test splits. An interval takes seeds, and tasks or bases where a rule joins them, "
        "as if each were a draw of its own.\n",
        verdict_table(findings),
    ]
    for claim, finding in findings:
        parts.append(
            f"## {claim.number}. {claim.says}\n\n"
            f"- Source: {claim.source}.\n- Setting: {claim.setting}.\n- Rule: {claim.rule}.\n\n"
            f"**{finding.verdict}**: {finding.because}.\n\n{markdown(finding.table)}"
        )
        if finding.lines:
            figure = draw_lines(claim.says, finding.of, "accuracy on test", finding.lines, {})
            save_page(figure, place / f"claim-{claim.number}.png")
            parts.append(f"![claim {claim.number}](claim-{claim.number}.png)\n")
    write_text(place / "report.md", "\n".join(parts))
    write_json(place / "evidence.json", describe(plan, findings))
    return place


def verdict_table(findings: Findings) -> str:
    """The verdicts as a table in Markdown."""
    rows = [("", "claim", "source", "verdict", "because")]
    for claim, finding in findings:
        because = finding.because
        rows.append((str(claim.number), claim.says, claim.source, finding.verdict, because))
    return markdown(rows)


def describe(plan: Plan, findings: Findings) -> dict:
    """The same for JSON."""
    claims = [
        {
            "number": claim.number,
            "claim": claim.says,
            "source": claim.source,
            "setting": claim.setting,
            "rule": claim.rule,
            "verdict": finding.verdict,
            "because": finding.because,
            "table": finding.table,
        }
        for claim, finding in findings
    ]
    return {"plan": asdict(plan), "claims": claims}
