//! The key under which a row is stored: `database · token · key · kind · element`. Everything of a region is one range,
//! everything of a key one sub-range.

use bytes::{BufMut, Bytes, BytesMut};

use crate::base::codec::{DecodeError, Decoded, Reader, put_varint};
use crate::base::id::Db;
use crate::base::kind::Tag;
use crate::base::scratch::carve;
use crate::ring::slot::Token;

/// A row key taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowKey {
    /// The database.
    pub db: Db,
    /// The key's place on the ring.
    pub token: Token,
    /// What the client calls it.
    pub key: Bytes,
}

impl RowKey {
    /// The encoded key of the head row of `key`.
    pub fn head(db: Db, key: &[u8]) -> Bytes {
        Self::head_at(db, Token::of(key), key)
    }

    /// The same, for whoever has the token already.
    pub fn head_at(db: Db, token: Token, key: &[u8]) -> Bytes {
        carve(key.len() + 16, |out| Self::put_head_at(db, token, key, out))
    }

    /// Appends it.
    pub fn put_head_at(db: Db, token: Token, key: &[u8], out: &mut impl BufMut) {
        out.put_u8(db.0);
        out.put_u64(token.raw());
        put_varint(out, key.len() as u64);
        out.put_slice(key);
        out.put_u8(Tag::HEAD.byte());
    }

    /// The first possible row key at `token`: where a range begins or ends.
    pub fn bound(db: Db, token: u64) -> Bytes {
        let mut out = BytesMut::with_capacity(9);
        out.put_u8(db.0);
        out.put_u64(token);
        out.freeze()
    }

    /// The row of an element, or of what else `tag` says, of the key whose head row is `head`.
    pub fn element(head: &[u8], tag: Tag, element: &[u8]) -> Bytes {
        let key = head.split_last().map(|(_, key)| key).unwrap_or_default();
        carve(head.len() + element.len(), |out| {
            out.put_slice(key);
            out.put_u8(tag.byte());
            out.put_slice(element);
        })
    }

    /// The first row key behind all those of `tag` of the key whose head row is `head`.
    pub fn after_tag(head: &[u8], tag: Tag) -> Bytes {
        let mut out = head.to_vec();
        if let Some(last) = out.last_mut() {
            *last = tag.byte().saturating_add(1);
        }
        out.into()
    }

    /// The first row key behind all those of the key whose head row is `head`.
    pub fn after_key(head: &[u8]) -> Bytes {
        let mut out = head.to_vec();
        if let Some(last) = out.last_mut() {
            *last = u8::MAX;
        }
        out.into()
    }

    /// Where the tag of an encoded row key stands; none in what is no row key.
    fn tag_at(row: &[u8]) -> Option<usize> {
        let (mut at, mut len) = (9usize, 0usize);
        for shift in [0, 7, 14] {
            let byte = *row.get(at)?;
            at += 1;
            len |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return (row.len() > at + len).then_some(at + len);
            }
        }
        None
    }

    /// What a row is, and its element; none of what is no row key.
    pub fn split(row: &[u8]) -> Option<(Tag, &[u8])> {
        let (tag, element) = row.get(Self::tag_at(row)?..)?.split_first()?;
        Some((Tag::of(*tag)?, element))
    }

    /// The element that a row of a collection is of.
    pub fn element_of(row: &Bytes) -> Bytes {
        Self::tag_at(row).map_or_else(Bytes::new, |at| row.slice(at + 1..))
    }

    /// Whether it is the head row of its key.
    pub fn is_head(row: &[u8]) -> bool {
        row.last() == Some(&Tag::HEAD.byte()) && Self::tag_at(row).is_some_and(|at| at + 1 == row.len())
    }

    /// The head row of the key that a row is of; none of what is no row key.
    pub fn head_of(row: &[u8]) -> Option<Bytes> {
        let mut head = row.get(..=Self::tag_at(row)?)?.to_vec();
        *head.last_mut()? = Tag::HEAD.byte();
        Some(head.into())
    }

    /// Takes an encoded row key apart.
    pub fn decode(row: Bytes) -> Decoded<RowKey> {
        let mut reader = Reader::new(row);
        let db = Db(reader.u8()?);
        let token = Token::from_raw(reader.u64()?).ok_or(DecodeError::Invalid("token"))?;
        Ok(RowKey { db, token, key: reader.bytes()? })
    }

    /// The token of an encoded row key; none of what is no row key.
    pub fn token_of(row: &[u8]) -> Option<Token> {
        row.get(1..9).and_then(|raw| raw.try_into().ok()).map(u64::from_be_bytes).and_then(Token::from_raw)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::kind::Kind;

    proptest! {
        #[test]
        fn a_row_key_can_be_taken_apart(db: u8, key: Vec<u8>) {
            let row = RowKey::head(Db(db), &key);
            prop_assert_eq!(RowKey::token_of(&row), Some(Token::of(&key)));
            let parts = RowKey { db: Db(db), token: Token::of(&key), key: key.into() };
            prop_assert_eq!(RowKey::decode(row), Ok(parts));
        }

        #[test]
        fn elements_lie_in_their_order_between_their_head_and_the_next_key(key: Vec<u8>, a: Vec<u8>, b: Vec<u8>) {
            let head = RowKey::head(Db(0), &key);
            let row = |element: &[u8]| RowKey::element(&head, Kind::Set.tag(), element);
            prop_assert_eq!(row(&a).cmp(&row(&b)), a.cmp(&b));
            prop_assert!(head < row(&a) && row(&a) < RowKey::after_tag(&head, Kind::Set.tag()));
            prop_assert!(RowKey::after_tag(&head, Tag::ZSET_INDEX) <= RowKey::after_key(&head));
            prop_assert_eq!(RowKey::head_of(&row(&a)), Some(head.clone()));
            prop_assert_eq!(RowKey::head_of(&head), Some(head.clone()));
            prop_assert!(RowKey::is_head(&head) && !RowKey::is_head(&row(&a)));
            let first = row(&a);
            prop_assert_eq!(RowKey::split(&first), Some((Kind::Set.tag(), &a[..])));
            prop_assert_eq!(RowKey::element_of(&first), a);
            prop_assert_eq!(RowKey::token_of(&row(&b)), Some(Token::of(&key)));
        }

        #[test]
        fn any_bytes_are_a_row_key_or_not(raw: Vec<u8>) {
            RowKey::split(&raw);
            RowKey::is_head(&raw);
            RowKey::head_of(&raw);
        }

        #[test]
        fn rows_lie_between_the_bounds_of_their_token(db in 0u8..3, key: Vec<u8>) {
            let (row, token) = (RowKey::head(Db(db), &key), Token::of(&key).raw());
            prop_assert!(RowKey::bound(Db(db), token) <= row && row < RowKey::bound(Db(db), token + 1));
        }
    }
}
