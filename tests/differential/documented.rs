//! What COMMAND says of each command, against what Redis says of its own.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use redynamo::commands::docs::{entry, named_docs};
use redynamo::commands::spec::{Group, Spec};
use redynamo::commands::{bitmap, everything, generic, hash, hyperloglog, set, string};
use redynamo::resp::{Protocol, Reply, encode};

use super::servers::Server;
use super::wire::{Connection, Frame};

/// Parts of entries and of documentation that are not those of Redis 7.0, with the reason.
const OTHERWISE: &[(&str, &str, &str)] = &[
    ("acl|cat", "arguments", NAMES),
    ("acl|deluser", "tips", LATER),
    ("acl|save", "tips", LATER),
    ("acl|setuser", "tips", LATER),
    ("bitfield", "keys", NOTES),
    ("bitop", "arguments", "7.2 lists the operations"),
    ("client|kill", "arguments", "7.2 lists YES and NO"),
    ("client|list", "arguments", BLOCKS),
    ("client|pause", "since", "7.2 corrected it"),
    ("client|setname", "tips", LATER),
    ("cluster|getkeysinslot", "complexity", LATER),
    ("cluster|meet", "arguments", NAMES),
    ("cluster|replicas", "complexity", LATER),
    ("cluster|shards", "flags", LATER),
    ("cluster|slaves", "complexity", LATER),
    ("cluster|slots", "flags", LATER),
    ("command|getkeys", "arguments", "7.2 tells them"),
    ("command|getkeys", "arity", LATER),
    ("command|getkeysandflags", "arguments", "7.2 tells them"),
    ("command|getkeysandflags", "arity", LATER),
    ("config|get", "arguments", BLOCKS),
    ("config|resetstat", "tips", LATER),
    ("config|rewrite", "tips", LATER),
    ("debug", "arguments", "shown, so that its refusal is no riddle"),
    ("getex", "keys", NOTES),
    ("latency|reset", "tips", LATER),
    ("lcs", "arguments", NAMES),
    ("module|loadex", "arguments", BLOCKS),
    ("msetnx", "tips", "7.2 has none"),
    ("pfcount", "keys", "nothing is written when it counts"),
    ("pfmerge", "arguments", LATER),
    ("quit", "deprecated_since", LATER),
    ("quit", "doc_flags", LATER),
    ("quit", "replaced_by", LATER),
    ("randomkey", "tips", LATER),
    ("scan", "tips", LATER),
    ("set", "keys", NOTES),
    ("sintercard", "keys", "found by a function"),
    ("wait", "flags", "7.2 allows it in scripts"),
    ("psubscribe", "arguments", BLOCKS),
];

const LATER: &str = "7.2 says so";
const NAMES: &str = "another name for the same argument";
const BLOCKS: &str = "a block of one argument is that argument";
const NOTES: &str = "notes are left out";

/// Commands that 7.0 has not.
const MISSING: [&str; 4] = ["client|no-touch", "client|setinfo", "cluster|myshardid", "waitaof"];

fn is_missing(spec: &Spec) -> bool {
    MISSING.contains(&&spec.full_name()[..]) || hash::LATER.iter().any(|later| later.name == spec.name)
}

fn shared() -> impl Iterator<Item = &'static Spec> {
    everything().filter(|spec| spec.group != Group::Dynamo && !is_missing(spec))
}

#[test]
fn entries_are_those_of_redis_part_by_part() {
    let Some(redis) = Server::redis() else { return };
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut redis = redis.connect(protocol);
        let mut wrong = Vec::new();
        for spec in shared() {
            let theirs = ask(&mut redis, "INFO", spec);
            let ours = parsed(&entry(spec), protocol);
            wrong.extend(differing(&spec.full_name(), &parts(&ours), &parts(&theirs.items()[0])));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn documentation_is_that_of_redis_but_for_its_words() {
    let Some(redis) = Server::redis() else { return };
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut redis = redis.connect(protocol);
        let mut wrong = Vec::new();
        for spec in shared() {
            let theirs = fields(spec, &ask(&mut redis, "DOCS", spec).items()[1]);
            let ours = fields(spec, &parsed(&named_docs(spec).1, protocol));
            wrong.extend(differing(&spec.full_name(), &ours, &theirs));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

fn ask(redis: &mut Connection, what: &str, spec: &Spec) -> Frame {
    let name = spec.full_name();
    Frame::parse(&redis.call(&["COMMAND", what, &name].map(|word| Bytes::copy_from_slice(word.as_bytes()))))
}

fn parsed(reply: &Reply, protocol: Protocol) -> Frame {
    let mut out = BytesMut::new();
    encode(reply, protocol, &mut out);
    Frame::parse(&out)
}

/// The parts of an entry by name, those without order sorted; of subcommands only that there are some.
fn parts(entry: &Frame) -> BTreeMap<String, String> {
    const NAMES: [&str; 9] = ["name", "arity", "flags", "first", "last", "step", "categories", "tips", "keys"];
    let items = entry.items();
    assert_eq!(items.len(), NAMES.len() + 1, "{entry:?}");
    NAMES.iter().zip(items).map(|(name, part)| ((*name).to_owned(), shown(&part.sorted()))).collect()
}

/// The fields of documentation. The words are our own, and versions of single arguments are left out. What commands on
/// keys cost is their own affair too.
fn fields(spec: &Spec, docs: &Frame) -> BTreeMap<String, String> {
    let tables = [string::TABLE, bitmap::TABLE, hyperloglog::TABLE, hash::TABLE, set::TABLE, generic::TABLE];
    let on_keys =
        tables.iter().flat_map(|table| *table).any(|known| known.name == spec.name || known.name == spec.container);
    let pairs = docs.items().chunks(2).map(|pair| (pair[0].text(), &pair[1]));
    pairs
        .filter(|(name, _)| !["summary", "history", "subcommands"].contains(&name.as_str()))
        .filter(|(name, _)| name != "complexity" || !on_keys)
        .map(|(name, value)| match name.as_str() {
            "arguments" => (name, value.items().iter().map(argument).collect::<Vec<_>>().join(" ")),
            _ => (name, shown(&value.sorted())),
        })
        .collect()
}

/// What redis-cli shows of an argument: `?` optional, `*` repeated, `**` with its word.
fn argument(argument: &Frame) -> String {
    let field = |name: &str| {
        let mut pairs = argument.items().chunks(2);
        pairs.find(|pair| pair[0].text() == name).map(|pair| &pair[1])
    };
    let flags: Vec<String> = field("flags").map_or(Vec::new(), |flags| flags.items().iter().map(Frame::text).collect());
    let mark =
        |flag: &str, mark: &str| if flags.iter().any(|set| set == flag) { mark.to_owned() } else { String::new() };
    let marks = [mark("optional", "?"), mark("multiple", "*"), mark("multiple_token", "*")].concat();
    let token = field("token").map_or(String::new(), |token| format!("{}:", token.text()));
    let kind = field("type").map(Frame::text).unwrap_or_default();
    let parts = field("arguments").map_or(&[][..], Frame::items);
    let body = match kind.as_str() {
        "oneof" => format!("<{}>", parts.iter().map(self::argument).collect::<Vec<_>>().join("|")),
        "block" => format!("({})", parts.iter().map(self::argument).collect::<Vec<_>>().join(" ")),
        "pure-token" => String::new(),
        _ => {
            let key = field("key_spec_index").map(Frame::text).unwrap_or_default();
            format!("{}.{kind}{key}", field("name").map(Frame::text).unwrap_or_default())
        }
    };
    format!("{marks}{token}{body}")
}

fn shown(frame: &Frame) -> String {
    match frame {
        Frame::Leaf(leaf) => String::from_utf8_lossy(leaf).trim_end().replace("\r\n", " "),
        Frame::Many(mark, items) => {
            format!("{}[{}]", char::from(*mark), items.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Lines about what differs, and about what was said to differ and does not.
fn differing(name: &str, ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) -> Vec<String> {
    let fields = ours.keys().chain(theirs.keys()).collect::<std::collections::BTreeSet<_>>();
    let wrong = fields.into_iter().filter(|field| {
        let otherwise = OTHERWISE.iter().any(|(named, part, _)| *named == name && part == field);
        (ours.get(*field) != theirs.get(*field)) != otherwise
    });
    wrong
        .map(|field| format!("{name} {field}:\n    ours:  {:?}\n    redis: {:?}", ours.get(field), theirs.get(field)))
        .collect()
}
