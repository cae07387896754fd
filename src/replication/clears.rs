//! Forgetting the clocks that ended collections (rule 2 of the causality rules).
//!
//! A collection is ended by the clock of its coordinator, which stays in the head row: so a replica that gets a row late
//! knows that it is gone. When every owner has seen the clearing and all that it names, nobody needs it any more, and it
//! goes by an ordinary causal removal. While an owner is away it stays, however long.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::Coordinator;
use crate::base::id::{NodeId, Region};
use crate::causality::Clock;
use crate::model::Fault;
use crate::peer::{Request, Response};

impl Coordinator {
    /// Of these head rows, forgets what every owner has seen. Done by the region's coordinator.
    pub async fn forget_clears(self: &Arc<Self>, region: Region, heads: &[Bytes]) -> Result<(), Fault> {
        let me = self.view.load().me;
        if self.view.load().coordinator(region.partition) != Some(me) || !self.is_settled(region.partition) {
            return Ok(());
        }
        let mut due = Vec::new();
        for head in heads {
            let clears = self.replica.cleared(region, head)?;
            due.extend((!clears.is_empty()).then_some((head, clears)));
        }
        if due.is_empty() {
            return Ok(());
        }
        let Some(clocks) = self.clocks_of_owners(region).await else { return Ok(()) };
        for (head, clears) in due {
            let seen = clears.iter().filter(|(dot, clear)| {
                let by = |clock: &Clock| clock.contains(*dot) && clock.covers(clear);
                self.replica.covers(region, clear) && clocks.iter().all(by)
            });
            let dots: Vec<_> = seen.map(|(dot, _)| *dot).collect();
            if !dots.is_empty() {
                let now = self.env.now_ms();
                let tell = Some(|delta, _| self.tell(delta));
                self.replica.update(region, now, |draft| draft.forget_clears(head, &dots), tell)?;
            }
        }
        Ok(())
    }

    /// What the other owners have seen of a region; none unless all of them say so.
    async fn clocks_of_owners(&self, region: Region) -> Option<Vec<Clock>> {
        let others: Vec<NodeId> = {
            let view = self.view.load();
            view.ring.owners(region.partition).iter().copied().filter(|node| *node != view.me).collect()
        };
        let asked = others.into_iter().map(|node| async move {
            match timeout(self.patience, self.env.call(node, &Request::Snapshot(region))).await {
                Ok(Ok(Response::Snapshot(snapshot))) => Some(snapshot.clock),
                _ => None,
            }
        });
        join_all(asked).await.into_iter().collect()
    }
}
