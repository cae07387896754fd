//! Bytes for disk and wire: variable-length integers, length-prefixed bytes, and a reader that never trusts a length.
//!
//! Numbers of fixed width are big-endian, so that encoded keys sort as their numbers do.

use bytes::{Buf, BufMut, Bytes};

/// Why stored or received bytes could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("truncated")]
    Truncated,
    /// A tag, version or value that this program does not know.
    #[error("unknown {0}")]
    Unknown(&'static str),
    /// A value outside of what its place allows.
    #[error("invalid {0}")]
    Invalid(&'static str),
    /// Bytes are left after the last value.
    #[error("trailing bytes")]
    Trailing,
}

/// Result of decoding.
pub type Decoded<T> = Result<T, DecodeError>;

/// Appends `value` as LEB128: 7 bits a byte, least significant first, at most 10 bytes.
pub fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Appends a signed number, zigzag-coded so that small magnitudes stay short.
pub fn put_signed(out: &mut impl BufMut, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a wide signed number, 16 bytes big-endian.
pub fn put_i128(out: &mut impl BufMut, value: i128) {
    out.put_i128(value);
}

/// Appends the length of `bytes` as a varint, then the bytes.
pub fn put_bytes(out: &mut impl BufMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Reads values off the front of a buffer. Every length is checked against what is there before anything is taken;
/// byte fields are slices of the buffer, not copies.
#[derive(Debug, Clone)]
pub struct Reader(Bytes);

impl Reader {
    /// A reader over all of `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Reader(bytes)
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.0.len()
    }

    /// One byte.
    pub fn u8(&mut self) -> Decoded<u8> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self) -> Decoded<u16> {
        self.need(2)?;
        Ok(self.0.get_u16())
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> Decoded<u32> {
        self.need(4)?;
        Ok(self.0.get_u32())
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self) -> Decoded<u64> {
        self.need(8)?;
        Ok(self.0.get_u64())
    }

    /// Sixteen bytes, big-endian.
    pub fn u128(&mut self) -> Decoded<u128> {
        self.need(16)?;
        Ok(self.0.get_u128())
    }

    /// Sixteen bytes, big-endian, signed.
    pub fn i128(&mut self) -> Decoded<i128> {
        self.need(16)?;
        Ok(self.0.get_i128())
    }

    /// A LEB128 number; refuses more than 64 bits.
    pub fn varint(&mut self) -> Decoded<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Invalid("varint"));
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Invalid("varint"))
    }

    /// A zigzag-coded signed number.
    pub fn signed(&mut self) -> Decoded<i64> {
        let raw = self.varint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// A count of things that take at least one byte each: so never more than the bytes that are left.
    pub fn count(&mut self) -> Decoded<usize> {
        let count = self.varint()?;
        if count > self.0.len() as u64 { Err(DecodeError::Truncated) } else { Ok(count as usize) }
    }

    /// Length-prefixed bytes, as a slice of the buffer.
    pub fn bytes(&mut self) -> Decoded<Bytes> {
        let len = self.count()?;
        Ok(self.0.split_to(len))
    }

    /// Length-prefixed UTF-8 text.
    pub fn text(&mut self) -> Decoded<String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| DecodeError::Invalid("text"))
    }

    /// Exactly `len` bytes.
    pub fn take(&mut self, len: usize) -> Decoded<Bytes> {
        self.need(len)?;
        Ok(self.0.split_to(len))
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> Bytes {
        self.0.split_off(0)
    }

    /// Says that all has been read.
    pub fn finish(self) -> Decoded<()> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }

    fn need(&self, len: usize) -> Decoded<()> {
        if self.0.len() < len { Err(DecodeError::Truncated) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_put_is_read_back(a: u64, b: i64, c: Vec<u8>, d: i128) {
            let mut out = Vec::new();
            put_varint(&mut out, a);
            put_signed(&mut out, b);
            put_bytes(&mut out, &c);
            put_i128(&mut out, d);
            let mut reader = Reader::new(out.into());
            prop_assert_eq!(reader.varint(), Ok(a));
            prop_assert_eq!(reader.signed(), Ok(b));
            prop_assert_eq!(reader.bytes(), Ok(Bytes::from(c)));
            prop_assert_eq!(reader.i128(), Ok(d));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(raw: Vec<u8>) {
            let mut reader = Reader::new(raw.into());
            while reader.remaining() > 0 {
                if reader.varint().and_then(|_| reader.bytes()).is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_length_beyond_the_buffer_is_truncation_not_an_allocation() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        assert_eq!(Reader::new(out.into()).bytes(), Err(DecodeError::Truncated));
    }

    #[test]
    fn an_overlong_varint_is_refused() {
        assert_eq!(Reader::new(vec![0xff; 11].into()).varint(), Err(DecodeError::Invalid("varint")));
    }
}
