//! Reading rows: where they come from, and the view that commands which change nothing are given.

use std::sync::Arc;

use bytes::Bytes;

use super::image::Image;
use super::look::{Look, RowPage};
use super::row::RowKey;
use super::visible::Visible;
use crate::base::id::Db;
use crate::base::kind::Kind;
use crate::causality::context::{Context, Sealer};
use crate::causality::expiry::Deadline;
use crate::causality::{Cell, Clock, Moment};

/// Why rows could not be read or changed, through no fault of the command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The store failed.
    #[error("storage: {0}")]
    Store(String),
    /// No changes are taken in now: nothing was changed.
    #[error("{0}")]
    NoWrites(String),
    /// No dot may be given now: the lease could not be extended, or this node must take a new actor first.
    #[error("no dots: {0}")]
    NoDots(&'static str),
    /// The key holds another kind of value than the command is for.
    #[error("another kind of value")]
    WrongKind,
    /// No row has room for so long a name of an element.
    #[error("an element's name is too long")]
    LongName,
}

/// Why there are no dots when somebody knows of one that this node has not given.
pub const UNBORN: &str = "somebody names a change of this node that its disk does not have";

/// Where rows come from. A row that is not there is an empty cell.
pub trait Heads {
    /// The cell of an encoded row key, without what a clear of the region or of its key hides.
    fn head(&mut self, row: &Bytes) -> Result<Arc<Cell>, Fault>;

    /// Rows of `[from, to)`, all of one key, ascending and likewise; those of the first `limit` that are stored. With them
    /// where to go on, if there may be more.
    fn range(&mut self, from: &Bytes, to: &Bytes, limit: usize) -> Result<RowPage, Fault>;

    /// The same from the end: descending, and with them, if there may be more, the row before which to go on.
    fn range_back(&mut self, from: &Bytes, to: &Bytes, limit: usize) -> Result<RowPage, Fault> {
        let (mut rows, mut next) = (Vec::new(), Some(from.clone()));
        while let Some(first) = next {
            let (page, rest) = self.range(&first, to, limit)?;
            rows.extend(page);
            next = rest;
        }
        rows.reverse();
        let more =
            (rows.len() > limit).then(|| rows.get(limit.saturating_sub(1)).map(|(row, _)| row.clone())).flatten();
        rows.truncate(limit);
        Ok((rows, more))
    }

    /// All that has been seen of the region: what ends a collection names it.
    fn clock(&self) -> Clock;

    /// A number for drawing at random, another each time where clients are answered.
    fn chance(&mut self) -> u64 {
        0
    }
}

/// Rows of one database at one moment.
pub struct View<'a> {
    heads: &'a mut dyn Heads,
    sealer: &'a Sealer,
    db: Db,
    moment: Moment,
}

impl<'a> View<'a> {
    /// A view of `db` at `moment`.
    pub fn new(heads: &'a mut dyn Heads, sealer: &'a Sealer, db: Db, moment: Moment) -> Self {
        View { heads, sealer, db, moment }
    }

    /// The context of having read `cell` under `key`, as text for the client.
    pub fn seal(&self, key: &[u8], cell: &Cell) -> String {
        let more = cell.local().is_some_and(|local| !local.parts.is_empty());
        let clear = more.then(|| self.heads.clock());
        Context { clear, ..Context::of(cell.versions()) }.seal(self.sealer, self.db, key)
    }

    /// The context of having read one row of a collection.
    pub fn seal_row(&self, row: &[u8], cell: &Cell) -> String {
        Context::of(cell.versions()).seal(self.sealer, self.db, row)
    }

    /// The database.
    pub fn db(&self) -> Db {
        self.db
    }

    pub(super) fn heads(&mut self) -> &mut dyn Heads {
        self.heads
    }

    /// Wall time of the view, in milliseconds since the epoch.
    pub fn now(&self) -> u64 {
        self.moment.now
    }

    /// The cell of a key, hidden versions and all.
    pub fn cell(&mut self, key: &[u8]) -> Result<Arc<Cell>, Fault> {
        self.heads.head(&RowKey::head(self.db, key))
    }

    /// The string at `key`, if the key is there.
    ///
    /// # Errors
    /// [`Fault::WrongKind`] for a collection.
    pub fn text(&mut self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let cell = self.cell(key)?;
        if cell.local().is_some() && !matches!(self.kind(key)?, None | Some(Kind::Text)) {
            return Err(Fault::WrongKind);
        }
        Ok(Visible::of(cell.versions(), self.now()).map(|visible| visible.text()))
    }

    /// What `key` is to plain commands; none when it is absent.
    pub fn kind(&mut self, key: &[u8]) -> Result<Option<Kind>, Fault> {
        Ok(self.holds(key)?.kind())
    }

    /// Whether `key` is there.
    pub fn exists(&mut self, key: &[u8]) -> Result<bool, Fault> {
        let cell = self.cell(key)?;
        let text = Visible::of(cell.versions(), self.now()).is_some();
        Ok(text || (cell.local().is_some() && self.kind(key)?.is_some()))
    }

    /// When `key` ends; none when it is absent.
    pub fn deadline(&mut self, key: &[u8]) -> Result<Option<Deadline>, Fault> {
        let cell = self.cell(key)?;
        let text = Visible::of(cell.versions(), self.now()).map(|visible| visible.deadline());
        if cell.local().is_none() {
            return Ok(text);
        }
        let holds = self.holds(key)?;
        Ok(if holds.parts.is_empty() { text } else { Some(holds.ends) })
    }

    /// All that a reader may see of `key`, to be kept or written elsewhere.
    pub fn image(&mut self, key: &[u8]) -> Result<Option<Image>, Fault> {
        let cell = self.cell(key)?;
        Ok(Image::of(&cell, self.now()))
    }
}
