//! The key under which a row is stored: `database · token · key · kind · element`. Everything of a region is one range,
//! everything of a key one sub-range.

use bytes::{BufMut, Bytes, BytesMut};

use crate::base::codec::{DecodeError, Decoded, Reader, put_varint};
use crate::base::id::Db;
use crate::base::scratch::carve;
use crate::ring::slot::Token;

/// What a row is within its key. On disk: explicit, only ever appended.
const HEAD: u8 = 0;

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
        out.put_u8(HEAD);
    }

    /// The first possible row key at `token`: where a range begins or ends.
    pub fn bound(db: Db, token: u64) -> Bytes {
        let mut out = BytesMut::with_capacity(9);
        out.put_u8(db.0);
        out.put_u64(token);
        out.freeze()
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

    proptest! {
        #[test]
        fn a_row_key_can_be_taken_apart(db: u8, key: Vec<u8>) {
            let row = RowKey::head(Db(db), &key);
            prop_assert_eq!(RowKey::token_of(&row), Some(Token::of(&key)));
            let parts = RowKey { db: Db(db), token: Token::of(&key), key: key.into() };
            prop_assert_eq!(RowKey::decode(row), Ok(parts));
        }

        #[test]
        fn rows_lie_between_the_bounds_of_their_token(db in 0u8..3, key: Vec<u8>) {
            let (row, token) = (RowKey::head(Db(db), &key), Token::of(&key).raw());
            prop_assert!(RowKey::bound(Db(db), token) <= row && row < RowKey::bound(Db(db), token + 1));
        }
    }
}
