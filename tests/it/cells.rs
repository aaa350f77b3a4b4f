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
use drawdown_client::clients::{entitlement, ledger, metering};
use drawdown_proto::{
    entitlement::v1::{AccessAnswer, AccessLevel, AccessQuestion, CheckAccessRequest},
    ledger::v1::{GetBalanceRequest, PurchaseTokensRequest},
    metering::v1::{GetMeteringStatusRequest, RecordOutcome, RecordedUsage},
};
use drawdown_tests::{
    crash::settled_charges,
    installation::{Service, Settings},
    process::{Program, wait_until},
    run::{REPLAY_LIMIT, Run},
    scenario::{APPS, CALL, TEAMS},
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

/// Whoever asks for access of the first app of an account: its team, and the answer.
struct Asker<'a> {
    run: &'a Run,
    account: &'static str,
    team: &'static str,
    client_id: &'a str,
}

impl<'a> Asker<'a> {
    fn of(run: &'a Run, account: &'static str) -> Result<Self> {
        let of_account = |team: &str| TEAMS.iter().any(|(name, of)| *name == team && *of == account);
        let app = APPS.iter().find(|app| of_account(app.team)).context("the account has no app")?;
        let client_id = run.platform.clients.get(app.name).context("the app has no client id")?;
        Ok(Self { run, account, team: app.team, client_id })
    }

    async fn ask(&self) -> Result<AccessAnswer> {
        let question =
            AccessQuestion { client_id: self.client_id.to_owned(), meter: CALL.to_owned(), quantity: 1 };
        let mut access = entitlement::access(&self.run.installation.channels().entitlement);
        let request = CheckAccessRequest { question: Some(question), with_billed_to: false };
        access.check_access(request).await?.into_inner().answer.context("no answer")
    }

    /// Waits until the answer is one of what its own ledger says, or is stale.
    async fn becomes(&self, stale: bool) -> Result<AccessAnswer> {
        let told = || async {
            let answer = self.ask().await?;
            Ok(answer.stale == stale && (stale || answer.balance_micros == Some(self.balance().await?)))
        };
        let waited = wait_until("an answer of its own ledger", REPLAY_LIMIT, told).await;
        waited
            .with_context(|| format!("{} stale={stale}: {}", self.account, self.run.installation.logs()))?;
        self.ask().await
    }

    async fn balance(&self) -> Result<i64> {
        let channels = self.run.installation.channels().of_team(self.team);
        let request = GetBalanceRequest { team_id: self.team_id()?, ..GetBalanceRequest::default() };
        let balance = ledger::token(&channels.ledger).get_balance(request).await?.into_inner().balance;
        Ok(balance.context("no balance")?.balance_micros)
    }

    fn team_id(&self) -> Result<String> {
        self.run.platform.teams.get(self.team).cloned().context("no such team")
    }

    async fn buys(&self, tokens: i64) -> Result<()> {
        let channels = self.run.installation.channels().of_team(self.team);
        let account_id = self.run.platform.accounts.get(self.account).cloned().context("no such account")?;
        let request = PurchaseTokensRequest {
            account_id,
            team_id: self.team_id()?,
            tokens,
            request_id: format!("more-for-{}", self.team),
            ..PurchaseTokensRequest::default()
        };
        ledger::token(&channels.ledger).purchase_tokens(request).await?;
        Ok(())
    }
}

/// D58 over two cells: each ledger dies in turn, and the accounts of the other one are answered as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_follows_both_ledgers_and_one_that_is_down_makes_its_own_accounts_stale() -> Result<()> {
    let settings = Settings {
        services: vec![Service::Ledger, Service::OtherLedger, Service::Entitlement],
        further_toml: "[entitlement.access]\nage_max_ms = 1500\n".to_owned(),
        ..Settings::two_cells()
    };
    let mut run = Run::prepare(&settings).await?;
    for (down, there, up) in
        [(Service::OtherLedger, "Lakeside", "Northwind"), (Service::Ledger, "Northwind", "Lakeside")]
    {
        for account in [there, up] {
            let fresh = Asker::of(&run, account)?.becomes(false).await?;
            ensure!(fresh.level() == AccessLevel::Full, "{account}: {fresh:?}");
        }
        run.installation.kill_service(down)?;
        let stale = Asker::of(&run, there)?.becomes(true).await?;
        ensure!(stale.balance_micros.is_some(), "what is known is told all the same: {stale:?}");
        let up = Asker::of(&run, up)?;
        let answer = up.ask().await?;
        ensure!(!answer.stale, "{answer:?} hangs on the ledger that is down");
        up.buys(100).await?;
        up.becomes(false).await?;
        ensure!(Asker::of(&run, there)?.ask().await?.stale, "{there} was heard from nobody");
        run.installation.start_service(down).await?;
    }
    Asker::of(&run, "Northwind")?.becomes(false).await?;
    run.installation.stop().await
}
