//! What the ledger tells of teams, accounts and meters, and who tells it: messages in, values of the core out.

use drawdown_entitlement_core::{
    ContractKind,
    access::{
        AccountStanding, Budget, Meter, MeterTerm, PriceBound, Pricing, Quota, Span, Step, TeamStanding,
    },
};
use drawdown_proto::{
    ledger::v1::{
        self, ListStandingsRequest, ListStandingsResponse, WatchStandingsRequest, WatchStandingsResponse,
    },
    scalar::timestamp_from_proto,
};
use drawdown_types::Timestamp;
use futures::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use tonic::Status;

use crate::{
    Ledger,
    memory::{Catalogue, Told},
};

/// Changes of standings as they come.
pub type StandingChanges = BoxStream<'static, Result<WatchStandingsResponse, Status>>;

/// Somebody who knows where teams stand.
pub trait Standings: Send + Sync + 'static {
    /// A page of all standings, or those of some teams.
    fn list(
        &self,
        team_ids: Vec<String>,
        page_token: String,
    ) -> BoxFuture<'_, Result<ListStandingsResponse, Status>>;

    /// Changes since a cursor.
    fn watch(&self, cursor: String) -> BoxFuture<'_, Result<StandingChanges, Status>>;
}

impl Standings for Ledger {
    fn list(
        &self,
        team_ids: Vec<String>,
        page_token: String,
    ) -> BoxFuture<'_, Result<ListStandingsResponse, Status>> {
        let mut client = drawdown_client::ledger::standings(self.channel());
        Box::pin(async move {
            let request = ListStandingsRequest { team_ids, page_size: 0, page_token };
            Ok(client.list_standings(request).await?.into_inner())
        })
    }

    fn watch(&self, cursor: String) -> BoxFuture<'_, Result<StandingChanges, Status>> {
        let mut client = drawdown_client::ledger::standing_changes(self.channel());
        Box::pin(async move {
            let changes = client.watch_standings(WatchStandingsRequest { cursor }).await?.into_inner();
            Ok(changes.boxed())
        })
    }
}

// === decode ===

fn wrong(what: &'static str) -> Status {
    Status::internal(format!("the ledger told {what} that can not be read"))
}

fn instant(at: Option<&prost_types::Timestamp>) -> Result<Option<Timestamp>, Status> {
    at.map(|at| timestamp_from_proto(at).map_err(|_| wrong("an instant"))).transpose()
}

fn from(at: Option<&prost_types::Timestamp>) -> Result<Timestamp, Status> {
    instant(at)?.ok_or_else(|| wrong("a time without its beginning"))
}

fn id<T: std::str::FromStr>(text: &str) -> Result<T, Status> {
    text.parse().map_err(|_| wrong("an id"))
}

fn optional_id<T: std::str::FromStr>(text: &str) -> Result<Option<T>, Status> {
    Some(text).filter(|text| !text.is_empty()).map(id).transpose()
}

fn all<T, U>(items: &[T], item: impl Fn(&T) -> Result<U, Status>) -> Result<Box<[U]>, Status> {
    items.iter().map(item).collect()
}

fn step(step: &v1::BalanceStep) -> Result<Step, Status> {
    Ok(Step {
        from: from(step.from.as_ref())?,
        available_micros: step.available_micros,
        uncharged_micros: step.uncharged_micros,
        grace_deadline: instant(step.grace_deadline.as_ref())?,
    })
}

fn budget(budget: &v1::BudgetStanding) -> Result<Budget, Status> {
    Ok(Budget {
        app_id: optional_id(&budget.app_id)?,
        month: id(&budget.month)?,
        cap_micros: budget.cap_micros,
        used_micros: budget.used_micros,
        hard: budget.hard,
    })
}

fn quota(quota: &v1::QuotaStanding) -> Result<Quota, Status> {
    Ok(Quota { price_id: id(&quota.price_id)?, month: id(&quota.month)?, used_quantity: quota.used_quantity })
}

fn team(team: &v1::TeamStanding) -> Result<TeamStanding, Status> {
    Ok(TeamStanding {
        steps: all(&team.steps, step)?,
        steps_until: instant(team.steps_until.as_ref())?,
        budgets: all(&team.budgets, budget)?,
        quotas: all(&team.quotas, quota)?,
    })
}

fn account(account: &v1::AccountStanding) -> Result<AccountStanding, Status> {
    let span =
        |span: &v1::NoGrace| Ok(Span { from: from(span.from.as_ref())?, to: instant(span.to.as_ref())? });
    Ok(AccountStanding { no_grace: all(&account.no_grace, span)?, budgets: all(&account.budgets, budget)? })
}

fn term(term: &v1::MeterTerm) -> Result<MeterTerm, Status> {
    let contract_kind = match term.contract_kind() {
        v1::ContractKind::Flex => ContractKind::Flex,
        v1::ContractKind::Enterprise => ContractKind::Enterprise,
        v1::ContractKind::Unspecified => return Err(wrong("a contract kind")),
    };
    let pricing = match term.pricing() {
        v1::MeterPricing::Unpriced => Pricing::Unpriced,
        v1::MeterPricing::Free => Pricing::Free,
        v1::MeterPricing::Charged => Pricing::Charged,
        v1::MeterPricing::FreeTierOnly => Pricing::FreeTierOnly,
        v1::MeterPricing::Unspecified => return Err(wrong("a pricing")),
    };
    Ok(MeterTerm {
        contract_kind,
        from: from(term.from.as_ref())?,
        pricing,
        price_id: optional_id(&term.price_id)?,
        free_quota: term.free_quota,
        bound: (term.per_units > 0).then_some(PriceBound {
            micros: term.micros_max,
            per_units: term.per_units,
            charged_unit: term.charged_unit,
        }),
    })
}

fn catalogue(meters: &v1::MeterStandings) -> Result<Catalogue, Status> {
    let meter = |meter: &v1::MeterStanding| {
        let terms = all(&meter.terms, term)?;
        Ok((meter.meter.as_str().into(), Meter { hard: meter.hard, terms }))
    };
    meters.meters.iter().map(meter).collect()
}

fn told(
    teams: &[v1::TeamStanding],
    accounts: &[v1::AccountStanding],
    meters: Option<&v1::MeterStandings>,
    rules: Option<v1::StandingRules>,
    as_of: Option<&prost_types::Timestamp>,
) -> Result<Told, Status> {
    let of_team = |told: &v1::TeamStanding| Ok((id(&told.team_id)?, id(&told.account_id)?, team(told)?));
    let of_account = |told: &v1::AccountStanding| Ok((id(&told.account_id)?, account(told)?));
    Ok(Told {
        teams: all(teams, of_team)?.into_vec(),
        accounts: all(accounts, of_account)?.into_vec(),
        catalogue: meters.map(catalogue).transpose()?,
        debt_limit_micros: rules.map(|rules| rules.debt_limit_micros),
        as_of: instant(as_of)?,
    })
}

/// What a page of a list tells.
pub(crate) fn told_by_list(page: &ListStandingsResponse) -> Result<Told, Status> {
    told(&page.teams, &page.accounts, page.meters.as_ref(), page.rules, page.as_of.as_ref())
}

/// What a message of changes tells.
pub(crate) fn told_by_watch(message: &WatchStandingsResponse) -> Result<Told, Status> {
    told(&message.teams, &message.accounts, message.meters.as_ref(), message.rules, message.as_of.as_ref())
}
