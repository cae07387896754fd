//! `COMMAND`: what this server can be asked, for libraries and for people.

use bytes::Bytes;

use super::acl::categories;
use super::call::Call;
use super::docs::{access, all_docs, all_entries, commands, entry, named_docs};
use super::errors::{Answer, SYNTAX};
use super::help;
use super::host::Host;
use super::session::Session;
use super::spec::{Flags, Group, Keys, Run, Spec};
use super::{by_full_name, everything, lookup};
use crate::base::glob;
use crate::resp::Reply;

/// The subcommands.
pub static TABLE: &[Spec] = &[
    sub("COUNT", "", count).doc("Returns how many commands there are.", "2.8.13", "O(1)"),
    sub("DOCS", "[command-name [command-name ...]]", docs)
        .arity(-2)
        .doc("Documents commands.", "7.0.0", "O(N) where N is the number of commands to look up")
        .tips(&["nondeterministic_output_order"]),
    sub("GETKEYS", "command [arg [arg ...]]", get_keys).arity(-3).doc(
        "Returns the keys among the arguments of a command.",
        "2.8.13",
        "O(N) where N is the number of arguments to the command",
    ),
    sub("GETKEYSANDFLAGS", "command [arg [arg ...]]", get_keys_and_flags).arity(-3).doc(
        "Returns the keys among the arguments of a command, and what it does to them.",
        "7.0.0",
        "O(N) where N is the number of arguments to the command",
    ),
    help::spec("COMMAND", Group::Server, "5.0.0").categories(CONNECTION),
    sub("INFO", "[command-name [command-name ...]]", info)
        .arity(-2)
        .doc("Describes commands for libraries.", "2.8.13", "O(N) where N is the number of commands to look up")
        .tips(&["nondeterministic_output_order"]),
    sub("LIST", "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]", list)
        .arity(-2)
        .doc("Lists the names of commands.", "7.0.0", "O(N) where N is the total number of Redis commands")
        .tips(&["nondeterministic_output_order"]),
];

const CONNECTION: &[&str] = &["connection"];

const fn sub(name: &'static str, syntax: &'static str, run: fn(&Call, &Session, &dyn Host) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::Server, Run::Node(run))
        .of("COMMAND")
        .arity(2)
        .flags(Flags::LOADING.and(Flags::STALE))
        .categories(CONNECTION)
}

/// COMMAND itself.
pub(super) fn all(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Ok(all_entries())
}

fn count(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Ok(Reply::Int(commands().len().try_into().unwrap_or(i64::MAX)))
}

fn info(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    match call.cursor(2).rest() {
        [] => Ok(all_entries()),
        names => Ok(Reply::array(names.iter().map(|name| by_full_name(name).map_or(Reply::Nil, entry)))),
    }
}

fn docs(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    match call.cursor(2).rest() {
        [] => Ok(all_docs()),
        names => Ok(Reply::Map(names.iter().filter_map(|name| by_full_name(name)).map(named_docs).collect())),
    }
}

fn list(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    let fits: Box<dyn Fn(&Spec) -> bool> = match call.cursor(2).rest() {
        [] => Box::new(|_| true),
        [by, kind, arg] if by.eq_ignore_ascii_case(b"filterby") => match &kind.to_ascii_lowercase()[..] {
            b"module" => Box::new(|_| false),
            b"aclcat" => Box::new(|spec| categories(spec).iter().any(|name| arg.eq_ignore_ascii_case(name.as_bytes()))),
            b"pattern" => Box::new(|spec| glob::matches_nocase(arg, spec.full_name().as_bytes())),
            _ => return Err(SYNTAX.into()),
        },
        _ => return Err(SYNTAX.into()),
    };
    Ok(Reply::array(everything().filter(|spec| fits(spec)).map(|spec| Reply::bulk(spec.full_name()))))
}

fn get_keys(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    let (_, keys) = keys(call)?;
    Ok(Reply::array(keys.into_iter().map(Reply::Bulk)))
}

fn get_keys_and_flags(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    let (spec, keys) = keys(call)?;
    let pairs = keys.into_iter().enumerate().map(|(at, key)| Reply::array([Reply::Bulk(key), access(spec, at)]));
    Ok(Reply::array(pairs))
}

/// The command that stands among the arguments, and its keys.
fn keys(call: &Call) -> Result<(&'static Spec, Vec<Bytes>), super::CommandError> {
    let args = call.cursor(2).rest();
    let spec = lookup(args).map_err(|_| "ERR Invalid command specified")?;
    if matches!(spec.keys, Keys::None) {
        return Err("ERR The command has no key arguments".into());
    }
    if !spec.allows(args.len()) {
        return Err("ERR Invalid number of arguments specified for command".into());
    }
    let keys: Vec<Bytes> = Call { spec, args }.keys().cloned().collect();
    if keys.is_empty() { Err("ERR Invalid arguments specified for command".into()) } else { Ok((spec, keys)) }
}

#[cfg(test)]
mod tests {
    use crate::commands::docs::commands;
    use crate::commands::testing::Bench;

    #[test]
    fn commands_are_counted_and_listed() {
        let mut bench = Bench::new();
        let count = commands().len();
        bench.check("COMMAND COUNT", &format!(":{count}\r\n"));
        assert!(bench.run("COMMAND").starts_with(&format!("*{count}\r\n*10\r\n")));
        assert!(bench.run("COMMAND INFO").starts_with(&format!("*{count}\r\n*10\r\n")));
        assert!(bench.run("COMMAND DOCS").starts_with(&format!("*{}\r\n", count * 2)));
        assert!(bench.run("COMMAND LIST").contains("\r\nclient|kill\r\n"));
    }

    #[test]
    fn a_list_can_be_filtered() {
        let mut bench = Bench::new();
        bench.check(
            "COMMAND LIST FILTERBY PATTERN CLIENT|SET*",
            "*2\r\n$14\r\nclient|setinfo\r\n$14\r\nclient|setname\r\n",
        );
        bench.check("COMMAND LIST FILTERBY MODULE json", "*0\r\n");
        bench.check("COMMAND LIST FILTERBY ACLCAT nosuch", "*0\r\n");
        assert!(bench.run("COMMAND LIST FILTERBY ACLCAT Connection").contains("\r\nping\r\n"));
        bench.check("COMMAND LIST FILTERBY foo bar", "-ERR syntax error\r\n");
        bench.check("COMMAND LIST FILTERBY PATTERN", "-ERR syntax error\r\n");
    }

    #[test]
    fn keys_are_found_or_the_reason_why_not_is_told() {
        let mut bench = Bench::new();
        bench.check("COMMAND GETKEYS memory usage k", "*1\r\n$1\r\nk\r\n");
        bench.check("COMMAND GETKEYSANDFLAGS MEMORY USAGE k", "*1\r\n*2\r\n$1\r\nk\r\n*1\r\n+RO\r\n");
        bench.check("COMMAND GETKEYS nosuch a", "-ERR Invalid command specified\r\n");
        bench.check("COMMAND GETKEYS memory nosuch", "-ERR Invalid command specified\r\n");
        bench.check("COMMAND GETKEYS ping a", "-ERR The command has no key arguments\r\n");
        bench.check("COMMAND GETKEYS memory usage", "-ERR Invalid number of arguments specified for command\r\n");
        bench.check("COMMAND GETKEYS", "-ERR wrong number of arguments for 'command|getkeys' command\r\n");
    }
}
