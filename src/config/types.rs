//! The types of single settings, made from canonical texts: the table has refused every other text before.

use std::fmt;
use std::time::Duration;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// An IP address or host name; `*` and `::*` of the directive are `0.0.0.0` and `::` here.
    pub host: String,
    /// Whether the node starts although this machine has no such address.
    pub optional: bool,
}

impl Bind {
    pub(super) fn list(text: &str) -> Vec<Bind> {
        text.split_whitespace().map(Bind::from_word).collect()
    }

    fn from_word(word: &str) -> Bind {
        let (host, optional) = word.strip_prefix('-').map_or((word, false), |host| (host, true));
        let host = match host {
            "*" => "0.0.0.0",
            "::*" => "::",
            host => host,
        };
        Bind { host: host.to_owned(), optional }
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

/// Text that is never printed, not even by accident in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(super) fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// When writes are forced to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before a write is acknowledged.
    Always,
    /// Once a second.
    EverySecond,
    /// When the operating system likes.
    No,
}

impl Fsync {
    pub(super) fn from_text(text: &str) -> Fsync {
        match text {
            "always" => Fsync::Always,
            "no" => Fsync::No,
            _ => Fsync::EverySecond,
        }
    }
}

/// How much is logged; each level includes those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything, including what happens for each request.
    Debug,
    /// Details of background work.
    Verbose,
    /// What an operator wants to know.
    Notice,
    /// What an operator must know.
    Warning,
    /// Nothing at all.
    Nothing,
}

impl LogLevel {
    pub(super) fn from_text(text: &str) -> LogLevel {
        match text {
            "debug" => LogLevel::Debug,
            "verbose" => LogLevel::Verbose,
            "warning" => LogLevel::Warning,
            "nothing" => LogLevel::Nothing,
            _ => LogLevel::Notice,
        }
    }
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// As Redis writes them.
    Plain,
    /// A JSON object a line.
    Json,
}

impl LogFormat {
    pub(super) fn from_text(text: &str) -> LogFormat {
        if text == "json" { LogFormat::Json } else { LogFormat::Plain }
    }
}

/// Who is told that the node is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supervised {
    /// Nobody.
    No,
    /// systemd, through `NOTIFY_SOCKET`.
    Systemd,
    /// upstart, by stopping oneself.
    Upstart,
    /// Whoever the environment names.
    Auto,
}

impl Supervised {
    pub(super) fn from_text(text: &str) -> Supervised {
        match text {
            "systemd" => Supervised::Systemd,
            "upstart" => Supervised::Upstart,
            "auto" => Supervised::Auto,
            _ => Supervised::No,
        }
    }
}

/// How much may wait for a client of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit {
    /// Bytes at which the client is disconnected at once; 0: none.
    pub hard: u64,
    /// Bytes above which the client has `soft_for` to catch up; 0: none.
    pub soft: u64,
    /// How long it may stay above `soft`.
    pub soft_for: Duration,
}

/// Databases in which only owners count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StrictDatabases {
    /// Every one.
    All,
    /// These; nearly always none. Ascending.
    These(Vec<u8>),
}

impl StrictDatabases {
    /// Whether this database is one of them.
    pub fn contains(&self, db: u8) -> bool {
        match self {
            StrictDatabases::All => true,
            StrictDatabases::These(databases) => databases.contains(&db),
        }
    }
}

/// Whether `host`, an address with or without brackets or a name, is this machine as seen from itself only.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
