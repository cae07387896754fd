//! Words that every room uses: ids, numbers, byte codecs, limits. Only `std` and `bytes` below this line;
//! no async, no clocks, no locks, nothing that can block.

pub mod codec;
pub mod extended;
pub mod glob;
pub mod id;
pub mod kind;
pub mod latency;
pub mod limits;
pub mod num;
pub mod rng;
pub mod scratch;
