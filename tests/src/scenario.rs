//! The platform that the demo and the crash tests set up: two commercial accounts, three teams, twelve
//! apps, lots and rate cards with their original instants (D61).
//!
//! | team | tokens | apps |
//! |---|---|---|
//! | `web` of Northwind | a lot expired long ago, one expiring inside the period, one open | presentations, images, favicon, pages |
//! | `imagery` of Northwind | none | files, icons, misc, scripts |
//! | `blog` of Lakeside | a promotion that expires inside the period and credits that run out | blog, projects, articles, styles |
//!
//! The data here is plain; [`crate::platform`] enters it through the public API, [`crate::recount`]
//! prices it by other code.

use drawdown_types::{Timestamp, WindowSize};
use std::time::Duration;

/// The meters of the web card.
pub const CALL: &str = "web.call";
/// Bytes sent.
pub const EGRESS: &str = "web.egress";
/// Bytes in one MiB: the unit the egress price is per.
pub const MIB: i64 = 1 << 20;
/// The client id of the crawlers' rule: no credential has it, so its usage stays unattributed.
pub const UNKNOWN_CLIENT: &str = "crawler-without-credential";

const DAY: Duration = Duration::from_secs(86_400);

/// One app and the lines of the log that are its usage.
#[derive(Debug, Clone, Copy)]
pub struct AppSpec {
    /// Its name.
    pub name: &'static str,
    /// Its team's name.
    pub team: &'static str,
    /// The meter its lines count on.
    pub meter: &'static str,
    /// First path segments that belong to it; empty for the app that takes what is left.
    pub segments: &'static [&'static str],
}

/// The twelve apps; the last one without segments takes the rest.
pub const APPS: [AppSpec; 12] = [
    AppSpec { name: "presentations", team: "web", meter: EGRESS, segments: &["presentations"] },
    AppSpec { name: "images", team: "web", meter: EGRESS, segments: &["images", "image"] },
    AppSpec { name: "favicon", team: "web", meter: CALL, segments: &["favicon.ico"] },
    AppSpec { name: "files", team: "imagery", meter: EGRESS, segments: &["files"] },
    AppSpec { name: "icons", team: "imagery", meter: CALL, segments: &["icons"] },
    AppSpec { name: "misc", team: "imagery", meter: CALL, segments: &["misc"] },
    AppSpec { name: "scripts", team: "imagery", meter: EGRESS, segments: &["scripts"] },
    AppSpec { name: "blog", team: "blog", meter: CALL, segments: &["blog"] },
    AppSpec { name: "projects", team: "blog", meter: CALL, segments: &["projects"] },
    AppSpec { name: "articles", team: "blog", meter: EGRESS, segments: &["articles"] },
    AppSpec { name: "styles", team: "blog", meter: CALL, segments: &["style2.css", "reset.css"] },
    AppSpec { name: "pages", team: "web", meter: CALL, segments: &[] },
];

/// First path segments whose lines are unknown clients' usage.
pub const UNKNOWN_SEGMENTS: [&str; 1] = ["robots.txt"];
/// First path segments that are not metered at all.
pub const IGNORED_SEGMENTS: [&str; 6] =
    ["wp-login.php", "wp-admin", "wp", "wordpress", "administrator", "admin.php"];

/// The teams with the account each belongs to.
pub const TEAMS: [(&str, &str); 3] = [("web", "Northwind"), ("imagery", "Northwind"), ("blog", "Lakeside")];

/// A price of the web card from an instant on.
#[derive(Debug, Clone, Copy)]
pub struct PriceSpec {
    /// The meter.
    pub meter: &'static str,
    /// Micro-tokens …
    pub micros: i64,
    /// … for this many base units.
    pub per_units: i64,
    /// Failed requests are free.
    pub failed_is_free: bool,
}

/// How a lot comes to its team.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LotSource {
    /// Bought: expires a calendar year later.
    Purchase,
    /// Granted in a promotion with its own expiry.
    Promotion,
    /// Granted as cloud credits with their own expiry.
    Credit,
}

/// One lot of the set-up.
#[derive(Debug, Clone)]
pub struct LotSpec {
    /// Its name in reports (the lot's note).
    pub name: &'static str,
    /// The team's name.
    pub team: &'static str,
    /// Bought or granted.
    pub source: LotSource,
    /// Whole tokens.
    pub tokens: i64,
    /// The original instant.
    pub at: Timestamp,
    /// The expiry of a grant; a purchase has its own rule (D2).
    pub expires_at: Option<Timestamp>,
}

/// The set-up for a log whose shifted period is `[start, end]`.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The instant of the log's first line after the shift.
    pub period_start: Timestamp,
    /// The instant of its last line after the shift.
    pub period_end: Timestamp,
    /// The first price list of the web card, in force long before the period.
    pub prices_before: [PriceSpec; 2],
    /// The second one.
    pub prices_after: [PriceSpec; 2],
    /// The edge inside the period from which on the second one holds.
    pub price_change: Timestamp,
    /// The lots.
    pub lots: Vec<LotSpec>,
    /// When accounts, teams, apps and the first price list begin.
    pub founded: Timestamp,
}

fn before(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

impl Scenario {
    /// The set-up for one period.
    #[must_use]
    pub fn new(period_start: Timestamp, period_end: Timestamp) -> Self {
        let window = WindowSize::MINUTE;
        let length = period_end.saturating_since(period_start);
        let inside = |parts: u32| window.ceil(before(period_end, length * (8 - parts) / 8));
        let call = |micros| PriceSpec { meter: CALL, micros, per_units: 1000, failed_is_free: true };
        let egress = |micros| PriceSpec { meter: EGRESS, micros, per_units: MIB, failed_is_free: false };
        Self {
            period_start,
            period_end,
            prices_before: [call(20_000_000), egress(500_000)],
            prices_after: [call(30_000_000), egress(400_000)],
            price_change: inside(5),
            founded: window.floor(before(period_end, DAY * 800)),
            lots: vec![
                LotSpec {
                    name: "web, expired before",
                    team: "web",
                    source: LotSource::Purchase,
                    tokens: 500,
                    at: before(period_start, DAY * 420),
                    expires_at: None,
                },
                LotSpec {
                    name: "web, expiring inside",
                    team: "web",
                    source: LotSource::Purchase,
                    tokens: 100,
                    at: a_year_before(inside(3)),
                    expires_at: None,
                },
                LotSpec {
                    name: "web, open",
                    team: "web",
                    source: LotSource::Purchase,
                    tokens: 3000,
                    at: before(period_start, DAY * 40),
                    expires_at: None,
                },
                LotSpec {
                    name: "blog, promotion",
                    team: "blog",
                    source: LotSource::Promotion,
                    tokens: 7,
                    at: before(period_start, DAY * 10),
                    expires_at: Some(inside(2)),
                },
                LotSpec {
                    name: "blog, credit",
                    team: "blog",
                    source: LotSource::Credit,
                    tokens: 50,
                    at: before(period_start, DAY * 9),
                    expires_at: Some(
                        before(period_start, DAY * 9).checked_add(DAY * 365).unwrap_or(Timestamp::MAX),
                    ),
                },
            ],
        }
    }

    /// The app that a path's first segment belongs to; `None` for unknown clients.
    #[must_use]
    pub fn app_of(segment: &str) -> Option<&'static AppSpec> {
        if UNKNOWN_SEGMENTS.contains(&segment) {
            return None;
        }
        APPS.iter()
            .find(|app| app.segments.contains(&segment))
            .or_else(|| APPS.iter().find(|app| app.segments.is_empty()))
    }
}

/// The instant of a purchase that expires at `expiry` (D2), for instants that have one.
fn a_year_before(expiry: Timestamp) -> Timestamp {
    let shifted = jiff::Timestamp::from_microsecond(expiry.as_micros())
        .map(|at| at.to_zoned(jiff::tz::TimeZone::UTC))
        .and_then(|at| at.checked_sub(jiff::Span::new().years(1)));
    shifted
        .ok()
        .and_then(|at| Timestamp::from_micros(at.timestamp().as_microsecond()).ok())
        .unwrap_or(Timestamp::MIN)
}
