//! Terms: who coordinates a partition (rule 7 of the causality rules).
//!
//! A coordinator claims a term at N − W other owners, then reads from those very owners, then evaluates under that term.
//! Every write that was acknowledged before has one of them in its quorum, so it is seen by the read; every write of an
//! earlier coordinator that reaches one of them afterwards is answered with "deposed". It must be in this order: a read
//! before the claim would miss what was acknowledged in between.
//!
//! A [`Hold`] is a term with those who granted it. It serves all commands of the partition until a later term becomes
//! known; commands that come while it is being claimed wait for it. A partition whose every row was pulled from those
//! owners since is *settled*: its commands are evaluated at once.
//!
//! Only who takes itself for the coordinator may claim: every claim deposes whoever coordinates now. A node that just
//! wants to hold what it should pulls, and claims nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use super::Coordinator;
use super::telling::Nodes;
use crate::base::id::{NodeId, Partition, Term};
use crate::metrics;
use crate::peer::{Request, Response};

/// How often a claim is renewed that others were faster than.
const TRIES: u32 = 4;
/// How long to leave the way to another who claims as well; doubled with each try, and never quite the same.
const STEP_BACK: Duration = Duration::from_millis(5);

/// A term of this node, and who granted it.
#[derive(Debug, Clone)]
pub struct Hold {
    /// The term.
    pub term: Term,
    /// The other owners that granted it.
    pub granted: Nodes,
    /// When those that did not were asked last.
    asked: Instant,
}

/// By what this node coordinates a partition.
#[derive(Default)]
struct Place {
    hold: Option<Hold>,
    /// The term that is being claimed, or was: it is not claimed again while it is the latest.
    claimed: Option<Term>,
    settled: bool,
    caught_up: bool,
}

/// By what this node coordinates partitions.
pub(super) struct Terms {
    places: Vec<Mutex<Place>>,
    /// Held by whoever claims for all who wait.
    turns: Vec<tokio::sync::Mutex<()>>,
}

impl Terms {
    /// None yet.
    pub(super) fn new(partitions: usize) -> Terms {
        let places = (0..partitions).map(|_| Mutex::default()).collect();
        Terms { places, turns: (0..partitions).map(|_| tokio::sync::Mutex::default()).collect() }
    }

    fn with<T>(&self, partition: Partition, look: impl FnOnce(&mut Place) -> T) -> Option<T> {
        self.places.get(usize::from(partition.0)).map(|place| look(&mut place.lock()))
    }
}

/// What a round of claims came to.
#[derive(Default)]
struct Claimed {
    granted: BTreeMap<Partition, Nodes>,
    /// A later term was known somewhere.
    refused: bool,
}

impl Coordinator {
    /// Whether this node may coordinate `partition` without asking others first.
    pub fn is_settled(&self, partition: Partition) -> bool {
        self.settled(partition).is_some()
    }

    /// The term under which it may.
    pub(super) fn settled(&self, partition: Partition) -> Option<Term> {
        let term = self
            .terms
            .with(partition, |place| place.hold.as_ref().filter(|_| place.settled).map(|hold| hold.term))??;
        (self.replica.term(partition) == term).then_some(term)
    }

    /// Everything that those who granted `term` had of `partition` since has been pulled. Of no effect if a later term has
    /// become known meanwhile.
    pub fn set_settled(&self, partition: Partition, term: Term) {
        self.terms.with(partition, |place| {
            let hold = place.hold.get_or_insert_with(|| Hold { term, granted: Nodes::new(), asked: Instant::now() });
            place.settled |= hold.term == term;
            place.caught_up = true;
        });
    }

    /// From now on this node asks before it evaluates: it may have missed something.
    pub fn unsettle(&self, partition: Partition) {
        self.terms.with(partition, |place| place.settled = false);
    }

    /// Whether this node has pulled what enough other owners had of `partition`, since it may have missed something.
    pub fn is_caught_up(&self, partition: Partition) -> bool {
        self.terms.with(partition, |place| place.caught_up).unwrap_or(false)
    }

    /// Says so; to say that it has not also unsettles.
    pub fn set_caught_up(&self, partition: Partition, yes: bool) {
        self.terms.with(partition, |place| {
            place.caught_up = yes;
            place.settled &= yes;
        });
    }

    /// How many other owners must grant a term, and be read from, so that every quorum of `write` replicas is met: N − W,
    /// and one more if this node itself does not count.
    pub fn others_to_hear(&self, partition: Partition, write: usize) -> usize {
        let view = self.view.load();
        let owners = view.ring.owner_count(partition);
        let here = view.owns(partition) && view.counts(view.me);
        (owners + usize::from(!here))
            .saturating_sub(write.max(1))
            .min(owners.saturating_sub(usize::from(view.owns(partition))))
    }

    /// Claims terms of partitions that this node is about to settle as their coordinator, and answers by what it holds
    /// them then. Those to pull from are [`Hold::granted`]; those to pull from before [`Coordinator::set_settled`] are
    /// as many of them as [`Coordinator::others_to_hear`] says.
    pub async fn claim(self: &Arc<Self>, partitions: &[Partition]) -> BTreeMap<Partition, Hold> {
        let write = self.quorums.least_write();
        let wanting = |partition: &Partition| match self.held(*partition) {
            Some(hold) => self.live_of(&hold).count() < self.others_to_hear(*partition, write),
            None => true,
        };
        let wanting: Vec<Partition> = partitions.iter().copied().filter(wanting).collect();
        self.claim_once(&wanting, usize::MAX).await;
        partitions.iter().filter_map(|partition| Some((*partition, self.held(*partition)?))).collect()
    }

    /// By what this node coordinates a partition, claimed if need be. With fewer than `others` owners that granted it,
    /// which only those may go on with whose quorums are not strict.
    pub(super) async fn hold(&self, partition: Partition, others: usize) -> Option<Hold> {
        let _turn = self.terms.turns.get(usize::from(partition.0))?.lock().await;
        for tried in 0..TRIES {
            if let Some(hold) = self.held(partition)
                && (self.live_of(&hold).count() >= others || hold.asked.elapsed() < self.patience)
            {
                return Some(hold);
            }
            // Also where nobody need grant it: whoever has a later term says so now, not when something has been written.
            if !self.claim_once(&[partition], others.max(1)).await {
                return self.held(partition);
            }
            self.step_back(tried).await;
        }
        None
    }

    /// Leaves the way to others for a moment.
    pub(super) async fn step_back(&self, tried: u32) {
        let most = STEP_BACK.as_micros() as u64 * (1 << tried.min(6));
        sleep(Duration::from_micros(self.env.random() % most)).await;
    }

    /// Its hold, if no later term is known.
    pub(super) fn held(&self, partition: Partition) -> Option<Hold> {
        let hold = self.terms.with(partition, |place| place.hold.clone())??;
        (self.replica.term(partition) == hold.term).then_some(hold)
    }

    /// Lets go of a term, so that the next command claims another.
    pub(super) fn let_go(&self, partition: Partition, term: Term) {
        self.terms.with(partition, |place| {
            if place.hold.as_ref().is_some_and(|hold| hold.term == term) {
                (place.hold, place.claimed, place.settled) = (None, None, false);
            }
        });
    }

    /// Whether enough others know no later term than this one.
    pub(super) async fn still_holds(&self, partition: Partition, term: Term, others: usize) -> bool {
        self.outlived(&[(partition, term, others)]).await.is_empty()
    }

    /// Those of some partitions, each with a term and how many others must know no later one, of which they do not say so.
    pub(super) async fn outlived(&self, held: &[(Partition, Term, usize)]) -> Vec<Partition> {
        let claims: Vec<(Partition, Term)> = held.iter().map(|(at, term, _)| (*at, *term)).collect();
        let most = held.iter().map(|(.., others)| *others).max().unwrap_or_default();
        let claimed = self.ask_owners(&claims, most).await;
        let holds = |(at, term, others): &&(Partition, Term, usize)| {
            claimed.granted.get(at).map_or(0, |by| by.len()) >= *others && self.replica.term(*at) == *term
        };
        held.iter().filter(|held| !holds(held)).map(|(at, ..)| *at).collect()
    }

    /// Those who granted it and are live.
    pub(super) fn live_of(&self, hold: &Hold) -> impl Iterator<Item = NodeId> {
        let view = self.view.load_full();
        hold.granted.clone().into_iter().filter(move |node| view.is_live(*node))
    }

    /// Has more owners grant what is held, or claims the next term of what is not. Waits until `enough` others have granted
    /// each, or all have answered. Says whether somebody knew a later one.
    async fn claim_once(&self, partitions: &[Partition], enough: usize) -> bool {
        let claims: Vec<(Partition, Term)> = partitions.iter().map(|at| (*at, self.to_claim(*at))).collect();
        if claims.is_empty() {
            return false;
        }
        let Ok((latest, ticket)) = self.replica.grant(&claims) else { return false };
        let claimed = self.ask_owners(&claims, enough).await;
        if self.replica.committer().wait(ticket).await.is_err() {
            return false;
        }
        for (partition, term) in claims {
            let granted = claimed.granted.get(&partition).cloned().unwrap_or_default();
            self.terms.with(partition, |place| place.grant(term, granted));
        }
        claimed.refused || latest.iter().any(|(at, term)| self.replica.term(*at) != *term)
    }

    /// The term that is held, or else the next one.
    fn to_claim(&self, partition: Partition) -> Term {
        let known = self.replica.term(partition);
        if self.terms.with(partition, |place| place.claimed).flatten() == Some(known) {
            return known;
        }
        metrics::TERMS_CLAIMED.increment();
        let next = known.next(self.view.load().me);
        self.terms.with(partition, |place| place.claimed = Some(next));
        next
    }

    async fn ask_owners(&self, claims: &[(Partition, Term)], enough: usize) -> Claimed {
        let mut by_peer: BTreeMap<NodeId, Vec<(Partition, Term)>> = BTreeMap::new();
        for claim in claims {
            for peer in self.view.load().live_peers(claim.0) {
                by_peer.entry(peer).or_default().push(*claim);
            }
        }
        let mut asked: FuturesUnordered<BoxFuture<'_, _>> = FuturesUnordered::new();
        for (peer, claims) in by_peer {
            let call = self.env.call(peer, &Request::Claim(claims.clone()));
            asked.push(Box::pin(async move { (peer, claims, call.await) }));
        }
        let (mut claimed, deadline) = (Claimed::default(), Instant::now() + self.patience / 2);
        let has_enough =
            |claimed: &Claimed| claims.iter().all(|(at, _)| claimed.granted.get(at).map_or(0, |by| by.len()) >= enough);
        while !has_enough(&claimed) {
            match timeout_at(deadline, asked.next()).await {
                Ok(Some((peer, claims, Ok(Response::Terms(terms))))) => {
                    self.take_grants(&mut claimed, peer, &claims, &terms)
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        claimed
    }

    fn take_grants(
        &self,
        claimed: &mut Claimed,
        peer: NodeId,
        claims: &[(Partition, Term)],
        terms: &[(Partition, Term)],
    ) {
        for (partition, known) in terms {
            let Some((_, term)) = claims.iter().find(|(at, _)| at == partition) else { continue };
            if known == term {
                claimed.granted.entry(*partition).or_default().push(peer);
            } else if known > term {
                claimed.refused = true;
                self.adopt(*partition, *known);
            }
        }
    }

    /// Takes note of a term that somebody named.
    pub(super) fn adopt(&self, partition: Partition, term: Term) {
        // What is not stored is heard of again.
        let _ = self.replica.adopt(partition, term);
    }
}

impl Place {
    fn grant(&mut self, term: Term, by: Nodes) {
        let asked = Instant::now();
        match &mut self.hold {
            Some(hold) if hold.term == term => {
                hold.asked = asked;
                by.into_iter().for_each(|node| {
                    if !hold.granted.contains(&node) {
                        hold.granted.push(node);
                    }
                });
            }
            Some(hold) if hold.term > term => {}
            _ => {
                self.hold = Some(Hold { term, granted: by, asked });
                self.settled = false;
            }
        }
    }
}
