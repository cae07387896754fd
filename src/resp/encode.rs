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
        Reply::Several(items) => items.iter().for_each(|item| encode_at(item, protocol, depth, out)),
        Reply::Map(pairs) => map(pairs, protocol, depth, out),
        Reply::Pairs(pairs) => array_of_pairs(pairs, protocol, depth, out),
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

fn array_of_pairs(pairs: &[(Reply, Reply)], protocol: Protocol, depth: usize, out: &mut BytesMut) {
    if depth.saturating_add(1) >= MAX_DEPTH {
        return line(b'-', TOO_DEEP, out);
    }
    let nested = protocol == Protocol::Resp3;
    header(b'*', if nested { pairs.len() } else { pairs.len().saturating_mul(2) }, out);
    for (first, second) in pairs {
        if nested {
            header(b'*', 2, out);
        }
        encode_at(first, protocol, depth.saturating_add(2), out);
        encode_at(second, protocol, depth.saturating_add(2), out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::tests::{any_reply, nested};
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use redis_protocol::resp2::types::BytesFrame as Frame2;
    use redis_protocol::resp3::types::{BytesFrame as Frame3, VerbatimStringFormat};

    fn encoded(reply: &Reply, protocol: Protocol) -> Bytes {
        let mut out = BytesMut::new();
        encode(reply, protocol, &mut out);
        out.freeze()
    }

    fn text(reply: &Reply, protocol: Protocol) -> String {
        String::from_utf8_lossy(&encoded(reply, protocol)).into_owned()
    }

    /// What redis-protocol is to make of `reply` in RESP2.
    fn frame2(reply: &Reply) -> Frame2 {
        let many = |items: &[Reply]| Frame2::Array(items.iter().map(frame2).collect());
        match reply {
            Reply::Simple(text) => Frame2::SimpleString(text.clone()),
            Reply::Error(text) => Frame2::Error(std::str::from_utf8(text).unwrap().into()),
            Reply::Int(value) => Frame2::Integer(*value),
            Reply::Bool(value) => Frame2::Integer(i64::from(*value)),
            Reply::Bulk(bytes) | Reply::BigNumber(bytes) | Reply::Verbatim { text: bytes, .. } => {
                Frame2::BulkString(bytes.clone())
            }
            Reply::Double(value) => Frame2::BulkString(Bytes::copy_from_slice(format_f64(*value).as_bytes())),
            Reply::Nil | Reply::NilArray => Frame2::Null,
            Reply::Array(items) | Reply::Set(items) | Reply::Push(items) | Reply::Several(items) => many(items),
            Reply::Map(pairs) | Reply::Pairs(pairs) => {
                Frame2::Array(pairs.iter().flat_map(|(key, value)| [frame2(key), frame2(value)]).collect())
            }
        }
    }

    /// What redis-protocol is to make of `reply` in RESP3.
    fn frame3(reply: &Reply) -> Frame3 {
        let attributes = None;
        let many = |items: &[Reply]| items.iter().map(frame3).collect::<Vec<_>>();
        match reply {
            Reply::Simple(text) => Frame3::SimpleString { data: text.clone(), attributes },
            Reply::Error(text) => Frame3::SimpleError { data: std::str::from_utf8(text).unwrap().into(), attributes },
            Reply::Int(value) => Frame3::Number { data: *value, attributes },
            Reply::Bool(value) => Frame3::Boolean { data: *value, attributes },
            Reply::Bulk(bytes) => Frame3::BlobString { data: bytes.clone(), attributes },
            Reply::BigNumber(digits) => Frame3::BigNumber { data: digits.clone(), attributes },
            Reply::Verbatim { text, .. } => {
                Frame3::VerbatimString { data: text.clone(), format: VerbatimStringFormat::Text, attributes }
            }
            Reply::Double(value) => Frame3::Double { data: *value, attributes },
            Reply::Nil | Reply::NilArray => Frame3::Null,
            Reply::Array(items) | Reply::Several(items) => Frame3::Array { data: many(items), attributes },
            Reply::Push(items) => Frame3::Push { data: many(items), attributes },
            Reply::Set(items) => Frame3::Set { data: many(items).into_iter().collect(), attributes },
            Reply::Pairs(pairs) => {
                let pair = |(first, second): &(Reply, Reply)| many(&[first.clone(), second.clone()]);
                let data = pairs.iter().map(|both| Frame3::Array { data: pair(both), attributes: None }).collect();
                Frame3::Array { data, attributes }
            }
            Reply::Map(pairs) => {
                let data = pairs.iter().map(|(key, value)| (frame3(key), frame3(value))).collect();
                Frame3::Map { data, attributes }
            }
        }
    }

    proptest! {
        #[test]
        fn another_decoder_reads_what_is_encoded(reply in any_reply()) {
            let bytes = encoded(&reply, Protocol::Resp2);
            let read = redis_protocol::resp2::decode::decode_bytes(&bytes).unwrap();
            prop_assert_eq!(read, Some((frame2(&reply), bytes.len())));
            let bytes = encoded(&reply, Protocol::Resp3);
            let read = redis_protocol::resp3::decode::complete::decode_bytes(&bytes).unwrap();
            prop_assert_eq!(read, Some((frame3(&reply), bytes.len())));
        }

        #[test]
        fn a_line_stays_one_line(raw: Vec<u8>) {
            for reply in [Reply::Simple(raw.clone().into()), Reply::Error(raw.clone().into())] {
                let line = encoded(&reply, Protocol::Resp2);
                prop_assert_eq!(line.len(), raw.len() + 3);
                prop_assert_eq!(line.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count(), 2);
            }
        }
    }

    #[test]
    fn every_kind_is_written_as_redis_writes_it() {
        let item = || vec![Reply::Int(1)];
        for (reply, resp2, resp3) in [
            (Reply::ok(), "+OK\r\n", "+OK\r\n"),
            (Reply::error("ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n"),
            (Reply::Int(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"),
            (Reply::Int(i64::MAX), ":9223372036854775807\r\n", ":9223372036854775807\r\n"),
            (Reply::Int(10), ":10\r\n", ":10\r\n"),
            (Reply::bulk(""), "$0\r\n\r\n", "$0\r\n\r\n"),
            (Reply::bulk("a\r\nb"), "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"),
            (Reply::bulk_or_nil(None), "$-1\r\n", "_\r\n"),
            (Reply::NilArray, "*-1\r\n", "_\r\n"),
            (Reply::Array(vec![]), "*0\r\n", "*0\r\n"),
            (Reply::Array(item()), "*1\r\n:1\r\n", "*1\r\n:1\r\n"),
            (Reply::Set(item()), "*1\r\n:1\r\n", "~1\r\n:1\r\n"),
            (Reply::Push(item()), "*1\r\n:1\r\n", ">1\r\n:1\r\n"),
            (Reply::map([("a", Reply::Nil)]), "*2\r\n$1\r\na\r\n$-1\r\n", "%1\r\n$1\r\na\r\n_\r\n"),
            (Reply::Double(3.5), "$3\r\n3.5\r\n", ",3.5\r\n"),
            (Reply::Double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n"),
            (Reply::Bool(true), ":1\r\n", "#t\r\n"),
            (Reply::Bool(false), ":0\r\n", "#f\r\n"),
            (Reply::BigNumber("123".into()), "$3\r\n123\r\n", "(123\r\n"),
            (Reply::text("hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
        ] {
            assert_eq!(text(&reply, Protocol::Resp2), resp2, "{reply:?}");
            assert_eq!(text(&reply, Protocol::Resp3), resp3, "{reply:?}");
        }
    }

    #[test]
    fn what_is_nested_too_deep_is_an_error_in_its_place() {
        let whole = |depth| text(&nested(depth), Protocol::Resp3);
        assert_eq!(whole(MAX_DEPTH), format!("{}:7\r\n", "*1\r\n".repeat(MAX_DEPTH)));
        assert_eq!(whole(MAX_DEPTH + 1), format!("{}-ERR reply is nested too deep\r\n", "*1\r\n".repeat(MAX_DEPTH)));
    }
}
