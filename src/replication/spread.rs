//! Commands whose keys lie in several regions: split, each region for its own keys, or gathered at one place.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;

use super::{Coordinator, Finished, Task, arguments};
use crate::base::id::Region;
use crate::commands::spec::{Across, Combine, Keys};
use crate::resp::Reply;

/// Where a key of a split command stands: which part has it, and as how-manieth key of that part.
struct Place {
    part: usize,
    key: usize,
}

impl Coordinator {
    pub(super) async fn spread(self: &Arc<Self>, task: Task) -> Finished {
        match task.spec.across {
            Across::Split(combine) => self.split(task, combine).await,
            Across::Gather => self.gather(task).await,
        }
    }

    async fn split(self: &Arc<Self>, task: Task, combine: Combine) -> Finished {
        let (parts, places) = self.parts(&task);
        let runs = parts.into_iter().map(|args| {
            let (this, task) = (self.clone(), Task { args, ..task.clone() });
            async move { this.run(task).await }
        });
        let done = join_all(runs).await;
        let wrote = done.iter().rev().find_map(|finished| finished.wrote);
        let replies: Vec<Reply> = done.into_iter().map(|finished| finished.reply).collect();
        Finished { reply: combined(replies, combine, &places), wrote }
    }

    /// The arguments of each region's part, and where each key went.
    fn parts(&self, task: &Task) -> (Vec<crate::resp::Arguments>, Vec<Place>) {
        let step = match task.spec.keys {
            Keys::Range { step, .. } => step,
            _ => 1,
        };
        let name = task.args.first().cloned().unwrap_or_default();
        let (mut parts, mut places) = (Vec::new(), Vec::new());
        let mut part_of: BTreeMap<Region, usize> = BTreeMap::new();
        for at in task.spec.keys.positions(&task.args) {
            let Some(taken) = task.args.get(at..(at + step).min(task.args.len())) else { continue };
            let Some(key) = taken.first() else { continue };
            let part = *part_of.entry(self.region_of(task.db, key)).or_insert_with(|| {
                parts.push(arguments([name.clone()]));
                parts.len() - 1
            });
            places.push(Place { part, key: (parts[part].len() - 1) / step });
            parts[part].extend(taken.iter().cloned());
        }
        (parts, places)
    }
}

/// One reply of many.
fn combined(replies: Vec<Reply>, combine: Combine, places: &[Place]) -> Reply {
    if let Some(error) = replies.iter().find(|reply| reply.is_error()) {
        return error.clone();
    }
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
