"""Listening sockets of a node, bound before anything is started, so that a taken port is found first."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Final

from cannery.errors import CanneryError
from cannery.limits import LISTEN_BACKLOG_COUNT

_NO_SUCH_FAMILY: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class ListenError(CanneryError):
    """An address cannot be listened on; the text says what to do."""


def open_listeners(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Listen on a port of each host; port 0 takes a free one, the same for all.

    A further host whose address family this machine lacks is left out. Raises `ListenError`.
    """
    opened: list[socket.socket] = []
    try:
        for host in hosts:
            chosen = opened[0].getsockname()[1] if opened else port
            found = _listen(host, chosen, is_optional=bool(opened))
            if found is not None:
                opened.append(found)
    except ListenError:
        close_listeners(opened)
        raise
    return opened


def close_listeners(listeners: Sequence[socket.socket]) -> None:
    """Close them all."""
    for listener in listeners:
        listener.close()


def _listen(host: str, port: int, *, is_optional: bool) -> socket.socket | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        if is_optional:
            return None
        raise ListenError(f"cannot listen on {host}: {error.strerror or error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(LISTEN_BACKLOG_COUNT)
    except OSError as error:
        listener.close()
        if is_optional and error.errno in _NO_SUCH_FAMILY:
            return None
        raise ListenError(_advice(host, port, error)) from error
    listener.setblocking(False)
    return listener


def _advice(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken: stop what uses it, or choose another with --port"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is not allowed for this user: choose one above 1023 with --port"
    return f"cannot listen on {host} port {port}: {error.strerror or error}"
