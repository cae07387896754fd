//! Commands: each declared once, as a row of its family's table, and a pure function over the rows of its keys.
//!
//! No async, no clock, no network, no storage in here. What a command needs of its connection comes as a
//! [`session::Session`], what it needs of its node through [`host::Host`], its rows through a [`View`](crate::model::View)
//! or a [`Draft`](crate::model::Draft).
//!
//! Routing, COMMAND, COMMAND DOCS, GETKEYS, metrics labels, COMMANDS.md and the fuzzers derive from the tables.

pub mod call;
pub mod dynamo;
pub mod errors;
pub mod generic;
pub mod help;
pub mod host;
mod index;
pub mod session;
pub mod spec;
pub mod string;
pub mod when;

use bytes::Bytes;

pub use call::Call;
pub use errors::{Answer, CommandError};
pub use session::Session;
pub use spec::Spec;

use errors::{unknown_command, unknown_subcommand, wrong_arity};

/// Every command, by family.
#[rustfmt::skip]
pub const FAMILIES: &[&[Spec]] = &[
    string::TABLE,
    generic::TABLE,
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
    let spec = args.first().and_then(|name| find(name)).ok_or_else(|| unknown_command(args))?;
    let spec = match args.get(1) {
        Some(sub) if !spec.children.is_empty() => {
            find_sub(spec, sub).ok_or_else(|| unknown_subcommand(spec.name, sub))?
        }
        _ => spec,
    };
    if spec.allows(args.len()) { Ok(spec) } else { Err(wrong_arity(&spec.full_name())) }
}

#[cfg(test)]
mod harness;
#[cfg(test)]
mod tests;
