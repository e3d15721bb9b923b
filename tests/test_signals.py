"""Signals that end a process end it in order."""

import os
import pty
import signal
import sys
import time
import weakref

import pytest

from vitrail import signals


@pytest.mark.parametrize("number", signals.TERMINATIONS)
def test_a_signal_becomes_an_interrupt_and_what_was_before_comes_back(number: int) -> None:
    before = signal.getsignal(number)
    name = signal.Signals(number).name
    with (
        pytest.raises(KeyboardInterrupt, match=f"stopped by {name}"),
        signals.raise_on_termination(),
    ):
        os.kill(os.getpid(), number)
        time.sleep(5)  # Python hears a signal at its next step: here, and not after the block
    assert signal.getsignal(number) is before


class Held:
    """Something that can be weakly referred to."""


def test_a_signal_in_a_callback_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    """Python prints an exception that is raised in a weak reference's callback, and goes on."""
    held = Held()
    known = weakref.ref(held, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt), signals.raise_on_termination():
        del held
        time.sleep(5)
    assert known() is None
    assert capfd.readouterr().err == ""


def test_what_is_ignored_stays_ignored() -> None:
    """As ``nohup`` has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.raise_on_termination():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_output_to_a_terminal_that_is_gone_harms_nobody() -> None:
    """A child on a terminal of its own, which is closed: it prints on and ends as it wants."""
    ours, theirs = os.pipe()
    pid, terminal = pty.fork()
    if pid == 0:
        status = 1
        try:
            with signals.raise_on_termination():
                os.write(theirs, b"x")
                signal.pause()
        except KeyboardInterrupt:
            os.write(1, b"last words")
            print("last words", file=sys.__stderr__, flush=True)
            status = 7
        finally:
            os._exit(status)
    os.read(ours, 1)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7
