"""prefect.yaml, deployments/ and what `prooftune deploy` makes of them: first as files, then on a real server."""

from __future__ import annotations

import asyncio
import importlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
import yaml
from fixtures_deployed import answer_of, await_true, inbox
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import BlockDocument, BlockSchema, BlockType
from prefect.events.schemas.automations import AutomationCore
from prefect.flows import load_flow_from_entrypoint
from prefect.server.events.schemas.automations import AutomationCore as ServerAutomation
from prefect.server.schemas.schedules import CronSchedule
from prefect.states import Failed
from prefect.tasks import Task
from prefect.utilities.templating import apply_values, find_placeholders
from tests_support import ROOT

from flows.automations import read_file
from flows.deploying import check_triggers, kept_at, read_pools
from prooftune.errors import SpecError
from prooftune.spec import MANAGED
from prooftune.watching.signals import EVENTS, Signal
from tasks.policies import GPU, on_gpu
from tasks.scoring import evaluate

pytest_plugins = ["fixtures_deployed"]

DEPLOYMENTS = {one["name"]: one for one in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
POOLS = {pool.name: pool for pool in read_pools(ROOT / "deployments" / "pools")}
AUTOMATIONS = ROOT / "deployments" / "automations.yaml"
EMISSIONS = 200


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_each_deployment_names_a_flow_that_takes_its_parameters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entrypoint loads, and the parameters of prefect.yaml are valid ones of the flow."""
    monkeypatch.chdir(ROOT)
    deployment = DEPLOYMENTS[name]
    flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
    flow.validate_parameters(deployment["parameters"])


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_each_run_of_a_deployment_is_called_by_what_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow names its runs, so that none is called hopeful-otter; what a name has in braces is a parameter."""
    monkeypatch.chdir(ROOT)
    deployment = DEPLOYMENTS[name]
    flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
    assert flow.flow_run_name
    if isinstance(flow.flow_run_name, str):
        title = flow.flow_run_name.format(**flow.validate_parameters(deployment["parameters"]))
        assert title
        assert "{" not in title


SCHEDULES = {"nightly-evaluation": (range(7), 2), "weekly-retrain": ([6], 3)}
"""Weekdays, Monday being 0, and hour."""


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_clock_s_schedule_is_of_a_named_place(name: str) -> None:
    """In summer and in winter it is the same hour there; so UTC is not meant, and no hour is a server's own."""
    days, hour = SCHEDULES[name]
    [schedule] = DEPLOYMENTS[name]["schedules"]
    place = ZoneInfo(schedule["timezone"])
    clock = CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
    dates = asyncio.run(clock.get_dates(n=400, start=datetime(2026, 1, 1, tzinfo=place), end=datetime(2027, 1, 1, tzinfo=place)))
    local = [date.astimezone(place) for date in dates]
    assert len(local) == 365 * len(days) // 7
    assert {date.weekday() for date in local} == set(days)
    # The night in March in which the clock skips that hour has the next one.
    assert sum((date.hour, date.minute) != (hour, 0) for date in local) <= (hour == 2)
    assert len({date.utcoffset() for date in local}) == 2


def test_only_the_weekly_retraining_is_put_off() -> None:
    """By up to an hour, as docs/how-to/run-for-a-team.md says."""
    put_off = {name: one["parameters"]["jitter_minutes"] for name, one in DEPLOYMENTS.items() if "jitter_minutes" in one["parameters"]}
    assert put_off == {"weekly-retrain": 60}


def test_a_trigger_for_another_task_is_refused() -> None:
    """A task's new name in the spec alone would leave its events without effect, so deploying says so."""
    one = dict(DEPLOYMENTS["retrain-on-event"])
    check_triggers(list(DEPLOYMENTS.values()))
    one["parameters"] = {"spec": one["parameters"]["spec"] | {"name": "other"}}
    with pytest.raises(SpecError, match=r"retrain-on-event listens for prooftune\.task\.support-triage, .* prooftune\.task\.other"):
        check_triggers([one])


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_store_that_is_named_takes_the_place_of_the_files(name: str) -> None:
    """Every deployment that keeps anything keeps it there, with nothing left of the other store; what it says besides stays as it was."""
    before = DEPLOYMENTS[name]
    after = kept_at(before, "s3://bucket/store")
    parameters = after.pop("parameters")
    assert after == {field: said for field, said in before.items() if field != "parameters"}
    stores = [parameters[field] if field == "store" else parameters[field]["store"] for field in ("store", "spec") if field in parameters]
    assert stores == [{"uri": "s3://bucket/store"}] * (name != "watch-runs")
    assert before == DEPLOYMENTS[name]
    assert {"uri": "s3://bucket/store"} not in before["parameters"].values()


def test_every_event_of_a_signal_starts_a_retraining() -> None:
    """The trigger of retrain-on-event expects the event of each kind of signal; what is only due is the schedule's."""
    [trigger] = DEPLOYMENTS["retrain-on-event"]["triggers"]
    assert set(trigger["expect"]) == {event for kind, event in EVENTS.items() if kind != "schedule"}
    spec = DEPLOYMENTS["retrain-on-event"]["parameters"]["spec"]
    signal = Signal(kind="data", task=spec["name"], digest="d", reason="r", at="2026-01-01T00:00:00Z")
    assert trigger["match"]["prefect.resource.id"] == signal.resource["prefect.resource.id"]
    assert set(trigger["for_each"]) <= signal.resource.keys()


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_a_pools_template_fits_together(pool: Any) -> None:
    """Every placeholder has a variable and every variable a placeholder; the variables are JSON Schema, and its defaults follow it."""
    from jsonschema import Draft202012Validator

    template = pool.base_job_template
    schema = template["variables"]
    Draft202012Validator.check_schema(schema)
    assert {one.name for one in find_placeholders(template["job_configuration"])} == set(schema["properties"])
    defaults = {name: said["default"] for name, said in schema["properties"].items() if "default" in said}
    Draft202012Validator(schema | {"required": []}).validate(defaults)
    assert int(defaults["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) == 30


@pytest.mark.parametrize("pool", [pool for pool in POOLS.values() if pool.type == "process"], ids=lambda pool: pool.name)
def test_a_flow_run_writes_nothing_to_its_workers_console(pool: Any) -> None:
    """A process that writes to a worker that was killed breaks at the next line; the killed worker of test_team.py shows the run go on."""
    assert pool.base_job_template["variables"]["properties"]["stream_output"]["default"] is False


def test_a_kubernetes_job_asks_for_a_gpu_and_takes_its_secrets_by_reference() -> None:
    """What a worker makes of the template's defaults is a job with a GPU, a place to run, no rights, and a secret's name only."""
    template = POOLS["kubernetes"].base_job_template
    defaults = {name: said["default"] for name, said in template["variables"]["properties"].items() if "default" in said}
    rendered = apply_values(template["job_configuration"]["job_manifest"], defaults | {"name": "run", "image": "registry/prooftune:1"})
    pod = rendered["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == container["resources"]["requests"]["nvidia.com/gpu"] == 1
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert container["envFrom"] == [{"secretRef": {"name": "prooftune"}}]
    assert pod["securityContext"]["runAsNonRoot"]


@pytest.mark.parametrize(("pool", "package", "left_out"), [("cpu", "prefect", ""), ("kubernetes", "prefect-kubernetes", "cluster_config")])
def test_a_pool_configures_what_its_worker_reads(pool: str, package: str, left_out: str) -> None:
    """The template has the fields of the default template that Prefect publishes for the worker; in a cluster no address is needed."""
    published = json.loads((files("prefect.server.api") / "collections_data/views/aggregate-worker-metadata.json").read_text())
    default = published[package][POOLS[pool].type]["default_base_job_configuration"]["job_configuration"]
    ours = POOLS[pool].base_job_template["job_configuration"]
    assert ours.keys() == default.keys() - {left_out}
    manifest, wanted = ours.get("job_manifest", {}), default.get("job_manifest", {})
    assert manifest.keys() == wanted.keys()
    assert manifest.get("spec", {}).keys() >= wanted.get("spec", {}).keys()


def test_limits_and_tags_are_the_same() -> None:
    """Every managed provider has a limit, and so has the GPU, under the tags that tasks carry."""
    limits = yaml.safe_load((ROOT / "deployments" / "limits.yaml").read_text())["tags"]
    assert set(limits) == {GPU, *(f"managed:{provider}" for provider in MANAGED)}


def test_tasks_have_tags_of_queues_only() -> None:
    """Prefect asks its server for a slot of each tag of a task, and with SQLite the server is slow to answer: no tag is there for show."""
    limits = yaml.safe_load((ROOT / "deployments" / "limits.yaml").read_text())["tags"]
    modules = [importlib.import_module(f"{folder}.{path.stem}") for folder in ("flows", "tasks") for path in (ROOT / folder).glob("*.py")]
    found = {task.name: task.tags for module in modules for task in vars(module).values() if isinstance(task, Task)}
    assert {"train", "evaluate", "look", "ask-again", "submit", "admit"} <= found.keys()
    assert {name: tags for name, tags in found.items() if not tags <= limits.keys()} == {}


def test_only_what_has_a_gpu_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that runs a model here carries the tag where there is a GPU; on the CPU, or with the model at a provider, it does not."""
    for found, here, tags in ((None, True, set()), ("/usr/bin/nvidia-smi", True, {GPU}), ("/usr/bin/nvidia-smi", False, set())):
        monkeypatch.setattr("shutil.which", lambda name, found=found: found)
        assert on_gpu(evaluate, here=here).tags == tags
    assert on_gpu(evaluate, here=True).cache_policy == evaluate.cache_policy


def test_automations_are_valid_for_the_server() -> None:
    """With a channel of either kind the server takes every automation and its templates; with none, those that only notify are left out."""
    channels = [channel("slack", "slack-webhook"), channel("hook", "webhook")]
    wanted, left_out = read_file(AUTOMATIONS, channels)
    assert not left_out
    for one in wanted:
        ServerAutomation.model_validate(one.model_dump(mode="json"))
    kinds = [[action.type for action in one.actions] for one in wanted if one.name == "prooftune-verdict-reached"]
    assert kinds == [["send-notification", "call-webhook"]]
    kept, left_out = read_file(AUTOMATIONS, [])
    assert kept == []
    assert left_out == [one.name for one in wanted]


def channel(name: str, kind: str) -> BlockDocument:
    """Return a registered block, without its secrets."""
    block_type = BlockType(name=kind, slug=kind)
    schema = BlockSchema(block_type_id=block_type.id, fields={}, checksum="")
    return BlockDocument(
        name=f"prooftune-notify-{name}", block_type_id=block_type.id, block_schema_id=schema.id, block_schema=schema, block_type=block_type
    )


def test_a_file_that_is_no_automation_says_so(tmp_path: Path) -> None:
    """The message names the file and the automation."""
    file = tmp_path / "automations.yaml"
    file.write_text("automations: [{name: broken, actions: [{type: do-nothing}], trigger: {type: event, posture: Sideways}}]")
    with pytest.raises(SpecError, match=r"automations\.yaml: automation 'broken'"):
        read_file(file, [])
    with pytest.raises(SpecError, match="is not there"):
        read_file(tmp_path / "none.yaml", [])


@pytest.mark.slow
def test_deployed_again_nothing_changes(deployed: dict[str, Any], home: dict[str, str]) -> None:
    """A second `prooftune deploy` finds pools, limits and automations as they are, and says what is left out and how to get it."""
    assert set(deployed["deployments"]) == set(DEPLOYMENTS)
    again = answer_of("deploy", str(ROOT), env=home)
    assert {row["became"] for kind in ("pools", "limits") for row in again[kind]} == {"unchanged"}
    assert "prooftune-verdict-reached" in again["left_out"]
    assert "prooftune-notify-slack" in again["register"]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["option", "environment"])
def test_deployed_flows_keep_their_results_where_deploy_is_told(
    by: str, deployed: dict[str, Any], client: SyncPrefectClient, home: dict[str, str]
) -> None:
    """The store is in the parameters of what was deployed; the folder is not written to, and the next `deploy` undoes it."""
    uri = "s3://prooftune/store"
    listed = sorted(path.name for path in ROOT.iterdir())
    named = ["--store", uri] if by == "option" else []
    try:
        assert answer_of("deploy", str(ROOT), *named, env=home | ({} if named else {"PROOFTUNE_STORE": uri}))["store"] == uri
        found = {one.name: one for one in client.read_deployments()}
        assert found["finetune"].parameters["spec"] == DEPLOYMENTS["finetune"]["parameters"]["spec"] | {"store": {"uri": uri}}
        assert found["resume-waiting"].parameters == {"store": {"uri": uri}}
        assert found["finetune"].pull_steps[0]["prefect.deployments.steps.set_working_directory"] == {"directory": str(ROOT)}
        assert sorted(path.name for path in ROOT.iterdir()) == listed
    finally:
        answer_of("deploy", str(ROOT), env=home)
    assert client.read_deployment_by_name("finetune/finetune").parameters == DEPLOYMENTS["finetune"]["parameters"]


def test_the_server_has_each_schedule_as_it_is_written(deployed: dict[str, Any], client: SyncPrefectClient) -> None:
    """Cron, time zone and interval of prefect.yaml are what the server starts runs by."""
    for name, one in DEPLOYMENTS.items():
        flow_name = load_flow_from_entrypoint(str(ROOT / one["entrypoint"]), use_placeholder_flow=False).name
        found = client.read_deployment_by_name(f"{flow_name}/{name}").schedules
        kept = [(each.active, each.schedule.model_dump(mode="json")) for each in found]
        for (active, schedule), written in zip(kept, one.get("schedules", []), strict=True):
            assert active
            wanted = {field: value for field, value in written.items() if field != "slug"}
            assert {field: schedule[field] for field in wanted} == wanted


@pytest.mark.slow
def test_what_differs_is_changed_and_what_people_decided_is_kept(
    told: list[bytes], home: dict[str, str], client: SyncPrefectClient, tmp_path: Path
) -> None:
    """An automation changes with its file and goes with it; one that is paused stays paused; another's is never touched."""
    names = {one["name"] for one in yaml.safe_load(AUTOMATIONS.read_text())["automations"]}
    [late] = client.read_automations_by_name("prooftune-run-late")
    foreign = client.create_automation(AutomationCore(**late.model_dump() | {"name": "foreign", "tags": []}))
    changed = next(one for one in yaml.safe_load(AUTOMATIONS.read_text())["automations"] if one["name"] == late.name)
    changed["description"] = "Another text."
    (tmp_path / "deployments").mkdir()
    (tmp_path / "deployments" / "automations.yaml").write_text(yaml.safe_dump({"automations": [changed]}))
    client.pause_automation(late.id)
    try:
        became = {row["name"]: row["became"] for row in answer_of("automations", "apply", str(tmp_path), env=home)["automations"]}
        assert became == {name: "changed" if name == late.name else "removed" for name in names}
        [listed] = answer_of("automations", env=home)["automations"]
        assert listed == {"name": late.name, "description": "Another text.", "enabled": False}
        assert client.read_automation(foreign) is not None
    finally:
        client.delete_automation(foreign)
        client.resume_automation(late.id)


def emit(client: SyncPrefectClient, signal: Signal, ids: list[UUID]) -> None:
    """Send the server a signal's event once for each id, at once."""
    event = {"event": signal.event, "resource": signal.resource, "payload": signal.model_dump(mode="json")}
    events = [event | {"id": str(one), "occurred": datetime.now(UTC).isoformat()} for one in ids]
    assert client.request("POST", "/events", json=events).status_code == 204


@pytest.mark.slow
@pytest.mark.parametrize("same_id", [True, False])
def test_an_event_repeated_200_times_starts_one_run(deployed: dict[str, Any], client: SyncPrefectClient, same_id: bool) -> None:
    """The server starts one flow run in a burst of the same signal, sent with one id or with 200; a later repetition starts none."""
    deployment = client.read_deployment_by_name("retrain/retrain-on-event")
    found = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    digest = uuid4().hex
    signal = Signal(kind="data", task="support-triage", digest=digest, reason="50 new examples", at=datetime.now(UTC).isoformat())

    def started() -> list[dict[str, Any]]:
        runs = client.read_flow_runs(deployment_filter=found, limit=200)
        return [run.parameters for run in runs if (run.parameters.get("signal") or {}).get("digest") == digest]

    began = time.monotonic()
    emit(client, signal, [signal.id if same_id else uuid4() for _ in range(EMISSIONS)])
    await_true("a run", started, 60, every=0.2)
    seconds = time.monotonic() - began
    emit(client, signal, [uuid4()])
    time.sleep(15)
    [parameters] = started()
    ids = "one id" if same_id else "as many ids"
    print(f"\n{EMISSIONS} events, {ids}: 1 flow run, {seconds:.1f} s after they were sent")  # noqa: T201 - the figure is the result
    assert Signal.model_validate(parameters["signal"]) == signal


@pytest.fixture
def told(client: SyncPrefectClient, home: dict[str, str], deployed: dict[str, Any]) -> Iterator[list[bytes]]:
    """What two registered channels were sent: one through a webhook block, one through a notification block."""
    with inbox() as (address, bodies):
        names = ["prooftune-notify-hook", "prooftune-notify-custom"]
        blocks = [
            Webhook(url=address, headers={"Content-Type": "application/json"}),
            CustomWebhookNotificationBlock(name="custom", url=address, json_data={"subject": "{{subject}}", "body": "{{body}}"}),
        ]
        ids = [block.save(name) for name, block in zip(names, blocks, strict=True)]
        answer = answer_of("automations", "apply", str(ROOT), env=home)
        assert set(answer["channels"]) == set(names)
        assert answer["left_out"] == []
        again = answer_of("automations", "apply", str(ROOT), env=home)
        assert {row["became"] for row in again["automations"]} == {"unchanged"}
        yield bodies
        for one in ids:
            client.delete_block_document(one)
        answer_of("automations", "apply", str(ROOT), env=home)


@pytest.mark.slow
def test_a_failed_run_and_a_verdict_are_told_to_every_channel(told: list[bytes], client: SyncPrefectClient) -> None:
    """A run that fails, an approval that is needed and a verdict each send one message to each registered block."""
    deployment = client.read_deployment_by_name("sweep-deployments/sweep-deployments")
    run = client.create_flow_run_from_deployment(deployment.id, name="sweep-here")
    client.set_flow_run_state(run.id, Failed(message='The account "a" could not be asked.'), force=True)
    resource = {"prefect.resource.id": "prooftune.task.toy", "prefect.resource.name": "toy"}
    asked = {"task": "toy", "run_id": "toy-1", "what": 'toy-1 may cost "$7".', "command": "prooftune approve toy-1 --store s3://b"}
    verdict = {"task": "toy", "run_id": "toy-1", "verdict": "promote", "reasons": ["Better.", "Cheaper."], "report": "report.html"}
    for name, payload in (("approval.needed", asked), ("verdict.reached", verdict)):
        event = {"event": f"prooftune.{name}", "resource": resource, "payload": payload, "id": str(uuid4())}
        client.request("POST", "/events", json=[event | {"occurred": datetime.now(UTC).isoformat()}])

    def heard() -> list[tuple[str, str]]:
        """What was told, but for runs of the schedules that no worker takes here."""
        messages = sorted((message["subject"], message["body"]) for message in map(json.loads, told))
        return [(subject, body) for subject, body in messages if not subject.endswith(" is late")]

    await_true("six messages", lambda: len(heard()) >= 6, 60)
    messages = heard()
    assert len(messages) == 6
    assert messages[0::2] == messages[1::2]
    failed, approval, promoted = messages[0::2]
    assert failed[0] == "sweep-here: Failed"
    assert failed[1].startswith('The account "a" could not be asked.')
    assert str(run.id) in failed[1]
    assert approval == ("toy waits for an approval", 'toy-1 may cost "$7".\nprooftune approve toy-1 --store s3://b\n')
    assert promoted == ("toy: promote", "Better.\nCheaper.\nreport.html\n")
