//! The admin port, for machines that watch this one: /metrics for Prometheus, /health and /ready for whoever routes
//! traffic or restarts nodes. GET and HEAD, one request per connection, nothing that changes anything.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Server;
use super::http::{MAX_HEAD, Parsed, Request, Status, parse, response};
use crate::env::blocking;

/// How long an exchange may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many may go on at once; others wait in the listener's queue.
const AT_ONCE: usize = 64;
/// What is still read of a request that was answered before its end, so that the answer is not lost with it.
const LINGER_BYTES: u64 = 64 * 1024;

/// Serves the admin port for as long as the listener lives.
pub async fn serve(listener: TcpListener, server: Arc<Server>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let server = server.clone();
                tokio::spawn(async move {
                    // Who is slower gets nothing more, and whoever failed is gone.
                    let _ = timeout(PATIENCE, exchange(stream, &server)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("a connection to the admin port could not be accepted: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One request and its answer.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, server: &Arc<Server>) -> std::io::Result<()> {
    let mut input = Vec::with_capacity(1024);
    let answer = loop {
        match parse(&input) {
            Parsed::Whole(request) => break server.answer(request).await,
            Parsed::Refused(status) => break response(status, "this is not a request that is served here\n", false),
            Parsed::Partial => {
                let room = (MAX_HEAD + 4).saturating_sub(input.len()) as u64;
                if (&mut stream).take(room).read_buf(&mut input).await? == 0 {
                    return Ok(());
                }
            }
        }
    };
    stream.write_all(&answer).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await.map(drop)
}

impl Server {
    async fn answer(self: &Arc<Self>, Request { method, path }: Request<'_>) -> Vec<u8> {
        let head_only = method == "HEAD";
        if !head_only && method != "GET" {
            return response(Status::NotAllowed, "GET and HEAD are served here\n", false);
        }
        let (status, body) = match path {
            "/metrics" => self.page().await,
            "/health" | "/ready" => verdict(self.health()),
            _ => (Status::NotFound, "/metrics, /health and /ready are served here\n".to_owned()),
        };
        response(status, &body, head_only)
    }

    async fn page(self: &Arc<Self>) -> (Status, String) {
        let server = self.clone();
        match blocking(&*self.node().coordinator.env, move || server.metrics()).await {
            Some(page) => (Status::Ok, page),
            None => verdict(Err("this node is stopping".to_owned())),
        }
    }

    /// Whether this node may coordinate: it holds what it should, and its store takes writes.
    ///
    /// # Errors
    /// Why not.
    pub fn health(&self) -> Result<(), String> {
        let node = self.node();
        node.replica().check_healthy().map_err(|fault| fault.to_string())?;
        match node.is_ready() {
            true => Ok(()),
            false => Err("this node has not yet taken over what its partitions' other owners have".to_owned()),
        }
    }
}

fn verdict(result: Result<(), String>) -> (Status, String) {
    match result {
        Ok(()) => (Status::Ok, "ok\n".to_owned()),
        Err(why) => (Status::Unavailable, format!("{why}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::testing::{server, server_among, server_and_store};
    use tokio::io::duplex;
    use tokio::net::TcpStream;

    /// Sends `parts` one after the other and answers what comes back.
    async fn ask(server: &Arc<Server>, parts: &[&str]) -> String {
        let (client, theirs) = duplex(64);
        let (mut reader, mut writer) = tokio::io::split(client);
        let send = async {
            for part in parts {
                // Whoever is refused early is not read to the end.
                let _ = writer.write_all(part.as_bytes()).await;
            }
            let _ = writer.shutdown().await;
        };
        let mut answer = String::new();
        let (_, read, _) = tokio::join!(send, reader.read_to_string(&mut answer), exchange(theirs, server));
        read.unwrap();
        answer
    }

    fn status(answer: &str) -> &str {
        answer.split(' ').nth(1).unwrap_or_default()
    }

    #[tokio::test]
    async fn a_page_of_metrics_is_served_however_the_request_arrives() {
        let server = server();
        let answer = ask(&server, &["GET /met", "rics HTTP/1.1\r", "\nHost: x\r\n", "\r\n"]).await;
        assert_eq!(status(&answer), "200");
        assert!(answer.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
        assert!(answer.contains("\n# TYPE redynamo_command_duration_seconds histogram\n"));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
    }

    #[tokio::test]
    async fn other_paths_methods_and_no_requests_at_all_are_refused() {
        let server = server();
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(9000));
        let cases = [
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("*1\r\n$4\r\nPING\r\n", "400"),
            (long.as_str(), "431"),
            ("HEAD /health HTTP/1.1\r\n\r\n", "200"),
        ];
        for (request, expected) in cases {
            let answer = ask(&server, &[request]).await;
            assert_eq!(status(&answer), expected, "{request:.40}");
        }
        assert!(ask(&server, &["HEAD /health HTTP/1.1\r\n\r\n"]).await.ends_with("\r\n\r\n"), "no body");
    }

    #[tokio::test]
    async fn a_node_whose_store_has_failed_is_neither_healthy_nor_ready() {
        let (server, store) = server_and_store("");
        assert!(ask(&server, &["GET /health HTTP/1.0\r\n\r\n"]).await.ends_with("\r\n\r\nok\n"));
        store.fail_writes("no space left");
        crate::server::testing::run(&server, "set k v");
        server.node().replica().committer().commit_pending();
        let answer = ask(&server, &["GET /health HTTP/1.0\r\n\r\n"]).await;
        assert_eq!(status(&answer), "503");
        assert!(answer.ends_with("the store takes no more writes: no space left\n"), "{answer}");
        assert_eq!(status(&ask(&server, &["GET /ready HTTP/1.0\r\n\r\n"]).await), "503");
    }

    #[tokio::test]
    async fn a_node_that_has_not_heard_the_others_is_not_ready() {
        let server = server_among(3, "").0;
        for path in ["/ready", "/health"] {
            let answer = ask(&server, &[&format!("GET {path} HTTP/1.1\r\n\r\n")]).await;
            assert_eq!(status(&answer), "503");
            assert!(answer.contains("not yet"), "{answer}");
        }
    }

    #[tokio::test]
    async fn it_answers_on_a_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, server()));
        let mut answer = String::new();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /ready HTTP/1.1\r\n\r\n").await.unwrap();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("ok\n"));
        serving.abort();
    }
}
