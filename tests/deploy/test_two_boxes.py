"""The examples with two boxes: each file has the form that its program wants, and they agree."""

import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from retter.config.load import load
from retter.config.settings import SETTINGS
from tests.real.conftest import need

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES: list[dict[str, Any]] = list(
    yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
)
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose-two-boxes.yaml").read_text())
VARIABLES = {setting.variable for setting in SETTINGS}


def by_name(kind: str, name: str) -> dict[str, Any]:
    (found,) = [
        one for one in KUBERNETES if one["kind"] == kind and one["metadata"]["name"] == name
    ]
    return found


@pytest.mark.parametrize(
    "document", KUBERNETES, ids=[f"{one['kind']}-{one['metadata']['name']}" for one in KUBERNETES]
)
def test_each_object_fits_the_schema_of_kubernetes(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.31", strict=True)


def test_the_schema_finds_what_is_wrong() -> None:
    broken = {**KUBERNETES[0], "spec": {**KUBERNETES[0]["spec"], "replicaz": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.31", strict=True)


def test_services_select_the_pods_and_ports_that_are_there() -> None:
    for name in ("retter", "retter-valkey"):
        template = by_name("Deployment", name)["spec"]["template"]
        service = by_name("Service", name)["spec"]
        assert service["selector"].items() <= template["metadata"]["labels"].items()
        ports = {one["name"] for one in template["spec"]["containers"][0]["ports"]}
        assert {one["targetPort"] for one in service["ports"]} <= ports
    container = by_name("Deployment", "retter")["spec"]["template"]["spec"]["containers"][0]
    variables = {one["name"]: one["value"] for one in container["env"]}
    (port,) = by_name("Service", "retter-valkey")["spec"]["ports"]
    assert variables["RETTER_SHARED"] == f"redis://retter-valkey:{port['port']}/0"
    assert variables["RETTER_LISTEN"] == f":{container['ports'][0]['containerPort']}"
    mount = container["volumeMounts"][0]["mountPath"]
    assert variables["RETTER_SHARED_SECRET"] == f"{mount}/shared-secret"
    load({}, variables)


def test_the_settings_of_the_composition_are_settings() -> None:
    for name in ("retter-1", "retter-2"):
        variables = COMPOSE["services"][name]["environment"]
        assert set(variables) <= VARIABLES
        settings = load({}, variables).settings
        assert settings.shared == "redis://valkey:6379/0"
        (secret,) = COMPOSE["services"][name]["secrets"]
        assert settings.shared_secret == f"/run/secrets/{secret}" and secret in COMPOSE["secrets"]


def test_haproxy_takes_its_configuration_and_knows_the_boxes(tmp_path: Path) -> None:
    text = (DEPLOY / "haproxy-two-boxes.cfg").read_text()
    lines = [line.split() for line in text.splitlines()]
    servers = [line[2].partition(":")[0] for line in lines if line[:1] == ["server"]]
    assert servers == ["retter-1", "retter-2"]
    for name in servers:
        assert name in COMPOSE["services"]
        text = text.replace(f"{name}:8080", "127.0.0.1:8080")  # their names are not known here
    (tmp_path / "haproxy.cfg").write_text(text)
    done = subprocess.run(
        [need("haproxy", "haproxy"), "-c", "-f", str(tmp_path / "haproxy.cfg")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
