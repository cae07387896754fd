//! Commands by name. Every request looks its command up here, so a look-up allocates nothing and compares, nearly
//! always, with one name.

use std::sync::OnceLock;

use super::all;
use super::spec::Spec;

/// No command has a longer name.
const MAX_NAME: usize = 32;

/// Places per command: so sparse that names seldom meet.
const PLACES: usize = 8;

/// A hash table with open addressing, filled once.
pub(super) struct Index {
    places: Box<[Option<&'static Spec>]>,
    shift: u32,
}

/// The index of all commands.
pub(super) fn commands() -> &'static Index {
    static INDEX: OnceLock<Index> = OnceLock::new();
    INDEX.get_or_init(|| Index::of(all()))
}

impl Index {
    fn of(specs: impl Iterator<Item = &'static Spec> + Clone) -> Index {
        let size = (specs.clone().count() * PLACES).next_power_of_two();
        let mut index = Index { places: vec![None; size].into(), shift: u64::BITS - size.trailing_zeros() };
        for spec in specs {
            let free = index.probe(spec.name.as_bytes()).find(|at| index.places.get(*at).is_some_and(Option::is_none));
            if let Some(place) = free.and_then(|at| index.places.get_mut(at)) {
                *place = Some(spec);
            }
        }
        index
    }

    /// The command of this name, in any case.
    pub(super) fn find(&self, name: &[u8]) -> Option<&'static Spec> {
        if name.len() > MAX_NAME {
            return None;
        }
        // The first empty place ends the search.
        self.probe(name)
            .map_while(|at| self.places.get(at).copied().flatten())
            .find(|spec| spec.name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The places where `name` may stand, in order.
    fn probe(&self, name: &[u8]) -> impl Iterator<Item = usize> + use<> {
        let (size, start) = (self.places.len(), (hash(name) >> self.shift) as usize);
        (0..size).map(move |step| (start + step) & (size - 1))
    }
}

/// Of the first and last eight bytes and the length; blind to case, since a letter's case is one bit.
fn hash(name: &[u8]) -> u64 {
    const UPPER: u64 = 0xdfdf_dfdf_dfdf_dfdf;
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let (first, last) = match (name.first_chunk(), name.last_chunk()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (name.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)), 0),
    };
    let mixed = (first & UPPER) ^ (last & UPPER).rotate_left(29) ^ name.len() as u64;
    mixed.wrapping_mul(ODD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_in_any_case_and_nothing_else_is() {
        for spec in all() {
            let name = spec.name.as_bytes();
            let mixed: Vec<u8> =
                name.iter().enumerate().map(|(at, b)| if at % 2 == 0 { b.to_ascii_lowercase() } else { *b }).collect();
            for spelt in [name, &name.to_ascii_lowercase(), &mixed] {
                assert!(commands().find(spelt).is_some_and(|found| found.name == spec.name), "{}", spec.name);
            }
            let longer = [name, b"X"].concat();
            assert!(all().any(|other| other.name.as_bytes() == longer) || commands().find(&longer).is_none());
        }
        for stranger in [&b""[..], b"NO", b"GE", b"\x07\x05\x14", b"g\xe5t", &[b'A'; 4096]] {
            assert!(commands().find(stranger).is_none(), "{stranger:?}");
        }
    }

    #[test]
    fn names_seldom_share_a_place() {
        let met = all().filter(|spec| {
            let name = spec.name.as_bytes();
            let first = commands().probe(name).next().unwrap();
            commands().places[first].is_some_and(|found| found.name != spec.name)
        });
        assert!(met.count() * 4 < all().count());
    }
}
