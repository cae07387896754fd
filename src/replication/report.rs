//! What `DYNAMO WITH REPORT` adds to a reply: who answered.

use std::collections::BTreeSet;

use super::{Coordinator, Finished};
use crate::base::id::{NodeId, Partition};
use crate::resp::Reply;

impl Coordinator {
    /// The reply, as a map that also says which replicas answered: those that have a write, or were read. An error stays
    /// what it is.
    pub(super) fn reported(
        &self,
        finished: Finished,
        partition: Partition,
        needed: usize,
        answered: impl IntoIterator<Item = NodeId>,
    ) -> Finished {
        if finished.reply.is_error() {
            return finished;
        }
        let view = self.view.load();
        let (mut owners, mut stand_ins, mut zones) = (Vec::new(), Vec::new(), BTreeSet::new());
        for node in answered {
            let member = view.nodes.get(&node).map(|standing| &standing.member);
            zones.extend(member.map(|member| member.zone.clone()));
            let name = member.map_or_else(|| node.to_string(), |member| member.name.clone());
            if view.ring.owners(partition).contains(&node) { &mut owners } else { &mut stand_ins }.push(name);
        }
        let names = |names: Vec<String>| Reply::array(names.into_iter().map(Reply::bulk));
        let reply = Reply::map([
            ("reply", finished.reply),
            ("needed", Reply::Int(needed as i64)),
            ("answered", Reply::Int((owners.len() + stand_ins.len()) as i64)),
            ("owners", names(owners)),
            ("stand-ins", names(stand_ins)),
            ("zones", names(zones.into_iter().collect())),
        ]);
        Finished { reply, ..finished }
    }
}
