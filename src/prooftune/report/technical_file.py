"""Writes the technical file: a run's facts under the headings of Annex IV of the EU AI Act.

It is a start for a provider's technical documentation, not a statement that anything complies with anything.
Source: Regulation (EU) 2024/1689, Article 11(1) and Annex IV.
"""

from __future__ import annotations

from markupsafe import Markup

from prooftune.report import managed, money, tables, wording
from prooftune.report.changes import compare_answers
from prooftune.report.limits import limitations
from prooftune.report.markdown import base_model, fenced, markdown, source_name
from prooftune.report.risks import risks
from prooftune.report.usage import trained_folder
from prooftune.report.view import RunView


def technical_file(view: RunView) -> str:
    """Return the file as Markdown: what the run knows, and what is left to the provider where it cannot know."""
    return (
        markdown()
        .get_template("technical_file.md.j2")
        .render(
            view=view,
            todo=_todo,
            title=wording.TITLES[view.decision.verdict],
            headline=wording.headline(view),
            base=base_model(view),
            source=source_name(view),
            folder=trained_folder(view),
            provider=managed.provider_name(view),
            job=managed.facts(view),
            whereabouts=managed.whereabouts(view),
            approval=managed.approval_sentence(view),
            quality=tables.quality_table(view),
            effort=tables.effort_table(view),
            slices=tables.slice_table(view),
            champion=tables.champion_table(view),
            batches=wording.batches(view) if view.evaluations else "",
            split=tables.stage_tables(view, "split").pairs,
            train=tables.stage_tables(view, "train").pairs,
            training=tables.training_settings(view),
            lineage=tables.lineage(view),
            limitations=limitations(view),
            risks=risks(view, compare_answers(view)),
            money_sentence=money.money_sentence(view),
            assumptions=money.assumptions(view),
            spec=fenced(view.spec.resolved_yaml(), "yaml"),
        )
    )


def _todo(what: str) -> Markup:
    """Return the note for what a run cannot know; ``what`` is this project's own text."""
    return Markup(f"> To be completed by the provider: {what}")  # noqa: S704  # only our templates call it, with texts of their own
