"""Base model and candidate behind a provider's API: the ladder, the candidate, forgetting and a champion, against a server on a socket."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_models import write_examples
from fixtures_tokenizer import write_tokenizer

from prooftune.data.counting import CharacterCounter, OpenAICounter, TokenizerCounter, counter_at
from prooftune.data.lines import read_lines, write_lines
from prooftune.data.preflight import preflight_managed
from prooftune.data.tokens import count_managed_tokens
from prooftune.errors import DataError, SpecError, TransientError
from prooftune.evaluation.answers import api_answerer
from prooftune.evaluation.answers.answering import Answer
from prooftune.evaluation.answers.api_answerer import ROOM_TO_THINK
from prooftune.evaluation.answers.managed import ManagedBase, open_base, tuned_answerer
from prooftune.evaluation.candidate import evaluate_candidate
from prooftune.evaluation.champion import evaluate_against_champion
from prooftune.evaluation.champion_files import check_champion
from prooftune.evaluation.gate.checks import Evidence, checks_of
from prooftune.evaluation.general import ask_forgetting, load_questions
from prooftune.evaluation.general.asking import as_prompt, read_choice
from prooftune.evaluation.ladder.baselines import run_baselines
from prooftune.evidence import Champion, Forgetting
from prooftune.models.loading import load_tokenizer
from prooftune.providers.collection import ManagedModel
from prooftune.report.changes import compare_answers
from prooftune.report.limits import limitations
from prooftune.report.plots import draw_plots
from prooftune.report.risks import risks
from prooftune.report.tables import effort_table
from prooftune.report.wording import timing
from prooftune.spec import Baseline, Gate, General, Provider, RunSpec, Task, parse_spec
from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import publish
from prooftune.storage.registry import register
from prooftune.training.encoding import prompt_ids
from prooftune.types import Decision, Evaluation, Example, Message, Prediction, Report, no_report

if TYPE_CHECKING:
    from fixtures_chat import Chat, ChatServer

pytest_plugins = ["fixtures_chat"]

CHAT = "/v1/chat/completions"
TASK = Task(system="Shout the first word.", max_answer_tokens=6)
TUNED = ManagedModel(
    provider="openai", address="-", base_model="base", model="ft:base:1", job="job-1", key="prooftune-1", shutdown=None, owns_weights=False
)


def shout(chat: Chat) -> str:
    """Answer as a model that has learnt the task."""
    return chat[-1]["content"].split()[0].upper()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with the splits, and one for what a stage writes."""
    write_examples(tmp_path / "train.jsonl", 30, seed=1)
    write_examples(tmp_path / "validation.jsonl", 6, seed=3)
    write_examples(tmp_path / "holdout.jsonl", 9, seed=2)
    (tmp_path / "out").mkdir()
    return tmp_path


def seal(data: Path) -> str:
    """Digest of the holdout."""
    return hashlib.sha256((data / "holdout.jsonl").read_bytes()).hexdigest()


def base_at(server: ChatServer, **options: Any) -> ManagedBase:
    """Return a base model at the server."""
    return ManagedBase(provider="openai", model="base", options=Provider(base_url=server.openai, **options))


def climb(data: Path, base: ManagedBase, report: Report = no_report, **baseline: Any) -> dict[str, Any]:
    """Run the ladder, three demonstrations at most."""
    splits = [data / f"{name}.jsonl" for name in ("train", "validation", "holdout")]
    options = Baseline(**{"shots": 3, "choose_on": 0, "ladder": ("zero_shot", "few_shot"), **baseline})
    with open_base(base, LocalStore(data / "store"), data / "out" / "base_model.answers.jsonl") as subject:
        return run_baselines(*splits, seal(data), subject, TASK, options, data / "out", report)


def evaluation(data: Path, name: str) -> Evaluation:
    """Return what a contestant's file says."""
    return Evaluation.model_validate_json((data / "out" / f"{name}.evaluation.json").read_bytes())


def test_the_ladder_is_climbed_behind_an_api(data: Path, chat_server: ChatServer) -> None:
    """Each rung has its files, the base model's name, latencies as measured, and room to think."""
    chat_server.answer = shout
    figures = climb(data, base_at(chat_server))
    assert [found["metrics"]["exact_match"]["value"] for found in figures.values()] == [1.0, 1.0]
    for rung in ("zero_shot", "few_shot"):
        found = evaluation(data, rung)
        assert found.model == "base"
        assert found.latency_p50_s is not None
        assert found.seconds is not None
    asked = chat_server.asked(CHAT)
    assert {(body["model"], body["max_tokens"]) for body in asked} == {("base", ROOM_TO_THINK)}
    assert "demonstrations from the training split, " in figures["few_shot"]["description"]
    assert len(asked) == 2 * len({row.prompt for row in read_lines(data / "out" / "zero_shot.predictions.jsonl", Prediction)})


def test_no_answer_is_paid_for_twice(data: Path, chat_server: ChatServer) -> None:
    """A ladder that failed asks only what is missing; then its wall time says nothing, and says so."""
    chat_server.answer = shout
    [first, *_] = read_lines(data / "holdout.jsonl", Example)
    chat_server.order("503", times=100, asking=f"'{first.prompt[-1].content}'")
    with pytest.raises(TransientError):
        climb(data, base_at(chat_server))
    chat_server.faults.clear()
    climb(data, base_at(chat_server))
    answered = [path for path, _ in chat_server.sent if path == f"POST {CHAT}"]
    assert len(answered) == len({json.dumps(body["messages"]) for body in chat_server.asked(CHAT)})
    assert evaluation(data, "zero_shot").seconds is None
    assert evaluation(data, "zero_shot").tokens_per_second is None
    assert evaluation(data, "zero_shot").latency_p50_s is not None
    assert evaluation(data, "few_shot").seconds is not None


def test_a_batch_has_no_latencies(data: Path, chat_server: ChatServer) -> None:
    """The holdout goes through the batch API, choices are made directly, and what was not measured is not shown as a number."""
    chat_server.answer = shout
    figures = climb(data, base_at(chat_server, batch=True), choose_on=4)
    assert len(chat_server.batches) == 2
    assert {name: found["metrics"]["exact_match"]["value"] for name, found in figures.items()} == {"zero_shot": 1.0, "few_shot": 1.0}
    for rung in ("zero_shot", "few_shot"):
        found = evaluation(data, rung)
        assert (found.latency_p50_s, found.latency_p95_s, found.seconds, found.tokens_per_second) == (None, None, None, None)
        assert timing(found.latency_p50_s) == "not measured"
        assert None in {row.latency_s for row in read_lines(data / "out" / f"{rung}.predictions.jsonl", Prediction)}
    choice = json.loads((data / "out" / "few_shot.choice.json").read_text())
    assert list(choice["scores"]) == ["1", "2", "3"]


def test_a_batch_is_not_ordered_twice(data: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was killed when the answers had come, and before they were kept, fetches them from the same batch."""
    chat_server.answer = shout

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(api_answerer, "keep_together", killed)
        with pytest.raises(KeyboardInterrupt):
            climb(data, base_at(chat_server, batch=True), ladder=("zero_shot",))
    climb(data, base_at(chat_server, batch=True), ladder=("zero_shot",))
    assert len(chat_server.batches) == 1
    asked = len(chat_server.seen)
    (data / "out" / "zero_shot.evaluation.json").unlink()
    climb(data, base_at(chat_server, batch=True), ladder=("zero_shot",))
    assert len(chat_server.seen) == asked


def test_a_base_model_that_only_thinks_is_an_error(data: Path, chat_server: ChatServer) -> None:
    """The message says which field to change."""
    chat_server.answer = lambda chat: ""
    chat_server.order("truncated", times=100, containing=CHAT)
    with pytest.raises(SpecError, match=r"openai base at .* left 9 of 9 answers empty.*Set backend\.model"):
        climb(data, base_at(chat_server), ladder=("zero_shot",))


def candidate(data: Path, base: ManagedBase) -> dict[str, Any]:
    """Evaluate the tuned model."""
    store, kept = LocalStore(data / "store"), data / "out" / "candidate.answers.jsonl"
    tuned = [lambda: tuned_answerer(base, TUNED, store, kept)]
    return evaluate_candidate(
        data / "train.jsonl", data / "holdout.jsonl", seal(data), tuned, base.counter, "openai base", TASK, data / "out"
    )


def test_the_candidate_is_asked_by_its_own_name(data: Path, chat_server: ChatServer) -> None:
    """Under the system message of its training, without demonstrations; asked again, it costs nothing."""
    chat_server.answer = shout
    figures = candidate(data, base_at(chat_server))
    asked = chat_server.asked(CHAT)
    assert {body["model"] for body in asked} == {TUNED.model}
    assert all([turn["role"] for turn in body["messages"]] == ["system", "user"] for body in asked)
    assert figures["candidate"]["metrics"]["exact_match"]["value"] == 1.0
    assert figures["candidate"]["description"] == "fine-tuned (openai base), system message, no demonstrations"
    assert candidate(data, base_at(chat_server)) == figures
    assert len(chat_server.seen) == len(asked)
    assert list(LocalStore(data / "store").list("ledger/")) == []  # the lease of its deployment is gone


def test_a_candidate_that_says_nothing_is_wrong(data: Path, chat_server: ChatServer) -> None:
    """Its silence is what a user would get: it is scored, and not an error after the training was paid for."""
    chat_server.answer = lambda chat: ""
    chat_server.order("truncated", times=100, containing=CHAT)
    assert candidate(data, base_at(chat_server))["candidate"]["metrics"]["exact_match"]["value"] == 0.0
    assert evaluation(data, "candidate").empty == 1.0


def test_what_changes_no_answer_stands_in_no_key() -> None:
    """Neither training's hyperparameters nor the price of a deployment make a stage do its work again."""
    spec: dict[str, Any] = {"name": "t", "data": {"source": "x.jsonl"}, "backend": {"provider": "openai", "model": "base"}}
    one = parse_spec(spec | {"provider": {"base_url": "https://x.example/v1", "batch": True}}, where="x")
    other = parse_spec(
        spec | {"provider": {"base_url": "https://x.example/v1", "batch": True, "hyperparameters": {"epochs": 9}, "hold_minutes": 5}},
        where="x",
    )
    limits = {"tokens_per_example": 100}
    bases = [ManagedBase.of(one, limits), ManagedBase.of(other, limits, usd_per_hour=3.0)]
    assert bases[0].model_dump(mode="json") == bases[1].model_dump(mode="json")
    assert (bases[1].options.base_url, bases[1].options.batch, bases[1].longest_example) == ("https://x.example/v1", True, 100)


def letters(right: Callable[[int], str]) -> Callable[[Chat], str]:
    """Answer the suite's questions by number."""
    numbers = {as_prompt(question)[0].content: at for at, question in enumerate(load_questions())}
    return lambda chat: right(numbers[chat[-1]["content"]])


def right_letter(number: int) -> str:
    """Return the letter of the right choice."""
    return "ABCDEFGH"[load_questions()[number].answer]


def wrong_letter(number: int) -> str:
    """Return the letter of a wrong choice."""
    return "B" if right_letter(number) == "A" else "A"


def forget(data: Path, server: ChatServer, before: Callable[[int], str], after: Callable[[int], str]) -> Forgetting:
    """Ask both models; the candidate is asked first."""
    count = len(load_questions())
    answers = letters(before), letters(after)
    server.answer = lambda chat: answers[len(server.seen) <= count](chat)
    out, base = data / "out", base_at(server)
    store, kept = LocalStore(data / "store"), out / "general.candidate.answers.jsonl"
    with open_base(base, store, out / "general.base_model.answers.jsonl") as subject:
        figures = ask_forgetting(subject.answerer, lambda: tuned_answerer(base, TUNED, store, kept), General(), out)
    assert [body["model"] for body in server.asked(CHAT)] == [TUNED.model] * count + ["base"] * count
    found = Forgetting.model_validate_json((out / "forgetting.json").read_bytes())
    assert found.model_dump(mode="json") == figures
    return found


def test_forgetting_is_asked_in_words(data: Path, chat_server: ChatServer) -> None:
    """Right answers are paired by question; perplexity is missing, and why is told."""
    found = forget(data, chat_server, right_letter, lambda n: wrong_letter(n) if n < 20 else f"({right_letter(n)})")
    whole, *topics = found.parts
    count = len(load_questions())
    assert (whole.name, whole.before, whole.after, whole.n) == ("multiple choice", 1.0, (count - 20) / count, count)
    assert whole.p_value is not None
    assert whole.p_value < 0.001
    assert sum(topic.n for topic in topics) == count
    assert found.not_measured == {"perplexity": "An API shows no likelihoods of a text."}
    checks = checks_of(Evidence(forgetting=found), Gate())
    assert [(check.name, check.passed) for check in checks] == [("forgetting, multiple choice", False)]
    items = [json.loads(line) for line in (data / "out" / "general.jsonl").read_text().splitlines()]
    assert [item["after"] for item in items] == [n >= 20 for n in range(count)]


def test_an_answer_without_a_choice_is_unscored_and_counted(data: Path, chat_server: ChatServer) -> None:
    """It counts on neither side; how many each answered with a choice is a part of its own."""
    found = forget(data, chat_server, right_letter, lambda n: "I cannot say." if n < 5 else right_letter(n))
    parts = {part.name: part for part in found.parts}
    count = len(load_questions())
    whole, form = parts["multiple choice"], parts["multiple choice, answered with a choice"]
    assert (whole.n, whole.unscored, whole.change) == (count - 5, 5, 0.0)
    assert (form.before, form.after, form.n, form.unscored) == (1.0, (count - 5) / count, count, 0)
    [check] = checks_of(Evidence(forgetting=found), Gate())
    assert check.passed
    assert "5 unscored" in check.text


def test_forgetting_that_is_mostly_unscored_shows_nothing(data: Path, chat_server: ChatServer) -> None:
    """A few answers that could be read do not stand for a hundred."""
    found = forget(data, chat_server, right_letter, lambda n: "billing" if n % 10 else right_letter(n))
    [check] = checks_of(Evidence(forgetting=found), Gate())
    assert (check.passed, check.n) == (None, 10)
    assert "Most questions have no score" in check.text


def test_forgetting_that_could_not_be_read_leaves_the_gate_open(data: Path, chat_server: ChatServer) -> None:
    """A candidate that answers everything with a label of its task has no score, and is not promoted on it."""
    found = forget(data, chat_server, right_letter, lambda n: "billing")
    assert [part.name for part in found.parts] == ["multiple choice, answered with a choice"]
    assert list(found.not_measured) == ["multiple choice", "perplexity"]
    [check] = checks_of(Evidence(forgetting=found), Gate())
    assert (check.name, check.passed) == ("forgetting, multiple choice", None)


def test_likelihoods_are_refused_behind_an_api(data: Path, chat_server: ChatServer) -> None:
    """lm-eval's tasks cannot be asked, and nothing is sent to find out."""
    with (
        open_base(base_at(chat_server), LocalStore(data / "store"), data / "out" / "kept.jsonl") as subject,
        pytest.raises(SpecError, match=r"general\.lm_eval names arc_easy"),
    ):
        ask_forgetting(subject.answerer, lambda: nullcontext(subject.answerer), General(lm_eval=("arc_easy",)), data / "out")
    assert chat_server.seen == []


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        *(("B", 1), ("b", 1), ("(B)", 1), ("**B**", 1), ("B.", 1), (" C\n", 2), ("[D]", 3)),
        *(("B. Lyon", 1), ("b) lyon.", 1), ("D: A city", 3)),
        *(("", None), ("E", None), ("A city", None), ("B and C", None), ("B) Paris", None), ("The answer is B.", None), ("billing", None)),
    ],
)
def test_a_choice_is_read_strictly(text: str, choice: int | None) -> None:
    """A letter alone, or with its own choice behind it; whatever could mean two things names none."""
    assert read_choice(text, ("Paris", "Lyon.", "Nice", "A city")) == choice


def test_counters_count_as_the_models_do(tmp_path: Path) -> None:
    """A tokenizer's counter counts with its template; OpenAI's by the published rule; any other estimates, and says so."""
    tokenizer = load_tokenizer(write_tokenizer(tmp_path))
    prompt = [Message(role="system", content="Be brief."), Message(role="user", content="Grüße")]
    local = TokenizerCounter(tokenizer)
    assert local.prompt_tokens(prompt) == len(prompt_ids(prompt, tokenizer))
    assert local.text_tokens(["Grüße", ""]) == [len("Grüße".encode()), 0]
    openai = OpenAICounter()
    hello = [Message(role="user", content="hello world")]
    assert (openai.text_tokens(["hello world"]), openai.prompt_tokens(hello)) == ([2], 3 + 3 + 1 + 2)
    assert [counter_at(name).exact for name in ("openai", "azure", "vertex", "together")] == [True, True, False, False]
    assert CharacterCounter().text_tokens(["x" * 36, ""]) == [10, 0]


def test_tokens_and_preflight_by_the_providers_count(data: Path) -> None:
    """Figures by split as for a model on this machine; of a pair the longer answer counts; too long an example is told."""
    rows = list(read_lines(data / "train.jsonl", Example))
    write_lines(data / "train.jsonl", [rows[0].model_copy(update={"rejected": "no " * 400}), *rows[1:]])
    counter, out = OpenAICounter(), data / "out"
    tokens: Any = count_managed_tokens({"train": data / "train.jsonl"}, counter, TASK, 300, out)
    assert (tokens["train"]["examples"], tokens["train"]["truncated"], tokens["train"]["exact"]) == (30, 1, True)
    assert tokens["train"]["max"] > 400
    figures: Any = preflight_managed(data / "train.jsonl", data / "validation.jsonl", counter, 300, TASK, out)
    assert (figures["train"]["tokens"], figures["train"]["too_long"]) == (tokens["train"]["total"], 1)
    assert figures["validation"]["examples"] == 6
    assert json.loads((out / "preflight.json").read_text()) == figures
    assert f"assistant: ⟦{rows[0].target}⟧\nrejected: no" in (out / "sample.txt").read_text(encoding="utf-8")
    write_lines(data / "validation.jsonl", [])
    with pytest.raises(DataError, match=r"validation\.jsonl is empty"):
        preflight_managed(data / "train.jsonl", data / "validation.jsonl", counter, None, TASK, out)


class Scripted:
    """A candidate that says one thing."""

    model, batch_size = "scripted", 1

    def answer(self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, report: Report = no_report) -> list[Answer]:
        """Say it."""
        return [Answer("WRONG", 1, 1, True, 0.1) for _ in prompts]


class Meeting:
    """A champion at its provider, published, and a candidate with another holdout."""

    def __init__(self, folder: Path, server: ChatServer) -> None:
        self.folder, self.store, self.opened = folder, LocalStore(folder / "store"), 0
        backend = {"provider": "openai", "model": "base"}
        self.spec: dict[str, Any] = {"name": "toy", "data": {"source": "x"}, "backend": backend, "provider": {"base_url": server.openai}}
        old = write_examples(folder / "old.jsonl", 30, seed=11)
        learnt = [{"messages": [message.model_dump() for message in example.messages]} for example in example_list(folder, 12)]
        files = {
            "spec.yaml": parse_spec(self.spec, where="x").resolved_yaml(),
            "train.openai.jsonl": "".join(json.dumps(row) + "\n" for row in learnt),
            "holdout.jsonl": old.read_text(),
            "candidate.predictions.jsonl": "".join(said(example).model_dump_json() + "\n" for example in read_lines(old, Example)),
            "model/managed.json": TUNED.model_dump_json(),
        }
        for name, text in files.items():
            (folder / "run" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "run" / name).write_text(text)
        publish(self.store, "toy-champion", {name: folder / "run" / name for name in files}, {"name": "toy"})
        self.train, self.validation = (
            write_examples(folder / f"{name}.jsonl", 8, seed=n) for name, n in (("train", 13), ("validation", 14))
        )
        self.holdout = write_examples(folder / "holdout.jsonl", 30, seed=15)
        self.answers = folder / "candidate.predictions.jsonl"
        write_lines(self.answers, [said(example, "WRONG") for example in read_lines(self.holdout, Example)])

    @contextmanager
    def candidate(self) -> Iterator[Scripted]:
        """Open the candidate, and count it."""
        self.opened += 1
        yield Scripted()

    def meet(self, **data: Any) -> Champion:
        """Let them meet."""
        spec: RunSpec = parse_spec(self.spec | {"data": {"source": "x", **data}}, where="x").of_contest
        out = self.folder / "out"
        out.mkdir(exist_ok=True)
        sha256 = hashlib.sha256(self.holdout.read_bytes()).hexdigest()
        splits = self.train, self.validation, self.holdout, sha256
        figures = evaluate_against_champion(self.store, "toy-champion", *splits, self.answers, self.candidate, OpenAICounter(), spec, out)
        return Champion.model_validate(figures)


def example_list(folder: Path, seed: int) -> list[Example]:
    """Return some examples."""
    return list(read_lines(write_examples(folder / f"{seed}.jsonl", 10, seed=seed), Example))


def said(example: Example, answer: str | None = None) -> Prediction:
    """Return an answer to an example, the right one unless told otherwise."""
    return Prediction(
        example_id=example.id,
        prompt=example.prompt[-1].content,
        target=example.target,
        answer=answer or example.target,
        prompt_tokens=1,
        answer_tokens=1,
        finished=True,
        latency_s=None,
    )


def test_a_champion_at_its_provider_is_met(tmp_path: Path, chat_server: ChatServer) -> None:
    """It answers the new holdout under its own name, once; each holdout has its comparison."""
    chat_server.answer = shout
    meeting = Meeting(tmp_path, chat_server)
    found = meeting.meet()
    assert found.reason == ""
    assert {rival.holdout: (rival.champion_value, rival.candidate_value) for rival in found.rivals} == {
        "old": (1.0, 0.0),
        "new": (1.0, 0.0),
    }
    assert {body["model"] for body in chat_server.asked(CHAT)} == {TUNED.model}
    asked = len(chat_server.seen)
    assert meeting.meet() == found
    assert len(chat_server.seen) == asked
    assert (tmp_path / "out" / "champion" / "champion_new.answers.jsonl").exists()


@pytest.mark.parametrize("why", ["gone", "no key", "residency", "retention"])
def test_a_champion_that_cannot_be_asked_is_a_reason(
    why: str, tmp_path: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training is paid for by then: the run goes on, and the gate has an open question."""
    meeting = Meeting(tmp_path, chat_server)
    options: dict[str, Any] = {}
    if why == "gone":
        chat_server.order("404", times=100, containing=CHAT, message="The model does not exist")
    elif why == "no key":
        monkeypatch.delenv("OPENAI_API_KEY")
    else:
        options = {"residency": "eu"} if why == "residency" else {"max_retention_days": 7}
    found = meeting.meet(**options)
    told = {
        "gone": "The model does not exist",
        "no key": "OPENAI_API_KEY is not set",
        "residency": "must stay in eu",
        "retention": "may be kept for 7 days",
    }[why]
    assert found.reason.startswith("ft:base:1 at openai does not answer: ")
    assert told in found.reason
    assert (found.rivals, meeting.opened) == ((), 0)
    [check] = checks_of(Evidence(champion=found), Gate())
    assert check.passed is None


def test_a_provider_that_is_away_is_worth_another_try(tmp_path: Path, chat_server: ChatServer) -> None:
    """A time-out says nothing about the champion."""
    chat_server.order("503", times=10_000, containing=CHAT)
    with pytest.raises(TransientError):
        Meeting(tmp_path, chat_server).meet()


def test_a_champion_at_its_provider_needs_no_model_here(tmp_path: Path, chat_server: ChatServer) -> None:
    """Before training there is nothing to warn of."""
    meeting = Meeting(tmp_path, chat_server)
    manifest = meeting.store.measure("runs/toy-champion/manifest.json")
    register(meeting.store, "toy", "toy-champion", manifest, Decision(verdict="promote", reasons=()))
    assert check_champion(meeting.store, "toy") == ""


def test_the_report_says_what_was_not_measured() -> None:
    """Timings of a batch and the perplexity of an API are told as missing, in tables, plots, limits and risks alike."""
    from tests.fixtures_evidence import make_full_view

    view = make_full_view()
    untimed = {"latency_p50_s": None, "latency_p95_s": None, "seconds": None, "tokens_per_second": None}
    answers = {name: tuple(row.model_copy(update={"latency_s": None}) for row in rows) for name, rows in view.predictions.items()}
    told = Forgetting(parts=(), not_measured={"multiple choice": "No reason.", "perplexity": "No likelihoods."})
    view = view.model_copy(
        update={
            "evaluations": tuple(one.model_copy(update=untimed) for one in view.evaluations),
            "predictions": answers,
            "forgetting": told,
        }
    )
    assert sum(cell.value == "not measured" for _, row in effort_table(view).rows for cell in row) == 3 * len(view.evaluations)
    plots = draw_plots(view)
    assert "latency_s" not in plots
    assert "answer_tokens" in plots
    assert "Forgetting, perplexity: not measured. No likelihoods." in limitations(view)
    found = {risk.name: risk.text for risk in risks(view, compare_answers(view))}
    assert found["forgetting, perplexity"] == "Not measured. No likelihoods."
