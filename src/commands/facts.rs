//! Facts: what a node knows of itself and its connections, as plain data for INFO, CLIENT LIST, MEMORY and their kin.
//!
//! Whoever runs the node fills them in; how they are shown is [`super::info`]'s and [`super::client_list`]'s business.

use bytes::Bytes;

use super::session::{Protocol, Session};
use crate::base::id::Db;

/// What a node knows of itself. Sums run since its start or since `CONFIG RESETSTAT`.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The process and the machine.
    pub server: ServerFacts,
    /// Connections.
    pub clients: ClientsFacts,
    /// Memory.
    pub memory: MemoryFacts,
    /// Disk.
    pub persistence: PersistenceFacts,
    /// What was done.
    pub stats: StatsFacts,
    /// Processor time.
    pub cpu: CpuFacts,
    /// Commands that were called, in the order of their names.
    pub commands: Vec<CommandFacts>,
    /// Error codes (`ERR`, `WRONGTYPE`) with how often they were answered, in the order of the codes.
    pub errors: Vec<(String, u64)>,
    /// Databases that have keys, in the order of their numbers.
    pub keyspace: Vec<KeyspaceFacts>,
    /// This store's own section: names in snake case, texts without line ends.
    pub own: Vec<(&'static str, String)>,
}

/// The process and the machine.
#[derive(Debug, Clone, Default)]
pub struct ServerFacts {
    /// Kernel name, release, architecture: `Linux 6.1.0 x86_64`.
    pub os: String,
    /// Who is told that the node is ready: `no`, `systemd`, `unknown` (whoever the environment names).
    pub supervised: &'static str,
    /// Process id.
    pub process_id: u32,
    /// 40 hex digits, other ones after each start.
    pub run_id: String,
    /// Whether whoever asks came to the cluster face.
    pub cluster_face: bool,
    /// The port of the plain face; 0 if it is not open.
    pub tcp_port: u16,
    /// Wall time in microseconds since the epoch.
    pub now_us: u64,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Absolute path of the program.
    pub executable: String,
    /// Absolute path of the configuration file; empty without one.
    pub config_file: String,
}

/// The cluster as its other face shows it.
#[derive(Debug, Clone, Default)]
pub struct ClusterFacts {
    /// Nodes that have such a face, in the order of their ids.
    pub nodes: Vec<ClusterNode>,
    /// Runs of slots in order: first, last, and the place of who answers for them among the nodes.
    pub slots: Vec<(u16, u16, usize)>,
    /// Differs when what clients keep of it differs.
    pub hash: u64,
}

/// A node of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterNode {
    /// 40 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where clients reach it; empty for "where you reached me".
    pub host: String,
    /// The port of its cluster face.
    pub port: u16,
    /// Its port for other nodes.
    pub peer_port: u16,
    /// When it was started, in milliseconds since the epoch.
    pub started_ms: u64,
    /// It answers.
    pub live: bool,
    /// It is the one that is asked.
    pub myself: bool,
}

/// Connections.
#[derive(Debug, Clone, Default)]
pub struct ClientsFacts {
    /// Open now.
    pub connected: u64,
    /// Most that may be open: `maxclients`.
    pub max: u64,
    /// Waiting in WAIT or WAITAOF.
    pub blocked: u64,
    /// Largest input buffer lately, in bytes.
    pub max_input_buffer: u64,
    /// Largest output buffer lately, in bytes.
    pub max_output_buffer: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default)]
pub struct MemoryFacts {
    /// Allocated by the program.
    pub used: u64,
    /// The most that was ever allocated.
    pub peak: u64,
    /// Allocated when the node was ready to accept connections.
    pub startup: u64,
    /// Resident, as the kernel counts.
    pub rss: u64,
    /// In active pages of the allocator.
    pub active: u64,
    /// In pages that the allocator keeps resident.
    pub resident: u64,
    /// Of the machine, or of its control group.
    pub total_system: u64,
    /// The limit in effect: never 0, since dashboards divide by it.
    pub limit: u64,
    /// In buffers of clients.
    pub clients: u64,
    /// In rows kept in memory.
    pub dataset: u64,
    /// The allocator's name and version: `jemalloc-5.3.0`.
    pub allocator: String,
}

/// Disk.
#[derive(Debug, Clone, Default)]
pub struct PersistenceFacts {
    /// The node is still reading its data.
    pub loading: bool,
    /// Row changes that are not yet known to be on disk.
    pub unsynced_changes: u64,
    /// When all that had been written was last known to be on disk, in seconds since the epoch.
    pub last_sync_s: u64,
    /// The last write or sync did not fail.
    pub writable: bool,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Bytes waiting to be written.
    pub buffered_bytes: u64,
    /// Syncs that had to wait for the one before.
    pub delayed_syncs: u64,
}

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct StatsFacts {
    /// Connections accepted.
    pub connections: u64,
    /// Channels that this node's clients are subscribed to.
    pub channels: u64,
    /// Patterns likewise.
    pub patterns: u64,
    /// Shard channels likewise.
    pub shards: u64,
    /// Connections refused for want of room.
    pub rejected_connections: u64,
    /// Commands run.
    pub commands: u64,
    /// Commands a second, lately.
    pub commands_per_s: u64,
    /// Bytes from clients.
    pub net_input_bytes: u64,
    /// Bytes to clients.
    pub net_output_bytes: u64,
    /// Bytes from other nodes.
    pub peer_input_bytes: u64,
    /// Bytes to other nodes.
    pub peer_output_bytes: u64,
    /// Kilobytes a second from clients, lately.
    pub input_kbps: f64,
    /// Kilobytes a second to clients, lately.
    pub output_kbps: f64,
    /// Keys removed because their time was over.
    pub expired_keys: u64,
    /// Reads that found their key.
    pub keyspace_hits: u64,
    /// Reads that did not.
    pub keyspace_misses: u64,
    /// Errors answered.
    pub error_replies: u64,
    /// Reads from sockets.
    pub reads: u64,
    /// Writes to sockets.
    pub writes: u64,
}

/// Processor time of the process, in microseconds.
#[derive(Debug, Clone, Default)]
pub struct CpuFacts {
    /// In the kernel.
    pub system_us: u64,
    /// In the program.
    pub user_us: u64,
}

/// A command's share of what was done.
#[derive(Debug, Clone, Default)]
pub struct CommandFacts {
    /// `get`, `client|list`.
    pub name: String,
    /// Times run.
    pub calls: u64,
    /// Time in it, in microseconds.
    pub usec: u64,
    /// Refused before it ran.
    pub rejected: u64,
    /// Ran and answered an error.
    pub failed: u64,
    /// The 50th, 99th and 99.9th percentile of its time, in microseconds; none if they are not kept.
    pub percentiles: Option<[f64; 3]>,
}

/// A database's share of the keys.
#[derive(Debug, Clone, Default)]
pub struct KeyspaceFacts {
    /// Which one.
    pub db: Db,
    /// Keys.
    pub keys: u64,
    /// Keys that end.
    pub expires: u64,
    /// Keys with several values.
    pub siblings: u64,
    /// Their mean time to live, in milliseconds.
    pub avg_ttl_ms: u64,
}

/// A connection, as `CLIENT LIST` shows it. Sizes in bytes.
#[derive(Debug, Clone, Default)]
pub struct ClientFacts {
    /// What the client chose and is.
    pub session: Session,
    /// The socket's descriptor; -1 if that is not known.
    pub fd: i64,
    /// Seconds since it was accepted.
    pub age_s: u64,
    /// Seconds since its last command.
    pub idle_s: u64,
    /// Waiting in a command.
    pub blocked: bool,
    /// Bytes received and not yet decoded.
    pub query_buffer: u64,
    /// Room left in that buffer.
    pub query_buffer_free: u64,
    /// Bytes of arguments that wait for the rest of their command.
    pub arguments: u64,
    /// Size of the output buffer.
    pub output_buffer: u64,
    /// The most of it that was used lately.
    pub output_buffer_peak: u64,
    /// Bytes in it.
    pub output_length: u64,
    /// All memory of the connection.
    pub total_memory: u64,
    /// The last command by its full name; empty before the first.
    pub last_command: String,
}

impl ClientFacts {
    /// What is known of a connection from its session alone.
    pub fn of(session: &Session) -> ClientFacts {
        ClientFacts { session: session.clone(), fd: -1, ..ClientFacts::default() }
    }

    /// 2 or 3.
    pub fn protocol_version(&self) -> i64 {
        match self.session.protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        }
    }
}

/// A command that took long.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlowEntry {
    /// Ascending on this node.
    pub id: u64,
    /// When it ended, in seconds since the epoch.
    pub at_s: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// Its arguments, shortened, without secrets.
    pub args: Vec<Bytes>,
    /// `host:port` of the client.
    pub addr: String,
    /// The client's name.
    pub name: Bytes,
}

/// How long calls of a command took.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Histogram {
    /// `get`, `client|list`.
    pub command: String,
    /// How many calls.
    pub calls: u64,
    /// Microseconds, ascending, each with how many calls took at most that long; only where the count grows.
    pub cumulative: Vec<(u64, u64)>,
}
