//! Reading rows: where they come from, and the view that commands which change nothing are given.

use std::sync::Arc;

use bytes::Bytes;

use super::image::Image;
use super::row::RowKey;
use super::visible::Visible;
use crate::base::id::Db;
use crate::causality::context::{Context, Sealer};
use crate::causality::expiry::Deadline;
use crate::causality::{Cell, Moment};

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
}

/// Why there are no dots when somebody knows of one that this node has not given.
pub const UNBORN: &str = "somebody names a change of this node that its disk does not have";

/// Where head rows come from. A row that is not there is an empty cell.
pub trait Heads {
    /// The cell of an encoded row key, without what a clear hides.
    fn head(&mut self, row: &Bytes) -> Result<Arc<Cell>, Fault>;
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
        Context::of(cell.versions()).seal(self.sealer, self.db, key)
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
    pub fn text(&mut self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let cell = self.cell(key)?;
        Ok(Visible::of(cell.versions(), self.now()).map(|visible| visible.text()))
    }

    /// Whether `key` is there.
    pub fn exists(&mut self, key: &[u8]) -> Result<bool, Fault> {
        let cell = self.cell(key)?;
        Ok(Visible::of(cell.versions(), self.now()).is_some())
    }

    /// When `key` ends; none when it is absent.
    pub fn deadline(&mut self, key: &[u8]) -> Result<Option<Deadline>, Fault> {
        let cell = self.cell(key)?;
        Ok(Visible::of(cell.versions(), self.now()).map(|visible| visible.deadline()))
    }

    /// All that a reader may see of `key`, to be kept or written elsewhere.
    pub fn image(&mut self, key: &[u8]) -> Result<Option<Image>, Fault> {
        let cell = self.cell(key)?;
        Ok(Image::of(&cell, self.now()))
    }
}
