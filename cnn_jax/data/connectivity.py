"""Finding out quickly that there is no internet connection, where TFDS would retry for minutes."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, as_completed
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

CONNECT_SECONDS = 5  # for one address of a host
READ_SECONDS = 30  # between two packets of a download under way
PROBE_SECONDS = 12  # for a host altogether: name lookups ignore our timeouts, so we time the wait for them
PROBE_HOSTS = 8
RETRIES = 2  # of a download under way
_PROXY_STATUS = (407, 502, 503, 504)  # what a proxy answers in the name of a host that it cannot or will not reach


class NoAnswerError(OSError):
    """No answer from a host, or from several; the message names them and says why."""


class Probes:
    """Asks hosts, each once, whether they answer at all."""

    def __init__(self) -> None:
        self._answers: dict[str, Future[None]] = {}
        self._lock = threading.Lock()

    def require_any(self, urls: Iterable[str]) -> None:
        """Raises NoAnswerError if none of the (first `PROBE_HOSTS`) hosts of `urls` answers in `PROBE_SECONDS`."""
        hosts = {urlsplit(url).netloc: url for url in urls if url.startswith("http")}
        answers = {self._answer(url): host for host, url in list(hosts.items())[:PROBE_HOSTS]}
        try:
            for answer in as_completed(answers, timeout=PROBE_SECONDS):
                if answer.exception() is None:
                    return
        except TimeoutError:
            pass
        if answers:
            failures = [
                str(answer.exception()) if answer.done() else f"{host} (silent for {PROBE_SECONDS} s)"
                for answer, host in answers.items()
            ]
            raise NoAnswerError(", ".join(failures))

    def _answer(self, url: str) -> Future[None]:
        host = urlsplit(url).netloc
        with self._lock:
            if host not in self._answers:
                self._answers[host] = Future()
                # A daemon thread: one that hangs in a name lookup must not keep the process from ending.
                threading.Thread(target=_probe, args=(url, self._answers[host]), daemon=True).start()
            return self._answers[host]


def _probe(url: str, answer: Future[None]) -> None:
    import requests

    host = urlsplit(url).netloc
    try:
        # Any answer will do; requests honours the proxy settings of the environment, as TFDS's download will.
        status = requests.head(url, timeout=CONNECT_SECONDS).status_code
    except Exception as error:
        answer.set_exception(NoAnswerError(f"{host} ({type(error).__name__})"))
    else:
        if status in _PROXY_STATUS:
            answer.set_exception(NoAnswerError(f"{host} (status {status})"))
        else:
            answer.set_result(None)


@contextlib.contextmanager
def impatient_downloads(probes: Probes) -> Iterator[None]:
    """Within this context TFDS downloads from a host only after it has answered a probe, with timeouts and few retries.

    So a host that gives no answer makes the download fail with NoAnswerError. Files that TFDS finds downloaded
    already need no host.
    """
    from tensorflow_datasets.core.download import downloader

    download: Callable[..., Any] = downloader._Downloader._sync_download

    def probed_download(self: Any, url: str, *args: Any, **kwargs: Any) -> Any:
        if url.startswith("http"):
            probes.require_any([url])
        return download(self, url, *args, **kwargs)

    timeout = (CONNECT_SECONDS, READ_SECONDS)
    with (
        mock.patch.object(downloader._Downloader, "_sync_download", probed_download),
        mock.patch.object(downloader, "MAX_RETRIES", RETRIES),
        mock.patch.object(
            downloader, "_open_with_requests", functools.partial(downloader._open_with_requests, timeout=timeout)
        ),
    ):
        yield
