//! Local facts: what this replica knows of a key's collections without looking at their rows. They ride with the head row
//! in memory and in the store, are made at the one door through which rows change, and are neither sent nor merged nor
//! digested: two replicas with the same rows may well differ in the bounds.

use bytes::BufMut;
use smallvec::SmallVec;

use super::clock::Clock;
use super::dot::Dot;
use crate::base::codec::{DecodeError, Decoded, Reader, put_varint};
use crate::base::id::ActorId;
use crate::base::kind::Kind;

/// What a replica knows of a key's collections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Local {
    /// Of each kind of which there are rows, ascending by kind.
    pub parts: SmallVec<[Part; 1]>,
    /// Versions that a clearing of the key superseded may still be stored: those that this contains.
    pub hidden: Option<Clock>,
    /// Which clear of the region these facts were made under, as a number; 0 for none.
    pub under: u64,
}

/// What there is of one kind under a key. Rows hidden by a clear are not there; those hidden by a deadline are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Of which kind.
    pub kind: Kind,
    /// Rows, whatever they say.
    pub rows: u64,
    /// Elements to be seen.
    pub count: u64,
    /// Side rows to be seen.
    pub side: u64,
    /// Rows in which a counter has run.
    pub runs: u64,
    /// Elements that end by themselves.
    pub ending: u64,
    /// None of those ends before this time, in milliseconds since the epoch.
    pub next_end: u64,
    /// No version was written after this time, in milliseconds since the epoch.
    pub latest: u64,
    /// The hashes of all rows, each combined with the others by exclusive or.
    pub digest: u128,
    /// No dot of a version is higher, for each actor.
    pub highest: SmallVec<[(ActorId, u64); 1]>,
}

impl Local {
    /// What there is of `kind`.
    pub fn part(&self, kind: Kind) -> Option<&Part> {
        self.parts.iter().find(|part| part.kind == kind)
    }

    /// The same, made if there is nothing yet.
    pub fn part_mut(&mut self, kind: Kind) -> &mut Part {
        let at = self.parts.iter().position(|part| part.kind >= kind).unwrap_or(self.parts.len());
        if self.parts.get(at).is_none_or(|part| part.kind != kind) {
            self.parts.insert(at, Part::new(kind));
        }
        &mut self.parts[at]
    }

    /// True when there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.hidden.is_none()
    }

    /// The digest of all rows of the key but the head.
    pub fn digest(&self) -> u128 {
        self.parts.iter().fold(0, |digest, part| digest ^ part.digest)
    }

    /// Appends the facts.
    pub fn put(&self, out: &mut impl BufMut) {
        put_varint(out, self.under);
        out.put_u8(self.hidden.is_some().into());
        if let Some(hidden) = &self.hidden {
            hidden.put(out);
        }
        put_varint(out, self.parts.len() as u64);
        self.parts.iter().for_each(|part| part.put(out));
    }

    /// Reads what [`Local::put`] wrote.
    pub fn read(reader: &mut Reader) -> Decoded<Local> {
        let under = reader.varint()?;
        let hidden = match reader.u8()? {
            0 => None,
            _ => Some(Clock::read(reader)?),
        };
        let parts = (0..reader.count()?).map(|_| Part::read(reader)).collect::<Decoded<_>>()?;
        Ok(Local { parts, hidden, under })
    }
}

impl Part {
    /// Nothing of `kind`.
    pub fn new(kind: Kind) -> Part {
        Part {
            kind,
            rows: 0,
            count: 0,
            side: 0,
            runs: 0,
            ending: 0,
            next_end: u64::MAX,
            latest: 0,
            digest: 0,
            highest: SmallVec::new(),
        }
    }

    /// Whether the key is there because of it, all deadlines aside.
    pub fn is_there(&self) -> bool {
        self.count > 0 || self.side > 0
    }

    /// A version with this dot was written at this time.
    pub fn note(&mut self, dot: Dot, ms: u64) {
        self.latest = self.latest.max(ms);
        match self.highest.iter_mut().find(|(actor, _)| *actor == dot.actor) {
            Some((_, highest)) => *highest = dot.counter.max(*highest),
            None => self.highest.push((dot.actor, dot.counter)),
        }
    }

    /// Whether `clear` names all that may be there, given all that is known here.
    pub fn lies_within(&self, clear: &Clock, clock: &Clock) -> bool {
        self.highest.iter().all(|(actor, highest)| clear.covers_until(clock, *actor, *highest))
    }

    fn put(&self, out: &mut impl BufMut) {
        out.put_u8(self.kind as u8);
        for number in [self.rows, self.count, self.side, self.runs, self.ending, self.latest] {
            put_varint(out, number);
        }
        if self.ending > 0 {
            put_varint(out, self.next_end);
        }
        out.put_u128(self.digest);
        put_varint(out, self.highest.len() as u64);
        for (actor, highest) in &self.highest {
            out.put_u64(actor.0);
            put_varint(out, *highest);
        }
    }

    fn read(reader: &mut Reader) -> Decoded<Part> {
        let kind = Kind::of_number(reader.u8()?).ok_or(DecodeError::Unknown("kind"))?;
        let mut part = Part::new(kind);
        part.rows = reader.varint()?;
        part.count = reader.varint()?;
        part.side = reader.varint()?;
        part.runs = reader.varint()?;
        part.ending = reader.varint()?;
        part.latest = reader.varint()?;
        if part.ending > 0 {
            part.next_end = reader.varint()?;
        }
        part.digest = reader.u128()?;
        for _ in 0..reader.count()? {
            part.highest.push((ActorId(reader.u64()?), reader.varint()?));
        }
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_part() -> impl Strategy<Value = Part> {
        let numbers = proptest::array::uniform6(0u64..1 << 40);
        (numbers, any::<u128>(), 1u64..99, proptest::collection::vec((0u64..9, 0u64..99), 0..3)).prop_map(
            |([rows, count, side, runs, ending, latest], digest, end, dots)| {
                let next_end = if ending > 0 { end } else { u64::MAX };
                let mut part =
                    Part { rows, count, side, runs, ending, next_end, latest, digest, ..Part::new(Kind::Hash) };
                dots.into_iter().for_each(|(actor, counter)| part.note(Dot::new(ActorId(actor), counter), 0));
                part
            },
        )
    }

    proptest! {
        #[test]
        fn local_facts_survive_their_encoding(part in any_part(), hidden: bool, under: u64) {
            let hidden = hidden.then(|| [Dot::new(ActorId(1), 2)].into_iter().collect());
            let local = Local { parts: [part].into_iter().collect(), hidden, under };
            let mut out = Vec::new();
            local.put(&mut out);
            let mut reader = Reader::new(out.into());
            prop_assert_eq!(Local::read(&mut reader), Ok(local));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_decode_to_local_facts_or_an_error(raw: Vec<u8>) {
            let _ = Local::read(&mut Reader::new(raw.into()));
        }
    }

    #[test]
    fn parts_stand_in_the_order_of_their_kinds() {
        let mut local = Local::default();
        for kind in [Kind::Set, Kind::Stream, Kind::Hash, Kind::Set] {
            local.part_mut(kind).rows += 1;
        }
        let kinds: Vec<_> = local.parts.iter().map(|part| (part.kind, part.rows)).collect();
        assert_eq!(kinds, [(Kind::Hash, 1), (Kind::Set, 2), (Kind::Stream, 1)]);
    }
}
