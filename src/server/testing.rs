//! What tests of this room share: a node alone, in memory, without a disk and without peers.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, ready};
use tokio::sync::Notify;

use super::Server;
use super::rename::Renames;
use crate::base::id::{ActorId, ClusterId, NodeId};
use crate::causality::context::{ContextKey, Sealer};
use crate::cluster::{FEATURES, Member, MemberState, Membership};
use crate::commands::Session;
use crate::config::Sources;
use crate::env::{CallError, Env};
use crate::node::{CurrentNode, Node, NodeOptions};
use crate::peer::{Request, Response};
use crate::replica::{Options, Replica};
use crate::replication::Started;
use crate::resp::Reply;
use crate::ring::Partitions;
use crate::storage::{MemoryStore, SyncPolicy};

/// A world with nobody else in it.
struct Nowhere;

impl Env for Nowhere {
    fn now_ms(&self) -> u64 {
        super::system::wall().as_millis() as u64
    }

    fn random(&self) -> u64 {
        4
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        tokio::task::spawn_blocking(work).map(|_| ()).boxed()
    }

    fn call(&self, _: NodeId, _: &Request) -> BoxFuture<'static, Result<Response, CallError>> {
        ready(Err(CallError::NotSent)).boxed()
    }
}

/// A server with the settings of `config`, and the store below it.
pub fn server_and_store(config: &str) -> (Arc<Server>, Arc<MemoryStore>) {
    server_among(1, config)
}

/// A server of one node of a cluster of `members`, of which no other can be reached.
pub fn server_among(members: u64, config: &str) -> (Arc<Server>, Arc<MemoryStore>) {
    let settings = Sources { stdin: Some(config.to_owned()), ..Sources::default() }.load().unwrap();
    let store = Arc::new(MemoryStore::new());
    let partitions = Partitions::new(16).unwrap();
    let options = Options {
        databases: 16,
        partitions,
        cache_bytes: 1 << 20,
        sealer: Sealer { cluster: ClusterId(7), key: ContextKey::derive(b"secret") },
        hash_seed: 1,
        fresh_actor: ActorId(9),
        returning: false,
        max_skew_ms: 500,
        sync: SyncPolicy::EverySec,
    };
    let replica = Arc::new(Replica::open(store.clone(), options).unwrap());
    let member = |id: u64| Member {
        id: NodeId(id),
        incarnation: 1,
        name: format!("node-{id}"),
        host: "127.0.0.1".into(),
        port: 6379,
        cluster_port: 7000,
        peer_port: 16379,
        zone: "here".into(),
        weight: 1,
        features: FEATURES,
        state: MemberState::Up,
        decision: 0,
    };
    let members: BTreeMap<NodeId, Member> = (1..=members).map(|id| (NodeId(id), member(id))).collect();
    let membership = Membership { cluster: ClusterId(7), key: [1; 32], partitions, replicas: 3, members };
    let node = Node::new(Arc::new(Nowhere), replica, membership, NodeId(1), NodeOptions::default());
    let renames = Renames::of(settings.renamed_commands()).unwrap();
    (Server::new(CurrentNode::new(node), Arc::new(settings), Arc::new(Notify::new()), renames), store)
}

/// A server with the default settings.
pub fn server() -> Arc<Server> {
    server_and_store("").0
}

/// Runs a command that this node can evaluate, as a connection would: started, counted, not waited for.
pub fn run(server: &Arc<Server>, command: &str) -> Reply {
    let mut args: crate::resp::Arguments =
        command.split(' ').map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect();
    let mut session = Session::new(1, "127.0.0.1:5".into(), String::new(), true);
    let called = server.lookup(&mut args);
    let (started, spec) = server.start(&server.node(), &mut session, called, args, None);
    let reply = match started {
        Started::Done(finished) | Started::Committed(finished, _) => finished.reply,
        Started::Later(_) => panic!("{command} needs others"),
    };
    if let Some(spec) = spec {
        server.stats.ran(spec, std::time::Duration::from_micros(60), reply.is_error());
        server.stats.looked_up(spec, &reply);
    }
    if let Reply::Error(text) = &reply {
        server.stats.error(text);
    }
    reply
}
