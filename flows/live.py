"""Progress of a run while it runs, on stderr: bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.spinner import Spinner
from rich.table import Column
from rich.text import Text

from flows.layout import marked
from prooftune.report.wording import duration, visible

if TYPE_CHECKING:
    from prooftune.types import Progress as Amount
    from tasks.listening import Event

SERVING = "prooftune.providers.serving"
"""Whose warnings are said as well: what runs on at a provider, and costs money, although nobody takes it down."""
PLAIN_EVERY_S = 15.0
"""Without a terminal, progress inside a stage is said at most this often: a log is read later."""


@contextmanager
def live_progress() -> Iterator[None]:
    """Show the stages of the runs in this process until the block ends."""
    from tasks import listening

    console = Console(stderr=True)
    display: Bars | Lines = Bars(console) if console.is_terminal and not console.is_dumb_terminal else Lines(sys.stderr)
    listening.listeners.append(display.take)
    try:
        with display, listening.warnings_told(SERVING):
            yield
    finally:
        listening.listeners.remove(display.take)


class Bars:
    """One line a stage: spinner or mark, name, bar, latest figures, time."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._lines: dict[str, TaskID] = {}
        self._bars = Progress(
            _Mark(table_column=Column(width=1)),
            _Name(table_column=Column(width=13)),
            _Bar(table_column=Column(width=12)),
            _Words(table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            _Time(table_column=Column(justify="right", min_width=7)),
            console=console,
            expand=True,
            refresh_per_second=8,
        )

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for line in self._bars.tasks:
            if line.fields["state"] == "running":
                self._bars.update(line.id, state="failed" if kind else "done")
                self._bars.stop_task(line.id)
        self._bars.stop()

    def take(self, event: Event) -> None:
        """Show an event."""
        from tasks.listening import Said, StageFinished, StageStarted

        if isinstance(event, StageStarted):
            self._line(event.stage)
        elif isinstance(event, StageFinished):
            line = self._line(event.stage)
            self._bars.update(line, state="cached" if event.cached else "done", seconds=event.seconds, text="")
            self._bars.stop_task(line)
        elif isinstance(event, Said):
            self.console.print(marked("!", "yellow", event.text))
        else:
            stage, amount = event
            self._bars.update(self._line(stage), total=amount.total, completed=amount.done, text=in_words(amount))

    def _line(self, stage: str) -> TaskID:
        if stage not in self._lines:
            self._lines[stage] = self._bars.add_task(stage, total=None, state="running", seconds=None, text="")
        return self._lines[stage]


MARKS = {"done": ("✓", "green"), "cached": ("✓", "cyan"), "failed": ("✗", "red")}


class _Mark(ProgressColumn):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._spinner = Spinner("dots", style="cyan")

    def render(self, task: Task) -> Any:
        mark = MARKS.get(task.fields["state"])
        return Text(*mark) if mark else self._spinner.render(task.get_time())


class _Name(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.description, style="bold" if task.fields["state"] == "running" else "")


class _Bar(ProgressColumn):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._bar = BarColumn(bar_width=None, complete_style="cyan", finished_style="cyan")

    def render(self, task: Task) -> Any:
        shown = task.total and task.fields["state"] in ("running", "failed")
        return self._bar.render(task) if shown else Text()


class _Words(ProgressColumn):
    def render(self, task: Task) -> Text:
        if task.fields["state"] == "cached":
            return Text("already done", style="dim")
        return Text(task.fields["text"], style="dim")


class _Time(ProgressColumn):
    def render(self, task: Task) -> Text:
        seconds = task.fields["seconds"]
        return Text(duration(round(task.elapsed or 0.0) if seconds is None else seconds), style="dim")


@dataclass
class Lines:
    """A line when a stage starts and ends, and now and then in between."""

    stream: TextIO
    every_s: float = PLAIN_EVERY_S
    _said: dict[str, float] = field(default_factory=dict)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind."""

    def take(self, event: Event) -> None:
        """Say an event, unless the last word on its stage is recent."""
        from tasks.listening import Said, StageFinished, StageStarted

        now = time.monotonic()
        if isinstance(event, StageStarted):
            self._said[event.stage] = now
            self._say(f"{event.stage}: started")
        elif isinstance(event, StageFinished):
            self._say(f"{event.stage}: already done" if event.cached else f"{event.stage}: done in {duration(event.seconds)}")
        elif isinstance(event, Said):
            self._say(visible(event.text))
        else:
            stage, amount = event
            if now - self._said.get(stage, 0.0) >= self.every_s:
                self._said[stage] = now
                self._say(f"{stage}: {in_words(amount)}")

    def _say(self, line: str) -> None:
        print(line, file=self.stream, flush=True)


def in_words(amount: Amount) -> str:
    """Return ``120/660 answers · loss 1.23``."""
    count = f"{amount.done:,}/{amount.total:,} {amount.unit}" if amount.total > 1 else ""
    return " · ".join(part for part in (count, visible(amount.text)) if part)
