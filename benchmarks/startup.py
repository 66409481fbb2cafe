"""How long ``prooftune --help`` takes to answer: median, least and most of 21 processes.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 21
PROOFTUNE = Path(sys.executable).with_name("prooftune")


def main() -> None:
    """Run, measure, print."""
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run([PROOFTUNE, "--help"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    print(f"prooftune --help: {statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f}), goal 0.3 s")


if __name__ == "__main__":
    main()
