use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use drawdown_client::producer::Progress;
use drawdown_types::ManualClock;

use proptest::{prelude::*, test_runner::TestRunner};

use super::*;
use crate::progress::Unwatched;

/// A log in memory that dies after so many operations and keeps some of the last ones, as a killed
/// process would.
#[derive(Debug, Default)]
struct Memory {
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    operations: Vec<Operation>,
    dies_after: Option<usize>,
    /// Every this many appends the log has no room once.
    full_every: Option<usize>,
    refusals: usize,
    durable: usize,
}

/// An event if there was one, and a mark.
#[derive(Clone, Debug)]
struct Operation {
    event: Option<Event>,
    source: Vec<u8>,
    position: Vec<u8>,
}

type Event = (String, String, u64, i64, Outcome, Vec<(String, String)>);

impl Memory {
    fn take(&self, event: Option<Event>, mark: Mark<'_>) -> Result<(), AppendError> {
        let mut state = self.state.lock().unwrap();
        if state.dies_after.is_some_and(|most| state.operations.len() >= most) {
            return Err(AppendError::Closed);
        }
        let (source, position) = (mark.source.to_vec(), mark.position.to_vec());
        state.operations.push(Operation { event, source, position });
        Ok(())
    }

    fn events(&self) -> Vec<Event> {
        self.state.lock().unwrap().operations.iter().filter_map(|operation| operation.event.clone()).collect()
    }

    /// The log of the next process: some of what was not durable is gone.
    fn after_crash(&self, kept: usize) -> Self {
        let state = self.state.lock().unwrap();
        let kept = kept.clamp(state.durable, state.operations.len());
        let operations = state.operations[..kept].to_vec();
        Self { state: Mutex::new(State { operations, durable: kept, ..State::default() }) }
    }

    fn dies_after(self, more: usize) -> Self {
        let mut state = self.state.into_inner().unwrap();
        state.dies_after = Some(state.operations.len() + more);
        Self { state: Mutex::new(state) }
    }
}

impl Sink for Memory {
    fn append(&self, usage: &Usage<'_>, mark: Mark<'_>) -> Result<Appended, AppendError> {
        {
            let mut state = self.state.lock().unwrap();
            if let Some(every) = state.full_every
                && state.operations.len().is_multiple_of(every)
                && state.refusals <= state.operations.len() / every
            {
                state.refusals += 1;
                return Err(AppendError::Full { kept_bytes: 1, kept_bytes_max: 1 });
            }
        }
        let dimensions = usage.dimensions.iter();
        let event = (
            usage.client_id.to_owned(),
            usage.meter.to_owned(),
            usage.quantity,
            usage.at.as_micros(),
            usage.outcome,
            dimensions.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        );
        self.take(Some(event), mark).map(|()| Appended::Taken)
    }

    fn mark(&self, mark: Mark<'_>) -> Result<(), AppendError> {
        self.take(None, mark)
    }

    fn mark_of(&self, source: &[u8]) -> Option<Vec<u8>> {
        let state = self.state.lock().unwrap();
        state.operations.iter().rfind(|operation| operation.source == source).map(|o| o.position.clone())
    }

    async fn ready(&self) -> Result<(), WaitError> {
        Ok(())
    }

    async fn flush(&self) -> Result<(), WaitError> {
        let mut state = self.state.lock().unwrap();
        if state.dies_after.is_some_and(|most| state.operations.len() >= most) {
            return Err(WaitError::Closed);
        }
        state.durable = state.operations.len();
        Ok(())
    }

    async fn await_settled(&self) -> Result<(), WaitError> {
        self.flush().await
    }

    fn progress(&self) -> Progress {
        let events = u64::try_from(self.events().len()).unwrap();
        Progress { appended: events, durable: events, settled: events, ..Progress::default() }
    }
}

const RULES: &str = "
[[rule]]
path_prefix = '/ignored'
ignore = true
[[rule]]
path_prefix = '/bytes'
client_id = 'client_b'
meter = 'web.egress'
quantity = 'bytes'
dimensions = { region = 'eu' }
[[rule]]
client_id = 'client_a'
meter = 'web.call'
";

fn options(path: &Path) -> Options {
    Options::new(Input::File(path.to_owned()), Rules::parse(RULES).unwrap())
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()))
}

async fn run(options: Options, log: &Memory) -> Result<ReplaySummary, ReplayError> {
    replay(options, log, clock(), &mut Unwatched).await
}

fn line(second: u32, path: &str, status: u16, bytes: &str) -> String {
    format!(
        "192.0.2.1 - - [17/May/2015:10:00:{second:02} +0000] \"GET {path} HTTP/1.1\" {status} {bytes} \"-\" \"x\"\n"
    )
}

/// Eight lines: 5 events (two of them of the same line twice), 2 malformed, 1 ignored.
fn text() -> String {
    [
        line(1, "/a", 200, "5"),
        line(2, "/bytes", 200, "-"),
        "cut\n".to_owned(),
        line(3, "/ignored", 200, "5"),
        line(4, "/bytes", 500, "1024"),
        line(5, "/a", 200, "5"),
        line(5, "/a", 200, "5"),
        line(6, "/bytes", 200, "999999999999999999"),
    ]
    .concat()
}

fn file(text: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

const WHOLE: Tally = Tally { lines: 8, events: 5, malformed: 2, ignored: 1 };

#[tokio::test]
async fn every_line_is_counted_as_what_it_is() {
    let (dir, path) = file(text().as_bytes());
    let log = Memory::default();
    let summary_path = dir.path().join("summary.json");
    let options = Options { summary: Some(summary_path.clone()), ..options(&path) };
    let summary = run(options, &log).await.unwrap();
    assert_eq!((summary.tally, summary.this_run), (WHOLE, WHOLE));
    let places: Vec<u64> = summary.first_malformed.iter().map(|malformed| malformed.line).collect();
    assert_eq!(places, [3, 8]);
    assert_eq!(summary.settled, 5);
    assert!(summary.first_event_to_settled_ms.is_some());
    let events = log.events();
    let second = |second: i64| (1_431_856_800 + second) * 1_000_000;
    let region = vec![("region".to_owned(), "eu".to_owned())];
    let b = |quantity, at, outcome| {
        ("client_b".to_owned(), "web.egress".to_owned(), quantity, at, outcome, region.clone())
    };
    assert_eq!(events[1], b(0, second(2), Outcome::Succeeded));
    assert_eq!(events[2], b(1024, second(4), Outcome::Failed));
    assert_eq!(events[3], events[4], "lines that repeat are usage every time");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(summary_path).unwrap()).unwrap();
    let told = ["lines", "events", "malformed", "ignored", "settled"].map(|name| json[name].as_u64());
    assert_eq!(told, [Some(8), Some(5), Some(2), Some(1), Some(5)]);
}

#[tokio::test]
async fn a_second_run_adds_nothing_and_says_so_wherever_the_log_lies() {
    let (dir, path) = file(text().as_bytes());
    let log = Memory::default();
    run(options(&path), &log).await.unwrap();
    let copy = dir.path().join("renamed.log");
    std::fs::copy(&path, &copy).unwrap();
    let zipped = dir.path().join("access.log.gz");
    let mut encoder =
        flate2::write::GzEncoder::new(std::fs::File::create(&zipped).unwrap(), flate2::Compression::fast());
    encoder.write_all(text().as_bytes()).unwrap();
    encoder.finish().unwrap();
    for path in [&path, &copy, &zipped] {
        let summary = run(options(path), &log).await.unwrap();
        assert_eq!((summary.tally, summary.this_run), (WHOLE, Tally::default()));
        assert!(summary.to_string().starts_with("nothing new: all 8 lines"), "{summary}");
        assert_eq!(log.events().len(), 5);
    }
    // On purpose, it is counted again.
    let again = Options { from_start: true, ..options(&path) };
    let summary = run(again, &log).await.unwrap();
    assert_eq!((summary.tally, summary.this_run), (WHOLE, WHOLE));
    assert_eq!(log.events().len(), 10);
}

#[tokio::test]
async fn a_log_that_grows_goes_on_and_another_log_is_refused() {
    let (_dir, path) = file(text().as_bytes());
    let log = Memory::default();
    run(options(&path), &log).await.unwrap();
    std::fs::write(&path, text() + &line(9, "/a", 200, "1")).unwrap();
    let summary = run(options(&path), &log).await.unwrap();
    assert_eq!(summary.this_run, Tally { lines: 1, events: 1, ..Tally::default() });
    assert_eq!(summary.tally.lines, 9);
    let other = text().replace("17/May/2015:10:00:04", "17/May/2015:11:00:04");
    std::fs::write(&path, other + &line(8, "/a", 200, "1")).unwrap();
    let outcome = run(options(&path), &log).await;
    assert!(matches!(outcome, Err(ReplayError::Source(SourceError::Changed { line: 9, .. }))));
    let named = Options { source: Some("another".to_owned()), ..options(&path) };
    assert_eq!(run(named, &log).await.unwrap().this_run.lines, 9);
}

#[tokio::test]
async fn the_shift_is_that_of_the_first_run() {
    let (_dir, path) = file(text().as_bytes());
    let log = Memory::default().dies_after(4);
    let end: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let shifted = |end| Options { shift_end: Some(ShiftEnd::At(end)), ..options(&path) };
    assert!(matches!(
        run(shifted(end), &log).await,
        Err(ReplayError::Append(AppendError::Closed)) | Err(ReplayError::Wait(WaitError::Closed))
    ));
    let log = log.after_crash(4);
    let later = end.checked_add(Duration::from_secs(3600)).unwrap();
    let summary = run(shifted(later), &log).await.unwrap();
    assert!(summary.shift_kept);
    assert_eq!(summary.tally, WHOLE);
    let events = log.events();
    // The last good line, which is the one without a usable quantity, would lie at the end.
    let last = events.iter().map(|event| event.3).max().unwrap();
    assert_eq!(last, end.as_micros() - 1_000_000);
    let now = Options { shift_end: Some(ShiftEnd::Now), from_start: true, ..options(&path) };
    let summary = run(now, &Memory::default()).await.unwrap();
    assert_eq!(summary.shift_ms, end.as_millis() - 1_431_856_806_000);
    let stdin = Options { input: Input::Stdin, ..shifted(end) };
    // Standard input of a test has no line, or a shift is refused; it never hangs on a terminal.
    let piped = shift(&stdin, &*clock()).await;
    assert!(matches!(piped, Err(ReplayError::ShiftNeedsFile)));
}

#[test]
fn a_replay_killed_anywhere_any_number_of_times_counts_every_line_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(ProptestConfig { cases: 100, ..ProptestConfig::default() });
    let lines = proptest::collection::vec((0_u32..60, 0_usize..4), 1..40);
    let kills = proptest::collection::vec((0_usize..20, 0_usize..20), 0..6);
    let plan = (lines, kills, any::<bool>(), proptest::option::of(1_usize..5));
    let outcome = runner.run(&plan, |(lines, kills, ends, full_every)| {
        let mut text: String = line(0, "/a", 200, "1");
        for (second, kind) in lines {
            text += &match kind {
                0 => "no line at all\n".to_owned(),
                1 => line(second, "/ignored/x", 200, "1"),
                2 => line(second, "/bytes", 404, "77"),
                _ => line(second, "/a", 200, "-"),
            };
        }
        if !ends {
            text.pop();
        }
        let (_dir, path) = file(text.as_bytes());
        runtime.block_on(async {
            let whole = Memory::default();
            let expected = run(options(&path), &whole).await.unwrap();
            let mut log = Memory::default();
            for (more, lost) in kills {
                log = log.dies_after(more);
                let _ = run(options(&path), &log).await;
                let kept = log.state.lock().unwrap().operations.len().saturating_sub(lost);
                log = log.after_crash(kept);
            }
            log.state.lock().unwrap().full_every = full_every;
            let summary = run(options(&path), &log).await.unwrap();
            assert_eq!(summary.tally, expected.tally);
            assert_eq!(log.events(), whole.events());
        });
        Ok(())
    });
    outcome.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_paced_replay_takes_its_time() {
    let (_dir, path) = file(text().as_bytes());
    let started = Instant::now();
    let speed = Speed::Times(std::num::NonZeroU32::new(2).unwrap());
    let summary = run(Options { speed, ..options(&path) }, &Memory::default()).await.unwrap();
    // From second 1 to second 5 of the log, at twice its speed.
    assert_eq!(summary.tally, WHOLE);
    assert_eq!(started.elapsed().as_millis(), 2_000);
}

#[tokio::test]
async fn nothing_at_all_is_no_error() {
    let (_dir, path) = file(b"");
    let log = Memory::default();
    let summary = run(options(&path), &log).await.unwrap();
    assert_eq!((summary.tally, log.events().len()), (Tally::default(), 0));
    let missing = run(options(&path.with_extension("none")), &log).await;
    assert!(matches!(missing, Err(ReplayError::Source(SourceError::Open { .. }))));
}

#[tokio::test]
async fn the_real_log_has_one_malformed_line() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/apache_access.log");
    let log = Memory::default();
    let rules = "[[rule]]\nclient_id = 'c'\nmeter = 'web.egress'\nquantity = 'bytes'";
    let options = Options::new(Input::File(path), Rules::parse(rules).unwrap());
    let summary = run(options, &log).await.unwrap();
    assert_eq!(summary.tally, Tally { lines: 10_000, events: 9_999, malformed: 1, ignored: 0 });
    assert_eq!(summary.first_malformed.first().map(|malformed| malformed.line), Some(8_899));
    let text = include_str!("../../../../tests/fixtures/apache_access.log");
    let dashes = text.lines().filter(|line| line.contains("\" 304 - \"") || line.contains(" - \"")).count();
    assert_eq!(dashes, 669, "the fixture is the one that is described");
    let zero = log.events().iter().filter(|event| event.2 == 0).count();
    assert!(zero >= 669, "{zero} events without bytes");
    let (first, last) = (log.events()[0].3, log.events().iter().map(|event| event.3).max().unwrap());
    let instant = |micros| Timestamp::from_micros(micros).unwrap().to_string();
    assert_eq!(
        (instant(first), instant(last)),
        ("2015-05-17T10:05:03Z".to_owned(), "2015-05-20T21:05:59Z".to_owned())
    );
}
