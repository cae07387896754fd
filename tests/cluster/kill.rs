//! The promise that matters most: three nodes, clients that write through all of them, and nodes that die by SIGKILL in
//! the middle. What was acknowledged is there, what was refused is not, and every increment counts once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use redynamo::base::rng::Rng;

use super::process::{ALONE, Cluster, PATIENCE, holdings};
use super::wire::{Value, Wire, request};

/// Clients that write, as many on each node.
const WORKERS: usize = 12;
/// Counters that all of them increment.
const COUNTERS: usize = 200;
/// Keys of each client's own that it writes again and again.
const REWRITTEN: u64 = 20;
/// Keys of each client's own that it appends to.
const LOGS: u64 = 5;
/// How long after a death requests may fail: those that were in flight, until the last of them gives up.
const GRACE: Duration = Duration::from_secs(3);

fn keys() -> u64 {
    let ordinary = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
    std::env::var("REDYNAMO_KILL_KEYS").map_or(ordinary, |text| text.parse().unwrap())
}

/// How many times a node dies.
fn kills() -> u64 {
    std::env::var("REDYNAMO_KILLS").map_or(2, |text| text.parse().unwrap())
}

/// What a client does.
#[derive(Debug, Clone, Copy)]
enum Op {
    /// Writes a key that nobody else writes, once.
    Set(u64),
    /// Writes two such keys, which most often lie with two coordinators.
    Pair(u64),
    /// Writes the next version of a key that only this client writes.
    Rewrite { key: u64, version: u64 },
    /// Adds to the end of a key that only this client writes: whoever coordinates must know what is there already.
    Append { key: u64, id: u64 },
    /// Counts.
    Increment(usize),
}

/// What a client knows of what it did.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    Done,
    /// An error that says that nothing was done.
    Refused(String),
    /// An error that says that nobody knows, or a connection that broke.
    Unknown(String),
}

impl Outcome {
    fn of_error(text: &str) -> Outcome {
        match text.starts_with("NOREPLICAS") {
            true => Outcome::Refused(text.to_owned()),
            false if text.starts_with("UNKNOWN") => Outcome::Unknown(text.to_owned()),
            false => panic!("an error that says neither done nor unknown: {text}"),
        }
    }
}

/// A way to talk to a node.
trait Client {
    /// Runs operations and says what became of each; whether the connection is still good.
    fn run(&mut self, name: usize, ops: &[Op]) -> (Vec<Outcome>, bool);
}

/// Redis' client library for Rust, one command at a time.
struct Library(redis::Connection);

impl Library {
    fn open(port: u16) -> Option<Library> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
        let connection = client.get_connection_with_timeout(Duration::from_secs(5)).ok()?;
        connection.set_read_timeout(Some(super::wire::PATIENCE)).unwrap();
        Some(Library(connection))
    }
}

impl Client for Library {
    fn run(&mut self, name: usize, ops: &[Op]) -> (Vec<Outcome>, bool) {
        let mut outcomes = Vec::new();
        for op in ops {
            let words = op.words(name);
            let mut command = redis::cmd(&words[0]);
            words[1..].iter().for_each(|word| {
                command.arg(word);
            });
            match command.query::<redis::Value>(&mut self.0) {
                Ok(_) => outcomes.push(Outcome::Done),
                Err(error) => match error.code() {
                    Some(code) => {
                        outcomes.push(Outcome::of_error(&format!("{code} {}", error.detail().unwrap_or_default())));
                    }
                    None => {
                        // What was not sent is another client's to try.
                        outcomes.push(Outcome::Unknown(error.to_string()));
                        return (outcomes, false);
                    }
                },
            }
        }
        (outcomes, true)
    }
}

/// Many commands at once.
struct Pipeline(Wire);

impl Client for Pipeline {
    fn run(&mut self, name: usize, ops: &[Op]) -> (Vec<Outcome>, bool) {
        let bytes: Vec<u8> = ops.iter().flat_map(|op| request(&op.words(name))).collect();
        let sent = self.0.send(&bytes);
        let mut outcomes = Vec::new();
        for _ in ops {
            outcomes.push(match self.0.read() {
                Ok(Value::Error(text)) => Outcome::of_error(&text),
                Ok(_) => Outcome::Done,
                Err(error) => Outcome::Unknown(error.to_string()),
            });
        }
        let good =
            sent.is_ok() && !matches!(outcomes.last(), Some(Outcome::Unknown(why)) if !why.starts_with("UNKNOWN"));
        (outcomes, good)
    }
}

impl Op {
    fn words(&self, name: usize) -> Vec<String> {
        match self {
            Op::Set(id) => vec!["SET".to_owned(), set_key(name, *id), set_value(name, *id)],
            Op::Pair(id) => {
                let [one, other] = pair_keys(name, *id);
                vec!["MSET".to_owned(), one, set_value(name, *id), other, set_value(name, *id)]
            }
            Op::Rewrite { key, version } => vec!["SET".to_owned(), rewritten_key(name, *key), version.to_string()],
            Op::Append { key, id } => vec!["APPEND".to_owned(), log_key(name, *key), format!("{id} ")],
            Op::Increment(counter) => vec!["INCR".to_owned(), counter_key(*counter)],
        }
    }
}

fn set_key(name: usize, id: u64) -> String {
    format!("set:{name}:{id}")
}

fn pair_keys(name: usize, id: u64) -> [String; 2] {
    [format!("one:{name}:{id}"), format!("other:{name}:{id}")]
}

fn set_value(name: usize, id: u64) -> String {
    format!("value of {id} by {name}")
}

fn rewritten_key(name: usize, key: u64) -> String {
    format!("again:{name}:{key}")
}

fn log_key(name: usize, key: u64) -> String {
    format!("log:{name}:{key}")
}

fn counter_key(counter: usize) -> String {
    format!("counter:{counter}")
}

/// What became of the versions of a key that is written again and again.
#[derive(Default)]
struct Versions {
    acknowledged: u64,
    /// May be there or come yet.
    unknown: Vec<u64>,
}

/// All that a client did.
struct Journal {
    sets: Vec<(u64, Outcome)>,
    pairs: Vec<(u64, Outcome)>,
    rewritten: BTreeMap<u64, Versions>,
    appended: BTreeMap<u64, Vec<(u64, Outcome)>>,
    /// By counter: acknowledged, unknown.
    increments: Vec<(u64, u64)>,
    failures: Vec<(Instant, String)>,
}

/// A client, and where it is.
struct Worker<'t> {
    name: usize,
    ports: &'t [u16],
    /// Whom it talks to now, counted from its own node.
    away: usize,
    client: Option<Box<dyn Client>>,
    journal: Journal,
}

impl Worker<'_> {
    fn work(mut self, share: u64, done: &AtomicU64) -> Journal {
        let mut rng = Rng::new(self.name as u64);
        let mut ops = Vec::new();
        for id in 0..share {
            ops.push(Op::Set(id));
            if id % 2 == 0 {
                ops.push(Op::Increment(rng.below(COUNTERS as u64) as usize));
            }
            if id % 10 == 0 {
                ops.push(Op::Pair(id));
            }
            if id % 10 == 5 {
                ops.push(Op::Append { key: rng.below(LOGS), id });
            }
            if id % 5 == 0 {
                ops.push(Op::Rewrite { key: rng.below(REWRITTEN), version: id + 1 });
            }
        }
        let mut at = 0;
        while at < ops.len() {
            let batch = &ops[at..ops.len().min(at + 16)];
            let name = self.name;
            let (outcomes, good) = self.client().run(name, batch);
            if !good {
                self.client = None;
            }
            let failed = outcomes.iter().any(|outcome| *outcome != Outcome::Done);
            at += outcomes.len();
            batch.iter().zip(outcomes).for_each(|(op, outcome)| self.note(*op, outcome));
            done.fetch_add(16, Ordering::Relaxed);
            if failed {
                sleep(Duration::from_millis(20));
            } else if self.away > 0 && rng.chance(0.02) {
                // Its own node may have returned.
                self.away = 0;
                self.client = None;
            }
        }
        self.journal
    }

    /// The connection, made anew if need be, to the next node that accepts one.
    fn client(&mut self) -> &mut dyn Client {
        let began = Instant::now();
        while self.client.is_none() {
            let port = self.ports[(self.name + self.away) % self.ports.len()];
            self.client = match self.name / self.ports.len() % 2 {
                0 => Library::open(port).map(|client| Box::new(client) as Box<dyn Client>),
                _ => Wire::open(port).ok().map(|wire| Box::new(Pipeline(wire)) as Box<dyn Client>),
            };
            if self.client.is_none() {
                assert!(began.elapsed() < PATIENCE, "no node accepts connections");
                self.away += 1;
                sleep(Duration::from_millis(5));
            }
        }
        &mut **self.client.as_mut().unwrap()
    }

    fn note(&mut self, op: Op, outcome: Outcome) {
        if let Outcome::Refused(why) | Outcome::Unknown(why) = &outcome {
            self.journal.failures.push((Instant::now(), why.clone()));
        }
        match op {
            Op::Set(id) => self.journal.sets.push((id, outcome)),
            Op::Pair(id) => self.journal.pairs.push((id, outcome)),
            Op::Append { key, id } => self.journal.appended.entry(key).or_default().push((id, outcome)),
            Op::Rewrite { key, version } => {
                let versions = self.journal.rewritten.entry(key).or_default();
                match outcome {
                    Outcome::Done => versions.acknowledged = version,
                    Outcome::Unknown(_) => versions.unknown.push(version),
                    Outcome::Refused(_) => {}
                }
            }
            Op::Increment(counter) => {
                let (acknowledged, unknown) = &mut self.journal.increments[counter];
                match outcome {
                    Outcome::Done => *acknowledged += 1,
                    Outcome::Unknown(_) => *unknown += 1,
                    Outcome::Refused(_) => {}
                }
            }
        }
    }
}

#[test]
fn no_acknowledged_write_is_lost_and_no_increment_counts_twice_while_nodes_are_killed_and_return() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut cluster = Cluster::of(3, &[]);
    let began = Instant::now();
    let (journals, deaths) = write_while_nodes_die(&mut cluster);
    let wrote = began.elapsed();
    report(&journals, &deaths);
    cluster.wait_until_whole();
    thread::scope(|scope| {
        for port in cluster.ports() {
            let journals = &journals;
            scope.spawn(move || check(port, journals));
        }
    });
    let checked = began.elapsed();
    wait_until_replicas_agree(&cluster, &journals);
    eprintln!("wrote for {wrote:?}, had checked after {checked:?}, replicas agreed after {:?}", began.elapsed());
    for (at, why) in journals.iter().flat_map(|journal| &journal.failures) {
        let allowed = deaths.iter().any(|death| *at >= *death && at.duration_since(*death) <= GRACE);
        assert!(allowed, "failed at {:?}, deaths at {:?}: {why}", at.duration_since(began), since(&deaths, began));
    }
}

/// Every client's journal, and when nodes died.
fn write_while_nodes_die(cluster: &mut Cluster) -> (Vec<Journal>, Vec<Instant>) {
    let (share, ports, done) = (keys() / WORKERS as u64, cluster.ports(), AtomicU64::new(0));
    let total = share * WORKERS as u64 * 19 / 10;
    let (ports, done) = (&ports, &done);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|name| {
                let journal = Journal {
                    sets: Vec::new(),
                    pairs: Vec::new(),
                    rewritten: BTreeMap::new(),
                    appended: BTreeMap::new(),
                    increments: vec![(0, 0); COUNTERS],
                    failures: Vec::new(),
                };
                scope.spawn(move || Worker { name, ports, away: 0, client: None, journal }.work(share, done))
            })
            .collect();
        let mut deaths = Vec::new();
        for death in 0..kills() {
            // The middle one first, and the one that the others joined.
            let node = &mut cluster.nodes[[1, 0, 2][death as usize % 3]];
            wait_for(done, total * (4 * death + 1) / (4 * kills()));
            deaths.push(Instant::now());
            node.kill();
            wait_for(done, total * (4 * death + 3) / (4 * kills()));
            node.serve();
            cluster.wait_until_whole();
        }
        (workers.into_iter().map(|worker| worker.join().unwrap()).collect(), deaths)
    })
}

fn wait_for(done: &AtomicU64, wanted: u64) {
    let mut last = (Instant::now(), 0);
    while done.load(Ordering::Relaxed) < wanted {
        let now = done.load(Ordering::Relaxed);
        if now != last.1 {
            last = (Instant::now(), now);
        }
        assert!(last.0.elapsed() < PATIENCE, "nothing was done for {PATIENCE:?}, after {now} of {wanted}");
        sleep(Duration::from_millis(2));
    }
}

fn since(deaths: &[Instant], began: Instant) -> Vec<Duration> {
    deaths.iter().map(|death| death.duration_since(began)).collect()
}

fn report(journals: &[Journal], deaths: &[Instant]) {
    let sets = || journals.iter().flat_map(|journal| journal.sets.iter().chain(&journal.pairs));
    let count = |wanted: fn(&Outcome) -> bool| sets().filter(|(_, outcome)| wanted(outcome)).count();
    let increments = |of: fn(&(u64, u64)) -> u64| journals.iter().flat_map(|j| &j.increments).map(of).sum::<u64>();
    eprintln!(
        "writes: {} acknowledged, {} refused, {} unknown; increments: {} acknowledged, {} unknown",
        count(|outcome| *outcome == Outcome::Done),
        count(|outcome| matches!(outcome, Outcome::Refused(_))),
        count(|outcome| matches!(outcome, Outcome::Unknown(_))),
        increments(|(acknowledged, _)| *acknowledged),
        increments(|(_, unknown)| *unknown),
    );
    let mut kinds: BTreeMap<&str, (u64, i128, i128)> = BTreeMap::new();
    for (at, why) in journals.iter().flat_map(|journal| &journal.failures) {
        // Milliseconds since the last death before it.
        let death = deaths.iter().filter(|death| *death <= at).max();
        let after = death.map_or(-1, |death| at.duration_since(*death).as_millis() as i128);
        let kind = kinds.entry(why).or_insert((0, after, after));
        *kind = (kind.0 + 1, kind.1.min(after), kind.2.max(after));
    }
    for (why, (count, first, last)) in kinds {
        eprintln!("  {count} times, {first} to {last} ms after a death: {why}");
    }
}

/// Reads everything through one node.
fn check(port: u16, journals: &[Journal]) {
    let mut wire = Wire::to(port);
    let mut wrong = Vec::new();
    for (name, journal) in journals.iter().enumerate() {
        let sets = journal.sets.iter().map(|(id, outcome)| (set_key(name, *id), id, outcome));
        let pairs = journal.pairs.iter();
        let pairs = pairs.flat_map(|(id, outcome)| pair_keys(name, *id).map(|key| (key, id, outcome)));
        let once: Vec<_> = sets.chain(pairs).collect();
        for sets in once.chunks(1000) {
            let values = get(&mut wire, sets.iter().map(|(key, ..)| key.clone()));
            for ((key, id, outcome), value) in sets.iter().zip(values) {
                let there = value.as_deref() == Some(&set_value(name, **id));
                let right = match outcome {
                    Outcome::Done => there,
                    Outcome::Refused(_) => value.is_none(),
                    Outcome::Unknown(_) => there || value.is_none(),
                };
                if !right {
                    wrong.push(format!("{key}: {outcome:?}, but it is {value:?}"));
                }
            }
        }
        let values = get(&mut wire, journal.rewritten.keys().map(|key| rewritten_key(name, *key)));
        for ((key, versions), value) in journal.rewritten.iter().zip(values) {
            let version = value.map_or(0, |text| text.parse().unwrap());
            if version != versions.acknowledged && !versions.unknown.contains(&version) {
                let Versions { acknowledged, unknown } = versions;
                let key = rewritten_key(name, *key);
                wrong.push(format!("{key}: version {version}, acknowledged {acknowledged}, unknown {unknown:?}"));
            }
        }
    }
    for (name, journal) in journals.iter().enumerate() {
        let values = get(&mut wire, journal.appended.keys().map(|key| log_key(name, *key)));
        for ((key, appended), value) in journal.appended.iter().zip(values) {
            let held = value.unwrap_or_default();
            if let Some(why) = misfit(&held, appended) {
                wrong.push(format!("{}: {why}: {held}", log_key(name, *key)));
            }
        }
    }
    let values = get(&mut wire, (0..COUNTERS).map(counter_key));
    for (counter, value) in values.into_iter().enumerate() {
        let sum = |of: fn(&(u64, u64)) -> u64| journals.iter().map(|j| of(&j.increments[counter])).sum::<u64>();
        let (acknowledged, unknown) = (sum(|(acknowledged, _)| *acknowledged), sum(|(_, unknown)| *unknown));
        let value = value.map_or(0, |text| text.parse::<u64>().unwrap());
        if value < acknowledged || value > acknowledged + unknown {
            wrong.push(format!("{}: {value}, of {acknowledged} and perhaps {unknown}", counter_key(counter)));
        }
    }
    assert!(
        wrong.is_empty(),
        "through port {port}, {} wrong:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
}

/// What is wrong with a log: everything acknowledged is in it, in order and once, and nothing that was refused.
fn misfit(held: &str, appended: &[(u64, Outcome)]) -> Option<String> {
    let mut rest = held.split_whitespace().map(|word| word.parse::<u64>().unwrap()).peekable();
    for (id, outcome) in appended {
        match outcome {
            Outcome::Done if rest.next() != Some(*id) => return Some(format!("{id} is not where it should be")),
            Outcome::Done | Outcome::Refused(_) => {}
            Outcome::Unknown(_) => {
                rest.next_if_eq(id);
            }
        }
    }
    rest.next().map(|id| format!("{id} should not be there, or only once"))
}

fn get(wire: &mut Wire, keys: impl Iterator<Item = String>) -> Vec<Option<String>> {
    let requests: Vec<_> = keys.map(|key| request(&["GET", &key])).collect();
    let values = wire.pipeline(&requests).into_iter();
    values.map(|value| (value != Value::Nil).then(|| value.text())).collect()
}

/// Waits until the owners of a sample of keys hold the very same versions.
fn wait_until_replicas_agree(cluster: &Cluster, journals: &[Journal]) {
    let mut wire = cluster.nodes[0].wire();
    let sets = journals.iter().enumerate().flat_map(|(name, journal)| {
        let acknowledged = journal.sets.iter().filter(|(_, outcome)| *outcome == Outcome::Done);
        acknowledged.step_by(50).map(move |(id, _)| set_key(name, *id))
    });
    let rewritten = journals.iter().enumerate();
    let rewritten =
        rewritten.flat_map(|(name, journal)| journal.rewritten.keys().map(move |key| rewritten_key(name, *key)));
    let mut left: Vec<String> = sets.chain(rewritten).chain((0..COUNTERS).map(counter_key)).collect();
    let began = Instant::now();
    loop {
        left.retain(|key| {
            let held = holdings(&wire.call(&["DYNAMO.WHERE", key]));
            held.len() != 3 || held[0].is_none() || held.iter().any(|dots| *dots != held[0])
        });
        if left.is_empty() {
            return;
        }
        let first =
            left.iter().take(5).map(|key| (key, holdings(&wire.call(&["DYNAMO.WHERE", key])))).collect::<Vec<_>>();
        assert!(began.elapsed() < PATIENCE, "{} keys differ between their owners: {first:?}", left.len());
        sleep(Duration::from_millis(100));
    }
}
