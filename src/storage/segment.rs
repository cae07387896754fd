//! What a segment of the journal looks like, and reading it back.
//!
//! ```text
//! segment  magic 8 · version 4 · number 8 · salt 8 · boot 16 · xxh3 8    then frames
//! frame    xxh3 8 · magic 4 · length 8 · sequence 8 · synced 8           then `length` bytes of rows
//! row      space, and the highest bit if removed 1 · key length 2 · value length 4 · key · value
//! ```
//!
//! Numbers are big-endian. A frame's checksum covers everything behind it and is keyed with the segment's salt, which is
//! random: no client can put into a value what a search for frames would take for one. Sequence numbers are dense over
//! all segments. `synced` is the last frame that had reached the disk when this one was written: by that a reader knows
//! which missing frames a power cut may have taken, and which it may not.

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memmem;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::overlay::Row;
use super::{Change, Space};
use crate::base::codec::{DecodeError, Decoded, Reader};

const SEGMENT_MAGIC: [u8; 8] = *b"redynamJ";
const SEGMENT_VERSION: u32 = 1;
const FRAME_MAGIC: [u8; 4] = [0x9e, b'F', b'R', 0xd7];

/// Bytes of a segment before its first frame.
pub(super) const HEADER_BYTES: usize = 52;

/// Bytes of a frame before its rows.
pub(super) const FRAME_BYTES: usize = 36;

/// Bytes of a row beside key and value.
pub(super) const ROW_BYTES: usize = 7;

const CHECKSUM_BYTES: usize = 8;
const REMOVED: u8 = 0x80;

/// How a segment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The segment's place in the order of all.
    pub number: u64,
    /// Keys the checksums of its frames.
    pub salt: u64,
    /// Which run of the machine it was made in.
    pub boot: u128,
}

/// A frame that checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// Its number, dense over all segments.
    pub sequence: u64,
    /// The last frame that was on the disk when this one was written.
    pub synced: u64,
    /// Its rows, encoded.
    pub rows: Bytes,
    /// Bytes that it takes in the segment.
    pub len: usize,
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.put_slice(&SEGMENT_MAGIC);
        out.put_u32(SEGMENT_VERSION);
        out.put_u64(self.number);
        out.put_u64(self.salt);
        out.put_u128(self.boot);
        out.put_u64(xxh3_64(&out));
        out
    }

    /// Reads a segment's beginning.
    pub fn read(segment: &Bytes) -> Decoded<Header> {
        let raw = segment.get(..HEADER_BYTES).ok_or(DecodeError::Truncated)?;
        let (body, sum) = raw.split_last_chunk().ok_or(DecodeError::Truncated)?;
        if u64::from_be_bytes(*sum) != xxh3_64(body) {
            return Err(DecodeError::Invalid("checksum"));
        }
        let mut reader = Reader::new(segment.slice(..HEADER_BYTES));
        if reader.take(SEGMENT_MAGIC.len())?[..] != SEGMENT_MAGIC || reader.u32()? != SEGMENT_VERSION {
            return Err(DecodeError::Unknown("kind of segment"));
        }
        Ok(Header { number: reader.u64()?, salt: reader.u64()?, boot: reader.u128()? })
    }
}

/// Bytes of the frame that holds `changes`.
pub(super) fn frame_len(changes: &[Change]) -> usize {
    let rows = changes.iter().map(|change| ROW_BYTES.saturating_add(change.weight()));
    rows.fold(FRAME_BYTES, usize::saturating_add)
}

/// Appends a frame to `out`, which is empty. The changes have been checked: keys and values fit their lengths.
pub(super) fn put_frame(out: &mut BytesMut, salt: u64, sequence: u64, synced: u64, changes: &[Change]) {
    out.put_u64(0);
    out.put_slice(&FRAME_MAGIC);
    out.put_u64(frame_len(changes).saturating_sub(FRAME_BYTES) as u64);
    out.put_u64(sequence);
    out.put_u64(synced);
    for Change { space, key, value } in changes {
        out.put_u8(*space as u8 | if value.is_none() { REMOVED } else { 0 });
        out.put_u16(key.len() as u16);
        out.put_u32(value.as_ref().map_or(0, Bytes::len) as u32);
        out.put_slice(key);
        out.put_slice(value.as_deref().unwrap_or_default());
    }
    let sum = xxh3_64_with_seed(out.get(CHECKSUM_BYTES..).unwrap_or_default(), salt);
    if let Some(place) = out.first_chunk_mut() {
        *place = sum.to_be_bytes();
    }
}

/// The frame at `at`, if a whole one is there.
pub(super) fn frame_at(segment: &Bytes, at: usize, salt: u64) -> Option<Frame> {
    let head = segment.get(at..at.checked_add(FRAME_BYTES)?)?;
    let mut reader = Reader::new(segment.slice_ref(head));
    let sum = reader.u64().ok()?;
    if reader.take(FRAME_MAGIC.len()).ok()?[..] != FRAME_MAGIC {
        return None;
    }
    let rows = usize::try_from(reader.u64().ok()?).ok()?;
    let (sequence, synced) = (reader.u64().ok()?, reader.u64().ok()?);
    let len = FRAME_BYTES.checked_add(rows)?;
    let frame = segment.get(at..at.checked_add(len)?)?;
    if xxh3_64_with_seed(frame.get(CHECKSUM_BYTES..)?, salt) != sum {
        return None;
    }
    let rows = segment.slice_ref(frame.get(FRAME_BYTES..)?);
    Some(Frame { sequence, synced, rows, len })
}

/// The first whole frame at or behind `from`, wherever it begins.
pub(super) fn find_frame(segment: &Bytes, from: usize, salt: u64) -> Option<(usize, Frame)> {
    let begin = from.checked_add(CHECKSUM_BYTES)?;
    memmem::find_iter(segment.get(begin..)?, &FRAME_MAGIC)
        .find_map(|found| frame_at(segment, from.checked_add(found)?, salt).map(|frame| (from + found, frame)))
}

/// Calls `each` with the rows of a frame, in order. They share the frame's memory.
pub(super) fn read_rows(rows: &Bytes, mut each: impl FnMut(Space, Row)) -> Decoded<()> {
    let mut at = 0;
    while let Some([kind, k0, k1, v0, v1, v2, v3]) = rows.get(at..).and_then(<[u8]>::first_chunk::<ROW_BYTES>) {
        let space = Space::ALL.get(usize::from(kind & !REMOVED)).ok_or(DecodeError::Unknown("space"))?;
        let key_len = u16::from_be_bytes([*k0, *k1]);
        let value_len = u32::from_be_bytes([*v0, *v1, *v2, *v3]) as usize;
        let begin = at + ROW_BYTES;
        let end = begin.saturating_add(usize::from(key_len)).saturating_add(value_len);
        if end > rows.len() {
            return Err(DecodeError::Truncated);
        }
        each(*space, Row::new(rows.slice(begin..end), key_len, kind & REMOVED != 0));
        at = end;
    }
    if at == rows.len() { Ok(()) } else { Err(DecodeError::Trailing) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
        let key = prop::collection::vec(any::<u8>(), 1..9);
        let change = (prop::sample::select(&Space::ALL[..]), key, value).prop_map(|(space, key, value)| Change {
            space,
            key: key.into(),
            value: value.map(Bytes::from),
        });
        prop::collection::vec(change, 0..6)
    }

    fn encoded(salt: u64, sequence: u64, changes: &[Change]) -> Bytes {
        let mut out = BytesMut::new();
        put_frame(&mut out, salt, sequence, 3, changes);
        assert_eq!(out.len(), frame_len(changes));
        out.freeze()
    }

    fn decoded(frame: &Frame) -> Vec<Change> {
        let mut changes = Vec::new();
        let each = |space, row: Row| changes.push(Change { space, key: row.key_bytes(), value: row.value() });
        read_rows(&frame.rows, each).unwrap();
        changes
    }

    proptest! {
        #[test]
        fn a_frame_is_read_as_it_was_written_and_with_its_own_salt_only(changes in changes(), salt: u64, sequence: u64) {
            let raw = encoded(salt, sequence, &changes);
            let frame = frame_at(&raw, 0, salt).unwrap();
            prop_assert_eq!((frame.sequence, frame.synced, frame.len), (sequence, 3, raw.len()));
            prop_assert_eq!(decoded(&frame), changes);
            prop_assert_eq!(frame_at(&raw, 0, salt.wrapping_add(1)), None);
        }

        #[test]
        fn a_frame_is_found_behind_anything(before in prop::collection::vec(any::<u8>(), 0..60), changes in changes()) {
            let frame = encoded(7, 1, &changes);
            let raw = Bytes::from([&before[..], &frame].concat());
            let (at, found) = find_frame(&raw, 0, 7).unwrap();
            prop_assert_eq!((at, decoded(&found)), (before.len(), changes));
            prop_assert!(find_frame(&raw, before.len() + 1, 7).is_none());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(raw: Vec<u8>) {
            let raw = Bytes::from(raw);
            prop_assert!(Header::read(&raw).is_err());
            prop_assert_eq!(frame_at(&raw, 0, 0), None);
            let _ = read_rows(&raw, |_, row| assert!(row.key().len() <= raw.len()));
        }
    }

    #[test]
    fn a_header_changed_in_any_byte_is_none() {
        let header = Header { number: 7, salt: 8, boot: 9 };
        let good = header.encode();
        assert_eq!(Header::read(&Bytes::from(good.clone())), Ok(header));
        assert_eq!(good.len(), HEADER_BYTES);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            assert!(Header::read(&bad.into()).is_err(), "byte {at}");
        }
    }
}
