//! Handshakes on sockets, both sides, and joining a cluster through any of its nodes.

use std::io::{Error, ErrorKind};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::links::invalid;
use crate::cluster::{Member, Membership};
use crate::node::{CurrentNode, Entry, Node};
use crate::peer::frame::{put_frame, take_frame};
use crate::peer::handshake::{Hello, LinkSecret, NONCE_BYTES, Side, Step, VERSION};

/// How long one attempt to join may take.
const JOIN_PATIENCE: Duration = Duration::from_secs(3);
/// Pause between rounds of attempts.
const JOIN_PAUSE: Duration = Duration::from_millis(300);
/// How often a member that sees nobody asks where everyone is.
const ANNOUNCE_PAUSE: Duration = Duration::from_secs(1);
/// Longest handshake step that is read, in bytes: memberships of a thousand nodes fit.
const MAX_STEP_BYTES: usize = 1 << 20;

/// The kind of error by which a dialler learns that it is no member any more.
pub const DISMISSED: ErrorKind = ErrorKind::AlreadyExists;

/// What a node says of itself on every link.
#[derive(Clone)]
pub struct Introduction {
    /// What its cluster is called.
    pub cluster_name: String,
    /// What proofs are made with.
    pub secret: LinkSecret,
}

impl Introduction {
    /// The hello of a member.
    pub fn hello(&self, node: &Node) -> Greeting {
        let membership = node.membership();
        let member = membership.members.get(&node.me).cloned();
        Greeting { introduction: self.clone(), cluster: Some(membership.cluster), member }
    }
}

/// An introduction made for one handshake.
pub struct Greeting {
    introduction: Introduction,
    cluster: Option<crate::base::id::ClusterId>,
    member: Option<Member>,
}

/// What whoever dialled gets of a link that both sides trust.
pub struct Welcome {
    /// The link.
    pub stream: TcpStream,
    /// The members, as the other side knows them.
    pub membership: Membership,
    /// See [`Step::Welcome`].
    pub former: Option<u64>,
}

/// Dials a peer.
pub async fn dial(addr: &str, greeting: &Greeting) -> std::io::Result<Welcome> {
    let mut stream = TcpStream::connect(addr).await?;
    let _ = stream.set_nodelay(true);
    let member = greeting.member.clone().ok_or_else(|| Error::new(ErrorKind::NotFound, "this node is no member"))?;
    let Introduction { cluster_name, secret } = &greeting.introduction;
    let hello = Hello {
        version: VERSION,
        cluster_name: cluster_name.clone(),
        cluster: greeting.cluster,
        member,
        nonce: nonce(),
    };
    let mut input = BytesMut::new();
    send(&mut stream, &Step::Hello(hello.clone())).await?;
    match receive(&mut stream, &mut input).await? {
        Step::Challenge { nonce, proof } if secret.accepts(&proof, Side::Acceptor, &hello, &nonce) => {
            send(&mut stream, &Step::Proof(secret.proof(Side::Dialler, &hello, &nonce))).await?;
        }
        Step::Challenge { .. } => return Err(refusal("the other side does not know the cluster's secret")),
        Step::Refused(why) => return Err(refusal(&why)),
        _ => return Err(refusal("an unexpected step")),
    }
    match receive(&mut stream, &mut input).await? {
        Step::Welcome { membership, former } => Ok(Welcome { stream, membership, former }),
        Step::Dismissed(why) => Err(Error::new(DISMISSED, why)),
        Step::Refused(why) => Err(refusal(&why)),
        _ => Err(refusal("an unexpected step")),
    }
}

/// Answers a dialler; with a link that both trust comes who it is, and what of its requests has arrived already.
pub async fn accept(
    stream: &mut TcpStream,
    node: &Node,
    introduction: &Introduction,
) -> std::io::Result<(Member, BytesMut)> {
    let mut input = BytesMut::new();
    let Step::Hello(hello) = receive(stream, &mut input).await? else { return Err(refusal("an unexpected step")) };
    let membership = node.membership();
    if let Some(why) = hello.objection(&introduction.cluster_name, membership.cluster) {
        return Err(refuse(stream, &why).await);
    }
    let nonce = nonce();
    let proof = introduction.secret.proof(Side::Acceptor, &hello, &nonce);
    send(stream, &Step::Challenge { nonce, proof }).await?;
    match receive(stream, &mut input).await? {
        Step::Proof(proof) if introduction.secret.accepts(&proof, Side::Dialler, &hello, &nonce) => {}
        _ => return Err(refuse(stream, "the cluster's secret is another").await),
    }
    let mut member = hello.member;
    if member.host.is_empty() {
        // It listens everywhere: others reach it where this node sees it.
        member.host = stream.peer_addr()?.ip().to_canonical().to_string();
    }
    let former = match node.admit(member.clone(), hello.cluster.is_none()).await {
        Ok(Entry::New) => None,
        Ok(Entry::Known(former)) => Some(former),
        Ok(Entry::Dismissed(why)) => {
            send(stream, &Step::Dismissed(why.clone())).await?;
            return Err(refusal(&why));
        }
        Err(why) => return Err(refuse(stream, &why).await),
    };
    let membership = node.membership();
    let is_member = membership.members.contains_key(&member.id);
    send(stream, &Step::Welcome { membership, former }).await?;
    if is_member {
        Ok((member, input))
    } else {
        Err(refusal("it will come back under the id of the member of its name"))
    }
}

/// Joins a cluster through whichever of `seeds` answers; tries for ever, and says so.
pub async fn join(seeds: &[String], introduction: &Introduction, me: &Member) -> Welcome {
    let mut said: Option<String> = None;
    loop {
        for seed in seeds {
            let greeting = Greeting { introduction: introduction.clone(), cluster: None, member: Some(me.clone()) };
            let why = match timeout(JOIN_PATIENCE, dial(seed, &greeting)).await {
                Ok(Ok(welcome)) => return welcome,
                Ok(Err(error)) => format!("{seed}: {error}"),
                Err(_) => format!("{seed}: no answer"),
            };
            if said.as_ref() != Some(&why) {
                tracing::warn!("Not joined yet, trying again: {why}");
                said = Some(why);
            }
        }
        sleep(JOIN_PAUSE).await;
    }
}

/// Tells one of `seeds` where this member is now, and learns from it where the others are. Whether any of them answered.
pub async fn announce(seeds: &[String], introduction: &Introduction, node: &Node) -> bool {
    for seed in seeds {
        match timeout(JOIN_PATIENCE, dial(seed, &introduction.hello(node))).await {
            Ok(Ok(welcome)) => {
                node.learn(&welcome.membership);
                return true;
            }
            Ok(Err(error)) => tracing::debug!(%seed, %error, "not announced"),
            Err(_) => tracing::debug!(%seed, "not announced in time"),
        }
    }
    false
}

/// A member that sees nobody may have moved, or all others have: it goes on asking where it once joined.
pub async fn keep_announced(seeds: Vec<String>, introduction: Introduction, current: CurrentNode) {
    while !seeds.is_empty() {
        sleep(ANNOUNCE_PAUSE).await;
        let node = current.get();
        if node.sees_nobody() {
            announce(&seeds, &introduction, &node).await;
        }
    }
}

async fn send(stream: &mut TcpStream, step: &Step) -> std::io::Result<()> {
    let mut out = BytesMut::new();
    put_frame(&mut out, 0, |out| step.put(out));
    stream.write_all(&out).await
}

async fn receive(stream: &mut TcpStream, input: &mut BytesMut) -> std::io::Result<Step> {
    loop {
        if let Some(frame) = take_frame(input).map_err(invalid)? {
            return Step::read(frame.body).map_err(invalid);
        }
        if input.len() > MAX_STEP_BYTES {
            return Err(refusal("a handshake step is too long"));
        }
        if stream.read_buf(input).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn refuse(stream: &mut TcpStream, why: &str) -> Error {
    let _ = send(stream, &Step::Refused(why.to_owned())).await;
    refusal(why)
}

fn refusal(why: &str) -> Error {
    Error::new(ErrorKind::PermissionDenied, why.to_owned())
}

fn nonce() -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[..8].copy_from_slice(&super::env::random().to_be_bytes());
    nonce[8..].copy_from_slice(&super::env::random().to_be_bytes());
    nonce
}
