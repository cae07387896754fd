//! The answer to a command as a value, shaped for RESP3; [`encode()`](super::encode()) writes it down for the
//! protocol a client speaks.
//!
//! A node that forwards a command gets its reply back in the compact form of [`Reply::put`] and [`Reply::read`], so
//! that the client's own node can write it in the client's protocol. Tags of that form are only ever appended.

use crate::base::codec::{DecodeError, Decoded, Reader, put_bytes, put_signed, put_varint};
use bytes::{BufMut, Bytes, BytesMut};

/// Deepest nesting of a reply. Deeper ones are written as an error in the place of what lies too deep.
pub const MAX_DEPTH: usize = 32;

/// What stands where a reply is nested too deep.
pub(super) const TOO_DEEP: &[u8] = b"ERR reply is nested too deep";

/// A reply. Variants are named for what they mean; a client of RESP2 gets the nearest that RESP2 has.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// A status, `+OK`.
    Simple(Bytes),
    /// An error: its code in capitals, a space, its text; no CR LF.
    Error(Bytes),
    /// An integer.
    Int(i64),
    /// Bytes of any kind.
    Bulk(Bytes),
    /// Nothing; to RESP2 as a bulk that is not there.
    Nil,
    /// Nothing; to RESP2 as an array that is not there: an aborted EXEC, a timed out BLPOP.
    NilArray,
    /// Replies in order.
    Array(Vec<Reply>),
    /// Pairs in order; to RESP2 a flat array.
    Map(Vec<(Reply, Reply)>),
    /// Pairs in order, of which a first may come more than once: an array of arrays; to RESP2 a flat array.
    Pairs(Vec<(Reply, Reply)>),
    /// Replies without order or repetition; to RESP2 an array.
    Set(Vec<Reply>),
    /// A float; to RESP2 as bulk.
    Double(f64),
    /// A truth value; to RESP2 1 or 0.
    Bool(bool),
    /// An integer of any length, as decimal digits; to RESP2 as bulk.
    BigNumber(Bytes),
    /// Text for people to read, with its kind; to RESP2 as bulk.
    Verbatim {
        /// Three letters, `txt` or `mkd`.
        format: [u8; 3],
        /// The text.
        text: Bytes,
    },
    /// What a client gets without asking: messages of its subscriptions, invalidations; to RESP2 an array.
    Push(Vec<Reply>),
    /// Not one reply but several, one after the other: a confirmation for each channel of a SUBSCRIBE. Never inside
    /// another, never between nodes.
    Several(Vec<Reply>),
}

impl Reply {
    /// `+OK`.
    pub const fn ok() -> Self {
        Reply::Simple(Bytes::from_static(b"OK"))
    }

    /// A status.
    pub const fn status(text: &'static str) -> Self {
        Reply::Simple(Bytes::from_static(text.as_bytes()))
    }

    /// An error with its code, as `ERR syntax error`.
    pub fn error(text: impl Into<String>) -> Self {
        Reply::Error(Bytes::from(text.into()))
    }

    /// Bytes.
    pub fn bulk(bytes: impl Into<Bytes>) -> Self {
        Reply::Bulk(bytes.into())
    }

    /// Bytes, or nothing.
    pub fn bulk_or_nil(bytes: Option<Bytes>) -> Self {
        bytes.map_or(Reply::Nil, Reply::Bulk)
    }

    /// Bytes that lie in the program.
    pub const fn bulk_static(text: &'static str) -> Self {
        Reply::Bulk(Bytes::from_static(text.as_bytes()))
    }

    /// Replies in order.
    pub fn array(items: impl IntoIterator<Item = Reply>) -> Self {
        Reply::Array(items.into_iter().collect())
    }

    /// Pairs under names.
    pub fn map(pairs: impl IntoIterator<Item = (&'static str, Reply)>) -> Self {
        Reply::Map(pairs.into_iter().map(|(name, value)| (Reply::bulk_static(name), value)).collect())
    }

    /// Text for people.
    pub fn text(text: impl Into<Bytes>) -> Self {
        Reply::Verbatim { format: *b"txt", text: text.into() }
    }

    /// Whether this is an error.
    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }

    /// Appends the compact form.
    pub fn put(&self, out: &mut BytesMut) {
        self.put_at(0, out);
    }

    fn put_at(&self, depth: usize, out: &mut BytesMut) {
        match self {
            Reply::Simple(text) => put_tagged(tag::SIMPLE, text, out),
            Reply::Error(text) => put_tagged(tag::ERROR, text, out),
            Reply::Bulk(bytes) => put_tagged(tag::BULK, bytes, out),
            Reply::BigNumber(digits) => put_tagged(tag::BIG_NUMBER, digits, out),
            Reply::Nil => out.put_u8(tag::NIL),
            Reply::NilArray => out.put_u8(tag::NIL_ARRAY),
            Reply::Bool(value) => out.put_u8(if *value { tag::TRUE } else { tag::FALSE }),
            Reply::Int(value) => {
                out.put_u8(tag::INT);
                put_signed(out, *value);
            }
            Reply::Double(value) => {
                out.put_u8(tag::DOUBLE);
                out.put_f64(*value);
            }
            Reply::Verbatim { format, text } => {
                out.put_u8(tag::VERBATIM);
                out.put_slice(format);
                put_bytes(out, text);
            }
            Reply::Array(items) | Reply::Several(items) => put_items(tag::ARRAY, items, depth, out),
            Reply::Set(items) => put_items(tag::SET, items, depth, out),
            Reply::Push(items) => put_items(tag::PUSH, items, depth, out),
            Reply::Map(pairs) => put_pairs(tag::MAP, pairs, depth, out),
            Reply::Pairs(pairs) => put_pairs(tag::PAIRS, pairs, depth, out),
        }
    }

    /// Reads the compact form off the front of `reader`; bytes are slices of what it reads from.
    ///
    /// # Errors
    /// [`DecodeError`] for an unknown tag, a length or count beyond what is there, or nesting deeper than
    /// [`MAX_DEPTH`].
    pub fn read(reader: &mut Reader) -> Decoded<Self> {
        Self::read_at(reader, 0)
    }

    fn read_at(reader: &mut Reader, depth: usize) -> Decoded<Self> {
        Ok(match reader.u8()? {
            tag::SIMPLE => Reply::Simple(reader.bytes()?),
            tag::ERROR => Reply::Error(reader.bytes()?),
            tag::BULK => Reply::Bulk(reader.bytes()?),
            tag::BIG_NUMBER => Reply::BigNumber(reader.bytes()?),
            tag::NIL => Reply::Nil,
            tag::NIL_ARRAY => Reply::NilArray,
            tag::TRUE => Reply::Bool(true),
            tag::FALSE => Reply::Bool(false),
            tag::INT => Reply::Int(reader.signed()?),
            tag::DOUBLE => Reply::Double(f64::from_bits(reader.u64()?)),
            tag::VERBATIM => {
                Reply::Verbatim { format: [reader.u8()?, reader.u8()?, reader.u8()?], text: reader.bytes()? }
            }
            tag::ARRAY => Reply::Array(read_items(reader, depth)?),
            tag::SET => Reply::Set(read_items(reader, depth)?),
            tag::PUSH => Reply::Push(read_items(reader, depth)?),
            tag::MAP => Reply::Map(read_pairs(reader, depth)?),
            tag::PAIRS => Reply::Pairs(read_pairs(reader, depth)?),
            _ => return Err(DecodeError::Unknown("reply tag")),
        })
    }
}

/// Tags of the compact form. Never changed or used again, only appended.
mod tag {
    pub const SIMPLE: u8 = 1;
    pub const ERROR: u8 = 2;
    pub const INT: u8 = 3;
    pub const BULK: u8 = 4;
    pub const NIL: u8 = 5;
    pub const NIL_ARRAY: u8 = 6;
    pub const ARRAY: u8 = 7;
    pub const MAP: u8 = 8;
    pub const SET: u8 = 9;
    pub const DOUBLE: u8 = 10;
    pub const TRUE: u8 = 11;
    pub const FALSE: u8 = 12;
    pub const BIG_NUMBER: u8 = 13;
    pub const VERBATIM: u8 = 14;
    pub const PUSH: u8 = 15;
    pub const PAIRS: u8 = 16;
}

/// Most replies that room is made for before they have been read: one byte on the wire is forty in memory.
const MAX_RESERVED: usize = 1024;

fn put_tagged(tag: u8, bytes: &[u8], out: &mut BytesMut) {
    out.put_u8(tag);
    put_bytes(out, bytes);
}

fn put_items(tag: u8, items: &[Reply], depth: usize, out: &mut BytesMut) {
    if depth >= MAX_DEPTH {
        return put_tagged(tag::ERROR, TOO_DEEP, out);
    }
    out.put_u8(tag);
    put_varint(out, items.len() as u64);
    items.iter().for_each(|item| item.put_at(depth.saturating_add(1), out));
}

fn put_pairs(tag: u8, pairs: &[(Reply, Reply)], depth: usize, out: &mut BytesMut) {
    if depth >= MAX_DEPTH {
        return put_tagged(tag::ERROR, TOO_DEEP, out);
    }
    out.put_u8(tag);
    put_varint(out, pairs.len() as u64);
    for (key, value) in pairs {
        key.put_at(depth.saturating_add(1), out);
        value.put_at(depth.saturating_add(1), out);
    }
}

fn read_items(reader: &mut Reader, depth: usize) -> Decoded<Vec<Reply>> {
    read_many(reader, depth, Reply::read_at)
}

fn read_pairs(reader: &mut Reader, depth: usize) -> Decoded<Vec<(Reply, Reply)>> {
    read_many(reader, depth, |reader, depth| Ok((Reply::read_at(reader, depth)?, Reply::read_at(reader, depth)?)))
}

fn read_many<T>(reader: &mut Reader, depth: usize, one: impl Fn(&mut Reader, usize) -> Decoded<T>) -> Decoded<Vec<T>> {
    if depth >= MAX_DEPTH {
        return Err(DecodeError::Invalid("reply depth"));
    }
    let count = reader.count()?;
    let mut many = Vec::with_capacity(count.min(MAX_RESERVED));
    for _ in 0..count {
        many.push(one(reader, depth.saturating_add(1))?);
    }
    Ok(many)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any reply that RESP3 can carry: lines without CR and LF, numbers that are numbers.
    pub fn any_reply() -> impl Strategy<Value = Reply> {
        let line = || "[ -~]{0,12}".prop_map(Bytes::from);
        let bytes = || prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        let leaf = prop_oneof![
            line().prop_map(Reply::Simple),
            line().prop_map(Reply::Error),
            any::<i64>().prop_map(Reply::Int),
            bytes().prop_map(Reply::Bulk),
            Just(Reply::Nil),
            Just(Reply::NilArray),
            prop_oneof![any::<f64>().prop_filter("a number", |value| !value.is_nan()), Just(1.5), Just(f64::INFINITY)]
                .prop_map(Reply::Double),
            any::<bool>().prop_map(Reply::Bool),
            "-?[1-9][0-9]{0,30}".prop_map(|digits| Reply::BigNumber(digits.into())),
            bytes().prop_map(Reply::text),
        ];
        leaf.prop_recursive(4, 24, 5, move |inner| {
            let many = || prop::collection::vec(inner.clone(), 0..5);
            // What other decoders keep in hash tables is simple here, and never there twice.
            prop_oneof![
                many().prop_map(Reply::Array),
                many().prop_map(Reply::Push),
                prop::collection::btree_set(bytes(), 0..5)
                    .prop_map(|names| Reply::Set(names.into_iter().map(Reply::Bulk).collect())),
                prop::collection::btree_map(bytes(), inner, 0..4)
                    .prop_map(|pairs| Reply::Map(pairs.into_iter().map(|(k, v)| (Reply::Bulk(k), v)).collect())),
            ]
        })
    }

    pub fn nested(depth: usize) -> Reply {
        (0..depth).fold(Reply::Int(7), |inner, _| Reply::Array(vec![inner]))
    }

    fn compact(reply: &Reply) -> Bytes {
        let mut out = BytesMut::new();
        reply.put(&mut out);
        out.freeze()
    }

    proptest! {
        #[test]
        fn what_is_put_is_read_back(reply in any_reply()) {
            let mut reader = Reader::new(compact(&reply));
            prop_assert_eq!(Reply::read(&mut reader), Ok(reply));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(raw in prop::collection::vec(0u8..18, 0..60)) {
            let _ = Reply::read(&mut Reader::new(raw.into()));
        }

        #[test]
        fn a_cut_reply_is_refused(reply in any_reply(), keep in 0.0..1.0) {
            let whole = compact(&reply);
            let cut = (whole.len() as f64 * keep) as usize;
            prop_assert!(Reply::read(&mut Reader::new(whole.slice(..cut))).is_err());
        }
    }

    #[test]
    fn a_reply_fits_its_place_in_memory() {
        assert!(size_of::<Reply>() <= 48);
    }

    #[test]
    fn nesting_is_kept_to_the_limit_and_cut_beyond_it() {
        let deepest = nested(MAX_DEPTH);
        assert_eq!(Reply::read(&mut Reader::new(compact(&deepest))), Ok(deepest));
        let read = Reply::read(&mut Reader::new(compact(&nested(MAX_DEPTH + 1)))).unwrap();
        assert!(format!("{read:?}").contains("nested too deep"));
    }

    #[test]
    fn received_nesting_beyond_the_limit_is_refused() {
        let raw = [tag::ARRAY, 1].repeat(100_000);
        assert_eq!(Reply::read(&mut Reader::new(raw.into())), Err(DecodeError::Invalid("reply depth")));
    }

    #[test]
    fn a_count_beyond_the_bytes_is_truncation_not_an_allocation() {
        let mut raw = vec![tag::MAP];
        put_varint(&mut raw, u64::MAX);
        assert_eq!(Reply::read(&mut Reader::new(raw.into())), Err(DecodeError::Truncated));
    }

    #[test]
    fn bytes_that_are_read_are_slices_of_the_frame() {
        let frame = compact(&Reply::bulk("value of some length"));
        let Ok(Reply::Bulk(bytes)) = Reply::read(&mut Reader::new(frame.clone())) else { panic!("a bulk") };
        assert!(frame.as_ptr_range().contains(&bytes.as_ptr()));
    }
}
