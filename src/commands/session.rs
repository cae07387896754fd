//! A session: what a connection is, as far as commands may know and change it.

use bytes::Bytes;

use super::errors::{CommandError, NO_AUTH};
use super::spec::{Flags, Spec};
use crate::base::id::Db;
pub use crate::resp::Protocol;

/// The only user, until there are others.
pub const DEFAULT_USER: &str = "default";

/// How many replicas must answer, and which; none for what the database is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quorum {
    /// For a read.
    pub read: Option<u8>,
    /// For a write.
    pub write: Option<u8>,
    /// Whether only owners count, and no stand-ins.
    pub strict: Option<bool>,
    /// Whether the reply is to say who answered.
    pub report: bool,
}

impl Quorum {
    /// This one, and where it leaves something open the other.
    pub fn or(self, other: Quorum) -> Quorum {
        Quorum {
            read: self.read.or(other.read),
            write: self.write.or(other.write),
            strict: self.strict.or(other.strict),
            report: self.report || other.report,
        }
    }
}

/// What `CLIENT REPLY` asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplyMode {
    /// Every command is answered.
    #[default]
    On,
    /// None is.
    Off,
    /// The next one is not, nor is the one that asks for it.
    SkipNext,
    /// The present one is not; the one after it is.
    Skip,
}

/// A connection's state.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// Unique on this node, ascending.
    pub id: u64,
    /// `host:port` of the client.
    pub addr: String,
    /// `host:port` it connected to.
    pub laddr: String,
    /// The database that `SELECT` chose.
    pub db: Db,
    /// Which protocol replies are written in.
    pub protocol: Protocol,
    /// Whether it may do more than authenticate.
    pub authenticated: bool,
    /// The user it authenticated as.
    pub user: Bytes,
    /// `CLIENT SETNAME`.
    pub name: Bytes,
    /// `CLIENT SETINFO lib-name`.
    pub lib_name: Bytes,
    /// `CLIENT SETINFO lib-ver`.
    pub lib_ver: Bytes,
    /// `DYNAMO.QUORUM`.
    pub quorum: Quorum,
    /// `CLIENT REPLY`.
    pub reply_mode: ReplyMode,
    /// `CLIENT NO-EVICT`.
    pub no_evict: bool,
    /// `CLIENT NO-TOUCH`.
    pub no_touch: bool,
    /// The connection is to end once the reply is written (`QUIT`).
    pub closing: bool,
}

impl Session {
    /// The session of a connection that has just been accepted; `authenticated` if no password is asked for.
    pub fn new(id: u64, addr: String, laddr: String, authenticated: bool) -> Session {
        Session {
            id,
            addr,
            laddr,
            authenticated,
            user: Bytes::from_static(DEFAULT_USER.as_bytes()),
            ..Session::default()
        }
    }

    /// Whether it may run a command now.
    ///
    /// # Errors
    /// [`NO_AUTH`].
    pub fn admits(&self, spec: &Spec) -> Result<(), CommandError> {
        if self.authenticated || spec.flags.has(Flags::NO_AUTH) { Ok(()) } else { Err(NO_AUTH.into()) }
    }

    /// Back to what it was when it was accepted, but for what the library said of itself, as `RESET` in Redis.
    pub fn reset(&mut self, authenticated: bool) {
        let fresh =
            Session::new(self.id, std::mem::take(&mut self.addr), std::mem::take(&mut self.laddr), authenticated);
        *self = Session {
            lib_name: std::mem::take(&mut self.lib_name),
            lib_ver: std::mem::take(&mut self.lib_ver),
            ..fresh
        };
    }

    /// Whether the reply to the command that has just run is to be written. To be asked once after each command.
    pub fn wants_reply(&mut self) -> bool {
        match self.reply_mode {
            ReplyMode::On => true,
            ReplyMode::Off => false,
            ReplyMode::SkipNext => {
                self.reply_mode = ReplyMode::Skip;
                false
            }
            ReplyMode::Skip => {
                self.reply_mode = ReplyMode::On;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::find;

    #[test]
    fn before_auth_only_what_leads_to_it_is_admitted() {
        let session = Session::default();
        for (name, admitted) in [("auth", true), ("hello", true), ("quit", true), ("reset", true), ("ping", false)] {
            assert_eq!(session.admits(find(name.as_bytes()).unwrap()).is_ok(), admitted, "{name}");
        }
    }

    #[test]
    fn skip_leaves_itself_and_the_next_command_without_a_reply() {
        let mut session = Session { reply_mode: ReplyMode::SkipNext, ..Session::default() };
        assert_eq!([session.wants_reply(), session.wants_reply(), session.wants_reply()], [false, false, true]);
    }

    #[test]
    fn a_reset_keeps_what_the_connection_is_and_forgets_what_the_client_chose() {
        let mut session = Session::new(7, "c:1".into(), "s:2".into(), true);
        session.db = Db(3);
        session.protocol = Protocol::Resp3;
        session.name = "worker".into();
        session.lib_name = "redis-py".into();
        session.reset(false);
        assert_eq!((session.id, session.addr.as_str(), session.laddr.as_str()), (7, "c:1", "s:2"));
        assert_eq!((session.db, session.protocol, session.authenticated), (Db(0), Protocol::Resp2, false));
        assert_eq!((&session.name[..], &session.lib_name[..]), (&b""[..], &b"redis-py"[..]));
    }
}
