//! The tables against what Redis says of its own commands.

use std::collections::BTreeSet;

use bytes::Bytes;
use redynamo::base::limits::MAX_STRING_BYTES;
use redynamo::commands::spec::{Flags, Group, Keys, Spec};
use redynamo::commands::{all, bitmap, generic, hash, hyperloglog, resolve, set, string};
use redynamo::resp::{Protocol, Reply};

use super::servers::Server;
use super::wire::{Connection, Frame};

/// Commands whose declaration is not that of Redis 7.0, with the reason.
const DECLARED_OTHERWISE: &[(&str, &str)] =
    &[("wait", "Redis 7.2 allows it in scripts"), ("waitaof", "Redis 7.2 brought it")];

/// Every command of the families that Redis has too, subcommands included.
fn shared() -> impl Iterator<Item = &'static Spec> {
    let tables = [string::TABLE, bitmap::TABLE, hyperloglog::TABLE, hash::TABLE, set::TABLE, generic::TABLE];
    let tables = tables.into_iter().flatten();
    tables.flat_map(|spec| [spec].into_iter().chain(spec.children))
}

#[test]
fn commands_are_declared_as_redis_declares_them() {
    let Some(redis) = Server::redis() else { return };
    let mut redis = redis.connect(Protocol::Resp2);
    for spec in shared() {
        let name = spec.full_name();
        let theirs = Declared::by_redis(&mut redis, &name);
        let otherwise = DECLARED_OTHERWISE.iter().any(|(named, _)| *named == name);
        assert_eq!(theirs != Some(Declared::by_us(spec)), otherwise, "{name}: Redis says {theirs:?}");
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Declared {
    arity: i64,
    flags: BTreeSet<String>,
    /// First, last, step.
    keys: [i64; 3],
}

impl Declared {
    fn by_us(spec: &Spec) -> Declared {
        let keys = match spec.keys {
            Keys::Range { first, last, step } => [first as i64, last as i64, step as i64],
            _ => [0; 3],
        };
        Declared { arity: spec.arity.into(), flags: spec.flags.names().map(str::to_owned).collect(), keys }
    }

    fn by_redis(redis: &mut Connection, name: &str) -> Option<Declared> {
        let words = ["COMMAND", "INFO", name].map(|word| Bytes::copy_from_slice(word.as_bytes()));
        let Frame::Many(_, answers) = Frame::parse(&redis.call(&words)) else { panic!("an array") };
        let [Frame::Many(_, facts)] = answers.as_slice() else { return None };
        let number = |at: usize| facts[at].text().parse::<i64>().unwrap();
        Some(Declared {
            arity: number(1),
            flags: facts[2].items().iter().map(Frame::text).collect(),
            keys: [number(3), number(4), number(5)],
        })
    }
}

#[test]
fn a_wrong_number_of_arguments_is_refused_as_redis_refuses_it() {
    let Some(redis) = Server::redis() else { return };
    let mut redis = redis.connect(Protocol::Resp2);
    for spec in shared().filter(|spec| spec.name != "WAITAOF") {
        let name: Vec<Bytes> = spec.full_name().split('|').map(|word| Bytes::from(word.to_owned())).collect();
        let least = usize::from(spec.arity.unsigned_abs());
        for count in [name.len(), least - 1, least + 1] {
            let mut args = name.clone();
            args.resize(count.max(name.len()), Bytes::from_static(b"k"));
            let refused = resolve(&args).map_err(|error| error.into_reply());
            let Err(Reply::Error(text)) = refused else { continue };
            let theirs = redis.call(&args);
            assert_eq!(theirs, Bytes::from([b"-", &text[..], b"\r\n"].concat()), "{args:?}");
        }
    }
}

#[test]
fn words_that_are_no_command_are_refused_as_redis_refuses_them() {
    let Some(redis) = Server::redis() else { return };
    let mut redis = redis.connect(Protocol::Resp2);
    let long = "x".repeat(200);
    let calls: [&[&str]; 9] = [
        &["nonsense"],
        &["Nonsense", "a", "b c", ""],
        &[&long],
        &["nonsense", &long, "never shown"],
        &["nonsense", &long[..100], &long[..100], "never shown"],
        &["get\0more", "cut\0off"],
        &["", ""],
        &["object", "nonsense", "k"],
        &["OBJECT", &long],
    ];
    for words in calls {
        let args: Vec<Bytes> = words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        let Err(error) = resolve(&args) else { panic!("{words:?} is a command") };
        let Reply::Error(text) = error.into_reply() else { panic!("an error") };
        assert_eq!(redis.call(&args), Bytes::from([b"-", &text[..], b"\r\n"].concat()), "{words:?}");
    }
}

#[test]
fn the_longest_string_is_that_of_redis() {
    let Some(redis) = Server::redis() else { return };
    let mut redis = redis.connect(Protocol::Resp2);
    let args = [&b"CONFIG"[..], b"GET", b"proto-max-bulk-len"].map(Bytes::from_static);
    assert_eq!(Frame::parse(&redis.call(&args)).items()[1].text(), MAX_STRING_BYTES.to_string());
}

#[test]
fn nothing_of_ours_takes_a_name_that_redis_has() {
    let Some(redis) = Server::redis() else { return };
    let mut redis = redis.connect(Protocol::Resp2);
    for spec in all().filter(|spec| spec.group == Group::Dynamo) {
        assert_eq!(Declared::by_redis(&mut redis, &spec.full_name()), None, "{}", spec.name);
        assert!(!spec.flags.has(Flags::NO_AUTH));
    }
}
