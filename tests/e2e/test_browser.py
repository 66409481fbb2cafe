"""A person at the browser: deploy, fill in the form, approve, read the verdict. Its pictures are the documentation's.

``PROOFTUNE_PICTURES=docs/pictures pytest tests/e2e/test_browser.py`` takes them anew.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from fixtures_deployed import answer_of, worker
from tests_support import ROOT, toy_rows, write_jsonl

if TYPE_CHECKING:
    from fixtures_s3 import S3Server

browser = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")]
pytest_plugins = ["fixtures_s3"]

TASK, RUN, REASON = "tram-signals", "Tram signals, first try", "The report convinced me."
WAITS = "waits-for-approval"
PICTURES = {"form": "prefect-ui-form", "question": "prefect-ui-approval", "verdict": "prefect-ui-verdict"}
"""Screenshots that are the documentation's, and what they are called there."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, server: dict[str, Any], home: dict[str, str]) -> Path:
    """A folder with data, a model and a deployment whose spec is trained within seconds, deployed."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("flows", "deployments"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(tiny_model, folder / "tiny-model")
    write_jsonl(folder / "signals.jsonl", toy_rows(240))
    found = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    method = {"kind": "full", "epochs": 6, "learning_rate": 5.0e-3, "batch_size": 8, "early_stopping": None, "checks_per_epoch": 2}
    spec = {
        "name": "unnamed",
        "data": {"source": "-", "split": {"holdout": 60, "validation": 20}},
        "baseline": {"ladder": ["zero_shot"]},
        "backend": {"model": "./tiny-model", "method": method},
        "gate": {"max_forgetting": None},
        "general": {"suite": "none"},
        "store": {"uri": "s3://tests/browser"},
    }
    [finetune] = [one for one in found["deployments"] if one["name"] == "finetune"]
    deployed = finetune | {"parameters": {"spec": spec}}
    kept = {"name": "prooftune", "prefect-version": found["prefect-version"], "pull": found["pull"], "deployments": [deployed]}
    (folder / "prefect.yaml").write_text(yaml.safe_dump(kept, sort_keys=False))
    assert answer_of("deploy", str(folder), env=home)["deployments"] == ["finetune"]
    return folder


@pytest.fixture(scope="module")
def at_work(
    project: Path, server: dict[str, Any], home: dict[str, str], s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A worker that reaches the object store; who approves need not."""
    keys = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key, "AWS_REGION": "us-east-1"}
    env = home | keys | {"AWS_ENDPOINT_URL_S3": s3_server.endpoint, "PREFECT_API_URL": server["api"]}
    with worker(env, tmp_path_factory.mktemp("worker") / "log"):
        yield


@dataclass(frozen=True)
class Person:
    """Somebody with the Prefect UI open."""

    page: Any
    folder: Path

    def see(self, text: str | re.Pattern[str], seconds: float = 30) -> None:
        """Wait until a text is on the page."""
        browser.expect(self.page.get_by_text(text).first).to_be_visible(timeout=seconds * 1000)

    def field(self, name: str) -> Any:
        """The innermost field of a form with a label; the UI ties labels to nothing."""
        label = f"//span[contains(@class, 'schema-form-property__label')][.='{name}' or .='{name} (Optional)']"
        return self.page.locator(f"{label}/ancestor::div[contains(@class, 'schema-form-property')][contains(@class, 'p-label')][1]")

    def fill(self, name: str, text: str) -> None:
        """Type into a field of a form."""
        self.field(name).locator("textarea").fill(text)

    def press(self, name: str) -> None:
        """Press a button."""
        self.page.get_by_role("button", name=name, exact=True).first.click()

    def follow(self, name: str | re.Pattern[str]) -> None:
        """Follow a link."""
        self.page.get_by_role("link", name=name).first.click()

    def open_artifact(self, key: str) -> None:
        """Open an artifact of the flow run on the page."""
        self.page.get_by_text("Artifacts", exact=True).last.click()
        self.follow(re.compile(rf"\b{key}\b\s*Created"))
        self.see("Show raw data")

    def picture(self, name: str) -> None:
        """Keep a screenshot, as the documentation's as well where it is asked for."""
        self.page.wait_for_timeout(1000)  # a modal fades in, a graph settles
        path = self.folder / f"{name}.png"
        self.page.screenshot(path=path)
        if (pictures := os.environ.get("PROOFTUNE_PICTURES")) and name in PICTURES:
            shutil.copy(path, Path(pictures) / f"{PICTURES[name]}.png")


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    """A browser on an empty page, and a folder for what it shows."""
    with browser.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 960})
        page.set_default_timeout(90_000)  # the deployment lists its new run at its next look
        found = Person(page, tmp_path)
        yield found
        found.picture("last")  # of a test that failed, what was to be seen then
        chromium.close()


def test_a_run_from_the_form_to_an_approved_champion(person: Person, server: dict[str, Any], at_work: None) -> None:
    """The form takes a spec, a question shows its evidence and is answered, and the verdict says what came of it."""
    person.page.goto(f"{server['ui']}/deployments")
    person.follow("finetune")
    person.press("Run")
    person.page.get_by_text("Custom run").click()
    person.page.locator(".flow-run-name-input input").fill(RUN)
    person.see("Champions are kept under it.")
    person.fill("Name", TASK)
    person.fill("Source", "signals.jsonl")  # from the worker's folder, as the text of the field says
    person.see("one typed into a form at the worker's.")
    person.picture("form")
    person.field("Approve Promotion").get_by_role("switch").click()
    person.press("Submit")
    person.follow(RUN)

    person.see(WAITS, 300)
    person.see(RUN)  # a name that somebody typed stays
    person.picture("waits")
    person.open_artifact("approval")
    person.see("No answer within 24 hours is a no.")
    person.picture("approval")
    person.page.goto(person.page.get_by_role("link", name="the flow run that waits").get_attribute("href"))
    person.see("Paused")
    person.press("Resume")
    person.see(re.compile(rf"{TASK}-\w+ is to be the champion of {TASK}"))
    for text in ("The gate's verdict: promote the candidate.", "Exact match 0.000 → ", "--store s3://tests/browser"):
        person.see(text)
    person.field("Decision").locator(".p-select-button__control").focus()
    person.page.keyboard.press("ArrowDown")  # a click would open the list and close it at once
    person.page.keyboard.press("Enter")
    person.fill("By", "ada")
    person.fill("Reason", REASON)
    browser.expect(person.field("Decision")).to_contain_text("approve")
    person.picture("question")
    person.press("Submit")
    person.see("Completed", 60)

    person.follow(RUN)  # the parent run
    person.see("Completed", 60)
    browser.expect(person.page.get_by_text(WAITS)).to_have_count(0)
    person.picture("artifacts")
    person.open_artifact("verdict")
    person.see(f"{TASK}: promote the candidate. In use.")
    person.see(re.compile(rf"In use: it is the champion of {TASK}, approved by ada on [\d-]+: {re.escape(REASON)}"))
    for text in ("Evidence", "zero-shot", "exact match", "s3://tests/browser/runs/"):
        person.see(text)
    person.picture("verdict")
    person.page.goto(f"{server['ui']}/artifacts/key/live-loss")
    person.see("Loss after step 120 of 120, in nats per token")
    person.follow(re.compile(r"^[0-9a-f]{8}$"))
    browser.expect(person.page.locator("img[src^='data:image/svg']")).to_be_visible()
    person.picture("loss")
