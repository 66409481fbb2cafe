"""The run spec: what a user writes. Importing it costs neither torch nor prefect."""

from prooftune.spec.data import Columns, Data, Split
from prooftune.spec.evaluation import (
    API,
    Baseline,
    Contestant,
    Gate,
    General,
    Judge,
    LearningCurve,
    MetricName,
    Optimise,
    Rung,
    Task,
)
from prooftune.spec.fields import Address, Amount, Name, Share, digest
from prooftune.spec.reading import load_spec, parse_spec, store_at
from prooftune.spec.run import RunSpec
from prooftune.spec.training import Backend, Method, Store, Tracking
from prooftune.spec.use import Use

__all__ = [
    "API",
    "Address",
    "Amount",
    "Backend",
    "Baseline",
    "Columns",
    "Contestant",
    "Data",
    "Gate",
    "General",
    "Judge",
    "LearningCurve",
    "Method",
    "MetricName",
    "Name",
    "Optimise",
    "RunSpec",
    "Rung",
    "Share",
    "Split",
    "Store",
    "Task",
    "Tracking",
    "Use",
    "digest",
    "load_spec",
    "parse_spec",
    "store_at",
]
