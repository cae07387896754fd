//! The sentences that clients see, once each, as Redis words them.

use std::borrow::Cow;

use bytes::Bytes;

use super::call::Call;
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
            // The code that clients of Redis know for a disk that takes no writes.
            CommandError::Fault(Fault::NoWrites(why)) => Reply::Error(format!("MISCONF not done: {why}").into()),
            // Nothing was committed: the client may try again.
            CommandError::Fault(fault) => Reply::Error(format!("UNAVAILABLE not done: {fault}").into()),
        }
    }
}

impl From<Fault> for CommandError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::WrongKind => WRONG_TYPE.into(),
            Fault::LongName => "ERR the names of a key and of an element of it are too long together".into(),
            fault => CommandError::Fault(fault),
        }
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

/// A command was sent before AUTH.
pub const NO_AUTH: &str = "NOAUTH Authentication required.";
/// An option or its place is wrong.
pub const SYNTAX: &str = "ERR syntax error";
/// An argument, or the string at the key, is no 64-bit integer.
pub const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
/// An argument, or the string at the key, is no number.
pub const NOT_A_FLOAT: &str = "ERR value is not a valid float";
/// A string would grow past what one may hold.
pub const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
/// A database that there is not.
pub const DB_OUT_OF_RANGE: &str = "ERR DB index is out of range";
/// A key is to be copied or moved onto itself.
pub const SAME_OBJECT: &str = "ERR source and destination objects are the same";
/// The key holds another kind of value.
pub const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
/// A key that must be there is not.
pub const NO_SUCH_KEY: &str = "ERR no such key";

/// A time that has no place on the clock. `name` as for [`wrong_arity`].
pub fn invalid_expire(name: &str) -> CommandError {
    format!("ERR invalid expire time in '{}' command", name.to_lowercase()).into()
}

/// No such command.
pub fn unknown_command(args: &[Bytes]) -> CommandError {
    let mut shown = String::new();
    for arg in args.iter().skip(1) {
        if shown.len() >= MAX_SHOWN {
            break;
        }
        shown.push_str(&format!("'{}' ", quoted(arg, MAX_SHOWN - shown.len())));
    }
    let name = args.first().map(|name| quoted(name, MAX_SHOWN)).unwrap_or_default();
    format!("ERR unknown command '{name}', with args beginning with: {shown}").into()
}

/// No such subcommand of `container`.
pub fn unknown_subcommand(container: &str, sub: &[u8]) -> CommandError {
    format!("ERR unknown subcommand '{}'. Try {container} HELP.", quoted(sub, MAX_SHOWN)).into()
}

/// A subcommand that counts its arguments itself got a wrong number of them.
pub fn misused(call: &Call) -> CommandError {
    let (container, name) = (call.spec.container, quoted(call.arg(1), MAX_SHOWN));
    format!("ERR unknown subcommand or wrong number of arguments for '{name}'. Try {container} HELP.").into()
}

/// Most bytes of a client's words that an error repeats, as Redis.
const MAX_SHOWN: usize = 128;

/// A client's word as an error repeats it: up to its first NUL, at most `most` bytes.
pub fn quoted(word: &[u8], most: usize) -> Cow<'_, str> {
    let end = word.iter().position(|&byte| byte == 0).unwrap_or(word.len()).min(most);
    String::from_utf8_lossy(word.get(..end).unwrap_or_default())
}

/// A command was called with too few or too many arguments. `name` in lower case; `container|sub` for subcommands.
pub fn wrong_arity(name: &str) -> CommandError {
    format!("ERR wrong number of arguments for '{}' command", name.to_lowercase()).into()
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::args;
    use crate::commands::{CommandError, by_full_name, resolve};

    fn refusal(command: &str) -> String {
        match resolve(&args(command)) {
            Err(CommandError::Refused(text)) => text.into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn refusals_are_worded_as_in_redis() {
        assert_eq!(refusal("foo a b"), "ERR unknown command 'foo', with args beginning with: 'a' 'b' ");
        assert_eq!(refusal("foo"), "ERR unknown command 'foo', with args beginning with: ");
        assert_eq!(refusal("client foo"), "ERR unknown subcommand 'foo'. Try CLIENT HELP.");
        assert_eq!(refusal("command foo"), "ERR unknown subcommand 'foo'. Try COMMAND HELP.");
        assert_eq!(refusal("client"), "ERR wrong number of arguments for 'client' command");
        assert_eq!(refusal("CLIENT SETNAME"), "ERR wrong number of arguments for 'client|setname' command");
        assert_eq!(refusal("echo"), "ERR wrong number of arguments for 'echo' command");
    }

    #[test]
    fn an_unknown_command_shows_no_more_than_128_bytes_of_its_arguments() {
        let long = "x".repeat(200);
        let text = refusal(&format!("foo {long} second"));
        assert_eq!(text, format!("ERR unknown command 'foo', with args beginning with: '{}' ", &long[..128]));
        let (half, text) = ("y".repeat(100), refusal(&format!("{long} {0} {0} z", "y".repeat(100))));
        let beginning = format!("'{half}' '{}' ", &half[..25]);
        assert_eq!(text, format!("ERR unknown command '{}', with args beginning with: {beginning}", &long[..128]));
    }

    #[test]
    fn full_names_are_found_in_any_case() {
        let found = |name: &[u8]| by_full_name(name).map(|spec| spec.full_name());
        assert_eq!(found(b"Client|KILL"), Some("client|kill".into()));
        assert_eq!(found(b"ping"), Some("ping".into()));
        assert_eq!((found(b"client|kill|x"), found(b"ping|x")), (None, None));
    }
}
