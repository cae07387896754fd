//! An image: all that is visible of a key, taken out of its row, so that it can be written under another name.

use bytes::Bytes;

use super::visible::Visible;
use crate::causality::Cell;
use crate::causality::expiry::Deadline;

/// The visible values of a key with their deadlines. A counter is flattened to its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What a plain read answers.
    pub winner: (Bytes, Deadline),
    /// The other siblings.
    pub siblings: Vec<(Bytes, Deadline)>,
}

impl Image {
    /// The image of `cell` at `now`; none when the key is absent.
    pub fn of(cell: &Cell, now: u64) -> Option<Image> {
        let visible = Visible::of(cell.versions(), now)?;
        let first = visible.winner().map(|(version, _)| version.dot);
        let siblings = visible
            .values()
            .filter(|(version, _)| Some(version.dot) != first)
            .map(|(version, value)| (value.data.clone(), visible.deadline_of(version, value)))
            .collect();
        Some(Image { winner: (visible.text(), visible.deadline()), siblings })
    }
}
