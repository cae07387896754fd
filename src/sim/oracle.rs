//! What nobody in the cluster can know: every version that was ever made, and what each command replaced.
//!
//! It watches deltas leave and batches reach disks. It also keeps the trace, by which two runs of a seed are compared.

use std::collections::BTreeMap;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::base::codec::Reader;
use crate::base::id::{ActorId, Db, Region};
use crate::base::kind::Role;
use crate::causality::cell::put_versions;
use crate::causality::{Cell, Dot, Payload, Version};
use crate::model::{Delta, RowKey};
use crate::ring::Partitions;
use crate::storage::{Batch, Space};

/// See the module.
#[derive(Debug)]
pub struct Oracle {
    partitions: Partitions,
    /// Hash of what each dot of each region names: a dot names one thing for ever.
    versions: BTreeMap<(Region, Dot), u64>,
    /// What the command that wrote a value replaced, by the value's dot, as its first delta said.
    replaced: BTreeMap<(Region, Dot), Telling>,
    /// Where each value was seen: values are unique, but a command that was evaluated again has written its value twice.
    values: BTreeMap<Bytes, Vec<(Region, Dot)>>,
    /// What must never happen, and did.
    violations: Vec<String>,
    trace: u64,
    events: u64,
}

/// How a command told of what it replaced.
#[derive(Debug)]
struct Telling {
    replaced: Vec<Dot>,
    at_ms: u64,
    /// More than one peer was told so at once: that is a command and no repair, which may say less.
    certain: bool,
}

impl Oracle {
    /// One that has seen nothing.
    pub fn new(partitions: Partitions) -> Oracle {
        Oracle {
            partitions,
            versions: BTreeMap::new(),
            replaced: BTreeMap::new(),
            values: BTreeMap::new(),
            violations: Vec::new(),
            trace: 0,
            events: 0,
        }
    }

    /// Takes an event into the trace.
    pub fn trace(&mut self, at_ms: u64, what: &[u8]) {
        let mut event = self.trace.to_be_bytes().to_vec();
        event.extend_from_slice(&at_ms.to_be_bytes());
        event.extend_from_slice(what);
        self.trace = xxh3_64(&event);
        self.events += 1;
    }

    /// Hash over all events, and how many there were.
    pub fn traced(&self) -> (u64, u64) {
        (self.trace, self.events)
    }

    /// Something happened that must not.
    pub fn violate(&mut self, what: String) {
        self.violations.push(what);
    }

    /// All of that.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// A delta leaves a node that gives dots as `actor`.
    pub fn sees_delta(&mut self, at_ms: u64, actor: ActorId, delta: &Delta) {
        for (row, change) in &delta.rows {
            for version in &change.new {
                let fresh = !self.versions.contains_key(&(delta.region, version.dot));
                self.sees_version(delta.region, row, version);
                if version.dot.actor == actor && matches!(version.payload, Payload::Value(_)) {
                    self.sees_telling(at_ms, (delta.region, version.dot), &change.superseded, fresh);
                }
            }
        }
    }

    fn sees_telling(&mut self, at_ms: u64, version: (Region, Dot), replaced: &[Dot], fresh: bool) {
        match self.replaced.get_mut(&version) {
            Some(telling) => telling.certain |= telling.at_ms == at_ms && telling.replaced == replaced,
            None if fresh => {
                drop(self.replaced.insert(version, Telling { replaced: replaced.to_vec(), at_ms, certain: false }));
            }
            None => {}
        }
    }

    /// A batch reaches a disk.
    pub fn sees_batch(&mut self, batch: &Batch) {
        for change in batch.iter().filter(|change| change.space == Space::Data) {
            let Some(value) = &change.value else { continue };
            if RowKey::split(&change.key).is_some_and(|(tag, _)| tag.role() == Role::Index) {
                // It has the dot of what it stands for.
                continue;
            }
            let (Some(token), Ok(cell)) = (RowKey::token_of(&change.key), Cell::read(&mut Reader::new(value.clone())))
            else {
                self.violate("a row on disk makes no sense".into());
                continue;
            };
            let region = Region { db: Db(change.key[0]), partition: self.partitions.of_token(token) };
            cell.versions().iter().for_each(|version| self.sees_version(region, &change.key, version));
        }
    }

    /// All that the command that wrote a value replaced, if that is certain.
    pub fn all_replaced_by(&self, value: &Bytes) -> Option<Vec<Dot>> {
        let tellings = self.places_of(value).iter().map(|place| self.replaced.get(place));
        let certain = tellings.map(|telling| telling.filter(|telling| telling.certain).map(|it| it.replaced.clone()));
        let all: Vec<Vec<Dot>> = certain.collect::<Option<_>>()?;
        (!all.is_empty()).then(|| all.concat())
    }

    /// Some of what it replaced, as far as it was seen.
    pub fn replaced_by(&self, value: &Bytes) -> impl Iterator<Item = Dot> {
        let tellings = self.places_of(value).iter().filter_map(|place| self.replaced.get(place));
        tellings.flat_map(|telling| telling.replaced.iter().copied())
    }

    /// Where a value was seen.
    pub fn places_of(&self, value: &Bytes) -> &[(Region, Dot)] {
        self.values.get(value).map_or(&[], Vec::as_slice)
    }

    fn sees_version(&mut self, region: Region, row: &Bytes, version: &Version) {
        let mut said = row.to_vec();
        put_versions(&mut said, std::slice::from_ref(version));
        let hash = xxh3_64(&said);
        let known = *self.versions.entry((region, version.dot)).or_insert(hash);
        if known != hash {
            self.violate(format!("dot {} of {region} names two things", version.dot));
        }
        if let Payload::Value(value) = &version.payload {
            let places = self.values.entry(value.data.clone()).or_default();
            if !places.contains(&(region, version.dot)) {
                places.push((region, version.dot));
            }
        }
    }
}
