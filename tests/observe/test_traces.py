"""OpenTelemetry, as FastAPI does it: a span for each request with its route, and nothing in it of what was sent."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from tests.conftest import Serve, on_one_database
from tests.support.accounts import PASSWORD, bearer, sign_up
from tests.support.processes import services

CANARY = "canary"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

Spans = Callable[[], Sequence[ReadableSpan]]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """Returns the spans since its last call. OpenTelemetry itself lets nobody set a provider twice."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)

    def read() -> Sequence[ReadableSpan]:
        traced = exporter.get_finished_spans()
        exporter.clear()
        return traced

    return read


@on_one_database
def test_a_request_makes_a_span_with_its_route(client: TestClient, spans: Spans) -> None:
    client.get("/tasks/", headers={"traceparent": PARENT})

    *parts, server = spans()
    assert (server.name, server.kind) == ("GET /tasks", SpanKind.SERVER)
    assert server.attributes is not None
    assert server.attributes["http.route"] == "/tasks"
    assert server.attributes["http.response.status_code"] == 200
    assert server.context.trace_id == int(PARENT.split("-")[1], 16)
    assert {part.context.trace_id for part in parts} == {server.context.trace_id}
    assert "fastapi.endpoint" in {part.name for part in parts}


@on_one_database
@pytest.mark.parametrize("prefix", ["", "/api"])
def test_nothing_that_was_sent_is_traced(serve: Serve, spans: Spans, prefix: str) -> None:
    client = serve(root_path=prefix)
    login = sign_up(client)
    client.get(f"{prefix}/tasks/", params={"access_token": login.access_token, "cursor": CANARY}, headers=login.headers)
    client.get(f"/tasks/{CANARY}", headers=bearer(CANARY))
    client.get(f"{prefix}/{CANARY}", params={CANARY: ""})
    client.post("/auth/token", data={"username": CANARY, "password": CANARY})
    client.post("/users", json={"username": [CANARY], CANARY: CANARY})

    traced = spans()

    told = "".join(span.to_json() for span in traced)
    names = {span.name for span in traced if span.kind is SpanKind.SERVER}
    assert {name.removeprefix("GET ").removeprefix(prefix) for name in names} >= {"/tasks", "/tasks/{task_id}"}
    for secret in CANARY, PASSWORD, *login.access_token.split("."), *login.refresh_token.split("."), '"ada"':
        assert secret not in told


def logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in caplog.messages if line.startswith("{")]


@on_one_database
def test_log_lines_name_the_trace(client: TestClient, spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    client.get("/tasks/", headers={"traceparent": PARENT} | bearer("x"))

    assert [(line["event"], line["trace_id"]) for line in logged(caplog)] == [
        ("access_refused", PARENT.split("-")[1]),
        ("request", PARENT.split("-")[1]),
    ]


@on_one_database
def test_without_tracing_no_line_names_a_trace(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    client.get("/tasks/", headers={"traceparent": PARENT} | bearer("x"))

    assert [line["event"] for line in logged(caplog) if "trace_id" not in line] == ["access_refused", "request"]


class Collector(ThreadingHTTPServer):
    """A collector of traces, to which the service sends OTLP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.received: list[ExportTraceServiceRequest] = []


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            self.server.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


def test_the_environment_alone_turns_it_on(sqlite_url: str) -> None:
    with collecting() as collector:
        environment = {
            "fastapi_otel_auto_configure": "true",
            "otel_exporter_otlp_endpoint": f"http://127.0.0.1:{collector.server_port}",
            "otel_service_name": "bearer-tasks",
        }
        with services(1, database_url=sqlite_url, **environment) as (url,):
            httpx2.get(f"{url}/tasks/{CANARY}")

    groups = [group for request in collector.received for group in request.resource_spans]
    names = {span.name for group in groups for scope in group.scope_spans for span in scope.spans}
    assert "GET /tasks/{task_id}" in names
    assert "bearer-tasks" in str(groups)
    assert CANARY not in str(groups)
