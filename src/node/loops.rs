//! What a node does by itself: a pause and a step each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::Node;
use crate::base::id::Region;
use crate::commands::events::Classes;
use crate::env::blocking;
use crate::metrics;
use crate::model::Fault;
use crate::replica::Intake;
use crate::replication::admission::{INTERVAL, Work};

const REAP_PAUSE: Duration = Duration::from_millis(100);
const TEND_PAUSE: Duration = Duration::from_millis(250);
/// Of housekeeping's turns, every how-manieth writes clocks and lets the store tidy itself.
const TURNS_TO_CHECKPOINT: u32 = 240;
/// Keys that one turn reaps in one region.
const REAP_BATCH: usize = 200;
/// Of the reaper's turns, every how-manieth asks others whether the clocks that ended collections may be forgotten.
const TURNS_TO_FORGET: u32 = 10;
/// Rows that one turn of a purge looks at.
const PURGE_BATCH: usize = 1000;

impl Node {
    pub(super) async fn reap_loop(self: Arc<Self>) {
        let mut turn = 0u32;
        while !self.is_stopping() {
            turn = turn.wrapping_add(1);
            let forgets = turn.is_multiple_of(TURNS_TO_FORGET);
            let takes = self.replica().takes(Intake::Removals);
            for region in self.replica().regions().filter(|_| takes).collect::<Vec<_>>() {
                if let Err(fault) = self.reap(region).await {
                    tracing::debug!(%region, %fault, "not reaped");
                }
                if let Err(fault) = self.purge(region).await {
                    tracing::debug!(%region, %fault, "not purged");
                }
                if let Err(fault) = self.purge_keys(region, forgets).await {
                    tracing::debug!(%region, %fault, "keys not purged");
                }
            }
            sleep(REAP_PAUSE).await;
        }
    }

    /// Deletes what has expired, as the region's coordinator: an ordinary causal removal that others are told.
    async fn reap(self: &Arc<Self>, region: Region) -> Result<(), Fault> {
        let coordinator = &self.coordinator;
        let mine = coordinator.view.load().coordinator(region.partition) == Some(self.me);
        if !mine || !coordinator.is_settled(region.partition) {
            return Ok(());
        }
        // Another node's clock may be behind: to it the key is still there.
        let skew = if coordinator.view.load().is_alone() { Duration::ZERO } else { self.options.max_skew };
        let now = self.env.now_ms().saturating_sub(skew.as_millis() as u64);
        let due = self.replica().tally(region).next_deadline;
        if due == 0 || due > now {
            return Ok(());
        }
        let replica = self.replica().clone();
        let expired = blocking(&*self.env, move || replica.expired(region, now, REAP_BATCH)).await;
        let expired = expired.unwrap_or(Ok(Vec::new()))?;
        // What there is, not what there could be: most looks at a region find a key or two.
        coordinator.admission.take_rows(Work::Repair, expired.len(), 0).await;
        for key in expired {
            let (reaped, _) = self.replica().update(
                region,
                now,
                |draft| draft.reap(&key),
                Some(|delta, _| coordinator.tell(delta)),
            )?;
            if reaped {
                metrics::EXPIRED_KEYS.increment();
                coordinator.notify_one(region.db, Classes::EXPIRED, "expired", &key);
            }
        }
        Ok(())
    }

    /// Takes rows that a clear has hidden out of the store, then lets the clear go.
    async fn purge(self: &Arc<Self>, region: Region) -> Result<(), Fault> {
        let Some(ticket) = self.replica().hidden_until(region) else { return Ok(()) };
        let committer = self.replica().committer().clone();
        let stored = |error: crate::storage::StoreError| Fault::Store(error.to_string());
        committer.wait(ticket).await.map_err(stored)?;
        let mut from = Some(Bytes::new());
        while let Some(row) = from {
            self.coordinator.admission.take_rows(Work::Repair, PURGE_BATCH, 0).await;
            let replica = self.replica().clone();
            let step = blocking(&*self.env, move || replica.purge(region, ticket, &row, PURGE_BATCH)).await;
            from = step.unwrap_or(Ok(None))?;
        }
        committer.wait(committer.last()).await.map_err(stored)?;
        self.replica().drop_clear(region)
    }

    /// Takes rows of collections that were ended by a clock out of the store; then, if it `forgets`, lets such clocks go of
    /// which every owner has all.
    async fn purge_keys(self: &Arc<Self>, region: Region, forgets: bool) -> Result<(), Fault> {
        let ended = self.replica().ended(region);
        for head in &ended {
            self.purge_key(region, head).await?;
        }
        if !ended.is_empty() && forgets {
            self.coordinator.forget_clears(region, &ended).await?;
        }
        Ok(())
    }

    async fn purge_key(self: &Arc<Self>, region: Region, head: &Bytes) -> Result<(), Fault> {
        let Some(hidden) = self.replica().hidden_in(region, head)? else { return Ok(()) };
        let committer = self.replica().committer().clone();
        let stored = |error: crate::storage::StoreError| Fault::Store(error.to_string());
        committer.wait(committer.last()).await.map_err(stored)?;
        let mut from = Some(Bytes::new());
        while let Some(row) = from {
            let (replica, head) = (self.replica().clone(), head.clone());
            let step = blocking(&*self.env, move || replica.purge_key(region, &head, &row, PURGE_BATCH)).await;
            from = step.unwrap_or(Ok(None))?;
            self.coordinator.admission.take_rows(Work::Repair, if from.is_some() { PURGE_BATCH } else { 0 }, 0).await;
        }
        // What was taken out must be out before nothing says any more that it was hidden.
        committer.wait(committer.last()).await.map_err(stored)?;
        self.replica().purged_key(region, head, &hidden)
    }

    /// Decides on the pace of background work anew, several times a second.
    pub(super) async fn admission_loop(self: Arc<Self>) {
        while !self.is_stopping() {
            sleep(INTERVAL).await;
            self.coordinator.admission.step();
        }
    }

    pub(super) async fn housekeeping_loop(self: Arc<Self>) {
        let mut turn = 0u32;
        // A store that has failed is not tended any more: it will be opened again, or it ends.
        while !self.is_stopping() && self.replica().check_sound().is_ok() {
            turn = turn.wrapping_add(1);
            let replica = self.replica().clone();
            let tidy = turn.is_multiple_of(TURNS_TO_CHECKPOINT);
            let done = blocking(&*self.env, move || {
                replica.tend()?;
                if tidy {
                    let _ = replica.checkpoint();
                    replica.store().tend()?;
                }
                Ok::<(), crate::storage::StoreError>(())
            });
            if let Some(Err(error)) = done.await {
                tracing::warn!("the store needs attention: {error}");
            }
            sleep(TEND_PAUSE).await;
        }
    }
}
