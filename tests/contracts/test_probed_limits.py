"""What a probe tells of limits is kept before anything is spent: hyperparameters, and the length of every example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fixtures_stand_ins import StandIn, example, open_stand_in
from fixtures_tokenizer import write_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from prooftune.data.lines import write_lines
from prooftune.economics.billable import WordCounter
from prooftune.providers import probing
from prooftune.providers.probing import refusal, rows_refused
from prooftune.providers.tuning import Capability
from prooftune.spec import RunSpec, parse_spec
from prooftune.types import Example, Message

NEEDED: dict[str, dict[str, Any]] = {
    "azure": {"base_url": "https://mine.openai.azure.com/openai/v1", "resource": "/subscriptions/s/accounts/mine"},
    "bedrock": {"region": "us-east-1", "bucket": "s3://b", "role_arn": "arn:aws:iam::1:role/r"},
    "vertex": {"project": "p", "region": "us-central1", "bucket": "gs://b"},
    "fireworks": {"project": "me"},
}
CHOSEN = {"epochs": 50, "adapter_rank": 512, "batch_size": 1, "learning_rate": 0.5}


def spec_of(provider: str, model: str, objective: str = "supervised", **options: Any) -> RunSpec:
    """Return a managed spec whose system message is two words."""
    block = NEEDED.get(provider, {}) | {"min_remaining_days": 0} | options
    if objective == "reinforcement":
        block["grader"] = {"type": "string_check"}
    backend = {"provider": provider, "model": model, "objective": objective}
    fields = {"name": "triage", "data": {"source": "x.jsonl"}, "task": {"system": "Sort it."}, "backend": backend, "provider": block}
    return parse_spec(fields)


def written(folder: Path, *examples: Example) -> dict[str, Path]:
    """Write the training split and a validation split of one short example."""
    files = {name: folder / f"{name}-split" for name in ("train", "validation")}
    write_lines(files["train"], examples)
    write_lines(files["validation"], [example(0)])
    return files


def long(words: int, rejected: int = 0) -> Example:
    """Return an example whose prompt has so many words; one with a rejected answer of its own length where that is asked for."""
    said = (Message(role="user", content="hello " * words), Message(role="assistant", content="yes"))
    return example(7).model_copy(update={"messages": said, "rejected": "no " * rejected or None})


def limited(tokens: int) -> Capability:
    """Return what a provider says of a model whose examples may have so many tokens."""
    return Capability(
        tunable=True, why="it is", objectives=("supervised", "preference", "reinforcement"), limits={"tokens_per_example": tokens}
    )


@pytest.fixture
def together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Together's stand-in."""
    pytest.importorskip("together")
    with open_stand_in("together", tmp_path, monkeypatch) as found:
        yield found


def test_hyperparameters_beyond_the_probes_limits_are_refused(together: StandIn) -> None:
    """Each with its field, its value and what the model takes; within the limits nothing is."""
    capability = together.tuner.probe(together.model, "supervised")
    told = refusal(spec_of("together", together.model, hyperparameters=CHOSEN), capability)
    assert told is not None
    assert [(problem.where, problem.code) for problem in told.problems] == [
        (f"provider.hyperparameters.{name}", "beyond-limit") for name in ("epochs", "batch_size", "learning_rate", "adapter_rank")
    ]
    reasons = dict(zip(CHOSEN, [told.problems[0], told.problems[3], told.problems[1], told.problems[2]], strict=True))
    assert "is 50; together takes up to 20 for" in reasons["epochs"].reason
    assert "is 512; together takes up to 64 for" in reasons["adapter_rank"].reason
    assert "is 1; together takes 8 to 64 for" in reasons["batch_size"].reason
    assert "is 0.5; together takes 1e-08 to 0.01 for" in reasons["learning_rate"].reason
    fits = {"epochs": 20, "adapter_rank": 64, "batch_size": 8, "learning_rate": 0.01}
    assert refusal(spec_of("together", together.model, hyperparameters=fits), capability) is None


def test_what_is_not_chosen_is_not_compared(together: StandIn) -> None:
    """The provider chooses it within its own limits."""
    capability = together.tuner.probe(together.model, "supervised")
    assert refusal(spec_of("together", together.model), capability) is None


def test_an_example_longer_than_the_probe_allows_is_told_by_its_line(together: StandIn, tmp_path: Path) -> None:
    """40,000 words at a model of 32,768 tokens: the row, the example's own place, and how it was counted."""
    capability = together.tuner.probe(together.model, "supervised")
    files = written(tmp_path, example(1), long(40_000), example(2))
    told = rows_refused(spec_of("together", together.model), capability, files)
    assert told is not None
    [problem] = told.problems
    assert (problem.where, problem.code) == ("train.jsonl:2", "too-long")
    assert "40,003 tokens at least (a token a word at least)" in problem.reason
    assert "together takes 32,768" in problem.reason
    assert "tickets.jsonl:8" in problem.reason
    assert "hello" not in str(told)
    assert rows_refused(spec_of("together", together.model), capability, written(tmp_path, example(1))) is None


def test_an_open_models_own_tokenizer_makes_the_count_exact(tmp_path: Path) -> None:
    """By its template, bytes here: the last length that fits is taken, and one token more is not."""
    spec = spec_of("fireworks", "accounts/fireworks/models/llama-v3p1-8b-instruct", tokenizer=str(write_tokenizer(tmp_path / "t")))
    tokens = len("_system\nSort it._\n") + len("_user\n" + "hello " * 100 + "_\n") + len("_assistant\nyes_\n")
    files = written(tmp_path, long(100))
    assert rows_refused(spec, limited(tokens), files) is None
    told = rows_refused(spec, limited(tokens - 1), files)
    assert told is not None
    assert f"{tokens:,} tokens (the base model's own tokenizer and chat template)" in str(told)


def test_openai_is_counted_exactly(tmp_path: Path) -> None:
    """Azure too: with o200k_base, 3 tokens a message and 3 a row, roles included."""
    tokens = 3 + 3 * 3 + 3 + 3 + 1001 + 1
    for provider in ("openai", "azure"):
        files = written(tmp_path, long(1000))
        assert rows_refused(spec_of(provider, "gpt-4.1"), limited(tokens), files) is None
        told = rows_refused(spec_of(provider, "gpt-4.1"), limited(tokens - 1), files)
        assert told is not None
        assert f"{tokens:,} tokens (o200k_base" in str(told)


@pytest.mark.parametrize(("objective", "tokens"), [("supervised", 103), ("preference", 302), ("reinforcement", 102)])
def test_what_an_example_is_depends_on_the_objective(objective: str, tokens: int, tmp_path: Path) -> None:
    """The conversation, the longer of a pair's two, or the prompt alone, since a grader reads the answer."""
    files = written(tmp_path, long(100, rejected=200))
    spec = spec_of("fireworks", "accounts/fireworks/models/llama-v3p1-8b-instruct", objective)
    assert rows_refused(spec, limited(tokens), files) is None
    told = rows_refused(spec, limited(tokens - 1), files)
    assert told is not None
    assert f"{tokens} tokens at least" in str(told)


def test_validation_examples_are_looked_at_too(tmp_path: Path) -> None:
    """Each file by its name; one that is not there is not missed."""
    files = written(tmp_path, example(1))
    write_lines(files["validation"], [long(100)])
    told = rows_refused(spec_of("vertex", "gemini-3.5-flash"), limited(50), files)
    assert told is not None
    assert [problem.where for problem in told.problems] == ["validation.jsonl:1"]
    write_lines(files["validation"], [])
    assert rows_refused(spec_of("vertex", "gemini-3.5-flash"), limited(50), files) is None


def test_without_a_limit_nothing_is_counted(tmp_path: Path) -> None:
    """A provider that says nothing of tokens refuses no example for them."""
    assert rows_refused(spec_of("openai", "gpt-4.1"), Capability(tunable=True, why="it is"), {"train": tmp_path / "absent"}) is None


def test_what_has_few_bytes_needs_no_tokenizer(tmp_path: Path) -> None:
    """A token is a byte at least: no tokenizer is loaded for a split of short examples, whatever the spec names."""
    spec = spec_of("together", "Qwen/Qwen3.5-9B", tokenizer=str(tmp_path / "no-such-tokenizer"))
    assert rows_refused(spec, limited(4096), written(tmp_path, long(100))) is None


@given(st.text(), st.integers(min_value=1, max_value=3))
def test_words_never_refuse_what_fits(text: str, messages: int) -> None:
    """Whatever the text, there are not more words than tokens, and not more tokens than what is passed over may have."""
    import bpe_openai

    said = [Message(role="user", content=text)] * messages
    [words], tokens = WordCounter().text_tokens([text]), len(bpe_openai.get_encoding("o200k_base").encode_ordinary(text))
    assert words <= tokens
    assert WordCounter().conversation_tokens(said) <= messages * tokens <= probing.tokens_at_most(said)


@pytest.mark.parametrize(
    ("model", "objective", "tokens", "epochs"),
    [
        ("amazon.nova-micro-v1:0:128k", "supervised", 32_768, 5),
        ("amazon.nova-2-lite-v1:0:256k", "reinforcement", None, 50),
        ("meta.llama3-1-8b-instruct-v1:0:128k", "supervised", 16_000, 10),
        ("anthropic.claude-3-haiku-20240307-v1:0:200k", "supervised", 32_000, 10),
    ],
)
def test_bedrock_tells_documented_limits(
    model: str, objective: Any, tokens: int | None, epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the model and the objective: a reinforcement tuning may have epochs that a supervised one may not."""
    with open_stand_in("bedrock", tmp_path, monkeypatch) as here:
        capability = here.tuner.probe(model, objective)
        assert (capability.limits["tokens_per_example"], capability.limits["epochs_max"]) == (tokens, epochs)
        allowed = {"hyperparameters": {"epochs": epochs}}
        told = refusal(spec_of("bedrock", model, objective, **allowed), capability.model_copy(update={"shutdown": None, "last_job": None}))
        assert "beyond-limit" not in {problem.code for problem in (told.problems if told else ())}
