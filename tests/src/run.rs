//! One run of the main job: set-up, replay, settlement, verdict.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use drawdown_types::{Clock as _, SystemClock};

use crate::{
    installation::{Installation, Settings},
    platform::{Platform, set_up},
    process::Program,
    replay::{Trial, command, counts},
    report::{Summary, summarize},
    verdict::differences,
};

/// How long a whole replay may take until it is settled.
pub const REPLAY_LIMIT: Duration = Duration::from_secs(120);

/// An installation with the scenario entered, ready for the replay.
#[derive(Debug)]
pub struct Run {
    /// The processes.
    pub installation: Installation,
    /// The ids.
    pub platform: Platform,
    /// The log and what it has to come to.
    pub trial: Trial,
}

impl Run {
    /// Starts everything and enters the scenario for a log that ends now.
    ///
    /// # Errors
    /// Where something does not start or refuses the set-up.
    pub async fn prepare(settings: &Settings) -> Result<Self> {
        let installation = Installation::start(settings).await?;
        let trial = Trial::ending_at(SystemClock.now())?;
        let platform =
            set_up(installation.channels(), &trial.scenario).await.with_context(|| installation.logs())?;
        Ok(Self { installation, platform, trial })
    }

    /// Starts the replay.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_replay(&self, speed: &str) -> Result<Program> {
        let command = command(&self.installation, &self.platform, &self.trial, speed)?;
        Program::start("replay", command, self.installation.dir())
    }

    /// Replays the whole log and waits until all of it is settled.
    ///
    /// # Errors
    /// Where the replay fails.
    pub async fn replay(&self, speed: &str) -> Result<()> {
        let mut replay = self.start_replay(speed)?;
        let status = replay.wait(REPLAY_LIMIT).await.with_context(|| self.installation.logs())?;
        ensure!(
            status.success(),
            "replay ended with {status}; {}\n{}",
            replay.log_tail(),
            self.installation.logs()
        );
        Ok(())
    }

    /// What the ledger says, and every difference from recount and model.
    ///
    /// # Errors
    /// Where the ledger does not answer.
    pub async fn judge(&self) -> Result<(Summary, Vec<String>)> {
        let mut summary = summarize(self.installation.channels(), &self.platform).await?;
        let counted = counts(&self.installation)?;
        summary.malformed_lines = counted.malformed;
        summary.ignored_lines = counted.ignored;
        summary.first_event_to_settled_ms = counted.first_event_to_settled_ms.unwrap_or_default();
        let found =
            differences(self.installation.channels(), &self.platform, &summary, &self.trial.recount).await?;
        Ok((summary, found))
    }
}
