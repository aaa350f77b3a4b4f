//! From messages to checked questions: filters, keys, scopes.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use drawdown_ledger_core::BurnRate;
use drawdown_proto::ledger::v1;
use drawdown_service::{Refusal, refusal::Violations};
use drawdown_types::{AccountId, DimensionName, MicroTokens, StatementId, TeamId, Timestamp};

use super::decode::{asking, instant, optional_instant, parsed, request_id, text};
use crate::{
    export::{FocusSettings, Format},
    reason,
    reports::{ChargeQuestion, ExportQuestion, JournalQuestion, Period, Scope},
    store::charges::{ChargeFilter, GroupBy},
    tokens::Of,
};

/// Most values of one condition.
const FILTER_VALUES_MAX: usize = 100;
/// Most dimensions of a condition, or keys: a meter has no more.
const DIMENSIONS_MAX: usize = 8;
/// The longest value of a dimension, in bytes.
const DIMENSION_VALUE_BYTES_MAX: usize = 256;
const DAY_MICROS: i64 = 86_400_000_000;

/// Values that are parsed from their texts, each with its place.
pub(super) fn list<T>(v: &mut Violations, field: &str, texts: &[String]) -> Vec<T>
where
    T: FromStr,
    T::Err: Display,
{
    if texts.len() > FILTER_VALUES_MAX {
        v.push(field, format!("are {}, at most {FILTER_VALUES_MAX}", texts.len()));
    }
    let texts = texts.iter().take(FILTER_VALUES_MAX).enumerate();
    texts.filter_map(|(index, text)| parsed(v, &format!("{field}[{index}]"), text)).collect()
}

/// The start of a UTC day.
fn day(v: &mut Violations, field: &str, at: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    let at = optional_instant(v, field, at).flatten()?;
    let whole = at.as_micros().checked_rem_euclid(DAY_MICROS) == Some(0);
    if !whole {
        v.push(field, format!("is {at}, must be the start of a UTC day"));
    }
    whole.then_some(at)
}

fn filter(v: &mut Violations, filter: Option<&v1::ChargeFilter>) -> ChargeFilter {
    let Some(filter) = filter else { return ChargeFilter::default() };
    v.within("filter", |v| {
        let from = day(v, "from", filter.from.as_ref());
        let to = day(v, "to", filter.to.as_ref());
        if let Some((from, to)) = from.zip(to).filter(|(from, to)| from >= to) {
            v.push("to", format!("is {to}, must lie after {from}, where the range begins"));
        }
        let failed = match v1::ChargeOutcome::try_from(filter.outcome) {
            Ok(v1::ChargeOutcome::Unspecified) => None,
            Ok(v1::ChargeOutcome::Succeeded) => Some(false),
            Ok(v1::ChargeOutcome::Failed) => Some(true),
            Err(_) => {
                v.push("outcome", "must be succeeded, failed or nothing");
                None
            }
        };
        ChargeFilter {
            apps: list(v, "app_ids", &filter.app_ids),
            clients: list(v, "client_ids", &filter.client_ids),
            meters: list(v, "meters", &filter.meters),
            dimensions: dimensions(v, filter),
            from,
            to,
            failed,
            recorded_until: optional_instant(v, "recorded_until", filter.recorded_until.as_ref()).flatten(),
        }
    })
}

fn dimensions(v: &mut Violations, filter: &v1::ChargeFilter) -> BTreeMap<String, String> {
    if filter.dimensions.len() > DIMENSIONS_MAX {
        v.push("dimensions", format!("are {}, at most {DIMENSIONS_MAX}", filter.dimensions.len()));
    }
    let sorted: BTreeMap<_, _> = filter.dimensions.iter().take(DIMENSIONS_MAX).collect();
    for (name, value) in &sorted {
        let field = format!("dimensions[{name}]");
        parsed::<DimensionName>(v, &field, name);
        if value.len() > DIMENSION_VALUE_BYTES_MAX || value.contains('\0') {
            v.push(&field, format!("must have at most {DIMENSION_VALUE_BYTES_MAX} bytes and no NUL"));
        }
    }
    sorted.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn optional_id<T>(v: &mut Violations, field: &str, text: &str) -> Option<Option<T>>
where
    T: FromStr,
    T::Err: Display,
{
    if text.is_empty() { Some(None) } else { parsed(v, field, text).map(Some) }
}

pub(super) fn charge_list(request: &v1::ListChargesRequest) -> Result<ChargeQuestion, Refusal> {
    let mut v = Violations::new();
    let account_id = asking(&mut v, &request.account_id);
    let team_id: Option<TeamId> = parsed(&mut v, "team_id", &request.team_id);
    let filter = filter(&mut v, request.filter.as_ref());
    let asked = account_id.zip(team_id);
    let asked = asked.map(|(account, team)| ChargeQuestion { of: Of { account, team }, filter });
    v.finish(reason::REQUEST_INVALID, asked)
}

pub(super) fn charge_stream(request: &v1::StreamChargesRequest) -> Result<ChargeQuestion, Refusal> {
    let mut v = Violations::new();
    let account_id: Option<AccountId> = parsed(&mut v, "account_id", &request.account_id);
    let team_id: Option<TeamId> = parsed(&mut v, "team_id", &request.team_id);
    let filter = filter(&mut v, request.filter.as_ref());
    let asked = account_id.zip(team_id);
    let asked =
        asked.map(|(account, team)| ChargeQuestion { of: Of { account: Some(account), team }, filter });
    v.finish(reason::REQUEST_INVALID, asked)
}

pub(super) fn summary(
    request: &v1::SummarizeUsageRequest,
) -> Result<(Scope, ChargeFilter, GroupBy), Refusal> {
    let mut v = Violations::new();
    let scope = scope(&mut v, &request.account_id, &request.team_id);
    let filter = filter(&mut v, request.filter.as_ref());
    let by = keys(&mut v, request);
    v.finish(reason::REQUEST_INVALID, scope.map(|scope| (scope, filter, by)))
}

fn keys(v: &mut Violations, request: &v1::SummarizeUsageRequest) -> GroupBy {
    let mut by = GroupBy::default();
    for (index, key) in request.group_by.iter().enumerate() {
        let field = format!("group_by[{index}]");
        let key = match v1::UsageKey::try_from(*key) {
            Ok(v1::UsageKey::Team) => &mut by.team,
            Ok(v1::UsageKey::App) => &mut by.app,
            Ok(v1::UsageKey::ClientId) => &mut by.client,
            Ok(v1::UsageKey::Meter) => &mut by.meter,
            Ok(v1::UsageKey::Day) => &mut by.day,
            Ok(v1::UsageKey::Hour) => &mut by.hour,
            Ok(v1::UsageKey::Outcome) => &mut by.outcome,
            Ok(v1::UsageKey::Unspecified) | Err(_) => {
                v.push(&field, format!("{key} is no key: team, app, client id, meter, day, outcome"));
                continue;
            }
        };
        if std::mem::replace(key, true) {
            v.push(&field, "is there twice");
        }
    }
    let names = &request.group_by_dimensions;
    if names.len() > DIMENSIONS_MAX {
        v.push("group_by_dimensions", format!("are {}, at most {DIMENSIONS_MAX}", names.len()));
    }
    for (index, name) in names.iter().take(DIMENSIONS_MAX).enumerate() {
        let field = format!("group_by_dimensions[{index}]");
        parsed::<DimensionName>(v, &field, name);
        if by.dimensions.contains(name) {
            v.push(&field, "is there twice");
        }
        by.dimensions.push(name.clone());
    }
    by
}

fn scope(v: &mut Violations, account: &str, team: &str) -> Option<Scope> {
    let account_id = parsed(v, "account_id", account);
    let team_id = optional_id(v, "team_id", team);
    account_id.zip(team_id).map(|(account_id, team_id)| Scope { account_id, team_id })
}

pub(super) fn issue(request: &v1::IssueStatementsRequest) -> Result<(Scope, Period), Refusal> {
    let mut v = Violations::new();
    request_id(&mut v, &request.request_id);
    let scope = scope(&mut v, &request.account_id, &request.team_id);
    let from = instant(&mut v, "from", request.from.as_ref());
    let to = instant(&mut v, "to", request.to.as_ref());
    let period = from.zip(to);
    if let Some((from, to)) = period.filter(|(from, to)| from >= to) {
        v.push("to", format!("is {to}, must lie after {from}, where the period begins"));
    }
    v.finish(reason::REQUEST_INVALID, scope.zip(period))
}

pub(super) fn statement(request: &v1::GetStatementRequest) -> Result<(AccountId, StatementId), Refusal> {
    let mut v = Violations::new();
    let account = parsed(&mut v, "account_id", &request.account_id);
    let statement = parsed(&mut v, "statement_id", &request.statement_id);
    v.finish(reason::REQUEST_INVALID, account.zip(statement))
}

pub(super) fn statements(request: &v1::ListStatementsRequest) -> Result<Scope, Refusal> {
    let mut v = Violations::new();
    let scope = scope(&mut v, &request.account_id, &request.team_id);
    v.finish(reason::REQUEST_INVALID, scope)
}

pub(super) fn journal_list(request: &v1::ListJournalRequest) -> Result<JournalQuestion, Refusal> {
    let mut v = Violations::new();
    let account = asking(&mut v, &request.account_id);
    let asked = journal(&mut v, &request.team_id, request.after_seq, request.filter.as_ref());
    let asked = account.zip(asked).map(|(account, asked)| asked.by(account));
    v.finish(reason::REQUEST_INVALID, asked)
}

pub(super) fn journal_stream(request: &v1::StreamJournalRequest) -> Result<JournalQuestion, Refusal> {
    let mut v = Violations::new();
    let account = parsed(&mut v, "account_id", &request.account_id);
    let asked = journal(&mut v, &request.team_id, request.after_seq, request.filter.as_ref());
    let asked = account.zip(asked);
    let asked = asked.map(|(account, asked)| asked.by(Some(account)));
    v.finish(reason::REQUEST_INVALID, asked)
}

fn journal(
    v: &mut Violations,
    team_id: &str,
    after_seq: i64,
    filter: Option<&v1::JournalFilter>,
) -> Option<JournalQuestion> {
    let team_id = parsed(v, "team_id", team_id);
    if after_seq < 0 {
        v.push("after_seq", format!("is {after_seq}, must be at least 0"));
    }
    let none = v1::JournalFilter::default();
    let filter = filter.unwrap_or(&none);
    v.within("filter", |v| {
        let lot_id = optional_id(v, "lot_id", &filter.lot_id);
        let charge_id = optional_id(v, "charge_id", &filter.charge_id);
        if filter.up_to_seq < 0 || (filter.up_to_seq > 0 && filter.up_to_seq <= after_seq) {
            let why = format!(
                "is {}, must be 0 or above {after_seq}, after which the range begins",
                filter.up_to_seq
            );
            v.push("up_to_seq", why);
        }
        let posted_from = optional_instant(v, "posted_from", filter.posted_from.as_ref());
        let posted_to = optional_instant(v, "posted_to", filter.posted_to.as_ref());
        if let Some((from, to)) =
            posted_from.flatten().zip(posted_to.flatten()).filter(|(from, to)| from >= to)
        {
            v.push("posted_to", format!("is {to}, must lie after {from}, where the range begins"));
        }
        Some(JournalQuestion {
            of: Of { account: None, team: team_id? },
            after_seq,
            up_to_seq: (filter.up_to_seq > 0).then_some(filter.up_to_seq),
            posted_from: posted_from?,
            posted_to: posted_to?,
            kinds: list(v, "kinds", &filter.kinds),
            lot_id: lot_id?,
            charge_id: charge_id?,
        })
    })
}

pub(super) fn forecast(
    request: &v1::GetForecastRequest,
) -> Result<(AccountId, TeamId, Option<BurnRate>), Refusal> {
    let mut v = Violations::new();
    let account = parsed(&mut v, "account_id", &request.account_id);
    let team = parsed(&mut v, "team_id", &request.team_id);
    let rate = match request.micros_per_day {
        None => Some(None),
        Some(micros) => {
            let rate = BurnRate::new(MicroTokens::from_micros(micros), 1);
            v.field("micros_per_day", || rate.ok_or_else(|| format!("is {micros}, must be at least 0")))
                .map(Some)
        }
    };
    let asked = account.zip(team).zip(rate).map(|((account, team), rate)| (account, team, rate));
    v.finish(reason::REQUEST_INVALID, asked)
}

/// The longest name in a file, in bytes.
const FILE_NAME_BYTES_MAX: usize = 200;
/// Most names of teams: more than any account has teams.
const TEAM_NAMES_MAX: usize = 10_000;

pub(super) fn export(request: &v1::ExportUsageRequest) -> Result<ExportQuestion, Refusal> {
    let mut v = Violations::new();
    let whose = scope(&mut v, &request.account_id, &request.team_id);
    let filter = filter(&mut v, request.filter.as_ref());
    for (field, day) in [("filter.from", filter.from), ("filter.to", filter.to)] {
        let given = request.filter.as_ref().is_some_and(|filter| match field {
            "filter.from" => filter.from.is_some(),
            _ => filter.to.is_some(),
        });
        if day.is_none() && !given {
            v.push(field, "must be set");
        }
    }
    let format = match v1::ExportFormat::try_from(request.format) {
        Ok(v1::ExportFormat::Csv) => Some(Format::Csv),
        Ok(v1::ExportFormat::Parquet) => Some(Format::Parquet),
        Ok(v1::ExportFormat::Focus) => {
            let focus = v.require("focus", request.focus.as_ref());
            focus.and_then(|focus| v.within("focus", |v| focus_settings(v, focus))).map(Format::Focus)
        }
        Ok(v1::ExportFormat::Unspecified) | Err(_) => {
            v.push("format", "must be csv, parquet or focus");
            None
        }
    };
    let asked = whose.zip(format).map(|(whose, format)| ExportQuestion { whose, filter, format });
    v.finish(reason::REQUEST_INVALID, asked)
}

fn focus_settings(v: &mut Violations, focus: &v1::FocusSettings) -> Option<FocusSettings> {
    let currency = &focus.billing_currency;
    let is_code = currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_uppercase());
    if !is_code {
        v.push("billing_currency", "must be three capital letters of ISO 4217");
    }
    let token_price = parsed(v, "token_price", &focus.token_price);
    let provider_name = text(v, "provider_name", &focus.provider_name, 1, FILE_NAME_BYTES_MAX);
    let service_name = text(v, "service_name", &focus.service_name, 1, FILE_NAME_BYTES_MAX);
    let account_name = text(v, "account_name", &focus.account_name, 1, FILE_NAME_BYTES_MAX);
    let team_names = team_names(v, focus);
    is_code.then_some(())?;
    Some(FocusSettings {
        billing_currency: currency.clone(),
        token_price: token_price?,
        provider_name: provider_name?,
        service_name: service_name?,
        account_name: account_name?,
        team_names,
    })
}

fn team_names(v: &mut Violations, focus: &v1::FocusSettings) -> BTreeMap<String, String> {
    if focus.team_names.len() > TEAM_NAMES_MAX {
        v.push("team_names", format!("are {}, at most {TEAM_NAMES_MAX}", focus.team_names.len()));
    }
    // Sorted, so that violations always come in the same order.
    let sorted: BTreeMap<_, _> = focus.team_names.iter().take(TEAM_NAMES_MAX).collect();
    let named = sorted.into_iter().filter_map(|(team, name)| {
        let field = format!("team_names[{team}]");
        let team: Option<TeamId> = parsed(v, &field, team);
        team.zip(text(v, &field, name, 1, FILE_NAME_BYTES_MAX))
    });
    named.map(|(team, name)| (team.to_string(), name)).collect()
}
