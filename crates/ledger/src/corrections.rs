//! Corrections of charges (D11, D43): usage is taken back by rows that point at what they correct, and charged
//! again where it belongs. One transaction over every team concerned: that of the charge, that of the new
//! charge, and those where lots live now that left the first.
//!
//! How many lines a refund reaches is known only when it is computed, so their journal is loaded under the locks,
//! few at first and then eight times as many, up to a limit; nothing is written before the core has its answer.

mod lines;
mod usage;

use std::{collections::HashSet, sync::Arc};

use drawdown_ledger_core::{
    Attribution, Charge, Corrected, Correction, CorrectionError, Cycle, Line, Payer, PeriodShrink, Periods,
    Plan, Spent, StandingCharge, Team, UsageKey, correct, periods_wanted, usage_keys,
};
use drawdown_service::Code;
use drawdown_types::{AccountId, AppId, ChargeId, ClientId, LotId, MeterSlug, Quantity, TeamId, Timestamp};
use sqlx::{PgConnection, Postgres, Transaction};

use crate::{
    catalogue::Catalogue,
    error::Error,
    noting, reason,
    reports::{Scope, check_rows_in_tx},
    service::{Ledger, connection},
    store::{
        audit, catalog,
        charges::{self, ChargeFilter, ChargeRead, Part},
        corrections::{self, StoredCharge},
        journal, periods, reads, settlement, teams,
        teams::{StoredTeam, Wanted},
        write::{self, ChargeRow, LotNote, Noted, PlanRows, TeamUsage},
    },
    tokens::{check_account, refuse},
};

/// How many of the latest lines are looked at first.
const LINES_FIRST: usize = 16;

/// What to take back, and what to charge instead.
#[derive(Clone, Debug)]
pub(crate) struct CorrectionOrder {
    pub(crate) account_id: AccountId,
    pub(crate) team_id: TeamId,
    pub(crate) charge_id: ChargeId,
    /// In base units; all that stands where it is none.
    pub(crate) quantity: Option<Quantity>,
    pub(crate) instead: Option<Instead>,
    pub(crate) reason: String,
}

/// Usage to charge instead; what is not said is as in the corrected charge.
#[derive(Clone, Debug)]
pub(crate) struct Instead {
    pub(crate) team_id: Option<TeamId>,
    pub(crate) app_id: Option<AppId>,
    pub(crate) client_id: Option<ClientId>,
    pub(crate) meter: Option<MeterSlug>,
    pub(crate) window: Option<Timestamp>,
    pub(crate) quantity: Quantity,
    pub(crate) failed: Option<bool>,
}

/// A correction that is written; the transaction is open.
pub(crate) struct Done {
    pub(crate) tx: Transaction<'static, Postgres>,
    /// What was taken back, as stored: below zero.
    pub(crate) taken_back: ChargeRead,
    /// The new charge and its team.
    pub(crate) instead: Option<(TeamId, ChargeRead)>,
    /// What of the refund was still owed.
    pub(crate) cancelled: i64,
    pub(crate) posted_at: Timestamp,
}

/// Everything that is known before the core is asked.
struct Case {
    tx: Transaction<'static, Postgres>,
    now: Timestamp,
    catalogue: Arc<Catalogue>,
    found: StoredCharge,
    standing: StandingCharge,
    quantity: Quantity,
    key: Option<UsageKey>,
    period: Option<PeriodShrink>,
    line: Option<Line>,
    periods: Periods,
    teams: Vec<TeamId>,
}

/// What the core has planned.
struct Planned {
    plan: Plan,
    corrected: Corrected,
    stored: Vec<StoredTeam>,
    noted: Noted,
    /// The teams as they were.
    before: Vec<serde_json::Value>,
}

// === impl Ledger ===

impl Ledger {
    /// Corrects a charge.
    pub(crate) async fn correct(&self, order: &CorrectionOrder) -> Result<Done, Error> {
        check_account(self.team_facts(order.team_id).await?.account_id, order.account_id)?;
        let mut case = self.open_case(order).await?;
        let planned = self.plan_correction(order, &mut case).await?;
        self.write_correction(order, case, planned).await
    }

    async fn open_case(&self, order: &CorrectionOrder) -> Result<Case, Error> {
        let (account, team) = (order.account_id, order.team_id);
        let unknown = || {
            let why = format!("team {team} has no charge {} that is no correction", order.charge_id);
            refuse(Code::NotFound, reason::CHARGE_UNKNOWN, "charge_id", why)
        };
        let (seen, homes) = {
            let mut reader = self.pool.read().await?;
            let seen = corrections::charge_in_tx(&mut reader, account, team, order.charge_id).await?;
            if seen.is_none() {
                // An archived charge is not told from one that never was.
                check_rows_in_tx(&mut reader, Scope { account_id: account, team_id: Some(team) }, None)
                    .await?;
            }
            (seen, corrections::homes_in_tx(&mut reader, account, team).await?)
        };
        let seen = seen.filter(|found| !found.is_correction).ok_or_else(unknown)?;
        let payer = match &order.instead {
            Some(instead) => Some(self.payer(instead, &seen, team).await?),
            None => None,
        };
        let mut teams: Vec<(AccountId, TeamId)> = homes.iter().map(|home| (account, *home)).collect();
        teams.push((account, team));
        teams.extend(payer.map(|payer| (payer.account_id, payer.team_id)));
        let mut tx = self.begin().await?;
        let version = catalog::share_in_tx(connection(&mut tx)).await?;
        teams::lock_in_tx(connection(&mut tx), teams.clone()).await?;
        let now = self.clock.now();
        // What was read before the locks is read again under them.
        if corrections::homes_in_tx(connection(&mut tx), account, team).await? != homes {
            let why = "a lot moved meanwhile: try again";
            return Err(refuse(Code::Unavailable, reason::LOT_MOVED, "charge_id", why));
        }
        let found = corrections::charge_in_tx(connection(&mut tx), account, team, order.charge_id).await?;
        let found = found.ok_or_else(unknown)?;
        // A refund may reach any line of the month, so all of them have to be here.
        let month = Cycle::of(found.window_start.0).start();
        let whose = Scope { account_id: account, team_id: Some(team) };
        check_rows_in_tx(connection(&mut tx), whose, Some(month)).await?;
        let catalogue = self.poster().catalogue.of_version(connection(&mut tx), version).await?;
        let standing = usage::standing(&found, order)?;
        let key = standing.rated.price_id().map(|price_id| UsageKey {
            team_id: team,
            price_id,
            cycle: Cycle::of(standing.window),
        });
        let period = match key {
            Some(key) => usage::period_of(connection(&mut tx), account, key, &standing, &catalogue).await?,
            None => None,
        };
        let latest = now.checked_add(self.events().ahead_max).unwrap_or(Timestamp::MAX);
        let line = (order.instead.as_ref().zip(payer))
            .map(|(instead, payer)| usage::line(instead, payer, (&found, latest), &catalogue, &self.settings))
            .transpose()?;
        let wanted = periods_wanted(&catalogue.prices, line.as_slice(), &[]);
        let periods = periods::load_in_tx(connection(&mut tx), &wanted).await?;
        let mut teams: Vec<TeamId> = teams.into_iter().map(|(_, team)| team).collect();
        teams.sort_unstable();
        teams.dedup();
        let quantity = order.quantity.unwrap_or(standing.quantity);
        Ok(Case { tx, now, catalogue, found, standing, quantity, key, period, line, periods, teams })
    }

    /// Who is to pay instead.
    async fn payer(&self, instead: &Instead, seen: &StoredCharge, own: TeamId) -> Result<Payer, Error> {
        let team_id = instead.team_id.unwrap_or(own);
        let facts = self.team_facts(team_id).await?;
        let window = instead.window.unwrap_or(seen.window_start.0);
        let app_id = instead.app_id.unwrap_or_else(|| AppId::from_uuid(seen.app_id));
        Ok(facts.payer(team_id, app_id, window))
    }

    async fn plan_correction(&self, order: &CorrectionOrder, case: &mut Case) -> Result<Planned, Error> {
        let catalogue = Arc::clone(&case.catalogue);
        let mut keys = usage_keys(&catalogue.prices, case.line.as_slice(), &[]);
        keys.extend(case.key.iter().flat_map(|key| [*key, UsageKey { cycle: Cycle::ENDLESS, ..*key }]));
        keys.sort_unstable();
        keys.dedup();
        let mut months = noting::months(case.line.as_slice(), &[]);
        months.push(drawdown_ledger_core::month_of(case.standing.window).0);
        months.sort_unstable();
        months.dedup();
        let mut limit = LINES_FIRST.min(self.limits.correction_lines_max);
        let live = live_lots_in_tx(connection(&mut case.tx), &case.teams).await?;
        loop {
            let latest = match case.key {
                Some(key) => {
                    let which = (order.charge_id, case.found.by_unit);
                    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                    corrections::latest_in_tx(connection(&mut case.tx), order.account_id, key, which, limit)
                        .await?
                }
                None => Vec::new(),
            };
            let mut lines = vec![order.charge_id];
            lines.extend(&latest);
            let tx = connection(&mut case.tx);
            let journal = journal::of_charges_in_tx(tx, order.account_id, order.team_id, &lines).await?;
            let paid = journal.rows.iter().filter_map(|row| row.lot_id);
            let lots: HashSet<LotId> = paid.chain(live.iter().copied()).collect();
            let lots: Vec<LotId> = lots.into_iter().collect();
            let wanted = Wanted { keys: &keys, months: &months, lots: &lots, items: false };
            let (stored, states) = teams::load_wanted_in_tx(tx, &case.teams, &wanted).await?;
            let correction = Correction {
                charge_id: ChargeId::generate(),
                corrected: &case.standing,
                quantity: case.quantity,
                period: case.period.clone(),
                recharge: case.line.as_ref(),
                latest: &latest,
                journal: &journal,
                states: &states,
                periods: &case.periods,
                prices: &catalogue.prices,
            };
            match self.ask_core(case, &correction, stored) {
                Err(CorrectionError::MoreLines) if latest.len() == limit => {
                    if limit == self.limits.correction_lines_max {
                        return Err(too_wide(limit));
                    }
                    limit = limit.saturating_mul(8).min(self.limits.correction_lines_max);
                }
                Err(error) => return Err(refusal(error)),
                Ok(planned) => return Ok(planned),
            }
        }
    }

    fn ask_core(
        &self,
        case: &Case,
        correction: &Correction<'_>,
        mut stored: Vec<StoredTeam>,
    ) -> Result<Planned, CorrectionError> {
        let mut after: Vec<Team> = stored.iter().map(|stored| stored.team.clone()).collect();
        let until = self.settled_until(case.now);
        let (plan, corrected) =
            correct(&mut after, correction, case.now, until, &self.settings, ChargeId::generate)?;
        let at = plan.instant.unwrap_or(case.now);
        let before = lines::teams(&stored);
        let mut noted = noting::advance(&mut stored, after, &plan, at, &self.notice_rules, &self.settings);
        let spent = Spent {
            team_id: corrected.team_id,
            app_id: AppId::from_uuid(case.found.app_id),
            window: corrected.window,
            amount: corrected.amount.as_micros().saturating_neg(),
        };
        noting::count(&mut noted, &mut stored, case.line.as_slice(), &plan, Some(spent));
        Ok(Planned { plan, corrected, stored, noted, before })
    }

    async fn write_correction(
        &self,
        order: &CorrectionOrder,
        mut case: Case,
        planned: Planned,
    ) -> Result<Done, Error> {
        let Planned { plan, corrected, mut stored, noted, before } = planned;
        let taken_back = as_charge(&corrected);
        let charges = [
            Some((&taken_back, None)),
            plan.charges.first().zip(case.line.as_ref()).map(|(c, l)| (c, Some(l))),
        ];
        let (events, payer) = (events_back(&case), payer_of(&case));
        let mut rows = Vec::with_capacity(charges.len());
        for (charge, line) in charges.into_iter().flatten() {
            let seq = next_seq(&mut stored, charge)?;
            rows.push(match (line, payer) {
                (Some(line), Some(payer)) => row_instead(order, &case.found, charge, line, payer, seq),
                _ => row_back(order, (&case.found, events), charge, seq),
            });
        }
        let balances: Vec<_> = stored
            .iter()
            .map(|known| {
                let StoredTeam { charges, last_window, watch, team, .. } = known;
                (&team.balance, TeamUsage { charges: *charges, last_window: *last_window, watch: *watch })
            })
            .collect();
        let written: Vec<_> = rows.iter().map(|row| (row.charge.team_id, row.seq)).collect();
        let plan_rows = PlanRows {
            batch: (0, 0),
            charges: &rows,
            plan: &plan,
            balances: &balances,
            noted: &noted,
            note: &LotNote::default(),
            sub_batch: self.limits.sub_batch_lines,
        };
        let tx = connection(&mut case.tx);
        write::write_in_tx(tx, &plan_rows).await?;
        let accounts = balances.iter().map(|(balance, _)| (balance.team_id, balance.account_id)).collect();
        corrections::forget_in_tx(tx, order.account_id, &corrected.gone).await?;
        periods::write_in_tx(tx, &accounts, &plan.periods, &[]).await?;
        if let Some(line) = &case.line {
            settlement::note_clients_in_tx(tx, &[(line.client_id.as_str(), line.window)]).await?;
        }
        let books = [before, lines::teams(&stored)];
        let line = lines::line(order, &case.found, &corrected, plan.charges.first(), books);
        audit::note_in_tx(tx, case.now, line).await?;
        let mut read = Vec::with_capacity(written.len());
        for (team, seq) in written {
            read.push((team, self.read_charge(&mut case.tx, &stored, team, seq).await?));
        }
        let mut read = read.into_iter();
        let taken_back = read.next().ok_or_else(|| Error::Broken("a correction has no charge".to_owned()))?;
        Ok(Done {
            taken_back: taken_back.1,
            instead: read.next(),
            cancelled: corrected.cancelled.as_micros(),
            posted_at: corrected.posted_at,
            tx: case.tx,
        })
    }

    /// A charge that was just written, as its lists show it.
    async fn read_charge(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        stored: &[StoredTeam],
        team: TeamId,
        seq: i64,
    ) -> Result<ChargeRead, Error> {
        let gone = || Error::Broken("a charge that was written is not there".to_owned());
        let known = stored.iter().find(|known| known.team.balance.team_id == team).ok_or_else(gone)?;
        let at = known.team.balance.posted_at.unwrap_or(Timestamp::MIN);
        let part = Part {
            account_id: known.team.balance.account_id,
            team_id: team,
            after: seq.saturating_sub(1),
            up_to: seq,
            settled: self.seen_team(known, at).settled,
            limit: 1,
        };
        charges::list_in_tx(connection(tx), &part, &ChargeFilter::default()).await?.pop().ok_or_else(gone)
    }
}

/// Lots that may pay as soon as their teams are rolled forward, which no journal row tells yet. What comes back to one
/// that is closing by then pays items of its validity (D42), so these have to be loaded for all of them.
async fn live_lots_in_tx(tx: &mut PgConnection, teams: &[TeamId]) -> Result<Vec<LotId>, Error> {
    let mut live = Vec::new();
    for team in teams {
        let lots = reads::lots(&mut *tx, *team).await?;
        live.extend(lots.into_iter().filter(|(lot, _)| lot.is_live()).map(|(lot, _)| lot.lot_id));
    }
    Ok(live)
}

/// The next place in the posting order of the charge's team.
fn next_seq(stored: &mut [StoredTeam], charge: &Charge) -> Result<i64, Error> {
    let known = stored.iter_mut().find(|known| known.team.balance.team_id == charge.team_id);
    let known = known.ok_or_else(|| Error::Broken("a locked team is not there".to_owned()))?;
    known.charges = known.charges.saturating_add(1);
    known.last_window = known.last_window.max(Some(charge.window));
    Ok(known.charges)
}

fn row_back<'a>(
    order: &CorrectionOrder,
    (found, events): (&'a StoredCharge, i64),
    charge: &'a Charge,
    seq: i64,
) -> ChargeRow<'a> {
    ChargeRow {
        charge,
        taken_back: true,
        corrects: Some(order.charge_id),
        account_id: order.account_id,
        seq,
        app_id: AppId::from_uuid(found.app_id),
        client_id: &found.client_id,
        meter: &found.meter,
        failed: found.failed,
        dimensions: &found.dimensions,
        hold_id: None,
        events,
    }
}

fn row_instead<'a>(
    order: &CorrectionOrder,
    found: &'a StoredCharge,
    charge: &'a Charge,
    line: &'a Line,
    payer: Payer,
    seq: i64,
) -> ChargeRow<'a> {
    ChargeRow {
        taken_back: false,
        account_id: payer.account_id,
        app_id: payer.app_id,
        client_id: line.client_id.as_str(),
        meter: line.meter.as_str(),
        failed: line.failed,
        events: i64::try_from(line.events).unwrap_or(i64::MAX),
        ..row_back(order, (found, 0), charge, seq)
    }
}

fn payer_of(case: &Case) -> Option<Payer> {
    match case.line.as_ref()?.attribution {
        Attribution::Payer(payer) => Some(payer),
        Attribution::Nobody(_) => None,
    }
}

/// Events go with the quantity of a meter that counts, and with the last of a line of any other.
fn events_back(case: &Case) -> i64 {
    match case.found.aggregation.as_str() {
        "count" => case.quantity.as_units(),
        _ if case.quantity == case.standing.quantity => case.found.events,
        _ => 0,
    }
}

fn as_charge(corrected: &Corrected) -> Charge {
    Charge {
        charge_id: corrected.charge_id,
        line: 0,
        team_id: corrected.team_id,
        window: corrected.window,
        rated: corrected.rated,
        quantity: corrected.quantity,
        amount: corrected.amount,
        uncharged: corrected.cancelled,
        journal_seq: corrected.journal_seq,
        posted_at: corrected.posted_at,
    }
}

fn too_wide(limit: usize) -> Error {
    let why =
        format!("the refund reaches more than the {limit} latest lines of its key: take back less at a time");
    refuse(Code::FailedPrecondition, reason::CORRECTION_TOO_WIDE, "quantity", why)
}

fn refusal(error: CorrectionError) -> Error {
    let precondition = Code::FailedPrecondition;
    let (code, reason, field) = match &error {
        CorrectionError::Nothing | CorrectionError::MoreThanStands { .. } => {
            (precondition, reason::CHARGE_STANDS_LESS, "quantity")
        }
        CorrectionError::WholeOnly(_) => (precondition, reason::CHARGE_WHOLE_ONLY, "quantity"),
        CorrectionError::RechargeUnfit(_) => (precondition, reason::RECHARGE_UNFIT, "instead"),
        CorrectionError::Overflow => (precondition, reason::BALANCE_OVERFLOW, "quantity"),
        CorrectionError::MoreLines
        | CorrectionError::LotElsewhere(_)
        | CorrectionError::TeamMissing(_)
        | CorrectionError::Unfit(_) => return Error::Broken(error.to_string()),
    };
    refuse(code, reason, field, error)
}
