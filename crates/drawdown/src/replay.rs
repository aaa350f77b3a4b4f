//! `drawdown replay`: an access log through a producer, once.

use std::{num::NonZeroU32, path::PathBuf, str::FromStr, sync::Arc};

use anyhow::{Context, Result};
use clap::Args;
use drawdown_agent::{
    Input,
    progress::on_stderr,
    replay::{Options, ReplaySummary, ShiftEnd, Speed, replay},
    rules::{Rules, RulesError},
};
use drawdown_client::producer::{Producer, ProducerOptions};
use drawdown_service::{
    Problem,
    config::Sources,
    telemetry::{TelemetryConfig, shutdown_process, start_process},
};
use drawdown_types::{ProducerId, SystemClock, Timestamp};

use crate::{
    failure::{BadConfiguration, Found},
    operator::{Connection, Session},
    serve::{Signals, telemetry_config},
};

const AFTER_HELP: &str = "\
A line that can not be used is told with its number and counted; it ends nothing. A replay that was killed goes on at the next line, \
and a second run of the same log adds nothing.

Example:
  drawdown replay access.log.gz --rules rules.toml --producer prod_01j2gv5gymfsfrn6rc3mq3yjjv
  drawdown replay access.log --rules rules.toml --log-dir ./log --speed 60 --shift-end now

The rules, of which the first that fits a line decides:
  format = \"auto\"                     # auto, combined or json

  [[rule]]
  path = \"/healthz\"                   # exact; also path_prefix, path_pattern (a regular expression)
  ignore = true

  [[rule]]
  path_pattern = \"^/files(/|$)\"
  methods = [\"GET\"]
  status = { from = 200, to = 399 }
  client_id = \"client_01j2gv5gymfsfrn6rc3mq3yjjv\"   # or { field = \"consumer\" } of a JSON line
  meter = \"web.egress\"
  quantity = \"bytes\"                  # one (default), bytes, or { field = \"tokens\" } of a JSON line
  failed_from_status = 400
  dimensions = { region = \"eu\" }";

/// Streams an access log as usage: Apache's and nginx's combined format or JSON lines, also as .gz
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ReplayCommand {
    /// The access log; - for the standard input
    file: PathBuf,
    /// Which line is whose usage of what
    #[arg(long, value_name = "FILE")]
    rules: PathBuf,
    /// The folder of the producer's log: it belongs to one producer and is never copied
    #[arg(long, value_name = "DIR", default_value = "drawdown-log")]
    log_dir: PathBuf,
    /// The producer (drawdown producer create); only a new log needs it
    #[arg(long, value_name = "PRODUCER_ID")]
    producer: Option<ProducerId>,
    /// So many seconds of the log in one second, or max
    #[arg(long, value_name = "N|max", default_value = "max", value_parser = speed)]
    speed: Speed,
    /// Moves all instants so that the log ends now or at this one; kept when a replay goes on
    #[arg(long, value_name = "now|INSTANT", value_parser = shift_end)]
    shift_end: Option<ShiftEnd>,
    /// Counts again, on purpose, what was counted before
    #[arg(long)]
    from_start: bool,
    /// The name that the log is remembered by, instead of its first line
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Ends when everything is durable here, without waiting until it is settled
    #[arg(long)]
    no_wait: bool,
    /// Writes the summary to this file as JSON
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Takes the section [telemetry] from this configuration
    #[arg(long, value_name = "FILE", env = "DRAWDOWN_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

impl ReplayCommand {
    pub(crate) async fn run(mut self) -> Result<()> {
        start_process("replay", &self.telemetry()?)?;
        let mut signals = Signals::listen()?;
        let rules = self.read_rules()?;
        let producer =
            ProducerOptions { producer_id: self.producer.take(), ..ProducerOptions::at(&self.log_dir) };
        let problems = producer.problems();
        if !problems.is_empty() {
            let told = problems.iter().map(|problem| Problem::new(problem.field, &problem.problem));
            return Err(BadConfiguration(told.collect()).into());
        }
        let (options, connection) = self.options(rules);
        let session = connection.open()?;
        let work = stream(options, producer, &session);
        let summary = tokio::select! {
            summary = work => summary?,
            // What is durable stays in the log: the next run goes on behind it.
            () = signals.stop() => return Err(Found("stopped; the same command goes on".to_owned()).into()),
        };
        shutdown_process();
        session.output.value_or_line(&summary, &summary.to_string())
    }

    fn telemetry(&self) -> Result<TelemetryConfig, BadConfiguration> {
        match &self.config {
            None => Ok(TelemetryConfig::default()),
            Some(path) => {
                let sources = Sources::of_process(Some(path))?;
                telemetry_config(&sources).map_err(BadConfiguration)
            }
        }
    }

    fn read_rules(&self) -> Result<Rules> {
        let path = self.rules.display();
        let text = std::fs::read_to_string(&self.rules).with_context(|| format!("can not read {path}"))?;
        Rules::parse(&text).map_err(|error| {
            let file = path.to_string();
            let problems = match error {
                RulesError::Toml(problem) => vec![Problem::new(file, problem.trim())],
                RulesError::Faults(faults) => faults
                    .into_iter()
                    .map(|fault| Problem::new(fault.field, fault.description).within(&file))
                    .collect(),
            };
            BadConfiguration(problems).into()
        })
    }

    fn options(self, rules: Rules) -> (Options, Connection) {
        let input = if self.file.as_os_str() == "-" { Input::Stdin } else { Input::File(self.file) };
        let options = Options {
            source: self.source,
            speed: self.speed,
            shift_end: self.shift_end,
            from_start: self.from_start,
            wait: !self.no_wait,
            summary: self.summary,
            ..Options::new(input, rules)
        };
        (options, self.connection)
    }
}

async fn stream(options: Options, producer: ProducerOptions, session: &Session) -> Result<ReplaySummary> {
    let clock = Arc::new(SystemClock);
    let producer = Producer::open(producer, session.metering.clone(), clock.clone()).await?;
    let mut watcher = on_stderr();
    let replayed = replay(options, &producer, clock, watcher.as_mut()).await;
    // A fault of the source or of the producer is the one to tell.
    let closed = producer.close().await;
    let summary = replayed?;
    closed?;
    Ok(summary)
}

fn speed(text: &str) -> Result<Speed, String> {
    match text {
        "max" => Ok(Speed::Max),
        times => {
            let wrong = |_| format!("{text:?} is neither max nor a whole number from 1 on");
            NonZeroU32::from_str(times).map(Speed::Times).map_err(wrong)
        }
    }
}

fn shift_end(text: &str) -> Result<ShiftEnd, String> {
    match text {
        "now" => Ok(ShiftEnd::Now),
        instant => instant.parse::<Timestamp>().map(ShiftEnd::At).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_the_help_hold() {
        let rules = AFTER_HELP.lines().skip_while(|line| !line.trim_start().starts_with("format"));
        let rules: String = rules.map(|line| format!("{line}\n")).collect();
        Rules::parse(&rules).unwrap();
    }

    #[test]
    fn speeds_and_ends_are_read() {
        assert_eq!(speed("max"), Ok(Speed::Max));
        assert_eq!(speed("60").ok(), NonZeroU32::new(60).map(Speed::Times));
        for text in ["0", "-1", "1.5", "", "fast"] {
            assert!(speed(text).is_err(), "{text}");
        }
        assert_eq!(shift_end("now"), Ok(ShiftEnd::Now));
        assert_eq!(
            shift_end("2015-05-17T10:05:03Z").ok(),
            "2015-05-17T10:05:03Z".parse().map(ShiftEnd::At).ok()
        );
        assert!(shift_end("later").is_err());
    }
}
