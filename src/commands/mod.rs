//! Commands: each declared once, as a row of its family's table, and a pure function over the rows of its keys.
//!
//! No async, no clock, no network, no storage in here. What a command needs of its connection comes as a
//! [`session::Session`], what it needs of its node through [`host::Host`], its rows through a [`View`](crate::model::View)
//! or a [`Draft`](crate::model::Draft).
//!
//! Routing, COMMAND, COMMAND DOCS, GETKEYS, metrics labels, COMMANDS.md and the fuzzers derive from the tables.

pub mod acl;
pub mod bitmap;
pub mod call;
pub mod client;
pub mod client_kill;
pub mod client_list;
pub mod cluster;
pub mod command;
pub mod config;
pub mod connection;
pub mod docs;
pub mod dynamo;
pub mod elements;
pub mod errors;
pub mod events;
pub mod facts;
pub mod generic;
pub mod hash;
pub mod help;
pub mod host;
pub mod hyperloglog;
mod index;
pub mod info;
pub mod latency;
pub mod markdown;
pub mod memory;
pub mod operate;
pub mod pubsub;
pub mod server;
pub mod session;
pub mod set;
pub mod slowlog;
pub mod spec;
pub mod string;
pub mod syntax;
pub mod transactions;
pub mod when;

use bytes::Bytes;

pub use call::Call;
pub use errors::{Answer, CommandError};
pub use session::Session;
pub use spec::Spec;

use errors::{unknown_command, unknown_subcommand, wrong_arity};

/// Every command, by family. A static, not a constant: a declaration has one address, by which statistics know it, and a
/// constant may have one wherever it is named.
#[rustfmt::skip]
pub static FAMILIES: &[&[Spec]] = &[
    string::TABLE,
    hash::TABLE,
    hash::LATER,
    set::TABLE,
    bitmap::TABLE,
    hyperloglog::TABLE,
    generic::TABLE,
    connection::TABLE,
    pubsub::TABLE,
    transactions::TABLE,
    server::TABLE,
    cluster::TABLE,
    dynamo::TABLE,
    dynamo::DOTTED,
];

/// Every command; subcommands are their containers' children.
pub fn all() -> impl Iterator<Item = &'static Spec> + Clone {
    FAMILIES.iter().flat_map(|family| family.iter())
}

/// The command of this name, in any case.
pub fn find(name: &[u8]) -> Option<&'static Spec> {
    index::commands().find(name)
}

/// The subcommand of this name, in any case.
pub fn find_sub(container: &Spec, name: &[u8]) -> Option<&'static Spec> {
    container.children.iter().find(|child| child.name.as_bytes().eq_ignore_ascii_case(name))
}

/// What `args` call: a command or subcommand that allows so many arguments.
///
/// # Errors
/// Redis' own for an unknown command or subcommand and for a wrong number of arguments.
pub fn resolve(args: &[Bytes]) -> Result<&'static Spec, CommandError> {
    let spec = lookup(args)?;
    if spec.allows(args.len()) { Ok(spec) } else { Err(wrong_arity(&spec.full_name())) }
}

/// The same, however many arguments there are.
pub fn lookup(args: &[Bytes]) -> Result<&'static Spec, CommandError> {
    let spec = args.first().and_then(|name| find(name)).ok_or_else(|| unknown_command(args))?;
    match args.get(1) {
        Some(sub) if !spec.children.is_empty() => find_sub(spec, sub).ok_or_else(|| unknown_subcommand(spec.name, sub)),
        _ => Ok(spec),
    }
}

/// The command or subcommand behind a name such as `get` or `client|list`, in any case.
pub fn by_full_name(name: &[u8]) -> Option<&'static Spec> {
    let mut parts = name.split(|&byte| byte == b'|');
    let spec = find(parts.next()?)?;
    match (parts.next(), parts.next()) {
        (None, _) => Some(spec),
        (Some(sub), None) => find_sub(spec, sub),
        _ => None,
    }
}

/// Every command and every subcommand.
pub fn everything() -> impl Iterator<Item = &'static Spec> + Clone {
    all().flat_map(|spec| std::iter::once(spec).chain(spec.children))
}

#[cfg(test)]
mod concurrent_tests;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
