from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from rine_cache import progress as module
from rine_cache.cli.options import log_to
from rine_cache.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LINE = re.compile(
    r"(?P<what>.+): (?P<done>\d+)/(?P<total>\d+) (?P<unit>\S+), (?P<rate>[\d.]+)/s, (?P<left>\d+:\d\d|--:--) left"
)


class Clock:
    """Stands in for the time module: time passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    stopped = Clock()
    monkeypatch.setattr(module, "time", stopped)
    return stopped


@pytest.fixture
def logged(tmp_path: Path) -> Callable[[], list[str]]:
    """Send messages to a log file; return what reads its messages, without their times."""
    path = tmp_path / "logs" / "extract.log"
    log_to(path)

    def read() -> list[str]:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+ ", line) for line in lines)
        return [line.split(" ", 3)[3] for line in lines]

    return read


def fields(line: str) -> dict[str, str]:
    match = LINE.fullmatch(line)
    assert match is not None, line
    return match.groupdict()


def test_a_line_gives_count_total_rate_and_time_left(clock: Clock, logged: Callable[[], list[str]]) -> None:
    with progress("extract horses", 100, "images") as bar:
        for _ in range(4):
            clock.now += 20
            bar.advance(5)
    lines = [fields(line) for line in logged()]
    assert lines[0] == {
        "what": "extract horses",
        "done": "15",
        "total": "100",
        "unit": "images",
        "rate": "0.2",
        "left": "05:40",
    }


def test_lines_come_once_in_a_while_and_a_last_one_at_the_end(clock: Clock, logged: Callable[[], list[str]]) -> None:
    with progress("score", 60, "images") as bar:
        for _ in range(60):
            clock.now += 4
            bar.advance()
    assert [fields(line)["done"] for line in logged()] == ["15", "30", "45", "60", "60"]
    assert fields(logged()[-1])["left"] == "00:00"


def test_what_is_soon_done_gives_one_line(clock: Clock, logged: Callable[[], list[str]]) -> None:
    with progress("train", 3, "heads") as bar:
        for _ in range(3):
            clock.now += 1
            bar.advance()
    assert [fields(line)["done"] for line in logged()] == ["3"]


def test_what_an_earlier_run_did_counts_as_done_but_not_in_the_rate(
    clock: Clock, logged: Callable[[], list[str]]
) -> None:
    """A resumed extraction that counted the rows it found would promise to be done in no time."""
    with progress("extract", 1000, "images", initial=900) as bar:
        clock.now += 20
        bar.advance(10)
    first = fields(logged()[0])
    assert (first["done"], first["total"], first["rate"], first["left"]) == ("910", "1000", "0.5", "03:00")


def test_hours_are_told_in_minutes(clock: Clock, logged: Callable[[], list[str]]) -> None:
    with progress("extract", 10_000, "images") as bar:
        clock.now += 20
        bar.advance(20)
    assert fields(logged()[0])["left"] == "166:20"


def test_the_last_line_is_written_when_the_work_fails(clock: Clock, logged: Callable[[], list[str]]) -> None:
    def work() -> None:
        with progress("extract", 10, "images") as bar:
            clock.now += 1
            bar.advance(4)
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        work()
    assert [fields(line)["done"] for line in logged()] == ["4"]


def test_nothing_done_and_no_time_passed_is_no_division_by_zero(clock: Clock, logged: Callable[[], list[str]]) -> None:
    with progress("extract", 10, "images"):
        pass
    line = fields(logged()[0])
    assert (line["done"], line["rate"]) == ("0", "0.0")


def test_a_time_left_that_is_not_known_is_not_told_as_none_at_all(
    clock: Clock, logged: Callable[[], list[str]]
) -> None:
    with progress("extract", 10, "images"):
        clock.now += 60
    assert "00:00 left" not in logged()[0]


def test_without_a_terminal_no_bar_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    log_to(None)
    with progress("extract", 10, "images") as bar:
        bar.advance(10)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [fields(line)["done"] for line in captured.err.splitlines()] == ["10"]


def test_a_log_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    for text in ("first", "second"):
        log_to(path)
        logging.getLogger("rine_cache.test").info(text)
    assert [line.split()[-1] for line in path.read_text().splitlines()] == ["first", "second"]


SCRIPT = """
import logging, sys, time
from pathlib import Path
from rine_cache import progress
from rine_cache.cli.options import log_to
progress.SECONDS_BETWEEN_LINES = 0.1
log_to(Path(sys.argv[1]))
with progress.progress("extract horses", 20, "images", 5) as bar:
    for index in range(15):
        time.sleep(0.03)
        bar.advance()
        if index == 7:
            logging.getLogger("rine_cache.extract").warning("quarantined a.png")
"""


@pytest.fixture(scope="module")
def on_a_terminal(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Run some work with a terminal of 80 columns on stderr; return what it showed, and the log file."""
    log = tmp_path_factory.mktemp("terminal") / "run.log"
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(log)], stderr=theirs, stdin=theirs, stdout=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            received = os.read(ours, 4096)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not received:
            break
        shown += received
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return shown.decode(), log.read_text(encoding="utf-8")


def test_on_a_terminal_a_bar_is_drawn_and_messages_stand_on_lines_of_their_own(on_a_terminal: tuple[str, str]) -> None:
    shown, _ = on_a_terminal
    assert "extract horses:  25%" in shown
    assert " images/s]" in shown
    assert "20/20" in shown
    assert "warning: quarantined a.png\r\n" in shown


def test_nothing_but_plain_lines_reaches_the_log_of_a_terminal_session(on_a_terminal: tuple[str, str]) -> None:
    _, log = on_a_terminal
    assert log.isprintable() or set(filter(lambda letter: not letter.isprintable(), log)) == {"\n"}
    lines = log.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (INFO|WARNING) ", line) for line in lines)
    messages = [line.split(" ", 3)[3] for line in lines]
    assert messages.count("quarantined a.png") == 1
    messages.remove("quarantined a.png")
    assert len(messages) >= 3
    assert [fields(message)["total"] for message in messages] == ["20"] * len(messages)
    assert fields(messages[-1])["done"] == "20"


def test_lines_meant_for_logs_are_left_out_where_the_bar_shows(on_a_terminal: tuple[str, str]) -> None:
    shown, _ = on_a_terminal
    assert " left\r\n" not in shown


def test_what_is_noted_stands_in_every_line_after_it(clock: Clock, logged: Callable[[], list[str]]) -> None:
    with progress("extract horses", 2, "images") as bar:
        bar.log_line()
        bar.note("quarantined", 1)
        bar.note("quarantined", 2)
    first, last = logged()
    assert first.endswith(" left")
    assert last.endswith(" left, 2 quarantined")


def test_waits_add_up_by_what_was_waited_for(clock: Clock) -> None:
    waits = module.Waits()
    for seconds, what in ((1, "decoding"), (2, "encoding"), (3, "decoding")):
        with waits(what):
            clock.now += seconds
    clock.now += 4

    def fail() -> None:
        with waits("writing"):
            clock.now += 5
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (waits.seconds, waits.elapsed) == ({"decoding": 4, "encoding": 2, "writing": 5}, 15)
