//! What the kernel and the allocator say of this process and its machine.
//!
//! Read from `/proc` as text, so no foreign calls are needed; where there is no `/proc`, or it says something else, a
//! number is 0. Deliberately absent: anything that the node counts itself.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use tikv_jemalloc_ctl::{Access, AsName, arenas, epoch, stats};

use crate::commands::facts::{CpuFacts, MemoryFacts};

/// Entries of the auxiliary vector: see `getauxval(3)`.
const AT_PAGESZ: u64 = 6;
const AT_CLKTCK: u64 = 17;

/// What the process used and holds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Process {
    /// Processor time.
    pub system_us: u64,
    /// Processor time.
    pub user_us: u64,
    /// Resident memory, in bytes.
    pub resident: u64,
    /// Address space, in bytes.
    pub virtual_memory: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Most file descriptors that may be open.
    pub max_fds: u64,
    /// When it started, in seconds since the epoch.
    pub started_s: f64,
}

impl Process {
    /// This process now.
    pub fn read() -> Process {
        let (page, tick_us) = (auxiliary(AT_PAGESZ, 4096), 1_000_000 / auxiliary(AT_CLKTCK, 100).max(1));
        let stat = text("/proc/self/stat");
        let [user, system, started] = stat_fields(&stat);
        let statm = text("/proc/self/statm");
        let mut pages = statm.split_whitespace().map(number);
        let booted_s = text("/proc/stat").lines().find_map(|line| line.strip_prefix("btime ").map(number));
        Process {
            user_us: user.saturating_mul(tick_us),
            system_us: system.saturating_mul(tick_us),
            virtual_memory: pages.next().unwrap_or_default().saturating_mul(page),
            resident: pages.next().unwrap_or_default().saturating_mul(page),
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
            max_fds: max_fds(&text("/proc/self/limits")),
            started_s: booted_s.map_or(0.0, |booted| booted as f64 + (started * tick_us) as f64 / 1e6),
        }
    }

    /// Processor time for INFO.
    pub fn cpu(&self) -> CpuFacts {
        CpuFacts { system_us: self.system_us, user_us: self.user_us }
    }
}

/// Bytes of memory that this process may use: the machine's, or its control group's if that is less.
pub fn total_memory() -> u64 {
    let machine = meminfo(&text("/proc/meminfo"));
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = groups.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    limits
        .filter(|limit: &u64| *limit > 0)
        .fold(machine, |least, limit| if least == 0 { limit } else { least.min(limit) })
}

/// Bytes for rows in memory: `maxmemory`, else a quarter of what there is.
pub fn cache_bytes(maxmemory: Option<u64>) -> u64 {
    const LEAST: u64 = 64 << 20;
    maxmemory.unwrap_or_else(|| (total_memory() / 4).max(LEAST))
}

/// The part of [`cache_bytes`] that decoded rows get; the rest goes to the store's cache of blocks.
pub fn row_cache_bytes(maxmemory: Option<u64>) -> u64 {
    cache_bytes(maxmemory) / 4 * 3
}

/// Kernel, release and architecture: `Linux 6.1.0 x86_64`.
pub fn os() -> String {
    let kind = text("/proc/sys/kernel/ostype");
    let kind = if kind.is_empty() { std::env::consts::OS } else { kind.trim() };
    format!("{kind} {} {}", text("/proc/sys/kernel/osrelease").trim(), std::env::consts::ARCH)
}

/// Wall time since the epoch; a clock set before it counts as the epoch.
pub fn wall() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Bytes that the program has allocated.
pub fn allocated() -> u64 {
    // Statistics are as old as the last epoch.
    let _ = epoch::advance();
    stats::allocated::read().unwrap_or_default() as u64
}

/// What the allocator says, without what only the node knows (peak, start, limit, clients, rows).
pub fn allocator() -> MemoryFacts {
    let used = allocated();
    MemoryFacts {
        used,
        active: stats::active::read().unwrap_or_default() as u64,
        resident: stats::resident::read().unwrap_or_default() as u64,
        allocator: allocator_name(),
        ..MemoryFacts::default()
    }
}

/// The allocator's statistics for people.
pub fn allocator_report() -> String {
    let facts = allocator();
    let more = [
        ("metadata", stats::metadata::read()),
        ("mapped", stats::mapped::read()),
        ("retained", stats::retained::read()),
    ];
    let mut report = format!(
        "{}\narenas: {}\nallocated: {}\nactive: {}\nresident: {}\n",
        facts.allocator,
        arenas::narenas::read().unwrap_or_default(),
        facts.used,
        facts.active,
        facts.resident
    );
    for (name, value) in more {
        report.push_str(&format!("{name}: {}\n", value.unwrap_or_default()));
    }
    report
}

/// Has the allocator give back pages that nothing lies in: a decay time of 0 purges at once, the old one is set again.
pub fn purge() {
    for arena in 0..arenas::narenas::read().unwrap_or_default() {
        for kind in ["dirty", "muzzy"] {
            let name = format!("arena.{arena}.{kind}_decay_ms\0");
            let key = name.as_str().name();
            // An arena that was never used has no such key.
            if let Ok(before) = Access::<isize>::update(key, 0) {
                let _ = key.write(before);
            }
        }
    }
}

fn allocator_name() -> String {
    let version = tikv_jemalloc_ctl::version::read().unwrap_or("unknown");
    format!("jemalloc-{}", version.split('-').next().unwrap_or(version))
}

/// A file's text; nothing where it cannot be read.
fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_default()
}

/// User time, system time and start time in ticks: fields 14, 15 and 22, counted behind the name, which may hold anything.
fn stat_fields(stat: &str) -> [u64; 3] {
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    [11, 12, 19].map(|at| fields.get(at).map_or(0, |word| number(word)))
}

fn max_fds(limits: &str) -> u64 {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|rest| rest.split_whitespace().next()).map_or(0, number)
}

fn meminfo(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()).map_or(0, number);
    kilobytes.saturating_mul(1024)
}

/// A value that the kernel gave the process at its start.
fn auxiliary(wanted: u64, otherwise: u64) -> u64 {
    const WORD: usize = size_of::<usize>();
    let raw = fs::read("/proc/self/auxv").unwrap_or_default();
    let words: Vec<u64> = raw
        .chunks_exact(WORD)
        .map(|word| word.try_into().map_or(0, |word| usize::from_ne_bytes(word) as u64))
        .collect();
    let found = words.chunks_exact(2).find(|pair| pair.first() == Some(&wanted));
    found.and_then(|pair| pair.get(1).copied()).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_name_with_brackets_and_blanks() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 11 12 0 0 20 0 9 0 345 1000 200";
        assert_eq!(stat_fields(stat), [11, 12, 345]);
        assert_eq!(stat_fields("garbage"), [0, 0, 0]);
    }

    #[test]
    fn limits_and_memory_are_read_and_odd_texts_count_as_nothing() {
        assert_eq!(max_fds("Limit Soft Hard\nMax open files            1024    4096    files\n"), 1024);
        assert_eq!(meminfo("MemTotal:       16384 kB\nMemFree: 1 kB\n"), 16 * 1024 * 1024);
        assert_eq!((max_fds(""), meminfo("MemTotal: lots")), (0, 0));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_resident_has_files_open_and_started_in_the_past() {
        let process = Process::read();
        assert!(process.resident > 0 && process.virtual_memory >= process.resident);
        assert!(process.open_fds > 0 && process.open_fds <= process.max_fds);
        assert!(process.started_s > 0.0 && process.started_s < wall().as_secs_f64() + 2.0);
        assert!(total_memory() > process.resident);
        assert!(os().starts_with("Linux "));
    }

    #[test]
    fn the_allocator_answers_and_can_be_asked_to_purge() {
        let facts = allocator();
        assert!(facts.used > 0 && facts.active >= facts.used);
        assert!(facts.allocator.starts_with("jemalloc-5"), "{}", facts.allocator);
        let dirty = || -> isize { "arena.0.dirty_decay_ms\0".name().read().unwrap() };
        let before = dirty();
        purge();
        assert_eq!(dirty(), before);
        assert!(allocator_report().contains("\nresident: "));
    }
}
