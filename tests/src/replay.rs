//! The real log, replayed by the real command.

use std::{fmt::Write as _, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use drawdown_types::Timestamp;

use crate::{
    installation::Installation,
    platform::Platform,
    recount::{Recount, period, recount},
    scenario::{APPS, CALL, IGNORED_SEGMENTS, Scenario, UNKNOWN_CLIENT, UNKNOWN_SEGMENTS},
};

/// The fixture's path.
#[must_use]
pub fn log_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/apache_access.log")
}

/// The fixture, a scenario for it, and what it has to come to.
#[derive(Debug)]
pub struct Trial {
    /// The set-up.
    pub scenario: Scenario,
    /// The recount by other code.
    pub recount: Recount,
    /// The instant that the log's last line is shifted to.
    pub shift_end: Timestamp,
}

impl Trial {
    /// Shifts the log so that it ends at `shift_end`.
    ///
    /// # Errors
    /// Where the fixture cannot be read.
    pub fn ending_at(shift_end: Timestamp) -> Result<Self> {
        let path = log_path();
        let log = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let (first, last) = period(&log)?;
        let shift_micros = shift_end.as_micros() - last * 1_000_000;
        let start = Timestamp::from_micros(first * 1_000_000 + shift_micros)?;
        let scenario = Scenario::new(start, shift_end);
        let recount = recount(&log, shift_micros, &scenario);
        Ok(Self { scenario, recount, shift_end })
    }
}

/// The rules that give each line to its app.
#[must_use]
pub fn rules_toml(platform: &Platform) -> String {
    let mut text =
        String::from("# Which line of the log is whose usage; the first rule that holds decides.\n");
    let pattern = |segments: &[&str]| format!("^/*({})(/|$)", segments.join("|").replace('.', "\\."));
    let ignored = pattern(&IGNORED_SEGMENTS);
    let _ = writeln!(text, "[[rule]]\nname = \"scans\"\npath_pattern = '{ignored}'\nignore = true\n");
    let unknown = pattern(&UNKNOWN_SEGMENTS);
    let _ = writeln!(
        text,
        "[[rule]]\nname = \"crawlers\"\npath_pattern = '{unknown}'\nclient_id = \"{UNKNOWN_CLIENT}\"\nmeter = \"{CALL}\"\n"
    );
    for app in APPS {
        let client = platform.clients.get(app.name).map_or("", String::as_str);
        let quantity = if app.meter == CALL { "one" } else { "bytes" };
        let _ = writeln!(text, "[[rule]]\nname = \"{}\"", app.name);
        if !app.segments.is_empty() {
            let _ = writeln!(text, "path_pattern = '{}'", pattern(app.segments));
        }
        let _ = writeln!(
            text,
            "client_id = \"{client}\"\nmeter = \"{}\"\nquantity = \"{quantity}\"\n",
            app.meter
        );
    }
    text
}

/// The replay command; rules and log folder lie in the installation's own folder.
///
/// # Errors
/// Where the rules cannot be written.
pub fn command(
    installation: &Installation,
    platform: &Platform,
    trial: &Trial,
    speed: &str,
) -> Result<Command> {
    let rules = installation.dir().join("rules.toml");
    std::fs::write(&rules, rules_toml(platform))?;
    let mut command = installation.command("replay");
    command
        .arg(log_path())
        .arg("--rules")
        .arg(&rules)
        .args(["--speed", speed])
        .args(["--shift-end", &trial.shift_end.to_string()])
        .args(["--producer", &platform.producer])
        .arg("--log-dir")
        .arg(installation.dir().join("producer-log"))
        .arg("--metering-endpoint")
        .arg(&installation.endpoints().metering)
        .arg("--summary")
        .arg(summary_path(installation));
    Ok(command)
}

/// Where the replay writes its summary.
#[must_use]
pub fn summary_path(installation: &Installation) -> PathBuf {
    installation.dir().join("replay.json")
}

/// What the replay says of its own run.
#[derive(Debug, serde::Deserialize)]
pub struct ReplayCounts {
    /// Malformed lines.
    pub malformed: u64,
    /// Ignored lines.
    pub ignored: u64,
    /// From the first event until everything was settled, in ms; absent where nothing was new.
    pub first_event_to_settled_ms: Option<u64>,
}

/// Reads the replay's summary.
///
/// # Errors
/// Where it is missing or of another shape.
pub fn counts(installation: &Installation) -> Result<ReplayCounts> {
    let path = summary_path(installation);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| text)
}
