//! A steady load: a request leaves when its time has come, whether or not others have been answered, and its latency
//! counts from then. Half reads, half writes, to all nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redynamo::base::rng::Rng;
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use super::Options;
use super::cluster::{Wire, key_of, reply, request};

/// Connections to each node.
const CONNECTIONS: u64 = 8;
/// A stall is a time in which some request takes so many times the middle one, and at least so long.
const STALL: (f64, f64) = (20.0, 100.0);

/// A load under way.
pub struct Load {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// Latencies in microseconds, and how many requests failed.
#[derive(Default)]
pub struct Seen {
    micros: Vec<u64>,
    /// The same by the second in which they were due.
    seconds: BTreeMap<u64, Vec<u64>>,
    pub errors: u64,
}

impl Load {
    pub fn begin(options: &Options, ports: &[[u16; 3]]) -> Load {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let connections = CONNECTIONS * ports.len() as u64;
        let pause = Duration::from_nanos(1_000_000_000 * connections / options.rate);
        let tasks = (0..connections).map(|at| {
            let port = ports[at as usize % ports.len()][0];
            let offset = pause.mul_f64(at as f64 / connections as f64);
            tokio::spawn(connection(port, offset, pause, at, options.clone(), stop.clone(), seen.clone()))
        });
        Load { tasks: tasks.collect(), stop, seen }
    }

    pub async fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let mut seen = std::mem::take(&mut *self.seen.lock());
        seen.micros.sort_unstable();
        seen.seconds.values_mut().for_each(|micros| micros.sort_unstable());
        seen
    }
}

/// Requests at their times on one connection.
async fn connection(
    port: u16,
    offset: Duration,
    pause: Duration,
    number: u64,
    options: Options,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
) {
    let Wire { mut reading, mut writing } = Wire::open(port).await.unwrap();
    let (sent, mut due) = tokio::sync::mpsc::unbounded_channel::<Instant>();
    let sending = async move {
        let (mut rng, value) = (Rng::new(number + 1), vec![b'y'; options.bytes]);
        let mut at = Instant::now() + offset;
        while !stop.load(Ordering::Relaxed) {
            sleep(at.saturating_duration_since(Instant::now())).await;
            let key = key_of(rng.below(options.rows));
            let request = if rng.chance(0.5) { request(&[b"GET", &key]) } else { request(&[b"SET", &key, &value]) };
            sent.send(at).unwrap();
            writing.write_all(&request).await.unwrap();
            at += pause;
        }
        writing
    };
    let began = Instant::now();
    let receiving = async {
        while let Some(at) = due.recv().await {
            let told = reply(&mut reading).await.unwrap();
            let took = at.elapsed().as_micros() as u64;
            let mut seen = seen.lock();
            seen.micros.push(took);
            seen.seconds.entry(at.duration_since(began).as_secs()).or_default().push(took);
            seen.errors += u64::from(told.starts_with(b"-"));
        }
    };
    tokio::join!(sending, receiving);
}

impl Seen {
    pub fn requests(&self) -> usize {
        self.micros.len()
    }

    /// What this part of the requests did not exceed, in milliseconds.
    pub fn part(&self, part: f64) -> f64 {
        of_sorted(&self.micros, part)
    }

    /// The 99th percentile of a second, in milliseconds: the middle one of all seconds.
    pub fn middle_second(&self) -> f64 {
        let mut all: Vec<f64> = self.seconds.values().map(|micros| of_sorted(micros, 0.99)).collect();
        all.sort_unstable_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Seconds in which requests stalled, each with the worst of them in milliseconds.
    pub fn stalls(&self) -> Vec<(u64, f64)> {
        let least = (self.part(0.5) * STALL.0).max(STALL.1);
        let worst = self.seconds.iter().map(|(second, micros)| (*second, of_sorted(micros, 1.0)));
        worst.filter(|(_, worst)| *worst >= least).collect()
    }
}

fn of_sorted(micros: &[u64], part: f64) -> f64 {
    let at = ((micros.len() as f64 * part) as usize).min(micros.len().saturating_sub(1));
    micros.get(at).map_or(f64::NAN, |us| *us as f64 / 1e3)
}
