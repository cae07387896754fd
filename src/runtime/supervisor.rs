//! Whoever started this node and wants to know when it is ready: systemd, over the datagram socket that `NOTIFY_SOCKET`
//! names (sd_notify(3)). Deliberately absent: watchdogs, and upstart.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::config::Supervised;

/// The variable in which systemd names its socket: a path, or `@` and an abstract name.
pub const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// A supervisor, or nobody.
#[derive(Debug)]
pub struct Supervisor(Option<SocketAddr>);

impl Supervisor {
    /// The one that the settings ask for and that `socket`, the value of [`SOCKET_VARIABLE`], leads to.
    pub fn of(supervised: Supervised, socket: Option<&OsStr>) -> Supervisor {
        match (supervised, socket) {
            (Supervised::Systemd | Supervised::Auto, Some(socket)) => Supervisor(address(socket)),
            (Supervised::Upstart, _) => {
                tracing::warn!("supervised upstart: upstart is not told anything, only systemd is");
                Supervisor(None)
            }
            _ => Supervisor(None),
        }
    }

    /// Clients are served.
    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=Ready to accept connections\n");
    }

    /// They no longer are.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Stopping\n");
    }

    fn tell(&self, state: &str) {
        if let Some(address) = &self.0
            && let Err(error) = send(address, state)
        {
            tracing::warn!("the supervisor was not told: {error}");
        }
    }
}

fn send(address: &SocketAddr, state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    // A supervisor that does not read must not keep the node from serving or stopping.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), address).map(drop)
}

fn address(socket: &OsStr) -> Option<SocketAddr> {
    let address = match socket.as_bytes() {
        [] => return None,
        [b'@', name @ ..] => abstract_address(name),
        _ => SocketAddr::from_pathname(socket),
    };
    address.inspect_err(|error| tracing::warn!("{SOCKET_VARIABLE} cannot be used: {error}")).ok()
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn systemd_hears_when_the_node_is_ready_and_when_it_stops() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        for supervised in [Supervised::Systemd, Supervised::Auto] {
            let supervisor = Supervisor::of(supervised, Some(path.as_os_str()));
            supervisor.ready();
            supervisor.stopping();
            assert!(heard(&socket).starts_with("READY=1\n"));
            assert!(heard(&socket).starts_with("STOPPING=1\n"));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn its_socket_may_have_an_abstract_name() {
        let name = format!("redynamo-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&abstract_address(name.as_bytes()).unwrap()).unwrap();
        Supervisor::of(Supervised::Systemd, Some(OsStr::new(&format!("@{name}")))).ready();
        assert!(heard(&socket).starts_with("READY=1\n"));
    }

    #[test]
    fn nobody_is_told_who_did_not_ask() {
        let path = OsStr::new("/run/notify");
        assert!(Supervisor::of(Supervised::Systemd, Some(path)).0.is_some());
        let cases = [
            (Supervised::No, Some(path)),
            (Supervised::Upstart, Some(path)),
            (Supervised::Systemd, None),
            (Supervised::Auto, Some(OsStr::new(""))),
        ];
        for (supervised, socket) in cases {
            assert!(Supervisor::of(supervised, socket).0.is_none(), "{supervised:?}");
        }
    }

    #[test]
    fn a_supervisor_that_is_gone_is_no_trouble() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone");
        Supervisor::of(Supervised::Systemd, Some(path.as_os_str())).ready();
    }
}
