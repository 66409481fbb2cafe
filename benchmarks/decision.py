"""What the decision rests on, measured: the gate's error rates, the baseline ladder on banking77, and how fast a holdout is answered.

    python benchmarks/decision.py simulation|ladder|throughput [--json]

With ``--json`` the figures are also written to ``benchmarks/results/decision-WHAT.json``.
"""

from __future__ import annotations

import argparse
from importlib import import_module

from banking77 import write_result


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["simulation", "ladder", "throughput"])
    parser.add_argument("--json", action="store_true", help="also write the figures to benchmarks/results/")
    arguments = parser.parse_args()
    name = f"decision_{arguments.what}"
    benchmark = import_module(name)  # beside this file, which is where Python looks first
    figures = benchmark.run()
    print(benchmark.table(figures))
    if arguments.json and "skipped" not in figures:
        write_result(name.replace("_", "-"), figures)


if __name__ == "__main__":
    main()
