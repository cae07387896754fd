//! The committer over a store in memory: what is written together, who is woken when, and what a failed write does.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use super::*;
use crate::storage::{MemoryStore, Space, replay_notes};

fn setup(policy: SyncPolicy) -> (Arc<MemoryStore>, Committer) {
    let store = Arc::new(MemoryStore::new());
    let committer = Committer::new(store.clone(), policy).unwrap();
    (store, committer)
}

fn put(key: &str, value: &str) -> [Change; 1] {
    [Change::put(Space::Data, key.to_owned(), value.to_owned())]
}

fn logged(store: &dyn Store) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    replay_notes(store, |batch, notes| found.push((batch, String::from_utf8(notes.to_vec()).unwrap()))).unwrap();
    found
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>, count: &Arc<Count>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(count.clone())))
}

/// A store in memory that does something else first when it is written to, and that may say that it is not ready.
struct Gated {
    rows: MemoryStore,
    before: Box<dyn Fn() + Send + Sync>,
    ready: AtomicBool,
}

impl Gated {
    fn new(before: impl Fn() + Send + Sync + 'static) -> Gated {
        Gated { rows: MemoryStore::new(), before: Box::new(before), ready: AtomicBool::new(true) }
    }
}

impl Store for Gated {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.rows.get(space, key)
    }
    fn visit(&self, s: Space, from: &[u8], to: &[u8], v: &mut crate::storage::Visitor<'_>) -> Result<(), StoreError> {
        self.rows.visit(s, from, to, v)
    }
    fn range(&self, s: Space, from: &[u8], to: &[u8], n: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.rows.range(s, from, to, n)
    }
    fn range_back(&self, s: Space, from: &[u8], to: &[u8], n: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.rows.range_back(s, from, to, n)
    }
    fn write(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        (self.before)();
        self.rows.write(batch, durability)
    }
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
    fn sync(&self) -> Result<(), StoreError> {
        self.rows.sync()
    }
    fn mark(&self) -> Result<Option<Bytes>, StoreError> {
        self.rows.mark()
    }
    fn set_mark(&self, value: &[u8]) -> Result<(), StoreError> {
        self.rows.set_mark(value)
    }
    fn fingerprint(&self) -> crate::storage::Fingerprint {
        self.rows.fingerprint()
    }
    fn usage(&self) -> crate::storage::Usage {
        self.rows.usage()
    }
    fn tend(&self) -> Result<(), StoreError> {
        self.rows.tend()
    }
}

#[test]
fn many_submissions_are_one_write() {
    let (store, committer) = setup(SyncPolicy::No);
    for i in 0..10 {
        assert_eq!(committer.submit(put(&i.to_string(), "v"), b""), Ok(Ticket(i + 1)));
    }
    assert_eq!(committer.committed(), Ticket(0));
    assert_eq!(committer.commit_pending(), 10);
    assert_eq!(committer.committed(), Ticket(10));
    assert_eq!(committer.commit_pending(), 0);
    assert_eq!(store.counts(), (1, 0));
    assert_eq!(committer.totals(), Totals { batches: 1, changes: 10, syncs: 0 });
}

#[test]
fn of_several_changes_of_one_row_only_the_last_is_written() {
    let (store, committer) = setup(SyncPolicy::No);
    committer.submit(put("a", "1"), b"").unwrap();
    committer.submit([Change::put(Space::Hints, "a", "h"), Change::remove(Space::Data, "a")], b"").unwrap();
    committer.submit(put("b", "1"), b"").unwrap();
    committer.submit(put("a", "3"), b"").unwrap();
    committer.commit_pending();
    assert_eq!(committer.totals().changes, 3);
    assert_eq!(store.get(Space::Data, b"a"), Ok(Some("3".into())));
    assert_eq!(store.get(Space::Hints, b"a"), Ok(Some("h".into())));
}

#[test]
fn a_submission_of_nothing_is_done_when_the_one_before_it_is() {
    let (_, committer) = setup(SyncPolicy::No);
    assert_eq!(committer.submit([], b""), Ok(Ticket(0)));
    committer.submit(put("a", "1"), b"").unwrap();
    assert_eq!(committer.submit([], b""), Ok(committer.last()));
}

#[test]
fn notes_of_a_batch_are_one_row_in_order_of_submission() {
    let (store, committer) = setup(SyncPolicy::No);
    committer.submit(put("a", "1"), b"one,").unwrap();
    committer.submit(put("b", "1"), b"").unwrap();
    committer.submit([], b"two").unwrap();
    committer.commit_pending();
    committer.submit(put("c", "1"), b"").unwrap();
    committer.commit_pending();
    committer.submit(put("c", "1"), b"three").unwrap();
    committer.commit_pending();
    assert_eq!(logged(&*store), [(0, "one,two".into()), (1, "three".into())]);
}

#[test]
fn batch_numbers_go_on_after_a_restart_even_when_all_notes_are_dropped() {
    let (store, committer) = setup(SyncPolicy::No);
    for _ in 0..3 {
        committer.submit([], b"n").unwrap();
        committer.commit_pending();
    }
    let committer = Committer::new(store.clone(), SyncPolicy::No).unwrap();
    assert_eq!(committer.current_batch(), 3);
    committer.checkpoint([Change::put(Space::Clocks, "c", "whole")], 3).unwrap();
    committer.commit_pending();
    assert_eq!(logged(&*store), []);
    let committer = Committer::new(store.clone(), SyncPolicy::No).unwrap();
    assert_eq!(committer.current_batch(), 3);
    committer.submit([], b"n").unwrap();
    committer.commit_pending();
    assert_eq!(logged(&*store), [(3, "n".into())]);
}

#[test]
fn a_checkpoint_drops_the_notes_before_it_and_no_others() {
    let (store, committer) = setup(SyncPolicy::No);
    for i in 0..5 {
        committer.submit([], i.to_string().as_bytes()).unwrap();
        committer.commit_pending();
    }
    committer.checkpoint([], 2).unwrap();
    committer.checkpoint([], 1).unwrap();
    committer.submit([], b"5").unwrap();
    committer.checkpoint([], 3).unwrap();
    committer.checkpoint([], 3).unwrap();
    committer.commit_pending();
    let expected = [3, 4, 5].map(|i| (i, i.to_string()));
    assert_eq!(logged(&*store), expected);
}

#[test]
fn a_checkpoint_of_very_many_notes_holds_nobody_up_and_drops_all_of_them_in_the_end() {
    let (store, committer) = setup(SyncPolicy::No);
    for _ in 0..3 * DROPPED_AT_ONCE {
        committer.submit([], b"n").unwrap();
        committer.commit_pending();
    }
    let (mut calls, mut most) = (1, 0);
    while committer.checkpoint([], 3 * DROPPED_AT_ONCE - 500).unwrap().1 {
        most = most.max(committer.commit_pending());
        calls += 1;
    }
    committer.commit_pending();
    assert_eq!((calls, most), (3, DROPPED_AT_ONCE as usize + 1), "those, and where the log begins now");
    assert_eq!(logged(&*store).len(), 500);
}

#[test]
fn a_checkpoint_cannot_drop_notes_that_are_not_written_yet() {
    let (store, committer) = setup(SyncPolicy::No);
    committer.submit([], b"queued").unwrap();
    committer.checkpoint([], u64::MAX).unwrap();
    committer.commit_pending();
    assert_eq!(logged(&*store), [(0, "queued".into())]);
}

#[test]
fn waiters_are_woken_when_their_ticket_is_done_and_not_before() {
    let (_, committer) = setup(SyncPolicy::No);
    let first = committer.submit(put("a", "1"), b"").unwrap();
    let count = Arc::new(Count::default());
    let later = Arc::new(Count::default());
    let mut wait = pin!(committer.wait(first));
    let mut wait_later = pin!(committer.wait(Ticket(first.0 + 1)));
    assert!(poll(wait.as_mut(), &count).is_pending());
    assert!(poll(wait.as_mut(), &count).is_pending());
    assert!(poll(wait_later.as_mut(), &later).is_pending());
    committer.commit_pending();
    assert_eq!((count.0.load(Ordering::Relaxed), later.0.load(Ordering::Relaxed)), (1, 0));
    assert_eq!(poll(wait.as_mut(), &count), Poll::Ready(Ok(())));
    assert!(poll(wait_later.as_mut(), &later).is_pending());
    committer.submit(put("a", "1"), b"").unwrap();
    committer.commit_pending();
    assert_eq!(later.0.load(Ordering::Relaxed), 1);
}

#[test]
fn a_ticket_that_is_done_needs_no_waiting() {
    let (_, committer) = setup(SyncPolicy::No);
    let ticket = committer.submit(put("a", "1"), b"").unwrap();
    committer.commit_pending();
    assert_eq!(poll(pin!(committer.wait(ticket)), &Arc::default()), Poll::Ready(Ok(())));
}

#[test]
fn policies_differ_in_what_a_power_cut_leaves() {
    for (policy, left) in [(SyncPolicy::Always, 1), (SyncPolicy::EverySec, 0), (SyncPolicy::No, 0)] {
        let (store, committer) = setup(policy);
        let ticket = committer.submit(put("a", "1"), b"").unwrap();
        committer.commit_pending();
        assert_eq!(committer.synced() >= ticket, left == 1);
        store.crash(0);
        assert_eq!(store.range(Space::Data, b"", b"", 9).unwrap().len(), left);
    }
}

#[test]
fn the_policy_can_change_while_running() {
    let (store, committer) = setup(SyncPolicy::No);
    committer.set_policy(SyncPolicy::Always);
    committer.submit(put("a", "1"), b"").unwrap();
    committer.commit_pending();
    assert_eq!((committer.policy(), store.unsynced()), (SyncPolicy::Always, 0));
}

#[test]
fn a_sync_covers_what_was_committed_and_is_done_once() {
    let (store, committer) = setup(SyncPolicy::EverySec);
    let ticket = committer.submit(put("a", "1"), b"").unwrap();
    let mut wait = pin!(committer.wait_synced(ticket));
    let count = Arc::new(Count::default());
    committer.commit_pending();
    assert!(poll(wait.as_mut(), &count).is_pending());
    committer.sync().unwrap();
    committer.sync().unwrap();
    assert_eq!(poll(wait.as_mut(), &count), Poll::Ready(Ok(())));
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert_eq!((store.counts(), store.unsynced()), ((1, 1), 0));
}

#[test]
fn after_a_failed_write_everything_fails_at_once_and_for_good() {
    let (store, committer) = setup(SyncPolicy::No);
    let good = committer.submit(put("a", "1"), b"").unwrap();
    committer.commit_pending();
    store.fail_writes("no space left");
    let bad = committer.submit(put("b", "1"), b"").unwrap();
    let count = Arc::new(Count::default());
    let mut wait = pin!(committer.wait(bad));
    assert!(poll(wait.as_mut(), &count).is_pending());
    committer.commit_pending();
    let failed = StoreError::Failed("no space left".into());
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert_eq!(poll(wait.as_mut(), &count), Poll::Ready(Err(failed.clone())));
    store.heal();
    assert_eq!(committer.submit(put("c", "1"), b""), Err(failed.clone()));
    assert_eq!(committer.sync(), Err(failed.clone()));
    assert_eq!(committer.failed(), Some(failed));
    assert_eq!(poll(pin!(committer.wait(good)), &count), Poll::Ready(Ok(())));
}

#[test]
fn a_change_that_no_store_can_hold_fails_alone() {
    let (store, committer) = setup(SyncPolicy::No);
    committer.submit(put("a", "1"), b"a").unwrap();
    let long = Change::put(Space::Data, vec![0; 70_000], "v");
    let both = [put("half", "1"), [long]].concat();
    assert_eq!(committer.submit(both, b"half"), Err(StoreError::KeyLength(70_000)));
    assert_eq!(committer.submit(put("b", "1"), b"b"), Ok(Ticket(2)));
    committer.commit_pending();
    let keys: Vec<Bytes> = store.range(Space::Data, b"", b"", 9).unwrap().into_iter().map(|(k, _)| k).collect();
    assert_eq!(keys, ["a", "b"]);
    assert_eq!(logged(&*store), [(0, "ab".into())]);
}

#[test]
fn bytes_pending_say_when_to_refuse_and_go_down_to_nothing() {
    let (_, committer) = setup(SyncPolicy::No);
    committer.set_limit(100);
    committer.submit([Change::put(Space::Data, "key", vec![0; 90])], b"").unwrap();
    assert_eq!((committer.bytes_pending(), committer.over_limit()), (93, false));
    committer.submit([Change::remove(Space::Data, "key")], b"12345").unwrap();
    assert_eq!((committer.bytes_pending(), committer.over_limit()), (101, true));
    committer.commit_pending();
    assert_eq!((committer.bytes_pending(), committer.over_limit()), (0, false));
}

#[test]
fn a_task_can_wait_for_something_to_commit() {
    let (_, committer) = setup(SyncPolicy::No);
    let count = Arc::new(Count::default());
    let mut pending = pin!(committer.pending());
    assert!(poll(pending.as_mut(), &count).is_pending());
    committer.submit(put("a", "1"), b"").unwrap();
    committer.submit(put("b", "1"), b"").unwrap();
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert!(poll(pending.as_mut(), &count).is_ready());
}

#[test]
fn a_write_that_panics_fails_those_who_wait() {
    let committer = Committer::new(Arc::new(Gated::new(|| panic!("as planned"))), SyncPolicy::No).unwrap();
    let ticket = committer.submit(put("a", "1"), b"").unwrap();
    assert!(running(&committer).join().is_err());
    let failed = StoreError::Failed("a write panicked".into());
    assert_eq!(poll(pin!(committer.wait(ticket)), &Arc::default()), Poll::Ready(Err(failed)));
}

#[test]
fn who_waits_commits_what_all_have_submitted() {
    let (store, committer) = setup(SyncPolicy::EverySec);
    committer.let_waiters_lead();
    let first = committer.submit(put("a", "1"), b"").unwrap();
    let second = committer.submit(put("b", "1"), b"").unwrap();
    let count = Arc::new(Count::default());
    let mut wait = pin!(committer.wait(first));
    assert!(poll(wait.as_mut(), &count).is_pending(), "others go first");
    assert_eq!((store.counts(), count.0.load(Ordering::Relaxed)), ((0, 0), 1));
    assert_eq!(poll(wait, &count), Poll::Ready(Ok(())));
    assert_eq!(poll(pin!(committer.wait(second)), &count), Poll::Ready(Ok(())));
    assert_eq!((store.counts(), count.0.load(Ordering::Relaxed)), ((1, 0), 1));
    committer.stop();
    let late = committer.submit(put("c", "1"), b"").unwrap();
    let mut wait = pin!(committer.wait(late));
    assert!(poll(wait.as_mut(), &count).is_pending() && poll(wait, &count).is_pending());
}

#[test]
fn who_waits_does_not_commit_where_that_takes_long() {
    let store = Arc::new(Gated::new(|| {}));
    let committer = Committer::new(store.clone(), SyncPolicy::Always).unwrap();
    committer.let_waiters_lead();
    let ticket = committer.submit(put("a", "1"), b"").unwrap();
    let count = Arc::new(Count::default());
    let mut wait = pin!(committer.wait(ticket));
    assert!(poll(wait.as_mut(), &count).is_pending() && poll(wait.as_mut(), &count).is_pending(), "a sync");
    committer.set_policy(SyncPolicy::No);
    store.ready.store(false, Ordering::Relaxed);
    assert!(poll(wait.as_mut(), &count).is_pending() && poll(wait.as_mut(), &count).is_pending(), "no room");
    store.ready.store(true, Ordering::Relaxed);
    let ticket = committer.submit([Change::put(Space::Data, "b", vec![0; LED_BYTES])], b"").unwrap();
    let mut wait = pin!(committer.wait(ticket));
    assert!(poll(wait.as_mut(), &count).is_pending() && poll(wait.as_mut(), &count).is_pending(), "too much");
    // The thread has been told.
    let thread = running(&committer);
    until(|| committer.committed() == ticket);
    committer.stop();
    thread.join().unwrap();
}

#[test]
fn what_is_submitted_while_one_leads_is_led_as_well() {
    let (enter, entered) = std::sync::mpsc::channel();
    let (leave, left) = std::sync::mpsc::channel();
    let left = Mutex::new(left);
    let store = Gated::new(move || {
        enter.send(()).unwrap();
        left.lock().recv().unwrap();
    });
    let committer = Committer::new(Arc::new(store), SyncPolicy::No).unwrap();
    committer.let_waiters_lead();
    let first = committer.submit(put("a", "1"), b"").unwrap();
    thread::scope(|scope| {
        let leader = scope.spawn(|| {
            let mut wait = pin!(committer.wait(first));
            assert!(poll(wait.as_mut(), &Arc::default()).is_pending());
            poll(wait, &Arc::default())
        });
        entered.recv().unwrap();
        let second = committer.submit(put("b", "1"), b"").unwrap();
        let count = Arc::new(Count::default());
        let mut wait = pin!(committer.wait(second));
        assert!(poll(wait.as_mut(), &count).is_pending() && poll(wait.as_mut(), &count).is_pending());
        leave.send(()).unwrap();
        entered.recv().unwrap();
        leave.send(()).unwrap();
        assert_eq!(leader.join().unwrap(), Poll::Ready(Ok(())));
        // Once for going first, once for being served.
        assert_eq!((committer.committed(), count.0.load(Ordering::Relaxed)), (second, 2));
    });
}

#[test]
fn what_nobody_waits_for_is_committed_by_the_thread() {
    let (_, committer) = setup(SyncPolicy::EverySec);
    committer.let_waiters_lead();
    let thread = running(&committer);
    for round in 0..20 {
        let ticket = committer.submit(put("a", &round.to_string()), b"").unwrap();
        until(|| committer.committed() == ticket);
    }
    committer.stop();
    thread.join().unwrap();
}

fn running(committer: &Committer) -> thread::JoinHandle<()> {
    let committer = committer.clone();
    thread::spawn(move || committer.run())
}

fn until(done: impl Fn() -> bool) {
    while !done() {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn stopping_drains_and_syncs() {
    let (store, committer) = setup(SyncPolicy::No);
    let bodies: [fn(&Committer); 2] = [Committer::run, Committer::run_sync];
    let threads = bodies.map(|body| {
        let committer = committer.clone();
        thread::spawn(move || body(&committer))
    });
    let mut last = Ticket::default();
    for i in 0..1000 {
        last = committer.submit(put(&i.to_string(), "v"), b"n").unwrap();
    }
    committer.stop();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!((committer.committed(), committer.synced()), (last, last));
    store.crash(0);
    assert_eq!(store.range(Space::Data, b"", b"", usize::MAX).unwrap().len(), 1000);
}

/// Every task's own submissions are committed in its order, every wait ends, and what a wait said is in the store.
#[test]
fn many_tasks_submit_and_wait_at_once() {
    many_tasks(false);
}

#[test]
fn many_tasks_submit_wait_and_lead_at_once() {
    many_tasks(true);
}

fn many_tasks(lead: bool) {
    const TASKS: usize = 16;
    const ROUNDS: usize = 200;
    let (store, committer) = setup(SyncPolicy::EverySec);
    if lead {
        committer.let_waiters_lead();
    }
    let thread = running(&committer);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let tasks = (0..TASKS).map(|task| {
            let (committer, store) = (committer.clone(), store.clone());
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    let (key, value) = (format!("t{task}"), round.to_string());
                    let ticket = committer.submit(put(&key, &value), b"x").unwrap();
                    committer.wait(ticket).await.unwrap();
                    assert_eq!(store.get(Space::Data, key.as_bytes()), Ok(Some(value.into())));
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
    committer.stop();
    thread.join().unwrap();
    assert_eq!(committer.bytes_pending(), 0);
    let notes: usize = logged(&*store).iter().map(|(_, notes)| notes.len()).sum();
    assert_eq!(notes, TASKS * ROUNDS);
}
