"""The files for Ray Serve and KubeRay."""

from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from safelight_service.settings import Settings, load_settings
from support.deploy.chart import ROOT, Manifest, find, read_manifests
from support.deploy.validation import find_problems

FOLDER = ROOT / "deploy" / "ray"
NAME = "safelight-fleet"
FILE = "safelight.toml"


@cache
def read_fleet() -> list[Manifest]:
    return read_manifests((FOLDER / "rayservice.yaml").read_text())


def read_groups() -> dict[str, dict[str, Any]]:
    """Return the pods of the Ray cluster by their group."""
    cluster = find(read_fleet(), "RayService", NAME)["spec"]["rayClusterConfig"]
    groups = {each["groupName"]: each["template"] for each in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"], **groups}


def read_settings(folder: Path) -> Settings:
    """Return the settings of the ConfigMap, by way of a file in a folder."""
    (folder / FILE).write_text(find(read_fleet(), "ConfigMap", NAME)["data"][FILE])
    return load_settings(config_file=folder / FILE)


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
    budget = find(fleet, "PodDisruptionBudget", NAME)["spec"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    # Kubernetes knows no number of pods for KubeRay's resources, so it could allow no eviction.
    assert "maxUnavailable" not in budget
    policy = find(fleet, "NetworkPolicy", NAME)["spec"]
    selected = policy["podSelector"]["matchLabels"]
    for pod in groups.values():
        labels = {"ray.io/is-ray-node": "yes", **pod["metadata"]["labels"]}  # KubeRay's, and ours
        assert selected.items() <= labels.items()
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_strangers_reach_only_the_fronts() -> None:
    fleet = find(read_fleet(), "NetworkPolicy", NAME)["spec"]
    ports = {
        port["name"]
        for container in read_groups()["fronts"]["spec"]["containers"]
        for port in container.get("ports", ())
    }
    for rule in fleet["ingress"]:
        assert "from" in rule or {port["port"] for port in rule["ports"]} == ports


def test_each_engine_has_a_pod(tmp_path: Path) -> None:
    cluster = find(read_fleet(), "RayService", NAME)["spec"]["rayClusterConfig"]
    [engines] = [each for each in cluster["workerGroupSpecs"] if each["groupName"] == "engines"]
    [pool] = read_settings(tmp_path).ray.pools
    assert pool.max_engines == engines["replicas"] == engines["maxReplicas"]


def test_the_service_accepts_its_settings(tmp_path: Path) -> None:
    settings = read_settings(tmp_path)
    assert settings.listen == "0.0.0.0:50051"
    for group in ("engines", "fronts"):
        spec = read_groups()[group]["spec"]
        assert spec["terminationGracePeriodSeconds"] >= settings.grace_s + 10
