//! Commands whose keys lie in several regions: split, each region for its own keys, or gathered at one place.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::{FutureExt, join_all};

use super::{Coordinator, Finished, Started, Task, arguments, may_have_been_done};
use crate::base::id::Region;
use crate::commands::spec::{Across, Combine, Flags, Keys};
use crate::resp::{Arguments, Reply};
use crate::storage::Ticket;

/// Where a key of a split command stands: which part has it, and as how-manieth key of that part.
struct Place {
    part: usize,
    key: usize,
}

impl Coordinator {
    /// Starts a command of several regions, those of its keys in turn. What this node can evaluate takes effect before this returns.
    pub(super) fn start_spread(self: &Arc<Self>, task: Task, regions: &[Region]) -> Started {
        if task.quorum.report {
            return Started::Done(Reply::error("ERR REPORT is for commands whose keys lie in one partition").into());
        }
        match task.spec.across {
            Across::Split(combine) => self.start_split(task, regions, combine),
            Across::Gather => {
                let this = self.clone();
                Started::Later(self.detached(async move { this.gather(task).await }))
            }
        }
    }

    fn start_split(self: &Arc<Self>, task: Task, regions: &[Region], combine: Combine) -> Started {
        let Task { spec, db, quorum, hops, .. } = task;
        self.replica.look_at(db, self.keys_of(&task));
        let (parts, places) = parts(task, regions);
        let writes = spec.flags.has(Flags::WRITE);
        let mut split = Split { combine, writes, places, done: Vec::with_capacity(parts.len()), ticket: None };
        let mut later = Vec::new();
        for (region, args) in parts {
            let part = split.done.len();
            split.done.push(Finished::reply(Reply::Nil));
            match self.start_in(region, Task { spec, args, db, quorum, hops }) {
                Started::Done(finished) => split.done[part] = finished,
                Started::Committed(finished, ticket) => {
                    split.done[part] = finished;
                    split.ticket = split.ticket.max(Some(ticket));
                }
                Started::Later(waiting) => later.push(waiting.map(move |finished| (part, finished))),
            }
        }
        if later.is_empty() {
            return split.finish();
        }
        let this = self.clone();
        Started::Later(Box::pin(async move {
            for (part, finished) in join_all(later).await {
                split.done[part] = finished;
            }
            match split.finish() {
                Started::Committed(finished, ticket) => this.committed(finished, ticket).await,
                Started::Done(finished) => finished,
                Started::Later(later) => later.await,
            }
        }))
    }
}

/// The arguments of each region's part, and where each key went; `regions` are those of the keys in turn.
fn parts(mut task: Task, regions: &[Region]) -> (Vec<(Region, Arguments)>, Vec<Place>) {
    let step = match task.spec.keys {
        Keys::Range { step, .. } => step,
        _ => 1,
    };
    let name = task.args.first().cloned().unwrap_or_default();
    let mut parts: Vec<(Region, Arguments)> = Vec::with_capacity(regions.len());
    let mut places = Vec::with_capacity(regions.len());
    let mut part_of: BTreeMap<Region, usize> = BTreeMap::new();
    for (at, region) in task.spec.keys.positions(&task.args).into_iter().zip(regions) {
        let part = *part_of.entry(*region).or_insert_with(|| {
            parts.push((*region, arguments([name.clone()])));
            parts.len() - 1
        });
        let (end, args) = ((at + step).min(task.args.len()), &mut parts[part].1);
        places.push(Place { part, key: (args.len() - 1) / step });
        args.extend(task.args.get_mut(at..end).unwrap_or_default().iter_mut().map(std::mem::take));
    }
    (parts, places)
}

/// A split command on its way.
struct Split {
    combine: Combine,
    writes: bool,
    places: Vec<Place>,
    done: Vec<Finished>,
    /// The commit that the parts evaluated here wait for.
    ticket: Option<Ticket>,
}

impl Split {
    fn finish(self) -> Started {
        let wrote = self.done.iter().rev().find_map(|finished| finished.wrote);
        let replies: Vec<Reply> = self.done.into_iter().map(|finished| finished.reply).collect();
        let reply = failure(&replies, self.writes).unwrap_or_else(|| combined(replies, self.combine, &self.places));
        let finished = Finished { reply, wrote };
        match self.ticket {
            Some(ticket) => Started::Committed(finished, ticket),
            None => Started::Done(finished),
        }
    }
}

/// The error that a failed part makes of the whole. Where another part was done, or may have been, a write is not one
/// that was not done.
fn failure(replies: &[Reply], writes: bool) -> Option<Reply> {
    let error = replies.iter().find(|reply| reply.is_error())?;
    match writes && replies.iter().any(may_have_been_done) {
        true => Some(Finished::unknown("not all of its keys' replicas answered as they should").reply),
        false => Some(error.clone()),
    }
}

/// One reply of many.
fn combined(replies: Vec<Reply>, combine: Combine, places: &[Place]) -> Reply {
    match combine {
        Combine::Sum => Reply::Int(replies.iter().map(|reply| if let Reply::Int(n) = reply { *n } else { 0 }).sum()),
        Combine::AllOk => Reply::ok(),
        Combine::Interleave => Reply::Array(places.iter().map(|place| element(&replies, place)).collect()),
    }
}

fn element(replies: &[Reply], place: &Place) -> Reply {
    match replies.get(place.part) {
        Some(Reply::Array(items)) => items.get(place.key).cloned().unwrap_or(Reply::Nil),
        _ => Reply::Nil,
    }
}
