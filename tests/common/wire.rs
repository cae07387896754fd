//! A client's connection, as plain as can be: requests are bytes, replies are values.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// A reply that does not come in this time is a failure, not a hang.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A reply of RESP2 or RESP3. What differs between the two only in its mark is the same here.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Nil,
    Int(i64),
    /// A simple or bulk string, a double, a boolean, a big number.
    Text(Vec<u8>),
    Error(String),
    /// Of a map: keys and values in turn.
    Many(Vec<Value>),
}

impl Value {
    pub fn text(&self) -> String {
        match self {
            Value::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::Error(text) => text.clone(),
            Value::Int(number) => number.to_string(),
            other => panic!("no text: {other:?}"),
        }
    }

    pub fn int(&self) -> i64 {
        match self {
            Value::Int(number) => *number,
            other => panic!("no integer: {other:?}"),
        }
    }

    pub fn items(&self) -> &[Value] {
        match self {
            Value::Many(items) => items,
            other => panic!("no array: {other:?}"),
        }
    }

    pub fn error(&self) -> &str {
        match self {
            Value::Error(text) => text,
            other => panic!("no error: {other:?}"),
        }
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Value::Error(_))
    }

    /// The value of a map's key.
    pub fn field(&self, name: &str) -> &Value {
        let pairs = self.items().chunks_exact(2);
        let found = pairs.filter(|pair| pair[0] == Value::Text(name.as_bytes().to_vec())).map(|pair| &pair[1]).next();
        found.unwrap_or_else(|| panic!("no field {name} in {self:?}"))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.as_bytes().to_vec())
    }
}

/// A connection.
pub struct Wire {
    stream: BufReader<TcpStream>,
}

impl Wire {
    pub fn open(port: u16) -> Result<Wire> {
        Wire::over(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?, PATIENCE)
    }

    /// A connection to anywhere that waits no longer than `patience` for anything.
    pub fn dial(address: SocketAddr, patience: Duration) -> Result<Wire> {
        Wire::over(TcpStream::connect_timeout(&address, patience)?, patience)
    }

    fn over(stream: TcpStream, patience: Duration) -> Result<Wire> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Wire { stream: BufReader::with_capacity(64 * 1024, stream) })
    }

    /// A connection to a node that is there.
    pub fn to(port: u16) -> Wire {
        Wire::open(port).unwrap_or_else(|error| panic!("port {port}: {error}"))
    }

    /// One command, one reply.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Value {
        self.try_call(args).unwrap_or_else(|error| {
            let shown: Vec<_> = args.iter().map(|arg| String::from_utf8_lossy(arg.as_ref()).into_owned()).collect();
            panic!("{shown:?}: {error}")
        })
    }

    /// A command of words without spaces.
    pub fn say(&mut self, line: &str) -> Value {
        self.call(&line.split_whitespace().collect::<Vec<_>>())
    }

    pub fn try_call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Value> {
        self.send(&request(args))?;
        self.read()
    }

    /// Many commands in one write, all their replies.
    pub fn pipeline(&mut self, requests: &[Vec<u8>]) -> Vec<Value> {
        self.send(&requests.concat()).unwrap();
        requests.iter().map(|_| self.read().unwrap()).collect()
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// The next reply.
    pub fn read(&mut self) -> Result<Value> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        let Some(line) = line.strip_suffix(b"\r\n") else { return Err(ErrorKind::UnexpectedEof.into()) };
        let (mark, rest) = line.split_first().ok_or(ErrorKind::InvalidData)?;
        let text = String::from_utf8_lossy(rest).into_owned();
        let number = || text.parse::<i64>().map_err(|_| Error::new(ErrorKind::InvalidData, text.clone()));
        match mark {
            b'+' | b',' | b'#' | b'(' => Ok(Value::Text(rest.to_vec())),
            b'-' => Ok(Value::Error(text)),
            b':' => number().map(Value::Int),
            b'_' => Ok(Value::Nil),
            b'$' | b'=' | b'!' => self.bulk(number()?),
            b'*' | b'~' | b'>' => self.many(number()?),
            b'%' => self.many(number()? * 2),
            _ => Err(Error::new(ErrorKind::InvalidData, format!("a reply that begins {:?}", char::from(*mark)))),
        }
    }

    /// Another hand on the same connection, for writing while this one reads.
    pub fn writer(&self) -> TcpStream {
        self.stream.get_ref().try_clone().unwrap()
    }

    fn bulk(&mut self, length: i64) -> Result<Value> {
        let Ok(length) = usize::try_from(length) else { return Ok(Value::Nil) };
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes)?;
        bytes.truncate(length);
        Ok(Value::Text(bytes))
    }

    fn many(&mut self, count: i64) -> Result<Value> {
        if count < 0 {
            return Ok(Value::Nil);
        }
        (0..count).map(|_| self.read()).collect::<Result<_>>().map(Value::Many)
    }
}

/// A request's bytes.
pub fn request<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.as_ref().len()).as_bytes());
        out.extend_from_slice(arg.as_ref());
        out.extend_from_slice(b"\r\n");
    }
    out
}
