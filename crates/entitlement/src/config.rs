//! Options as they are read, and the checked configuration made of them. Every limit of this service is
//! named here, with its unit.

mod access;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use drawdown_client::{CellOptions, ChannelOptions};
use drawdown_entitlement_core::Rules;
use drawdown_service::{
    Problem,
    config::{Count, Millis, Problems, Secret},
    server::{ServerConfig, ServerOptions},
};
use drawdown_types::WindowSize;
use serde::Deserialize;
use zeroize::Zeroizing;

pub use access::{AccessConfig, AccessLimits, AccessOptions, StaleOption};

use crate::{jobs::adopt::AdoptionConfig, secret::Pepper, store::PoolConfig};

/// The documented defaults: the section `[entitlement]`.
pub const DEFAULTS_TOML: &str = include_str!("../entitlement.default.toml");

/// The most questions that one batch can be configured to hold: what the contract says.
pub const RESOLVE_QUERIES_MAX: usize = 10_000;
/// The most rows that one page can be configured to hold.
pub const PAGE_ROWS_MAX: u32 = 1_000;
const YEARS_MAX_SECS: u64 = 100 * 366 * 86_400;

/// The section `[entitlement]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The size of every window, in seconds.
    pub window_secs: u32,
    /// How long after its commit a change may take effect at the earliest, in ms (D51).
    pub change_lead_ms: Millis,
    /// How long a trial lasts, in seconds (D50).
    pub trial_secs: u64,
    /// How far ahead a change may be scheduled, in seconds.
    pub schedule_ahead_max_secs: u64,
    /// How many credentials an app may have that are not revoked.
    pub credentials_per_app_max: Count,
    /// How long an invitation to take over an app holds, in seconds (D26).
    pub transfer_invitation_secs: u64,
    /// The most questions in one `BatchResolve`.
    pub resolve_queries_max: Count,
    /// The most rows on one page of a list.
    pub page_rows_max: Count,
    /// How often an act is tried when others get in its way.
    pub act_attempts_max: Count,
    /// The most accounts of one import.
    pub import_accounts_max: Count,
    /// The most contracts, teams, people, hubs, apps, assignments and credentials of one import, all together.
    pub import_rows_max: Count,
    /// Apps have to be in a hub of their account (D29).
    pub hub_mode: bool,
    /// The pepper in hexadecimal digits; empty where it is in a file.
    pub credential_pepper: Secret,
    /// The file that holds it; empty where it is given by value.
    pub credential_pepper_file: PathBuf,
    /// How often the ledger is told of apps that got their first team, in ms.
    pub adoption_interval_ms: Millis,
    /// How many such apps are read at a time.
    pub adoption_rows_max: Count,
    /// How often the clock is compared with the database's, in ms.
    pub clock_check_interval_ms: Millis,
    /// The difference that is an alarm, in ms.
    pub clock_skew_alarm_ms: Millis,
    /// Ports and layers.
    pub server: ServerOptions,
    /// The database.
    pub database: DatabaseOptions,
    /// How to reach the ledger.
    pub ledger: ChannelOptions,
    /// The ledgers of other cells.
    pub cells: Vec<CellOptions>,
    /// How access is answered.
    pub access: AccessOptions,
}

/// The section `[entitlement.database]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseOptions {
    /// The address with user and database. It may hold a password.
    pub url: Secret,
    /// The role that every connection takes; empty to stay who signed in.
    pub role: String,
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
    pub rules: Rules,
    /// Limits of the handlers.
    pub limits: Limits,
    /// The key of the hashes of all secrets.
    pub pepper: Pepper,
    /// The job that tells the ledger of first teams.
    pub adoption: AdoptionConfig,
    /// How often the clock is compared with the database's.
    pub clock_check_interval: Duration,
    /// The difference that is an alarm.
    pub clock_skew_alarm: Duration,
    /// Ports and layers.
    pub server: ServerConfig,
    /// The database.
    pub database: PoolConfig,
    /// How to reach the ledger: the only one, or the leading one.
    pub ledger: ChannelOptions,
    /// How to reach the ledgers of other cells, by number.
    pub cells: BTreeMap<u8, ChannelOptions>,
    /// How access is answered.
    pub access: AccessConfig,
}

/// Limits of the handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most questions in one batch.
    pub resolve_queries_max: usize,
    /// The most rows on one page, and as many where the caller names no number.
    pub page_rows_max: u32,
    /// How often an act is tried.
    pub act_attempts_max: usize,
    /// The most accounts of one import.
    pub import_accounts_max: usize,
    /// The most rows of one import.
    pub import_rows_max: usize,
    /// Apps outside of the hubs of their account are archived (D29).
    pub hub_mode: bool,
}

impl Default for Options {
    fn default() -> Self {
        let rules = Rules::default();
        Self {
            window_secs: rules.window.as_secs(),
            change_lead_ms: Millis::from_millis(5_000),
            trial_secs: rules.trial.as_secs(),
            schedule_ahead_max_secs: rules.schedule_ahead_max.as_secs(),
            credentials_per_app_max: Count::of(100),
            transfer_invitation_secs: rules.invitation.as_secs(),
            resolve_queries_max: Count::of(RESOLVE_QUERIES_MAX),
            page_rows_max: Count::of(1_000),
            act_attempts_max: Count::of(4),
            import_accounts_max: Count::of(100),
            import_rows_max: Count::of(20_000),
            hub_mode: false,
            credential_pepper: Secret::default(),
            credential_pepper_file: PathBuf::new(),
            adoption_interval_ms: Millis::from_millis(5_000),
            adoption_rows_max: Count::of(100),
            clock_check_interval_ms: Millis::from_millis(60_000),
            clock_skew_alarm_ms: Millis::from_millis(1_000),
            server: ServerOptions {
                listen: ([127, 0, 0, 1], 7403).into_address(),
                metrics_listen: ([127, 0, 0, 1], 7413).into_address(),
                ..ServerOptions::default()
            },
            database: DatabaseOptions::default(),
            ledger: ChannelOptions::to("http://127.0.0.1:7402"),
            cells: Vec::new(),
            access: AccessOptions::default(),
        }
    }
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self {
            url: "postgres://127.0.0.1:5432/drawdown".into(),
            role: String::new(),
            connections_max: Count::of(16),
            acquire_timeout_ms: Millis::from_millis(5_000),
            statement_timeout_ms: Millis::from_millis(10_000),
            lock_timeout_ms: Millis::from_millis(3_000),
            idle_in_transaction_timeout_ms: Millis::from_millis(10_000),
        }
    }
}

trait IntoAddress {
    fn into_address(self) -> drawdown_service::config::ListenAddress;
}

impl IntoAddress for ([u8; 4], u16) {
    fn into_address(self) -> drawdown_service::config::ListenAddress {
        std::net::SocketAddr::from(self).into()
    }
}

// === impl Options ===

impl Options {
    /// Checks all values, and reads the pepper where a file holds it.
    ///
    /// # Errors
    /// Every problem, by the path inside the section. None of them quotes a secret.
    pub fn validate(self) -> Result<Config, Vec<Problem>> {
        let mut problems = Problems::new();
        let window = problems.field("window_secs", WindowSize::from_secs(self.window_secs));
        for (field, secs) in [
            ("trial_secs", self.trial_secs),
            ("schedule_ahead_max_secs", self.schedule_ahead_max_secs),
            ("transfer_invitation_secs", self.transfer_invitation_secs),
        ] {
            let fits = (1..=YEARS_MAX_SECS).contains(&secs);
            problems.ensure(fits, field, format!("is not between 1 and {YEARS_MAX_SECS}"));
        }
        let queries = self.resolve_queries_max.get();
        let fits = queries <= RESOLVE_QUERIES_MAX;
        problems.ensure(fits, "resolve_queries_max", format!("is above {RESOLVE_QUERIES_MAX}"));
        let rows = self.page_rows_max.get_u32();
        problems.ensure(rows <= PAGE_ROWS_MAX, "page_rows_max", format!("is above {PAGE_ROWS_MAX}"));
        let pepper =
            self.pepper().map_err(|problem| problems.push(problem.field.as_str(), problem.description)).ok();
        let server = problems.section("server", self.server.validate());
        let database = problems.section("database", self.database.validate());
        let access =
            problems.section("access", self.access.validate(self.cells.iter().map(|cell| cell.number)));
        let files = server.as_ref().and_then(ServerConfig::files);
        let ledger = self.ledger.or_files(files);
        for problem in ledger.problems() {
            problems.push(&format!("ledger.{}", problem.field), problem.problem);
        }
        let cells = CellOptions::checked(&self.cells, files, |field, problem| {
            problems.push(&format!("cells{field}"), problem);
        });
        let checked = window.zip(pepper).zip(server.zip(database)).zip(access).map(
            |(((window, pepper), (server, database)), access)| Config {
                rules: Rules {
                    window,
                    lead: self.change_lead_ms.duration(),
                    trial: Duration::from_secs(self.trial_secs),
                    schedule_ahead_max: Duration::from_secs(self.schedule_ahead_max_secs),
                    credentials_per_app_max: self.credentials_per_app_max.get_u32(),
                    invitation: Duration::from_secs(self.transfer_invitation_secs),
                },
                limits: Limits {
                    resolve_queries_max: queries,
                    page_rows_max: rows,
                    act_attempts_max: self.act_attempts_max.get(),
                    import_accounts_max: self.import_accounts_max.get(),
                    import_rows_max: self.import_rows_max.get(),
                    hub_mode: self.hub_mode,
                },
                pepper,
                adoption: AdoptionConfig {
                    interval: self.adoption_interval_ms.duration(),
                    rows_max: self.adoption_rows_max.get_u32(),
                },
                clock_check_interval: self.clock_check_interval_ms.duration(),
                clock_skew_alarm: self.clock_skew_alarm_ms.duration(),
                server,
                database,
                ledger,
                cells,
                access,
            },
        );
        problems.finish(checked)
    }

    fn pepper(&self) -> Result<Pepper, Problem> {
        const VALUE: &str = "credential_pepper";
        const FILE: &str = "credential_pepper_file";
        let by_value = !self.credential_pepper.expose().is_empty();
        let by_file = !self.credential_pepper_file.as_os_str().is_empty();
        match (by_value, by_file) {
            (false, false) => {
                let made = "`openssl rand -hex 32` makes one";
                Err(Problem::new(FILE, format!("has to be set, or credential_pepper; {made}")))
            }
            (true, true) => Err(Problem::new(FILE, "is set and credential_pepper as well: give one")),
            (true, false) => Pepper::from_hex(self.credential_pepper.expose().trim())
                .map_err(|problem| Problem::new(VALUE, problem)),
            (false, true) => {
                let text = std::fs::read_to_string(&self.credential_pepper_file)
                    .map(Zeroizing::new)
                    .map_err(|error| Problem::new(FILE, format!("can not be read: {error}")))?;
                Pepper::from_hex(text.trim()).map_err(|problem| Problem::new(FILE, problem))
            }
        }
    }
}

impl DatabaseOptions {
    fn validate(self) -> Result<PoolConfig, Vec<Problem>> {
        let mut problems = Problems::new();
        // the error of the parser may quote the address, and with it a password; and the parser takes any scheme
        let postgres =
            ["postgres://", "postgresql://"].iter().any(|scheme| self.url.expose().starts_with(scheme));
        let connect = self.url.expose().parse::<sqlx::postgres::PgConnectOptions>().ok().filter(|_| postgres);
        let url = connect.ok_or("is not an address such as postgres://user@host/database");
        let url = problems.field("url", url);
        let role = Some(self.role).filter(|role| !role.is_empty());
        let plain = |role: &String| role.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        problems.ensure(role.iter().all(plain), "role", "may hold letters, digits and _ only");
        problems.finish(url.map(|connect| PoolConfig {
            connect,
            role,
            connections_max: self.connections_max.get_u32(),
            acquire_timeout: self.acquire_timeout_ms.duration(),
            statement_timeout: self.statement_timeout_ms.duration(),
            lock_timeout: self.lock_timeout_ms.duration(),
            idle_in_transaction_timeout: self.idle_in_transaction_timeout_ms.duration(),
        }))
    }
}

#[cfg(test)]
mod tests;
