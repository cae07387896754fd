//! The client protocol from outside: hostile bytes in every chunking, memory, and a real Redis beside us.

#![allow(clippy::unwrap_used, reason = "tests may")]

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

mod fuzz;
mod hostile;
mod memory;
mod redis;
mod reference;

use bytes::{Bytes, BytesMut};
use redynamo::resp::{Decoder, Limits, ProtocolError};

/// What a client's bytes come to: requests, then perhaps an error, after which nothing counts.
type Outcome = (Vec<Vec<Bytes>>, Option<ProtocolError>);

/// Feeds `pieces` to a decoder as a connection does.
fn decode<'a>(limits: Limits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let (mut decoder, mut buffer, mut requests) = (Decoder::new(limits), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(arguments)) => requests.push(arguments.to_vec()),
                Ok(None) => break,
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}
