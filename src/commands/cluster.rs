//! `CLUSTER` and its kin. On the plain face: a Redis without cluster support, of any size, where only KEYSLOT, which needs
//! no cluster, answers. On the cluster face (`cluster-port`): one node for each slot, no replicas, the same from every
//! node. Members come and go by this store's own ways; who asks for Redis' is told them.

use std::fmt::Write;

use super::call::Call;
use super::errors::{Answer, CommandError};
use super::facts::{ClusterFacts, ClusterNode};
use super::help;
use super::host::Host;
use super::session::{Face, Session};
use super::spec::{ClusterCall, Flags, Group, Run, Spec};
use crate::base::num::parse_i64;
use crate::resp::Reply;
use crate::ring::slot::{SLOTS, Slot};

/// The table.
pub static TABLE: &[Spec] = &[
    accepted("ASKING", "").flags(Flags::FAST).categories(CONNECTION).doc(
        "Lets a cluster client follow a key that moves; on the cluster face, where any node takes any key anyway.",
        "3.0.0",
        "O(1)",
    ),
    Spec::new("CLUSTER", "", Group::Cluster, Run::Container)
        .arity(-2)
        .doc("A container for commands about Redis Cluster.", "3.0.0", "Depends on subcommand.")
        .children(SUBCOMMANDS),
    accepted("READONLY", "").flags(MODE).categories(CONNECTION).doc(
        "Lets a cluster client read from replicas; on the cluster face only.",
        "3.0.0",
        "O(1)",
    ),
    accepted("READWRITE", "").flags(MODE).categories(CONNECTION).doc(
        "Ends READONLY; on the cluster face only.",
        "3.0.0",
        "O(1)",
    ),
];

static SUBCOMMANDS: &[Spec] = &[
    sub("ADDSLOTS", "slot [slot ...]", manage).arity(-3).flags(CHANGES).doc(
        "Gives slots to the node; refused: this cluster does so by itself.",
        "3.0.0",
        "O(N) where N is the total number of hash slot arguments",
    ),
    sub("ADDSLOTSRANGE", "start-slot end-slot [start-slot end-slot ...]", manage).arity(-4).flags(CHANGES).doc(
        "Gives runs of slots to the node; refused: this cluster does so by itself.",
        "7.0.0",
        "O(N) where N is the total number of the slots between the start slot and end slot arguments.",
    ),
    sub("BUMPEPOCH", "", manage)
        .flags(CHANGES)
        .doc("Advances the epoch; refused: this cluster does so by itself.", "3.0.0", "O(1)")
        .tips(VARIES),
    sub("COUNT-FAILURE-REPORTS", "node-id", failure_reports)
        .arity(3)
        .flags(Flags::ADMIN)
        .doc(
            "Counts reports that a node is away; on the cluster face only.",
            "3.0.0",
            "O(N) where N is the number of failure reports",
        )
        .tips(VARIES),
    swept("COUNTKEYSINSLOT", "slot", count_keys).arity(3).doc(
        "Counts the keys of a slot; on the cluster face only.",
        "3.0.0",
        "O(1)",
    ),
    sub("DELSLOTS", "slot [slot ...]", manage).arity(-3).flags(CHANGES).doc(
        "Takes slots from the node; refused: this cluster does so by itself.",
        "3.0.0",
        "O(N) where N is the total number of hash slot arguments",
    ),
    sub("DELSLOTSRANGE", "start-slot end-slot [start-slot end-slot ...]", manage).arity(-4).flags(CHANGES).doc(
        "Takes runs of slots from the node; refused: this cluster does so by itself.",
        "7.0.0",
        "O(N) where N is the total number of the slots between the start slot and end slot arguments.",
    ),
    sub("FAILOVER", "[FORCE | TAKEOVER]", manage).arity(-2).flags(CHANGES).doc(
        "Makes a replica a master; refused: this cluster does so by itself.",
        "3.0.0",
        "O(1)",
    ),
    sub("FLUSHSLOTS", "", manage).flags(CHANGES).doc(
        "Takes all slots from the node; refused: this cluster does so by itself.",
        "3.0.0",
        "O(1)",
    ),
    sub("FORGET", "node-id", manage).arity(3).flags(CHANGES).doc(
        "Removes a node; refused: this cluster does so by itself.",
        "3.0.0",
        "O(1)",
    ),
    swept("GETKEYSINSLOT", "slot count", get_keys)
        .arity(4)
        .doc("Lists keys of a slot; on the cluster face only.", "3.0.0", "O(N) where N is the number of requested keys")
        .tips(VARIES),
    sub("HELP", "", help).flags(Flags::LOADING).doc(
        "Lists the subcommands; on the cluster face only.",
        "5.0.0",
        "O(1)",
    ),
    sub("INFO", "", info).doc("Describes the cluster; on the cluster face only.", "3.0.0", "O(1)").tips(VARIES),
    sub("KEYSLOT", "key", key_slot).arity(3).doc(
        "Returns the slot of a key.",
        "3.0.0",
        "O(N) where N is the number of bytes in the key",
    ),
    sub("LINKS", "", links)
        .doc(
            "Lists links between nodes; on the cluster face only.",
            "7.0.0",
            "O(N) where N is the total number of Cluster nodes",
        )
        .tips(VARIES),
    sub("MEET", "ip port [cluster-bus-port]", manage).arity(-4).flags(CHANGES).doc(
        "Adds a node; refused: this cluster does so by itself.",
        "3.0.0",
        "O(1)",
    ),
    sub("MYID", "", my_id).doc("Returns the node's id; on the cluster face only.", "3.0.0", "O(1)"),
    sub("MYSHARDID", "", my_id)
        .doc("Returns the id of the node's shard; on the cluster face only.", "7.2.0", "O(1)")
        .tips(VARIES),
    told("NODES", nodes)
        .doc("Lists the nodes; on the cluster face only.", "3.0.0", "O(N) where N is the total number of Cluster nodes")
        .tips(VARIES),
    sub("REPLICAS", "node-id", replicas)
        .arity(3)
        .flags(Flags::ADMIN)
        .doc(
            "Lists the replicas of a node; on the cluster face only.",
            "5.0.0",
            "O(N) where N is the number of replicas.",
        )
        .tips(VARIES),
    sub("REPLICATE", "node-id", manage).arity(3).flags(CHANGES).doc(
        "Makes the node a replica; refused: this cluster does so by itself.",
        "3.0.0",
        "O(1)",
    ),
    sub("RESET", "[HARD | SOFT]", manage).arity(-2).flags(Flags::ADMIN.and(Flags::NOSCRIPT)).doc(
        "Makes the node forget the cluster; refused: this cluster does so by itself.",
        "3.0.0",
        "O(N) where N is the number of known nodes. The command may execute a FLUSHALL as a side effect.",
    ),
    sub("SAVECONFIG", "", save_config).flags(CHANGES).doc(
        "Writes the cluster's state to disk; on the cluster face only.",
        "3.0.0",
        "O(1)",
    ),
    sub("SET-CONFIG-EPOCH", "config-epoch", manage).arity(3).flags(CHANGES).doc(
        "Sets the epoch of a new node; refused: this cluster does so by itself.",
        "3.0.0",
        "O(1)",
    ),
    sub("SETSLOT", "slot <IMPORTING node-id | MIGRATING node-id | NODE node-id | STABLE>", manage)
        .arity(-4)
        .flags(CHANGES)
        .doc("Says where a slot is; refused: this cluster does so by itself.", "3.0.0", "O(1)"),
    told("SHARDS", shards)
        .flags(Flags::LOADING)
        .doc(
            "Lists shards with their slots and nodes; on the cluster face only.",
            "7.0.0",
            "O(N) where N is the total number of cluster nodes",
        )
        .tips(VARIES),
    sub("SLAVES", "node-id", replicas)
        .arity(3)
        .flags(Flags::ADMIN)
        .doc(
            "The former name of CLUSTER REPLICAS; on the cluster face only.",
            "3.0.0",
            "O(N) where N is the number of replicas.",
        )
        .tips(VARIES)
        .deprecated("5.0.0", "`CLUSTER REPLICAS`"),
    told("SLOTS", slots)
        .flags(Flags::LOADING)
        .doc(
            "Lists slots with their nodes; on the cluster face only.",
            "3.0.0",
            "O(N) where N is the total number of Cluster nodes",
        )
        .tips(VARIES)
        .deprecated("7.0.0", "`CLUSTER SHARDS`"),
];

const CONNECTION: &[&str] = &["connection"];
const VARIES: &[&str] = &["nondeterministic_output"];
const CHANGES: Flags = Flags::ADMIN.and(Flags::NO_ASYNC_LOADING);
const MODE: Flags = Flags::FAST.and(Flags::LOADING).and(Flags::STALE);

/// Every client knows this text, and takes the server for a standalone one.
const DISABLED: &str = "ERR This instance has cluster support disabled";

const fn accepted(name: &'static str, syntax: &'static str) -> Spec {
    Spec::new(name, syntax, Group::Cluster, Run::Node(accept))
}

const fn sub(name: &'static str, syntax: &'static str, run: fn(&Call, &Session, &dyn Host) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::Cluster, Run::Node(run)).of("CLUSTER").arity(2).flags(Flags::STALE)
}

const fn told(name: &'static str, run: fn(&Call, &mut Session, &dyn Host) -> Answer) -> Spec {
    Spec::new(name, "", Group::Cluster, Run::Session(run)).of("CLUSTER").arity(2).flags(Flags::STALE)
}

const fn swept(
    name: &'static str,
    syntax: &'static str,
    run: fn(&Call, &Session) -> Result<ClusterCall, CommandError>,
) -> Spec {
    Spec::new(name, syntax, Group::Cluster, Run::Cluster(run)).of("CLUSTER").arity(2).flags(Flags::STALE)
}

/// Refuses what is asked on the plain face.
fn on_the_face(session: &Session) -> Result<(), CommandError> {
    if session.face == Face::Cluster { Ok(()) } else { Err(DISABLED.into()) }
}

/// Any node takes any key, and none is a replica: there is nothing to be changed.
fn accept(_: &Call, session: &Session, _: &dyn Host) -> Answer {
    on_the_face(session).map(|()| Reply::ok())
}

/// Membership is stored whenever it changes.
fn save_config(_: &Call, session: &Session, _: &dyn Host) -> Answer {
    on_the_face(session).map(|()| Reply::ok())
}

fn help(call: &Call, session: &Session, host: &dyn Host) -> Answer {
    on_the_face(session)?;
    help::help(call, session, host)
}

/// What changes a Redis Cluster by hand has its own way here, or none.
fn manage(call: &Call, session: &Session, _: &dyn Host) -> Answer {
    on_the_face(session)?;
    let instead = match call.spec.name {
        "MEET" => "start the node with 'join <host>:<peer-port>' of any member",
        "FORGET" | "RESET" => "a node that is away is stood in for at once; DYNAMO NODES shows who is there",
        "FAILOVER" | "REPLICATE" => "every owner of a key is one; who is away is stood in for at once",
        _ => "slots are spread over the nodes by their weights; DYNAMO NODES and DYNAMO WHERE show how",
    };
    Err(format!("ERR CLUSTER {} is not supported: {instead}", call.spec.name).into())
}

fn key_slot(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    Ok(Reply::Int(i64::from(Slot::of(call.arg(2)).number())))
}

fn slot(arg: &[u8]) -> Option<Slot> {
    Slot::new(parse_i64(arg).and_then(|number| u16::try_from(number).ok())?)
}

fn count_keys(call: &Call, session: &Session) -> Result<ClusterCall, CommandError> {
    on_the_face(session)?;
    call.int(2)?;
    Ok(ClusterCall::CountInSlot(slot(call.arg(2)).ok_or("ERR Invalid slot")?))
}

fn get_keys(call: &Call, session: &Session) -> Result<ClusterCall, CommandError> {
    on_the_face(session)?;
    call.int(2)?;
    let (slot, count) = (slot(call.arg(2)), usize::try_from(call.int(3)?).ok());
    let (slot, count) = slot.zip(count).ok_or("ERR Invalid slot or number of keys")?;
    Ok(ClusterCall::KeysInSlot { slot, count })
}

fn my_id(_: &Call, session: &Session, host: &dyn Host) -> Answer {
    on_the_face(session)?;
    let cluster = host.cluster();
    let me = cluster.nodes.iter().find(|node| node.myself).ok_or("ERR this node has no cluster face")?;
    Ok(Reply::bulk(me.id.clone()))
}

fn is_known(call: &Call, session: &Session, host: &dyn Host) -> Result<(), CommandError> {
    on_the_face(session)?;
    let id = call.arg(2);
    match host.cluster().nodes.iter().any(|node| id == node.id.as_bytes()) {
        true => Ok(()),
        false => Err(format!("ERR Unknown node {}", String::from_utf8_lossy(id)).into()),
    }
}

fn replicas(call: &Call, session: &Session, host: &dyn Host) -> Answer {
    is_known(call, session, host).map(|()| Reply::Array(Vec::new()))
}

/// What is believed of a node is each node's own: nobody reports.
fn failure_reports(call: &Call, session: &Session, host: &dyn Host) -> Answer {
    is_known(call, session, host).map(|()| Reply::Int(0))
}

/// The cluster, for a client that is told of its slots with this answer.
fn tell(session: &mut Session, host: &dyn Host) -> Result<ClusterFacts, CommandError> {
    on_the_face(session)?;
    let cluster = host.cluster();
    session.slots_seen = cluster.hash;
    Ok(cluster)
}

/// A node's host as a client is told it: one that does not know its own is where the client reached it.
fn host_of<'a>(node: &'a ClusterNode, session: &'a Session) -> &'a str {
    match node.host.is_empty() && node.myself {
        true => session.laddr.rsplit_once(':').map_or("", |(host, _)| host.trim_matches(['[', ']'])),
        false => &node.host,
    }
}

fn slots(_: &Call, session: &mut Session, host: &dyn Host) -> Answer {
    let cluster = tell(session, host)?;
    let row = |(first, last, at): &(u16, u16, usize)| {
        let node = cluster.nodes.get(*at)?;
        Some(Reply::array([
            Reply::Int((*first).into()),
            Reply::Int((*last).into()),
            Reply::array([
                Reply::bulk(host_of(node, session).to_owned()),
                Reply::Int(node.port.into()),
                Reply::bulk(node.id.clone()),
                Reply::Array(Vec::new()),
            ]),
        ]))
    };
    Ok(Reply::array(cluster.slots.iter().filter_map(row)))
}

fn shards(_: &Call, session: &mut Session, host: &dyn Host) -> Answer {
    let cluster = tell(session, host)?;
    let shard = |(at, node): (usize, &ClusterNode)| {
        let own = cluster.slots.iter().filter(|(.., owner)| *owner == at);
        let slots = own.flat_map(|(first, last, _)| [Reply::Int((*first).into()), Reply::Int((*last).into())]);
        let host = host_of(node, session).to_owned();
        let node = Reply::map([
            ("id", Reply::bulk(node.id.clone())),
            ("port", Reply::Int(node.port.into())),
            ("ip", Reply::bulk(host.clone())),
            ("endpoint", Reply::bulk(host)),
            ("role", Reply::bulk_static("master")),
            ("replication-offset", Reply::Int(0)),
            ("health", Reply::bulk_static(if node.live { "online" } else { "fail" })),
        ]);
        Reply::map([("slots", Reply::array(slots)), ("nodes", Reply::array([node]))])
    };
    Ok(Reply::array(cluster.nodes.iter().enumerate().map(shard)))
}

/// The same lines from every node, but for who is `myself`.
fn nodes(_: &Call, session: &mut Session, host: &dyn Host) -> Answer {
    let cluster = tell(session, host)?;
    let mut lines = String::new();
    for (at, node) in cluster.nodes.iter().enumerate() {
        let ClusterNode { id, port, peer_port, .. } = node;
        let host = host_of(node, session);
        let flags = [(node.myself, "myself,"), (true, "master"), (!node.live, ",fail")];
        let flags: String = flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).collect();
        let link = if node.live { "connected" } else { "disconnected" };
        // Writing to a String cannot fail.
        let _ = write!(lines, "{id} {host}:{port}@{peer_port} {flags} - 0 0 {} {link}", at + 1);
        for (first, last, _) in cluster.slots.iter().filter(|(.., owner)| *owner == at) {
            let _ = if first == last { write!(lines, " {first}") } else { write!(lines, " {first}-{last}") };
        }
        lines.push('\n');
    }
    Ok(Reply::text(lines))
}

fn info(_: &Call, session: &Session, host: &dyn Host) -> Answer {
    on_the_face(session)?;
    let ClusterFacts { nodes, slots, .. } = host.cluster();
    let covered: usize = slots.iter().map(|(first, last, _)| usize::from(last - first) + 1).sum();
    let answering = nodes.iter().enumerate().filter(|(at, _)| slots.iter().any(|(.., owner)| owner == at)).count();
    let own = nodes.iter().position(|node| node.myself).map_or(0, |at| at + 1);
    let state = if covered == usize::from(SLOTS) { "ok" } else { "fail" };
    let mut lines = format!("cluster_enabled:1\r\ncluster_state:{state}\r\n");
    for (name, value) in [
        ("slots_assigned", covered),
        ("slots_ok", covered),
        ("slots_pfail", 0),
        ("slots_fail", 0),
        ("known_nodes", nodes.len()),
        ("size", answering),
        ("current_epoch", nodes.len()),
        ("my_epoch", own),
        ("stats_messages_sent", 0),
        ("stats_messages_received", 0),
    ] {
        let _ = write!(lines, "cluster_{name}:{value}\r\n");
    }
    lines.push_str("total_cluster_links_buffer_limit_exceeded:0\r\n");
    Ok(Reply::text(lines))
}

/// A link in each direction to every other node that answers.
fn links(_: &Call, session: &Session, host: &dyn Host) -> Answer {
    on_the_face(session)?;
    let ClusterFacts { nodes, .. } = host.cluster();
    let others = nodes.iter().filter(|node| node.live && !node.myself);
    let link = |direction: &'static str, node: &ClusterNode| {
        Reply::map([
            ("direction", Reply::bulk_static(direction)),
            ("node", Reply::bulk(node.id.clone())),
            ("create-time", Reply::Int(node.started_ms.try_into().unwrap_or(i64::MAX))),
            ("events", Reply::bulk_static(if direction == "to" { "rw" } else { "r" })),
            ("send-buffer-allocated", Reply::Int(0)),
            ("send-buffer-used", Reply::Int(0)),
        ])
    };
    Ok(Reply::array(others.flat_map(|node| [link("to", node), link("from", node)])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::Bench;

    #[test]
    fn the_plain_face_has_no_cluster_but_knows_slots() {
        let mut bench = Bench::new();
        for command in ["CLUSTER SLOTS", "CLUSTER NODES", "CLUSTER SHARDS", "CLUSTER INFO", "CLUSTER MYID", "READONLY"]
        {
            bench.check(command, "-ERR This instance has cluster support disabled\r\n");
        }
        for command in ["ASKING", "READWRITE", "CLUSTER MEET h 1", "CLUSTER HELP", "CLUSTER LINKS"] {
            bench.check(command, "-ERR This instance has cluster support disabled\r\n");
        }
        bench.check("CLUSTER KEYSLOT somekey", ":11058\r\n");
        bench.check("CLUSTER KEYSLOT foo{hash_tag}", ":2515\r\n");
        bench.check("CLUSTER foo", "-ERR unknown subcommand 'foo'. Try CLUSTER HELP.\r\n");
    }

    fn face() -> Bench {
        let mut bench = Bench::new();
        bench.session.face = Face::Cluster;
        let node = |at: u16| ClusterNode {
            id: format!("{at:040}"),
            host: if at == 1 { String::new() } else { "10.0.0.2".into() },
            port: 7000 + at,
            peer_port: 17000 + at,
            live: at < 3,
            myself: at == 1,
            ..ClusterNode::default()
        };
        let slots = vec![(0, 99, 1), (100, 100, 0), (101, 16383, 1)];
        bench.host.cluster = ClusterFacts { nodes: (1..4).map(node).collect(), slots, hash: 7 };
        bench
    }

    #[test]
    fn the_cluster_face_names_one_node_for_each_slot() {
        let mut bench = face();
        let text = bench.run("CLUSTER SLOTS");
        assert!(text.starts_with("*3\r\n*3\r\n:0\r\n:99\r\n*4\r\n$8\r\n10.0.0.2\r\n:7002\r\n$40\r\n"), "{text}");
        assert!(text.contains(":100\r\n:100\r\n*4\r\n$9\r\n127.0.0.1\r\n:7001\r\n"), "{text}");
        assert_eq!(bench.session.slots_seen, 7);
        let text = bench.run("CLUSTER NODES");
        let one = format!("{:040} 127.0.0.1:7001@17001 myself,master - 0 0 1 connected 100\n", 1);
        let two = format!("{:040} 10.0.0.2:7002@17002 master - 0 0 2 connected 0-99 101-16383\n", 2);
        let three = format!("{:040} 10.0.0.2:7003@17003 master,fail - 0 0 3 disconnected\n", 3);
        assert!(text.contains(&[one, two, three].concat()), "{text}");
        let text = bench.run("CLUSTER SHARDS");
        assert!(
            text.starts_with("*3\r\n*4\r\n$5\r\nslots\r\n*2\r\n:100\r\n:100\r\n$5\r\nnodes\r\n*1\r\n*14\r\n"),
            "{text}"
        );
        let text = bench.run("CLUSTER INFO");
        assert!(text.contains("cluster_state:ok\r\n") && text.contains("cluster_size:2\r\n"), "{text}");
        bench.check("CLUSTER MYID", &format!("$40\r\n{:040}\r\n", 1));
        assert!(bench.run("CLUSTER LINKS").starts_with("*2\r\n*12\r\n$9\r\ndirection\r\n$2\r\nto\r\n"));
        bench.check(&format!("CLUSTER REPLICAS {:040}", 2), "*0\r\n");
        bench.check("CLUSTER REPLICAS x", "-ERR Unknown node x\r\n");
    }

    #[test]
    fn the_cluster_face_is_a_redis_cluster_in_small_things() {
        let mut bench = face();
        for command in ["READONLY", "READWRITE", "ASKING", "CLUSTER SAVECONFIG", "SELECT 0"] {
            bench.check(command, "+OK\r\n");
        }
        bench.check("SELECT 1", "-ERR SELECT is not allowed in cluster mode\r\n");
        assert!(bench.run("HELLO").contains("$4\r\nmode\r\n$7\r\ncluster\r\n"));
        let info = bench.run("INFO");
        assert!(info.contains("redis_mode:cluster\r\n") && info.contains("cluster_enabled:1\r\n"));
        assert!(
            bench.run("CLUSTER MEET h 1").starts_with("-ERR CLUSTER MEET is not supported: start the node with 'join")
        );
        assert!(bench.run("CLUSTER FORGET x").starts_with("-ERR CLUSTER FORGET is not supported: "));
        assert!(bench.run("CLUSTER SETSLOT 1 STABLE").starts_with("-ERR CLUSTER SETSLOT is not supported: slots are"));
        assert!(bench.run("CLUSTER HELP").contains("+MYSHARDID\r\n"));
        bench.run("RESET");
        bench.check("READONLY", "+OK\r\n");
    }

    #[test]
    fn there_is_no_sentinel() {
        let text = "-ERR unknown command 'SENTINEL', with args beginning with: 'MASTERS' \r\n";
        Bench::new().check("SENTINEL MASTERS", text);
    }
}
