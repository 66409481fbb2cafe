"""The run spec: what a user writes. Importing it costs neither torch nor prefect."""

from prooftune.spec.data import Columns, Data, Old, Split
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
from prooftune.spec.watching import Retrain, Watch

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
    "Old",
    "Optimise",
    "Provider",
    "ProviderName",
    "Retrain",
    "RunSpec",
    "Rung",
    "Share",
    "Split",
    "Store",
    "Task",
    "Tracking",
    "Use",
    "Watch",
    "digest",
    "load_spec",
    "parse_spec",
    "store_at",
]
