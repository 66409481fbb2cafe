"""The spec's block ``use``: how the model will be used, for advice and break-even."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from prooftune.spec.fields import Address
from prooftune.types import Frozen


class Use(Frozen):
    """How the model will be used. Nothing of it changes training; advice and break-even rest on it."""

    requests_per_month: Annotated[int, Field(ge=0)] | None = None
    """Expected volume; null = not known, and no break-even date."""
    lacks: Literal["behaviour", "facts", "reasoning"] | None = None
    """What the prompted model lacks: behaviour (format, tone, labels), facts it cannot know (then RAG), or reasoning (then a larger model);
    null = not known."""
    answers_change_every_days: Annotated[float, Field(gt=0)] | None = None
    """How often right answers change, in days: a model tuned on old answers is wrong until it is tuned again; null = hardly ever."""
    regulated: str | None = None
    """Regulated use, in words, such as "EU AI Act, Annex III, employment"; null = none."""
    minutes_per_wrong_answer: Annotated[float, Field(ge=0)] = 0.0
    """Work that a wrong answer costs, in minutes."""
    usd_per_hour_of_work: Annotated[float, Field(ge=0)] = 0.0
    """What an hour of that work costs, in USD."""
    gpu_usd_per_hour: Annotated[float, Field(ge=0)] | None = None
    """What the machine that serves the tuned model costs, in USD per hour; null = the price list's for this machine's kind."""
    hosting_hours_per_month: Annotated[float, Field(ge=0, le=744)] | None = None
    """Hours a month that the tuned model's machine is paid for; null = only while it answers."""
    prices: Address | None = None
    """TOML file with prices of your own, over the shipped list. A relative path starts at the spec's folder, one typed into a form at
    the worker's."""
