//! The same script to Redis and to us: the same bytes back, in RESP2 and in RESP3.
//!
//! Three pairs are compared: Redis with Redis, which shows that the scripts ask nothing that Redis itself answers now so
//! and now otherwise; Redis with the commands on a replica in memory, without a server; Redis with the program. Where
//! redis-server is not installed these tests say so and pass. What differs on purpose is in [`differences`].

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod differences;
mod documented;
#[path = "../../src/commands/harness.rs"]
#[allow(dead_code)]
mod harness;
mod random;
mod script;
mod servers;
mod sessions;
mod tables;
#[path = "../../src/commands/testing.rs"]
#[allow(dead_code)]
mod testing;
mod wire;

use bytes::{Bytes, BytesMut};
use harness::Replica;
use redynamo::resp::{Protocol, encode};

use script::{Compared, Line, Script};
use servers::Server;
use wire::{Connection, Frame};

/// Who answers a script.
trait Speaker {
    /// The bytes of the reply; nothing of what this speaker has no way to run.
    fn ask(&mut self, args: &[Bytes]) -> Option<Bytes>;

    /// Called before each line.
    fn tick(&mut self) {}
}

impl Speaker for Connection {
    fn ask(&mut self, args: &[Bytes]) -> Option<Bytes> {
        Some(self.call(args))
    }
}

/// The commands without a server.
struct InMemory {
    replica: Replica,
}

impl InMemory {
    fn new(protocol: Protocol) -> InMemory {
        let mut replica = Replica::new(1);
        replica.session.protocol = protocol;
        InMemory { replica }
    }
}

impl Speaker for InMemory {
    fn ask(&mut self, args: &[Bytes]) -> Option<Bytes> {
        let reply = self.replica.call(args);
        let mut out = BytesMut::new();
        encode(&reply, self.replica.session.protocol, &mut out);
        Some(out.freeze())
    }

    fn tick(&mut self) {
        self.replica.now = servers::wall_clock_ms();
    }
}

#[test]
fn redis_answers_every_script_as_redis_does() {
    let Some([one, other]) = Server::two_of_redis() else { return };
    compare(&one, false, |protocol| Box::new(other.connect(protocol)));
}

#[test]
fn commands_in_memory_answer_every_script_as_redis_does() {
    let Some(redis) = Server::redis() else { return };
    compare(&redis, true, |protocol| Box::new(InMemory::new(protocol)));
}

#[test]
fn the_program_answers_every_script_as_redis_does() {
    let Some(redis) = Server::redis() else { return };
    let ours = Server::ours();
    compare(&redis, true, |protocol| Box::new(ours.connect(protocol)));
}

/// Plays every script in both protocols; fails with every line that was answered otherwise.
fn compare(redis: &Server, is_ours: bool, other: impl Fn(Protocol) -> Box<dyn Speaker>) {
    let mut failures = Vec::new();
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        for script in script::all() {
            let wrong = play(&script, &mut redis.connect(protocol), other(protocol).as_mut(), is_ours);
            failures.extend(wrong.into_iter().map(|line| format!("{} in {protocol:?}: {line}", script.name)));
        }
    }
    assert!(failures.is_empty(), "{} lines:\n{}", failures.len(), failures.join("\n"));
}

/// Plays a script from an empty store; what is wrong with its answers.
fn play(script: &Script, redis: &mut Connection, other: &mut dyn Speaker, is_ours: bool) -> Vec<String> {
    for line in ["SELECT 0", "FLUSHALL"] {
        let args = script::words(line);
        redis.ask(&args);
        other.ask(&args);
    }
    script.lines.iter().filter_map(|line| play_line(line, redis, other, is_ours)).collect()
}

/// What is wrong with the answer to a line, if anything is.
fn play_line(line: &Line, redis: &mut Connection, other: &mut dyn Speaker, is_ours: bool) -> Option<String> {
    let (args, compared) = match line {
        Line::Sleep(duration) => {
            std::thread::sleep(*duration);
            return None;
        }
        Line::Call { args, compared, .. } => (args, *compared),
    };
    other.tick();
    let (expected, answer) = (redis.ask(args)?, other.ask(args)?);
    if let Some(difference) = differences::of(line.text()).filter(|_| is_ours) {
        return difference.check(&expected, &answer);
    }
    let same = match compared {
        // Seconds from now: the two are not asked in the same moment.
        Compared::Exactly if args[0].eq_ignore_ascii_case(b"TTL") => wire::near(&expected, &answer, 5),
        Compared::Exactly => expected == answer,
        Compared::InShape => Frame::parse(&expected).shape() == Frame::parse(&answer).shape(),
        Compared::InAnyOrder => Frame::parse(&expected).sorted() == Frame::parse(&answer).sorted(),
    };
    let shown = |bytes: &Bytes| String::from_utf8_lossy(bytes).escape_debug().to_string();
    (!same).then(|| format!("{}\n    Redis: {}\n    other: {}", line.text(), shown(&expected), shown(&answer)))
}
