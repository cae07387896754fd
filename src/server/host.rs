//! tmp
use super::Server;
use crate::commands::facts::*;
use crate::commands::host::{Host, Pause};
use crate::resp::Reply;
use bytes::Bytes;
impl Host for Server {
    fn now_ms(&self) -> u64 {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }
    fn now_us(&self) -> u64 {
        self.now_ms() * 1000
    }
    fn random(&self, out: &mut [u8]) {
        let _ = getrandom::fill(out);
    }
    fn databases(&self) -> u32 {
        self.settings.config().databases
    }
    fn password_required(&self) -> bool {
        self.settings.config().requirepass.is_some()
    }
    fn authenticate(&self, _u: &[u8], p: &[u8]) -> bool {
        self.settings.config().requirepass.as_ref().is_none_or(|s| s.as_str().as_bytes() == p)
    }
    fn clients(&self) -> Vec<ClientFacts> {
        Vec::new()
    }
    fn kill(&self, _c: &[u64]) {}
    fn pause(&self, _p: Option<Pause>) {}
    fn unblock(&self, _c: u64, _e: bool) -> bool {
        false
    }
    fn config_get(&self, p: &[Bytes]) -> Vec<(String, String)> {
        self.settings.get(p)
    }
    fn config_set(&self, p: &[(Bytes, Bytes)]) -> Result<(), String> {
        self.settings.set(p).map(|_| ())
    }
    fn config_rewrite(&self) -> Result<(), String> {
        Ok(())
    }
    fn reset_stats(&self) {}
    fn facts(&self) -> Facts {
        Facts::default()
    }
    fn slow_commands(&self, _c: usize) -> Vec<SlowEntry> {
        Vec::new()
    }
    fn slow_commands_len(&self) -> usize {
        0
    }
    fn reset_slow_commands(&self) {}
    fn histograms(&self) -> Vec<Histogram> {
        Vec::new()
    }
    fn allocator_report(&self) -> Option<String> {
        None
    }
    fn purge_memory(&self) {}
    fn sync(&self) {}
    fn nodes(&self) -> Reply {
        Reply::Nil
    }
    fn shutdown(&self, _n: bool) {
        self.shutdown.notify_one();
    }
    fn abort_shutdown(&self) -> bool {
        false
    }
}
impl Server {
    pub async fn sample_loop(self: std::sync::Arc<Self>) {}
}
