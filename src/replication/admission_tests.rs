//! The controller against a machine that is modelled: the more background work, the slower its foreground.

use proptest::prelude::*;

use super::*;
use crate::base::rng::Rng;

const MIB: u64 = 1 << 20;

/// A machine whose percentile grows in proportion to what background work moves.
struct Machine {
    /// Percentile without background work.
    calm: Duration,
    /// Bytes a second that double it.
    bears: u64,
    /// Commands in an interval.
    commands: u64,
    controller: Controller,
    rng: Rng,
}

/// What was seen of an interval.
#[derive(Clone, Copy)]
struct Seen {
    slice: Slice,
    used: u64,
    truth: Duration,
}

impl Machine {
    fn new(bears: u64, commands: u64, rules: Rules) -> Machine {
        let (calm, controller) = (Duration::from_millis(4), Controller::new(rules));
        Machine { calm, bears, commands, controller, rng: Rng::new(7) }
    }

    /// An interval in which background work takes all it may, or nothing.
    fn interval(&mut self, wants: bool) -> Seen {
        let slice = self.controller.slice();
        let rate = if wants { slice.bytes_per_s.min(64 * self.bears) } else { 0 };
        let used = (rate as f64 * INTERVAL.as_secs_f64()) as u64;
        let truth = self.calm.mul_f64(1.0 + rate as f64 / self.bears as f64);
        // Nineteen of twenty take a quarter of it, the rest up to a fifth more.
        let times = (0..self.commands).map(|_| match self.rng.below(20) {
            0 => truth.mul_f64(0.4 + self.rng.below(80) as f64 / 100.0),
            _ => truth / 4,
        });
        let seen: Counts = times.collect();
        self.controller.step(&seen, used, wants);
        Seen { slice, used, truth }
    }

    fn run(&mut self, intervals: usize, wants: bool) -> Vec<Seen> {
        (0..intervals).map(|_| self.interval(wants)).collect()
    }
}

#[test]
fn the_slice_settles_where_the_foreground_keeps_its_limit_and_stays_near() {
    for bears in [2 * MIB, 20 * MIB, 200 * MIB] {
        let mut machine = Machine::new(bears, 400, Rules::default());
        machine.run(50, false);
        machine.run(150, true);
        let steady = machine.run(500, true);
        let working: Vec<_> = steady.iter().filter(|seen| seen.slice.reason != Reason::Listening).collect();
        let over = working.iter().filter(|seen| seen.truth > machine.calm * 2).count();
        assert!(over * 20 < working.len(), "{over} of {} intervals over twice the calm", working.len());
        let rates: Vec<u64> = working.iter().map(|seen| seen.slice.bytes_per_s).collect();
        let (least, most) = (*rates.iter().min().unwrap(), *rates.iter().max().unwrap());
        assert!(most <= bears * 3 / 2, "{most} is more than {bears} bear");
        assert!(most <= 6 * least, "it swings between {least} and {most}");
        let mean = rates.iter().sum::<u64>() / rates.len() as u64;
        assert!(mean >= bears / 8, "{mean} leaves {bears} unused");
    }
}

#[test]
fn it_shrinks_within_two_seconds_when_the_foreground_slows_down() {
    let mut machine = Machine::new(100 * MIB, 400, Rules::default());
    machine.run(50, false);
    machine.run(200, true);
    let before = machine.controller.slice().bytes_per_s.max(1);
    machine.bears /= 50;
    let seen = machine.run(10, true);
    let slice = machine.controller.slice();
    assert!(slice.bytes_per_s < before / 8, "{before} to {slice:?}");
    assert!(seen.iter().any(|seen| matches!(seen.slice.reason, Reason::Latency | Reason::Floor)));
}

#[test]
fn there_is_a_floor_however_slow_the_foreground_is() {
    let rules = Rules { limit: Some(Duration::from_millis(1)), ..Rules::default() };
    let mut machine = Machine::new(MIB, 400, rules);
    let seen = machine.run(100, true);
    assert!(seen.iter().all(|seen| seen.slice.bytes_per_s >= rules.floor), "a fixed limit needs no listening");
    let last = seen.last().unwrap();
    assert_eq!((last.slice.bytes_per_s, last.slice.reason), (rules.floor, Reason::Floor));
    assert!(last.used > 0, "and work goes on");
}

#[test]
fn without_a_foreground_it_grows_as_far_as_it_is_used() {
    let mut machine = Machine::new(100 * MIB, 0, Rules::default());
    machine.run(100, true);
    assert_eq!(machine.controller.slice().reason, Reason::Growing);
    assert!(machine.controller.slice().bytes_per_s > 500 * MIB);
    let mut machine = Machine::new(100 * MIB, 0, Rules::default());
    (0..100).for_each(|_| machine.controller.step(&Counts::default(), 1000, true));
    assert_eq!(machine.controller.slice().bytes_per_s, START, "nobody knows whether more would be borne");
}

#[test]
fn long_work_is_held_back_to_listen_and_seldom() {
    let mut machine = Machine::new(20 * MIB, 400, Rules::default());
    let seen = machine.run(1000, true);
    assert_eq!(seen.get(1).map(|seen| seen.slice.reason), Some(Reason::Listening), "nothing is known of calm yet");
    let listening = seen.iter().filter(|seen| seen.slice.reason == Reason::Listening).count();
    assert!((50..200).contains(&listening), "{listening} of 1000");
    let calm = machine.controller.slice().calm.unwrap();
    assert!(calm >= machine.calm * 9 / 10 && calm <= machine.calm * 3 / 2, "{calm:?}");
}

#[test]
fn what_is_taken_for_calm_falls_soon_and_rises_slowly() {
    let mut machine = Machine::new(20 * MIB, 400, Rules::default());
    machine.run(100, false);
    let before = machine.controller.slice().calm.unwrap();
    machine.calm *= 10;
    machine.run(14, false);
    let after = machine.controller.slice().calm.unwrap();
    assert!(after > before && after < before * 2, "{before:?} {after:?}");
    machine.run(100, false);
    assert!(machine.controller.slice().calm.unwrap() > before * 8, "in the end it is believed");
}

#[test]
fn a_time_of_hardship_before_the_work_is_not_taken_for_calm_for_long() {
    let mut machine = Machine::new(20 * MIB, 400, Rules::default());
    machine.calm *= 40;
    machine.commands *= 50;
    machine.run(100, false);
    machine.calm /= 40;
    machine.commands /= 50;
    machine.run(60, true);
    assert!(machine.controller.slice().calm.unwrap() <= machine.calm * 3 / 2, "{:?}", machine.controller.slice());
}

#[test]
fn work_begins_anew_after_a_pause_and_idleness_is_said() {
    let mut machine = Machine::new(500 * MIB, 400, Rules::default());
    machine.run(50, false);
    assert_eq!(machine.controller.slice().reason, Reason::Idle);
    machine.run(100, true);
    assert!(machine.controller.slice().bytes_per_s > START);
    machine.run(STALE as usize + 1, false);
    assert_eq!((machine.controller.slice().bytes_per_s, machine.controller.slice().reason), (START, Reason::Idle));
}

#[test]
fn it_can_be_turned_off() {
    let mut machine = Machine::new(MIB, 400, Rules { throttle: false, ..Rules::default() });
    machine.run(10, true);
    assert_eq!(machine.controller.slice().bytes_per_s, u64::MAX);
    assert_eq!(machine.controller.slice().reason, Reason::Unlimited);
}

#[test]
fn reasons_have_names_of_their_own() {
    let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_it_sees_the_slice_keeps_its_bounds(
        steps in proptest::collection::vec((0u64..3_000_000, 0u64..500, 0u64..10_000_000, any::<bool>()), 1..200)
    ) {
        let rules = Rules::default();
        let mut controller = Controller::new(rules);
        for (us, commands, used, wanted) in steps {
            let seen = std::iter::repeat_n(Duration::from_micros(us), commands as usize).collect();
            controller.step(&seen, used, wanted);
            let slice = controller.slice();
            prop_assert!(slice.reason == Reason::Listening || slice.bytes_per_s >= rules.floor);
            prop_assert!(slice.bytes_per_s <= MOST);
        }
    }
}

/// Takes `pieces` of `bytes` while a clock that is paused steps the gate; answers how long that took.
async fn take_all(admission: &std::sync::Arc<Admission>, work: Work, pieces: u64, bytes: u64) -> Duration {
    let began = Instant::now();
    let stepping = async {
        loop {
            sleep(INTERVAL).await;
            admission.step();
        }
    };
    let taking = async {
        for _ in 0..pieces {
            admission.take(work, bytes).await;
        }
    };
    tokio::select! {
        () = stepping => {}
        () = taking => {}
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn the_gate_lets_through_a_slice_a_second_and_no_more() {
    let rules = Rules { limit: Some(Duration::from_micros(1)), floor: MIB, ..Rules::default() };
    let admission = std::sync::Arc::new(Admission::new(rules));
    // A foreground that is always too slow keeps it at the floor.
    let load = admission.clone();
    let slow = tokio::spawn(async move {
        loop {
            (0..50).for_each(|_| load.note(Duration::from_millis(50)));
            sleep(INTERVAL / 4).await;
        }
    });
    take_all(&admission, Work::Repair, 100, MIB / 4).await;
    assert_eq!(admission.slice().reason, Reason::Floor);
    let took = take_all(&admission, Work::Repair, 80, MIB / 4).await;
    assert!((19.0..22.0).contains(&took.as_secs_f64()), "20 MiB at 1 MiB a second took {took:?}");
    assert!(admission.throttled() > Duration::from_secs(15));
    slow.abort();
}

#[tokio::test(start_paused = true)]
async fn what_commands_wait_for_is_not_held_back_by_repairs_and_holds_them_back_by_a_second() {
    let rules = Rules { limit: Some(Duration::from_micros(1)), floor: MIB, ..Rules::default() };
    let admission = std::sync::Arc::new(Admission::new(rules));
    let load = admission.clone();
    let slow = tokio::spawn(async move {
        loop {
            (0..50).for_each(|_| load.note(Duration::from_millis(50)));
            sleep(INTERVAL / 4).await;
        }
    });
    take_all(&admission, Work::Repair, 100, MIB / 4).await;
    let repairs = admission.clone();
    let waiting = tokio::spawn(async move { repairs.take(Work::Repair, 64 * MIB).await });
    let took = take_all(&admission, Work::Settling, 128, MIB / 4).await;
    assert!((1.5..3.0).contains(&took.as_secs_f64()), "32 MiB at 16 MiB a second took {took:?}");
    waiting.abort();

    let fresh = std::sync::Arc::new(Admission::new(rules));
    take_all(&fresh, Work::Settling, 128, MIB / 4).await;
    let began = Instant::now();
    take_all(&fresh, Work::Repair, 1, 1).await;
    assert!(began.elapsed() < Duration::from_millis(1300), "{:?}", began.elapsed());
    slow.abort();
}

#[tokio::test(start_paused = true)]
async fn pieces_go_through_in_the_order_in_which_they_were_asked_for() {
    let admission = std::sync::Arc::new(Admission::new(Rules::default()));
    let order = std::sync::Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for at in 0..8 {
        let (admission, order) = (admission.clone(), order.clone());
        tasks.push(tokio::spawn(async move {
            admission.take(Work::Repair, 3 * MIB).await;
            order.lock().push(at);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.lock(), (0..8).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_open_gate_costs_no_time_and_one_who_leaves_takes_nothing() {
    let admission = Admission::new(Rules { throttle: false, ..Rules::default() });
    admission.step();
    let began = Instant::now();
    for _ in 0..1000 {
        admission.take_rows(Work::Repair, 1000, 1 << 30).await;
    }
    assert_eq!(began.elapsed(), Duration::ZERO);

    let admission = Admission::new(Rules::default());
    admission.take(Work::Repair, 40 * MIB).await;
    let began = Instant::now();
    admission.take_rows_within(Work::Repair, 1, 0, Duration::from_millis(300)).await;
    assert_eq!(began.elapsed(), Duration::from_millis(300), "who is waited for waits no longer");
    assert!(tokio::time::timeout(Duration::from_secs(1), admission.take(Work::Repair, 1 << 40)).await.is_err());
    let began = Instant::now();
    admission.take(Work::Repair, 1).await;
    assert!(began.elapsed() < Duration::from_secs(12), "what gave up waiting was not taken");
}
