//! What an operator is told: members, hints, syncs, terms.
//!
//! Nodes are called by their names, times are whole milliseconds or microseconds, as a field's name says, and what is not
//! known is nil; a field is never left out, so that every answer of a kind has the same shape.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Server;
use crate::base::id::{NodeId, Partition, Term};
use crate::cluster::view::Standing;
use crate::cluster::{ClusterView, Opinion};
use crate::commands::host::Host;
use crate::commands::operate::{Asked, Scope};
use crate::metrics::REPAIRED_ROWS;
use crate::node::Unverified;
use crate::replica::HintStats;
use crate::replication::admission::Slice;
use crate::resp::Reply;

impl Server {
    /// Answers an operator.
    ///
    /// # Errors
    /// The whole text for the client.
    pub(super) fn answer_operator(&self, asked: &Asked) -> Result<Reply, String> {
        match asked {
            Asked::Nodes => Ok(self.nodes()),
            Asked::Hints => Ok(self.hints()),
            Asked::Sync => Ok(self.sync_status()),
            Asked::Terms(which) => self.terms(*which),
            Asked::SyncOf(partition) => self.sync_of(*partition),
            Asked::SyncNow(scope) => self.begin_sync(scope),
        }
    }

    fn nodes(&self) -> Reply {
        let view = self.node().coordinator.view.load_full();
        let opinions = self.node().opinions();
        let opinion = |id| opinions.iter().find(|(of, _)| *of == id).map(|(_, opinion)| opinion);
        Reply::array(view.nodes.values().map(|standing| {
            let id = standing.member.id;
            let described = described(&view, standing);
            let believed = believed(&view, standing, opinion(id));
            let own = self.known_of_itself(id == view.me);
            Reply::map(described.into_iter().chain(believed).chain(self.round_trip(id)).chain(own))
        }))
    }

    /// What only this node knows of itself; of others nil, or what follows from what they say.
    fn known_of_itself(&self, myself: bool) -> [(&'static str, Reply); 4] {
        let bool_if = |known: bool, yes: bool| if known { Reply::Bool(yes) } else { Reply::Nil };
        let node = self.node();
        let (replica, ring) = (node.replica(), node.coordinator.view.load().ring.clone());
        let hash = format!("{:032x}", ring.layout().hash());
        [
            ("amnesiac", bool_if(myself, replica.is_amnesiac())),
            ("sick", bool_if(myself, replica.check_healthy().is_err())),
            ("alone", bool_if(myself, self.node().is_lonely())),
            ("layout-hash", if myself { Reply::bulk(hash) } else { Reply::Nil }),
        ]
    }

    fn round_trip(&self, id: NodeId) -> [(&'static str, Reply); 3] {
        let pace = self.node().coordinator.paces.of(id);
        let same = !self.node().disputed().contains(&id);
        [("mean-us", micros(pace.mean())), ("p99-us", micros(pace.p99())), ("same-layout", Reply::Bool(same))]
    }

    /// What is kept for whom.
    fn hints(&self) -> Reply {
        let view = self.node().coordinator.view.load_full();
        let stats = self.node().replica().hint_stats();
        let sum = |of: fn(&HintStats) -> u64| int(stats.values().map(of).sum());
        let now = self.now_ms();
        let owners = stats.iter().map(|(owner, stats)| {
            Reply::map([
                ("node", node_or_nil(&view, Some(*owner))),
                ("live", Reply::Bool(view.is_live(*owner))),
                ("count", int(stats.count)),
                ("bytes", int(stats.bytes)),
                ("oldest-ms", age(stats.oldest_ms, now)),
                ("skipped", int(stats.skipped)),
            ])
        });
        let oldest = stats.values().map(|stats| stats.oldest_ms).filter(|ms| *ms > 0).min().unwrap_or(0);
        Reply::map([
            ("count", sum(|stats| stats.count)),
            ("bytes", sum(|stats| stats.bytes)),
            ("oldest-ms", age(oldest, now)),
            ("skipped", sum(|stats| stats.skipped)),
            ("owners", Reply::array(owners)),
        ])
    }

    fn sync_status(&self) -> Reply {
        let view = self.node().coordinator.view.load_full();
        let (status, pairs) = (self.node().sync_status(), self.node().sync_pairs());
        let peers: BTreeSet<NodeId> = pairs.iter().map(|pair| pair.peer).collect();
        let running = status.running.map(|(peer, partitions)| {
            Reply::map([("node", node_or_nil(&view, Some(peer))), ("partitions", int(partitions as u64))])
        });
        let repaired = REPAIRED_ROWS.all().map(|(cause, rows)| (cause, int(rows)));
        Reply::map([
            ("period-ms", millis(status.period)),
            ("pairs", int(status.pairs as u64)),
            ("overdue", int(status.overdue as u64)),
            ("wanted", int(status.wanted as u64)),
            ("oldest", pair_or_nil(&view, status.oldest)),
            ("oldest-live", pair_or_nil(&view, status.oldest_live)),
            ("running", running.unwrap_or(Reply::Nil)),
            ("nodes", Reply::array(peers.into_iter().map(|peer| verified_with(&view, peer, &pairs)))),
            ("repaired", Reply::map(repaired)),
            ("background", self.background_reply()),
        ])
    }

    /// When a partition of this node was compared with each of its other owners.
    fn sync_of(&self, partition: Partition) -> Result<Reply, String> {
        let view = self.node().coordinator.view.load_full();
        if !view.owns(partition) {
            return Err(format!("ERR this node owns no partition {}", partition.0));
        }
        let pairs = self.node().sync_pairs().into_iter().filter(|pair| pair.partition == partition);
        Ok(Reply::array(pairs.map(|pair| pair_or_nil(&view, Some(pair)))))
    }

    /// Answers how many pairs of a partition and another owner are to be compared now.
    fn begin_sync(&self, scope: &Scope) -> Result<Reply, String> {
        let view = self.node().coordinator.view.load_full();
        let pairs = match scope {
            Scope::All => self.node().sync_now(None, None),
            Scope::Partition(partition) if view.owns(*partition) => self.node().sync_now(Some(*partition), None),
            Scope::Partition(partition) => return Err(format!("ERR this node owns no partition {}", partition.0)),
            Scope::Node(called) => {
                let is =
                    |standing: &&Standing| standing.member.name == *called || standing.member.id.to_string() == *called;
                let found = view.nodes.values().find(is).map(|standing| standing.member.id);
                self.node().sync_now(None, Some(found.ok_or_else(|| format!("ERR there is no node {called}"))?))
            }
        };
        Ok(int(pairs as u64))
    }

    /// What background work may take, and what for.
    fn background_reply(&self) -> Reply {
        let admission = &self.node().coordinator.admission;
        let Slice { bytes_per_s, reason, foreground, calm, limit } = admission.slice();
        Reply::map([
            ("bytes-per-second", int(bytes_per_s)),
            ("reason", Reply::bulk_static(reason.name())),
            ("foreground-p99-us", micros(foreground)),
            ("calm-p99-us", micros(calm)),
            ("limit-us", micros(limit)),
            ("waited-ms", int(admission.throttled().as_millis() as u64)),
        ])
    }

    fn terms(&self, which: Option<Partition>) -> Result<Reply, String> {
        let view = self.node().coordinator.view.load_full();
        let partitions = view.ring.partitions();
        if let Some(unknown) = which.filter(|at| at.0 >= partitions.count()) {
            return Err(format!("ERR there is no partition {}: there are {}", unknown.0, partitions.count()));
        }
        let wanted = partitions.iter().filter(|at| which.map_or(view.owns(*at), |which| which == *at));
        Ok(Reply::array(wanted.map(|at| self.term_reply(&view, at))))
    }

    fn term_reply(&self, view: &ClusterView, partition: Partition) -> Reply {
        let term = Some(self.node().replica().term(partition)).filter(|term| *term != Term::NONE);
        let owners = view.ring.owners(partition).iter().map(|owner| node_or_nil(view, Some(*owner)));
        Reply::map([
            ("partition", Reply::Int(partition.0.into())),
            ("owners", Reply::array(owners)),
            ("coordinator", node_or_nil(view, view.coordinator(partition))),
            ("settled", Reply::Bool(self.node().coordinator.is_settled(partition))),
            ("term", int(term.map_or(0, |term| term.number))),
            ("claimed-by", node_or_nil(view, term.map(|term| term.node))),
        ])
    }
}

/// A member as it describes itself, and what was decided about it.
fn described(view: &ClusterView, standing: &Standing) -> [(&'static str, Reply); 11] {
    let (member, id) = (&standing.member, standing.member.id);
    let coordinated = view.ring.partitions().iter().filter(|at| view.coordinator(*at) == Some(id)).count();
    [
        ("id", Reply::bulk(id.to_string())),
        ("name", Reply::bulk(member.name.clone())),
        ("address", Reply::bulk(member.client_addr())),
        ("peer-address", Reply::bulk(member.peer_addr())),
        ("zone", Reply::bulk(member.zone.clone())),
        ("weight", int(member.weight.into())),
        ("state", Reply::bulk_static(member.state.word())),
        ("incarnation", int(member.incarnation)),
        ("features", int(member.features)),
        ("owned", int(view.ring.layout().share(id).owned)),
        ("coordinated", int(coordinated as u64)),
    ]
}

/// What is believed of a member, and why. There is no opinion on oneself.
fn believed(view: &ClusterView, standing: &Standing, opinion: Option<&Opinion>) -> [(&'static str, Reply); 9] {
    let names = |nodes: &[NodeId]| Reply::array(nodes.iter().map(|id| node_or_nil(view, Some(*id))));
    let silence = opinion.and_then(|opinion| opinion.silence);
    [
        ("myself", Reply::Bool(standing.member.id == view.me)),
        ("live", Reply::Bool(standing.live)),
        ("ready", Reply::Bool(standing.health.ready)),
        ("counted", Reply::Bool(standing.health.counted)),
        ("opinion", opinion.map_or(Reply::Nil, |opinion| Reply::bulk_static(opinion.verdict.word()))),
        ("phi", Reply::Double(opinion.map_or(0.0, |opinion| (opinion.phi * 100.0).round() / 100.0))),
        ("silent-ms", silence.map_or(Reply::Nil, millis)),
        ("reached-by", names(opinion.map_or(&[], |opinion| &opinion.reached_by))),
        ("missed-by", names(opinion.map_or(&[], |opinion| &opinion.missed_by))),
    ]
}

/// How a node is called in answers: its name, or its id where that is not known.
fn node_or_nil(view: &ClusterView, node: Option<NodeId>) -> Reply {
    node.map_or(Reply::Nil, |id| {
        let name = view.nodes.get(&id).map(|standing| standing.member.name.clone());
        Reply::bulk(name.unwrap_or_else(|| id.to_string()))
    })
}

/// A pair of a partition and another owner, and how long ago it was compared: since this node started, if never.
fn pair_or_nil(view: &ClusterView, pair: Option<Unverified>) -> Reply {
    pair.map_or(Reply::Nil, |Unverified { partition, peer, age, once }| {
        Reply::map([
            ("partition", Reply::Int(partition.0.into())),
            ("node", node_or_nil(view, Some(peer))),
            ("live", Reply::Bool(view.is_live(peer))),
            ("age-ms", millis(age)),
            ("verified", Reply::Bool(once)),
        ])
    })
}

/// What was compared with one other node.
fn verified_with(view: &ClusterView, peer: NodeId, pairs: &[Unverified]) -> Reply {
    let shared = || pairs.iter().filter(|pair| pair.peer == peer);
    let oldest = shared().map(|pair| pair.age).max().unwrap_or_default();
    Reply::map([
        ("node", node_or_nil(view, Some(peer))),
        ("live", Reply::Bool(view.is_live(peer))),
        ("partitions", int(shared().count() as u64)),
        ("verified", int(shared().filter(|pair| pair.once).count() as u64)),
        ("oldest-ms", millis(oldest)),
    ])
}

fn int(value: u64) -> Reply {
    Reply::Int(value.try_into().unwrap_or(i64::MAX))
}

fn micros(time: Option<Duration>) -> Reply {
    time.map_or(Reply::Nil, |time| int(time.as_micros() as u64))
}

fn millis(time: Duration) -> Reply {
    int(time.as_millis() as u64)
}

/// Milliseconds since a moment; nil since none.
fn age(since_ms: u64, now_ms: u64) -> Reply {
    if since_ms == 0 { Reply::Nil } else { int(now_ms.saturating_sub(since_ms)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Reply::{Bool, Int};
    use crate::server::testing::{run, server, server_among};

    /// A field of a map.
    fn field(map: &Reply, name: &str) -> Reply {
        let Reply::Map(pairs) = map else { panic!("{map:?} is no map") };
        let found = pairs.iter().find(|(key, _)| *key == Reply::bulk(name.to_owned()));
        found.unwrap_or_else(|| panic!("no {name} in {map:?}")).1.clone()
    }

    fn array(reply: Reply) -> Vec<Reply> {
        let Reply::Array(items) = reply else { panic!("{reply:?} is no array") };
        items
    }

    /// Names of the fields of a map, in order.
    fn shape(map: &Reply) -> Vec<Reply> {
        let Reply::Map(pairs) = map else { panic!("{map:?} is no map") };
        pairs.iter().map(|(name, _)| name.clone()).collect()
    }

    #[test]
    fn nodes_are_listed_with_what_this_node_knows_of_them_and_all_alike() {
        let nodes = array(run(&server_among(2, "").0, "DYNAMO NODES"));
        assert_eq!(nodes.len(), 2);
        let (own, other) = (&nodes[0], &nodes[1]);
        assert_eq!(shape(own), shape(other));
        assert_eq!((field(own, "myself"), field(own, "live"), field(own, "owned")), (Bool(true), Bool(true), Int(16)));
        assert_eq!(
            (field(other, "myself"), field(other, "live"), field(other, "coordinated")),
            (Bool(false), Bool(false), Int(0))
        );
        assert_eq!(field(other, "peer-address"), Reply::bulk_static("127.0.0.1:16379"));
        assert_eq!(field(own, "coordinated"), Int(16), "nobody else is there to do it");
        assert_eq!((field(own, "amnesiac"), field(other, "amnesiac")), (Bool(false), Reply::Nil));
        assert_eq!((field(own, "opinion"), field(other, "opinion")), (Reply::Nil, Reply::bulk_static("away")));
        assert_eq!((field(own, "phi"), field(other, "phi")), (Reply::Double(0.0), Reply::Double(99.0)));
        assert_eq!((field(own, "state"), field(other, "same-layout")), (Reply::bulk_static("up"), Bool(true)));
    }

    #[test]
    fn hints_are_told_by_owner_and_in_sum() {
        let server = server_among(2, "").0;
        let none = run(&server, "DYNAMO.HINTS");
        assert_eq!((field(&none, "count"), field(&none, "oldest-ms")), (Int(0), Reply::Nil));
        assert_eq!(field(&none, "owners"), Reply::Array(vec![]));
        let region = server.node().coordinator.region_of(crate::base::id::Db(0), b"k");
        let kept = crate::model::Delta::new(region);
        for at in [1_000, 2_000] {
            server.node().replica().keep_own(NodeId(2), &kept, at).unwrap();
        }
        let some = run(&server, "DYNAMO HINTS");
        assert_eq!(shape(&some), shape(&none));
        assert_eq!(field(&some, "count"), Int(2));
        let owners = array(field(&some, "owners"));
        assert_eq!((owners.len(), field(&owners[0], "node")), (1, Reply::bulk_static("node-2")));
        let Int(age) = field(&owners[0], "oldest-ms") else { panic!("an age") };
        assert!(age > 1_600_000_000_000, "{age} milliseconds since the first second of 1970");
    }

    #[test]
    fn terms_are_told_of_one_partition_or_of_all_that_are_owned() {
        let server = server();
        assert_eq!(array(run(&server, "DYNAMO TERMS")).len(), 16);
        let node = server.node().me;
        server.node().replica().grant(&[(Partition(3), Term { number: 7, node })]).unwrap();
        let of_three = array(run(&server, "DYNAMO.TERMS 3"));
        let [term] = &of_three[..] else { panic!("one") };
        assert_eq!((field(term, "partition"), field(term, "term")), (Int(3), Int(7)));
        assert_eq!(field(term, "claimed-by"), Reply::bulk_static("node-1"));
        let of_four = array(run(&server, "DYNAMO.TERMS 4"));
        assert_eq!((field(&of_four[0], "term"), field(&of_four[0], "claimed-by")), (Int(0), Reply::Nil));
        assert_eq!(shape(term), shape(&of_four[0]));
        assert!(run(&server, "DYNAMO TERMS 16").is_error());
    }

    #[test]
    fn syncs_are_told_by_node_and_by_partition_and_begin_when_asked_for() {
        let node = server_among(2, "").0;
        let status = run(&node, "DYNAMO SYNC");
        let nodes = array(field(&status, "nodes"));
        assert_eq!((nodes.len(), field(&nodes[0], "partitions")), (1, Int(16)));
        assert_eq!((field(&nodes[0], "node"), field(&nodes[0], "verified")), (Reply::bulk_static("node-2"), Int(0)));
        assert_eq!((field(&status, "pairs"), field(&status, "wanted")), (Int(16), Int(0)));
        assert_eq!((field(&status, "running"), field(&status, "oldest-live")), (Reply::Nil, Reply::Nil));
        assert_eq!(field(&field(&status, "oldest"), "live"), Bool(false));
        let [one] = &array(run(&node, "DYNAMO.SYNC PARTITION 3"))[..] else { panic!("one pair") };
        assert_eq!((field(one, "partition"), field(one, "verified")), (Int(3), Bool(false)));
        assert_eq!(run(&node, "DYNAMO SYNC NOW 3"), Int(1));
        assert_eq!(run(&node, "DYNAMO SYNC NOW node-2"), Int(16));
        assert_eq!(run(&node, "DYNAMO SYNC NOW 0000000000000002"), Int(16));
        assert_eq!(field(&run(&node, "DYNAMO SYNC"), "wanted"), Int(16));
        for wrong in ["DYNAMO SYNC NOW nobody", "DYNAMO SYNC NOW 16", "DYNAMO SYNC PARTITION 16"] {
            assert!(run(&node, wrong).is_error(), "{wrong}");
        }
        assert_eq!(shape(&status), shape(&run(&server(), "DYNAMO.SYNC")), "alone, too");
    }

    #[test]
    fn the_status_of_syncs_says_what_background_work_may_take_and_why() {
        let status = run(&server(), "DYNAMO SYNC");
        let background = field(&status, "background");
        assert_eq!(field(&background, "reason"), Reply::bulk_static("idle"));
        assert_eq!(field(&background, "calm-p99-us"), Reply::Nil);
        assert_eq!(shape(&field(&status, "repaired")), ["read", "sync", "hint", "gap"].map(Reply::bulk_static));
    }
}
