//! Group commit: many callers, one batch.
//!
//! ```text
//! submit ──┐                                   ┌─ wakes whose ticket is done
//! submit ──┼─ queue ── commit_pending ── Store::write
//! submit ──┘            (one at a time)        └─ committed, synced
//! ```
//!
//! Callers hand in changes and get a ticket; somebody takes all that is queued, writes it as one batch and publishes how
//! far it came. While it writes, the next batch gathers, so batches grow with load by themselves. Order of submission is
//! order of commit, and a submission is never split: that is what makes a caller's order (rows before the cursor that
//! claims them) hold on disk.
//!
//! Who that somebody is: a thread in [`Committer::run`], or, with [`Committer::let_waiters_lead`], the first of those who
//! wait and find nobody at it. They let those go first who are ready to run and may submit as well, then one of them
//! leads: it commits for all, and again for those who came meanwhile and found it at work. That spares a hop to another
//! thread and back. The thread still commits where it may take long (a sync in every batch, no room in the store, a
//! megabyte), and what nobody has waited for in a tick.
//!
//! A failed write is final: what was in that batch is unknown, everything later fails at once, and only reopening the
//! store (and a new committer) ends it. Deliberately absent: retrying, and any opinion on what the changes mean.
//!
//! No time is read and no thread made here: [`Committer::run`] and [`Committer::run_sync`] are bodies for threads that
//! the caller lends; a simulator calls [`Committer::commit_pending`] and [`Committer::sync`] from tasks instead, and lets
//! nobody lead.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::waiters::Waiters;
use super::{Batch, Change, Durability, Store, StoreError, notes};

/// Bytes that may be queued before [`Committer::over_limit`] says so. Twice what a sick disk of 30 MB/s does in a second.
const DEFAULT_LIMIT_BYTES: usize = 64 * 1024 * 1024;

/// How often [`Committer::run_sync`] syncs under [`SyncPolicy::EverySec`].
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// How long a submission may wait for somebody who waits for it, where those commit.
const TICK: Duration = Duration::from_millis(5);

/// Ticks without a submission after which the thread in [`Committer::run`] sleeps until it is rung for.
const IDLE_TICKS: u32 = 40;

/// Batches that one who waits commits for others before the thread has to go on.
const LED_BATCHES: u32 = 3;

/// Notes that a checkpoint drops in one go. A busy minute leaves a million: in one batch they would hold up everybody for
/// as long as it takes to write them.
const DROPPED_AT_ONCE: u64 = 1000;

/// Bytes that one who waits commits at most: copying, checking and writing more would hold up those whom its thread serves.
const LED_BYTES: usize = 1024 * 1024;

/// When what was committed is made to survive the machine: Redis' `appendfsync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SyncPolicy {
    /// Before any waiter of the batch is woken.
    Always = 0,
    /// About once a second, off the way of commits.
    EverySec = 1,
    /// When the kernel likes.
    No = 2,
}

/// The place of a submission in the order of commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(pub u64);

/// What a committer has done since it was made, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Batches written.
    pub batches: u64,
    /// Changes written, after those replaced within their batch were left out.
    pub changes: u64,
    /// Syncs, those within a write included.
    pub syncs: u64,
}

/// See the module. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Committer(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    queue: Mutex<Queue>,
    /// Rung for the thread in `run` when it sleeps.
    bell: Condvar,
    /// Rung for the thread in `run_sync` when it is to end.
    sync_bell: Condvar,
    /// Held while a batch is written, so that batches follow one another.
    writing: Mutex<()>,
    committed: Waiters,
    synced: Waiters,
    policy: AtomicU8,
    /// Who waits commits: see the module.
    leads: AtomicBool,
    pending_bytes: AtomicUsize,
    limit_bytes: AtomicUsize,
    failure: OnceLock<StoreError>,
    committed_batch: AtomicU64,
    totals: [AtomicU64; 3],
}

/// What was submitted and not taken yet.
#[derive(Default)]
struct Queue {
    changes: Batch,
    notes: BytesMut,
    last: u64,
    /// The last submission that was taken to be written.
    taken: u64,
    bytes: usize,
    /// The number that the queued notes will have.
    next_batch: u64,
    /// The first batch whose notes are kept once the queue is written.
    first_batch: u64,
    sleeping: bool,
    /// The thread in `run` is to commit what is queued without waiting for anybody to do it.
    urgent: bool,
    stopping: bool,
    waker: Option<Waker>,
}

/// A queue's content, on its way to the store.
struct Taken {
    changes: Batch,
    last: u64,
    bytes: usize,
    next_batch: u64,
}

impl Committer {
    /// A committer for `store`, going on where the log of notes in it ends.
    pub fn new(store: Arc<dyn Store>, policy: SyncPolicy) -> Result<Self, StoreError> {
        let (first_batch, next_batch) = notes::bounds(&*store)?;
        Ok(Committer(Arc::new(Inner {
            store,
            queue: Mutex::new(Queue { first_batch, next_batch, ..Queue::default() }),
            bell: Condvar::new(),
            sync_bell: Condvar::new(),
            writing: Mutex::new(()),
            committed: Waiters::default(),
            synced: Waiters::default(),
            policy: AtomicU8::new(policy as u8),
            leads: AtomicBool::new(false),
            pending_bytes: AtomicUsize::new(0),
            limit_bytes: AtomicUsize::new(DEFAULT_LIMIT_BYTES),
            failure: OnceLock::new(),
            committed_batch: AtomicU64::new(next_batch),
            totals: Default::default(),
        })))
    }

    /// Takes changes and a note for the next batch, all of them or, with an error, none. Never blocks on the store: cheap
    /// enough to be called under a partition's lock, which is how callers fix their order.
    ///
    /// Errors: a key or value that no store can hold, or the failure that ended all commits.
    pub fn submit(&self, changes: impl IntoIterator<Item = Change>, note: &[u8]) -> Result<Ticket, StoreError> {
        self.enqueue(|queue| {
            queue.notes.extend_from_slice(note);
            queue.extend(changes)
        })
    }

    /// Submits what makes the notes of all batches before `before` superfluous (whole clocks), and drops those notes in
    /// the same batch, as many as others can wait for; says whether there are more, for another call after the next
    /// commit. `before` is what [`current_batch`](Self::current_batch) said *before* the clocks were read.
    pub fn checkpoint(
        &self,
        changes: impl IntoIterator<Item = Change>,
        before: u64,
    ) -> Result<(Ticket, bool), StoreError> {
        let mut more = false;
        let ticket = self.enqueue(|queue| {
            queue.extend(changes)?;
            let until = before.min(queue.next_batch);
            let now = until.min(queue.first_batch.saturating_add(DROPPED_AT_ONCE));
            if now > queue.first_batch {
                queue.extend(notes::drop_rows(queue.first_batch, now))?;
                queue.first_batch = now;
            }
            more = now < until;
            Ok(())
        })?;
        Ok((ticket, more))
    }

    /// The number of the batch that a note submitted now goes to, at the earliest. Notes submitted before this call are
    /// in that batch or an earlier one.
    pub fn current_batch(&self) -> u64 {
        self.0.queue.lock().next_batch
    }

    /// Everything up to this ticket is in the store.
    pub fn committed(&self) -> Ticket {
        Ticket(self.0.committed.reached())
    }

    /// Everything up to this ticket survives the machine.
    pub fn synced(&self) -> Ticket {
        Ticket(self.0.synced.reached())
    }

    /// The ticket of the last submission.
    pub fn last(&self) -> Ticket {
        Ticket(self.0.queue.lock().last)
    }

    /// Waits until `ticket` is committed. An error means that it may or may not be there after reopening. May be dropped
    /// at any time; needs no particular runtime.
    pub async fn wait(&self, ticket: Ticket) -> Result<(), StoreError> {
        self.wait_for(&self.0.committed, ticket).await
    }

    /// Waits until `ticket` survives the machine. Under [`SyncPolicy::No`] that is when somebody calls
    /// [`sync`](Self::sync).
    pub async fn wait_synced(&self, ticket: Ticket) -> Result<(), StoreError> {
        self.wait_for(&self.0.synced, ticket).await
    }

    /// Waits until something is queued: for a task that calls [`commit_pending`](Self::commit_pending) in a loop. Only
    /// one such task.
    pub async fn pending(&self) {
        poll_fn(|context| {
            let mut queue = self.0.queue.lock();
            if !queue.is_empty() {
                return Poll::Ready(());
            }
            queue.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Writes all that is queued as one batch and wakes who waits for it. Returns how many changes were taken.
    pub fn commit_pending(&self) -> usize {
        let one_at_a_time = self.0.writing.lock();
        self.0.commit_queued(&one_at_a_time)
    }

    /// Makes all that is committed survive the machine.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.0.sync()
    }

    /// Commits until [`stop`](Self::stop), then drains the queue, syncs and returns; returns early after a failure.
    /// For a thread of its own: the store may block or sleep in it.
    pub fn run(&self) {
        while self.0.sleep_until_pending() {
            self.commit_pending();
            if self.failed().is_some() {
                return;
            }
        }
        // Not before one who leads is through with what it took.
        self.commit_pending();
        // A failure is kept and answers whoever asks.
        let _ = self.sync();
    }

    /// Syncs about once a second under [`SyncPolicy::EverySec`], tends the store as often under any policy, and
    /// returns after [`stop`](Self::stop) or a failure. For a second thread, since a sync takes its time and commits go on meanwhile.
    pub fn run_sync(&self) {
        while self.0.sleep_an_interval() && self.failed().is_none() {
            if self.policy() == SyncPolicy::EverySec {
                let _ = self.sync();
            }
            if let Err(error) = self.0.store.tend() {
                self.0.fail(error);
            }
        }
    }

    /// Ends [`run`](Self::run) and [`run_sync`](Self::run_sync).
    pub fn stop(&self) {
        self.0.leads.store(false, Ordering::Relaxed);
        self.0.queue.lock().stopping = true;
        self.0.bell.notify_all();
        self.0.sync_bell.notify_all();
    }

    /// The failure that ended all commits.
    pub fn failed(&self) -> Option<StoreError> {
        self.0.failure.get().cloned()
    }

    /// Whether there is one: cheap enough for the way of every read.
    pub fn has_failed(&self) -> bool {
        self.0.failure.get().is_some()
    }

    /// Ends all commits from outside, as if a write had failed: for whoever sees that one never ends.
    pub fn halt(&self, why: &str) {
        self.0.fail(StoreError::Failed(why.into()));
    }

    /// The number that the next batch with notes would have had when the last commit was done: a store that is opened
    /// again and begins below it ([`current_batch`](Self::current_batch)) has lost something that was committed.
    pub fn committed_batch(&self) -> u64 {
        self.0.committed_batch.load(Ordering::Acquire)
    }

    /// Bytes submitted and not committed yet.
    pub fn bytes_pending(&self) -> usize {
        self.0.pending_bytes.load(Ordering::Relaxed)
    }

    /// Whether so much is queued that callers should refuse new work. Nothing is refused here.
    pub fn over_limit(&self) -> bool {
        self.bytes_pending() > self.0.limit_bytes.load(Ordering::Relaxed)
    }

    /// Changes the bound of [`over_limit`](Self::over_limit).
    pub fn set_limit(&self, bytes: usize) {
        self.0.limit_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The policy in force.
    pub fn policy(&self) -> SyncPolicy {
        self.0.policy()
    }

    /// Changes the policy from the next batch on.
    pub fn set_policy(&self, policy: SyncPolicy) {
        self.0.policy.store(policy as u8, Ordering::Relaxed);
        // It may have to commit now what it left to others.
        self.0.ring();
    }

    /// Lets those who wait commit: see the module. Needs the thread in [`run`](Self::run) all the same.
    pub fn let_waiters_lead(&self) {
        self.0.leads.store(true, Ordering::Relaxed);
    }

    /// What was done so far.
    pub fn totals(&self) -> Totals {
        let [batches, changes, syncs] = self.0.totals.each_ref().map(|n| n.load(Ordering::Relaxed));
        Totals { batches, changes, syncs }
    }

    fn enqueue(&self, fill: impl FnOnce(&mut Queue) -> Result<(), StoreError>) -> Result<Ticket, StoreError> {
        if let Some(error) = self.0.failure.get() {
            return Err(error.clone());
        }
        let mut queue = self.0.queue.lock();
        let (ticket, added, waker) = queue.add(fill)?;
        self.0.pending_bytes.fetch_add(added, Ordering::Relaxed);
        // Only a sleeper is rung for: a busy committer looks at the queue before it sleeps.
        if std::mem::take(&mut queue.sleeping) {
            self.0.bell.notify_one();
        }
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(ticket)
    }

    async fn wait_for(&self, number: &Waiters, ticket: Ticket) -> Result<(), StoreError> {
        let mut waiting = Waiting::default();
        poll_fn(|context| self.poll_reached(number, ticket, &mut waiting, context)).await
    }

    fn poll_reached(
        &self,
        number: &Waiters,
        ticket: Ticket,
        waiting: &mut Waiting,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), StoreError>> {
        if number.reached() >= ticket.0 {
            return Poll::Ready(Ok(()));
        }
        if self.0.waiters_lead() {
            if !std::mem::replace(&mut waiting.let_others_go_first, true) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.0.lead();
        }
        if !waiting.registered.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            if number.register(ticket.0, context.waker()) {
                return Poll::Ready(Ok(()));
            }
            waiting.registered = Some(context.waker().clone());
        }
        // After registering: a failure is set before everybody is woken.
        match self.failed() {
            Some(error) => Poll::Ready(Err(error)),
            None => Poll::Pending,
        }
    }
}

/// How far somebody is with waiting.
#[derive(Default)]
struct Waiting {
    /// Tasks that are ready to run submit what they have: of 50 connections four or five then share a commit.
    let_others_go_first: bool,
    registered: Option<Waker>,
}

impl Inner {
    fn policy(&self) -> SyncPolicy {
        match self.policy.load(Ordering::Relaxed) {
            0 => SyncPolicy::Always,
            1 => SyncPolicy::EverySec,
            _ => SyncPolicy::No,
        }
    }

    /// Whether a commit may be done by whoever waits for it: where it is one write into a file, and no sync.
    fn waiters_lead(&self) -> bool {
        self.leads.load(Ordering::Relaxed) && self.policy() != SyncPolicy::Always
    }

    /// Commits all that is queued, unless somebody else is doing so: then that one will see what is queued now.
    fn lead(&self) {
        for _ in 0..LED_BATCHES {
            if !self.store.is_ready() || self.pending_bytes.load(Ordering::Relaxed) > LED_BYTES {
                break;
            }
            let Some(one_at_a_time) = self.writing.try_lock() else { return };
            self.commit_queued(&one_at_a_time);
            drop(one_at_a_time);
            // After unlocking: whoever submitted before it, and found it locked, has left it to us.
            if self.queue.lock().is_empty() {
                return;
            }
        }
        self.ring();
    }

    /// Lets the thread in `run` commit what is queued.
    fn ring(&self) {
        self.queue.lock().urgent = true;
        self.bell.notify_one();
    }

    fn commit_queued(&self, _one_at_a_time: &MutexGuard<'_, ()>) -> usize {
        let taken = self.queue.lock().take();
        let count = taken.changes.len();
        if count > 0 {
            let guard = FailOnPanic(self);
            self.commit(taken);
            std::mem::forget(guard);
        }
        count
    }

    fn commit(&self, Taken { mut changes, last, bytes, next_batch }: Taken) {
        if self.failure.get().is_some() {
            return;
        }
        keep_last(&mut changes);
        let count = changes.len() as u64;
        let always = self.policy() == SyncPolicy::Always;
        let durability = if always { Durability::Synced } else { Durability::Buffered };
        if let Err(error) = self.store.write(changes, durability) {
            return self.fail(error);
        }
        self.pending_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.count([1, count, u64::from(always)]);
        self.committed_batch.store(next_batch, Ordering::Release);
        self.committed.advance(last);
        if always {
            self.synced.advance(last);
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        if let Some(error) = self.failure.get() {
            return Err(error.clone());
        }
        let upto = self.committed.reached();
        if upto > self.synced.reached() {
            self.store.sync().inspect_err(|error| self.fail(error.clone()))?;
            self.count([0, 0, 1]);
            self.synced.advance(upto);
        }
        Ok(())
    }

    fn fail(&self, error: StoreError) {
        let _ = self.failure.set(error);
        self.committed.wake_all();
        self.synced.wake_all();
    }

    /// False once stopping and nothing is left.
    fn sleep_until_pending(&self) -> bool {
        let mut queue = self.queue.lock();
        let (mut seen, mut idle) = (queue.last, 0);
        while !queue.stopping && (queue.is_empty() || !self.is_for_the_thread(&mut queue, seen)) {
            idle = if seen == queue.last { idle + 1 } else { 0 };
            seen = queue.last;
            if self.waiters_lead() && (idle < IDLE_TICKS || !queue.is_empty()) {
                self.bell.wait_for(&mut queue, TICK);
            } else {
                queue.sleeping = true;
                self.bell.wait(&mut queue);
                queue.sleeping = false;
            }
        }
        queue.urgent = false;
        !queue.is_empty()
    }

    /// Whether nobody who waits will commit what is queued, or has done so in a tick: the last one was `seen` before it.
    fn is_for_the_thread(&self, queue: &mut Queue, seen: u64) -> bool {
        !self.waiters_lead() || queue.urgent || queue.taken < seen
    }

    /// False once stopping.
    fn sleep_an_interval(&self) -> bool {
        let mut queue = self.queue.lock();
        if !queue.stopping {
            self.sync_bell.wait_for(&mut queue, SYNC_INTERVAL);
        }
        !queue.stopping
    }

    fn count(&self, more: [u64; 3]) {
        for (total, more) in self.totals.iter().zip(more) {
            total.fetch_add(more, Ordering::Relaxed);
        }
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.notes.is_empty()
    }

    /// Lets `fill` add one submission, or leaves the queue as it was.
    fn add(
        &mut self,
        fill: impl FnOnce(&mut Queue) -> Result<(), StoreError>,
    ) -> Result<(Ticket, usize, Option<Waker>), StoreError> {
        let before = (self.changes.len(), self.notes.len(), self.bytes);
        if let Err(error) = fill(self) {
            self.changes.truncate(before.0);
            self.notes.truncate(before.1);
            self.bytes = before.2;
            return Err(error);
        }
        if (self.changes.len(), self.notes.len()) == (before.0, before.1) {
            return Ok((Ticket(self.last), 0, None));
        }
        self.bytes = self.bytes.saturating_add(self.notes.len().saturating_sub(before.1));
        self.last = self.last.saturating_add(1);
        Ok((Ticket(self.last), self.bytes.saturating_sub(before.2), self.waker.take()))
    }

    fn extend(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<(), StoreError> {
        for change in changes {
            change.check()?;
            self.bytes = self.bytes.saturating_add(change.weight());
            self.changes.push(change);
        }
        Ok(())
    }

    fn take(&mut self) -> Taken {
        let capacity = self.changes.len();
        if !self.notes.is_empty() {
            let notes: Bytes = self.notes.split().freeze();
            self.changes.push(notes::row(self.next_batch, notes));
            self.next_batch = self.next_batch.saturating_add(1);
        }
        let changes = std::mem::replace(&mut self.changes, Vec::with_capacity(capacity));
        self.taken = self.last;
        Taken { changes, last: self.last, bytes: std::mem::take(&mut self.bytes), next_batch: self.next_batch }
    }
}

/// A panic while a batch is written leaves it unknown: whoever waits must hear of it.
struct FailOnPanic<'a>(&'a Inner);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        self.0.fail(StoreError::Failed("a write panicked".into()));
    }
}

/// The first eight bytes of a key as a number that is ordered as they are; a shorter key ends in zeros.
fn first_bytes(key: &[u8]) -> u64 {
    let whole = key.first_chunk::<8>().copied();
    u64::from_be_bytes(whole.unwrap_or_else(|| {
        let mut padded = [0; 8];
        padded.iter_mut().zip(key).for_each(|(to, byte)| *to = *byte);
        padded
    }))
}

/// Sorts the batch by row and leaves the last change of each. Chosen because one mechanism finds the repeated rows and
/// makes batches the same for the same changes.
fn keep_last(batch: &mut Batch) {
    // Nearly always the first bytes tell.
    let begins = |change: &Change| (change.space, first_bytes(&change.key));
    batch.sort_by(|a, b| begins(a).cmp(&begins(b)).then_with(|| a.key.cmp(&b.key)));
    batch.dedup_by(|later, kept| {
        let same = later.space == kept.space && later.key == kept.key;
        if same {
            std::mem::swap(later, kept);
        }
        same
    });
}

#[cfg(test)]
mod tests;
