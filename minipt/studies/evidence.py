"""The evidence: every claim put to the test, and the report of what came out.

In: a plan's name. Out: `runs/evidence/report.md`, with a table of verdicts, and for each claim its
source, setting, rule, the numbers and, where there is one, a figure. All runs are kept in
`runs/study/`, so that what was interrupted goes on, and what is typed again takes seconds. The
story continues in `commands.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from minipt.errors import MiniptError
from minipt.files.complete import complete_file
from minipt.results.plot import draw_lines
from minipt.results.store import PIXELS_PER_INCH, RUNS
from minipt.studies.claims import CLAIMS, Claim, Finding, Plan
from minipt.studies.jobs import write_json

Found = list[tuple[Claim, Finding]]


def gather(plan: Plan, numbers: Sequence[int], say: Callable[[str], None]) -> Found:
    """The findings of the claims of these numbers, in their order, each said as it is found.

    Raises MiniptError for a number that no claim has, and as the runs do.
    """
    known = {claim.number: claim for claim in CLAIMS}
    if unknown := set(numbers) - known.keys():
        raise MiniptError(f"there is no claim {min(unknown)}: they are 1 to {len(CLAIMS)}")
    found = []
    for number in numbers or known:
        claim = known[number]
        say(f"{number}. {claim.says}")
        finding = claim.test(plan)
        say(f"   {finding.verdict}: {finding.because}\n")
        found.append((claim, finding))
    return found


def write_report(plan: Plan, found: Found, command: str) -> Path:
    """Write report.md, evidence.json and the figures. command: what was typed."""
    place = _place(plan, found)
    parts = [
        "# Published claims, put to the test\n",
        f"`{command}`: {plan.seeds} seeds, {plan.steps} steps for the small bases"
        + (f", {plan.large_steps} for {' and '.join(plan.large)}" if plan.large else "")
        + f"; each learning rate the best of at most {plan.rates} on validation; accuracies are "
        "of the test splits. An interval takes seeds, and tasks or bases where a rule joins them, "
        "as if each were a draw of its own.\n",
        verdict_table(found),
    ]
    for claim, finding in found:
        parts.append(_section(claim, finding))
        if finding.lines:
            figure = draw_lines(claim.says, finding.of, "accuracy on test", finding.lines, {})
            with complete_file(place / f"claim-{claim.number}.png") as partial:
                figure.savefig(partial, dpi=PIXELS_PER_INCH)
            parts.append(f"![claim {claim.number}](claim-{claim.number}.png)\n")
    with complete_file(place / "report.md") as partial:
        partial.write_text("\n".join(parts), encoding="utf-8")
    write_json(place / "evidence.json", describe_evidence(plan, found))
    return place


def _place(plan: Plan, found: Found) -> Path:
    """`runs/evidence`, or, of another plan or some claims only, a directory beside it."""
    words = ["evidence"] if plan.name == "default" else ["evidence", plan.name]
    if len(found) < len(CLAIMS):
        words += [str(claim.number) for claim, _ in found]
    return RUNS / "-".join(words)


def verdict_table(found: Found) -> str:
    """The verdicts as a table in Markdown."""
    rows = [("", "claim", "source", "verdict", "because")]
    for claim, finding in found:
        because = finding.because
        rows.append((str(claim.number), claim.says, claim.source, finding.verdict, because))
    return markdown(rows)


def describe_evidence(plan: Plan, found: Found) -> dict:
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
        for claim, finding in found
    ]
    return {"plan": asdict(plan), "claims": claims}


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first the head, as a table in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines) + "\n"


def _section(claim: Claim, finding: Finding) -> str:
    return (
        f"## {claim.number}. {claim.says}\n\n"
        f"- Source: {claim.source}.\n"
        f"- Setting: {claim.setting}.\n"
        f"- Rule: {claim.rule}.\n\n"
        f"**{finding.verdict}**: {finding.because}.\n\n{markdown(finding.table)}"
    )
