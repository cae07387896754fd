//! Faults do what they are called: otherwise a run that finds nothing would mean nothing.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::arena::within;
use super::cluster::Cluster;
use super::nemesis::{PATTERNS, Pattern};
use super::net::{Cut, Layer, Net, PORT, ip};
use super::wire::{Value, Wire};

/// Long for a local network, and short for a test.
const PATIENCE: Duration = Duration::from_secs(2);

#[test]
fn partitions_cut_the_ways_that_they_name_and_no_others() {
    within("probes::partitions_cut_the_ways_that_they_name_and_no_others", |_| {
        let mut net = Net::new(5);
        let nodes = [2, 0, 4, 1, 3];
        for pattern in PATTERNS {
            let ways = pattern.ways(&nodes);
            let layer = net.cut(Layer { ways: ways.clone(), cut: Cut::Swallow });
            // An answer to a ping needs both ways.
            let cut: BTreeSet<_> = ways.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]).collect();
            let pings = pings(&net);
            let wrong: Vec<_> = pings.iter().filter(|(way, answered)| *answered == cut.contains(way)).collect();
            assert!(wrong.is_empty(), "{pattern:?}: {wrong:?}, cut {ways:?}");
            net.mend(layer);
        }
        assert!(pings(&net).iter().all(|(_, answered)| *answered), "all is mended");
    });
}

#[test]
fn a_partition_has_as_many_ways_as_its_picture() {
    let ways = |pattern: Pattern| pattern.ways(&[0, 1, 2, 3, 4]).len();
    let counts = PATTERNS.map(ways);
    assert_eq!(counts, [12, 8, 8, 6, 10], "{PATTERNS:?}");
}

/// Pings between all nodes, at the same time.
fn pings(net: &Net) -> Vec<((usize, usize), bool)> {
    let ways = (0..5).flat_map(|a| (0..5).map(move |b| (a, b))).filter(|(a, b)| a != b);
    let ping = |(from, to): (usize, usize)| {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", net.namespace(from).display()));
        let connect = format!("exec 3<>/dev/tcp/{}/{PORT}", ip(to));
        command.args(["timeout", "0.7", "bash", "-c", &connect]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        ((from, to), command.spawn().unwrap())
    };
    let running: Vec<_> = ways.map(ping).collect();
    // Nobody listens, so whoever is reached refuses at once, with code 1; who is not runs out of time, with code 124.
    running.into_iter().map(|(way, mut child)| (way, child.wait().unwrap().code() == Some(1))).collect()
}

#[test]
fn nodes_can_be_paused_emptied_filled_up_and_given_a_wrong_time() {
    within("probes::nodes_can_be_paused_emptied_filled_up_and_given_a_wrong_time", |dir| {
        let mut cluster = Cluster::of(3, 1, dir, &[]);
        has_its_own_time(&mut cluster);
        cluster.nodes[1].pause();
        let mut wire = cluster.nodes[1].wire(PATIENCE).unwrap();
        assert!(wire.try_call(&["PING"]).is_err(), "paused");
        cluster.nodes[1].go_on();
        assert!(wire.read().is_ok(), "went on");
        refuses_writes_while_its_disk_is_full(&cluster);
        cluster.nodes[2].kill();
        assert!(cluster.nodes[2].data().join("rows").exists());
        cluster.nodes[2].wipe();
        assert!(!cluster.nodes[2].data().exists());
    });
}

fn has_its_own_time(cluster: &mut Cluster) {
    if !cluster.nodes[1].has_clock() {
        println!("there is no libfaketime: clocks are right");
        return;
    }
    let time = |wire: &mut Wire| wire.say("TIME").items()[0].text().parse::<i64>().unwrap();
    let mut wires: Vec<Wire> = cluster.nodes.iter().map(|node| node.wire(PATIENCE).unwrap()).collect();
    cluster.nodes[1].set_clock(3_600_000);
    let ahead = time(&mut wires[1]) - time(&mut wires[0]);
    assert!((3_595..=3_605).contains(&ahead), "{ahead} s ahead");
    cluster.nodes[1].set_clock(-60_500);
    let ahead = time(&mut wires[1]) - time(&mut wires[0]);
    assert!((-65..=-55).contains(&ahead), "{ahead} s ahead");
    cluster.nodes[1].set_clock(0);
}

fn refuses_writes_while_its_disk_is_full(cluster: &Cluster) {
    let (node, big) = (&cluster.nodes[0], "x".repeat(1 << 20));
    let mut wire = node.wire(Duration::from_secs(10)).unwrap();
    assert!(node.is_ready());
    node.fill_disk();
    let began = Instant::now();
    // Its journal has some room of its own.
    for key in 0.. {
        let _ = wire.try_call(&["SET", &format!("big:{key}"), &big]);
        if !node.is_ready() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it took {key} MiB:\n{}", node.log());
        sleep(Duration::from_millis(5));
    }
    node.free_disk();
}

#[test]
fn a_node_that_is_emptied_or_has_an_older_disk_returns_to_its_place() {
    within("probes::a_node_that_is_emptied_or_has_an_older_disk_returns_to_its_place", |dir| {
        let mut cluster = Cluster::of(5, 0, dir, &[]);
        let keys: Vec<Bytes> = (0..1_000).map(|id| Bytes::from(format!("p{id}"))).collect();
        let mut wire = cluster.nodes[4].wire(PATIENCE).unwrap();
        let mut write = |keys: &[Bytes]| {
            keys.iter().for_each(|key| assert_eq!(wire.call(&[b"SET", key.as_ref(), b"kept"]), Value::from("OK")));
        };
        write(&keys[..500]);
        cluster.nodes[0].kill();
        cluster.nodes[0].take_snapshot();
        cluster.nodes[0].start();
        cluster.wait_until_whole().unwrap();
        write(&keys[500..]);
        for (node, rolled_back) in [(1, false), (0, true)] {
            cluster.wait_until_equal(keys.clone()).unwrap();
            cluster.nodes[node].kill();
            if rolled_back {
                cluster.nodes[node].roll_back()
            } else {
                cluster.nodes[node].wipe()
            }
            cluster.nodes[node].start();
            let (whole, equal) = (cluster.wait_until_whole().unwrap(), cluster.wait_until_equal(keys.clone()).unwrap());
            println!("rolled back: {rolled_back}; whole after {whole:?}, all owners equal after {equal:?} more");
        }
    });
}
