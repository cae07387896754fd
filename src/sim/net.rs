//! The network: real frames on links that delay, lose, repeat, hold back and cut.
//!
//! Like TCP it keeps the order of a link, unless the weather says otherwise, and tells a caller in the end that no answer
//! will come. Commands that are not idempotent (forwarded ones, clears) are never delivered twice: no connection does that,
//! and nodes rely on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::{BoxFuture, FutureExt, ready};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::config::Weather;
use super::env::SimEnv;
use super::oracle::Oracle;
use super::plant::Plant;
use crate::base::id::NodeId;
use crate::base::rng::Rng;
use crate::env::{CallError, Env};
use crate::node::Node;
use crate::peer::frame::{put_frame, take_frame};
use crate::peer::{Request, Response};

/// What happens to what is sent over a cut link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// No connection can be made: nothing leaves.
    Refuse,
    /// It is lost on the way.
    Swallow,
    /// It arrives when the cut has healed.
    Stall,
}

/// A node and which of its lives.
pub type Life = (NodeId, u64);

/// An answer, as its caller gets it.
type Answered = Result<Response, CallError>;

/// See the module.
pub struct Net {
    /// Who sees all.
    pub oracle: Arc<Mutex<Oracle>>,
    plant: Option<Plant>,
    began: Instant,
    state: Mutex<State>,
    rung: Notify,
    /// Bytes of all frames that were delivered.
    delivered: AtomicU64,
}

struct State {
    rng: Rng,
    weather: Weather,
    hosts: BTreeMap<NodeId, Host>,
    links: BTreeMap<(NodeId, NodeId), Link>,
    calls: BTreeMap<u64, Call>,
    last_call: u64,
    /// By time, then in the order in which they were sent.
    events: BTreeMap<(Instant, u64), Event>,
    last_event: u64,
}

/// A node as the network knows it.
#[derive(Default)]
struct Host {
    life: u64,
    up: Option<(Arc<Node>, Arc<SimEnv>)>,
    /// While it is paused: what waits for it.
    paused: Option<Vec<Event>>,
}

#[derive(Default)]
struct Link {
    /// Nothing sent later arrives before it.
    last: Option<Instant>,
    /// By number; the latest counts.
    cuts: BTreeMap<u64, Cut>,
    stalled: Vec<Event>,
}

struct Call {
    from: Life,
    to: Life,
    /// What is asked; only where a bug is planted that wants to know.
    asked: Option<Request>,
    answer: oneshot::Sender<Answered>,
}

enum Event {
    Request { call: u64, from: Life, to: Life, wire: BytesMut },
    Response { call: u64, from: Life, to: Life, wire: BytesMut },
    Failure { call: u64, error: CallError },
}

impl Net {
    /// A network without nodes.
    pub fn new(oracle: Arc<Mutex<Oracle>>, rng: Rng, weather: Weather, plant: Option<Plant>) -> Arc<Net> {
        let state = State {
            rng,
            weather,
            hosts: BTreeMap::new(),
            links: BTreeMap::new(),
            calls: BTreeMap::new(),
            last_call: 0,
            events: BTreeMap::new(),
            last_event: 0,
        };
        Arc::new(Net {
            oracle,
            plant,
            began: Instant::now(),
            state: Mutex::new(state),
            rung: Notify::new(),
            delivered: AtomicU64::new(0),
        })
    }

    /// Bytes that were delivered since the run began, of all frames together.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Milliseconds since the run began.
    pub fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Delivers messages for ever.
    pub async fn run(self: Arc<Self>) {
        loop {
            let next = self.state.lock().events.first_key_value().map(|((at, _), _)| *at);
            match next {
                Some(at) if at <= Instant::now() => self.deliver_next(),
                Some(at) => drop(timeout_at(at, self.rung.notified()).await),
                None => self.rung.notified().await,
            }
        }
    }

    /// A node begins life number `life`.
    pub fn up(&self, (id, life): Life, node: Arc<Node>, env: Arc<SimEnv>) {
        let mut state = self.state.lock();
        let host = state.hosts.entry(id).or_default();
        (host.life, host.up) = (life, Some((node, env)));
    }

    /// A node ends: what it was asked is never answered, what it asked is never heard.
    pub fn down(&self, id: NodeId) {
        let mut state = self.state.lock();
        if let Some(host) = state.hosts.get_mut(&id) {
            (host.up, host.paused) = (None, None);
        }
        state.calls.retain(|_, call| call.from.0 != id);
        let asked: Vec<u64> = state.calls.iter().filter(|(_, call)| call.to.0 == id).map(|(id, _)| *id).collect();
        asked.into_iter().for_each(|call| state.fail(call, 1, 20));
        drop(state);
        self.rung.notify_one();
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    /// Cuts the way from one node to another: cut `number`.
    pub fn add_cut(&self, number: u64, from: NodeId, to: NodeId, cut: Cut) {
        self.state.lock().links.entry((from, to)).or_default().cuts.insert(number, cut);
    }

    /// Heals cut `number` of that way; what waited goes on when no other is left.
    pub fn heal_cut(&self, number: u64, from: NodeId, to: NodeId) {
        let mut state = self.state.lock();
        let link = state.links.entry((from, to)).or_default();
        link.cuts.remove(&number);
        let stalled = if link.cuts.is_empty() { std::mem::take(&mut link.stalled) } else { Vec::new() };
        for event in stalled {
            let at = state.arrival(from, to);
            state.push(at, event);
        }
        drop(state);
        self.rung.notify_one();
    }

    /// Heals all cuts.
    pub fn heal_all(&self) {
        let cut = |state: &State| -> Vec<_> {
            let cuts = |(ends, link): (&(NodeId, NodeId), &Link)| {
                link.cuts.keys().map(|number| (*number, *ends)).collect::<Vec<_>>()
            };
            state.links.iter().flat_map(cuts).collect()
        };
        let cut = cut(&self.state.lock());
        cut.into_iter().for_each(|(number, (from, to))| self.heal_cut(number, from, to));
    }

    /// Breaks the connections between two nodes: what is under way may or may not have arrived.
    pub fn break_link(&self, a: NodeId, b: NodeId) {
        let mut state = self.state.lock();
        let ends = |call: &Call| [(a, b), (b, a)].contains(&(call.from.0, call.to.0));
        let broken: Vec<u64> = state.calls.iter().filter(|(_, call)| ends(call)).map(|(id, _)| *id).collect();
        broken.into_iter().for_each(|call| state.fail(call, 1, 5));
        drop(state);
        self.rung.notify_one();
    }

    /// Holds all that comes to and leaves a node, or lets go of it.
    pub fn set_paused(&self, id: NodeId, paused: bool) {
        let mut state = self.state.lock();
        let Some(host) = state.hosts.get_mut(&id) else { return };
        let held = match paused {
            true => {
                host.paused.get_or_insert_default();
                Vec::new()
            }
            false => host.paused.take().unwrap_or_default(),
        };
        for event in held {
            state.push(Instant::now(), event);
        }
        drop(state);
        self.rung.notify_one();
    }

    /// Sends a request: see [`Env::call`].
    pub fn call(&self, from: Life, to: NodeId, request: &Request) -> BoxFuture<'static, Answered> {
        let mut state = self.state.lock();
        let Some(to_life) = state.both_up(from, to) else { return ready(Err(CallError::NotSent)).boxed() };
        let sender = state.hosts.get(&from.0).and_then(|host| host.up.as_ref());
        if let (Request::Apply { delta, .. } | Request::Keep { delta, .. }, Some((node, _))) = (request, sender) {
            self.oracle.lock().sees_delta(self.now_ms(), node.replica().actor(), delta);
        }
        let (answer, answered) = oneshot::channel();
        let (to, asked) = ((to, to_life), self.plant.map(|_| request.clone()));
        let call = state.open(Call { from, to, asked, answer });
        let mut wire = BytesMut::new();
        put_frame(&mut wire, call, |out| request.put(out));
        if self.repeats(&mut state, request) {
            state.send(Event::Request { call, from, to, wire: wire.clone() }, true);
        }
        state.send(Event::Request { call, from, to, wire }, false);
        if self.plant.is_some_and(|plant| plant.is_impatient(request)) {
            state.fail(call, 40, 80);
        }
        drop(state);
        self.rung.notify_one();
        async move { answered.await.unwrap_or(Err(CallError::NoAnswer)) }.boxed()
    }

    fn deliver_next(self: &Arc<Self>) {
        let event = {
            let mut state = self.state.lock();
            let Some((_, event)) = state.events.pop_first() else { return };
            match state.held(event) {
                Some(event) => event,
                None => return,
            }
        };
        match event {
            Event::Request { call, from, to, wire } => self.deliver_request(call, from, to, wire),
            Event::Response { call, from, to, wire } => self.deliver_response(call, from, to, wire),
            Event::Failure { call, error } => self.finish(call, Err(error)),
        }
    }

    fn deliver_request(self: &Arc<Self>, call: u64, from: Life, to: Life, mut wire: BytesMut) {
        self.trace("request", from, to, &wire);
        let Some((node, env)) = self.alive(to) else { return self.finish(call, Err(CallError::NoAnswer)) };
        let decoded = take_frame(&mut wire).ok().flatten().map(|frame| Request::read(frame.body));
        let Some(Ok(mut request)) = decoded else {
            return self.oracle.lock().violate("a request did not survive its encoding".into());
        };
        if let Some(plant) = self.plant {
            plant.on_request(&mut request);
        }
        let planted = self.plant.and_then(|plant| plant.answer(&node, &request, self.below(100)));
        let answer = planted.map_or_else(|| node.answer(from.0, request), |response| ready(response).boxed());
        let net = self.clone();
        env.spawn(Box::pin(async move {
            let response = answer.await;
            net.respond(call, to, from, response);
        }));
    }

    fn respond(&self, call: u64, from: Life, to: Life, response: Response) {
        let mut wire = BytesMut::new();
        put_frame(&mut wire, call, |out| response.put(out));
        self.state.lock().send(Event::Response { call, from, to, wire }, false);
        self.rung.notify_one();
    }

    fn deliver_response(&self, call: u64, from: Life, to: Life, mut wire: BytesMut) {
        self.trace("response", from, to, &wire);
        let Some((node, _)) = self.alive(to) else { return };
        let Some(asked) = self.state.lock().calls.get(&call).map(|call| call.asked.clone()) else { return };
        let decoded = take_frame(&mut wire).ok().flatten().map(|frame| Response::read(frame.body));
        let Some(Ok(mut response)) = decoded else {
            return self.oracle.lock().violate("a response did not survive its encoding".into());
        };
        if let (Some(plant), Some(asked)) = (self.plant, asked) {
            let answerer = self.alive(from).map(|(node, _)| node);
            plant.on_response(&asked, &node, answerer.as_ref(), &mut response);
            self.answer_others(plant, to, &asked, &response);
        }
        self.finish(call, Ok(response));
    }

    /// Lets a response count for other calls of the same node as well, if that is the bug.
    fn answer_others(&self, plant: Plant, asker: Life, asked: &Request, response: &Response) {
        let state = self.state.lock();
        let other = |call: &Call| call.from == asker && call.asked.as_ref().is_some_and(|it| plant.confuses(asked, it));
        let others: Vec<u64> = state.calls.iter().filter(|(_, call)| other(call)).map(|(call, _)| *call).collect();
        drop(state);
        if matches!(response, Response::Done) {
            others.into_iter().for_each(|call| self.finish(call, Ok(Response::Done)));
        }
    }

    fn finish(&self, call: u64, answered: Answered) {
        let Some(Call { asked, answer, .. }) = self.state.lock().calls.remove(&call) else { return };
        let answered = match (self.plant, answered, asked) {
            (Some(plant), Err(CallError::NoAnswer), Some(asked)) => plant.silence(&asked),
            (_, answered, _) => answered,
        };
        // Who does not wait any more is not told.
        let _ = answer.send(answered);
    }

    /// Whether a request is delivered twice.
    fn repeats(&self, state: &mut State, request: &Request) -> bool {
        let chance = match request {
            Request::Execute { .. } | Request::Clear(_) if self.plant == Some(Plant::ForwardedTwice) => 0.05,
            Request::Execute { .. } | Request::Clear(_) => 0.0,
            _ => state.weather.duplication,
        };
        state.rng.chance(chance)
    }

    fn alive(&self, (id, life): Life) -> Option<(Arc<Node>, Arc<SimEnv>)> {
        let state = self.state.lock();
        state.hosts.get(&id).filter(|host| host.life == life).and_then(|host| host.up.clone())
    }

    /// Chance, for bugs: where none is planted nothing is drawn.
    fn below(&self, bound: u64) -> u64 {
        self.state.lock().rng.below(bound)
    }

    fn trace(&self, what: &str, from: Life, to: Life, wire: &[u8]) {
        self.delivered.fetch_add(wire.len() as u64, Ordering::Relaxed);
        let mut event = what.as_bytes().to_vec();
        event.extend_from_slice(&from.0.0.to_be_bytes());
        event.extend_from_slice(&to.0.0.to_be_bytes());
        event.extend_from_slice(wire);
        self.oracle.lock().trace(self.now_ms(), &event);
    }
}

impl State {
    /// The life of `to`, if both ends are up.
    fn both_up(&self, from: Life, to: NodeId) -> Option<u64> {
        let from_up = self.hosts.get(&from.0).is_some_and(|host| host.up.is_some() && host.life == from.1);
        self.hosts.get(&to).filter(|host| from_up && host.up.is_some()).map(|host| host.life)
    }

    fn open(&mut self, call: Call) -> u64 {
        self.last_call += 1;
        self.calls.insert(self.last_call, call);
        self.last_call
    }

    /// Puts an event on its way. A `copy` that is lost is no failure.
    fn send(&mut self, event: Event, copy: bool) {
        let Some((call, from, to)) = event.ends() else { return };
        if let Some(held) = self.hosts.get_mut(&from).and_then(|host| host.paused.as_mut()) {
            return held.push(event);
        }
        let link = self.links.entry((from, to)).or_default();
        match link.cuts.values().next_back().copied() {
            Some(Cut::Stall) => link.stalled.push(event),
            Some(Cut::Refuse) if matches!(event, Event::Request { .. }) && !copy => {
                self.fail_with(call, CallError::NotSent, 1, 50);
            }
            Some(_) if !copy => self.fail(call, 20, 1_000),
            Some(_) => {}
            None if self.rng.chance(self.weather.loss) => {
                if !copy {
                    self.fail(call, 20, 600);
                }
            }
            None => {
                let at = self.arrival(from, to);
                self.push(at, event);
            }
        }
    }

    /// When something sent now arrives.
    fn arrival(&mut self, from: NodeId, to: NodeId) -> Instant {
        let Weather { reordering, delay_ms, .. } = self.weather;
        let at = Instant::now() + Duration::from_millis(1 + self.rng.below(delay_ms.max(1)));
        let link = self.links.entry((from, to)).or_default();
        if self.rng.chance(reordering) {
            return at + Duration::from_millis(self.rng.below(200));
        }
        let at = link.last.map_or(at, |last| at.max(last));
        link.last = Some(at);
        at
    }

    fn fail(&mut self, call: u64, least_ms: u64, most_ms: u64) {
        self.fail_with(call, CallError::NoAnswer, least_ms, most_ms);
    }

    fn fail_with(&mut self, call: u64, error: CallError, least_ms: u64, most_ms: u64) {
        let at = Instant::now() + Duration::from_millis(least_ms + self.rng.below(most_ms - least_ms));
        self.push(at, Event::Failure { call, error });
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.last_event += 1;
        self.events.insert((at, self.last_event), event);
    }

    /// The event, unless it must wait for a paused node.
    fn held(&mut self, event: Event) -> Option<Event> {
        let to = event.ends().map(|(.., to)| to);
        match to.and_then(|to| self.hosts.get_mut(&to)).and_then(|host| host.paused.as_mut()) {
            Some(held) => {
                held.push(event);
                None
            }
            None => Some(event),
        }
    }
}

impl Event {
    /// Call, sender and receiver.
    fn ends(&self) -> Option<(u64, NodeId, NodeId)> {
        match self {
            Event::Request { call, from, to, .. } | Event::Response { call, from, to, .. } => {
                Some((*call, from.0, to.0))
            }
            Event::Failure { .. } => None,
        }
    }
}
