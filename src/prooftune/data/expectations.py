"""Check the profile table with Great Expectations and write its Data Docs as one page that needs no network.

The table holds one row a record and no text, so that neither the checks nor their page can show what a record says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prooftune.data.docs_page import write_page
from prooftune.errors import DataError, Problem

if TYPE_CHECKING:
    import pandas as pd

PROMPT_CHARS, TARGET_CHARS = 32_000, 16_000
"""Longer texts seldom fit a model's context, and are more often a parsing accident than an example."""
RARE_CLASS = 4
"""A class with fewer examples cannot stand in train, validation and holdout in proportion."""
SUITES = {
    "kept-examples": "Examples that go on to the split",
    "all-records": "All records, the rejected ones included",
}


def check_expectations(profile: Path, out: Path) -> dict[str, object]:
    """Check ``profile.csv`` and write ``index.html`` into ``out``.

    Expectations on the kept examples are critical where training on them would be wrong; what is only suspicious, and all that concerns
    the share of flawed records, is a warning. Result format SUMMARY: the rows themselves are in findings.jsonl.

    Returns:
        ``evaluated``, ``successful`` and ``warnings`` (suite, expectation and observed value of each that failed).

    Raises:
        DataError: a critical expectation on the kept examples failed; with each of them.
    """
    import pandas as pd

    text = dict.fromkeys(("where", "id", "status", "codes", "roles", "group", "target_id"), "string")
    records = pd.read_csv(profile, dtype=text, keep_default_na=False, na_values={"class_size": "", "class_share": ""})
    kept = records[records["status"] == "kept"].reset_index(drop=True)
    results = _validate({"kept-examples": kept, "all-records": records})
    write_page(out / "index.html", results, SUITES)
    failed = [(name, one) for name, result in results.items() for one in result.results if not one.success]
    critical = [one for name, one in failed if one.expectation_config.severity == "critical"]
    if critical:
        raise DataError(
            f"{len(critical)} critical expectations on the {len(kept)} kept examples failed; correct the data, or report this as a fault "
            "of the conversion:",
            tuple(Problem(f"kept examples, {_subject(one)}", _reason(one), "expectation") for one in critical),
        )
    evaluated = sum(len(result.results) for result in results.values())
    warnings = [{"suite": name, "expectation": one.expectation_config.description, "observed": _observed(one)} for name, one in failed]
    return {"evaluated": evaluated, "successful": evaluated - len(failed), "warnings": warnings}


def _validate(tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Validation results by suite, of tables in memory and without a trace on disk or in the network."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults, ProgressBarsConfig

    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
    )
    context = gx.get_context(project_config=config, mode="ephemeral")
    source = context.data_sources.add_pandas("profile")
    suites = {"kept-examples": _on_kept_examples(), "all-records": _on_all_records()}
    results = {}
    for name, table in tables.items():
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=suites[name]))
        definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
        results[name] = definition.run(batch_parameters={"dataframe": table}, result_format="SUMMARY")
    return results


def _on_kept_examples() -> Sequence[Any]:
    from great_expectations import expectations as gxe

    critical, warning = {"severity": "critical"}, {"severity": "warning"}
    between = gxe.ExpectColumnValuesToBeBetween
    classes = f"99 % of examples belong to a class of {RARE_CLASS} or more, enough for every split."
    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1, description="There is at least one example.", **critical),
        gxe.ExpectColumnValuesToBeUnique(column="id", description="No example stands twice.", **critical),
        gxe.ExpectColumnValuesToMatchRegex(
            column="roles",
            regex=r"^(?:system )?(?:(?:user|assistant|tool) )*user (?:(?:user|assistant|tool) )*assistant$",
            description="A conversation may begin with a system message, has a user message and ends with the assistant's answer.",
            **critical,
        ),
        between(column="prompt_chars", min_value=1, description="No prompt is empty.", **critical),
        between(column="target_chars", min_value=1, description="No target is empty.", **critical),
        between(column="prompt_chars", max_value=PROMPT_CHARS, description=f"Prompts have at most {PROMPT_CHARS:,} characters.", **warning),
        between(column="target_chars", max_value=TARGET_CHARS, description=f"Targets have at most {TARGET_CHARS:,} characters.", **warning),
        between(column="class_size", min_value=RARE_CLASS, mostly=0.99, description=classes, **warning),
        between(column="class_share", max_value=0.9, description="No class makes up more than 90 % of the examples.", **warning),
        gxe.ExpectColumnUniqueValueCountToBeBetween(
            column="target_id", min_value=2, description="There is more than one target, or there is nothing to learn.", **warning
        ),
    ]


def _on_all_records() -> Sequence[Any]:
    from great_expectations import expectations as gxe

    shares = (
        ("is_kept", 0.5, 1.0, "At least half of the records are kept."),
        ("is_rejected", 0.0, 0.05, "At most 5 % of the records are invalid."),
        ("is_duplicate", 0.0, 0.2, "At most 20 % of the records are exact duplicates."),
        ("is_contradiction", 0.0, 0.05, "At most 5 % of the records contradict another one."),
        ("is_near_duplicate", 0.0, 0.4, "At most 40 % of the records have a near-duplicate."),
    )
    return [
        gxe.ExpectColumnMeanToBeBetween(column=column, min_value=low, max_value=high, description=text, severity="warning")
        for column, low, high, text in shares
    ]


def _subject(one: Any) -> str:
    return str(one.expectation_config.kwargs.get("column", "table"))


def _reason(one: Any) -> str:
    return f"{one.expectation_config.description} Found {_observed(one)}."


def _observed(one: Any) -> str:
    """What was found, in words."""
    if (message := _exception(one.exception_info)) is not None:
        return f"that it cannot be checked ({message})"
    if "unexpected_count" in one.result:
        return f"{one.result['unexpected_count']} of {one.result['element_count']} otherwise"
    value = one.result.get("observed_value")
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _exception(info: dict[str, Any]) -> str | None:
    """Message of the exception that a check ended in; Great Expectations keeps one entry, or one a metric."""
    for entry in (info, *(value for value in info.values() if isinstance(value, dict))):
        if entry.get("raised_exception"):
            return str(entry.get("exception_message"))
    return None
