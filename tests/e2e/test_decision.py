"""Everything that the gate can weigh, in one run from the command line: the whole ladder, looks, a judge, a learning curve."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixtures_chat import Chat, ChatServer
from tests_support import prooftune

from prooftune.evidence import Curve, Failures, Forgetting, JudgeReport
from prooftune.spec import load_spec
from prooftune.storage.manifest import read_manifest
from prooftune.storage.objects import open_store

pytest_plugins = ["fixtures_chat"]


def by_reference(chat: Chat) -> str:
    """Judge by the reference answer, as it stands between the fences."""
    texts = dict(re.findall(r"=== (reference answer|answer A|answer B) \w+ ===\n(.*?)\n=== end", chat[-1]["content"], re.DOTALL))
    right = {side: texts[f"answer {side}"].strip() == texts["reference answer"].strip() for side in ("A", "B")}
    return json.dumps({"better": "tie" if right["A"] == right["B"] else "A" if right["A"] else "B"})


@pytest.mark.slow
def test_all_evidence_is_gathered_and_weighed(
    toy_folder: Path, tmp_path: Path, chat_server: ChatServer, server: dict[str, Any], home: dict[str, str]
) -> None:
    """Each rung, each stage and each file is there, the judge was asked on its socket, and verify finds every figure again."""
    chat_server.answer = by_reference
    spec = yaml.safe_load((toy_folder / "spec.yaml").read_text())
    (tmp_path / "signs.md").write_text("Red means stop.\n\nAmber means wait.\n\nGreen means go.\n")
    spec["data"]["source"] = str(toy_folder / "toy.jsonl")
    spec["baseline"] |= {
        "ladder": ["zero_shot", "few_shot", "retrieved", "optimised", "rag"],
        "documents": "signs.md",
        "optimise": {"calls": 40},
    }
    spec["gate"] |= {"looks": 2, "metrics": ["label_accuracy"]}
    spec["judge"] = {"model": "judge-1", "base_url": chat_server.openai, "max_pairs": 20, "batch": False, "decides": True}
    spec["learning_curve"] = {"shares": [0.5]}
    spec["use"] = {"requests_per_month": 5000}
    spec["store"] = {"uri": str(tmp_path / "store")}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    done = prooftune("run", str(tmp_path / "spec.yaml"), "--json", env=home | {"OPENAI_API_KEY": chat_server.key}, timeout=900)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {evaluation["name"] for evaluation in result["evaluations"]} == {*spec["baseline"]["ladder"], "candidate"}
    assert {"learn", "learning_curve", "judge", "champion", "costs", "forgetting", "failures"} <= {
        stage["name"] for stage in result["stages"]
    }
    assert {"judge", "metric label_accuracy"} <= {check["name"] for check in result["decision"]["checks"]}

    store = open_store(load_spec(tmp_path / "spec.yaml").store)
    files = read_manifest(store, result["run_id"]).files
    judged = JudgeReport.model_validate_json(store.get(files["judge.json"].key))
    assert judged.wins + judged.losses + judged.ties == 20
    assert chat_server.asked("/v1/chat/completions"), "the judge was to be asked over its socket"
    assert len(Curve.model_validate_json(store.get(files["learning_curve.json"].key)).points) == 2
    assert Forgetting.model_validate_json(store.get(files["forgetting.json"].key)).parts
    assert Failures.model_validate_json(store.get(files["failures.json"].key)).scored == 60
    wanted = {"looks.json", "advice.json", "costs.json", "slices.json", "labelling.jsonl", "technical_file.md", "few_shot.choice.json"}
    assert wanted | {"rag.prompts.jsonl", "retrieved.prompts.jsonl", "optimised.prompt.json"} <= set(files)

    verified = prooftune("verify", result["run_id"], "--json", "--store", str(tmp_path / "store"), env=home)
    assert verified.returncode == 0, verified.stdout
    again = prooftune("run", str(tmp_path / "spec.yaml"), "--json", env=home | {"OPENAI_API_KEY": chat_server.key})
    repeated = json.loads(again.stdout)
    assert repeated["run_id"] == result["run_id"]
    anew = {stage["name"] for stage in repeated["stages"] if not stage["cached"]}
    assert anew <= {"model", "fingerprint", "fingerprint_files", "find_champion"}
