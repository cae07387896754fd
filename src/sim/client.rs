//! Clients: each sends one command after the other to whichever node it likes, as a connection of that node would, and
//! writes down what it did and what it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::history::{Deed, History, Key, Op, Outcome};
use super::world::World;
use crate::base::id::{Db, Region};
use crate::base::rng::Rng;
use crate::causality::Dot;
use crate::commands::session::{Quorum, Session};
use crate::commands::spec::Run;
use crate::commands::{self, Call};
use crate::env::Env;
use crate::replication::Task;
use crate::resp::Reply;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client.
pub struct Client {
    world: Arc<World>,
    history: Arc<Mutex<History>>,
    rng: Rng,
    number: usize,
    written: u64,
    /// By key: the context it read last, and what it had seen with it.
    contexts: BTreeMap<Key, (Bytes, BTreeSet<Bytes>)>,
}

/// What came of a command.
pub struct Told {
    /// What is certain.
    pub outcome: Outcome,
    /// The reply, if one came.
    pub reply: Reply,
    /// The last dot that it gave.
    pub wrote: Option<(Region, Dot)>,
}

impl Client {
    /// Client `number`.
    pub fn new(world: &Arc<World>, history: &Arc<Mutex<History>>, number: usize) -> Client {
        Client {
            rng: world.fork(),
            world: world.clone(),
            history: history.clone(),
            number,
            written: 0,
            contexts: BTreeMap::new(),
        }
    }

    /// Sends commands until `end`.
    pub async fn run_until(mut self, end: Instant) {
        while Instant::now() < end {
            self.step().await;
            let think = self.rng.below(self.world.config.think.as_millis() as u64 + 1);
            sleep(Duration::from_millis(think)).await;
        }
    }

    async fn step(&mut self) {
        let family = [b'r', b'r', b's', b's', b'a', b'c', b'c', b'd', b'e', b'f'][self.rng.below(10) as usize];
        let key: Key = format!("{}{}", char::from(family), self.rng.below(self.world.config.keys)).into();
        match family {
            b'r' => self.on_context_register(key).await,
            b's' => self.on_plain_register(key).await,
            b'a' => self.append(key).await,
            b'c' => self.count(key).await,
            b'd' => self.count_and_take(key).await,
            b'e' => self.write_for_a_while(key).await,
            _ => self.on_flushed_database(key).await,
        }
    }

    /// Keys that are read with all siblings and written with contexts.
    async fn on_context_register(&mut self, key: Key) {
        let context = self.contexts.get(&key).cloned();
        match (self.rng.below(10), context) {
            (0..=3, _) | (8.., None) => self.read_siblings(key).await,
            (4, _) => {
                let value = self.value();
                let deed = Deed::Put { value: value.clone(), seen: BTreeSet::new() };
                self.send(Db(0), &[b"DYNAMO.PUT", &key, b"-", &value], &key, |_| deed).await;
            }
            (5..=7, Some((context, seen))) => {
                let value = self.value();
                let deed = Deed::Put { value: value.clone(), seen };
                self.send(Db(0), &[b"DYNAMO.PUT", &key, &context, &value], &key, |_| deed).await;
            }
            (5..=7, None) => self.read_siblings(key).await,
            (_, Some((context, seen))) => {
                self.send(Db(0), &[b"DYNAMO.DEL", &key, &context], &key, |_| Deed::Remove(seen)).await;
            }
        }
    }

    async fn read_siblings(&mut self, key: Key) {
        let mut read = None;
        let siblings = |reply: &Reply| {
            read = read_context(reply);
            Deed::Read(read.as_ref().map(|(_, seen)| seen.clone()).unwrap_or_default())
        };
        self.send(Db(0), &[b"DYNAMO.GET", &key], &key, siblings).await;
        if let Some(read) = read {
            self.contexts.insert(key, read);
        }
    }

    /// Keys of plain commands, one or several at once.
    async fn on_plain_register(&mut self, key: Key) {
        let value = self.value();
        match self.rng.below(12) {
            0..=2 => self.send(Db(0), &[b"GET", &key], &key, |reply| Deed::Get(bulk(reply))).await,
            3..=5 => self.send(Db(0), &[b"SET", &key, &value], &key, |_| Deed::Set(value.clone())).await,
            6 => self.send(Db(0), &[b"SET", &key, &value, b"GET"], &key, |_| Deed::Set(value.clone())).await,
            7 => self.send(Db(0), &[b"SET", &key, &value, b"NX"], &key, |reply| set_if_told(reply, &value)).await,
            8 => self.send(Db(0), &[b"SET", &key, &value, b"XX"], &key, |reply| set_if_told(reply, &value)).await,
            9 => self.send(Db(0), &[b"GETDEL", &key], &key, |_| Deed::Delete).await,
            10 => self.send(Db(0), &[b"DEL", &key], &key, |_| Deed::Delete).await,
            _ => self.set_many(key, value).await,
        }
    }

    async fn set_many(&mut self, key: Key, value: Bytes) {
        let (other, also): (Key, _) = (format!("s{}", self.world.config.keys).into(), self.value());
        let began = self.history.lock().moment();
        let told = self.ask(Db(0), &[b"MSET", &key, &value, &other, &also]).await;
        // The dot is that of one of them, and nobody says which.
        let told = Told { wrote: None, ..told };
        self.note(&key, began, Deed::Set(value), &told);
        self.note(&other, began, Deed::Set(also), &told);
    }

    async fn append(&mut self, key: Key) {
        let word: Bytes = [&self.value()[..], b";"].concat().into();
        self.send(Db(0), &[b"APPEND", &key, &word], &key, |_| Deed::Append(word.clone())).await;
    }

    async fn count(&mut self, key: Key) {
        match self.rng.below(4) {
            0 => self.send(Db(0), &[b"DECR", &key], &key, |_| Deed::Add(-1)).await,
            1 => self.send(Db(0), &[b"INCRBY", &key, b"10"], &key, |_| Deed::Add(10)).await,
            _ => self.send(Db(0), &[b"INCR", &key], &key, |_| Deed::Add(1)).await,
        }
    }

    async fn count_and_take(&mut self, key: Key) {
        match self.rng.below(8) {
            0 => {
                let taken = |reply: &Reply| match reply {
                    Reply::Nil => Deed::Take(Some(0)),
                    reply => Deed::Take(bulk(reply).and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok())),
                };
                self.send(Db(0), &[b"GETDEL", &key], &key, taken).await;
            }
            _ => self.send(Db(0), &[b"INCR", &key], &key, |_| Deed::Add(1)).await,
        }
    }

    /// Keys whose every value ends.
    async fn write_for_a_while(&mut self, key: Key) {
        let value = self.value();
        let ms = (50 + self.rng.below(1_000)).to_string();
        match self.rng.below(4) {
            0 => self.send(Db(0), &[b"GET", &key], &key, |reply| Deed::Get(bulk(reply))).await,
            1 => self.send(Db(0), &[b"PEXPIRE", &key, ms.as_bytes()], &key, |_| Deed::Delete).await,
            2 => self.send(Db(0), &[b"DEL", &key], &key, |_| Deed::Delete).await,
            _ => {
                let args: [&[u8]; 5] = [b"SET", &key, &value, b"PX", ms.as_bytes()];
                self.send(Db(0), &args, &key, |_| Deed::Set(value.clone())).await;
            }
        }
    }

    /// Keys of a database that is flushed now and then.
    async fn on_flushed_database(&mut self, key: Key) {
        let value = self.value();
        match self.rng.below(6) {
            0 if self.world.config.flushes => self.flush().await,
            0..=2 => self.send(Db(1), &[b"GET", &key], &key, |reply| Deed::Get(bulk(reply))).await,
            _ => self.send(Db(1), &[b"SET", &key, &value], &key, |_| Deed::Set(value.clone())).await,
        }
    }

    async fn flush(&mut self) {
        let began = self.history.lock().moment();
        let told = self.ask(Db(1), &[b"FLUSHDB"]).await;
        for key in (0..self.world.config.keys).map(|at| format!("f{at}").into()) {
            self.note(&key, began, Deed::Delete, &told);
        }
    }

    /// Sends a command and writes down what came of it; `deed` says what it did, given the reply.
    async fn send(&mut self, db: Db, args: &[&[u8]], key: &Key, deed: impl FnOnce(&Reply) -> Deed) {
        let began = self.history.lock().moment();
        let told = self.ask(db, args).await;
        let deed = deed(&told.reply);
        self.note(key, began, deed, &told);
    }

    fn note(&self, key: &Key, began: u64, deed: Deed, told: &Told) {
        let mut history = self.history.lock();
        let ended = history.moment();
        let (outcome, wrote) = (told.outcome, told.wrote);
        history.note(key, Op { client: self.number, began, ended, deed, outcome, wrote });
    }

    async fn ask(&mut self, db: Db, args: &[&[u8]]) -> Told {
        let first = self.rng.below(self.world.len() as u64) as usize;
        // A node that is down refuses the connection; clients go on to the next.
        let tried = (0..self.world.len()).map(|step| (first + step) % self.world.len());
        let at = tried.into_iter().find(|at| self.world.node(*at).is_some()).unwrap_or(first);
        let told = ask(&self.world, at, db, args).await;
        let mut event = format!("{} {:?} ", self.number, told.outcome).into_bytes();
        args.iter().for_each(|arg| event.extend_from_slice(arg));
        event.extend_from_slice(format!("{:?}", told.reply).as_bytes());
        self.world.oracle.lock().trace(self.world.net.now_ms(), &event);
        told
    }

    fn value(&mut self) -> Bytes {
        self.written += 1;
        format!("v{}.{}", self.number, self.written).into()
    }
}

/// Sends a command to a node as one of its connections.
pub async fn ask(world: &World, at: usize, db: Db, args: &[&[u8]]) -> Told {
    // No command replies so: nobody takes it for an answer.
    let refused = |outcome| Told { outcome, reply: Reply::NilArray, wrote: None };
    let Some((node, env)) = world.node(at) else { return refused(Outcome::NotDone) };
    let args: Vec<Bytes> = args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect();
    let (tell, told) = oneshot::channel();
    env.spawn(Box::pin(async move {
        let coordinator = node.coordinator.clone();
        let finished = match commands::resolve(&args) {
            Ok(spec) => {
                let task = Task { spec, args: args.into_iter().collect(), db, quorum: Quorum::default(), hops: 0 };
                let session = Session { db, ..Session::default() };
                match spec.run {
                    Run::Cluster(run) => match run(&Call { spec, args: &task.args }, &session) {
                        Ok(asked) => coordinator.sweep(asked, task, None).await,
                        Err(error) => error.into_reply().into(),
                    },
                    _ => coordinator.run(task).await,
                }
            }
            Err(error) => error.into_reply().into(),
        };
        // The client may have given up.
        let _ = tell.send(finished);
    }));
    match timeout(PATIENCE, told).await {
        Ok(Ok(finished)) => Told { outcome: outcome_of(&finished.reply), reply: finished.reply, wrote: finished.wrote },
        _ => refused(Outcome::Unknown),
    }
}

fn outcome_of(reply: &Reply) -> Outcome {
    match reply {
        Reply::Error(text) if text.starts_with(b"UNKNOWN") => Outcome::Unknown,
        Reply::Error(_) => Outcome::NotDone,
        _ => Outcome::Done,
    }
}

/// A conditional SET that was told that it did nothing did nothing; one that was told nothing may have.
fn set_if_told(reply: &Reply, value: &Bytes) -> Deed {
    match reply {
        Reply::Nil => Deed::Get(None),
        _ => Deed::Set(value.clone()),
    }
}

fn bulk(reply: &Reply) -> Option<Bytes> {
    match reply {
        Reply::Bulk(bytes) => Some(bytes.clone()),
        _ => None,
    }
}

/// The context of a DYNAMO.GET and the values it names.
fn read_context(reply: &Reply) -> Option<(Bytes, BTreeSet<Bytes>)> {
    let field = |map: &Reply, name: &[u8]| match map {
        Reply::Map(pairs) => {
            pairs.iter().find(|(key, _)| bulk(key).is_some_and(|key| key == name)).map(|(_, value)| value.clone())
        }
        _ => None,
    };
    let Reply::Array(siblings) = field(reply, b"siblings")? else { return None };
    let values = siblings.iter().filter_map(|sibling| bulk(&field(sibling, b"value")?));
    Some((bulk(&field(reply, b"context")?)?, values.collect()))
}
