//! A process that commits is killed with SIGKILL again and again: what it acknowledged is there, and no batch is torn.
//!
//! The test starts its own program again with a directory in the environment; that child commits and says what was
//! acknowledged on its standard output until it is killed.

#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use redynamo::base::rng::Rng;
use redynamo::storage::{Change, Committer, DiskOptions, DiskStore, Space, Store, SyncPolicy, replay_notes};

const DIR: &str = "REDYNAMO_KILL_TEST_DIR";
const POLICY: &str = "REDYNAMO_KILL_TEST_POLICY";
const TASKS: u64 = 4;

#[test]
fn what_was_acknowledged_is_there_after_a_kill_when_every_batch_is_synced() {
    kill_and_check("always", 8);
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill_when_nothing_is_synced() {
    kill_and_check("no", 8);
}

fn kill_and_check(policy: &str, rounds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = [0; TASKS as usize];
    let mut rng = Rng::new(7);
    for round in 0..rounds {
        let lines = 20 + rng.below(400) as usize;
        run_until_killed(dir.path(), policy, lines, &mut acknowledged);
        let found = check(dir.path());
        for (task, (found, said)) in found.iter().zip(&acknowledged).enumerate() {
            assert!(found >= said, "round {round}, task {task}: {found} found of {said} acknowledged");
        }
        acknowledged = found;
    }
}

/// Lets the child acknowledge `lines` commits, kills it, and takes down everything that it said.
fn run_until_killed(dir: &Path, policy: &str, lines: usize, acknowledged: &mut [u64]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_child_commits_until_killed", "--nocapture"]).env(DIR, dir).env(POLICY, policy);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut seen = 0;
    for line in said {
        let Some((task, number)) = line.strip_prefix("ack ").and_then(|rest| rest.split_once(' ')) else { continue };
        acknowledged[task.parse::<usize>().unwrap()] = number.parse().unwrap();
        seen += 1;
        if seen == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(seen >= lines, "the child ended by itself after {seen} commits");
}

/// Opens what the child left; how many commits of each task are there, without a gap and each whole.
fn check(dir: &Path) -> [u64; TASKS as usize] {
    let store = DiskStore::open(dir, DiskOptions::default()).unwrap();
    let mut noted = [0u64; TASKS as usize];
    replay_notes(&store, |_, notes| notes.iter().for_each(|task| noted[usize::from(*task)] += 1)).unwrap();
    for (task, noted) in noted.iter().enumerate() {
        for space in [Space::Data, Space::Hints] {
            let rows = store.range(space, &key(task as u64, 0), &key(task as u64 + 1, 0), usize::MAX).unwrap();
            let expected: Vec<_> = (1..=*noted).map(|n| key(task as u64, n)).collect();
            assert!(rows.iter().map(|(key, _)| &key[..]).eq(expected.iter().map(|k| &k[..])), "a gap or a torn batch");
        }
    }
    noted
}

#[test]
fn the_child_commits_until_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let policy = if std::env::var(POLICY).unwrap() == "always" { SyncPolicy::Always } else { SyncPolicy::No };
    let from = check(Path::new(&dir));
    let store = DiskStore::open(Path::new(&dir), DiskOptions::default()).unwrap();
    let committer = Committer::new(Arc::new(store), policy).unwrap();
    let thread = thread::spawn({
        let committer = committer.clone();
        move || committer.run()
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let tasks = (0..TASKS).map(|task| tokio::spawn(commit_forever(committer.clone(), task, from[task as usize])));
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
    thread.join().unwrap();
}

async fn commit_forever(committer: Committer, task: u64, from: u64) {
    for number in from + 1.. {
        let rows = [Space::Data, Space::Hints].map(|space| Change::put(space, key(task, number), vec![7; 200]));
        let ticket = committer.submit(rows, &[task as u8]).unwrap();
        committer.wait(ticket).await.unwrap();
        // A broken pipe means the parent is gone.
        writeln!(std::io::stdout().lock(), "ack {task} {number}").unwrap();
    }
}

fn key(task: u64, number: u64) -> Vec<u8> {
    [task.to_be_bytes(), number.to_be_bytes()].concat()
}
