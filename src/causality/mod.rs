//! What happened before what: dots, clocks, cells, and how two replicas' versions of a row become one.
//!
//! The family is that of dotted version vector sets with one clock per region (a database's share of a partition),
//! taken apart to rows (Almeida, Shoker, Baquero: delta-state CRDTs; Gonçalves et al.: DottedDB; Brown et al.: bigsets).
//!
//! **The invariant**: a dot in a region's clock whose version is not in its row has been superseded; a dot not in the
//! clock has not been seen. Everything here keeps it.
//!
//! Pure: no I/O, no wall clock (time is an argument), no chance. Joins are total functions: they cannot fail and refuse
//! nothing; limits belong to the client's edge. Deliberately absent: tombstones, last-write-wins, operation logs.

pub mod cell;
pub mod clock;
pub mod context;
pub mod counter;
pub mod dot;
pub mod expiry;
pub mod hlc;
pub mod local;
pub mod payload;

pub use cell::{Cell, RowAnswer, RowChange, Version};
pub use clock::{Clock, Known};
pub use dot::Dot;
pub use hlc::{Hlc, Moment, Stamp};
pub use local::{Local, Part};
pub use payload::{Expiry, Payload, Run, Value};
