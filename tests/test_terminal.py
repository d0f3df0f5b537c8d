"""What a terminal, a pipe or a closed stream is given: plain text, in its encoding, in its width, and no exception."""

from __future__ import annotations

import ast
import errno
import io
import os
import re
import shlex
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from cnn_jax import terminal
from cnn_jax.terminal import output
from cnn_jax.terminal.text import encodable, plain, quote

HOSTILE = [
    "\x1b[31mred\x1b[0m", "bell\a", "a\rb", "a\nb", "\x9b2J", "\u202egnp.exe", "\u2066x", "soft\u00adhyphen",
    "zero\ufeff", "\ud800", "\u2028", "\x00",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_lost():
    yield
    output._lost.clear()


def test_plain_text_is_one_line_of_what_can_be_seen():
    everything = "".join(map(chr, range(0x11000)))
    shown = plain(everything)
    shown.encode("utf-8")
    hidden = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert hidden == set("\u200c\u200d")
    assert plain(shown) == shown
    kept = "".join(c for c in everything if unicodedata.category(c)[0] in "LNSM")
    assert plain(kept) == kept


@pytest.mark.parametrize("text", HOSTILE)
def test_what_would_do_something_is_escaped(text):
    assert plain(text).isprintable()
    assert plain(text) != text


@pytest.mark.parametrize(
    "text", ["[b]x[/red]", ":smile:", "Größe 北京.png", "\u0645\u06cc\u200c\u062e", "1e5 a=b 'q'", "a\u00a0b"]
)
def test_other_text_stays(text):
    assert plain(text) == text


def test_bytes_of_a_file_name_are_text_if_they_can_be():
    name = os.fsdecode(b"caf\xc3\xa9-\xff.png").encode("utf-8", "surrogateescape")
    assert plain(name.decode("ascii", "surrogateescape")) == "café-\\xff.png"


def test_a_quoted_word_is_read_by_a_shell_as_it_was():
    words = ["a b", "it's", "$(x)`y`", "x\x1b[31m\ny", os.fsdecode(b"\xff\xfe"), "é", "\\", "-n", "", "'\n'"]
    for encoding in ("utf-8", "ascii"):
        quoted = [quote(word, encoding) for word in words]
        assert all(plain(text) == text for text in quoted)
        assert encoding == "utf-8" or all(text.isascii() for text in quoted)
        script = f"printf '%s\\0' {' '.join(quoted)}"
        found = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
        assert found == b"".join(os.fsencode(word) + b"\0" for word in words)
    assert quote("a b") == shlex.quote("a b")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "gb18030", "koi8-r", "utf-8", None, "no such"])
def test_signs_that_an_encoding_lacks_are_written_with_others(encoding):
    text = "98.5 ± 0.2 %, ≥ 3\N{MULTIPLICATION SIGN}3 → … \N{EN DASH} •"
    shown = encodable(text, encoding)
    if encoding != "no such":
        shown.encode(encoding or "utf-8")
    if encoding == "ascii":
        assert shown == "98.5 +- 0.2 %, >= 3x3 -> ... - *"
    if encoding in ("utf-8", None):
        assert shown == text


class Failing(io.StringIO):
    """A stream that fails from the second write on."""

    def __init__(self, number: int):
        super().__init__()
        self.number, self.taken = number, []

    def write(self, text):
        if self.taken:
            raise OSError(self.number, os.strerror(self.number))
        self.taken.append(text)
        return len(text)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO])
def test_output_that_nobody_takes_stops_nothing(monkeypatch, number):
    stream = Failing(number)
    monkeypatch.setattr(sys, "stdout", stream)
    assert terminal.say("first")
    assert not terminal.say("second")
    terminal.show_table(("a", "b"), [("1", "2")])
    terminal.console().print("x")
    assert terminal.width() is None
    assert stream.taken == ["first\n"]
    lost = terminal.flush()
    assert (lost is None) == (number == errno.EPIPE)  # a reader that left is no failure


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_stream_that_is_not_there(monkeypatch, stream):
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream)
    terminal.say("x")
    terminal.complain("x")
    terminal.show_table(("a",), [("1",)])


def test_closed_streams_are_no_numbers_for_files(tmp_path):
    """Else the next file opened, a checkpoint perhaps, is what libraries write their messages into."""
    code = (
        "import os, sys; from cnn_jax import terminal; terminal.standard_streams(); file = open('x', 'w');"
        "assert file.fileno() > 2; os.write(1, b'1'); os.write(2, b'2'); terminal.say('s'); print('p', flush=True);"
        "assert terminal.flush() is None"
    )
    script = 'exec "$0" -c "$1" <&- >&- 2>&-'
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["sh", "-c", script, sys.executable, code], cwd=tmp_path, env=environment, timeout=60)
    assert done.returncode == 0
    assert (tmp_path / "x").read_text() == ""


ROWS = [("a" * 200 + ".png", "3", "98.12%"), ("[b]x[/red]:smile:\x1b[31m北.png", "eight", "1.00%")]


def shown(monkeypatch, width=None, encoding="utf-8", header=("picture", "1.", ""), rows=ROWS, **options):
    """The lines of a table in a terminal of some columns, or in a pipe."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    if width is not None:
        stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", str(width or 10))  # of which a pipe takes no notice
    monkeypatch.setenv("TERM", "xterm")
    terminal.show_table(header, rows, left=(0, 1), **options)
    stream.flush()
    drawn = re.sub(r"\x1b\[[0-9;]*m", "", stream.buffer.getvalue().decode(encoding))
    return [line.rstrip() for line in drawn.splitlines()]


def test_a_pipe_gets_whole_lines_and_plain_text(monkeypatch):
    lines = shown(monkeypatch)
    assert lines[2].split() == list(ROWS[0])
    assert lines[3].split() == ["[b]x[/red]:smile:\\x1b[31m北.png", "eight", "1.00%"]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_long_name_loses_its_middle_in_a_terminal(monkeypatch, width):
    from rich.cells import cell_len

    lines = shown(monkeypatch, width)
    assert max(map(cell_len, lines)) <= width
    assert len(lines) == 4
    assert lines[2].startswith("aaa")
    assert re.search(r"a…a+\.png  3", lines[2])
    assert lines[2].endswith("98.12%")


def test_headings_are_broken_before_anything_is_cut(monkeypatch):
    lines = shown(monkeypatch, 26, header=("seed", "x", "test smoothed loss"), rows=[("0", "1", "0.5")])
    assert [line.split() for line in lines[:3]] == [["test"], ["smoothed"], ["seed", "x", "loss"]]


@pytest.mark.parametrize("width", [1, 10])
def test_where_columns_do_not_fit_each_row_is_a_list(monkeypatch, width):
    lines = shown(monkeypatch, width, header=("class", "taken for", ""), rows=[("cat", "dog", "3%"), ("class", "", "")])
    assert lines == ["cat", "  taken for dog 3%", "class"]


def test_rules_are_plain_where_the_encoding_has_no_lines(monkeypatch):
    lines = shown(monkeypatch, None, "ascii", ("a", "b", "±"), [("é", "≥", "1 ± 2")], footer=[("m", "", "3")])
    assert lines == [
        "a     b       +-",
        "----------------",
        "\\xe9  >=  1 +- 2",
        "----------------",
        "m              3",
    ]


def test_everything_is_printed_here():
    """So that what holds here holds for all output; the child processes of benchmarks answer their parent."""
    root = Path(__file__).parent.parent
    found = set()
    for path in [*(root / "cnn_jax").rglob("*.py"), *(root / "experiments").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found.add(path.name)
    assert found == {"airbench_torch.py", "cifar_torch.py", "mnist_torch.py"}
