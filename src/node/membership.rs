//! Members and views: learning of others, admitting newcomers, and swapping the view when something changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Node;
use crate::base::id::NodeId;
use crate::cluster::view::Standing;
use crate::cluster::{ClusterView, Health, Member, Membership};
use crate::ring::Ring;
use crate::storage::{Change, Space};

/// The key in [`Space::Node`] under which the membership is stored.
pub const MEMBERSHIP_KEY: &[u8] = b"membership";

impl Node {
    /// Stores the members as they were when the node was made.
    pub fn keep_membership(&self) {
        self.keep(&self.membership.lock());
    }

    /// Takes over what another node knows of the members.
    pub fn learn(&self, theirs: &Membership) {
        let changed = {
            let mut mine = self.membership.lock();
            let changed = mine.merge(theirs);
            if changed {
                self.keep(&mine);
            }
            changed
        };
        if changed {
            self.refresh(true);
        }
    }

    /// Admits a newcomer, or a member that returned with a later incarnation; answers the membership it is to take over.
    ///
    /// # Errors
    /// Why it was refused, in one line: the layout of a cluster that holds data must not change hands without a transfer.
    pub fn admit(&self, newcomer: Member) -> Result<Membership, String> {
        let mut next = self.membership();
        let known = next.members.contains_key(&newcomer.id);
        if !known {
            if let Some(other) = next.members.values().find(|member| member.name == newcomer.name) {
                return Err(format!("the name {} is taken by node {}", newcomer.name, other.id));
            }
            let holds_data = self.replica().regions().next().is_some();
            if holds_data && next.members.len() >= usize::from(next.replicas) {
                return Err(format!(
                    "the cluster holds data and has {} members: one more would own partitions of which it has no row",
                    next.members.len()
                ));
            }
        }
        next.members.insert(newcomer.id, newcomer);
        self.learn(&next);
        Ok(self.membership())
    }

    /// Whether there are others, and none of them is live.
    pub fn sees_nobody(&self) -> bool {
        let view = self.coordinator.view.load();
        !view.is_alone() && view.nodes.values().filter(|standing| standing.live).count() == 1
    }

    /// A link to `node` was made: it is there, though whether it is ready only its answer to a ping will say.
    pub fn met(&self, node: NodeId) {
        self.detector.lock().answered(node, self.uptime(), Health::default());
        self.refresh(false);
    }

    /// A link to `node` broke, or could not be made.
    pub fn lost(&self, node: NodeId) {
        self.detector.lock().broke(node);
        self.refresh(false);
    }

    /// Forms the opinion anew and swaps the view if it differs.
    pub(super) fn refresh(&self, members_changed: bool) {
        let membership = self.membership.lock();
        let old = self.coordinator.view.load_full();
        let now = self.uptime();
        let nodes = {
            let detector = self.detector.lock();
            standings(&membership, self.me, self.health(), |id| {
                let live = detector.is_live(id, now, self.options.failure_timeout);
                (live, if live { detector.health(id) } else { Health::default() })
            })
        };
        if !members_changed && nodes == old.nodes {
            return;
        }
        let ring = if members_changed { Arc::new(Ring::new(membership.layout())) } else { old.ring.clone() };
        let view = ClusterView::new(self.me, ring, nodes);
        self.digest.store(membership.digest(), Ordering::Relaxed);
        self.log_changes(&old, &view);
        self.unsettle(&old, &view, members_changed);
        self.coordinator.view.store(Arc::new(view));
    }

    /// A partition that this node begins to coordinate may have seen writes that it has not.
    fn unsettle(&self, old: &ClusterView, new: &ClusterView, members_changed: bool) {
        for partition in new.ring.partitions().iter() {
            let mine = new.coordinator(partition) == Some(self.me);
            let was_mine = old.coordinator(partition) == Some(self.me);
            if members_changed && !new.is_alone() {
                self.coordinator.set_caught_up(partition, false);
            } else if mine && !was_mine {
                self.coordinator.unsettle(partition);
            }
        }
        self.unsettled.notify_one();
    }

    fn log_changes(&self, old: &ClusterView, new: &ClusterView) {
        for (id, standing) in &new.nodes {
            let name = &standing.member.name;
            match old.nodes.get(id).map(|before| before.live) {
                None => tracing::info!("Node {name} ({id}) joined"),
                Some(false) if standing.live => tracing::info!("Node {name} ({id}) is up"),
                Some(true) if !standing.live => tracing::warn!("Node {name} ({id}) is down"),
                _ => {}
            }
        }
    }

    fn keep(&self, membership: &Membership) {
        let change = Change::put(Space::Node, MEMBERSHIP_KEY, membership.encode());
        if let Err(error) = self.replica().committer().submit([change], &[]) {
            tracing::warn!("the membership could not be stored: {error}");
        }
    }
}

/// Everyone's standing, given how this node is; `others` says of another node whether it is live, and how it is.
pub fn standings(
    membership: &Membership,
    me: NodeId,
    own: Health,
    others: impl Fn(NodeId) -> (bool, Health),
) -> BTreeMap<NodeId, Standing> {
    let standing = |member: &Member| {
        let (live, health) = if member.id == me { (true, own) } else { others(member.id) };
        (member.id, Standing { member: member.clone(), live, health })
    };
    membership.members.values().map(standing).collect()
}
