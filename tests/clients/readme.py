"""Does what README.md says, and compares what is shown.

Blocks are marked in the line that opens them: `console` is typed into one shell, command by command; `console server` is
started in place of the servers before, `console server beside` beside them. Three dots stand for any text. `readme.py PROGRAM`.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import nodes
from checks import check

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINARY = pathlib.Path(sys.argv[1]).resolve()
PATIENCE = 60
# Nobody types faster; nodes that have just met take a part of it to know that all are there.
PAUSE = 1


def main():
    text = translated((ROOT / "README.md").read_text(), nodes.free_base(3))
    with tempfile.TemporaryDirectory(prefix="redynamo-readme-") as directory:
        reader = Reader(directory)
        try:
            for number, (kind, lines) in enumerate(blocks(text), 1):
                check(f"block {number}, {lines[0]}", reader.follow, kind, lines)
        finally:
            reader.stop()


def translated(text, base):
    """The same on ports of which this machine has some to spare, with other addresses of its own for other machines."""
    ports = {str(port + n): str(base + port - 6379 + n) for port in (6379, 16379, 26379) for n in range(3)}
    text = re.sub(r"\b\d{4,5}\b", lambda found: ports.get(found[0], found[0]), text)
    text = re.sub(r"\b10\.0\.0\.(\d)\b", lambda found: f"127.0.0.{int(found[1]) + 1}", text)
    text = text.replace("cargo run --release -- ", "redynamo ").replace("cargo run --release\n", "redynamo\n")
    text = text.replace("target/release/redynamo", "redynamo")
    # The default port is one of those.
    text = re.sub(r"redis-cli (?!-p)", f"redis-cli -p {base} ", text)
    # A reader has a terminal, for which redis-cli writes otherwise than for a pipe.
    text = re.sub(r"^\$ redis-cli (?!.*\|)", "$ redis-cli --no-raw ", text, flags=re.MULTILINE)
    text = re.sub(r"\$ (.*\b)?redynamo(?= |\n)(?!.*--port)(?!.*\.conf)(.*)", rf"$ \1redynamo\2 --port {base}", text)
    # Nodes of several machines are called as these are.
    return re.sub(r"--bind (\S+)", r"--bind \1 --node-name at-\1", text)


def blocks(text):
    for kind, body in re.findall(r"^```(console[^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield kind, body.splitlines()


def entries(lines):
    """Commands, each with what it shows."""
    for line in lines:
        if line.startswith("$ "):
            entry = (line[2:], [])
            yield entry
        else:
            entry[1].append(line)


class Reader:
    """Someone who types."""

    def __init__(self, directory):
        self.directory = directory
        self.environment = {**nodes.clean_environment(), "PATH": f"{BINARY.parent}:{os.environ['PATH']}"}
        self.servers = []
        self.shell = None

    def open_shell(self):
        self.close_shell()
        self.shell = subprocess.Popen(
            ["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=self.directory, env=self.environment,
        )

    def close_shell(self):
        if self.shell:
            self.shell.stdin.close()
            self.shell.wait(PATIENCE)

    def follow(self, kind, lines):
        if kind == "console server":
            self.stop_servers()
            self.open_shell()
        # A generator would hand out a command before its output has been collected.
        for command, expected in list(entries(lines)):
            shown = self.type(command) if kind == "console" else self.serve(command)
            pattern = r".*".join(map(re.escape, "\n".join(expected).split("...")))
            found = (re.fullmatch if kind == "console" else re.search)(pattern, shown.strip(), re.DOTALL)
            assert found, f"`{command}` shows {shown!r}"

    def type(self, command):
        self.shell.stdin.write(f"{command}\necho end of output\n")
        self.shell.stdin.flush()
        shown = ""
        while not shown.endswith("end of output\n"):
            line = self.shell.stdout.readline()
            assert line, f"the shell ended after {shown!r}"
            shown += line
        return shown.removesuffix("end of output\n")

    def serve(self, command):
        """Starts a server; what it says until it is ready and nothing more comes."""
        log = pathlib.Path(self.directory) / f"server-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                ["bash", "-c", f"exec env {command}"], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                cwd=self.directory, env=self.environment,
            )
        self.servers.append(server)
        deadline = time.monotonic() + PATIENCE
        ready = "nodes are ready" if " local " in command else "Ready to accept connections"
        while ready not in log.read_text():
            assert server.poll() is None and time.monotonic() < deadline, f"`{command}` says {log.read_text()!r}"
            time.sleep(0.05)
        time.sleep(PAUSE)
        return log.read_text()

    def stop_servers(self):
        for server in reversed(self.servers):
            server.send_signal(signal.SIGINT)
        for server in self.servers:
            server.wait(PATIENCE)
        self.servers.clear()

    def stop(self):
        self.close_shell()
        for server in self.servers:
            server.terminate()
        for server in self.servers:
            try:
                server.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                server.kill()


if __name__ == "__main__":
    main()
