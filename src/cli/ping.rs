//! Asking a node whether it answers, without a client library.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Longest answer that is read: an error's text, not data.
const MAX_ANSWER_BYTES: u64 = 1024;

/// What the node at `address` (`host:port`) answers to PING: a line of RESP without its end, as `+PONG`.
pub fn ping(address: &str, patience: Duration) -> io::Result<String> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "no such address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, patience).and_then(|stream| ask(&stream, patience)) {
            Ok(answer) => return Ok(answer),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Whether an answer comes from a node that serves: one that wants a password first does.
pub fn is_serving(answer: &str) -> bool {
    answer == "+PONG" || answer.starts_with("-NOAUTH")
}

fn ask(mut stream: &TcpStream, patience: Duration) -> io::Result<String> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_ANSWER_BYTES)).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answered(answer: &'static [u8]) -> io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 6];
            stream.read_exact(&mut asked).unwrap();
            assert_eq!(&asked, b"PING\r\n");
            stream.write_all(answer).unwrap();
        });
        let result = ping(&address, Duration::from_secs(20));
        server.join().unwrap();
        result
    }

    #[test]
    fn an_answer_is_one_line() {
        assert_eq!(answered(b"+PONG\r\n+more\r\n").unwrap(), "+PONG");
        assert_eq!(answered(b"").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_node_that_wants_a_password_serves_and_one_that_loads_does_not() {
        assert!(is_serving("+PONG"));
        assert!(is_serving("-NOAUTH Authentication required."));
        assert!(!is_serving("-LOADING"));
        assert!(!is_serving(""));
    }

    #[test]
    fn nobody_there_is_an_error() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(ping(&free.to_string(), Duration::from_secs(20)).is_err());
    }
}
