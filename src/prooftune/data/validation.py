"""The validate stage: records become clean examples, and every flaw becomes a finding."""

from __future__ import annotations

import csv
import itertools
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from prooftune.data import shapes
from prooftune.data.classes import class_sizes
from prooftune.data.cleaning import drop_exact_duplicates, group_near_duplicates, handle_pii, place, settle_contradictions, target_key
from prooftune.data.duplicates import Clusters
from prooftune.data.expectations import check_expectations
from prooftune.data.lines import read_lines, write_lines
from prooftune.data.old import OldRun, join_old
from prooftune.errors import DataError, Problem
from prooftune.spec import Data
from prooftune.types import Example, Finding, Progress, Record, Report, no_report

logger = logging.getLogger(__name__)

# fmt: off
PROFILE = (
    "where", "id", "status", "codes", "messages", "roles", "prompt_chars", "target_chars", "group", "target_id", "class_size",
    "class_share", "is_kept", "is_rejected", "is_duplicate", "is_contradiction", "is_near_duplicate",
)
# fmt: on
TOP_TARGETS = 20
REPORT_EVERY = 2000


def validate(
    records: Path, problems: Path, data: Data, out: Path, report: Report = no_report, old: OldRun | None = None
) -> dict[str, object]:
    """Write the examples that go on to the split, and all findings.

    Into ``out`` go ``examples.jsonl`` (types.Example, source order), ``findings.jsonl`` (types.Finding, source order, those of ingest
    included), ``profile.csv`` (a row a record, no text) and ``data_docs/index.html``.

    A row is *invalid* when ingest could not read it or it has no valid form of ``data.shape``; only that counts for ``data.on_invalid``.
    Duplicates, contradictions and personal data are flaws of valid rows: cleaning deals with them as the spec says. Personal data comes
    first, so that rows that differ only in a phone number count as the same. The examples of ``old`` are cleaned together with the
    source's; the figures count them as rows.

    Raises:
        DataError: invalid rows with ``on_invalid: fail``; personal data with ``pii: stop``; no example left; a failed critical expectation.
    """
    findings = list(read_lines(problems, Finding))
    data = data.model_copy(update={"shape": _shape(records, data)})
    converted: list[Example] = []
    for one in shapes.convert(_counted(records, report), data):
        if isinstance(one, Finding):
            findings.append(one)
        else:
            converted.append(one)
    rejected = [finding for finding in findings if finding.action == "dropped"]
    _refuse(rejected, converted, data)

    kept, added, flaws, clusters = _clean(converted, data, old)
    converted += added
    findings = sorted([*findings, *flaws], key=lambda finding: (place(finding.where), finding.code))
    if not kept:
        raise DataError(f"all {len(converted)} valid examples were dropped in cleaning:", _problems(findings))

    write_lines(out / "examples.jsonl", kept)
    write_lines(out / "findings.jsonl", findings)
    _write_profile(out / "profile.csv", converted, kept, findings, {finding.where for finding in rejected})
    (out / "data_docs").mkdir()
    expectations = check_expectations(out / "profile.csv", out / "data_docs")
    figures = _figures(converted, kept, findings, rejected, clusters)
    logger.info("kept %s of %s rows, %s findings", f"{len(kept):,}", f"{figures['rows']:,}", f"{len(findings):,}")
    return {**figures, "shape": data.shape, "expectations": expectations} | ({} if old is None else {"old": len(added)})


def _clean(examples: Sequence[Example], data: Data, old: OldRun | None) -> tuple[list[Example], list[Example], list[Finding], Clusters]:
    """Return the examples that go on, those of the old run that were looked at, the findings on both, and the near-duplicates."""
    kept, personal = handle_pii(examples, data.pii)
    added: list[Example] = []
    if old is not None:
        kept, added, joined = join_old(kept, old, data.old.keep)
        theirs = {example.id for example in added}
        rest, again = handle_pii([example for example in kept if example.id in theirs], data.pii)  # its policy may have been another
        kept, personal = [*(example for example in kept if example.id not in theirs), *rest], [*personal, *joined, *again]
    kept, duplicates = drop_exact_duplicates(kept)
    kept, contradictions = settle_contradictions(kept, data.contradictions)
    kept, near, clusters = group_near_duplicates(kept)
    return kept, added, [*personal, *duplicates, *contradictions, *near], clusters


def _shape(records: Path, data: Data) -> shapes.Shape:
    with closing(read_lines(records, Record)) as rows:
        return shapes.resolve_shape(list(itertools.islice(rows, shapes.HEAD)), data)


def _counted(records: Path, report: Report) -> Iterator[Record]:
    with records.open("rb") as lines:
        total = sum(1 for _ in lines)
    for done, record in enumerate(read_lines(records, Record), start=1):
        yield record
        if done % REPORT_EVERY == 0 or done == total:
            report(Progress(done=done, total=total, unit="rows"))


def _refuse(rejected: Sequence[Finding], converted: Sequence[Example], data: Data) -> None:
    """Stop where no example is valid, or an invalid one must not be passed over."""
    rows = len(rejected) + len(converted)
    if not converted:
        raise DataError(
            f"none of {rows} rows is a valid example of shape {data.shape}; correct them or name another data.shape:", _problems(rejected)
        )
    if rejected and data.on_invalid == "fail":
        raise DataError(
            f"{len(rejected)} of {rows} rows are invalid. Correct them, or set data.on_invalid: skip to go on without them:",
            _problems(rejected),
        )


def _problems(findings: Iterable[Finding]) -> tuple[Problem, ...]:
    ordered = sorted(findings, key=lambda finding: (place(finding.where), finding.code))
    return tuple(Problem(finding.where, finding.reason, finding.code) for finding in ordered if finding.action == "dropped")


def _write_profile(
    path: Path, converted: Sequence[Example], kept: Sequence[Example], findings: Sequence[Finding], rejected: set[str]
) -> None:
    """Write one row a record, those that ingest rejected included, in source order."""
    codes: dict[str, set[str]] = defaultdict(set)
    for finding in findings:
        codes[finding.where].add(finding.code)
    rows = {where: _profile_row(where, None, "rejected", codes[where]) for where in rejected}
    rows.update({example.source: _profile_row(example.source, example, "dropped", codes[example.source]) for example in converted})
    sizes = class_sizes([example.target for example in kept]) or {}
    for example in kept:
        row = _profile_row(example.source, example, "kept", codes[example.source])
        if size := sizes.get(example.target):
            row |= {"class_size": size, "class_share": round(size / len(kept), 6)}
        rows[example.source] = row
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, PROFILE, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows[where] for where in sorted(rows, key=place))


def _profile_row(where: str, example: Example | None, status: str, codes: set[str]) -> dict[str, object]:
    row: dict[str, object] = {
        "where": where,
        "status": status,
        "codes": " ".join(sorted(codes)),
        "messages": 0,
        "prompt_chars": 0,
        "target_chars": 0,
        "is_kept": int(status == "kept"),
        "is_rejected": int(status == "rejected"),
        "is_duplicate": int("exact-duplicate" in codes),
        "is_contradiction": int("contradiction" in codes),
        "is_near_duplicate": int("near-duplicate" in codes),
    }
    if example is not None:
        row |= {
            "id": example.id,
            "messages": len(example.messages),
            "roles": " ".join(message.role for message in example.messages),
            "prompt_chars": sum(len(message.content.strip()) for message in example.prompt),
            "target_chars": len(example.target.strip()),
            "group": example.group,
            "target_id": target_key(example),
        }
    return row


def _figures(
    converted: Sequence[Example], kept: Sequence[Example], findings: Sequence[Finding], rejected: Sequence[Finding], clusters: Clusters
) -> dict[str, object]:
    sizes = class_sizes([example.target for example in kept])
    return {
        "rows": len(converted) + len(rejected),
        "valid": len(converted),
        "kept": len(kept),
        "findings": _counts(findings),
        "clusters": len(clusters.sizes),
        "clustered": sum(clusters.sizes),
        "largest_cluster": max(clusters.sizes, default=0),
        "target_values": {
            "distinct": len({example.target for example in kept}),
            # Free text stays out of the figures: they are shown in the UI and in reports.
            "top": dict(list(sizes.items())[:TOP_TARGETS]) if sizes else {},
        },
    }


def _counts(findings: Sequence[Finding]) -> Mapping[str, Mapping[str, int]]:
    """Findings by code and action, codes in alphabetical order."""
    counts = Counter((finding.code, finding.action) for finding in findings)
    table: dict[str, dict[str, int]] = {}
    for (code, action), count in sorted(counts.items()):
        table.setdefault(code, {})[action] = count
    return table
