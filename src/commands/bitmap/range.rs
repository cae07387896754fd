//! Runs of bits within a string, given by their ends as Redis takes them: both included, negative ones counted from the
//! end, in bytes or in bits.

/// What positions are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Byte,
    Bit,
}

/// Bits from `first` to before `after`; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    first: u64,
    after: u64,
}

impl Span {
    /// All bits of `text`, if it has any.
    pub(super) fn whole(text: &[u8]) -> Option<Span> {
        let after = text.len() as u64 * 8;
        (after > 0).then_some(Span { first: 0, after })
    }

    /// The bits of `text` from `start` to `end`, to its last one where there is no `end`; none if that is none.
    pub(super) fn of(text: &[u8], start: i64, end: Option<i64>, unit: Unit) -> Option<Span> {
        let bits = if unit == Unit::Byte { 8 } else { 1 };
        let len = text.len() as i64 * 8 / bits;
        let from_front = |at: i64| if at < 0 { at.saturating_add(len).max(0) } else { at };
        let (start, last) = (from_front(start), from_front(end.unwrap_or(-1)).min(len - 1));
        (start <= last).then(|| Span { first: (start * bits) as u64, after: ((last + 1) * bits) as u64 })
    }

    /// How many of its bits are set.
    pub(super) fn count(self, text: &[u8]) -> u64 {
        self.bytes(text).map(|(_, byte, mask)| u64::from((byte & mask).count_ones())).sum()
    }

    /// Its first bit that is set, or clear.
    pub(super) fn find(self, text: &[u8], set: bool) -> Option<u64> {
        let wanted = |byte: u8, mask: u8| if set { byte & mask } else { !byte & mask };
        self.bytes(text)
            .map(|(at, byte, mask)| (at, wanted(byte, mask)))
            .find(|(_, wanted)| *wanted != 0)
            .map(|(at, wanted)| at * 8 + u64::from(wanted.leading_zeros()))
    }

    /// Its bytes: where each stands, what it is, and which of its bits are meant.
    fn bytes(self, text: &[u8]) -> impl Iterator<Item = (u64, u8, u8)> {
        let (from, to) = (self.first / 8, self.after.div_ceil(8));
        let bytes = text.get(from as usize..to as usize).unwrap_or_default();
        (from..).zip(bytes.iter().copied()).map(move |(at, byte)| (at, byte, self.mask(at)))
    }

    /// Which bits of the byte `at` belong to it.
    fn mask(self, at: u64) -> u8 {
        let before = self.first.saturating_sub(at * 8).min(8);
        let behind = (at * 8 + 8).saturating_sub(self.after).min(8);
        (0xffu16 >> before) as u8 & (0xffu16 << behind) as u8
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counting_and_finding_look_at_each_bit_between_the_ends(
            text in prop::collection::vec(any::<u8>(), 0..6),
            start in -60i64..60,
            end in prop::option::of(-60i64..60),
            in_bits: bool,
        ) {
            let (unit, size) = if in_bits { (Unit::Bit, 1) } else { (Unit::Byte, 8) };
            let len = text.len() as i64 * 8 / size;
            let place = |at: i64| if at < 0 { (at + len).max(0) } else { at };
            let inside = |bit: i64| place(start) <= bit / size && bit / size <= place(end.unwrap_or(-1));
            let bits: Vec<(u64, bool)> = (0..text.len() as i64 * 8)
                .filter(|bit| inside(*bit))
                .map(|bit| (bit as u64, text[bit as usize / 8] & (0x80 >> (bit % 8)) != 0))
                .collect();
            let span = Span::of(&text, start, end, unit);
            prop_assert_eq!(span.is_some(), !bits.is_empty());
            if let Some(span) = span {
                prop_assert_eq!(span.count(&text), bits.iter().filter(|(_, set)| *set).count() as u64);
                for wanted in [true, false] {
                    let first = bits.iter().find(|(_, set)| *set == wanted).map(|(at, _)| *at);
                    prop_assert_eq!(span.find(&text, wanted), first);
                }
            }
        }

        #[test]
        fn the_ends_of_the_numbers_do_not_overflow(text: Vec<u8>, start: i64, end: i64) {
            for unit in [Unit::Byte, Unit::Bit] {
                if let Some(span) = Span::of(&text, start, Some(end), unit) {
                    prop_assert!(span.count(&text) <= text.len() as u64 * 8);
                }
            }
        }
    }
}
