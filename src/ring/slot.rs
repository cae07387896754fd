//! Slots, as Redis Cluster has them, and tokens: a key's place on the ring.
//!
//! A token orders all keys of a cluster. Its slot comes first, so that what a node owns is a run of tokens; 48 bits of
//! hash follow, so that a run can be walked and compared in small pieces. A token is also a `SCAN` cursor: below 2⁶²,
//! where clients that read cursors as signed numbers are safe.

use memchr::memchr;
use xxhash_rust::xxh3::xxh3_64;

/// How many slots there are, as in Redis Cluster.
pub const SLOTS: u16 = 1 << SLOT_BITS;

/// log₂ of [`SLOTS`].
pub(super) const SLOT_BITS: u32 = 14;

const HASH_BITS: u32 = 48;

/// CRC16/XMODEM of a key, or of its `{hashtag}`, modulo 16384.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot of `key`.
    pub fn of(key: &[u8]) -> Slot {
        Slot(crc16(hashtag(key)) % SLOTS)
    }

    /// The slot numbered so; none from 16384 on.
    pub fn new(number: u16) -> Option<Slot> {
        (number < SLOTS).then_some(Slot(number))
    }

    /// Its number, below 16384.
    pub fn number(self) -> u16 {
        self.0
    }
}

/// A key's place on the ring: 14 bits of slot, then the upper 48 bits of xxh3 of the whole key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

impl Token {
    /// The highest token.
    pub const MAX: Token = Token((1 << (SLOT_BITS + HASH_BITS)) - 1);

    /// The token of `key`. Keys of one hashtag share the slot, not the hash.
    pub fn of(key: &[u8]) -> Token {
        let hash = xxh3_64(key) >> (u64::BITS - HASH_BITS);
        Token(Token::first_of(Slot::of(key)).0 | hash)
    }

    /// The lowest token of `slot`.
    pub fn first_of(slot: Slot) -> Token {
        Token(u64::from(slot.0) << HASH_BITS)
    }

    /// The highest token of `slot`.
    pub fn last_of(slot: Slot) -> Token {
        Token(Token::first_of(slot).0 | ((1 << HASH_BITS) - 1))
    }

    /// The token with this raw value, such as a client's `SCAN` cursor; none above [`Token::MAX`].
    pub fn from_raw(raw: u64) -> Option<Token> {
        (raw <= Token::MAX.0).then_some(Token(raw))
    }

    /// The raw value, below 2⁶².
    pub fn raw(self) -> u64 {
        self.0
    }

    /// The slot this token lies in.
    pub fn slot(self) -> Slot {
        Slot((self.0 >> HASH_BITS) as u16)
    }

    /// The token after this one; none after the last.
    pub fn next(self) -> Option<Token> {
        Token::from_raw(self.0 + 1)
    }
}

/// The part of `key` that places it (Redis Cluster specification, "Hash tags"): what stands between the first `{` and
/// the first `}` after it, or the whole key if there is no such pair or nothing in between.
pub fn hashtag(key: &[u8]) -> &[u8] {
    let tag = memchr(b'{', key).and_then(|open| {
        let rest = key.get(open + 1..)?;
        rest.get(..memchr(b'}', rest)?)
    });
    match tag {
        Some(tag) if !tag.is_empty() => tag,
        _ => key,
    }
}

/// CRC-16/XMODEM: polynomial 0x1021, initial value 0, nothing reflected.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)])
}

const CRC16: [u16; 256] = crc16_table();

const fn crc16_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use redis_protocol::redis_keyslot;

    fn slot(key: &str) -> u16 {
        Slot::of(key.as_bytes()).number()
    }

    #[test]
    fn slots_are_those_that_redis_publishes() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot("123456789"), 12739);
        assert_eq!(slot("foo"), 12182);
        assert_eq!(slot("bar"), 5061);
        assert_eq!(slot("hello"), 866);
        assert_eq!(slot(""), 0);
    }

    #[test]
    fn hashtags_follow_the_examples_of_the_cluster_specification() {
        assert_eq!(slot("{user1000}.following"), slot("{user1000}.followers"));
        assert_eq!(slot("{user1000}.following"), slot("user1000"));
        for (key, tag) in [
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("foo{bar", "foo{bar"),
            ("foo}bar{", "foo}bar{"),
            ("}{a}", "a"),
        ] {
            assert_eq!(hashtag(key.as_bytes()), tag.as_bytes(), "{key}");
        }
    }

    #[test]
    fn a_token_is_its_slot_then_its_hash_and_fits_a_signed_cursor() {
        let token = Token::of(b"foo");
        assert_eq!(token.slot().number(), 12182);
        assert_eq!(token.raw() & ((1 << 48) - 1), xxh3_64(b"foo") >> 16);
        assert!(Token::MAX.raw() < i64::MAX as u64);
        assert_eq!(Token::last_of(Slot(SLOTS - 1)), Token::MAX);
        assert_eq!(Token::from_raw(Token::MAX.raw() + 1), None);
        assert_eq!(Token::MAX.next(), None);
        assert_eq!(Token::last_of(Slot(6)).next(), Some(Token::first_of(Slot(7))));
        assert_eq!(Slot::new(SLOTS), None);
    }

    proptest! {
        #[test]
        fn slots_agree_with_another_implementation(key in "[a-c{}]{0,12}", raw: Vec<u8>) {
            prop_assert_eq!(slot(&key), redis_keyslot(key.as_bytes()));
            prop_assert_eq!(Slot::of(&raw).number(), redis_keyslot(&raw));
        }

        #[test]
        fn a_token_lies_between_the_first_and_the_last_of_its_slot(key: Vec<u8>) {
            let (token, slot) = (Token::of(&key), Slot::of(&key));
            prop_assert_eq!(token.slot(), slot);
            prop_assert!(Token::first_of(slot) <= token && token <= Token::last_of(slot));
            prop_assert_eq!(Token::from_raw(token.raw()), Some(token));
        }
    }
}
