//! Who is there: opinions of whole clusters on networks that lose, cut and stop, and decisions about members.

use std::sync::Arc;
use std::time::Duration;

use redynamo::base::id::NodeId;
use redynamo::cluster::{Member, MemberState, Verdict};
use redynamo::node::{Entry, Node};
use redynamo::sim::World;
use redynamo::sim::config::Weather;
use redynamo::sim::net::Cut;
use redynamo::sim::world::Crash;
use tokio::time::{Instant, sleep};

use super::scenarios::{config, keys_of, send, started};
use super::simulate;

fn node(world: &World, at: usize) -> Arc<Node> {
    world.node(at).unwrap().0
}

fn verdict(world: &World, by: usize, about: usize) -> Verdict {
    let opinions = node(world, by).opinions();
    opinions.into_iter().find(|(id, _)| *id == world.id(about)).unwrap().1.verdict
}

fn lives(world: &World, by: usize, about: usize) -> bool {
    node(world, by).coordinator.view.load().is_live(world.id(about))
}

/// How long it takes until `by` takes `about` for away.
async fn noticed(world: &World, by: usize, about: usize) -> Duration {
    let began = Instant::now();
    while lives(world, by, about) {
        sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

#[test]
fn nobody_is_taken_for_dead_on_a_network_that_loses_every_fifth_message() {
    simulate(async {
        let world = started(config(5, 3, 4), 1).await;
        world.net.set_weather(Weather { loss: 0.2, delay_ms: 20, reordering: 0.1, ..Weather::default() });
        let end = Instant::now() + Duration::from_secs(200);
        while Instant::now() < end {
            sleep(Duration::from_millis(100)).await;
            let pairs = (0..5).flat_map(|by| (0..5).map(move |about| (by, about)));
            let away = pairs.filter(|(by, about)| !lives(&world, *by, *about)).collect::<Vec<_>>();
            assert!(away.is_empty(), "{away:?}");
        }
        world.end();
    });
}

#[test]
fn whoever_dies_stops_or_is_cut_off_is_noticed_within_three_seconds_on_a_network_that_loses() {
    simulate(async {
        for seed in 0..10 {
            let world = started(config(3, 3, 1), seed).await;
            world.net.set_weather(Weather { loss: 0.2, delay_ms: 20, ..Weather::default() });
            sleep(Duration::from_secs(20)).await;
            world.set_paused(1, true);
            let paused = noticed(&world, 0, 1).await;
            world.set_cut(0, 2, Some(Cut::Swallow));
            let cut = noticed(&world, 0, 2).await;
            world.calm();
            while !lives(&world, 0, 2) || !lives(&world, 0, 1) {
                sleep(Duration::from_millis(10)).await;
            }
            world.crash(1, Crash::Kill);
            let dead = noticed(&world, 0, 1).await;
            let most = Duration::from_secs(3);
            assert!(paused <= most && cut <= most && dead <= most / 4, "seed {seed}: {paused:?} {cut:?} {dead:?}");
            world.end();
        }
    });
}

#[test]
fn a_link_that_breaks_under_calls_makes_nobody_dead() {
    simulate(async {
        let world = started(config(3, 3, 1), 3).await;
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            drop(tokio::spawn({
                let world = world.clone();
                async move { send(&world, 0, "SET k v").await }
            }));
            sleep(Duration::from_millis(7)).await;
            (1..3).for_each(|peer| world.net.break_link(world.id(0), world.id(peer)));
            assert!((0..3).all(|about| lives(&world, 0, about)));
        }
        world.end();
    });
}

#[test]
fn a_cut_is_told_from_a_death() {
    simulate(async {
        let world = started(config(5, 3, 4), 1).await;
        [(0, 1), (1, 0)].iter().for_each(|(from, to)| world.set_cut(*from, *to, Some(Cut::Swallow)));
        world.crash(2, Crash::Kill);
        sleep(Duration::from_secs(10)).await;
        assert_eq!((verdict(&world, 0, 1), verdict(&world, 1, 0)), (Verdict::Cut, Verdict::Cut));
        assert_eq!((verdict(&world, 0, 2), verdict(&world, 3, 1)), (Verdict::Dead, Verdict::Live));
        [3, 4].iter().for_each(|at| world.crash(*at, Crash::Kill));
        sleep(Duration::from_secs(20)).await;
        assert_eq!(verdict(&world, 0, 2), Verdict::Away, "nobody is left who could be asked");
        assert!(node(&world, 0).is_lonely());
        world.calm();
        sleep(Duration::from_secs(5)).await;
        assert!((1..5).all(|about| verdict(&world, 0, about) == Verdict::Live) && !node(&world, 0).is_lonely());
        world.end();
    });
}

#[test]
fn whoever_was_removed_is_told_and_never_admitted_again() {
    simulate(async {
        let world = started(config(4, 3, 4), 1).await;
        let gone = world.id(3);
        assert!(node(&world, 0).remove(gone).unwrap_err().contains("is live"));
        world.crash(3, Crash::Kill);
        noticed(&world, 0, 3).await;
        node(&world, 0).remove(gone).unwrap();
        assert!(node(&world, 0).remove(gone).unwrap_err().contains("no member"));
        sleep(Duration::from_secs(2)).await;
        let views = (0..3).map(|at| node(&world, at).coordinator.view.load_full());
        assert!(views.into_iter().all(|view| !view.nodes.contains_key(&gone) && view.nodes.len() == 3));
        // It starts again on its own disk, and has heard of nothing.
        let mut member = node(&world, 0).membership().members[&gone].clone();
        (member.incarnation, member.state, member.decision) = (1_000, MemberState::Up, 0);
        for joining in [false, true] {
            let admission = node(&world, 1).admit(member.clone(), joining).await;
            assert!(matches!(admission, Ok(Entry::Dismissed(why)) if why.contains("was removed")));
        }
        assert!(!node(&world, 1).coordinator.view.load().nodes.contains_key(&gone));
        world.start(3);
        assert!(node(&world, 3).dismissed().await.contains("was removed from its cluster"));
        world.end();
    });
}

#[test]
fn a_name_is_given_again_only_to_whom_comes_for_a_member_that_nobody_reaches() {
    simulate(async {
        let world = started(config(3, 3, 4), 1).await;
        sleep(Duration::from_secs(5)).await;
        assert!(!send(&world, 0, "SET k v").await.is_error());
        let newcomer = |name: &str| Member { id: NodeId(9), name: name.into(), ..node(&world, 0).member().unwrap() };
        let stranger = node(&world, 0).admit(newcomer("n9"), true).await.unwrap_err();
        assert!(stranger.contains("holds data"), "{stranger}");
        let taken = node(&world, 0).admit(newcomer("n1"), true).await.unwrap_err();
        assert!(taken.contains("is taken by node"), "{taken}");
        [(0, 1), (1, 0)].iter().for_each(|(from, to)| world.set_cut(*from, *to, Some(Cut::Refuse)));
        sleep(Duration::from_secs(5)).await;
        assert!(!lives(&world, 0, 1) && lives(&world, 2, 1));
        assert!(node(&world, 0).admit(newcomer("n1"), true).await.is_err(), "others reach it");
        world.crash(1, Crash::Kill);
        sleep(Duration::from_secs(5)).await;
        assert!(node(&world, 0).admit(newcomer("n1"), false).await.is_err(), "who is a member has no need of a place");
        assert_eq!(node(&world, 0).admit(newcomer("n1"), true).await, Ok(Entry::Known(1)));
        assert!(!node(&world, 0).membership().members.contains_key(&NodeId(9)), "it will be known by the member's id");
        assert!(keys_of(&world, 0).next().is_some());
        world.end();
    });
}

#[test]
fn a_node_outdoes_its_own_past_and_gives_way_to_another_in_its_place() {
    simulate(async {
        let world = started(config(2, 2, 4), 1).await;
        let (own, other) = (node(&world, 1), node(&world, 0));
        let mut past = own.membership();
        past.members.get_mut(&own.me).unwrap().incarnation = 500;
        own.learn(&past);
        assert_eq!(own.member().unwrap().incarnation, 501);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(other.membership(), own.membership());
        let mut twin = own.membership();
        let member = twin.members.get_mut(&own.me).unwrap();
        (member.incarnation, member.peer_port) = (600, 77);
        other.learn(&twin);
        assert!(own.dismissed().await.contains("another node took the place of this one"));
        world.end();
    });
}
