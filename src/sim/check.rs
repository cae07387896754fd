//! What must hold once everything is calm: owners are equal in every respect, each is what its disk would make of it, and
//! the causal invariants hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::client::ask;
use super::world::{Crash, World};
use crate::base::codec::Reader;
use crate::base::id::{Db, NodeId, Partition, Region};
use crate::base::kind::Role;
use crate::causality::{Cell, Clock};
use crate::model::RowKey;
use crate::node::Node;
use crate::replica::{Replica, Tally};
use crate::resp::Reply;
use crate::storage::Space;

/// Everything that two owners of a region must agree on.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    rows: BTreeMap<Bytes, Bytes>,
    root: u128,
    clock: u64,
    keys: u64,
    expiring: u64,
    voids: u64,
    siblings: u64,
}

/// A region and its owners' nodes.
type Owned = (Region, Vec<Arc<Node>>);

/// Every region with its owners.
fn regions(world: &World) -> Result<Vec<Owned>, String> {
    let nodes: BTreeMap<NodeId, Arc<Node>> =
        (0..world.len()).filter_map(|at| world.node(at)).map(|(node, _)| (node.me, node)).collect();
    let view = nodes.values().next().ok_or("no node is up")?.coordinator.view.load_full();
    let mut all = Vec::new();
    for partition in view.ring.partitions().iter() {
        let owners: Vec<_> = view.ring.owners(partition).iter().filter_map(|id| nodes.get(id).cloned()).collect();
        let dbs = 0..world.config.options.databases;
        all.extend(dbs.map(|db| (Region { db: Db(db as u8), partition }, owners.clone())));
    }
    Ok(all)
}

/// Whether all owners of every region are equal.
pub fn converged(world: &World) -> Result<(), String> {
    for (region, owners) in regions(world)? {
        let mut held = Vec::new();
        for owner in &owners {
            held.push((owner.me, held_by(owner.replica(), region)?));
        }
        if let Some(pair) = held.windows(2).find(|pair| pair[0].1 != pair[1].1) {
            return Err(format!("{region} differs: {:?} and {:?}", pair[0], pair[1]));
        }
    }
    Ok(())
}

/// Whether nobody holds anything for others any more: no hint, no row, no clock of a region that it does not own.
pub fn given_back(world: &World) -> Result<(), String> {
    for (node, _) in (0..world.len()).filter_map(|at| world.node(at)) {
        let (me, replica, view) = (node.me, node.replica(), node.coordinator.view.load_full());
        let stored = |space| replica.store().range(space, &[], &[], usize::MAX).map_err(|error| error.to_string());
        let hints = stored(Space::Hints)?.len();
        if hints > 0 || replica.hint_stats().values().any(|kept| kept.count > 0) {
            return Err(format!("{me} still keeps {hints} hints: {:?}", replica.hint_stats()));
        }
        if let Some(region) = replica.regions_outside(|partition| view.owns(partition)).first() {
            return Err(format!("{me} still stands in for the owners of {region}"));
        }
        let partition_of = |row: &Bytes| RowKey::token_of(row).map(|token| world.config.partitions.of_token(token));
        let strange = |row: &Bytes| partition_of(row).is_none_or(|partition| !view.owns(partition));
        if let Some((row, _)) = stored(Space::Data)?.into_iter().find(|(row, _)| strange(row)) {
            return Err(format!("{me} has row {row:?}, which it does not own"));
        }
    }
    Ok(())
}

/// Whether all nodes agree on who coordinates what, and whoever coordinates does so in a term of its own.
pub fn agree(world: &World) -> Result<(), String> {
    let nodes: Vec<Arc<Node>> = (0..world.len()).filter_map(|at| world.node(at)).map(|(node, _)| node).collect();
    for partition in world.config.partitions.iter() {
        let coordinators: BTreeSet<Option<NodeId>> =
            nodes.iter().map(|node| node.coordinator.view.load().coordinator(partition)).collect();
        if coordinators.len() != 1 {
            return Err(format!("several coordinate {partition:?}: {coordinators:?}"));
        }
        let settled = nodes.iter().filter(|node| coordinators.contains(&Some(node.me)));
        let foreign = |node: &&Arc<Node>| {
            node.coordinator.is_settled(partition) && node.replica().term(partition).node != node.me
        };
        if let Some(node) = settled.filter(|_| world.len() > 1).find(foreign) {
            let term = node.replica().term(partition);
            return Err(format!("{} is settled in {partition:?} in another's term {term:?}", node.me));
        }
    }
    Ok(())
}

/// Whether what each node says of its rows (clock, tree, counts) is what its rows say.
pub fn sound(world: &World) -> Result<(), String> {
    for (region, owners) in regions(world)? {
        for owner in owners {
            every_dot_is_in_the_clock(owner.replica(), region).map_err(|why| format!("{}: {why}", owner.me))?;
        }
    }
    Ok(())
}

/// Ends every node and opens its disk again: what comes up is what went down. Nothing runs afterwards.
pub fn survives_a_restart(world: &World) -> Result<(), String> {
    let regions = regions(world)?;
    for at in 0..world.len() {
        let Some((node, _)) = world.node(at) else { continue };
        let owned = regions.iter().filter(|(_, owners)| owners.iter().any(|owner| owner.me == node.me));
        let owned: Vec<Region> = owned.map(|(region, _)| *region).collect();
        let mut before = Vec::new();
        for region in &owned {
            before.push(held_by(node.replica(), *region)?);
        }
        world.crash(at, Crash::Kill);
        let again = world.open_again(at)?;
        for (region, before) in owned.iter().zip(before) {
            let after = held_by(&again, *region)?;
            if before != after {
                return Err(format!("{region} of {} was {before:?} and opens as {after:?}", node.me));
            }
        }
    }
    Ok(())
}

/// Whether every node lists and counts exactly the keys that are there.
pub async fn listed(world: &World) -> Result<(), String> {
    for db in (0..world.config.options.databases).map(|db| Db(db as u8)) {
        let there: u64 = regions(world)?
            .iter()
            .filter(|(region, _)| region.db == db)
            .filter_map(|(region, owners)| Some(owners.first()?.replica().tally(*region).keys))
            .sum();
        for at in 0..world.len() {
            let counted = ask(world, at, db, &[b"DBSIZE"]).await.reply;
            let listed = list(world, at, db).await?;
            if counted != Reply::Int(there as i64) || listed.len() as u64 != there {
                let what =
                    format!("{there} keys of {db:?} are there, node {at} counts {counted:?}, lists {}", listed.len());
                return Err(format!("{what}; not listed: {:?}", not_listed(world, db, &listed)?));
            }
        }
    }
    Ok(())
}

/// Rows of a database that are stored at first owners and that nobody lists.
fn not_listed(world: &World, db: Db, listed: &BTreeSet<Bytes>) -> Result<Vec<(Bytes, Arc<Cell>)>, String> {
    let mut missing = Vec::new();
    for (region, owners) in regions(world)?.into_iter().filter(|(region, _)| region.db == db) {
        let Some(owner) = owners.first() else { continue };
        for row in rows_of(owner.replica(), region)?.into_keys() {
            let key = RowKey::decode(row.clone()).map_err(|error| error.to_string())?.key;
            if !listed.contains(&key) {
                missing.push((key, owner.replica().cell(region, &row).map_err(|fault| fault.to_string())?));
            }
        }
    }
    Ok(missing)
}

/// All keys, as SCAN lists them.
async fn list(world: &World, at: usize, db: Db) -> Result<BTreeSet<Bytes>, String> {
    let (mut cursor, mut found) = (Bytes::from_static(b"0"), BTreeSet::new());
    loop {
        let told = ask(world, at, db, &[b"SCAN", &cursor, b"COUNT", b"7"]).await.reply;
        let Reply::Array(parts) = &told else { return Err(format!("node {at} does not scan: {told:?}")) };
        let [Reply::Bulk(next), Reply::Array(keys)] = &parts[..] else { return Err(format!("a scan: {told:?}")) };
        found.extend(keys.iter().filter_map(|key| if let Reply::Bulk(key) = key { Some(key.clone()) } else { None }));
        if next == "0" {
            return Ok(found);
        }
        cursor = next.clone();
    }
}

/// The cell of a key at its first owner.
pub fn cell_of(world: &World, db: Db, key: &[u8]) -> Result<Arc<Cell>, String> {
    let partition = world.config.partitions.of_key(key);
    let region = Region { db, partition };
    let found =
        regions(world)?.into_iter().find(|(at, _)| *at == region).and_then(|(_, owners)| owners.first().cloned());
    let owner = found.ok_or("a region without an owner")?;
    owner.replica().cell(region, &RowKey::head(db, key)).map_err(|fault| fault.to_string())
}

fn held_by(replica: &Replica, region: Region) -> Result<Held, String> {
    let Tally { keys, expiring, voids, siblings, .. } = replica.tally(region);
    let digests = replica.digests(u16::from(region.db.0) + 1, region.partition);
    let (root, clock) =
        digests.iter().find(|(at, ..)| *at == region).map_or((0, empty_clock()), |(_, root, clock)| (*root, *clock));
    Ok(Held { rows: rows_of(replica, region)?, root, clock, keys, expiring, voids, siblings })
}

/// The hash of a clock that has seen nothing, as digests have it.
fn empty_clock() -> u64 {
    let mut clock = Vec::new();
    Clock::new().put(&mut clock);
    xxh3_64(&clock)
}

fn rows_of(replica: &Replica, region: Region) -> Result<BTreeMap<Bytes, Bytes>, String> {
    let Region { db, partition: Partition(at) } = region;
    let tokens = replica.partitions().tokens(Partition(at)).ok_or("no such partition")?;
    let (from, to) = (RowKey::bound(db, tokens.start().raw()), RowKey::bound(db, tokens.end().raw() + 1));
    let rows = replica.store().range(Space::Data, &from, &to, usize::MAX).map_err(|error| error.to_string())?;
    let index = |row: &Bytes| RowKey::split(row).is_some_and(|(tag, _)| tag.role() == Role::Index);
    let rows = rows.into_iter().filter(|(row, _)| !index(row)).map(|(row, raw)| Ok((row, said_to_others(raw)?)));
    let rows: Result<BTreeMap<Bytes, Bytes>, String> = rows.collect();
    Ok(rows?.into_iter().filter(|(_, raw)| !raw.is_empty()).collect())
}

/// A stored row without what its replica knows for itself; nothing if there is nothing else.
fn said_to_others(raw: Bytes) -> Result<Bytes, String> {
    let cell = Cell::read_stored(&mut Reader::new(raw)).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    if !cell.is_empty() {
        cell.put(&mut out);
    }
    Ok(out.into())
}

fn every_dot_is_in_the_clock(replica: &Replica, region: Region) -> Result<(), String> {
    for (row, raw) in rows_of(replica, region)? {
        let cell = Cell::read(&mut Reader::new(raw)).map_err(|error| error.to_string())?;
        if let Some(dot) = cell.dots().find(|dot| !replica.has(region, *dot)) {
            return Err(format!("{dot} is in row {row:?} of {region} and not in the clock"));
        }
    }
    Ok(())
}
