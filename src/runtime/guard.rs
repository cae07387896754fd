//! The thread that notices when nothing moves: commits, or all the threads that serve. It needs none of those itself: a
//! write that hangs may hold any of them, since whoever waits for a commit may do it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::watch::Watchdog;
use crate::config::Settings;
use crate::node::CurrentNode;
use crate::storage::{Committer, SyncPolicy};

/// How often to look.
const LOOK: Duration = Duration::from_millis(100);
/// How long after the disk's time is up the threads that serve may take to end the process in order.
const LAST_PATIENCE: Duration = Duration::from_secs(20);

/// Begins to look, for as long as the process runs. To be called within the runtime that serves.
pub fn begin(current: CurrentNode, settings: Arc<Settings>) -> io::Result<()> {
    let pulse = Arc::new(AtomicU64::new(0));
    let beating = pulse.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK).await;
            beating.fetch_add(1, Ordering::Relaxed);
        }
    });
    thread::Builder::new().name("redynamo-guard".to_owned()).spawn(move || look(&current, &settings, &pulse)).map(drop)
}

fn look(current: &CurrentNode, settings: &Settings, pulse: &AtomicU64) {
    let (began, mut disk, mut serving) = (Instant::now(), Disk::default(), Watchdog::default());
    loop {
        thread::sleep(LOOK);
        let Some(limit) = settings.config().disk_stall_timeout else { continue };
        let (now, committer) = (began.elapsed(), current.load().replica().committer().clone());
        let still = disk.look(now, &committer);
        if still >= limit && !committer.has_failed() {
            committer.halt(&format!("the disk has done nothing for {} s", still.as_secs()));
        }
        if serving.look(now, u64::MAX, pulse.load(Ordering::Relaxed)) >= limit + LAST_PATIENCE {
            let dir = settings.config().dir.display().to_string();
            tracing::error!("The disk of {dir} holds all threads that serve: this process ends");
            std::process::exit(1);
        }
    }
}

/// Whether commits and syncs follow what is submitted.
#[derive(Default)]
struct Disk {
    commits: Watchdog,
    syncs: Watchdog,
}

impl Disk {
    fn look(&mut self, now: Duration, committer: &Committer) -> Duration {
        let (committed, synced) = (committer.committed().0, committer.synced().0);
        let to_sync = if committer.policy() == SyncPolicy::No { synced } else { committed };
        let commits = self.commits.look(now, committer.last().0, committed);
        commits.max(self.syncs.look(now, to_sync, synced))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Change, MemoryStore, Space};

    #[test]
    fn commits_and_syncs_that_do_not_follow_are_a_standstill() {
        let committer = Committer::new(Arc::new(MemoryStore::new()), SyncPolicy::EverySec).unwrap();
        let (mut disk, second) = (Disk::default(), Duration::from_secs(1));
        let mut look = |at: u32| disk.look(second * at, &committer);
        assert_eq!((look(0), look(1)), (Duration::ZERO, Duration::ZERO), "there is nothing to do");
        committer.submit([Change::put(Space::Data, "k", "v")], &[]).unwrap();
        assert_eq!((look(2), look(3)), (second, second * 2));
        committer.commit_pending();
        assert_eq!((look(4), look(5)), (second, second * 2), "committed, and not synced");
        committer.sync().unwrap();
        assert_eq!(look(6), Duration::ZERO);
        committer.submit([Change::put(Space::Data, "k", "v")], &[]).unwrap();
        committer.set_policy(SyncPolicy::No);
        committer.commit_pending();
        assert_eq!((look(7), look(8)), (Duration::ZERO, Duration::ZERO), "nobody wants it synced");
    }
}
