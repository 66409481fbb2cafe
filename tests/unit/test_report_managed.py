"""Tests of the report of a managed run: nothing in it speaks as if the model were on this machine, and the bill stands by its estimate."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest

from prooftune.economics.bill import BillLine, Part, estimated_by_part
from prooftune.providers.collection import MANAGED
from prooftune.report.asking import DEPLOYMENT, ask_snippet, deployment_note
from prooftune.report.html import write_report
from prooftune.report.managed import approval_sentence, bill_sentence, bill_table, whereabouts
from prooftune.report.money import money_sentence
from prooftune.report.tables import training_settings
from prooftune.report.technical_file import technical_file
from prooftune.report.view import RunView, load_view
from tests.fixtures_managed import BILL, ESTIMATE, KEY, MODELS, make_managed_view
from tests.fixtures_report import HOSTILE, Page, make_view

SDKS = {"openai": "openai", "azure": "openai", "together": "openai", "fireworks": "openai", "vertex": "google", "bedrock": "boto3"}


def page_of(view: RunView, folder: Path) -> Page:
    """Return the report as a browser sees it."""
    write_report(view, folder)
    return Page((folder / "report.html").read_text())


@pytest.mark.parametrize("provider", MODELS)
def test_the_tuned_model_is_asked_with_the_provider_s_sdk(provider: str) -> None:
    """The snippet is Python that imports the SDK, and names the model, or the deployment that somebody has to make."""
    view = make_managed_view(provider)
    snippet = ask_snippet(view)
    imports = [node for node in ast.parse(snippet).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports}
    assert SDKS[provider] in names
    assert names <= {SDKS[provider], "os"}
    assert (DEPLOYMENT in snippet) == bool(deployment_note(view)) == (provider not in ("openai", "vertex"))
    assert MODELS[provider] in snippet + deployment_note(view)
    assert "Answer with JSON." in snippet


def test_addresses_and_keys() -> None:
    """OpenAI's own address is the SDK's; the others speak its protocol elsewhere, and a stand-in is asked where it is."""
    assert "base_url" not in ask_snippet(make_managed_view("openai"))
    assert "'http://127.0.0.1:1/v1', api_key=os.environ[\"OPENAI_API_KEY\"]" in ask_snippet(
        make_managed_view("openai", base_url="http://127.0.0.1:1/v1")
    )
    assert "'https://name.openai.azure.com/openai/v1', api_key=os.environ[\"AZURE_OPENAI_API_KEY\"]" in ask_snippet(
        make_managed_view("azure")
    )
    assert "'https://api.together.ai/v1', api_key=os.environ[\"TOGETHER_API_KEY\"]" in ask_snippet(make_managed_view("together"))
    fireworks = ask_snippet(make_managed_view("fireworks", base_url="http://127.0.0.1:1"))
    assert "'http://127.0.0.1:1/inference/v1', api_key=os.environ[\"FIREWORKS_API_KEY\"]" in fireworks


def test_the_snippet_gets_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As it is printed, from OpenAI's stand-in."""
    from fixtures_stand_ins import open_stand_in

    with open_stand_in("openai", tmp_path, monkeypatch) as here:
        view = make_managed_view("openai", base_url=here.tuner.address)
        assert view.managed is not None
        view = view.model_copy(update={"managed": view.managed.model_copy(update={"model": here.model})})
        exec(compile(ask_snippet(view), "snippet", "exec"), {})  # noqa: S102 - what a reader would run
    assert capsys.readouterr().out.strip()


def test_the_page_tells_of_the_job(tmp_path: Path) -> None:
    """Provider, address, job, run key, history, checkpoints, approval, sunset and weights are there; nothing is loaded or adapted."""
    text = page_of(make_managed_view(), tmp_path).text
    for words in ("Managed job", "https://api.example/v1", "job-1", KEY, "step 108", "12 min 34 s", "It answers until 2027-01-14."):
        assert words in text
    assert "2026-11-26 18:03:30 UTC intended" in text
    assert "$0.27 approved by ada on 2026-11-26 18:00 UTC: worth it." in text
    assert "Its weights stay at OpenAI: they cannot be downloaded." in text
    assert "Ask the tuned model at OpenAI" in text
    for words in ("PeftModel", "transformers import", "chosen checkpoint", "on this machine", "backend.method"):
        assert words not in text


def test_the_bill_stands_beside_its_estimate() -> None:
    """By what the money went to; what is in no bill is a dash and said, and the error is that of the sums."""
    view = make_managed_view()
    rows = {name: [cell.value for cell in cells] for name, cells in bill_table(view).rows}
    assert rows["training"] == ["$0.23", "$0.23", "46,599 tokens", "the provider"]
    assert rows["answers of the base model"][:2] == ["$0.024", "$0.017"]
    assert rows["the judge's verdicts"] == ["$0.01", "–", "–", "–"]
    assert rows["in all"][:2] == ["$0.27", "$0.25"]
    assert "hosting" not in rows
    assert "the estimate was 6.8 % above the bill. Not in the bill: judge" in bill_sentence(view)
    small = view.model_copy(update={"bill": BILL.model_copy(update={"usd": ESTIMATE.usd / 4, "left_out": ()})})
    assert bill_sentence(small).endswith("the estimate was 4 times the bill.")
    verdicts = BillLine(part="judge", stage="judge", what="judge, read", quantity=1, unit="tokens", usd=0.01, told_by="the estimate")
    counted = view.model_copy(update={"bill": BILL.model_copy(update={"untold": (verdicts,)})})
    assert bill_sentence(counted).endswith("own judge. For that the project's month counts $0.01, as it was estimated.")
    assert [name for name, _ in bill_table(view.model_copy(update={"bill": None})).rows] == [
        *(line.what for line in ESTIMATE.lines),
        "in all",
    ]


def test_money_and_settings_are_the_provider_s() -> None:
    """Training's time is the job's and not that of collecting it; settings are the hyperparameters, and no LoRA of ours."""
    view = make_managed_view(full=True)
    assert money_sentence(view).startswith("Training at OpenAI took 12 min 34 s and costs ")
    assert "billed $0.25" in money_sentence(view)
    untold = view.model_copy(update={"figures": {**view.figures, "train": {**view.figures["train"], "job_seconds": None}}})
    assert money_sentence(untold).startswith("Training at OpenAI costs ")
    settings = dict(training_settings(view))
    assert settings == {"base model": "gpt-4.1-mini", "provider": "openai", "objective": "supervised", "epochs": "3", "seed": "7"}


def test_what_a_run_without_a_job_says(tmp_path: Path) -> None:
    """One that was rejected has an estimate and a no; one on this machine has no such section."""
    view = make_managed_view()
    assert view.approval is not None
    said = view.approval.model_copy(update={"approved": False})
    stopped = make_view("do_not_fine_tune").model_copy(
        update={"spec": view.spec, "estimate": ESTIMATE, "approval": said, "bill": BILL.model_copy(update={"lines": (), "usd": 0.0})}
    )
    text = page_of(stopped, tmp_path).text
    assert "rejected by ada" in text
    assert "nothing was billed" in text
    assert "Managed job" not in page_of(make_view(), tmp_path).text
    assert approval_sentence(make_view()) == bill_sentence(make_view()) == whereabouts(make_view()) == ""
    unasked = view.model_copy(update={"approval": None})
    assert approval_sentence(unasked) == "Nobody had to approve it: budget.approve_above_usd is $20."


def test_what_is_kept_at_the_provider_is_told(tmp_path: Path) -> None:
    """As the lineage has it, so that a later table changes no report."""
    kept = "openai (backend) keeps uploaded files until they are deleted (a source, 2026-11-26)."
    view = make_managed_view().model_copy(update={"lineage": {"kept_elsewhere": [kept]}})
    assert kept in page_of(view, tmp_path).text
    assert kept in technical_file(view)


def test_hostile_text_does_nothing(tmp_path: Path) -> None:
    """What a person gave as reason is text."""
    page = page_of(make_managed_view(hostile=HOSTILE), tmp_path)
    assert not [attributes for tag, attributes in page.elements if tag == "script"]


def test_the_files_of_a_managed_run_are_read(tmp_path: Path) -> None:
    """As their stages wrote them."""
    view = make_managed_view()
    files = {
        "decision.json": view.decision,
        "job.json": view.job,
        "estimate.json": ESTIMATE,
        "bill.json": BILL,
        "approval.json": view.approval,
    }
    paths = {}
    for name, content in {**files, f"model/{MANAGED}": view.managed}.items():
        assert content is not None
        paths[name] = tmp_path / name.replace("/", "-")
        paths[name].write_text(content.model_dump_json())
    found = load_view("triage-1", view.spec, {}, paths, {})
    assert (found.managed, found.job, found.estimate, found.bill, found.approval) == (view.managed, view.job, ESTIMATE, BILL, view.approval)


def test_parts_of_an_estimate_add_up() -> None:
    """Every line goes to one part."""
    found = estimated_by_part(ESTIMATE.lines)
    assert set(found) == set(get_args(Part))
    assert sum(found.values()) == pytest.approx(ESTIMATE.usd)
