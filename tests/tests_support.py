"""Toy data and the command line, for tests."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Found = TypeVar("Found")

ROOT = Path(__file__).parents[1]
COLOURS = {"red": "stop", "amber": "wait", "green": "go"}
WORDS = [
    "road",
    "bridge",
    "tram",
    "corner",
    "market",
    "school",
    "river",
    "tower",
    "garden",
    "station",
    "harbour",
    "museum",
    "bakery",
    "tunnel",
    "square",
    "church",
    "park",
    "mill",
    "cinema",
    "depot",
    "morning",
    "evening",
    "rain",
    "fog",
    "snow",
    "wind",
    "summer",
    "winter",
    "bright",
    "quiet",
    "busy",
    "narrow",
    "broad",
    "steep",
    "old",
    "new",
    "wooden",
    "stone",
    "crowded",
    "empty",
    "slow",
    "quick",
]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def toy_rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Return prompts of random words around a colour, each with the action that the colour asks for: a tiny model can learn it."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        colour = list(COLOURS)[number % len(COLOURS)]
        words = rng.sample(WORDS, rng.randint(6, 12))
        words.insert(rng.randrange(len(words)), colour)
        rows.append({"prompt": " ".join(words), "completion": COLOURS[colour]})
    return rows


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    """Write rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prooftune(*arguments: str, env: dict[str, str], cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run(["prooftune", *arguments], env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)


def until(found: Callable[[], Found | None], seconds: float = 240) -> Found:
    """Wait for something to be there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (one := found()) is not None:
            return one
        time.sleep(0.2)
    raise TimeoutError(f"nothing was found within {seconds:g} s")
