//! Commands: each declared once, as a row of its family's table, and a pure function over the rows of its keys.
//!
//! No async, no clock, no network, no storage in here. What a command needs of its connection comes as a
//! [`session::Session`], what it needs of its node through [`host::Host`], its rows through a [`View`](crate::model::View)
//! or a [`Draft`](crate::model::Draft).
//!
//! Routing, COMMAND, COMMAND DOCS, GETKEYS, metrics labels, COMMANDS.md and the fuzzers derive from the tables.

pub mod acl;
pub mod call;
pub mod client;
pub mod client_kill;
pub mod client_list;
pub mod cluster;
pub mod command;
pub mod config;
pub mod connection;
pub mod docs;
pub mod errors;
pub mod facts;
pub mod help;
pub mod host;
pub mod info;
pub mod latency;
pub mod markdown;
pub mod memory;
pub mod resolve;
pub mod server;
pub mod session;
pub mod slowlog;
pub mod spec;
pub mod syntax;
#[cfg(test)]
mod testing;

pub use call::Call;
pub use errors::{Answer, CommandError};
pub use session::Session;
pub use spec::Spec;

/// All tables.
pub static FAMILIES: &[&[Spec]] = &[connection::TABLE, server::TABLE, cluster::TABLE];

/// The command of that name, in any case.
pub fn find(name: &[u8]) -> Option<&'static Spec> {
    FAMILIES.iter().copied().flatten().find(|spec| name.eq_ignore_ascii_case(spec.name.as_bytes()))
}

/// The subcommand of `container` of that name, in any case.
pub fn find_sub(container: &'static Spec, name: &[u8]) -> Option<&'static Spec> {
    container.children.iter().find(|spec| name.eq_ignore_ascii_case(spec.name.as_bytes()))
}
