"""The processes of a run find each other before JAX's runtime starts, which would end them with its own stack traces.

Process 0 listens at the address of the coordinator until all others have called there, and tells them to go on; then
JAX's service takes over the address. Whoever is missing, calls as what it is not, or ends while others are awaited is
named in one line on all.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from typing import Any

from cnn_jax.errors import InputError, LostError

WAIT = 300.0  # seconds for all to come
_RETRY = 0.2  # seconds between two calls
_NOT_OURS = OSError, EOFError, ValueError, KeyError, TypeError  # raised where no process of a run is at the other end


def parse_address(text: str) -> tuple[str, int]:
    """The host and the port of an address such as node-1:9876 or [::1]:9876.

    Raises:
        InputError: it is none.
    """
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise InputError(f"coordinator: expected the host of process 0 and a free port, as node-1:9876, got {text!r}")
    return host.strip("[]"), int(port)


def meet(address: str, count: int, index: int, wait: float = WAIT) -> None:
    """Returns once all processes are there.

    Args:
        address: where process 0 listens.
        count: number of processes.
        index: which this one is.
        wait: seconds after which those that have not come are given up.

    Raises:
        InputError: not all have come in time, two have the same number, or they expect different numbers of processes.
        LostError: one has come and ended.
    """
    host, port = parse_address(address)
    deadline = time.monotonic() + wait
    if index == 0:
        _await_others(address, port, count, wait, deadline)
    else:
        _call(address, host, port, {"process": index, "processes": count}, wait, deadline)


def _await_others(address: str, port: int, count: int, wait: float, deadline: float) -> None:
    callers: list[tuple[int, socket.socket]] = []
    fault, lost = "", False
    try:
        dual = socket.has_dualstack_ipv6()
        server = socket.create_server(
            ("", port), family=socket.AF_INET6 if dual else socket.AF_INET, dualstack_ipv6=dual, backlog=count
        )
    except OSError as error:
        raise InputError(
            f"coordinator: expected a free port of this host, as process 0 listens there, got {address!r} "
            f"({error.strerror})"
        ) from None
    server.setblocking(False)
    with server, selectors.DefaultSelector() as lines:
        lines.register(server, selectors.EVENT_READ)
        while len(callers) < count - 1 and not fault:
            there = [k for k, _ in callers]
            found = [key for key, _ in lines.select(max(deadline - time.monotonic(), 0.001))]
            if not found:
                missing = [k for k in range(1, count) if k not in there]
                fault = (
                    f"processes: expected {count} to meet at {address} within {wait:g} seconds, but "
                    f"{_named(missing)} did not come; start all, each with its own --process"
                )
            elif gone := [key.data for key in found if key.fileobj is not server]:  # who has come says no more
                fault, lost = f"processes: {_named(gone)} came and ended before all had come; start all again", True
            elif caller := _accept(server):
                try:
                    said = _read(caller)
                    fault = _fault(said, count, there)
                    callers.append((said["process"], caller))
                    lines.register(caller, selectors.EVENT_READ, said["process"])
                except _NOT_OURS:  # somebody else, who looks which ports are open
                    caller.close()
        for k, caller in callers:
            with caller:
                try:
                    caller.sendall(json.dumps({"fault": fault, "lost": lost}).encode() + b"\n")
                except OSError:
                    if not fault:
                        fault, lost = f"processes: {k} came and ended; start all again", True
    if fault:
        raise LostError(fault) if lost else InputError(fault)


def _accept(server: socket.socket) -> socket.socket | None:
    """Who calls, if they have not gone again."""
    try:
        caller, _ = server.accept()
    except OSError:
        return None
    caller.settimeout(5.0)
    return caller


def _fault(said: dict[str, Any], count: int, there: list[int]) -> str:
    """What is wrong with a process that has come, or nothing."""
    process, processes = int(said["process"]), int(said["processes"])
    if processes != count:
        return f"processes: expected the same number on all, got {count} of process 0 and {processes} of {process}"
    return f"process: expected each number once, got {process} twice" if process in there else ""


def _call(address: str, host: str, port: int, said: dict[str, int], wait: float, deadline: float) -> None:
    reason, lost = "", False
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as line:
                line.sendall(json.dumps(said).encode() + b"\n")
                line.settimeout(left + 10.0)  # process 0 may have begun later, and says itself who has not come
                try:
                    answer = _read(line)
                    fault, lost = str(answer["fault"]), bool(answer["lost"])
                except (EOFError, ConnectionResetError):
                    fault, lost = (
                        f"coordinator: process 0 at {address} ended before all had come; start all again",
                        True,
                    )
            break
        except _NOT_OURS as error:  # perhaps its name is not known yet
            reason = (getattr(error, "strerror", None) or str(error)) or "no answer"
            time.sleep(_RETRY)
    else:
        fault = (
            f"coordinator: expected process 0 at {address} within {wait:g} seconds, it did not answer ({reason}); "
            "start all processes, each with the address of process 0"
        )
    if fault:
        raise LostError(fault) if lost else InputError(fault)


def _read(line: socket.socket) -> dict[str, Any]:
    """A line of JSON; EOFError if there is none."""
    with line.makefile("rb") as file:
        if not (text := file.readline(4096)):
            raise EOFError
    return dict(json.loads(text))


def _named(numbers: list[int]) -> str:
    words = [str(number) for number in numbers[:8]] + (["others"] if len(numbers) > 8 else [])
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
