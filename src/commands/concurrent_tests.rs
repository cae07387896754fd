//! What concurrent commands on collections come to, as `docs/concurrent.md` says: on both sides, in both orders.

use super::harness::Replica;
use crate::resp::Reply;

/// What both sides know, what each does, what is asked afterwards and answered.
type Case = (&'static [&'static str], &'static str, &'static str, &'static str, &'static str);

const MANY: &str = "SADD s 1 2 3 4 5 6 7 8";
const COUNTERS: &str = "HSET h a 1 b 2 c 3 d 4 e 5 g 6";

const CASES: &[Case] = &[
    (&[], "SADD s a", "SADD s a", "SMEMBERS s", "a"),
    (&[], "SADD s a", "SADD s b", "SCARD s", "2"),
    (&["SADD s a"], "SADD s a", "SREM s a", "SMEMBERS s", "a"),
    (&["SADD s a"], "SADD s a", "SPOP s", "SMEMBERS s", "a"),
    (&["SADD s a b"], "SADD s b", "SREM s a", "SMEMBERS s", "b"),
    (&["SADD s a b"], "SREM s a", "SREM s b", "EXISTS s", "0"),
    (&["SADD s a b"], "SADD s c", "DEL s", "SMEMBERS s", "c"),
    (&[MANY], "SADD s c", "DEL s", "SMEMBERS s", "c"),
    (&[MANY], "SADD s 5", "DEL s", "SMEMBERS s", "5"),
    (&[MANY], "DEL s", "DEL s", "EXISTS s", "0"),
    (&[MANY], "SREM s 1", "DEL s", "EXISTS s", "0"),
    (&[MANY], "SADD s c", "SET s v", "TYPE s", "set"),
    (&[MANY], "SADD s c", "SET s v", "SMEMBERS s", "c"),
    (&[MANY, "SADD t z"], "SADD s c", "SUNIONSTORE s t", "SCARD s", "2"),
    (&[MANY], "SADD s c", "RENAME s t", "SCARD t", "8"),
    (&[MANY], "SADD s c", "RENAME s t", "SMEMBERS s", "c"),
    (&["SADD s a"], "SMOVE s t a", "SMOVE s u a", "SMEMBERS t", "a"),
    (&["SADD s a"], "SMOVE s t a", "SMOVE s u a", "SMEMBERS u", "a"),
    (&["SADD s a"], "EXPIRE s 100", "EXPIRE s 200", "TTL s", "200"),
    (&["SADD s a", "EXPIRE s 100"], "EXPIRE s 200", "PERSIST s", "TTL s", "-1"),
    (&["SADD s a"], "EXPIRE s 100", "SADD s b", "TTL s", "100"),
    (&["SADD s a", "EXPIRE s 100"], "SREM s a", "SADD s b", "TTL s", "-1"),
    (&[], "SET k v", "SADD k a", "TYPE k", "set"),
    (&[], "SET k v", "SADD k a", "DEL k", "1"),
    (&[], "HSET k f v", "SADD k a", "TYPE k", "set"),
    (&[], "HSET k f v", "SET k w", "HGET k f", "v"),
    (&["HSET h f 1"], "HSET h g 2", "HDEL h f", "HKEYS h", "g"),
    (&["HSET h f 1"], "HSET h f 2", "HDEL h f", "HGET h f", "2"),
    (&["HSET h f 1"], "HSET h f 2", "DEL h", "HGETALL h", "f 2"),
    (&["HSET h f 1"], "HINCRBY h f 2", "HINCRBY h f 3", "HGET h f", "6"),
    (&["HSET h f 1"], "HINCRBY h f 2", "HSET h f 10", "HGET h f", "12"),
    (&["HSET h f 1"], "HINCRBY h f 2", "HDEL h f", "HGET h f", "2"),
    (&["HINCRBY h f 5"], "HINCRBY h f 2", "HDEL h f", "HGET h f", "2"),
    (&["HINCRBY h f 5"], "HINCRBY h f 2", "DEL h", "HGET h f", "2"),
    (&["HINCRBY h f 5", COUNTERS], "HINCRBY h f 2", "DEL h", "HGETALL h", "f 2"),
    (&["HINCRBY h f 5", COUNTERS], "HINCRBY h f 2", "SET h v", "HGETALL h", "f 2"),
    (&["HSET h f 1"], "HEXPIRE h 100 FIELDS 1 f", "HEXPIRE h 200 FIELDS 1 f", "HTTL h FIELDS 1 f", "200"),
    (
        &["HSET h f 1", "HEXPIRE h 100 FIELDS 1 f"],
        "HEXPIRE h 200 FIELDS 1 f",
        "HPERSIST h FIELDS 1 f",
        "HTTL h FIELDS 1 f",
        "-1",
    ),
    (&["HSET h f 1"], "HEXPIRE h 100 FIELDS 1 f", "HSET h f 2", "HTTL h FIELDS 1 f", "-1"),
];

#[test]
fn both_sides_come_to_what_the_document_says_whoever_was_first() {
    for (before, one, other, asked, expected) in CASES {
        for (mine, theirs) in [(one, other), (other, one)] {
            let mut sides = [Replica::new(1), Replica::new(2)];
            for line in *before {
                assert!(!sides[0].run(line).is_error(), "{line}");
            }
            exchange(&mut sides);
            assert!(!sides[0].run(mine).is_error() && !sides[1].run(theirs).is_error(), "{mine} | {theirs}");
            exchange(&mut sides);
            for side in &mut sides {
                assert_eq!(shown(&side.run(asked)), *expected, "{before:?}: {mine} | {theirs}: {asked}");
            }
        }
    }
}

fn exchange([one, other]: &mut [Replica; 2]) {
    one.tell(other);
    other.tell(one);
}

fn shown(reply: &Reply) -> String {
    let many = |items: &[Reply]| items.iter().map(shown).collect::<Vec<_>>().join(" ");
    match reply {
        Reply::Int(number) => number.to_string(),
        Reply::Bulk(text) | Reply::Simple(text) | Reply::Error(text) => String::from_utf8_lossy(text).into_owned(),
        Reply::Array(items) | Reply::Set(items) => many(items),
        Reply::Map(pairs) => pairs.iter().map(|(k, v)| [shown(k), shown(v)].join(" ")).collect::<Vec<_>>().join(" "),
        other => format!("{other:?}"),
    }
}

#[test]
fn siblings_of_a_field_are_shown_and_resolved_by_their_context() {
    let mut sides = [Replica::new(1), Replica::new(2)];
    sides[0].run("HSET h f one");
    sides[1].run("HSET h f two");
    exchange(&mut sides);
    let read = sides[0].run("DYNAMO.GET h FIELD f");
    let Reply::Map(fields) = &read else { panic!("{read:?}") };
    let field = |name: &str| fields.iter().find(|(key, _)| shown(key) == name).map(|(_, value)| value.clone()).unwrap();
    let Reply::Array(siblings) = field("siblings") else { panic!("{read:?}") };
    assert_eq!(siblings.len(), 2);
    let context = shown(&field("context"));
    assert_eq!(sides[0].run(&format!("DYNAMO.PUT h {context} both FIELD f")), Reply::ok());
    assert!(sides[0].run(&format!("DYNAMO.PUT h {context} both FIELD g")).is_error(), "it is another field's");
    exchange(&mut sides);
    for side in &mut sides {
        assert_eq!(shown(&side.run("HGETALL h")), "f both");
        assert!(!format!("{:?}", side.run("DYNAMO.GET h FIELD f")).contains("two"));
    }
    let context = sides[1].run("DYNAMO.GET h");
    let Reply::Map(fields) = &context else { panic!("{context:?}") };
    assert!(fields.iter().any(|(name, _)| shown(name) == "collections"));
    let context = shown(&fields[0].1);
    sides[0].run("HSET h later 1");
    sides[0].tell(&mut { Replica::new(3) });
    assert_eq!(shown(&sides[1].run(&format!("DYNAMO.DEL h {context}"))), "0");
    exchange(&mut sides);
    assert_eq!(shown(&sides[1].run("EXISTS h")), "0", "what was told to nobody here is not here");
    assert_eq!(shown(&sides[0].run("HGETALL h")), "later 1");
}

#[test]
fn an_expired_collection_is_gone_at_once_and_what_is_written_then_stays() {
    let mut replica = Replica::new(1);
    for line in ["SADD s a b", "PEXPIREAT s 1000100", "HSET h f 1 g 2", "HPEXPIREAT h 1000100 FIELDS 1 f"] {
        replica.run(line);
    }
    replica.now = 1_000_101;
    assert_eq!(shown(&replica.run("SCARD s")), "0");
    assert_eq!(shown(&replica.run("HLEN h")), "1");
    assert_eq!(shown(&replica.run("HGETALL h")), "g 2");
    assert_eq!(shown(&replica.run("SADD s c")), "1");
    assert_eq!((shown(&replica.run("SMEMBERS s")), shown(&replica.run("TTL s"))), ("c".into(), "-1".into()));
    assert_eq!(shown(&replica.run("HDEL h g")), "1");
    assert_eq!(shown(&replica.run("EXISTS h")), "0", "nothing but a field that has ended");
}
