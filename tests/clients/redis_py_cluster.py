"""redis-py in cluster mode: `redis_py_cluster.py PORT ...`; the ports of the cluster face are in CLUSTER_PORTS.

A node is killed and comes back while a client writes: what it sees of that is counted, and must be no more than an error
or two and a short stall.
"""

import os
import sys
import threading
import time

from checks import check, equal, say, tell
from redis import exceptions
from redis.cluster import ClusterNode, RedisCluster

PORTS = [int(word) for word in sys.argv[1:]]
FACES = [int(word) for word in os.environ["CLUSTER_PORTS"].split()]
# Of a few thousand writes while a node dies, and seconds that one of them takes.
MOST_ERRORS = 2
LONGEST_STALL = 5


def main():
    for protocol in (2, 3):
        client = connect(protocol)
        client.flushall()
        for function in (slots, many_keys, scanning, pipelines, transactions, messages, sharded_messages):
            check(f"{function.__name__}, RESP{protocol}", function, client)
        client.close()
    check("a node dies and comes back while a client writes", death_and_return)


def connect(protocol=3, **options):
    nodes = [ClusterNode("127.0.0.1", port) for port in FACES]
    return RedisCluster(startup_nodes=nodes, protocol=protocol, **options)


def slots(client):
    equal(sorted(node.port for node in client.get_primaries()), sorted(FACES))
    equal(client.get_replicas(), [])
    equal(client.cluster_info()["cluster_state"], "ok")
    for number in range(200):
        node = client.get_node_from_key(f"key:{number}")
        client.set(f"key:{number}", number)
        equal(client.get_redis_connection(node).execute_command("CLUSTER", "COUNTKEYSINSLOT", client.keyslot(f"key:{number}")) >= 1, True)


def many_keys(client):
    equal(client.mset_nonatomic({f"many:{n}": n for n in range(300)}) != [], True)
    equal(client.mget_nonatomic([f"many:{n}" for n in range(300)]), [str(n).encode() for n in range(300)])
    equal(client.mset({"{t}a": 1, "{t}b": 2}), True)
    equal(client.mget("{t}a", "{t}b"), [b"1", b"2"])
    equal(client.delete(*[f"many:{n}" for n in range(300)]), 300)


def scanning(client):
    client.flushall()
    for n in range(500):
        client.set(f"scan:{n}", n)
    found = list(client.scan_iter(count=50))
    equal(sorted(found), sorted(f"scan:{n}".encode() for n in range(500)))
    equal(client.dbsize(target_nodes=RedisCluster.PRIMARIES), 500)


def pipelines(client):
    pipe = client.pipeline()
    for n in range(500):
        pipe.set(f"pipe:{n}", n)
    pipe.incr("pipe:7").get("pipe:7")
    answers = pipe.execute()
    equal((answers[:500], answers[500:]), ([True] * 500, [8, b"8"]))


def transactions(client):
    client.set("{t}n", 1)
    with client.pipeline(transaction=True) as pipe:
        pipe.watch("{t}n")
        pipe.multi()
        pipe.incr("{t}n").set("{t}m", "x").get("{t}n")
        equal([answer in (True, b"OK") or answer for answer in pipe.execute()], [2, True, b"2"])


def messages(client):
    listener = client.pubsub()
    listener.subscribe("news")
    listener.psubscribe("n*")
    for _ in range(2):
        listener.get_message(timeout=10)
    client.publish("news", "hello")
    heard = [listener.get_message(timeout=10) for _ in range(2)]
    equal(sorted(message["type"] for message in heard), ["message", "pmessage"])
    equal({message["data"] for message in heard}, {b"hello"})
    listener.close()


def sharded_messages(client):
    listener = client.pubsub()
    listener.ssubscribe("shard")
    deadline = time.monotonic() + 10
    heard = None
    while heard is None and time.monotonic() < deadline:
        message = listener.get_sharded_message(timeout=0.2)
        if message is None or message["type"] != "smessage":
            client.spublish("shard", "hello")
            continue
        heard = message["data"]
    equal(heard, b"hello")
    listener.close()


def death_and_return():
    # Without it the library asks for the slots again only when it was sent elsewhere five times.
    client = connect(socket_timeout=5, reinitialize_steps=1)
    stop, seen = threading.Event(), {"writes": 0, "errors": [], "longest": 0.0}

    def write():
        while not stop.is_set():
            began = time.monotonic()
            try:
                client.incr(f"counter:{seen['writes'] % 100}")
            except exceptions.RedisError as error:
                seen["errors"].append(repr(error))
            seen["longest"] = max(seen["longest"], time.monotonic() - began)
            seen["writes"] += 1

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(1)
    tell("kill", PORTS[2])
    time.sleep(4)
    tell("start", PORTS[2])
    time.sleep(3)
    stop.set()
    writer.join()
    say(f"{seen['writes']} writes, {len(seen['errors'])} errors, the longest took {seen['longest']:.3f} s; {seen['errors'][:3]}")
    assert len(seen["errors"]) <= MOST_ERRORS, seen["errors"]
    assert seen["longest"] <= LONGEST_STALL, seen["longest"]
    known = {node.port for node in client.get_primaries()}
    equal(known, set(FACES))


if __name__ == "__main__":
    main()
