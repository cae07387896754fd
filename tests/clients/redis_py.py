"""redis-py and valkey-py, sync and async: `redis_py.py MODULE PORT ...`."""

import asyncio
import importlib
import os
import sys
import threading
import time

from checks import check, equal, raises, say, tell

MODULE = sys.argv[1]
library = importlib.import_module(MODULE)
exceptions = importlib.import_module(f"{MODULE}.exceptions")
Client = getattr(library, {"redis": "Redis", "valkey": "Valkey"}[MODULE])
VERSION = tuple(int(part) for part in library.__version__.split(".")[:2])
IS_OLD = MODULE == "redis" and VERSION < (4, 0)
PROTOCOLS = (2,) if IS_OLD else (2, 3)
PORTS = [int(word) for word in sys.argv[2:]]
BINARY = bytes(range(256)) + b"\r\n$-1\r\n"


def main():
    for port in PORTS:
        for protocol in PROTOCOLS:
            battery(port, protocol)
    check("every node sees what one wrote, and they count together", every_node)
    check("a password is needed, refused and accepted", password)
    check("twenty threads count exactly", threads)
    if not IS_OLD:
        for protocol in PROTOCOLS:
            check(f"asyncio, RESP{protocol}", lambda protocol=protocol: asyncio.run(asynchronous(protocol)))
    check("a client goes on when its node was killed and started again", reconnect)
    if len(PORTS) > 1:
        check("the others go on while a node is dead", others_go_on)


def connect(port, protocol=2, **options):
    if not IS_OLD:
        options["protocol"] = protocol
    return Client(host="127.0.0.1", port=port, **options)


def battery(port, protocol):
    with_text = connect(port, protocol, decode_responses=True)
    client = connect(port, protocol)
    client.flushall()
    for function in BATTERY:
        taken = with_text if function.__name__.startswith("text_") else client
        check(f"{function.__name__}, RESP{protocol}, port {port}", function, taken)
    client.close()


def strings(client):
    equal(client.ping(), True)
    equal(client.set("key", "value"), True)
    equal(client.get("key"), b"value")
    equal(client.get("absent"), None)
    equal(client.set("key", "other", nx=True), None)
    equal(client.set("key", "third", xx=True, ex=100), True)
    assert 0 < client.ttl("key") <= 100
    equal(client.setnx("key", "no"), False)
    equal(client.getset("key", "fourth"), b"third")
    equal((client.append("key", "+"), client.strlen("key")), (7, 7))
    equal(client.getrange("key", 0, 2), b"fou")
    equal(client.setrange("key", 5, "xyz"), 8)
    equal(client.get("key"), b"fourtxyz")
    equal(client.type("key"), b"string")


def newer_options(client):
    if IS_OLD:
        return
    equal(client.set("got", "1", get=True), None)
    equal(client.set("got", "2", get=True, keepttl=True), b"1")
    equal(client.getex("got", ex=50), b"2")
    assert 0 < client.ttl("got") <= 50
    equal(client.getdel("got"), b"2")
    equal(client.exists("got"), 0)
    client.mset({"one": "ohmytext", "two": "mynewtext"})
    equal(client.lcs("one", "two"), b"mytext")
    equal(client.copy("one", "copied"), True)
    equal(client.get("copied"), b"ohmytext")


def counters(client):
    equal([client.incr("n"), client.incrby("n", 41), client.decr("n"), client.decrby("n", 10)], [1, 42, 41, 31])
    equal(client.incrbyfloat("float", 2.5), 2.5)
    client.set("text", "abc")
    raises(exceptions.ResponseError, "value is not an integer or out of range", client.incr, "text")
    client.set("most", 2**63 - 1)
    raises(exceptions.ResponseError, "increment or decrement would overflow", client.incr, "most")


def many_keys(client):
    values = {f"many:{n}": f"value {n}" for n in range(300)}
    equal(client.mset(values), True)
    equal(client.mget(list(values)), [value.encode() for value in values.values()])
    equal(client.mget("many:1", "absent"), [b"value 1", None])
    equal(client.exists("many:1", "many:1", "absent"), 2)
    equal(client.delete(*list(values)[:100]), 100)
    equal(client.unlink(*list(values)[:150]), 50)
    equal(client.msetnx({"many:0": "x", "many:299": "y"}), False)


def scanning(client):
    client.flushdb()
    client.mset({f"scan:{n}": n for n in range(1000)})
    client.mset({f"else:{n}": n for n in range(50)})
    scanned = {f"scan:{n}".encode() for n in range(1000)}
    equal(sorted(client.scan_iter(match="scan:*", count=100)), sorted(scanned))
    equal(sorted(client.scan_iter()), sorted(scanned | {f"else:{n}".encode() for n in range(50)}))
    equal(len(client.keys("else:*")), 50)
    equal(client.dbsize(), 1050)
    assert client.randomkey().partition(b":")[0] in (b"scan", b"else")


def expiry(client):
    client.set("e", "v")
    equal(client.ttl("e"), -1)
    equal(client.ttl("absent"), -2)
    equal(client.expire("e", 100), True)
    equal(client.persist("e"), True)
    equal(client.pexpire("e", 50), True)
    deadline = time.monotonic() + 30
    while client.exists("e"):
        assert time.monotonic() < deadline, "it does not expire"
        time.sleep(0.01)
    client.setex("e", 100, "v")
    equal(client.expireat("e", 1), True)
    equal(client.get("e"), None)


def pipelines(client):
    pipe = client.pipeline(transaction=False)
    for n in range(2000):
        pipe.set(f"pipe:{n}", n)
    pipe.incr("pipe:0").get("pipe:0")
    answers = pipe.execute()
    equal(answers[:2000], [True] * 2000)
    equal(answers[2000:], [1, b"1"])
    answers = client.pipeline(transaction=False).set("s", "x").incr("s").get("s").execute(raise_on_error=False)
    assert isinstance(answers[1], exceptions.ResponseError), answers
    equal((answers[0], answers[2]), (True, b"x"))


def bytes_and_sizes(client):
    client.set(BINARY, BINARY)
    equal(client.get(BINARY), BINARY)
    client.set("", "")
    equal(client.get(""), b"")
    large = os.urandom(4 << 20)
    client.set("large", large)
    assert client.get("large") == large
    equal(client.strlen("large"), len(large))
    client.delete("large")


def text_of_every_script(client):
    for text in ("žluťoučký kůň", "日本語", "עברית", "🦀 crab", "a\u0000b", "e\u0301"):
        client.set(text, text * 3)
        equal(client.get(text), text * 3)


def text_answers(client):
    client.set("plain", "text")
    equal((client.get("plain"), client.type("plain")), ("text", "string"))
    equal(client.mget(["plain", "nothing"]), ["text", None])
    info = client.info()
    equal((info["redis_mode"], info["role"], info["loading"]), ("standalone", "master", 0))
    assert str(info["redis_version"]).startswith("7.2."), info["redis_version"]
    assert "uptime_in_seconds" in client.info("server")
    equal(client.config_get("maxmemory-policy"), {"maxmemory-policy": "noeviction"})
    equal(set(client.config_get("proto-max-bulk-*")), {"proto-max-bulk-len"})
    equal(client.echo("said"), "said")
    assert abs(client.time()[0] - time.time()) < 60


def renaming(client):
    client.set("from", "v", ex=100)
    equal(client.rename("from", "to"), True)
    equal((client.exists("from"), client.get("to")), (0, b"v"))
    assert 0 < client.ttl("to") <= 100
    raises(exceptions.ResponseError, "no such key", client.rename, "from", "to")
    client.set("from", "v2")
    equal(client.renamenx("from", "to"), False)


def settings(client):
    before = client.config_get("slowlog-max-len")
    equal(client.config_set("slowlog-max-len", 77), True)
    after = {str(name): str(value) for name, value in client.config_get("slowlog-max-len").items()}
    assert "77" in str(after), after
    client.config_set("slowlog-max-len", list(before.values())[0])
    raises(exceptions.ResponseError, "Unknown option", client.config_set, "no-such-directive", 1)


def names_and_databases(client):
    own = connect(client.connection_pool.connection_kwargs["port"], db=3, client_name="called")
    client.delete("here")
    own.set("here", "three")
    equal(client.get("here"), None)
    equal(own.client_getname() in ("called", b"called"), True)
    names = [entry["name"] for entry in own.client_list()]
    assert "called" in names, names
    equal(own.flushdb(), True)
    raises(exceptions.ResponseError, "out of range", own.execute_command, "SELECT", 99)
    own.close()


def errors(client):
    raises(exceptions.ResponseError, "unknown command", client.execute_command, "NOSUCHCOMMAND")
    raises(exceptions.ResponseError, "wrong number of arguments for 'get' command", client.execute_command, "GET")
    raises(exceptions.ResponseError, "syntax error", client.execute_command, "SET", "k", "v", "BAD")
    raises(exceptions.ResponseError, "cluster support disabled", client.execute_command, "CLUSTER", "INFO")


def fields(answer):
    """A map, however the protocol and the library have it."""
    return dict(zip(answer[::2], answer[1::2])) if isinstance(answer, list) else answer


def operators_commands(client):
    me = next(node for node in map(fields, client.execute_command("DYNAMO.NODES")) if node[b"myself"])
    equal((bool(me[b"live"]), bool(me[b"amnesiac"]), me[b"state"]), (True, False, b"up"))
    hints = fields(client.execute_command("DYNAMO.HINTS"))
    equal((hints[b"count"], hints[b"oldest-ms"], hints[b"owners"]), (0, None, []))
    status = fields(client.execute_command("DYNAMO.SYNC"))
    equal(len(status[b"nodes"]), max(1, len(PORTS)) - 1)
    equal(b"reason" in fields(status[b"background"]), True)
    equal(client.execute_command("DYNAMO.SYNC", "NOW"), status[b"pairs"])
    term, = map(fields, client.execute_command("DYNAMO.TERMS", 0))
    equal((term[b"partition"], len(term[b"owners"])), (0, min(3, max(1, len(PORTS)))))
    raises(exceptions.ResponseError, "no partition", client.execute_command, "DYNAMO.TERMS", 60000)


def own_commands(client):
    client.set("own", "v")
    answer = client.execute_command("DYNAMO.GET", "own")
    if isinstance(answer, list):
        answer = dict(zip(answer[::2], answer[1::2]))
    equal(answer[b"value"], b"v")
    equal(client.execute_command("DYNAMO.PUT", "own", answer[b"context"], "w"), b"OK")
    equal(client.get("own"), b"w")
    equal(len(client.execute_command("DYNAMO.NODES")), max(1, len(PORTS)))
    operators_commands(client)


def transactions(client):
    client.delete("a", "b", "n")
    equal(client.pipeline(transaction=True).set("a", 1).incr("a").get("a").execute(), [True, 2, b"2"])
    equal(client.pipeline(transaction=True).set("a", 1).set("b", 2).mget("a", "b").execute(), [True, True, [b"1", b"2"]])
    pipe = client.pipeline(transaction=True).set("a", "x").incr("a").get("a")
    raises(exceptions.ResponseError, "not an integer", pipe.execute)
    equal(client.get("a"), b"x")

    def increment(pipe):
        now = int(pipe.get("n") or 0)
        pipe.multi()
        pipe.set("n", now + 1)

    for _ in range(10):
        equal(client.transaction(increment, "n"), [True])
    equal(client.get("n"), b"10")
    with client.pipeline() as pipe:
        pipe.watch("n")
        client.set("n", "changed")
        pipe.multi()
        pipe.set("n", "wrong")
        raises(exceptions.WatchError, "", pipe.execute)
    equal(client.get("n"), b"changed")


def messages(client):
    others = [connect(port) for port in PORTS]
    listener = client.pubsub()
    listener.subscribe("news")
    listener.psubscribe("n*s")
    equal([listener.get_message(timeout=10)["type"] for _ in range(2)], ["subscribe", "psubscribe"])
    for n, other in enumerate(others):
        other.publish("news", n)
        heard = [listener.get_message(timeout=10) for _ in range(2)]
        equal(sorted((message["type"], message["data"]) for message in heard),
              [("message", str(n).encode()), ("pmessage", str(n).encode())])
        equal(other.pubsub_numsub("news"), [(b"news", 1)])
    listener.unsubscribe()
    listener.punsubscribe()
    equal([listener.get_message(timeout=10)["type"] for _ in range(2)], ["unsubscribe", "punsubscribe"])
    listener.close()


BATTERY = [
    strings, newer_options, counters, many_keys, scanning, expiry, pipelines, bytes_and_sizes, text_of_every_script,
    text_answers, renaming, settings, names_and_databases, errors, own_commands, transactions, messages,
]


def every_node():
    clients = [connect(port) for port in PORTS]
    clients[0].flushall()
    for n in range(300):
        clients[n % len(clients)].set(f"seen:{n}", n)
        clients[n % len(clients)].incr("counted")
    for client in clients:
        equal(client.mget([f"seen:{n}" for n in range(300)]), [str(n).encode() for n in range(300)])
        equal(client.get("counted"), b"300")
        equal(client.dbsize(), 301)
        equal(len(list(client.scan_iter())), 301)


def password():
    port, right = int(os.environ["SECURED_PORT"]), os.environ["PASSWORD"]
    # The old library knows no WRONGPASS.
    refusals = (exceptions.AuthenticationError, exceptions.ResponseError) if IS_OLD else exceptions.AuthenticationError
    raises(refusals, "", connect(port).get, "k")
    raises(refusals, "", connect(port, password="wrong").get, "k")
    for protocol in PROTOCOLS:
        client = connect(port, protocol, password=right)
        client.set("k", "v")
        equal(client.get("k"), b"v")
    if not IS_OLD:
        equal(connect(port, username="default", password=right).get("k"), b"v")


def threads():
    client = connect(PORTS[0])
    client.delete("threads")

    def work(port):
        own = connect(port)
        for _ in range(100):
            own.incr("threads")

    workers = [threading.Thread(target=work, args=(PORTS[n % len(PORTS)],)) for n in range(20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    equal(client.get("threads"), b"2000")


async def asynchronous(protocol):
    module = importlib.import_module(f"{MODULE}.asyncio")
    client = getattr(module, Client.__name__)(host="127.0.0.1", port=PORTS[-1], protocol=protocol)
    await client.delete("async")
    equal(await asyncio.gather(*(client.set(f"async:{n}", n) for n in range(100))), [True] * 100)
    await asyncio.gather(*(client.incr("async") for _ in range(100)))
    equal(await client.get("async"), b"100")
    async with client.pipeline(transaction=False) as pipe:
        equal(await pipe.set("p", 1).incr("p").get("p").execute(), [True, 2, b"2"])
    equal(len([key async for key in client.scan_iter(match="async:*")]), 100)
    try:
        await client.execute_command("INCRBY", "async", "x")
    except exceptions.ResponseError as error:
        assert "not an integer" in str(error)
    else:
        raise AssertionError("no error")
    await client.aclose()


def reconnect():
    port = PORTS[-1]
    client = connect(port)
    client.set("kept", "yes")
    counted = client.incr("kept:n")
    tell("kill", port)
    raises(exceptions.ConnectionError, "", client.get, "kept")
    tell("start", port)
    equal(client.get("kept"), b"yes")
    equal(client.incr("kept:n"), counted + 1)


def others_go_on():
    """Writes through two nodes while the third is dead: what is acknowledged is there, also on the third when it is back."""
    clients = [connect(port) for port in PORTS]
    clients[0].delete("during")
    tell("kill", PORTS[2])
    acknowledged, refused = [], 0
    for n in range(500):
        try:
            clients[n % 2].set(f"during:{n}", n)
            acknowledged.append(n)
        except exceptions.ResponseError as error:
            assert str(error).startswith(("NOREPLICAS", "UNKNOWN", "UNAVAILABLE")), error
            refused += 1
    keys = [f"during:{n}" for n in acknowledged]
    values = [str(n).encode() for n in acknowledged]
    for key, value in zip(keys, values):
        equal(clients[0].get(key), value)
    tell("start", PORTS[2])
    for client in clients:
        equal(client.mget(keys), values)
    say(f"of 500 writes without the third node {refused} were refused")
    equal(refused, 0)


if __name__ == "__main__":
    main()
