//! The table of settings: one row each, in the groups in which the example file shows them. Files, flags, environment,
//! `CONFIG`, the help and the example file are all derived from it.

use super::redis;
use super::special;
use super::value::Kind;
use Change::{Fixed, Live, Protected};

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Directive {
    /// Its name everywhere.
    pub name: &'static str,
    /// A second name that Redis knows it by.
    pub alias: Option<&'static str>,
    /// What its value is.
    pub kind: Kind,
    /// The canonical text of its default.
    pub default: &'static str,
    /// Whether `CONFIG SET` may change it.
    pub change: Change,
    /// What it means here.
    pub meaning: Meaning,
    /// One line for people; the reason of refusal for a refused one.
    pub doc: &'static str,
    /// Whether `CONFIG GET` answers it to its exact name only.
    pub hidden: bool,
}

/// Whether `CONFIG SET` may change a setting of a running node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Yes.
    Live,
    /// No: it takes a restart.
    Fixed,
    /// No, in the words in which Redis refuses what could be used for an attack.
    Protected,
}

/// What a setting means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It does what its doc says.
    Ours,
    /// A directive of Redis: accepted, kept, answered, named once in the log, and nothing more.
    Ignored,
    /// A directive of Redis of which only the default is accepted: anything else would promise what is not so.
    Refused,
}

/// Settings that belong together.
#[derive(Debug)]
pub struct Group {
    /// Its heading.
    pub title: &'static str,
    /// Its settings.
    pub rows: &'static [Directive],
}

impl Directive {
    /// Adds the second name.
    pub(super) const fn alias(self, alias: &'static str) -> Directive {
        Directive { alias: Some(alias), ..self }
    }

    /// Adds the line for people.
    const fn doc(self, doc: &'static str) -> Directive {
        Directive { doc, ..self }
    }

    /// Makes it one that no pattern lists.
    const fn hidden(self) -> Directive {
        Directive { hidden: true, ..self }
    }

    /// Whether statements add to it: within one source each statement adds, the next source begins afresh.
    pub fn accumulates(&self) -> bool {
        matches!(self.name, "join" | "save")
    }

    /// Whether its value is never shown to clients.
    pub fn concealed(&self) -> bool {
        self.name == "cluster-secret"
    }

    /// Its environment variable.
    pub fn variable(&self) -> String {
        format!("{}{}", super::ENVIRONMENT_PREFIX, variable_part(self.name))
    }
}

/// A name as it is spelt in the environment: capitals and underscores.
pub(super) fn variable_part(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

/// Every directive, those with meaning first.
pub fn all() -> impl Iterator<Item = &'static Directive> {
    GROUPS.iter().flat_map(|group| group.rows).chain(redis::REFUSED).chain(redis::IGNORED)
}

/// The directive that has `name` or alias `name`, in any case.
pub fn find(name: &str) -> Option<&'static Directive> {
    let is = |known: &str| known.eq_ignore_ascii_case(name);
    all().find(|directive| is(directive.name) || directive.alias.is_some_and(is))
}

/// A whole number from `min` to `max`.
pub(super) const fn int(min: i128, max: i128) -> Kind {
    Kind::Int { min, max }
}

/// Bytes from `min` to `max`.
pub(super) const fn bytes(min: i128, max: i128) -> Kind {
    Kind::Bytes { min, max }
}

const fn ours(name: &'static str, kind: Kind, default: &'static str, change: Change) -> Directive {
    Directive { name, alias: None, kind, default, change, meaning: Meaning::Ours, doc: "", hidden: false }
}

const INT: i128 = i32::MAX as i128;
const LONG: i128 = i64::MAX as i128;
const MEBIBYTE: i128 = 1024 * 1024;
const OUTPUT_LIMITS: &str = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
const PORT: Kind = int(0, 65535);

pub(super) const FSYNC: &[&str] = &["everysec", "always", "no"];
pub(super) const LOG_FORMAT: &[&str] = &["plain", "json"];
pub(super) const LOG_LEVEL: &[&str] = &["debug", "verbose", "notice", "warning", "nothing"];
pub(super) const SUPERVISED: &[&str] = &["upstart", "systemd", "auto", "no"];

/// The settings that mean something here.
pub static GROUPS: &[Group] = &[
    Group { title: "Network", rows: NETWORK },
    Group { title: "Cluster", rows: CLUSTER },
    Group { title: "Quorums", rows: QUORUMS },
    Group { title: "Data", rows: DATA },
    Group { title: "Background work", rows: BACKGROUND },
    Group { title: "Clients", rows: CLIENTS },
    Group { title: "Security", rows: SECURITY },
    Group { title: "Log and process", rows: PROCESS },
];

const NETWORK: &[Directive] = &[
    ours("bind", Kind::Words(special::bind), "127.0.0.1 -::1", Fixed)
        .doc("Addresses for clients; with '-' in front it may be missing on this machine. '*' and '::*' are all."),
    ours("port", PORT, "6379", Fixed).doc("Port for clients: this face is a standalone Redis of any size."),
    ours("cluster-port", PORT, "0", Fixed).doc("Port for cluster clients: this face is a Redis Cluster. 0: none."),
    ours("peer-port", PORT, "0", Fixed).doc("Port for the other nodes. 0: port + 10000."),
    ours("peer-bind", Kind::Words(special::bind), "", Fixed)
        .doc("Addresses for other nodes. Empty: as bind if there is a cluster-secret, else loopback only."),
    ours("admin-port", Kind::PortOrOff, "0", Fixed)
        .doc("HTTP port for /metrics and /health, on the addresses of bind. 0: port + 20000. off: none."),
    ours("cluster-announce-ip", Kind::Text, "", Fixed)
        .doc("Address that other nodes and cluster clients are told to use. Empty: the one they see."),
    ours("tcp-backlog", int(0, INT), "511", Fixed)
        .doc("Connections that the kernel may hold before they are accepted."),
    ours("tcp-keepalive", int(0, INT), "300", Live)
        .doc("Seconds of silence after which a client's connection is probed. 0: never."),
    ours("timeout", int(0, INT), "0", Live).doc("Seconds of idleness after which a client is disconnected. 0: never."),
];

const CLUSTER: &[Directive] = &[
    ours("join", Kind::Words(special::join), "", Fixed)
        .doc("A node of the cluster to join, host:peer-port (default 16379). May be repeated; tried for ever."),
    ours("node-name", Kind::Text, "", Fixed)
        .doc("What this node is called in logs and listings. Empty: hostname-port."),
    ours("cluster-name", Kind::Text, "redynamo", Fixed)
        .doc("Name of the cluster: nodes of another name are turned away."),
    ours("cluster-secret", Kind::Text, "", Fixed)
        .doc("What nodes prove to each other that they know. Needed as soon as a node is not on loopback."),
    ours("zone", Kind::Text, "default", Fixed)
        .doc("What fails together with this node (a rack, a data centre): replicas are spread over zones."),
    ours("weight", int(1, 10_000), "1", Fixed)
        .doc("Share of the data that this node takes, against the weights of the others."),
    ours("partitions", int(1, 16_384), "256", Fixed)
        .doc("Pieces of the key space, a power of two; fixed when the cluster is made."),
    ours("peer-timeout-ms", int(10, 600_000), "1000", Fixed)
        .doc("Milliseconds that another node may take for an answer before the next one is asked."),
    ours("failure-timeout-ms", int(100, 600_000), "2000", Fixed)
        .doc("Milliseconds of silence after which another node is taken for dead."),
    ours("max-clock-skew-ms", int(1, 3_600_000), "500", Fixed)
        .doc("Milliseconds by which another node's clock may be ahead; stamps further ahead are rejected."),
];

const QUORUMS: &[Directive] = &[
    ours("replicas", int(1, 16), "3", Fixed)
        .doc("N: nodes that keep each key. With fewer nodes than this, every node keeps every key."),
    ours("read-quorum", int(1, 16), "2", Live)
        .doc("R: nodes that must answer a read, if a client asks for no other number."),
    ours("write-quorum", int(1, 16), "2", Live)
        .doc("W: nodes that must have a write before it is acknowledged, if a client asks for no other number."),
    ours("database-quorum", Kind::Words(special::database_quorums), "", Live)
        .doc("A database with an R and W of its own: number, R, W. May be repeated. Empty: no database has."),
    ours("strict-databases", Kind::Words(special::strict_databases), "", Live).doc(
        "Databases in which only a key's owners count for R and W, and no stand-ins: numbers, or all. Then locks and \
         counters stay exact while nodes come and go, and writes fail where fewer than W owners are reachable.",
    ),
];

const DATA: &[Directive] = &[
    ours("dir", Kind::Path, "data", Protected).doc("Directory of this node's data; made if missing. One node each."),
    ours("appendfsync", Kind::Choice(FSYNC), "everysec", Live).doc(
        "When writes are forced to disk: always (before they are acknowledged), everysec, no (as the system likes).",
    ),
    ours("disk-free-min", bytes(0, LONG), "67108864", Live).doc(
        "Room that must be left on the disk: with less only deletions are taken in, with half of it nothing. 0: no limit.",
    ),
    ours("disk-stall-timeout", int(0, INT), "30", Live)
        .doc("Seconds without progress of a write after which the disk is taken for broken. 0: never."),
    ours("maxmemory", bytes(0, u64::MAX as i128), "0", Live)
        .doc("Memory for the cache of rows; the data itself is on disk, never evicted. 0: chosen automatically."),
    ours("databases", int(1, INT), "16", Fixed).doc("Number of databases that SELECT can choose from."),
];

const BACKGROUND: &[Directive] = &[
    ours("background-throttle", Kind::Bool, "yes", Live)
        .doc("Hold back background work (syncs, hints, clean-ups) while clients' commands are slow."),
    ours("background-limit-ms", int(0, 600_000), "0", Live).doc(
        "Milliseconds that 99 of 100 commands should not exceed. 0: twice what they take without background work.",
    ),
    ours("background-floor", bytes(1024, LONG), "1048576", Live)
        .doc("Bytes a second that background work may always take, so that it ends."),
    ours("sync-interval-ms", int(100, 86_400_000), "10000", Fixed)
        .doc("Milliseconds within which each partition is compared with each of its other owners, if they are live."),
    ours("hint-limit", bytes(0, LONG), "1073741824", Live)
        .doc("Most bytes of hints kept for owners that are away; beyond it they get whole regions back instead."),
];

const CLIENTS: &[Directive] = &[
    ours("maxclients", int(1, u32::MAX as i128), "10000", Live).doc("Clients that may be connected at once."),
    ours("proto-max-bulk-len", bytes(MEBIBYTE, LONG), "536870912", Live).doc("Longest argument of a request."),
    ours("client-query-buffer-limit", bytes(MEBIBYTE, LONG), "1073741824", Live)
        .doc("Most bytes of requests that may wait for one client."),
    ours("client-output-buffer-limit", Kind::Words(special::output_limits), OUTPUT_LIMITS, Live)
        .doc("Most bytes of replies that may wait for a client, by class: hard, soft, seconds above soft."),
    ours("notify-keyspace-events", Kind::Words(special::keyspace_events), "", Live)
        .doc("Which changes of keys are published to subscribers, as letters. Set it alike on all nodes."),
    ours("slowlog-log-slower-than", int(-1, LONG), "10000", Live)
        .doc("Microseconds from which a command is kept in the slow log. 0: every command. -1: none."),
    ours("slowlog-max-len", int(0, LONG), "128", Live).doc("How many commands the slow log keeps."),
];

const SECURITY: &[Directive] = &[
    ours("protected-mode", Kind::Bool, "yes", Live).doc("Without a password, serve clients of this machine only."),
    ours("requirepass", Kind::Text, "", Live).doc("Password that clients must give with AUTH. Empty: none."),
];

const PROCESS: &[Directive] = &[
    ours("loglevel", Kind::Choice(LOG_LEVEL), "notice", Live)
        .doc("How much is logged: debug, verbose, notice, warning, nothing."),
    ours("logfile", Kind::Text, "", Fixed)
        .doc("File to log to, opened for each line so that it can be rotated. Empty: standard output."),
    ours("log-format", Kind::Choice(LOG_FORMAT), "plain", Fixed)
        .doc("plain: lines as Redis writes them. json: one object a line."),
    ours("pidfile", Kind::Text, "", Fixed).doc("File that holds the process id while the node runs. Empty: none."),
    ours("supervised", Kind::Choice(SUPERVISED), "no", Fixed)
        .doc("Who is told that the node is ready: systemd, or auto to find out from the environment."),
    ours("io-threads", int(0, 128), "0", Fixed).doc(
        "Threads that serve clients and peers. 0: one for every two cores; more make commands wait for each other.",
    ),
    ours("exit-with-stdin", Kind::Bool, "no", Fixed)
        .doc("Stop when the standard input closes: whoever started this node is gone.")
        .hidden(),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// What redis-server 7.0.15 answers to `CONFIG GET *` with nothing configured: a name, a tab, a value.
    const REDIS_7_0: &str = include_str!("redis_7_0.txt");

    #[test]
    fn every_default_reads_as_itself() {
        for directive in all().filter(|directive| directive.name != "dir") {
            let words: Vec<String> = match directive.kind.takes_many() && !directive.default.is_empty() {
                true => directive.default.split(' ').map(str::to_owned).collect(),
                false => vec![directive.default.to_owned()],
            };
            if directive.name == "replicaof" {
                continue;
            }
            let read = directive.kind.read(&words, "");
            assert_eq!(read.as_deref(), Ok(directive.default), "{}", directive.name);
        }
    }

    #[test]
    fn no_name_is_declared_twice() {
        let mut seen = HashSet::new();
        for name in all().flat_map(|directive| std::iter::once(directive.name).chain(directive.alias)) {
            assert!(seen.insert(variable_part(name)), "{name}");
        }
    }

    #[test]
    fn every_name_that_redis_lists_is_known_with_its_default() {
        for line in REDIS_7_0.lines() {
            let (name, value) = line.split_once('\t').unwrap();
            let directive = find(name).unwrap_or_else(|| panic!("{name} is not known"));
            if directive.meaning != Meaning::Ours {
                assert_eq!(directive.default, value, "{name}");
            }
        }
        let of_7_2 = ["cluster-announce-human-nodename", "locale-collate", "set-max-listpack-entries"];
        assert!(of_7_2.iter().all(|name| find(name).is_some()));
    }

    #[test]
    fn names_are_found_in_any_case_and_by_alias() {
        assert_eq!(find("PORT").map(|directive| directive.name), Some("port"));
        assert_eq!(find("hash-max-ziplist-entries").map(|directive| directive.name), Some("hash-max-listpack-entries"));
        assert!(find("prt").is_none());
        assert_eq!(find("read-quorum").map(Directive::variable).as_deref(), Some("REDYNAMO_READ_QUORUM"));
    }

    #[test]
    fn every_setting_with_meaning_has_one_sentence_or_more() {
        for directive in GROUPS.iter().flat_map(|group| group.rows) {
            assert!(directive.doc.ends_with(['.', ')']), "{}", directive.name);
        }
    }
}
