//! Scripts of several connections: what one does, another hears.
//!
//! A line begins with a connection's name and `>`: `one> SUBSCRIBE a` sends and compares the reply; `one>2 SUBSCRIBE a b`
//! expects two replies. `one<` compares what comes without being asked for. `! ` and `~ ` before a command compare as in
//! the scripts of one connection. At the end each connection is asked once more: what nobody expected would be in the way.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use redynamo::resp::Protocol;

use super::script::{Compared, words};
use super::servers::Server;
use super::wire::{Connection, Frame};

/// A line that is no comment.
enum Line {
    Sleep(Duration),
    Ask { connection: String, text: String, replies: usize, compared: Compared },
    Hear { connection: String },
}

impl Line {
    fn parse(line: &str) -> Option<Line> {
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        if let Some(ms) = line.strip_prefix("@sleep ") {
            return Some(Line::Sleep(Duration::from_millis(ms.parse().expect("milliseconds"))));
        }
        if let Some(connection) = line.strip_suffix('<') {
            return Some(Line::Hear { connection: connection.to_owned() });
        }
        let (connection, rest) = line.split_once('>').expect("a connection");
        let (replies, rest) = rest.split_once(' ').expect("a command");
        let (text, compared) = match rest.split_at_checked(2) {
            Some(("! ", rest)) => (rest, Compared::InShape),
            Some(("~ ", rest)) => (rest, Compared::InAnyOrder),
            _ => (rest, Compared::Exactly),
        };
        let replies = if replies.is_empty() { 1 } else { replies.parse().expect("a number of replies") };
        Some(Line::Ask { connection: connection.to_owned(), text: text.to_owned(), replies, compared })
    }
}

/// One connection to each of the two.
struct Pair {
    redis: Connection,
    other: Connection,
}

/// A play on two servers.
struct Stage<'s> {
    redis: &'s Server,
    other: &'s Server,
    protocol: Protocol,
    pairs: BTreeMap<String, Pair>,
    wrong: Vec<String>,
}

impl Stage<'_> {
    fn pair(&mut self, name: &str) -> &mut Pair {
        let (redis, other, protocol) = (self.redis, self.other, self.protocol);
        let open = || Pair { redis: redis.connect(protocol), other: other.connect(protocol) };
        self.pairs.entry(name.to_owned()).or_insert_with(open)
    }

    fn play(&mut self, line: &Line) {
        match line {
            Line::Sleep(duration) => std::thread::sleep(*duration),
            Line::Hear { connection } => self.hear(connection, "what comes by itself", Compared::Exactly),
            Line::Ask { connection, text, replies, compared } => {
                let args = words(text);
                let pair = self.pair(connection);
                // One that has ended is heard to have.
                let _ = (pair.redis.send(&args), pair.other.send(&args));
                for _ in 0..*replies {
                    self.hear(connection, text, *compared);
                }
                if text == "QUIT" {
                    self.hear(connection, "what comes after QUIT", Compared::Exactly);
                    self.pairs.remove(connection);
                }
            }
        }
    }

    fn hear(&mut self, connection: &str, text: &str, compared: Compared) {
        let pair = self.pair(connection);
        let (expected, answer) = (heard(&mut pair.redis), heard(&mut pair.other));
        let same = match compared {
            Compared::Exactly => expected == answer,
            Compared::InShape => Frame::parse(&expected).shape() == Frame::parse(&answer).shape(),
            Compared::InAnyOrder => Frame::parse(&expected).sorted() == Frame::parse(&answer).sorted(),
        };
        if !same {
            let shown = |bytes: &Bytes| String::from_utf8_lossy(bytes).escape_debug().to_string();
            let (expected, answer) = (shown(&expected), shown(&answer));
            self.wrong.push(format!("{connection}: {text}\n    Redis: {expected}\n    other: {answer}"));
        }
    }
}

/// What comes next; a connection that has ended, or says nothing, says so.
fn heard(connection: &mut Connection) -> Bytes {
    connection.read_reply().unwrap_or_else(|error| format!("-nothing: {:?}\r\n", error.kind()).into())
}

#[test]
fn redis_plays_every_session_as_redis_does() {
    let Some([one, other]) = Server::two_of_redis() else { return };
    compare(&one, &other);
}

#[test]
fn the_program_plays_every_session_as_redis_does() {
    let Some(redis) = Server::redis() else { return };
    compare(&redis, &Server::ours());
}

fn compare(redis: &Server, other: &Server) {
    let mut wrong = Vec::new();
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        for (name, lines) in all() {
            let mut stage = Stage { redis, other, protocol, pairs: BTreeMap::new(), wrong: Vec::new() };
            stage.play(&Line::parse("clean> FLUSHALL").unwrap());
            stage.play(&Line::parse("clean> CONFIG SET notify-keyspace-events ''").unwrap());
            lines.iter().for_each(|line| stage.play(line));
            let connections: Vec<String> = stage.pairs.keys().cloned().collect();
            for connection in connections {
                stage.play(&Line::Ask { connection, text: "PING end".into(), replies: 1, compared: Compared::Exactly });
            }
            wrong.extend(stage.wrong.into_iter().map(|line| format!("{name} in {protocol:?}: {line}")));
        }
    }
    assert!(wrong.is_empty(), "{} lines:\n{}", wrong.len(), wrong.join("\n"));
}

fn all() -> Vec<(String, Vec<Line>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/sessions");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    let read = |path: &Path| fs::read_to_string(path).unwrap().lines().map(str::trim).filter_map(Line::parse).collect();
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), read(path))).collect()
}
