//! What tests of the families about connections and nodes share: a node made of plain data, and a bench that runs
//! commands on it and shows bytes. The comparison with Redis in `tests/differential` includes this file too.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use bytes::{Bytes, BytesMut};

use redynamo::base::glob;
use redynamo::commands::facts::{ClientFacts, ClusterFacts, Facts, Histogram, SlowEntry};
use redynamo::commands::host::{Host, Pause};
use redynamo::commands::operate::Asked;
use redynamo::commands::pubsub::News;
use redynamo::commands::session::{Session, Subscription};
use redynamo::commands::spec::Run;
use redynamo::commands::{Answer, Call, CommandError, resolve};
use redynamo::resp::{Reply, encode};

/// The arguments of a command, parted at spaces.
pub fn args(command: &str) -> Vec<Bytes> {
    command.split_whitespace().map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect()
}

/// A node at one moment, which notes what is asked of it.
#[derive(Default)]
pub struct FakeHost {
    pub password: Option<&'static str>,
    pub others: Vec<ClientFacts>,
    pub facts: Facts,
    pub cluster: ClusterFacts,
    pub slow: Vec<SlowEntry>,
    pub histograms: Vec<Histogram>,
    pub killed: Mutex<Vec<u64>>,
    pub paused: Mutex<Option<Pause>>,
    pub stopping: AtomicBool,
    pub resets: AtomicUsize,
    pub syncs: AtomicUsize,
    pub asked: Mutex<Option<Asked>>,
    pub refuses: AtomicBool,
    pub subscribed: Mutex<BTreeSet<(Subscription, Bytes)>>,
}

impl Host for FakeHost {
    fn now_ms(&self) -> u64 {
        1_700_000_000_123
    }
    fn now_us(&self) -> u64 {
        1_700_000_000_123_456
    }
    fn random(&self, out: &mut [u8]) {
        out.fill(0xab);
    }
    fn databases(&self) -> u32 {
        16
    }
    fn password_required(&self) -> bool {
        self.password.is_some()
    }
    fn authenticate(&self, user: &[u8], password: &[u8]) -> bool {
        user == b"default" && self.password.is_none_or(|set| set.as_bytes() == password)
    }
    fn clients(&self) -> Vec<ClientFacts> {
        self.others.clone()
    }
    fn kill(&self, clients: &[u64]) {
        self.killed.lock().unwrap().extend(clients);
    }
    fn pause(&self, pause: Option<Pause>) {
        *self.paused.lock().unwrap() = pause;
    }
    fn unblock(&self, client: u64, _: bool) -> bool {
        self.others.iter().any(|other| other.session.id == client && other.blocked)
    }
    fn subscribe(&self, _: u64, kind: Subscription, name: &Bytes) -> bool {
        self.subscribed.lock().unwrap().insert((kind, name.clone()))
    }
    fn unsubscribe(&self, _: u64, kind: Subscription, name: &Bytes) -> bool {
        self.subscribed.lock().unwrap().remove(&(kind, name.clone()))
    }
    fn subscriptions(&self, _: u64, kind: Subscription) -> Vec<Bytes> {
        let all = self.subscribed.lock().unwrap();
        all.iter().filter(|(of, _)| *of == kind).map(|(_, name)| name.clone()).collect()
    }
    fn messages(&self, _: u64) -> Vec<Reply> {
        Vec::new()
    }
    fn publish(&self, _: News) -> usize {
        0
    }
    fn config_get(&self, patterns: &[Bytes]) -> Vec<(String, String)> {
        let all = [("maxmemory", "0"), ("maxclients", "10000"), ("port", "6379")];
        let named = |name: &str| patterns.iter().any(|pattern| glob::matches(pattern, name.as_bytes()));
        all.into_iter().filter(|(name, _)| named(name)).map(|(name, value)| (name.into(), value.into())).collect()
    }
    fn config_set(&self, pairs: &[(Bytes, Bytes)]) -> Result<(), String> {
        match pairs.iter().find(|(name, _)| name != "maxmemory") {
            Some((name, _)) => Err(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{}'",
                String::from_utf8_lossy(name)
            )),
            None => Ok(()),
        }
    }
    fn config_rewrite(&self) -> Result<(), String> {
        Err("ERR The server is running without a config file".into())
    }
    fn reset_stats(&self) {
        self.resets.fetch_add(1, Relaxed);
    }
    fn cluster(&self) -> ClusterFacts {
        self.cluster.clone()
    }
    fn facts(&self) -> Facts {
        self.facts.clone()
    }
    fn slow_commands(&self, count: usize) -> Vec<SlowEntry> {
        self.slow.iter().take(count).cloned().collect()
    }
    fn slow_commands_len(&self) -> usize {
        self.slow.len()
    }
    fn reset_slow_commands(&self) {
        self.resets.fetch_add(1, Relaxed);
    }
    fn histograms(&self) -> Vec<Histogram> {
        self.histograms.clone()
    }
    fn allocator_report(&self) -> Option<String> {
        None
    }
    fn operate(&self, asked: &Asked) -> Result<Reply, String> {
        if self.refuses.load(Relaxed) {
            return Err("ERR not here".into());
        }
        *self.asked.lock().unwrap() = Some(asked.clone());
        Ok(Reply::ok())
    }
    fn purge_memory(&self) {}
    fn sync(&self) {
        self.syncs.fetch_add(1, Relaxed);
    }
    fn shutdown(&self, _: bool) {
        self.stopping.store(true, Relaxed);
    }
    fn abort_shutdown(&self) -> bool {
        self.stopping.swap(false, Relaxed)
    }
}

/// A connection to a [`FakeHost`].
pub struct Bench {
    pub host: FakeHost,
    pub session: Session,
}

impl Bench {
    pub fn new() -> Bench {
        Bench { host: FakeHost::default(), session: session(true) }
    }

    pub fn with_password(password: &'static str) -> Bench {
        Bench { host: FakeHost { password: Some(password), ..FakeHost::default() }, session: session(false) }
    }

    /// The bytes that `command` is answered with, in the protocol that the session then speaks.
    pub fn run(&mut self, command: &str) -> String {
        self.run_args(&args(command))
    }

    pub fn check(&mut self, command: &str, expected: &str) {
        assert_eq!(self.run(command), expected, "{command}");
    }

    pub fn check_args(&mut self, args: &[&str], expected: &str) {
        let args: Vec<Bytes> = args.iter().map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect();
        assert_eq!(self.run_args(&args), expected, "{args:?}");
    }

    /// The bytes that a command is answered with.
    pub fn bytes(&mut self, args: &[Bytes]) -> Bytes {
        let reply = self.answer(args).unwrap_or_else(CommandError::into_reply);
        let mut out = BytesMut::new();
        if self.session.wants_reply() {
            encode(&reply, self.session.protocol, &mut out);
        }
        out.freeze()
    }

    fn run_args(&mut self, args: &[Bytes]) -> String {
        String::from_utf8(self.bytes(args).to_vec()).unwrap()
    }

    fn answer(&mut self, args: &[Bytes]) -> Answer {
        let spec = resolve(args)?;
        self.session.admits(spec)?;
        let call = Call { spec, args };
        match spec.run {
            Run::Session(run) => run(&call, &mut self.session, &self.host),
            Run::Node(run) => run(&call, &self.session, &self.host),
            _ => panic!("{} does not run on a connection or node", spec.full_name()),
        }
    }
}

fn session(authenticated: bool) -> Session {
    Session::new(5, "127.0.0.1:50000".into(), "127.0.0.1:6379".into(), authenticated)
}
