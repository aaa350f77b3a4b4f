//! The main job with one part of it killed in the middle, judged like an undisturbed run.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{
    installation::{Service, Settings},
    process::wait_until,
    report::{Summary, charges},
    run::{REPLAY_LIMIT, Run},
};

/// Log seconds in a second: the whole log, three and a half days, in some ten seconds.
const PACED: &str = "30000";
const SETTLING_LIMIT: Duration = Duration::from_secs(60);

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The metering service.
    Metering,
    /// The ledger service.
    Ledger,
    /// Redis, and its data with it.
    Redis,
    /// The process that replays the log.
    Replay,
}

impl Victim {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Metering, Self::Ledger, Self::Redis, Self::Replay];
}

/// Charges that the ledger has, over all teams.
///
/// # Errors
/// Where the ledger does not answer.
pub async fn settled_charges(run: &Run) -> Result<usize> {
    let mut all = 0;
    for (name, team) in &run.platform.teams {
        all += charges(&run.installation.channels().of_team(name), team).await?.len();
    }
    Ok(all)
}

/// Runs the main job, kills `victim` once `after_charges` are settled, lets everything come back and
/// returns what the ledger says with every difference from the recount.
///
/// # Errors
/// Where the fault came too late, or something does not come back.
pub async fn disturbed(victim: Victim, after_charges: usize) -> Result<(Summary, Vec<String>)> {
    let mut run = Run::prepare(&Settings::default()).await?;
    let mut replay = run.start_replay(PACED)?;
    let part = wait_until("a part of the log to be settled", SETTLING_LIMIT, || async {
        Ok(settled_charges(&run).await? > after_charges)
    });
    part.await.with_context(|| run.installation.logs())?;
    ensure!(replay.is_running()?, "the replay was over before the fault; {}", replay.log_tail());
    match victim {
        Victim::Metering => restart(&mut run, Service::Metering).await?,
        Victim::Ledger => restart(&mut run, Service::Ledger).await?,
        Victim::Redis => tokio::task::block_in_place(|| {
            run.installation.sandbox().redis().kill9()?;
            run.installation.sandbox().redis().start_empty()
        })?,
        Victim::Replay => {
            replay.kill()?;
            replay = run.start_replay("max")?;
        }
    }
    let status = replay.wait(REPLAY_LIMIT).await.with_context(|| run.installation.logs())?;
    ensure!(status.success(), "replay ended with {status}; {}", replay.log_tail());
    let judged = run.judge().await?;
    run.installation.stop().await?;
    Ok(judged)
}

async fn restart(run: &mut Run, service: Service) -> Result<()> {
    run.installation.kill_service(service)?;
    run.installation.start_service(service).await
}
