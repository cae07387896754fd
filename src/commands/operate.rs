//! The operator's part of the dynamo family: who is there, what is kept for whom, what has been made equal with whom and
//! when, who coordinates what. Whoever runs the node answers ([`Host::operate`]); here is only what may be asked.

use bytes::Bytes;

use super::call::Call;
use super::dynamo::{SINCE, first, sub};
use super::errors::{Answer, CommandError, SYNTAX};
use super::host::Host;
use super::session::Session;
use super::spec::{Flags, Run, Spec};
use crate::base::id::Partition;
use crate::base::num::parse_i64;

/// What an operator asks a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Every member: an array of maps.
    Nodes,
    /// Hints, by the owner that they are kept for.
    Hints,
    /// How old what was verified is, what is running, what was repaired, and the slice of background work.
    Sync,
    /// When one partition was verified, with whom.
    SyncOf(Partition),
    /// Begin to sync.
    SyncNow(Scope),
    /// Who coordinates under which term: one partition, or all that this node owns.
    Terms(Option<Partition>),
}

/// What is to be synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything that this node owns, with everyone.
    All,
    /// One partition, with everyone.
    Partition(Partition),
    /// Everything that it shares with one node, of this id or name.
    Node(String),
}

pub(super) const NODES: Spec = sub("NODES", "", Run::Node(nodes))
    .doc("Lists the members of the cluster as this node sees them, and why.", SINCE, "O(N), N the number of nodes")
    .arity(2);
pub(super) const HINTS: Spec = sub("HINTS", "", Run::Node(hints))
    .doc(
        "Tells what this node keeps for owners that are away: how much, and since when.",
        SINCE,
        "O(N), N the number of nodes",
    )
    .arity(2);
pub(super) const SYNC: Spec = sub("SYNC", "[PARTITION partition | NOW [partition | node]]", Run::Node(sync))
    .doc(
        "Tells when partitions were last found equal with their other owners, and what was repaired; NOW begins to sync.",
        SINCE,
        "O(N), N the number of partitions",
    )
    .arity(-2)
    .flags(Flags::ADMIN);
pub(super) const TERMS: Spec = sub("TERMS", "[partition]", Run::Node(terms))
    .doc(
        "Tells who coordinates each partition that this node owns, and under which term.",
        SINCE,
        "O(N), N the number of partitions",
    )
    .arity(-2);

fn nodes(_: &Call, _: &Session, host: &dyn Host) -> Answer {
    answer(host, Asked::Nodes)
}

fn hints(_: &Call, _: &Session, host: &dyn Host) -> Answer {
    answer(host, Asked::Hints)
}

fn sync(call: &Call, _: &Session, host: &dyn Host) -> Answer {
    let mut rest = call.cursor(first(call));
    let asked = if rest.take("NOW") {
        Asked::SyncNow(rest.next_arg().map_or(Scope::All, scope))
    } else if rest.take("PARTITION") {
        Asked::SyncOf(partition(rest.expect()?)?)
    } else {
        Asked::Sync
    };
    rest.finish()?;
    answer(host, asked)
}

fn terms(call: &Call, _: &Session, host: &dyn Host) -> Answer {
    let mut rest = call.cursor(first(call));
    let which = rest.next_arg().map(partition).transpose()?;
    rest.finish().map_err(|_| SYNTAX)?;
    answer(host, Asked::Terms(which))
}

fn answer(host: &dyn Host, asked: Asked) -> Answer {
    host.operate(&asked).map_err(CommandError::from)
}

/// A short number is a partition's; everything else names a node: ids have 16 digits.
fn scope(arg: &Bytes) -> Scope {
    match partition(arg) {
        Ok(partition) if arg.len() < 16 => Scope::Partition(partition),
        _ => Scope::Node(String::from_utf8_lossy(arg).into_owned()),
    }
}

fn partition(arg: &Bytes) -> Result<Partition, CommandError> {
    let number = parse_i64(arg).and_then(|number| u16::try_from(number).ok());
    number.map(Partition).ok_or("ERR a partition is a number, from 0 to one less than there are".into())
}

#[cfg(test)]
mod tests {
    use super::super::testing::FakeHost;
    use super::*;
    use crate::resp::{Reply, inline};

    /// What a node is asked by a line, or the error.
    fn asked(line: &str) -> Result<Asked, String> {
        let (host, args) = (FakeHost::default(), inline::split(line.as_bytes()).unwrap());
        let spec = super::super::resolve(&args).map_err(|error| format!("{error:?}"))?;
        let Run::Node(run) = spec.run else { panic!("asked of the node") };
        let session = Session::default();
        run(&Call { spec, args: &args }, &session, &host).map_err(|error| format!("{error:?}"))?;
        Ok(host.asked.lock().unwrap().clone().unwrap())
    }

    #[test]
    fn what_an_operator_types_is_what_the_node_is_asked() {
        let partition = Partition(12);
        for (line, expected) in [
            ("DYNAMO NODES", Asked::Nodes),
            ("dynamo.hints", Asked::Hints),
            ("DYNAMO SYNC", Asked::Sync),
            ("DYNAMO.SYNC partition 12", Asked::SyncOf(partition)),
            ("DYNAMO SYNC NOW", Asked::SyncNow(Scope::All)),
            ("DYNAMO.SYNC now 12", Asked::SyncNow(Scope::Partition(partition))),
            ("DYNAMO SYNC NOW n-2", Asked::SyncNow(Scope::Node("n-2".into()))),
            ("DYNAMO SYNC NOW 0000000000000012", Asked::SyncNow(Scope::Node("0000000000000012".into()))),
            ("DYNAMO.TERMS", Asked::Terms(None)),
            ("DYNAMO TERMS 12", Asked::Terms(Some(partition))),
        ] {
            assert_eq!(asked(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_not_asked() {
        for line in [
            "DYNAMO SYNC PARTITION",
            "DYNAMO SYNC PARTITION x",
            "DYNAMO SYNC 12",
            "DYNAMO SYNC NOW 1 2",
            "DYNAMO TERMS -1",
            "DYNAMO TERMS 65536",
            "DYNAMO TERMS 1 2",
            "DYNAMO HINTS all",
        ] {
            assert!(asked(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_node_that_refuses_says_why() {
        let host = FakeHost::default();
        host.refuses.store(true, std::sync::atomic::Ordering::Relaxed);
        let refused = answer(&host, Asked::SyncNow(Scope::All)).unwrap_err().into_reply();
        assert_eq!(refused, Reply::error("ERR not here"));
    }
}
