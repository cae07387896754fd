//! Serving peers: connections that they dialled. Requests take effect in the order they arrive; answers leave as they are
//! ready, many in one write.

use std::sync::Arc;

use bytes::BytesMut;
use futures_util::future::FutureExt;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, timeout};

use super::links::{Links, invalid};
use super::meeting::{Introduction, accept};
use crate::base::id::NodeId;
use crate::metrics;
use crate::node::{CurrentNode, Node};
use crate::peer::frame::{put_frame, take_frame};
use crate::peer::{Request, Response};

const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
/// Strangers that may introduce themselves at once; others wait in the listener's queue.
const MAX_HANDSHAKES: usize = 64;
/// Most bytes of answers that may wait for one peer: one that does not read is asked no further.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Answers on their way to a peer.
#[derive(Default)]
struct Answers {
    out: Mutex<BytesMut>,
    /// Rung when there is something to write.
    bell: Notify,
    /// Rung when what there was is written.
    written: Notify,
}

impl Answers {
    fn push(&self, id: u64, response: &Response) {
        let mut out = self.out.lock();
        let was_empty = out.is_empty();
        put_frame(&mut out, id, |out| response.put(out));
        drop(out);
        if was_empty {
            self.bell.notify_one();
        }
    }

    /// Waits while the peer leaves too much unread.
    async fn keep_up(&self) {
        while self.out.lock().len() > MAX_ANSWER_BYTES {
            self.written.notified().await;
        }
    }
}

/// Accepts peers for as long as the listener lives.
pub async fn accept_peers(listener: TcpListener, current: CurrentNode, links: Arc<Links>, introduction: Introduction) {
    let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, addr)) => {
                let (current, links, introduction) = (current.clone(), links.clone(), introduction.clone());
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, current, &links, introduction, place).await {
                        tracing::debug!(%addr, %error, "a peer's connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!("a peer could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    current: CurrentNode,
    links: &Links,
    introduction: Introduction,
    place: OwnedSemaphorePermit,
) -> std::io::Result<()> {
    let _ = stream.set_nodelay(true);
    let met = timeout(HANDSHAKE_PATIENCE, accept(&mut stream, &current.get(), &introduction)).await;
    let (member, input) = met.map_err(|_| std::io::ErrorKind::TimedOut)??;
    drop(place);
    links.is_there(member.id);
    let answers = Arc::new(Answers::default());
    let (mut reading, mut writing) = stream.into_split();
    let write = async {
        loop {
            let out = std::mem::take(&mut *answers.out.lock());
            if out.is_empty() {
                answers.bell.notified().await;
            } else {
                answers.written.notify_one();
                writing.write_all(&out).await?;
                metrics::PEER_OUTPUT_BYTES.add(out.len() as u64);
            }
        }
    };
    let read = async {
        let mut input = input;
        loop {
            while let Some(frame) = take_frame(&mut input).map_err(invalid)? {
                let request = Request::read(frame.body).map_err(invalid)?;
                // Nobody holds a node for as long as a connection lives: its store may have to be closed.
                let node = current.get();
                node.replica().keep_up().await;
                answers.keep_up().await;
                answer(&node, member.id, frame.id, request, &answers);
            }
            input.reserve(16 * 1024);
            let read = reading.read_buf(&mut input).await?;
            if read == 0 {
                return Ok(());
            }
            metrics::PEER_INPUT_BYTES.add(read as u64);
        }
    };
    tokio::select! {
        biased;
        ended = read => ended,
        ended = write => ended,
    }
}

/// Lets a request take effect now; its answer follows at once, or from a task of its own.
fn answer(node: &Arc<Node>, from: NodeId, id: u64, request: Request, answers: &Arc<Answers>) {
    let mut answer = node.answer(from, request);
    match (&mut answer).now_or_never() {
        Some(response) => answers.push(id, &response),
        None => {
            let answers = answers.clone();
            tokio::spawn(async move { answers.push(id, &answer.await) });
        }
    }
}
