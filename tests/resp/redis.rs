//! The same bytes to a real redis-server and to us: the same answers, the same close. Where redis-server is not
//! installed these tests say so and pass.

use crate::{decode, hostile};
use bytes::BytesMut;
use redynamo::base::rng::Rng;
use redynamo::base::{glob, num};
use redynamo::resp::{Limits, Protocol, Reply, encode};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Redis' own limits where ours are lower.
fn limits(authenticated: bool) -> Limits {
    Limits { authenticated, max_arguments: i32::MAX as usize, ..Limits::default() }
}

#[test]
fn malformed_requests_get_the_answers_of_redis() {
    let Some(redis) = Redis::start(&[]) else { return };
    compare_streams(&redis, true);
}

#[test]
fn malformed_requests_before_auth_get_the_answers_of_redis() {
    let Some(redis) = Redis::start(&["--requirepass", "secret"]) else { return };
    compare_streams(&redis, false);
}

/// Every request here is answered by one line, since no command has such a name or nobody has authenticated; so lines
/// are counted, and the last one compared where it is about the protocol.
fn compare_streams(redis: &Redis, authenticated: bool) {
    for (name, wire) in streams() {
        let (requests, error) = decode(limits(authenticated), [&wire[..]]);
        let answer = redis.ask(&wire);
        let lines: Vec<&[u8]> = answer.split_inclusive(|&byte| byte == b'\n').collect();
        assert_eq!(
            lines.len(),
            requests.len() + usize::from(error.is_some()),
            "{name}: {} gets {}",
            wire.escape_ascii(),
            answer.escape_ascii()
        );
        if let Some(error) = error {
            let expected = [b"-", &error.reply()[..], b"\r\n"].concat();
            assert_eq!(lines.last(), Some(&&expected[..]), "{name}: {}", wire.escape_ascii());
        }
    }
}

fn streams() -> Vec<(String, Vec<u8>)> {
    let long = |front: &str| (format!("{front} too long"), [front.as_bytes(), &[b'1'; 65_537]].concat());
    let random = |seed| [hostile::stream(&mut Rng::new(seed)), b"\r\nnothing\r\n".to_vec()].concat();
    let random = (0..3_000).map(|seed| (format!("seed {seed}"), random(seed)));
    random.chain([long(""), long("*"), long("*1\r\n$"), long("*1\r\n")]).collect()
}

#[test]
fn integers_are_those_of_redis() {
    let edges = "0|-0|+1|01| 1|1 |-|--1|1.0|1e3|0x1|9223372036854775807|9223372036854775808|-9223372036854775808";
    compare_commands(edges.split('|').map(str::to_owned).chain(texts("0123456789-+ ", 400)).map(|text| {
        let reply = match num::parse_i64(text.as_bytes()) {
            Some(value) => Reply::Int(value),
            None => Reply::error("ERR value is not an integer or out of range"),
        };
        vec![
            (vec!["SET".into(), "k".into(), "0".into()], Reply::ok()),
            (vec!["INCRBY".into(), "k".into(), text], reply),
        ]
    }));
}

#[test]
fn floats_are_read_as_redis_reads_them() {
    let edges = "inf|-Infinity|+inf|nan|0x1p4|0x|1e400|1e-400|3e-324|2e-324|.|1.|.5|1e|1e+5| 1|1 |-0x.8P-2";
    let texts = edges.split('|').map(str::to_owned).chain(texts("0123456789-+.eExpinfa", 600));
    // These two are options of ZADD.
    compare_commands(texts.filter(|text| !["nx", "xx"].contains(&text.as_str())).map(|text| {
        let reply = match num::parse_f64(text.as_bytes()) {
            Some(_) => Reply::Int(1),
            None => Reply::error("ERR value is not a valid float"),
        };
        let added = i64::from(!reply.is_error());
        let add = vec!["ZADD".into(), "z".into(), text, "m".into()];
        vec![(add, reply), (vec!["DEL".into(), "z".into()], Reply::Int(added))]
    }));
}

#[test]
fn sums_of_floats_are_those_of_redis() {
    let mut rng = Rng::new(7);
    let mut number = move || {
        let (size, places) = (rng.below(15) as u32 + 1, rng.below(12) as i32);
        let exponent = if rng.chance(0.1) { rng.below(60) as i32 - 30 } else { -places };
        let value = rng.below(10u64.pow(size)) as i64;
        if rng.chance(0.5) { format!("{value}e{exponent}") } else { format!("-{value}.{}", rng.below(10_000)) }
    };
    compare_commands((0..1_500).map(move |_| {
        let (current, increment) = (number(), number());
        let reply = match num::add_decimal(current.as_bytes(), increment.as_bytes()) {
            Ok(sum) => Reply::bulk(sum),
            Err(error) => Reply::error(error.to_string()),
        };
        let add = vec!["INCRBYFLOAT".into(), "k".into(), increment];
        vec![(vec!["SET".into(), "k".into(), current], Reply::ok()), (add, reply)]
    }));
}

#[test]
fn patterns_match_as_in_redis() {
    let patterns = texts("**??[[]]^--\\abAB", 1_500);
    compare_commands(patterns.zip(texts("aabbAB-]^\\[", 1_500)).map(|(pattern, key)| {
        let found = glob::is_everything(pattern.as_bytes()) || glob::matches(pattern.as_bytes(), key.as_bytes());
        let keys = if found { vec![Reply::bulk(key.clone())] } else { vec![] };
        vec![
            (vec!["SET".into(), key.clone(), "v".into()], Reply::ok()),
            (vec!["KEYS".into(), pattern], Reply::Array(keys)),
            (vec!["DEL".into(), key], Reply::Int(1)),
        ]
    }));
}

/// Words of up to 12 of `letters`.
fn texts(letters: &'static str, count: usize) -> impl Iterator<Item = String> {
    let mut rng = Rng::new(letters.len() as u64);
    let letters: Vec<char> = letters.chars().collect();
    (0..count).map(move |_| (0..rng.below(13)).filter_map(|_| rng.pick(&letters).copied()).collect())
}

/// A command and what it is to be answered.
type Exchange = (Vec<String>, Reply);

/// Sends each group of commands to Redis and compares its answers with ours, as bytes.
fn compare_commands(groups: impl Iterator<Item = Vec<Exchange>>) {
    let Some(redis) = Redis::start(&[]) else { return };
    for group in groups {
        let (mut wire, mut expected) = (BytesMut::new(), BytesMut::new());
        for (words, reply) in &group {
            let request = Reply::array(words.iter().map(|word| Reply::bulk(word.clone())));
            encode(&request, Protocol::Resp2, &mut wire);
            encode(reply, Protocol::Resp2, &mut expected);
        }
        let answer = redis.ask(&wire);
        assert_eq!(answer.escape_ascii().to_string(), expected.escape_ascii().to_string(), "{group:?}");
    }
}

/// A redis-server of our own on a socket of its own; ended with the test.
struct Redis {
    server: Child,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Redis {
    /// None, and a line that says so, where there is no redis-server.
    fn start(options: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("redis.sock");
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .args(options)
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .spawn();
        let Ok(server) = server else {
            println!("skipped: redis-server is not installed, so there is nothing to compare with");
            return None;
        };
        let redis = Redis { server, socket, _dir: dir };
        redis.wait_until_it_listens();
        Some(redis)
    }

    fn wait_until_it_listens(&self) {
        for _ in 0..1_000 {
            if UnixStream::connect(&self.socket).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server does not listen on {}", self.socket.display());
    }

    /// Everything it answers to `wire` on a connection of its own, until it closes.
    fn ask(&self, wire: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        // It may close before it has read all, or before we say that this is all: what it answered is there even so.
        let _ = stream.write_all(wire).and_then(|()| stream.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
