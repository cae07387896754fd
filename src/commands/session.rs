//! A session: what a connection is, as far as commands may know and change it.

use bytes::Bytes;

use super::errors::{CommandError, NO_AUTH};
use super::spec::{Flags, Group, Spec};
use super::transactions::{Multi, Watched};
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

/// What a connection takes the cluster for, by the port it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Face {
    /// One Redis of any size.
    #[default]
    Plain,
    /// A Redis Cluster.
    Cluster,
}

/// What a client subscribes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subscription {
    /// A channel.
    Channel,
    /// All channels that a pattern fits.
    Pattern,
    /// A shard channel.
    Shard,
}

impl Subscription {
    /// The word for it in what a client is sent.
    pub const fn word(self) -> &'static str {
        match self {
            Subscription::Channel => "subscribe",
            Subscription::Pattern => "psubscribe",
            Subscription::Shard => "ssubscribe",
        }
    }
}

/// How many subscriptions a connection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Subscribed {
    /// To channels.
    pub channels: u32,
    /// To patterns.
    pub patterns: u32,
    /// To shard channels.
    pub shards: u32,
}

impl Subscribed {
    /// Whether there are any.
    pub fn any(self) -> bool {
        self.channels | self.patterns | self.shards != 0
    }

    /// How many the client is told of beside one of this kind: shard channels are counted apart.
    pub fn counted_with(self, kind: Subscription) -> u32 {
        match kind {
            Subscription::Shard => self.shards,
            _ => self.channels.saturating_add(self.patterns),
        }
    }

    /// One more.
    pub fn add(&mut self, kind: Subscription) {
        let count = self.of(kind);
        *count = count.saturating_add(1);
    }

    /// One less.
    pub fn remove(&mut self, kind: Subscription) {
        let count = self.of(kind);
        *count = count.saturating_sub(1);
    }

    fn of(&mut self, kind: Subscription) -> &mut u32 {
        match kind {
            Subscription::Channel => &mut self.channels,
            Subscription::Pattern => &mut self.patterns,
            Subscription::Shard => &mut self.shards,
        }
    }
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
    /// What it takes the cluster for.
    pub face: Face,
    /// Hash of the slots that a client of the cluster face was last told of.
    pub slots_seen: u64,
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
    /// The transaction that it has begun.
    pub multi: Option<Multi>,
    /// Keys that must not change before it ends.
    pub watched: Option<Watched>,
    /// What it is subscribed to.
    pub subscribed: Subscribed,
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
    /// [`NO_AUTH`]; while it is subscribed and speaks RESP2, Redis' own for what is neither about subscriptions nor PING,
    /// QUIT and RESET: its replies could not be told from messages.
    pub fn admits(&self, spec: &Spec) -> Result<(), CommandError> {
        if !self.authenticated && !spec.flags.has(Flags::NO_AUTH) {
            return Err(NO_AUTH.into());
        }
        if self.only_listens() && !goes_with_listening(spec) {
            let name = spec.full_name();
            return Err(format!("ERR Can't execute '{name}': {ONLY_LISTENS}").into());
        }
        Ok(())
    }

    /// Whether replies could not be told from messages: it is subscribed and speaks RESP2.
    pub fn only_listens(&self) -> bool {
        self.subscribed.any() && self.protocol == Protocol::Resp2
    }

    /// Back to what it was when it was accepted, but for what the library said of itself, as `RESET` in Redis.
    pub fn reset(&mut self, authenticated: bool) {
        let fresh =
            Session::new(self.id, std::mem::take(&mut self.addr), std::mem::take(&mut self.laddr), authenticated);
        *self = Session {
            lib_name: std::mem::take(&mut self.lib_name),
            lib_ver: std::mem::take(&mut self.lib_ver),
            face: self.face,
            slots_seen: self.slots_seen,
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

const ONLY_LISTENS: &str = "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context";

fn goes_with_listening(spec: &Spec) -> bool {
    let subscribes = spec.group == Group::PubSub && spec.flags.has(Flags::NOSCRIPT);
    subscribes || (spec.container.is_empty() && matches!(spec.name, "PING" | "QUIT" | "RESET"))
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
