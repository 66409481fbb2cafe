"""Great Expectations' Data Docs as one page that loads nothing and is the same for the same results.

Its own site builder writes pages that load eight style sheets and scripts from content delivery networks, and stamps them with the time.
Here its renderers make the sections, and the page around them is ours.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: #d8dde3; --soft: #f4f6f8; --ink: #1d2530; --good: #1a7f4b; --bad: #c2352b; --paper: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3a424c; --soft: #232a32; --ink: #e6eaef; --good: #4cc38a; --bad: #ff7b72; --paper: #171c22; }
}
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; } h4, h5, h6 { font-size: 1rem; margin: 0; }
.summary { margin: 0; } .summary b.good { color: var(--good); } .summary b.bad { color: var(--bad); }
.ge-section { border: 1px solid var(--line); border-radius: 8px; margin: .75rem 0; overflow-x: auto; }
.alert { background: var(--soft); padding: .4rem .8rem; font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 13px; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; font-size: 12px; opacity: .65; }
td, th { padding: .4rem .8rem; border-top: 1px solid var(--line); vertical-align: top; }
td:first-child, th:first-child { width: 3.5rem; } td:last-child, th:last-child { width: 11rem; }
td table { width: auto; margin-top: .5rem; } td td:first-child, td th:first-child, td td:last-child, td th:last-child { width: auto; }
.badge { background: var(--soft); border-radius: 4px; padding: 0 .3rem; } br { display: none; }
.text-success::before { content: "✓"; color: var(--good); } strong.text-danger { color: var(--bad); font-weight: 500; display: block; }
i { font-style: normal; } i.text-danger::before { content: "✗"; color: var(--bad); }
i.text-warning::before { content: "!"; color: var(--bad); }
"""


def write_page(path: Path, results: Mapping[str, Any], titles: Mapping[str, str]) -> None:
    """Write the validation results, by suite, as one HTML page without a script, a link or a date."""
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">',
        f"<title>Data Docs</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>Data Docs</h1>",
        "<p>What Great Expectations found in the profile of the examples: one row a record, no text.</p>",
    ]
    for name, result in results.items():
        good, count = sum(one.success for one in result.results), len(result.results)
        look = "good" if good == count else "bad"
        parts.append(
            f'<h2>{html.escape(titles[name])}</h2>\n<p class="summary"><b class="{look}">{good} of {count}</b> expectations hold.</p>'
        )
        parts.extend(_sections(result))
    path.write_text("\n".join([*parts, "</body>\n</html>\n"]), encoding="utf-8", newline="\n")


def _sections(result: Any) -> list[str]:
    """One HTML fragment a column."""
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaSectionView

    for one in result.results:
        observed = one.result.get("observed_value")
        if hasattr(observed, "item"):
            one.result["observed_value"] = observed.item()  # the renderer cannot print NumPy's numbers
    _overview, *sections = ValidationResultsPageRenderer().render(result).to_json_dict()["sections"]
    view = DefaultJinjaSectionView()
    return [_clean(view.render({"section": section, "section_loop": {"index": index}})) for index, section in enumerate(sections, start=1)]


def _clean(fragment: str) -> str:
    """Drop scripts and what only they use, and empty space."""
    fragment = re.sub(r"<script\b.*?</script>", "", fragment, flags=re.DOTALL)
    fragment = re.sub(r'\s(id|data-[a-z-]+)="[^"]*"', "", fragment)
    return re.sub(r"\s*\n\s*", "\n", fragment).strip()
