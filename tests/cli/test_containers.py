"""The image and the Kubernetes manifest of the README: what they name exists here, and neither runs as root."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from fastapi.testclient import TestClient
from packaging.specifiers import SpecifierSet

from app.config import Settings, read_settings
from tests.conftest import SECRET
from tests.support.command_line import run
from tests.support.processes import ROOT, serving
from tests.support.readme import DEPLOY, blocks

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INSTRUCTIONS = "FROM RUN COPY ENV USER WORKDIR VOLUME EXPOSE HEALTHCHECK ENTRYPOINT CMD"
STOP_SECONDS = 20  # that the service may take after DRAIN_SECONDS
KINDS = {"ConfigMap": "v1", "Job": "batch/v1", "Deployment": "apps/v1", "Service": "v1"}
PROBE = "httpGet periodSeconds timeoutSeconds failureThreshold"
FIELDS = {
    "": "apiVersion kind metadata spec",
    "metadata": "name labels",
    "labels": "app",
    "spec": "template replicas selector ports"
    " restartPolicy terminationGracePeriodSeconds securityContext containers volumes",
    "template": "metadata spec",
    "selector": "matchLabels app",
    "matchLabels": "app",
    "securityContext": "runAsNonRoot runAsUser fsGroup seccompProfile"
    " allowPrivilegeEscalation readOnlyRootFilesystem capabilities",
    "seccompProfile": "type",
    "capabilities": "drop",
    "containers": "name image args envFrom ports startupProbe readinessProbe livenessProbe resources securityContext"
    " volumeMounts",
    "envFrom": "configMapRef",
    "configMapRef": "name",
    "ports": "name containerPort port targetPort",
    "startupProbe": PROBE,
    "readinessProbe": PROBE,
    "livenessProbe": PROBE,
    "httpGet": "path port",
    "resources": "requests limits",
    "requests": "cpu memory",
    "limits": "memory",
    "volumeMounts": "name mountPath readOnly",
    "volumes": "name secret",
    "secret": "secretName defaultMode",
}
"""The fields that may stand in a field, as Kubernetes 1.25 to 1.37 spell them."""


class Instruction(NamedTuple):
    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words of an instruction in exec form, which starts no shell between Docker and the program."""
        words = json.loads(self.text[self.text.index("[") :])
        assert all(isinstance(word, str) for word in words)
        return list(words)


def stages() -> list[list[Instruction]]:
    """The instructions of each stage of the image."""
    [text] = blocks("dockerfile", "Containers", DEPLOY)
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    instructions = [Instruction(*line.split(" ", 1)) for line in lines if line]
    starts = [n for n, instruction in enumerate(instructions) if instruction.name == "FROM"]
    return [instructions[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


def only(name: str, stage: list[Instruction]) -> Instruction:
    [found] = [instruction for instruction in stage if instruction.name == name]
    return found


def manifest() -> dict[str, dict[str, Any]]:
    [text] = blocks("yaml", "Kubernetes", DEPLOY)
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def pods() -> list[dict[str, Any]]:
    documents = manifest()
    return [documents[kind]["spec"]["template"]["spec"] for kind in ("Job", "Deployment")]


BUILD, IMAGE = stages()


def test_the_image_has_known_instructions_and_one_python() -> None:
    assert {instruction.name for stage in (BUILD, IMAGE) for instruction in stage} == set(INSTRUCTIONS.split())
    [(base, version)] = re.findall(r"^(python:([\d.]+)-slim)$", only("FROM", IMAGE).text)
    assert only("FROM", BUILD).text == f"{base} AS build"
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(version)
    assert f"Programming Language :: Python :: {version}" in PROJECT["project"]["classifiers"]


def test_the_build_copies_what_the_wheel_is_made_of_and_no_more() -> None:
    copied = [word for name, text in BUILD if name == "COPY" for word in text.split()[:-1]]
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = ["pyproject.toml", "uv.lock", PROJECT["project"]["readme"], *wheel["packages"], *wheel["force-include"]]

    assert sorted(copied) == sorted(needed)
    assert all((ROOT / name).exists() for name in copied)
    assert "uv sync --locked --no-dev --no-editable" in [i.text for i in BUILD if i.name == "RUN"][-1]


def test_the_image_has_what_was_built_in_the_same_place() -> None:
    place = only("ENV", BUILD).text.split()[0].removeprefix("UV_PROJECT_ENVIRONMENT=")

    assert only("COPY", IMAGE).text == f"--from=build {place} {place}"
    assert only("ENV", IMAGE).text.startswith(f"PATH={place}/bin:")


def test_the_image_runs_a_command_of_ours_and_not_as_root() -> None:
    """SIGTERM reaches it, as no shell is between. The volume is its, and has SQLite's file and the secret."""
    uid, folder = only("USER", IMAGE).text, only("WORKDIR", IMAGE).text
    prepare = only("RUN", IMAGE).text
    words = only("CMD", IMAGE).words

    assert only("ENTRYPOINT", IMAGE).words == [*PROJECT["project"]["scripts"]]
    assert run(*words, "--help").exit_code == 0
    assert uid.isdecimal()
    assert int(uid) > 0
    assert f"useradd --uid {uid} tasks " in prepare
    assert f"install -d -m 700 -o tasks {folder} " in prepare
    assert only("VOLUME", IMAGE).text == folder
    assert f"-o tasks /dev/null {folder}/tasks.db" in prepare
    assert Settings().database.database == "./tasks.db"


def test_the_empty_database_of_the_image_is_filled() -> None:
    Path("tasks.db").touch(0o600)

    assert run("users", "add", "ada", stdin="correct horse battery\n").exit_code == 0


def test_the_health_check_asks_the_service(sqlite_url: str) -> None:
    _, option, code = only("HEALTHCHECK", IMAGE).words
    assert option == "-c"
    assert f"'127.0.0.1', {only('EXPOSE', IMAGE).text}," in code

    def exit_code(port: int) -> int:
        done = [sys.executable, "-c", code.replace(only("EXPOSE", IMAGE).text, str(port))]
        return subprocess.run(done, stderr=subprocess.DEVNULL, check=False, timeout=60).returncode

    with serving(database_url=sqlite_url) as url:
        port = int(url.rpartition(":")[2])
        assert exit_code(port) == 0
    assert exit_code(port) == 1


def test_the_image_is_run_with_settings_that_exist() -> None:
    """Its options come before the image. Docker waits until the service has stopped."""
    command = " ".join(blocks("sh", "Containers", DEPLOY)).replace("\\\n", "")
    [options] = re.findall(r"docker run (.+) bearer-tasks$", command, re.MULTILINE)
    port, folder = only("EXPOSE", IMAGE).text, only("WORKDIR", IMAGE).text

    assert set(re.findall(r"-e ([A-Z_]+)=", options)) <= {name.upper() for name in Settings.model_fields}
    assert int(re.findall(r"--stop-timeout (\d+)", options)[0]) > STOP_SECONDS
    assert f"-p 127.0.0.1:{port}:{port} -v bearer-tasks:{folder} " in options
    commands = re.findall(r"docker exec (?:-it )?tasks bearer-tasks (\w+(?: add)?)", command)
    assert [run(*words.split(), "--help").exit_code for words in commands] == [0, 0, 0]


def unknown(value: Any, field: str = "") -> Iterator[str]:
    """Yield the fields in a field of a document that are not known."""
    for item in value if isinstance(value, list) else [value]:
        for name, inner in item.items() if isinstance(item, dict) else ():
            if name not in FIELDS[field].split():
                yield f"{field}.{name}"
            else:
                yield from unknown(inner, name)


def test_the_manifest_has_fields_that_kubernetes_knows() -> None:
    documents = manifest()
    texts = documents["ConfigMap"].pop("data").values()

    assert {kind: document["apiVersion"] for kind, document in documents.items()} == KINDS
    assert all(isinstance(text, str) for text in texts)
    assert list(unknown([*documents.values()])) == []


def test_the_manifest_gives_settings_that_are_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The secrets are files, with the names that the command gives them."""
    [create] = blocks("sh", "Kubernetes", DEPLOY)
    values = {"database_url": "postgresql://tasks:password@10.0.0.10/tasks", "secret_key": SECRET}
    assert re.findall(r"--from-literal=(\w+)=", create) == [*values]
    assert f"--from-literal=database_url={values['database_url']} " in create
    for name, value in values.items():
        (tmp_path / name).write_text(value)
    config = manifest()["ConfigMap"]["data"]
    [folder] = {mount["mountPath"] for pod in pods() for mount in pod["containers"][0]["volumeMounts"]}
    for name, value in config.items():
        monkeypatch.setenv(name, value.replace(folder, str(tmp_path)))

    settings = read_settings()

    assert settings.database_url == values["database_url"]
    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() == SECRET
    assert len(settings.model_fields_set) == len(config)
    grace = manifest()["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= settings.drain_seconds + STOP_SECONDS


def test_no_pod_is_root_or_writes_to_its_image() -> None:
    documents = manifest()
    names = {document["metadata"]["name"] for document in documents.values()}
    for pod in pods():
        [container] = pod["containers"]
        [volume] = pod["volumes"]
        [mount] = container["volumeMounts"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert str(pod["securityContext"]["runAsUser"]) == only("USER", IMAGE).text
        assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert (mount["name"], mount["readOnly"]) == (volume["name"], True)
        assert volume["secret"]["defaultMode"] == 0o440
        assert {volume["secret"]["secretName"], container["envFrom"][0]["configMapRef"]["name"]} <= names


def test_the_job_runs_a_command_of_ours_before_the_deployment() -> None:
    job, deployment = (pod["containers"][0] for pod in pods())

    assert run(*job["args"], "--help").exit_code == 0
    assert "args" not in deployment, "the image serves without"
    assert job["image"] == deployment["image"]


def test_the_probes_ask_for_paths_that_answer(client: TestClient) -> None:
    """A database that is away restarts no pod."""
    documents = manifest()
    spec = documents["Deployment"]["spec"]
    container = spec["template"]["spec"]["containers"][0]
    [port] = container["ports"]
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}

    assert str(port["containerPort"]) == only("EXPOSE", IMAGE).text
    assert documents["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert {probe["path"]: client.get(probe["path"]).status_code for probe in probes.values()} == {
        "/health/live": 200,
        "/health/ready": 200,
    }
    assert probes["readiness"]["path"] == "/health/ready"
    assert probes["liveness"]["path"] == probes["startup"]["path"] == "/health/live"
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    assert documents["Service"]["spec"]["selector"] == spec["selector"]["matchLabels"]
