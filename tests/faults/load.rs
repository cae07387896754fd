//! What clients do all day: registers read, changed and written back with contexts, plain keys, counters; and under strict
//! quorums keys, logs and locks that have to behave as on one Redis.
//!
//! A key's first letter says what it is; `check` says what must be there in the end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use bytes::Bytes;
use redynamo::sim::history::{Deed, Outcome};

use super::client::{Client, Told};
use super::cluster::held;
use super::logbook::Phase;
use super::wire::Value;

/// Keys of each kind that are in use at once.
const SETS: u64 = 4;
const REGISTERS: u64 = 40;
const OWN: u64 = 6;
const COUNTERS: u64 = 8;

/// About how long a client rests between commands.
const PACE_MS: u64 = 40;

/// Locks are left behind when it is not known who has them.
static LOCK: AtomicU64 = AtomicU64::new(0);

/// A client at work.
pub struct Worker {
    pub client: Client,
    /// Speaks under strict quorums.
    pub strict: bool,
    written: u64,
}

impl Worker {
    pub fn new(client: Client, strict: bool) -> Worker {
        Worker { client, strict, written: 0 }
    }

    /// Works and rests as the logbook says, to the end.
    pub fn run(mut self) {
        let book = self.client.book.clone();
        loop {
            match book.phase() {
                Phase::End => return,
                Phase::Work => {
                    self.step();
                    let pause = PACE_MS / 2 + self.client.rng.below(PACE_MS);
                    sleep(Duration::from_millis(pause));
                }
                Phase::Rest => {
                    book.resting().fetch_add(1, Ordering::SeqCst);
                    while book.phase() == Phase::Rest {
                        sleep(Duration::from_millis(20));
                    }
                    book.resting().fetch_sub(1, Ordering::SeqCst);
                }
            }
        }
    }

    fn step(&mut self) {
        let (round, mine) = (self.client.book.round(), self.client.number);
        let mut some = |most| self.client.rng.below(most);
        let (kind, set, register, own, counter) = (some(10), some(SETS), some(REGISTERS), some(OWN), some(COUNTERS));
        match (self.strict, kind) {
            (false, 0..=2) => self.add(format!("a{round}-{set}").into()),
            (false, 3..=6) => self.change(format!("r{round}-{register}").into()),
            (false, 7..=8) => self.write(format!("s{mine}-{own}").into()),
            (false, _) => self.count(format!("c{counter}").into()),
            (true, 0..=4) => self.write_read_or_delete(format!("d{mine}-{own}").into()),
            (true, 5..=6) => self.append(format!("l{mine}-{round}").into()),
            (true, _) => self.lock(),
        }
    }

    /// Adds a word to the union of what is there.
    fn add(&mut self, key: Bytes) {
        let word = self.word();
        let Some((context, seen)) = self.read(&key) else { return };
        let mut words: BTreeSet<&[u8]> =
            seen.iter().flat_map(|value| value.split_inclusive(|byte| *byte == b';')).collect();
        words.insert(&word);
        let union = words.into_iter().collect::<Vec<_>>().concat();
        let deed = Deed::Append(word.clone());
        self.tell("add", &key, &[b"DYNAMO.PUT", &key, &context, &union], deed);
    }

    /// Replaces or deletes exactly what was read; sometimes writes as if nothing had been.
    fn change(&mut self, key: Bytes) {
        let value = self.word();
        let blind = self.client.rng.chance(0.1);
        let read = if blind { Some((Bytes::from_static(b"-"), BTreeSet::new())) } else { self.read(&key) };
        let Some((context, seen)) = read else { return };
        if !blind && self.client.rng.chance(0.3) {
            self.tell("delete", &key, &[b"DYNAMO.DEL", &key, &context], Deed::Remove(seen));
        } else {
            let deed = Deed::Put { value: value.clone(), seen };
            self.tell("put", &key, &[b"DYNAMO.PUT", &key, &context, &value], deed);
        }
    }

    fn read(&mut self, key: &Bytes) -> Option<(Bytes, BTreeSet<Bytes>)> {
        match self.client.send("read", &[b"DYNAMO.GET", key.as_ref()]) {
            Told::Answer(answer) => match held(&answer) {
                Ok((context, held)) => Some((context, held.siblings)),
                Err(why) => {
                    self.client.book.violation(why);
                    None
                }
            },
            _ => None,
        }
    }

    fn write(&mut self, key: Bytes) {
        let value = self.word();
        self.tell("set", &key, &[b"SET", &key, &value], Deed::Set(value.clone()));
    }

    fn count(&mut self, key: Bytes) {
        let by = 1 + self.client.rng.below(5) as i64;
        self.tell("count", &key, &[b"INCRBY", &key, by.to_string().as_bytes()], Deed::Add(by));
    }

    fn write_read_or_delete(&mut self, key: Bytes) {
        match self.client.rng.below(10) {
            0..=4 => {
                let value = self.word();
                self.tell("strict", &key, &[b"SET", &key, &value], Deed::Set(value.clone()));
            }
            5..=6 => drop(self.tell("strict", &key, &[b"DEL", &key], Deed::Delete)),
            _ => {
                let began = self.client.book.moment();
                if let Told::Answer(answer) = self.client.send("strict read", &[b"GET", key.as_ref()]) {
                    let value = (answer != Value::Nil).then(|| Bytes::from(answer.text().into_bytes()));
                    self.client.book.note(self.client.number, began, &key, Deed::Get(value), Outcome::Done);
                }
            }
        }
    }

    fn append(&mut self, key: Bytes) {
        let word = self.word();
        self.tell("strict", &key, &[b"APPEND", &key, &word], Deed::Append(word.clone()));
    }

    /// Takes a lock, holds it for a moment, gives it back. Whoever does not know what happened leaves it behind for good.
    fn lock(&mut self) {
        let lock = LOCK.load(Ordering::SeqCst);
        let (key, who) = (format!("k{lock}"), self.client.number.to_string());
        let leave_behind = || {
            LOCK.fetch_max(lock + 1, Ordering::SeqCst);
        };
        match self.client.send("lock", &["SET", &key, &who, "NX"]) {
            Told::Answer(Value::Nil) | Told::NotDone(_) => return,
            Told::Unknown(_) => return leave_behind(),
            Told::Answer(_) => self.client.book.locked(lock, self.client.number),
        }
        sleep(Duration::from_millis(self.client.rng.below(30)));
        self.client.book.unlocks(lock);
        match self.client.send("lock", &["DEL", &key]) {
            Told::Answer(Value::Int(1)) => {}
            Told::Answer(other) => {
                self.client.book.violation(format!("lock {lock} was gone when given back: {other:?}"))
            }
            _ => leave_behind(),
        }
    }

    /// Sends a command and remembers what became of it.
    fn tell(&mut self, kind: &'static str, key: &Bytes, args: &[&[u8]], deed: Deed) -> Told {
        let began = self.client.book.moment();
        let told = self.client.send(kind, args);
        self.client.book.note(self.client.number, began, key, deed, told.outcome());
        told
    }

    /// A word that nobody else writes.
    fn word(&mut self) -> Bytes {
        self.written += 1;
        format!("{}.{};", self.client.number, self.written).into()
    }
}
