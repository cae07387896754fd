"""What every script of this directory says: `ok` and `not ok` lines on standard output, for run.py to count."""

import sys
import traceback


def check(name, function, *args):
    """Runs one check; whatever it raises is its failure."""
    try:
        function(*args)
    except Exception as error:  # noqa: BLE001: a check may fail in any way
        frames = traceback.extract_tb(error.__traceback__)
        where = next(frame for frame in reversed(frames) if "/tests/clients/" in frame.filename)
        say(f"not ok {name}: {type(error).__name__}: {error} ({where.name}:{where.lineno}: {where.line})")
    else:
        say(f"ok {name}")


def say(line):
    print(line.replace("\n", " "), flush=True)


def equal(got, expected):
    assert got == expected, f"{shortened(got)} instead of {shortened(expected)}"


def raises(kind, text, function, *args, **options):
    """The function must raise `kind` with `text` in its message."""
    try:
        got = function(*args, **options)
    except kind as error:
        assert text in str(error), f"{error!r} does not say {text!r}"
    else:
        raise AssertionError(f"{shortened(got)} instead of an error")


def tell(order, port):
    """Has run.py kill or start the node of a port, and waits until it has."""
    say(f"!{order} {port}")
    assert sys.stdin.readline().strip() == "done"


def shortened(value):
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."
