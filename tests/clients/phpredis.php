<?php
// phpredis: `php phpredis.php PORT ...`.

function check(string $name, callable $body): void {
    try {
        $body();
        echo "ok $name\n";
    } catch (Throwable $error) {
        $text = preg_replace('/\s+/', ' ', $error->getMessage());
        echo "not ok $name: $text (line {$error->getLine()})\n";
    }
}

function equal(mixed $got, mixed $expected): void {
    if ($got !== $expected) {
        throw new Exception(substr(var_export($got, true), 0, 200) . ' instead of ' . substr(var_export($expected, true), 0, 200));
    }
}

function connect(int $port): Redis {
    $client = new Redis();
    $client->connect('127.0.0.1', $port, 5);
    return $client;
}

function tell(string $order, int $port): void {
    echo "!$order $port\n";
    equal(trim(fgets(STDIN)), 'done');
}

$battery = [
    'strings' => function (Redis $client) {
        equal($client->ping(), true);
        equal($client->set('key', 'value', ['nx', 'ex' => 100]), true);
        equal($client->set('key', 'x', ['nx']), false);
        equal($client->get('key'), 'value');
        equal($client->get('absent'), false);
        equal($client->append('key', '+'), 6);
        equal($client->getRange('key', 0, 2), 'val');
        equal($client->type('key'), Redis::REDIS_STRING);
        equal($client->del('key'), 1);
    },
    'counters' => function (Redis $client) {
        equal([$client->incr('n'), $client->incrBy('n', 41), $client->decr('n')], [1, 42, 41]);
        equal($client->incrByFloat('float', 2.5), 2.5);
        $client->set('text', 'abc');
        equal($client->incr('text'), false);
        // This version counts a byte too many.
        equal(rtrim($client->getLastError(), "\0"), 'ERR value is not an integer or out of range');
        $client->clearLastError();
    },
    'manyKeys' => function (Redis $client) {
        $values = [];
        for ($n = 0; $n < 300; $n++) {
            $values["many:$n"] = "value $n";
        }
        equal($client->mSet($values), true);
        equal($client->mGet(array_keys($values)), array_values($values));
        equal($client->exists(['many:1', 'many:2', 'absent']), 2);
        equal($client->del(array_keys($values)), 300);
    },
    'expiry' => function (Redis $client) {
        $client->setex('e', 100, 'v');
        if ($client->ttl('e') <= 90) throw new Exception('the time to live is wrong');
        equal($client->persist('e'), true);
        equal($client->ttl('e'), -1);
        equal($client->expireAt('e', 1), true);
        equal($client->exists('e'), 0);
    },
    'scanning' => function (Redis $client) {
        $client->flushDB();
        for ($n = 0; $n < 300; $n++) {
            $client->set("scan:$n", $n);
        }
        $client->setOption(Redis::OPT_SCAN, Redis::SCAN_RETRY);
        $cursor = null;
        $found = [];
        while ($keys = $client->scan($cursor, 'scan:*', 50)) {
            array_push($found, ...$keys);
        }
        equal(count(array_unique($found)), 300);
        equal($client->dbSize(), 300);
    },
    'pipelines' => function (Redis $client) {
        $pipe = $client->multi(Redis::PIPELINE);
        for ($n = 0; $n < 500; $n++) {
            $pipe->set("pipe:$n", $n);
        }
        equal(array_slice($pipe->incr('pipe:7')->get('pipe:7')->exec(), 499), [true, 8, '8']);
    },
    'bytesAndSizes' => function (Redis $client) {
        $bytes = implode(array_map('chr', range(0, 255))) . "\r\n$-1\r\n";
        $client->set($bytes, $bytes);
        equal($client->get($bytes), $bytes);
        $large = random_bytes(4 << 20);
        $client->set('large', $large);
        if ($client->get('large') !== $large) throw new Exception('a large value came back otherwise');
        $client->set('žluťoučký 日本', 'žluťoučký 日本');
        equal($client->get('žluťoučký 日本'), 'žluťoučký 日本');
    },
    'information' => function (Redis $client) {
        equal($client->info()['redis_mode'], 'standalone');
        equal($client->config('GET', 'maxmemory-policy'), ['maxmemory-policy' => 'noeviction']);
        equal($client->client('setname', 'called'), true);
        equal($client->client('getname'), 'called');
        $client->rawCommand('NOSUCHCOMMAND');
        equal(str_starts_with($client->getLastError(), "ERR unknown command 'NOSUCHCOMMAND'"), true);
    },
    'databases' => function (Redis $client) {
        $client->select(6);
        $client->set('here', 'six');
        $client->select(0);
        equal($client->get('here'), false);
        $client->select(6);
        equal($client->flushDB(), true);
        $client->select(0);
    },
    'serializedValues' => function (Redis $client) {
        $client->setOption(Redis::OPT_SERIALIZER, Redis::SERIALIZER_PHP);
        $client->set('object', ['a' => [1, 2.5, null]]);
        equal($client->get('object'), ['a' => [1, 2.5, null]]);
        $client->setOption(Redis::OPT_SERIALIZER, Redis::SERIALIZER_NONE);
    },
];

$ports = array_map('intval', array_slice($argv, 1));
foreach ($ports as $port) {
    $client = connect($port);
    $client->flushAll();
    foreach ($battery as $name => $body) {
        check("$name, port $port", fn () => $body($client));
    }
    $client->close();
}

check('a password is needed, refused and accepted', function () {
    $client = connect((int) getenv('SECURED_PORT'));
    foreach ([fn () => $client->get('k'), fn () => $client->auth('wrong')] as $refused) {
        try {
            equal($refused(), false);
        } catch (RedisException) {
        }
    }
    equal($client->auth(getenv('PASSWORD')), true);
    equal($client->set('k', 'v'), true);
});

check('a client goes on when its node was killed and started again', function () use ($ports) {
    $port = end($ports);
    $client = connect($port);
    $client->set('kept', 'yes');
    tell('kill', $port);
    try {
        $client->get('kept');
        throw new LogicException('a dead node answered');
    } catch (RedisException) {
    }
    tell('start', $port);
    $client->connect('127.0.0.1', $port, 5);
    equal($client->get('kept'), 'yes');
});
