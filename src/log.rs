//! The log: one line per event in the form of Redis', `pid:M 20 Nov 2026 11:20:00.123 * message`, so that whatever
//! greps a Redis log greps this one; or a JSON object a line. Times are UTC.
//!
//! Redis' four levels are tracing's: debug is TRACE (what happens for each request), verbose is DEBUG, notice is INFO,
//! warning is WARN and ERROR. Libraries are heard from WARN on only.
//!
//! Absent: rotation. The file is opened for each line, so that a line goes where the name points after logrotate moved
//! the old file away; lines are few.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, fmt as lines, reload};

use crate::config::{Config, LogFormat, LogLevel};

/// Changes the level of a running log.
#[derive(Clone, Debug)]
pub struct LogHandle(reload::Handle<Targets, Registry>);

impl LogHandle {
    /// Logs from `level` on from now on.
    pub fn set_level(&self, level: LogLevel) {
        // The only error is that the log is gone: then there is nothing to set.
        let _ = self.0.reload(targets(level));
    }
}

/// Starts the log of this process, once. Fails if the log file cannot be opened, or if there is a log already.
pub fn start(config: &Config) -> io::Result<LogHandle> {
    if let Some(path) = &config.log_file {
        append(path).map_err(|error| io::Error::new(error.kind(), format!("Can't open the log file: {error}")))?;
    }
    let (subscriber, handle) = subscriber(Output(config.log_file.clone()), config.log_format, config.log_level);
    tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
    Ok(handle)
}

fn subscriber<W>(output: W, format: LogFormat, level: LogLevel) -> (impl Subscriber + Send + Sync, LogHandle)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(targets(level));
    // Errors of writing are not reported: the report would go to a standard error that may be as closed as the output.
    let layer = lines::layer().with_writer(output).with_ansi(false).log_internal_errors(false);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Plain => Box::new(layer.event_format(RedisLine).with_filter(filter)),
        LogFormat::Json => Box::new(layer.json().flatten_event(true).with_filter(filter)),
    };
    (tracing_subscriber::registry().with(layer), LogHandle(handle))
}

fn targets(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::Debug => LevelFilter::TRACE,
        LogLevel::Verbose => LevelFilter::DEBUG,
        LogLevel::Notice => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Nothing => LevelFilter::OFF,
    };
    Targets::new().with_default(ours.min(LevelFilter::WARN)).with_target(env!("CARGO_CRATE_NAME"), ours)
}

/// Standard output, or a file by its name.
struct Output(Option<PathBuf>);

impl MakeWriter<'_> for Output {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        match &self.0 {
            None => Line::Stdout,
            Some(path) => append(path).map_or(Line::Nowhere, Line::File),
        }
    }
}

/// Where one line goes.
enum Line {
    Stdout,
    File(File),
    /// The file cannot be opened just now: the line is lost, as in Redis.
    Nowhere,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Line::Stdout => io::stdout().write(bytes),
            Line::File(file) => file.write(bytes),
            Line::Nowhere => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Line::Stdout => io::stdout().flush(),
            Line::File(file) => file.flush(),
            Line::Nowhere => Ok(()),
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// The form of Redis' lines.
struct RedisLine;

impl<S, N> FormatEvent<S, N> for RedisLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mark = match *event.metadata().level() {
            Level::TRACE => '.',
            Level::DEBUG => '-',
            Level::INFO => '*',
            Level::WARN | Level::ERROR => '#',
        };
        write!(line, "{}:M {} {mark} ", std::process::id(), timestamp(since))?;
        let mut text = Text::default();
        event.record(&mut text);
        writeln!(line, "{}{}", text.message, text.fields)
    }
}

/// The message of an event, and its other fields as ` name=value`. Control characters are escaped: what clients send
/// must not be able to begin a line of its own.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let into = match field.name() {
            "message" => &mut self.message,
            // Added to each event that comes from the log crate.
            name if name.starts_with("log.") => return,
            name => {
                // Writing to a string cannot fail.
                let _ = write!(self.fields, " {name}=");
                &mut self.fields
            }
        };
        for c in format!("{value:?}").chars() {
            if c.is_control() { into.extend(c.escape_default()) } else { into.push(c) }
        }
    }
}

/// `20 Nov 2026 11:20:00.123`, UTC, of a time since 1970.
fn timestamp(since: Duration) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = since.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let month = MONTHS.get(month.saturating_sub(1)).copied().unwrap_or("?");
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02}.{:03}", since.subsec_millis())
}

/// Year, month from 1 and day from 1 of a day since 1970, in the Gregorian calendar. Years are counted from March, so
/// that the leap day is the last of its year.
fn civil(days: u64) -> (u64, usize, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // Rounds of 400 years begin on 1 March: 1970-01-01 is day 719,468 of the one that began in year 0.
    let days = days.saturating_add(719_468);
    let day_of_round = days % DAYS_OF_400_YEARS;
    let year_of_round = (day_of_round - day_of_round / 1460 + day_of_round / 36_524 - day_of_round / 146_096) / 365;
    let day_of_year = day_of_round - (365 * year_of_round + year_of_round / 4 - year_of_round / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, next_year) = if month_from_march < 10 { (month_from_march + 3, 0) } else { (month_from_march - 9, 1) };
    (days / DAYS_OF_400_YEARS * 400 + year_of_round + next_year, usize::try_from(month).unwrap_or(0), day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;

    /// A log that can be read.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Memory {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    fn logged(format: LogFormat, level: LogLevel, events: impl FnOnce(&LogHandle)) -> Vec<String> {
        let memory = Memory::default();
        let output = memory.clone();
        let (subscriber, handle) = subscriber(move || output.clone(), format, level);
        tracing::subscriber::with_default(subscriber, || events(&handle));
        memory.lines()
    }

    #[test]
    fn a_line_has_the_form_of_redis() {
        let lines = logged(LogFormat::Plain, LogLevel::Debug, |_| {
            tracing::info!("Ready to accept connections");
            tracing::warn!(peer = "a:1", attempt = 3, "cannot reach");
            tracing::debug!("details");
            tracing::trace!("more");
        });
        let marks: Vec<&str> = lines.iter().map(|line| line.split(' ').nth(5).unwrap()).collect();
        assert_eq!(marks, ["*", "#", "-", "."]);
        assert!(lines[0].starts_with(&format!("{}:M ", std::process::id())), "{}", lines[0]);
        assert!(lines[0].ends_with(" * Ready to accept connections"), "{}", lines[0]);
        assert!(lines[1].ends_with(" # cannot reach peer=a:1 attempt=3"), "{}", lines[1]);
    }

    #[test]
    fn the_level_can_be_changed_while_the_log_runs() {
        let lines = logged(LogFormat::Plain, LogLevel::Notice, |handle| {
            tracing::debug!("1");
            handle.set_level(LogLevel::Verbose);
            tracing::debug!("2");
            tracing::trace!("3");
            handle.set_level(LogLevel::Nothing);
            tracing::error!("4");
        });
        assert_eq!(lines.len(), 1);
        assert!(lines[0].ends_with(" - 2"));
    }

    #[test]
    fn libraries_are_heard_from_warnings_on() {
        let lines = logged(LogFormat::Plain, LogLevel::Debug, |_| {
            tracing::info!(target: "fjall", "chatter");
            tracing::warn!(target: "fjall", "trouble");
        });
        assert_eq!(lines.len(), 1);
        assert!(lines[0].ends_with("trouble"));
    }

    #[test]
    fn nothing_that_is_logged_can_begin_a_line_of_its_own() {
        let lines = logged(LogFormat::Plain, LogLevel::Notice, |_| {
            tracing::info!(name = "b\nc", "a\r\n1:M forged \x1b[2J");
        });
        assert_eq!(lines.len(), 1);
        assert!(lines[0].ends_with(r"a\r\n1:M forged \u{1b}[2J name=b\nc"), "{}", lines[0]);
    }

    #[test]
    fn json_lines_are_objects_with_message_level_and_fields() {
        let lines = logged(LogFormat::Json, LogLevel::Notice, |_| tracing::info!(peer = "a:1", "joined"));
        assert_eq!(lines.len(), 1);
        for part in [r#""level":"INFO""#, r#""message":"joined""#, r#""peer":"a:1""#, r#""timestamp":""#] {
            assert!(lines[0].contains(part), "{part} in {}", lines[0]);
        }
    }

    #[test]
    fn a_log_file_that_is_moved_away_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("log"), dir.path().join("log.1"));
        let output = Output(Some(path.clone()));
        let (subscriber, _) = subscriber(output, LogFormat::Plain, LogLevel::Notice);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("before");
            std::fs::rename(&path, &moved).unwrap();
            tracing::info!("after");
        });
        assert!(std::fs::read_to_string(&moved).unwrap().ends_with("before\n"));
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("after\n"));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "01 Jan 1970 00:00:00.000"),
            (951_782_399, "28 Feb 2000 23:59:59.000"),
            (951_782_400, "29 Feb 2000 00:00:00.000"),
            (1_709_251_200, "01 Mar 2024 00:00:00.000"),
            (1_795_173_600, "20 Nov 2026 11:20:00.000"),
            (4_107_542_400, "01 Mar 2100 00:00:00.000"),
        ];
        for (seconds, text) in cases {
            assert_eq!(timestamp(Duration::from_secs(seconds)), text);
        }
        assert_eq!(timestamp(Duration::from_millis(1_795_173_600_123)), "20 Nov 2026 11:20:00.123");
    }
}
