"""The commands and the code that use a run's result, as they are shown in the report and in the model card."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

from prooftune.models.demo import DEMO_MODEL
from prooftune.report.view import RunView

_LOAD = """\
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
{imports}
{base}
trained = {trained!r}{place}
tokenizer = AutoTokenizer.from_pretrained(trained)
{load}
messages = {messages}
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
with torch.inference_mode():
    output = model.generate(**inputs, max_new_tokens={limit}, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A way to use the result: why, and what to type."""

    title: str
    code: str
    language: str = "sh"


def recipes(view: RunView) -> list[Recipe]:
    """Return every way to use the run's result, in the order in which one needs them."""
    spec = shlex.quote(f"{run_folder(view)}/spec.yaml")
    found = [Recipe("See the verdict again", f"prooftune show {shlex.quote(view.run_id)}")]
    if view.candidate is not None:
        found.append(Recipe("Load the candidate and ask it", load_snippet(view), "python"))
    if checks := _checksums(view):
        found.append(Recipe("Verify that the files are the ones that were judged", checks))
    found += [
        Recipe("Run it again: finished stages are reused", f"prooftune run {spec}"),
        Recipe("See what another spec would do, without doing it", f"prooftune plan {spec} --set backend.method.epochs=1"),
        Recipe("Rehearse: small and quick, another split", f"prooftune run {spec} --set data.split.seed=8 --set data.split.train=100"),
    ]
    return found


def run_folder(view: RunView) -> str:
    """Return where the run's artifacts are kept: a folder, or a URI."""
    return f"{view.spec.store.uri.rstrip('/')}/runs/{view.run_id}"


def load_snippet(view: RunView, base: str | None = None, trained: str | None = None) -> str:
    """Return Python that loads what was trained and asks it something; ``base`` and ``trained`` replace the places in the spec."""
    spec, full = view.spec, view.spec.backend.method.kind == "full"
    model, options = base or spec.backend.model, f", revision={spec.backend.revision!r}" if spec.backend.revision and not base else ""
    if model == DEMO_MODEL:
        found = f"base = str(resolve_model({model!r}).path)"
        imports = "from prooftune.models.resolve import resolve_model\n"
    else:
        found, imports = f"base = {model!r}", ""
    adapted = (
        f"model = AutoModelForCausalLM.from_pretrained(base{options}, dtype=torch.float32)\n"
        "model = PeftModel.from_pretrained(model, trained).eval()"
    )
    messages = [{"role": "system", "content": spec.task.system}] if spec.task.system else []
    return _LOAD.format(
        imports="" if full else f"from peft import PeftModel\n{imports}",
        base="" if full else found,
        trained=trained or f"{run_folder(view)}/{trained_folder(view)}",
        place="  # download the folder first" if "://" in spec.store.uri and not trained else "",
        load="model = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32).eval()" if full else adapted,
        messages=[*messages, {"role": "user", "content": "…"}],
        limit=spec.task.max_answer_tokens or max((p.answer_tokens for p in view.predictions.get("candidate", ())), default=128),
    )


def trained_folder(view: RunView) -> str:
    """Return the name of the folder, in the run's, that holds the adapter or, after full training, the model."""
    return "model" if view.spec.backend.method.kind == "full" else "adapter"


def _checksums(view: RunView) -> str:
    """Return a command that checks every digest whose name is a file below the run's folder."""
    files = [f"{sha256}  {name}" for name, sha256 in view.digests.items() if PurePosixPath(name).suffix]
    if not files or "://" in view.spec.store.uri:
        return ""
    return "\n".join([f"cd {shlex.quote(run_folder(view))} && sha256sum --check <<'EOF'", *files, "EOF"])
