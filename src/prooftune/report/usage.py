"""The commands and the code that use a run's result, as they are shown in the report and in the model card."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from prooftune.models.demo import DEMO_MODEL
from prooftune.report.asking import ask_snippet, ask_title, deployment_note
from prooftune.report.view import RunView
from prooftune.spec import Store

_PUBLISHED = """\
store = open_store(Store({store}))
files = read_manifest(store, {run_id!r}).files
paths = [store.fetch(ref) for name, ref in files.items() if name.startswith({prefix!r})]
trained = paths[0].parent  # every file is there, its SHA-256 checked"""
_ASK = """\
messages = {messages}
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
with torch.inference_mode():
    output = model.generate(**inputs, max_new_tokens={limit}, do_sample=False)
answer = output[0, inputs["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))
"""
_VERIFY = """\
from prooftune.spec import Store
from prooftune.storage.manifest import verify_manifest
from prooftune.storage.objects import open_store

problems = verify_manifest(open_store(Store({store})), {run_id!r})
print(*(problems or ["every file is as it was published"]), sep="\\n")
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A way to use the result: why, and what to type."""

    title: str
    code: str
    language: str = "sh"
    note: str = ""
    """What must be known before; empty = nothing."""


def recipes(view: RunView) -> list[Recipe]:
    """Return every way to use the run's result, in the order in which one needs them."""
    found = [Recipe("See the verdict again", _show(view))]
    managed = view.spec.backend.managed
    if view.candidate is not None and managed:
        found.append(Recipe(ask_title(view), ask_snippet(view), "python", deployment_note(view)))
    elif view.candidate is not None:
        found.append(Recipe("Load the candidate and ask it", load_snippet(view), "python"))
    return [
        *found,
        Recipe("Check every published file against its digest", _VERIFY.format(store=_store(view), run_id=view.run_id), "python"),
        Recipe("Run it again: stages that are done are not done again (the spec is at the end of this page)", "prooftune run spec.yaml"),
        Recipe("See what another spec would do, without doing it", f"prooftune plan spec.yaml --set {_epochs(view)}=1"),
        _rehearsal(view),
    ]


def _epochs(view: RunView) -> str:
    return "provider.hyperparameters.epochs" if view.spec.backend.managed else "backend.method.epochs"


def _rehearsal(view: RunView) -> Recipe:
    if view.spec.backend.managed:
        served = f"prooftune sandbox {view.spec.backend.provider}"
        return Recipe("Rehearse: a stand-in for the provider says how to run the spec there, without a bill", served)
    return Recipe("Rehearse: small and quick, another split", "prooftune run spec.yaml --set data.split.seed=8 --set data.split.train=100")


def load_snippet(view: RunView, *, base: str | None = None, trained: str | None = None) -> str:
    """Return Python that loads what was trained and asks it something.

    ``base`` stands for the base model (null = as the spec names it); ``trained`` is a folder that holds what was trained (null = it is
    fetched from the run's store).
    """
    spec, full = view.spec, view.spec.backend.method.kind == "full"
    resolved = not full and base is None and spec.backend.model == DEMO_MODEL
    published = _PUBLISHED.format(store=_store(view), run_id=view.run_id, prefix=f"{trained_folder(view)}/")
    messages = [{"role": "system", "content": spec.task.system}] if spec.task.system else []
    limit = spec.task.max_answer_tokens or max((p.answer_tokens for p in view.predictions.get("candidate", ())), default=128)
    lines = [
        *_imports(full=full, published=trained is None, resolved=resolved),
        "",
        f"trained = {trained!r}" if trained else published,
        "tokenizer = AutoTokenizer.from_pretrained(trained)",
        *(_load_full() if full else _load_adapter(view, base, resolved=resolved)),
        _ASK.format(messages=[*messages, {"role": "user", "content": "…"}], limit=limit),
    ]
    return "\n".join(lines)


def trained_folder(view: RunView) -> str:
    """Return the name of the folder that holds the adapter or, after full training, the model; of a managed run, the model's name."""
    return "model" if view.spec.backend.managed or view.spec.backend.method.kind == "full" else "adapter"


def _imports(*, full: bool, published: bool, resolved: bool) -> list[str]:
    adapter = [] if full else ["from peft import PeftModel"]
    lines = ["import torch", *adapter, "from transformers import AutoModelForCausalLM, AutoTokenizer"]
    if resolved:
        lines.append("from prooftune.models.resolve import resolve_model")
    if published:
        lines += ["from prooftune.spec import Store", "from prooftune.storage.manifest import read_manifest"]
        lines.append("from prooftune.storage.objects import open_store")
    return lines


def _load_full() -> list[str]:
    return ["model = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32).eval()"]


def _load_adapter(view: RunView, base: str | None, *, resolved: bool) -> list[str]:
    backend = view.spec.backend
    pinned = f", revision={backend.revision!r}" if backend.revision else ""
    pinned += ", trust_remote_code=True" if backend.trust_remote_code else ""
    name = f"resolve_model({backend.model!r}).path" if resolved else repr(base or backend.model)
    return [
        f"base = AutoModelForCausalLM.from_pretrained({name}{pinned}, dtype=torch.float32)",
        "model = PeftModel.from_pretrained(base, trained).eval()",
    ]


def _show(view: RunView) -> str:
    store, parts = view.spec.store, ["prooftune", "show", view.run_id]
    if store.uri != Store().uri:
        parts += ["--store", store.uri]
    if store.endpoint_url:
        parts += ["--endpoint-url", store.endpoint_url]
    return shlex.join(parts)


def _store(view: RunView) -> str:
    """Return the arguments that make the run's ``Store``."""
    set_fields = view.spec.store.model_dump(exclude_none=True)
    return ", ".join(f"{name}={value!r}" for name, value in set_fields.items())
