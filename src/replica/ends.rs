//! When the keys of a region end, in order: what is due is found without a look at what is not.
//!
//! An entry is a time and a token, 16 bytes and about 30 with what the map takes, only for keys that have an end; made anew
//! when the region is opened, kept by the one door. Names are not in it: a token leads to its row in the store as quickly
//! as a name would, and names would be most of the memory. An index in the store would cost every write with an end two
//! rows more, and every takeover of it would have to be as right as the rows are.

use std::collections::{BTreeMap, BTreeSet};

use crate::causality::expiry::{of_key, of_whole};
use crate::causality::{Cell, Local};
use crate::model::Visible;
use crate::ring::slot::Token;

/// See the module. How many keys of a token end at a time: two keys may share both.
#[derive(Debug, Default)]
pub struct Ends(BTreeMap<(u64, Token), u32>);

impl Ends {
    /// A row of `token` ended with `before` and ends with `after`, in milliseconds since the epoch.
    pub fn moved(&mut self, token: Token, before: Option<u64>, after: Option<u64>) {
        if before == after {
            return;
        }
        if let Some(end) = after {
            *self.0.entry((end, token)).or_default() += 1;
        }
        if let Some(end) = before
            && let Some(keys) = self.0.get_mut(&(end, token))
        {
            *keys = keys.saturating_sub(1);
            if *keys == 0 {
                self.0.remove(&(end, token));
            }
        }
    }

    /// When the first of them ends.
    pub fn first(&self) -> Option<u64> {
        self.0.first_key_value().map(|((end, _), _)| *end)
    }

    /// Tokens of keys that have ended at `now`: of the `limit` that ended first.
    pub fn due(&self, now: u64, limit: usize) -> BTreeSet<Token> {
        self.0.keys().take_while(|(end, _)| *end < now).take(limit).map(|(_, token)| *token).collect()
    }
}

/// With which millisecond the key of a head row ends, or the first of its elements that end by themselves; none if it is
/// not there, or stays for ever.
pub fn end_of(row: &Cell) -> Option<u64> {
    end_of_text(row).into_iter().chain(row.local().and_then(|local| end_of_collections(row, local))).min()
}

/// What was written after the end of its key is never hidden: such a collection stays, and what is hidden of it.
fn end_of_collections(row: &Cell, local: &Local) -> Option<u64> {
    let there = || local.parts.iter().filter(|part| part.is_there());
    let whole =
        of_whole(row.versions()).ms().filter(|end| there().next().is_some() && there().all(|part| part.latest <= *end));
    let own = there().filter(|part| part.ending > 0).map(|part| part.next_end);
    whole.into_iter().chain(own).min()
}

fn end_of_text(row: &Cell) -> Option<u64> {
    let end = of_key(row.versions()).ms()?;
    // A version that is stamped after its end is never hidden.
    let ends = Visible::of(row.versions(), 0).is_some() && Visible::of(row.versions(), u64::MAX).is_none();
    ends.then_some(end)
}
