//! A client as a library would be: one connection at a time, to its own node while that answers, else to another; tries
//! again what was certainly not done, and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use redynamo::base::rng::Rng;
use redynamo::sim::history::Outcome;

use super::logbook::Logbook;
use super::wire::{Value, Wire};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often what was not done is tried again, and after how long at first.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(50);
/// Connections that are tried before a command counts as not sent.
const DOORS: usize = 8;

/// What came of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Answer(Value),
    NotDone(String),
    Unknown(String),
}

impl Told {
    pub fn outcome(&self) -> Outcome {
        match self {
            Told::Answer(_) => Outcome::Done,
            Told::NotDone(_) => Outcome::NotDone,
            Told::Unknown(_) => Outcome::Unknown,
        }
    }

    /// What an error says of what was done; none of one that does not say.
    fn of_error(text: String) -> Option<Told> {
        let word = text.split(' ').next().unwrap_or_default();
        match word {
            _ if text.contains(" not done: ") => Some(Told::NotDone(text)),
            "BUSY" | "OOM" | "LOADING" => Some(Told::NotDone(text)),
            "UNKNOWN" => Some(Told::Unknown(text)),
            _ => None,
        }
    }
}

/// A client and where it is.
pub struct Client {
    pub number: usize,
    pub rng: Rng,
    pub book: Arc<Logbook>,
    addresses: Vec<SocketAddr>,
    home: usize,
    at: usize,
    /// Whom it asked last.
    tried: usize,
    /// Sent first over every connection.
    greeting: Option<Vec<String>>,
    wire: Option<Wire>,
    /// Does not try again and does not leave its node.
    stubborn: bool,
}

impl Client {
    /// A client whose own node is that of its number.
    pub fn new(number: usize, addresses: &[SocketAddr], rng: Rng, book: &Arc<Logbook>) -> Client {
        let home = number % addresses.len();
        let (addresses, book) = (addresses.to_vec(), book.clone());
        Client {
            number,
            rng,
            book,
            addresses,
            home,
            at: home,
            tried: home,
            greeting: None,
            wire: None,
            stubborn: false,
        }
    }

    /// Stays with its node, and tries once.
    pub fn stubborn(mut self) -> Client {
        self.stubborn = true;
        self
    }

    /// Says this first over every connection.
    pub fn greeting(mut self, words: &[&str]) -> Client {
        self.greeting = Some(words.iter().map(|word| (*word).to_owned()).collect());
        self
    }

    /// A command, counted as one of `kind`.
    pub fn send<A: AsRef<[u8]>>(&mut self, kind: &'static str, args: &[A]) -> Told {
        let began = Instant::now();
        let mut told = self.try_once(args);
        for attempt in 1..TRIES {
            if self.stubborn || !matches!(told, Told::NotDone(_)) {
                break;
            }
            sleep(PAUSE * 2u32.pow(attempt - 1));
            told = self.try_once(args);
        }
        self.book.count(kind, self.tried, began, told.outcome());
        self.write_down(kind, began, args, &told);
        told
    }

    fn write_down<A: AsRef<[u8]>>(&self, kind: &str, began: Instant, args: &[A], told: &Told) {
        let shown: Vec<String> = args.iter().map(|arg| end_of(&String::from_utf8_lossy(arg.as_ref()))).collect();
        let told = match told {
            Told::Answer(Value::Text(text)) => end_of(&String::from_utf8_lossy(text)),
            Told::Answer(Value::Many(_)) => "many".to_owned(),
            other => format!("{other:?}"),
        };
        let (client, node, took) = (self.number, self.tried + 1, began.elapsed().as_millis());
        self.book
            .line(format_args!("client {client} at node {node}, {kind} in {took} ms: {} -> {told}", shown.join(" ")));
    }

    fn try_once<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Told {
        let began = Instant::now();
        let Some(wire) = self.connect() else {
            return self.noted(began, Told::NotDone("no node accepts connections".to_owned()));
        };
        match wire.try_call(args) {
            Ok(Value::Error(text)) => match Told::of_error(text.clone()) {
                Some(told) => self.noted(began, told),
                None => {
                    self.book.violation(format!("an error that says neither done nor unknown: {text}"));
                    Told::Unknown(text)
                }
            },
            Ok(answer) => {
                self.wander();
                Told::Answer(answer)
            }
            Err(error) => {
                self.leave();
                self.noted(began, Told::Unknown(format!("connection: {error}")))
            }
        }
    }

    fn noted(&self, began: Instant, told: Told) -> Told {
        if let Told::NotDone(text) | Told::Unknown(text) = &told {
            self.book.count_error(self.tried, began, text);
        }
        told
    }

    /// The connection, made anew if need be.
    fn connect(&mut self) -> Option<&mut Wire> {
        self.tried = self.at;
        for _ in 0..DOORS {
            if self.wire.is_some() {
                break;
            }
            self.tried = self.at;
            self.wire = self.open();
            if self.wire.is_none() {
                self.leave();
                sleep(Duration::from_millis(20));
            }
        }
        self.wire.as_mut()
    }

    fn open(&self) -> Option<Wire> {
        let mut wire = Wire::dial(self.addresses[self.at], PATIENCE).ok()?;
        match &self.greeting {
            None => Some(wire),
            Some(words) => wire.try_call(words).ok().filter(|answer| !answer.is_error()).map(|_| wire),
        }
    }

    /// To another node.
    fn leave(&mut self) {
        self.wire = None;
        if !self.stubborn {
            self.at = self.rng.below(self.addresses.len() as u64) as usize;
        }
    }

    /// Back home, or now and then to another node.
    fn wander(&mut self) {
        let strays = self.rng.chance(0.01);
        if !self.stubborn && (strays || (self.at != self.home && self.rng.chance(0.05))) {
            self.leave();
            self.at = if strays { self.at } else { self.home };
        }
    }
}

/// Contexts and sets are long; what is new stands at the end.
fn end_of(text: &str) -> String {
    let length = text.chars().count();
    text.chars().skip(length.saturating_sub(40)).collect()
}
