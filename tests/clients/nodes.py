"""Nodes as people run them: one by itself, and several by `redynamo local`."""

import os
import random
import re
import shlex
import signal
import socket
import subprocess
import threading
import time

# More than any step takes on a busy machine.
PATIENCE = 60


def free_base(count):
    """A port such that it and the `count - 1` after it are free for clients, nodes (+10000) and metrics (+20000)."""
    while True:
        base = random.randrange(12000, 22000)
        wanted = [base + offset + n for offset in (0, 10000, 20000) for n in range(count)]
        if all(is_free(port) for port in wanted):
            return base


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def ask(port, *lines):
    """The raw answers to inline commands, read until the node closes after QUIT."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.settimeout(PATIENCE)
        connection.sendall("".join(f"{line}\r\n" for line in [*lines, "QUIT"]).encode())
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    return answer


def await_answer(port, is_alive):
    """Waits until the node at `port` says PONG, or that it wants a password first."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if not is_alive():
            raise RuntimeError(f"the node of port {port} ended before it answered")
        try:
            if ask(port, "PING").startswith((b"+PONG", b"-NOAUTH")):
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise RuntimeError(f"port {port} does not answer")


class Node:
    """One node with a directory of its own. It ends with this program, since its standard input then closes."""

    def __init__(self, command, port, log):
        self.command, self.port, self.log = command, port, log
        self.process = None
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "--exit-with-stdin", "yes"],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=clean_environment(),
            )
        await_answer(self.port, lambda: self.process.poll() is None)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Asks it to end; its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            return None


def single(binary, directory, log, *directives):
    port = free_base(1)
    return Node([binary, "--port", str(port), "--dir", directory, *directives], port, log)


class Local:
    """`redynamo local`: it says which process is which node, and how to bring back one that died."""

    def __init__(self, binary, count, directory, log):
        base, cluster_base = free_base(count), free_base(count)
        self.ports = [base + n for n in range(count)]
        self.cluster_ports = [cluster_base + n for n in range(count)]
        self.log_path = log
        self.pids, self.commands, self.returned = {}, {}, {}
        self.changed = threading.Condition()
        self.process = subprocess.Popen(
            [binary, "local", str(count), "--port", str(base), "--cluster-port", str(cluster_base), "--dir", directory],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_environment(),
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        try:
            for port in self.ports:
                await_answer(port, lambda: self.process.poll() is None)
        except BaseException:
            self.stop()
            raise

    def read(self):
        dead = None
        with open(self.log_path, "ab") as log:
            for raw in self.process.stdout:
                log.write(raw)
                log.flush()
                line = raw.decode(errors="replace").rstrip()
                with self.changed:
                    if found := re.match(r"node-(\d+) is starting, pid (\d+)", line):
                        self.pids[int(found[1])] = int(found[2])
                    elif found := re.match(r"node-(\d+) is dead: .* To bring it back:", line):
                        dead = int(found[1])
                    elif dead is not None:
                        self.commands[dead] = shlex.split(line)
                        dead = None
                    self.changed.notify_all()

    def kill(self, port):
        node = self.ports.index(port) + 1
        if node in self.returned:
            self.returned[node].kill()
            return
        os.kill(self.pids[node], signal.SIGKILL)
        with self.changed:
            if not self.changed.wait_for(lambda: node in self.commands, PATIENCE):
                raise RuntimeError(f"`redynamo local` does not say that node-{node} is dead")

    def start(self, port):
        """Brings a node back by the command that was printed."""
        node = self.ports.index(port) + 1
        if node in self.returned:
            self.returned[node].start()
        else:
            self.returned[node] = Node(self.commands[node], port, self.log_path)

    def stop(self):
        for node in self.returned.values():
            node.stop()
        self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = None
        self.reader.join(PATIENCE)
        return code


def clean_environment():
    return {name: value for name, value in os.environ.items() if not name.startswith("REDYNAMO_")}
