"""Warnings of a model instance: one of each kind in a minute, however many a client causes."""

import logging

import pytest

from traccc_py.backend.logs import OncePerMinute, TritonHandler
from traccc_py.errors import CapacityError, InputDataError


class FakeLogger:
    def __init__(self):
        self.lines = []

    def log_info(self, text):
        self.lines.append(("info", text))

    def log_warn(self, text):
        self.lines.append(("warn", text))

    def log_error(self, text):
        self.lines.append(("error", text))


@pytest.fixture
def log():
    """Return logger, lines and a clock that the test sets."""
    fake, now = FakeLogger(), [1000.0]
    handler = TritonHandler(fake)
    handler.filters = [OncePerMinute(lambda: now[0])]
    logger = logging.Logger("test", logging.INFO)
    logger.addHandler(handler)
    return logger, fake.lines, now


def test_one_warning_of_a_kind_in_a_minute(log):
    logger, lines, now = log
    for n in range(1000):
        now[0] += 0.01
        logger.warning("%d of %d cells repeat a channel", n, 5000)
    assert lines == [("warn", "0 of 5000 cells repeat a channel")]
    now[0] += 60
    logger.warning("%d of %d cells repeat a channel", 7, 70)
    logger.warning("%d of %d cells repeat a channel", 8, 80)
    assert lines[1:] == [("warn", "7 of 70 cells repeat a channel (999 more such warnings before)")]


def test_kinds_are_counted_apart(log):
    logger, lines, _ = log
    for _ in range(3):
        logger.warning("refused: %s", InputDataError("row 1"))
        logger.warning("refused: %s", InputDataError("row 2"))
        logger.warning("refused: %s", CapacityError("too many"))
        logger.warning("other")
    assert [text for _, text in lines] == ["refused: row 1", "refused: too many", "other"]


def test_errors_and_information_are_never_left_out(log):
    logger, lines, _ = log
    for _ in range(3):
        logger.error("failure %s", "a")
        logger.info("ready")
    assert [kind for kind, _ in lines] == ["error", "info"] * 3


def test_many_kinds_do_not_fill_the_memory(log):
    logger, lines, _ = log
    (handler,) = logger.handlers
    for n in range(5000):
        logger.warning(f"kind {n}")  # noqa: G004
    assert len(lines) == 5000
    assert len(handler.filters[0]._last) < 1100
