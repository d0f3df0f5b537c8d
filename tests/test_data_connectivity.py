"""No network: one line, soon, that names the hosts tried and the offline choices; nothing half-written.

The hosts are never reached: proxies at a closed port or of the test's own stand between, or the resolver is replaced.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cnn_jax import data
from cnn_jax.data import connectivity
from cnn_jax.errors import InputError

pytest.importorskip("tensorflow_datasets")

CLOSED = "http://127.0.0.1:9"  # the discard port: nobody listens
HARD_LIMIT = 60  # seconds; far above what is promised, far below TFDS's own retries

LOAD = """
import sys
from cnn_jax import data
from cnn_jax.errors import InputError
try:
    data.load(sys.argv[1], "train")
except InputError as error:
    print(error)
    sys.exit(2)
"""


def load_in_process(name: str, before: str = "", **variables: str) -> str:
    """Loads in a fresh process that must end in an InputError; returns its message."""
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()} | variables
    command = [sys.executable, "-c", before + LOAD, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HARD_LIMIT, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    return done.stdout


def assert_says_all(message: str, host: str, folder: object) -> None:
    for part in (host, str(folder), "'digits'", "--data.dir", "TFDS_DATA_DIR"):
        assert part in message


@pytest.mark.parametrize(
    ("name", "host"),
    [("mnist", "storage.googleapis.com"), ("kmnist", "codh.rois.ac.jp"), ("cifar100", "www.cs.toronto.edu")],
)
def test_dead_proxy(name, host, own_folders):
    message = load_in_process(name, HTTP_PROXY=CLOSED, HTTPS_PROXY=CLOSED)
    assert_says_all(message, host, own_folders[1])
    assert list(own_folders[1].iterdir()) == []


@pytest.mark.parametrize(
    "resolver",
    [
        "raise socket.gaierror(-3, 'Temporary failure in name resolution')",
        "time.sleep(600)",  # a resolver that never answers, which no timeout of a request bounds
    ],
)
def test_dead_resolver(resolver, own_folders):
    before = f"""
import socket, time
def resolve(*args, **kwargs):
    {resolver}
socket.getaddrinfo = resolve
from cnn_jax.data import connectivity
connectivity.PROBE_SECONDS = 2
"""
    assert_says_all(load_in_process("cifar10", before), "www.cs.toronto.edu", own_folders[1])
    assert list(own_folders[1].iterdir()) == []


def test_waiting_is_bounded():
    # What is promised is one line within 20 s; the rest is for starting Python and importing TFDS.
    assert connectivity.PROBE_SECONDS <= 15


@pytest.fixture
def proxy(monkeypatch):
    """An HTTP proxy that answers for every host: set `.status` and `.body`; `.seen` lists (method, URL)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.seen.append((self.command, self.path))
            self.send_response(server.status)
            self.send_header("Content-Length", str(len(server.body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(server.body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.status, server.body, server.seen = 200, b"", []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # seconds until it sees that it is to end
    thread.start()
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_proxy_that_reaches_nobody(proxy, own_folders):
    proxy.status = 503
    with pytest.raises(InputError) as caught:
        data.load("kmnist", "train")
    assert_says_all(str(caught.value), "codh.rois.ac.jp (status 503)", own_folders[1])
    assert [method for method, _ in proxy.seen] == ["HEAD"]
    assert list(own_folders[1].iterdir()) == []


@pytest.mark.parametrize(("status", "reason"), [(200, "Checksum"), (403, "403")])
def test_host_that_answers_nonsense(status, reason, proxy, own_folders):
    proxy.status, proxy.body = status, b"<html>log in to this network first</html>"
    with pytest.raises(InputError) as caught:
        data.load("kmnist", "train")
    message = str(caught.value)
    assert "\n" not in message
    assert "kmnist" in message
    assert reason in message
    assert "'digits'" in message
    assert [method for method, _ in proxy.seen].count("HEAD") == 1
    assert ("GET", "http://codh.rois.ac.jp/kmnist/dataset/kmnist/train-images-idx3-ubyte.gz") in proxy.seen
    assert list(own_folders[1].iterdir()) == []


def test_any_host_that_answers_will_do(proxy):
    probes = connectivity.Probes()
    with pytest.raises(connectivity.NoAnswerError) as caught:
        probes.require_any(["https://a.invalid/1", "https://b.invalid/2"])
    assert "a.invalid" in str(caught.value)
    assert "b.invalid" in str(caught.value)
    probes.require_any(["https://a.invalid/1", "http://answers.invalid/x"])
    probes.require_any([])
