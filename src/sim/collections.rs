//! Clients of collections, and what must hold of them in the end.
//!
//! | family | commands | promise |
//! |---|---|---|
//! | `k` | SADD, SREM, SPOP, SMEMBERS, SCARD, DEL, SUNIONSTORE | what was added and acknowledged is there unless somebody removed it; what was removed stays away |
//! | `h` | HINCRBY, HGET, HLEN | sums are exact, field by field |
//! | `w` | SADD, HSET, SET, DEL under one key | whatever is there is the same everywhere |
//!
//! Every member is added once, so that whoever finds it knows which SADD that was.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::client::Client;
use super::history::{Deed, Key, Op, check_counter};
use super::world::World;
use crate::base::id::{Db, Region};
use crate::base::kind::Kind;
use crate::commands::elements::member_of;
use crate::model::{Element, Fault, Look};
use crate::node::Node;
use crate::resp::Reply;

/// Fields of a hash of counters.
const FIELDS: [&[u8]; 3] = [b"f", b"g", b"h"];

impl Client {
    /// Sends one command about a collection.
    pub(super) async fn on_collections(&mut self) {
        let number = self.rng.below(self.world.config.keys);
        match self.rng.below(8) {
            0..=4 => self.on_set(format!("k{number}").into()).await,
            5..=6 => self.on_counters(number).await,
            _ => self.on_many_kinds(&format!("w{number}").into()).await,
        }
    }

    async fn on_set(&mut self, key: Key) {
        let db = Db(0);
        match self.rng.below(20) {
            0..=8 => {
                let member = self.value();
                self.send(db, &[b"SADD", &key, &member], &key, |_| Deed::Join(member.clone())).await;
            }
            9..=13 => {
                let Some(member) = self.member_of(&key).await else { return };
                let removed = |reply: &Reply| match reply {
                    Reply::Int(0) => Deed::Leave(BTreeSet::new()),
                    _ => Deed::Leave([member.clone()].into()),
                };
                self.send(db, &[b"SREM", &key, &member], &key, removed).await;
            }
            14..=15 => {
                let popped = |reply: &Reply| match reply {
                    Reply::Bulk(member) => Deed::Leave([member.clone()].into()),
                    Reply::Nil => Deed::Leave(BTreeSet::new()),
                    _ => Deed::Delete,
                };
                self.send(db, &[b"SPOP", &key], &key, popped).await;
            }
            16 => self.send(db, &[b"DEL", &key], &key, |_| Deed::Delete).await,
            17 => drop(self.ask(db, &[b"SCARD", &key]).await),
            18 => drop(self.ask(db, &[b"SRANDMEMBER", &key, b"3"]).await),
            // Its result is nobody's promise; that it is one everywhere is.
            _ => drop(self.ask(db, &[b"SUNIONSTORE", b"w-union", &key, b"k0"]).await),
        }
    }

    /// A member that is there, as far as somebody says.
    async fn member_of(&mut self, key: &Key) -> Option<Bytes> {
        match self.ask(Db(0), &[b"SRANDMEMBER", key]).await.reply {
            Reply::Bulk(member) => Some(member),
            _ => None,
        }
    }

    async fn on_counters(&mut self, number: u64) {
        let field = FIELDS[self.rng.below(FIELDS.len() as u64) as usize];
        let key: Key = format!("h{number}").into();
        // Each field is a history of its own.
        let name: Key = [&key[..], b".", field].concat().into();
        match self.rng.below(4) {
            0 => drop(self.ask(Db(0), &[b"HGET", &key, field]).await),
            1 => drop(self.ask(Db(0), &[b"HLEN", &key]).await),
            2 => self.send(Db(0), &[b"HINCRBY", &key, field, b"-3"], &name, |_| Deed::Add(-3)).await,
            _ => self.send(Db(0), &[b"HINCRBY", &key, field, b"10"], &name, |_| Deed::Add(10)).await,
        }
    }

    async fn on_many_kinds(&mut self, key: &Key) {
        let value = self.value();
        match self.rng.below(6) {
            0 => drop(self.ask(Db(0), &[b"SET", key, &value]).await),
            1 => drop(self.ask(Db(0), &[b"HSET", key, b"f", &value]).await),
            2 => drop(self.ask(Db(0), &[b"DEL", key]).await),
            3 => drop(self.ask(Db(0), &[b"RENAME", key, b"w-renamed"]).await),
            _ => drop(self.ask(Db(0), &[b"SADD", key, &value]).await),
        }
    }
}

/// What must hold of a key of these families.
pub fn check(world: &World, key: &Key, ops: &[Op]) -> Result<(), String> {
    match key.first() {
        Some(b'k') => {
            let there = elements(world, key, Kind::Set)?;
            check_set(ops, &there.iter().map(member_of).collect())
        }
        Some(b'h') => {
            let (hash, field) = key.split_at(key.len().saturating_sub(2));
            let there = elements(world, hash, Kind::Hash)?;
            let found = there.iter().find(|element| member_of(element) == field[1..]);
            let text = found.map_or(Bytes::from_static(b"0"), |element| element.text(0));
            let sum = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
            check_counter(ops, sum.ok_or(format!("{text:?} is no number"))?)
        }
        _ => Ok(()),
    }
}

/// Members that are there were added; those that were acknowledged and not removed are there; those that were removed by
/// somebody who was told so, after they had been acknowledged, are not.
pub fn check_set(ops: &[Op], there: &BTreeSet<Bytes>) -> Result<(), String> {
    let mut joined = BTreeSet::new();
    for op in ops {
        let Deed::Join(member) = &op.deed else { continue };
        joined.insert(member.clone());
        let after = |other: &&Op| other.happened() && !other.was_over(op.began);
        let mut removals = ops.iter().filter(after).filter(|other| match &other.deed {
            Deed::Leave(gone) => gone.contains(member),
            Deed::Delete => true,
            _ => false,
        });
        if op.is_acknowledged() && !there.contains(member) && removals.clone().next().is_none() {
            return Err(format!("{member:?} was added, never removed, and is not there"));
        }
        let told = |other: &Op| other.is_acknowledged() && op.is_acknowledged() && op.was_over(other.began);
        let removed = removals.find(|other| matches!(other.deed, Deed::Leave(_)) && told(other));
        if let Some(removed) = removed.filter(|_| there.contains(member)) {
            return Err(format!("{member:?} was removed by {removed:?} and is there"));
        }
    }
    match there.iter().find(|member| !joined.contains(*member)) {
        Some(strange) => Err(format!("{strange:?} was never added")),
        None => Ok(()),
    }
}

/// What the first owner of a key has of a kind.
fn elements(world: &World, key: &[u8], kind: Kind) -> Result<Vec<Element>, String> {
    let region = Region { db: Db(0), partition: world.config.partitions.of_key(key) };
    let nodes = || (0..world.len()).filter_map(|at| world.node(at)).map(|(node, _)| node);
    let view = nodes().next().ok_or("no node is up")?.coordinator.view.load_full();
    let owners = view.ring.owners(region.partition);
    let owner = nodes().find(|node: &std::sync::Arc<Node>| owners.first() == Some(&node.me)).ok_or("no owner")?;
    let mut found = Vec::new();
    let read = owner.replica().view(region, 0, |view| {
        let Some(held) = view.holds(key)?.part(kind) else { return Ok(()) };
        view.each(key, held, |element| {
            found.push(element);
            Ok::<(), Fault>(())
        })?;
        match held.count == found.len() as u64 {
            true => Ok(()),
            false => Err(Fault::Store(format!("{} elements are counted and {} are there", held.count, found.len()))),
        }
    });
    read.map(|()| found).map_err(|fault| fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::history::Outcome;
    use super::*;

    fn op(at: u64, deed: Deed, outcome: Outcome) -> Op {
        Op { client: 0, began: 2 * at, ended: 2 * at + 1, deed, outcome, wrote: None }
    }

    fn join(at: u64, member: &'static str) -> Op {
        op(at, Deed::Join(member.into()), Outcome::Done)
    }

    fn leave(at: u64, member: &'static str, outcome: Outcome) -> Op {
        op(at, Deed::Leave([Bytes::from(member)].into()), outcome)
    }

    fn set(members: &[&'static str]) -> BTreeSet<Bytes> {
        members.iter().map(|member| Bytes::from(*member)).collect()
    }

    #[test]
    fn what_was_added_is_there_and_what_was_removed_is_not() {
        let ops = [join(1, "a"), join(2, "b"), leave(3, "b", Outcome::Done)];
        assert_eq!(check_set(&ops, &set(&["a"])), Ok(()));
        assert!(check_set(&ops, &set(&[])).is_err_and(|why| why.contains("never removed")));
        assert!(check_set(&ops, &set(&["a", "b"])).is_err_and(|why| why.contains("was removed")));
        assert!(check_set(&ops, &set(&["a", "c"])).is_err_and(|why| why.contains("never added")));
    }

    #[test]
    fn what_is_unknown_may_have_happened_or_not() {
        let ops = [join(1, "a"), leave(2, "a", Outcome::Unknown), op(3, Deed::Join("b".into()), Outcome::Unknown)];
        for there in [set(&[]), set(&["a"]), set(&["b"]), set(&["a", "b"])] {
            assert_eq!(check_set(&ops, &there), Ok(()));
        }
        let ops = [op(1, Deed::Delete, Outcome::Done), join(2, "a"), op(3, Deed::Delete, Outcome::NotDone)];
        assert!(check_set(&ops, &set(&[])).is_err(), "what was over before does not excuse it");
    }
}
