//! What a stand-in took for others, and how they get it: hints are delivered to the owners they name, and regions that
//! this node holds without owning them are given back and then forgotten (rule 4 of the causality rules).
//!
//! Hints are the fast path for short absences, and losing all of them loses nothing: what makes sure is that owners pull
//! the whole region before it is forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::time::{Instant, sleep, timeout};

use super::Node;
use crate::base::id::{NodeId, Partition, Region};
use crate::env::{CallError, blocking};
use crate::metrics;
use crate::model::Delta;
use crate::peer::{Request, Response};
use crate::replication::admission::Work;

/// How often to look for something to hand off.
const PAUSE: Duration = Duration::from_millis(250);
/// Bytes of hints on their way to one owner at a time.
const WINDOW_BYTES: usize = 256 << 10;
/// Windows that one owner gets in a row.
const WINDOWS: usize = 16;
/// Pauses after an attempt that came to nothing: the first, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));
/// How many times an answer's patience an owner may take to pull a region.
const PULL_PATIENCE: u32 = 30;

/// When to try again, by what was tried.
#[derive(Debug)]
struct BackOff<K>(BTreeMap<K, (Instant, Duration)>);

impl<K: Ord + Copy> BackOff<K> {
    fn new() -> Self {
        BackOff(BTreeMap::new())
    }

    fn is_due(&self, what: K) -> bool {
        self.0.get(&what).is_none_or(|(at, _)| Instant::now() >= *at)
    }

    fn note(&mut self, what: K, succeeded: bool) {
        let last = self.0.get(&what).map(|(_, last)| *last).filter(|_| !succeeded);
        let pause = last.map_or(BACK_OFF.0, |last| (last * 2).min(BACK_OFF.1));
        self.0.insert(what, (Instant::now() + pause, pause));
    }
}

/// Who has pulled a region as it was when it had this digest: owners, each with the life in which it did. A later life may
/// have forgotten it.
#[derive(Debug, Default)]
struct Given {
    digest: (u128, u64),
    to: BTreeMap<NodeId, u64>,
}

impl Node {
    /// Delivers hints to each owner that is live, all owners at the same time and each owner's in their order.
    pub(super) async fn hint_loop(self: Arc<Self>) {
        let mut back_off = BackOff::new();
        while !self.is_stopping() {
            let kept = self.replica().hint_stats().into_iter().filter(|(_, kept)| kept.count > 0);
            let due: Vec<NodeId> =
                kept.map(|(id, _)| id).filter(|id| back_off.is_due(*id) && self.takes_hints(*id)).collect();
            let this = &self;
            let deliveries = due.into_iter().map(|owner| async move { (owner, this.deliver_hints(owner).await) });
            for (owner, delivered) in join_all(deliveries).await {
                back_off.note(owner, delivered);
            }
            sleep(PAUSE).await;
        }
    }

    /// Whether there is somebody to deliver an owner's hints to: itself or, if it is no member any more, the owners of today.
    fn takes_hints(&self, owner: NodeId) -> bool {
        let view = self.coordinator.view.load();
        view.nodes.get(&owner).is_none_or(|standing| standing.live)
    }

    /// Delivers an owner's hints until there are none, or it is time to look at the other owners; says whether all went well.
    async fn deliver_hints(self: &Arc<Self>, owner: NodeId) -> bool {
        let mut after = None;
        for _ in 0..WINDOWS {
            let replica = self.replica().clone();
            let read = blocking(&*self.env, move || replica.hints_after(owner, after, WINDOW_BYTES)).await;
            let Some(Ok(hints)) = read else { return false };
            let Some((last, ..)) = hints.last() else { return true };
            after = Some(*last);
            let (sent, rows) = (hints.len(), hints.iter().map(|(number, _, delta)| (*number, delta.rows.len())));
            let rows: BTreeMap<u64, usize> = rows.collect();
            let delivered = self.deliver(owner, hints).await;
            let all = delivered.len() == sent;
            metrics::HINTS_DELIVERED.add(delivered.len() as u64);
            let rows: usize = delivered.iter().filter_map(|number| rows.get(number)).sum();
            metrics::repaired(metrics::Cause::Hint, rows as u64);
            if !self.forgot_hints(owner, delivered).await || !all {
                return false;
            }
        }
        true
    }

    /// Delivers some hints; answers the numbers of those that arrived.
    async fn deliver(self: &Arc<Self>, owner: NodeId, hints: Vec<(u64, u64, Delta)>) -> Vec<u64> {
        let (rows, bytes) =
            hints.iter().fold((0, 0), |sum, (.., delta)| (sum.0 + delta.rows.len(), sum.1 + delta.weight()));
        self.coordinator.admission.take_rows(Work::Repair, rows, bytes).await;
        // All leave before the first is waited for, in their order.
        let sent: Vec<_> = hints.into_iter().map(|(number, _, delta)| (number, self.send_hint(owner, delta))).collect();
        let patience = self.coordinator.patience * 5;
        let arrived = sent.into_iter().map(|(number, calls)| async move {
            let answers = timeout(patience, join_all(calls)).await.unwrap_or_default();
            let all = !answers.is_empty() && answers.iter().all(has_it);
            all.then_some(number)
        });
        join_all(arrived).await.into_iter().flatten().collect()
    }

    fn send_hint(&self, owner: NodeId, delta: Delta) -> Vec<BoxFuture<'static, Result<Response, CallError>>> {
        let view = self.coordinator.view.load();
        let to: Vec<NodeId> = match view.nodes.contains_key(&owner) {
            true => vec![owner],
            false => view.ring.owners(delta.region.partition).iter().copied().filter(|id| *id != self.me).collect(),
        };
        let request = Request::Apply { delta, term: None, conditional: false };
        to.into_iter().map(|peer| self.env.call(peer, &request)).collect()
    }

    async fn forgot_hints(&self, owner: NodeId, delivered: Vec<u64>) -> bool {
        if delivered.is_empty() {
            return true;
        }
        match self.replica().forget_hints(owner, &delivered) {
            Ok(ticket) => self.replica().committer().wait(ticket).await.is_ok(),
            Err(fault) => {
                tracing::debug!(%owner, %fault, "delivered hints are still kept");
                false
            }
        }
    }

    /// Gives back what this node holds and does not own, once the owners are there or have all hints.
    pub(super) async fn give_back_loop(self: Arc<Self>) {
        let (mut back_off, mut given) = (BackOff::new(), BTreeMap::new());
        while !self.is_stopping() {
            let held = self.to_give_back();
            given.retain(|region, _| held.contains(region));
            for region in held {
                if back_off.is_due(region) && !self.is_stopping() {
                    let done = self.give_back(region, given.entry(region).or_default()).await;
                    back_off.note(region, done);
                }
            }
            sleep(PAUSE * 2).await;
        }
    }

    fn to_give_back(&self) -> Vec<Region> {
        let view = self.coordinator.view.load();
        let all_live = |partition: Partition| view.ring.owners(partition).iter().all(|owner| view.is_live(*owner));
        let mut held = self.replica().regions_outside(|partition| view.owns(partition));
        held.retain(|region| all_live(region.partition) || !self.replica().has_hints(region.partition));
        held
    }

    /// Has every live owner pull a region, W of them at least that count in quorums, then forgets it unless it has changed
    /// since the first was asked. Says whether it did. Owners that have pulled it as it is now are not asked again.
    async fn give_back(self: &Arc<Self>, region: Region, given: &mut Given) -> bool {
        let committer = self.replica().committer();
        let digest = self.replica().digest(region);
        if given.digest != digest {
            *given = Given { digest, to: BTreeMap::new() };
        }
        // What owners pull is read from the store.
        if committer.wait(committer.last()).await.is_err() {
            return false;
        }
        let view = self.coordinator.view.load_full();
        let owners = view.ring.owners(region.partition);
        let live = owners.iter().filter_map(|owner| view.nodes.get(owner)).filter(|standing| standing.live);
        let live: BTreeMap<NodeId, u64> = live.map(|owner| (owner.member.id, owner.member.incarnation)).collect();
        let counted = live.keys().filter(|owner| view.counts(**owner)).count();
        let need = usize::from(self.coordinator.quorums.write_of(region.db)).clamp(1, owners.len().max(1));
        if counted < need {
            return false;
        }
        self.have_pulled(region, &live, given).await;
        if !live.iter().all(|(owner, life)| given.to.get(owner) == Some(life)) {
            return false;
        }
        let replica = self.replica().clone();
        let forgotten = blocking(&*self.env, move || replica.forget_region(region, digest)).await;
        let Some(Ok(Some(ticket))) = forgotten else { return false };
        let stored = committer.wait(ticket).await.is_ok();
        metrics::REGIONS_GIVEN_BACK.add(stored.into());
        stored
    }

    async fn have_pulled(&self, region: Region, owners: &BTreeMap<NodeId, u64>, given: &mut Given) {
        let patience = self.coordinator.patience * PULL_PATIENCE;
        let left = owners.iter().filter(|(owner, life)| given.to.get(owner) != Some(life));
        let pulls = left.map(|(owner, life)| async move {
            let answer = timeout(patience, self.env.call(*owner, &Request::Pull(region))).await;
            matches!(answer, Ok(Ok(Response::Done))).then_some((*owner, *life))
        });
        let pulled = join_all(pulls.collect::<Vec<_>>()).await;
        given.to.extend(pulled.into_iter().flatten());
    }

    /// Pulls a region that `from` is about to forget.
    pub(super) async fn pull(self: Arc<Self>, from: NodeId, region: Region) -> Response {
        if !self.replica().knows(region) || !self.coordinator.view.load().owns(region.partition) {
            return Response::Refused(format!("this node does not own {region}"));
        }
        match self.coordinator.sync_region(from, region, Work::Repair).await {
            Ok(_) => Response::Done,
            Err(error) => Response::Refused(error.to_string()),
        }
    }
}

/// Whether who was asked to apply a delta has it, whatever else it says.
fn has_it(answer: &Result<Response, CallError>) -> bool {
    matches!(answer, Ok(Response::Done | Response::Uncounted | Response::Deposed(_) | Response::Conflict))
}
