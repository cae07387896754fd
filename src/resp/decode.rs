//! Requests off a connection's buffer: incremental, bounded, and without copying arguments.
//!
//! A decoder remembers where it stopped, so a request that comes in many pieces costs no more than one that comes whole.
//! Nothing is allocated for a length or a count that a client has only announced. Order of checks, what is tolerated and
//! the texts of errors are those of Redis 7.2: after an announced bulk two bytes are skipped whatever they are, counts
//! below one are no requests, and a NUL byte hides the end of a line until the line is too long.
//!
//! Deliberately absent: every RESP type but an array of bulk strings. Redis takes nothing else from a client, and so
//! there is nothing to nest.

use super::inline;
use crate::base::limits::{MAX_ARGUMENTS, MAX_ARGUMENTS_UNAUTHENTICATED, MAX_BULK_UNAUTHENTICATED, MAX_INLINE_BYTES};
use crate::base::num::parse_i64;
use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr2;
use smallvec::SmallVec;

/// A request: the command's name and its arguments, at least one. Each is a slice of the buffer that it came in and keeps
/// that alive: copy what is to live longer than the request.
pub type Arguments = SmallVec<[Bytes; 4]>;

/// Least room that is made for more of a bulk, in bytes; Redis' read size.
const READ_BYTES: usize = 16 * 1024;

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

    /// Bytes of arguments that have been taken off the buffer for a request that is not complete. With the buffer's length
    /// this is what Redis limits as `client-query-buffer-limit`, which is the caller's to hold.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The next request, taken off the front of `buffer`; `None` when more bytes are needed, which leaves room in the
    /// buffer to read them into. Call again until then: one read may bring many requests.
    ///
    /// # Errors
    /// [`ProtocolError`], now and at every later call.
    #[inline]
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Arguments>, ProtocolError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.advance(buffer).inspect_err(|&error| self.failed = Some(error))
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

    /// The number in the line at the front of the buffer, after its first byte, and the length of that line with its end;
    /// `None` when the line is not all there. The line ends with CR and one byte more.
    #[inline]
    fn header(
        &mut self,
        buffer: &[u8],
        too_long: ProtocolError,
    ) -> Result<Option<(Option<i64>, usize)>, ProtocolError> {
        if let Some((number, taken)) = short_header(buffer) {
            self.searched = 0;
            return Ok(Some((Some(number), taken)));
        }
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

/// Nearly every header: one to three digits without a leading zero, and all of the line's end. Anything else, valid or
/// not, is for the careful way.
#[inline]
fn short_header(buffer: &[u8]) -> Option<(i64, usize)> {
    let digit = |byte: u8| i64::from(byte.wrapping_sub(b'0'));
    match *buffer {
        [b'$' | b'*', a @ b'0'..=b'9', b'\r', _, ..] => Some((digit(a), 4)),
        [b'$' | b'*', a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', _, ..] => Some((digit(a) * 10 + digit(b), 5)),
        [b'$' | b'*', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b'\r', _, ..] => {
            Some((digit(a) * 100 + digit(b) * 10 + digit(c), 6))
        }
        _ => None,
    }
}

/// Makes room for as much again as has come, at least a read, but not beyond what is announced: a large bulk costs a few
/// copies, and a lie costs nothing.
fn make_room(buffer: &mut BytesMut, announced: usize) {
    let missing = announced.saturating_sub(buffer.len());
    let room = missing.min(buffer.len().max(READ_BYTES));
    if buffer.capacity().saturating_sub(buffer.len()) < room {
        buffer.reserve(room);
    }
}
