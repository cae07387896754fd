//! WAIT and WAITAOF: how many replicas have a connection's last write. Asked of the owners themselves, so that the answer
//! is true also for those that acknowledged after the reply, or healed since.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, timeout_at};

use super::Coordinator;
use crate::base::id::Region;
use crate::causality::Dot;
use crate::peer::{Request, Response};

/// How long to wait before owners that did not have it are asked again.
const PAUSE: Duration = Duration::from_millis(20);

impl Coordinator {
    /// How many replicas, stand-ins among them, other than its coordinator have `dot`, as soon as that is `replicas`, or when `timeout` is over
    /// (0: never). `synced` asks for disks.
    pub async fn replicas_with(
        self: &Arc<Self>,
        region: Region,
        dot: Dot,
        replicas: usize,
        timeout: Duration,
        synced: bool,
    ) -> usize {
        let deadline = if timeout.is_zero() { None } else { Some(Instant::now() + timeout) };
        loop {
            let limit = deadline.unwrap_or_else(|| Instant::now() + self.patience);
            let have = self.count_with(region, dot, synced, limit).await.saturating_sub(1);
            if have >= replicas || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return have;
            }
            sleep(PAUSE).await;
        }
    }

    /// How many replicas that sit, all of them counted, say by `limit` that they have `dot`.
    async fn count_with(&self, region: Region, dot: Dot, synced: bool, limit: Instant) -> usize {
        let view = self.view.load_full();
        let seats = view.seats(region.partition);
        let peers = seats.iter().map(|seat| seat.node).filter(|node| *node != view.me);
        let mut asked: FuturesUnordered<_> =
            peers.map(|peer| self.env.call(peer, &Request::Has { region, dot, synced })).collect();
        let here = seats.iter().any(|seat| seat.node == view.me);
        let mut have = 0;
        if here && self.replica.has(region, dot) {
            have += usize::from(!synced || self.synced(limit).await);
        }
        while let Ok(Some(answer)) = timeout_at(limit, asked.next()).await {
            have += usize::from(matches!(answer, Ok(Response::Done)));
        }
        have
    }

    /// Whether all that is in memory here is on the disk by `limit`.
    pub async fn synced(&self, limit: Instant) -> bool {
        let committer = self.replica.committer().clone();
        let last = committer.last();
        if committer.policy() == crate::storage::SyncPolicy::No {
            let sync = committer.clone();
            crate::env::blocking(&*self.env, move || {
                sync.commit_pending();
                sync.sync()
            })
            .await;
        }
        matches!(timeout_at(limit, committer.wait_synced(last)).await, Ok(Ok(())))
    }
}
