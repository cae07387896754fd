//! Looking ahead: what a command of several keys is about to need is asked of memory all at once.
//!
//! A row that lies nowhere near the processor is a dozen waits, one behind the other: its place in the cache of heads, its
//! entry, its cell, its value, its leaf of the hash tree. Ten rows one by one are ten dozen; but memory answers many
//! questions at once nearly as fast as one. So before such a command is evaluated, region by region and key by key, all
//! its rows are looked at together, and what they hold is on its way while the next is searched for.
//!
//! Nothing is decided here and nothing kept: rows may change between the look and the command. No lock is waited for.

use std::hint::black_box;

use bytes::Bytes;
use smallvec::SmallVec;

use super::Replica;
use super::region::leaf_of;
use crate::base::id::{Db, Region};
use crate::model::RowKey;
use crate::ring::slot::Token;

/// Rows of which memory is asked for at once.
pub(super) const AT_ONCE: usize = 16;

/// A row by what its places are found by.
struct Sought {
    hash: u128,
    token: Token,
}

impl Replica {
    /// Looks at what is known of keys that are about to be asked for.
    pub fn look_at<'k>(&self, db: Db, keys: impl IntoIterator<Item = &'k Bytes>) {
        let mut scratch = Vec::with_capacity(128);
        let mut rows = keys.into_iter().map(|key| self.sought(db, key, &mut scratch));
        loop {
            let some: SmallVec<[Sought; AT_ONCE]> = rows.by_ref().take(AT_ONCE).collect();
            if some.is_empty() {
                return;
            }
            self.heads.look_at(some.iter().map(|sought| sought.hash));
            self.look_at_trees(db, &some);
        }
    }

    fn sought(&self, db: Db, key: &[u8], row: &mut Vec<u8>) -> Sought {
        let token = Token::of(key);
        row.clear();
        RowKey::put_head_at(db, token, key, row);
        Sought { hash: self.heads.hash(row), token }
    }

    /// Reads of the lines that a change of these rows toggles.
    fn look_at_trees(&self, db: Db, rows: &[Sought]) {
        let locked = |sought: &Sought| {
            let region = Region { db, partition: self.partitions.of_token(sought.token) };
            let state = self.regions.get(self.place(region))?.get()?.try_lock()?;
            Some((state, leaf_of(self.partitions, sought.token)))
        };
        let states: SmallVec<[_; AT_ONCE]> = rows.iter().filter_map(locked).collect();
        black_box(states.iter().fold(0, |seen, (state, leaf)| seen ^ state.tree.touch(*leaf)));
    }
}
