//! `CLUSTER` and its kin on the plain face: a Redis without cluster support, of any size. Only KEYSLOT, which needs no
//! cluster, answers.

use super::call::Call;
use super::errors::Answer;
use super::host::Host;
use super::session::Session;
use super::spec::{Flags, Group, Run, Spec};
use crate::resp::Reply;
use crate::ring::slot::Slot;

/// The table.
pub static TABLE: &[Spec] = &[
    disabled("ASKING", "").flags(Flags::FAST).categories(CONNECTION).doc(
        "Lets a cluster client follow a key that moves; refused on this port.",
        "3.0.0",
        "O(1)",
    ),
    Spec::new("CLUSTER", "", Group::Cluster, Run::Container)
        .arity(-2)
        .doc("A container for commands about Redis Cluster.", "3.0.0", "Depends on subcommand.")
        .children(SUBCOMMANDS),
    disabled("READONLY", "").flags(MODE).categories(CONNECTION).doc(
        "Lets a cluster client read from replicas; refused on this port.",
        "3.0.0",
        "O(1)",
    ),
    disabled("READWRITE", "").flags(MODE).categories(CONNECTION).doc(
        "Ends READONLY; refused on this port.",
        "3.0.0",
        "O(1)",
    ),
];

static SUBCOMMANDS: &[Spec] = &[
    sub("ADDSLOTS", "slot [slot ...]", refuse).arity(-3).flags(CHANGES).doc(
        "Gives slots to the node; refused on this port.",
        "3.0.0",
        "O(N) where N is the total number of hash slot arguments",
    ),
    sub("ADDSLOTSRANGE", "start-slot end-slot [start-slot end-slot ...]", refuse).arity(-4).flags(CHANGES).doc(
        "Gives runs of slots to the node; refused on this port.",
        "7.0.0",
        "O(N) where N is the total number of the slots between the start slot and end slot arguments.",
    ),
    sub("BUMPEPOCH", "", refuse)
        .flags(CHANGES)
        .doc("Advances the epoch; refused on this port.", "3.0.0", "O(1)")
        .tips(VARIES),
    sub("COUNT-FAILURE-REPORTS", "node-id", refuse)
        .arity(3)
        .flags(Flags::ADMIN)
        .doc(
            "Counts reports that a node is away; refused on this port.",
            "3.0.0",
            "O(N) where N is the number of failure reports",
        )
        .tips(VARIES),
    sub("COUNTKEYSINSLOT", "slot", refuse).arity(3).doc(
        "Counts the keys of a slot; refused on this port.",
        "3.0.0",
        "O(1)",
    ),
    sub("DELSLOTS", "slot [slot ...]", refuse).arity(-3).flags(CHANGES).doc(
        "Takes slots from the node; refused on this port.",
        "3.0.0",
        "O(N) where N is the total number of hash slot arguments",
    ),
    sub("DELSLOTSRANGE", "start-slot end-slot [start-slot end-slot ...]", refuse).arity(-4).flags(CHANGES).doc(
        "Takes runs of slots from the node; refused on this port.",
        "7.0.0",
        "O(N) where N is the total number of the slots between the start slot and end slot arguments.",
    ),
    sub("FAILOVER", "[FORCE | TAKEOVER]", refuse).arity(-2).flags(CHANGES).doc(
        "Makes a replica a master; refused on this port.",
        "3.0.0",
        "O(1)",
    ),
    sub("FLUSHSLOTS", "", refuse).flags(CHANGES).doc(
        "Takes all slots from the node; refused on this port.",
        "3.0.0",
        "O(1)",
    ),
    sub("FORGET", "node-id", refuse).arity(3).flags(CHANGES).doc(
        "Removes a node; refused on this port.",
        "3.0.0",
        "O(1)",
    ),
    sub("GETKEYSINSLOT", "slot count", refuse)
        .arity(4)
        .doc("Lists keys of a slot; refused on this port.", "3.0.0", "O(N) where N is the number of requested keys")
        .tips(VARIES),
    sub("HELP", "", refuse).flags(Flags::LOADING).doc("Lists the subcommands; refused on this port.", "5.0.0", "O(1)"),
    sub("INFO", "", refuse).doc("Describes the cluster; refused on this port.", "3.0.0", "O(1)").tips(VARIES),
    sub("KEYSLOT", "key", key_slot).arity(3).doc(
        "Returns the slot of a key.",
        "3.0.0",
        "O(N) where N is the number of bytes in the key",
    ),
    sub("LINKS", "", refuse)
        .doc(
            "Lists links between nodes; refused on this port.",
            "7.0.0",
            "O(N) where N is the total number of Cluster nodes",
        )
        .tips(VARIES),
    sub("MEET", "ip port [cluster-bus-port]", refuse).arity(-4).flags(CHANGES).doc(
        "Adds a node; refused on this port.",
        "3.0.0",
        "O(1)",
    ),
    sub("MYID", "", refuse).doc("Returns the node's id; refused on this port.", "3.0.0", "O(1)"),
    sub("MYSHARDID", "", refuse)
        .doc("Returns the id of the node's shard; refused on this port.", "7.2.0", "O(1)")
        .tips(VARIES),
    sub("NODES", "", refuse)
        .doc("Lists the nodes; refused on this port.", "3.0.0", "O(N) where N is the total number of Cluster nodes")
        .tips(VARIES),
    sub("REPLICAS", "node-id", refuse)
        .arity(3)
        .flags(Flags::ADMIN)
        .doc("Lists the replicas of a node; refused on this port.", "5.0.0", "O(N) where N is the number of replicas.")
        .tips(VARIES),
    sub("REPLICATE", "node-id", refuse).arity(3).flags(CHANGES).doc(
        "Makes the node a replica; refused on this port.",
        "3.0.0",
        "O(1)",
    ),
    sub("RESET", "[HARD | SOFT]", refuse).arity(-2).flags(Flags::ADMIN.and(Flags::NOSCRIPT)).doc(
        "Makes the node forget the cluster; refused on this port.",
        "3.0.0",
        "O(N) where N is the number of known nodes. The command may execute a FLUSHALL as a side effect.",
    ),
    sub("SAVECONFIG", "", refuse).flags(CHANGES).doc(
        "Writes the cluster's state to disk; refused on this port.",
        "3.0.0",
        "O(1)",
    ),
    sub("SET-CONFIG-EPOCH", "config-epoch", refuse).arity(3).flags(CHANGES).doc(
        "Sets the epoch of a new node; refused on this port.",
        "3.0.0",
        "O(1)",
    ),
    sub("SETSLOT", "slot <IMPORTING node-id | MIGRATING node-id | NODE node-id | STABLE>", refuse)
        .arity(-4)
        .flags(CHANGES)
        .doc("Says where a slot is; refused on this port.", "3.0.0", "O(1)"),
    sub("SHARDS", "", refuse)
        .flags(Flags::LOADING)
        .doc(
            "Lists shards with their slots and nodes; refused on this port.",
            "7.0.0",
            "O(N) where N is the total number of cluster nodes",
        )
        .tips(VARIES),
    sub("SLAVES", "node-id", refuse)
        .arity(3)
        .flags(Flags::ADMIN)
        .doc(
            "The former name of CLUSTER REPLICAS; refused on this port.",
            "3.0.0",
            "O(N) where N is the number of replicas.",
        )
        .tips(VARIES)
        .deprecated("5.0.0", "`CLUSTER REPLICAS`"),
    sub("SLOTS", "", refuse)
        .flags(Flags::LOADING)
        .doc(
            "Lists slots with their nodes; refused on this port.",
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

const fn disabled(name: &'static str, syntax: &'static str) -> Spec {
    Spec::new(name, syntax, Group::Cluster, Run::Node(refuse))
}

const fn sub(name: &'static str, syntax: &'static str, run: fn(&Call, &Session, &dyn Host) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::Cluster, Run::Node(run)).of("CLUSTER").arity(2).flags(Flags::STALE)
}

fn refuse(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Err(DISABLED.into())
}

fn key_slot(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    Ok(Reply::Int(i64::from(Slot::of(call.arg(2)).number())))
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Bench;

    #[test]
    fn the_plain_face_has_no_cluster_but_knows_slots() {
        let mut bench = Bench::new();
        for command in ["CLUSTER SLOTS", "CLUSTER NODES", "CLUSTER SHARDS", "CLUSTER INFO", "CLUSTER MYID", "READONLY"]
        {
            bench.check(command, "-ERR This instance has cluster support disabled\r\n");
        }
        for command in ["ASKING", "READWRITE", "CLUSTER COUNTKEYSINSLOT 1"] {
            bench.check(command, "-ERR This instance has cluster support disabled\r\n");
        }
        bench.check("CLUSTER KEYSLOT somekey", ":11058\r\n");
        bench.check("CLUSTER KEYSLOT foo{hash_tag}", ":2515\r\n");
        bench.check("CLUSTER foo", "-ERR unknown subcommand 'foo'. Try CLUSTER HELP.\r\n");
    }

    #[test]
    fn there_is_no_sentinel() {
        let text = "-ERR unknown command 'SENTINEL', with args beginning with: 'MASTERS' \r\n";
        Bench::new().check("SENTINEL MASTERS", text);
    }
}
