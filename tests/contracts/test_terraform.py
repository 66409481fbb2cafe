"""infra/terraform/: rights that are exactly the code's calls, and what every resource owes."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests_support import ROOT

FOLDER = ROOT / "infra" / "terraform"
SOURCE = ROOT / "src" / "prooftune"
S3_FILES = [*sorted((SOURCE / "storage").glob("s3*.py")), SOURCE / "providers" / "bedrock_files.py"]
BEDROCK_FILES = sorted((SOURCE / "providers").glob("bedrock*.py"))
ACTION_OF = {
    "s3:HeadObject": "s3:GetObject",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "bedrock-runtime:Converse": "bedrock:InvokeModel",
}
"""The right that a call asks for, where it is not named like the call.
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html"""
OF_PARAMETERS = {"roleArn": "iam:PassRole", "jobTags": "bedrock:TagResource"}
"""The right that a parameter asks for, beside the call's own."""
OF_ENCRYPTION = {"kms:Decrypt", "kms:GenerateDataKey"}


@pytest.fixture(scope="module")
def code() -> dict[str, Any]:
    """All files of the folder, as one document: kind → type → name → arguments."""
    hcl2 = pytest.importorskip("hcl2", reason="the package python-hcl2 is not installed")
    found: dict[str, Any] = {}
    for path in sorted(FOLDER.glob("*.tf")):
        for kind, blocks in plain(hcl2.loads(path.read_text(encoding="utf-8"))).items():
            for block in blocks if isinstance(blocks, list) else []:
                merge(found.setdefault(kind, {}), block)
    return found


def plain(value: Any) -> Any:
    """Return parsed HCL without the quotes that the parser keeps around names and texts."""
    if isinstance(value, dict):
        return {plain(name): plain(held) for name, held in value.items() if not name.startswith("__")}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value[1:-1] if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"' else value


def merge(into: dict[str, Any], block: dict[str, Any]) -> None:
    """Add a block's names to those of its kind."""
    for name, held in block.items():
        if isinstance(into.get(name), dict) and isinstance(held, dict):
            into[name].update(held)
        else:
            into[name] = held


def statements(code: dict[str, Any], document: str) -> list[dict[str, Any]]:
    """Return the statements of a policy document, conditional ones too."""
    found = code["data"]["aws_iam_policy_document"][document]
    dynamic = [content for one in found.get("dynamic", []) for content in one["statement"]["content"]]
    return [*found.get("statement", []), *dynamic]


def actions(code: dict[str, Any], document: str) -> set[str]:
    """Return every action that a policy document names."""
    return {action for one in statements(code, document) for action in one["actions"]}


def calls(files: list[Path], service: str) -> set[str]:
    """Return the operations of a service that source files call, by the names of its API."""
    from botocore import xform_name
    from botocore.session import get_session

    operations = {xform_name(name): name for name in get_session().get_service_model(service).operation_names}
    names = {name for path in files for name in asked(ast.parse(path.read_text(encoding="utf-8")))}
    return {f"{service}:{operations[name]}" for name in names & operations.keys()}


def asked(tree: ast.AST) -> Iterator[str]:
    """Yield what may be an operation's name: attributes, and what a paginator is asked for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get_paginator":
            yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant))


def parameters(files: list[Path]) -> set[str]:
    """Return the names of arguments and keys in source files."""
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    keys = {key.value for node in nodes if isinstance(node, ast.Dict) for key in node.keys if isinstance(key, ast.Constant)}
    return keys | {node.arg for node in nodes if isinstance(node, ast.keyword) and node.arg}


def test_the_workers_rights_are_the_codes_calls(code: dict[str, Any]) -> None:
    """Not one action more or less than what src/prooftune asks of S3 and Bedrock."""
    made = calls(S3_FILES, "s3") | calls(BEDROCK_FILES, "bedrock") | calls(BEDROCK_FILES, "bedrock-runtime")
    assert {"s3:PutObject", "s3:ListMultipartUploads", "bedrock:CreateModelCustomizationJob", "bedrock-runtime:Converse"} <= made
    needed = {ACTION_OF.get(call, call) for call in made}
    needed |= {OF_PARAMETERS[name] for name in parameters(BEDROCK_FILES) & OF_PARAMETERS.keys()}
    assert actions(code, "worker") == needed | OF_ENCRYPTION


def test_a_new_call_would_be_seen(tmp_path: Path) -> None:
    """An operation that some file began to call shows in the comparison."""
    (tmp_path / "new.py").write_text("def f(s3):\n    s3.put_bucket_policy(Bucket='b')\n    s3.get_paginator('list_object_versions')\n")
    assert calls([tmp_path / "new.py"], "s3") == {"s3:PutBucketPolicy", "s3:ListObjectVersions"}


def test_no_right_is_a_wildcard(code: dict[str, Any]) -> None:
    """Only the denial of unencrypted connections names all actions, and only lists, which have no resource, name all resources."""
    for document in code["data"]["aws_iam_policy_document"]:
        for statement in statements(code, document):
            if statement.get("effect") == "Deny":
                continue
            assert not [action for action in statement["actions"] if "*" in action], document
            resources = statement.get("resources", [])  # a text where they are an expression
            if "*" in resources if isinstance(resources, list) else '"*"' in resources:
                assert all(action.startswith("bedrock:List") for action in statement["actions"]), document


def test_bedrock_gets_its_role_for_this_accounts_jobs_alone(code: dict[str, Any]) -> None:
    """Another account cannot have Bedrock use the role, the worker can lend no other role, and results alone are written."""
    (trust,) = statements(code, "bedrock_trust")
    assert {one["variable"] for one in trust["condition"]} == {"aws:SourceAccount", "aws:SourceArn"}
    (lent,) = [one for one in statements(code, "worker") if "iam:PassRole" in one["actions"]]
    assert lent["resources"] == ["${aws_iam_role.bedrock.arn}"]
    assert [one["values"] for one in lent["condition"]] == [["bedrock.amazonaws.com"]]
    written = [one for one in statements(code, "bedrock") if "s3:PutObject" in one["actions"]]
    assert len(written) == 1
    assert "-${folder}/*" in str(written[0]["resources"])
    names = "".join(path.read_text(encoding="utf-8") for path in BEDROCK_FILES)
    assert 'for folder in ["results", "answers"]' in str(written[0]["resources"]).replace("\\", "")
    assert "-results/" in names
    assert "-answers/" in names


def test_the_bucket_is_private_encrypted_versioned_and_swept(code: dict[str, Any]) -> None:
    """Each promise of the README is an argument."""
    of = {kind: blocks["store"] for kind, blocks in code["resource"].items() if "store" in blocks}
    closed = of["aws_s3_bucket_public_access_block"]
    assert all(
        closed[name] is True for name in ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
    )
    assert of["aws_s3_bucket_versioning"]["versioning_configuration"][0]["status"] == "Enabled"
    (rule,) = of["aws_s3_bucket_server_side_encryption_configuration"]["rule"]
    assert rule["apply_server_side_encryption_by_default"][0]["sse_algorithm"] == "aws:kms"
    assert of["aws_kms_key"]["enable_key_rotation"] is True
    rules = of["aws_s3_bucket_lifecycle_configuration"]["rule"]
    assert {"noncurrent_version_expiration", "abort_incomplete_multipart_upload"} <= {name for one in rules for name in one}
    (denied,) = statements(code, "bucket")
    assert denied["effect"] == "Deny"
    assert (denied["condition"][0]["variable"], denied["condition"][0]["values"]) == ("aws:SecureTransport", ["false"])


def test_images_are_fixed_and_scanned(code: dict[str, Any]) -> None:
    """A tag never comes to mean another image."""
    images = code["resource"]["aws_ecr_repository"]["images"]
    assert images["image_tag_mutability"] == "IMMUTABLE"
    assert images["image_scanning_configuration"][0]["scan_on_push"] is True


def test_gpu_machines_are_those_that_kubernetes_looks_for(code: dict[str, Any]) -> None:
    """Labels and taints of the machines are what the pool selects and tolerates; pods cannot reach the machines' own credentials."""
    import yaml

    group = code["resource"]["aws_eks_node_group"]["gpu"]
    pool = yaml.safe_load((ROOT / "deployments" / "pools" / "kubernetes.yaml").read_text())["base_job_template"]["variables"]["properties"]
    assert group["labels"] == pool["node_selector"]["default"]
    (tolerated,) = pool["tolerations"]["default"]
    (taint,) = group["taint"]
    assert (taint["key"], taint["effect"]) == (tolerated["key"], re.sub(r"(?<!^)(?=[A-Z])", "_", tolerated["effect"]).upper())
    options = code["resource"]["aws_launch_template"]["node"]["metadata_options"][0]
    assert (options["http_tokens"], options["http_put_response_hop_limit"]) == ("required", 1)
    accounts = code["resource"]["aws_eks_pod_identity_association"]["worker"]["for_each"]
    known = (ROOT / "infra" / "kubernetes" / "base" / "service-accounts.yaml").read_text()
    named = re.findall(r"prooftune-[a-z]+", accounts)
    assert len(named) == 2
    assert all(f"name: {name}}}" in known for name in named)


def test_everything_is_described_bounded_and_tagged(code: dict[str, Any]) -> None:
    """Variables and outputs say what they are, variables are checked, versions are bounded, and tags reach every resource."""
    for name, variable in code["variable"].items():
        assert variable["description"].endswith("."), name
        assert "type" in variable, name
        assert "validation" in variable or name == "tags", name
        assert not re.search(r"password|secret|token", name), name
    assert all(output["description"] for output in code["output"].values())
    assert "required_version" in code["terraform"]
    versions = code["terraform"]["required_providers"][0]
    assert all(provider["version"].startswith("~> ") for provider in versions.values())
    assert "default_tags" in code["provider"]["aws"]


def test_every_name_leads_somewhere(code: dict[str, Any]) -> None:
    """Every resource, data source, variable and local that is referred to is defined, and every variable is used."""
    text = "".join(path.read_text(encoding="utf-8") for path in FOLDER.glob("*.tf"))
    used = set(re.findall(r"(?<![\w.])((?:data\.)?aws_\w+\.\w+)(?=[.\[\]])", text))
    defined = {f"{kind}.{name}" for kind, blocks in code["resource"].items() for name in blocks}
    defined |= {f"data.{kind}.{name}" for kind, blocks in code["data"].items() for name in blocks}
    assert used - defined == set()
    assert set(re.findall(r"(?<![\w.])var\.(\w+)", text)) == set(code["variable"])
    assert set(re.findall(r"(?<![\w.])local\.(\w+)", text)) <= set(code["locals"])


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The variables and the example of their values alone, which Terraform can plan without a provider."""
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")
    folder = tmp_path_factory.mktemp("variables")
    shutil.copy(FOLDER / "variables.tf", folder)
    shutil.copy(FOLDER / "terraform.tfvars.example", folder / "terraform.tfvars")
    assert terraform(folder, "init").returncode == 0
    return folder


def terraform(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Terraform in a folder, without asking anybody anything."""
    import os

    env = os.environ | {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", "TF_INPUT": "0"}
    return subprocess.run(
        ["terraform", *arguments, "-no-color"], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_files_are_formatted() -> None:
    """As `terraform fmt` writes them."""
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")
    done = terraform(FOLDER, "fmt", "-check", "-diff", "-recursive")
    assert done.returncode == 0, done.stdout


def test_the_example_of_values_is_valid(variables: Path) -> None:
    """terraform.tfvars.example can be used as it is, but for its subnets."""
    done = terraform(variables, "plan")
    assert done.returncode == 0, done.stderr
    assert "undeclared" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "value",
    [
        "gpu_instance_type=g4dn.xlarge",
        "bedrock_prefix=store/rows",
        'base_models=["amazon.*"]',
        'api_access_cidrs=["0.0.0.0/0"]',
        'subnet_ids=["subnet-0123456789abcdef0"]',
        "gpu_nodes={now=2,most=1}",
        "region=Oregon",
    ],
)
def test_values_that_would_do_harm_are_refused(variables: Path, value: str) -> None:
    """Each refusal names its variable."""
    done = terraform(variables, "plan", "-var", value)
    assert done.returncode == 1
    assert value.partition("=")[0] in done.stderr
