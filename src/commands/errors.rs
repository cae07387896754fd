//! The sentences that clients see, once each, as Redis words them.

use std::borrow::Cow;

use crate::model::{Fault, IncrError};
use crate::resp::Reply;

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandError {
    /// What the client is told, prefix included (`ERR syntax error`).
    Refused(Cow<'static, str>),
    /// Rows could not be read or changed, through no fault of the command.
    Fault(Fault),
}

/// What a command answers.
pub type Answer = Result<Reply, CommandError>;

impl CommandError {
    /// The reply that tells the client.
    pub fn into_reply(self) -> Reply {
        match self {
            CommandError::Refused(text) => Reply::Error(text.into_owned().into()),
            // Nothing was committed: the client may try again.
            CommandError::Fault(fault) => Reply::Error(format!("UNAVAILABLE not done: {fault}").into()),
        }
    }
}

impl From<Fault> for CommandError {
    fn from(fault: Fault) -> Self {
        CommandError::Fault(fault)
    }
}

impl From<&'static str> for CommandError {
    fn from(text: &'static str) -> Self {
        CommandError::Refused(text.into())
    }
}

impl From<String> for CommandError {
    fn from(text: String) -> Self {
        CommandError::Refused(text.into())
    }
}

impl From<IncrError> for CommandError {
    fn from(error: IncrError) -> Self {
        match error {
            IncrError::NotAnInteger => NOT_AN_INTEGER.into(),
            IncrError::Overflow => "ERR increment or decrement would overflow".into(),
            IncrError::Fault(fault) => fault.into(),
        }
    }
}

/// An option or its place is wrong.
pub const SYNTAX: &str = "ERR syntax error";
/// An argument, or the string at the key, is no 64-bit integer.
pub const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
/// An argument, or the string at the key, is no number.
pub const NOT_A_FLOAT: &str = "ERR value is not a valid float";
/// The key holds another kind of value.
pub const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
/// A key that must be there is not.
pub const NO_SUCH_KEY: &str = "ERR no such key";

/// A command was called with too few or too many arguments. `name` in lower case; `container|sub` for subcommands.
pub fn wrong_arity(name: &str) -> CommandError {
    format!("ERR wrong number of arguments for '{}' command", name.to_lowercase()).into()
}
