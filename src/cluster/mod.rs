//! Who is here and who owns what. Values and decisions only: no I/O, no clock of its own, no keys.
//!
//! Until data is there, the layout is a pure function of the set of members, so nodes agree on it as soon as they agree
//! on the set, and sets agree by union: no vote, no special node.

pub mod detector;
pub mod member;
pub mod slots;
pub mod view;

pub use detector::{Detector, Doubt, Health, Opinion, Verdict};
pub use member::{Digest, FEATURES, Member, MemberState, Membership};
pub use slots::{SlotMap, SlotRange};
pub use view::ClusterView;
