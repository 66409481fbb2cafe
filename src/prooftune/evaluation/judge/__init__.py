"""A language model compares the candidate's answers with the best baseline's, pair by pair and in both orders.

Judges prefer an answer for where it stands (Wang et al., 2023, https://arxiv.org/abs/2305.17926), so each pair is judged in both orders,
and only a verdict that survives the exchange counts (Zheng et al., 2023, https://arxiv.org/abs/2306.05685).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from prooftune.data.kept import keep, read_kept
from prooftune.data.lines import write_lines
from prooftune.errors import SpecError
from prooftune.evaluation import statistics
from prooftune.evaluation.gate.comparison import Pair, pair_up
from prooftune.evaluation.judge.agreement import Labels, Outcome, agreement, read_labels
from prooftune.evaluation.judge.prompt import judge_prompt, parse_verdict
from prooftune.evidence import JudgeReport, JudgeVerdict
from prooftune.providers.chat import ChatAnswer, ChatModel, open_chat
from prooftune.spec import Judge, Task, digest
from prooftune.types import Frozen, Message, Prediction, Progress, Report, no_report

log = logging.getLogger(__name__)

MAX_TOKENS = 4096
"""Of a judge's answer: a verdict takes a dozen, the rest is room for judges that think first."""
BATCH_FROM = 100
"""Requests from which on the batch API is used where the spec leaves it open: for fewer, half the price is not worth a wait of a day."""
ANSWERS = "judge.answers.jsonl"
WIN = {"candidate": 1.0, "tie": 0.5, "baseline": 0.0}
_SEED = 0
"""Of the bootstrap."""

OpenJudge = Callable[[str, str, str | None], ChatModel]
Prompts = tuple[tuple[Message, Message], tuple[Message, Message]]
"""The same pair with the candidate's answer first, and with the baseline's answer first."""


class JudgedPair(Frozen):
    """A line of ``judge.answers.jsonl``: what the judge said, as it came. Verdicts are read from it; a killed stage goes on after it."""

    example_id: str
    asked: str
    """Digest of judge and prompts: what was asked another way is asked again."""
    candidate_first: ChatAnswer
    baseline_first: ChatAnswer


def judge_pairs(
    judge: Judge,
    task: Task,
    baseline_name: str,
    baseline: Sequence[Prediction],
    candidate: Sequence[Prediction],
    out: Path,
    report: Report = no_report,
    *,
    human_labels: Path | None = None,
    open_judge: OpenJudge = open_chat,
) -> dict[str, object]:
    """Write ``judge.jsonl`` (verdicts by example id), ``judge.json`` (``JudgeReport``) and ``judge.answers.jsonl``; return the report.

    Identical answers are ties without a request. What a killed call left in ``out`` is not asked again.

    Raises:
        DataError: the contestants answered different examples, or a human label is none.
        SpecError: the spec names no judge.
        EnvironmentLacks, TransientError: the judge's server could not be used.
    """
    if judge.model is None:
        raise SpecError("judge.model is null; set it to the provider's name of a model that is to judge")
    labels = read_labels(human_labels) if human_labels else {}
    pairs = sorted(pair_up(baseline_name, baseline, candidate), key=lambda pair: pair[0].example_id)[: judge.max_pairs]
    asked = {pair[0].example_id: prompts_for(judge, task, pair) for pair in pairs if not identical(pair)}
    judged = ask_judge(judge, asked, out, report, open_judge)
    verdicts = [verdict_on(pair, judged.get(pair[0].example_id)) for pair in pairs]
    summary = summarise(judge, baseline_name, verdicts, labels, judged.values())
    if summary.win_rate is None:
        log.warning(
            '%s gave no verdict that can be read on any of %d pairs; it must answer with {"better": "A"} and nothing else. '
            "What it said is in %s; set judge.model to another one",
            *(summary.judge, len(pairs), ANSWERS),
        )
    write_lines(out / "judge.jsonl", verdicts)
    (out / "judge.json").write_text(summary.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return summary.model_dump(mode="json")


def identical(pair: Pair) -> bool:
    """Return whether both answers are the same but for white space around them."""
    return pair[0].answer.strip() == pair[1].answer.strip()


def prompts_for(judge: Judge, task: Task, pair: Pair) -> Prompts:
    """Return what the judge is asked about a pair: both orders."""
    baseline, candidate = pair

    def ordered(first: Prediction, second: Prediction) -> tuple[Message, Message]:
        return judge_prompt(
            rubric=judge.rubric,
            task=task.system,
            question=candidate.prompt,
            reference=candidate.target,
            answer_a=first.answer,
            answer_b=second.answer,
        )

    return ordered(candidate, baseline), ordered(baseline, candidate)


def ask_judge(judge: Judge, asked: dict[str, Prompts], out: Path, report: Report, open_judge: OpenJudge) -> dict[str, JudgedPair]:
    """Return what the judge said about each pair, by example id, asking only about those that ``out`` holds no answer on."""
    digests = {example_id: _digest(judge, prompts) for example_id, prompts in asked.items()}
    path = out / ANSWERS
    judged = {row.example_id: row for row in read_kept(path, JudgedPair) if digests.get(row.example_id) == row.asked}
    missing = [example_id for example_id in asked if example_id not in judged]
    batched = through_batch(judge, 2 * len(missing))
    if batched and judge.batch is None:
        text = f"{2 * len(missing)} requests go through the batch API: half the price, up to a day; judge.batch: false asks at once"
        log.warning("the judge: %s", text)
        report(Progress(done=len(judged), total=len(asked), unit="pairs", text=text))
    for row in _ask(judge, missing, asked, digests, out if batched else None, report, open_judge):
        if not batched:  # a batch answers all at once: it is written as a whole, for a part of it would be followed by another batch
            keep(path, row)
        judged[row.example_id] = row
        report(Progress(done=len(judged), total=len(asked), unit="pairs"))
    return _sorted(path, [judged[example_id] for example_id in asked])


def through_batch(judge: Judge, requests: int) -> bool:
    """Return whether so many requests go through the provider's batch API: as the spec says, else where it saves enough to wait for.

    A server at a ``base_url`` may have no batch API, and none that is cheaper.
    """
    return judge.batch if judge.batch is not None else judge.base_url is None and requests >= BATCH_FROM


def _ask(
    judge: Judge,
    ids: Sequence[str],
    asked: dict[str, Prompts],
    digests: dict[str, str],
    batch: Path | None,
    report: Report,
    open_judge: OpenJudge,
) -> Iterator[JudgedPair]:
    """Yield what the judge says about these pairs, each as soon as it has answered both orders; ``batch`` is a batch's folder."""
    if not ids:
        return
    model = open_judge(judge.provider, str(judge.model), judge.base_url)
    prompts = list(chain.from_iterable(asked[example_id] for example_id in ids))
    if batch is not None:
        answers = iter(model.complete_batch(prompts, max_tokens=MAX_TOKENS, folder=batch, report=report))
    else:
        answers = model.complete(prompts, max_tokens=MAX_TOKENS)
    for example_id, candidate_first, baseline_first in zip(ids, answers, answers, strict=True):
        yield JudgedPair(example_id=example_id, asked=digests[example_id], candidate_first=candidate_first, baseline_first=baseline_first)


def _digest(judge: Judge, prompts: Prompts) -> str:
    messages = [message.model_dump() for prompt in prompts for message in prompt]
    return digest([judge.provider, judge.model, judge.base_url, messages])


def _sorted(path: Path, rows: list[JudgedPair]) -> dict[str, JudgedPair]:
    """Write the rows in their order, whole or not at all, and return them by example id."""
    part = path.with_suffix(".part")
    write_lines(part, rows)
    part.replace(path)
    return {row.example_id: row for row in rows}


def verdict_on(pair: Pair, judged: JudgedPair | None) -> JudgeVerdict:
    """Return the verdict on a pair; without an answer of the judge, because the pair's answers are identical, it is a tie.

    Orders that contradict each other make a tie; an order that cannot be read leaves the pair unscored.
    """
    example_id, answers = pair[0].example_id, digest([contestant.answer for contestant in pair])[:16]
    if judged is None:
        return JudgeVerdict(example_id=example_id, candidate_first="tie", baseline_first="tie", outcome="tie", answers=answers)
    first = read_answer(judged.candidate_first, {"A": "candidate", "B": "baseline", "tie": "tie"})
    second = read_answer(judged.baseline_first, {"A": "baseline", "B": "candidate", "tie": "tie"})
    outcome: Outcome | None = None if first is None or second is None else first if first == second else "tie"
    return JudgeVerdict(example_id=example_id, candidate_first=first, baseline_first=second, outcome=outcome, answers=answers)


def read_answer(answer: ChatAnswer, means: dict[str, Outcome]) -> Outcome | None:
    """Return what a judge's answer says; None where it refused, was cut, or is not the JSON object that was asked for."""
    better = parse_verdict(answer.text) if answer.finished and not answer.refusal else None
    return None if better is None else means[better]


def contradicts(verdict: JudgeVerdict) -> bool:
    """Return whether both orders were read and differ."""
    return verdict.outcome is not None and verdict.candidate_first != verdict.baseline_first


def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided p-value that wins and losses are equally likely; ties say nothing, and without either p = 1.

    Source: Arbuthnott (1710); Dixon and Mood (1946), https://doi.org/10.1080/01621459.1946.10501898.
    """
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses, 0.5).pvalue) if wins + losses else 1.0


def summarise(
    judge: Judge, baseline_name: str, verdicts: Sequence[JudgeVerdict], labels: Labels, judged: Iterable[JudgedPair]
) -> JudgeReport:
    """Return the report over all pairs; those with identical answers are ties, and no opinion that could agree with people's."""
    rows = {row.example_id: row for row in judged}
    counts = Counter(verdict.outcome for verdict in verdicts)
    win_rate, ci_low, ci_high = _win_rate([WIN[verdict.outcome] for verdict in verdicts if verdict.outcome is not None])
    kappa, kappa_n = agreement([verdict for verdict in verdicts if verdict.example_id in rows], labels)
    answers = [answer for row in rows.values() for answer in (row.candidate_first, row.baseline_first)]
    return JudgeReport(
        judge=f"{judge.provider} {judge.model}",
        rubric=judge.rubric,
        baseline=baseline_name,
        wins=counts["candidate"],
        losses=counts["baseline"],
        ties=counts["tie"],
        unscored=counts[None],
        contradictions=sum(map(contradicts, verdicts)),
        win_rate=win_rate,
        ci_low=ci_low,
        ci_high=ci_high,
        p_value=sign_test(counts["candidate"], counts["baseline"]),
        kappa=kappa,
        kappa_n=kappa_n,
        kappa_skipped=len(labels) - kappa_n,
        batched=any(answer.latency_s is None for answer in answers),
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
        answer_tokens=sum(answer.answer_tokens for answer in answers),
    )


def _win_rate(scores: Sequence[float]) -> tuple[float, float, float] | tuple[None, None, None]:
    """Return the mean score with its 95 % interval; None where nothing was scored."""
    if not scores:
        return None, None, None
    draws = statistics.bootstrap(statistics.mean_of(scores), len(scores), seed=_SEED)
    return sum(scores) / len(scores), *statistics.percentile_interval(draws)
