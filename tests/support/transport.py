"""A transport for TestClient that hands over to the service's thread once a request: its own does so eight times."""

import asyncio

import httpx2
from fastapi.testclient import TestClient
from starlette.types import ASGIApp, Message


class PortalTransport(httpx2.BaseTransport):
    """Answers are whole when they come: nothing of them is streamed."""

    def __init__(self, client: TestClient, loop: asyncio.AbstractEventLoop) -> None:
        self._app = client.app
        self._address: tuple[str, int] = client._transport.client  # type: ignore[attr-defined] # noqa: SLF001
        self._loop = loop

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        exchange = Exchange(request, self._address)
        asyncio.run_coroutine_threadsafe(exchange.run(self._app), self._loop).result()
        return httpx2.Response(exchange.status, headers=exchange.headers, stream=httpx2.ByteStream(exchange.body))


class Exchange:
    """A request, and what comes of the answer."""

    def __init__(self, request: httpx2.Request, address: tuple[str, int]) -> None:
        url = request.url
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.split(b"?")[0],
            "query_string": url.query,
            "server": (url.host, url.port),
            "client": address,
            "root_path": "",
        }
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self._unread: Message | None = {"type": "http.request", "body": request.read(), "more_body": False}
        self._is_complete = asyncio.Event()

    async def run(self, app: ASGIApp) -> None:
        await app(self.scope, self.receive, self.send)
        assert self._is_complete.is_set()

    async def receive(self) -> Message:
        message, self._unread = self._unread, None
        if message is None:
            await self._is_complete.wait()
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            assert not self.status
            self.status, self.headers = message["status"], message["headers"]
        else:
            assert self.status
            assert not self._is_complete.is_set()
            if self.scope["method"] != "HEAD":
                self.body += message.get("body", b"")
            if not message.get("more_body"):
                self._is_complete.set()


def quicken(client: TestClient) -> None:
    """Let a client whose service has started use it."""
    assert client.portal is not None
    loop = client.portal.call(asyncio.get_running_loop)
    client._transport = PortalTransport(client, loop)  # noqa: SLF001
