//! The node as commands see it: what [`Host`] asks for, from the parts that have it.

use bytes::Bytes;

use super::clients::Client;
use super::system;
use super::{Server, facts};
use crate::commands::events::Classes;
use crate::commands::facts::{ClientFacts, ClusterFacts, Facts, Histogram, SlowEntry};
use crate::commands::host::{Host, Pause};
use crate::commands::operate::Asked;
use crate::commands::pubsub::News;
use crate::commands::session::{DEFAULT_USER, Subscription};
use crate::config::{Config, Fsync};
use crate::env::blocking;
use crate::node::Node;
use crate::replication::admission::Rules;
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
        self.node().options().databases.into()
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

    fn subscribe(&self, client: u64, kind: Subscription, name: &Bytes) -> bool {
        let Some(entry) = self.clients.get(client) else { return false };
        self.pubsub.subscribe(client, entry, kind, name)
    }

    fn unsubscribe(&self, client: u64, kind: Subscription, name: &Bytes) -> bool {
        self.pubsub.unsubscribe(client, kind, name)
    }

    fn subscriptions(&self, client: u64, kind: Subscription) -> Vec<Bytes> {
        self.pubsub.subscriptions(client, kind)
    }

    fn messages(&self, client: u64) -> Vec<Reply> {
        let Some(inbox) = self.pubsub.inbox(client) else { return Vec::new() };
        let messages = inbox.take(usize::MAX);
        inbox.written();
        messages
    }

    fn publish(&self, news: News) -> usize {
        self.node().coordinator.publish(news)
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
        crate::metrics::reset();
        self.samples.lock().restart_peaks();
    }

    fn cluster(&self) -> ClusterFacts {
        facts::cluster(&self.node())
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
        let node = self.node();
        let (env, committer) = (node.coordinator.env.clone(), node.replica().committer().clone());
        node.coordinator.env.spawn(Box::pin(async move {
            let done = match committer.wait(committer.last()).await {
                Ok(()) => blocking(&*env, move || committer.sync()).await,
                Err(error) => Some(Err(error)),
            };
            if let Some(Err(error)) = done {
                tracing::warn!("what was asked for is not on disk: {error}");
            }
        }));
    }

    fn operate(&self, asked: &Asked) -> Result<Reply, String> {
        self.answer_operator(asked)
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
        let node = self.node();
        let (replica, quorums) = (node.replica(), &node.coordinator.quorums);
        match name {
            "appendfsync" => replica.set_sync_policy(sync_policy(config.fsync)),
            "read-quorum" | "write-quorum" | "database-quorum" => {
                quorums.set(config.read_quorum, config.write_quorum, &config.database_quorums);
            }
            "strict-databases" => quorums.set_strict(|db| config.strict_databases.contains(db.0)),
            "maxmemory" => replica.set_cache_bytes(system::row_cache_bytes(config.maxmemory)),
            "background-throttle" | "background-limit-ms" | "background-floor" => {
                node.coordinator.admission.set_rules(rules(config));
            }
            "notify-keyspace-events" => node.coordinator.notified.set(Classes::of(&config.keyspace_events)),
            "hint-limit" => replica.set_hint_limit(config.hint_limit),
            "slowlog-log-slower-than" | "slowlog-max-len" => self.slow.configure(config),
            // Everything else is read from the settings where it is needed.
            _ => {}
        }
    }
}

/// Tells a node what is set and may change while it runs, and is not in what it was started with.
pub(super) fn configure(node: &Node, config: &Config) {
    node.coordinator.admission.set_rules(rules(config));
    node.replica().set_hint_limit(config.hint_limit);
    node.coordinator.notified.set(Classes::of(&config.keyspace_events));
}

/// What is set of background work.
fn rules(config: &Config) -> Rules {
    Rules { throttle: config.background_throttle, limit: config.background_limit, floor: config.background_floor }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Session;
    use crate::commands::find;
    use crate::replication::admission::Reason;
    use crate::server::testing::{run, server, server_and_store};
    use crate::storage::Ticket;

    fn set(server: &Server, name: &'static str, value: &'static str) -> Result<(), String> {
        server.config_set(&[(Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes()))])
    }

    #[test]
    fn a_password_fits_whole_or_not_at_all() {
        let server = server_and_store("requirepass hush").0;
        assert!(server.password_required());
        assert!(server.authenticate(b"default", b"hush"));
        for wrong in ["", "hus", "hush ", "Hush", "hushhush"] {
            assert!(!server.authenticate(b"default", wrong.as_bytes()), "{wrong}");
        }
        assert!(!server.authenticate(b"other", b"hush"));
    }

    #[test]
    fn without_a_password_the_default_user_may_come_with_any() {
        let server = server();
        assert!(!server.password_required());
        assert!(server.authenticate(b"default", b"anything"));
        assert!(!server.authenticate(b"other", b"anything"));
        set(&server, "requirepass", "new").unwrap();
        assert!(!server.authenticate(b"default", b"anything"));
    }

    #[test]
    fn settings_that_are_changed_reach_the_parts_that_run() {
        let server = server();
        let coordinator = server.node().coordinator.clone();
        set(&server, "appendfsync", "always").unwrap();
        assert_eq!(coordinator.replica.committer().policy(), SyncPolicy::Always);
        set(&server, "write-quorum", "3").unwrap();
        assert_eq!((coordinator.quorums.least_write(), server.settings.config().read_quorum), (3, 2));
        set(&server, "background-throttle", "no").unwrap();
        coordinator.admission.step();
        assert_eq!(coordinator.admission.slice().reason, Reason::Unlimited);
        set(&server, "slowlog-max-len", "0").unwrap();
        let args = [Bytes::from_static(b"get")].into_iter().collect();
        let held = server.slow.hold(find(b"get"), &args).unwrap();
        server.slow.note(held, std::time::Duration::from_secs(1), &Session::default());
        assert_eq!(server.slow_commands_len(), 0);
        assert!(set(&server, "write-quorum", "4").is_err());
        assert_eq!(coordinator.quorums.least_write(), 3, "what is refused changes nothing");
    }

    #[test]
    fn a_database_keeps_its_own_quorums_when_those_of_all_change() {
        let server = server();
        let write_of = |db: u8| server.node().coordinator.quorums.write_of(crate::base::id::Db(db));
        set(&server, "database-quorum", "3 1 3").unwrap();
        assert_eq!((write_of(3), write_of(2)), (3, 2));
        set(&server, "write-quorum", "1").unwrap();
        assert_eq!((write_of(3), write_of(2)), (3, 1));
        set(&server, "database-quorum", "2 3 3").unwrap();
        assert_eq!((write_of(3), write_of(2)), (3, 3));
        assert!(set(&server, "database-quorum", "3 1 4").is_err());
        assert_eq!(write_of(3), 3, "what is refused changes nothing");
        set(&server, "database-quorum", "").unwrap();
        assert_eq!((write_of(3), write_of(2)), (1, 1));
    }

    #[test]
    fn clients_are_shown_as_they_were_last_and_can_be_ended() {
        let server = server();
        let session = Session::new(server.clients.next_id(), "c:1".into(), "s:2".into(), true);
        let client = server.clients.add(session);
        {
            let mut state = client.state.lock();
            (state.query_buffer, state.output_peak, state.last) = (100, 1000, find(b"get"));
        }
        let all = server.clients();
        let facts = all.first().unwrap();
        assert_eq!((all.len(), facts.session.id, facts.last_command.as_str()), (1, 1, "get"));
        assert_eq!((facts.query_buffer, facts.output_buffer_peak), (100, 1000));
        assert_eq!(facts.total_memory, CONNECTION_BYTES + 1100);
        server.kill(&[1, 77]);
        let mut ended = at_once(client.kill.notified());
        assert!(ended.take().is_some(), "its connection is rung for");
    }

    /// What a future is ready with at once.
    fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
        use futures_util::FutureExt;
        future.now_or_never()
    }

    #[test]
    fn statistics_begin_anew_when_they_are_reset() {
        let server = server();
        run(&server, "get k");
        run(&server, "nonsense");
        assert_eq!((server.stats.total_calls(), server.stats.unknown_commands.get()), (1, 1));
        server.reset_stats();
        let stats = server.facts().stats;
        assert_eq!((stats.commands, stats.keyspace_misses, stats.error_replies), (0, 0, 0));
        assert!(server.histograms().is_empty());
    }

    #[tokio::test]
    async fn a_sync_brings_everything_to_disk_behind_the_answer() {
        let (server, _store) = server_and_store("");
        run(&server, "set k v");
        let committer = server.node().replica().committer().clone();
        assert_eq!(committer.synced(), Ticket(0));
        server.sync();
        committer.commit_pending();
        committer.wait_synced(committer.last()).await.unwrap();
        assert!(committer.synced() >= committer.last());
    }

    #[test]
    fn a_shutdown_rings_and_cannot_be_taken_back() {
        let server = server();
        server.shutdown(false);
        assert!(at_once(server.shutdown.notified()).is_some());
        assert!(!server.abort_shutdown());
    }
}
