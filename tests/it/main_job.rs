//! The main job as real processes: undisturbed, and with each part killed in the middle of it.
//!
//! Every run is judged the same way: quantities and tokens equal the recount, lots equal the naive model
//! over the charges in their recorded order, every invariant holds.

use anyhow::{Result, ensure};
use drawdown_tests::{
    crash::{Victim, disturbed, settled_charges},
    installation::Settings,
    report::Summary,
    run::Run,
};

/// Charges that are settled before the fault: about a fifth of them.
const IN_THE_MIDDLE: usize = 500;

pub(crate) fn pass((summary, differences): (Summary, Vec<String>)) -> Result<()> {
    ensure!(differences.is_empty(), "{differences:#?}\n{summary:#?}");
    ensure!(summary.verify_violations == 0, "verify found {}", summary.verify_violations);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undisturbed_run_equals_the_recount_and_a_second_one_adds_nothing() -> Result<()> {
    let run = Run::prepare(&Settings::default()).await?;
    run.replay("max").await?;
    pass(run.judge().await?)?;
    let before = settled_charges(&run).await?;
    run.replay("max").await?;
    ensure!(settled_charges(&run).await? == before, "the second run added charges");
    run.installation.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metering_killed_in_the_middle_changes_no_sum() -> Result<()> {
    pass(disturbed(Victim::Metering, IN_THE_MIDDLE).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_killed_in_the_middle_changes_no_sum() -> Result<()> {
    pass(disturbed(Victim::Ledger, IN_THE_MIDDLE).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_and_emptied_in_the_middle_changes_no_sum() -> Result<()> {
    pass(disturbed(Victim::Redis, IN_THE_MIDDLE).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replay_killed_in_the_middle_goes_on_at_the_next_line() -> Result<()> {
    pass(disturbed(Victim::Replay, IN_THE_MIDDLE).await?)
}
