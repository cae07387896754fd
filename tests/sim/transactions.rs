//! Transactions whose coordinator is cut off, killed or deposed in the middle: whole or not at all, and counted once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redynamo::base::id::Db;
use redynamo::base::rng::Rng;
use redynamo::commands::session::Quorum;
use redynamo::env::Env;
use redynamo::replication::transaction;
use redynamo::resp::Reply;
use redynamo::sim::net::Cut;
use redynamo::sim::world::Crash;
use redynamo::sim::{World, check};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::scenarios::{config, send, started};
use super::simulate;

/// A transaction is of three keys.
const KEYS: [&str; 3] = ["{t}a", "{t}b", "{t}n"];

/// Sends one transaction that sets two keys to `text` and counts in a third; what it came to, if anything is known.
async fn transact(world: &Arc<World>, at: usize, quorum: Quorum, text: &str) -> Option<Reply> {
    let (node, env) = world.node(at)?;
    let lines = [format!("SET {} {text}", KEYS[0]), format!("SET {} {text}", KEYS[1]), format!("INCR {}", KEYS[2])];
    let commands = lines.map(|line| line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect());
    let task = transaction::task(Db(0), quorum, &[], commands.iter());
    let (tell, told) = oneshot::channel();
    env.spawn(Box::pin(async move {
        let _ = tell.send(node.coordinator.run(task).await.reply);
    }));
    timeout(Duration::from_secs(20), told).await.ok()?.ok()
}

/// How many transactions were begun, and how many were acknowledged.
async fn client(world: Arc<World>, at: usize, quorum: Quorum, rounds: usize) -> (i64, i64) {
    let (mut begun, mut done) = (0, 0);
    for round in 0..rounds {
        begun += 1;
        let reply = transact(&world, at, quorum, &format!("{at}:{round}")).await;
        done += i64::from(matches!(reply, Some(Reply::Array(_))));
        sleep(Duration::from_millis(world.below(120))).await;
    }
    (begun, done)
}

/// Cuts and kills for a while, then none.
async fn trouble(world: &Arc<World>, seed: u64) {
    let mut rng = Rng::new(seed ^ 0x7a);
    for _ in 0..8 {
        sleep(Duration::from_millis(rng.below(700))).await;
        let (one, other) = (rng.below(3) as usize, rng.below(3) as usize);
        match rng.below(4) {
            0 => world.crash(one, Crash::Kill),
            1 => world.start(one),
            cut if one != other => {
                let cut = if cut == 2 { Cut::Swallow } else { Cut::Stall };
                world.set_cut(one, other, Some(cut));
                world.set_cut(other, one, Some(cut));
                sleep(Duration::from_millis(rng.below(3_000))).await;
                world.set_cut(one, other, None);
                world.set_cut(other, one, None);
            }
            _ => {}
        }
    }
    (0..3).for_each(|at| world.start(at));
    world.calm();
}

fn number(reply: &Reply) -> i64 {
    match reply {
        Reply::Bulk(text) => String::from_utf8_lossy(text).parse().unwrap(),
        Reply::Nil => 0,
        other => panic!("{other:?}"),
    }
}

fn stay_whole(quorum: Quorum, seeds: std::ops::Range<u64>) {
    let mut acknowledged = 0;
    for seed in seeds {
        acknowledged += simulate(async {
            let world = started(config(3, 3, 1), seed).await;
            let clients = (0..3).map(|at| tokio::spawn(client(world.clone(), at, quorum, 30))).collect::<Vec<_>>();
            trouble(&world, seed).await;
            let (mut begun, mut done) = (0, 0);
            for client in clients {
                let (own_begun, own_done) = client.await.unwrap();
                (begun, done) = (begun + own_begun, done + own_done);
            }
            assert!(world.settled(Duration::from_secs(60)).await);
            sleep(Duration::from_secs(10)).await;
            assert_eq!(check::converged(&world), Ok(()), "seed {seed}");
            for at in 0..3 {
                let one = send(&world, at, &format!("GET {}", KEYS[0])).await;
                let other = send(&world, at, &format!("GET {}", KEYS[1])).await;
                assert_eq!(one, other, "seed {seed}: both or neither, at {at}");
                let counted = number(&send(&world, at, &format!("GET {}", KEYS[2])).await);
                assert!((done..=begun).contains(&counted), "seed {seed}: {counted} counted, {done} of {begun} done");
            }
            world.end();
            done
        });
    }
    assert!(acknowledged > 0, "nothing was ever done");
}

#[test]
fn transactions_are_whole_or_nothing_whatever_becomes_of_their_coordinators() {
    stay_whole(Quorum::default(), 0..12);
}

#[test]
fn transactions_under_strict_quorums_are_whole_or_nothing_as_well() {
    stay_whole(Quorum { strict: Some(true), ..Quorum::default() }, 100..112);
}
