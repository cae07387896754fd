//! Two replicas making a region equal: the one mechanism that heals everything (rule 1).
//!
//! This side pulls: it takes the peer's clock and tree as of one moment, compares trees, fetches the rows of leaves that
//! differ, merges them, and joins that first clock when all of them are merged. The peer pulls from here likewise. A
//! region whose root and clock are the same on both sides costs one line of one message. Regions that differ are pulled a
//! few side by side: most of a pull is waiting, for the other side, for disks, and for admission.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::time::timeout;

use super::admission::Work;
use super::{Coordinator, Hold};
use crate::base::id::{NodeId, Partition, Region};
use crate::causality::Cell;
use crate::env::blocking;
use crate::metrics;
use crate::model::Fault;
use crate::peer::{Request, Response};
use crate::replica::{Difference, Hashed, LeafRows, Snapshot};
use crate::storage::tree::LEAVES_PER_BRANCH;

/// About how many bytes of rows travel in one message: little enough for the least slice of background work.
pub const PAGE_BYTES: usize = 32 << 10;
/// Most leaves that are asked about in one message.
const LEAVES_AT_ONCE: usize = 256;
/// Partitions whose roots are asked for in one message.
const ROOTS_AT_ONCE: usize = 64;

/// Regions that are pulled from one peer side by side: what nobody waits for leaves the other threads to those who do.
const fn side_by_side(work: Work) -> usize {
    match work {
        Work::Repair => 4,
        Work::Settling => 16,
    }
}

/// What pulling from a peer brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Rows that changed here.
    pub rows: u64,
    /// The peer counts in quorums: it held all that it ever acknowledged.
    pub counted: bool,
    /// Partitions of which everything was pulled.
    pub partitions: Vec<Partition>,
    /// Why it ended before it was through with the others.
    pub ended: Option<SyncError>,
}

/// Why a sync ended early. Nothing is lost: it is begun again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// The peer does not answer.
    #[error("the peer does not answer")]
    Away,
    /// The region was dropped or rolled back on one side meanwhile.
    #[error("the region changed its incarnation")]
    Changed,
    /// This node's rows could not be read or changed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Coordinator {
    /// For what is asked of whole regions: where this node coordinates but is not settled, it pulls what enough other
    /// owners have. One that took over may lack acknowledged writes: a scan would not show them, a clear would leave them;
    /// for that one it claims a term first. Where stand-ins count, whoever can be reached will do.
    pub async fn catch_up(self: &Arc<Self>, regions: &[Region], claims: bool) -> Result<(), String> {
        let strict = regions.iter().any(|region| self.quorums.is_strict(region.db));
        let unsettled: BTreeSet<Partition> = regions.iter().map(|region| region.partition).collect();
        let unsettled: Vec<Partition> = unsettled.into_iter().filter(|at| !self.is_settled(*at)).collect();
        if unsettled.is_empty() {
            return Ok(());
        }
        let behind = |why: &str| format!("this node has not caught up with the others: {why}");
        let pulling = async {
            let holds = if claims { self.claim(&unsettled).await } else { BTreeMap::new() };
            let enough = self.pull_from_enough(&unsettled, &holds).await;
            (enough, holds)
        };
        match timeout(self.patience * 5, pulling).await {
            Ok((true, holds)) => {
                holds.into_iter().for_each(|(partition, hold)| self.set_settled(partition, hold.term));
                Ok(())
            }
            Ok((false, _)) if !strict => Ok(()),
            Ok((false, _)) => Err(behind("too few replicas answered")),
            Err(_) => Err(behind("there is too much to pull")),
        }
    }

    /// Pulls from those who granted what is held, or else from all that sit; says whether they were enough everywhere.
    async fn pull_from_enough(self: &Arc<Self>, partitions: &[Partition], holds: &BTreeMap<Partition, Hold>) -> bool {
        let mut peers: BTreeMap<NodeId, Vec<Partition>> = BTreeMap::new();
        for partition in partitions {
            let view = self.view.load();
            for seat in view.seats(*partition).iter().filter(|seat| seat.node != view.me) {
                peers.entry(seat.node).or_default().push(*partition);
            }
        }
        let counts = |peer: &NodeId, partition: &Partition| match holds.get(partition) {
            Some(hold) => hold.granted.contains(peer),
            None => self.view.load().ring.owners(*partition).contains(peer),
        };
        let mut heard: BTreeMap<Partition, usize> = BTreeMap::new();
        for (peer, shared) in peers {
            let pulled = self.sync_with(peer, &shared, Work::Settling).await;
            let owned = pulled.partitions.into_iter().filter(|at| pulled.counted && counts(&peer, at));
            owned.for_each(|partition| *heard.entry(partition).or_default() += 1);
        }
        let write = self.quorums.least_write();
        let enough = |at: &Partition| heard.get(at).copied().unwrap_or(0) >= self.others_to_hear(*at, write);
        partitions.iter().all(enough)
    }

    /// Pulls from `peer` whatever differs in these partitions.
    pub async fn sync_with(self: &Arc<Self>, peer: NodeId, partitions: &[Partition], work: Work) -> Pulled {
        let mut pulled = Pulled { rows: 0, counted: true, partitions: Vec::new(), ended: None };
        for chunk in partitions.chunks(ROOTS_AT_ONCE) {
            if let Err(error) = self.sync_some(peer, chunk, work, &mut pulled).await {
                pulled.ended = Some(error);
                if pulled.ended == Some(SyncError::Away) {
                    break;
                }
            }
        }
        pulled
    }

    async fn sync_some(
        self: &Arc<Self>,
        peer: NodeId,
        partitions: &[Partition],
        work: Work,
        pulled: &mut Pulled,
    ) -> Result<(), SyncError> {
        let Response::Roots { regions, counted } = self.ask_peer(peer, &Request::Roots(partitions.to_vec())).await?
        else {
            return Err(SyncError::Away);
        };
        pulled.counted &= counted;
        let mine: BTreeMap<Region, (u128, u64)> = self.digests(partitions);
        let differs = |(region, root, clock): &(Region, u128, u64)| {
            self.replica.knows(*region) && mine.get(region) != Some(&(*root, *clock))
        };
        let differing: Vec<Region> = regions.into_iter().filter(differs).map(|(region, ..)| region).collect();
        let mut left: Vec<Partition> = differing.iter().map(|region| region.partition).collect();
        let syncs = differing
            .into_iter()
            .map(|region| async move { (region.partition, self.sync_region(peer, region, work).await) });
        let mut syncs = stream::iter(syncs).buffer_unordered(side_by_side(work));
        let mut ended = Ok(());
        while let Some((partition, synced)) = syncs.next().await {
            match synced {
                Ok(rows) => {
                    pulled.rows += rows;
                    left.iter().position(|at| *at == partition).map(|place| left.swap_remove(place));
                }
                // Nor will it answer for the others.
                Err(SyncError::Away) => {
                    ended = Err(SyncError::Away);
                    break;
                }
                Err(error) => ended = Err(error),
            }
        }
        pulled.partitions.extend(partitions.iter().filter(|at| !left.contains(at)));
        ended
    }

    /// Pulls one region.
    pub async fn sync_region(self: &Arc<Self>, peer: NodeId, region: Region, work: Work) -> Result<u64, SyncError> {
        let incarnation = self.replica.incarnation(region);
        let theirs = match self.ask_peer(peer, &Request::Snapshot(region)).await? {
            Response::Snapshot(snapshot) => snapshot,
            _ => return Err(SyncError::Away),
        };
        let changed = self.merge_differing(peer, region, &theirs, work).await?;
        let Response::Number(now) = self.ask_peer(peer, &Request::Incarnation(region)).await? else {
            return Err(SyncError::Away);
        };
        let Some(ticket) = self.replica.join(region, &theirs, incarnation, now)? else {
            return Err(SyncError::Changed);
        };
        self.replica.committer().wait(ticket).await.map_err(|error| Fault::Store(error.to_string()))?;
        metrics::SYNCED_REGIONS.increment();
        metrics::repaired(metrics::Cause::Sync, changed);
        Ok(changed)
    }

    async fn merge_differing(
        self: &Arc<Self>,
        peer: NodeId,
        region: Region,
        theirs: &Snapshot,
        work: Work,
    ) -> Result<u64, SyncError> {
        let mine = self.replica.branches(region);
        let branches: Vec<u8> = (0..theirs.branches.len())
            .filter(|at| mine.get(*at) != theirs.branches.get(*at))
            .map(|at| at as u8)
            .collect();
        if branches.is_empty() {
            return Ok(0);
        }
        let hashes = match self.ask_peer(peer, &Request::Leaves { region, branches: branches.clone() }).await? {
            Response::Leaves(hashes) => hashes,
            _ => return Err(SyncError::Away),
        };
        // Rows of this side are listed from the store: what is in memory now must be there.
        let committer = self.replica.committer();
        committer.wait(committer.last()).await.map_err(|error| Fault::Store(error.to_string()))?;
        let mut leaves: Vec<u16> = Vec::new();
        for (branch, theirs) in branches.iter().zip(hashes.chunks(LEAVES_PER_BRANCH)) {
            let mine = self.replica.leaves(region, usize::from(*branch));
            let differing = (0..LEAVES_PER_BRANCH).filter(|at| mine.get(*at) != theirs.get(*at));
            leaves.extend(differing.map(|at| (usize::from(*branch) * LEAVES_PER_BRANCH + at) as u16));
        }
        let (mut rest, mut changed) = (&leaves[..], 0);
        while !rest.is_empty() {
            let (merged, done) = self.merge_leaves((peer, work), region, rest, theirs).await?;
            changed += merged;
            rest = rest.get(done.max(1)..).unwrap_or_default();
        }
        Ok(changed)
    }

    /// Takes over what a peer has of the keys of these head rows, and whatever lies beside them. Nothing is joined.
    pub(super) async fn level(
        self: &Arc<Self>,
        peer: NodeId,
        region: Region,
        heads: &[Bytes],
    ) -> Result<(), SyncError> {
        let leaves: BTreeSet<u16> = heads.iter().filter_map(|head| self.replica.leaf(head)).collect();
        if leaves.is_empty() {
            return Ok(());
        }
        let theirs = match self.ask_peer(peer, &Request::Snapshot(region)).await? {
            Response::Snapshot(snapshot) => snapshot,
            _ => return Err(SyncError::Away),
        };
        let committer = self.replica.committer();
        committer.wait(committer.last()).await.map_err(|error| Fault::Store(error.to_string()))?;
        for leaf in leaves {
            let (changed, _) = self.merge_leaves((peer, Work::Repair), region, &[leaf], &theirs).await?;
            metrics::repaired(metrics::Cause::Read, changed);
        }
        Ok(())
    }

    /// Merges what differs in the first of these leaves; answers how many rows changed here, and how many leaves they were.
    async fn merge_leaves(
        self: &Arc<Self>,
        (peer, work): (NodeId, Work),
        region: Region,
        leaves: &[u16],
        theirs: &Snapshot,
    ) -> Result<(u64, usize), SyncError> {
        let (replica, some) = (self.replica.clone(), leaves[..leaves.len().min(LEAVES_AT_ONCE)].to_vec());
        let hands = self.admission.hands(work).await;
        let hashed = blocking(&*self.env, move || replica.hashed(region, &some));
        let mine = Arc::new(hashed.await.ok_or(SyncError::Away)??);
        drop(hands);
        let (mut changed, mut at, mut from) = (0, 0, Bytes::new());
        // Rows of leaves that are compared whole are merged with nothing, unless the peer sends them.
        let mut unsaid: BTreeSet<Bytes> = mine.whole().iter().cloned().collect();
        while let Some(left) = mine.leaves.get(at..).filter(|left| !left.is_empty()) {
            let settling = work == Work::Settling;
            let request = Request::LeafRows { region, leaves: left.to_vec(), from: from.clone(), settling };
            let Response::LeafRows(found) = self.ask_peer(peer, &request).await? else { return Err(SyncError::Away) };
            if found.incarnation != theirs.incarnation {
                return Err(SyncError::Changed);
            }
            let (rows, bytes) = found.weight();
            self.admission.take_rows(work, rows, bytes).await;
            unsaid.retain(|row| found.rows.binary_search_by(|(sent, _)| sent.cmp(row)).is_err());
            let next = found.next.clone();
            changed += self.merge_difference((region, work), &mine, found, theirs).await?;
            match next {
                // A peer that does not get on would keep this going for ever.
                Some((place, row)) if place > 0 || row > from => (at, from) = (at + usize::from(place), row),
                Some(_) => return Err(SyncError::Away),
                None => break,
            }
        }
        let rest = unsaid.into_iter().map(|row| (row, Cell::default())).collect();
        changed += self
            .merge_difference((region, work), &mine, Difference { rows: rest, ..Difference::default() }, theirs)
            .await?;
        Ok((changed, mine.leaves.len()))
    }

    async fn merge_difference(
        &self,
        (region, work): (Region, Work),
        mine: &Arc<Hashed>,
        found: Difference,
        theirs: &Snapshot,
    ) -> Result<u64, SyncError> {
        let mut rows: BTreeMap<Bytes, Cell> = found.rows.into_iter().collect();
        for row in mine.rows_of(&found.lacking) {
            rows.entry(row).or_default();
        }
        if rows.is_empty() {
            return Ok(0);
        }
        let (replica, theirs) = (self.replica.clone(), theirs.clone());
        let rows: LeafRows = rows.into_iter().collect();
        let _hands = self.admission.hands(work).await;
        let merged = blocking(&*self.env, move || replica.merge_rows(region, &rows, theirs.known()));
        Ok(merged.await.ok_or(SyncError::Away)??)
    }

    /// Roots and clock hashes of this node's regions of some partitions.
    pub fn digests(&self, partitions: &[Partition]) -> BTreeMap<Region, (u128, u64)> {
        let all = partitions.iter().flat_map(|partition| self.replica.digests(self.databases, *partition));
        all.map(|(region, root, clock)| (region, (root, clock))).collect()
    }

    async fn ask_peer(&self, peer: NodeId, request: &Request) -> Result<Response, SyncError> {
        match timeout(self.patience * 5, self.env.call(peer, request)).await {
            Ok(Ok(response)) => Ok(response),
            _ => Err(SyncError::Away),
        }
    }
}
