"""The report of a run: one self-contained HTML page, a model card and the data of every plot, all from one ``RunView``."""

from prooftune.report.html import write_report
from prooftune.report.view import RunView, load_view

__all__ = ["RunView", "load_view", "write_report"]
