//! Listening sockets: bound before anything else, so that a port in use is the first thing that is said.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::StartError;
use super::links::Links;
use super::meeting::Introduction;
use super::peers::accept_peers;
use crate::commands::session::Face;
use crate::config::{Bind, Config};
use crate::node::CurrentNode;
use crate::server::{Server, admin};

/// Everything this node listens on.
pub struct Listeners {
    clients: Vec<TcpListener>,
    cluster_clients: Vec<TcpListener>,
    peers: Vec<TcpListener>,
    admin: Vec<TcpListener>,
}

impl Listeners {
    /// Binds all ports that the configuration names.
    pub fn bind(config: &Config) -> Result<Listeners, StartError> {
        let backlog = config.tcp_backlog;
        Ok(Listeners {
            clients: bind_all(&config.bind, config.port, backlog)?,
            cluster_clients: bind_all(&config.bind, config.cluster_port, backlog)?,
            peers: bind_all(&config.peer_bind, Some(config.peer_port), backlog)?,
            admin: bind_all(&config.bind, config.admin_port, backlog)?,
        })
    }

    /// Serves peers.
    pub fn serve_peers(&mut self, current: &CurrentNode, links: &Arc<Links>, introduction: &Introduction) {
        for listener in self.peers.drain(..) {
            tokio::spawn(accept_peers(listener, current.clone(), links.clone(), introduction.clone()));
        }
    }

    /// Serves everyone else.
    pub fn serve(self, server: &Arc<Server>) {
        for listener in self.admin {
            tokio::spawn(admin::serve(listener, server.clone()));
        }
        for listener in self.clients {
            tokio::spawn(server.clone().accept(listener, Face::Plain));
        }
        for listener in self.cluster_clients {
            tokio::spawn(server.clone().accept(listener, Face::Cluster));
        }
    }
}

fn bind_all(hosts: &[Bind], port: Option<u16>, backlog: u32) -> Result<Vec<TcpListener>, StartError> {
    let Some(port) = port else { return Ok(Vec::new()) };
    let mut listeners = Vec::new();
    for bind in hosts {
        match bind_one(&bind.host, port, backlog) {
            Ok(listener) => listeners.push(listener),
            // Redis' own rule: a dash before an address that this machine does not have passes it over.
            Err(error) if bind.optional && !is_in_use(&error) => {
                tracing::debug!("not listening on {}:{port}: {error}", bind.host);
            }
            Err(error) => {
                return Err(StartError(format!("Could not listen on {}:{port}: {error}", bind.host)));
            }
        }
    }
    if listeners.is_empty() {
        return Err(StartError(format!("Could not listen on port {port}: this machine has none of the addresses")));
    }
    Ok(listeners)
}

fn bind_one(host: &str, port: u16, backlog: u32) -> std::io::Result<TcpListener> {
    let addr: SocketAddr =
        (host, port).to_socket_addrs()?.next().ok_or_else(|| std::io::Error::other("no such address"))?;
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        // The IPv4 addresses have sockets of their own.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

fn is_in_use(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::AddrInUse
}

/// The address that others are told: as announced, else the first that is one; empty for "the one you see".
pub fn announced_host(config: &Config) -> String {
    let concrete =
        config.peer_bind.iter().map(|bind| bind.host.as_str()).find(|host| !["0.0.0.0", "::"].contains(host));
    config.announce_ip.clone().or_else(|| concrete.map(str::to_owned)).unwrap_or_default()
}
