"""What people see on stdout at the end of a command. Text from data, specs and servers is never read as markup or control codes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flows.layout import command, figures_table, marked, pairs, place_of, plain, show, unbroken
from prooftune.report.wording import TITLES, duration, name_of, points, sentence, timing, visible

Answer = Mapping[str, Any]

COLOURS = {"promote": "green", "keep_baseline": "yellow", "inconclusive": "blue", "do_not_fine_tune": "yellow"}
MARKS = {"ok": Text("✓", "green"), "warn": Text("!", "yellow"), "fail": Text("✗", "red")}


def working(text: str) -> AbstractContextManager[object]:
    """Show on a terminal that something is under way, on stderr."""
    console = Console(stderr=True)
    return console.status(text) if console.is_terminal else nullcontext()


def initialised(answer: Answer) -> None:
    """Say what ``init`` wrote and what to do with it."""
    spec = shlex.quote(answer["spec"])
    show(
        marked("✓", "green", f"{answer['directory']} is ready: a spec with every field explained, and {answer['rows']:,} support tickets"),
        *unbroken({"spec": place_of(answer["spec"]), "data": place_of(answer["data"])}),
        "",
        plain("Put your own data in place of the tickets, or try these first:", "dim"),
        *unbroken(
            {
                "what is wrong with spec and data": command(f"prooftune validate {spec}"),
                "what a run would take": command(f"prooftune plan {spec}"),
                "from the spec to a verdict": command(f"prooftune run {spec}"),
            }
        ),
    )


def validation(answer: Answer) -> None:
    """Say whether spec and data are usable and list what was found."""
    usable = answer["usable"]
    title = f"{answer['name']}: the data is usable" if usable else f"{answer['name']}: the data is not usable"
    parts: list[RenderableType] = [marked(*(("✓", "green") if usable else ("✗", "red")), title)]
    parts += [marked(" ", "red", reason.rstrip(":")) for reason in answer["reasons"]]
    facts = [f"{answer['rows']:,} rows", f"{answer['invalid']:,} invalid", f"{answer['kept']:,} usable examples"]
    parts.append(marked(" ", "dim", " · ".join([*facts, *([f"shape {answer['shape']}"] if answer["shape"] else [])])))
    if split := answer["split"]:
        parts.append(marked(" ", "dim", f"split: {split_text(split)}"))
    parts += [marked("!", "yellow", warning) for warning in answer["warnings"]]
    if answer["findings"]:
        parts.append(_findings(answer))
    show(*parts)


def _findings(answer: Answer) -> Table:
    """Table of what was found: how many, what became of them, the first few places and the first one's reason."""
    table = figures_table("found", ">rows", "became", "where, and the first one's reason")
    for code, actions in answer["findings"].items():
        found = [problem for problem in answer["problems"] if problem["code"] == code]
        where = Text.assemble(visible(_places([problem["where"] for problem in found])), "\n", (visible(found[0]["reason"]), "dim"))
        table.add_row(plain(code), f"{sum(actions.values()):,}", ", ".join(actions), where)
    return table


def _places(places: Sequence[str], shown: int = 4) -> str:
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
    if answer.get("estimate"):
        from flows.planning_screens import plan_managed

        plan_managed(answer)
        return
    data, tokens, model, training = answer["data"], answer["tokens"], answer["model"], answer["training"]
    about = "" if tokens["exact"] else "about "
    facts = {
        "data": f"{data['kept']:,} examples of {data['rows']:,} rows: {split_text(data['split'])}",
        "tokens": " · ".join(f"{name} {about}{tokens[name]['total']:,}" for name in ("train", "validation", "holdout")),
        "": tokens["how"],
        "model": f"{model['name']}{_size(model)}{'' if model['here'] else ', not on this machine yet'}",
        "training": f"{training['steps']:,} steps, epochs: {training['epochs']:g}, {about}{training['tokens']:,} tokens",
        "machine": f"{answer['machine']['device']}, {answer['machine']['cores']} cores, {answer['machine']['gflops']:g} GFLOP/s measured",
    }
    cost = "not known yet" if answer["cost_usd"] is None else f"${answer['cost_usd']:.2f}"
    total = f"unknown: {answer['seconds_note']}" if answer["seconds"] is None else _about(answer["seconds"])
    show(
        Text.assemble(("Plan for ", "bold"), (visible(answer["name"]), "bold cyan"), ("  nothing was run", "dim")),
        "",
        pairs({name: plain(value, "" if name else "dim") for name, value in facts.items()}),
        stages_table(answer["stages"]),
        pairs({"in all": plain(total, "bold"), "cost": plain(f"{cost}: {answer['cost_reason']}")}),
        *[marked("·", "dim", sentence) for sentence in answer["kept"]],
        *[marked("!", "yellow", warning) for warning in answer["warnings"]],
        "",
        plain("A stage whose result is in the store already is not done again.", "dim"),
    )


def stages_table(stages: Sequence[Answer]) -> Table:
    """Table of what would run, and about how long; ``?`` where nobody can say."""
    table = figures_table("stage", "what", ">about")
    for stage in stages:
        table.add_row(plain(stage["name"]), Text(stage["what"], "dim"), "?" if stage["seconds"] is None else _about(stage["seconds"]))
    return table


def result(answer: Answer) -> None:
    """Show the verdict and its evidence, or the list of runs."""
    if "runs" in answer:
        show(*_runs(answer))
        return
    if answer.get("waiting"):
        from flows.jobs_screens import waiting

        waiting(answer["waiting"])
        return
    colour = COLOURS[answer["verdict"]]
    parts: list[RenderableType] = [_verdict(answer, colour)]
    if answer["evaluations"]:
        parts.append(_contestants(answer, colour))
    if answer.get("note"):
        parts += [marked("!", "yellow", answer["note"]), ""]
    parts += _checks(answer["decision"].get("checks", ()))
    if answer["stages"]:
        parts += [pairs({"  stages": _stages(answer["stages"])}), ""]
    places = {"report": answer["report"], "manifest": answer["manifest"], "Prefect UI": answer["ui_url"]}
    show(*parts, *unbroken({name: place_of(place) for name, place in places.items() if place}))


def _verdict(answer: Answer, colour: str) -> Panel:
    decision = answer["decision"]
    lines: list[RenderableType] = []
    if decision["difference"] is not None:
        against = f" of {name_of(decision['metric'])} over {name_of(decision['baseline'])}"
        lines += [Text.assemble((f"{points(decision['difference'])} points", f"bold {colour}"), (against, "bold")), ""]
    lines += [marked("•", colour, sentence(reason, decision["metric"], decision["baseline"])) for reason in answer["reasons"]]
    title = Text(f" {TITLES[answer['verdict']]} ", f"bold {colour} reverse")
    run_id = plain(answer["run_id"], "dim")
    return Panel(
        Group(*lines), title=title, title_align="left", subtitle=run_id, subtitle_align="right", border_style=colour, padding=(1, 2)
    )


def _contestants(answer: Answer, colour: str) -> Table:
    """Table of metrics with intervals, a column a contestant: rungs first, the candidate last."""
    evaluations, decision = answer["evaluations"], answer["decision"]
    table = figures_table("on the sealed holdout", *(f">{name_of(evaluation['name'])}" for evaluation in evaluations))
    names = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation["metrics"]))
    names.sort(key=lambda name: name != decision["metric"])
    for name in names:
        decides = name == decision["metric"]
        styles = [colour if decides and evaluation["name"] == "candidate" else "" for evaluation in evaluations]
        cells = [_cell(evaluation["metrics"].get(name), style) for evaluation, style in zip(evaluations, styles, strict=True)]
        table.add_row(Text(name_of(name), "bold" if decides else ""), *cells, end_section=name == names[-1])
    rows = zip(*(_figures(evaluation) for evaluation in evaluations), strict=True)
    for name, row in zip(("n", "answer tokens p50 · p95", "prompt tokens, mean", "latency p50 · p95"), rows, strict=True):
        table.add_row(Text(name, "dim"), *(Text(figure, "dim") for figure in row))
    return table


def _figures(evaluation: Answer) -> tuple[str, ...]:
    scored = max((metric["n"] for metric in evaluation["metrics"].values()), default=0)
    return (
        f"{scored:,}",
        f"{evaluation['answer_tokens_p50']:g} · {evaluation['answer_tokens_p95']:g}",
        f"{evaluation['prompt_tokens_mean']:,.0f}",
        f"{timing(evaluation['latency_p50_s'])} · {timing(evaluation['latency_p95_s'])}",
    )


def _cell(metric: Mapping[str, Any] | None, style: str) -> Text:
    if metric is None:
        return Text("–", "dim")
    unscored = f"\n{metric['unscored']:,} unscored" if metric["unscored"] else ""
    return Text.assemble(
        (f"{metric['value']:.3f}", f"bold {style}"), (f"\n{metric['ci_low']:.3f}–{metric['ci_high']:.3f}{unscored}", "dim")
    )


def _checks(checks: Sequence[Answer]) -> list[RenderableType]:
    """What else the gate weighed, a line each; what is violated or open stands in the reasons with its figures."""
    marks = {True: MARKS["ok"], False: MARKS["fail"], None: Text("?", "blue")}
    lines = [Text.assemble("  ", marks[check["passed"]], " ", (visible(check["name"]), "dim")) for check in checks]
    return [Text("  also weighed", "dim"), *lines, ""] if lines else []


def _stages(stages: Sequence[Answer]) -> Text:
    """All stages in one paragraph, name and seconds; those found done are dim."""
    text = Text()
    for index, stage in enumerate(stages):
        words = f"{stage['name']} {duration(stage['seconds'])}".replace(" ", "\N{NO-BREAK SPACE}")
        text.append(" · " if index else "", "dim").append(visible(words), "dim" if stage["cached"] else "")
    own = sum(stage["seconds"] for stage in stages if not stage["cached"])
    found = sum(stage["cached"] for stage in stages)
    text.append(f"\n{duration(own)} of work", "bold").append(f", {found} of {len(stages)} found done" if found else "", "dim")
    return text


def _runs(answer: Answer) -> Iterable[RenderableType]:
    if not answer["runs"]:
        yield plain(f"No runs in {answer['store']}. `prooftune run SPEC` makes one; --store names another store.")
        return
    table = figures_table("run", "verdict", ">baseline → candidate", ">points", ">n")
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    for run in answer["runs"]:
        values = ["–" if run[name] is None else f"{run[name]:.3f}" for name in ("baseline_value", "candidate_value")]
        gain = "–" if run["difference"] is None else points(run["difference"])
        verdict = Text(run["verdict"], COLOURS[run["verdict"]])
        table.add_row(plain(run["run_id"], "bold"), verdict, " → ".join(values), gain, f"{run['n']:,}")
    yield table
    yield plain(f"`prooftune show RUN` shows one again; store {answer['store']}", "dim")


def examination(answer: Answer) -> None:
    """Say what the machine can do, and what to do about the rest."""
    table = Table.grid(padding=(0, 2))
    for item in answer["items"]:
        found = plain(item["found"])
        if item["status"] != "ok":
            colour = "yellow" if item["status"] == "warn" else "red"
            found.append(f"\nneeded: {visible(item['needed'])}", "dim")
            found.append(f"\n→ {visible(item['todo'])}" if item["todo"] else "", colour)
        table.add_row(MARKS[item["status"]], Text(item["name"], "bold"), found)
    failed, warned = answer["failed"], answer["warned"]
    if failed:
        ending = marked("✗", "red", f"{failed} of {len(answer['items'])} must be put right before a run")
    else:
        ending = marked("✓", "green", f"Ready to run{f'; {warned} to know about' if warned else ''}")
    show(table, "", ending)


def server(answer: Answer) -> None:
    """Say where the Prefect server is, or that it was stopped."""
    if answer["running"]:
        what = "The local Prefect server" if answer["local"] else "The configured Prefect server"
        show(marked("✓", "green", f"{what} runs at {answer['ui']}"))
    elif answer.get("stopped"):
        show(marked("✓", "green", f"The local Prefect server at {answer['ui']} is stopped; its history stays"))
    else:
        show(marked(" ", "dim", "No local Prefect server was running"))


def split_text(counts: Mapping[str, int]) -> str:
    """Return how many examples each split has."""
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
