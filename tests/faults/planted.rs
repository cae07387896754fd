//! Runs that must fail: what a cluster was told to lose, and owners that differ, are found by the same checks.

use std::thread::sleep;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redynamo::sim::history::{Deed, History, Op, Outcome};

use super::arena::within;
use super::check::check_all;
use super::cluster::{Cluster, HEALED_WITHIN};
use super::net::{Cut, Layer, between};
use super::place::coordinator;
use super::wire::Value;

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_write_on_one_node_that_is_emptied_is_found_lost_and_owners_that_differ_are_found() {
    within("planted::a_write_on_one_node_that_is_emptied_is_found_lost_and_owners_that_differ_are_found", |dir| {
        let mut cluster = Cluster::of(3, 0, dir, &[]);
        let mut history = History::default();
        // Where a node begins to coordinate it asks others first.
        let mut wire = cluster.nodes[0].wire(PATIENCE).unwrap();
        let its_own = |id: &u64| coordinator(&wire.call(&["DYNAMO.WHERE", &format!("s{id}")])).unwrap() == "node-1";
        let keys: Vec<Bytes> = (0..).filter(its_own).take(20).map(|id| Bytes::from(format!("s{id}"))).collect();
        let cut = cluster.net.cut(Layer { ways: between(&[vec![0], vec![1, 2]]), cut: Cut::Swallow });
        // Until it has noticed that nobody else is there: what it still sends before waits in the kernel, outlives the
        // process, and arrives once the ways are mended.
        sleep(Duration::from_secs(4));
        for key in &keys {
            let words = ["DYNAMO.WITH", "R", "1", "W", "1", "SET", std::str::from_utf8(key).unwrap(), "alone"];
            let cut_off = Instant::now();
            while wire.call(&words) != Value::from("OK") {
                assert!(cut_off.elapsed() < HEALED_WITHIN, "{}", cluster.nodes[0].log());
                sleep(Duration::from_millis(100));
            }
            let began = history.moment();
            let (deed, ended) = (Deed::Set(Bytes::from_static(b"alone")), history.moment());
            history.note(key, Op { client: 0, began, ended, deed, outcome: Outcome::Done, wrote: None });
        }
        let differing = cluster.differing(1, &keys);
        assert_eq!(differing.len(), keys.len(), "owners differ while they are cut off");
        cluster.nodes[0].kill();
        cluster.nodes[0].wipe();
        cluster.net.mend(cut);
        let held = cluster.read(1, &keys).unwrap();
        let wrong = check_all(history.keys(), &held);
        assert_eq!(wrong.len(), keys.len(), "{wrong:?}");
    });
}
