"""Stand-ins of the managed APIs on real sockets, each with the adapter that talks to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prooftune.data.lines import write_lines
from prooftune.providers.tuning import Files, Order, Tuner
from prooftune.spec import Hyperparameters, Provider
from prooftune.storage.disk import sha256_of
from prooftune.types import Example, Message

if TYPE_CHECKING:
    import pytest

    from prooftune.sandbox.http import Api

PROVIDERS = ("openai", "azure", "bedrock", "vertex", "together", "fireworks")


@dataclass
class StandIn:
    """A served stand-in and the adapter opened at its address, its key in the environment."""

    api: Api
    tuner: Tuner
    model: str
    """A base model that it tunes."""
    folder: Path
    options: Provider = field(default_factory=Provider)
    """How a spec reaches it."""

    def examples(self, count: int = 40) -> Path:
        """Write examples and return the file."""
        path = self.folder / f"examples-{count}.jsonl"
        write_lines(path, (example(number) for number in range(count)))
        return path

    def rows(self, count: int = 40, system: str = "Sort the ticket.") -> Path:
        """Write examples in the provider's form and return the file."""
        path = self.folder / f"rows-{count}.jsonl"
        self.tuner.write_rows(self.examples(count), system, "supervised", path)
        return path

    def order(self, rows: Path, **changes: Any) -> Order:
        """Return an order for the rows."""
        order = Order(
            provider=self.tuner.provider,
            address=self.tuner.address,
            model=self.model,
            hyperparameters=Hyperparameters(epochs=2),
            seed=7,
            name="triage",
            train_sha256=sha256_of(rows),
        )
        return order.model_copy(update=changes)

    def uploaded(self, rows: Path, order: Order) -> Files:
        """Upload the rows."""
        return Files(train=self.tuner.upload(rows, order.key, "train"))

    @property
    def jobs(self) -> int:
        """How many jobs the stand-in has: what would be paid for."""
        return int(self.api.state()["jobs"])


def example(number: int) -> Example:
    """Return a valid example, another one for each number."""
    label = ("billing", "login", "delivery")[number % 3]
    messages = (Message(role="user", content=f"ticket {number} about {label}, please help"), Message(role="assistant", content=label))
    return Example(id=f"{number:016x}", source=f"tickets.jsonl:{number + 1}", messages=messages)


@contextmanager
def open_stand_in(provider: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve a provider's stand-in with canned answers and open its adapter; the file ``fixtures_PROVIDER.py`` knows how."""
    with import_module(f"fixtures_{provider}").stand_in(folder, monkeypatch) as found:
        yield found
