//! A command's declaration, and what follows from it.

use bytes::Bytes;

use super::call::Call;
use super::errors::{Answer, CommandError};
use super::host::Host;
use super::pubsub::Listening;
use super::session::{Quorum, Session};
use crate::base::id::Db;
use crate::model::{Draft, View};
use crate::ring::Slot;

/// The declaration of a command or subcommand. Built with the `const` methods below, so that a table reads as a table.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Upper case; a subcommand's own name without its container's.
    pub name: &'static str,
    /// The container's name for a subcommand (`CLIENT`), else empty.
    pub container: &'static str,
    /// What stands after the name, in the notation of Redis' documentation: `key value [NX | XX] [GET]`.
    pub syntax: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// The version of Redis that brought it (or of this store, for its own commands).
    pub since: &'static str,
    /// In the notation of Redis' documentation.
    pub complexity: &'static str,
    /// Its family.
    pub group: Group,
    /// Number of arguments, name included; negative for "at least".
    pub arity: i16,
    /// Redis' command flags.
    pub flags: Flags,
    /// Where its keys stand.
    pub keys: Keys,
    /// How it runs.
    pub run: Run,
    /// What it does with keys of several partitions.
    pub across: Across,
    /// Its subcommands, if it is a container.
    pub children: &'static [Spec],
    /// What is done to the keys, in the words of Redis' key specifications: for all of them, or for one after the other
    /// where these differ, the last for all that follow. Empty for what flags imply.
    pub access: &'static [&'static [&'static str]],
    /// Redis' command tips, but for those that follow from `across`.
    pub tips: &'static [&'static str],
    /// ACL categories, where they are not those of its family; what follows from flags is added.
    pub categories: Option<&'static [&'static str]>,
    /// Since which version it is deprecated, and what to use instead.
    pub deprecated: Option<(&'static str, &'static str)>,
    /// Whether it is for machines only: COMMAND DOCS says `syscmd`.
    pub internal: bool,
}

/// Families, named as in Redis' documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// `string`
    String,
    /// `hash`
    Hash,
    /// `set`
    Set,
    /// `bitmap`
    Bitmap,
    /// `hyperloglog`
    Hyperloglog,
    /// `generic`
    Generic,
    /// `connection`
    Connection,
    /// `pubsub`
    PubSub,
    /// `transactions`
    Transactions,
    /// `server`
    Server,
    /// `cluster`
    Cluster,
    /// `dynamo`: this store's own.
    Dynamo,
}

impl Group {
    /// Its name in COMMAND DOCS.
    pub const fn name(self) -> &'static str {
        match self {
            Group::String => "string",
            Group::Hash => "hash",
            Group::Set => "set",
            Group::Bitmap => "bitmap",
            Group::Hyperloglog => "hyperloglog",
            Group::Generic => "generic",
            Group::Connection => "connection",
            Group::PubSub => "pubsub",
            Group::Transactions => "transactions",
            Group::Server => "server",
            Group::Cluster => "cluster",
            Group::Dynamo => "dynamo",
        }
    }
}

/// How a command runs.
#[derive(Debug, Clone, Copy)]
pub enum Run {
    /// On the connection: it may change the session.
    Session(fn(&Call, &mut Session, &dyn Host) -> Answer),
    /// On this node: it reads or changes what the node is.
    Node(fn(&Call, &Session, &dyn Host) -> Answer),
    /// On rows that it does not change.
    Read(fn(&Call, &mut View) -> Answer),
    /// On rows that it may change.
    Write(fn(&Call, &mut Draft) -> Answer),
    /// On many partitions or nodes: it only says what is asked of them.
    Cluster(fn(&Call, &Session) -> Result<ClusterCall, CommandError>),
    /// Not by itself: it says with which quorum the command that follows runs, and at which argument that begins.
    Prefix(fn(&Call) -> Result<(Quorum, usize), CommandError>),
    /// Only its subcommands run.
    Container,
}

/// What is asked of many partitions or nodes.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterCall {
    /// Keys from `cursor` on, about `count` of them.
    Scan {
        /// A token, 0 to begin.
        cursor: u64,
        /// Only keys that match.
        pattern: Option<Bytes>,
        /// Only keys of this kind, by Redis' name for it in lower case.
        kind: Option<Bytes>,
        /// How many to look at.
        count: u64,
    },
    /// All keys that match.
    Keys(Bytes),
    /// How many keys there are.
    DbSize,
    /// Any one key.
    RandomKey,
    /// Away with all keys of this database, or of all of them.
    Flush(Option<Db>),
    /// The image of `source` under another name, perhaps in another database. Answers 1, or 0 where there is nothing to
    /// copy or something in the way.
    CopyTo {
        /// A key of this database.
        source: Bytes,
        /// Its other name.
        destination: Bytes,
        /// The database of the other name; the executor knows how many there are.
        db: Db,
        /// Whether what is there gives way.
        replace: bool,
    },
    /// A key to another database: copied unless something is in the way, then removed here. Answers 1 or 0.
    Move {
        /// A key of this database.
        key: Bytes,
        /// Where it goes; never the database it is in.
        db: Db,
    },
    /// What keys are now, to be compared by EXEC.
    Watch(Vec<Bytes>),
    /// How many keys a slot has.
    CountInSlot(Slot),
    /// Some keys of a slot.
    KeysInSlot {
        /// Which.
        slot: Slot,
        /// At most so many.
        count: usize,
    },
    /// Who listens to channels.
    Listening(Listening),
    /// Preference list of a key and what each replica holds.
    Where(Bytes),
    /// How many other replicas have this connection's last write.
    Wait {
        /// How many to wait for.
        replicas: i64,
        /// For how long, in milliseconds; 0 for ever.
        timeout_ms: u64,
    },
    /// The same, on disk.
    WaitAof {
        /// 1 to wait for this node's own disk.
        local: i64,
        /// How many other replicas.
        replicas: i64,
        /// For how long, in milliseconds; 0 for ever.
        timeout_ms: u64,
    },
}

/// What becomes of a command whose keys lie in several partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Across {
    /// Each partition answers for its own keys, and the answers are put together.
    Split(Combine),
    /// The coordinator of the first key gathers the other keys' images, runs the command, and sends what it writes to
    /// the others' coordinators. Not atomic across partitions.
    Gather,
}

/// How the answers of a split command become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// Integers are added.
    Sum,
    /// Arrays with one element per key are put in the order of the keys.
    Interleave,
    /// `OK` if all say so, else the first that does not.
    AllOk,
}

/// Where keys stand among the arguments (the name is argument 0).
#[derive(Debug, Clone, Copy)]
pub enum Keys {
    /// There are none.
    None,
    /// From `first` to `last` (counted from the end if negative: -1 is the last argument), every `step`-th.
    Range {
        /// Position of the first key.
        first: usize,
        /// Position of the last key.
        last: isize,
        /// Distance between keys.
        step: usize,
    },
    /// As the function finds them, for commands whose key positions depend on other arguments.
    Found(fn(&[Bytes]) -> Vec<usize>),
}

impl Keys {
    /// One key, the first argument.
    pub const FIRST: Keys = Keys::Range { first: 1, last: 1, step: 1 };
    /// All arguments.
    pub const ALL: Keys = Keys::Range { first: 1, last: -1, step: 1 };
    /// Every other argument: key value key value.
    pub const PAIRS: Keys = Keys::Range { first: 1, last: -1, step: 2 };

    /// Positions of the keys among `args`.
    pub fn positions(&self, args: &[Bytes]) -> Vec<usize> {
        match *self {
            Keys::None => Vec::new(),
            Keys::Range { first, last, step } => {
                let last = if last < 0 { args.len().saturating_sub(last.unsigned_abs()) } else { last as usize };
                (first..=last.min(args.len().saturating_sub(1))).step_by(step).collect()
            }
            Keys::Found(find) => find(args),
        }
    }

    /// The one key of a command that has exactly one, without an allocation.
    pub fn single<'a>(&self, args: &'a [Bytes]) -> Option<&'a Bytes> {
        match *self {
            Keys::Range { first, last, .. } if last == first as isize => args.get(first),
            _ => None,
        }
    }
}

/// A set of Redis' command flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal $text:literal),* $(,)?) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Flags = Flags(1 << $bit);)*

            /// Names of the flags that are set, as COMMAND INFO lists them.
            pub fn names(self) -> impl Iterator<Item = &'static str> {
                [$(($text, Flags::$name)),*].into_iter().filter(move |(_, flag)| self.has(*flag)).map(|(name, _)| name)
            }
        }
    };
}

flags! {
    /// Changes rows.
    WRITE = 0 "write",
    /// Reads rows and changes none.
    READONLY = 1 "readonly",
    /// Refused when memory is short.
    DENYOOM = 2 "denyoom",
    /// For administrators.
    ADMIN = 3 "admin",
    /// Publish and subscribe.
    PUBSUB = 4 "pubsub",
    /// Not from scripts.
    NOSCRIPT = 5 "noscript",
    /// May wait.
    BLOCKING = 6 "blocking",
    /// Allowed while loading.
    LOADING = 7 "loading",
    /// Allowed on a stale replica.
    STALE = 8 "stale",
    /// Not shown to MONITOR.
    SKIP_MONITOR = 9 "skip_monitor",
    /// Not in the slow log.
    SKIP_SLOWLOG = 10 "skip_slowlog",
    /// Answers fast: O(1) or O(log N).
    FAST = 11 "fast",
    /// Allowed before AUTH.
    NO_AUTH = 12 "no_auth",
    /// Not inside MULTI.
    NO_MULTI = 13 "no_multi",
    /// Key positions depend on other arguments.
    MOVABLEKEYS = 14 "movablekeys",
    /// Allowed while a script runs too long.
    ALLOW_BUSY = 15 "allow_busy",
    /// Not while loading asynchronously.
    NO_ASYNC_LOADING = 16 "no_async_loading",
}

impl Flags {
    /// Both sets together.
    pub const fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl Spec {
    /// A command that runs as `run` says; no arguments, no keys, no flags but what `run` implies.
    pub const fn new(name: &'static str, syntax: &'static str, group: Group, run: Run) -> Spec {
        let flags = match run {
            Run::Read(_) => Flags::READONLY,
            Run::Write(_) => Flags::WRITE,
            _ => Flags(0),
        };
        Spec {
            name,
            container: "",
            syntax,
            summary: "",
            since: "1.0.0",
            complexity: "O(1)",
            group,
            arity: 1,
            flags,
            keys: Keys::None,
            run,
            across: Across::Gather,
            children: &[],
            access: &[],
            tips: &[],
            categories: None,
            deprecated: None,
            internal: false,
        }
    }

    /// Adds summary, version and complexity.
    pub const fn doc(mut self, summary: &'static str, since: &'static str, complexity: &'static str) -> Spec {
        self.summary = summary;
        self.since = since;
        self.complexity = complexity;
        self
    }

    /// Sets the number of arguments, name included (subcommands: both names); negative for "at least".
    pub const fn arity(mut self, arity: i16) -> Spec {
        self.arity = arity;
        self
    }

    /// Adds flags.
    pub const fn flags(mut self, flags: Flags) -> Spec {
        self.flags = self.flags.and(flags);
        self
    }

    /// Sets where keys stand.
    pub const fn keys(mut self, keys: Keys) -> Spec {
        self.keys = keys;
        self
    }

    /// Lets each partition answer for its own keys.
    pub const fn split(mut self, combine: Combine) -> Spec {
        self.across = Across::Split(combine);
        self
    }

    /// Makes it a subcommand of `container`.
    pub const fn of(mut self, container: &'static str) -> Spec {
        self.container = container;
        self
    }

    /// Gives a container its subcommands.
    pub const fn children(mut self, children: &'static [Spec]) -> Spec {
        self.children = children;
        self
    }

    /// Sets what is done to the keys: `RO`, `RW`, `OW` or `RM`, then `access`, `update`, `insert`, `delete`. One list for
    /// all keys, or one for each.
    pub const fn access(mut self, access: &'static [&'static [&'static str]]) -> Spec {
        self.access = access;
        self
    }

    /// Adds Redis' command tips.
    pub const fn tips(mut self, tips: &'static [&'static str]) -> Spec {
        self.tips = tips;
        self
    }

    /// Sets ACL categories other than those of its family.
    pub const fn categories(mut self, categories: &'static [&'static str]) -> Spec {
        self.categories = Some(categories);
        self
    }

    /// Marks it as deprecated since a version, with what to use instead.
    pub const fn deprecated(mut self, since: &'static str, instead: &'static str) -> Spec {
        self.deprecated = Some((since, instead));
        self
    }

    /// Marks it as for machines only.
    pub const fn internal(mut self) -> Spec {
        self.internal = true;
        self
    }

    /// `get`, or `client|id` for a subcommand: as in errors, statistics and COMMAND.
    pub fn full_name(&self) -> String {
        let own = self.name.to_lowercase();
        if self.container.is_empty() { own } else { format!("{}|{own}", self.container.to_lowercase()) }
    }

    /// Whether `count` arguments, name included, are allowed. Keys that come with values must come in whole pairs: so
    /// that half a pair is refused before a command is split.
    pub fn allows(&self, count: usize) -> bool {
        let whole = match self.keys {
            Keys::Range { first, last: -1, step } => count.saturating_sub(first).is_multiple_of(step),
            _ => true,
        };
        let count = count as i64;
        whole && if self.arity < 0 { count >= -i64::from(self.arity) } else { count == i64::from(self.arity) }
    }
}
