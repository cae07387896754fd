//! What an operator is told: members, hints, syncs, terms.

use std::time::Duration;

use super::Server;
use crate::base::id::{NodeId, Partition};
use crate::cluster::ClusterView;
use crate::cluster::view::Standing;
use crate::commands::operate::Asked;
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
            Asked::Terms(which) => self.terms(*which),
            Asked::Hints | Asked::Sync | Asked::SyncOf(_) | Asked::SyncNow(_) => Ok(Reply::Nil),
        }
    }

    fn nodes(&self) -> Reply {
        let view = self.node.coordinator.view.load_full();
        Reply::array(view.nodes.values().map(|standing| self.node_reply(&view, standing)))
    }

    fn node_reply(&self, view: &ClusterView, standing: &Standing) -> Reply {
        let (member, id) = (&standing.member, standing.member.id);
        let coordinated = view.ring.partitions().iter().filter(|at| view.coordinator(*at) == Some(id)).count();
        let pace = self.node.coordinator.paces.of(id);
        Reply::map([
            ("id", Reply::bulk(id.to_string())),
            ("name", Reply::bulk(member.name.clone())),
            ("address", Reply::bulk(member.client_addr())),
            ("peer-address", Reply::bulk(member.peer_addr())),
            ("zone", Reply::bulk(member.zone.clone())),
            ("weight", int(member.weight.into())),
            ("incarnation", int(member.incarnation)),
            ("live", Reply::Bool(standing.live)),
            ("ready", Reply::Bool(standing.health.ready)),
            ("counted", Reply::Bool(standing.health.counted)),
            ("myself", Reply::Bool(id == view.me)),
            ("owned", int(view.ring.layout().share(id).owned)),
            ("coordinated", int(coordinated as u64)),
            ("mean-us", micros(pace.mean())),
            ("p99-us", micros(pace.p99())),
        ])
    }

    fn terms(&self, which: Option<Partition>) -> Result<Reply, String> {
        let view = self.node.coordinator.view.load_full();
        let partitions = view.ring.partitions();
        if let Some(unknown) = which.filter(|at| at.0 >= partitions.count()) {
            return Err(format!("ERR there is no partition {}: there are {}", unknown.0, partitions.count()));
        }
        let wanted = partitions.iter().filter(|at| which.map_or(view.owns(*at), |which| which == *at));
        Ok(Reply::array(wanted.map(|at| self.term_reply(&view, at))))
    }

    fn term_reply(&self, view: &ClusterView, partition: Partition) -> Reply {
        Reply::map([
            ("partition", Reply::Int(partition.0.into())),
            ("coordinator", node_or_nil(view, view.coordinator(partition))),
            ("settled", Reply::Bool(self.node.coordinator.is_settled(partition))),
        ])
    }

    /// What background work may take, and what for.
    pub(super) fn admission_reply(&self) -> Reply {
        let admission = &self.node.coordinator.admission;
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
}

/// How a node is called in answers: its name, or its id where that is not known.
fn node_or_nil(view: &ClusterView, node: Option<NodeId>) -> Reply {
    node.map_or(Reply::Nil, |id| {
        let name = view.nodes.get(&id).map(|standing| standing.member.name.clone());
        Reply::bulk(name.unwrap_or_else(|| id.to_string()))
    })
}

fn int(value: u64) -> Reply {
    Reply::Int(value.try_into().unwrap_or(i64::MAX))
}

fn micros(time: Option<Duration>) -> Reply {
    time.map_or(Reply::Nil, |time| int(time.as_micros() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::host::Host;
    use crate::resp::Reply::{Bool, Int};
    use crate::server::testing::server_among;

    #[test]
    fn nodes_are_listed_with_what_this_node_knows_of_them() {
        let server = server_among(2, "").0;
        let Ok(Reply::Array(nodes)) = server.operate(&Asked::Nodes) else { panic!("an array") };
        let field = |at: usize, name: &str| -> Reply {
            let Some(Reply::Map(pairs)) = nodes.get(at) else { panic!("a map") };
            pairs.iter().find(|(key, _)| *key == Reply::bulk(name.to_owned())).unwrap().1.clone()
        };
        assert_eq!(nodes.len(), 2);
        assert_eq!((field(0, "myself"), field(0, "live"), field(0, "owned")), (Bool(true), Bool(true), Int(16)));
        assert_eq!((field(1, "myself"), field(1, "live"), field(1, "coordinated")), (Bool(false), Bool(false), Int(0)));
        assert_eq!(field(1, "peer-address"), Reply::bulk_static("127.0.0.1:16379"));
        assert_eq!(field(0, "coordinated"), Int(16), "nobody else is there to do it");
    }
}
