//! Limits, and what is forged: refused clearly, nothing changed, and the connection kept where Redis keeps it.

use std::io::ErrorKind;

use redynamo::base::limits::{
    MAX_ARGUMENTS_UNAUTHENTICATED, MAX_BULK_UNAUTHENTICATED, MAX_INLINE_BYTES, MAX_KEY_BYTES,
};

use super::process::{Cluster, Node};
use super::wire::{Value, Wire, request};

fn one_node(words: &[&str]) -> (Node, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path(), "single", words);
    node.serve();
    (node, dir)
}

/// What comes until the connection is closed.
fn rest(wire: &mut Wire) -> Vec<Value> {
    let mut replies = Vec::new();
    loop {
        match wire.read() {
            Ok(reply) => replies.push(reply),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{error}");
                return replies;
            }
        }
    }
}

#[test]
fn a_forged_or_foreign_context_is_refused_and_changes_nothing() {
    let cluster = Cluster::of(3, &[]);
    let (other, _dir) = one_node(&[]);
    let mut wire = cluster.nodes[0].wire();
    for line in ["DYNAMO.PUT k - one", "DYNAMO.PUT k - two", "SET same k", "SET other x"] {
        assert_eq!(wire.say(line), Value::from("OK"));
    }
    let context = |wire: &mut Wire, key: &str| match wire.call(&["DYNAMO.GET", key]).field("context") {
        Value::Text(context) => context.clone(),
        none => panic!("{none:?}"),
    };
    let sound = context(&mut wire, "k");
    let mut bad: Vec<Vec<u8>> =
        vec![b"nonsense".to_vec(), sound[..sound.len() - 1].to_vec(), context(&mut wire, "other")];
    bad.extend((0..sound.len()).map(|at| {
        let mut forged = sound.clone();
        forged[at] = if forged[at] == b'1' { b'2' } else { b'1' };
        forged
    }));
    let mut stranger = other.wire();
    stranger.say("SET k strange");
    bad.push(context(&mut stranger, "k"));
    bad.retain(|context| *context != sound);
    let before = wire.say("DYNAMO.GET k").field("siblings").clone();
    assert_eq!(before.items().len(), 2);
    for (through, context) in bad.iter().enumerate() {
        let mut wire = cluster.nodes[through % 3].wire();
        let put = wire.call(&[b"DYNAMO.PUT".as_slice(), b"k", context, b"forged"]);
        let del = wire.call(&[b"DYNAMO.DEL".as_slice(), b"k", context]);
        for reply in [put, del] {
            assert!(reply.is_error() && reply.error().starts_with("ERR invalid context"), "{reply:?}");
        }
    }
    assert_eq!(*wire.say("DYNAMO.GET k").field("siblings"), before);
    // The sound one still does what it is for.
    assert_eq!(wire.call(&[b"DYNAMO.PUT".as_slice(), b"k", &sound, b"both"]), Value::from("OK"));
    assert_eq!(wire.say("DYNAMO.GET k").field("siblings").items().len(), 1);
}

#[test]
fn a_key_over_the_limit_is_refused_and_the_connection_kept() {
    let cluster = Cluster::of(3, &[]);
    let mut wire = cluster.nodes[1].wire();
    let longest = vec![b'k'; MAX_KEY_BYTES];
    let longer = vec![b'k'; MAX_KEY_BYTES + 1];
    assert_eq!(wire.call(&[b"SET".as_slice(), &longest, b"v"]), Value::from("OK"));
    for command in [
        vec![b"SET".as_slice(), &longer, b"v"],
        vec![b"GET", &longer],
        vec![b"MSET", b"a", b"1", &longer, b"2"],
        vec![b"DEL", b"a", &longer],
        vec![b"RENAME", &longest, &longer],
        vec![b"COPY", &longest, &longer],
        vec![b"DYNAMO.PUT", &longer, b"-", b"v"],
    ] {
        let reply = wire.call(&command);
        assert!(reply.is_error() && reply.error().starts_with("ERR key is longer"), "{reply:?}");
    }
    assert_eq!(wire.say("GET a"), Value::Nil, "of an MSET that is refused nothing is done");
    assert_eq!(wire.call(&[b"GET".as_slice(), &longest]), Value::from("v"));
}

#[test]
fn a_bulk_over_the_limit_is_redis_protocol_error_and_ends_the_connection() {
    let (node, _dir) = one_node(&["--proto-max-bulk-len", "1mb"]);
    let mut wire = node.wire();
    let most = vec![b'x'; 1 << 20];
    assert_eq!(wire.call(&[b"SET".as_slice(), b"k", &most]), Value::from("OK"));
    wire.send(&request(&["PING"])).unwrap();
    wire.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048577\r\n").unwrap();
    let replies = rest(&mut wire);
    assert_eq!(replies, [Value::from("PONG"), Value::Error("ERR Protocol error: invalid bulk length".into())]);
    assert_eq!(node.wire().say("STRLEN k"), Value::Int(1 << 20));
}

#[test]
fn who_has_not_authenticated_gets_little_room() {
    let (node, _dir) = one_node(&["--requirepass", "secret"]);
    let refused = |bytes: &[u8], why: &str| {
        let mut wire = node.wire();
        wire.send(bytes).unwrap();
        assert_eq!(rest(&mut wire), [Value::Error(format!("ERR Protocol error: {why}"))]);
    };
    let count = MAX_ARGUMENTS_UNAUTHENTICATED + 1;
    refused(format!("*{count}\r\n").as_bytes(), "unauthenticated multibulk length");
    let length = MAX_BULK_UNAUTHENTICATED + 1;
    refused(format!("*2\r\n$4\r\nAUTH\r\n${length}\r\n").as_bytes(), "unauthenticated bulk length");
    refused(&vec![b'a'; MAX_INLINE_BYTES + 1], "too big inline request");

    let mut wire = node.wire();
    for line in ["GET k", "NOSUCH", "CONFIG GET requirepass", "DYNAMO.GET k", "DYNAMO.WITH R 1 GET k", "SHUTDOWN"] {
        assert_eq!(wire.say(line).error(), "NOAUTH Authentication required.", "{line}");
    }
    assert!(wire.say("AUTH wrong").error().starts_with("WRONGPASS"));
    assert_eq!(wire.say("AUTH secret"), Value::from("OK"));
    let many: Vec<String> = (0..count * 10).map(|n| format!("k{n}")).collect();
    let request: Vec<&str> = std::iter::once("EXISTS").chain(many.iter().map(String::as_str)).collect();
    assert_eq!(wire.call(&request), Value::Int(0));
}

#[test]
fn many_connections_that_have_not_authenticated_cost_little() {
    const COUNT: usize = 500;
    let (node, _dir) = one_node(&["--requirepass", "secret"]);
    let before = node.resident_bytes();
    // Each has sent as much as it may without being a whole request.
    let mut held = Vec::new();
    let begun = [
        b"*3\r\n$16384\r\n".as_slice(),
        &vec![b'x'; MAX_BULK_UNAUTHENTICATED],
        b"\r\n$16384\r\n",
        &vec![b'x'; MAX_BULK_UNAUTHENTICATED - 1],
    ]
    .concat();
    for _ in 0..COUNT {
        let mut wire = node.wire();
        assert!(wire.say("GET k").is_error());
        wire.send(&begun).unwrap();
        held.push(wire);
    }
    let mut last = node.wire();
    assert_eq!(last.say("AUTH secret"), Value::from("OK"));
    let each = node.resident_bytes().saturating_sub(before) / COUNT as u64;
    assert!(each < 160 << 10, "{each} bytes for each connection");
}

#[test]
fn clients_beyond_maxclients_are_turned_away_with_redis_error() {
    let (node, _dir) = one_node(&["--maxclients", "5"]);
    let mut held: Vec<Wire> = (0..5).map(|_| node.wire()).collect();
    assert!(held.iter_mut().all(|wire| wire.say("PING") == Value::from("PONG")));
    let mut sixth = node.wire();
    assert_eq!(rest(&mut sixth), [Value::Error("ERR max number of clients reached".into())]);
    held.pop();
    let returned = || node.wire().try_call(&["PING"]).is_ok_and(|reply| reply == Value::from("PONG"));
    let began = std::time::Instant::now();
    while !returned() {
        assert!(began.elapsed() < super::process::PATIENCE);
    }
}

#[test]
fn a_client_that_never_reads_does_not_fill_the_nodes_memory() {
    let (node, _dir) = one_node(&[]);
    let mut wire = node.wire();
    let value = vec![b'x'; 1 << 20];
    assert_eq!(wire.call(&[b"SET".as_slice(), b"k", &value]), Value::from("OK"));
    let before = node.resident_bytes();
    let deaf = node.wire();
    let mut writer = deaf.writer();
    writer.set_write_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    let gets = request(&["GET", "k"]).repeat(1_000);
    // A gigabyte of replies is asked for a hundred times over.
    for _ in 0..100 {
        if std::io::Write::write_all(&mut writer, &gets).is_err() {
            break;
        }
    }
    assert_eq!(wire.say("PING"), Value::from("PONG"));
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
}

#[test]
fn a_reply_above_the_output_limit_ends_the_connection_and_no_other() {
    let (node, _dir) = one_node(&["--client-output-buffer-limit", "normal", "100000", "0", "0"]);
    let mut other = node.wire();
    for (key, bytes) in [("large", 200_000), ("small", 100_000)] {
        assert_eq!(other.call(&["SET", key, &"x".repeat(bytes)]), Value::from("OK"));
    }
    let mut wire = node.wire();
    assert_eq!(wire.call(&["GET", "small"]).text().len(), 100_000);
    wire.send(&request(&["GET", "large"])).unwrap();
    assert_eq!(rest(&mut wire), []);
    node.wait_until_it_says("output buffer limits");
    for limit in ["normal 1 0 0", "normal 0 0 0"] {
        assert_eq!(other.call(&["CONFIG", "SET", "client-output-buffer-limit", limit]), Value::from("OK"));
    }
    assert_eq!(node.wire().call(&["GET", "large"]).text().len(), 200_000);
}
