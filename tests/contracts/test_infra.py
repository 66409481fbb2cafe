"""Manifests of infra/: what they promise of safety, and that they agree with the code, the pools and one another."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_UI_URL, temporary_settings
from prefect.workers.base import BaseJobConfiguration
from tests_support import ROOT

from prooftune.providers.ray import ENTRYPOINT

INFRA = ROOT / "infra"
OVERLAYS = ("kubernetes/overlays/cpu", "kubernetes/overlays/gpu", "kubernetes/overlays/jobs")
BUILDS = (*OVERLAYS, "kubernetes/aws", "kubernetes/webhook", "ray")
OF_THE_CLUSTER = ("Namespace", "StorageClass")
KUBERNETES = "1.33"
SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|sk-[A-Za-z0-9]{20}|hf_[A-Za-z0-9]{20}|-----BEGIN|(?i:password|secret|token|key)['\"]?\s*[:=]\s*['\"]?[A-Za-z0-9/+_-]{12,}"
)
REFERENCES = ("secretKeyRef", "configMapKeyRef", "secretRef", "secretName", "secretStoreRef", "remoteRef", "extract: {key:")


@pytest.fixture(scope="module", params=BUILDS)
def built(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """The objects of an overlay, as `kubectl apply -k` would send them."""
    return build(request.param)


def build(folder: str) -> list[dict[str, Any]]:
    """Return what kustomize makes of a folder."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(["kubectl", "kustomize", INFRA / folder], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """Yield name, spec and labels of each pod that some objects make."""
    for one in objects:
        spec = one.get("spec", {})
        for group in [spec, spec.get("headGroupSpec", {}), *spec.get("workerGroupSpecs", [])]:
            if "template" in group and "containers" in group["template"].get("spec", {}):
                yield one["metadata"]["name"], group["template"]["spec"], group["template"].get("metadata", {}).get("labels", {})


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all containers of a pod."""
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize(
    "path", sorted(path for path in INFRA.rglob("*") if path.is_file()), ids=lambda path: path.relative_to(INFRA).as_posix()
)
def test_no_file_holds_a_secret_or_a_floating_tag(path: Path) -> None:
    """Secrets are named, never written, and no image is whatever is newest today."""
    text = path.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not any(word in line for word in REFERENCES)]
    assert [line for line in lines if SECRET.search(re.sub(r"\$\(.*?\)|\$\{.*?\}", "", line))] == []
    assert re.findall(r"image:.*:latest\b|newTag: latest|FROM .*:latest", text) == []


def test_planted_secrets_are_found() -> None:
    """The search above would see a key of AWS, a password in YAML and one in an environment."""
    for line in ("AKIAIOSFODNN7EXAMPLE", "password: correcthorsebattery", "OPENAI_API_KEY=abcdefghijklmnop1234", "-----BEGIN RSA"):
        assert SECRET.search(line)


def test_every_object_is_what_kubernetes_takes(built: list[dict[str, Any]]) -> None:
    """Kubernetes' own schema, strictly: no unknown field, no wrong type."""
    validation = pytest.importorskip("kubernetes_validate", reason="the package kubernetes-validate is not installed")
    checked = [one for one in built if "ray.io" not in one["apiVersion"]]
    assert checked
    for one in checked:
        validation.validate(one, KUBERNETES, strict=True)


def test_pods_have_no_more_rights_than_they_need(built: list[dict[str, Any]]) -> None:
    """No root, no capabilities, a read-only image, no token for the cluster but where one is used, and bounds on memory."""
    for name, pod, _ in pods(built):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"], name
        assert context["seccompProfile"]["type"] == "RuntimeDefault", name
        assert pod["automountServiceAccountToken"] is (name == "worker-kubernetes"), name
        assert pod["serviceAccountName"].startswith("prooftune-"), name
        for container in containers(pod):
            allowed = container["securityContext"]
            assert allowed == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}, name
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            assert "memory" in container["resources"]["limits"], name
            assert re.fullmatch(r"[^:@]+(:[0-9][\w.-]*)?(@sha256:[0-9a-f]{64})?", container["image"]), container["image"]
            assert ":" in container["image"], name
            for variable in container.get("env", []):
                assert (
                    not re.search(r"PASSWORD|AUTH_STRING$|_KEY$", variable["name"])
                    or "valueFrom" in variable
                    or variable["name"].endswith("SECRET_KEY")
                ), variable


def test_every_service_account_and_volume_is_there(built: list[dict[str, Any]]) -> None:
    """What pods name exists in the same overlay; Ray's pods stand on the base of Kubernetes."""
    base = built if any(one["kind"] == "Namespace" for one in built) else [*built, *build("kubernetes/overlays/cpu")]
    names = {(one["kind"], one["metadata"]["name"]) for one in base}
    for _, pod, _ in pods(built):
        assert ("ServiceAccount", pod["serviceAccountName"]) in names
        claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod.get("volumes", []) if "persistentVolumeClaim" in volume]
        assert {("PersistentVolumeClaim", claim) for claim in claims} <= names
    assert {one["metadata"].get("namespace") for one in built} <= {"prooftune", None}
    assert {one["kind"] for one in built if "namespace" not in one["metadata"]} <= set(OF_THE_CLUSTER)


def test_all_is_denied_and_each_pod_is_allowed_something() -> None:
    """Every pod of the namespace is under the denial, and under a policy of its own that names addresses or pods, never everybody."""
    objects = [*build("kubernetes/overlays/gpu"), *build("kubernetes/overlays/jobs"), *build("kubernetes/webhook"), *build("ray")]
    policies = [one["spec"] for one in objects if one["kind"] == "NetworkPolicy"]
    denial = next(one["spec"] for one in objects if one["metadata"]["name"] == "default-deny")
    assert denial == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    own = [policy for policy in policies if policy["podSelector"]]
    asked = [(name, labels) for name, _, labels in pods(objects)]
    asked = [(name, {"ray.io/is-ray-node": "yes"} if name == "prooftune-ray" else labels) for name, labels in asked]  # KubeRay's label
    for name, labels in [*asked, ("job", {"prefect.io/flow-run-id": "x"})]:
        assert any(selects(policy["podSelector"], labels) for policy in own), name
    for policy in own:
        assert all("from" in rule for rule in policy.get("ingress", []))
        assert all("ports" in rule or rule["to"][0].get("podSelector") for rule in policy.get("egress", []))
        blocks = [to["ipBlock"] for rule in policy.get("egress", []) for to in rule.get("to", []) if "ipBlock" in to]
        assert all("169.254.0.0/16" in block.get("except", []) for block in blocks if block["cidr"] == "0.0.0.0/0")


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Return whether a label selector holds for labels."""
    expressions = {
        "Exists": lambda key, _: key in labels,
        "DoesNotExist": lambda key, _: key not in labels,
        "NotIn": lambda key, values: labels.get(key) not in values,
    }
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        expressions[one["operator"]](one["key"], one.get("values")) for one in selector.get("matchExpressions", [])
    )


def test_the_worker_of_jobs_may_make_jobs_and_no_more() -> None:
    """One role in one namespace, without wildcards, secrets or other roles."""
    objects = build("kubernetes/overlays/jobs")
    assert not [one for one in objects if one["kind"].startswith("Cluster")]
    role = next(one for one in objects if one["kind"] == "Role")
    rights = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert rights == {
        *(("jobs", verb) for verb in ("create", "get", "list", "watch", "delete")),
        *(("pods", verb) for verb in ("get", "list", "watch")),
        ("pods/log", "get"),
    }
    worker = next(pod for name, pod, _ in pods(objects) if name == "worker-kubernetes")
    env = {variable["name"]: variable for variable in worker["containers"][0]["env"]}
    # Without it the observer asks for the whole cluster, and is refused.
    assert "valueFrom" in env["PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES"]


def test_the_pool_of_jobs_fits_the_manifests() -> None:
    """Jobs go to this namespace, with its account, secret, user, nodes and taints."""
    template = yaml.safe_load((ROOT / "deployments" / "pools" / "kubernetes.yaml").read_text())["base_job_template"]
    defaults = {name: field.get("default") for name, field in template["variables"]["properties"].items()}
    objects = build("kubernetes/overlays/gpu")
    gpu = next(pod for name, pod, _ in pods(objects) if name == "worker-gpu")
    assert defaults["namespace"] == objects[0]["metadata"]["name"]
    assert ("ServiceAccount", defaults["service_account_name"]) in {(one["kind"], one["metadata"]["name"]) for one in objects}
    assert {"secretRef": {"name": defaults["secret"]}} in gpu["containers"][0]["envFrom"]
    assert defaults["run_as_user"] == gpu["securityContext"]["runAsUser"]
    assert (defaults["node_selector"], defaults["tolerations"]) == (gpu["nodeSelector"], gpu["tolerations"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_volume_on_aws_has_a_class_that_makes_it(overlay: str) -> None:
    """Each claim names no class, and so gets the cluster's default one: encrypted, and of the driver that Terraform installs."""
    objects = build(overlay)
    claims = [one["spec"] for one in objects if one["kind"] == "PersistentVolumeClaim"]
    claims += [claim["spec"] for one in objects if one["kind"] == "StatefulSet" for claim in one["spec"]["volumeClaimTemplates"]]
    assert len(claims) >= 3
    [default] = build("kubernetes/aws")
    assert {claim.get("storageClassName") for claim in claims} == {None}
    assert default["kind"] == "StorageClass"
    assert default["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": "true"}
    assert default["provisioner"] == "ebs.csi.aws.com"
    assert default["parameters"] == {"type": "gp3", "encrypted": "true"}
    assert default["volumeBindingMode"] == "WaitForFirstConsumer"
    assert "aws-ebs-csi-driver" in (INFRA / "terraform" / "cluster.tf").read_text()


def environment_of(container: dict[str, Any], settings: dict[str, str]) -> dict[str, str]:
    """Return what the kubelet makes of a container's variables that are no secrets: later ones may refer to earlier ones."""
    found = dict(settings) if any("configMapRef" in one for one in container.get("envFrom", [])) else {}
    seen: dict[str, str] = {}
    for one in container.get("env", []):
        if "value" in one:
            seen[one["name"]] = re.sub(r"\$\((\w+)\)", lambda name: seen.get(name[1], name[0]), one["value"])
        elif key := one["valueFrom"].get("configMapKeyRef"):
            seen[one["name"]] = settings[key["key"]]
    return found | seen


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_links_lead_to_where_browsers_find_the_ui(overlay: str) -> None:
    """One line says where: server, workers and what deploys have it, and the UI asks for its API there."""
    objects = build(overlay)
    [settings] = [one["data"] for one in objects if one["kind"] == "ConfigMap"]
    wanted = settings["PREFECT_UI_URL"]
    assert wanted == "http://127.0.0.1:4200"  # as `kubectl port-forward service/server 4200` gives it
    for name, pod, labels in pods(objects):
        if labels["app.kubernetes.io/component"] != "postgres":
            environments = [environment_of(container, settings) for container in containers(pod)]
            assert [environment["PREFECT_UI_URL"] for environment in environments] == [wanted] * len(environments), name
            if name == "server":
                assert environments[0]["PREFECT_UI_API_URL"] == f"{wanted}/api"


def test_jobs_have_the_address_of_their_worker() -> None:
    """Prefect hands on the settings of the worker that makes a job: a pool does not repeat them, and its own variables add to them."""
    template = yaml.safe_load((ROOT / "deployments" / "pools" / "kubernetes.yaml").read_text())["base_job_template"]
    given = template["variables"]["properties"]["env"]["default"]
    assert "PREFECT_UI_URL" not in given
    with temporary_settings({PREFECT_UI_URL: "https://prefect.example.com"}):
        configuration = BaseJobConfiguration(env=given)
        configuration.prepare_for_flow_run(FlowRun(flow_id=uuid4()))
    assert configuration.env["PREFECT_UI_URL"] == "https://prefect.example.com"
    assert given.items() <= configuration.env.items()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_flows_keep_their_results_in_s3(overlay: str) -> None:
    """What deploys has the store of the settings, since no pod's image can be written to; and so have commands in the worker's pod."""
    objects = build(overlay)
    [settings] = [one["data"] for one in objects if one["kind"] == "ConfigMap"]
    assert settings["PROOFTUNE_STORE"].startswith("s3://")
    worker = next(pod for name, pod, _ in pods(objects) if name == "worker-cpu")
    [deploys] = worker["initContainers"]
    assert deploys["command"] == ["prooftune", "deploy"]
    for container in containers(worker):
        assert environment_of(container, settings)["PROOFTUNE_STORE"] == settings["PROOFTUNE_STORE"]


def test_the_receiver_is_reached_by_whom_a_label_names_and_knows_no_more_than_it_needs() -> None:
    """Ingress from labelled namespaces to its port alone, egress to server and store; no key of a provider."""
    objects = build("kubernetes/webhook")
    [(_, pod, labels)] = pods(objects)
    [container] = pod["containers"]
    assert container["command"] == ["prooftune", "listen", "--host", "0.0.0.0", "--port", "8788"]  # noqa: S104 - in its own network
    assert "envFrom" not in container
    secrets = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container["env"] if "secretKeyRef" in one.get("valueFrom", {})}
    assert set(secrets) == {"PROOFTUNE_WEBHOOK_SECRET", "PREFECT_API_AUTH_STRING", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert all((one["name"], one["key"]) == ("prooftune", name) for name, one in secrets.items())
    assert not secrets["PROOFTUNE_WEBHOOK_SECRET"].get("optional")
    [service] = [one["spec"] for one in objects if one["kind"] == "Service"]
    assert selects({"matchLabels": service["selector"]}, labels)
    assert service["ports"][0]["port"] == container["ports"][0]["containerPort"] == 8788
    policies = {one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] == "NetworkPolicy"}
    assert policies["webhook"]["ingress"] == [
        {"from": [{"namespaceSelector": {"matchLabels": {"prooftune.io/asks": "webhook"}}}], "ports": [{"port": 8788}]}
    ]
    [let_in] = policies["server-from-webhook"]["ingress"]
    assert selects(let_in["from"][0]["podSelector"], labels)


@pytest.mark.parametrize(("pool", "overlay"), [("cpu", "cpu"), ("gpu", "gpu"), ("kubernetes", "jobs")])
def test_workers_serve_pools_that_are_there(pool: str, overlay: str) -> None:
    """Each worker takes runs of a pool that deployments/ defines."""
    worker = next(spec for name, spec, _ in pods(build(f"kubernetes/overlays/{overlay}")) if name == f"worker-{pool}")
    assert worker["containers"][0]["command"][:5] == ["prefect", "worker", "start", "--pool", pool]
    assert yaml.safe_load((ROOT / "deployments" / "pools" / f"{pool}.yaml").read_text())["name"] == pool


def test_ray_runs_the_version_and_the_command_that_the_code_submits() -> None:
    """Both manifests name the locked Ray; the one-off job submits what providers/ray.py does."""
    locked = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert locked is not None
    cluster, one_off = (yaml.safe_load((INFRA / "ray" / name).read_text()) for name in ("raycluster.yaml", "rayjob.yaml"))
    assert cluster["spec"]["rayVersion"] == one_off["spec"]["rayClusterSpec"]["rayVersion"] == locked[1]
    assert cluster["spec"]["authOptions"] == one_off["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert one_off["spec"]["entrypoint"].startswith(f"{ENTRYPOINT} ")
    place = shlex.split(one_off["spec"]["entrypoint"])[-1]
    from prooftune.training.job import Place

    assert Place.model_validate_json(place).id.startswith("prooftune-")


def test_every_file_of_yaml_can_be_read() -> None:
    """No manifest, not even an example, is broken."""
    files = sorted(INFRA.rglob("*.yaml"))
    assert len(files) > 10
    for path in files:
        assert all(isinstance(one, dict) for one in yaml.safe_load_all(path.read_text())), path


def test_links_of_the_readmes_lead_somewhere() -> None:
    """Whoever follows one finds the file."""
    for page in INFRA.rglob("*.md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target.partition("#")[0]).exists(), f"{page}: {target}"
