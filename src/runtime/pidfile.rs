//! The file that holds the process id while the node runs (`pidfile`). Like Redis, a node that cannot write it runs
//! without.

use std::fs;
use std::path::{Path, PathBuf};

/// The file; removed when this is dropped, if it still holds this process' id.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes the file, over one that a former process left behind.
    pub fn write(path: &Path) -> Option<PidFile> {
        match fs::write(path, content()) {
            Ok(()) => Some(PidFile(path.to_owned())),
            Err(error) => {
                tracing::warn!("Failed to write PID file {}: {error}", path.display());
                None
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A process that was started meanwhile may have written its own.
        if fs::read_to_string(&self.0).is_ok_and(|found| found == content())
            && let Err(error) = fs::remove_file(&self.0)
        {
            tracing::warn!("PID file {} stays: {error}", self.0.display());
        }
    }
}

fn content() -> String {
    format!("{}\n", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_as_long_as_it_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        fs::write(&path, "1\nand more\n").unwrap();
        let held = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn the_file_of_another_process_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        let held = PidFile::write(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(held);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_done_without() {
        let dir = tempfile::tempdir().unwrap();
        assert!(PidFile::write(&dir.path().join("missing/x.pid")).is_none());
    }
}
