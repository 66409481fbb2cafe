"""What init, validate, plan and show answer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support import toy_rows, write_jsonl

from flows.commands import check, demo_spec, estimate, initialise, show_run
from prooftune.economics.estimate import DEMO_SIZE, answer_limit, measure_gflops, read_model_size, trained_parameters, training_flops
from prooftune.economics.lengths import count_lengths, exact_encoder, guess
from prooftune.errors import DataError, EnvironmentLacks, SpecError
from prooftune.spec import Method, Store, Task, load_spec, parse_spec
from prooftune.spec_text import commented_spec, with_defaults
from prooftune.storage.manifest import publish
from prooftune.storage.objects import InvalidKey, NoSuchObject, open_store
from prooftune.types import Example, Message


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with spec.yaml on 120 clean toy rows and four flawed ones."""
    folder = tmp_path_factory.mktemp("toy")
    rows: list[Any] = [*toy_rows(120), {"prompt": "", "completion": "stop"}, {"prompt": "who"}, toy_rows(120)[0]]
    write_jsonl(folder / "toy.jsonl", rows)
    with (folder / "toy.jsonl").open("a") as file:
        file.write('{"prompt": "broken\n')
    spec = {
        "name": "toy",
        "data": {"source": "toy.jsonl", "on_invalid": "skip", "split": {"holdout": 40, "validation": 15}},
        "backend": {"model": str(tiny_model)},
        "store": {"uri": str(folder / "store")},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    return folder


def test_init_writes_a_spec_that_loads_and_means_what_the_demo_means(tmp_path: Path) -> None:
    """The written spec is the demo's, with the folder's name; the sample data lies beside it."""
    answer = initialise(tmp_path / "My Tickets!")
    written, demo = load_spec(answer["spec"]), load_spec(demo_spec())
    assert written.name == "my-tickets"
    assert written.data.source == str((tmp_path / "My Tickets!" / "tickets.jsonl").resolve())
    same = {"exclude": {"name": True, "data": {"source"}}}
    assert written.model_dump(**same) == demo.model_dump(**same)
    assert answer["rows"] >= 600


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    """A file that is there already is left as it is, and nothing else is written."""
    (tmp_path / "spec.yaml").write_text("mine")
    with pytest.raises(SpecError, match="left as they were"):
        initialise(tmp_path)
    assert (tmp_path / "spec.yaml").read_text() == "mine"
    assert not (tmp_path / "tickets.jsonl").exists()


def test_init_where_a_file_stands_says_what_to_do(tmp_path: Path) -> None:
    """A path below a file cannot be made: exit 3 with the path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentLacks, match="name a folder that can"):
        initialise(tmp_path / "file" / "below")


def test_every_field_is_in_the_text_with_its_default() -> None:
    """The text with all that is commented out taken in is the same spec, spelled out."""
    values = {"name": "x", "data": {"source": "a.jsonl", "split": {"seed": 3}}}
    text = commented_spec(values)
    full = yaml.safe_load(with_defaults(text))
    assert parse_spec(yaml.safe_load(text)) == parse_spec(values) == parse_spec(full)
    assert full == parse_spec(values).model_dump(mode="json")
    assert "Near-duplicates always stay together" in text
    assert max(map(len, text.splitlines())) <= 112


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=60))
@settings(max_examples=40, deadline=None)
def test_any_text_survives_being_written(system: str) -> None:
    """Quotes, colons, hashes, line breaks and controls come back as they went in."""
    raw = yaml.safe_load(commented_spec({"name": "x", "data": {"source": "a"}, "task": {"system": system}}))
    assert raw["task"]["system"] == system


def test_check_lists_everything_at_once(toy: Path) -> None:
    """Rows that ingest cannot read, rows that are no example and duplicates are in one answer."""
    answer = check(toy / "spec.yaml")
    assert answer["usable"]
    assert (answer["rows"], answer["invalid"], answer["shape"]) == (124, 3, "prompt_completion")
    assert {problem["where"] for problem in answer["problems"] if problem["action"] == "dropped"} >= {
        "toy.jsonl:121",
        "toy.jsonl:122",
        "toy.jsonl:123",
        "toy.jsonl:124",
    }
    assert answer["findings"]["exact-duplicate"] == {"dropped": 1}
    assert sum(answer["split"].values()) == answer["kept"]
    assert not (toy / "store").exists()


def test_check_of_data_that_a_run_would_refuse(toy: Path) -> None:
    """With on_invalid: fail the same data is unusable, and everything is listed all the same."""
    answer = check(toy / "spec.yaml", ["data.on_invalid=fail"])
    assert not answer["usable"]
    assert "data.on_invalid" in answer["reasons"][0]
    assert answer["findings"]["exact-duplicate"] == {"dropped": 1}
    assert answer["split"]
    with pytest.raises(DataError, match="invalid"):
        estimate(toy / "spec.yaml", ["data.on_invalid=fail"])


def test_personal_data_that_stops_a_run_hides_no_other_flaw(tmp_path: Path) -> None:
    """Under pii: stop the answer lists personal data, duplicates and what the split would be."""
    rows: list[Any] = [*toy_rows(60), {"prompt": "write to anna@example.org", "completion": "stop"}, toy_rows(60)[3]]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    (tmp_path / "spec.yaml").write_text("name: a\ndata: {source: rows.jsonl, pii: stop}")
    answer = check(tmp_path / "spec.yaml")
    assert not answer["usable"]
    assert "data.pii" in answer["reasons"][0]
    assert {"pii-email", "exact-duplicate"} <= set(answer["findings"])
    assert [problem["where"] for problem in answer["problems"] if problem["code"] == "pii-email"] == ["rows.jsonl:61"]


@pytest.mark.parametrize("content", ["", "\n\n", "[1]\n", "{}\n", "\0\n", "plain text\n"])
def test_hopeless_data_is_a_whole_answer(content: str, tmp_path: Path) -> None:
    """Empty, blank, non-JSON and useless files give an answer with a reason, not an exception."""
    (tmp_path / "rows.jsonl").write_text(content)
    (tmp_path / "spec.yaml").write_text("name: a\ndata: {source: rows.jsonl, on_invalid: skip}")
    answer = check(tmp_path / "spec.yaml")
    assert not answer["usable"]
    assert answer["reasons"]
    json.dumps(answer)


def test_too_little_data_is_usable_with_a_warning(toy: Path) -> None:
    """A run on it would end in do_not_fine_tune, which is a verdict and no error."""
    answer = check(toy / "spec.yaml", ["data.min_examples=5000"])
    assert answer["usable"]
    assert any("do_not_fine_tune" in warning for warning in answer["warnings"])


def test_a_plan_has_every_stage_and_leaves_no_trace(toy: Path) -> None:
    """Tokens are exact, seconds add up, the cost is said, and neither store nor files appear."""
    before = sorted(toy.iterdir())
    answer = estimate(toy / "spec.yaml")
    assert answer["tokens"]["exact"]
    assert answer["tokens"]["train"]["examples"] == answer["data"]["split"]["train"]
    assert answer["cost_usd"] == 0.0
    assert answer["seconds"] == pytest.approx(sum(stage["seconds"] for stage in answer["stages"]), abs=8)
    assert answer["training"]["steps"] == -(-2 * answer["data"]["split"]["train"] // 8)
    assert sorted(toy.iterdir()) == before


def test_a_plan_names_the_stages_that_run() -> None:
    """The stages of a plan are the tasks of the flow, but for those that only look whether something changed."""
    from flows.planning import STAGES

    sources = "".join(path.read_text() for path in (Path(__file__).parents[2] / "tasks").glob("*.py"))
    names = re.findall(r'@task\(\*\*\(?policy\("([a-z_-]+)"', sources)
    assert set(STAGES) == set(names) - {"fingerprint", "fingerprint_files", "find_champion", "compare"}


MANAGED = ["backend.provider=openai", "backend.model=gpt-4.1-mini", "learning_curve.shares=[]"]


def test_a_plan_of_a_managed_run_is_about_money(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key: billed tokens, the estimate's lines that add up, limits, and the provider's stages with no seconds made up."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    answer = estimate(toy / "spec.yaml", MANAGED)
    found = answer["estimate"]
    assert answer["tokens"]["exact"]
    assert answer["training"]["tokens"] == found["training_tokens"] == 3 * answer["tokens"]["train"]["total"]
    assert answer["cost_usd"] == found["usd"] == pytest.approx(sum(line["usd"] for line in found["lines"]), abs=1e-6)
    assert (answer["limits"]["allowed"], answer["limits"]["needs_approval"]) == (True, False)
    seconds = {stage["name"]: stage["seconds"] for stage in answer["stages"]}
    names = list(seconds)
    assert names[:2] == ["probe", "ingest"]
    assert names.index("estimate") < names.index("hold") < names.index("submit") < names.index("settle")
    assert not {"approval", "model", "learn", "learning_curve"} & set(names)
    assert (seconds["submit"], answer["seconds"], answer["machine"]) == (None, None, None)


def test_a_plan_says_which_limits_a_managed_run_would_meet(toy: Path) -> None:
    """Above both it would be refused, and a person would be asked."""
    answer = estimate(toy / "spec.yaml", [*MANAGED, "budget.max_usd=0", "budget.approve_above_usd=0"])
    assert (answer["limits"]["allowed"], answer["limits"]["needs_approval"]) == (False, True)
    assert "approval" in [stage["name"] for stage in answer["stages"]]


def test_a_plan_refuses_where_data_may_not_go(toy: Path) -> None:
    """As the run would, before anything is sent."""
    for place in (MANAGED, ["judge.model=gpt-4.1"]):
        with pytest.raises(SpecError, match="may not go to openai"):
            estimate(toy / "spec.yaml", [*place, "data.residency=eu"])


def test_a_plan_says_what_is_kept_elsewhere(toy: Path) -> None:
    """By whom and for how long; nothing where nothing leaves this machine."""
    [backend] = estimate(toy / "spec.yaml", MANAGED)["kept"]
    assert "openai (backend) keeps uploaded files until they are deleted" in backend
    [judge] = estimate(toy / "spec.yaml", ["judge.model=gpt-4.1"])["kept"]
    assert "openai (judge) keeps prompts with their answers for at most 30 days" in judge
    assert estimate(toy / "spec.yaml", [])["kept"] == []


def test_a_plan_downloads_no_tokenizer(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not here is done without, and the estimate is from above and says so."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    together = ["backend.provider=together", "backend.model=Qwen/Qwen3.5-9B", "learning_curve.shares=[]"]
    answer = estimate(toy / "spec.yaml", [*together, "provider.tokenizer=nobody/nothing-here"])
    assert not answer["tokens"]["exact"]
    assert any("provider.tokenizer" in warning for warning in answer["estimate"]["warnings"])


def test_a_plan_without_the_model_says_what_it_does_not_know(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a hub model that is not on this machine tokens are a guess and seconds unknown; nothing is downloaded."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    answer = estimate(toy / "spec.yaml", ["backend.model=nobody/nothing-here"])
    assert not answer["tokens"]["exact"]
    assert answer["seconds"] is None
    assert "not on this machine" in answer["seconds_note"]


def test_plan_and_validate_import_neither_torch_nor_prefect(toy: Path) -> None:
    """Both answer without the two slow imports."""
    code = (
        "import sys; from pathlib import Path; from flows.commands import check, estimate\n"
        f"spec = Path({str(toy / 'spec.yaml')!r}); check(spec); estimate(spec)\n"
        "print([name for name in ('torch', 'prefect', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_tokens_without_a_model_library_are_those_of_the_model_library(tiny_model: Path) -> None:
    """The count through tokenizers and the sandboxed template equals transformers' own."""
    from transformers import AutoTokenizer

    tokenizer, encode = AutoTokenizer.from_pretrained(tiny_model), exact_encoder(tiny_model)
    assert encode is not None
    messages = (Message(role="system", content="red old"), Message(role="user", content="go?"), Message(role="assistant", content="stop"))
    for count, opens in ((3, False), (2, True)):
        rows = [message.model_dump() for message in messages[:count]]
        assert encode(messages[:count], opens) == tokenizer.apply_chat_template(rows, add_generation_prompt=opens, return_dict=False)


def test_a_template_that_refuses_examples_names_them_all(tmp_path: Path) -> None:
    """Every example that the chat template cannot render is a problem with its source."""
    from jinja2 import TemplateError

    rows = [
        Example(id=str(n), source=f"a.jsonl:{n}", messages=(Message(role="user", content="x"), Message(role="assistant", content="y")))
        for n in (1, 2)
    ]
    (tmp_path / "train.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))

    def refuse(*_: object) -> list[int]:
        raise TemplateError("no such role")

    with pytest.raises(DataError) as caught:
        count_lengths({"train": tmp_path / "train.jsonl"}, Task(), 100, refuse)
    assert [problem.where for problem in caught.value.problems] == ["a.jsonl:1", "a.jsonl:2"]


def test_what_all_prompts_share_is_found(tmp_path: Path) -> None:
    """The system message is counted as shared, also by the guess."""
    rows = [
        Example(
            id=str(n), source=f"a.jsonl:{n}", messages=(Message(role="user", content=f"text {n}"), Message(role="assistant", content="y"))
        )
        for n in range(3)
    ]
    (tmp_path / "train.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    counted = count_lengths({"train": tmp_path / "train.jsonl"}, Task(system="s" * 36), 8, guess)["train"]
    assert counted.shared == 15
    assert counted.truncated == 3
    assert counted.total == 24


def test_the_size_of_a_model_is_read_from_its_headers(tiny_model: Path) -> None:
    """Parameters equal torch's count; adapter weights equal r × (inputs + outputs) of every matrix in the layers."""
    import torch
    from transformers import AutoModelForCausalLM

    size = read_model_size(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    linears = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and ".layers." in name}
    assert size.parameters == sum(weight.numel() for weight in model.parameters())
    assert size.layers == 2
    assert size.edges == sum(module.in_features + module.out_features for module in linears.values())
    assert trained_parameters(size, Method(r=4, layers=1)) == 4 * size.edges // 2


def test_training_flops_follow_from_what_gets_a_gradient() -> None:
    """Full training takes 6 N; adapters about 4 N; adapters on the last layers only, less."""
    full, all_layers, last = (training_flops(DEMO_SIZE, method) for method in (Method(kind="full"), Method(), Method(layers=10)))
    assert full == 6 * DEMO_SIZE.multiplied
    assert 4 * DEMO_SIZE.multiplied < all_layers < 4.5 * DEMO_SIZE.multiplied
    assert 2 * DEMO_SIZE.multiplied < last < all_layers


def test_the_measured_speed_is_positive_and_quick() -> None:
    """Some GFLOP/s come out of a twentieth of a second."""
    assert 0.01 < measure_gflops(0.05) < 1e6


def test_an_answers_limit_is_the_specs_or_half_as_long_again_as_the_longest_target(tmp_path: Path) -> None:
    """The plan's limit is the one that the stages use."""
    spec = parse_spec({"name": "a", "data": {"source": "b"}, "task": {"max_answer_tokens": 7}})
    counted = count_lengths({}, Task(), 8, guess)
    assert counted == {}
    from prooftune.economics.lengths import Lengths

    lengths = Lengths(examples=1, total=9, prompts=4, targets=5, longest=9, longest_target=5, truncated=0, shared=0)
    assert answer_limit(spec, lengths) == 7
    assert answer_limit(spec.model_copy(update={"task": Task()}), lengths) == 8


FACTS: dict[str, Any] = {
    "decision": {"verdict": "keep_baseline", "reasons": ["because"], "metric": "exact_match", "baseline": "zero_shot", "difference": -0.1},
    "evaluations": [],
    "stages": [{"name": "ingest", "seconds": 1.5}],
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with two published runs."""
    objects = open_store(Store(uri=str(tmp_path / "store")))
    (tmp_path / "report.html").write_text("<html>")
    for run_id in ("triage-0a1b2c", "triage-ffffff"):
        publish(
            objects, run_id, {"report.html": tmp_path / "report.html"}, FACTS | {"run_id": run_id, "report": f"runs/{run_id}/report.html"}
        )
    return tmp_path / "store"


def test_a_run_is_shown_again(store: Path) -> None:
    """The answer has the form that ``run --json`` promises, and its report is a file that exists."""
    answer = show_run("triage-0a1b2c", str(store))
    assert {"run_id", "verdict", "reasons", "metrics", "report", "manifest", "stages"} <= set(answer)
    assert {"baseline", "candidate", "difference", "ci_low", "ci_high", "p_value", "n"} == set(answer["metrics"])
    assert Path(answer["manifest"]).is_file()
    assert Path(answer["report"]).is_file()


def test_without_an_id_all_runs_are_listed(store: Path) -> None:
    """One line a run; an empty store is an empty list and is not made."""
    assert [run["run_id"] for run in show_run(None, str(store))["runs"]] == ["triage-0a1b2c", "triage-ffffff"]
    assert show_run(None, str(store / "none"))["runs"] == []
    assert not (store / "none").exists()


def test_an_unknown_run_names_the_nearest(store: Path) -> None:
    """A typo in a run's id is answered with the ids that are like it."""
    with pytest.raises(NoSuchObject, match="triage-0a1b2c"):
        show_run("triage-0a1b2d", str(store))


@pytest.mark.parametrize("run_id", ["../../etc/passwd", "a/b", "", ".hidden", "a\0b", "x" * 200, "-rf"])
def test_a_run_id_never_becomes_a_path_unchecked(run_id: str, store: Path) -> None:
    """Whatever is not fit to be an id is refused before anything is opened."""
    with pytest.raises(InvalidKey):
        show_run(run_id, str(store))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task.slices=[nowhere]"], "nowhere"),
        (["gate.metrics=[json_field_accuracy]"], "json_field_accuracy"),
        (["data.residency=eu", "judge.model=gpt-4.1"], "data must stay in eu"),
        (["data.max_retention_days=7", "judge.model=gpt-4.1"], "data may be kept for 7 days"),
    ],
)
def test_what_cannot_be_measured_is_found_before_anything_runs(toy: Path, overrides: list[str], said: str) -> None:
    """A slice that no example has, a metric that scores no target and a judge outside the region make spec and data unusable."""
    answer = check(toy / "spec.yaml", overrides)
    assert not answer["usable"]
    assert any(said in reason for reason in answer["reasons"])


def test_a_key_that_is_missing_here_is_a_warning(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run may be on another machine, so ``validate`` warns of a missing key and ``run`` refuses it."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    answer = check(toy / "spec.yaml", ["judge.model=gpt-4.1"])
    assert answer["usable"]
    assert any("OPENAI_API_KEY" in warning for warning in answer["warnings"])
