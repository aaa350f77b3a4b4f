//! Callers without a log, while what they call dies: metering killed several times and the ledger once, under calls.
//!
//! Each caller sends its events by id, a few at a time, and repeats a call that was not answered as it was, as the contract
//! tells it to. At the end every event is charged once, and whoever asks again hears what it heard first.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use drawdown_client::{Channel, RetryOptions, clients::metering, retry};
use drawdown_proto::{
    metering::v1::{RecordOutcome, RecordUsageRequest, RecordedUsage, Series, UsageEvent},
    scalar::timestamp_to_proto,
};
use drawdown_tests::{
    installation::{Installation, Service, Settings},
    load::{Bits, LoadSeries},
    load_platform::{self, LoadSize, ledger_totals},
    process::wait_until,
    report::charges,
};
use drawdown_types::{Clock as _, SystemClock};
use sqlx::{Connection as _, PgConnection};

const SIZE: LoadSize = LoadSize { teams: 3, apps: 9, meters: 2 };
pub(crate) const CALLERS: usize = 12;
pub(crate) const CALLS_EACH: usize = 10;
const EVENTS_PER_CALL: usize = 4;
/// What dies, in this order, evenly over the calls.
const VICTIMS: [Service; 4] = [Service::Metering, Service::Ledger, Service::Metering, Service::Metering];
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// As long as the services may be away.
const PATIENT: RetryOptions = RetryOptions { attempts_max: 1_000, pause_min_ms: 10, pause_max_ms: 100 };

/// The calls of a caller, on series by client id and meter; ids are its own.
pub(crate) fn calls_of(caller: usize, series: &[(String, String)]) -> Vec<Vec<UsageEvent>> {
    let mut bits = Bits(u64::try_from(caller).unwrap_or_default());
    let time = Some(timestamp_to_proto(SystemClock.now()));
    let mut event = |call: usize, place: usize| {
        let choice = usize::try_from(bits.draw() >> 32).unwrap_or_default() % series.len();
        let (client_id, meter) = series[choice].clone();
        UsageEvent {
            source: format!("caller-{caller}"),
            id: format!("{call}-{place}"),
            series: Some(Series { client_id, meter, ..Series::default() }),
            quantity: bits.draw() % 1_000,
            time,
        }
    };
    (0..CALLS_EACH).map(|call| (0..EVENTS_PER_CALL).map(|place| event(call, place)).collect()).collect()
}

/// What each call of a caller was answered, and how many attempts that took.
pub(crate) async fn call_all(
    channel: Channel,
    calls: Arc<Vec<Vec<UsageEvent>>>,
    answered: Arc<AtomicUsize>,
) -> Result<(Vec<Vec<RecordedUsage>>, usize)> {
    let attempts = AtomicUsize::new(0);
    let mut answers = Vec::with_capacity(calls.len());
    for events in calls.iter() {
        let answer = retry(PATIENT, || {
            attempts.fetch_add(1, Ordering::Relaxed);
            let mut client = metering::record(&channel);
            async move { client.record_usage(RecordUsageRequest { events: events.clone() }).await }
        });
        answers.push(answer.await?.into_inner().answers);
        answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok((answers, attempts.load(Ordering::Relaxed)))
}

/// Kills each victim under calls and starts it again.
async fn disturb(installation: &mut Installation, answered: &AtomicUsize) -> Result<()> {
    for (number, victim) in (1..).zip(VICTIMS) {
        let due = CALLERS * CALLS_EACH * number / (VICTIMS.len() + 1);
        let calls = || async { Ok(answered.load(Ordering::Relaxed) >= due) };
        wait_until("calls to be answered", LIMIT, calls).await.with_context(|| installation.logs())?;
        installation.kill_service(victim)?;
        installation.start_service(victim).await?;
    }
    let answered = answered.load(Ordering::Relaxed);
    ensure!(answered < CALLERS * CALLS_EACH, "all calls were over before the last fault");
    Ok(())
}

/// Ids that the ledger at this database has.
pub(crate) async fn ids(database: &str) -> Result<i64> {
    let mut at = PgConnection::connect(database).await?;
    let ids = sqlx::query_scalar("select count(*) from ledger.event").fetch_one(&mut at).await?;
    at.close().await?;
    Ok(ids)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_by_id_are_charged_once_whatever_is_killed_under_their_callers() -> Result<()> {
    let mut installation = Installation::start(&Settings::default()).await?;
    let platform = load_platform::set_up(installation.channels(), SIZE).await?;
    let series =
        |LoadSeries { client_id, meter, .. }: &LoadSeries| (client_id.to_string(), meter.to_string());
    let series: Vec<_> = platform.series.iter().map(series).collect();
    let calls: Vec<_> = (0..CALLERS).map(|caller| Arc::new(calls_of(caller, &series))).collect();
    let channel = installation.channels().metering.clone();
    let answered = Arc::new(AtomicUsize::new(0));
    let start = |calls: &Arc<Vec<Vec<UsageEvent>>>| {
        tokio::spawn(call_all(channel.clone(), Arc::clone(calls), Arc::clone(&answered)))
    };
    let callers: Vec<_> = calls.iter().map(start).collect();
    disturb(&mut installation, &answered).await?;
    let mut first = Vec::new();
    let mut attempts = 0;
    for caller in callers {
        let (answers, tried) = caller.await??;
        first.push(answers);
        attempts += tried;
    }
    ensure!(attempts > CALLERS * CALLS_EACH, "no call was cut off");

    let sent = || calls.iter().flat_map(|calls| calls.iter()).flatten();
    let (events, quantity) =
        sent().fold((0, 0), |(events, quantity), event| (events + 1, quantity + event.quantity));
    let charged = ledger_totals(installation.channels(), &platform).await?;
    ensure!(charged == (events, quantity), "charged {charged:?}, sent {:?}", (events, quantity));
    ensure!(ids(installation.databases()[0]).await? == i64::try_from(events)?, "not each id is there once");
    let mut events_of_charges = BTreeMap::new();
    for team in &platform.teams {
        let charges = charges(installation.channels(), team).await?;
        events_of_charges.extend(charges.into_iter().map(|charge| (charge.charge_id, charge.events)));
    }
    // Asked again, each hears what it heard first; and the charges that were named have just these events.
    let again: Vec<_> = calls.iter().map(start).collect();
    let mut named: BTreeMap<String, i64> = BTreeMap::new();
    for (caller, first) in again.into_iter().zip(first) {
        let (again, _) = caller.await??;
        for (first, again) in first.into_iter().flatten().zip(again.into_iter().flatten()) {
            ensure!(first.outcome() == RecordOutcome::Recorded, "{first:?}");
            *named.entry(first.charge_id.clone()).or_default() += 1;
            let expected = RecordedUsage { already_recorded: true, ..first };
            ensure!(again == expected, "first {expected:?}, then {again:?}");
        }
    }
    ensure!(named == events_of_charges, "answers named {named:?}, there are {events_of_charges:?}");
    ensure!(ledger_totals(installation.channels(), &platform).await? == (events, quantity), "charged again");
    installation.json(&["ledger", "verify"])?;
    installation.stop().await
}
