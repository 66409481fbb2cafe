"""Which of Google's models Vertex AI tunes, and until when. Its API says neither, so that both stand here, dated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

READ_ON = date(2026, 11, 26)


@dataclass(frozen=True)
class Life:
    """Until when a model is tuned, and answers."""

    last_job: date
    """Projects that did not use the model before are shut out a month before it is retired."""
    shutdown: date
    """Earliest day: Google may put it off, and says that it does not bring it forward. A tuned model ends with its base model."""


LIVES: Mapping[str, Life] = {
    "gemini-3.5-flash": Life(date(2027, 4, 19), date(2027, 5, 19)),
    "gemini-3.5-flash-lite": Life(date(2027, 6, 21), date(2027, 7, 21)),
    "gemini-3.1-flash-lite": Life(date(2027, 4, 7), date(2027, 5, 7)),
    "gemini-2.5-pro": Life(date(2026, 9, 20), date(2026, 10, 20)),
    "gemini-2.5-flash": Life(date(2026, 9, 20), date(2026, 10, 20)),
    "gemini-2.5-flash-lite": Life(date(2026, 9, 20), date(2026, 10, 20)),
}
"""Models with supervised fine-tuning. Google's list of those with preference tuning is not told apart here: Vertex AI refuses a job on
another one when it is created, before anything is billed.

Source: https://docs.cloud.google.com/gemini-enterprise-agent-platform/reference/models/tuning (which are tuned) and
https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/model-versions (when they are retired).
"""


def short_name(model: str) -> str:
    """Return a base model's name without its publisher: ``gemini-3.5-flash``."""
    return model.rpartition("/")[2]
