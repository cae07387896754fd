//! Short-lived bytes without an allocation each: pieces of a block that the thread fills.
//!
//! For what is gone within a commit or so, such as encoded rows on their way to the store. A piece keeps its whole block
//! alive: what lives long has to be copied.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

/// Bytes of a block; larger pieces get one of their own.
const BLOCK: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// What `write` appends to an empty buffer; `expect` is about how many bytes that will be.
pub fn carve(expect: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.capacity() < expect {
            *scratch = BytesMut::with_capacity(expect.max(BLOCK));
        }
        // Of a writer that panicked.
        scratch.clear();
        write(scratch);
        scratch.split().freeze()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;

    #[test]
    fn pieces_are_what_was_written_whatever_was_expected() {
        let pieces: Vec<Bytes> =
            (0..5_000usize).map(|n| carve(n % 7 * 10, |out| out.put_bytes(n as u8, n % 300))).collect();
        for (n, piece) in pieces.iter().enumerate() {
            assert_eq!(piece.len(), n % 300);
            assert!(piece.iter().all(|byte| *byte == n as u8));
        }
        assert_eq!(carve(1 << 20, |out| out.put_bytes(1, 1 << 20)).len(), 1 << 20);
    }
}
