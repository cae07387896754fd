//! What COMMAND says of a command: its entry for libraries, its documentation for people. Both follow from the tables,
//! and are rendered once per process.

use std::sync::LazyLock;

use super::acl::categories;
use super::all;
use super::spec::{Across, Combine, Flags, Keys, Spec};
use super::syntax::{Argument, Kind, parse};
use crate::resp::Reply;

/// All commands, without subcommands, in the order of their names.
pub fn commands() -> &'static [&'static Spec] {
    static ALL: LazyLock<Vec<&'static Spec>> = LazyLock::new(|| {
        let mut all: Vec<&'static Spec> = all().collect();
        all.sort_by_key(|spec| spec.name);
        all
    });
    &ALL
}

/// The reply to COMMAND.
pub fn all_entries() -> Reply {
    static ALL: LazyLock<Reply> = LazyLock::new(|| Reply::array(commands().iter().copied().map(entry)));
    ALL.clone()
}

/// The reply to COMMAND DOCS.
pub fn all_docs() -> Reply {
    static ALL: LazyLock<Reply> = LazyLock::new(|| Reply::Map(commands().iter().copied().map(named_docs).collect()));
    ALL.clone()
}

/// A command as COMMAND INFO describes it: name, arity, flags, first, last, step, ACL categories, tips, key
/// specifications, subcommands.
pub fn entry(spec: &Spec) -> Reply {
    let (first, last, step) = range(spec.keys);
    let categories = categories(spec).into_iter().map(|category| Reply::Simple(format!("@{category}").into()));
    Reply::array([
        Reply::bulk(spec.full_name()),
        Reply::Int(spec.arity.into()),
        Reply::Set(spec.flags.names().map(Reply::status).collect()),
        Reply::Int(first),
        Reply::Int(last),
        Reply::Int(step),
        Reply::Set(categories.collect()),
        Reply::Set(tips(spec).map(Reply::bulk_static).collect()),
        Reply::Set(key_specs(spec)),
        match spec.children {
            [] => Reply::Set(Vec::new()),
            children => Reply::array(children.iter().map(entry)),
        },
    ])
}

/// A command's full name with its documentation.
pub fn named_docs(spec: &'static Spec) -> (Reply, Reply) {
    (Reply::bulk(spec.full_name()), docs(spec))
}

fn docs(spec: &'static Spec) -> Reply {
    let mut pairs = vec![
        ("summary", Reply::bulk_static(spec.summary)),
        ("since", Reply::bulk_static(spec.since)),
        ("group", Reply::bulk_static(spec.group.name())),
    ];
    if !spec.complexity.is_empty() {
        pairs.push(("complexity", Reply::bulk_static(spec.complexity)));
    }
    let flags = [(spec.deprecated.is_some(), "deprecated"), (spec.internal, "syscmd")];
    let flags: Vec<Reply> = flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| Reply::status(name)).collect();
    if !flags.is_empty() {
        pairs.push(("doc_flags", Reply::Set(flags)));
    }
    if let Some((since, instead)) = spec.deprecated {
        pairs.push(("deprecated_since", Reply::bulk_static(since)));
        pairs.push(("replaced_by", Reply::bulk_static(instead)));
    }
    let arguments = parse(spec);
    if !arguments.is_empty() {
        // Where each key has a specification of its own, no key hides within another argument.
        let mut keys = 0;
        let arguments = arguments.into_iter().map(|one| {
            let at = if spec.access.len() > 1 { keys } else { 0 };
            keys += i64::from(one.kind == Kind::Key);
            argument(one, at)
        });
        pairs.push(("arguments", Reply::array(arguments)));
    }
    if !spec.children.is_empty() {
        pairs.push(("subcommands", Reply::Map(spec.children.iter().map(named_docs).collect())));
    }
    Reply::map(pairs)
}

fn argument(argument: Argument, key_spec: i64) -> Reply {
    let mut pairs =
        vec![("name", Reply::bulk(argument.name.clone())), ("type", Reply::bulk_static(argument.kind.name()))];
    let parts = matches!(argument.kind, Kind::OneOf | Kind::Block);
    if !parts {
        pairs.push(("display_text", Reply::bulk(argument.name)));
    }
    if argument.kind == Kind::Key {
        pairs.push(("key_spec_index", Reply::Int(key_spec)));
    }
    if let Some(token) = argument.token {
        pairs.push(("token", Reply::bulk_static(token)));
    }
    let flags =
        [(argument.optional, "optional"), (argument.multiple, "multiple"), (argument.multiple_token, "multiple_token")];
    let flags: Vec<Reply> = flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| Reply::status(name)).collect();
    if !flags.is_empty() {
        pairs.push(("flags", Reply::Set(flags)));
    }
    if parts {
        pairs.push((
            "arguments",
            Reply::array(argument.arguments.into_iter().map(|part| self::argument(part, key_spec))),
        ));
    }
    Reply::map(pairs)
}

/// First, last and step of keys that stand at fixed places; zeros for others.
fn range(keys: Keys) -> (i64, i64, i64) {
    match keys {
        Keys::Range { first, last, step } => (int(first), last as i64, int(step)),
        Keys::None | Keys::Found(_) => (0, 0, 0),
    }
}

fn int(value: usize) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// Tips for libraries that ask several nodes: what is declared, and what follows from how keys of several partitions
/// are dealt with.
fn tips(spec: &Spec) -> impl Iterator<Item = &'static str> {
    let derived: &[&str] = match spec.across {
        Across::Split(Combine::Sum) => &["request_policy:multi_shard", "response_policy:agg_sum"],
        Across::Split(Combine::AllOk) => &["request_policy:multi_shard", "response_policy:all_succeeded"],
        Across::Split(Combine::Interleave) => &["request_policy:multi_shard"],
        Across::Gather => &[],
    };
    spec.tips.iter().chain(derived).copied()
}

/// What is done to the key that is `at`-th among a command's keys.
pub fn access(spec: &Spec, at: usize) -> Reply {
    let words: &[&str] = match spec.access {
        [] if spec.flags.has(Flags::WRITE) => &["RW", "access", "update"],
        [] => &["RO", "access"],
        [all] => all,
        each => each.get(at).or(each.last()).copied().unwrap_or_default(),
    };
    Reply::Set(words.iter().copied().map(Reply::status).collect())
}

/// Where keys begin, and how to find the others: one specification for keys that are dealt with alike.
fn key_specs(spec: &Spec) -> Vec<Reply> {
    match spec.keys {
        Keys::None => Vec::new(),
        Keys::Found(_) => vec![key_spec(access(spec, 0), typed("unknown", Vec::new()), typed("unknown", Vec::new()))],
        Keys::Range { first, last, .. } if spec.access.len() > 1 => (0..spec.access.len())
            .map(|at| {
                // The last one is for all keys that follow.
                let last = if last < 0 && at + 1 == spec.access.len() { last as i64 } else { 0 };
                key_spec(access(spec, at), index(first.saturating_add(at)), within(last, 1))
            })
            .collect(),
        Keys::Range { first, last, step } => {
            // Counted from the first key, but from the end if negative.
            let last = if last < 0 { last as i64 } else { (last as i64).saturating_sub(int(first)) };
            vec![key_spec(access(spec, 0), index(first), within(last, int(step)))]
        }
    }
}

fn key_spec(flags: Reply, begin: Reply, find: Reply) -> Reply {
    Reply::map([("flags", flags), ("begin_search", begin), ("find_keys", find)])
}

fn index(first: usize) -> Reply {
    typed("index", vec![("index", Reply::Int(int(first)))])
}

fn within(last: i64, step: i64) -> Reply {
    typed("range", vec![("lastkey", Reply::Int(last)), ("keystep", Reply::Int(step)), ("limit", Reply::Int(0))])
}

fn typed(kind: &'static str, spec: Vec<(&'static str, Reply)>) -> Reply {
    Reply::map([("type", Reply::bulk_static(kind)), ("spec", Reply::map(spec))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::Bench;

    #[test]
    fn an_entry_has_ten_parts() {
        let mut bench = Bench::new();
        bench.check(
            "COMMAND INFO echo nosuch",
            "*2\r\n*10\r\n$4\r\necho\r\n:2\r\n*3\r\n+loading\r\n+stale\r\n+fast\r\n:0\r\n:0\r\n:0\r\n\
             *2\r\n+@fast\r\n+@connection\r\n*0\r\n*0\r\n*0\r\n$-1\r\n",
        );
        bench.run("HELLO 3");
        let keys = bench.run("COMMAND INFO memory|usage");
        assert!(keys.starts_with("*1\r\n*10\r\n$12\r\nmemory|usage\r\n:-3\r\n~1\r\n+readonly\r\n:2\r\n:2\r\n:1\r\n"));
        assert!(keys.ends_with(
            "~1\r\n%3\r\n$5\r\nflags\r\n~1\r\n+RO\r\n$12\r\nbegin_search\r\n%2\r\n$4\r\ntype\r\n$5\r\nindex\r\n\
             $4\r\nspec\r\n%1\r\n$5\r\nindex\r\n:2\r\n$9\r\nfind_keys\r\n%2\r\n$4\r\ntype\r\n$5\r\nrange\r\n$4\r\nspec\r\n\
             %3\r\n$7\r\nlastkey\r\n:0\r\n$7\r\nkeystep\r\n:1\r\n$5\r\nlimit\r\n:0\r\n~0\r\n"
        ));
    }

    #[test]
    fn documentation_has_the_shape_of_redis() {
        let mut bench = Bench::new();
        bench.run("HELLO 3");
        bench.check(
            "COMMAND DOCS nosuch slaveof",
            "%1\r\n$7\r\nslaveof\r\n%8\r\n$7\r\nsummary\r\n$29\r\nThe former name of REPLICAOF.\r\n$5\r\nsince\r\n$5\r\n1.0.0\r\n\
             $5\r\ngroup\r\n$6\r\nserver\r\n$10\r\ncomplexity\r\n$4\r\nO(1)\r\n$9\r\ndoc_flags\r\n~1\r\n+deprecated\r\n\
             $16\r\ndeprecated_since\r\n$5\r\n5.0.0\r\n$11\r\nreplaced_by\r\n$11\r\n`REPLICAOF`\r\n$9\r\narguments\r\n*1\r\n\
             %3\r\n$4\r\nname\r\n$16\r\nhost_port_no_one\r\n$4\r\ntype\r\n$5\r\noneof\r\n$9\r\narguments\r\n*2\r\n\
             %3\r\n$4\r\nname\r\n$9\r\nhost_port\r\n$4\r\ntype\r\n$5\r\nblock\r\n$9\r\narguments\r\n*2\r\n\
             %3\r\n$4\r\nname\r\n$4\r\nhost\r\n$4\r\ntype\r\n$6\r\nstring\r\n$12\r\ndisplay_text\r\n$4\r\nhost\r\n\
             %3\r\n$4\r\nname\r\n$4\r\nport\r\n$4\r\ntype\r\n$7\r\ninteger\r\n$12\r\ndisplay_text\r\n$4\r\nport\r\n\
             %3\r\n$4\r\nname\r\n$6\r\nno_one\r\n$4\r\ntype\r\n$5\r\nblock\r\n$9\r\narguments\r\n*2\r\n\
             %4\r\n$4\r\nname\r\n$2\r\nno\r\n$4\r\ntype\r\n$10\r\npure-token\r\n$12\r\ndisplay_text\r\n$2\r\nno\r\n\
             $5\r\ntoken\r\n$2\r\nNO\r\n\
             %4\r\n$4\r\nname\r\n$3\r\none\r\n$4\r\ntype\r\n$10\r\npure-token\r\n$12\r\ndisplay_text\r\n$3\r\none\r\n\
             $5\r\ntoken\r\n$3\r\nONE\r\n",
        );
    }

    #[test]
    fn commands_are_told_once_and_in_order() {
        assert!(commands().is_sorted_by(|one, other| one.name < other.name));
        let Reply::Array(entries) = all_entries() else { panic!("an array") };
        let Reply::Map(docs) = all_docs() else { panic!("a map") };
        assert_eq!((entries.len(), docs.len()), (commands().len(), commands().len()));
    }
}
