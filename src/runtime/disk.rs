//! The disk below the data directory, asked from outside of the store: how much room it has, and whether it takes writes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What a probe writes.
const PROBE: &str = "PROBE";
const PROBE_BYTES: usize = 256 * 1024;

/// Bytes that this process may still write to the disk that `dir` lies on.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Writes, syncs and removes a file in `dir`.
pub fn probe(dir: &Path) -> io::Result<()> {
    let path = dir.join(PROBE);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&vec![0x5a; PROBE_BYTES])?;
        file.sync_all()
    });
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// Questions to a disk that may hang: one at a time, and none while it hangs.
pub struct Questions<T> {
    asked: Option<JoinHandle<T>>,
}

impl<T> Default for Questions<T> {
    fn default() -> Self {
        Questions { asked: None }
    }
}

impl<T: Send + 'static> Questions<T> {
    /// Asks, and waits up to `patience`; none if there is no answer. An answer that comes later is for the next to ask.
    pub async fn ask(&mut self, patience: Duration, question: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let asked = self.asked.get_or_insert_with(|| tokio::task::spawn_blocking(question));
        let answer = timeout(patience, asked).await.ok()?;
        self.asked = None;
        answer.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_takes_writes_passes_and_nothing_is_left_of_the_probe() {
        let dir = tempfile::tempdir().unwrap();
        probe(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(free_bytes(dir.path()).unwrap() > 0);
        assert!(probe(&dir.path().join("missing")).is_err() && free_bytes(&dir.path().join("missing")).is_err());
    }

    #[tokio::test]
    async fn a_disk_that_hangs_is_not_asked_again_and_its_late_answer_counts() {
        let mut questions = Questions::default();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let hanging = move || {
            let _ = ended.recv();
            1
        };
        assert_eq!(questions.ask(Duration::from_millis(1), hanging).await, None);
        assert_eq!(questions.ask(Duration::from_millis(1), || 2).await, None);
        end.send(()).unwrap();
        assert_eq!(questions.ask(Duration::from_secs(60), || 3).await, Some(1));
        assert_eq!(questions.ask(Duration::from_secs(60), || 4).await, Some(4));
    }
}
