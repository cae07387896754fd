//! The node as commands see it: what [`Host`] asks for, from the parts that have it.

use bytes::Bytes;

use super::clients::Client;
use super::system;
use super::{Server, facts};
use crate::cluster::view::Standing;
use crate::commands::facts::{ClientFacts, Facts, Histogram, SlowEntry};
use crate::commands::host::{Host, Pause};
use crate::commands::session::DEFAULT_USER;
use crate::config::{Config, Fsync};
use crate::env::blocking;
use crate::resp::Reply;
use crate::storage::SyncPolicy;

/// What a connection takes beside its buffers: session, register entry, task.
const CONNECTION_BYTES: u64 = 2048;

impl Host for Server {
    fn now_ms(&self) -> u64 {
        system::wall().as_millis() as u64
    }

    fn now_us(&self) -> u64 {
        system::wall().as_micros() as u64
    }

    fn random(&self, out: &mut [u8]) {
        if let Err(error) = getrandom::fill(out) {
            tracing::warn!("the kernel gives no random bytes: {error}");
        }
    }

    fn databases(&self) -> u32 {
        self.node.options().databases.into()
    }

    fn password_required(&self) -> bool {
        self.settings.config().requirepass.is_some()
    }

    fn authenticate(&self, user: &[u8], password: &[u8]) -> bool {
        let config = self.settings.config();
        // Comparing hashes takes as long wherever they differ, and says nothing about lengths.
        let fits = config
            .requirepass
            .as_ref()
            .is_none_or(|set| blake3::hash(set.as_str().as_bytes()) == blake3::hash(password));
        fits & (user == DEFAULT_USER.as_bytes())
    }

    fn clients(&self) -> Vec<ClientFacts> {
        self.clients.all().iter().map(|client| client_facts(client)).collect()
    }

    fn kill(&self, clients: &[u64]) {
        clients.iter().filter_map(|id| self.clients.get(*id)).for_each(|client| client.kill.notify_one());
    }

    fn pause(&self, pause: Option<Pause>) {
        *self.pause.lock() = pause;
    }

    /// Nobody waits in a command that could be woken: WAIT ends by itself.
    fn unblock(&self, _: u64, _: bool) -> bool {
        false
    }

    fn config_get(&self, patterns: &[Bytes]) -> Vec<(String, String)> {
        self.settings.get(patterns)
    }

    fn config_set(&self, pairs: &[(Bytes, Bytes)]) -> Result<(), String> {
        let changed = self.settings.set(pairs)?;
        let config = self.settings.config();
        changed.into_iter().for_each(|name| self.apply(name, &config));
        Ok(())
    }

    fn config_rewrite(&self) -> Result<(), String> {
        self.settings.rewrite()
    }

    fn reset_stats(&self) {
        self.stats.reset();
        crate::metrics::COUNTS.iter().for_each(|count| count.reset());
        self.samples.lock().restart_peaks();
    }

    fn facts(&self) -> Facts {
        facts::of(self)
    }

    fn slow_commands(&self, count: usize) -> Vec<SlowEntry> {
        self.slow.latest(count)
    }

    fn slow_commands_len(&self) -> usize {
        self.slow.len()
    }

    fn reset_slow_commands(&self) {
        self.slow.reset();
    }

    fn histograms(&self) -> Vec<Histogram> {
        facts::histograms(&self.stats)
    }

    fn allocator_report(&self) -> Option<String> {
        Some(system::allocator_report())
    }

    fn purge_memory(&self) {
        system::purge();
    }

    fn sync(&self) {
        let env = self.node.coordinator.env.clone();
        let committer = self.node.replica().committer().clone();
        self.node.coordinator.env.spawn(Box::pin(async move {
            let done = match committer.wait(committer.last()).await {
                Ok(()) => blocking(&*env, move || committer.sync()).await,
                Err(error) => Some(Err(error)),
            };
            if let Some(Err(error)) = done {
                tracing::warn!("what was asked for is not on disk: {error}");
            }
        }));
    }

    fn nodes(&self) -> Reply {
        let view = self.node.coordinator.view.load_full();
        Reply::array(view.nodes.values().map(|standing| {
            let id = standing.member.id;
            let coordinated = view.ring.partitions().iter().filter(|at| view.coordinator(*at) == Some(id)).count();
            node_reply(standing, id == view.me, view.ring.layout().share(id).owned, coordinated as u64)
        }))
    }

    fn shutdown(&self, _now: bool) {
        self.shutdown.notify_one();
    }

    /// A shutdown begins at once: there is never one left to take back.
    fn abort_shutdown(&self) -> bool {
        false
    }
}

impl Server {
    /// Has the running parts follow a setting that was changed.
    fn apply(&self, name: &str, config: &Config) {
        let (replica, quorums) = (self.node.replica(), &self.node.coordinator.quorums);
        match name {
            "appendfsync" => replica.committer().set_policy(sync_policy(config.fsync)),
            "read-quorum" => quorums.set(None, Some(config.read_quorum), None),
            "write-quorum" => quorums.set(None, None, Some(config.write_quorum)),
            "maxmemory" => replica.set_cache_bytes(system::row_cache_bytes(config.maxmemory)),
            "slowlog-log-slower-than" | "slowlog-max-len" => self.slow.configure(config),
            // Everything else is read from the settings where it is needed.
            _ => {}
        }
    }
}

fn sync_policy(fsync: Fsync) -> SyncPolicy {
    match fsync {
        Fsync::Always => SyncPolicy::Always,
        Fsync::EverySecond => SyncPolicy::EverySec,
        Fsync::No => SyncPolicy::No,
    }
}

/// A connection as it was after its last batch of requests.
fn client_facts(client: &Client) -> ClientFacts {
    let state = client.state.lock();
    let (query_buffer, output_buffer_peak) = (state.query_buffer as u64, state.output_peak as u64);
    ClientFacts {
        session: state.session.clone(),
        fd: -1,
        age_s: client.since.elapsed().as_secs(),
        idle_s: state.active.elapsed().as_secs(),
        query_buffer,
        output_buffer_peak,
        total_memory: CONNECTION_BYTES.saturating_add(query_buffer).saturating_add(output_buffer_peak),
        last_command: state.last.map(|spec| spec.full_name()).unwrap_or_default(),
        ..ClientFacts::default()
    }
}

fn node_reply(standing: &Standing, myself: bool, owned: u64, coordinated: u64) -> Reply {
    let member = &standing.member;
    let int = |value: u64| Reply::Int(value.try_into().unwrap_or(i64::MAX));
    Reply::map([
        ("id", Reply::bulk(member.id.to_string())),
        ("name", Reply::bulk(member.name.clone())),
        ("address", Reply::bulk(member.client_addr())),
        ("peer-address", Reply::bulk(member.peer_addr())),
        ("zone", Reply::bulk(member.zone.clone())),
        ("weight", int(member.weight.into())),
        ("live", Reply::Bool(standing.live)),
        ("ready", Reply::Bool(standing.ready)),
        ("myself", Reply::Bool(myself)),
        ("owned", int(owned)),
        ("coordinated", int(coordinated)),
    ])
}
