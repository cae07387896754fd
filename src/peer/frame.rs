//! Frames: `length (u32) · checksum (u32) · request id (u64) · body`. The length is checked before anything is allocated,
//! the checksum before anything is decoded.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use crate::base::codec::DecodeError;
use crate::base::limits::MAX_FRAME_BYTES;

/// Bytes before the body.
const HEADER: usize = 16;

/// A body with the id that ties an answer to its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Chosen by who asks; an answer repeats it.
    pub id: u64,
    /// An encoded request or response.
    pub body: Bytes,
}

/// Appends a frame whose body `write` appends.
pub fn put_frame(out: &mut BytesMut, id: u64, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_bytes(0, 8);
    out.put_u64(id);
    write(out);
    let checked = xxh3_64(&out[start + 8..]) as u32;
    let len = (out.len() - start - HEADER) as u32;
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
    out[start + 4..start + 8].copy_from_slice(&checked.to_be_bytes());
}

/// Takes a frame off the front of what has arrived; none if it is not whole yet.
///
/// # Errors
/// A length over the limit or a wrong checksum: the link is to be closed, since nothing after it can be trusted.
pub fn take_frame(buffer: &mut BytesMut) -> Result<Option<Frame>, DecodeError> {
    let Some(header) = buffer.get(..HEADER) else { return Ok(None) };
    let len = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let checked = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    if len > MAX_FRAME_BYTES {
        return Err(DecodeError::Invalid("frame length"));
    }
    if buffer.len() < HEADER + len {
        // What is there grows only as bytes arrive, whatever the length says.
        buffer.reserve((HEADER + len - buffer.len()).min(1 << 20));
        return Ok(None);
    }
    let mut frame = buffer.split_to(HEADER + len).freeze();
    if xxh3_64(&frame[8..]) as u32 != checked {
        return Err(DecodeError::Invalid("frame checksum"));
    }
    frame.advance(8);
    let id = frame.get_u64();
    Ok(Some(Frame { id, body: frame }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_arrive(bodies: Vec<Vec<u8>>, cut in 1usize..40) {
            let mut wire = BytesMut::new();
            for (id, body) in bodies.iter().enumerate() {
                put_frame(&mut wire, id as u64, |out| out.put_slice(body));
            }
            let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
            for chunk in wire.chunks(cut) {
                buffer.put_slice(chunk);
                while let Some(frame) = take_frame(&mut buffer).unwrap() {
                    prop_assert_eq!(frame.id, seen.len() as u64);
                    seen.push(frame.body.to_vec());
                }
            }
            prop_assert_eq!(seen, bodies);
        }

        #[test]
        fn a_flipped_bit_is_noticed(body: Vec<u8>, at: usize, bit in 0u8..8) {
            let mut wire = BytesMut::new();
            put_frame(&mut wire, 7, |out| out.put_slice(&body));
            let at = at % wire.len();
            wire[at] ^= 1 << bit;
            // A longer length waits for bytes that never come; anything else is an error.
            prop_assert!(!matches!(take_frame(&mut wire), Ok(Some(_))));
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_it_is_allocated() {
        let mut wire = BytesMut::from(&[0xff; 16][..]);
        assert_eq!(take_frame(&mut wire), Err(DecodeError::Invalid("frame length")));
        assert!(wire.capacity() < 1024);
    }
}
