//! The main job as real processes: undisturbed, and with each part killed in the middle of it.
//!
//! Every run is judged the same way: quantities and tokens equal the recount, lots equal the naive model
//! over the charges in their recorded order, every invariant holds.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use drawdown_tests::{
    installation::{Service, Settings},
    process::{Program, wait_until},
    report::charges,
    run::{REPLAY_LIMIT, Run},
};

/// Log seconds in a second: the whole log, three and a half days, in some ten seconds.
const PACED: &str = "30000";
const SETTLING_LIMIT: Duration = Duration::from_secs(60);

async fn settled_charges(run: &Run) -> Result<usize> {
    let mut all = 0;
    for team in run.platform.teams.values() {
        all += charges(run.installation.channels(), team).await?.len();
    }
    Ok(all)
}

/// Waits until the ledger has a part of the log.
async fn until_in_the_middle(run: &Run) -> Result<()> {
    wait_until("a part of the log to be settled", SETTLING_LIMIT, || async {
        Ok(settled_charges(run).await? > 500)
    })
    .await
    .with_context(|| run.installation.logs())
}

async fn finish(run: &Run, mut replay: Program) -> Result<()> {
    let status = replay.wait(REPLAY_LIMIT).await.with_context(|| run.installation.logs())?;
    ensure!(status.success(), "replay ended with {status}; {}", replay.log_tail());
    judge(run).await
}

async fn judge(run: &Run) -> Result<()> {
    let (summary, differences) = run.judge().await?;
    ensure!(differences.is_empty(), "{differences:#?}\n{summary:#?}\n{}", run.installation.logs());
    ensure!(summary.verify_violations == 0, "verify found {}", summary.verify_violations);
    Ok(())
}

async fn still_replaying(replay: &mut Program) -> Result<()> {
    ensure!(replay.is_running()?, "the replay was over before the fault; {}", replay.log_tail());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undisturbed_run_equals_the_recount_and_a_second_one_adds_nothing() -> Result<()> {
    let run = Run::prepare(&Settings::default()).await?;
    run.replay("max").await?;
    judge(&run).await?;
    let before = settled_charges(&run).await?;
    run.replay("max").await?;
    ensure!(settled_charges(&run).await? == before, "the second run added charges");
    run.installation.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metering_killed_in_the_middle_changes_no_sum() -> Result<()> {
    let mut run = Run::prepare(&Settings::default()).await?;
    let mut replay = run.start_replay(PACED)?;
    until_in_the_middle(&run).await?;
    still_replaying(&mut replay).await?;
    run.installation.kill_service(Service::Metering)?;
    run.installation.start_service(Service::Metering).await?;
    finish(&run, replay).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_killed_in_the_middle_changes_no_sum() -> Result<()> {
    let mut run = Run::prepare(&Settings::default()).await?;
    let mut replay = run.start_replay(PACED)?;
    until_in_the_middle(&run).await?;
    still_replaying(&mut replay).await?;
    run.installation.kill_service(Service::Ledger)?;
    run.installation.start_service(Service::Ledger).await?;
    finish(&run, replay).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_and_emptied_in_the_middle_changes_no_sum() -> Result<()> {
    let run = Run::prepare(&Settings::default()).await?;
    let mut replay = run.start_replay(PACED)?;
    until_in_the_middle(&run).await?;
    still_replaying(&mut replay).await?;
    tokio::task::block_in_place(|| {
        run.installation.sandbox().redis().kill9()?;
        run.installation.sandbox().redis().start_empty()
    })?;
    finish(&run, replay).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replay_killed_in_the_middle_goes_on_at_the_next_line() -> Result<()> {
    let run = Run::prepare(&Settings::default()).await?;
    let mut replay = run.start_replay(PACED)?;
    until_in_the_middle(&run).await?;
    still_replaying(&mut replay).await?;
    replay.kill()?;
    run.replay("max").await?;
    judge(&run).await
}
