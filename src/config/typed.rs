//! The settings as the program reads them: typed, checked together, with derived values filled in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::table::{self, Directive};
use super::types::{Bind, Fsync, LogFormat, LogLevel, OutputLimit, Secret, StrictDatabases, Supervised, is_loopback};
use super::value::Kind;

/// The peer port of a node whose `port` is Redis' 6379.
pub(super) const DEFAULT_PEER_PORT: u16 = 6379 + PEER_PORT_OFFSET;

const PEER_PORT_OFFSET: u16 = 10_000;
const ADMIN_PORT_OFFSET: u16 = 20_000;
const LOOPBACK: &str = "127.0.0.1 -::1";

/// Canonical texts by name; a directive that is missing has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Values {
    given: BTreeMap<&'static str, String>,
}

impl Values {
    /// The text of a setting.
    pub(super) fn text(&self, directive: &Directive) -> &str {
        self.given.get(directive.name).map_or(directive.default, String::as_str)
    }

    /// Gives a setting a text.
    pub(super) fn put(&mut self, directive: &Directive, text: String) {
        self.given.insert(directive.name, text);
    }

    fn named(&self, name: &'static str) -> &str {
        table::find(name).map_or("", |directive| self.text(directive))
    }

    fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, Unfit> {
        self.named(name).parse().map_err(|_| Unfit::new(name, "the number is too large for this machine"))
    }

    fn yes(&self, name: &'static str) -> bool {
        self.named(name) == "yes"
    }

    fn owned(&self, name: &'static str) -> String {
        self.named(name).to_owned()
    }

    fn optional(&self, name: &'static str) -> Option<String> {
        Some(self.owned(name)).filter(|text| !text.is_empty())
    }

    fn milliseconds(&self, name: &'static str) -> Result<Duration, Unfit> {
        self.number(name).map(Duration::from_millis)
    }

    /// Seconds, where 0 stands for never.
    fn seconds(&self, name: &'static str) -> Result<Option<Duration>, Unfit> {
        Ok(Some(self.number(name)?).filter(|seconds| *seconds > 0).map(Duration::from_secs))
    }
}

/// Settings that do not fit together: the one to change, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) name: &'static str,
    pub(super) why: String,
}

impl Unfit {
    fn new(name: &'static str, why: impl Into<String>) -> Unfit {
        Unfit { name, why: why.into() }
    }
}

/// A snapshot of the settings. Made whole, never changed: [`super::Settings`] swaps one for the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Addresses for clients and for the admin port.
    pub bind: Vec<Bind>,
    /// Port of the plain face; `None`: not served.
    pub port: Option<u16>,
    /// Port of the cluster face; `None`: not served.
    pub cluster_port: Option<u16>,
    /// Addresses for other nodes.
    pub peer_bind: Vec<Bind>,
    /// Port for other nodes.
    pub peer_port: u16,
    /// Port for /metrics and /health; `None`: not served.
    pub admin_port: Option<u16>,
    /// Address that others are told to use for this node; `None`: the one they see.
    pub announce_ip: Option<String>,
    /// Connections that the kernel may hold before they are accepted.
    pub tcp_backlog: u32,
    /// Silence after which a client's connection is probed.
    pub tcp_keepalive: Option<Duration>,
    /// Idleness after which a client is disconnected.
    pub timeout: Option<Duration>,
    /// Peer addresses of nodes to join, `host:port`.
    pub join: Vec<String>,
    /// What this node is called.
    pub node_name: String,
    /// Nodes of another cluster name are turned away.
    pub cluster_name: String,
    /// What nodes prove to each other that they know.
    pub cluster_secret: Option<Secret>,
    /// What fails together with this node.
    pub zone: String,
    /// Share of the data, against the weights of other nodes.
    pub weight: u32,
    /// Pieces of the key space; a power of two.
    pub partitions: u16,
    /// How long another node may take for an answer.
    pub peer_timeout: Duration,
    /// Silence after which another node is taken for dead.
    pub failure_timeout: Duration,
    /// By how much another node's clock may be ahead.
    pub max_clock_skew: Duration,
    /// N.
    pub replicas: u8,
    /// R.
    pub read_quorum: u8,
    /// W.
    pub write_quorum: u8,
    /// Databases with quorums of their own: database, R, W; in order of the databases.
    pub database_quorums: Vec<(u8, u8, u8)>,
    /// Databases in which only owners count, and no stand-ins.
    pub strict_databases: StrictDatabases,
    /// Directory of the data, absolute.
    pub dir: PathBuf,
    /// When writes are forced to disk.
    pub fsync: Fsync,
    /// Bytes that must be free on the disk; 0: no limit.
    pub disk_free_min: u64,
    /// How long a write may make no progress; `None`: for ever.
    pub disk_stall_timeout: Option<Duration>,
    /// Bytes for the cache of rows; `None`: chosen from the machine's memory.
    pub maxmemory: Option<u64>,
    /// Databases that SELECT can choose from.
    pub databases: u32,
    /// Whether background work is held back while commands are slow.
    pub background_throttle: bool,
    /// What 99 of 100 commands should not exceed; `None`: derived.
    pub background_limit: Option<Duration>,
    /// Bytes a second that background work may always take.
    pub background_floor: u64,
    /// Within which time each partition is compared with each of its other owners.
    pub sync_interval: Duration,
    /// Most bytes of hints.
    pub hint_limit: u64,
    /// Clients that may be connected at once.
    pub maxclients: u32,
    /// Longest argument of a request, in bytes.
    pub proto_max_bulk_len: u64,
    /// Most bytes of requests that may wait for one client.
    pub client_query_buffer_limit: u64,
    /// Limits of replies waiting for clients that are not in a subscription.
    pub output_limit: OutputLimit,
    /// Limits of messages waiting for subscribers.
    pub pubsub_output_limit: OutputLimit,
    /// Which changes of keys are published, as letters.
    pub keyspace_events: String,
    /// How long a command takes that belongs into the slow log; `None`: none does.
    pub slowlog_slower_than: Option<Duration>,
    /// How many commands the slow log keeps.
    pub slowlog_max_len: usize,
    /// Without a password, serve this machine only.
    pub protected_mode: bool,
    /// Password of clients.
    pub requirepass: Option<Secret>,
    /// How much is logged.
    pub log_level: LogLevel,
    /// File to log to; `None`: standard output.
    pub log_file: Option<PathBuf>,
    /// Form of log lines.
    pub log_format: LogFormat,
    /// File that holds the process id.
    pub pid_file: Option<PathBuf>,
    /// Who is told that the node is ready.
    pub supervised: Supervised,
    /// Threads that serve clients and peers; `None`: one for every two cores.
    pub io_threads: Option<usize>,
    /// Stop when the standard input closes.
    pub exit_with_stdin: bool,
}

impl Config {
    /// The snapshot of `values`, if they fit together.
    pub(super) fn from_values(values: &Values) -> Result<Config, Unfit> {
        let config = Config::read(values)?;
        config.check()?;
        Ok(config)
    }

    fn read(values: &Values) -> Result<Config, Unfit> {
        let port = non_zero(values.number("port")?);
        let cluster_port = non_zero(values.number("cluster-port")?);
        let base = port.or(cluster_port).ok_or_else(|| Unfit::new("port", "port and cluster-port cannot both be 0"))?;
        let limit = |class| output_limit(values, class);
        Ok(Config {
            bind: Bind::list(values.named("bind")),
            port,
            cluster_port,
            peer_bind: peer_bind(values),
            peer_port: derived_port(values, "peer-port", base, PEER_PORT_OFFSET)?,
            admin_port: match values.named("admin-port") {
                "off" => None,
                _ => Some(derived_port(values, "admin-port", base, ADMIN_PORT_OFFSET)?),
            },
            announce_ip: values.optional("cluster-announce-ip"),
            tcp_backlog: values.number("tcp-backlog")?,
            tcp_keepalive: values.seconds("tcp-keepalive")?,
            timeout: values.seconds("timeout")?,
            join: values.named("join").split_whitespace().map(str::to_owned).collect(),
            node_name: values.optional("node-name").unwrap_or_else(|| format!("{}-{base}", host_name())),
            cluster_name: values.owned("cluster-name"),
            cluster_secret: values.optional("cluster-secret").map(Secret::new),
            zone: values.owned("zone"),
            weight: values.number("weight")?,
            partitions: values.number("partitions")?,
            peer_timeout: values.milliseconds("peer-timeout-ms")?,
            failure_timeout: values.milliseconds("failure-timeout-ms")?,
            max_clock_skew: values.milliseconds("max-clock-skew-ms")?,
            replicas: values.number("replicas")?,
            read_quorum: values.number("read-quorum")?,
            write_quorum: values.number("write-quorum")?,
            database_quorums: database_quorums(values),
            strict_databases: strict_databases(values),
            dir: directory(values)?,
            fsync: Fsync::from_text(values.named("appendfsync")),
            disk_free_min: values.number("disk-free-min")?,
            disk_stall_timeout: values.seconds("disk-stall-timeout")?,
            maxmemory: Some(values.number("maxmemory")?).filter(|bytes| *bytes > 0),
            databases: values.number("databases")?,
            background_throttle: values.yes("background-throttle"),
            background_limit: Some(values.milliseconds("background-limit-ms")?).filter(|limit| !limit.is_zero()),
            background_floor: values.number("background-floor")?,
            sync_interval: values.milliseconds("sync-interval-ms")?,
            hint_limit: values.number("hint-limit")?,
            maxclients: values.number("maxclients")?,
            proto_max_bulk_len: values.number("proto-max-bulk-len")?,
            client_query_buffer_limit: values.number("client-query-buffer-limit")?,
            output_limit: limit("normal"),
            pubsub_output_limit: limit("pubsub"),
            keyspace_events: values.owned("notify-keyspace-events"),
            slowlog_slower_than: u64::try_from(values.number::<i64>("slowlog-log-slower-than")?)
                .ok()
                .map(Duration::from_micros),
            slowlog_max_len: values.number("slowlog-max-len")?,
            protected_mode: values.yes("protected-mode"),
            requirepass: values.optional("requirepass").map(Secret::new),
            log_level: LogLevel::from_text(values.named("loglevel")),
            log_file: values.optional("logfile").map(PathBuf::from),
            log_format: LogFormat::from_text(values.named("log-format")),
            pid_file: values.optional("pidfile").map(PathBuf::from),
            supervised: Supervised::from_text(values.named("supervised")),
            io_threads: Some(values.number("io-threads")?).filter(|threads| *threads > 0),
            exit_with_stdin: values.yes("exit-with-stdin"),
        })
    }

    /// What no single row of the table can know.
    fn check(&self) -> Result<(), Unfit> {
        let n = self.replicas;
        let fits = [
            (self.read_quorum <= n, "read-quorum", format!("no more than replicas ({n}) can answer a read")),
            (self.write_quorum <= n, "write-quorum", format!("no more than replicas ({n}) can acknowledge a write")),
            (self.partitions.is_power_of_two(), "partitions", "must be a power of two".to_owned()),
            (!self.bind.is_empty(), "bind", "at least one address is needed".to_owned()),
            (is_name(&self.cluster_name), "cluster-name", NAME_RULE.to_owned()),
            (is_name(&self.node_name), "node-name", NAME_RULE.to_owned()),
            (is_name(&self.zone), "zone", NAME_RULE.to_owned()),
        ];
        if let Some((_, name, why)) = fits.into_iter().find(|(fits, _, _)| !fits) {
            return Err(Unfit::new(name, why));
        }
        self.check_database_quorums()?;
        self.check_strict_databases()?;
        self.check_ports()?;
        self.check_secret()
    }

    fn check_database_quorums(&self) -> Result<(), Unfit> {
        let (n, databases) = (self.replicas, self.databases);
        for (db, read, write) in &self.database_quorums {
            let why = match () {
                () if u32::from(*db) >= databases => format!("there is no database {db}: databases is {databases}"),
                () if read.max(write) > &n => format!("R and W of database {db} can be no more than replicas ({n})"),
                () => continue,
            };
            return Err(Unfit::new("database-quorum", why));
        }
        Ok(())
    }

    fn check_strict_databases(&self) -> Result<(), Unfit> {
        let StrictDatabases::These(named) = &self.strict_databases else { return Ok(()) };
        match named.iter().find(|db| u32::from(**db) >= self.databases) {
            None => Ok(()),
            Some(db) => {
                let why = format!("there is no database {db}: databases is {}", self.databases);
                Err(Unfit::new("strict-databases", why))
            }
        }
    }

    fn check_ports(&self) -> Result<(), Unfit> {
        let ports = [
            ("port", self.port),
            ("cluster-port", self.cluster_port),
            ("peer-port", Some(self.peer_port)),
            ("admin-port", self.admin_port),
        ];
        for (i, (name, port)) in ports.iter().enumerate() {
            let twin = ports.iter().take(i).find(|(_, other)| port.is_some() && other == port);
            if let (Some(port), Some((other, _))) = (port, twin) {
                return Err(Unfit::new(name, format!("{name} and {other} are both {port}")));
            }
        }
        Ok(())
    }

    /// Without a secret nodes trust whoever calls, so that only this machine may call.
    fn check_secret(&self) -> Result<(), Unfit> {
        if self.cluster_secret.is_some() {
            return Ok(());
        }
        let open = self.peer_bind.iter().find(|bind| !bind.is_loopback());
        if let Some(open) = open {
            let why = format!("nodes may be reached at {} only if there is a cluster-secret", open.host);
            return Err(Unfit::new("peer-bind", why));
        }
        let remote = self.join.iter().find(|address| !is_loopback(host_of(address)));
        if let Some(remote) = remote {
            let why = format!("joining {remote}, on another machine, needs a cluster-secret, the same on every node");
            return Err(Unfit::new("cluster-secret", why));
        }
        Ok(())
    }

    /// What an operator wants to see when a node starts, one line each: data, names, quorums, addresses.
    pub fn facts(&self) -> Vec<String> {
        let mut facts = vec![
            format!("Node {} of cluster {} in zone {}", self.node_name, self.cluster_name, self.zone),
            format!("Data in {}", self.dir.display()),
            format!("{} replicas, reads need {}, writes need {}", self.replicas, self.read_quorum, self.write_quorum),
        ];
        for (db, read, write) in &self.database_quorums {
            facts.push(format!("In database {db} reads need {read}, writes need {write}"));
        }
        let faces = [("clients", self.port), ("cluster clients", self.cluster_port)];
        for (who, port) in faces.into_iter().filter_map(|(who, port)| Some((who, port?))) {
            facts.push(format!("Serving {who} on {}", addresses(&self.bind, port)));
        }
        facts.push(format!("Serving nodes on {}", addresses(&self.peer_bind, self.peer_port)));
        if !self.join.is_empty() {
            facts.push(format!("Joining {}", self.join.join(", ")));
        }
        if let Some(url) = self.metrics_url() {
            facts.push(format!("Metrics at {url}"));
        }
        facts
    }

    /// Where Prometheus finds this node, as seen from this machine.
    pub fn metrics_url(&self) -> Option<String> {
        Some(format!("http://{}/metrics", join_port(self.local_host(), self.admin_port?)))
    }

    /// `host:port` at which a program on this machine reaches the plain face, or the cluster face if that is all.
    pub fn client_address(&self) -> String {
        join_port(self.local_host(), self.port.or(self.cluster_port).unwrap_or_default())
    }

    /// An address of this node that is reachable from this machine.
    fn local_host(&self) -> &str {
        match self.bind.first().map_or("", |bind| bind.host.as_str()) {
            "" | "0.0.0.0" => "127.0.0.1",
            "::" => "::1",
            host => host,
        }
    }
}

const NAME_RULE: &str = "must be 1 to 128 letters, digits, '-', '_', '.' or ':'";

fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    (1..=128).contains(&text.len()) && text.chars().all(fits)
}

fn non_zero(port: u16) -> Option<u16> {
    Some(port).filter(|port| *port > 0)
}

fn derived_port(values: &Values, name: &'static str, base: u16, offset: u16) -> Result<u16, Unfit> {
    if let Some(port) = non_zero(values.number(name)?) {
        return Ok(port);
    }
    let why = || Unfit::new(name, format!("{base} + {offset} is no port: give {name} one"));
    base.checked_add(offset).ok_or_else(why)
}

fn peer_bind(values: &Values) -> Vec<Bind> {
    let given = Bind::list(values.named("peer-bind"));
    if !given.is_empty() {
        return given;
    }
    let bind = Bind::list(values.named("bind"));
    if values.optional("cluster-secret").is_some() || bind.iter().all(Bind::is_loopback) {
        return bind;
    }
    Bind::list(LOOPBACK)
}

fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

fn addresses(bind: &[Bind], port: u16) -> String {
    bind.iter().map(|bind| join_port(&bind.host, port)).collect::<Vec<_>>().join(", ")
}

fn join_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The default is relative until somebody asks for it.
fn directory(values: &Values) -> Result<PathBuf, Unfit> {
    let text = Kind::Path.read(&[values.owned("dir")], "");
    text.map(PathBuf::from).map_err(|why| Unfit::new("dir", why))
}

/// This machine's name, as the kernel or the environment has it.
fn host_name() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let name = name.trim();
    if is_name(name) { name.to_owned() } else { "node".to_owned() }
}

fn database_quorums(values: &Values) -> Vec<(u8, u8, u8)> {
    let numbers: Vec<u8> =
        values.named("database-quorum").split_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers.as_chunks().0.iter().map(|[db, read, write]| (*db, *read, *write)).collect()
}

fn strict_databases(values: &Values) -> StrictDatabases {
    match values.named("strict-databases") {
        "all" => StrictDatabases::All,
        named => StrictDatabases::These(named.split_whitespace().filter_map(|word| word.parse().ok()).collect()),
    }
}

fn output_limit(values: &Values, class: &str) -> OutputLimit {
    let words: Vec<&str> = values.named("client-output-buffer-limit").split_whitespace().collect();
    let group = words.chunks_exact(4).find(|group| group.first() == Some(&class)).unwrap_or_default();
    let number = |i: usize| group.get(i).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    OutputLimit { hard: number(1), soft: number(2), soft_for: Duration::from_secs(number(3)) }
}

#[cfg(test)]
mod tests {
    use super::super::Sources;
    use super::*;
    use std::sync::Arc;

    fn config(text: &str) -> Arc<Config> {
        Sources { stdin: Some(text.to_owned()), ..Sources::default() }.load().unwrap().config()
    }

    #[test]
    fn a_node_without_settings_is_complete() {
        let config = config("");
        assert_eq!((config.port, config.cluster_port), (Some(6379), None));
        assert_eq!((config.peer_port, config.admin_port), (16379, Some(26379)));
        assert_eq!((config.replicas, config.read_quorum, config.write_quorum), (3, 2, 2));
        assert_eq!(config.bind.iter().map(|bind| bind.optional).collect::<Vec<_>>(), [false, true]);
        assert!(config.node_name.ends_with("-6379") && config.dir.is_absolute());
        assert_eq!((config.maxmemory, config.io_threads, config.timeout), (None, None, None));
        assert_eq!(config.tcp_keepalive, Some(Duration::from_secs(300)));
    }

    #[test]
    fn ports_follow_from_the_one_that_is_served() {
        assert_eq!(config("port 7000").peer_port, 17000);
        assert_eq!(config("port 0\ncluster-port 7000").admin_port, Some(27000));
        assert_eq!(config("admin-port off").admin_port, None);
        assert_eq!(config("port 60000\npeer-port 1\nadmin-port off").peer_port, 1);
    }

    #[test]
    fn other_nodes_are_served_beyond_loopback_only_with_a_secret() {
        let hosts = |text| config(text).peer_bind.iter().map(|bind| bind.host.clone()).collect::<Vec<_>>();
        assert_eq!(hosts(""), ["127.0.0.1", "::1"]);
        assert_eq!(hosts("bind *"), ["127.0.0.1", "::1"]);
        assert_eq!(hosts("bind * ::*\ncluster-secret x"), ["0.0.0.0", "::"]);
        assert_eq!(hosts("bind *\ncluster-secret x\npeer-bind 10.0.0.1"), ["10.0.0.1"]);
    }

    #[test]
    fn databases_in_which_only_owners_count_are_named_or_all() {
        assert_eq!(config("").strict_databases, StrictDatabases::These(vec![]));
        assert_eq!(config("strict-databases 7 2 7").strict_databases, StrictDatabases::These(vec![2, 7]));
        assert!(config("strict-databases ALL").strict_databases.contains(200));
        let why = |text: &str| Sources { stdin: Some(text.to_owned()), ..Sources::default() }.load().unwrap_err().why;
        assert!(why("strict-databases 16").contains("no database 16"));
        assert!(why("strict-databases 1 all").contains("'all' is no database"));
    }

    #[test]
    fn databases_may_have_quorums_of_their_own_that_fit_the_others() {
        assert_eq!(config("").database_quorums, []);
        let text = "database-quorum 5 2 2\ndatabase-quorum 0 3 3\ndatabase-quorum 0 1 3";
        assert_eq!(config(text).database_quorums, [(0, 1, 3), (5, 2, 2)]);
        let why = |text: &str| Sources { stdin: Some(text.to_owned()), ..Sources::default() }.load().unwrap_err().why;
        assert!(why("database-quorum 16 1 1").contains("no database 16"));
        assert!(why("database-quorum 1 1 4").contains("database 1 can be no more than replicas (3)"));
        assert!(why("replicas 1\nread-quorum 1\nwrite-quorum 1\ndatabase-quorum 2 2 1").contains("replicas (1)"));
        let environment = vec![("REDYNAMO_DATABASE_QUORUM".to_owned(), "1 1 3 2 3 1".to_owned())];
        let settings = Sources { environment, ..Sources::default() }.load().unwrap();
        assert_eq!(settings.config().database_quorums, [(1, 1, 3), (2, 3, 1)]);
    }

    #[test]
    fn facts_name_what_an_operator_looks_for() {
        let facts = config("port 7000\nbind * ::1\njoin localhost\ncluster-name c").facts().join("\n");
        let parts = ["cluster c", "0.0.0.0:7000, [::1]:7000", "127.0.0.1:17000", "localhost:16379", "27000/metrics"];
        for part in parts {
            assert!(facts.contains(part), "{part} in {facts}");
        }
    }
}
