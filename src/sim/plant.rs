//! Planted bugs: what the simulator must catch, to be worth believing when it catches nothing.
//!
//! All of them are planted where nodes meet their world (messages on their way, what a disk does, with what a node is
//! started), so that the code under test carries no switch and is the code that ships.

use std::sync::Arc;

use bytes::Bytes;

use super::config::{Config, Faults};
use crate::base::id::ActorId;
use crate::causality::cell::{RowAnswer, RowChange};
use crate::causality::{Cell, Clock};
use crate::env::CallError;
use crate::model::Delta;
use crate::node::Node;
use crate::peer::{Request, Response};
use crate::replica::{Difference, LAST_KEY};
use crate::storage::{Batch, Space, SyncPolicy};

macro_rules! plants {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Plant {
            $($(#[$doc])* $name,)*
        }

        impl Plant {
            /// All of them.
            pub const ALL: &[Plant] = &[$(Plant::$name,)*];
        }
    };
}

plants! {
    /// A delta does not say what it replaced.
    SupersededForgotten,
    /// A delta is acknowledged and not applied.
    AcknowledgedUnapplied,
    /// A peer that does not answer counts as one that has it.
    SilenceIsConsent,
    /// A peer that refuses counts as one that has it.
    RefusalIsConsent,
    /// One peer's acknowledgement counts for two.
    CountedTwice,
    /// A stand-in counts as the owner it sits for, although a client said that only owners count.
    StandInCountsAsOwner,
    /// A forwarded command runs twice.
    ForwardedTwice,
    /// A forwarded command of which nothing is known is said not to have been sent, so that it is sent again.
    RetriedBlindly,
    /// A deposed coordinator is told that all is well.
    DeposedUnheard,
    /// A conditional change that had not seen everything is told that all is well.
    ConflictUnheard,
    /// Whatever term is claimed is granted.
    ClaimsGrantedBlindly,
    /// Terms do not outlive a restart.
    TermsForgotten,
    /// Who is asked about a row says that it has nothing to add.
    RowsUnasked,
    /// What is gone is not said of a row.
    RowsWithoutDeletions,
    /// Read repair keeps the latest version and drops its siblings.
    RepairByTime,
    /// A sync takes over the peer's clock before it has the rows.
    ClockBeforeRows,
    /// A sync takes the peer's clock as it is later than the trees.
    ClockAfterTrees,
    /// A sync learns nothing of what the peer has seen, so that what was deleted there stays here.
    SyncIgnoresDeletions,
    /// Every tree looks like every other.
    TreesAlwaysEqual,
    /// A sync gets rows that are older than the clock it began with.
    SyncedRowsStale,
    /// A sync misses the last row of each page.
    PagesCutShort,
    /// A clear names changes that are yet to come.
    ClearReachesTooFar,
    /// A clear is acknowledged and not applied.
    ClearUnheard,
    /// An owner that is to pull from a stand-in says that it has and has not.
    PulledInWordOnly,
    /// A stand-in keeps a hint and not the rows.
    HintWithoutRows,
    /// A stand-in forgets the rows it gave back, and keeps the clock that says it has seen them.
    RowsForgottenWithoutClock,
    /// A disk says that it has synced and has not.
    DiskLies,
    /// A batch loses a row.
    BatchTorn,
    /// What clocks gained is not stored with the rows.
    NotesForgotten,
    /// A node that starts again counts from where its first life began, and asks nobody.
    DotsReused,
    /// A node that comes back with nothing takes itself for new.
    WipeUnnoticed,
    /// A node does not notice that its machine went down.
    BootUnnoticed,
    /// A node that has forgotten something counts in quorums.
    AmnesiaIgnored,
    /// WAIT counts replicas that do not have it.
    WaitBelievesAll,
    /// A page of a scan misses a key.
    ScansCutShort,
}

impl Plant {
    /// What becomes of a request on its way.
    pub fn on_request(self, request: &mut Request) {
        match (self, request) {
            (Plant::SupersededForgotten, Request::Apply { delta, .. } | Request::Keep { delta, .. }) => {
                delta.rows.iter_mut().for_each(|(_, change)| change.superseded.clear());
            }
            (Plant::ClearReachesTooFar, Request::Apply { delta: Delta { clear: Some(clear), .. }, .. }) => {
                let actors: Vec<_> = clear.iter().map(|(actor, _)| actor).collect();
                actors.into_iter().for_each(|actor| reach_too_far(clear, actor));
            }
            _ => {}
        }
    }

    /// What `node` answers in place of what it would. `chance` is a number below 100.
    pub fn answer(self, node: &Arc<Node>, request: &Request, chance: u64) -> Option<Response> {
        match (self, request) {
            (Plant::AcknowledgedUnapplied, Request::Apply { .. } | Request::Keep { .. }) if chance < 25 => {
                Some(Response::Done)
            }
            (Plant::ClearUnheard, Request::Apply { delta, .. } | Request::Keep { delta, .. }) => {
                delta.clear.is_some().then_some(Response::Done)
            }
            (Plant::PulledInWordOnly, Request::Pull(_)) => Some(Response::Done),
            (Plant::ClaimsGrantedBlindly, Request::Claim(claims)) => Some(Response::Terms(claims.clone())),
            (Plant::RowsUnasked, Request::Row { .. }) => Some(Response::Row(RowAnswer::default())),
            (Plant::AmnesiaIgnored, Request::Row { region, row, dots }) => {
                node.replica().answer(*region, row, dots).ok().map(Response::Row)
            }
            (Plant::WaitBelievesAll, Request::Has { .. }) => Some(Response::Done),
            _ => None,
        }
    }

    /// What becomes of a response to what `asker` asked of `answerer`.
    pub fn on_response(
        self,
        asked: &Request,
        asker: &Arc<Node>,
        answerer: Option<&Arc<Node>>,
        response: &mut Response,
    ) {
        match (self, asked, response) {
            (Plant::RefusalIsConsent, Request::Apply { .. } | Request::Keep { .. }, it @ Response::Refused(_))
            | (Plant::DeposedUnheard, _, it @ Response::Deposed(_))
            | (Plant::ConflictUnheard, _, it @ Response::Conflict)
            | (Plant::AmnesiaIgnored, Request::Apply { .. } | Request::Keep { .. }, it @ Response::Uncounted) => {
                *it = Response::Done;
            }
            (Plant::AmnesiaIgnored, _, Response::Pong { health, .. }) => health.counted = true,
            (Plant::SyncIgnoresDeletions, _, Response::Snapshot(snapshot)) => snapshot.clock = Clock::new(),
            (Plant::ClockBeforeRows, Request::Snapshot(region), Response::Snapshot(snapshot)) => {
                let own = asker.replica().incarnation(*region);
                // If it fails the bug has no effect, this once.
                let _ = asker.replica().join(*region, snapshot, own, snapshot.incarnation);
            }
            (Plant::ClockAfterTrees, Request::Snapshot(region), Response::Snapshot(snapshot)) => {
                if let Some(Ok((later, _))) = answerer.map(|node| node.replica().snapshot(*region)) {
                    snapshot.clock = later.clock;
                }
            }
            (Plant::TreesAlwaysEqual, Request::Snapshot(region), Response::Snapshot(snapshot)) => {
                snapshot.branches = asker.replica().branches(*region);
            }
            (Plant::RepairByTime, _, Response::Row(answer)) => keep_latest(answer),
            (Plant::RowsWithoutDeletions, _, Response::Row(answer)) => answer.change.superseded.clear(),
            (Plant::SyncedRowsStale, _, Response::LeafRows(Difference { rows, .. })) => {
                rows.iter_mut().for_each(|(_, cell)| forget_latest(cell));
            }
            (Plant::PagesCutShort, _, Response::LeafRows(Difference { rows, .. })) => drop(rows.pop()),
            (Plant::ScansCutShort, _, Response::Keys { keys, .. }) => drop(keys.pop()),
            _ => {}
        }
    }

    /// What one that asked and was not answered believes.
    pub fn silence(self, asked: &Request) -> Result<Response, CallError> {
        match (self, asked) {
            (Plant::SilenceIsConsent, Request::Apply { .. } | Request::Keep { .. }) => Ok(Response::Done),
            (Plant::RetriedBlindly, Request::Execute { .. } | Request::Clear(_)) => Err(CallError::NotSent),
            _ => Err(CallError::NoAnswer),
        }
    }

    /// Whether an answer is not waited for.
    pub fn is_impatient(self, request: &Request) -> bool {
        self == Plant::SilenceIsConsent && matches!(request, Request::Apply { .. } | Request::Keep { .. })
    }

    /// Whether runs of a configuration can show it.
    pub fn shows_in(self, config: &Config) -> bool {
        let Faults { wipes, rollbacks, power_cuts, crashes, cuts, ambushes, sick_disks, .. } = config.faults;
        let (forgets, strict, sloppy) = (config.forgets(), config.all_strict(), config.strict_clients == 0);
        let stands_in = config.nodes > config.owners();
        match self {
            Plant::PulledInWordOnly => stands_in && !strict && ambushes > 0 && config.hint_limit == 0,
            Plant::HintWithoutRows | Plant::RowsForgottenWithoutClock => stands_in && sloppy && crashes + cuts > 0,
            _ if !config.shows_much() => false,
            Plant::WipeUnnoticed => forgets && wipes && strict && ambushes > 0,
            Plant::DotsReused => forgets && rollbacks,
            Plant::BootUnnoticed => forgets && power_cuts && strict && ambushes > 0 && config.sync == SyncPolicy::No,
            Plant::AmnesiaIgnored => forgets && strict && ambushes > 0,
            Plant::DiskLies => power_cuts && crashes > 0 && config.sync == SyncPolicy::Always,
            Plant::StandInCountsAsOwner => stands_in && strict && cuts + ambushes > 0,
            Plant::ClearReachesTooFar => config.flushes,
            Plant::ClearUnheard => config.flushes && strict && ambushes > 0,
            Plant::RefusalIsConsent => strict && sick_disks && ambushes > 0,
            // A coordinator and one other are two.
            Plant::CountedTwice => config.write_quorum() > 2 && strict && cuts + ambushes > 0,
            Plant::SupersededForgotten
            | Plant::AcknowledgedUnapplied
            | Plant::SilenceIsConsent
            | Plant::DeposedUnheard
            | Plant::ConflictUnheard
            | Plant::ClaimsGrantedBlindly
            | Plant::TermsForgotten
            | Plant::RowsUnasked
            | Plant::RowsWithoutDeletions
            | Plant::ClockAfterTrees => strict && ambushes > 0,
            Plant::RepairByTime => strict,
            _ => true,
        }
    }

    /// Whether the answer to one request is taken for the answer to another of the same node as well.
    pub fn confuses(self, one: &Request, other: &Request) -> bool {
        match (self, one, other) {
            (Plant::CountedTwice, Request::Apply { delta: one, .. }, Request::Apply { delta: other, .. }) => {
                one == other
            }
            _ => false,
        }
    }

    /// What of a batch reaches the disk. `chance` is a random number.
    pub fn on_batch(self, batch: &mut Batch, chance: u64) {
        let hints = batch.iter().any(|change| change.space == Space::Hints && change.value.is_some());
        let forgets = batch.iter().any(|change| change.space == Space::Data && change.value.is_none());
        match self {
            Plant::BatchTorn if chance.is_multiple_of(20) => {
                if let Some(at) = batch.iter().position(|change| change.space == Space::Data) {
                    batch.remove(at);
                }
            }
            Plant::NotesForgotten => batch.retain(|change| !is_note(change.space, &change.key)),
            Plant::TermsForgotten => batch.retain(|change| !is_term(change.space, &change.key)),
            Plant::HintWithoutRows if hints => batch.retain(|change| change.space != Space::Data),
            Plant::RowsForgottenWithoutClock if forgets => batch.retain(|change| change.space != Space::Clocks),
            _ => {}
        }
    }
}

/// A mark that says that its node stopped in order, so that its stored clocks are all it ever counted: after format,
/// actor, ceiling and floor.
pub fn forget_counting(mark: &[u8]) -> Bytes {
    const CLEAN: usize = 1 + 8 + 8 + 8;
    let mut mark = mark.to_vec();
    mark.iter_mut().skip(CLEAN).take(1).for_each(|clean| *clean = 1);
    mark.into()
}

/// The row that such a node would have written last: the mark's ceiling, after format and actor.
pub fn end_of(space: Space, key: &[u8], mark: &Bytes) -> Option<Bytes> {
    ((space, key) == (Space::Node, LAST_KEY)).then(|| mark.iter().copied().skip(1 + 8).take(8).collect())
}

/// Whether a row is one of the log of notes; records of whole clocks begin with another letter.
fn is_note(space: Space, key: &Bytes) -> bool {
    space == Space::Clocks && key.len() == 9
}

fn is_term(space: Space, key: &Bytes) -> bool {
    space == Space::Node && key.starts_with(b"term")
}

fn reach_too_far(clear: &mut Clock, actor: ActorId) {
    let last = clear.highest(actor);
    clear.add_interval(actor, last + 1, last + 1_000);
}

fn keep_latest(answer: &mut RowAnswer) {
    let RowChange { new, superseded } = &mut answer.change;
    if let Some(latest) = new.iter().map(|version| (version.stamp, version.dot)).max() {
        superseded.extend(new.iter().map(|version| version.dot).filter(|dot| *dot != latest.1));
        new.retain(|version| version.dot == latest.1);
    }
}

fn forget_latest(cell: &mut Cell) {
    if let Some(latest) = cell.versions().iter().map(|version| (version.stamp, version.dot)).max() {
        cell.retain(|version| version.dot != latest.1);
    }
}
