"""nginx, HAProxy and Caddy before services of a test's own, with the texts that the README has for them."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.processes import free_port, wait_for
from tests.support.readme import DEPLOY, blocks

PROXIES = "nginx", "haproxy", "caddy"
HEADINGS = {"nginx": "nginx", "haproxy": "HAProxy", "caddy": "Caddy"}
HOSTS = "10.0.0.11:8000", "10.0.0.12:8000"
NAME = "tasks.example.com"
HERE = "localhost"
NGINX = """
user root;
worker_processes 2;
daemon off;
pid nginx.pid;
error_log nginx.log;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
"""
CADDY = """
{
    admin off
    auto_https disable_redirects
    storage file_system caddy
}
"""

Change = Callable[[str], str]


def _nginx(shown: str, bind: str, certificate: Path) -> tuple[str, list[str]]:
    here = {
        "listen 443 ": f"listen {bind} ",
        f"/etc/ssl/{NAME}.pem": str(certificate),
        f"/etc/ssl/private/{NAME}.key": str(certificate),
    }
    return NGINX + replaced(shown, here) + "}\n", ["-p", ".", "-e", "nginx.log", "-c"]


def _haproxy(shown: str, bind: str, certificate: Path) -> tuple[str, list[str]]:
    here = {"bind :443 ": f"bind {bind} ", f"/etc/ssl/private/{NAME}.pem": str(certificate)}
    return replaced(shown, here), ["-db", "-f"]


def _caddy(shown: str, bind: str, certificate: Path) -> tuple[str, list[str]]:
    """The README's Caddy fetches a certificate. This one has it."""
    address, port = bind.split(":")
    here = {f"{NAME} {{": f"https://{NAME}:{port} {{\nbind {address}\ntls {certificate} {certificate}"}
    return CADDY + replaced(shown, here), ["run", "--adapter", "caddyfile", "--config"]


CONFIGURATIONS = {"nginx": _nginx, "haproxy": _haproxy, "caddy": _caddy}


def installed() -> list[str]:
    """The proxies of this machine: all of them, where CI has installed them."""
    return [name for name in PROXIES if "CI" in os.environ or shutil.which(name)] or pytest.skip("there is no proxy")


@contextmanager
def proxy(name: str, ports: Sequence[int], folder: Path, change: Change = str) -> Iterator[str]:
    """Run it before the services at two ports, as the README shows it but for what `change` does to the text.

    Addresses, names and files are this test's. Yields its URL.
    """
    program = shutil.which(name)
    if program is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"{name} is not installed")
    folder.mkdir()
    bind = f"127.0.0.1:{free_port()}"
    (shown,) = blocks(name, HEADINGS[name], DEPLOY)
    shown = replaced(change(shown), dict(zip(HOSTS, (f"127.0.0.1:{port}" for port in ports), strict=True)))
    text, options = CONFIGURATIONS[name](shown, bind, _certificate(folder))
    home = os.environ | {"HOME": str(folder)}  # Caddy keeps things there
    (file := folder / f"{name}.conf").write_text(text.replace(NAME, HERE))
    with (
        (folder / "output").open("w") as output,
        subprocess.Popen([program, *options, file], cwd=folder, env=home, stdout=output, stderr=output) as process,
    ):
        try:
            wait_for(lambda: _accepts(bind, process, folder / "output"))
            yield f"https://{HERE}:{bind.split(':')[1]}"
        finally:
            process.kill() if name == "haproxy" else process.terminate()  # HAProxy waits for its clients


def replaced(text: str, replacements: Mapping[str, str]) -> str:
    """Replace what is in the text once."""
    for there, here in replacements.items():
        assert text.count(there) == 1, f"the README does not have {there!r} once"
        text = text.replace(there, here)
    return text


def _accepts(bind: str, process: "subprocess.Popen[bytes]", output: Path) -> bool:
    assert process.poll() is None, output.read_text()
    address, port = bind.split(":")
    with socket.socket() as connection:
        return connection.connect_ex((address, int(port))) == 0


def _certificate(folder: Path) -> Path:
    """A self-signed certificate for this host, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HERE)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(HERE)]), critical=False)
    file = folder / "certificate.pem"
    file.write_bytes(
        builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return file
