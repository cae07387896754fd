//! Requests off a connection's buffer: incremental, bounded, and without copying arguments.
//!
//! A decoder remembers where it stopped, so a request that comes in many pieces costs no more than one that comes
//! whole. Nothing is allocated for a length or a count that a client has only announced. Order of checks, what is
//! tolerated and the texts of errors are those of Redis 7.2: after an announced bulk two bytes are skipped whatever
//! they are, counts below one are no requests, and a NUL byte hides the end of a line until the line is too long.
//!
//! Deliberately absent: every RESP type but an array of bulk strings. Redis takes nothing else from a client, and so
//! there is nothing to nest.

use super::inline;
use crate::base::limits::{MAX_ARGUMENTS, MAX_ARGUMENTS_UNAUTHENTICATED, MAX_BULK_UNAUTHENTICATED, MAX_INLINE_BYTES};
use crate::base::num::parse_i64;
use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr2;
use smallvec::SmallVec;

/// A request: the command's name and its arguments, at least one. Each is a slice of the buffer that it came in and
/// keeps that alive: copy what is to live longer than the request.
pub type Arguments = SmallVec<[Bytes; 4]>;

/// Least room that is made for more of a bulk, in bytes; Redis' read size.
const READ_BYTES: usize = 16 * 1024;

/// Most arguments of a request that is decoded in one go if it comes in one piece: an MSET of eleven keys has 23.
const ORDINARY_ARGUMENTS: usize = 24;

/// What a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest argument, in bytes; Redis' `proto-max-bulk-len`.
    pub max_bulk: usize,
    /// Most arguments of a request.
    pub max_arguments: usize,
    /// Longest line: an inline request, or the header of an array or bulk. In bytes.
    pub max_inline: usize,
    /// Whether the client has proved who it is, or need not. Others get small limits, and errors that say why.
    pub authenticated: bool,
}

impl Default for Limits {
    /// Redis' defaults, for a client that need not authenticate.
    fn default() -> Self {
        Limits {
            max_bulk: 512 * 1024 * 1024,
            max_arguments: MAX_ARGUMENTS,
            max_inline: MAX_INLINE_BYTES,
            authenticated: true,
        }
    }
}

impl Limits {
    /// Most arguments, and the longest, of what needs no closer look.
    #[inline]
    fn ordinary(&self) -> (usize, usize) {
        match self.authenticated {
            true => (self.max_arguments, self.max_bulk),
            false => {
                (self.max_arguments.min(MAX_ARGUMENTS_UNAUTHENTICATED), self.max_bulk.min(MAX_BULK_UNAUTHENTICATED))
            }
        }
    }
}

/// Why a client's bytes are no request. The caller answers [`ProtocolError::reply`] and closes the connection: what
/// follows has no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// An array's count is no number, or too large.
    #[error("Protocol error: invalid multibulk length")]
    InvalidCount,
    /// An array's count is too large for a client that has not authenticated.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedCount,
    /// A bulk's length is no number, negative, or too large.
    #[error("Protocol error: invalid bulk length")]
    InvalidLength,
    /// A bulk's length is too large for a client that has not authenticated.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedLength,
    /// Something else than a bulk inside an array: its first byte.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    ExpectedBulk(u8),
    /// The header of an array does not end.
    #[error("Protocol error: too big mbulk count string")]
    CountTooLong,
    /// The header of a bulk does not end.
    #[error("Protocol error: too big bulk count string")]
    LengthTooLong,
    /// An inline request does not end.
    #[error("Protocol error: too big inline request")]
    InlineTooLong,
    /// Quotes of an inline request that are not closed.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
}

impl ProtocolError {
    /// The error reply's text, with its code and without CR LF: the very bytes that Redis sends, also where it quotes a
    /// byte that is no text.
    pub fn reply(&self) -> Bytes {
        match self {
            ProtocolError::ExpectedBulk(b'\r' | b'\n') => ProtocolError::ExpectedBulk(b' ').reply(),
            ProtocolError::ExpectedBulk(byte) => {
                [b"ERR Protocol error: expected '$', got '".as_slice(), &[*byte], b"'"].concat().into()
            }
            other => format!("ERR {other}").into(),
        }
    }
}

/// Takes requests off one connection's bytes.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// Arguments that the request under way still lacks; 0 between requests.
    missing: usize,
    /// Length of the bulk under way, once its header has been read.
    bulk: Option<usize>,
    /// Bytes at the front of the buffer that are known not to end the line under way.
    searched: usize,
    /// What has come of the request under way.
    arguments: Arguments,
    /// Bytes of those.
    held: usize,
    failed: Option<ProtocolError>,
}

impl Decoder {
    /// A decoder for a new connection.
    pub fn new(limits: Limits) -> Self {
        let arguments = Arguments::new();
        Decoder { limits, missing: 0, bulk: None, searched: 0, arguments, held: 0, failed: None }
    }

    /// Changes what the client may send, from the next header on: after AUTH, RESET or CONFIG SET.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Bytes of arguments that have been taken off the buffer for a request that is not complete. With the buffer's
    /// length this is what Redis limits as `client-query-buffer-limit`, which is the caller's to hold.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The next request, taken off the front of `buffer`; `None` when more bytes are needed. Call again until then:
    /// one read may bring many requests. A bulk that is under way gets room in the buffer in step with what has come
    /// of it, so a reader needs no room of its own making beyond a usual read.
    ///
    /// # Errors
    /// [`ProtocolError`], now and at every later call.
    #[inline]
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Arguments>, ProtocolError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.missing == 0
            && let Some(arguments) = self.whole(buffer)
        {
            return Ok(Some(arguments));
        }
        self.advance(buffer).inspect_err(|&error| self.failed = Some(error))
    }

    /// The next request if it is all there and ordinary. Everything else, and every error, is for [`Decoder::advance`],
    /// which alone would do, only slower.
    #[inline]
    fn whole(&mut self, buffer: &mut BytesMut) -> Option<Arguments> {
        let mut spans = [(0, 0); ORDINARY_ARGUMENTS];
        let (spans, len) = self.ordinary(buffer, &mut spans)?;
        self.searched = 0;
        let request = buffer.split_to(len).freeze();
        Some(spans.iter().map(|&(begin, end)| request.slice(begin..end)).collect())
    }

    /// Where each argument of the request at the front of the buffer begins and ends, and where the request does.
    #[inline]
    fn ordinary<'a>(
        &self,
        buffer: &[u8],
        spans: &'a mut [(usize, usize); ORDINARY_ARGUMENTS],
    ) -> Option<(&'a [(usize, usize)], usize)> {
        let (b'*', count, mut at) = short_header(buffer)? else { return None };
        let (max_arguments, max_bulk) = self.limits.ordinary();
        let spans = spans.get_mut(..count).filter(|_| count > 0 && count <= max_arguments)?;
        for span in spans.iter_mut() {
            let (b'$', length, header) = short_header(buffer.get(at..)?)? else { return None };
            let begin = at.saturating_add(header);
            let end = begin.saturating_add(length);
            at = end.saturating_add(2);
            if length > max_bulk || at > buffer.len() {
                return None;
            }
            *span = (begin, end);
        }
        Some((spans, at))
    }

    fn advance(&mut self, buffer: &mut BytesMut) -> Result<Option<Arguments>, ProtocolError> {
        while self.missing == 0 {
            match buffer.first().copied() {
                None => return Ok(None),
                Some(b'*') if self.begin(buffer)? => {}
                Some(b'*') => return Ok(None),
                Some(_) => match self.inline(buffer)? {
                    Some(arguments) if arguments.is_empty() => {}
                    other => return Ok(other),
                },
            }
        }
        while self.missing > 0 {
            if !self.argument(buffer)? {
                return Ok(None);
            }
        }
        self.held = 0;
        Ok(Some(std::mem::take(&mut self.arguments)))
    }

    /// Reads the header of an array; false when it is not all there.
    fn begin(&mut self, buffer: &mut BytesMut) -> Result<bool, ProtocolError> {
        let Some((count, taken)) = self.header(buffer, ProtocolError::CountTooLong)? else { return Ok(false) };
        let count = count.ok_or(ProtocolError::InvalidCount)?;
        // A count below one asks for nothing and is not answered.
        let count = usize::try_from(count).unwrap_or(0);
        if count > self.limits.max_arguments {
            return Err(ProtocolError::InvalidCount);
        }
        if count > MAX_ARGUMENTS_UNAUTHENTICATED && !self.limits.authenticated {
            return Err(ProtocolError::UnauthenticatedCount);
        }
        buffer.advance(taken);
        self.missing = count;
        Ok(true)
    }

    /// Reads one argument; false when it is not all there.
    #[inline]
    fn argument(&mut self, buffer: &mut BytesMut) -> Result<bool, ProtocolError> {
        let length = match self.bulk {
            Some(length) => length,
            None => match self.length(buffer)? {
                Some(length) => length,
                None => return Ok(false),
            },
        };
        if buffer.len() < length.saturating_add(2) {
            self.bulk = Some(length);
            make_room(buffer, length.saturating_add(2));
            return Ok(false);
        }
        self.arguments.push(buffer.split_to(length).freeze());
        buffer.advance(2);
        self.bulk = None;
        self.missing = self.missing.saturating_sub(1);
        self.held = self.held.saturating_add(length);
        Ok(true)
    }

    /// Reads the header of a bulk.
    #[inline]
    fn length(&mut self, buffer: &mut BytesMut) -> Result<Option<usize>, ProtocolError> {
        let Some((length, taken)) = self.header(buffer, ProtocolError::LengthTooLong)? else { return Ok(None) };
        match buffer.first() {
            Some(b'$') => {}
            other => return Err(ProtocolError::ExpectedBulk(other.copied().unwrap_or(0))),
        }
        let length = length.and_then(|length| usize::try_from(length).ok()).ok_or(ProtocolError::InvalidLength)?;
        if length > self.limits.max_bulk {
            return Err(ProtocolError::InvalidLength);
        }
        if length > MAX_BULK_UNAUTHENTICATED && !self.limits.authenticated {
            return Err(ProtocolError::UnauthenticatedLength);
        }
        buffer.advance(taken);
        Ok(Some(length))
    }

    /// The number in the line at the front of the buffer, after its first byte, and the length of that line with its
    /// end; `None` when the line is not all there. The line ends with CR and one byte more.
    #[inline]
    fn header(
        &mut self,
        buffer: &[u8],
        too_long: ProtocolError,
    ) -> Result<Option<(Option<i64>, usize)>, ProtocolError> {
        let Some(end) = self.line_end(buffer, b'\r', too_long)? else { return Ok(None) };
        if buffer.len() < end.saturating_add(2) {
            return Ok(None);
        }
        self.searched = 0;
        Ok(Some((buffer.get(1..end).and_then(parse_i64), end.saturating_add(2))))
    }

    fn inline(&mut self, buffer: &mut BytesMut) -> Result<Option<Arguments>, ProtocolError> {
        let Some(end) = self.line_end(buffer, b'\n', ProtocolError::InlineTooLong)? else { return Ok(None) };
        self.searched = 0;
        let line = buffer.get(..end).unwrap_or_default();
        let arguments = inline::split(line.strip_suffix(b"\r").unwrap_or(line));
        buffer.advance(end.saturating_add(1));
        arguments.map(Some).map_err(|_| ProtocolError::UnbalancedQuotes)
    }

    /// Where the first `mark` is, unless a NUL hides it. Where a line may end does not depend on how it arrives: a mark
    /// beyond the limit is as good as none.
    fn line_end(&mut self, buffer: &[u8], mark: u8, too_long: ProtocolError) -> Result<Option<usize>, ProtocolError> {
        let unsearched = buffer.get(self.searched..).unwrap_or_default();
        let found = memchr2(mark, 0, unsearched).map(|at| at.saturating_add(self.searched));
        self.searched = found.unwrap_or(buffer.len());
        if self.searched > self.limits.max_inline {
            return Err(too_long);
        }
        match found {
            Some(end) if buffer.get(end) == Some(&mark) => Ok(Some(end)),
            Some(_) if buffer.len() > self.limits.max_inline => Err(too_long),
            _ => Ok(None),
        }
    }
}

/// Nearly every header: one to three digits without a leading zero, and all of the line's end. Its mark, its number and
/// its length. Anything else, valid or not, is for the careful way.
#[inline]
fn short_header(buffer: &[u8]) -> Option<(u8, usize, usize)> {
    let digits = |digits: [u8; 3]| digits.iter().fold(0, |value, &byte| value * 10 + usize::from(byte & 0x0f));
    match *buffer {
        [mark, a @ b'0'..=b'9', b'\r', _, ..] => Some((mark, digits([0, 0, a]), 4)),
        [mark, a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', _, ..] => Some((mark, digits([0, a, b]), 5)),
        [mark, a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b'\r', _, ..] => Some((mark, digits([a, b, c]), 6)),
        _ => None,
    }
}

/// Makes room for as much again as has come, at least a read, but not beyond what is announced: a large bulk costs a
/// few copies, and a lie costs nothing.
fn make_room(buffer: &mut BytesMut, announced: usize) {
    let missing = announced.saturating_sub(buffer.len());
    let room = missing.min(buffer.len().max(READ_BYTES));
    if buffer.capacity().saturating_sub(buffer.len()) < room {
        buffer.reserve(room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All requests of `wire`, cut into pieces of `size` bytes, and the error that ends them.
    fn decode_by(limits: Limits, wire: &[u8], size: usize) -> (Vec<Vec<Bytes>>, Option<ProtocolError>) {
        let (mut decoder, mut buffer, mut requests) = (Decoder::new(limits), BytesMut::new(), Vec::new());
        for piece in wire.chunks(size) {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Some(arguments)) => requests.push(arguments.to_vec()),
                    Ok(None) => break,
                    Err(error) => return (requests, Some(error)),
                }
            }
        }
        (requests, None)
    }

    fn requests(wire: &[u8]) -> Vec<Vec<Bytes>> {
        let whole = decode_by(Limits::default(), wire, usize::MAX);
        assert_eq!(whole, decode_by(Limits::default(), wire, 1), "byte by byte");
        assert_eq!(whole.1, None);
        whole.0
    }

    fn error(wire: &[u8]) -> String {
        error_with(Limits::default(), wire)
    }

    fn error_with(limits: Limits, wire: &[u8]) -> String {
        let whole = decode_by(limits, wire, usize::MAX);
        assert_eq!(whole, decode_by(limits, wire, 1), "byte by byte");
        String::from_utf8_lossy(&whole.1.expect("an error").reply()).into_owned()
    }

    fn unauthenticated() -> Limits {
        Limits { authenticated: false, ..Limits::default() }
    }

    #[test]
    fn requests_come_in_the_order_they_were_sent() {
        let wire = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING\r\n*1\r\n$0\r\n\r\n";
        assert_eq!(requests(wire), [vec!["GET", "a"], vec!["PING"], vec![""]]);
    }

    #[test]
    fn counts_below_one_and_empty_lines_are_no_requests() {
        assert_eq!(requests(b"*0\r\n*-1\r\n*-7\r\n\r\n\n  \r\nPING\n*0\r\n"), [vec!["PING"]]);
    }

    #[test]
    fn two_bytes_are_skipped_after_each_bulk_whatever_they_are() {
        assert_eq!(requests(b"*2\rX$1\r\naXY$1\r?b\0\0"), [vec!["a", "b"]]);
    }

    #[test]
    fn arguments_may_hold_any_bytes() {
        assert_eq!(requests(b"*1\r\n$6\r\n\r\n*1\0\xff\r\n"), [vec![&b"\r\n*1\0\xff"[..]]]);
    }

    #[test]
    fn a_header_that_came_in_two_pieces_leaves_no_trace_for_the_next_line() {
        let mut decoder = Decoder::new(Limits::default());
        let mut buffer = BytesMut::from("*1");
        assert_eq!(decoder.decode(&mut buffer), Ok(None));
        buffer.extend_from_slice(b"\r\n$1\r\na\r\n\n\0\n");
        assert_eq!(decoder.decode(&mut buffer).unwrap().unwrap().to_vec(), ["a"]);
        assert_eq!(decoder.decode(&mut buffer), Ok(None));
        assert_eq!(&buffer[..], b"\0\n");
    }

    #[test]
    fn inline_requests_are_unquoted() {
        assert_eq!(requests(b"set \"a b\" 'c'\r\n"), [vec!["set", "a b", "c"]]);
    }

    #[test]
    fn errors_have_the_texts_of_redis() {
        let long = |first: &str| [first.as_bytes(), &[b'1'; MAX_INLINE_BYTES + 1]].concat();
        for (wire, expected) in [
            (b"*x\r\n".to_vec(), "invalid multibulk length"),
            (b"*\r\n".to_vec(), "invalid multibulk length"),
            (b"*01\r\n".to_vec(), "invalid multibulk length"),
            (b"*+1\r\n".to_vec(), "invalid multibulk length"),
            (b"*1048577\r\n".to_vec(), "invalid multibulk length"),
            (b"*99999999999999999999\r\n".to_vec(), "invalid multibulk length"),
            (b"*1\r\n$x\r\n".to_vec(), "invalid bulk length"),
            (b"*1\r\n$-1\r\n".to_vec(), "invalid bulk length"),
            (b"*1\r\n$536870913\r\n".to_vec(), "invalid bulk length"),
            (b"*1\r\n:1\r\n".to_vec(), "expected '$', got ':'"),
            (b"*1\r\n*1\r\n".to_vec(), "expected '$', got '*'"),
            (b"*1\r\n\r\n".to_vec(), "expected '$', got ' '"),
            (b"*1\r\n\n\r\n".to_vec(), "expected '$', got ' '"),
            (b"a \"b\r\n".to_vec(), "unbalanced quotes in request"),
            (long("a"), "too big inline request"),
            (long("*"), "too big mbulk count string"),
            (long("*1\r\n$"), "too big bulk count string"),
            ([b"a\0\n".as_slice(), &long("")].concat(), "too big inline request"),
        ] {
            assert_eq!(error(&wire), format!("ERR Protocol error: {expected}"));
        }
    }

    #[test]
    fn a_byte_that_is_no_text_is_quoted_as_it_is() {
        assert_eq!(&ProtocolError::ExpectedBulk(0xff).reply()[..], b"ERR Protocol error: expected '$', got '\xff'");
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit() {
        let word = vec![b'w'; MAX_INLINE_BYTES];
        assert_eq!(requests(&[&word[..], b"\n"].concat()), [vec![Bytes::from(word)]]);
    }

    #[test]
    fn clients_that_have_not_authenticated_get_small_limits() {
        assert_eq!(decode_by(unauthenticated(), b"*10\r\n$16384\r\n", 1), (vec![], None));
        assert_eq!(error_with(unauthenticated(), b"*11\r\n"), "ERR Protocol error: unauthenticated multibulk length");
        assert_eq!(
            error_with(unauthenticated(), b"*1\r\n$16385\r\n"),
            "ERR Protocol error: unauthenticated bulk length"
        );
    }

    #[test]
    fn a_whole_request_of_too_many_arguments_is_refused_like_one_that_comes_in_pieces() {
        let request = |count: usize| [format!("*{count}\r\n"), "$1\r\na\r\n".repeat(count)].concat();
        let ten = decode_by(unauthenticated(), request(10).as_bytes(), usize::MAX);
        assert_eq!(ten, (vec![vec![Bytes::from("a"); 10]], None));
        for count in 11..=ORDINARY_ARGUMENTS + 1 {
            let expected = "ERR Protocol error: unauthenticated multibulk length";
            assert_eq!(error_with(unauthenticated(), request(count).as_bytes()), expected, "{count}");
            assert_eq!(requests(request(count).as_bytes()), [vec!["a"; count]]);
        }
    }

    #[test]
    fn limits_grow_within_a_pipeline() {
        let mut decoder = Decoder::new(unauthenticated());
        let mut buffer = BytesMut::from("AUTH secret\r\n*11\r\n");
        assert_eq!(decoder.decode(&mut buffer).unwrap().unwrap()[0], "AUTH");
        decoder.set_limits(Limits::default());
        assert_eq!(decoder.decode(&mut buffer), Ok(None));
        assert_eq!(decoder.limits(), Limits::default());
    }

    #[test]
    fn an_error_is_final() {
        let mut decoder = Decoder::new(Limits::default());
        assert_eq!(decoder.decode(&mut BytesMut::from("*x\r\n")), Err(ProtocolError::InvalidCount));
        assert_eq!(decoder.decode(&mut BytesMut::from("PING\r\n")), Err(ProtocolError::InvalidCount));
    }

    #[test]
    fn arguments_are_slices_of_the_buffer() {
        let mut buffer = BytesMut::from("*2\r\n$3\r\nGET\r\n$1000\r\n");
        buffer.extend_from_slice(&[b'k'; 1002]);
        let memory = buffer.as_ptr_range();
        let arguments = Decoder::new(Limits::default()).decode(&mut buffer).unwrap().unwrap();
        assert!(arguments.iter().all(|argument| memory.contains(&argument.as_ptr())));
    }

    #[test]
    fn a_half_received_request_is_held_and_counted() {
        let (mut decoder, mut buffer) =
            (Decoder::new(Limits::default()), BytesMut::from("*3\r\n$3\r\nSET\r\n$5\r\nhe"));
        assert_eq!(decoder.decode(&mut buffer), Ok(None));
        assert_eq!((decoder.held(), &buffer[..]), (3, &b"he"[..]));
        buffer.extend_from_slice(b"llo\r\n$1\r\nx\r\n");
        assert_eq!(decoder.decode(&mut buffer).unwrap().unwrap().to_vec(), ["SET", "hello", "x"]);
        assert_eq!((decoder.held(), buffer.len()), (0, 0));
    }

    #[test]
    fn an_announced_bulk_gets_room_only_as_it_comes() {
        let (mut decoder, mut buffer) = (Decoder::new(Limits::default()), BytesMut::new());
        buffer.extend_from_slice(b"*1\r\n$500000000\r\n");
        while buffer.len() < 1 << 20 {
            assert_eq!(decoder.decode(&mut buffer), Ok(None));
            assert!(
                buffer.capacity() <= 4 * buffer.len() + 2 * READ_BYTES,
                "{} for {}",
                buffer.capacity(),
                buffer.len()
            );
            buffer.extend_from_slice(&[b'x'; 1000]);
        }
        assert!(buffer.capacity() < 4 << 20);
    }
}
