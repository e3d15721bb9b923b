"""Signals that end a process end it in order."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from vitrail import signals


def run(code: str, status: int = 0) -> str:
    """What a fresh process prints: a signal that is missed ends that one only."""
    lines = ("import os, signal, time, weakref", "from vitrail import signals", code)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (status, "")
    return done.stdout


@pytest.mark.parametrize("number", signals.TERMINATIONS)
def test_a_signal_becomes_an_interrupt_and_what_was_before_comes_back(number: int) -> None:
    said = run(
        "try:\n"
        "    with signals.raise_on_termination():\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "        time.sleep(20)\n"
        "except KeyboardInterrupt as stop:\n"
        f"    print(stop, signal.getsignal({int(number)}) is signal.SIG_DFL)\n"
    )
    assert said == f"stopped by {signal.Signals(number).name} True\n"


@pytest.mark.parametrize("moment", ["tolerant_streams", "explain_error", "drop_stdout"])
def test_no_moment_of_a_command_is_without_a_listener(moment: str) -> None:
    """Before its words are read, while an error is told, and when its reader has left."""
    word = "check" if moment == "drop_stdout" else "models"
    said = run(
        "import sys, vitrail.cli.app as app\n"
        "def stop(*_):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(20)\n"
        f"app.{moment} = stop\n"
        "def fail(words):\n"
        "    raise BrokenPipeError if 'check' in words else ValueError\n"
        "app.run_command = fail\n"
        "sys.stderr = sys.stdout\n"
        f"print(sys.modules['vitrail.cli'].main([{word!r}]))\n"
    )
    assert said == "vitrail: stopped by SIGTERM\n130\n"


@pytest.mark.parametrize("error", ["ValueError('matrix')", "OSError(5, 'damaged')"])
@pytest.mark.parametrize(("number", "line"), [("INT", "stopped"), ("HUP", "stopped by SIGHUP")])
def test_an_error_in_place_of_an_interruption_is_one(number: str, line: str, error: str) -> None:
    """matplotlib says "Invalid affine transformation matrix" where it was interrupted."""
    said = run(
        "import sys, vitrail.cli.app as app\n"
        "def draw(words):\n"
        "    try:\n"
        f"        os.kill(os.getpid(), signal.SIG{number})\n"
        "        time.sleep(20)\n"
        "    except KeyboardInterrupt:\n"
        f"        raise {error} from None\n"
        "app.run_command = draw\n"
        "sys.stderr = sys.stdout\n"
        "print(sys.modules['vitrail.cli'].main(['models']))\n"
    )
    assert said == (
        f"vitrail: {line}\n130\n"
        if "Value" in error
        else "vitrail: the system refused: damaged\n130\n"
    )


@pytest.mark.parametrize("ctrl_c", ["default_int_handler", "SIG_IGN"])
def test_a_signal_in_a_callback_is_not_lost(ctrl_c: str) -> None:
    """Python prints an exception that is raised in a weak reference's callback, and goes on.

    Where Ctrl-C is ignored, as in a script's background, the process ends by the signal itself.
    """
    said = run(
        f"signal.signal(signal.SIGINT, signal.{ctrl_c})\n"
        "class Held: pass\n"
        "held = Held()\n"
        "known = weakref.ref(held, lambda _: os.kill(os.getpid(), signal.SIGTERM))\n"
        "try:\n"
        "    with signals.raise_on_termination():\n"
        "        del held\n"
        "        time.sleep(20)\n"
        "except KeyboardInterrupt:\n"
        "    print('heard', known())\n",
        status=0 if ctrl_c == "default_int_handler" else -signal.SIGTERM,
    )
    assert said == ("heard None\n" if ctrl_c == "default_int_handler" else "")


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
