//! A context: the dots that a client has seen, as text that it gives back with PUT or DEL.
//!
//! Authenticated (rule 8), because a forged dot with a huge counter would swallow all later writes of its actor: the one
//! attack peculiar to this design. The tag covers cluster, database, key and dots; a context of another key, database
//! or cluster is refused.

use bytes::Bytes;

use super::cell::Version;
use super::clock::Clock;
use super::counter::{Seen, run_of, seen_over};
use super::dot::{Dot, put_dots, read_dots};
use super::payload::Payload;
use crate::base::codec::{Decoded, Reader};
use crate::base::id::{ClusterId, Db};

const FORMAT: u8 = 1;
const FORMAT_OF_COLLECTION: u8 = 2;
const TAG_BYTES: usize = 16;

/// The key that authenticates contexts: one for the cluster, never shown.
#[derive(Clone)]
pub struct ContextKey([u8; 32]);

impl ContextKey {
    /// Derives it from the cluster's secret.
    pub fn derive(secret: &[u8]) -> Self {
        ContextKey(blake3::derive_key("redynamo 2026-11 client context", secret))
    }
}

/// What seals and opens the contexts of one cluster.
#[derive(Clone)]
pub struct Sealer {
    /// The cluster that contexts are given for.
    pub cluster: ClusterId,
    /// What authenticates them.
    pub key: ContextKey,
}

/// Why a context was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// Not something this program ever gave out.
    #[error("malformed context")]
    Malformed,
    /// Given out for another key, database or cluster, or changed since.
    #[error("context was not given for this key")]
    Foreign,
}

/// What a client has seen of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// Dots of all versions it saw.
    pub dots: Vec<Dot>,
    /// Sums of the counter runs it saw.
    pub seen: Seen,
    /// Of a key with collections: all that was known of the region. What of the key's rows it names has been seen.
    pub clear: Option<Clock>,
}

impl Context {
    /// The context of having read `versions`.
    pub fn of(versions: &[Version]) -> Context {
        let mut seen = seen_over(versions.iter());
        for version in versions {
            if let Some((run, state)) = run_of(version) {
                seen.note(run, version.dot.counter, state.sum);
            }
        }
        let named = versions.iter().filter(|version| !matches!(version.payload, Payload::Cleared(_)));
        Context { dots: named.map(|version| version.dot).collect(), seen, clear: None }
    }

    /// As text for a client: lower-case hex.
    pub fn seal(&self, sealer: &Sealer, db: Db, name: &[u8]) -> String {
        let mut out = vec![if self.clear.is_some() { FORMAT_OF_COLLECTION } else { FORMAT }];
        put_dots(&mut out, &self.dots);
        self.seen.put(&mut out);
        self.clear.iter().for_each(|clear| clear.put(&mut out));
        let tag = tag(sealer, db, name, &out);
        out.extend_from_slice(&tag);
        to_hex(&out)
    }

    /// What a client gave back, if it is ours and was given for this key.
    pub fn open(text: &[u8], sealer: &Sealer, db: Db, name: &[u8]) -> Result<Context, ContextError> {
        let raw = from_hex(text).ok_or(ContextError::Malformed)?;
        let split = raw.len().checked_sub(TAG_BYTES).filter(|at| *at > 0).ok_or(ContextError::Malformed)?;
        let (body, given) = raw.split_at(split);
        // blake3's own comparison takes the same time wherever the first difference lies.
        let expected = blake3::Hash::from_bytes(padded(&tag(sealer, db, name, body)));
        if expected != blake3::Hash::from_bytes(padded(given)) {
            return Err(ContextError::Foreign);
        }
        Self::read(Bytes::copy_from_slice(body)).map_err(|_| ContextError::Malformed)
    }

    fn read(body: Bytes) -> Decoded<Context> {
        let mut reader = Reader::new(body);
        let of_collection = reader.u8()? == FORMAT_OF_COLLECTION;
        let (dots, seen) = (read_dots(&mut reader)?, Seen::read(&mut reader)?);
        let clear = of_collection.then(|| Clock::read(&mut reader)).transpose()?;
        let context = Context { dots, seen, clear };
        reader.finish()?;
        Ok(context)
    }
}

fn tag(sealer: &Sealer, db: Db, name: &[u8], body: &[u8]) -> [u8; TAG_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(&sealer.key.0);
    hasher.update(&sealer.cluster.0.to_be_bytes());
    hasher.update(&[db.0]);
    hasher.update(&(name.len() as u64).to_be_bytes());
    hasher.update(name);
    hasher.update(body);
    let mut tag = [0; TAG_BYTES];
    hasher.finalize_xof().fill(&mut tag);
    tag
}

fn padded(tag: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.iter_mut().zip(tag).for_each(|(to, from)| *to = *from);
    out
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::ActorId;

    fn sample() -> Context {
        let mut seen = Seen::default();
        seen.note(Dot::new(ActorId(7), 3), 9, -4);
        let clear = Some([Dot::new(ActorId(7), 8)].into_iter().collect());
        Context { dots: vec![Dot::new(ActorId(7), 9), Dot::new(ActorId(8), 1)], seen, clear }
    }

    fn sealer(cluster: u64, secret: &[u8]) -> Sealer {
        Sealer { cluster: ClusterId(cluster), key: ContextKey::derive(secret) }
    }

    #[test]
    fn a_context_comes_back_as_it_was_given() {
        let text = sample().seal(&sealer(5, b"secret"), Db(0), b"k");
        assert_eq!(Context::open(text.as_bytes(), &sealer(5, b"secret"), Db(0), b"k"), Ok(sample()));
    }

    #[test]
    fn a_context_of_another_key_database_cluster_or_secret_is_foreign() {
        let ours = sealer(5, b"secret");
        let text = sample().seal(&ours, Db(0), b"k");
        let open = |sealer: &Sealer, db, name: &[u8]| Context::open(text.as_bytes(), sealer, db, name);
        assert_eq!(open(&ours, Db(0), b"l"), Err(ContextError::Foreign));
        assert_eq!(open(&ours, Db(1), b"k"), Err(ContextError::Foreign));
        assert_eq!(open(&sealer(6, b"secret"), Db(0), b"k"), Err(ContextError::Foreign));
        assert_eq!(open(&sealer(5, b"other"), Db(0), b"k"), Err(ContextError::Foreign));
    }

    #[test]
    fn a_forged_dot_with_a_huge_counter_is_refused() {
        let ours = sealer(5, b"secret");
        let text = sample().seal(&ours, Db(0), b"k");
        for at in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            assert!(Context::open(&forged, &ours, Db(0), b"k").is_err());
        }
        for garbage in [&b""[..], b"0", b"zz", b"01", &[b'f'; 64]] {
            assert!(Context::open(garbage, &ours, Db(0), b"k").is_err());
        }
    }
}
