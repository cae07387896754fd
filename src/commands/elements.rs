//! What the families of collections have in common: how members and fields are named in rows, drawn at random and
//! scanned.
//!
//! A member's row begins with eight bytes of its hash. So a scan's cursor is a hash and needs no state, a random element
//! is found by one search, and all sets are in one order. Who wants another order has rows of another kind.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use super::call::{Call, Cursor, int};
use super::errors::{Answer, CommandError, SYNTAX};
use crate::base::glob;
use crate::base::kind::Kind;
use crate::base::num::parse_u64;
use crate::base::rng::Rng;
use crate::model::look::{Held, PAGE, Span};
use crate::model::{Element, Fault, Look};
use crate::resp::Reply;

/// Bytes of the hash before a name.
const HASH: usize = 8;

/// Collections of so many elements are scanned in one go, whatever COUNT says, as Redis does.
const SCANNED_AT_ONCE: u64 = 128;

/// How a member or field is called in rows. Below 2^63, where clients that read cursors as signed numbers are safe.
pub fn name_of(member: &[u8]) -> Bytes {
    let mut name = BytesMut::with_capacity(HASH + member.len());
    name.put_u64((xxh3_64(member) >> 1).max(1));
    name.put_slice(member);
    name.freeze()
}

/// The member or field of a name.
pub fn member_of(element: &Element) -> Bytes {
    element.name.get(HASH..).map_or_else(Bytes::new, |member| element.name.slice_ref(member))
}

/// A number of elements to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draw {
    /// So many different ones, or all there are.
    Different(u64),
    /// So many, each of all.
    Any(u64),
}

/// Draws elements of what was opened at random; of different ones no more than there are.
pub fn draw(look: &mut impl Look, key: &[u8], held: Held, draw: Draw) -> Result<Vec<Element>, Fault> {
    let mut rng = Rng::new(look.chance());
    match draw {
        Draw::Any(count) => {
            let mut drawn = Vec::new();
            for _ in 0..count {
                drawn.extend(draw_one(look, key, held, &mut rng)?);
            }
            Ok(drawn)
        }
        Draw::Different(0) => Ok(Vec::new()),
        Draw::Different(1) => Ok(draw_one(look, key, held, &mut rng)?.into_iter().collect()),
        Draw::Different(count) if count.saturating_mul(3) > held.count => sample(look, key, held, count, &mut rng),
        Draw::Different(count) => {
            let (mut names, mut drawn) = (BTreeSet::new(), Vec::new());
            while (drawn.len() as u64) < count {
                let Some(element) = draw_one(look, key, held, &mut rng)? else { break };
                if names.insert(element.name.clone()) {
                    drawn.push(element);
                }
            }
            Ok(drawn)
        }
    }
}

/// One of the few elements behind a random hash.
fn draw_one(look: &mut impl Look, key: &[u8], held: Held, rng: &mut Rng) -> Result<Option<Element>, Fault> {
    /// Gaps between hashes differ in length; of so many in a row each is as likely as the next.
    const NEIGHBOURS: usize = 16;
    let from = (rng.next_u64() >> 1).to_be_bytes();
    let (mut near, _) = look.page(key, held, Span { from: &from, to: None }, NEIGHBOURS)?;
    if near.len() < NEIGHBOURS {
        near.extend(look.page(key, held, Span::default(), NEIGHBOURS)?.0);
        near.sort_by(|a, b| a.name.cmp(&b.name));
        near.dedup_by(|a, b| a.name == b.name);
    }
    if near.is_empty() {
        // All of them may have ended; or they hide among many that have.
        look.each(key, held, |element| {
            near.push(element);
            Ok::<(), Fault>(())
        })?;
    }
    let at = rng.below(near.len().max(1) as u64) as usize;
    Ok((at < near.len()).then(|| near.swap_remove(at)))
}

/// So many of all elements, each as likely as any other.
fn sample(look: &mut impl Look, key: &[u8], held: Held, count: u64, rng: &mut Rng) -> Result<Vec<Element>, Fault> {
    let (mut kept, mut seen) = (Vec::new(), 0u64);
    look.each(key, held, |element| {
        seen += 1;
        if (kept.len() as u64) < count {
            kept.push(element);
        } else {
            let at = rng.below(seen);
            if let Some(place) = kept.get_mut(at as usize).filter(|_| at < count) {
                *place = element;
            }
        }
        Ok::<(), Fault>(())
    })?;
    Ok(kept)
}

/// SSCAN and HSCAN: `show` says what is returned of an element.
pub fn scan(call: &Call, look: &mut impl Look, kind: Kind, show: impl Fn(&Element, u64) -> Vec<Reply>) -> Answer {
    let key = call.arg(1);
    let cursor = parse_u64(call.arg(2)).filter(|cursor| i64::try_from(*cursor).is_ok()).ok_or("ERR invalid cursor")?;
    let page = |next: u64, found: Vec<Reply>| Reply::array([Reply::bulk(next.to_string()), Reply::Array(found)]);
    let Some(held) = look.open(key, kind)? else { return Ok(page(0, Vec::new())) };
    let options = ScanOptions::parse(call.cursor(3))?;
    let count = if held.count <= SCANNED_AT_ONCE { u64::MAX } else { options.count };
    let (mut from, mut found, mut looked_at) = (Some(Bytes::copy_from_slice(&cursor.to_be_bytes())), Vec::new(), 0u64);
    let mut last: Option<Bytes> = None;
    while let Some(first) = from {
        let limit = usize::try_from(count.saturating_sub(looked_at)).unwrap_or(PAGE).clamp(1, PAGE);
        let (elements, next) = look.page(key, held, Span { from: &first, to: None }, limit)?;
        from = next;
        for element in elements {
            let hash = element.name.slice(..HASH.min(element.name.len()));
            // Those of one hash come together: the cursor could not tell them apart.
            if looked_at >= count && last.as_ref() != Some(&hash) {
                return Ok(page(hash.first_chunk().map_or(0, |raw| u64::from_be_bytes(*raw)), found));
            }
            looked_at += 1;
            last = Some(hash);
            if options.fits(&member_of(&element)) {
                found.extend(show(&element, look.now()));
            }
        }
    }
    Ok(page(0, found))
}

struct ScanOptions<'a> {
    pattern: Option<&'a Bytes>,
    count: u64,
}

impl<'a> ScanOptions<'a> {
    fn parse(mut rest: Cursor<'a>) -> Result<ScanOptions<'a>, CommandError> {
        let mut options = ScanOptions { pattern: None, count: 10 };
        while let Some(word) = rest.next_arg() {
            if word.eq_ignore_ascii_case(b"COUNT") {
                options.count = u64::try_from(int(rest.expect()?)?).ok().filter(|count| *count > 0).ok_or(SYNTAX)?;
            } else if word.eq_ignore_ascii_case(b"MATCH") {
                options.pattern = Some(rest.expect()?);
            } else {
                return Err(SYNTAX.into());
            }
        }
        Ok(options)
    }

    fn fits(&self, member: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::is_everything(pattern) || glob::matches(pattern, member))
    }
}

/// Redis' words for a number that may not be below zero.
pub fn positive(arg: &[u8]) -> Result<u64, CommandError> {
    parse_u64(arg)
        .filter(|count| i64::try_from(*count).is_ok())
        .ok_or("ERR value is out of range, must be positive".into())
}

/// A count of elements to draw, negative for any: as in SRANDMEMBER and HRANDFIELD.
pub fn drawn(arg: &[u8]) -> Result<Draw, CommandError> {
    let count = int(arg)?;
    if count == i64::MIN {
        return Err(format!("ERR value is out of range, value must between {} and {}", -i64::MAX, i64::MAX).into());
    }
    Ok(if count < 0 { Draw::Any(count.unsigned_abs()) } else { Draw::Different(count.unsigned_abs()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_its_member_back_and_its_cursor_is_a_positive_number() {
        for member in [&b""[..], b"a", b"\0\xff", &[b'x'; 300]] {
            let element = Element { name: name_of(member), cell: Default::default() };
            assert_eq!(member_of(&element), member);
            assert!(element.name[0] < 0x80);
        }
    }
}
