"""The files for Ray Serve and KubeRay."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from safelight_service.settings import load_settings
from support.deploy.chart import ROOT, Manifest, find, read_manifests
from support.deploy.validation import find_problems

FOLDER = ROOT / "deploy" / "ray"
NAME = "safelight-fleet"


def read_fleet() -> list[Manifest]:
    return read_manifests((FOLDER / "rayservice.yaml").read_text())


def read_groups() -> dict[str, dict[str, Any]]:
    """Return the pods of the Ray cluster by their group."""
    cluster = find(read_fleet(), "RayService", NAME)["spec"]["rayClusterConfig"]
    groups = {each["groupName"]: each["template"] for each in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"], **groups}


def test_manifests_are_valid() -> None:
    assert [problem for each in read_fleet() for problem in find_problems(each)] == []


def test_kuberay_deploys_the_same_applications_as_ray_serve() -> None:
    yaml = YAML(typ="safe")
    service = find(read_fleet(), "RayService", NAME)
    config = yaml.load(FOLDER / "serve.yaml")
    assert yaml.load(service["spec"]["serveConfigV2"]) == config
    assert config["proxy_location"] == "Disabled"


def test_no_probe_asks_for_a_serve_proxy() -> None:
    # KubeRay adds its own probes, which do, where a template has none.
    for pod in read_groups().values():
        for container in pod["spec"]["containers"]:
            for name in ("livenessProbe", "readinessProbe"):
                probe = container[name]
                path = probe.get("httpGet", {}).get("path")
                assert path == "/api/local_raylet_healthz" or probe["grpc"] == {"port": 50051}


def test_pods_have_no_rights() -> None:
    for pod in read_groups().values():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}


def test_objects_find_each_other() -> None:
    fleet, groups = read_fleet(), read_groups()
    service = find(fleet, "Service", NAME)
    labels = {"ray.io/group": "fronts", **groups["fronts"]["metadata"]["labels"]}
    assert service["spec"]["selector"].items() <= labels.items()
    ports = {
        port["name"]: port["containerPort"]
        for container in groups["fronts"]["spec"]["containers"]
        for port in container.get("ports", ())
    }
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()
    budget = find(fleet, "PodDisruptionBudget", NAME)["spec"]["selector"]["matchLabels"]
    for pod in groups.values():
        assert budget.items() <= pod["metadata"]["labels"].items()
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_the_service_accepts_its_settings(tmp_path: Path) -> None:
    text = find(read_fleet(), "ConfigMap", NAME)["data"]["safelight.toml"]
    (tmp_path / "safelight.toml").write_text(text)
    settings = load_settings(config_file=tmp_path / "safelight.toml")
    assert settings.listen == "0.0.0.0:50051"
    for group in ("engines", "fronts"):
        spec = read_groups()[group]["spec"]
        assert spec["terminationGracePeriodSeconds"] >= settings.grace_s + 10
