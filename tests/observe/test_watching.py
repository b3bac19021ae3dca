"""The alerts and the dashboard of the README: Prometheus takes them, and they name what the service tells."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from app.testing import bearer
from tests.conftest import Serve, on_one_database
from tests.support.accounts import refreshed, sign_up
from tests.support.processes import ROOT
from tests.support.readme import blocks

WATCH = ROOT / "app/observe/README.md"
OF_PROMETHEUS = {"up", "job", "instance", "le", "pid"}
"""Names that a scrape adds, and `pid`, which only several workers have."""

UNTIL = """
rule_files: [rules.yml]
evaluation_interval: 50s
tests:
  - interval: 1m  # as Prometheus scrapes by default, and at other moments than it evaluates
    input_series:
      - {series: 'up{job="bearer-tasks", instance="a"}', values: "1x5 0x5"}
      - {series: 'http_request_duration_seconds_count{job="bearer-tasks", status="200"}', values: "0+600x30"}
      - {series: 'http_request_duration_seconds_count{job="bearer-tasks", status="500"}', values: "0+60x30"}
      - series: 'http_request_duration_seconds_count{instance="a", route="/health/ready", status="503"}'
        values: "0x20 0+6x10"
    alert_rule_test:
      - {alertname: NotReady, eval_time: 24m, exp_alerts: []}
      - alertname: NotReady
        eval_time: 28m
        exp_alerts:
          - exp_labels: {instance: a, route: /health/ready, status: "503"}
            exp_annotations: {summary: "a is not ready: /health/ready says why"}
      - {alertname: InstanceDown, eval_time: 5m, exp_alerts: []}
      - alertname: InstanceDown
        eval_time: 9m
        exp_alerts:
          - exp_labels: {job: bearer-tasks, instance: a}
            exp_annotations: {summary: "a does not answer Prometheus"}
      - {alertname: ServerErrors, eval_time: 3m, exp_alerts: []}
      - alertname: ServerErrors
        eval_time: 20m
        exp_alerts:
          - exp_labels: {job: bearer-tasks}
            exp_annotations: {summary: "9.091% of the requests are answered 5xx"}
"""


@pytest.fixture(scope="module")
def rules() -> str:
    _, text = blocks("yaml", "Watch it", WATCH)
    return text


@pytest.fixture(scope="module")
def dashboard() -> Any:
    [text] = blocks("json", "A dashboard", WATCH)
    return json.loads(text)


@pytest.fixture
def scrape(serve: Serve) -> str:
    """The metrics of a service that has been used."""
    client: TestClient = serve(metrics=True)
    login = refreshed(client, sign_up(client).refresh_token)
    client.get("/tasks/", headers=login.headers)
    client.get("/tasks/", headers=bearer("x"))
    return client.get("/metrics").text


def promtool(*words: str, stdin: str | None = None) -> str:
    if not shutil.which("promtool"):
        (pytest.fail if "CI" in os.environ else pytest.skip)("promtool is not installed: it comes with Prometheus")
    done = subprocess.run(["promtool", *words], input=stdin, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def expressions(rules: str, dashboard: Any) -> list[str]:
    alerts = [rule["expr"] for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]]
    return alerts + [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


@on_one_database
def test_alerts_and_panels_name_metrics_that_there_are(scrape: str, rules: str, dashboard: Any) -> None:
    samples = [sample for family in text_string_to_metric_families(scrape) for sample in family.samples]
    told = {sample.name for sample in samples} | {label for sample in samples for label in sample.labels}

    for expression in expressions(rules, dashboard):
        bare = re.sub(r'"[^"]*"|\[\w+\]', "", expression)
        named = set(re.findall(r"[a-z]\w*(?!\w*\s*\()", bare)) - {"by", "sum", "count", "rate", "increase"}
        assert named <= told | OF_PROMETHEUS, expression


@on_one_database
def test_events_and_routes_of_alerts_exist(scrape: str, rules: str) -> None:
    for value in re.findall(r'(?:event|route)[!=~]+"([^"]+)"', rules):
        for each in value.split("|"):
            assert f'"{each}"' in scrape or each == "/health/ready"


def test_prometheus_takes_the_alerts_and_they_ring(rules: str, dashboard: Any) -> None:
    panels = {
        "groups": [
            {"name": "panels", "rules": [{"record": "panel", "expr": each} for each in expressions(rules, dashboard)]}
        ]
    }
    Path("rules.yml").write_text(rules)
    Path("panels.yml").write_text(yaml.safe_dump(panels))
    Path("until.yml").write_text(UNTIL)

    assert "SUCCESS" in promtool("check", "rules", "rules.yml")
    promtool("test", "rules", "until.yml")
    promtool("check", "rules", "--lint=none", "panels.yml")


@on_one_database
def test_prometheus_finds_no_fault_in_the_metrics(scrape: str) -> None:
    assert promtool("check", "metrics", stdin=scrape) == ""
