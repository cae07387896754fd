//! A dot: the name of one row change.

use std::fmt;

use bytes::BufMut;

use crate::base::codec::{Decoded, Reader, put_varint};
use crate::base::id::ActorId;

/// Which actor, and its how-manieth change of this region. Counters start at 1 and are never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who made the change.
    pub actor: ActorId,
    /// Its place in that actor's sequence for the region.
    pub counter: u64,
}

impl Dot {
    /// The dot `counter` of `actor`.
    pub fn new(actor: ActorId, counter: u64) -> Self {
        Dot { actor, counter }
    }

    /// Appends actor (8 bytes) and counter (varint).
    pub fn put(&self, out: &mut impl BufMut) {
        out.put_u64(self.actor.0);
        put_varint(out, self.counter);
    }

    /// Reads what [`Dot::put`] wrote.
    pub fn read(reader: &mut Reader) -> Decoded<Dot> {
        Ok(Dot { actor: ActorId(reader.u64()?), counter: reader.varint()? })
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.actor, self.counter)
    }
}

/// Appends a count, then each dot.
pub fn put_dots(out: &mut impl BufMut, dots: &[Dot]) {
    put_varint(out, dots.len() as u64);
    dots.iter().for_each(|dot| dot.put(out));
}

/// Reads what [`put_dots`] wrote.
pub fn read_dots<C: FromIterator<Dot>>(reader: &mut Reader) -> Decoded<C> {
    (0..reader.count()?).map(|_| Dot::read(reader)).collect()
}
