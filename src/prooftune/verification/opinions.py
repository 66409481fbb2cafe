"""Whether the summaries of the general suite and of the judge follow from the single answers that are published with them."""

from __future__ import annotations

from prooftune.errors import DataError
from prooftune.evaluation.gate.comparison import pair_up
from prooftune.evaluation.general import Answers, Question, Text, compare_suite
from prooftune.evaluation.judge import ANSWERS, JudgedPair, identical, summarise, verdict_on
from prooftune.evaluation.judge.agreement import Labels, read_labels
from prooftune.evidence import Forgetting, JudgeReport, JudgeVerdict
from prooftune.spec import RunSpec
from prooftune.types import Frozen, Prediction
from prooftune.verification.audit import Audit

ROUNDED = 1e-3
"""The suite's losses are published to six decimals: that may move an interval, and a p-value by a few of its draws."""
HUMAN_LABELS = "human_labels.jsonl"
"""People's verdicts, where they are published with the run."""
_OF_PEOPLE = {"kappa", "kappa_n", "kappa_skipped"}
_OF_PRICES = {"cost_usd"}
"""Of the judge's report: the price list is not part of the run."""


class Item(Frozen):
    """A line of ``general.jsonl``: a question with whether it was answered rightly, or a text with its loss in nats."""

    topic: str
    before: bool | float | None
    after: bool | float | None
    question: str | None = None
    choices: tuple[str, ...] = ()
    answer: int = 0
    text: str = ""
    tokens: int = 0


def check_forgetting(audit: Audit) -> None:
    """Summarise the general suite again from its items."""
    found = audit.document("forgetting.json", Forgetting)
    items = audit.rows("general.jsonl", Item) if found is not None else None
    if found is None or items is None:
        return
    asked, read = [one for one in items if one.question is not None], [one for one in items if one.question is None]
    questions = [Question(one.topic, one.question or "", one.choices, one.answer) for one in asked]
    texts = [Text(one.topic, one.text) for one in read]
    before, after = (
        Answers(tuple(getattr(one, side) for one in asked), tuple((float(getattr(one, side)), one.tokens) for one in read))
        for side in ("before", "after")
    )
    expected = [part.model_dump(mode="json") for part in compare_suite(questions, texts, before, after)]
    written = [part.model_dump(mode="json") for part in found.parts if not part.name.startswith("lm-eval")]
    audit.same("comparisons", "forgetting.json", "parts", written, expected, ROUNDED)


def check_judge(audit: Audit, spec: RunSpec, answered: dict[str, list[Prediction]]) -> None:
    """Read the judge's answers again and count its verdicts; each pair that it was to judge has one, and only equal answers need none."""
    found = audit.document("judge.json", JudgeReport)
    if found is None:
        return
    verdicts, said = audit.rows("judge.jsonl", JudgeVerdict), audit.rows(ANSWERS, JudgedPair)
    if verdicts is None or said is None:
        return
    if lost_side := [name for name in (found.baseline, "candidate") if name not in answered]:
        audit.note("judge.json", "baseline", f"{lost_side[0]}, whose answers are not published", "a contestant of the run")
        return
    judged = {row.example_id: row for row in said}
    pairs = {pair[0].example_id: pair for pair in pair_up(found.baseline, answered[found.baseline], answered["candidate"])}
    asked = sorted(pairs)[: spec.judge.max_pairs]
    audit.same("answers", "judge.jsonl", "the pairs", [verdict.example_id for verdict in verdicts], asked)
    if lost := [one for one in asked if one not in judged and not identical(pairs[one])]:
        audit.note(ANSWERS, "answers on different answers", f"none on {', '.join(lost[:3])}", "one on each")
    again = [verdict_on(pairs[example_id], judged.get(example_id)) for example_id in asked]
    audit.same("answers", "judge.jsonl", "", [v.model_dump(mode="json") for v in verdicts], [v.model_dump(mode="json") for v in again])
    labels = _labels(audit, found)
    expected = summarise(spec.judge, found.baseline, again, labels or {}, said)
    left_out = _OF_PRICES if labels is not None else _OF_PRICES | _OF_PEOPLE
    written, recomputed = (report.model_dump(mode="json", exclude=left_out) for report in (found, expected))
    audit.same("comparisons", "judge.json", "", written, recomputed)


def _labels(audit: Audit, found: JudgeReport) -> Labels | None:
    """Return people's verdicts; None where they are not published, which is said if the report rests on them."""
    path = audit.path(HUMAN_LABELS)
    if path is None:
        if not (found.kappa_n or found.kappa_skipped):
            return {}
        audit.not_recomputed.append(f"judge.json: kappa, the agreement with people: {HUMAN_LABELS} is not published")
        return None
    try:
        return read_labels(path)
    except DataError as error:
        audit.note(HUMAN_LABELS, "a line", str(error), "a human label")
        return None
