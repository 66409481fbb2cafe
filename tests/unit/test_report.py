"""Tests of the HTML report: that it is safe, self-contained, the same every time, and shows the view's own figures."""

from __future__ import annotations

import csv
import re
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftune.errors import IntegrityError
from prooftune.report import RunView, load_view, write_report
from prooftune.report.changes import compare_answers
from prooftune.report.plots import draw_plots
from prooftune.report.svg import ROLES
from prooftune.report.tables import stage_tables
from prooftune.report.usage import load_snippet, recipes
from prooftune.report.wording import TITLES, duration, headline, name_of, number, points, visible, what_next
from prooftune.spec import Store
from prooftune.storage.manifest import publish
from prooftune.storage.objects import open_store
from prooftune.types import Finding, Verdict
from tests.fixtures_report import HOSTILE, N, Page, make_empty_view, make_view

VERDICTS = get_args(Verdict)
LOADING = {"src", "srcset", "href", "data", "action", "formaction", "poster", "background", "ping"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[Verdict, Path]:
    """The folder with a report of each verdict, hostile texts in none of them."""
    folders: dict[Verdict, Path] = {verdict: tmp_path_factory.mktemp(verdict) for verdict in VERDICTS}
    for verdict, folder in folders.items():
        write_report(make_view(verdict), folder)
    return folders


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a report in which every text is hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    write_report(make_view("promote", HOSTILE), folder)
    return folder


def read(folder: Path) -> str:
    """Return the report in a folder."""
    return (folder / "report.html").read_text(encoding="utf-8")


def write(view: RunView, out: Path) -> str:
    """Write a report and return it."""
    out.mkdir(parents=True, exist_ok=True)
    write_report(view, out)
    return read(out)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_renders_with_its_sentence_first(verdict: Verdict, written: dict[Verdict, Path]) -> None:
    """Each verdict makes a well-formed page whose first words are the run, the verdict and its reason."""
    view = make_view(verdict)
    page = Page(read(written[verdict]))
    assert page.open == []
    assert f"{TITLES[verdict]} {headline(view)}" in page.text
    assert page.text.index(headline(view)) < page.text.index("The ladder")
    assert ("What to do instead" in page.text) == (verdict == "do_not_fine_tune")
    assert all(" ".join(step.split()) in page.text for step in what_next(view))
    assert ("Worst regressions" in page.text) == (view.candidate is not None)


def test_a_run_that_stopped_before_any_baseline_renders(tmp_path: Path) -> None:
    """A decision alone makes a page that says what to collect."""
    page = Page(write(make_empty_view(), tmp_path))
    assert "Collect at least 38 more training examples" in page.text
    assert "Evidence" not in page.text
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_page_is_structured_for_readers_of_all_kinds(verdict: Verdict, written: dict[Verdict, Path]) -> None:
    """Headings go down one level at a time, ids are unique, every plot has a label, and the language is set."""
    page = Page(read(written[verdict]))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(attributes.get("aria-label") for tag, attributes in page.elements if tag == "svg")
    assert ("html", {"lang": "en"}) in page.elements


def test_the_page_loads_nothing(hostile: Path) -> None:
    """No element and no style sheet asks for anything outside the file, and nothing runs."""
    page = Page(read(hostile))
    links = [value or "" for _, attributes in page.elements for key, value in attributes.items() if key in LOADING]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not {tag for tag, _ in page.elements} & {"script", "iframe", "object", "embed", "img", "base", "form"}
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    styles = " ".join([*page.css, *(attributes.get("style") or "" for _, attributes in page.elements)])
    assert "@import" not in styles
    assert "http" not in styles
    assert all(target.startswith("#") for target in re.findall(r"url\((.)", styles))


def test_hostile_text_comes_out_escaped_and_visible(hostile: Path) -> None:
    """Tags are text; control, bidi and lone-surrogate characters are placeholders, on the page and in the model card."""
    source = read(hostile)
    card = (hostile / "model_card.md").read_text(encoding="utf-8")
    assert "<script" not in source.lower()
    assert "<script>alert('x')</script>" in Page(source).text
    for placeholder in ("⟨U+202E⟩", "⟨U+202C⟩", "⟨U+0000⟩", "⟨U+D800⟩"):
        assert placeholder in source
    for text in (source, card):
        assert not [char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs") and char != "\n"]


@given(st.text(st.characters(exclude_categories=())))
def test_visible_text_is_harmless_and_stable(text: str) -> None:
    """Whatever goes in, what comes out is UTF-8 without hidden characters, and showing it again changes nothing."""
    shown = visible(text)
    shown.encode("utf-8")
    assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in "\n\t\u200c\u200d"]
    assert visible(shown) == shown
    assert shown == text or not (text.isprintable() and text.isascii())


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_figure_shown_is_the_views(verdict: Verdict, written: dict[Verdict, Path]) -> None:
    """Metrics, intervals, counts, lengths, latencies, seconds, digests and versions stand on the page as the view has them."""
    view = make_view(verdict)
    text = Page(read(written[verdict])).text
    for evaluation in view.evaluations:
        for metric in evaluation.metrics.values():
            assert f"{metric.value:.3f} {metric.ci_low:.3f} to {metric.ci_high:.3f}" in text
            assert f"{name_of(metric.name)} n = {metric.n}" in text
        assert f"{evaluation.prompt_tokens_mean:,.1f}" in text
        for seconds in (evaluation.latency_p50_s, evaluation.latency_p95_s):
            assert duration(seconds) in text
        assert number(evaluation.answer_tokens_p95) in text
        assert f"{evaluation.tokens_per_second:,.1f}" in text
        assert evaluation.description in text
    for stage, seconds in view.seconds.items():
        assert f"{stage} {duration(seconds)}" in text
    for pair in (view.digests | view.versions).items():
        assert " ".join(pair) in text
    assert f"{len(view.findings)} findings" in text
    assert "in batches of 32 on this machine" in text
    if view.decision.difference is not None:
        shown = (view.decision.difference, view.decision.ci_low, view.decision.ci_high)
        assert all(points(value or 0) in text for value in shown)
        assert "chosen checkpoint, step 180" in text


def test_the_same_view_gives_the_same_bytes(written: dict[Verdict, Path], tmp_path: Path) -> None:
    """Writing twice gives identical files, plots included."""
    write_report(make_view(), tmp_path)
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (written["promote"], tmp_path)
    )
    assert first == second
    assert {str(path) for path in first} >= {"report.html", "model_card.md", "data/loss.csv", "data/difference.csv"}


def test_the_data_of_each_plot_is_the_views(written: dict[Verdict, Path]) -> None:
    """The CSV beside the report holds every value that was plotted."""
    view = make_view()
    rows = {path.stem: list(csv.DictReader(path.open(encoding="utf-8"))) for path in (written["promote"] / "data").iterdir()}
    assert [int(row["step"]) for row in rows["loss"]] == [row["step"] for row in view.loss]
    assert [float(row["latency_s"]) for row in rows["latency_s"]] == [p.latency_s for ps in view.predictions.values() for p in ps]
    assert sum(int(row["count"]) for row in rows["tokens"]) == sum(sum(h.counts) for h in view.token_lengths.values())
    assert float(rows["difference"][0]["ci_low"]) == view.decision.ci_low
    assert len(rows["ladder"]) == sum(len(evaluation.metrics) for evaluation in view.evaluations)


def test_plots_take_every_colour_from_the_page() -> None:
    """A plot is well-formed XML whose colours are the page's custom properties, so it reads in light and in dark."""
    for plot in draw_plots(make_view()).values():
        root = ElementTree.fromstring(plot.svg)
        styles = " ".join(element.get("style", "") for element in root.iter())
        assert set(re.findall(r"(?:fill|stroke): (\S+?)(?:;|\s|$)", styles)) <= {
            "none",
            *(f"var(--{role.replace('_', '-')})" for role in ROLES),
        }
        assert "http" not in plot.svg


def test_plots_survive_degenerate_data() -> None:
    """One answer, equal values, an interval of no width and a log of one row still make plots."""
    view = make_view()
    one = {name: (rows[0].model_copy(update={"answer_tokens": 3, "latency_s": 0.0}),) for name, rows in view.predictions.items()}
    flat = view.decision.model_copy(update={"difference": 0.0, "ci_low": 0.0, "ci_high": 0.0})
    view = view.model_copy(update={"predictions": one, "decision": flat, "loss": view.loss[:1], "figures": {}})
    assert {"difference", "loss", "answer_tokens", "latency_s"} <= draw_plots(view).keys()


def test_changes_pair_every_example_once() -> None:
    """Regressions, improvements, equals and unscored add up to the holdout; the worst come first."""
    changes = compare_answers(make_view())
    assert len(changes.regressions) + len(changes.improvements) + changes.both_right + changes.same + changes.unscored == N
    assert changes.unscored == 1
    assert all(change.difference < 0 for change in changes.regressions)
    assert [c.difference for c in changes.improvements] == sorted((c.difference for c in changes.improvements), reverse=True)
    assert all(change.baseline.example_id == change.candidate.example_id for change in changes.regressions)


def test_many_findings_are_folded_and_counted(tmp_path: Path) -> None:
    """Up to thirty findings stand open, more are folded, and beyond a thousand they are counted."""
    view = make_empty_view()
    details = {"open": None}
    few = Page(write(view.model_copy(update={"findings": make_view().findings[:30]}), tmp_path))
    assert ("details", details) in few.elements
    many = tuple(Finding(where=f"a.jsonl:{n}", code="x", reason="r", action="kept") for n in range(1234))
    page = Page(write(view.model_copy(update={"findings": many}), tmp_path))
    assert ("details", details) not in page.elements
    assert "And 234 more" in page.text
    assert "1,234 findings" in page.text


def test_figures_of_many_things_make_one_grid(tmp_path: Path) -> None:
    """Strata and splits become tables with the splits in order; a long one is folded; names from the data stay as they are."""
    strata = {f"card_{n}": {"holdout": n, "train": 2 * n, "validation": 1} for n in range(77)}
    preflight = {"train": {"examples": 430, "truncated": 2}, "validation": {"examples": 61, "truncated": 0}, "max_length": 1024}
    figures = {"split": {"counts": {"holdout": 5, "train": 12}, "strata": strata}, "preflight": preflight}
    view = make_empty_view().model_copy(update={"figures": figures})
    found = stage_tables(view, "split")
    assert found.pairs == (("counts · train", "12"), ("counts · holdout", "5"))
    assert found.grids[0].columns == ("train", "validation", "holdout")
    assert found.grids[0].rows[7] == ("card_7", ("14", "1", "7"))
    assert stage_tables(view, "preflight").grids[0].rows == (("examples", ("430", "61")), ("truncated", ("2", "0")))
    page = Page(write(view, tmp_path))
    assert "strata: 77" in page.text
    assert "card_76 152 1 76" in page.text


def _write_files(view: RunView, folder: Path) -> dict[str, Path]:
    import json

    texts = {"decision.json": view.decision.model_dump_json(), "log.jsonl": "".join(f"{json.dumps(row)}\n" for row in view.loss)}
    texts["findings.jsonl"] = "".join(f"{finding.model_dump_json()}\n" for finding in view.findings)
    for evaluation in view.evaluations:
        texts[f"{evaluation.name}.evaluation.json"] = evaluation.model_dump_json()
        rows = view.predictions[evaluation.name]
        texts[f"{evaluation.name}.predictions.jsonl"] = "".join(f"{row.model_dump_json()}\n" for row in rows)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {name: folder / name for name in texts}


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_view_is_read_back_from_the_files_of_the_stages(verdict: Verdict, tmp_path: Path) -> None:
    """What stages wrote is what the view holds, for whole runs and for those that stopped early."""
    view = make_view(verdict)
    lengths = {
        name: {"histogram": h.model_dump(include={"edges", "counts"}), "p50": h.p50, "p95": h.p95} for name, h in view.token_lengths.items()
    }
    figures = {**view.figures, "tokens": lengths}
    files = _write_files(view, tmp_path)
    found = load_view(view.run_id, view.spec, figures, files, view.seconds, view.versions, view.digests)
    assert found.model_copy(update={"figures": view.figures}) == view


def test_a_view_refuses_what_no_stage_wrote(tmp_path: Path) -> None:
    """A missing decision and files that were cut are named, with the stage to run again."""
    view = make_view()
    files = _write_files(view, tmp_path)
    with pytest.raises(IntegrityError, match=r"no decision\.json"):
        load_view("r", view.spec, {}, {}, {})
    files["log.jsonl"].write_text('{"step": 1}\n{"step": ')
    with pytest.raises(IntegrityError, match=r"log\.jsonl:2 is not JSON"):
        load_view("r", view.spec, {}, files, {})
    files["decision.json"].write_text("{}")
    with pytest.raises(IntegrityError, match=r"decision\.json holds no Decision"):
        load_view("r", view.spec, {}, files, {})


def test_the_chosen_checkpoint_is_trainings_or_that_of_the_lowest_loss() -> None:
    """Training's own word counts; without it the lowest validation loss does; without either there is none."""
    view = make_view()
    checks = {row["step"]: row["validation_loss"] for row in view.loss if row["validation_loss"] is not None}
    assert view.best_step == 180
    assert view.model_copy(update={"figures": {}}).best_step == min(checks, key=lambda step: checks[step] or 0)
    assert view.model_copy(update={"figures": {}, "loss": ()}).best_step is None


def test_an_inconclusive_headline_says_what_is_open() -> None:
    """Luck and a gain that is real but perhaps too small are different open questions; both name the n that settles them."""
    view = make_view("inconclusive")
    assert headline(view).endswith("is real; about 1,420 would.")
    sure = view.decision.model_copy(update={"p_value": 0.01, "difference": 0.024})
    assert "the gain of 2.4 points of exact match over few-shot is the 2 required" in headline(view.model_copy(update={"decision": sure}))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.0841, "84 ms"), (0.9999, "1 s"), (2.314, "2.31 s"), (99.97, "1 min 40 s"), (1049, "17 min 29 s"), (7500, "2 h 05 min")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    """Seconds come in the unit that reads best."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (True, "yes"), (1234567, "1,234,567"), (0.23119, "0.2312"), (1024.0, "1,024"), ("", "–")]
)
def test_numbers_read_well(value: object, text: str) -> None:
    """Figures come with separators and no false precision; nothing is a dash, never 0."""
    assert number(value) == text


def test_differences_carry_their_sign_except_zero() -> None:
    """Points have a typographic sign, and what rounds to zero has none."""
    assert [points(x) for x in (0.276, -0.031, 0.0, -0.0001)] == ["+27.6", "\N{MINUS SIGN}3.1", "0.0", "0.0"]


def test_recipes_name_the_runs_store() -> None:
    """A store with shell characters stays one argument; the default store is left out; an endpoint is handed on."""
    view = make_view()
    assert recipes(view)[0].code == f"prooftune show {view.run_id}"
    odd = Store(uri="my $(store)", endpoint_url="http://127.0.0.1:8333")
    found = recipes(view.model_copy(update={"spec": view.spec.model_copy(update={"store": odd})}))
    assert found[0].code == f"prooftune show {view.run_id} --store 'my $(store)' --endpoint-url http://127.0.0.1:8333"
    for recipe in found:
        assert ("uri='my $(store)', endpoint_url='http://127.0.0.1:8333'" in recipe.code) == (recipe.language == "python")
    assert len(recipes(make_empty_view())) == len(found) - 1


def test_published_files_are_verified_by_the_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The code that checks digests runs as it is: quiet about a whole run, loud about a damaged file."""
    view = make_view()
    store = Store(uri=str(tmp_path / "store"))
    (tmp_path / "a.txt").write_text("as judged")
    publish(open_store(store), view.run_id, {"a.txt": tmp_path / "a.txt"}, {})
    elsewhere = view.model_copy(update={"spec": view.spec.model_copy(update={"store": store})})
    code = next(recipe.code for recipe in recipes(elsewhere) if "verify" in recipe.code)
    run_code(code)
    assert "every file is as it was published" in capsys.readouterr().out
    damaged = next((tmp_path / "store").rglob("a.txt"))
    damaged.chmod(0o644)
    damaged.write_text("as forged")
    run_code(code)
    assert "a.txt: has 9 bytes" in capsys.readouterr().out


def run_code(code: str) -> None:
    """Run the very text that readers are told to run."""
    exec(compile(code, "snippet", "exec"), {})  # noqa: S102  # our own text, shown in the report


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_snippet_loads_what_was_trained_and_answers(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The code in the report runs as it is, on a tiny model with an adapter and on a fully trained one."""
    from peft import LoraConfig, get_peft_model
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(["<unk>", "<eos>", "system", "user", "Answer", "with", "JSON", ".", "…"])}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<eos>", unk_token="<unk>", pad_token="<eos>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    config = LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=len(words))
    base = LlamaForCausalLM(config)
    base.save_pretrained(tmp_path / "base")
    trained = base if kind == "full" else get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    trained.save_pretrained(tmp_path / "trained")
    tokenizer.save_pretrained(tmp_path / "trained")
    view = make_view()
    store = Store(uri=str(tmp_path / "store"))
    files = {f"{'model' if kind == 'full' else 'adapter'}/{path.name}": path for path in (tmp_path / "trained").iterdir()}
    publish(open_store(store), view.run_id, files, {})
    method = view.spec.backend.method.model_copy(update={"kind": kind})
    spec = view.spec.model_copy(update={"store": store, "backend": view.spec.backend.model_copy(update={"method": method})})
    run_code(load_snippet(view.model_copy(update={"spec": spec}), base=str(tmp_path / "base")))
    assert capsys.readouterr().out.endswith("\n")
