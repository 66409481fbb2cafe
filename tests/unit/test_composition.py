"""What a retraining is made from: all that is new, a share of the old, the old holdout still sealed; and what it goes on from."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fixtures_runs import examples_of
from hypothesis import given
from hypothesis import strategies as st
from tests_support import toy_rows, write_jsonl

from flows.rehearsal import rehearse
from prooftune.data.lines import read_lines, write_lines
from prooftune.data.old import OldRun, join_old, old_run_ref, read_old_run
from prooftune.data.splitting import split
from prooftune.data.validation import validate
from prooftune.errors import DataError, IntegrityError, SpecError
from prooftune.providers.collection import ManagedModel
from prooftune.retraining.admission import Admission
from prooftune.retraining.composition import Composition, compose, keep_composition, kept_composition
from prooftune.spec import Backend, Data, Method, Old, RunSpec, Split, parse_spec
from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import publish
from prooftune.storage.registry import register
from prooftune.training.start import start_folder, start_model, start_ref
from prooftune.types import Decision, Example, Message, ModelRef, Record, SplitName
from prooftune.watching.signals import Signal
from tasks.retraining import begun_before

CHAMPION = "toy-champion"
ROWS = toy_rows(200, seed=0)
OLD_EXAMPLES = examples_of(ROWS[:120])
OLD = OldRun(CHAMPION, {"train": tuple(OLD_EXAMPLES[:80]), "validation": tuple(OLD_EXAMPLES[80:90]), "holdout": tuple(OLD_EXAMPLES[90:])})
NEW = examples_of(ROWS[120:])


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A local store."""
    return LocalStore(tmp_path / "store")


def spec_of(**blocks: dict[str, Any]) -> RunSpec:
    """Return a spec of the task ``toy``."""
    return parse_spec({"name": "toy", "data": {"source": "toy.jsonl"}} | blocks)


def crown(
    store: LocalStore,
    folder: Path,
    spec: RunSpec,
    old: OldRun = OLD,
    drop: Sequence[str] = (),
    weights: dict[str, str] | None = None,
    run_id: str = CHAMPION,
) -> str:
    """Publish a run that was made from ``old`` and make it the champion of the task."""
    folder.mkdir(parents=True)
    files: dict[str, Path] = {}
    for name, examples in old.splits.items():
        files[f"{name}.jsonl"] = folder / f"{name}.jsonl"
        write_lines(files[f"{name}.jsonl"], examples)
    files["spec.yaml"] = folder / "spec.yaml"
    files["spec.yaml"].write_text(spec.resolved_yaml())
    files["profile.csv"] = folder / "profile.csv"
    with files["profile.csv"].open("w", newline="") as file:
        table = csv.writer(file)
        table.writerows([["id", "status"], *([example.id, "kept"] for part in old.splits.values() for example in part)])
    for number, (name, content) in enumerate((weights or {"adapter/adapter_model.safetensors": "w"}).items()):
        files[name] = folder / f"weights-{number}"
        files[name].write_text(content)
    decision = Decision(verdict="promote", reasons=("It is better.",))
    kept = {name: path for name, path in files.items() if name not in drop}
    facts = {"name": "toy", "decision": decision.model_dump(mode="json"), "lineage": {"model": {"sha256": "base"}}}
    register(store, "toy", run_id, publish(store, run_id, kept, facts), decision)
    return run_id


def ids(examples: Iterable[Example]) -> set[str]:
    """Ids of examples."""
    return {example.id for example in examples}


def splits_of(examples: Sequence[Example], folder: Path, options: Split, old: OldRun | None) -> dict[str, set[str]]:
    """Split examples; return the ids by split."""
    folder.mkdir()
    write_lines(folder / "examples.jsonl", examples)
    split(folder / "examples.jsonl", options, folder, old)
    return {name: ids(read_lines(folder / f"{name}.jsonl", Example)) for name in ("train", "validation", "holdout")}


# What is learnt from again


@given(low=st.floats(0, 1), high=st.floats(0, 1), order=st.randoms())
def test_the_share_is_drawn_by_content(low: float, high: float, order: Any) -> None:
    """Whatever the order of the source, the same examples are kept; a higher share keeps them all and more; the other splits stay whole."""
    low, high = sorted((low, high))
    source = [*OLD_EXAMPLES, *NEW]
    order.shuffle(source)
    fewer, _, _ = join_old(source, OLD, low)
    more, _, _ = join_old(NEW, OLD, high)
    assert ids(fewer) <= ids(more)
    assert ids(NEW) | OLD.sealed | ids(OLD.splits["validation"]) <= ids(fewer)
    assert ids(join_old(source, OLD, low)[0]) == ids(join_old(NEW, OLD, low)[0]), "whether the source still has the old ones or not"


def test_half_of_the_old_is_about_a_half() -> None:
    """All at 1, none at 0, and in between as much as was asked for, within luck."""
    kept = {keep: len(ids(join_old(NEW, OLD, keep)[0]) & ids(OLD.splits["train"])) for keep in (0.0, 0.5, 1.0)}
    assert (kept[0.0], kept[1.0]) == (0, 80)
    assert 28 <= kept[0.5] <= 52


def test_the_source_knows_better() -> None:
    """An example that the source has too is the source's; an old one with another target for a prompt of the source's is left out."""
    here, corrected = OLD_EXAMPLES[0].model_copy(update={"metadata": {"team": "blue"}}), OLD_EXAMPLES[95]
    other = corrected.model_copy(
        update={"id": "feed", "source": "new.jsonl:1", "messages": (*corrected.prompt, Message(role="assistant", content="another"))}
    )
    kept, added, findings = join_old([here, other], OLD, 1.0)
    assert here in kept
    assert other in kept
    assert corrected.id not in ids(kept)
    assert len(added) == 119
    assert [(finding.where, finding.code, finding.action) for finding in findings] == [(corrected.source, "superseded", "dropped")]


def test_old_examples_are_cleaned_with_the_new_ones(tmp_path: Path) -> None:
    """They stand in the profile under their own name, near-duplicates join across both, and today's rule for personal data holds."""
    mail = Example(
        id="mail",
        source="x",
        messages=(Message(role="user", content="write to ada@example.org about the old bridge"), Message(role="assistant", content="go")),
    )
    old = OldRun(CHAMPION, {"train": (mail.model_copy(update={"source": f"{CHAMPION}/train.jsonl:1"}),), "validation": (), "holdout": ()})
    records = [Record(source=f"new.jsonl:{n}", fields=row) for n, row in enumerate(ROWS[:20], start=1)]
    near = {"prompt": "write to [EMAIL] about the old bridge!", "completion": "go"}
    write_lines(tmp_path / "records.jsonl", [*records, Record(source="new.jsonl:21", fields=near)])
    (tmp_path / "problems.jsonl").write_text("")
    out = tmp_path / "out"
    out.mkdir()
    figures = validate(tmp_path / "records.jsonl", tmp_path / "problems.jsonl", Data(source="x", old=Old(run=CHAMPION)), out, old=old)
    assert figures["old"] == 1
    examples = {example.source: example for example in read_lines(out / "examples.jsonl", Example)}
    theirs = examples[f"{CHAMPION}/train.jsonl:1"]
    assert "ada@" not in theirs.prompt[0].content
    assert theirs.group == examples["new.jsonl:21"].group != ""
    with (out / "profile.csv").open() as file:
        profile = {row["where"]: row for row in csv.DictReader(file)}
    assert profile[theirs.source]["status"] == "kept"


# What stays sealed


@pytest.mark.parametrize("holdout", [0.25, 50], ids=["a share", "a number"])
def test_what_was_held_out_is_held_out_again(tmp_path: Path, holdout: float) -> None:
    """Beside it stands the same share of what is new, and nothing that the old run has learnt from."""
    parts = splits_of([*OLD_EXAMPLES, *NEW], tmp_path / "new", Split(holdout=holdout), OLD)
    assert OLD.sealed <= parts["holdout"]
    assert not parts["holdout"] & OLD.learnt
    fresh = parts["holdout"] & ids(NEW)
    assert len(fresh) == round(80 * 0.25)
    assert not (parts["train"] | parts["validation"]) & OLD.sealed
    assert ids(OLD.splits["train"]) - parts["train"] <= parts["validation"], "the rest is learnt from"


def test_a_near_duplicate_of_what_was_sealed_goes_with_it(tmp_path: Path) -> None:
    """Or the answer to a held-out example would be learnt."""
    sealed = [OLD_EXAMPLES[90].model_copy(update={"group": "g"}), *OLD_EXAMPLES[91:]]
    twin = NEW[0].model_copy(update={"group": "g"})
    parts = splits_of([*OLD_EXAMPLES[:90], *sealed, twin, *NEW[1:]], tmp_path / "new", Split(holdout=0.25), OLD)
    assert {OLD_EXAMPLES[90].id, twin.id} <= parts["holdout"]


def test_where_nothing_old_is_left_the_holdout_is_drawn_anew(tmp_path: Path) -> None:
    """A source in which no example of the old run is left is split as any other."""
    assert splits_of(NEW, tmp_path / "a", Split(), OLD) == splits_of(NEW, tmp_path / "b", Split(), None)


@pytest.mark.parametrize("field", ["data", "backend"], ids=["learnt from again", "gone on from"])
def test_what_an_earlier_champion_was_trained_on_is_never_held_out(store: LocalStore, tmp_path: Path, field: str) -> None:
    """A source still holds what was left out of the champion: it stays left out, or is learnt from, and its weights may know it."""
    crown(store, tmp_path / "first", spec_of())
    pool, _, _ = join_old([*OLD_EXAMPLES, *NEW], OLD, 0.5)
    second = splits_of(pool, tmp_path / "split", Split(), OLD)
    splits: dict[SplitName, tuple[Example, ...]] = {
        name: tuple(read_lines(tmp_path / "split" / f"{name}.jsonl", Example)) for name in ("train", "validation", "holdout")
    }
    made_from = spec_of(**{"data": {"source": "x", "old": {"run": CHAMPION}}} if field == "data" else {"backend": {"start_from": CHAMPION}})
    crown(store, tmp_path / "second", made_from, OldRun("toy-second", splits), run_id="toy-second")
    left_out = OLD.learnt - set().union(*second.values())
    assert len(left_out) > 20, "half of the first one's training examples are in no split of the second"

    old = read_old_run(store, "toy-second")
    source = [*OLD_EXAMPLES, *NEW, *examples_of(toy_rows(80, seed=5))]
    assert not ids(join_old(source, old, 0.5)[0]) & left_out, "what was left out is nothing new"
    again = join_old(source, old, 1.0)[0]
    parts = splits_of(again, tmp_path / "third", Split(), old)
    assert left_out <= parts["train"] | parts["validation"]
    assert second["holdout"] <= parts["holdout"]


def _rewritten(one: Example, target: str | None = None) -> Example:
    """Return an example as another export has it: in upper case, and with another target where one is given."""
    said = (Message(role="user", content=one.prompt[-1].content.upper()), Message(role="assistant", content=target or one.target))
    return one.model_copy(update={"id": f"new{target}{one.id}", "messages": said, "source": f"new/{one.source}"})


@pytest.mark.parametrize("target", [None, "corrected"], ids=["written otherwise", "with another target"])
def test_what_the_source_writes_anew_stays_on_its_side(tmp_path: Path, target: str | None) -> None:
    """An export in upper case, or with targets put right, leaks nothing of what was sealed into training, and holds out nothing learnt."""
    source = [_rewritten(one, target) for one in OLD_EXAMPLES]
    pool, _, _ = join_old([*source, *NEW], OLD, 1.0)
    assert len(ids(pool)) == 200, "the old ones are superseded"
    parts = splits_of(pool, tmp_path / "new", Split(), OLD)
    assert ids(source[90:]) <= parts["holdout"]
    assert not parts["holdout"] & ids(source[:90])


def test_a_near_duplicate_of_what_was_left_out_is_not_held_out(tmp_path: Path) -> None:
    """The old run's weights may be gone on from, and know it nearly by heart."""
    kept, _, _ = join_old([*OLD_EXAMPLES, *NEW], OLD, 0.0)
    twins = [
        one.model_copy(
            update={"id": f"twin{one.id}", "messages": (Message(role="user", content=f"{one.prompt[-1].content}!"), one.messages[-1])}
        )
        for one in OLD.splits["train"]
    ]
    parts = splits_of([*kept, *twins], tmp_path / "new", Split(), OLD)
    assert not parts["holdout"] & ids(twins)
    assert parts["holdout"] & ids(NEW)


def test_what_is_gone_on_from_is_rehearsed_so(store: LocalStore, tmp_path: Path) -> None:
    """`validate` divides as the run would: what the weights have learnt is not held out."""
    crown(store, tmp_path / "run", spec_of())
    prompts = [{"prompt": one.prompt[-1].content, "completion": one.target} for one in (*OLD_EXAMPLES, *NEW)]
    write_jsonl(tmp_path / "toy.jsonl", prompts)
    spec = spec_of(data={"source": str(tmp_path / "toy.jsonl")}, store={"uri": store.uri}, backend={"start_from": CHAMPION})
    (tmp_path / "rehearsal").mkdir()
    rehearse(spec, tmp_path / "rehearsal")
    held_out = ids(read_lines(tmp_path / "rehearsal" / "split" / "holdout.jsonl", Example))
    assert OLD.sealed <= held_out
    assert not OLD.learnt & held_out


# The published run


def test_a_published_run_s_examples_are_read_by_split(store: LocalStore, tmp_path: Path) -> None:
    """With where each stood, so that findings can name it; the reference is by content."""
    crown(store, tmp_path / "run", spec_of())
    read = read_old_run(store, CHAMPION)
    assert {name: ids(part) for name, part in read.splits.items()} == {name: ids(part) for name, part in OLD.splits.items()}
    assert read.splits["holdout"][2].source == f"{CHAMPION}/holdout.jsonl:3"
    other = LocalStore(tmp_path / "other")
    crown(other, tmp_path / "other-run", spec_of(), OldRun(CHAMPION, OLD.splits | {"train": OLD.splits["train"][1:]}))
    assert old_run_ref(store, CHAMPION).sha256 != old_run_ref(other, CHAMPION).sha256


def test_a_run_without_its_examples_says_what_to_do(store: LocalStore, tmp_path: Path) -> None:
    """Runs of earlier versions published the holdout alone."""
    crown(store, tmp_path / "run", spec_of(), drop=("train.jsonl",))
    with pytest.raises(DataError, match=r"published without train\.jsonl"):
        old_run_ref(store, CHAMPION)


# The composition


def composed(store: LocalStore, tmp_path: Path, examples: Sequence[Example], spec: RunSpec, left: float | None = None) -> Composition:
    """Compose from a source's examples."""
    write_lines(tmp_path / "examples.jsonl", examples)
    return compose(store, spec, tmp_path / "examples.jsonl", left)


def test_the_first_training_is_from_the_source_alone(store: LocalStore, tmp_path: Path) -> None:
    """Without a champion there is nothing old, and the spec stays what it is."""
    made = composed(store, tmp_path, NEW, spec_of())
    assert (made.champion, made.new, made.nothing_new, made.spec) == (None, 80, False, spec_of())


def test_the_spec_says_all_of_it(store: LocalStore, tmp_path: Path) -> None:
    """Whose examples, how many of them, from which weights, and what may be spent; what is new is counted by content."""
    crown(store, tmp_path / "run", spec_of())
    spec = spec_of(retrain={"keep_old": 0.5, "warm_start": True})
    made = composed(store, tmp_path, [*OLD_EXAMPLES, *NEW[:7]], spec, left=3.0)
    assert (made.new, made.known, made.text) == (7, 120, "7 new examples")
    assert made.spec.data.old == Old(run=CHAMPION, keep=0.5)
    assert made.spec.backend.start_from == CHAMPION
    assert made.spec.budget.max_usd == 3.0
    cold = composed(store, tmp_path, NEW, spec_of())
    assert cold.spec.backend.start_from is None


def test_what_is_only_written_otherwise_is_not_new(store: LocalStore, tmp_path: Path) -> None:
    """An export in another case holds what a run would drop as duplicates; the same prompt with another target is new."""
    crown(store, tmp_path / "run", spec_of())
    shouted = [_rewritten(one) for one in OLD_EXAMPLES]
    assert composed(store, tmp_path, shouted, spec_of()).nothing_new
    made = composed(store, tmp_path, [*shouted[:-3], *(_rewritten(one, "corrected") for one in OLD_EXAMPLES[-3:])], spec_of())
    assert (made.new, made.known) == (3, 117)


def test_the_champion_is_not_made_again(store: LocalStore, tmp_path: Path) -> None:
    """No new example: nothing new; unless the base model or the method is another one, as after a sunset."""
    crown(store, tmp_path / "run", spec_of())
    assert composed(store, tmp_path, OLD_EXAMPLES, spec_of(retrain={"warm_start": True})).nothing_new
    successor = composed(store, tmp_path, OLD_EXAMPLES, spec_of(backend={"model": "owner/successor"}))
    assert not successor.nothing_new
    assert "owner/successor" in successor.text


def test_what_was_composed_is_kept_for_whoever_goes_on(store: LocalStore, tmp_path: Path) -> None:
    """Under the occurrence, whatever a webhook calls it; damaged, it is told and not guessed."""
    made = composed(store, tmp_path, NEW, spec_of())
    signal = Signal(kind="request", task="toy", digest="../we:ird/id", reason="because", at="2026-11-26T00:00:00+00:00")
    assert kept_composition(store, signal) is None
    keep_composition(store, signal, made)
    assert kept_composition(store, signal) == made
    [key] = store.list("retrains/toy/")
    store.put(key, b"{}")
    with pytest.raises(IntegrityError, match="is no composition"):
        kept_composition(store, signal)


def test_what_a_failed_attempt_had_composed_is_not_gone_on_with(store: LocalStore, tmp_path: Path) -> None:
    """A start after a failure composes anew; where it dies before it has, its successor finds nothing of days ago."""
    spec = spec_of(store={"uri": store.uri})
    made = composed(store, tmp_path, NEW, spec)
    signal = Signal(kind="data", task="toy", digest="d1", reason="because", at="2026-11-26T00:00:00+00:00")
    keep_composition(store, signal, made)
    resumed, anew = (Admission(decision="start", reason="", resumes=resumes) for resumes in (True, False))
    assert begun_before(spec, signal, resumed) == made
    assert begun_before(spec, signal, anew) is None
    assert begun_before(spec, signal, resumed) is None


# What it goes on from


def test_weights_to_go_on_from_are_found_by_run(store: LocalStore, tmp_path: Path) -> None:
    """Of a run with the same base model and the same shape of adapter."""
    weights = {"adapter/adapter_model.safetensors": "w", "adapter/adapter_config.json": "{}", "adapter/tokenizer.json": "{}"}
    crown(store, tmp_path / "run", spec_of(), weights=weights)
    folder = start_folder(store, CHAMPION, Backend(), ModelRef(name="smollm2-135m-instruct", revision="", sha256="base"))
    assert {path.name for path in folder.iterdir()} >= {"adapter_model.safetensors", "adapter_config.json"}
    assert start_ref(store, CHAMPION, Backend()).path == CHAMPION


@pytest.mark.parametrize(
    ("backend", "named"),
    [
        (Backend(method=Method(r=8)), "r 16 there, 8 here"),
        (Backend(method=Method(kind="full")), "kind lora there, full here"),
        (Backend(model="owner/other"), "tuned from smollm2-135m-instruct, and backend.model is owner/other"),
        (Backend(provider="openai", model="gpt-4.1"), "trained by local, and backend.provider is openai"),
    ],
)
def test_weights_of_another_shape_are_refused(store: LocalStore, tmp_path: Path, backend: Backend, named: str) -> None:
    """The message names both values and the fields to change, of which a retraining sets one, before anything is trained."""
    crown(store, tmp_path / "run", spec_of())
    with pytest.raises(SpecError, match=named) as told:
        start_ref(store, CHAMPION, backend)
    assert told.value.problems[0].where == "backend.start_from"
    assert "retrain.warm_start: false" in told.value.problems[0].reason


def test_weights_of_another_base_model_under_the_same_name_are_refused(store: LocalStore, tmp_path: Path) -> None:
    """A folder's content may have changed since."""
    crown(store, tmp_path / "run", spec_of())
    with pytest.raises(IntegrityError, match="was tuned from smollm2-135m-instruct with SHA-256 base"):
        start_folder(store, CHAMPION, Backend(), ModelRef(name="smollm2-135m-instruct", revision="", sha256="changed"))


def test_a_tuned_model_is_gone_on_from_where_it_lives(store: LocalStore, tmp_path: Path) -> None:
    """By its provider's own name for it, at the same address alone."""
    spec = spec_of(backend={"provider": "openai", "model": "gpt-4.1"}, learning_curve={"shares": []})
    known = {"base_model": "gpt-4.1", "model": "ft:gpt-4.1:x", "job": "j", "key": "k", "shutdown": None, "owns_weights": False}
    managed = ManagedModel.model_validate({"provider": "openai", "address": "https://a"} | known)
    crown(store, tmp_path / "run", spec, weights={"model/managed.json": managed.model_dump_json()})
    assert start_model(store, CHAMPION, spec.backend, "https://a") == "ft:gpt-4.1:x"
    with pytest.raises(SpecError, match="lives at https://a"):
        start_model(store, CHAMPION, spec.backend, "https://b")


@pytest.mark.parametrize("block", ["backend", "retrain"])
def test_where_nobody_can_go_on_the_spec_says_so(block: str) -> None:
    """A provider that tunes base models alone is refused with the field's name."""
    provider = {"provider": "together", "model": "x"}
    fields = {"backend": provider | {"start_from": "run"}} if block == "backend" else {"backend": provider, "retrain": {"warm_start": True}}
    with pytest.raises(SpecError, match=r"(start_from|warm_start) is for local, openai, azure"):
        spec_of(**fields, learning_curve={"shares": []})


def test_what_decides_no_result_is_in_no_key() -> None:
    """Who must approve a promotion changes no stage's key, and what is not gone on from changes no order's."""
    from tasks.policies import _content

    asked = spec_of(gate={"approve_promotion": True, "approve_within_hours": 1})
    assert _content(asked) == _content(spec_of())
    assert _content(asked.gate) == _content(spec_of().gate)
    assert "approve_promotion" not in json.dumps(_content(spec_of().gate))
