//! The nudge: after slots have changed hands, each connection of the cluster face gets one `MOVED` on one plain command,
//! and its client asks for the slots anew. Many clients never ask by themselves: they dial a node that has died, or pay a
//! forwarded hop, for as long as they live.
//!
//! It names another node that takes the key as well, so nothing is lost by following it. Not in a pipeline, nor in a
//! transaction, nor while keys are watched: there an error costs more than it brings.

use super::Connection;
use crate::commands::Spec;
use crate::commands::spec::{Group, Run};
use crate::metrics;
use crate::node::Node;
use crate::resp::Reply;
use crate::ring::Slot;

impl Connection {
    /// The `MOVED` that this request is answered with, if its client is to ask for the slots.
    pub(super) fn nudge(&mut self, node: &Node, spec: Option<&'static Spec>, args: &[bytes::Bytes]) -> Option<Reply> {
        let view = node.coordinator.view.load();
        if self.session.slots_seen == view.slots.hash || !self.stands_alone() {
            return None;
        }
        let plain = |spec: &&Spec| matches!(spec.run, Run::Read(_) | Run::Write(_)) && spec.group != Group::Dynamo;
        let spec = spec.filter(plain).filter(|spec| spec.allows(args.len()) && self.session.authenticated)?;
        let slot = Slot::of(args.get(*spec.keys.positions(args).first()?)?);
        self.session.slots_seen = view.slots.hash;
        let partition = view.ring.partitions().of_slot(slot);
        let mut others =
            view.slots.node_of(slot.number()).into_iter().chain(view.ring.preference(partition).iter().copied());
        let fits = |id: &crate::base::id::NodeId| {
            let standing = view.nodes.get(id).filter(|standing| standing.live && standing.member.cluster_port > 0);
            *id != view.me && standing.is_some_and(|standing| !standing.member.host.is_empty())
        };
        let target = others.find(fits)?;
        metrics::NUDGES.increment();
        let addr = view.nodes.get(&target)?.member.cluster_addr();
        Some(Reply::error(format!("MOVED {} {addr}", slot.number())))
    }

    /// Whether nothing came with this request and nothing waits before it.
    fn stands_alone(&self) -> bool {
        let empty = self.input.is_empty() && self.output.is_empty() && self.waiting.is_empty() && self.commit.is_none();
        empty && self.session.watched.is_none() && !self.session.subscribed.any()
    }
}
