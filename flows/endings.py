"""How a command ends: its answer or its failure, for people or as one JSON document, and the exit code."""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from functools import wraps
from importlib import import_module
from typing import Any, NoReturn

import click

Answer = dict[str, Any]
Command = Callable[..., Answer]

INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO}
_OWN = ("prooftune", "flows", "tasks")


@dataclass(frozen=True)
class Failure:
    """Why there is no answer."""

    error: str
    """Name of the error's class."""
    message: str
    exit_code: int
    problems: tuple[dict[str, str], ...] = ()


def answers(
    render: str, *, exit_code: Callable[[Answer], int] = lambda answer: 0, resumes: bool = False
) -> Callable[[Command], Callable[..., None]]:
    """Make a click command of a function that returns JSON: print it, or render it for people.

    ``render`` names the screen: a function of ``flows.terminal``, or ``module.function`` of another module of ``flows``.
    ``exit_code`` is of an answer that says that something is wrong. A command that ``resumes`` says so when it is interrupted.
    What libraries print while it works goes to stderr.
    """

    def decorate(command: Command) -> Callable[..., None]:
        @click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON document on stdout, everything else on stderr.")
        @wraps(command)
        def run(as_json: bool, **arguments: Any) -> None:
            with ending(as_json, "; the same command goes on where it stopped" if resumes else ""):
                with redirect_stdout(sys.stderr):
                    answer = command(**arguments)
                _show(answer, render, as_json)
            sys.exit(exit_code(answer))

        return run

    return decorate


@contextmanager
def ending(as_json: bool, hint: str = "") -> Iterator[None]:
    """End the process with a sentence and an exit code where the block fails; ``hint`` follows "interrupted"."""
    try:
        yield
    except BrokenPipeError:
        raise  # whoever read the answer has seen enough; click ends quietly
    except KeyboardInterrupt:
        _fail(Failure("Interrupted", f"interrupted{hint}", INTERRUPTED), as_json)
    except Exception as error:  # noqa: BLE001 - the outermost border: a person gets a sentence, not a traceback
        _fail(explain(error), as_json)


class Commands(click.Group):
    """A group in the order of its definition, whose usage errors, too, are one JSON document where ``--json`` was asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands as they are defined: in the order in which one needs them."""
        return list(self.commands)

    def main(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """Run, and say usage errors in the form that was asked for."""
        asked = "--json" in (sys.argv[1:] if args is None else args)
        if not asked or not options.get("standalone_mode", True):
            return super().main(args, *more, **options)
        try:
            return super().main(args, *more, **(options | {"standalone_mode": False}))
        except click.UsageError as error:
            _fail(Failure("UsageError", error.format_message(), error.exit_code), as_json=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit would fail again
            sys.exit(1)


class Listed(Commands):
    """A group that lists where no further word is said."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``list`` before options that stand alone."""
        asks_for_help = bool({"-h", "--help"} & set(args[:1]))
        return super().parse_args(ctx, args if asks_for_help or (args and not args[0].startswith("-")) else ["list", *args])


def explain(error: Exception) -> Failure:
    """Return what to tell of any exception: ours as they are, the machine's faults with exit code 3, the rest as a fault of Prooftune."""
    from prooftune.errors import ProoftuneError

    name, text = type(error).__name__, " ".join(str(error).split()) or "no message"
    if isinstance(error, ProoftuneError):
        problems = tuple(asdict(problem) for problem in getattr(error, "problems", ()))
        return Failure(name, str(error), error.exit_code, problems)
    if isinstance(error, MemoryError):
        return Failure(name, "the machine has too little memory; lower backend.method.batch_size or use a smaller model", 3)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] not in _OWN:
        return Failure(name, f"the package {error.name} is missing; install prooftune again (`prooftune doctor` lists what it needs)", 3)
    if isinstance(error, OSError) and error.errno in _MACHINE:
        where = f"{error.filename}: " if error.filename else ""
        return Failure(name, f"{where}{error.strerror}; put that right and run the same command again, nothing is lost", 3)
    if name == "OutOfMemoryError":
        return Failure(name, f"the GPU has too little memory; lower backend.method.batch_size or max_length, or use qlora ({text})", 3)
    if text.startswith("Failed to reach API") or any(
        kind.__module__.partition(".")[0] in ("httpx", "httpcore", "httpx2", "httpcore2") for kind in type(error).__mro__
    ):
        return Failure(
            name, f"the Prefect server does not answer as it should ({text}); see `prooftune doctor`, then run the same command again", 3
        )
    if os.environ.get("PROOFTUNE_DEBUG"):
        traceback.print_exception(error)
        return Failure(name, text, 1)
    return Failure(name, f"{text}. Prooftune did not expect this; PROOFTUNE_DEBUG=1 and the same command show where it happened", 1)


def _show(answer: Answer, render: str, as_json: bool) -> None:
    if as_json:
        _print_json(answer)
    else:
        module, _, screen = render.rpartition(".")
        getattr(import_module(f"flows.{module or 'terminal'}"), screen)(answer)


def _fail(failure: Failure, as_json: bool) -> NoReturn:
    from prooftune.report.wording import visible

    if as_json:
        _print_json(asdict(failure))
    colour = False if os.environ.get("NO_COLOR") else None  # click would colour all the same
    click.echo(f"{click.style(failure.error, fg='red', bold=True)}: {visible(failure.message)}", err=True, color=colour)
    sys.exit(failure.exit_code)


def _print_json(document: Answer) -> None:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    # JSON is UTF-8 whatever the terminal's encoding is; half a surrogate pair (a file name, say) becomes an escape that JSON knows.
    click.echo(text.encode("utf-8", "backslashreplace"))
