//! Transactions whose coordinator is cut off, killed or deposed in the middle: whole or not at all, and counted once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redynamo::base::id::{Db, Partition};
use redynamo::base::rng::Rng;
use redynamo::commands::session::Quorum;
use redynamo::config::StrictDatabases;
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

/// Every client does one in each round, on the keys of that round: some find them new, some as others left them.
const ROUNDS: usize = 30;

/// Sends one transaction that sets two keys to `text` and counts in a third; what it came to, if anything is known.
async fn transact(world: &Arc<World>, at: usize, quorum: Quorum, round: usize, text: &str) -> Option<Reply> {
    let (node, env) = world.node(at)?;
    let lines = [format!("SET a{round} {text}"), format!("INCR n{round}"), format!("SET b{round} {text}")];
    let commands = lines.map(|line| line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect());
    let task = transaction::task(Db(0), quorum, &[], commands.iter());
    let (tell, told) = oneshot::channel();
    env.spawn(Box::pin(async move {
        let _ = tell.send(node.coordinator.run(task).await.reply);
    }));
    timeout(Duration::from_secs(20), told).await.ok()?.ok()
}

/// Which rounds were acknowledged.
async fn client(world: Arc<World>, at: usize, quorum: Quorum) -> Vec<bool> {
    let mut done = Vec::new();
    for round in 0..ROUNDS {
        let reply = transact(&world, at, quorum, round, &format!("{at}")).await;
        done.push(matches!(reply, Some(Reply::Array(_))));
        sleep(Duration::from_millis(world.below(120))).await;
    }
    done
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

async fn ask_of(world: &World, key: &str, round: usize) -> Reply {
    send(world, round % 3, &format!("GET {key}{round}")).await
}

fn number(reply: &Reply) -> i64 {
    match reply {
        Reply::Bulk(text) => String::from_utf8_lossy(text).parse().unwrap(),
        Reply::Nil => 0,
        other => panic!("{other:?}"),
    }
}

fn stay_whole(quorum: Quorum, databases: StrictDatabases, seeds: std::ops::Range<u64>) {
    let mut acknowledged = 0;
    for seed in seeds {
        acknowledged += simulate(async {
            let mut config = config(3, 3, 1);
            config.options.strict = databases.clone();
            let world = started(config, seed).await;
            let clients = (0..3).map(|at| tokio::spawn(client(world.clone(), at, quorum))).collect::<Vec<_>>();
            trouble(&world, seed).await;
            let mut done = [0; ROUNDS];
            for client in clients {
                client.await.unwrap().into_iter().zip(&mut done).for_each(|(own, all)| *all += i64::from(own));
            }
            assert!(world.settled(Duration::from_secs(60)).await);
            sleep(Duration::from_secs(10)).await;
            assert_eq!(check::converged(&world), Ok(()), "seed {seed}");
            for (round, done) in done.iter().enumerate() {
                let (one, other) = (ask_of(&world, "a", round).await, ask_of(&world, "b", round).await);
                assert_eq!(one, other, "seed {seed}: both or neither of round {round}");
                let counted = number(&ask_of(&world, "n", round).await);
                assert!((*done..=3).contains(&counted), "seed {seed}, round {round}: {counted} counted, {done} done");
            }
            world.end();
            done.iter().sum::<i64>()
        });
    }
    assert!(acknowledged > 0, "nothing was ever done");
}

#[test]
fn transactions_are_whole_or_nothing_whatever_becomes_of_their_coordinators() {
    stay_whole(Quorum::default(), StrictDatabases::These(Vec::new()), 0..10);
}

#[test]
fn transactions_under_strict_quorums_are_whole_or_nothing_as_well() {
    stay_whole(Quorum { strict: Some(true), ..Quorum::default() }, StrictDatabases::These(Vec::new()), 100..110);
}

#[test]
fn transactions_of_strict_databases_are_whole_or_nothing_and_count_once() {
    stay_whole(Quorum::default(), StrictDatabases::All, 200..210);
}

/// Two owners that do not reach each other, and both reach the third, depose each other again and again.
fn stay_whole_between_two(quorum: Quorum, databases: StrictDatabases, seeds: std::ops::Range<u64>) {
    let (mut acknowledged, mut deposals) = (0, 0);
    for seed in seeds {
        let before = redynamo::metrics::DEPOSALS.get() + redynamo::metrics::CONFLICTS.get();
        acknowledged += simulate(async {
            let mut config = config(3, 3, 1);
            config.options.strict = databases.clone();
            let world = started(config, seed).await;
            let owners = world.owners(Partition(0));
            world.set_cut(owners[0], owners[1], Some(Cut::Refuse));
            world.set_cut(owners[1], owners[0], Some(Cut::Refuse));
            sleep(Duration::from_secs(4)).await;
            let mut done = [0; ROUNDS];
            for (round, done) in done.iter_mut().enumerate() {
                let begin = |at: usize| transact(&world, owners[at], quorum, round, if at == 0 { "0" } else { "1" });
                let (one, other) = tokio::join!(begin(0), begin(1));
                let is_done = |reply: Option<Reply>| matches!(reply, Some(Reply::Array(_)));
                *done = i64::from(is_done(one)) + i64::from(is_done(other));
            }
            world.calm();
            assert!(world.settled(Duration::from_secs(60)).await);
            sleep(Duration::from_secs(10)).await;
            assert_eq!(check::converged(&world), Ok(()), "seed {seed}");
            for (round, done) in done.iter().enumerate() {
                let (one, other) = (ask_of(&world, "a", round).await, ask_of(&world, "b", round).await);
                assert_eq!(one, other, "seed {seed}: both or neither of round {round}");
                let counted = number(&ask_of(&world, "n", round).await);
                assert!((*done..=2).contains(&counted), "seed {seed}, round {round}: {counted} counted, {done} done");
            }
            world.end();
            done.iter().sum::<i64>()
        });
        deposals += redynamo::metrics::DEPOSALS.get() + redynamo::metrics::CONFLICTS.get() - before;
    }
    assert!(acknowledged > 0 && deposals > 0, "{acknowledged} done, {deposals} doubts");
}

#[test]
fn two_that_both_coordinate_leave_transactions_whole_and_count_them_once() {
    stay_whole_between_two(Quorum::default(), StrictDatabases::These(Vec::new()), 300..305);
}

#[test]
fn two_that_both_coordinate_a_strict_database_leave_transactions_whole_and_count_them_once() {
    stay_whole_between_two(Quorum::default(), StrictDatabases::All, 400..405);
}
