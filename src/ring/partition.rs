//! Partitions: the slots cut into Q equal runs, once, when the cluster is made (the paper's strategy 3, §6.2). Because
//! the cut never moves, hash trees and clocks survive every change of layout.

use std::ops::{Range, RangeInclusive};

use super::slot::{SLOT_BITS, SLOTS, Slot, Token};
use crate::base::id::Partition;

/// How many partitions a cluster has: a power of two from 1 to 16384.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Partitions(u16);

impl Partitions {
    /// `count` partitions; none if that is not a power of two up to 16384.
    pub fn new(count: u16) -> Option<Partitions> {
        (count.is_power_of_two() && count <= SLOTS).then_some(Partitions(count))
    }

    /// How many there are.
    pub fn count(self) -> u16 {
        self.0
    }

    /// All of them, in ring order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Partition> + Clone {
        (0..self.0).map(Partition)
    }

    /// Which partition `slot` lies in.
    pub fn of_slot(self, slot: Slot) -> Partition {
        Partition(slot.number() >> self.slot_bits())
    }

    /// Which partition `token` lies in.
    pub fn of_token(self, token: Token) -> Partition {
        self.of_slot(token.slot())
    }

    /// Which partition `key` lies in.
    pub fn of_key(self, key: &[u8]) -> Partition {
        self.of_slot(Slot::of(key))
    }

    /// The slots of `partition`; empty if there is no such partition.
    pub fn slots(self, partition: Partition) -> Range<u16> {
        if partition.0 >= self.0 {
            return SLOTS..SLOTS;
        }
        let first = partition.0 << self.slot_bits();
        first..first + (1 << self.slot_bits())
    }

    /// The tokens of `partition`, both ends included; none if there is no such partition.
    pub fn tokens(self, partition: Partition) -> Option<RangeInclusive<Token>> {
        let slots = self.slots(partition);
        let (first, last) = (Slot::new(slots.start)?, Slot::new(slots.end - 1)?);
        Some(Token::first_of(first)..=Token::last_of(last))
    }

    /// log₂ of the slots in one partition.
    fn slot_bits(self) -> u32 {
        SLOT_BITS - self.0.ilog2()
    }
}

impl Default for Partitions {
    /// 256: enough for dozens of nodes, few enough that clocks and hash trees stay small.
    fn default() -> Self {
        Partitions(256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_counts() -> impl Iterator<Item = Partitions> {
        (0..=SLOT_BITS).map(|bits| Partitions::new(1 << bits).unwrap())
    }

    #[test]
    fn only_powers_of_two_up_to_the_slots_are_counts() {
        let accepted: Vec<u16> = (0..=u16::MAX).filter(|&count| Partitions::new(count).is_some()).collect();
        assert_eq!(accepted, (0..=14).map(|bits| 1 << bits).collect::<Vec<u16>>());
    }

    #[test]
    fn partitions_tile_the_slots_in_order() {
        for partitions in all_counts() {
            let tiled: Vec<(u16, Partition)> =
                partitions.iter().flat_map(|p| partitions.slots(p).map(move |slot| (slot, p))).collect();
            assert_eq!(tiled.len(), usize::from(SLOTS));
            for (at, &(slot, partition)) in tiled.iter().enumerate() {
                assert_eq!(usize::from(slot), at);
                assert_eq!(partitions.of_slot(Slot::new(slot).unwrap()), partition);
            }
        }
    }

    #[test]
    fn the_tokens_of_partitions_adjoin_and_cover_everything() {
        for partitions in all_counts() {
            let ranges: Vec<_> = partitions.iter().map(|p| partitions.tokens(p).unwrap()).collect();
            assert_eq!(ranges.first().unwrap().start().raw(), 0);
            assert_eq!(*ranges.last().unwrap().end(), Token::MAX);
            assert!(ranges.windows(2).all(|pair| pair[0].end().next() == Some(*pair[1].start())));
        }
    }

    #[test]
    fn a_partition_that_does_not_exist_has_no_slots_and_no_tokens() {
        let partitions = Partitions::default();
        assert!(partitions.slots(Partition(256)).is_empty());
        assert_eq!(partitions.tokens(Partition(u16::MAX)), None);
    }

    #[test]
    fn a_key_lies_in_the_partition_of_its_token() {
        let partitions = Partitions::new(64).unwrap();
        for key in [&b"foo"[..], b"bar", b"{foo}bar", b""] {
            assert_eq!(partitions.of_key(key), partitions.of_token(Token::of(key)));
            assert!(partitions.tokens(partitions.of_key(key)).unwrap().contains(&Token::of(key)));
        }
    }
}
