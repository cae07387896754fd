//! What a key is made of: rows, what is visible of them at a moment, drafts that change them, and the delta that says
//! what changed.
//!
//! Knows nothing of disks and networks: rows are looked up through [`Heads`]. Knows no command either.

pub mod conflict;
pub mod delta;
pub mod draft;
pub mod image;
pub mod look;
pub mod row;
pub mod settle;
pub mod view;
pub mod visible;

pub use conflict::Fate;
pub use delta::Delta;
pub use draft::{Changed, Draft, DraftContext, IncrError, Ttl};
pub use image::Image;
pub use look::{Element, Held, Holds, Look, Span};
pub use row::RowKey;
pub use settle::Touched;
pub use view::{Fault, Heads, View};
pub use visible::Visible;
