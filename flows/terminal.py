"""What people see on stdout at the end of a command. Text from data, specs and servers is never read as markup or control codes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from prooftune.report.wording import TITLES, duration, name_of, number, p_value, points, visible

Answer = Mapping[str, Any]

COLOURS = {"promote": "green", "keep_baseline": "yellow", "inconclusive": "blue", "do_not_fine_tune": "yellow"}
MARKS = {"ok": Text("✓", "green"), "warn": Text("!", "yellow"), "fail": Text("✗", "red")}
WIDEST = 110
"""Longer lines are hard to read; a wider terminal stays empty on the right."""


def working(text: str) -> AbstractContextManager[object]:
    """Show on a terminal that something is under way, on stderr."""
    console = Console(stderr=True)
    return console.status(text) if console.is_terminal else nullcontext()


def initialised(answer: Answer) -> None:
    """Say what ``init`` wrote and what to do with it."""
    spec = shlex.quote(answer["spec"])
    _print(
        _line("✓", "green", f"{answer['directory']} is ready: a spec with every field explained, and {answer['rows']:,} support tickets"),
        *_unbroken({"spec": _place(answer["spec"]), "data": _place(answer["data"])}),
        "",
        _text("Put your own data in place of the tickets, or try these first:", "dim"),
        *_unbroken(
            {
                "what is wrong with spec and data": _command(f"prooftune validate {spec}"),
                "what a run would take": _command(f"prooftune plan {spec}"),
                "from the spec to a verdict": _command(f"prooftune run {spec}"),
            }
        ),
    )


def validation(answer: Answer) -> None:
    """Say whether spec and data are usable and list what was found."""
    usable = answer["usable"]
    title = f"{answer['name']}: the data is usable" if usable else f"{answer['name']}: the data is not usable"
    parts: list[RenderableType] = [_line(*(("✓", "green") if usable else ("✗", "red")), title)]
    parts += [_line(" ", "red", reason.rstrip(":")) for reason in answer["reasons"]]
    facts = [f"{answer['rows']:,} rows", f"{answer['invalid']:,} invalid", f"{answer['kept']:,} usable examples"]
    parts.append(_line(" ", "dim", " · ".join([*facts, *([f"shape {answer['shape']}"] if answer["shape"] else [])])))
    if split := answer["split"]:
        parts.append(_line(" ", "dim", f"split: {_split(split)}"))
    parts += [_line("!", "yellow", warning) for warning in answer["warnings"]]
    if answer["findings"]:
        parts += ["", _findings(answer)]
    _print(*parts)


def _findings(answer: Answer) -> Table:
    """Table of what was found: how many, what became of them, the first few places and the first one's reason."""
    table = _table("found", ">rows", "became", "where, and the first one's reason")
    for code, actions in answer["findings"].items():
        found = [problem for problem in answer["problems"] if problem["code"] == code]
        where = Text.assemble(visible(_places([problem["where"] for problem in found])), "\n", (visible(found[0]["reason"]), "dim"))
        table.add_row(_text(code), f"{sum(actions.values()):,}", ", ".join(actions), where)
    return table


def _places(places: Sequence[str], shown: int = 5) -> str:
    """``tickets.jsonl:67, 247, 258 … 5 more``: a file's name stands once."""
    words, last = [], ""
    for place in (different := list(dict.fromkeys(places)))[:shown]:
        file, _, row = place.rpartition(":")
        words.append(row if file and file == last else place)
        last = file
    more = len(different) - shown
    return ", ".join(words) + (f" … {more:,} more" if more > 0 else "")


def plan(answer: Answer) -> None:
    """Say what would run and what it takes."""
    data, tokens, model, training = answer["data"], answer["tokens"], answer["model"], answer["training"]
    about = "" if tokens["exact"] else "about "
    facts = {
        "data": f"{data['kept']:,} examples of {data['rows']:,} rows: {_split(data['split'])}",
        "tokens": " · ".join(f"{name} {about}{tokens[name]['total']:,}" for name in ("train", "validation", "holdout")),
        "": tokens["how"],
        "model": f"{model['name']}{_size(model)}{'' if model['here'] else ', not on this machine yet'}",
        "training": f"{training['steps']:,} steps, {training['epochs']:g} epochs, {about}{training['tokens']:,} tokens",
        "machine": f"{answer['machine']['device']}, {answer['machine']['cores']} cores, {answer['machine']['gflops']:g} GFLOP/s measured",
    }
    stages = _table("stage", "what", ">about")
    for stage in answer["stages"]:
        stages.add_row(_text(stage["name"]), Text(stage["what"], "dim"), "?" if stage["seconds"] is None else _about(stage["seconds"]))
    total = f"unknown: {answer['seconds_note']}" if answer["seconds"] is None else _about(answer["seconds"])
    _print(
        Text.assemble(("Plan for ", "bold"), (visible(answer["name"]), "bold cyan"), ("  nothing was run", "dim")),
        "",
        _pairs({name: _text(value, "" if name else "dim") for name, value in facts.items()}),
        "",
        stages,
        _pairs({"in all": _text(total, "bold"), "cost": _text(f"${answer['cost_usd']:.2f}: {answer['cost_reason']}")}),
        *[_line("!", "yellow", warning) for warning in answer["warnings"]],
        "",
        _text("A stage whose result is in the store already is not done again.", "dim"),
    )


def result(answer: Answer) -> None:
    """Show the verdict and its evidence, or the list of runs."""
    if "runs" in answer:
        _print(*_runs(answer))
        return
    colour = COLOURS[answer["verdict"]]
    parts: list[RenderableType] = [_verdict(answer, colour), ""]
    if answer["evaluations"]:
        parts += [_contestants(answer, colour), ""]
    if answer["stages"]:
        parts += [_stages(answer["stages"]), ""]
    places = {"report": answer["report"], "manifest": answer["manifest"], "Prefect UI": answer["ui_url"]}
    _print(*parts, *_unbroken({name: _place(place) for name, place in places.items() if place}))


def _verdict(answer: Answer, colour: str) -> Panel:
    decision = answer["decision"]
    lines: list[Text] = []
    if decision["difference"] is not None:
        metric, baseline = name_of(decision["metric"]), name_of(decision["baseline"])
        lines.append(
            Text.assemble(
                (f"{points(decision['difference'])} points", f"bold {colour}"),
                f" of {metric} over {baseline}",
                (
                    f"   {points(decision['ci_low'])} to {points(decision['ci_high'])}, {p_value(decision['p_value'])}, n = {decision['n']:,}",
                    "dim",
                ),
            )
        )
    lines += [Text.assemble(("• ", colour), visible(reason)) for reason in answer["reasons"]]
    title = Text(f" {TITLES[answer['verdict']]} ", f"bold {colour} reverse")
    return Panel(
        Group(*lines), title=title, title_align="left", subtitle=_text(answer["run_id"], "dim"), subtitle_align="right", border_style=colour
    )


def _contestants(answer: Answer, colour: str) -> Table:
    """Table of metrics with intervals, a column a contestant: rungs first, the candidate last."""
    evaluations, decision = answer["evaluations"], answer["decision"]
    table = _table("on the sealed holdout", *(f">{name_of(evaluation['name'])}" for evaluation in evaluations))
    names = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation["metrics"]))
    names.sort(key=lambda name: name != decision["metric"])
    for name in names:
        decides = name == decision["metric"]
        cells = [_cell(evaluation["metrics"].get(name), colour if decides else "") for evaluation in evaluations]
        table.add_row(Text(name_of(name), "bold" if decides else ""), *cells, end_section=name == names[-1])
    figures = {
        "n": lambda one: f"{max(metric['n'] for metric in one['metrics'].values()):,}" if one["metrics"] else "–",
        "answer tokens p50 · p95": lambda one: f"{one['answer_tokens_p50']:g} · {one['answer_tokens_p95']:g}",
        "prompt tokens, mean": lambda one: number(round(one["prompt_tokens_mean"])),
        "latency p50 · p95": lambda one: f"{duration(one['latency_p50_s'])} · {duration(one['latency_p95_s'])}",
    }
    for name, figure in figures.items():
        table.add_row(Text(name, "dim"), *(Text(figure(evaluation), "dim") for evaluation in evaluations))
    return table


def _cell(metric: Mapping[str, Any] | None, style: str) -> Text:
    if metric is None:
        return Text("–", "dim")
    unscored = f"\n{metric['unscored']:,} unscored" if metric["unscored"] else ""
    return Text.assemble((f"{metric['value']:.3f}", f"bold {style}"), (f"\n{metric['ci_low']:.3f}–{metric['ci_high']:.3f}{unscored}", "dim"))


def _stages(stages: Iterable[Mapping[str, Any]]) -> Text:
    """All stages as one paragraph: name and seconds, those found done in brackets."""
    stages = list(stages)
    own = sum(stage["seconds"] for stage in stages if not stage["cached"])
    text = Text.assemble(("stages  ", "dim"))
    for index, stage in enumerate(stages):
        text.append(" · " if index else "", "dim")
        text.append(visible(stage["name"]).replace("-", "\N{NON-BREAKING HYPHEN}"), "cyan dim" if stage["cached"] else "cyan")
        text.append(f"\N{NO-BREAK SPACE}{duration(stage['seconds']).replace(' ', chr(0xA0))}", "dim" if stage["cached"] else "")
    found = sum(stage["cached"] for stage in stages)
    text.append(f"\n        {duration(own)} of work" if own else "\n        ", "bold")
    text.append(f"{', ' if own else ''}{found} found done" if found else "", "dim")
    return text


def _runs(answer: Answer) -> Iterable[RenderableType]:
    if not answer["runs"]:
        yield _text(f"No runs in {answer['store']}. `prooftune run SPEC` makes one; --store names another store.")
        return
    table = _table("run", "verdict", "metric", ">baseline", ">candidate", ">points", ">n")
    for run in answer["runs"]:
        values = ["–" if run[name] is None else f"{run[name]:.3f}" for name in ("baseline_value", "candidate_value")]
        gain = "–" if run["difference"] is None else points(run["difference"])
        verdict = Text(TITLES[run["verdict"]], COLOURS[run["verdict"]])
        table.add_row(_text(run["run_id"], "bold"), verdict, name_of(run["metric"] or "–"), *values, gain, f"{run['n']:,}")
    yield table
    yield _text(f"in {answer['store']}", "dim")


def examination(answer: Answer) -> None:
    """Say what the machine can do, and what to do about the rest."""
    table = _table("", "", "found", "needed")
    for item in answer["items"]:
        found = _text(item["found"])
        if item["todo"]:
            found.append(f"\n→ {visible(item['todo'])}", "yellow" if item["status"] == "warn" else "red")
        table.add_row(MARKS[item["status"]], Text(item["name"], "bold"), found, _text(item["needed"], "dim"))
    failed, warned = answer["failed"], answer["warned"]
    if failed:
        ending = _line("✗", "red", f"{failed} of {len(answer['items'])} must be put right before a run")
    else:
        ending = _line("✓", "green", f"Ready to run{f'; {warned} to know about' if warned else ''}")
    _print(table, "", ending)


def server(answer: Answer) -> None:
    """Say where the Prefect server is, or that it was stopped."""
    if answer["running"]:
        what = "The local Prefect server" if answer["local"] else "The configured Prefect server"
        _print(_line("✓", "green", f"{what} runs at {answer['ui']}"))
    elif answer.get("stopped"):
        _print(_line("✓", "green", f"The local Prefect server at {answer['ui']} is stopped; its history stays"))
    else:
        _print(_line(" ", "dim", "No local Prefect server was running"))


def _print(*parts: RenderableType) -> None:
    console = Console(highlight=False)
    console.width = min(console.width, WIDEST)
    for part in parts:
        console.print(part, markup=False, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))


def _table(*headers: str) -> Table:
    """Table without vertical lines; a header that begins with ``>`` is of a column of figures."""
    table = Table(box=box.SIMPLE_HEAD if any(headers) else None, pad_edge=False, header_style="dim", show_header=any(headers))
    for header in headers:
        table.add_column(header.removeprefix(">"), justify="right" if header.startswith(">") else "left", overflow="fold")
    return table


def _text(value: object, style: str = "") -> Text:
    return Text(visible(str(value)), style, overflow="fold")


def _line(mark: str, colour: str, text: str) -> Table:
    """A mark and a text that wraps beside it, not below."""
    grid = Table.grid(padding=(0, 1))
    grid.add_row(Text(mark, f"bold {colour}"), _text(text, colour if colour == "dim" else ""))
    return grid


def _pairs(rows: Mapping[str, RenderableType]) -> Table:
    """What a value is, dim, and the value."""
    grid = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        grid.add_row(Text(name, "dim"), value)
    return grid


def _unbroken(rows: Mapping[str, Text]) -> list[Text]:
    """The same in lines that are never broken or cut, so that they can be copied."""
    widest = max(map(len, rows), default=0)
    lines = [Text.assemble((f"  {name:<{widest}}  ", "dim"), value) for name, value in rows.items()]
    for line in lines:
        line.no_wrap = True
    return lines


def _command(text: str) -> Text:
    return Text(visible(text), "cyan")


def _place(place: str) -> Text:
    """A path or URL, as a link where the terminal knows links."""
    url = place if "://" in place else Path(place).absolute().as_uri()
    return Text(visible(place), f"underline link {url}" if url.startswith(("file:", "http:", "https:")) and url.isprintable() else "")


def _split(counts: Mapping[str, int]) -> str:
    unused = f" · {counts['unused']:,} unused" if counts.get("unused") else ""
    return f"{counts['train']:,} train · {counts['validation']:,} validation · {counts['holdout']:,} held out{unused}"


def _size(model: Mapping[str, Any]) -> str:
    if model["parameters"] is None:
        return ""
    return f", {_short(model['parameters'])} parameters; {model['method']} trains {_short(model['trained'])} of them"


def _short(count: int) -> str:
    return f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count:,}"


def _about(seconds: float) -> str:
    return "< 1 s" if seconds < 1 else duration(round(seconds)) if seconds < 100 else f"{seconds / 60:.0f} min"
