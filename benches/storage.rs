//! What a row costs in the store and what a commit costs in company.
//!
//! Keys of 30 bytes, values of 130: a string's head row. The store is on disk in the system's temporary directory and
//! holds a million rows before anything is measured.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use redynamo::base::rng::Rng;
use redynamo::storage::{
    Change, Committer, DiskOptions, DiskStore, Durability, HashTree, MemoryStore, Space, Store, SyncPolicy,
};

const ROWS: u64 = 1_000_000;
const TASKS: u64 = 50;
const ROUNDS: u64 = 100;

fn main() {
    divan::main();
}

#[divan::bench(args = [1, 16, 256, 1000])]
fn write_a_batch(bencher: Bencher, rows: u64) {
    let store = million();
    let mut rng = Rng::new(1);
    bencher
        .counter(ItemsCount::new(rows))
        .with_inputs(|| (0..rows).map(|_| row(&mut rng)).collect())
        .bench_local_values(|batch| store.write(batch, Durability::Buffered).unwrap());
}

#[divan::bench]
fn write_one_row_synced(bencher: Bencher) {
    let store = million();
    let mut rng = Rng::new(2);
    bencher
        .with_inputs(|| vec![row(&mut rng)])
        .bench_local_values(|batch| store.write(batch, Durability::Synced).unwrap());
}

#[divan::bench]
fn get_a_row(bencher: Bencher) {
    let store = million();
    let mut rng = Rng::new(3);
    bencher.with_inputs(|| key(rng.below(ROWS))).bench_local_refs(|key| store.get(Space::Data, key).unwrap());
}

#[divan::bench]
fn get_a_row_that_is_not_there(bencher: Bencher) {
    let store = million();
    let mut rng = Rng::new(4);
    bencher.with_inputs(|| key(ROWS + rng.below(ROWS))).bench_local_refs(|key| store.get(Space::Data, key).unwrap());
}

#[divan::bench(sample_count = 5)]
fn visit_a_million_rows(bencher: Bencher) {
    let store = million();
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        let mut bytes = 0usize;
        let each = &mut |key: &[u8], value: &[u8]| {
            bytes += key.len() + value.len();
            ControlFlow::Continue(())
        };
        store.visit(Space::Data, b"", b"", each).unwrap();
        bytes
    });
}

#[divan::bench]
fn toggle_a_leaf(bencher: Bencher) {
    let mut tree = HashTree::new();
    let mut rng = Rng::new(5);
    bencher
        .with_inputs(|| (rng.below(1024) as usize, u128::from(rng.next_u64())))
        .bench_local_values(|(leaf, hash)| tree.toggle(black_box(leaf), black_box(hash)));
}

/// 50 tasks that each submit one row and wait for it, a hundred times.
#[divan::bench(args = [SyncPolicy::Always, SyncPolicy::EverySec, SyncPolicy::No], sample_count = 10)]
fn fifty_tasks_submit_and_wait(bencher: Bencher, policy: SyncPolicy) {
    group_commit(bencher, million(), policy);
}

/// The same without a disk: what queue, tickets and wake-ups cost.
#[divan::bench(sample_count = 10)]
fn fifty_tasks_submit_and_wait_in_memory(bencher: Bencher) {
    group_commit(bencher, Arc::new(MemoryStore::new()), SyncPolicy::Always);
}

fn group_commit(bencher: Bencher, store: Arc<dyn Store>, policy: SyncPolicy) {
    let committer = Committer::new(store, policy).unwrap();
    committer.let_waiters_lead();
    let bodies: [fn(&Committer); 2] = [Committer::run, Committer::run_sync];
    let threads = bodies.map(|body| {
        let committer = committer.clone();
        thread::spawn(move || body(&committer))
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    bencher.counter(ItemsCount::new(TASKS * ROUNDS)).bench_local(|| {
        runtime.block_on(async {
            let tasks = (0..TASKS).map(|task| tokio::spawn(submit_and_wait(committer.clone(), task)));
            for task in tasks.collect::<Vec<_>>() {
                task.await.unwrap();
            }
        });
    });
    committer.stop();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

async fn submit_and_wait(committer: Committer, task: u64) {
    let mut rng = Rng::new(task);
    for _ in 0..ROUNDS {
        let ticket = committer.submit([row(&mut rng)], &[7; 24]).unwrap();
        committer.wait(ticket).await.unwrap();
    }
}

/// One store for all benchmarks of a run.
fn million() -> Arc<dyn Store> {
    static STORE: OnceLock<(Arc<DiskStore>, tempfile::TempDir)> = OnceLock::new();
    let (store, _) = STORE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        (filled(dir.path()), dir)
    });
    store.clone()
}

fn filled(dir: &Path) -> Arc<DiskStore> {
    let store = DiskStore::open(dir, DiskOptions::default()).unwrap();
    let mut rng = Rng::new(0);
    let mut numbers: Vec<u64> = (0..ROWS).collect();
    rng.shuffle(&mut numbers);
    for chunk in numbers.chunks(1000) {
        let batch = chunk.iter().map(|n| Change::put(Space::Data, key(*n), value(&mut rng))).collect();
        store.write(batch, Durability::Buffered).unwrap();
    }
    Arc::new(store)
}

fn row(rng: &mut Rng) -> Change {
    Change::put(Space::Data, key(rng.below(ROWS)), value(rng))
}

fn key(number: u64) -> Vec<u8> {
    let mut key = vec![0];
    key.extend(Rng::new(number).next_u64().to_be_bytes());
    key.extend(format!("key:{number:017}").into_bytes());
    key
}

fn value(rng: &mut Rng) -> Vec<u8> {
    (0..130).map(|i| if i % 8 < 4 { rng.next_u64() as u8 } else { 0 }).collect()
}
