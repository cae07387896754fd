//! Nonsense in quantity: requests made up from the declarations of all commands, cut at any byte, and bytes that are no
//! requests at all. Every request gets one reply, and the nodes stay well.
//!
//! Left out by name is what ends or holds up a connection or a node by design, what is answered more than once, and what
//! would change the rules of the game for all connections: see [`LEFT_OUT`].

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use redynamo::base::rng::Rng;
use redynamo::commands::{Spec, everything};

use super::process::{ALONE, Cluster};
use super::wire::{Value, Wire, request};

/// By full name. WAIT and WAITAOF without an end and CONFIG SET of what limits clients come in harmless forms instead.
const LEFT_OUT: &[&str] = &[
    "SHUTDOWN",
    "QUIT",
    "CLIENT|PAUSE",
    "CLIENT|KILL",
    "CLIENT|REPLY",
    "CONFIG|SET",
    "WAIT",
    "WAITAOF",
    "SUBSCRIBE",
    "PSUBSCRIBE",
    "SSUBSCRIBE",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SUNSUBSCRIBE",
];

/// Answered at length, or with the loss of all keys that others are to meet: seldom.
const SELDOM: &[&str] = &["COMMAND", "COMMAND|DOCS", "COMMAND|INFO", "COMMAND|LIST", "FLUSHALL", "FLUSHDB", "SAVE"];

/// Requests between two looks at whether all were answered.
const BATCH: usize = 50;
const CONNECTIONS: u64 = 4;
/// By how much a node may grow, in bytes. Its cache is bounded to less.
const MAY_GROW: u64 = 512 << 20;

fn requests() -> u64 {
    let ordinary = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
    std::env::var("REDYNAMO_FUZZ").map_or(ordinary, |text| text.parse().unwrap())
}

#[test]
fn one_node_answers_every_made_up_request_once_and_stays_well() {
    stays_well(1, requests() / 2, 1);
}

#[test]
fn three_nodes_answer_every_made_up_request_once_and_stay_well() {
    stays_well(3, requests() / 2, 1_000);
}

fn stays_well(nodes: usize, requests: u64, seed: u64) {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let cluster = Cluster::of(nodes, &["--maxmemory", "128mb"]);
    let before: Vec<u64> = cluster.nodes.iter().map(|node| node.resident_bytes()).collect();
    let ports = cluster.ports();
    let began = Instant::now();
    let errors: u64 = thread::scope(|scope| {
        let players: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let port = ports[number as usize % ports.len()];
                scope.spawn(move || play(port, seed + number, requests / CONNECTIONS))
            })
            .collect();
        let junk = seed + CONNECTIONS;
        let spoilers = (0..requests / 200).map(|round| (ports[round as usize % ports.len()], junk + round));
        spoilers.for_each(|(port, seed)| spoil(port, seed));
        players.into_iter().map(|player| player.join().unwrap()).sum()
    });
    let after: Vec<u64> = cluster.nodes.iter().map(|node| node.resident_bytes()).collect();
    let mib = |bytes: &[u64]| bytes.iter().map(|bytes| bytes >> 20).collect::<Vec<_>>();
    eprintln!(
        "{nodes} nodes: {requests} requests in {:?}, {errors} answered by an error; MiB before {:?}, after {:?}",
        began.elapsed(),
        mib(&before),
        mib(&after)
    );
    for (node, (before, after)) in cluster.nodes.iter().zip(before.iter().zip(&after)) {
        assert!(!node.log().contains("panicked"), "{}", node.log());
        assert!(*after < before + MAY_GROW, "{} grew from {before} to {after} bytes", node.name);
        let mut wire = node.wire();
        assert_eq!(wire.say("SET well yes"), Value::from("OK"));
        assert_eq!(wire.say("GET well"), Value::from("yes"));
    }
    cluster.wait_until_whole();
}

/// Sends requests and counts replies; answers how many were errors.
fn play(port: u16, seed: u64, requests: u64) -> u64 {
    let mut author = Author { rng: Rng::new(seed), contexts: Vec::new() };
    let mut wire = Wire::to(port);
    let mut writer = wire.writer();
    let (post, letters) = mpsc::channel::<Vec<u8>>();
    // Written from a thread of its own: a node does not read while its replies are not read.
    let sending = thread::spawn(move || letters.iter().try_for_each(|bytes| writer.write_all(&bytes)));
    let (mut errors, mut sent) = (0, 0);
    while sent < requests {
        let batch: Vec<Vec<u8>> = (0..BATCH).map(|_| author.request()).collect();
        let marker = format!("end of batch {sent} of seed {seed}");
        let mut bytes = batch.concat();
        // A transaction that was begun would queue the marker.
        bytes.extend([request(&["DISCARD"]), request(&["ECHO", &marker])].concat());
        for piece in author.pieces(bytes) {
            post.send(piece).unwrap();
        }
        let mut replies = Vec::new();
        loop {
            match wire.read() {
                Ok(Value::Text(text)) if text == marker.as_bytes() => break,
                Ok(reply) => replies.push(reply),
                Err(error) => panic!("{marker}: {error} after {} replies to {}", replies.len(), shown(&batch)),
            }
        }
        assert_eq!(replies.len(), batch.len() + 1, "{marker}: {}", shown(&batch));
        errors += replies.iter().filter(|reply| reply.is_error()).count() as u64;
        replies.iter().for_each(|reply| author.learn(reply));
        sent += BATCH as u64;
    }
    drop(post);
    sending.join().unwrap().unwrap();
    errors
}

fn shown(batch: &[Vec<u8>]) -> String {
    batch.iter().map(|request| format!("\n  {}", request.escape_ascii())).collect()
}

/// Sends some requests and then what is none, and reads to the end: there must be one.
fn spoil(port: u16, seed: u64) {
    let mut author = Author { rng: Rng::new(seed), contexts: Vec::new() };
    let mut wire = Wire::to(port);
    let mut writer = wire.writer();
    let mut bytes: Vec<u8> = (0..author.rng.below(4)).flat_map(|_| author.request()).collect();
    bytes.extend(author.junk());
    for piece in author.pieces(bytes) {
        // Refused before it was whole.
        if writer.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = writer.shutdown(Shutdown::Write);
    loop {
        match wire.read() {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return,
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
}

/// Makes things up.
struct Author {
    rng: Rng,
    /// Contexts that nodes gave.
    contexts: Vec<Vec<u8>>,
}

const INTEGERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "3",
    "16",
    "255",
    "256",
    "1000",
    "16383",
    "65536",
    "-2147483648",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999999999",
    "00",
    "-0",
    "+1",
    " 1",
    "1 ",
    "1.5",
    "-1.5e3",
    "1e308",
    "1e400",
    "inf",
    "-inf",
    "nan",
    "0x10",
];

const WORDS: &[&str] = &[
    "NX",
    "XX",
    "GT",
    "LT",
    "EX",
    "PX",
    "EXAT",
    "PXAT",
    "GET",
    "KEEPTTL",
    "PERSIST",
    "REPLACE",
    "DB",
    "MATCH",
    "COUNT",
    "TYPE",
    "IDX",
    "LEN",
    "MINMATCHLEN",
    "WITHMATCHLEN",
    "R",
    "W",
    "-",
    "*",
    "ASYNC",
    "SYNC",
    "ID",
    "ADDR",
    "USER",
    "ON",
    "OFF",
    "YES",
    "NO",
    "AUTH",
    "SETNAME",
    "default",
    "string",
    "everything",
    "all",
    "SAMPLES",
    "LIB-NAME",
    "FILTERBY",
    "PATTERN",
    "ACLCAT",
    "MODULE",
    "HELP",
    "h?llo*[a-z]",
    "a*a*a*a*a*a*a*a*b",
    "[^",
    "\\",
];

impl Author {
    /// Bytes of a request that is well-formed, whatever else.
    fn request(&mut self) -> Vec<u8> {
        let words = match self.rng.below(100) {
            0..3 => return self.inline(),
            3..6 => self.unknown(),
            6..8 => self.harmless(),
            8..11 => self.with_prefix(),
            _ => self.command(),
        };
        request(&words)
    }

    /// A command as declared, with arguments that may fit.
    fn command(&mut self) -> Vec<Vec<u8>> {
        let spec = self.spec();
        let mut words = Vec::new();
        if !spec.container.is_empty() {
            words.push(self.cased(spec.container));
        }
        words.push(self.cased(spec.name));
        let least = usize::from(spec.arity.unsigned_abs());
        let wanted = match self.rng.below(10) {
            0 => self.below(least + 1),
            1 => least + self.below(20),
            2 => least + self.below(5),
            _ if spec.arity < 0 => least + self.below(3),
            _ => least,
        };
        while words.len() < wanted {
            let word = self.argument();
            words.push(word);
        }
        words
    }

    fn spec(&mut self) -> &'static Spec {
        let all: Vec<&Spec> = everything().filter(|spec| !LEFT_OUT.contains(&full_name(spec).as_str())).collect();
        loop {
            let spec = *self.rng.pick(&all).unwrap();
            if !SELDOM.contains(&full_name(spec).as_str()) || self.rng.chance(0.05) {
                return spec;
            }
        }
    }

    fn argument(&mut self) -> Vec<u8> {
        match self.rng.below(100) {
            0..45 => self.key(),
            45..60 => self.rng.pick(INTEGERS).unwrap().as_bytes().to_vec(),
            60..78 => {
                let word = self.rng.pick(WORDS).unwrap();
                self.cased(word)
            }
            78..84 => self.context(),
            84..90 => {
                let length = self.below(40);
                self.bytes(length)
            }
            90..92 => Vec::new(),
            92..96 => {
                let length = self.below(2_000);
                vec![b'x'; length]
            }
            // About the longest key, and beyond.
            96 => vec![b'k'; 32 * 1024 + self.below(3) - 1],
            97 => self.spec().name.as_bytes().to_vec(),
            _ => format!("{{{}}}{}", self.rng.below(5), self.rng.below(9)).into_bytes(),
        }
    }

    fn key(&mut self) -> Vec<u8> {
        format!("k{}", self.rng.below(60)).into_bytes()
    }

    /// One that a node gave, as it is or spoilt, or one out of thin air.
    fn context(&mut self) -> Vec<u8> {
        let Some(mut context) = self.rng.pick(&self.contexts).cloned() else { return self.bytes(30) };
        if self.rng.chance(0.3) {
            let at = self.below(context.len());
            context[at] = context[at].wrapping_add(1);
        }
        if self.rng.chance(0.1) {
            context.truncate(self.below(context.len()));
        }
        context
    }

    /// Keeps a context that was among the replies.
    fn learn(&mut self, reply: &Value) {
        let Value::Many(items) = reply else { return };
        if let [Value::Text(name), Value::Text(context), ..] = &items[..]
            && name == b"context"
        {
            if self.contexts.len() > 50 {
                self.contexts.remove(0);
            }
            self.contexts.push(context.clone());
        }
    }

    fn inline(&mut self) -> Vec<u8> {
        let key = self.key();
        let line = match self.rng.below(5) {
            0 => [b"GET ".as_slice(), &key].concat(),
            1 => [b"  set ".as_slice(), &key, b" 'a b' "].concat(),
            2 => [b"INCR\t".as_slice(), &key].concat(),
            3 => [b"append ".as_slice(), &key, b" \"\\x00\\n\""].concat(),
            _ => b"nonsense here".to_vec(),
        };
        let end: &[u8] = if self.rng.chance(0.5) { b"\n" } else { b"\r\n" };
        // What is no request gets no reply.
        let nothing = *self.rng.pick(&["", "\r\n", "*0\r\n", "*-1\r\n", "\n"]).unwrap();
        [nothing.as_bytes(), &line, end].concat()
    }

    fn unknown(&mut self) -> Vec<Vec<u8>> {
        let count = 1 + self.below(4);
        (0..count)
            .map(|_| {
                let length = self.below(20);
                [b"~".to_vec(), self.bytes(length)].concat()
            })
            .collect()
    }

    /// Harmless forms of what is left out.
    fn harmless(&mut self) -> Vec<Vec<u8>> {
        let lines = [
            "WAIT 1 5",
            "WAIT 3 1",
            "WAIT -1 1",
            "WAITAOF 1 1 5",
            "WAITAOF 2 0 5",
            "CONFIG SET appendfsync everysec",
            "CONFIG SET appendfsync maybe",
            "CONFIG SET hash-max-listpack-entries 9 save nonsense",
            "CONFIG SET slowlog-log-slower-than 100 slowlog-max-len 10",
            "CONFIG SET nothing 1",
            "CONFIG SET port 1",
            "CONFIG SET maxclients x",
            "SHUTDOWN NONSENSE",
            "CLIENT KILL ID 99999999",
            "CLIENT PAUSE x",
            "CLIENT REPLY MAYBE",
        ];
        let line = self.rng.pick(&lines).unwrap();
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    fn with_prefix(&mut self) -> Vec<Vec<u8>> {
        let quorum = *self.rng.pick(&["R 1", "W 1", "R 3 W 3", "R 255", "W 0", "R x", ""]).unwrap();
        let prefix = format!("DYNAMO.WITH {quorum}");
        let mut words: Vec<Vec<u8>> = prefix.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
        words.extend(self.command());
        words
    }

    /// What is no request.
    fn junk(&mut self) -> Vec<u8> {
        let length = self.below(300);
        match self.rng.below(14) {
            0 => self.bytes(length),
            1 => b"*3\r\n$abc\r\n".to_vec(),
            2 => b"*1\r\n$-5\r\n".to_vec(),
            3 => b"*99999999999999999999\r\n".to_vec(),
            4 => b"*1048577\r\n$3\r\n".to_vec(),
            5 => b"*2\r\n$3\r\nGET\r\n:5\r\n".to_vec(),
            6 => b"*1\r\n".repeat(length),
            7 => b"get \"abc\r\n".to_vec(),
            8 => vec![b'a'; 70_000],
            9 => [b"*".to_vec(), vec![b'1'; 70_000]].concat(),
            10 => b"*2\r\n$3\r\nGET\r\n$1000000000000\r\n".to_vec(),
            11 => b"*2\r\n$3\r\nGET\r\n$100000\r\nonly this".to_vec(),
            12 => b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            _ => [b"\0".repeat(length), b"\r\n".to_vec()].concat(),
        }
    }

    /// The same bytes, whole or in pieces.
    fn pieces(&mut self, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        let most = match self.rng.below(20) {
            0 => 3,
            1..4 => 50,
            4..8 => 5_000,
            _ => return vec![bytes],
        };
        let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
        while !rest.is_empty() {
            // Long ones would take for ever in steps of three.
            let most = if pieces.len() < 1_000 { most } else { 5_000 };
            let (piece, left) = rest.split_at(rest.len().min(1 + self.below(most)));
            pieces.push(piece.to_vec());
            rest = left;
        }
        pieces
    }

    fn cased(&mut self, word: &str) -> Vec<u8> {
        match self.rng.below(4) {
            0 => word.to_ascii_lowercase().into_bytes(),
            _ => word.as_bytes().to_vec(),
        }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.rng.next_u64() as u8).collect()
    }

    fn below(&mut self, bound: usize) -> usize {
        self.rng.below(bound.max(1) as u64) as usize
    }
}

fn full_name(spec: &Spec) -> String {
    if spec.container.is_empty() { spec.name.to_owned() } else { format!("{}|{}", spec.container, spec.name) }
}

#[test]
fn what_is_left_out_by_name_exists_and_everything_else_is_made_up_sooner_or_later() {
    let names: Vec<String> = everything().map(full_name).collect();
    for name in LEFT_OUT.iter().chain(SELDOM) {
        assert!(names.iter().any(|known| known == name), "{name}");
    }
    let mut author = Author { rng: Rng::new(1), contexts: Vec::new() };
    let made: std::collections::BTreeSet<String> = (0..200_000).map(|_| full_name(author.spec())).collect();
    assert_eq!(made.len() + LEFT_OUT.len(), names.len());
}
