//! Replies as bytes, in RESP2 or RESP3.
//!
//! Deliberately absent: attributes and streamed types of RESP3, which Redis does not send either.

use super::reply::{MAX_DEPTH, Reply, TOO_DEEP};
use crate::base::num::format_f64;
use bytes::{BufMut, BytesMut};
use memchr::memchr2;

/// The protocol that a client speaks: 2 until it says `HELLO 3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// RESP2: statuses, errors, integers, bulks and arrays.
    #[default]
    Resp2,
    /// RESP3: maps, sets, doubles, truth values, pushes and more.
    Resp3,
}

/// Appends `reply` as a client of `protocol` is to see it. CR and LF inside a line become spaces, as in Redis; what is
/// nested deeper than [`MAX_DEPTH`] becomes an error in its place.
pub fn encode(reply: &Reply, protocol: Protocol, out: &mut BytesMut) {
    encode_at(reply, protocol, 0, out);
}

fn encode_at(reply: &Reply, protocol: Protocol, depth: usize, out: &mut BytesMut) {
    let resp3 = protocol == Protocol::Resp3;
    match reply {
        Reply::Bulk(bytes) => bulk(bytes, out),
        Reply::Int(value) => integer(*value, out),
        Reply::Simple(text) => line(b'+', text, out),
        Reply::Nil | Reply::NilArray if resp3 => out.put_slice(b"_\r\n"),
        Reply::Nil => out.put_slice(b"$-1\r\n"),
        Reply::NilArray => out.put_slice(b"*-1\r\n"),
        Reply::Error(text) => line(b'-', text, out),
        Reply::Array(items) => many(b'*', items, protocol, depth, out),
        Reply::Set(items) => many(if resp3 { b'~' } else { b'*' }, items, protocol, depth, out),
        Reply::Push(items) => many(if resp3 { b'>' } else { b'*' }, items, protocol, depth, out),
        Reply::Map(pairs) => map(pairs, protocol, depth, out),
        Reply::Double(value) if resp3 => line(b',', format_f64(*value).as_bytes(), out),
        Reply::Double(value) => bulk(format_f64(*value).as_bytes(), out),
        Reply::Bool(value) if resp3 => out.put_slice(if *value { b"#t\r\n" } else { b"#f\r\n" }),
        Reply::Bool(value) => integer(i64::from(*value), out),
        Reply::BigNumber(digits) if resp3 => line(b'(', digits, out),
        Reply::BigNumber(digits) => bulk(digits, out),
        Reply::Verbatim { format, text } if resp3 => verbatim(format, text, out),
        Reply::Verbatim { text, .. } => bulk(text, out),
    }
}

/// Longest header: a mark, 20 digits or sign, CR LF.
const HEADER_BYTES: usize = 24;

fn header(mark: u8, count: usize, out: &mut BytesMut) {
    let mut bytes = [mark; HEADER_BYTES];
    let len = if count < 10 {
        bytes[1] = b'0' | count as u8;
        2
    } else {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(count).as_bytes();
        let len = digits.len().saturating_add(1);
        bytes[1..len].copy_from_slice(digits);
        len
    };
    bytes[len] = b'\r';
    bytes[len + 1] = b'\n';
    out.extend_from_slice(&bytes[..len + 2]);
}

fn bulk(bytes: &[u8], out: &mut BytesMut) {
    out.reserve(bytes.len().saturating_add(HEADER_BYTES + 2));
    header(b'$', bytes.len(), out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn integer(value: i64, out: &mut BytesMut) {
    match usize::try_from(value) {
        Ok(count) => header(b':', count, out),
        Err(_) => line(b':', itoa::Buffer::new().format(value).as_bytes(), out),
    }
}

fn line(mark: u8, text: &[u8], out: &mut BytesMut) {
    out.reserve(text.len().saturating_add(3));
    out.put_u8(mark);
    match memchr2(b'\r', b'\n', text) {
        None => out.extend_from_slice(text),
        Some(_) => out.extend(text.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte })),
    }
    out.extend_from_slice(b"\r\n");
}

fn verbatim(format: &[u8; 3], text: &[u8], out: &mut BytesMut) {
    header(b'=', text.len().saturating_add(4), out);
    out.extend_from_slice(format);
    out.put_u8(b':');
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn many(mark: u8, items: &[Reply], protocol: Protocol, depth: usize, out: &mut BytesMut) {
    if depth >= MAX_DEPTH {
        return line(b'-', TOO_DEEP, out);
    }
    header(mark, items.len(), out);
    items.iter().for_each(|item| encode_at(item, protocol, depth.saturating_add(1), out));
}

fn map(pairs: &[(Reply, Reply)], protocol: Protocol, depth: usize, out: &mut BytesMut) {
    if depth >= MAX_DEPTH {
        return line(b'-', TOO_DEEP, out);
    }
    match protocol {
        Protocol::Resp3 => header(b'%', pairs.len(), out),
        Protocol::Resp2 => header(b'*', pairs.len().saturating_mul(2), out),
    }
    for (key, value) in pairs {
        encode_at(key, protocol, depth.saturating_add(1), out);
        encode_at(value, protocol, depth.saturating_add(1), out);
    }
}
