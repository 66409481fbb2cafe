"""This machine: what it would cost to rent, and what fits into its memory."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from prooftune.economics.estimate import cores
from prooftune.economics.prices import Price, PriceList
from prooftune.spec import Use

THREADS_PER_CORE = 2
"""Hardware threads that a rented CPU core brings."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What models run on here."""

    cuda: bool
    name: str
    """The GPU's name, or ``CPU``."""
    threads: int
    """Hardware threads that a process may use."""
    memory_gb: float
    """Of the GPU, or of the machine; 1 GB = 10⁹ bytes."""


@dataclass(frozen=True, slots=True)
class MachineHour:
    """What an hour of a machine costs, and where that is from."""

    usd: float
    source: str
    """In one sentence."""
    price: Price | None = None
    """Of the price list; None = the spec's own."""
    warning: str = ""


def this_machine() -> Machine:
    """Look at the machine; PyTorch is loaded only where there is an NVIDIA driver."""
    import psutil

    if shutil.which("nvidia-smi") is not None:
        import torch

        if torch.cuda.is_available():
            gpu = torch.cuda.get_device_properties(0)
            return Machine(True, gpu.name, cores(), gpu.total_memory / 1e9)
    return Machine(False, "CPU", cores(), psutil.virtual_memory().total / 1e9)


def machine_hour(use: Use, machine: Machine, prices: PriceList) -> MachineHour:
    """Return what an hour of this machine costs: the spec's own figure, else what the price list says of its kind.

    A GPU of a kind that the list does not have counts as the dearest one that it has, with a warning: a bill that is too high misleads
    less than one of zero.
    """
    if use.gpu_usd_per_hour is not None:
        return MachineHour(use.gpu_usd_per_hour, f"This machine costs {use.gpu_usd_per_hour:g} USD an hour, as use.gpu_usd_per_hour says.")
    if not machine.cuda:
        core = prices.price["machine/cpu"]["core_hour"]
        count = max(machine.threads / THREADS_PER_CORE, 1)
        return MachineHour(
            count * core.amount,
            f"This machine is priced as {count:g} rented CPU core{'s' if count != 1 else ''} at {core.amount:g} USD an hour each "
            f"({prices.source[core.source].name}); set use.gpu_usd_per_hour to what yours costs.",
            core,
        )
    return _gpu_hour(machine.name, prices)


def _gpu_hour(name: str, prices: PriceList) -> MachineHour:
    kinds = {offer.split("/", 1)[1]: meters["hour"] for offer, meters in prices.price.items() if "hour" in meters}
    known = max((kind for kind in kinds if kind in name.lower()), key=len, default=None)
    kind = known or max(kinds, key=lambda kind: kinds[kind].amount)
    price = kinds[kind]
    source = f"This machine is priced as a rented {kind.upper()} at {price.amount:g} USD an hour ({prices.source[price.source].name})."
    if known is not None:
        return MachineHour(price.amount, source, price)
    return MachineHour(
        price.amount,
        source,
        price,
        f"The price list has no machine like {name}; it counts as the dearest, {kind.upper()}. Set use.gpu_usd_per_hour to what it costs.",
    )
