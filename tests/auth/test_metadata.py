"""GET /.well-known/oauth-authorization-server (RFC 8414): all that the service has, where its clients reach it."""

from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
from fastapi.testclient import TestClient

from app.auth.schemas import SCOPES
from tests.conftest import Serve, on_one_database
from tests.support.accounts import sign_up
from tests.support.key_pairs import key, private, written

pytestmark = on_one_database

PATH = "/.well-known/oauth-authorization-server"


def metadata(url: str) -> dict[str, Any]:
    """The metadata of a service without a key pair."""
    return {
        "issuer": url,
        "token_endpoint": f"{url}/auth/token",
        "revocation_endpoint": f"{url}/auth/revoke",
        "introspection_endpoint": f"{url}/auth/introspect",
        "service_documentation": f"{url}/docs",
        "scopes_supported": [*SCOPES],
        "response_types_supported": [],
        "grant_types_supported": ["password", "refresh_token"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "introspection_endpoint_auth_methods_supported": ["Bearer"],
    }


def assert_issuer(client: TestClient, issuer: str) -> None:
    login = sign_up(client)
    for token in login.access_token, login.refresh_token:
        claims = jwt.decode(token, options={"verify_signature": False})
        assert (claims["iss"], claims["aud"]) == (issuer, issuer)


def test_with_nothing_configured_it_is_this_machines(client: TestClient) -> None:
    assert client.get(PATH).json() == metadata("http://127.0.0.1:8000")


@pytest.mark.parametrize("public_url", ["https://tasks.example", "https://tasks.example/"])
def test_every_url_is_under_the_public_url(serve: Serve, public_url: str) -> None:
    """The issuer is that of the tokens."""
    client = serve(public_url=public_url)

    response = client.get(PATH)

    assert (response.status_code, response.json()) == (200, metadata("https://tasks.example"))
    assert response.headers["Content-Type"] == "application/json"
    assert_issuer(client, "https://tasks.example")


@pytest.mark.parametrize("prefix", ["/api", ""], ids=["under the prefix", "stripped by the proxy"])
def test_behind_a_prefix_every_url_carries_it(serve: Serve, prefix: str) -> None:
    client = serve(root_path="/api", public_url="https://example.com/api")

    response = client.get(f"{prefix}{PATH}")

    assert (response.status_code, response.json()) == (200, metadata("https://example.com/api"))
    assert_issuer(client, "https://example.com/api")


def test_no_header_of_the_request_has_a_say(serve: Serve) -> None:
    headers = {
        "Host": "evil.example",
        "Forwarded": "host=evil.example;proto=gopher",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "gopher",
        "X-Forwarded-Port": "70",
        "X-Forwarded-Prefix": "/evil",
        "X-Original-URL": "/evil",
    }

    response = serve(public_url="https://tasks.example").get(PATH, headers=headers)

    assert response.json() == metadata("https://tasks.example")


def test_the_keys_are_named_where_there_are_any(serve: Serve) -> None:
    keys = written(private(key("ES256")))

    response = serve(public_url="https://tasks.example", jwt_private_key_file=keys).get(PATH)

    assert response.json() == metadata("https://tasks.example") | {
        "jwks_uri": "https://tasks.example/.well-known/jwks.json"
    }


@pytest.mark.rfc("8414", "2")
@pytest.mark.parametrize("prefix", ["", "/api"])
def test_every_url_that_is_listed_answers_at_its_path(serve: Serve, prefix: str) -> None:
    keys = written(private(key("ES256")))
    client = serve(root_path=prefix, public_url=f"https://example.com{prefix}", jwt_private_key_file=keys)
    listed = client.get(PATH).json()

    endpoints = {name: url for name, url in listed.items() if name.endswith("_endpoint")}
    pages = [listed["jwks_uri"], listed["service_documentation"]]

    answers = {name: client.post(urlsplit(url).path).json()["error"] for name, url in endpoints.items()}
    assert answers == dict.fromkeys(
        ("token_endpoint", "revocation_endpoint", "introspection_endpoint"), "invalid_request"
    )
    assert [client.get(urlsplit(url).path).status_code for url in pages] == [200, 200]


def test_the_document_has_the_fields_of_the_forms(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    for path, required, fields in (
        ("/auth/token", [], "grant_type username password otp refresh_token scope client_id client_secret"),
        ("/auth/revoke", ["token"], "token token_type_hint"),
        ("/auth/introspect", ["token"], "token token_type_hint"),
    ):
        body = paths[path]["post"]["requestBody"]
        assert [*body["content"]] == ["application/x-www-form-urlencoded", "multipart/form-data"]
        assert body["required"] == bool(required)
        for content in body["content"].values():
            assert content["schema"].get("required", []) == required
            assert " ".join(content["schema"]["properties"]) == fields
