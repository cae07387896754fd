//! From a request to whoever runs it: the command is found, the session may refuse it, and what needs keys goes to the
//! coordinator.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::Server;
use crate::commands::errors::{NO_AUTH, wrong_arity};
use crate::commands::session::{Face, Quorum};
use crate::commands::spec::{ClusterCall, Flags, Run};
use crate::commands::transactions::aborted;
use crate::commands::{Call, CommandError, Session, Spec, resolve};
use crate::node::Node;
use crate::replication::sweep::Scope;
use crate::replication::{Finished, Started, Task};
use crate::resp::{Arguments, Reply};

/// The last write of a connection: where, and its dot.
pub type Wrote = Option<(crate::base::id::Region, crate::causality::Dot)>;

/// Keys that a command touches, as hashes: two commands with one in common must not overtake each other.
pub type Touched = SmallVec<[u64; 2]>;

impl Server {
    /// The command or subcommand that a client calls, however many arguments there are; its names become the known ones.
    pub fn lookup(&self, args: &mut Arguments) -> Result<&'static Spec, CommandError> {
        match &self.renames {
            None => crate::commands::lookup(args),
            Some(renames) => renames.lookup(args),
        }
    }

    /// Starts a request at `node`, of which [`Server::lookup`] said what it calls. With it the command, if it can be
    /// called so.
    pub fn start(
        self: &Arc<Self>,
        node: &Arc<Node>,
        session: &mut Session,
        called: Result<&'static Spec, CommandError>,
        args: Arguments,
        wrote: Wrote,
    ) -> (Started, Option<&'static Spec>) {
        let spec = match called {
            Ok(spec) if spec.allows(args.len()) => spec,
            Ok(spec) => {
                self.stats.rejected(spec);
                let error = wrong_arity(&spec.full_name());
                let error = if spec.name == "EXEC" { aborted(error) } else { error };
                return (uncallable(session, error), None);
            }
            Err(error) => {
                self.stats.unknown_commands.add(1);
                return (uncallable(session, error), None);
            }
        };
        if let Err(error) = session.admits(spec) {
            self.stats.rejected(spec);
            return (done(error.into_reply()), Some(spec));
        }
        (self.start_admitted(node, session, spec, args, session.quorum, wrote), Some(spec))
    }

    fn start_admitted(
        self: &Arc<Self>,
        node: &Arc<Node>,
        session: &mut Session,
        spec: &'static Spec,
        args: Arguments,
        quorum: Quorum,
        wrote: Wrote,
    ) -> Started {
        let call = Call { spec, args: &args };
        match spec.run {
            Run::Read(_) | Run::Write(_) => {
                node.coordinator.start(Task { spec, args, db: session.db, quorum, hops: 0 })
            }
            Run::Session(run) => done(run(&call, session, &**self).unwrap_or_else(CommandError::into_reply)),
            Run::Node(run) => done(run(&call, session, &**self).unwrap_or_else(CommandError::into_reply)),
            Run::Cluster(run) => match run(&call, session) {
                Ok(ClusterCall::Watch(keys)) => start_watch(node, session, keys),
                Ok(asked) => {
                    let coordinator = node.coordinator.clone();
                    let task = Task { spec, args, db: session.db, quorum, hops: 0 };
                    let writes = spec.flags.has(Flags::WRITE);
                    let host = coordinator.clone();
                    let scope = match session.face {
                        Face::Plain => Scope::Everywhere,
                        Face::Cluster => Scope::OwnSlots,
                    };
                    let sweeping = async move { coordinator.sweep_in(scope, asked, task, wrote).await };
                    Started::Later(if writes { host.detached(sweeping) } else { Box::pin(sweeping) })
                }
                Err(error) => done(error.into_reply()),
            },
            Run::Prefix(run) => match run(&call) {
                Ok((quorum, at)) => self.start_prefixed(node, session, args, quorum, at, wrote),
                Err(error) => done(error.into_reply()),
            },
            Run::Container => {
                done(Reply::error(format!("ERR wrong number of arguments for '{}' command", spec.full_name())))
            }
        }
    }

    /// The command behind a prefix that gave a quorum.
    fn start_prefixed(
        self: &Arc<Self>,
        node: &Arc<Node>,
        session: &mut Session,
        args: Arguments,
        quorum: Quorum,
        at: usize,
        wrote: Wrote,
    ) -> Started {
        let inner: Arguments = args.iter().skip(at).cloned().collect();
        match resolve(&inner) {
            Ok(spec) if matches!(spec.run, Run::Prefix(_)) => {
                done(Reply::error("ERR a prefix may not follow a prefix"))
            }
            Ok(spec) => self.start_admitted(node, session, spec, inner, quorum.or(session.quorum), wrote),
            Err(error) => done(error.into_reply()),
        }
    }
}

/// Looks at keys, and keeps what is seen with the session.
fn start_watch(node: &Arc<Node>, session: &mut Session, keys: Vec<Bytes>) -> Started {
    let (coordinator, db, quorum) = (node.coordinator.clone(), session.db, session.quorum);
    let watched = session.watched.get_or_insert_default().clone();
    Started::Later(Box::pin(async move {
        let unseen = |key: &Bytes| !watched.lock().iter().any(|known| known.db == db && known.key == key);
        let keys: Vec<Bytes> = keys.into_iter().filter(unseen).collect();
        match coordinator.seen(db, quorum, &keys).await {
            Ok(seen) => {
                watched.lock().extend(seen);
                Reply::ok().into()
            }
            Err(failed) => failed,
        }
    }))
}

/// Redis answers NOAUTH before it says that a command does not exist or has too few arguments.
fn uncallable(session: &Session, error: CommandError) -> Started {
    match session.authenticated {
        true => done(error.into_reply()),
        false => done(Reply::error(NO_AUTH)),
    }
}

/// Hashes of the keys a command touches; none says that it may touch anything.
pub fn touched(spec: &Spec, args: &Arguments) -> Option<Touched> {
    if !spec.flags.has(Flags::READONLY) && !spec.flags.has(Flags::WRITE) {
        return None;
    }
    let positions = spec.keys.positions(args);
    if positions.is_empty() {
        return None;
    }
    Some(positions.into_iter().filter_map(|at| args.get(at)).map(|key| xxhash_rust::xxh3::xxh3_64(key)).collect())
}

fn done(reply: Reply) -> Started {
    Started::Done(Finished::reply(reply))
}
