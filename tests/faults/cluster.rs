//! Nodes that know each other, on a network that can break.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::net::{Net, PEER_PORT, ip};
use super::node::Node;
use super::place::{coordinator, holdings};
use super::wire::{Value, Wire, request};

/// How long after the last fault one waits for a cluster to be whole, and its owners to be equal: three times what is
/// promised, for machines that do much else. How long it took is told.
pub const HEALED_WITHIN: Duration = Duration::from_secs(180);

/// In which only owners count, and keys behave as on one Redis.
pub const STRICT_DATABASE: &str = "1";

/// How long one answer may take when nothing is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Nodes and their network.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub net: Net,
}

/// What a read of a key says: its live values, and the one that a plain read shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    pub value: Option<Bytes>,
    pub siblings: BTreeSet<Bytes>,
}

impl Cluster {
    /// As many nodes, serving, whole; the first `small_disks` of them can be filled up.
    pub fn of(count: usize, small_disks: usize, dir: &Path, words: &[&str]) -> Cluster {
        let net = Net::new(count);
        let node = |number| Node::new(number, dir, net.namespace(number), number < small_disks, words);
        let mut nodes: Vec<Node> = (0..count).map(node).collect();
        let joins = |number| ["--join".to_owned(), format!("{}:{PEER_PORT}", ip(number))];
        for node in &mut nodes {
            if node.number > 0 {
                node.words.extend(joins(0));
            }
            node.start();
            // One after the other: the first makes the cluster.
            let began = Instant::now();
            while node.wire(PATIENCE).and_then(|mut wire| wire.try_call(&["PING"])).is_err() {
                assert!(began.elapsed() < HEALED_WITHIN, "{} does not answer:\n{}", node.name, node.log());
                sleep(Duration::from_millis(20));
            }
        }
        // From now on whoever returns may find any of the others.
        for node in &mut nodes {
            let others = (0..count).filter(|other| *other != node.number && (node.number == 0 || *other > 0));
            node.words.extend(others.flat_map(joins));
        }
        let cluster = Cluster { nodes, net };
        cluster.wait_until_whole().unwrap_or_else(|why| panic!("{why}"));
        cluster
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Waits until every node sees all nodes alive, and all agree on who coordinates what and that everyone takes part.
    pub fn wait_until_whole(&self) -> Result<Duration, String> {
        let began = Instant::now();
        loop {
            match self.is_whole() {
                Ok(()) => return Ok(began.elapsed()),
                Err(why) if began.elapsed() > HEALED_WITHIN => return Err(format!("does not become whole: {why}")),
                Err(_) => sleep(Duration::from_millis(100)),
            }
        }
    }

    fn is_whole(&self) -> Result<(), String> {
        let asked: Vec<Vec<u8>> = (0..60).map(|key| request(&["DYNAMO.WHERE", &format!("probe:{key}")])).collect();
        let mut opinions = BTreeSet::new();
        for node in &self.nodes {
            let mut wire = node.wire(PATIENCE).map_err(|error| format!("{}: {error}", node.name))?;
            let places = ask(&mut wire, &asked).map_err(|error| format!("{}: {error}", node.name))?;
            let opinion = places.iter().map(coordinator).collect::<Result<Vec<_>, _>>();
            opinions.insert(opinion.map_err(|why| format!("{}: {why}", node.name))?);
        }
        let everyone: BTreeSet<&String> = opinions.iter().flatten().collect();
        let whole = opinions.len() == 1 && everyone.len() == self.nodes.len();
        if whole { Ok(()) } else { Err(format!("{} opinions, {everyone:?} coordinate", opinions.len())) }
    }

    /// Waits until all owners of every key hold the very same versions.
    pub fn wait_until_equal(&self, mut keys: Vec<Bytes>) -> Result<Duration, String> {
        let began = Instant::now();
        let mut turn = 0;
        loop {
            turn += 1;
            let differing = self.differing(turn % self.nodes.len(), &keys);
            let Some((_, why)) = differing.first() else { return Ok(began.elapsed()) };
            if began.elapsed() > HEALED_WITHIN {
                return Err(format!(
                    "{} keys differ between their owners after {:?}: {why}",
                    differing.len(),
                    began.elapsed()
                ));
            }
            keys = differing.into_iter().map(|(key, _)| key).collect();
            sleep(Duration::from_millis(200));
        }
    }

    /// Keys whose owners do not all hold the very same versions, and what they hold, as one node learns from them.
    pub fn differing(&self, node: usize, keys: &[Bytes]) -> Vec<(Bytes, String)> {
        match self.ask_about(node, "DYNAMO.WHERE", keys) {
            Ok(places) => {
                let all = keys.iter().zip(&places);
                all.filter_map(|(key, place)| Some((key.clone(), difference(key, place)?))).collect()
            }
            Err(error) => keys.iter().map(|key| (key.clone(), error.clone())).collect(),
        }
    }

    /// What keys hold, as one node answers.
    pub fn read(&self, node: usize, keys: &[Bytes]) -> Result<BTreeMap<Bytes, Held>, String> {
        let answers = self.ask_about(node, "DYNAMO.GET", keys)?;
        keys.iter().zip(answers).map(|(key, answer)| Ok((key.clone(), held(&answer)?.1))).collect()
    }

    /// A node's answers about keys, of whichever database they are.
    fn ask_about(&self, node: usize, command: &str, keys: &[Bytes]) -> Result<Vec<Value>, String> {
        let node = &self.nodes[node];
        let mut answers = vec![Value::Nil; keys.len()];
        for strict in [false, true] {
            let chosen: Vec<usize> = (0..keys.len()).filter(|at| is_strict(&keys[*at]) == strict).collect();
            let asked: Vec<Vec<u8>> =
                chosen.iter().map(|at| request(&[command.as_bytes(), keys[*at].as_ref()])).collect();
            let database = if strict { STRICT_DATABASE } else { "0" };
            let told = node.wire(PATIENCE).and_then(|mut wire| {
                wire.try_call(&["SELECT", database])?;
                ask(&mut wire, &asked)
            });
            let told = told.map_err(|error| format!("{}: {error}", node.name))?;
            chosen.into_iter().zip(told).for_each(|(at, answer)| answers[at] = answer);
        }
        Ok(answers)
    }
}

/// Whether a key is one of the strict database.
fn is_strict(key: &Bytes) -> bool {
    matches!(key.first(), Some(b'd' | b'l'))
}

/// A context and what it names, of an answer to DYNAMO.GET.
pub fn held(answer: &Value) -> Result<(Bytes, Held), String> {
    let Value::Many(_) = answer else { return Err(format!("an answer to DYNAMO.GET: {answer:?}")) };
    let bytes = |value: &Value| Bytes::from(value.text().into_bytes());
    let value = Some(answer.field("value")).filter(|value| **value != Value::Nil).map(bytes);
    let siblings = answer.field("siblings").items().iter().map(|sibling| bytes(sibling.field("value"))).collect();
    Ok((bytes(answer.field("context")), Held { value, siblings }))
}

/// Many commands, a few at a time.
fn ask(wire: &mut Wire, requests: &[Vec<u8>]) -> std::io::Result<Vec<Value>> {
    let mut answers = Vec::new();
    for some in requests.chunks(100) {
        wire.send(&some.concat())?;
        for _ in some {
            answers.push(wire.read()?);
        }
    }
    Ok(answers)
}

fn difference(key: &Bytes, place: &Value) -> Option<String> {
    let Value::Many(_) = place else { return Some(format!("{key:?}: {place:?}")) };
    let held = holdings(place);
    let equal = held.iter().all(|dots| dots.is_some() && *dots == held[0]);
    (!equal).then(|| format!("{key:?}: {held:?}"))
}
