"""A language model compares the candidate's answers with the best baseline's, pair by pair and in both orders.

Judges prefer an answer for where it stands (Wang et al., 2023, https://arxiv.org/abs/2305.17926), so each pair is judged in both orders,
and only a verdict that survives the exchange counts (Zheng et al., 2023, https://arxiv.org/abs/2306.05685).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from prooftune.data.lines import read_lines, write_lines
from prooftune.errors import SpecError
from prooftune.evaluation import statistics
from prooftune.evaluation.gate.comparison import Pair, pair_up
from prooftune.evaluation.judge.agreement import Outcome, agreement, read_labels
from prooftune.evaluation.judge.prompt import judge_prompt, parse_verdict
from prooftune.evidence import JudgeReport, JudgeVerdict
from prooftune.providers.chat import ChatAnswer, ChatModel, open_chat
from prooftune.spec import Judge, Task, digest
from prooftune.types import Frozen, Message, Prediction, Progress, Report, no_report

MAX_TOKENS = 4096
"""Of a judge's answer: a verdict takes a dozen, the rest is room for judges that think first."""
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
        SpecError: the spec names no judge, or no verdict could be read from any of its answers.
        EnvironmentLacks, TransientError: the judge's server could not be used.
    """
    if judge.model is None:
        raise SpecError("judge.model is null; set it to the provider's name of a model that is to judge")
    labels = read_labels(human_labels) if human_labels else {}
    pairs = sorted(pair_up(baseline_name, baseline, candidate), key=lambda pair: pair[0].example_id)[: judge.max_pairs]
    asked = {pair[0].example_id: prompts_for(judge, task, pair) for pair in pairs if not identical(pair)}
    judged = ask_judge(judge, asked, out, report, open_judge)
    verdicts = [verdict_on(pair[0].example_id, judged.get(pair[0].example_id)) for pair in pairs]
    summary = summarise(judge, baseline_name, verdicts, labels, judged.values())
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
    judged = {row.example_id: row for row in _answers_so_far(path) if digests.get(row.example_id) == row.asked}
    missing = [example_id for example_id in asked if example_id not in judged]
    for row in _ask(judge, missing, asked, digests, out, report, open_judge):
        if not judge.batch:  # a batch answers all at once: it is written as a whole, for a part of it would be followed by another batch
            _append(path, row)
        judged[row.example_id] = row
        report(Progress(done=len(judged), total=len(asked), unit="pairs"))
    return _sorted(path, [judged[example_id] for example_id in asked])


def _ask(
    judge: Judge,
    ids: Sequence[str],
    asked: dict[str, Prompts],
    digests: dict[str, str],
    out: Path,
    report: Report,
    open_judge: OpenJudge,
) -> Iterator[JudgedPair]:
    """Yield what the judge says about these pairs, each as soon as it has answered both orders."""
    if not ids:
        return
    model = open_judge(judge.provider, str(judge.model), judge.base_url)
    prompts = list(chain.from_iterable(asked[example_id] for example_id in ids))
    if judge.batch:
        answers = iter(model.complete_batch(prompts, max_tokens=MAX_TOKENS, folder=out, report=report))
    else:
        answers = model.complete(prompts, max_tokens=MAX_TOKENS)
    for example_id, candidate_first, baseline_first in zip(ids, answers, answers, strict=True):
        yield JudgedPair(example_id=example_id, asked=digests[example_id], candidate_first=candidate_first, baseline_first=baseline_first)


def _digest(judge: Judge, prompts: Prompts) -> str:
    messages = [message.model_dump() for prompt in prompts for message in prompt]
    return digest([judge.provider, judge.model, judge.base_url, messages])


def _answers_so_far(path: Path) -> list[JudgedPair]:
    """Return what a killed call left behind, and cut off the line that it was writing."""
    path.touch()
    whole = path.read_bytes().rpartition(b"\n")
    with path.open("r+b") as file:
        file.truncate(len(whole[0]) + len(whole[1]))
    return list(read_lines(path, JudgedPair))


def _append(path: Path, row: JudgedPair) -> None:
    with path.open("ab") as file:
        file.write(row.model_dump_json().encode() + b"\n")


def _sorted(path: Path, rows: list[JudgedPair]) -> dict[str, JudgedPair]:
    """Write the rows in their order, whole or not at all, and return them by example id."""
    part = path.with_suffix(".part")
    write_lines(part, rows)
    part.replace(path)
    return {row.example_id: row for row in rows}


def verdict_on(example_id: str, judged: JudgedPair | None) -> JudgeVerdict:
    """Return the verdict on a pair; without an answer of the judge, because the pair's answers are identical, it is a tie.

    Orders that contradict each other make a tie; an order that cannot be read leaves the pair unscored.
    """
    if judged is None:
        return JudgeVerdict(example_id=example_id, candidate_first="tie", baseline_first="tie", outcome="tie")
    first = read_answer(judged.candidate_first, {"A": "candidate", "B": "baseline", "tie": "tie"})
    second = read_answer(judged.baseline_first, {"A": "baseline", "B": "candidate", "tie": "tie"})
    outcome: Outcome | None = None if first is None or second is None else first if first == second else "tie"
    return JudgeVerdict(example_id=example_id, candidate_first=first, baseline_first=second, outcome=outcome)


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
    judge: Judge, baseline_name: str, verdicts: Sequence[JudgeVerdict], labels: dict[str, Outcome], judged: Iterable[JudgedPair]
) -> JudgeReport:
    """Return the report over all pairs.

    Raises:
        SpecError: there is no verdict on any pair.
    """
    counts = Counter(verdict.outcome for verdict in verdicts)
    scores = [WIN[verdict.outcome] for verdict in verdicts if verdict.outcome is not None]
    name = f"{judge.provider} {judge.model}"
    if not scores:
        raise SpecError(
            f"{name} gave no verdict that can be read on any of {len(verdicts)} pairs; it must answer with "
            f'{{"better": "A"}} and nothing else. What it said is in {ANSWERS}; set judge.model to another one'
        )
    draws = statistics.bootstrap(statistics.mean_of(scores), len(scores), seed=_SEED)
    ci_low, ci_high = statistics.percentile_interval(draws)
    kappa, kappa_n = agreement(verdicts, labels) if labels else (None, 0)
    answers = [answer for row in judged for answer in (row.candidate_first, row.baseline_first)]
    return JudgeReport(
        judge=name,
        rubric=judge.rubric,
        baseline=baseline_name,
        wins=counts["candidate"],
        losses=counts["baseline"],
        ties=counts["tie"],
        unscored=counts[None],
        contradictions=sum(map(contradicts, verdicts)),
        win_rate=sum(scores) / len(scores),
        ci_low=ci_low,
        ci_high=ci_high,
        p_value=sign_test(counts["candidate"], counts["baseline"]),
        kappa=kappa,
        kappa_n=kappa_n,
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
        answer_tokens=sum(answer.answer_tokens for answer in answers),
    )
