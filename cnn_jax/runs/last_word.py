"""What is said when a process ends without a word, as JAX's runtime, the system or a scheduler may have it end."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

# Keeps the last line until its standard input ends, as it does with the process that writes there.
_KEEPER = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
word = ""
for line in sys.stdin:
    word = line
if word.strip():
    sys.stderr.write(word)
"""


@contextlib.contextmanager
def last_word(text: str) -> Iterator[None]:
    """Should the process end inside, however it does, a line on standard error says `text`.

    It comes from a small process of its own, which does nothing until then. Whatever is raised says nothing.
    """
    keeper = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _KEEPER], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        errors="backslashreplace", start_new_session=True,
    )  # fmt: skip
    assert keeper.stdin is not None
    try:
        with contextlib.suppress(OSError):  # somebody has ended it
            keeper.stdin.write(text.replace("\n", " ") + "\n")
            keeper.stdin.flush()
        yield
    finally:
        with contextlib.suppress(OSError):
            keeper.stdin.write("\n")
            keeper.stdin.close()
        keeper.wait()
