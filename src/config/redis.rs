//! What Redis 7.2 knows and this store has no meaning for: accepted, checked and answered by `CONFIG GET` as there, so
//! that an existing redis.conf and every tool's `CONFIG SET` go through; and what would be dangerous to accept in
//! silence. Names, bounds and defaults are those of Redis 7.2.

use super::special;
use super::table::{Change, Change::Fixed, Change::Live, Change::Protected, Directive, Meaning, bytes, int};
use super::value::Kind;

const INT: i128 = i32::MAX as i128;
const UINT: i128 = u32::MAX as i128;
const LONG: i128 = i64::MAX as i128;
const UNSIGNED: i128 = u64::MAX as i128;

const CHANNELS: &[&str] = &["allchannels", "resetchannels"];
const DISKLESS_LOAD: &[&str] = &["disabled", "on-empty-db", "swapdb"];
const ENDPOINT: &[&str] = &["ip", "hostname", "unknown-endpoint"];
const EVICTION: &[&str] = &[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
];
const FACILITY: &[&str] = &["user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"];
const OOM_ADJUST: &[&str] = &["no", "yes", "relative", "absolute"];
const PROPAGATION: &[&str] = &["ignore", "panic", "panic-on-replicas"];
const PROTECTED_ACTION: &[&str] = &["no", "yes", "local"];
const SANITIZE: &[&str] = &["no", "yes", "clients"];
const SHUTDOWN: &[&str] = &["default", "save", "nosave", "now", "force"];
const TLS_AUTH: &[&str] = &["no", "yes", "optional"];

const NO_TLS: &str = "there is no TLS in this version: put a TLS proxy in front, or a private network between";

/// Directives whose harmless value is accepted and whose other values are refused with a reason.
pub(super) const REFUSED: &[Directive] = &[
    refused("aclfile", Kind::Text, "", Fixed, "there are no ACL users in this version: use requirepass"),
    refused(
        "daemonize",
        Kind::Bool,
        "no",
        Fixed,
        "a node does not put itself into the background: let a service manager (systemd, docker) run it, or add '&'",
    ),
    refused(
        "replicaof",
        Kind::Words(special::replica_of),
        "",
        Fixed,
        "every node is the same here, none replicates another: use 'join host:peer-port' to make a cluster",
    )
    .alias("slaveof"),
    refused("tls-cluster", Kind::Bool, "no", Live, NO_TLS),
    refused("tls-port", int(0, 65535), "0", Live, NO_TLS),
    refused("tls-replication", Kind::Bool, "no", Live, NO_TLS),
];

/// Directives that are accepted and do nothing, by name.
pub(super) const IGNORED: &[Directive] = &[
    ignored("acl-pubsub-default", Kind::Choice(CHANNELS), "resetchannels", Live),
    ignored("acllog-max-len", int(0, LONG), "128", Live),
    ignored("active-defrag-cycle-max", int(1, 99), "25", Live),
    ignored("active-defrag-cycle-min", int(1, 99), "1", Live),
    ignored("active-defrag-ignore-bytes", bytes(1, LONG), "104857600", Live),
    ignored("active-defrag-max-scan-fields", int(1, LONG), "1000", Live),
    ignored("active-defrag-threshold-lower", int(0, 1000), "10", Live),
    ignored("active-defrag-threshold-upper", int(0, 1000), "100", Live),
    ignored("active-expire-effort", int(1, 10), "1", Live),
    ignored("activedefrag", Kind::Bool, "no", Live),
    ignored("activerehashing", Kind::Bool, "yes", Live),
    ignored("always-show-logo", Kind::Bool, "no", Fixed),
    hidden("aof-disable-auto-gc", Kind::Bool, "no", Live),
    ignored("aof-load-truncated", Kind::Bool, "yes", Live),
    ignored("aof-rewrite-incremental-fsync", Kind::Bool, "yes", Live),
    ignored("aof-timestamp-enabled", Kind::Bool, "no", Live),
    ignored("aof-use-rdb-preamble", Kind::Bool, "yes", Live),
    ignored("aof_rewrite_cpulist", Kind::Text, "", Fixed),
    ignored("appenddirname", Kind::Text, "appendonlydir", Fixed),
    ignored("appendfilename", Kind::Text, "appendonly.aof", Fixed),
    ignored("appendonly", Kind::Bool, "no", Live),
    ignored("auto-aof-rewrite-min-size", bytes(0, LONG), "67108864", Live),
    ignored("auto-aof-rewrite-percentage", int(0, INT), "100", Live),
    ignored("bgsave_cpulist", Kind::Text, "", Fixed),
    ignored("bind-source-addr", Kind::Text, "", Live),
    ignored("bio_cpulist", Kind::Text, "", Fixed),
    ignored("busy-reply-threshold", int(0, LONG), "5000", Live).alias("lua-time-limit"),
    ignored("cluster-allow-pubsubshard-when-down", Kind::Bool, "yes", Live),
    ignored("cluster-allow-reads-when-down", Kind::Bool, "no", Live),
    ignored("cluster-allow-replica-migration", Kind::Bool, "yes", Live),
    ignored("cluster-announce-bus-port", int(0, 65535), "0", Live),
    ignored("cluster-announce-hostname", Kind::Words(special::host_name), "", Live),
    ignored("cluster-announce-human-nodename", Kind::Text, "", Live),
    ignored("cluster-announce-port", int(0, 65535), "0", Live),
    ignored("cluster-announce-tls-port", int(0, 65535), "0", Live),
    ignored("cluster-config-file", Kind::Text, "nodes.conf", Fixed),
    ignored("cluster-enabled", Kind::Bool, "no", Fixed),
    ignored("cluster-link-sendbuf-limit", bytes(0, UNSIGNED), "0", Live),
    ignored("cluster-migration-barrier", int(0, INT), "1", Live),
    ignored("cluster-node-timeout", int(0, LONG), "15000", Live),
    hidden("cluster-ping-interval", int(0, LONG), "0", Live),
    ignored("cluster-preferred-endpoint-type", Kind::Choice(ENDPOINT), "ip", Live),
    ignored("cluster-replica-no-failover", Kind::Bool, "no", Live).alias("cluster-slave-no-failover"),
    ignored("cluster-replica-validity-factor", int(0, INT), "10", Live).alias("cluster-slave-validity-factor"),
    ignored("cluster-require-full-coverage", Kind::Bool, "yes", Live),
    ignored("crash-log-enabled", Kind::Bool, "yes", Live),
    ignored("crash-memcheck-enabled", Kind::Bool, "yes", Live),
    ignored("dbfilename", Kind::Text, "dump.rdb", Protected),
    ignored("disable-thp", Kind::Bool, "yes", Fixed),
    ignored("dynamic-hz", Kind::Bool, "yes", Live),
    ignored("enable-debug-command", Kind::Choice(PROTECTED_ACTION), "no", Fixed),
    ignored("enable-module-command", Kind::Choice(PROTECTED_ACTION), "no", Fixed),
    ignored("enable-protected-configs", Kind::Choice(PROTECTED_ACTION), "no", Fixed),
    ignored("hash-max-listpack-entries", int(0, LONG), "512", Live).alias("hash-max-ziplist-entries"),
    ignored("hash-max-listpack-value", bytes(0, LONG), "64", Live).alias("hash-max-ziplist-value"),
    ignored("hll-sparse-max-bytes", bytes(0, LONG), "3000", Live),
    ignored("hz", int(0, INT), "10", Live),
    ignored("ignore-warnings", Kind::Text, "", Live),
    ignored("io-threads-do-reads", Kind::Bool, "no", Fixed),
    ignored("jemalloc-bg-thread", Kind::Bool, "yes", Live),
    hidden("key-load-delay", int(-INT - 1, INT), "0", Live),
    ignored("latency-monitor-threshold", int(0, LONG), "0", Live),
    ignored("latency-tracking", Kind::Bool, "yes", Live),
    ignored("latency-tracking-info-percentiles", Kind::Words(special::percentiles), "50 99 99.9", Live),
    ignored("lazyfree-lazy-eviction", Kind::Bool, "no", Live),
    ignored("lazyfree-lazy-expire", Kind::Bool, "no", Live),
    ignored("lazyfree-lazy-server-del", Kind::Bool, "no", Live),
    ignored("lazyfree-lazy-user-del", Kind::Bool, "no", Live),
    ignored("lazyfree-lazy-user-flush", Kind::Bool, "no", Live),
    ignored("lfu-decay-time", int(0, INT), "1", Live),
    ignored("lfu-log-factor", int(0, INT), "10", Live),
    ignored("list-compress-depth", int(0, INT), "0", Live),
    ignored("list-max-listpack-size", int(-INT - 1, INT), "-2", Live).alias("list-max-ziplist-size"),
    hidden("loading-process-events-interval-bytes", int(1024, INT), "2097152", Live),
    ignored("locale-collate", Kind::Text, "", Live),
    ignored("masterauth", Kind::Text, "", Live),
    ignored("masteruser", Kind::Text, "", Live),
    ignored("maxmemory-clients", Kind::BytesOrPercent, "0", Live),
    ignored("maxmemory-eviction-tenacity", int(0, 100), "10", Live),
    ignored("maxmemory-policy", Kind::Choice(EVICTION), "noeviction", Live),
    ignored("maxmemory-samples", int(1, INT), "5", Live),
    ignored("min-replicas-max-lag", int(0, INT), "10", Live).alias("min-slaves-max-lag"),
    ignored("min-replicas-to-write", int(0, INT), "0", Live).alias("min-slaves-to-write"),
    ignored("no-appendfsync-on-rewrite", Kind::Bool, "no", Live),
    ignored("oom-score-adj", Kind::Choice(OOM_ADJUST), "no", Live),
    ignored("oom-score-adj-values", Kind::Words(special::oom_scores), "0 200 800", Live),
    ignored("proc-title-template", Kind::Text, "{title} {listen-addr} {server-mode}", Live),
    ignored("propagation-error-behavior", Kind::Choice(PROPAGATION), "ignore", Live),
    ignored("rdb-del-sync-files", Kind::Bool, "no", Live),
    hidden("rdb-key-save-delay", int(-INT - 1, INT), "0", Live),
    ignored("rdb-save-incremental-fsync", Kind::Bool, "yes", Live),
    ignored("rdbchecksum", Kind::Bool, "yes", Fixed),
    ignored("rdbcompression", Kind::Bool, "yes", Live),
    ignored("repl-backlog-size", bytes(1, LONG), "1048576", Live),
    ignored("repl-backlog-ttl", int(0, LONG), "3600", Live),
    ignored("repl-disable-tcp-nodelay", Kind::Bool, "no", Live),
    ignored("repl-diskless-load", Kind::Choice(DISKLESS_LOAD), "disabled", Live),
    ignored("repl-diskless-sync", Kind::Bool, "yes", Live),
    ignored("repl-diskless-sync-delay", int(0, INT), "5", Live),
    ignored("repl-diskless-sync-max-replicas", int(0, INT), "0", Live),
    ignored("repl-ping-replica-period", int(1, INT), "10", Live).alias("repl-ping-slave-period"),
    ignored("repl-timeout", int(1, INT), "60", Live),
    ignored("replica-announce-ip", Kind::Text, "", Live).alias("slave-announce-ip"),
    ignored("replica-announce-port", int(0, 65535), "0", Live).alias("slave-announce-port"),
    ignored("replica-announced", Kind::Bool, "yes", Live),
    ignored("replica-ignore-disk-write-errors", Kind::Bool, "no", Live),
    ignored("replica-ignore-maxmemory", Kind::Bool, "yes", Live).alias("slave-ignore-maxmemory"),
    ignored("replica-lazy-flush", Kind::Bool, "no", Live).alias("slave-lazy-flush"),
    ignored("replica-priority", int(0, INT), "100", Live).alias("slave-priority"),
    ignored("replica-read-only", Kind::Bool, "yes", Live).alias("slave-read-only"),
    ignored("replica-serve-stale-data", Kind::Bool, "yes", Live).alias("slave-serve-stale-data"),
    ignored("sanitize-dump-payload", Kind::Choice(SANITIZE), "no", Live),
    ignored("save", Kind::Words(special::save), "3600 1 300 100 60 10000", Live),
    ignored("server_cpulist", Kind::Text, "", Fixed),
    ignored("set-max-intset-entries", int(0, LONG), "512", Live),
    ignored("set-max-listpack-entries", int(0, LONG), "128", Live),
    ignored("set-max-listpack-value", int(0, LONG), "64", Live),
    ignored("set-proc-title", Kind::Bool, "yes", Fixed),
    ignored("shutdown-on-sigint", Kind::Flags(SHUTDOWN), "default", Live),
    ignored("shutdown-on-sigterm", Kind::Flags(SHUTDOWN), "default", Live),
    ignored("shutdown-timeout", int(0, INT), "10", Live),
    ignored("socket-mark-id", int(0, UINT), "0", Fixed),
    ignored("stop-writes-on-bgsave-error", Kind::Bool, "yes", Live),
    ignored("stream-node-max-bytes", bytes(0, LONG), "4096", Live),
    ignored("stream-node-max-entries", int(0, LONG), "100", Live),
    ignored("syslog-enabled", Kind::Bool, "no", Fixed),
    ignored("syslog-facility", Kind::Choice(FACILITY), "local0", Fixed),
    ignored("syslog-ident", Kind::Text, "redis", Fixed),
    ignored("tls-auth-clients", Kind::Choice(TLS_AUTH), "yes", Live),
    ignored("tls-ca-cert-dir", Kind::Text, "", Live),
    ignored("tls-ca-cert-file", Kind::Text, "", Live),
    ignored("tls-cert-file", Kind::Text, "", Live),
    ignored("tls-ciphers", Kind::Text, "", Live),
    ignored("tls-ciphersuites", Kind::Text, "", Live),
    ignored("tls-client-cert-file", Kind::Text, "", Live),
    ignored("tls-client-key-file", Kind::Text, "", Live),
    ignored("tls-client-key-file-pass", Kind::Text, "", Live),
    ignored("tls-dh-params-file", Kind::Text, "", Live),
    ignored("tls-key-file", Kind::Text, "", Live),
    ignored("tls-key-file-pass", Kind::Text, "", Live),
    ignored("tls-prefer-server-ciphers", Kind::Bool, "no", Live),
    ignored("tls-protocols", Kind::Text, "", Live),
    ignored("tls-session-cache-size", int(0, INT), "20480", Live),
    ignored("tls-session-cache-timeout", int(0, INT), "300", Live),
    ignored("tls-session-caching", Kind::Bool, "yes", Live),
    ignored("tracking-table-max-keys", int(0, LONG), "1000000", Live),
    ignored("unixsocket", Kind::Text, "", Fixed),
    ignored("unixsocketperm", Kind::Octal { max: 0o777 }, "0", Fixed),
    hidden("use-exit-on-panic", Kind::Bool, "no", Live),
    hidden("watchdog-period", int(0, INT), "0", Live),
    ignored("zset-max-listpack-entries", int(0, LONG), "128", Live).alias("zset-max-ziplist-entries"),
    ignored("zset-max-listpack-value", bytes(0, LONG), "64", Live).alias("zset-max-ziplist-value"),
];

const fn ignored(name: &'static str, kind: Kind, default: &'static str, change: Change) -> Directive {
    let doc = "A directive of Redis without meaning here.";
    Directive { name, alias: None, kind, default, change, meaning: Meaning::Ignored, doc, hidden: false }
}

/// As [`ignored`], and listed by no pattern: Redis uses these for its own tests.
const fn hidden(name: &'static str, kind: Kind, default: &'static str, change: Change) -> Directive {
    Directive { hidden: true, ..ignored(name, kind, default, change) }
}

const fn refused(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    change: Change,
    why: &'static str,
) -> Directive {
    Directive { meaning: Meaning::Refused, doc: why, ..ignored(name, kind, default, change) }
}
