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
        // One that another has replaced would take that one for somebody else under its id.
        if self.is_stopping() {
            return;
        }
        let changed = {
            let mut mine = self.membership.lock();
            let before: Vec<(NodeId, u64)> = mine.members.values().map(|known| (known.id, known.incarnation)).collect();
            let own = mine.members.get(&self.me).cloned();
            let changed = mine.merge(theirs);
            if changed {
                self.stand_for_itself(&mut mine, own);
                self.note_lives(&mine, &before);
                self.keep(&mine);
            }
            changed
        };
        if changed {
            self.refresh(true);
        }
    }

    /// Of whoever has started anew since it was last heard, it is not known how it is.
    fn note_lives(&self, members: &Membership, before: &[(NodeId, u64)]) {
        let mut detector = self.watch.detector.lock();
        for (id, incarnation) in before {
            match members.members.get(id) {
                Some(member) if !member.is_present() => detector.forget(*id),
                Some(member) if member.incarnation > *incarnation => detector.began(*id),
                _ => {}
            }
        }
    }

    /// What others say of this node itself. That it was removed, or that somebody else began a later life under its id,
    /// ends it. A former life of its own, of which a clock that was set back made a later one, is outdone.
    fn stand_for_itself(&self, members: &mut Membership, own: Option<Member>) {
        let (Some(own), Some(said)) = (own, members.members.get_mut(&self.me)) else { return };
        if !said.is_present() {
            self.dismiss(&removed(self.me));
        } else if said.incarnation > own.incarnation {
            let is_here = said.peer_port == own.peer_port && (said.host == own.host || own.host.is_empty());
            if is_here {
                self.is_outlived();
                let incarnation = said.incarnation.saturating_add(1);
                *said = Member { incarnation, state: said.state, decision: said.decision, ..own };
            } else {
                let place = said.peer_addr();
                self.dismiss(&format!("another node took the place of this one: it is at {place} under the same id"));
            }
        }
    }

    /// From its disk this node knows that its last life had this incarnation; 0 if it had none.
    pub fn remembers(&self, last_life: u64) {
        self.last_life.store(last_life, Ordering::Relaxed);
    }

    /// Others knew this node under the incarnation `former` until now. If that is later than the last life that its disk
    /// knows of, the disk is an older one, or somebody took this node's place meanwhile: what it acknowledged then is not
    /// here.
    pub fn was_known(&self, former: Option<u64>) {
        let own = self.member().map(|member| member.incarnation);
        if former.is_some_and(|former| former > self.last_life.load(Ordering::Relaxed)) && former != own {
            self.is_outlived();
        }
    }

    fn is_outlived(&self) {
        if !self.outlived.swap(true, Ordering::Relaxed) {
            tracing::warn!("Others know of a later life of this node than its disk does");
            self.unsettled.notify_one();
        }
    }

    /// This node is no member any more: it is to end, and to say why.
    pub fn dismiss(&self, why: &str) {
        if self.dismissed.set(why.to_owned()).is_ok() {
            self.dismissal.notify_one();
        }
    }

    /// Resolves when this node is no member any more, and says why.
    pub async fn dismissed(&self) -> String {
        loop {
            if let Some(why) = self.dismissed.get() {
                return why.clone();
            }
            self.dismissal.notified().await;
        }
    }

    /// Removes a member for ever. Data does not move yet, so only one that owns nothing of worth can go.
    ///
    /// # Errors
    /// Why it stays, in one line.
    pub fn remove(&self, id: NodeId) -> Result<(), String> {
        let mut next = self.membership();
        let name = next.members.get(&id).map(|member| member.name.clone()).unwrap_or_default();
        if id == self.me || self.coordinator.view.load().is_live(id) {
            return Err(format!("node {name} ({id}) is live: stop it first"));
        }
        if !next.remove(id) {
            return Err(format!("there is no member {id}"));
        }
        if self.holds_data() {
            return Err("the cluster holds data: others would own partitions of which they have no row".into());
        }
        self.learn(&next);
        Ok(())
    }

    /// Admits a newcomer, a member that returned with a later incarnation, or, if it is `joining`, one without a
    /// directory that comes in the place of a member that is away.
    ///
    /// # Errors
    /// Why it was refused, in one line: the layout of a cluster that holds data must not change hands without a transfer.
    pub async fn admit(&self, newcomer: Member, joining: bool) -> Result<Entry, String> {
        let mut next = self.membership();
        if let Some(member) = next.members.get(&newcomer.id).cloned() {
            if let Some(why) = self.displaced(&member, &newcomer).await {
                return Ok(Entry::Dismissed(why));
            }
            next.members.insert(newcomer.id, newcomer);
            self.learn(&next);
            return Ok(Entry::Known(member.incarnation));
        }
        if let Some(other) = next.named(&newcomer.name) {
            let (id, life) = (other.id, other.incarnation);
            let taken = format!("the name {} is taken by node {id}", newcomer.name);
            // One that has just started does not know who is there.
            let knows = self.watch.now() >= self.options.failure_timeout;
            let free = id != self.me && joining && knows && !self.is_reached_by_anyone(id, u64::MAX).await;
            return if free { Ok(Entry::Known(life)) } else { Err(taken) };
        }
        let members = next.present().count();
        if self.holds_data() && members >= usize::from(next.replicas) {
            return Err(format!(
                "the cluster holds data and has {members} members: one more would own partitions of which it has no row"
            ));
        }
        next.members.insert(newcomer.id, newcomer);
        self.learn(&next);
        Ok(Entry::New)
    }

    /// Why whoever comes under the id of a member cannot be it, if so: it was removed, or it lives elsewhere.
    async fn displaced(&self, member: &Member, newcomer: &Member) -> Option<String> {
        if !member.is_present() {
            return Some(removed(member.id));
        }
        let moved = newcomer.incarnation > member.incarnation && newcomer.peer_addr() != member.peer_addr();
        let there = moved && self.is_reached_by_anyone(member.id, member.incarnation).await;
        // Others may have told of its new place meanwhile.
        let known = |known: &Member| known.incarnation >= newcomer.incarnation;
        let there = there && !self.membership.lock().members.get(&member.id).is_some_and(known);
        there.then(|| {
            format!("another node took the place of this one: {} is live at {}", member.id, member.peer_addr())
        })
    }

    fn holds_data(&self) -> bool {
        self.replica().regions().next().is_some()
    }

    /// Whether there are others, and none of them is live.
    pub fn sees_nobody(&self) -> bool {
        let view = self.coordinator.view.load();
        !view.is_alone() && view.nodes.values().filter(|standing| standing.live).count() == 1
    }

    /// Forms the opinion anew and swaps the view if it differs.
    pub(super) fn refresh(&self, members_changed: bool) {
        let membership = self.membership.lock();
        let old = self.coordinator.view.load_full();
        let own = self.health();
        let opinion = {
            let (detector, now) = (self.watch.detector.lock(), self.watch.now());
            let of = |id: NodeId| match detector.is_live(id, now) {
                true => (true, detector.health(id)),
                false => (false, Health::default()),
            };
            let ids = membership.present().map(|member| member.id);
            ids.map(|id| (id, if id == self.me { (true, own) } else { of(id) })).collect::<BTreeMap<_, _>>()
        };
        let same = |standing: &Standing| opinion.get(&standing.member.id) == Some(&(standing.live, standing.health));
        if !members_changed && old.nodes.values().all(same) {
            return;
        }
        let nodes = standings(&membership, self.me, own, |id| opinion.get(&id).copied().unwrap_or_default());
        let ring = if members_changed { ring_of(&membership, &old) } else { old.ring.clone() };
        let view = ClusterView::new(self.me, ring, nodes);
        *self.digest.lock() = membership.digest(view.ring.layout());
        self.log_changes(&old, &view);
        self.unsettle(&old, &view);
        self.coordinator.view.store(Arc::new(view));
    }

    /// A partition that this node begins to coordinate, or to own, may have seen writes that it has not.
    fn unsettle(&self, old: &ClusterView, new: &ClusterView) {
        for partition in new.ring.partitions().iter() {
            let mine = new.coordinator(partition) == Some(self.me);
            let was_mine = old.coordinator(partition) == Some(self.me);
            let moved = old.ring.owners(partition) != new.ring.owners(partition);
            if moved && !new.is_alone() {
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
        self.note_loneliness(old, new);
    }

    /// One that had peers and has none serves what it can, and says once that it is by itself.
    fn note_loneliness(&self, old: &ClusterView, new: &ClusterView) {
        let live = |view: &ClusterView| view.nodes.values().filter(|standing| standing.live).count();
        let others = new.nodes.len().saturating_sub(1);
        if live(new) > 1 || others == 0 {
            if self.lonely.swap(false, Ordering::Relaxed) {
                tracing::info!("This node is not alone any more");
            }
        } else if live(old) > 1 && !self.lonely.swap(true, Ordering::Relaxed) {
            tracing::warn!("This node is alone: none of {others} other members answers");
        }
    }

    fn keep(&self, membership: &Membership) {
        let change = Change::put(Space::Node, MEMBERSHIP_KEY, membership.encode());
        if let Err(error) = self.replica().committer().submit([change], &[]) {
            tracing::warn!("the membership could not be stored: {error}");
        }
    }
}

/// How a node that dials is met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// It is a member from now on.
    New,
    /// It was one before, under this incarnation; or it is to take the place of the member of its name, which had it.
    Known(u64),
    /// It was one, and is none any more: it was removed, or somebody else is it.
    Dismissed(String),
}

fn removed(id: NodeId) -> String {
    format!("node {id} was removed from its cluster: to join again it needs an empty directory")
}

/// The ring of these members: the old one, if nobody came or went.
fn ring_of(membership: &Membership, old: &ClusterView) -> Arc<Ring> {
    let layout = membership.layout();
    if layout == *old.ring.layout() { old.ring.clone() } else { Arc::new(Ring::new(layout)) }
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
    membership.present().map(standing).collect()
}
