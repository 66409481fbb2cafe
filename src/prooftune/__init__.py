"""Prooftune: fine-tune a language model only when it pays, and prove it.

The library knows nothing of Prefect and every stage of it works from a notebook: a stage is a function that reads files, writes files into
a folder and returns figures. ``tasks/`` wraps each of them in a Prefect task and ``flows/`` composes the tasks.
"""

from importlib.metadata import version

__version__ = version("prooftune")
