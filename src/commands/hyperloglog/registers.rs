//! The registers of a HyperLogLog, how Redis writes them into a string, and how many elements they stand for.
//!
//! The string is Redis' own (<https://redis.io/docs/latest/develop/data-types/probabilistic/hyperloglogs/>), so that what one
//! wrote the other reads: `HYLL`, the encoding, three zeros, eight bytes for a cached estimate, then either 16,384 registers
//! of 6 bits, the lowest bit first, or runs of equal registers in one or two bytes each. The estimate is not cached here: the
//! bytes always say that it is out of date.

/// How many registers there are: the hash's lowest 14 bits choose one.
pub const REGISTERS: usize = 1 << INDEX_BITS;

const INDEX_BITS: u32 = 14;
/// Bits of the hash that are counted through: a register holds one more than that at most.
const RANK_BITS: usize = 64 - INDEX_BITS as usize;
const HEADER: usize = 16;
const MAGIC: &[u8; 4] = b"HYLL";
/// Where the header says that its cached estimate is out of date, and how.
const STALE: (usize, u8) = (15, 1 << 7);
const DENSE_BYTES: usize = HEADER + REGISTERS * 6 / 8;
/// The greatest register that a run can have.
const MOST_IN_RUN: u8 = 32;
/// Longest runs of zeros in one byte, of zeros in two, and of others.
const LONGEST: [usize; 3] = [64, REGISTERS, 4];

/// How registers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// As runs.
    Sparse,
    /// Each by itself.
    Dense,
}

/// Why a string is no HyperLogLog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// It is something else.
    Other,
    /// It begins as one, and does not hold as many registers as there are.
    Damaged,
}

/// All registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registers {
    each: Box<[u8]>,
    /// How they were written: a dense one never becomes sparse again.
    pub encoding: Encoding,
}

impl Default for Registers {
    fn default() -> Self {
        Registers { each: vec![0; REGISTERS].into(), encoding: Encoding::Sparse }
    }
}

impl Registers {
    /// The registers that a string holds.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(text: &[u8]) -> Result<Registers, Invalid> {
        let (Some(magic), Some(encoding)) = (text.first_chunk::<4>(), text.get(4)) else { return Err(Invalid::Other) };
        let body = text.get(HEADER..).filter(|_| magic == MAGIC).ok_or(Invalid::Other)?;
        match encoding {
            0 if text.len() == DENSE_BYTES => Ok(Registers { each: dense(body), encoding: Encoding::Dense }),
            1 => runs(body).map(|each| Registers { each, encoding: Encoding::Sparse }).ok_or(Invalid::Damaged),
            _ => Err(Invalid::Other),
        }
    }

    /// The string that holds them; runs, as long as these take `sparse_bytes` at most and can hold them.
    pub fn encode(&self, sparse_bytes: usize) -> Vec<u8> {
        let sparse = (self.encoding == Encoding::Sparse).then(|| self.as_runs(sparse_bytes)).flatten();
        let encoding = if sparse.is_some() { 1 } else { 0 };
        let mut text = Vec::with_capacity(HEADER + sparse.as_ref().map_or(DENSE_BYTES, Vec::len));
        text.extend_from_slice(MAGIC);
        text.push(encoding);
        text.resize(HEADER, 0);
        if let Some(byte) = text.get_mut(STALE.0) {
            *byte = STALE.1;
        }
        match sparse {
            Some(runs) => text.extend_from_slice(&runs),
            None => self.each.chunks(4).for_each(|four| text.extend_from_slice(&packed(four))),
        }
        text
    }

    fn as_runs(&self, most: usize) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for run in self.each.chunk_by(|one, other| one == other) {
            let value = *run.first()?;
            if value > MOST_IN_RUN {
                return None;
            }
            put_run(value, run.len(), &mut out);
            if out.len() > most {
                return None;
            }
        }
        Some(out)
    }

    /// Notes an element; whether that changed anything.
    pub fn add(&mut self, element: &[u8]) -> bool {
        let hash = murmur64(element);
        let rank = ((hash >> INDEX_BITS) | 1 << RANK_BITS).trailing_zeros() as u8 + 1;
        let Some(register) = self.each.get_mut(hash as usize & (REGISTERS - 1)) else { return false };
        let grows = *register < rank;
        *register = rank.max(*register);
        grows
    }

    /// Takes in all that `other` has noted.
    pub fn merge(&mut self, other: &Registers) {
        self.each.iter_mut().zip(&other.each).for_each(|(own, other)| *own = (*own).max(*other));
        self.encoding = self.encoding.max(other.encoding);
    }

    /// The registers, in order.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        self.each.iter().copied()
    }

    /// About how many different elements were noted: Ertl's improved estimator (arXiv 1702.01284), without any correction
    /// by experience.
    pub fn estimate(&self) -> u64 {
        const ALPHA: f64 = 0.721_347_520_444_481_7;
        let mut counts = [0u32; RANK_BITS + 2];
        for register in self.iter() {
            if let Some(count) = counts.get_mut(usize::from(register)) {
                *count += 1;
            }
        }
        let m = REGISTERS as f64;
        let [zeros, middle @ .., full] = counts;
        let mut sum = m * tau((m - f64::from(full)) / m);
        for count in middle.into_iter().rev() {
            sum = (sum + f64::from(count)) * 0.5;
        }
        sum += m * sigma(f64::from(zeros) / m);
        (ALPHA * m * m / sum).round() as u64
    }
}

fn dense(body: &[u8]) -> Box<[u8]> {
    let triples = body.chunks_exact(3).filter_map(|triple| triple.first_chunk::<3>());
    triples.flat_map(|[a, b, c]| [a & 63, a >> 6 | b << 2 & 63, b >> 4 | c << 4 & 63, c >> 2]).collect()
}

fn packed(four: &[u8]) -> [u8; 3] {
    let bits = four.iter().rev().fold(0u32, |bits, register| bits << 6 | u32::from(register & 63));
    let [a, b, c, _] = bits.to_le_bytes();
    [a, b, c]
}

/// The registers of a string of runs, if there are as many as there should be.
fn runs(body: &[u8]) -> Option<Box<[u8]>> {
    let mut out = Vec::with_capacity(REGISTERS);
    let mut bytes = body.iter().copied();
    while let Some(first) = bytes.next() {
        let (value, times) = match first >> 6 {
            0 => (0, usize::from(first & 63) + 1),
            1 => (0, (usize::from(first & 63) << 8 | usize::from(bytes.next()?)) + 1),
            _ => ((first >> 2 & 31) + 1, usize::from(first & 3) + 1),
        };
        if out.len() + times > REGISTERS {
            return None;
        }
        out.resize(out.len() + times, value);
    }
    (out.len() == REGISTERS).then(|| out.into())
}

/// Appends a run, as several where it is too long for one.
fn put_run(value: u8, mut times: usize, out: &mut Vec<u8>) {
    while times > 0 {
        let longest = match value {
            0 if times <= LONGEST[0] => LONGEST[0],
            0 => LONGEST[1],
            _ => LONGEST[2],
        };
        let now = times.min(longest);
        let less = (now - 1) as u16;
        match value {
            0 if now <= LONGEST[0] => out.push(less as u8),
            0 => out.extend_from_slice(&(1 << 14 | less).to_be_bytes()),
            _ => out.push(1 << 7 | (value - 1) << 2 | less as u8),
        }
        times -= now;
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        y *= 0.5;
        let next = z - (1.0 - x) * (1.0 - x) * y;
        if next == z {
            return z / 3.0;
        }
        z = next;
    }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let next = z + x * y;
        if next == z {
            return z;
        }
        y += y;
        z = next;
    }
}

/// MurmurHash64A (Austin Appleby, in the public domain) with Redis' seed, so that both count an element alike.
fn murmur64(data: &[u8]) -> u64 {
    const SEED: u64 = 0xadc8_3b19;
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const R: u32 = 47;
    let mut hash = SEED ^ (data.len() as u64).wrapping_mul(M);
    let mut chunks = data.chunks_exact(8);
    for chunk in &mut chunks {
        let word = chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)).wrapping_mul(M);
        hash = (hash ^ (word ^ word >> R).wrapping_mul(M)).wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        hash = (hash ^ rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))).wrapping_mul(M);
    }
    hash = (hash ^ hash >> R).wrapping_mul(M);
    hash ^ hash >> R
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(elements: impl IntoIterator<Item = u32>) -> Registers {
        let mut registers = Registers::default();
        for element in elements {
            registers.add(&element.to_le_bytes());
        }
        registers
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_encoded_is_decoded(elements in prop::collection::vec(any::<u32>(), 0..300), limit in 0usize..4000) {
            let mut registers = of(elements);
            let text = registers.encode(limit);
            let fits = text.len() != DENSE_BYTES;
            registers.encoding = if fits { Encoding::Sparse } else { Encoding::Dense };
            prop_assert!(!fits || text.len() <= HEADER + limit);
            prop_assert_eq!(Registers::decode(&text), Ok(registers));
        }

        #[test]
        fn damaged_strings_are_refused_or_read(
            elements in prop::collection::vec(any::<u32>(), 0..50),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut text = of(elements).encode(3000);
            for (at, byte) in changes {
                let at = at.index(text.len());
                text[at] = byte;
            }
            let _ = Registers::decode(&text);
            let _ = Registers::decode(&text[..cut.index(text.len())]);
        }

        #[test]
        fn merging_is_noting_all_elements_in_any_order(
            one in prop::collection::vec(any::<u32>(), 0..100),
            other in prop::collection::vec(any::<u32>(), 0..100),
        ) {
            let (mut ab, mut ba) = (of(one.clone()), of(other.clone()));
            ab.merge(&of(other.clone()));
            ba.merge(&of(one.clone()));
            prop_assert_eq!(&ab, &ba);
            prop_assert_eq!(ab, of(one.into_iter().chain(other)));
        }
    }

    #[test]
    fn the_estimate_is_within_three_percent() {
        for count in [0u32, 1, 10, 100, 1_000, 10_000, 100_000] {
            let estimate = of(0..count).estimate() as f64;
            assert!((estimate - f64::from(count)).abs() <= f64::from(count) * 0.03, "{count}: {estimate}");
        }
    }

    #[test]
    fn an_empty_one_is_a_single_run_of_zeros() {
        assert_eq!(Registers::default().encode(3000), b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff");
    }

    #[test]
    fn what_is_something_else_is_told_from_what_is_damaged() {
        for text in [&b""[..], b"HYLL", b"hello world, this is a text", b"HYLL\x00\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff"] {
            assert_eq!(Registers::decode(text), Err(Invalid::Other), "{text:?}");
        }
        for body in [&b""[..], b"\x7f", b"\x7f\xff\x00", b"\x7f\xfe", b"\x80"] {
            let text = [b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\0", body].concat();
            assert_eq!(Registers::decode(&text), Err(Invalid::Damaged), "{body:?}");
        }
    }
}
