//! Accepting clients: limits, protected mode, and sockets set as Redis sets them.

use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::Server;
use crate::commands::Session;
use crate::commands::host::Host;
use crate::commands::session::Face;

const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

const PROTECTED: &[u8] = b"-DENIED this node is in protected mode, because no password is set. It serves this machine \
only. To serve others: set a password with 'requirepass' (in the configuration, or with CONFIG SET from this machine); \
or, if the network is trusted, set 'protected-mode no'.\r\n";

impl Server {
    /// Accepts clients of a face for as long as the listener lives.
    pub async fn accept(self: Arc<Self>, listener: TcpListener, face: Face) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.clone().receive(stream, peer, face),
                Err(error) => {
                    // Out of descriptors, most likely: others must leave first.
                    tracing::warn!("a client could not be accepted: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn receive(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, face: Face) {
        let config = self.settings.config();
        if self.clients.len() >= config.maxclients as usize {
            return self.turn_away(stream, TOO_MANY);
        }
        if config.protected_mode && !self.password_required() && !peer.ip().to_canonical().is_loopback() {
            return self.turn_away(stream, PROTECTED);
        }
        let _ = stream.set_nodelay(true);
        if let Some(interval) = config.tcp_keepalive {
            let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(interval));
        }
        let laddr = stream.local_addr().map_or_else(|_| String::new(), |addr| addr.to_string());
        let mut session = Session::new(self.clients.next_id(), peer.to_string(), laddr, !self.password_required());
        session.face = face;
        session.slots_seen = self.node().coordinator.view.load().slots.hash;
        self.stats.connections.add(1);
        tokio::spawn(self.serve(stream, session));
    }

    fn turn_away(&self, mut stream: TcpStream, why: &'static [u8]) {
        self.stats.rejected_connections.add(1);
        tokio::spawn(async move {
            let _ = stream.write_all(why).await;
        });
    }
}
