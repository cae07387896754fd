//! Planted bugs: what the simulator must catch, to be worth believing when it catches nothing.
//!
//! All of them are planted where nodes meet their world (messages on their way, what a disk does), so that the code under
//! test carries no switch and is the code that ships.

use std::sync::Arc;

use bytes::Bytes;

use super::net::About;
use crate::base::id::ActorId;
use crate::causality::cell::{RowAnswer, RowChange};
use crate::causality::{Cell, Clock};
use crate::model::Delta;
use crate::node::Node;
use crate::peer::{Request, Response};
use crate::replica::Difference;
use crate::storage::{Batch, Space};

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A delta does not say what it replaced.
    SupersededForgotten,
    /// A sync takes over the peer's clock before it has the rows.
    ClockBeforeRows,
    /// A delta is acknowledged and not applied.
    AcknowledgedUnapplied,
    /// A peer that does not answer counts as one that has it.
    SilenceIsConsent,
    /// A forwarded command runs twice.
    ForwardedTwice,
    /// A forwarded command of which nothing is known is said not to have been sent, so that it is sent again.
    RetriedBlindly,
    /// A sync learns nothing of what the peer has seen, so that what was deleted there stays here.
    SyncIgnoresDeletions,
    /// Every tree looks like every other.
    TreesAlwaysEqual,
    /// Read repair keeps the latest version and drops its siblings.
    RepairByTime,
    /// A disk says that it has synced and has not.
    DiskLies,
    /// A batch loses a row.
    BatchTorn,
    /// What clocks gained is not stored with the rows.
    NotesForgotten,
    /// A node that starts again counts from where its first life began.
    DotsReused,
    /// A clear names changes that are yet to come.
    ClearReachesTooFar,
    /// A sync gets rows that are older than the clock it began with.
    SyncedRowsStale,
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 15] = [
        Plant::SupersededForgotten,
        Plant::ClockBeforeRows,
        Plant::AcknowledgedUnapplied,
        Plant::SilenceIsConsent,
        Plant::ForwardedTwice,
        Plant::RetriedBlindly,
        Plant::SyncIgnoresDeletions,
        Plant::TreesAlwaysEqual,
        Plant::RepairByTime,
        Plant::DiskLies,
        Plant::BatchTorn,
        Plant::NotesForgotten,
        Plant::DotsReused,
        Plant::ClearReachesTooFar,
        Plant::SyncedRowsStale,
    ];

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

    /// What becomes of a response to `node`, which asked for something `about`.
    pub(super) fn on_response(self, about: About, node: &Arc<Node>, response: &mut Response) {
        match (self, response) {
            (Plant::SyncIgnoresDeletions, Response::Snapshot(snapshot)) => snapshot.clock = Clock::new(),
            (Plant::ClockBeforeRows, Response::Snapshot(snapshot)) => {
                if let About::Snapshot(region) = about {
                    // If it fails the bug has no effect, this once.
                    let _ =
                        node.replica().join(region, snapshot, node.replica().incarnation(region), snapshot.incarnation);
                }
            }
            (Plant::TreesAlwaysEqual, Response::Snapshot(snapshot)) => {
                if let About::Snapshot(region) = about {
                    snapshot.branches = node.replica().branches(region);
                }
            }
            (Plant::RepairByTime, Response::Row(answer)) => keep_latest(answer),
            (Plant::SyncedRowsStale, Response::LeafRows(Difference { rows, .. })) => {
                rows.iter_mut().for_each(|(_, cell)| forget_latest(cell));
            }
            _ => {}
        }
    }

    /// What of a batch reaches the disk. `chance` is a random number.
    pub fn on_batch(self, batch: &mut Batch, chance: u64) {
        match self {
            Plant::BatchTorn if chance.is_multiple_of(20) => {
                if let Some(at) = batch.iter().position(|change| change.space == Space::Data) {
                    batch.remove(at);
                }
            }
            Plant::NotesForgotten => batch.retain(|change| !is_note(change.space, &change.key)),
            _ => {}
        }
    }
}

/// Whether a row is one of the log of notes; records of whole clocks begin with another letter.
fn is_note(space: Space, key: &Bytes) -> bool {
    space == Space::Clocks && key.len() == 9
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
