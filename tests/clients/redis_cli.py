"""redis-cli in all its modes that concern strings and keys: `redis_cli.py PORT ...`."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

from checks import check, equal

PORTS = sys.argv[1:]
SECURED, PASSWORD = os.environ["SECURED_PORT"], os.environ["PASSWORD"]


def main():
    for port in PORTS:
        run(port, "FLUSHALL")
        for mode in MODES:
            check(f"{mode.__name__}, port {port}", mode, port)
    check("password", password)
    if len(PORTS) > 1:
        check("cluster", cluster)


def run(port, *words, text=None, timeout=60):
    """Standard output of a call; its standard input is `text`."""
    done = subprocess.run(
        ["redis-cli", "-p", port, *words], text=True, errors="replace", capture_output=True, timeout=timeout,
        **({"stdin": subprocess.DEVNULL} if text is None else {"input": text}),
    )
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def run_until(port, effect, *words):
    """What a call that never ends shows on a terminal, up to `effect` (a regular expression)."""
    return typed([port, *words], [("", effect)])


def one_command(port):
    equal(run(port, "SET", "k", "a value"), "OK\n")
    equal(run(port, "GET", "k"), "a value\n")
    equal(run(port, "--no-raw", "GET", "k"), '"a value"\n')
    equal(run(port, "--no-raw", "GET", "absent"), "(nil)\n")
    equal(run(port, "--no-raw", "INCR", "n"), "(integer) 1\n")
    equal(run(port, "--csv", "MGET", "k", "absent"), '"a value",NULL\n')
    equal(run(port, "-n", "4", "GET", "k"), "\n")
    equal(run(port, "-x", "SET", "stdin", text="from\x00standard input"), "OK\n")
    equal(run(port, "STRLEN", "stdin"), "19\n")
    equal(run(port, "-r", "3", "INCR", "repeated"), "1\n2\n3\n")
    equal(run(port, "-u", f"redis://127.0.0.1:{port}/2", "GET", "k"), "\n")


def error(port):
    done = subprocess.run(["redis-cli", "-p", port, "-e", "INCR", "k"], text=True, capture_output=True)
    assert done.returncode == 1 and "value is not an integer" in done.stdout + done.stderr, done
    assert "ERR unknown command 'NOSUCH'" in run(port, "NOSUCH")


def several_commands_on_standard_input(port):
    equal(run(port, text="SET a 1\nINCR a\n\nGET a\n"), "OK\n2\n\n2\n".replace("\n\n", "\n"))


def resp3(port):
    answer = run(port, "-3", "--no-raw", "CONFIG", "GET", "maxmemory-policy")
    equal(answer, '1# "maxmemory-policy" => "noeviction"\n')
    assert "standalone" in run(port, "-3", "HELLO")


def as_json(port):
    equal(json.loads(run(port, "--json", "CONFIG", "GET", "maxmemory-policy")), {"maxmemory-policy": "noeviction"})
    equal(json.loads(run(port, "--json", "MGET", "k", "absent")), ["a value", None])


def pipe(port):
    requests = "".join(f"*3\r\n$3\r\nSET\r\n${len(f'pipe:{n}')}\r\npipe:{n}\r\n$1\r\nx\r\n" for n in range(5000))
    answer = run(port, "--pipe", text=requests)
    assert "errors: 0, replies: 5000" in answer, answer
    done = subprocess.run(["redis-cli", "-p", port, "--pipe"], text=True, input="SET one 1\r\nNOSUCH\r\n", capture_output=True)
    assert done.returncode == 1 and "errors: 1, replies: 2" in done.stdout, done


def scan(port):
    equal(len(run(port, "--scan", "--pattern", "pipe:*").split()), 5000)
    equal(run(port, "--scan", "--pattern", "pipe:4999"), "pipe:4999\n")


def bigkeys(port):
    run(port, "SET", "biggest", "x" * 5000)
    answer = run(port, "--bigkeys")
    assert re.search(r'Biggest string found .*"biggest".* has 5000 bytes', answer), answer[-1500:]
    assert re.search(r"\d{4} strings with \d+ bytes", answer), answer[-1500:]


def memkeys(port):
    answer = run(port, "--memkeys")
    assert re.search(r'Biggest string found .*"biggest".* has \d{4,} bytes', answer), answer[-1500:]


def stat(port):
    # In a cluster, INFO's counts of keys are what all nodes said when they were last asked: about a second ago at most.
    until = time.monotonic() + 10
    while int((re.findall(r"keys=(\d+)", run(port, "info", "keyspace")) or ["0"])[0]) <= 5000:
        assert time.monotonic() < until, "INFO does not come to know of all keys"
        time.sleep(0.1)
    row = r"(\d\S*) +(\S+) +(\d+) +(\d+) +(\d+) \(\+\d+\) +(\d+)"
    answer = run_until(port, rf"(?s){row}.*{row}.*{row}", "--stat", "-i", "0.05")
    first, *_, last = re.findall(row, answer)
    assert int(first[0]) > 5000, f"keys: {answer}"
    assert int(first[2]) >= 1, f"clients: {answer}"
    assert int(last[4]) > int(first[4]), f"requests: {answer}"


def latency(port):
    answer = run(port, "--latency", "--raw", "-i", "1", timeout=30)
    least, most, mean, count = answer.split()[:4]
    assert 0 <= float(least) <= float(mean) <= float(most) and int(count) > 10, answer
    run_until(port, r"min: \d+, max: \d+, avg: \S+ \(\d+ samples\) -- ", "--latency-history", "-i", "0.1")


def help_while_typing(port):
    """On a terminal: what COMMAND DOCS says appears behind the cursor, and HELP prints it."""
    steps = [
        ("", f":{port}> "), ("get ", "key"), ("k\r", '"a value"'), ("help getrange\r", r"since: 2\.4\.0"),
        ("dynamo.put ", "key context value"), ("\x15", ">"), ("help @dynamo\r", "DYNAMO.WHERE key"),
    ]
    try:
        shown = typed([port], steps)
    except AssertionError:
        # Seen once in hundreds of runs, on a machine with ten times as much to do as it has processors: redis-cli had begun
        # without its help, and stays without.
        shown = typed([port], steps)
    assert "GETRANGE key start end" in shown, shown


def typed(words, steps):
    """Types each text, when the one before had its effect (a regular expression), on a terminal of its own; what was shown."""
    child, terminal = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
        os.environ.update(TERM="xterm", HOME="/nonexistent")
        os.execvp("redis-cli", ["redis-cli", "-p", *words])
    shown = ""
    try:
        for text, effect in steps:
            os.write(terminal, text.encode())
            shown += read_until(terminal, effect)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)
    return shown


def read_until(terminal, effect, patience=20):
    """What is shown from here on, without what moves and colours it."""
    shown, deadline = "", time.monotonic() + patience
    while not re.search(effect, plain := re.sub(r"\x1b\[[0-9;]*[A-Za-z]|\r", "", shown)):
        ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"the terminal shows {plain[-300:]!r}, not {effect!r}"
        shown += os.read(terminal, 65536).decode(errors="replace")
    return plain


def password():
    equal(run(SECURED, "-a", PASSWORD, "--no-auth-warning", "PING"), "PONG\n")
    assert "NOAUTH" in run(SECURED, "GET", "k")
    os.environ["REDISCLI_AUTH"] = PASSWORD
    equal(run(SECURED, "PING"), "PONG\n")
    del os.environ["REDISCLI_AUTH"]
    equal(run(SECURED, "--user", "default", "--pass", PASSWORD, "--no-auth-warning", "PING"), "PONG\n")


def cluster():
    port, *others = os.environ["CLUSTER_PORTS"].split()
    checked = run(port, "--cluster", "check", f"127.0.0.1:{port}")
    assert "All nodes agree about slots configuration" in checked and "All 16384 slots covered" in checked, checked
    equal(run(port, "--cluster", "info", f"127.0.0.1:{port}").count(" slots | 0 slaves."), len(others) + 1)
    equal(run(port, "-c", "SET", "through", "one"), "OK\n")
    for other in others:
        equal(run(other, "-c", "GET", "through"), "one\n")
    sizes = re.findall(r":\d+: (\d+)", run(port, "--cluster", "call", f"127.0.0.1:{port}", "DBSIZE"))
    equal(sum(map(int, sizes)), int(run(PORTS[0], "DBSIZE")))
    assert "not supported" in run(port, "CLUSTER", "MEET", "127.0.0.1", "1")


MODES = [
    one_command, error, several_commands_on_standard_input, resp3, as_json, pipe, scan, bigkeys, memkeys, stat, latency,
    help_while_typing,
]

if __name__ == "__main__":
    main()
