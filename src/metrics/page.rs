//! One answer to one scrape, in Prometheus' text format.
//!
//! Counters and gauges go through the exporter's recorder, which lives for this page only: a recorder that stays keeps
//! series of databases that are gone, and never lets a counter go back to 0. Histograms and counters with fractions are
//! written here: the exporter wants every observation by itself to make a histogram (millions between two scrapes, where
//! the counts are there already), and has no counters with fractions.

use std::fmt::Write;

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::{Kind, Metric, declared};

/// A page that is being written.
pub struct Page {
    recorder: PrometheusRecorder,
    /// What the exporter cannot write.
    rest: String,
}

/// How long things took.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Timings {
    /// Bounds in seconds, ascending, each with how many took at most that long.
    pub cumulative: Vec<(f64, u64)>,
    /// How many there were.
    pub count: u64,
    /// How long they took together, in seconds.
    pub sum: f64,
}

impl Page {
    /// An empty page that knows every declaration.
    pub fn new() -> Page {
        let recorder = PrometheusBuilder::new().build_recorder();
        for metric in declared() {
            let name = KeyName::from_const_str(metric.name);
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, None, metric.help.into()),
                Kind::Gauge => recorder.describe_gauge(name, None, metric.help.into()),
                Kind::Fractions | Kind::Histogram => {}
            }
        }
        Page { recorder, rest: String::new() }
    }

    /// Writes a counter; `labels` in the order in which they are declared.
    pub fn count(&mut self, metric: &Metric, labels: &[&str], value: u64) {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        self.recorder.register_counter(&key(metric, labels), &ABOUT).absolute(value);
    }

    /// Writes a gauge.
    pub fn gauge(&mut self, metric: &Metric, labels: &[&str], value: impl Into<f64>) {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        self.recorder.register_gauge(&key(metric, labels), &ABOUT).set(value.into());
    }

    /// Writes a gauge of a whole number: exact up to 2^53.
    pub fn whole(&mut self, metric: &Metric, labels: &[&str], value: u64) {
        self.gauge(metric, labels, value as f64);
    }

    /// Writes a counter with fractions, which has no labels.
    pub fn fractions(&mut self, metric: &Metric, value: f64) {
        debug_assert_eq!(metric.kind, Kind::Fractions, "{}", metric.name);
        self.head(metric, "counter");
        self.line(format_args!("{} {value}\n", metric.name));
    }

    /// Writes a histogram with all values of its one label.
    pub fn histogram<'a>(&mut self, metric: &Metric, all: impl IntoIterator<Item = (&'a str, Timings)>) {
        debug_assert_eq!(metric.kind, Kind::Histogram, "{}", metric.name);
        self.head(metric, "histogram");
        let (name, label) = (metric.name, metric.labels.first().copied().unwrap_or_default());
        for (value, Timings { cumulative, count, sum }) in all {
            for (bound, so_far) in cumulative {
                self.line(format_args!("{name}_bucket{{{label}=\"{value}\",le=\"{bound}\"}} {so_far}\n"));
            }
            self.line(format_args!("{name}_bucket{{{label}=\"{value}\",le=\"+Inf\"}} {count}\n"));
            self.line(format_args!("{name}_sum{{{label}=\"{value}\"}} {sum}\n"));
            self.line(format_args!("{name}_count{{{label}=\"{value}\"}} {count}\n"));
        }
        self.rest.push('\n');
    }

    /// The text.
    pub fn render(self) -> String {
        let mut text = self.recorder.handle().render();
        text.push_str(&self.rest);
        text
    }

    fn head(&mut self, metric: &Metric, kind: &str) {
        self.line(format_args!("# HELP {name} {}\n# TYPE {name} {kind}\n", metric.help, name = metric.name));
    }

    fn line(&mut self, line: std::fmt::Arguments) {
        // Writing to a String cannot fail.
        let _ = self.rest.write_fmt(line);
    }
}

impl Default for Page {
    fn default() -> Self {
        Page::new()
    }
}

/// What the exporter does not use of a metric.
static ABOUT: Metadata<'static> = Metadata::new("redynamo", Level::INFO, None);

fn key(metric: &Metric, labels: &[&str]) -> Key {
    debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
    let labels: Vec<Label> =
        metric.labels.iter().zip(labels).map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(metric.name, labels)
}

#[cfg(test)]
mod tests {
    use super::super::{COMMAND_DURATION, COMMANDS, KEYS, PROCESS_CPU_SECONDS};
    use super::*;

    #[test]
    fn a_page_shows_what_was_written_on_it_and_nothing_of_another() {
        let mut page = Page::new();
        page.count(&COMMANDS, &["get", "ok"], 3);
        page.count(&COMMANDS, &["a\"b", "ok"], 1);
        page.whole(&KEYS, &["0"], 7);
        page.fractions(&PROCESS_CPU_SECONDS, 1.25);
        let text = page.render();
        for line in [
            "# HELP redynamo_keys Keys of the whole cluster by database.",
            "# TYPE redynamo_commands_total counter",
            "redynamo_commands_total{cmd=\"get\",outcome=\"ok\"} 3",
            "redynamo_commands_total{cmd=\"a\\\"b\",outcome=\"ok\"} 1",
            "redynamo_keys{db=\"0\"} 7",
            "# TYPE process_cpu_seconds_total counter",
            "process_cpu_seconds_total 1.25",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
        }
        assert_eq!(Page::new().render().trim(), "");
    }

    #[test]
    fn a_histogram_has_buckets_sum_and_count_for_each_class() {
        let mut page = Page::new();
        let timings = Timings { cumulative: vec![(0.000025, 1), (0.5, 4)], count: 6, sum: 9.5 };
        page.histogram(&COMMAND_DURATION, [("read", timings), ("write", Timings::default())]);
        let text = page.render();
        let shown: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        let name = "redynamo_command_duration_seconds";
        let expected = [
            format!("# HELP {name} {}", COMMAND_DURATION.help),
            format!("# TYPE {name} histogram"),
            format!("{name}_bucket{{class=\"read\",le=\"0.000025\"}} 1"),
            format!("{name}_bucket{{class=\"read\",le=\"0.5\"}} 4"),
            format!("{name}_bucket{{class=\"read\",le=\"+Inf\"}} 6"),
            format!("{name}_sum{{class=\"read\"}} 9.5"),
            format!("{name}_count{{class=\"read\"}} 6"),
            format!("{name}_bucket{{class=\"write\",le=\"+Inf\"}} 0"),
            format!("{name}_sum{{class=\"write\"}} 0"),
            format!("{name}_count{{class=\"write\"}} 0"),
        ];
        assert_eq!(shown, expected);
    }
}
