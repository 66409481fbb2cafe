"""Old and new examples in one retraining: what is learnt from again, and what was held out stays sealed."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fixtures_old import CHAMPION, NEW, OLD, OLD_EXAMPLES, ROWS, crown, ids, rewritten, spec_of
from fixtures_runs import examples_of
from hypothesis import given
from hypothesis import strategies as st
from tests_support import toy_rows, write_jsonl

from flows.rehearsal import rehearse
from prooftune.data.lines import read_lines, write_lines
from prooftune.data.old import OldRun, join_old, old_run_ref, read_old_run
from prooftune.data.splitting import split
from prooftune.data.validation import validate
from prooftune.errors import DataError
from prooftune.spec import Data, Old, Split
from prooftune.storage.local import LocalStore
from prooftune.types import Example, Message, Record, SplitName

pytest_plugins = ["fixtures_old"]


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


@pytest.mark.parametrize("target", [None, "corrected"], ids=["written otherwise", "with another target"])
def test_what_the_source_writes_anew_stays_on_its_side(tmp_path: Path, target: str | None) -> None:
    """An export in upper case, or with targets put right, leaks nothing of what was sealed into training, and holds out nothing learnt."""
    source = [rewritten(one, target) for one in OLD_EXAMPLES]
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
