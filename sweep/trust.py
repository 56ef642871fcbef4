"""Which servers and clusters a sweep goes to: addresses that are ones, each once, and clusters that can be trusted."""

import argparse
import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .values import BadSweep

PORTS = {"http": 80, "https": 443}
WRITTEN = "http://127.0.0.1:8188"


def check_addresses(hosts: Sequence[str]) -> None:
    """Raises BadSweep for what is no address, and for two addresses of one server: it would be given two cells at once,
    and each of its two workers would take the other's prompt for one that was left behind."""
    problems = [f"{each!r} is no address; write one as {WRITTEN}." for each in hosts if not is_address(each)]
    seen: dict[tuple[str, int, str], str] = {}
    for each in hosts if not problems else ():
        for place in places_of(each):
            if (other := seen.setdefault(place, each)) != each:
                problems.append(f"{other} and {each} are one server; name it once.")
                break
    if problems:
        raise BadSweep(*problems)


def is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in PORTS and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def places_of(url: str) -> list[tuple[str, int, str]]:
    """Where a name leads to; nowhere as long as it is unknown."""
    parts = urlsplit(url)
    port = parts.port or PORTS[parts.scheme]
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [(str(place[0]), port, parts.path) for *_, place in found]


def check_trust(scheduler: str | None, insecure: bool) -> None:
    """A Dask cluster runs whatever it is sent: without TLS it is for one machine alone. Raises BadSweep."""
    if scheduler is None:
        return
    parts = urlsplit(scheduler)
    if parts.scheme not in ("tls", "tcp"):
        raise BadSweep(f"--scheduler is {scheduler!r}; write tls://MACHINE:PORT.")
    if parts.scheme == "tcp" and not insecure and not is_loopback(parts.hostname or ""):
        raise BadSweep(
            f"--scheduler {scheduler} is on another machine and has no TLS: whoever reaches its port runs code "
            "on every worker. Give it certificates and write tls://, or say --insecure on a network of your own."
        )


def is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def security_of(known: argparse.Namespace) -> Any:
    """What a connection to the scheduler is secured by; None without TLS. Raises BadSweep."""
    if known.scheduler is None or not known.scheduler.startswith("tls:"):
        return None
    # Dask takes a second to load, and a sweep without a cluster has no use for this.
    from distributed import Security

    files = {"tls_ca_file": known.tls_ca, "tls_client_cert": known.tls_cert, "tls_client_key": known.tls_key}
    for option, file in zip(("--tls-ca", "--tls-cert", "--tls-key"), files.values(), strict=True):
        if file and not Path(file).is_file():
            raise BadSweep(f"{option} is {file}, and there is no such file.")
    made = Security(require_encryption=True, **{name: file for name, file in files.items() if file})
    try:
        context = made.get_connection_args("client").get("ssl_context")
    except (OSError, ValueError) as error:
        raise BadSweep(
            f"what --tls-ca, --tls-cert and --tls-key name are no certificates and their key: {error}."
        ) from None
    if context is None:
        raise BadSweep("tls:// needs certificates: name them with --tls-ca, --tls-cert and --tls-key.")
    return made
