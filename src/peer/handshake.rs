//! How two nodes come to trust a link: versions, names and cluster ids agree, and both prove that they know the cluster's
//! secret, over fresh nonces and what was said.
//!
//! ```text
//! dialler                          acceptor
//!   Hello(version, who, nonce) ──▶
//!         ◀── Challenge(nonce, proof) or Refused(why)
//!   Proof ──▶
//!         ◀── Welcome(membership, former life), Refused(why) or Dismissed(why)
//! ```
//! Without a secret the proofs are over an empty one: that is for loopback, where the configuration allows it.

use bytes::{BufMut, Bytes, BytesMut};

use crate::base::codec::{DecodeError, Decoded, Reader, put_bytes, put_varint};
use crate::base::id::ClusterId;
use crate::cluster::{Member, Membership};

/// Raised when nodes can no longer talk to those of the version before the last.
pub const VERSION: u16 = 2;

const MAGIC: u32 = 0x5244_594e; // "RDYN"

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 16;

/// A proof of knowing the secret.
pub type Proof = [u8; 32];

/// What a handshake consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Who dials.
    Hello(Hello),
    /// The acceptor's proof, and what the dialler's is to be over.
    Challenge {
        /// Fresh.
        nonce: [u8; NONCE_BYTES],
        /// Over both nonces and the hello.
        proof: Proof,
    },
    /// The dialler's proof.
    Proof(Proof),
    /// The link is trusted.
    Welcome {
        /// These are the members.
        membership: Membership,
        /// Under which incarnation whoever dialled was known before. If it is not among them, that is the incarnation of
        /// the member of its name, which is away and whose place it is to take.
        former: Option<u64>,
    },
    /// Whoever dialled is no member any more, and why.
    Dismissed(String),
    /// It is not, and why.
    Refused(String),
}

/// How a dialler introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Its protocol version.
    pub version: u16,
    /// What its cluster is called.
    pub cluster_name: String,
    /// Which cluster it belongs to; none if it wants to join one.
    pub cluster: Option<ClusterId>,
    /// Itself.
    pub member: Member,
    /// Fresh.
    pub nonce: [u8; NONCE_BYTES],
}

/// The key that proofs are made with.
#[derive(Clone)]
pub struct LinkSecret([u8; 32]);

impl LinkSecret {
    /// Derives it from the configured secret, which may be empty.
    pub fn derive(secret: &[u8]) -> Self {
        LinkSecret(blake3::derive_key("redynamo 2026-11 link secret", secret))
    }

    /// The proof of one side over what was said.
    pub fn proof(&self, side: Side, hello: &Hello, nonce: &[u8; NONCE_BYTES]) -> Proof {
        let mut said = BytesMut::new();
        said.put_u8(side as u8);
        said.put_slice(nonce);
        Step::Hello(hello.clone()).put(&mut said);
        *blake3::keyed_hash(&self.0, &said).as_bytes()
    }

    /// Whether a proof is right; takes as long whatever is wrong with it.
    pub fn accepts(&self, proof: &Proof, side: Side, hello: &Hello, nonce: &[u8; NONCE_BYTES]) -> bool {
        blake3::Hash::from_bytes(*proof) == blake3::Hash::from_bytes(self.proof(side, hello, nonce))
    }
}

/// Whose proof it is: so that none can be played back at its maker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    /// Who dialled.
    Dialler = 1,
    /// Who accepted.
    Acceptor = 2,
}

impl Step {
    /// Appends the step.
    pub fn put(&self, out: &mut BytesMut) {
        match self {
            Step::Hello(hello) => {
                out.put_u8(1);
                out.put_u32(MAGIC);
                out.put_u16(hello.version);
                put_bytes(out, hello.cluster_name.as_bytes());
                out.put_u64(hello.cluster.map_or(0, |cluster| cluster.0));
                hello.member.put(out);
                out.put_slice(&hello.nonce);
            }
            Step::Challenge { nonce, proof } => {
                out.put_u8(2);
                out.put_slice(nonce);
                out.put_slice(proof);
            }
            Step::Proof(proof) => {
                out.put_u8(3);
                out.put_slice(proof);
            }
            Step::Welcome { membership, former } => {
                out.put_u8(4);
                put_varint(out, former.map_or(0, |former| former.saturating_add(1)));
                membership.put(out);
            }
            Step::Dismissed(why) => {
                out.put_u8(6);
                put_bytes(out, why.as_bytes());
            }
            Step::Refused(why) => {
                out.put_u8(5);
                put_bytes(out, why.as_bytes());
            }
        }
    }

    /// Reads what [`Step::put`] wrote.
    pub fn read(body: Bytes) -> Decoded<Step> {
        let mut reader = Reader::new(body);
        let reader = &mut reader;
        let step = match reader.u8()? {
            1 => {
                if reader.u32()? != MAGIC {
                    return Err(DecodeError::Invalid("magic number"));
                }
                Step::Hello(Hello {
                    version: reader.u16()?,
                    cluster_name: reader.text()?,
                    cluster: Some(reader.u64()?).filter(|id| *id != 0).map(ClusterId),
                    member: Member::read(reader)?,
                    nonce: array(reader)?,
                })
            }
            2 => Step::Challenge { nonce: array(reader)?, proof: array(reader)? },
            3 => Step::Proof(array(reader)?),
            4 => {
                let former = reader.varint()?.checked_sub(1);
                Step::Welcome { former, membership: Membership::read(reader)? }
            }
            5 => Step::Refused(reader.text()?),
            6 => Step::Dismissed(reader.text()?),
            _ => return Err(DecodeError::Unknown("handshake step")),
        };
        if reader.remaining() == 0 { Ok(step) } else { Err(DecodeError::Trailing) }
    }
}

impl Hello {
    /// Why an acceptor of this version, name and cluster turns the dialler away, if it does.
    pub fn objection(&self, cluster_name: &str, cluster: ClusterId) -> Option<String> {
        if self.version != VERSION {
            return Some(format!("protocol version {} is not {VERSION}", self.version));
        }
        if self.cluster_name != cluster_name {
            return Some(format!("this is cluster '{cluster_name}', not '{}'", self.cluster_name));
        }
        match self.cluster {
            Some(theirs) if theirs != cluster => Some(format!("cluster id {theirs} is not {cluster}: another cluster")),
            _ => None,
        }
    }
}

fn array<const N: usize>(reader: &mut Reader) -> Decoded<[u8; N]> {
    let mut out = [0; N];
    out.copy_from_slice(&reader.take(N)?);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::NodeId;
    use crate::cluster::{FEATURES, MemberState};

    fn hello() -> Hello {
        let member = Member {
            id: NodeId(7),
            incarnation: 1,
            name: "a".into(),
            host: "127.0.0.1".into(),
            port: 1,
            cluster_port: 0,
            peer_port: 2,
            zone: "z".into(),
            weight: 1,
            features: FEATURES,
            state: MemberState::Up,
            decision: 0,
        };
        let cluster = Some(ClusterId(9));
        Hello { version: VERSION, cluster_name: "c".into(), cluster, member, nonce: [3; NONCE_BYTES] }
    }

    fn membership() -> Membership {
        let member = hello().member;
        let partitions = crate::ring::Partitions::new(16).unwrap();
        Membership {
            cluster: ClusterId(9),
            key: [1; 32],
            partitions,
            replicas: 3,
            members: [(member.id, member)].into(),
        }
    }

    #[test]
    fn steps_survive_their_encoding() {
        for step in [
            Step::Hello(hello()),
            Step::Challenge { nonce: [1; 16], proof: [2; 32] },
            Step::Proof([5; 32]),
            Step::Refused("no".into()),
            Step::Dismissed("gone".into()),
            Step::Welcome { membership: membership(), former: None },
            Step::Welcome { membership: membership(), former: Some(0) },
        ] {
            let mut out = BytesMut::new();
            step.put(&mut out);
            assert_eq!(Step::read(out.freeze()), Ok(step));
        }
    }

    #[test]
    fn a_proof_holds_for_one_side_one_nonce_one_hello_and_one_secret() {
        let (ours, theirs) = (LinkSecret::derive(b"s"), LinkSecret::derive(b"t"));
        let proof = ours.proof(Side::Dialler, &hello(), &[1; 16]);
        assert!(ours.accepts(&proof, Side::Dialler, &hello(), &[1; 16]));
        assert!(!ours.accepts(&proof, Side::Acceptor, &hello(), &[1; 16]));
        assert!(!ours.accepts(&proof, Side::Dialler, &hello(), &[2; 16]));
        assert!(!ours.accepts(&proof, Side::Dialler, &Hello { version: VERSION + 1, ..hello() }, &[1; 16]));
        assert!(!theirs.accepts(&proof, Side::Dialler, &hello(), &[1; 16]));
    }

    #[test]
    fn strangers_are_told_why() {
        assert_eq!(hello().objection("c", ClusterId(9)), None);
        assert!(hello().objection("d", ClusterId(9)).is_some());
        assert!(hello().objection("c", ClusterId(8)).is_some());
        assert!(Hello { version: 9, ..hello() }.objection("c", ClusterId(9)).is_some());
    }
}
