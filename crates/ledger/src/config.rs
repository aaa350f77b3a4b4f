//! Options as they are read, and the checked configuration made of them. Every limit of this service is
//! named here, with its unit.

mod adoption;
mod cells;
mod growth;
mod known;
mod notices;
mod reports;
mod standings;

use std::{net::SocketAddr, time::Duration};

use drawdown_client::ChannelOptions;
use drawdown_ledger_core::{PoolKind, PoolOrder, Settings};
use drawdown_service::{
    Problem,
    config::{Count, Millis, Problems, Secret},
    server::{ServerConfig, ServerOptions},
};
use drawdown_types::WindowSize;
use serde::Deserialize;

pub use adoption::{AdoptionConfig, AdoptionOptions};
pub use cells::CellOptions;
pub use growth::{CompactConfig, GrowthConfig, GrowthOptions, MonthsConfig};
pub use known::KnownOptions;
pub use notices::{NoticeConfig, NoticeOptions, RelayConfig, WatchConfig};
pub use reports::ReportOptions;
pub use standings::{FeedConfig, FeedSweepConfig, StandingConfig, StandingOptions};

use crate::{
    cells::Cells,
    service::{ImportLimits, Limits},
    store::{PoolConfig, Pooler},
};

/// The documented defaults: the section `[ledger]`.
pub const DEFAULTS_TOML: &str = include_str!("../ledger.default.toml");

/// The most rows that one page can be configured to hold.
pub const PAGE_ROWS_MAX: u32 = 10_000;
const LATENESS_SECS_MAX: u64 = 366 * 86_400;
const PURCHASE_MIN_TOKENS_MAX: i64 = 1_000_000_000;
const UNIQUE_VALUES_MAX: usize = 100_000_000;
const MESSAGE_BYTES: usize = 64 << 20;

/// The section `[ledger]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The size of every window, in seconds.
    pub window_secs: u32,
    /// How long after its window's end usage may be received and still be charged, in seconds (D9).
    pub lateness_limit_secs: u64,
    /// The least whole tokens that one purchase buys (D1).
    pub purchase_min_tokens: i64,
    /// The most distinct values that a team's month of one price may have (D19).
    pub unique_values_max: Count,
    /// Which lots of a team are drawn first (D4).
    pub pool_order: Vec<String>,
    /// How far ahead a rate card's version begins at least, in ms (D51).
    pub change_lead_ms: Millis,
    /// How long after its close date a lot still waits for usage received in time, in ms (D55).
    pub settle_allowance_ms: Millis,
    /// The most lines of one batch.
    pub batch_lines_max: Count,
    /// The most charges that one statement writes.
    pub sub_batch_lines: Count,
    /// The most of the latest lines of a key that one correction takes its refund from (D43).
    pub correction_lines_max: Count,
    /// The most teams of one import.
    pub import_teams_max: Count,
    /// The most lots and debts of one import.
    pub import_rows_max: Count,
    /// The most rows of one page of a list.
    pub page_rows_max: Count,
    /// The most entries of unattributed usage that one call decides about (D25).
    pub review_entries_max: Count,
    /// How often lots that are due are looked for, in ms.
    pub due_interval_ms: Millis,
    /// How many teams one transaction of that job rolls forward.
    pub due_teams_max: Count,
    /// How many such transactions one look may take.
    pub due_rounds_max: Count,
    /// How long one statement of a verification may run, in ms.
    pub verify_statement_timeout_ms: Millis,
    /// Reports.
    pub reports: ReportOptions,
    /// How often the clock is compared with the database's, in ms.
    pub clock_check_interval_ms: Millis,
    /// The difference that is an alarm, in ms.
    pub clock_skew_alarm_ms: Millis,
    /// Usage of an app from before its first team.
    pub adoption: AdoptionOptions,
    /// What others are told.
    pub notices: NoticeOptions,
    /// What gates are told of teams.
    pub standings: StandingOptions,
    /// How charges and journal are cut by month.
    pub growth: GrowthOptions,
    /// What is remembered from one batch to the next.
    pub known: KnownOptions,
    /// Several ledgers.
    pub cells: CellOptions,
    /// Ports and layers.
    pub server: ServerOptions,
    /// The database.
    pub database: DatabaseOptions,
    /// How to reach entitlement.
    pub entitlement: ChannelOptions,
}

/// The section `[ledger.database]`.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseOptions {
    /// The address with user and database. It may hold a password.
    pub url: Secret,
    /// The role that every connection takes; empty to stay who signed in.
    pub role: String,
    /// What stands between this process and the server.
    pub pooler: Pooler,
    /// The most connections.
    pub connections_max: Count,
    /// How long to wait for a free connection, in ms.
    pub acquire_timeout_ms: Millis,
    /// How long one statement may run, in ms.
    pub statement_timeout_ms: Millis,
    /// How long one statement may wait for a lock, in ms.
    pub lock_timeout_ms: Millis,
    /// How long a transaction may stay open with nothing to do, in ms.
    pub idle_in_transaction_timeout_ms: Millis,
}

/// Checked [`Options`].
#[derive(Clone, Debug)]
pub struct Config {
    /// What the rules take.
    pub settings: Settings,
    /// Limits of the handlers.
    pub limits: Limits,
    /// The job that closes lots.
    pub due: DueConfig,
    /// The job that compares clocks.
    pub skew: SkewConfig,
    /// The job that adopts usage.
    pub adoption: AdoptionConfig,
    /// What others are told.
    pub notices: NoticeConfig,
    /// What gates are told of teams.
    pub standings: StandingConfig,
    /// How charges and journal are cut by month.
    pub growth: GrowthConfig,
    /// Which cell this is.
    pub cells: Cells,
    /// Ports and layers.
    pub server: ServerConfig,
    /// The database.
    pub database: PoolConfig,
    /// How to reach entitlement.
    pub entitlement: ChannelOptions,
}

/// Limits of the job that compares clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkewConfig {
    /// How often it looks.
    pub interval: Duration,
    /// The difference that is an alarm.
    pub alarm: Duration,
}

/// Limits of the job that closes lots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueConfig {
    /// How often it looks.
    pub interval: Duration,
    /// Teams of one transaction.
    pub teams_max: u32,
    /// Transactions of one look.
    pub rounds_max: usize,
}

impl std::fmt::Debug for DatabaseOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseOptions")
            .field("role", &self.role)
            .field("pooler", &self.pooler)
            .field("connections_max", &self.connections_max)
            .finish_non_exhaustive()
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Default for Options {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            window_secs: settings.window_size.as_secs(),
            lateness_limit_secs: settings.lateness_limit.as_secs(),
            purchase_min_tokens: settings.purchase_min_tokens,
            unique_values_max: Count::of(100_000),
            pool_order: settings.pool_order.kinds().iter().map(|kind| kind.as_str().to_owned()).collect(),
            change_lead_ms: Millis::from_millis(5_000),
            settle_allowance_ms: Millis::from_millis(300_000),
            batch_lines_max: Count::of(200_000),
            import_teams_max: Count::of(100),
            import_rows_max: Count::of(20_000),
            sub_batch_lines: Count::of(5_000),
            correction_lines_max: Count::of(10_000),
            page_rows_max: Count::of(10_000),
            review_entries_max: Count::of(1_000),
            due_interval_ms: Millis::from_millis(10_000),
            due_teams_max: Count::of(200),
            due_rounds_max: Count::of(50),
            verify_statement_timeout_ms: Millis::from_millis(600_000),
            reports: ReportOptions::default(),
            clock_check_interval_ms: Millis::from_millis(60_000),
            clock_skew_alarm_ms: Millis::from_millis(1_000),
            adoption: AdoptionOptions::default(),
            notices: NoticeOptions::default(),
            standings: StandingOptions::default(),
            growth: GrowthOptions::default(),
            known: KnownOptions::default(),
            cells: CellOptions::default(),
            server: ServerOptions {
                listen: loopback(7402).into(),
                metrics_listen: loopback(7412).into(),
                message_bytes_max: Count::of(MESSAGE_BYTES),
                call_time_max_ms: Millis::from_millis(600_000),
                ..ServerOptions::default()
            },
            database: DatabaseOptions::default(),
            entitlement: ChannelOptions::to("http://127.0.0.1:7403"),
        }
    }
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self {
            url: "postgres://127.0.0.1:5432/drawdown".into(),
            role: String::new(),
            pooler: Pooler::None,
            connections_max: Count::of(24),
            acquire_timeout_ms: Millis::from_millis(5_000),
            statement_timeout_ms: Millis::from_millis(30_000),
            lock_timeout_ms: Millis::from_millis(10_000),
            idle_in_transaction_timeout_ms: Millis::from_millis(30_000),
        }
    }
}

// === impl Options ===

impl Options {
    /// Checks all values.
    ///
    /// # Errors
    /// Every problem, by the path inside the section.
    pub fn validate(self) -> Result<Config, Vec<Problem>> {
        let mut problems = Problems::new();
        let settings = self.settings(&mut problems);
        let rows = self.page_rows_max.get_u32();
        problems.ensure(rows <= PAGE_ROWS_MAX, "page_rows_max", format!("is above {PAGE_ROWS_MAX}"));
        let adoption = problems.section("adoption", self.adoption.validate());
        let limits = adoption.map(|(adoption_age, _)| Limits {
            adoption_age,
            page_rows_max: rows,
            batch_lines_max: self.batch_lines_max.get(),
            sub_batch_lines: self.sub_batch_lines.get(),
            correction_lines_max: self.correction_lines_max.get(),
            known: self.known.limits(),
            review_entries_max: self.review_entries_max.get(),
            change_lead: self.change_lead_ms.duration(),
            settle_allowance: self.settle_allowance_ms.duration(),
            verify_timeout: self.verify_statement_timeout_ms.duration(),
            reports: self.reports.limits(),
            import: ImportLimits {
                teams_max: self.import_teams_max.get(),
                rows_max: self.import_rows_max.get(),
            },
            standings: self.standings.limits(),
        });
        let lag = self.reports.recorded_lag_ms.duration() > self.settle_allowance_ms.duration();
        problems.ensure(lag, "reports.recorded_lag_ms", "is not above settle_allowance_ms");
        let due = DueConfig {
            interval: self.due_interval_ms.duration(),
            teams_max: self.due_teams_max.get_u32(),
            rounds_max: self.due_rounds_max.get(),
        };
        let skew = SkewConfig {
            interval: self.clock_check_interval_ms.duration(),
            alarm: self.clock_skew_alarm_ms.duration(),
        };
        let notices = problems.section("notices", self.notices.validate());
        let standings = problems.section("standings", self.standings.validate());
        let growth = problems.section("growth", self.growth.validate());
        let cells = problems.section("cells", self.cells.validate());
        let server = problems.section("server", self.server.validate());
        let database = problems.section("database", self.database.validate());
        let entitlement = self.entitlement.or_files(server.as_ref().and_then(ServerConfig::files));
        for problem in entitlement.problems() {
            problems.push(&format!("entitlement.{}", problem.field), problem.problem);
        }
        let jobs = limits.zip(adoption).zip(notices.zip(standings).zip(growth));
        let parts = settings.zip(jobs).zip(cells.zip(server).zip(database));
        let config = parts.map(|((settings, jobs), ((cells, server), database))| {
            let ((limits, (_, adoption)), ((notices, standings), growth)) = jobs;
            Config {
                settings,
                limits,
                due,
                skew,
                adoption,
                notices,
                standings,
                growth,
                cells,
                server,
                database,
                entitlement,
            }
        });
        problems.finish(config)
    }

    fn settings(&self, problems: &mut Problems) -> Option<Settings> {
        let window_size = problems.field("window_secs", WindowSize::from_secs(self.window_secs));
        let lateness = self.lateness_limit_secs;
        let on_grid = lateness.checked_rem(u64::from(self.window_secs)) == Some(0);
        problems.ensure(on_grid, "lateness_limit_secs", "is no multiple of window_secs");
        let fits = (1..=LATENESS_SECS_MAX).contains(&lateness);
        problems.ensure(fits, "lateness_limit_secs", format!("is not between 1 and {LATENESS_SECS_MAX}"));
        let fits = (1..=PURCHASE_MIN_TOKENS_MAX).contains(&self.purchase_min_tokens);
        problems.ensure(
            fits,
            "purchase_min_tokens",
            format!("is not between 1 and {PURCHASE_MIN_TOKENS_MAX}"),
        );
        let values = self.unique_values_max.get();
        let fits = values <= UNIQUE_VALUES_MAX;
        problems.ensure(fits, "unique_values_max", format!("is above {UNIQUE_VALUES_MAX}"));
        let kinds: Result<Vec<PoolKind>, _> = self.pool_order.iter().map(|kind| kind.parse()).collect();
        let kinds = problems.field("pool_order", kinds);
        let pool_order = kinds.and_then(|kinds| problems.field("pool_order", PoolOrder::new(&kinds)));
        Some(Settings {
            window_size: window_size?,
            lateness_limit: Duration::from_secs(lateness),
            purchase_min_tokens: self.purchase_min_tokens,
            unique_values_max: i64::try_from(values).unwrap_or(i64::MAX),
            pool_order: pool_order?,
        })
    }
}

impl DatabaseOptions {
    fn validate(self) -> Result<PoolConfig, Vec<Problem>> {
        let mut problems = Problems::new();
        // The parser's own words may quote the address, and with it a password.
        let postgres =
            ["postgres://", "postgresql://"].iter().any(|scheme| self.url.expose().starts_with(scheme));
        let options = self.url.expose().parse::<sqlx::postgres::PgConnectOptions>().ok().filter(|_| postgres);
        let options = options.ok_or("is not an address such as postgres://user@host/database");
        let connect = problems.field("url", options);
        let role = Some(self.role).filter(|role| !role.is_empty());
        let plain = |role: &String| role.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        problems.ensure(role.iter().all(plain), "role", "may hold letters, digits and _ only");
        let kept = role.is_none() || self.pooler == Pooler::None;
        problems.ensure(kept, "role", "is not kept by a pooler: sign in as a member of the role");
        problems.finish(connect.map(|connect| PoolConfig {
            connect,
            role,
            pooler: self.pooler,
            connections_max: self.connections_max.get_u32(),
            acquire_timeout: self.acquire_timeout_ms.duration(),
            statement_timeout: self.statement_timeout_ms.duration(),
            lock_timeout: self.lock_timeout_ms.duration(),
            idle_in_transaction_timeout: self.idle_in_transaction_timeout_ms.duration(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use drawdown_service::config::{Sources, load};

    use super::*;

    #[test]
    fn the_documented_defaults_are_those_of_the_code() {
        let documented: Options = load(DEFAULTS_TOML, &Sources::default(), "ledger").unwrap();
        assert_eq!(format!("{documented:?}"), format!("{:?}", Options::default()));
        // what is not printed
        assert_eq!(documented.database.url, Options::default().database.url);
        assert!(documented.validate().is_ok());
    }

    #[test]
    fn every_wrong_value_is_named_at_once() {
        let options = Options {
            window_secs: 7,
            lateness_limit_secs: 0,
            purchase_min_tokens: 0,
            unique_values_max: Count::of(UNIQUE_VALUES_MAX + 1),
            pool_order: vec!["flex".to_owned()],
            page_rows_max: Count::of(10_001),
            growth: GrowthOptions {
                months_ahead: Count::of(61),
                keep_months: Count::of(3),
                roll_up_slack_secs: 86_400,
                event_keep_days: Count::of(367),
                ..GrowthOptions::default()
            },
            database: DatabaseOptions {
                url: "mysql://root:secret@db".into(),
                role: "me; drop".to_owned(),
                pooler: Pooler::Transaction,
                ..DatabaseOptions::default()
            },
            entitlement: ChannelOptions::to("nowhere"),
            ..Options::default()
        };
        let problems = options.validate().unwrap_err();
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        let wrong = [
            "window_secs",
            "lateness_limit_secs",
            "purchase_min_tokens",
            "unique_values_max",
            "pool_order",
            "page_rows_max",
            "growth.months_ahead",
            "growth.keep_months",
            "growth.roll_up_slack_secs",
            "growth.event_keep_days",
            "database.url",
            "database.role",
            "database.role",
            "entitlement.endpoint",
        ];
        assert_eq!(fields, wrong);
        assert!(!format!("{problems:?}").contains("secret"));
    }
}
