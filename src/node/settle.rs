//! Settling: before this node coordinates a partition on its own word, it pulls what enough other owners have; and before
//! it counts in quorums and gives dots after it may have forgotten something, it pulls from enough of them to know
//! everything that it ever acknowledged (rule 6 of the causality rules).
//!
//! With N − W others heard, at least one of them is in every write's quorum, so nothing that was acknowledged is missing.
//! Who coordinates claims a term from those others before it pulls (rule 7). Until it is settled, a coordinator claims and
//! asks for each key before it evaluates (see the write path), and a node that has just started leaves coordinating to
//! others if it can: it catches up, which claims nothing, and takes its place then.
//!
//! What this node itself acknowledged and has forgotten, W − 1 others have: among N − W + 1 others there is one of them.
//! They must count themselves. Where all others have been heard there is nothing more to be known, whether they count or
//! not: so a cluster of which all nodes lost their power together comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Node;
use crate::base::id::{ActorId, NodeId, Partition};
use crate::env::blocking;
use crate::replica::Intake;
use crate::replication::Hold;
use crate::replication::admission::Work;
use crate::replication::sync::SyncError;

/// How often to look when nobody rings.
const PAUSE: Duration = Duration::from_millis(200);
/// How long this node may go on with catching up before it tries again to settle.
const RETRY: Duration = Duration::from_secs(5);
/// Partitions that are pulled from all their owners before the next ones are.
const AT_ONCE: usize = 32;

/// Whom this node has pulled from since it began to doubt itself.
pub(super) struct Recollection {
    began: Instant,
    /// By partition: other owners, and whether they counted when they answered.
    heard: BTreeMap<Partition, BTreeMap<NodeId, bool>>,
    /// Others that were asked for all that they hold.
    stand_ins: BTreeSet<NodeId>,
}

impl Recollection {
    fn new() -> Recollection {
        Recollection { began: Instant::now(), heard: BTreeMap::new(), stand_ins: BTreeSet::new() }
    }

    /// Whether all was pulled from a peer that counted.
    fn has_heard(&self, peer: NodeId, partition: Partition) -> bool {
        self.heard.get(&partition).and_then(|heard| heard.get(&peer)).is_some_and(|counted| *counted)
    }
}

impl Node {
    pub(super) async fn settle_loop(self: Arc<Self>) {
        let mut recollection = Recollection::new();
        while !self.is_stopping() {
            if self.replica().is_doubted() || self.outlived.swap(false, Ordering::Relaxed) {
                if !self.begin_anew().await {
                    sleep(PAUSE).await;
                    continue;
                }
                recollection = Recollection::new();
            }
            self.settle(&mut recollection).await;
            if timeout(PAUSE, self.unsettled.notified()).await.is_ok() {
                // Changes come in bunches.
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Somebody knows more of this node than it does: it goes on as another actor that may have forgotten anything.
    async fn begin_anew(&self) -> bool {
        tracing::warn!("This node takes a new actor id and counts in no quorum until it has what others have");
        self.ready.store(false, Ordering::Relaxed);
        self.replica().partitions().iter().for_each(|partition| self.coordinator.set_caught_up(partition, false));
        let taken = self.take_actor(true).await;
        self.refresh(false);
        taken
    }

    async fn take_actor(&self, amnesiac: bool) -> bool {
        let (replica, fresh) = (self.replica().clone(), ActorId(self.env.random()));
        match blocking(&*self.env, move || replica.take_actor(fresh, amnesiac)).await {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                tracing::warn!("no new actor id could be taken: {error}");
                false
            }
            None => false,
        }
    }

    /// Pulls from every live co-owner of partitions that this node has not caught up with, and from all that it needs to
    /// trust itself again. First those that it coordinates: it claims them, so that what was pulled is all there is, and
    /// nothing else is waited for. The others may take long; when there is another to coordinate, they wait.
    async fn settle(self: &Arc<Self>, recollection: &mut Recollection) {
        if !self.replica().takes(Intake::Removals) {
            return;
        }
        let (behind, coordinated) = self.unsettled_partitions();
        let trusts_itself = self.trusts_itself();
        if behind.is_empty() && coordinated.is_empty() && trusts_itself {
            return self.become_ready();
        }
        if !behind.is_empty() && !self.is_known_to_all() {
            // Whoever does not take this node for live tells it nothing of what it writes after a sync.
            return self.be_someone(recollection).await;
        }
        let holds = self.coordinator.claim(&coordinated).await;
        self.pull_all(&coordinated, &holds, Work::Settling, recollection).await;
        let left: BTreeSet<Partition> = match trusts_itself {
            true => self.unsettled_partitions().0.into_iter().collect(),
            false => self.owned().into_iter().collect(),
        };
        let (left, unclaimed): (Vec<Partition>, _) = (left.into_iter().collect(), BTreeMap::new());
        tokio::select! {
            biased;
            () = self.until_there_is_more(&coordinated) => return self.unsettled.notify_one(),
            () = self.pull_all(&left, &unclaimed, Work::Repair, recollection) => {}
        }
        self.recollect(recollection).await;
        self.be_someone(recollection).await;
        self.become_ready();
    }

    /// Until this node coordinates a partition that it is not settled in, beside these; or it is time to try these again.
    async fn until_there_is_more(&self, tried: &[Partition]) {
        let began = Instant::now();
        loop {
            let unsettled = self.unsettled_partitions().1;
            let again = began.elapsed() >= RETRY && !unsettled.is_empty();
            if again || unsettled.iter().any(|partition| !tried.contains(partition)) {
                return;
            }
            sleep(PAUSE).await;
        }
    }

    /// Pulls partitions from all their live owners, some after the others, and settles them as far as that allows.
    async fn pull_all(
        self: &Arc<Self>,
        partitions: &[Partition],
        holds: &BTreeMap<Partition, Hold>,
        work: Work,
        recollection: &mut Recollection,
    ) {
        let mut away = BTreeSet::new();
        for group in partitions.chunks(AT_ONCE) {
            let mut heard: BTreeMap<Partition, Vec<NodeId>> = group.iter().map(|at| (*at, Vec::new())).collect();
            let needed: BTreeSet<Partition> =
                group.iter().copied().filter(|at| self.needs_others(*at, holds)).collect();
            for (peer, mut partitions) in self.co_owned(group) {
                partitions.retain(|partition| needed.contains(partition) || !recollection.has_heard(peer, *partition));
                if partitions.is_empty() || away.contains(&peer) {
                    continue;
                }
                let pulled = self.coordinator.sync_with(peer, &partitions, work).await;
                if let Some(error) = &pulled.ended {
                    tracing::debug!(%peer, %error, "a sync ended early");
                }
                if pulled.ended == Some(SyncError::Away) {
                    away.insert(peer);
                }
                self.note_verified(peer, &pulled.partitions);
                for partition in pulled.partitions {
                    recollection.heard.entry(partition).or_default().insert(peer, pulled.counted);
                    if pulled.counted {
                        heard.entry(partition).or_default().push(peer);
                    }
                }
                self.settle_heard(&heard, holds);
            }
            self.settle_heard(&heard, holds);
        }
    }

    /// Whether others have to be heard of a partition, whoever was before.
    fn needs_others(&self, partition: Partition, holds: &BTreeMap<Partition, Hold>) -> bool {
        holds.contains_key(&partition) || !self.coordinator.is_caught_up(partition)
    }

    fn settle_heard(&self, heard: &BTreeMap<Partition, Vec<NodeId>>, holds: &BTreeMap<Partition, Hold>) {
        let write = self.coordinator.quorums.least_write();
        for (partition, others) in heard {
            let enough = self.coordinator.others_to_hear(*partition, write);
            if others.len() >= enough {
                self.coordinator.set_caught_up(*partition, true);
            }
            let Some(hold) = holds.get(partition) else { continue };
            if others.iter().filter(|peer| hold.granted.contains(peer)).count() >= enough {
                self.coordinator.set_settled(*partition, hold.term);
            }
        }
    }

    /// It has forgotten nothing that it acknowledged, as far as it knows, and nobody knows more of its actor than it does.
    fn trusts_itself(&self) -> bool {
        self.replica().is_proven() && !self.replica().is_amnesiac()
    }

    /// Trusts itself again once it has pulled from enough others; an amnesiac also from everyone else who stood in.
    async fn recollect(self: &Arc<Self>, recollection: &mut Recollection) {
        if self.trusts_itself() || self.replica().is_doubted() || !self.has_heard_enough(recollection) {
            return;
        }
        self.replica().prove();
        if !self.replica().is_amnesiac() || !self.pull_from_stand_ins(recollection).await {
            return;
        }
        let replica = self.replica().clone();
        match blocking(&*self.env, move || replica.recovered()).await {
            Some(Ok(())) => tracing::info!("This node has again what it ever acknowledged, and counts in quorums"),
            Some(Err(error)) => tracing::warn!("that this node has recovered could not be written down: {error}"),
            None => {}
        }
        self.refresh(false);
    }

    /// Whether enough others were heard for all partitions of this node: N − W + 1 that count, or all there are.
    fn has_heard_enough(&self, recollection: &Recollection) -> bool {
        let view = self.coordinator.view.load();
        let write = self.coordinator.quorums.least_write();
        self.owned().into_iter().all(|partition| {
            let others = view.ring.owner_count(partition).saturating_sub(1);
            let heard = recollection.heard.get(&partition);
            let counted = heard.map_or(0, |heard| heard.values().filter(|counted| **counted).count());
            let need = (others + 2).saturating_sub(write).min(others);
            counted >= need || heard.map_or(0, BTreeMap::len) >= others
        })
    }

    /// Pulls what live members hold that own nothing of it: they may have stood in for this node. Says whether all of them
    /// were heard.
    async fn pull_from_stand_ins(self: &Arc<Self>, recollection: &mut Recollection) -> bool {
        let mine = self.owned();
        for peer in self.others_live(self.me) {
            if recollection.stand_ins.contains(&peer) {
                continue;
            }
            let pulled = self.coordinator.sync_with(peer, &mine, Work::Repair).await;
            if let Some(error) = pulled.ended {
                tracing::debug!(%peer, %error, "a sync ended early");
                return false;
            }
            recollection.stand_ins.insert(peer);
        }
        true
    }

    /// An actor that nobody can vouch for gives no dots, and somebody may wait for one: a new one needs nobody's word.
    async fn be_someone(&self, recollection: &Recollection) {
        let waited = recollection.began.elapsed() >= self.options.peer_timeout;
        if self.replica().is_proven() || !waited || !self.coordinates_anything() {
            return;
        }
        tracing::info!("Nobody is there to vouch for the actor id of this node: it takes a new one");
        self.take_actor(false).await;
    }

    fn coordinates_anything(&self) -> bool {
        let view = self.coordinator.view.load();
        view.ring.partitions().iter().any(|partition| view.coordinator(partition) == Some(self.me))
    }

    fn become_ready(self: &Arc<Self>) {
        let is_whole = self.trusts_itself() && self.unsettled_partitions().0.is_empty();
        if is_whole && !self.ready.swap(true, Ordering::Relaxed) {
            tracing::info!("This node holds what it should and coordinates its partitions");
            // Who coordinated them until now is to hear of it before it hears of claims: as long as two take themselves for
            // the coordinator they depose each other.
            let this = self.clone();
            self.env.spawn(Box::pin(async move { this.ping_all().await }));
        }
    }

    /// Partitions that this node owns and has not caught up with, and those that it coordinates and is not settled in.
    fn unsettled_partitions(&self) -> (Vec<Partition>, Vec<Partition>) {
        let view = self.coordinator.view.load();
        let mine = self.owned();
        let coordinates = |partition: &&Partition| view.coordinator(**partition) == Some(self.me);
        let coordinated = mine.iter().filter(coordinates).filter(|at| !self.coordinator.is_settled(**at)).copied();
        let coordinated = coordinated.collect();
        (mine.into_iter().filter(|at| !self.coordinator.is_caught_up(*at)).collect(), coordinated)
    }

    /// Partitions that this node owns.
    pub(super) fn owned(&self) -> Vec<Partition> {
        let view = self.coordinator.view.load();
        view.ring.partitions().iter().filter(|partition| view.owns(*partition)).collect()
    }

    /// Live co-owners, each with those of `partitions` that it owns as well.
    pub(super) fn co_owned(&self, partitions: &[Partition]) -> BTreeMap<NodeId, Vec<Partition>> {
        let view = self.coordinator.view.load();
        let mut peers: BTreeMap<NodeId, Vec<Partition>> = BTreeMap::new();
        for partition in partitions {
            for peer in view.live_peers(*partition) {
                peers.entry(peer).or_default().push(*partition);
            }
        }
        peers
    }
}
