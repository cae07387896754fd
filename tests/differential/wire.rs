//! A connection that keeps replies as the bytes that came, and a parser that takes them apart for comparison.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use redynamo::resp::Protocol;

/// A client's connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to a port of this machine, and asks for RESP3 if that is wanted.
    pub fn open(port: u16, protocol: Protocol) -> std::io::Result<Connection> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        // A reply that does not come is a failure, not a hang.
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut connection = Connection { stream: BufReader::new(stream) };
        if protocol == Protocol::Resp3 {
            connection.try_call(&[Bytes::from_static(b"HELLO"), Bytes::from_static(b"3")])?;
        }
        Ok(connection)
    }

    /// Sends a command and returns its reply as it came.
    pub fn call(&mut self, args: &[Bytes]) -> Bytes {
        self.try_call(args).unwrap_or_else(|error| panic!("{args:?}: {error}"))
    }

    /// The same, for a server that may not be there yet.
    pub fn try_call(&mut self, args: &[Bytes]) -> std::io::Result<Bytes> {
        self.send(args)?;
        self.read_reply()
    }

    /// Sends a command.
    pub fn send(&mut self, args: &[Bytes]) -> std::io::Result<()> {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            request.put_slice(format!("${}\r\n", arg.len()).as_bytes());
            request.put_slice(arg);
            request.put_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request)
    }

    /// The next reply, or what comes without being asked for.
    pub fn read_reply(&mut self) -> std::io::Result<Bytes> {
        let mut reply = BytesMut::new();
        self.read_frame(&mut reply)?;
        Ok(reply.freeze())
    }

    /// Appends one whole reply.
    fn read_frame(&mut self, out: &mut BytesMut) -> std::io::Result<()> {
        let mut line = Vec::new();
        if self.stream.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        out.put_slice(&line);
        let (mark, count) = header(&line);
        for _ in 0..elements(mark, count) {
            self.read_frame(out)?;
        }
        if is_long(mark) && count >= 0 {
            let mut bytes = vec![0; count as usize + 2];
            self.stream.read_exact(&mut bytes)?;
            out.put_slice(&bytes);
        }
        Ok(())
    }
}

/// The mark and the number of a reply's first line; no number counts as none.
fn header(line: &[u8]) -> (u8, i64) {
    let text = std::str::from_utf8(line.get(1..).unwrap_or_default()).unwrap_or_default();
    (line.first().copied().unwrap_or(0), text.trim_end().parse().unwrap_or(-1))
}

fn is_long(mark: u8) -> bool {
    matches!(mark, b'$' | b'=' | b'!')
}

fn elements(mark: u8, count: i64) -> i64 {
    match mark {
        b'*' | b'~' | b'>' => count.max(0),
        b'%' => count.max(0) * 2,
        _ => 0,
    }
}

/// A reply taken apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Frame {
    /// A line or bytes, mark and all.
    Leaf(Vec<u8>),
    /// An aggregate: its mark and elements.
    Many(u8, Vec<Frame>),
}

impl Frame {
    /// Takes a whole reply apart.
    pub fn parse(mut bytes: &[u8]) -> Frame {
        let frame = Frame::take(&mut bytes);
        assert!(bytes.is_empty(), "one reply");
        frame
    }

    fn take(bytes: &mut &[u8]) -> Frame {
        let end = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |at| at + 1);
        let (line, rest) = bytes.split_at(end);
        let (mark, count) = header(line);
        if matches!(mark, b'*' | b'~' | b'>' | b'%') && count >= 0 {
            *bytes = rest;
            return Frame::Many(mark, (0..elements(mark, count)).map(|_| Frame::take(bytes)).collect());
        }
        let body = if is_long(mark) && count >= 0 { count as usize + 2 } else { 0 };
        let (leaf, rest) = bytes.split_at(end + body);
        *bytes = rest;
        Frame::Leaf(leaf.to_vec())
    }

    /// What is left when numbers that are not negative and texts may be any.
    pub fn shape(&self) -> Frame {
        match self {
            Frame::Many(mark, items) => Frame::Many(*mark, items.iter().map(Frame::shape).collect()),
            Frame::Leaf(leaf) if leaf.get(1) == Some(&b'-') => self.clone(),
            Frame::Leaf(leaf) => Frame::Leaf(leaf.get(..1).unwrap_or_default().to_vec()),
        }
    }

    /// The same with the elements of every aggregate in one order.
    pub fn sorted(&self) -> Frame {
        match self {
            Frame::Many(mark, items) => {
                let mut items: Vec<_> = items.iter().map(Frame::sorted).collect();
                items.sort();
                Frame::Many(*mark, items)
            }
            leaf => leaf.clone(),
        }
    }

    /// The text of a line or of bytes.
    pub fn text(&self) -> String {
        let Frame::Leaf(leaf) = self else { panic!("{self:?} is an aggregate") };
        let (line, body) = leaf.split_at(leaf.iter().position(|&byte| byte == b'\n').map_or(leaf.len(), |at| at + 1));
        let text = if body.is_empty() { line.get(1..).unwrap_or_default() } else { body };
        String::from_utf8_lossy(text).trim_end().to_owned()
    }

    /// The elements of an aggregate; none of anything else.
    pub fn items(&self) -> &[Frame] {
        match self {
            Frame::Many(_, items) => items,
            Frame::Leaf(_) => &[],
        }
    }
}

/// Whether two replies are integers no further apart than that; what is negative has a meaning of its own.
pub fn near(redis: &[u8], ours: &[u8], most: u64) -> bool {
    let number = |reply: &[u8]| Frame::parse(reply).text().parse::<i64>().unwrap();
    let (redis, ours) = (number(redis), number(ours));
    if redis < 0 || ours < 0 { redis == ours } else { redis.abs_diff(ours) <= most }
}
