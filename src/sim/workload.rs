//! What clients send: families of keys, by the first letter of the key, each with commands and a promise of its own.
//!
//! | family | commands | promise |
//! |---|---|---|
//! | `r` | DYNAMO.GET, PUT, DEL with contexts | siblings are exactly the causally maximal writes |
//! | `s` | SET and kin, GETSET, MSET, MGET, DEL | what was acknowledged is there or was replaced by who saw it |
//! | `q` | SET, GET, DEL of one client that hops between nodes | under `strict`: as on one Redis |
//! | `l` | SET NX, released with a context | under `strict`: one holder at a time |
//! | `a` | APPEND | no word twice, none lost |
//! | `c`, `d` | INCR, DECR, INCRBY; INCR and GETDEL | sums are exact |
//! | `e` | SET PX, PEXPIRE | nothing is left |
//! | `f` | SET, GET in a database that is flushed | as `s` |
//! | `m` | SET, RENAME, COPY of one client | a value is where it was put |

use std::collections::BTreeSet;

use bytes::Bytes;

use super::client::{Client, Told};
use super::history::{Deed, Key, Outcome};
use crate::base::id::Db;
use crate::resp::Reply;

/// How often each family is drawn.
const FAMILIES: &[u8] = b"rrssqqqllaccdeffm*";

/// How long keys are new.
const TIME_MS: u64 = 2_500;

impl Client {
    /// Sends one command, or a few that belong together.
    pub(super) async fn step(&mut self) {
        if self.world.config.collections && self.rng.chance(0.5) {
            self.draw_quorum();
            return self.on_collections().await;
        }
        let family = FAMILIES[self.rng.below(FAMILIES.len() as u64) as usize];
        let key: Key = format!("{}{}", char::from(family), self.rng.below(self.world.config.keys)).into();
        self.draw_quorum();
        match family {
            b'r' => self.on_context_register(key).await,
            b's' => {
                let key = self.of_the_time(key);
                self.on_plain_register(key).await;
            }
            b'q' => {
                let key = self.of_the_time(format!("q{}", self.number).into());
                self.on_own_register(key).await;
            }
            b'l' => self.on_lock(key).await,
            b'a' => self.append(key).await,
            b'c' => self.count(key).await,
            b'd' => self.count_and_take(key).await,
            b'e' => self.write_for_a_while(key).await,
            b'f' => self.on_flushed_database(key).await,
            b'm' => self.on_moved_register().await,
            _ => self.on_everything().await,
        }
    }

    /// A key of these seconds, or of former ones: they are used less and less, so that what went wrong then is not all
    /// written over.
    fn of_the_time(&mut self, key: Key) -> Key {
        let now = self.world.net.now_ms() / TIME_MS;
        let time = if self.rng.chance(0.6) { now } else { self.rng.below(now + 1) };
        [&key[..], format!("at{time}").as_bytes()].concat().into()
    }

    /// Now and then more replicas than usual are asked for; never fewer are told.
    fn draw_quorum(&mut self) {
        let owners = self.world.config.owners() as u64;
        let more = |least: usize, rng: &mut crate::base::rng::Rng| {
            (rng.chance(0.1)).then(|| (least as u64 + rng.below(owners - least as u64 + 1)) as u8)
        };
        let read = usize::from(self.world.config.options.read_quorum).clamp(1, owners as usize);
        self.quorum.read = more(read, &mut self.rng);
        self.quorum.write = more(self.world.config.write_quorum(), &mut self.rng);
        self.quorum.strict = Some(self.world.config.is_strict(self.number));
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
        match self.rng.below(14) {
            0..=2 => self.send(Db(0), &[b"GET", &key], &key, |reply| Deed::Get(bulk(reply))).await,
            3..=5 => self.send(Db(0), &[b"SET", &key, &value], &key, |_| Deed::Set(value.clone())).await,
            6 => self.send(Db(0), &[b"SET", &key, &value, b"GET"], &key, |_| Deed::Set(value.clone())).await,
            7 => self.send(Db(0), &[b"SET", &key, &value, b"NX"], &key, |reply| set_if_told(reply, &value)).await,
            8 => self.send(Db(0), &[b"SET", &key, &value, b"XX"], &key, |reply| set_if_told(reply, &value)).await,
            9 => self.send(Db(0), &[b"GETDEL", &key], &key, |_| Deed::Delete).await,
            10 => self.send(Db(0), &[b"DEL", &key], &key, |_| Deed::Delete).await,
            11 => self.send(Db(0), &[b"GETSET", &key, &value], &key, |_| Deed::Set(value.clone())).await,
            12 => self.read_many(key).await,
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

    async fn read_many(&mut self, key: Key) {
        let other: Key = format!("s{}", self.world.config.keys).into();
        let began = self.history.lock().moment();
        let told = self.ask(Db(0), &[b"MGET", &key, &other]).await;
        let Reply::Array(values) = &told.reply else { return };
        for (key, value) in [&key, &other].into_iter().zip(values) {
            self.note(key, began, Deed::Get(bulk(value)), &told);
        }
    }

    /// A key that nobody else writes, by one command after the other, each at whichever node.
    async fn on_own_register(&mut self, key: Key) {
        let value = self.value();
        match self.rng.below(8) {
            0..=2 => self.send(Db(0), &[b"GET", &key], &key, |reply| Deed::Get(bulk(reply))).await,
            3..=5 => self.send(Db(0), &[b"SET", &key, &value], &key, |_| Deed::Set(value.clone())).await,
            6 => self.send(Db(0), &[b"DEL", &key], &key, |_| Deed::Delete).await,
            _ => {
                let began = self.history.lock().moment();
                let told = self.ask(Db(0), &[b"GETSET", &key, &value]).await;
                if told.outcome == Outcome::Done {
                    self.note(&key, began, Deed::Get(bulk(&told.reply)), &told);
                }
                self.note(&key, began, Deed::Set(value), &told);
            }
        }
    }

    /// Only owners count for locks, whatever else a client does. A lock is taken with SET NX and given back with a context, so that only what its holder wrote goes.
    async fn on_lock(&mut self, key: Key) {
        self.quorum.strict = Some(true);
        let Some(token) = self.locks.get(&key).cloned() else {
            let token = self.value();
            let began = self.history.lock().moment();
            let told = self.ask(Db(0), &[b"SET", &key, &token, b"NX"]).await;
            if told.reply != Reply::Nil && told.outcome != Outcome::NotDone {
                self.locks.insert(key.clone(), token.clone());
                self.note(&key, began, Deed::Set(token), &told);
            }
            return;
        };
        let seen = self.ask(Db(0), &[b"DYNAMO.GET", &key]).await;
        let Some((context, values)) = read_context(&seen.reply) else { return };
        // One of which it was not told whether it holds it may still come to hold it.
        if values.len() == 1 && values.contains(&token) {
            let began = self.history.lock().moment();
            let told = self.ask(Db(0), &[b"DYNAMO.DEL", &key, &context]).await;
            self.note(&key, began, Deed::Remove(values), &told);
            if told.outcome == Outcome::Done {
                self.locks.remove(&key);
            }
        }
    }

    /// Two keys that nobody else writes, between which a value moves.
    async fn on_moved_register(&mut self) {
        let [one, other] = ["a", "b"].map(|which| Key::from(format!("m{}{which}", self.number)));
        let (value, began) = (self.value(), self.history.lock().moment());
        let (source, told, deed) = match self.rng.below(6) {
            0 => (&one, self.ask(Db(0), &[b"RENAME", &one, &other]).await, Deed::Move),
            1 => (&one, self.ask(Db(0), &[b"COPY", &one, &other, b"REPLACE"]).await, Deed::Copy),
            2 => {
                let told = self.ask(Db(0), &[b"GET", &other]).await;
                (&other, Told { wrote: None, ..told }, Deed::Get(None))
            }
            _ => (&one, self.ask(Db(0), &[b"SET", &one, &value]).await, Deed::Set(value)),
        };
        let deed = if let Deed::Get(_) = deed { Deed::Get(bulk(&told.reply)) } else { deed };
        self.note(source, began, deed, &told);
    }

    /// Commands on all keys; and WAIT, which must not say that more replicas have a write than do.
    async fn on_everything(&mut self) {
        match self.rng.below(4) {
            0 => drop(self.ask(Db(0), &[b"DBSIZE"]).await),
            1 => drop(self.ask(Db(0), &[b"SCAN", b"0", b"COUNT", b"50"]).await),
            _ => {
                let Some((region, dot)) = self.wrote else { return };
                let told = self.ask(Db(0), &[b"WAIT", b"2", b"200"]).await;
                let Reply::Int(said) = told.reply else { return };
                let most = (self.world.may_have(region, dot) as i64 - 1).max(0);
                if said > most && !self.world.config.forgets() {
                    let what = format!("WAIT says that {said} replicas have {dot} of {region}, at most {most} do");
                    self.world.oracle.lock().violate(what);
                }
            }
        }
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
}

/// A conditional SET that was told that it did nothing did nothing; one that was told nothing may have.
fn set_if_told(reply: &Reply, value: &Bytes) -> Deed {
    match reply {
        Reply::Nil => Deed::Read(BTreeSet::new()),
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
