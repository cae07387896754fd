#!/usr/bin/env python3
"""Checks of real client libraries and tools against real nodes: one by itself, and three by `redynamo local`.

    tests/clients/run.py [--binary target/release/redynamo] [SUITE ...]

A suite is a script in its library's language. It gets the ports as words and the port of a node with a password in
SECURED_PORT, those of the cluster face in CLUSTER_PORTS, and prints a line for each check: `ok NAME` or `not ok NAME: WHY`. With `!kill PORT` and `!start PORT` it
has this program kill a node (SIGKILL) and start it again, and then reads `done`. Libraries are installed below target/.

The last line is `N passed, N failed`.
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import nodes

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
INSTALLED = ROOT / "target" / "clients"
PASSWORD = "correct horse"
# It starts nodes of its own.
README = "readme"
# Longer than any script takes on a busy machine.
PATIENCE = 300


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "redynamo"))
    parser.add_argument("suites", nargs="*")
    options = parser.parse_args()
    suites = {name: command for name, command in all_suites().items() if not options.suites or name in options.suites}
    if unknown := set(options.suites) - set(suites):
        sys.exit(f"no suite is called {', '.join(sorted(unknown))}; there are {', '.join(all_suites())}")
    # A signal ends the run as an error does: with everything stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    install(suites)
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="redynamo-clients-") as directory:
        run_all(suites, os.path.abspath(options.binary), pathlib.Path(directory), tally)
    print(f"{tally.passed} passed, {tally.failed} failed")
    sys.exit(1 if tally.failed or not tally.passed else 0)


def all_suites():
    """Command lines, by name."""
    python, node = str(INSTALLED / "python" / "bin" / "python"), str(node_programs() / "node")
    old = ["env", f"PYTHONPATH={INSTALLED / 'python-old'}", python]
    suites = {
        "redis-py": [python, "redis_py.py", "redis"],
        "redis-py-old": [*old, "redis_py.py", "redis"],
        "valkey-py": [python, "redis_py.py", "valkey"],
        "ioredis": [node, "ioredis.mjs", "ioredis"],
        "iovalkey": [node, "ioredis.mjs", "iovalkey"],
        "node-redis": [node, "node_redis.mjs"],
        "redis-py-cluster": [python, "redis_py_cluster.py"],
        "ioredis-cluster": [node, "cluster.mjs", "ioredis"],
        "iovalkey-cluster": [node, "cluster.mjs", "iovalkey"],
        "node-redis-cluster": [node, "cluster.mjs", "redis"],
        "phpredis": ["php", "phpredis.php"],
        "redis-rb": ["ruby", "redis_rb.rb"],
        "redis-cli": [sys.executable, "redis_cli.py"],
        "redis-benchmark": [sys.executable, "redis_benchmark.py"],
        README: [sys.executable, "readme.py"],
    }
    return suites


def node_programs():
    """Where `node` and `npm` are: the machine's, if they are new enough for the libraries, else our own."""
    found = shutil.which("node")
    if found and shutil.which("npm"):
        version = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
        if int(version.strip().lstrip("v").partition(".")[0] or 0) >= 20:
            return pathlib.Path(found).parent
    return INSTALLED / "node-programs" / "bin"


def install(suites):
    """Installs the libraries that are not there yet, in the versions that this directory names."""
    if any("py" in name.split("-") for name in suites):
        environment, old = INSTALLED / "python", INSTALLED / "python-old"
        install_once("python", HERE / "requirements.txt", [
            [sys.executable, "-m", "venv", "--clear", environment],
            [environment / "bin" / "pip", "install", "--quiet", "--requirement", HERE / "requirements.txt"],
        ])
        install_once("python-old", HERE / "requirements-old.txt", [
            [environment / "bin" / "pip", "install", "--quiet", "--upgrade", "--target", old,
             "--requirement", HERE / "requirements-old.txt"],
        ])
    if {"ioredis", "iovalkey", "node-redis"} & {name.removesuffix("-cluster") for name in suites}:
        directory, programs = INSTALLED / "node", node_programs()
        if programs.is_relative_to(INSTALLED):
            install_once("node-programs", HERE / "requirements-node.txt", [
                [sys.executable, "-m", "venv", "--clear", programs.parent],
                [programs / "pip", "install", "--quiet", "--requirement", HERE / "requirements-node.txt"],
            ])
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "package.json", directory)
        install_once("node", HERE / "package.json", [
            ["env", f"PATH={programs}:{os.environ['PATH']}",
             programs / "npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", directory],
        ])


def install_once(name, list_of, commands):
    """Runs the commands, unless they were run with this list before."""
    wanted, stamp = hashlib.sha256(list_of.read_bytes()).hexdigest(), INSTALLED / f"{name}.installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    INSTALLED.mkdir(parents=True, exist_ok=True)
    for command in commands:
        subprocess.run([str(word) for word in command], check=True, stdin=subprocess.DEVNULL)
    stamp.write_text(wanted)


def run_all(suites, binary, directory, tally):
    logs = INSTALLED / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    running = []
    try:
        one = nodes.single(binary, str(directory / "one"), logs / "one.log")
        running.append(one)
        secured = nodes.single(binary, str(directory / "secured"), logs / "secured.log", "--requirepass", PASSWORD)
        running.append(secured)
        local = nodes.Local(binary, 3, str(directory / "local"), logs / "local.log")
        running.append(local)
        for name, command in suites.items():
            if name == README:
                run_suite(name, command, [binary], secured.port, {}, tally)
                continue
            one_node = ("one node", [one.port], lambda _: one.kill(), lambda _: one.start())
            three_nodes = ("three nodes", local.ports, local.kill, local.start)
            faces = " ".join(map(str, local.cluster_ports))
            for title, ports, kill, start in [three_nodes] if name.endswith("-cluster") else [one_node, three_nodes]:
                nodes.ask(ports[0], "FLUSHALL")
                orders = {"kill": kill, "start": start}
                run_suite(f"{name}, {title}", ["env", f"CLUSTER_PORTS={faces}", *command], ports, secured.port, orders, tally)
    finally:
        codes = [node.stop() for node in reversed(running)]
    tally.note("nodes", "end with code 0 when asked to", codes == [0] * len(codes), f"exit codes {codes}")
    for log in sorted(logs.iterdir()):
        bad = [line for line in log.read_text(errors="replace").splitlines() if "panicked" in line]
        tally.note(log.name, "no thread panicked", not bad, "; ".join(bad))


def run_suite(title, command, ports, secured, orders, tally):
    """Runs a script, does what it orders, counts what it reports."""
    words = [*command, *map(str, ports)]
    environment = {**os.environ, "SECURED_PORT": str(secured), "PASSWORD": PASSWORD, "NODE_MODULES": str(INSTALLED / "node")}
    before = (tally.passed, tally.failed)
    process = subprocess.Popen(
        words, cwd=HERE, env=environment, text=True, errors="replace",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    other = []
    try:
        for line in map(str.rstrip, process.stdout):
            if line.startswith("ok "):
                tally.passed += 1
            elif line.startswith("not ok "):
                name, _, why = line.removeprefix("not ok ").partition(": ")
                tally.note(title, name, False, why)
            elif line.startswith("!"):
                order, port = line[1:].split()
                orders[order](int(port))
                process.stdin.write("done\n")
                process.stdin.flush()
            else:
                other.append(line)
        code = process.wait()
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
    passed, failed = tally.passed - before[0], tally.failed - before[1]
    if code != 0 or passed + failed == 0:
        tally.note(title, "the script runs to its end", False, f"exit code {code}: " + "\n    ".join(other[-20:]))
        failed += 1
    print(f"{title}: {passed} passed" + (f", {failed} FAILED" if failed else ""), flush=True)


class Tally:
    """How many checks passed and failed."""

    def __init__(self):
        self.passed = self.failed = 0

    def note(self, title, name, passed, why):
        if passed:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED {title}: {name}: {why}", flush=True)


if __name__ == "__main__":
    main()
