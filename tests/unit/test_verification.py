"""``verify``: an untouched run passes; whatever is changed is named, also where every digest was made to fit again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fixtures_runs import Trained, train_toy, write_data_manifest
from tests_support import toy_rows

from prooftune.data.lines import read_lines
from prooftune.evaluation.champion import evaluate_against_champion
from prooftune.evaluation.gate import decide_and_write, worth_training
from prooftune.evidence import Champion
from prooftune.lineage import digest_of, lineage
from prooftune.storage.disk import sha256_of
from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import publish, read_manifest
from prooftune.storage.objects import NoSuchObject
from prooftune.storage.registry import register
from prooftune.types import ArtifactRef, Decision, ModelRef, Prediction
from prooftune.verification import Verification, verify_run
from prooftune.verification.audit import differences

RUN, FORMER = "toy-run", "toy-former"
Edit = Callable[[Path], None]


def facts_of(trained: Trained, run_id: str) -> dict[str, Any]:
    """What the manifest says of a run."""
    data = json.loads((trained.folder / "data_manifest.json").read_bytes())
    model = ModelRef(name=str(trained.model), revision="", sha256="1" * 64)
    return {
        "run_id": run_id,
        "name": "toy",
        "decision": json.loads((trained.folder / "decision.json").read_bytes()),
        "evaluations": [evaluation.model_dump(mode="json") for evaluation in trained.evaluations],
        "stages": [],
        "lineage": lineage(trained.spec, "2" * 64, data, model, {"prices": "3" * 64}, {"gate": 2}),
    }


def decide(trained: Trained, champion: Champion) -> None:
    """Let the gate decide, as its stage does."""
    folder = trained.folder
    answers = {name: list(read_lines(folder / f"{name}.predictions.jsonl", Prediction)) for name in ("zero_shot", "candidate")}
    weighed = {"champion": champion, "look": 1, "alpha": None}
    decide_and_write({"zero_shot": answers["zero_shot"]}, answers["candidate"], folder / "holdout.jsonl", trained.spec, weighed, folder)


def enter(store: LocalStore, trained: Trained, run_id: str) -> ArtifactRef:
    """Publish and register."""
    manifest = publish(store, run_id, trained.files(), facts_of(trained, run_id))
    decision = Decision.model_validate_json((trained.folder / "decision.json").read_bytes())
    register(store, "toy", run_id, manifest, decision)
    return manifest


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Trained, Path]:
    """A run that met a champion on another holdout, and the store that holds both."""
    home = tmp_path_factory.mktemp("verified")
    store = LocalStore(home / "store")
    former = train_toy(home / "former", tiny_model, toy_rows(240, seed=0), epochs=2)
    write_data_manifest(former)
    decide(former, Champion(run_id=None))
    enter(store, former, FORMER)
    run = train_toy(home / "run", tiny_model, toy_rows(240, seed=1))
    write_data_manifest(run)
    folder = run.folder
    train, validation, holdout = (folder / f"{name}.jsonl" for name in ("train", "validation", "holdout"))
    data, answers = (train, validation, holdout, run.holdout_sha256), folder / "candidate.predictions.jsonl"
    met = evaluate_against_champion(store, FORMER, *data, answers, *run.opened, run.spec, folder)
    decide(run, Champion.model_validate(met))
    enter(store, run, RUN)
    return run, home / "store"


@pytest.fixture
def store(made: tuple[Trained, Path], tmp_path: Path) -> LocalStore:
    """A copy of that store to tamper with."""
    shutil.copytree(made[1], tmp_path / "store")
    return LocalStore(tmp_path / "store")


@pytest.fixture
def forged(made: tuple[Trained, Path], store: LocalStore, tmp_path: Path) -> Callable[[Mapping[str, Edit]], Verification]:
    """Publish the run once more with edited files, every digest of the manifest fitting, and verify it."""
    run = made[0]

    def forge(edits: Mapping[str, Edit], facts: Mapping[str, Any] | None = None) -> Verification:
        folder = tmp_path / "forged"
        shutil.copytree(run.folder, folder)
        for name, edit in edits.items():
            edit(folder / name)
        copy = Trained(folder, run.spec, run.model, run.counts)
        publish(store, "toy-forged", copy.files(), facts_of(run, "toy-forged") | dict(facts or {}))
        return verify_run(store, "toy-forged")

    return forge


def in_json(change: Callable[[Any], None]) -> Edit:
    """Change a JSON file."""

    def edit(path: Path) -> None:
        value = json.loads(path.read_bytes())
        change(value)
        path.write_text(json.dumps(value))

    return edit


def in_line(number: int, change: Callable[[Any], None]) -> Edit:
    """Change a line of a JSONL file."""

    def edit(path: Path) -> None:
        lines = path.read_text().splitlines()
        value = json.loads(lines[number])
        change(value)
        lines[number] = json.dumps(value)
        path.write_text("\n".join(lines) + "\n")

    return edit


def named(found: Verification) -> set[tuple[str, str]]:
    """File and field of each mismatch."""
    return {(one.file, one.what) for one in found.mismatches}


def test_an_untouched_run_matches(store: LocalStore) -> None:
    """Both runs pass, and everything was looked at."""
    for run in (RUN, FORMER):
        found = verify_run(store, run)
        assert found.mismatches == ()
        assert found.matches
    assert found.manifest_sha256 == store.measure(f"runs/{FORMER}/manifest.json").sha256
    assert {"files", "digests", "counts", "examples", "answers", "scores", "metrics", "comparisons", "decisions"} <= set(found.checked)
    assert found.checked["examples"] == 60
    assert found.checked["scores"] >= 2 * 60
    assert [one.partition(":")[0] for one in found.not_recomputed] == [".predictions.jsonl"]


def test_an_unknown_run_names_the_nearest(store: LocalStore) -> None:
    """A typo is answered with what there is."""
    with pytest.raises(NoSuchObject, match="such as toy-run"):
        verify_run(store, "toy-rum")


@pytest.mark.parametrize(
    "name", ["model/model.safetensors", "holdout.jsonl", "candidate.predictions.jsonl", "decision.json", "spec.yaml", "log.jsonl"]
)
def test_changed_bytes_are_named_with_both_digests(store: LocalStore, name: str) -> None:
    """One flipped bit of any file, and nothing that rests on it is called wrong as well."""
    ref = read_manifest(store, RUN).files[name]
    content = bytearray((store.root / ref.key).read_bytes())
    content[len(content) // 2] ^= 1
    (store.root / ref.key).write_bytes(content)
    found = verify_run(store, RUN)
    assert not found.matches
    first = found.mismatches[0]
    assert (first.file, first.what) == (name, "content")
    assert ref.sha256 in first.expected
    assert {one.file for one in found.mismatches} == {name}


def test_a_lost_file_is_named(store: LocalStore) -> None:
    """What the manifest lists and the store lacks."""
    (store.root / read_manifest(store, RUN).files["log.jsonl"].key).unlink()
    [lost] = verify_run(store, RUN).mismatches
    assert (lost.file, lost.found) == ("log.jsonl", "nothing")


def test_a_manifest_that_is_not_the_registered_one_is_named(store: LocalStore) -> None:
    """The registry keeps the manifest's digest and decision, so a manifest that was written anew shows."""
    key = f"runs/{RUN}/manifest.json"
    manifest = json.loads(store.get(key))
    manifest["facts"]["stages"] = [{"name": "train", "seconds": 1.0}]
    store.put(key, json.dumps(manifest).encode())
    assert named(verify_run(store, RUN)) == {("manifest.json", "SHA-256 in the registry")}


def set_to(name: str, value: Any) -> Callable[[Any], None]:
    """Set a dotted field."""

    def change(document: Any) -> None:
        *parents, leaf = name.split(".")
        for parent in parents:
            document = document[int(parent)] if parent.isdigit() else document[parent]
        document[int(leaf) if leaf.isdigit() else leaf] = value

    return change


FORGERIES: dict[str, dict[str, dict[str, Any]]] = {
    "figures": {
        "candidate.evaluation.json": {"metrics.exact_match.value": 0.999, "metrics.macro_f1.ci_low": 0.1},
        "zero_shot.evaluation.json": {"answer_tokens_mean": 1.5, "holdout_sha256": "0" * 64, "latency_p95_s": 0.001, "refusals": 0.5},
        "data_manifest.json": {"seal": "0" * 64},
        "slices.json": {"0.difference": 0.0, "1.ci_low": -0.5},
    },
    "decision": {"decision.json": {"verdict": "keep_baseline", "p_value": 0.5, "checks.0.passed": False, "reasons.0": "It is better."}},
    "champion": {"champion.json": {"rivals.0.difference": -0.9, "rivals.1.seen": 9, "same_holdout": True}},
}
"""Values to set, by file and dotted field."""


@pytest.mark.parametrize("kind", FORGERIES)
def test_each_forged_figure_is_named(forged: Any, kind: str) -> None:
    """Digests that fit do not help: a figure that does not follow from the answers is named with file and field."""

    def edit_of(values: dict[str, Any]) -> Edit:
        return in_json(lambda document: [set_to(name, value)(document) for name, value in values.items()])

    found = forged({file: edit_of(values) for file, values in FORGERIES[kind].items()})
    expected = {(file, re.sub(r"\.?\b(\d+)\b", r"[\1]", name)) for file, values in FORGERIES[kind].items() for name in values}
    assert expected <= named(found)
    assert not found.matches


def test_forged_scores_and_counts_are_named(forged: Any) -> None:
    """A score beside its answer, and the size of a split."""
    found = forged(
        {
            "candidate.predictions.jsonl": in_line(3, set_to("scores.exact_match", 0.5)),
            "data_manifest.json": in_json(lambda data: data["splits"]["train.jsonl"].update(examples=159)),
        }
    )
    assert ("candidate.predictions.jsonl", "score exact_match of 1 answers") in named(found)
    assert ("data_manifest.json", "splits.train.jsonl.examples") in named(found)


def test_a_forged_target_in_an_answer_is_named(forged: Any) -> None:
    """Answers are judged by the holdout's targets, not by those written beside them."""
    found = forged({"zero_shot.predictions.jsonl": in_line(0, set_to("target", "elsewhere"))})
    assert any(file == "zero_shot.predictions.jsonl" and what.startswith("target of ") for file, what in named(found))


def test_a_forged_target_in_the_holdout_is_named(forged: Any) -> None:
    """Even with a seal that fits: an example's id is the digest of its messages."""

    def edit(path: Path) -> None:
        in_line(0, lambda example: example["messages"][-1].update(content="elsewhere"))(path)
        sealed = sha256_of(path)
        for name in ("zero_shot", "candidate"):
            in_json(set_to("holdout_sha256", sealed))(path.with_name(f"{name}.evaluation.json"))
        in_json(set_to("seal", sealed))(path.with_name("data_manifest.json"))
        in_json(lambda data: data["splits"]["holdout.jsonl"].update(sha256=sealed))(path.with_name("data_manifest.json"))

    files = {what.partition(" ")[0]: file for file, what in named(forged({"holdout.jsonl": edit}))}
    assert files["id"] == "holdout.jsonl"
    assert files["seal"] == "data_manifest.json"


def test_a_forged_answer_takes_metrics_and_verdict_with_it(forged: Any) -> None:
    """An answer that was put right without touching anything else shows in its score, the metrics and the decision."""

    def give_answers(path: Path) -> None:
        for number in range(30):
            in_line(number, lambda one: one.update(answer=one["target"]))(path)

    found = named(forged({"zero_shot.predictions.jsonl": give_answers}))
    assert ("zero_shot.predictions.jsonl", "score exact_match of 30 answers") in found
    assert ("zero_shot.evaluation.json", "metrics.exact_match.value") in found
    assert ("decision.json", "baseline_value") in found


def test_left_out_answers_are_named(forged: Any) -> None:
    """A contestant that did not answer the whole holdout is found out, whatever its metrics."""
    found = forged({"candidate.predictions.jsonl": lambda path: path.write_text("".join(path.read_text().splitlines(keepends=True)[:50]))})
    assert ("candidate.predictions.jsonl", "answers to held-out examples") in named(found)
    assert ("decision.json", "the decision") in named(found)


def test_an_edited_spec_is_named(forged: Any) -> None:
    """A weaker gate than the run was decided by does not fit the lineage."""
    found = forged({"spec.yaml": lambda path: path.write_text(path.read_text().replace("min_effect: 0.02", "min_effect: 0.01"))})
    assert ("spec.yaml", "SHA-256, by the lineage,") in named(found)


def test_an_edited_lineage_is_named(forged: Any, made: tuple[Trained, Path]) -> None:
    """Its own digest covers all its parts."""
    known = facts_of(made[0], "toy-forged")["lineage"]
    assert ("manifest.json", "facts.lineage.sha256") in named(forged({}, {"lineage": known | {"seal": "0" * 64}}))


def test_a_fitting_but_false_lineage_is_named(forged: Any, made: tuple[Trained, Path]) -> None:
    """A lineage whose own digest fits still has to say what the files say."""
    edited = facts_of(made[0], "toy-forged")["lineage"] | {"seal": "0" * 64}
    edited["sha256"] = digest_of(edited)
    assert named(forged({}, {"lineage": edited})) == {("data_manifest.json", "seal")}


def test_facts_that_say_otherwise_are_named(forged: Any, made: tuple[Trained, Path]) -> None:
    """What ``show`` prints comes from the manifest's facts, so they have to be those of the files."""
    facts = facts_of(made[0], "toy-forged")
    facts["decision"]["difference"] = 0.99
    facts["evaluations"][0]["metrics"]["exact_match"]["value"] = 0.99
    found = named(forged({}, facts))
    assert ("manifest.json", "facts.decision.difference") in found
    assert ("manifest.json", "facts.evaluations.zero_shot.metrics.exact_match.value") in found


def test_the_champions_own_run_must_be_whole(store: LocalStore) -> None:
    """The comparison rests on the champion's published answers: if these were changed, its run is named; if they are gone, too."""
    ref = read_manifest(store, FORMER).files["candidate.predictions.jsonl"]
    (store.root / ref.key).write_bytes(b"{}\n")
    assert {one.file for one in verify_run(store, RUN).mismatches} == {f"{FORMER}/candidate.predictions.jsonl"}
    store.delete(f"runs/{FORMER}/manifest.json")
    assert ("champion.json", "run_id") in named(verify_run(store, RUN))


def test_a_run_that_stopped_before_training_is_verified_too(made: tuple[Trained, Path], tmp_path: Path) -> None:
    """``do_not_fine_tune`` follows from counts and baselines; a forged reason shows."""
    run = made[0]
    folder = tmp_path / "stopped"
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("candidate.*", "model", "champion*", "slices.json", "decision.json"))
    spec = run.spec.model_copy(update={"data": run.spec.data.model_copy(update={"min_examples": 1000})})
    (folder / "spec.yaml").write_text(spec.resolved_yaml())
    baseline = run.evaluations[0]
    decision = worth_training(run.counts["train"], run.counts["holdout"], [baseline], spec)
    assert decision is not None
    store = LocalStore(tmp_path / "store")
    for run_id, told in (("toy-stopped", decision), ("toy-forged", decision.model_copy(update={"reasons": ("It is raining.",)}))):
        (folder / "decision.json").write_text(told.model_dump_json())
        facts = {"name": "toy", "decision": told.model_dump(mode="json"), "evaluations": [baseline.model_dump(mode="json")]}
        publish(store, run_id, Trained(folder, spec, run.model, run.counts).files(), facts)
    assert verify_run(store, "toy-stopped").mismatches == ()
    assert named(verify_run(store, "toy-forged")) == {("decision.json", "reasons[0]")}


@pytest.mark.parametrize(
    ("found", "expected", "where"),
    [
        ({"a": 1}, {"a": 1.0 + 1e-12}, []),
        ({"a": 1}, {"a": 1.0 + 1e-6}, ["a"]),
        ({"a": True}, {"a": 1}, ["a"]),
        ({"a": None}, {}, ["a"]),
        ([1, 2], [1, 3], ["[1]"]),
        ([1], [1, 2], [""]),
        ({"a": [{"b": "x"}]}, {"a": [{"b": "y"}]}, ["a[0].b"]),
        (float("nan"), 1.0, [""]),
    ],
)
def test_differences_name_the_place(found: object, expected: object, where: list[str]) -> None:
    """Numbers agree within rounding; everything else has to be the same, of the same type."""
    assert [place for place, _, _ in differences(found, expected, "")] == where
