//! What a client says and hears: requests decoded from its bytes, replies encoded for its protocol.
//!
//! [`decode`] takes requests off a connection's buffer as they complete; [`inline`] splits those that people type;
//! [`reply`] is the answer as a value, with a compact form for between nodes; [`encode`] writes it in RESP2 or RESP3.
//! Deliberately absent: sockets, commands, and any knowledge of what an argument means.

pub mod decode;
pub mod encode;
pub mod inline;
pub mod reply;

pub use decode::{Arguments, Decoder, Limits, ProtocolError};
pub use encode::{Protocol, encode};
pub use reply::Reply;
