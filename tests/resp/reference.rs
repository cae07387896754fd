//! An obviously right decoder: looks at all bytes from the start, copies everything, knows nothing of pieces.

use crate::Outcome;
use bytes::Bytes;
use redynamo::resp::{Limits, ProtocolError};

/// What `wire` comes to.
pub fn decode(limits: Limits, mut wire: &[u8]) -> Outcome {
    let mut requests = Vec::new();
    loop {
        match request(limits, &mut wire) {
            Ok(arguments) if arguments.is_empty() => {}
            Ok(arguments) => requests.push(arguments),
            Err(Stop::Incomplete) => return (requests, None),
            Err(Stop::Refused(error)) => return (requests, Some(error)),
        }
    }
}

enum Stop {
    Incomplete,
    Refused(ProtocolError),
}

fn request(limits: Limits, wire: &mut &[u8]) -> Result<Vec<Bytes>, Stop> {
    if !wire.starts_with(b"*") {
        let line = line(limits, wire, b'\n', 1, ProtocolError::InlineTooLong)?;
        let words = redynamo::resp::inline::split(line.strip_suffix(b"\r").unwrap_or(line));
        return words.map(|words| words.to_vec()).map_err(|_| Stop::Refused(ProtocolError::UnbalancedQuotes));
    }
    let header = line(limits, wire, b'\r', 2, ProtocolError::CountTooLong)?;
    let count = number(&header[1..]).filter(|&count| count <= limits.max_arguments as i128);
    let count = count.ok_or(Stop::Refused(ProtocolError::InvalidCount))?;
    if count > 10 && !limits.authenticated {
        return Err(Stop::Refused(ProtocolError::UnauthenticatedCount));
    }
    (0..count).map(|_| bulk(limits, wire)).collect()
}

fn bulk(limits: Limits, wire: &mut &[u8]) -> Result<Bytes, Stop> {
    let header = line(limits, wire, b'\r', 2, ProtocolError::LengthTooLong)?;
    if header.first() != Some(&b'$') {
        return Err(Stop::Refused(ProtocolError::ExpectedBulk(*header.first().unwrap_or(&b'\r'))));
    }
    let length = number(&header[1..]).filter(|length| (0..=limits.max_bulk as i128).contains(length));
    let length = length.ok_or(Stop::Refused(ProtocolError::InvalidLength))? as usize;
    if length > 16_384 && !limits.authenticated {
        return Err(Stop::Refused(ProtocolError::UnauthenticatedLength));
    }
    if wire.len() < length + 2 {
        return Err(Stop::Incomplete);
    }
    let bytes = Bytes::copy_from_slice(&wire[..length]);
    *wire = &wire[length + 2..];
    Ok(bytes)
}

/// The front of `wire` up to `mark`; takes it off with `end` bytes of line end.
fn line<'a>(
    limits: Limits,
    wire: &mut &'a [u8],
    mark: u8,
    end: usize,
    too_long: ProtocolError,
) -> Result<&'a [u8], Stop> {
    let whole = *wire;
    let visible = whole.iter().position(|&byte| byte == 0).unwrap_or(whole.len());
    match whole[..visible].iter().position(|&byte| byte == mark) {
        Some(at) if at > limits.max_inline => Err(Stop::Refused(too_long)),
        None if whole.len() > limits.max_inline => Err(Stop::Refused(too_long)),
        Some(at) if whole.len() >= at + end => {
            *wire = &whole[at + end..];
            Ok(&whole[..at])
        }
        _ => Err(Stop::Incomplete),
    }
}

fn number(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let number = text.parse::<i64>().ok()?;
    (number.to_string() == text).then_some(i128::from(number))
}
