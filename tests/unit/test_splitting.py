"""The split: a partition, by group, in proportion, by time, sealed, and the same in every order."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.data.lines import read_lines, write_lines
from prooftune.data.splitting import split, verify_seal
from prooftune.errors import DataError, IntegrityError
from prooftune.spec import Split
from prooftune.types import Example, Message, SplitName

Parts = dict[str, list[Example]]


def example(number: int, *, target: str = "a", group: str = "", **metadata: Any) -> Example:
    """One example, numbered."""
    messages = (Message(role="user", content=f"question {number}"), Message(role="assistant", content=target))
    return Example(id=f"{number:016x}", source=f"t.jsonl:{number}", messages=messages, group=group, metadata=metadata)


def run(tmp_path: Path, examples: list[Example], spec: Split) -> tuple[Parts, dict[str, Any]]:
    """Split the examples and read the parts back."""
    tmp_path.mkdir(exist_ok=True)
    write_lines(tmp_path / "examples.jsonl", examples)
    figures = split(tmp_path / "examples.jsonl", spec, tmp_path)
    return {name: list(read_lines(tmp_path / f"{name}.jsonl", Example)) for name in get_args(SplitName)}, figures


@given(
    groups=st.lists(st.integers(0, 40), min_size=40, max_size=120),
    customers=st.integers(1, 60),
    holdout=st.sampled_from([0.1, 0.25, 0.4, 5, 9]),
    validation=st.sampled_from([0.1, 0.2, 4]),
    seed=st.integers(0, 5),
    chance=st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_split_is_a_partition_by_group_in_any_order(
    tmp_path_factory: pytest.TempPathFactory,
    groups: list[int],
    customers: int,
    holdout: float,
    validation: float,
    seed: int,
    chance: random.Random,
) -> None:
    """Nothing is lost or doubled, no group crosses, counts come within a group's size, and the input's order does not matter."""
    rows = [
        example(
            number, target="xyz"[number % 3], group=f"g{group}" if group else "", customer=f"c{number % customers}" if number % 7 else None
        )
        for number, group in enumerate(groups)
    ]
    spec = Split(holdout=holdout, validation=validation, seed=seed)
    folder = tmp_path_factory.mktemp("split")
    parts, figures = run(folder, rows, spec)
    assert Counter(row.id for part in parts.values() for row in part) == Counter(row.id for row in rows)
    owners: dict[str, set[str]] = {}
    for name, part in parts.items():
        for row in part:
            owners.setdefault(row.group or row.id, set()).add(name)
    assert all(len(names) == 1 for names in owners.values())
    for name, amount in (("holdout", holdout), ("validation", validation)):
        want = amount if isinstance(amount, int) else max(1, round(amount * len(rows)))
        assert want - figures["largest_group"] < len(parts[name]) <= want
    shuffled = list(rows)
    chance.shuffle(shuffled)
    again, figures_again = run(folder / "again", shuffled, spec)
    assert (again, figures_again) == (parts, figures)


def test_group_by_and_clusters_tie_transitively(tmp_path: Path) -> None:
    """Customer A shares a cluster with customer B: all of both stay together."""
    rows = [example(n, customer=f"c{n // 4}", group="bridge" if n in (3, 4) else "") for n in range(80)]
    parts, figures = run(tmp_path, rows, Split(group_by="customer"))
    homes = {name for name, part in parts.items() if any(row.metadata["customer"] in ("c0", "c1") for row in part)}
    assert len(homes) == 1
    assert (figures["groups"], figures["largest_group"]) == (19, 8)


@pytest.mark.parametrize("spec", [Split(), Split(stratify_by="lang")])
def test_every_split_keeps_the_proportions(tmp_path: Path, spec: Split) -> None:
    """Each stratum is held out in its share, to within one example; rare ones are not lost."""
    rows = [example(n, target="rare" if n % 20 == 0 else "often", lang="de" if n % 10 < 3 else "en") for n in range(400)]
    parts, figures = run(tmp_path, rows, spec)
    assert figures["counts"] == {"holdout": 100, "validation": 40, "train": 260, "unused": 0}
    for counts in figures["strata"].values():
        assert counts["holdout"] == pytest.approx(0.25 * sum(counts.values()), abs=1)
        assert counts["validation"] == pytest.approx(0.1 * sum(counts.values()), abs=1)
    assert len(parts["holdout"]) == 100


def test_free_text_targets_are_not_strata(tmp_path: Path) -> None:
    """Targets that hardly repeat are no classes."""
    _, figures = run(tmp_path, [example(n, target=f"answer {n}") for n in range(50)], Split())
    assert figures["stratified_by"] is None


@pytest.mark.parametrize("kind", ["iso", "number"])
def test_time_puts_the_newest_into_the_holdout(tmp_path: Path, kind: str) -> None:
    """Training ends before validation begins, and validation before the holdout."""
    rows = [example(n, at=f"2026-{1 + n // 28:02d}-{1 + n % 28:02d}T00:00:00" if kind == "iso" else 1000 + n) for n in range(200)]
    parts, figures = run(tmp_path, rows, Split(time_by="at"))
    at = {name: [row.metadata["at"] for row in part] for name, part in parts.items()}
    assert max(at["train"]) < min(at["validation"])
    assert max(at["validation"]) < min(at["holdout"])
    assert figures["order"] == "time"


def test_train_is_capped_in_proportion(tmp_path: Path) -> None:
    """``train`` takes that many of what is left, and says how many go unused."""
    rows = [example(n, target="ab"[n % 2]) for n in range(200)]
    parts, figures = run(tmp_path, rows, Split(holdout=50, validation=20, train=30))
    assert figures["counts"] == {"holdout": 50, "validation": 20, "train": 30, "unused": 100}
    assert Counter(row.target for row in parts["train"]) == {"a": 15, "b": 15}


def test_another_seed_gives_another_holdout(tmp_path: Path) -> None:
    """The seed decides, and nothing else."""
    rows = [example(n) for n in range(100)]
    seals = [run(tmp_path / str(n), rows, Split(seed=seed))[1]["holdout_sha256"] for n, seed in enumerate((1, 1, 2))]
    assert seals[0] == seals[1] != seals[2]


@pytest.mark.parametrize(
    ("rows", "spec", "says"),
    [
        ([example(n) for n in range(5)], Split(holdout=4, validation=1), "5 examples"),
        ([example(n, group="one") for n in range(50)], Split(), "in 1 groups"),
        ([example(n, group=f"g{n % 3}") for n in range(90)], Split(holdout=0.1), "largest of 3 groups holds 30"),
        ([example(n) for n in range(50)], Split(group_by="customer"), "no example has a column 'customer'"),
        ([example(n, at="yesterday") for n in range(50)], Split(time_by="at"), "ISO 8601"),
        ([], Split(), "0 examples"),
    ],
)
def test_what_cannot_be_split_says_why(tmp_path: Path, rows: list[Example], spec: Split, says: str) -> None:
    """The error names the numbers, the column or the value that stands in the way."""
    with pytest.raises(DataError, match=says):
        run(tmp_path, rows, spec)


def test_the_seal_breaks_when_one_byte_changes(tmp_path: Path) -> None:
    """A sealed holdout passes; a touched one does not."""
    _, figures = run(tmp_path, [example(n) for n in range(50)], Split())
    holdout = tmp_path / "holdout.jsonl"
    verify_seal(holdout, figures["holdout_sha256"])
    holdout.write_bytes(holdout.read_bytes().replace(b"question", b"Question", 1))
    with pytest.raises(IntegrityError, match="changed after the split"):
        verify_seal(holdout, figures["holdout_sha256"])


def test_a_cut_input_is_an_integrity_error(tmp_path: Path) -> None:
    """A line that no stage wrote is not split around."""
    (tmp_path / "examples.jsonl").write_text(example(1).model_dump_json() + "\n" + example(2).model_dump_json()[:40])
    with pytest.raises(IntegrityError, match=r"examples\.jsonl:2"):
        split(tmp_path / "examples.jsonl", Split(), tmp_path)
