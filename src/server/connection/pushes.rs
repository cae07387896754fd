//! Writing what a connection did not ask for: messages of its subscriptions, while it waits for requests and after each
//! batch of replies. A connection without subscriptions never comes here.

use tokio::net::TcpStream;

use super::{Connection, End, FLUSH_BYTES};
use crate::resp::encode;

impl Connection {
    /// Waits for requests, and writes what is heard meanwhile. Such a connection is never idle.
    pub(super) async fn read_or_hear(&mut self, stream: &mut TcpStream) -> Result<(), End> {
        let Some(inbox) = self.server.pubsub.inbox(self.session.id) else { return self.read(stream).await };
        loop {
            loop {
                let heard = inbox.take(FLUSH_BYTES);
                if heard.is_empty() {
                    break;
                }
                heard.iter().for_each(|message| encode(message, self.session.protocol, &mut self.output));
                self.write(stream).await?;
                inbox.written();
            }
            tokio::select! {
                biased;
                read = self.read(stream) => return read,
                () = inbox.rung() => {}
            }
        }
    }
}
