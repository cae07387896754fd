"""redis-benchmark, unchanged, in all its tests of strings: `redis_benchmark.py PORT ...`."""

import subprocess
import sys

from checks import check

TESTS = "ping_inline,ping_mbulk,set,get,incr,mset"
TITLES = ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"]


def main():
    for port in sys.argv[1:]:
        check(f"one after the other, port {port}", every_test, port)
        check(f"16 in a pipeline, port {port}", every_test, port, "-P", "16")
        check(f"random keys and large values, port {port}", every_test, port, "-r", "10000", "-d", "1000")
        check(f"RESP3 and several threads, port {port}", every_test, port, "-3", "--threads", "2")
        check(f"a command of one's own, port {port}", own_command, port)


def run(port, *words):
    command = ["redis-benchmark", "-p", port, "--csv", "-n", "2000", "-c", "20", *words]
    done = subprocess.run(command, text=True, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rror" not in done.stdout + done.stderr, done.stdout + done.stderr
    return [line.replace('"', "").split(",") for line in done.stdout.splitlines()[1:]]


def every_test(port, *words):
    rows = run(port, "-t", TESTS, *words)
    assert [row[0] for row in rows] == TITLES, rows
    assert all(float(row[1]) > 0 for row in rows), rows


def own_command(port):
    (row,) = run(port, "SETRANGE", "key:__rand_int__", "5", "text")
    assert row[0].startswith("SETRANGE") and float(row[1]) > 0, row


if __name__ == "__main__":
    main()
