//! Kingsbury's experiment with Riak ("Call me maybe: Riak", 2013): five nodes, a client on each, 2,000 additions to one
//! register by reading, changing and writing it, while the network is cut in two for a third of the time and heals. Last
//! write wins loses; siblings that are merged lose nothing; a counter counts exactly.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use bytes::Bytes;
use redynamo::base::rng::Rng;
use redynamo::sim::history::{Deed, History, Outcome};

use super::arena::within;
use super::check::check;
use super::client::{Client, Told};
use super::cluster::{Cluster, Held, held};
use super::logbook::Logbook;
use super::nemesis::Pattern;
use super::net::{Cut, Layer, address};
use super::wire::Value;

const NODES: usize = 5;
const ADDITIONS: u64 = 2_000;
/// How long a client rests between two of them.
const PACE: Duration = Duration::from_millis(35);
/// Which part of the additions of a client is made while the network is cut.
const CUT_FROM: u64 = ADDITIONS * 3 / 10;
const CUT_UNTIL: u64 = ADDITIONS * 7 / 10;
/// What Riak acknowledged, of a hundred, where it lost nothing.
const RIAK: f64 = 97.4;
/// Who is on the smaller side.
const FEW: [usize; 2] = [0, 1];

/// How a client adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// GET, SET: who writes last wins.
    Lww,
    /// DYNAMO.GET, union, DYNAMO.PUT with the context.
    Siblings,
    /// INCR.
    Counter,
}

const MODES: [Mode; 3] = [Mode::Lww, Mode::Siblings, Mode::Counter];

/// What came of a mode.
struct Outcomes {
    mode: Mode,
    history: History,
    /// Additions that were acknowledged while the network was cut, on the smaller and the larger side.
    cut: [[AtomicU64; 2]; 2],
    held: Held,
}

impl Mode {
    fn key(self) -> Bytes {
        Bytes::from_static(match self {
            Mode::Lww => b"a-lww",
            Mode::Siblings => b"a-siblings",
            Mode::Counter => b"c-counter",
        })
    }

    /// One addition: what became of it.
    fn add(self, client: &mut Client, word: &Bytes) -> Outcome {
        let key = self.key();
        match self {
            Mode::Counter => client.send("add", &[b"INCR", key.as_ref()]).outcome(),
            Mode::Lww => match client.send("read", &[b"GET", key.as_ref()]) {
                Told::Answer(old) => {
                    let old = if old == Value::Nil { String::new() } else { old.text() };
                    client.send("add", &[b"SET", key.as_ref(), &[old.as_bytes(), word].concat()]).outcome()
                }
                // What could not be read was not written.
                _ => Outcome::NotDone,
            },
            Mode::Siblings => match client.send("read", &[b"DYNAMO.GET", key.as_ref()]) {
                Told::Answer(answer) => {
                    let (context, Held { siblings, .. }) = held(&answer).unwrap();
                    let mut words: BTreeSet<&[u8]> = siblings.iter().flat_map(words).collect();
                    words.insert(word);
                    let union = words.into_iter().collect::<Vec<_>>().concat();
                    client.send("add", &[b"DYNAMO.PUT", key.as_ref(), context.as_ref(), &union]).outcome()
                }
                _ => Outcome::NotDone,
            },
        }
    }
}

fn words(value: &Bytes) -> impl Iterator<Item = &[u8]> {
    value.split_inclusive(|byte| *byte == b';')
}

#[test]
fn nothing_is_lost_where_riak_lost_nothing_and_a_counter_is_exact() {
    within("experiment::nothing_is_lost_where_riak_lost_nothing_and_a_counter_is_exact", |dir| {
        let mut cluster = Cluster::of(NODES, 0, dir, &[]);
        let outcomes = run(&mut cluster, dir);
        outcomes.iter().for_each(Outcomes::report);
        let [lww, siblings, counter] = &outcomes[..] else { panic!("three modes") };
        assert!(lww.verdict().is_err(), "last write wins lost nothing: the experiment shows nothing");
        for outcomes in [siblings, counter] {
            outcomes.verdict().unwrap();
            assert!(outcomes.rate() >= RIAK, "{:?}: {:.2} % acknowledged", outcomes.mode, outcomes.rate());
            let [small, large] = outcomes.cut.each_ref().map(|[_, done]| done.load(Ordering::Relaxed));
            assert!(small > 0 && large > 0, "a side took no writes: {small} and {large}");
        }
        lies_are_found(siblings, counter);
    });
}

/// All modes at the same time, on a key each, so that they meet the same faults.
fn run(cluster: &mut Cluster, dir: &Path) -> Vec<Outcomes> {
    let begun = AtomicU64::new(0);
    let mut outcomes: Vec<Outcomes> = Vec::new();
    let addresses: Vec<_> = (0..NODES).map(address).collect();
    for mode in MODES {
        outcomes.push(Outcomes { mode, history: History::default(), cut: Default::default(), held: Held::default() });
    }
    let is_cut = AtomicU64::new(0);
    let books: Vec<Arc<Logbook>> = MODES.iter().map(|_| Arc::new(Logbook::new(dir))).collect();
    scope(|scope| {
        for (outcomes, book) in outcomes.iter().zip(&books) {
            for number in 0..NODES {
                let client = Client::new(number, &addresses, Rng::new(number as u64), book);
                let (begun, is_cut) = (&begun, &is_cut);
                scope.spawn(move || add_share(client, outcomes, begun, is_cut));
            }
        }
        let of_all = |additions: u64| additions * MODES.len() as u64;
        let wait_for = |additions| {
            while begun.load(Ordering::Relaxed) < of_all(additions) {
                sleep(Duration::from_millis(5));
            }
        };
        wait_for(CUT_FROM);
        let mut order: Vec<usize> = FEW.to_vec();
        order.extend((0..NODES).filter(|node| !FEW.contains(node)));
        let cut = cluster.net.cut(Layer { ways: Pattern::Halves.ways(&order), cut: Cut::Swallow });
        is_cut.store(1, Ordering::Relaxed);
        wait_for(CUT_UNTIL);
        is_cut.store(0, Ordering::Relaxed);
        cluster.net.mend(cut);
    });
    let whole = cluster.wait_until_whole().unwrap();
    let equal = cluster.wait_until_equal(MODES.iter().map(|mode| mode.key()).collect()).unwrap();
    println!("whole {whole:?} after the last addition, all owners equal after {equal:?} more");
    for (outcomes, book) in outcomes.iter_mut().zip(&books) {
        outcomes.history = std::mem::take(&mut book.history.lock().unwrap());
        let key = outcomes.mode.key();
        let mut answers =
            (0..NODES).map(|node| cluster.read(node, std::slice::from_ref(&key)).unwrap().remove(&key).unwrap());
        outcomes.held = answers.next().unwrap();
        assert!(answers.all(|other| other == outcomes.held), "nodes answer differently");
        for (error, count) in book.errors() {
            println!("  {:?}: {count} times {error}", outcomes.mode);
        }
        assert_eq!(book.violations(), Vec::<String>::new());
    }
    outcomes
}

fn add_share(client: Client, outcomes: &Outcomes, begun: &AtomicU64, is_cut: &AtomicU64) {
    let mut client = client.stubborn();
    let (mode, number) = (outcomes.mode, client.number);
    let side = usize::from(!FEW.contains(&number));
    for id in 0..ADDITIONS / NODES as u64 {
        begun.fetch_add(1, Ordering::Relaxed);
        let (word, began) = (Bytes::from(format!("{number}.{id};")), client.book.moment());
        let while_cut = is_cut.load(Ordering::Relaxed) == 1;
        let outcome = mode.add(&mut client, &word);
        if while_cut {
            outcomes.cut[side][usize::from(outcome == Outcome::Done)].fetch_add(1, Ordering::Relaxed);
        }
        let deed = if mode == Mode::Counter { Deed::Add(1) } else { Deed::Append(word) };
        client.book.note(number, began, &mode.key(), deed, outcome);
        sleep(PACE);
    }
}

impl Outcomes {
    fn ops(&self) -> &[redynamo::sim::history::Op] {
        self.history.keys().next().map(|(_, ops)| ops).unwrap()
    }

    fn verdict(&self) -> Result<(), String> {
        check(&self.mode.key(), self.ops(), &self.held)
    }

    fn acknowledged(&self) -> u64 {
        self.ops().iter().filter(|op| op.outcome == Outcome::Done).count() as u64
    }

    /// How many of all additions are there, and how many that were acknowledged are not.
    fn survivors_and_lost(&self) -> (u64, u64) {
        if self.mode == Mode::Counter {
            let text = self.held.value.clone().unwrap_or_default();
            let value: u64 = String::from_utf8_lossy(&text).parse().unwrap();
            return (value, self.acknowledged().saturating_sub(value));
        }
        let there: BTreeSet<&[u8]> = self.held.siblings.iter().flat_map(words).collect();
        let is_lost = |deed: &Deed| matches!(deed, Deed::Append(word) if !there.contains(word.as_ref()));
        let lost = self.ops().iter().filter(|op| op.outcome == Outcome::Done && is_lost(&op.deed)).count();
        (there.len() as u64, lost as u64)
    }

    fn rate(&self) -> f64 {
        100.0 * self.acknowledged() as f64 / ADDITIONS as f64
    }

    fn report(&self) {
        let (survivors, lost) = self.survivors_and_lost();
        println!("{:?}", self.mode);
        println!("{ADDITIONS:>6} total");
        println!("{:>6} acknowledged ({:.2} %)", self.acknowledged(), self.rate());
        println!("{survivors:>6} survivors");
        println!("{lost:>6} lost");
        for (side, [failed, done]) in ["smaller", "larger"].iter().zip(&self.cut) {
            let (failed, done) = (failed.load(Ordering::Relaxed), done.load(Ordering::Relaxed));
            println!("       while cut, on the {side} side: {done} of {} acknowledged", done + failed);
        }
    }
}

/// The checks see what clients could only have made up.
fn lies_are_found(siblings: &Outcomes, counter: &Outcomes) {
    let lied = |outcomes: &Outcomes, deed: Deed| {
        let mut ops = outcomes.ops().to_vec();
        let mut lie = ops[0].clone();
        (lie.deed, lie.outcome) = (deed, Outcome::Done);
        ops.push(lie);
        check(&outcomes.mode.key(), &ops, &outcomes.held)
    };
    assert!(lied(siblings, Deed::Append(Bytes::from_static(b"never sent;"))).is_err());
    let unknown = counter.ops().iter().filter(|op| op.outcome == Outcome::Unknown).count() as i64;
    assert!(lied(counter, Deed::Add(1 + unknown)).is_err());
}
