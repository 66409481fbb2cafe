"""Tests of what the report shows of a decision's further evidence: seven contestants, checks, slices, money, risks, failures."""

from __future__ import annotations

import csv
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prooftune.errors import IntegrityError
from prooftune.evaluation.metrics.labels import OTHER, write_confusion
from prooftune.evidence import BreakEven, Costs, JudgeVerdict, Option
from prooftune.report import RunView, load_view, write_report
from prooftune.report.changes import compare_answers
from prooftune.report.money import assumptions, money_sentence
from prooftune.report.plots import draw_plots
from prooftune.report.plots.answers import MOST_LABELS
from prooftune.report.plots.evidence import slices
from prooftune.report.plots.money import cumulative_curves
from prooftune.report.reading import Confusion, read_confusions
from prooftune.report.risks import risks
from prooftune.report.summary import tiles
from prooftune.report.svg import CONTESTANTS
from prooftune.report.wording import headline, months, name_of, points, usd
from prooftune.types import Verdict
from tests.fixtures_evidence import make_full_view
from tests.fixtures_report import HOSTILE, Page, make_empty_view, make_view

STYLE = Path(__file__).parents[2] / "src" / "prooftune" / "report" / "templates" / "style.css"

PLOTS = (
    *("difference", "ladder", "slices", "judge", "break_even", "forgetting", "perplexity", "confusion"),
    *("demonstrations", "loss", "learning_curve", "tokens", "answer_tokens", "latency_s"),
)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the report of a run that has everything, and with the figures about it."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "figures.json").write_text(json.dumps(write_report(make_full_view(), folder)))
    return folder


def page_of(folder: Path) -> Page:
    """Return the page in a folder as a browser would see it."""
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def write(view: RunView, folder: Path) -> Page:
    """Write a report and return its page."""
    write_report(view, folder)
    return page_of(folder)


def test_parts_come_in_the_order_of_a_decision(full: Path) -> None:
    """Verdict, evidence, money, risks, examples, details; every link within the page leads somewhere."""
    page = page_of(full)
    assert page.open == []
    parts = [attributes.get("id") for tag, attributes in page.elements if tag == "section" and "id" in attributes]
    assert parts == ["evidence", "money", "risks", "examples", "details"]
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links == [f"#{part}" for part in parts]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_first_screen_has_four_figures(full: Path) -> None:
    """Gain with its interval, cost, pay-back and risks stand before the evidence."""
    view = make_full_view()
    first = page_of(full).text.split("Every contestant answered")[0]
    found = tiles(view, risks(view, compare_answers(view)))
    assert [tile.name for tile in found][1:] == ["per 1,000 requests", "paid back after", "risks to weigh"]
    assert all(tile.value in first and tile.detail in first for tile in found)
    assert f"97.5 % interval {points(view.decision.ci_low or 0)} to {points(view.decision.ci_high or 0)}" in first
    assert "$0.31 instead of $1.20" in first
    assert "25 days 4,091 requests at 5,000 a month" in first


def test_all_evidence_is_on_the_page(full: Path) -> None:
    """Checks, slices, judge, champion, advice, options, forgetting, clusters, looks and lineage stand there as the view has them."""
    view, text = make_full_view(), page_of(full).text
    assert view.judge is not None
    assert view.costs is not None
    assert view.forgetting is not None
    assert view.failures is not None
    assert view.advice is not None
    for check in view.decision.checks:
        assert f"{check.name} {check.text}" in text
    for part in view.slices:
        assert f"{part.column} = {part.value} {part.n}" in text
        assert f"{points(part.difference)} {points(part.ci_low)} to {points(part.ci_high)}" in text
    assert "wins 67.0 % of the pairs" in text
    assert "Cohen's kappa 0.71" in text
    assert "old holdout, exact match 0.660 0.720 +6.0 +1.0 to +11.0 p = 0.02 159 3" in text
    for finding in view.advice.findings:
        assert f"{finding.topic} {finding.figure}. {finding.text}" in text
    for option in view.costs.options:
        assert f"{option.name} {usd(option.tuning_usd) if option.tuned else '–'}" in text
        assert option.assumption in text
    for cluster in view.failures.clusters:
        assert f"{cluster.name} {cluster.failures} failures" in text
        assert cluster.advice in text
    assert "labelling.jsonl" in text
    assert "code · commit f225e6e" in text
    assert "1 180 0.04 inconclusive" in text
    assert view.curve is not None
    assert view.curve.text in text


def test_parts_without_data_do_not_appear(tmp_path: Path) -> None:
    """A run without costs has no money; one without a candidate neither risks nor examples; no plot is empty."""
    small = write(make_view(), tmp_path)
    for heading in ("Money", "Slices", "The judge", "Against the champion", "Advice before", "Where it fails", "Lineage"):
        assert heading not in small.text
    stopped = write(make_view("do_not_fine_tune"), tmp_path)
    assert {attributes.get("id") for tag, attributes in stopped.elements if tag == "section"} == {"evidence", "details", None}


def test_every_plot_has_its_data(full: Path) -> None:
    """Beside the report lies a CSV for each plot, with the values of the view."""
    view = make_full_view()
    rows = {path.stem: list(csv.DictReader(path.open(encoding="utf-8"))) for path in (full / "data").iterdir()}
    assert list(json.loads((full / "figures.json").read_text())["plots"]) == [*PLOTS]
    assert rows.keys() == set(PLOTS)
    assert len(rows["slices"]) == len(view.slices)
    assert [row["pairs"] for row in rows["judge"]] == ["84", "41", "31", "4"]
    assert view.forgetting is not None
    for plot, unit in (("forgetting", "accuracy"), ("perplexity", "nats_per_token")):
        assert [float(row["change"]) for row in rows[plot]] == [part.change for part in view.forgetting.parts if part.unit == unit]
    assert sum(int(row["count"]) for row in rows["confusion"]) == sum(cell.count for cell in view.confusions["candidate"])
    assert {(row["rung"], int(row["demonstrations"])): float(row["score"]) for row in rows["demonstrations"]} == {
        (rung, shots): score for rung, choice in view.choices.items() for shots, score in choice.scores.items()
    }
    assert [row["examples"] for row in rows["learning_curve"]] == ["107", "215", "430", "860"]


def test_a_full_report_is_small_safe_and_the_same_every_time(tmp_path: Path) -> None:
    """Hostile text everywhere: no tag, no hidden character, nothing loaded, below a megabyte, and the same bytes again."""
    view = make_full_view("promote", HOSTILE)
    figures = write_report(view, tmp_path)
    texts = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    page = texts["report.html"].decode()
    assert isinstance(figures["bytes"], int)
    assert figures["bytes"] < 1_000_000
    assert "<script" not in page.lower()
    assert Page(page).text.count("<script>alert('x')</script>") > 10
    assert not re.search("[\u202e\u202c\x00\ud800]", "".join(text.decode() for text in texts.values()))
    (again := tmp_path / "again").mkdir()
    write_report(view, again)
    assert {path.name: path.read_bytes() for path in again.rglob("*") if path.is_file()} == texts


def test_a_dollar_in_the_data_is_no_formula() -> None:
    """Two dollar signs in a slice's name stay text in the plot: matplotlib must not read them as mathematics."""
    view = make_full_view()
    odd = view.slices[0].model_copy(update={"value": r"$\frac{1}$"})
    plot = slices(view.model_copy(update={"slices": (odd, *view.slices[1:])}))
    assert plot is not None
    assert r"product = $\frac{1}$" in plot.svg


def _files(view: RunView, folder: Path) -> dict[str, Path]:
    """Write a view's evidence as its stages would, and return the files by name."""
    texts: dict[str, str] = {
        "decision.json": view.decision.model_dump_json(),
        "looks.json": json.dumps({"planned": 2, "looks": view.looks}),
    }
    parts: dict[str, Any] = {"advice": view.advice, "forgetting": view.forgetting, "judge": view.judge, "champion": view.champion}
    parts |= {"costs": view.costs, "learning_curve": view.curve, "failures": view.failures}
    texts |= {f"{name}.json": part.model_dump_json() for name, part in parts.items()}
    texts |= {f"{rung}.choice.json": choice.model_dump_json() for rung, choice in view.choices.items()}
    texts["slices.json"] = json.dumps([part.model_dump() for part in view.slices])
    texts["labelling.jsonl"] = "".join(f"{json.dumps(row)}\n" for row in view.labelling)
    verdicts = [JudgeVerdict(example_id=i, candidate_first=o, baseline_first=o, outcome=o) for i, o in view.judged.items()]  # type: ignore[arg-type]
    verdicts.append(JudgeVerdict(example_id="unparsed", candidate_first=None, baseline_first="tie", outcome=None))
    texts["judge.jsonl"] = "".join(f"{verdict.model_dump_json()}\n" for verdict in verdicts)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {name: folder / name for name in texts}


def test_evidence_is_read_back_from_the_files_of_the_stages(tmp_path: Path) -> None:
    """What stages wrote is what the view holds; an unscored pair of the judge is left out."""
    view = make_full_view()
    found = load_view(view.run_id, view.spec, {}, _files(view, tmp_path), {}, lineage=view.lineage)
    names = ("advice", "forgetting", "judge", "judged", "champion", "costs", "curve", "failures", "labelling", "looks", "slices", "choices")
    for name in (*names, "lineage"):
        assert getattr(found, name) == getattr(view, name), name


@pytest.mark.parametrize("name", ["slices.json", "costs.json", "looks.json", "labelling.jsonl", "judge.jsonl", "few_shot.choice.json"])
def test_a_cut_file_is_named(name: str, tmp_path: Path) -> None:
    """A file that no stage wrote like that stops the report and says which one it is."""
    view = make_full_view()
    files = _files(view, tmp_path)
    files[name].write_text('[{"a": ', encoding="utf-8")
    with pytest.raises(IntegrityError, match=re.escape(name)):
        load_view(view.run_id, view.spec, {}, files, {})


def test_a_confusion_matrix_is_read_as_it_was_written(tmp_path: Path) -> None:
    """The cells above 0 come back, answers that are no label among them; a cut matrix is named."""
    path = tmp_path / "candidate.confusion.csv"
    write_confusion(path, ["a", "b", "b", "nonsense"], ["a", "a", "b", "b"])
    cells = {(cell.target, cell.answer): cell.count for cell in read_confusions(path)}
    assert cells == {("a", "a"): 1, ("a", "b"): 1, ("b", "b"): 1, ("b", OTHER): 1}
    path.write_text("target,a,b\na,1\n")
    with pytest.raises(IntegrityError, match=r"candidate\.confusion\.csv is no confusion matrix"):
        read_confusions(path)


def test_the_heat_map_shows_the_labels_confused_most() -> None:
    """Of 40 labels it keeps 15, the two that are confused among them, and its title says so; the data keeps all."""
    cells = [Confusion(target=f"label {n}", answer=f"label {n}", count=5) for n in range(40)]
    cells.append(Confusion(target="label 31", answer="label 7", count=4))
    plot = draw_plots(make_empty_view().model_copy(update={"confusions": {"candidate": tuple(cells)}}))["confusion"]
    assert f"the {MOST_LABELS} labels of 40" in plot.title
    assert "label 31" in plot.svg
    assert "label 31 answered as label 7, 4 times" in plot.label
    assert len(plot.rows) == 41


money = st.floats(0.001, 5.0)


@given(now=money, tuned=money, corrections=st.floats(0, 2), tuning=st.floats(0.5, 500), hosting=st.floats(0, 50))
def test_curves_cross_where_tuning_is_paid_back(now: float, tuned: float, corrections: float, tuning: float, hosting: float) -> None:
    """At the break-even the two lines meet, before it the tuned one is dearer, whatever part corrections and hosting have in it."""
    saving, volume = now - tuned + corrections, 1000
    assume(saving * volume - hosting >= 1)
    requests = int(np.ceil(tuning * volume / (saving * volume - hosting)))
    options = (_option("now", 0, 1000 * now, 0), _option("tuned", tuning, 1000 * tuned, hosting))
    row = BreakEven(
        option="tuned", against="now", saving_usd_per_request=saving, saving_usd_per_month=None, requests=requests, months=requests / volume
    )
    costs = Costs(
        **{"options": options, "break_even": (row,), "requests_per_month": volume, "training_usd": tuning, "training_hours": 1},
        priced_at="2026-11-01",
    )
    curves = cumulative_curves(make_empty_view().model_copy(update={"costs": costs}))
    dollars = {name: np.array([usd for _, usd in points]) for name, points in curves.items()}
    gaps = dollars["now"] - dollars["tuned"]
    assert gaps[0] == pytest.approx(-tuning)
    assert -1e-6 <= gaps[len(gaps) // 2] <= saving + 1e-6
    assert min(dollars["now"].min(), dollars["tuned"].min()) >= 0


def _option(name: str, tuning: float, per_1000: float, hosting: float) -> Option:
    return Option(
        **{"name": name, "tuned": tuning > 0, "tuning_usd": tuning, "hosting_usd_per_month": hosting},
        **{"usd_per_1000_requests": per_1000, "prompt_tokens": 10, "answer_tokens": 10},
    )


def test_there_is_no_curve_where_hosting_needs_a_volume() -> None:
    """Without a monthly volume, hosting cannot be laid on requests: no line is drawn, rather than a wrong one."""
    view = make_full_view()
    assert view.costs is not None
    assert cumulative_curves(view.model_copy(update={"costs": view.costs.model_copy(update={"requests_per_month": None})})) == {}


def test_money_in_words() -> None:
    """The sentence says what tuning costs and when it pays, or that it never does; every assumption is said once."""
    view = make_full_view()
    assert view.costs is not None
    assert money_sentence(view).endswith("paid back after 4,091 requests, 25 days at 5,000 requests a month.")
    never = view.costs.break_even[0].model_copy(update={"requests": None, "months": None, "saving_usd_per_request": -0.002})
    poor = view.model_copy(update={"costs": view.costs.model_copy(update={"break_even": (never,)})})
    assert "costs $0.002 more a request" in money_sentence(poor)
    assert money_sentence(poor).endswith("tuning is not paid back at 5,000 requests a month.")
    assert "never" in [tile.value for tile in tiles(poor, [])]
    assert assumptions(view)[-1] == "Prices are of 2026-11-01."
    assert money_sentence(make_view()) == ""


@pytest.mark.parametrize(
    ("verdict", "words"),
    [("keep_baseline", "but fails metric json_valid."), ("inconclusive", "but does not settle forgetting, perplexity.")],
)
def test_the_headline_names_the_check_that_holds_a_gain_back(verdict: Verdict, words: str) -> None:
    """Where the gain alone would do, the sentence names what stands against it."""
    view = make_full_view(verdict)
    enough = view.decision.model_copy(update={"difference": 0.1, "p_value": 0.001})
    assert headline(view.model_copy(update={"decision": enough})).endswith(words)


def test_risks_say_what_was_looked_for() -> None:
    """What the gate judged keeps its verdict; what was not measured is open; a clean run has nothing to weigh but its regressions."""
    view = make_full_view()
    found = {risk.name: risk for risk in risks(view, compare_answers(view))}
    assert found["forgetting, multiple choice"].passed is True
    assert found["overfitting"].passed is None
    assert "0.33 epochs past the minimum" in found["overfitting"].text
    clean = view.model_copy(update={"figures": {"train": {"overfitting": None}}})
    assert {risk.name: risk.passed for risk in risks(clean, compare_answers(clean))}["overfitting"] is True
    bare = {risk.name: risk.passed for risk in risks(make_view(), compare_answers(make_view()))}
    assert bare["forgetting"] is None
    assert bare["refusals"] is True
    chatty = view.model_copy(
        update={"evaluations": tuple(e.model_copy(update={"refusals": 0.2 * (e.name == "candidate")}) for e in view.evaluations)}
    )
    assert {risk.name: risk.passed for risk in risks(chatty, compare_answers(chatty))}["refusals"] is None
    assert risks(make_empty_view(), compare_answers(make_empty_view())) == []


@pytest.mark.parametrize(
    ("amount", "text"), [(1204.5, "$1,204"), (45, "$45"), (0.0083, "$0.0083"), (-12.3, "\N{MINUS SIGN}$12.30"), (0, "$0"), (3.2, "$3.20")]
)
def test_amounts_read_well(amount: float, text: str) -> None:
    """Dollars come with cents, and below a cent with two significant digits."""
    assert usd(amount) == text


def test_spans_read_well() -> None:
    """Months become days or years where these read better."""
    assert [months(count) for count in (0.01, 0.5, 1.4, 36)] == ["1 day", "15 days", "1.4 months", "3 years"]
    assert [name_of(name) for name in ("retrieved", "rag", "custom:tone_ok")] == ["retrieved few-shot", "RAG", "tone ok"]


def _linear(colour: str) -> Any:
    value = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _oklab(linear: Any) -> Any:
    """Ottosson (2020), A perceptual color space for image processing."""
    to_lms = np.array([[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]])
    to_lab = np.array([[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]])
    return to_lab @ np.cbrt(to_lms @ np.clip(linear, 0, 1))


SIGHT = {
    "full": np.eye(3),
    "no red": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "no green": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "no blue": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}
"""Linear RGB as it is seen. Source: Machado, Oliveira, Fernandes (2009), severity 1."""


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("sight", SIGHT)
def test_contestants_colours_are_told_apart(sight: str, theme: int) -> None:
    """Seven colours differ to the colour-blind too, and each can be read as text on its background (WCAG 2.2, 4.5:1)."""
    css = STYLE.read_text(encoding="utf-8")

    def value(role: str) -> str:
        return re.findall(rf"--{role.replace('_', '-')}: (#\w+)", css)[theme]

    colours = {name: _linear(value(name)) for name in CONTESTANTS}
    background = {"#fff": "#ffffff"}.get(value("surface"), value("surface"))
    luminance = np.array([0.2126, 0.7152, 0.0722])
    for colour in colours.values():
        bright, dark = sorted((colour @ luminance, _linear(background) @ luminance), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5
    seen = [_oklab(SIGHT[sight] @ colour) for colour in colours.values()]
    assert min(float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2)) > 0.06
