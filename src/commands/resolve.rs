//! From a client's arguments to a declaration, or to the refusal that Redis words for it.

use bytes::Bytes;

use super::call::Call;
use super::errors::{CommandError, wrong_arity};
use super::session::Session;
use super::spec::{Flags, Spec};
use super::{find, find_sub};

/// A command was sent before AUTH.
pub const NO_AUTH: &str = "NOAUTH Authentication required.";

/// Longest part of a client's own words in an error, in bytes, as Redis.
const MAX_QUOTED: usize = 128;

/// The declaration that `args` call, a subcommand's own, with its number of arguments checked.
///
/// # Errors
/// Unknown command or subcommand, wrong number of arguments.
pub fn resolve(args: &[Bytes]) -> Result<&'static Spec, CommandError> {
    let spec = lookup(args)?;
    if spec.allows(args.len()) { Ok(spec) } else { Err(wrong_arity(&spec.full_name())) }
}

/// The same without a look at the number of arguments.
pub fn lookup(args: &[Bytes]) -> Result<&'static Spec, CommandError> {
    let Some(spec) = args.first().and_then(|name| find(name)) else { return Err(unknown_command(args)) };
    match args.get(1) {
        Some(name) if !spec.children.is_empty() => find_sub(spec, name).ok_or_else(|| unknown_subcommand(spec, name)),
        _ => Ok(spec),
    }
}

/// Whether a session may run a command now.
///
/// # Errors
/// [`NO_AUTH`].
pub fn admit(spec: &Spec, session: &Session) -> Result<(), CommandError> {
    if session.authenticated || spec.flags.has(Flags::NO_AUTH) { Ok(()) } else { Err(NO_AUTH.into()) }
}

/// The declaration behind a name such as `get` or `client|list`.
pub fn by_full_name(name: &[u8]) -> Option<&'static Spec> {
    let mut parts = name.split(|&byte| byte == b'|');
    let spec = find(parts.next()?)?;
    match (parts.next(), parts.next()) {
        (None, _) => Some(spec),
        (Some(sub), None) => find_sub(spec, sub),
        _ => None,
    }
}

/// There is no such command. The client's arguments are shown up to [`MAX_QUOTED`] bytes.
pub fn unknown_command(args: &[Bytes]) -> CommandError {
    let mut shown = Vec::new();
    for arg in args.iter().skip(1) {
        if shown.len() >= MAX_QUOTED {
            break;
        }
        let room = MAX_QUOTED.saturating_sub(shown.len());
        shown.push(b'\'');
        shown.extend_from_slice(quoted(arg, room));
        shown.extend_from_slice(b"' ");
    }
    let name = quoted(args.first().map_or(b"", |name| name), MAX_QUOTED);
    text(&[b"ERR unknown command '", name, b"', with args beginning with: ", &shown])
}

/// There is no such subcommand.
pub fn unknown_subcommand(container: &Spec, name: &[u8]) -> CommandError {
    let help = format!("'. Try {} HELP.", container.name);
    text(&[b"ERR unknown subcommand '", quoted(name, MAX_QUOTED), help.as_bytes()])
}

/// A subcommand that checks the number of its arguments itself got a wrong one.
pub(super) fn misused(call: &Call) -> CommandError {
    let help = format!("'. Try {} HELP.", call.spec.container);
    let name = quoted(call.arg(1), MAX_QUOTED);
    text(&[b"ERR unknown subcommand or wrong number of arguments for '", name, help.as_bytes()])
}

/// What of `arg` is shown: up to `room` bytes, and nothing from a zero byte on, as C prints it.
fn quoted(arg: &[u8], room: usize) -> &[u8] {
    let end = arg.iter().position(|&byte| byte == 0).unwrap_or(arg.len());
    &arg[..end.min(room)]
}

fn text(parts: &[&[u8]]) -> CommandError {
    String::from_utf8_lossy(&parts.concat()).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::args;

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
    fn before_auth_only_what_leads_to_it_is_admitted() {
        let session = Session::default();
        for (name, admitted) in [("auth", true), ("hello", true), ("quit", true), ("reset", true), ("ping", false)] {
            assert_eq!(admit(find(name.as_bytes()).unwrap(), &session).is_ok(), admitted, "{name}");
        }
    }

    #[test]
    fn full_names_are_found_in_any_case() {
        assert_eq!(by_full_name(b"Client|KILL").map(Spec::full_name), Some("client|kill".into()));
        assert_eq!(by_full_name(b"ping").map(Spec::full_name), Some("ping".into()));
        assert!(by_full_name(b"client|kill|x").is_none() && by_full_name(b"ping|x").is_none());
    }
}
