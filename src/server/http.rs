//! As much of HTTP/1 as the admin port needs: the head of a request in, a whole response out. Bytes only, no sockets.
//!
//! Deliberately absent: bodies, which nothing here takes; more than one request per connection; compression.

/// The most bytes that a request's head may have.
pub const MAX_HEAD: usize = 8 * 1024;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// `GET` or another one.
    pub method: &'a str,
    /// Without what follows a question mark.
    pub path: &'a str,
}

/// What bytes amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// The head of a request.
    Whole(Request<'a>),
    /// More must come.
    Partial,
    /// No more need come.
    Refused(Status),
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 200
    Ok,
    /// 400
    BadRequest,
    /// 404
    NotFound,
    /// 405
    NotAllowed,
    /// 431
    TooLarge,
    /// 503
    Unavailable,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::BadRequest => "400 Bad Request",
            Status::NotFound => "404 Not Found",
            Status::NotAllowed => "405 Method Not Allowed",
            Status::TooLarge => "431 Request Header Fields Too Large",
            Status::Unavailable => "503 Service Unavailable",
        }
    }
}

/// Reads the head of a request from the front of what has come so far.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let Some(end) = end_of_head(bytes).filter(|end| *end <= MAX_HEAD) else {
        return if bytes.len() >= MAX_HEAD { Parsed::Refused(Status::TooLarge) } else { hopeless_or_partial(bytes) };
    };
    let head = bytes.get(..end).and_then(|head| str::from_utf8(head).ok());
    let line = head.and_then(|head| head.lines().next()).unwrap_or_default();
    request(line).map_or(Parsed::Refused(Status::BadRequest), Parsed::Whole)
}

/// What does not begin as a request is refused without waiting for its end.
fn hopeless_or_partial(bytes: &[u8]) -> Parsed<'_> {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line_is_whole = line.len() < bytes.len();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let hopeful = match str::from_utf8(line) {
        Ok(line) if line_is_whole => request(line).is_some(),
        Ok(line) => is_printable(line),
        Err(_) => false,
    };
    if hopeful { Parsed::Partial } else { Parsed::Refused(Status::BadRequest) }
}

/// The first line: method, target, version.
fn request(line: &str) -> Option<Request<'_>> {
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let path = target.split('?').next().filter(|path| path.starts_with('/'))?;
    let fits = words.next().is_none()
        && matches!(version, "HTTP/1.1" | "HTTP/1.0")
        && !method.is_empty()
        && method.bytes().all(|byte| byte.is_ascii_uppercase())
        && is_printable(line);
    fits.then_some(Request { method, path })
}

fn is_printable(line: &str) -> bool {
    line.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Where the empty line after the fields begins; lines may end without CR, as people type them.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let crlf = memchr::memmem::find(bytes, b"\r\n\r\n");
    let lf = memchr::memmem::find(bytes, b"\n\n");
    crlf.into_iter().chain(lf).min()
}

/// A response; to HEAD without its body.
pub fn response(status: Status, body: &str, head_only: bool) -> Vec<u8> {
    let allow = if status == Status::NotAllowed { "Allow: GET, HEAD\r\n" } else { "" };
    let mut out = format!(
        "HTTP/1.1 {}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\n{allow}Connection: close\r\n\r\n",
        status.line(),
        body.len()
    );
    if !head_only {
        out.push_str(body);
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SCRAPE: &str = "GET /metrics?x=1 HTTP/1.1\r\nHost: a:26379\r\nAccept: text/plain\r\n\r\n";

    #[test]
    fn a_request_is_whole_at_its_empty_line_and_not_before() {
        for end in 0..SCRAPE.len() {
            assert_eq!(parse(&SCRAPE.as_bytes()[..end]), Parsed::Partial, "{end}");
        }
        let whole = Parsed::Whole(Request { method: "GET", path: "/metrics" });
        assert_eq!(parse(SCRAPE.as_bytes()), whole);
        assert_eq!(parse(format!("{SCRAPE}and more").as_bytes()), whole);
        assert_eq!(parse(b"HEAD / HTTP/1.0\n\n"), Parsed::Whole(Request { method: "HEAD", path: "/" }));
    }

    #[test]
    fn what_is_no_request_is_refused_as_soon_as_that_is_clear() {
        let garbage: [&[u8]; 8] = [
            b"\x16\x03\x01\x02\x00",
            b"*1\r\n$4\r\nPING\r\n",
            b"PING\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/2\r\n\r\n",
            b"GET  / HTTP/1.1\r\n\r\n",
            b"get / HTTP/1.1\r\n\r\n",
            b"GET http://x/ HTTP/1.1\r\n\r\n",
        ];
        for bytes in garbage {
            assert_eq!(parse(bytes), Parsed::Refused(Status::BadRequest), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_head_may_have_so_many_bytes_and_no_more() {
        let request = |fields: usize| format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(fields));
        let room = MAX_HEAD - "GET / HTTP/1.1\r\nX: ".len();
        assert!(matches!(parse(request(room).as_bytes()), Parsed::Whole(_)));
        assert_eq!(parse(request(room + 1).as_bytes()), Parsed::Refused(Status::TooLarge));
        assert_eq!(parse(&[b'A'; MAX_HEAD]), Parsed::Refused(Status::TooLarge));
        assert_eq!(parse(&[b'A'; MAX_HEAD - 1]), Parsed::Partial);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_bytes_amount_to_something_and_a_verdict_stands_however_they_arrive(bytes: Vec<u8>, cut: prop::sample::Index) {
            let cut = cut.index(bytes.len() + 1);
            match parse(&bytes[..cut]) {
                Parsed::Partial => {}
                early => prop_assert_eq!(parse(&bytes), early),
            }
        }
    }

    #[test]
    fn a_response_says_how_long_it_is_and_that_it_is_the_last() {
        let text = String::from_utf8(response(Status::Ok, "ok\n", false)).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\nConnection: close\r\n\r\nok\n"));
        assert!(text.contains("\r\nContent-Length: 3\r\n"));
        let head = String::from_utf8(response(Status::NotAllowed, "no", true)).unwrap();
        assert!(
            head.ends_with("\r\n\r\n") && head.contains("Content-Length: 2\r\n") && head.contains("Allow: GET, HEAD")
        );
    }
}
