"""Lists of a provider's jobs, in which one that cannot be read must hide no other, and must not pass for none."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from prooftune.errors import TransientError
from prooftune.providers.tuning import Job, Order


class Unreadable(BaseModel):
    """An object of a list that has an id, and is otherwise not what the API promises; its fields are kept as they came."""

    model_config = ConfigDict(extra="allow")

    id: str

    def field(self, name: str) -> object:
        """Return what it shows under a name; None = nothing."""
        return (self.model_extra or {}).get(name)

    def may_be(self, **wanted: str | int) -> bool:
        """Return whether it may be the object with these fields: one that is of the right type and differs says that it is another."""
        return all(not isinstance(self.field(name), type(value)) or self.field(name) == value for name, value in wanted.items())


def surely(found: Sequence[Job], hidden: Sequence[Unreadable], order: Order) -> list[Job]:
    """Return the jobs that were found of an order. ``hidden`` are those that may be of it too, if only they could be read.

    Raises:
        TransientError: none was found, and one of the others may be the order's: to say that there is none would have it paid for twice.
    """
    if hidden and not found:
        raise TransientError(
            f"{order.provider} lists {', '.join(job.id for job in hidden)} in a form that cannot be read, and that may be the job of "
            f"{order.key}; nothing was submitted. Run the same command again later, or with a newer version of Prooftune"
        )
    return list(found)
