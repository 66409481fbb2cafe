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
from prooftune.spec.provider import Budget, Cluster, Hyperparameters, Objective, Provider
from prooftune.spec.reading import load_spec, parse_spec, store_at
from prooftune.spec.run import RunSpec
from prooftune.spec.training import MANAGED, Backend, Method, ProviderName, Store, Tracking
from prooftune.spec.use import Use

__all__ = [
    "API",
    "MANAGED",
    "Address",
    "Amount",
    "Backend",
    "Baseline",
    "Budget",
    "Cluster",
    "Columns",
    "Contestant",
    "Data",
    "Gate",
    "General",
    "Hyperparameters",
    "Judge",
    "LearningCurve",
    "Method",
    "MetricName",
    "Name",
    "Objective",
    "Optimise",
    "Provider",
    "ProviderName",
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
