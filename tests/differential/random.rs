//! Random commands on few keys, so that every command meets what every other leaves behind: deadlines on counters,
//! counters over values, copies of both. Seeded: a failure names its seed and shows the commands before it.

use bytes::Bytes;
use redynamo::base::rng::Rng;
use redynamo::commands::resolve;
use redynamo::commands::spec::Run;
use redynamo::resp::Protocol;

use super::servers::Server;
use super::{Frame, InMemory, Speaker, script, wire};

/// How many seeds are played unless `REDYNAMO_SEEDS` says otherwise, and how many commands each.
const SEEDS: u64 = 50;
const COMMANDS: usize = 300;

/// DBSIZE is not among them: Redis counts what has expired until somebody asks for it.
///
/// HyperLogLogs have keys of their own (`H`): Redis keeps an estimate in their bytes, which a GET would show.
///
/// Commands with gaps: `K` a key, `V` a value, `N` a small number, `B` any number, `F` a float, `T` a time far ahead in
/// milliseconds, `E` seconds ahead, `C` a condition of EXPIRE, `D` a database.
const TEMPLATES: &[&str] = &[
    "GET K",
    "SET K V",
    "SET K V NX",
    "SET K V XX",
    "SET K V GET",
    "SET K V KEEPTTL",
    "SET K V EX E",
    "SET K V PXAT T",
    "SET K V PXAT 1",
    "SET K V NX GET EX E",
    "SET K V XX KEEPTTL GET",
    "SETNX K V",
    "SETEX K E V",
    "GETSET K V",
    "GETDEL K",
    "GETEX K",
    "GETEX K PERSIST",
    "GETEX K PXAT T",
    "GETEX K PXAT 1",
    "GETEX K EX E",
    "MGET K K K",
    "MSET K V K V",
    "MSETNX K V K V",
    "APPEND K V",
    "APPEND K N",
    "STRLEN K",
    "SETRANGE K 2 V",
    "SETRANGE K 0 N",
    "GETRANGE K N N",
    "SETBIT K 7 1",
    "SETBIT K 30 0",
    "GETBIT K 3",
    "BITCOUNT K",
    "BITCOUNT K N N",
    "BITCOUNT K N N BIT",
    "BITPOS K 1",
    "BITPOS K 0",
    "BITPOS K 0 N",
    "BITPOS K 1 N N",
    "BITPOS K 0 N N BIT",
    "BITOP AND K K K",
    "BITOP OR K K K",
    "BITOP XOR K K K",
    "BITOP NOT K K",
    "BITFIELD K GET i5 3 SET u7 #2 N",
    "BITFIELD K OVERFLOW SAT INCRBY i8 4 N INCRBY u3 #5 N",
    "BITFIELD K OVERFLOW FAIL INCRBY u2 100 3 OVERFLOW WRAP SET i64 9 B",
    "BITFIELD_RO K GET u63 1 GET i64 #0",
    "PFADD H V V",
    "PFADD H V",
    "PFCOUNT H",
    "PFCOUNT H H",
    "PFMERGE H H",
    "PFADD K V",
    "PFDEBUG ENCODING H",
    "INCR K",
    "INCR K",
    "DECR K",
    "INCRBY K N",
    "INCRBY K B",
    "DECRBY K N",
    "DECRBY K B",
    "INCRBYFLOAT K F",
    "LCS K K",
    "LCS K K IDX WITHMATCHLEN",
    "SADD K V V",
    "SADD K N V",
    "SREM K V N",
    "SMOVE K K V",
    "SPOP K 1000",
    "SISMEMBER K V",
    "SMISMEMBER K V N",
    "SCARD K",
    "SMEMBERS K",
    "SINTER K K",
    "SUNION K K",
    "SDIFF K K",
    "SINTERSTORE K K K",
    "SUNIONSTORE K K K",
    "SDIFFSTORE K K K",
    "SINTERCARD 2 K K",
    "SSCAN K 0 COUNT 1000",
    "HSET K V N",
    "HSET K N V",
    "HMSET K V V N V",
    "HSETNX K V N",
    "HGET K V",
    "HMGET K V N",
    "HGETALL K",
    "HKEYS K",
    "HVALS K",
    "HLEN K",
    "HSTRLEN K V",
    "HEXISTS K V",
    "HDEL K V",
    "HDEL K V N",
    "HINCRBY K V N",
    "HINCRBY K N B",
    "HINCRBYFLOAT K N F",
    "HSCAN K 0 COUNT 1000",
    "DEL K",
    "DEL K K",
    "UNLINK K",
    "EXISTS K K",
    "TYPE K",
    "TOUCH K",
    "EXPIRE K E",
    "EXPIRE K E NX",
    "EXPIRE K E XX",
    "EXPIRE K -1",
    "EXPIRE K 0 C",
    "PEXPIREAT K T",
    "PEXPIREAT K T C",
    "TTL K",
    "TTL K",
    "PEXPIRETIME K",
    "EXPIRETIME K",
    "PERSIST K",
    "RENAME K K",
    "RENAMENX K K",
    "COPY K K",
    "COPY K K REPLACE",
    "COPY K K DB D",
    "COPY K K DB D REPLACE",
    "MOVE K D",
    "SELECT D",
    "KEYS *",
    "SCAN 0 COUNT 100",
    "FLUSHDB",
];

#[test]
fn random_commands_in_memory_are_answered_as_redis_does() {
    let Some(redis) = Server::redis() else { return };
    for seed in 0..seeds() {
        let protocol = if seed % 2 == 0 { Protocol::Resp2 } else { Protocol::Resp3 };
        let mut ours = InMemory::new(protocol);
        play(seed, &mut redis.connect(protocol), &mut ours);
    }
}

#[test]
fn random_commands_are_answered_by_the_program_as_redis_does() {
    let Some(redis) = Server::redis() else { return };
    let ours = Server::ours();
    for seed in 0..seeds() {
        let protocol = if seed % 2 == 0 { Protocol::Resp2 } else { Protocol::Resp3 };
        play(seed, &mut redis.connect(protocol), &mut ours.connect(protocol));
    }
}

#[test]
fn every_command_that_draws_on_rows_is_among_the_templates() {
    for spec in redynamo::commands::all().filter(|spec| matches!(spec.run, Run::Write(_)) && spec.container.is_empty())
    {
        let is_ours = spec.name.starts_with("DYNAMO");
        let twins = ["PSETEX", "PEXPIRE", "EXPIREAT"];
        let is_ours = is_ours || redynamo::commands::hash::LATER.iter().any(|later| later.name == spec.name);
        let named = TEMPLATES.iter().any(|template| template.split(' ').next() == Some(spec.name));
        assert!(named || is_ours || twins.contains(&spec.name), "{}", spec.name);
    }
}

fn seeds() -> u64 {
    std::env::var("REDYNAMO_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

fn play(seed: u64, redis: &mut dyn Speaker, ours: &mut dyn Speaker) {
    let mut rng = Rng::new(seed);
    let mut before = Vec::new();
    let opening = ["SELECT 0", "FLUSHALL"].map(str::to_owned);
    let drawn: Vec<_> = (0..COMMANDS).map(|_| draw(&mut rng)).collect();
    for line in opening.into_iter().chain(drawn) {
        let args = script::words(&line);
        ours.tick();
        let (expected, answer) = (redis.ask(&args), ours.ask(&args));
        let same = agree(&args, expected.as_deref(), answer.as_deref());
        assert!(
            same,
            "seed {seed}: {line}\n    Redis: {expected:?}\n    ours: {answer:?}\n  before it:\n{}",
            before.join("\n")
        );
        before.push(line);
    }
}

/// Keys may come in any order, and times that were given from now on may be a little apart.
fn agree(args: &[Bytes], redis: Option<&[u8]>, ours: Option<&[u8]>) -> bool {
    let (Some(redis), Some(ours)) = (redis, ours) else { return false };
    match resolve(args).map(|spec| spec.name) {
        Ok(
            "KEYS" | "SCAN" | "SMEMBERS" | "SPOP" | "SINTER" | "SUNION" | "SDIFF" | "SSCAN" | "HGETALL" | "HKEYS"
            | "HVALS" | "HSCAN",
        ) => Frame::parse(redis).sorted() == Frame::parse(ours).sorted(),
        Ok("TTL" | "EXPIRETIME") => wire::near(redis, ours, 5),
        Ok("PEXPIRETIME") => wire::near(redis, ours, 5_000),
        _ => redis == ours,
    }
}

fn draw(rng: &mut Rng) -> String {
    let template = pick(rng, TEMPLATES);
    let words: Vec<_> = template.split(' ').map(|word| fill(rng, word)).collect();
    words.join(" ")
}

fn fill(rng: &mut Rng, word: &str) -> String {
    let own = match word {
        "K" => pick(rng, &["a", "b", "c", "d"]),
        "H" => pick(rng, &["h", "i", "j"]),
        "V" => pick(rng, &["5", "-12", "word", "''", "0.5", "007", "9223372036854775807", "some longer value"]),
        "N" => pick(rng, &["0", "1", "-1", "3", "-4", "17"]),
        "B" => {
            pick(rng, &["9223372036854775807", "-9223372036854775808", "4611686018427387904", "-4611686018427387904"])
        }
        "F" => pick(rng, &["0.1", "-2.5", "3", "1e3", "5.0e-3", "0"]),
        "T" => pick(rng, &["33177117420123", "33177117420999", "40000000000000", "35000000000500"]),
        "E" => pick(rng, &["1000", "2000", "5000000"]),
        "C" => pick(rng, &["NX", "XX", "GT", "LT", "XX GT", "XX LT"]),
        "D" => pick(rng, &["0", "1"]),
        literal => return literal.to_owned(),
    };
    own.to_owned()
}

fn pick<'a>(rng: &mut Rng, items: &[&'a str]) -> &'a str {
    rng.pick(items).copied().unwrap_or_default()
}
