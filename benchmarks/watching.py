"""Measure a sensor's look at a data source: the first one, one at a source that did not change, and one at a file that was only touched.

python benchmarks/watching.py [ROWS]
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from prooftune.spec import RunSpec, parse_spec
from prooftune.storage.objects import open_store
from prooftune.watching.data import look_at_data


def seconds_of(spec: RunSpec) -> float:
    """Return the wall time of one look."""
    started = time.perf_counter()
    look_at_data(open_store(spec.store), spec, datetime.now(UTC))
    return time.perf_counter() - started


def main() -> None:
    """Print one line a figure."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "data.jsonl"
        texts = (f"ticket {number}: the {('lamp', 'door', 'cable', 'screen')[number % 4]} {number * 7919} fails" for number in range(count))
        source.write_text("".join(json.dumps({"prompt": text, "completion": "repair"}) + "\n" for text in texts))
        spec = parse_spec(
            {"name": "watched", "data": {"source": str(source)}, "watch": {"quiet_minutes": 0}, "store": {"uri": f"{folder}/store"}}
        )
        print(f"{count:,} rows, {source.stat().st_size / 1e6:.1f} MB, {platform.machine()}, Python {platform.python_version()}")
        print(f"first look: {seconds_of(spec):.2f} s")
        again = sorted(seconds_of(spec) for _ in range(11))
        print(f"unchanged: median {again[5] * 1000:.1f} ms, slowest {again[-1] * 1000:.1f} ms")
        source.touch()
        print(f"touched, same bytes: {seconds_of(spec) * 1000:.0f} ms")


if __name__ == "__main__":
    main()
