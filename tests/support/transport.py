"""A transport for TestClient that hands over to the service's thread once a request: its own does so eight times."""

import httpx2
from anyio.from_thread import BlockingPortal
from fastapi.testclient import TestClient


class PortalTransport(httpx2.BaseTransport):
    """Answers are whole when they come: nothing of them is streamed."""

    def __init__(self, client: TestClient, portal: BlockingPortal) -> None:
        self._portal = portal
        self._transport = httpx2.ASGITransport(client.app, client=("testclient", 50000))

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        return self._portal.call(self._answer, request)

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._transport.handle_async_request(request)
        content = httpx2.ByteStream(await response.aread())
        return httpx2.Response(response.status_code, headers=response.headers, stream=content)


def quicken(client: TestClient) -> None:
    """Let a client whose service has started use it."""
    assert client.portal is not None
    client._transport = PortalTransport(client, client.portal)  # noqa: SLF001
