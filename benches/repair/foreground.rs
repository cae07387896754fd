//! What a full repair does to clients.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Options;
use super::cluster::{Cluster, fill, info, says, until};
use super::load::{Load, Seen};

pub async fn run(options: &Options) {
    println!("{} rows of {} bytes, {} requests a second", options.rows, options.bytes, options.rate);
    println!(
        "{:<9} {:<12} {:>8} {:>9} {:>9} {:>9} {:>7} {:>7} {:>11}",
        "throttle", "", "requests", "p50 ms", "p99 ms", "p99.9 ms", "errors", "took s", "p99 of a s"
    );
    for throttle in &options.throttle {
        measure(options, throttle).await;
    }
}

/// One cluster, one repair.
async fn measure(options: &Options, throttle: &str) {
    let mut cluster = Cluster::start(&["--background-throttle", throttle]).await;
    cluster.kill(2, true);
    sleep(Duration::from_secs(4)).await;
    let ports = [cluster.ports[0][0], cluster.ports[1][0]];
    fill(0..options.rows, &vec![b'x'; options.bytes], &ports).await;

    cluster.start_node(2).await;
    let (repair, began) = (Load::begin(options, &cluster.ports), Instant::now());
    let watched = watch(cluster.ports[2][0], options.rows);
    until_whole(&cluster).await;
    let took = began.elapsed();
    watched.abort();
    // The others go over to it: that is a part of a repair.
    sleep(Duration::from_secs(5)).await;
    let during = repair.end().await;
    sleep(Duration::from_secs(3)).await;
    let (calm, seconds) = (Load::begin(options, &cluster.ports), Duration::from_secs(options.seconds));
    sleep(seconds).await;
    let calm = calm.end().await;
    show(throttle, "with repair", &during, took);
    show("", "without", &calm, seconds);
    show_ratio(&during, &calm);
}

/// Until the third node is ready and has been compared with both others in every partition.
async fn until_whole(cluster: &Cluster) {
    cluster.until_ready().await;
    until(async || says(&info(cluster.ports[2][0]).await, "sync_never", "0")).await;
}

/// Writes how far a repair has come, now and then, for whoever waits.
fn watch(port: u16, rows: u64) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            sleep(Duration::from_secs(5)).await;
            let known = [
                "repaired_by_sync",
                "background_reason",
                "background_bytes_per_second",
                "foreground_p99_us",
                "foreground_limit_us",
                "ready",
            ];
            let info = info(port).await;
            let shown = known.map(|name| format!("{name} {}", info.get(name).map_or("", |value| value)));
            eprintln!("  of {rows} rows: {}", shown.join(", "));
        }
    })
}

fn show(throttle: &str, what: &str, seen: &Seen, took: Duration) {
    println!(
        "{throttle:<9} {what:<12} {:>8} {:>9.2} {:>9.2} {:>9.2} {:>7} {:>7.1} {:>11.2}",
        seen.requests(),
        seen.part(0.5),
        seen.part(0.99),
        seen.part(0.999),
        seen.errors,
        took.as_secs_f64(),
        seen.middle_second()
    );
    let stalls: Vec<String> = seen.stalls().iter().map(|(second, ms)| format!("{second} s: {ms:.0} ms")).collect();
    if !stalls.is_empty() {
        println!("{:<9} {:<12} the worst of seconds with a stall: {}", "", "", stalls.join(", "));
    }
}

fn show_ratio(during: &Seen, calm: &Seen) {
    println!(
        "{:<9} {:<12} {:>8} {:>9.2} {:>9.2} {:>9.2} {:>7} {:>7} {:>11.2}",
        "",
        "ratio",
        "",
        during.part(0.5) / calm.part(0.5),
        during.part(0.99) / calm.part(0.99),
        during.part(0.999) / calm.part(0.999),
        "",
        "",
        during.middle_second() / calm.middle_second()
    );
}
