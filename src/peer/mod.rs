//! What nodes say to each other: about a dozen messages, none named after a Redis command, and the frames that carry
//! them. Numbers are explicit and only ever appended.
//!
//! Deliberately absent: sockets (runtime), and what a node does about a message (node).

pub mod frame;
pub mod handshake;
pub mod message;
mod news;

pub use message::{Request, Response};
