//! The main job over two cells, each a Postgres server of its own with a ledger in front of it: one account lives in
//! the second one. Judged like any run of it (every charge and lot of both against the recount and the naive model,
//! every invariant of both), and by the two databases, which have to agree batch for batch.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result, ensure};
use drawdown_client::clients::metering;
use drawdown_proto::metering::v1::{GetMeteringStatusRequest, RecordOutcome, RecordedUsage};
use drawdown_tests::{
    crash::settled_charges,
    installation::{Service, Settings},
    process::{Program, wait_until},
    run::{REPLAY_LIMIT, Run},
};
use sqlx::{Connection as _, PgConnection};

use crate::{
    callers::{CALLERS, CALLS_EACH, LIMIT, call_all, calls_of, ids},
    main_job::pass,
};

/// Log seconds in a second: the whole log, three and a half days, in some ten seconds.
const PACED: &str = "30000";
/// Charges that are settled before a fault.
const IN_THE_MIDDLE: usize = 500;

/// Number, digest, totals and events of each batch; every lane's position.
type Books = (Vec<(i32, i64, Vec<u8>, String, i64)>, Vec<(i32, String, i64, i64)>);

/// The gate's books in each database.
async fn books(run: &Run) -> Result<Vec<Books>> {
    let mut all = Vec::new();
    for url in run.installation.databases() {
        let mut at = PgConnection::connect(url).await?;
        let batches = sqlx::query_as(
            "select shard, number, digest, totals::text, events + refused + elsewhere_events
             from ledger.settlement_batch order by shard, number",
        );
        let lanes = sqlx::query_as(
            "select shard, producer_id::text || map_version, settled, chain from ledger.lane_settled order by 1, 2",
        );
        all.push((batches.fetch_all(&mut at).await?, lanes.fetch_all(&mut at).await?));
        at.close().await?;
    }
    Ok(all)
}

/// The last batch of each shard in a database.
async fn last_batches(url: &str) -> Result<BTreeMap<u32, u64>> {
    let mut at = PgConnection::connect(url).await?;
    let rows: Vec<(i32, i64)> =
        sqlx::query_as("select shard, last_batch from ledger.shard_cursor").fetch_all(&mut at).await?;
    at.close().await?;
    rows.into_iter().map(|(shard, last)| Ok((shard.try_into()?, last.try_into()?))).collect()
}

/// No batch is retired that the second cell lacks, and the first is at most one ahead.
async fn nothing_is_retired_without(run: &Run) -> Result<()> {
    let mut usage = metering::usage(&run.installation.channels().metering);
    let status = usage.get_metering_status(GetMeteringStatusRequest {}).await?.into_inner();
    let databases = run.installation.databases();
    let (leading, other) = (last_batches(databases[0]).await?, last_batches(databases[1]).await?);
    for shard in status.shards {
        let last = other.get(&shard.shard).copied().unwrap_or_default();
        let retired = shard.open_batch.saturating_sub(1 + u64::from(shard.sealed_batches));
        ensure!(retired <= last, "shard {}: {retired} is retired, cell 1 has {last}", shard.shard);
        let ahead = leading.get(&shard.shard).copied().unwrap_or_default();
        ensure!(ahead <= last + 1, "shard {}: {ahead} is settled, cell 1 has {last}", shard.shard);
    }
    Ok(())
}

/// Events that are charged in a database, or kept without a payer.
async fn recorded_events(url: &str) -> Result<i64> {
    let mut at = PgConnection::connect(url).await?;
    let sql = "select (select coalesce(sum(events), 0)::bigint from ledger.charge)
                    + (select coalesce(sum(events), 0)::bigint from ledger.unattributed)";
    let events = sqlx::query_scalar(sql).fetch_one(&mut at).await?;
    at.close().await?;
    Ok(events)
}

/// The run is judged, and both databases agree.
async fn judge(run: Run, mut replay: Program) -> Result<()> {
    let status = replay.wait(REPLAY_LIMIT).await.with_context(|| run.installation.logs())?;
    ensure!(status.success(), "replay ended with {status}; {}", replay.log_tail());
    pass(run.judge().await?)?;
    let books = books(&run).await?;
    ensure!(books.len() == 2 && !books[0].0.is_empty(), "there are not two cells with batches");
    ensure!(books[0] == books[1], "the cells differ: {books:#?}");
    let databases = run.installation.databases();
    let (leading, other) = (recorded_events(databases[0]).await?, recorded_events(databases[1]).await?);
    let refused: i64 = {
        let mut at = PgConnection::connect(databases[0]).await?;
        let sql = "select coalesce(sum(refused), 0)::bigint from ledger.settlement_batch";
        sqlx::query_scalar(sql).fetch_one(&mut at).await?
    };
    let accepted: i64 = books[0].1.iter().map(|(_, _, settled, _)| settled).sum();
    ensure!(leading > 0 && other > 0, "{leading} and {other}: one of the cells has nothing");
    ensure!(leading + other + refused == accepted, "{leading} + {other} + {refused} is not {accepted}");
    run.installation.stop().await
}

async fn in_the_middle() -> Result<(Run, Program)> {
    let run = Run::prepare(&Settings::two_cells()).await?;
    let mut replay = run.start_replay(PACED)?;
    let part = wait_until("a part of the log to be settled", REPLAY_LIMIT, || async {
        Ok(settled_charges(&run).await? > IN_THE_MIDDLE)
    });
    part.await.with_context(|| run.installation.logs())?;
    ensure!(replay.is_running()?, "the replay was over before the fault; {}", replay.log_tail());
    Ok((run, replay))
}

/// Waits until metering holds more than it did, with nothing settled.
async fn piles_up(run: &Run) -> Result<()> {
    let before = last_batches(run.installation.databases()[1]).await?;
    let waiting = || async {
        nothing_is_retired_without(run).await?;
        let mut usage = metering::usage(&run.installation.channels().metering);
        let status = usage.get_metering_status(GetMeteringStatusRequest {}).await?.into_inner();
        Ok(status.shards.iter().map(|shard| shard.unsettled_events).sum::<u64>() > 300)
    };
    wait_until("usage to pile up", REPLAY_LIMIT, waiting).await.with_context(|| run.installation.logs())?;
    ensure!(last_batches(run.installation.databases()[1]).await? == before, "a cell that is down settled");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undisturbed_run_over_two_cells_equals_the_recount() -> Result<()> {
    let run = Run::prepare(&Settings::two_cells()).await?;
    let replay = run.start_replay("max")?;
    judge(run, replay).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cell_that_is_killed_and_comes_back_changes_no_sum() -> Result<()> {
    let (mut run, replay) = in_the_middle().await?;
    run.installation.kill_service(Service::OtherLedger)?;
    piles_up(&run).await?;
    run.installation.start_service(Service::OtherLedger).await?;
    judge(run, replay).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cell_metering_and_redis_killed_at_once_change_no_sum() -> Result<()> {
    let (mut run, replay) = in_the_middle().await?;
    run.installation.kill_service(Service::OtherLedger)?;
    piles_up(&run).await?;
    run.installation.kill_service(Service::Metering)?;
    tokio::task::block_in_place(|| {
        run.installation.sandbox().redis().kill9()?;
        run.installation.sandbox().redis().start_empty()
    })?;
    run.installation.start_service(Service::OtherLedger).await?;
    run.installation.start_service(Service::Metering).await?;
    judge(run, replay).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leading_cell_killed_and_back_changes_no_sum() -> Result<()> {
    let (mut run, replay) = in_the_middle().await?;
    run.installation.kill_service(Service::Ledger)?;
    run.installation.start_service(Service::Ledger).await?;
    judge(run, replay).await
}

/// Callers without a log, on apps of both cells: each ledger dies under their calls, and each event is recorded once, in
/// one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_by_id_are_recorded_in_one_cell_whichever_is_killed_under_their_callers() -> Result<()> {
    let mut run = Run::prepare(&Settings::two_cells()).await?;
    let series: Vec<_> =
        run.platform.clients.values().map(|client| (client.clone(), "web.call".to_owned())).collect();
    let calls: Vec<_> = (0..CALLERS).map(|caller| Arc::new(calls_of(caller, &series))).collect();
    let (channel, answered) = (run.installation.channels().metering.clone(), Arc::new(AtomicUsize::new(0)));
    let start = |calls: &Arc<Vec<_>>| {
        tokio::spawn(call_all(channel.clone(), Arc::clone(calls), Arc::clone(&answered)))
    };
    let callers: Vec<_> = calls.iter().map(start).collect();
    for (number, victim) in (1..).zip([Service::OtherLedger, Service::Ledger, Service::Metering]) {
        let due = CALLERS * CALLS_EACH * number / 4;
        let calls = || async { Ok(answered.load(Ordering::Relaxed) >= due) };
        let waited = wait_until("calls to be answered", LIMIT, calls).await;
        waited.with_context(|| run.installation.logs())?;
        run.installation.kill_service(victim)?;
        run.installation.start_service(victim).await?;
    }
    let mut first = Vec::new();
    for caller in callers {
        first.push(caller.await??.0);
    }
    let again: Vec<_> = calls.iter().map(start).collect();
    for (again, first) in again.into_iter().zip(first) {
        let (again, _) = again.await??;
        for (first, again) in first.into_iter().flatten().zip(again.into_iter().flatten()) {
            let told =
                |answer: &RecordedUsage| (answer.outcome(), answer.charge_id.clone(), answer.recorded_at);
            ensure!(first.outcome() == RecordOutcome::Recorded, "{first:?}");
            ensure!(again.already_recorded && told(&again) == told(&first), "{first:?}, then {again:?}");
        }
    }
    let events = calls.iter().flat_map(|calls| calls.iter()).map(Vec::len).sum::<usize>();
    let databases = run.installation.databases();
    let (leading, other) = (ids(databases[0]).await?, ids(databases[1]).await?);
    ensure!(leading > 0 && other > 0, "{leading} and {other}: one of the cells has nothing");
    ensure!(leading + other == i64::try_from(events)?, "{leading} + {other} ids, {events} events");
    let settled: i64 = recorded_events(databases[0]).await? + recorded_events(databases[1]).await?;
    ensure!(settled == i64::try_from(events)?, "{settled} settled, {events} events");
    run.installation.stop().await
}
