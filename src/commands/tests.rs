//! Tests of the tables, of commands on one replica, and of what two replicas make of concurrent commands.

use std::collections::BTreeSet;

use super::harness::Replica;
use super::spec::{Across, Flags, Keys, Run};
use super::syntax::{Argument, Kind, parse};
use super::*;
use crate::resp::Reply;

/// A reply as a person reads it: statuses and errors as they are, `(3)` for integers, `nil`, lists in brackets.
fn shown(reply: &Reply) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let list = |items: &[Reply]| format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" "));
    match reply {
        Reply::Simple(bytes) | Reply::Bulk(bytes) | Reply::Error(bytes) => text(bytes),
        Reply::Int(value) => format!("({value})"),
        Reply::Nil => "nil".into(),
        Reply::Array(items) => list(items),
        Reply::Map(pairs) => list(&pairs.iter().flat_map(|(k, v)| [k.clone(), v.clone()]).collect::<Vec<_>>()),
        other => format!("{other:?}"),
    }
}

#[track_caller]
fn check(replica: &mut Replica, line: &str, expected: &str) {
    assert_eq!(shown(&replica.run(line)), expected, "{line}");
}

#[track_caller]
fn check_all(script: &[(&str, &str)]) {
    let mut replica = Replica::new(1);
    script.iter().for_each(|(line, expected)| check(&mut replica, line, expected));
}

/// Two replicas that have heard of each other's writes.
fn pair() -> (Replica, Replica) {
    (Replica::new(1), Replica::new(2))
}

/// Both tell each other what they have not; then both must hold the same versions of `key`.
#[track_caller]
fn meet(one: &mut Replica, other: &mut Replica, key: &str) {
    one.tell(other);
    other.tell(one);
    assert_eq!(one.cell(key), other.cell(key));
    assert_eq!(one.clock(), other.clock());
}

/// Each named field of every sibling in a reply of DYNAMO GET.
fn siblings(reply: &Reply, field: &str) -> Vec<String> {
    let Some(Reply::Array(all)) = field_of(reply, "siblings") else { panic!("{reply:?}") };
    all.iter().map(|sibling| shown(field_of(sibling, field).expect("a field"))).collect()
}

fn field_of<'a>(reply: &'a Reply, field: &str) -> Option<&'a Reply> {
    let Reply::Map(pairs) = reply else { return None };
    pairs.iter().find(|(name, _)| shown(name) == field).map(|(_, value)| value)
}

fn context(replica: &mut Replica, key: &str) -> String {
    shown(field_of(&replica.run(&format!("DYNAMO GET {key}")), "context").expect("a context"))
}

#[test]
fn a_counter_continues_a_value_and_a_value_replaces_a_counter() {
    check_all(&[
        ("SET k 5", "OK"),
        ("INCR k", "(6)"),
        ("INCRBY k 10", "(16)"),
        ("GET k", "16"),
        ("APPEND k 7", "(3)"),
        ("INCR k", "(168)"),
        ("SET k 1", "OK"),
        ("DECR k", "(0)"),
        ("DEL k", "(1)"),
        ("GET k", "nil"),
        ("DECRBY k 4", "(-4)"),
        ("GETRANGE k 0 0", "-"),
        ("INCRBYFLOAT k 0.5", "-3.5"),
        ("INCR k", "ERR value is not an integer or out of range"),
    ]);
}

#[test]
fn an_error_changes_nothing() {
    let mut replica = Replica::new(1);
    check(&mut replica, "SET k word", "OK");
    let before = (replica.cell("k"), replica.clock());
    for line in ["INCR k", "SET k v EX 0", "SET k v NX XX", "SETRANGE k -1 x", "DYNAMO PUT k 00 v", "EXPIRE k 1 GT LT"]
    {
        assert!(replica.run(line).is_error(), "{line}");
    }
    assert_eq!((replica.cell("k"), replica.clock()), before);
}

#[test]
fn a_deadline_that_has_passed_deletes() {
    check_all(&[
        ("SET k v", "OK"),
        ("SET k v PXAT 5", "OK"),
        ("EXISTS k", "(0)"),
        ("SET k v", "OK"),
        ("GETEX k EXAT 5", "v"),
        ("EXISTS k", "(0)"),
        ("SET k v", "OK"),
        ("EXPIRE k -1", "(1)"),
        ("EXISTS k", "(0)"),
        ("DYNAMO PUT k - v PXAT 5", "OK"),
        ("EXISTS k", "(0)"),
    ]);
}

#[test]
fn what_has_expired_is_absent_to_every_command() {
    let mut replica = Replica::new(1);
    for line in [
        "GET k",
        "GETDEL k",
        "GETEX k PERSIST",
        "DEL k",
        "PERSIST k",
        "TTL k",
        "RENAME k l",
        "COPY k l",
        "OBJECT ENCODING k",
    ] {
        check(&mut replica, "SET k 5 PX 100", "OK");
        replica.now += 101;
        let absent = Replica::new(2).run(line);
        assert_eq!(replica.run(line), absent, "{line}");
        check(&mut replica, "DBSIZE", "(0)");
    }
    check(&mut replica, "SET k 5 PX 100", "OK");
    replica.now += 101;
    check(&mut replica, "INCR k", "(1)");
    check(&mut replica, "TTL k", "(-1)");
}

#[test]
fn concurrent_sets_become_siblings_and_one_set_with_their_context_replaces_them() {
    let (mut one, mut other) = pair();
    one.run("SET k a");
    other.now += 5;
    other.run("SET k b");
    meet(&mut one, &mut other, "k");
    check(&mut one, "GET k", "b");
    check(&mut other, "GET k", "b");
    let reply = one.run("DYNAMO GET k");
    assert_eq!(siblings(&reply, "value"), ["b", "a"]);
    assert_eq!(siblings(&reply, "stamp"), ["(1000005)", "(1000000)"]);
    assert_eq!(siblings(&reply, "expires"), ["(-1)", "(-1)"]);
    let context = context(&mut one, "k");
    check(&mut other, &format!("DYNAMO PUT k {context} both"), "OK");
    meet(&mut one, &mut other, "k");
    assert_eq!(siblings(&one.run("DYNAMO.GET k"), "value"), ["both"]);
}

#[test]
fn a_put_without_context_adds_a_sibling_and_a_delete_takes_only_what_was_seen() {
    let mut replica = Replica::new(1);
    replica.run("SET k a");
    let seen = context(&mut replica, "k");
    check(&mut replica, "DYNAMO PUT k - b EX 10", "OK");
    check(&mut replica, "DYNAMO.PUT k '' c", "OK");
    assert_eq!(siblings(&replica.run("DYNAMO GET k"), "value"), ["c", "b", "a"]);
    assert_eq!(siblings(&replica.run("DYNAMO GET k"), "expires"), ["(-1)", "(1010000)", "(-1)"]);
    check(&mut replica, &format!("DYNAMO DEL k {seen}"), "(2)");
    check(&mut replica, &format!("DYNAMO DEL k {seen}"), "(2)");
    check(&mut replica, "DYNAMO DEL k -", "(2)");
    let seen = context(&mut replica, "k");
    check(&mut replica, &format!("DYNAMO.DEL k {seen}"), "(0)");
    check(&mut replica, "EXISTS k", "(0)");
}

#[test]
fn a_context_of_another_key_or_none_of_ours_is_refused() {
    let mut replica = Replica::new(1);
    replica.run("MSET k a l b");
    let foreign = context(&mut replica, "l");
    check(
        &mut replica,
        &format!("DYNAMO PUT k {foreign} v"),
        "ERR invalid context: context was not given for this key",
    );
    check(&mut replica, &format!("DYNAMO DEL k {foreign}"), "ERR invalid context: context was not given for this key");
    check(&mut replica, "DYNAMO PUT k zz v", "ERR invalid context: malformed context");
    check(&mut replica, "GET k", "a");
}

#[test]
fn a_client_may_not_leave_more_siblings_than_the_limit() {
    let mut replica = Replica::new(1);
    for _ in 0..crate::base::limits::MAX_SIBLINGS {
        check(&mut replica, "DYNAMO PUT k - v", "OK");
    }
    assert!(shown(&replica.run("DYNAMO PUT k - v")).starts_with("ERR too many siblings"));
    assert_eq!(siblings(&replica.run("DYNAMO GET k"), "value").len(), crate::base::limits::MAX_SIBLINGS);
    let seen = context(&mut replica, "k");
    check(&mut replica, &format!("DYNAMO PUT k {seen} v"), "OK");
    assert_eq!(siblings(&replica.run("DYNAMO GET k"), "value"), ["v"]);
}

#[test]
fn increments_on_both_sides_all_count() {
    let (mut one, mut other) = pair();
    one.run("SET k 10");
    meet(&mut one, &mut other, "k");
    one.run("INCR k");
    one.run("INCRBY k 4");
    other.run("DECRBY k 3");
    other.run("INCR k");
    meet(&mut one, &mut other, "k");
    check(&mut one, "GET k", "13");
    check(&mut other, "INCR k", "(14)");
    meet(&mut one, &mut other, "k");
    check(&mut one, "GET k", "14");
}

#[test]
fn an_increment_counts_against_a_concurrent_set() {
    let (mut one, mut other) = pair();
    one.run("INCRBY k 5");
    meet(&mut one, &mut other, "k");
    one.run("SET k 100");
    other.run("INCR k");
    meet(&mut one, &mut other, "k");
    check(&mut one, "GET k", "101");
    check(&mut other, "GET k", "101");
}

#[test]
fn a_delete_takes_what_it_saw_and_no_more() {
    let (mut one, mut other) = pair();
    one.run("INCRBY k 5");
    meet(&mut one, &mut other, "k");
    check(&mut one, "DEL k", "(1)");
    assert!(one.cell("k").is_empty(), "no one else extends its own run: nothing is left");
    check(&mut one, "EXISTS k", "(0)");
    check(&mut other, "INCR k", "(6)");
    meet(&mut one, &mut other, "k");
    check(&mut one, "GET k", "1");
    check(&mut other, "GET k", "1");
}

#[test]
fn a_deleted_string_leaves_nothing() {
    let mut replica = Replica::new(1);
    replica.run("SET k v");
    replica.run("DEL k");
    assert!(replica.cell("k").is_empty());
}

#[test]
fn a_deadline_binds_to_the_value_it_was_set_on() {
    let (mut one, mut other) = pair();
    one.run("SET k a");
    meet(&mut one, &mut other, "k");
    one.run("EXPIRE k 10");
    other.now += 1;
    other.run("SET k b");
    meet(&mut one, &mut other, "k");
    check(&mut one, "GET k", "b");
    check(&mut one, "TTL k", "(-1)");
}

#[test]
fn appending_carries_the_time_to_live_on_so_that_a_concurrent_deadline_binds_to_it() {
    let (mut one, mut other) = pair();
    one.run("SET k a EX 100");
    meet(&mut one, &mut other, "k");
    for line in ["APPEND k b", "SETRANGE k 1 c", "SET k d KEEPTTL"] {
        one.run(line);
        check(&mut one, "TTL k", "(100)");
    }
    other.run("EXPIRE k 500");
    meet(&mut one, &mut other, "k");
    check(&mut one, "GET k", "d");
    check(&mut one, "TTL k", "(500)");
    check(&mut other, "TTL k", "(500)");
}

#[test]
fn of_two_deadlines_the_longer_wins_and_persist_beats_both() {
    let (mut one, mut other) = pair();
    one.run("SET k a");
    meet(&mut one, &mut other, "k");
    one.run("EXPIRE k 10");
    other.run("EXPIRE k 20");
    meet(&mut one, &mut other, "k");
    check(&mut one, "TTL k", "(20)");
    check(&mut one, "PERSIST k", "(1)");
    other.run("EXPIRE k 30");
    meet(&mut one, &mut other, "k");
    check(&mut other, "TTL k", "(-1)");
}

#[test]
fn a_renamed_key_takes_its_siblings_and_deadlines_along() {
    let mut replica = Replica::new(1);
    replica.run("SET k a EX 10");
    replica.run("DYNAMO PUT k - b");
    check(&mut replica, "RENAME k l", "OK");
    let reply = replica.run("DYNAMO GET l");
    assert_eq!(siblings(&reply, "value"), ["b", "a"]);
    assert_eq!(siblings(&reply, "expires"), ["(-1)", "(1010000)"]);
    check(&mut replica, "EXISTS k", "(0)");
}

#[test]
fn dynamo_get_shows_counter_runs_and_an_absent_key_has_a_context_too() {
    let mut replica = Replica::new(7);
    replica.run("SET k 1");
    replica.run("INCRBY k 4");
    let reply = replica.run("DYNAMO GET k");
    assert_eq!(shown(field_of(&reply, "value").unwrap()), "5");
    let Some(Reply::Array(runs)) = field_of(&reply, "runs") else { panic!("{reply:?}") };
    assert_eq!(shown(field_of(&runs[0], "sum").unwrap()), "4");
    assert_eq!(shown(field_of(&runs[0], "actor").unwrap()), "0000000000000007");
    let absent = replica.run("DYNAMO GET nothing");
    assert_eq!(shown(field_of(&absent, "value").unwrap()), "nil");
    let context = context(&mut replica, "nothing");
    check(&mut replica, &format!("DYNAMO PUT nothing {context} v"), "OK");
}

#[test]
fn a_command_with_its_own_quorum_keeps_its_keys() {
    let args = |line: &str| crate::resp::inline::split(line.as_bytes()).unwrap();
    for (line, keys) in [
        ("DYNAMO WITH R 2 GET k", &["k"][..]),
        ("DYNAMO.WITH W 3 R 1 MSET a 1 b 2", &["a", "b"]),
        ("dynamo with w - dynamo get k", &["k"]),
        ("DYNAMO WITH PING", &[]),
        ("DYNAMO WITH R 1 DYNAMO WITH R 1 GET k", &[]),
    ] {
        let args = args(line);
        let positions = match resolve(&args) {
            Ok(spec) => spec.keys.positions(&args),
            Err(_) => Vec::new(),
        };
        let found: Vec<_> = positions.iter().map(|at| String::from_utf8_lossy(&args[*at]).into_owned()).collect();
        assert_eq!(found, keys, "{line}");
    }
    check_all(&[
        ("DYNAMO WITH W 2 SET k v", "OK"),
        ("DYNAMO WITH R 1 W 2 GET k", "v"),
        ("DYNAMO WITH R 0 GET k", "ERR a quorum is a number of replicas from 1 to 255, or - for the database's own"),
        ("DYNAMO WITH R 256 GET k", "ERR a quorum is a number of replicas from 1 to 255, or - for the database's own"),
        ("DYNAMO WITH R 1", "ERR DYNAMO WITH needs a command after its quorum"),
        ("DYNAMO WITH DYNAMO.WITH GET k", "ERR DYNAMO WITH cannot be nested"),
        ("DYNAMO WITH GET", "ERR wrong number of arguments for 'get' command"),
    ]);
}

#[test]
fn a_prefix_piled_upon_prefixes_costs_no_stack() {
    let mut args: Vec<Bytes> = Vec::new();
    for _ in 0..100_000 {
        args.extend([Bytes::from_static(b"DYNAMO"), Bytes::from_static(b"WITH")]);
    }
    assert!(resolve(&args).unwrap().keys.positions(&args).is_empty());
}

#[test]
fn pairs_are_whole_before_a_command_is_split() {
    check_all(&[
        ("MSET a 1 b", "ERR wrong number of arguments for 'mset' command"),
        ("MSETNX a 1 b", "ERR wrong number of arguments for 'msetnx' command"),
        ("EXISTS a b", "(0)"),
    ]);
}

#[test]
fn names_are_upper_case_and_unique() {
    let mut seen = BTreeSet::new();
    for spec in everything() {
        let name = spec.full_name();
        assert_eq!(spec.name, spec.name.to_uppercase());
        assert!(seen.insert(name.clone()), "{name} is declared twice");
    }
    for container in all() {
        assert!(container.children.iter().all(|child| child.container == container.name), "{}", container.name);
        assert!(!matches!(container.run, Run::Container) || !container.children.is_empty(), "{}", container.name);
    }
}

#[test]
fn summaries_are_sentences() {
    for spec in everything() {
        let name = spec.full_name();
        assert!(spec.summary.ends_with('.') && spec.summary.starts_with(char::is_uppercase), "{name}");
        assert!(
            spec.summary.len() < 120 && spec.complexity.is_empty() == ["lolwut", "psync", "sync"].contains(&&name[..]),
            "{name}"
        );
        assert_eq!(spec.since.split('.').filter(|part| part.parse::<u8>().is_ok()).count(), 3, "{name}");
    }
}

/// The fewest words that an argument takes, and whether it may take more.
fn extent(argument: &Argument) -> (usize, bool) {
    let parts: Vec<(usize, bool)> = argument.arguments.iter().map(extent).collect();
    let least = parts.iter().map(|(least, _)| *least);
    let (words, open) = match argument.kind {
        Kind::OneOf => (least.clone().min().unwrap_or(0).max(1), least.clone().max() > least.min()),
        Kind::Block => (least.sum(), false),
        Kind::PureToken => (0, false),
        _ => (1, false),
    };
    let open = open || argument.optional || argument.multiple || parts.iter().any(|(_, open)| *open);
    (if argument.optional { 0 } else { words + usize::from(argument.token.is_some()) }, open)
}

#[test]
fn arity_follows_from_the_syntax() {
    // Redis lets these have arguments that it does not look at.
    let lax = ["quit", "psync", "replconf"];
    for spec in everything().filter(|spec| spec.children.is_empty() && !lax.contains(&spec.full_name().as_str())) {
        let extents: Vec<_> = parse(spec).iter().map(extent).collect();
        let least = 1 + usize::from(!spec.container.is_empty()) + extents.iter().map(|(least, _)| least).sum::<usize>();
        let open = extents.iter().any(|(_, open)| *open);
        assert_eq!(spec.arity, if open { -1 } else { 1 } * least as i16, "{}", spec.full_name());
    }
}

#[test]
fn keys_stand_where_arguments_must() {
    for spec in everything() {
        let (name, least) = (spec.full_name(), usize::from(spec.arity.unsigned_abs()));
        if let Keys::Range { first, last, step } = spec.keys {
            // Nothing named means all that there is.
            let least = if name == "sunsubscribe" { 2 } else { least };
            assert!(0 < first && first < least && step > 0, "{name}");
            assert!(last < 0 || last.unsigned_abs() < least, "{name}");
            assert!(spec.allows(least), "{name}");
        }
        let moves = matches!(spec.keys, Keys::Found(_));
        assert_eq!(moves, spec.flags.has(Flags::MOVABLEKEYS), "{name}");
        if let Across::Split(_) = spec.across {
            assert!(matches!(spec.keys, Keys::Range { last: -1, .. }), "{name}");
        }
    }
}

#[test]
fn flags_agree_with_how_a_command_runs() {
    for spec in everything() {
        let (writes, reads) = (spec.flags.has(Flags::WRITE), spec.flags.has(Flags::READONLY));
        assert!(!(writes && reads), "{}", spec.full_name());
        match spec.run {
            Run::Read(_) => assert!(reads, "{}", spec.full_name()),
            Run::Write(_) => assert!(writes, "{}", spec.full_name()),
            _ => {}
        }
    }
}

#[test]
fn whoever_finds_a_command_finds_the_same_declaration() {
    for spec in super::everything() {
        let found = super::by_full_name(spec.full_name().as_bytes()).unwrap();
        assert!(std::ptr::eq(found, spec), "{}: statistics know a command by its address", spec.full_name());
    }
}
