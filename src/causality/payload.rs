//! What a version says. One row may hold versions of several sorts side by side (a value, counter runs, an expiry):
//! each is superseded on its own, so that sharing a row costs nothing in meaning and saves reads.
//!
//! Tags are on disk and on the wire: explicit, only ever appended.

use bytes::{BufMut, Bytes};

use super::clock::Clock;
use super::counter::Seen;
use super::dot::{Dot, put_dots, read_dots};
use crate::base::codec::{DecodeError, Decoded, Reader, put_bytes, put_i128, put_signed, put_varint};

/// The content of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// A string's bytes.
    Value(Value),
    /// One actor's part of a counter.
    Run(Run),
    /// What remains of a deleted counter: the sums its deletion had seen (rule 3).
    Void(Seen),
    /// A deadline, or the word "none", that binds to what it names (rule 10).
    Expiry(Expiry),
    /// The end of a collection (rule 2): all versions of the key's elements that this clock contains are superseded. It
    /// stays in the head row until every owner's clock has what it names, and only another that names as much, or who
    /// knows that, supersedes it.
    Cleared(Clock),
}

impl Payload {
    /// How many bytes of a client's it holds: what of a version's size is not much the same for all.
    pub fn data_len(&self) -> usize {
        match self {
            Payload::Value(value) => value.data.len(),
            Payload::Run(_) | Payload::Void(_) | Payload::Expiry(_) | Payload::Cleared(_) => 0,
        }
    }
}

/// A string, and the base of a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The bytes.
    pub data: Bytes,
    /// When it expires, in milliseconds since the Unix epoch.
    pub deadline: Option<u64>,
    /// The write that last reset the time to live; none when it is this one. APPEND and kin carry it on.
    pub generation: Option<Dot>,
    /// The sums of counter runs that this value replaced.
    pub seen: Seen,
}

impl Value {
    /// A value without deadline that has seen no counter.
    pub fn plain(data: Bytes) -> Self {
        Value { data, deadline: None, generation: None, seen: Seen::default() }
    }
}

/// A run: what one actor has added since the run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The run's name: the dot of its first increment; none when it is this one.
    pub first: Option<Dot>,
    /// What it has added so far. Wide, so that no order of merging can overflow it.
    pub sum: i128,
}

/// A deadline set apart from the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// Milliseconds since the Unix epoch; none is PERSIST: a version that says so, not a removal.
    pub deadline: Option<u64>,
    /// The generations it saw and binds to; none of them: the key as a whole (a counter without a base, a collection).
    /// [`WHOLE`](super::expiry::WHOLE) among others: them and the collections beside them.
    pub generations: Vec<Dot>,
}

const VALUE: u8 = 1;
const VALUE_WITH_MORE: u8 = 2;
const RUN_FIRST: u8 = 3;
const RUN: u8 = 4;
const RUN_WIDE: u8 = 5;
const VOID: u8 = 6;
const EXPIRY: u8 = 7;
const CLEARED: u8 = 8;

impl Payload {
    /// Appends tag and content.
    pub fn put(&self, out: &mut impl BufMut) {
        match self {
            Payload::Value(value) => put_value(value, out),
            Payload::Run(run) => put_run(run, out),
            Payload::Void(seen) => {
                out.put_u8(VOID);
                seen.put(out);
            }
            Payload::Expiry(expiry) => {
                out.put_u8(EXPIRY);
                put_deadline(expiry.deadline, out);
                put_dots(out, &expiry.generations);
            }
            Payload::Cleared(clock) => {
                out.put_u8(CLEARED);
                clock.put(out);
            }
        }
    }

    /// Reads what [`Payload::put`] wrote.
    pub fn read(reader: &mut Reader) -> Decoded<Payload> {
        Ok(match reader.u8()? {
            VALUE => Payload::Value(Value::plain(reader.bytes()?)),
            VALUE_WITH_MORE => Payload::Value(Value {
                data: reader.bytes()?,
                deadline: read_deadline(reader)?,
                generation: read_optional_dot(reader)?,
                seen: Seen::read(reader)?,
            }),
            RUN_FIRST => Payload::Run(Run { first: None, sum: reader.signed()?.into() }),
            RUN => Payload::Run(Run { first: Some(Dot::read(reader)?), sum: reader.signed()?.into() }),
            RUN_WIDE => Payload::Run(Run { first: read_optional_dot(reader)?, sum: reader.i128()? }),
            VOID => Payload::Void(Seen::read(reader)?),
            EXPIRY => Payload::Expiry(Expiry { deadline: read_deadline(reader)?, generations: read_dots(reader)? }),
            CLEARED => Payload::Cleared(Clock::read(reader)?),
            _ => return Err(DecodeError::Unknown("payload")),
        })
    }
}

fn put_value(value: &Value, out: &mut impl BufMut) {
    let plain = value.deadline.is_none() && value.generation.is_none() && value.seen.is_empty();
    out.put_u8(if plain { VALUE } else { VALUE_WITH_MORE });
    put_bytes(out, &value.data);
    if !plain {
        put_deadline(value.deadline, out);
        put_optional_dot(value.generation, out);
        value.seen.put(out);
    }
}

fn put_run(run: &Run, out: &mut impl BufMut) {
    match (i64::try_from(run.sum), run.first) {
        (Ok(sum), None) => {
            out.put_u8(RUN_FIRST);
            put_signed(out, sum);
        }
        (Ok(sum), Some(first)) => {
            out.put_u8(RUN);
            first.put(out);
            put_signed(out, sum);
        }
        (Err(_), first) => {
            out.put_u8(RUN_WIDE);
            put_optional_dot(first, out);
            put_i128(out, run.sum);
        }
    }
}

/// 0 for none, else the deadline plus one.
fn put_deadline(deadline: Option<u64>, out: &mut impl BufMut) {
    put_varint(out, deadline.map_or(0, |ms| ms.saturating_add(1)));
}

fn read_deadline(reader: &mut Reader) -> Decoded<Option<u64>> {
    Ok(reader.varint()?.checked_sub(1))
}

fn put_optional_dot(dot: Option<Dot>, out: &mut impl BufMut) {
    out.put_u8(dot.is_some().into());
    if let Some(dot) = dot {
        dot.put(out);
    }
}

fn read_optional_dot(reader: &mut Reader) -> Decoded<Option<Dot>> {
    match reader.u8()? {
        0 => Ok(None),
        1 => Dot::read(reader).map(Some),
        _ => Err(DecodeError::Invalid("optional dot")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::id::ActorId;

    pub fn any_dot() -> impl Strategy<Value = Dot> {
        (0u64..4, 1u64..50).prop_map(|(actor, counter)| Dot::new(ActorId(actor), counter))
    }

    pub fn any_payload() -> impl Strategy<Value = Payload> {
        let seen = || {
            proptest::collection::vec((any_dot(), 1u64..50, -5i128..5), 0..3).prop_map(|all| {
                let mut seen = Seen::default();
                all.into_iter().for_each(|(run, counter, sum)| seen.note(run, counter, sum));
                seen
            })
        };
        prop_oneof![
            (any::<Vec<u8>>(), proptest::option::of(0u64..99), proptest::option::of(any_dot()), seen()).prop_map(
                |(data, deadline, generation, seen)| Payload::Value(Value {
                    data: data.into(),
                    deadline,
                    generation,
                    seen
                })
            ),
            (proptest::option::of(any_dot()), any::<i128>()).prop_map(|(first, sum)| Payload::Run(Run { first, sum })),
            (proptest::option::of(any_dot()), any::<i64>())
                .prop_map(|(first, sum)| Payload::Run(Run { first, sum: sum.into() })),
            seen().prop_map(Payload::Void),
            (proptest::option::of(0u64..99), proptest::collection::vec(any_dot(), 0..3))
                .prop_map(|(deadline, generations)| Payload::Expiry(Expiry { deadline, generations })),
            proptest::collection::vec(any_dot(), 0..6).prop_map(|dots| Payload::Cleared(dots.into_iter().collect())),
        ]
    }

    proptest! {
        #[test]
        fn a_payload_survives_its_encoding(payload in any_payload()) {
            let mut out = Vec::new();
            payload.put(&mut out);
            let mut reader = Reader::new(out.into());
            prop_assert_eq!(Payload::read(&mut reader), Ok(payload));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_decode_to_a_payload_or_an_error(raw: Vec<u8>) {
            let _ = Payload::read(&mut Reader::new(raw.into()));
        }
    }
}
