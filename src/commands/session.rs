//! A session: what a connection is, as far as commands may know and change it.

use bytes::Bytes;

use crate::base::id::Db;

/// Which protocol replies are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// RESP2, with which every connection begins.
    #[default]
    Resp2,
    /// RESP3, after `HELLO 3`.
    Resp3,
}

/// How many replicas must answer; none for what the database is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quorum {
    /// For a read.
    pub read: Option<u8>,
    /// For a write.
    pub write: Option<u8>,
}

/// What `CLIENT REPLY` asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplyMode {
    /// Every command is answered.
    #[default]
    On,
    /// None is.
    Off,
    /// The next one is not.
    SkipNext,
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
