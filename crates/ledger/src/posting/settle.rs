//! Settling what the gate let through.
//!
//! One writer is two workers: while the server locks, writes charges or writes what they change, this side makes what is
//! needed next ([`beside`]). Nothing of that may depend on the answer of the statement it stands beside.

use drawdown_ledger_core::{
    Batch, FoldError, Hold, Line, Periods, PeriodsWanted, Plan, Team, UsageKey, UsageState, fold_batch,
    periods_wanted, usage_keys,
};
use drawdown_types::{HoldId, TeamId, Timestamp};
use sqlx::{Postgres, Transaction};

use super::{
    Attempt, Balances, Ending, Post, PostError, Poster, Summary, batch, beside::beside, count, events, ids,
    rows::Rows,
};
use crate::{
    catalogue::Catalogue,
    error::Error,
    noting,
    store::{
        events as names,
        events::Kept,
        periods, settlement,
        teams::{self, Revision, StoredTeam, Wanted},
        write::{self, Cut, Noted, Statement, TeamUsage},
    },
};

type Tx = Transaction<'static, Postgres>;

/// What lines ask of the database.
struct Asked {
    keys: Vec<UsageKey>,
    months: Vec<Timestamp>,
    periods: PeriodsWanted,
}

/// Teams of a post, locked.
struct Locked {
    tx: Tx,
    teams: Vec<(TeamId, Revision)>,
    /// Read when all locks were held (D40).
    now: Timestamp,
    asked: Asked,
}

/// What goes with the last statement of a plan, and what became of the teams.
struct Last {
    statement: Statement,
    notices: usize,
    usage: Vec<TeamUsage>,
}

/// The next statement of a plan.
enum Step {
    Charges(Statement),
    Last(Result<Last, Error>),
}

// === impl Asked ===

impl Asked {
    /// What lines of these holds, or of none, ask.
    fn by(lines: &[Line], holds: &[Hold], catalogue: &Catalogue) -> Self {
        let prices = &catalogue.prices;
        Self {
            keys: usage_keys(prices, lines, holds),
            months: noting::months(lines, holds),
            periods: periods_wanted(prices, lines, holds),
        }
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted { keys: &self.keys, months: &self.months, lots: &[], items: false }
    }
}

// === impl Poster ===

impl Poster {
    /// Settles a batch whose cursor is locked, with what is remembered of its events. Nothing, where a balance is missing
    /// and none is to be made.
    pub(super) async fn settle(
        &self,
        mut tx: Tx,
        &Post { batch, events }: &Post<'_>,
        version: i64,
        Attempt { poisoned, ending, balances }: Attempt<'_>,
    ) -> Result<Option<(Summary, Vec<Kept>)>, PostError> {
        let catalogue = self.catalogue.of_version(&mut tx, version).await?;
        let mut lines = batch::charged_lines(batch, &catalogue, poisoned);
        let Some(locked) = self.lock(tx, &lines, balances, &catalogue).await? else { return Ok(None) };
        let Locked { mut tx, teams, now, asked } = locked;
        let mut loaded = self.load_in_tx(&mut tx, &teams, &asked.wanted()).await?;
        let known = periods::load_in_tx(&mut tx, &asked.periods).await?;
        batch::set_apart_foreign(&mut lines, &loaded.stored);
        let until = self.settled_until(&lines, now);
        let states = (&loaded.states[..], &known);
        let (plan, after) = self.plan(&lines, (&[], until), &loaded.stored, states, &catalogue, now)?;
        let mut rows = Rows::new(batch, &lines, &plan, &loaded.stored, now)?;
        let revision = Revision::generate();
        let (tx, last) = self.write(tx, (&rows, revision), &mut loaded.stored, after, now).await?;
        self.clients.under(batch.shard, batch.generation);
        let settled = || {
            rows.note_clients(Some(&self.clients));
            settlement::statement(&rows.settled())
        };
        let Last { statement, notices, usage } = last;
        let (mut tx, (), settled) = beside(tx, statement, settled).await?;
        self.write_rare(&mut tx, &rows, &loaded.stored).await?;
        let (from_database, teams) = (loaded.from_database, loaded.stored.len());
        let committed = || loaded.committed(&plan, &usage, revision);
        let (mut tx, (), committed) = beside(tx, settled, committed).await?;
        let posted_at = rows.posted_at();
        self.keep_parts_in_tx(&mut tx, batch, posted_at).await?;
        let kept = events::kept(events, &lines, &plan, posted_at)?;
        if !events.is_empty() {
            let place = (batch.shard, batch.number);
            names::remember_in_tx(&mut tx, place, &events::rows(events, &kept)).await?;
        }
        match ending {
            Ending::Commit => {
                tx.commit().await.map_err(Error::from)?;
                self.clients.remember(rows.clients());
                // Nothing may come between a commit that has no answer and this: what is unknown is not remembered.
                self.known.put(committed);
            }
            Ending::RollBack => tx.rollback().await.map_err(Error::from)?,
        }
        let summary = Summary {
            poisoned_teams: count(poisoned.len()),
            notices,
            teams_loaded: count(from_database),
            teams_known: count(teams.saturating_sub(from_database)),
            ..rows.summary()
        };
        Ok(Some((summary, kept)))
    }

    /// Locks the balances of everybody who pays. Nothing, and the transaction is given up, where one is missing.
    async fn lock(
        &self,
        mut tx: Tx,
        lines: &[Line],
        balances: Balances,
        catalogue: &Catalogue,
    ) -> Result<Option<Locked>, Error> {
        let payers = batch::payers(lines);
        let named = batch::holds(lines);
        // Usage under a hold belongs to the hold's window, so which states are needed is known only when that is read.
        let at_once = || named.is_empty().then(|| Asked::by(lines, &[], catalogue));
        let (teams, asked);
        match balances {
            Balances::ToBeMade => {
                teams = Some(teams::lock_in_tx(&mut tx, payers).await?);
                asked = at_once();
            }
            Balances::Known => {
                let ids = payers.iter().map(|(_, team)| *team).collect();
                (tx, teams, asked) = beside(tx, teams::lock_known(ids), at_once).await?;
            }
        }
        let now = self.clock.now();
        let Some(teams) = teams else {
            tx.rollback().await?;
            return Ok(None);
        };
        let asked = match asked {
            Some(asked) => asked,
            None => Asked::by(lines, &teams::holds_in_tx(&mut tx, &named).await?, catalogue),
        };
        Ok(Some(Locked { tx, teams, now, asked }))
    }

    /// Sends the charges, and makes beside the last of them what goes with the last statement; `stored` are afterwards as
    /// the plan leaves them.
    async fn write(
        &self,
        mut tx: Tx,
        (rows, revision): (&Rows<'_>, Revision),
        stored: &mut [StoredTeam],
        mut after: Vec<Team>,
        now: Timestamp,
    ) -> Result<(Tx, Last), Error> {
        let (batch, lines, plan) = rows.of();
        let batch = (batch.shard, batch.number);
        let ends = after.iter().map(|team| (team.balance.team_id, team.balance.version));
        let cut = Cut::new(batch, rows.charges(), plan, ends, self.sub_batch_lines);
        let mut last = || {
            let noted = self.note(stored, std::mem::take(&mut after), lines, plan, now);
            let usage = rows.usage(stored);
            let rows = write::PlanRows {
                batch,
                charges: rows.charges(),
                plan,
                balances: &usage,
                noted: &noted,
                note: &write::LotNote::default(),
                sub_batch: self.sub_batch_lines,
            };
            let statement = cut.last(&rows, revision)?;
            let usage = usage.into_iter().map(|(_, usage)| usage).collect();
            Ok(Last { statement, notices: noted.notices.len(), usage })
        };
        let mut numbers = 0..cut.before();
        let mut step = || match numbers.next() {
            Some(number) => Step::Charges(cut.statement(number, revision)),
            None => Step::Last(last()),
        };
        let mut next = step();
        loop {
            match next {
                Step::Charges(statement) => (tx, (), next) = beside(tx, statement, &mut step).await?,
                Step::Last(last) => return Ok((tx, last?)),
            }
        }
    }

    /// Holds and periods, which few batches have.
    async fn write_rare(&self, tx: &mut Tx, rows: &Rows<'_>, stored: &[StoredTeam]) -> Result<(), Error> {
        let (_, _, plan) = rows.of();
        let balances = stored.iter().map(|stored| &stored.team.balance);
        write::write_holds_in_tx(tx, &plan.holds, balances, "").await?;
        let values = rows.values();
        if plan.periods.is_empty() && values.is_empty() {
            return Ok(());
        }
        periods::write_in_tx(tx, &rows.accounts(), &plan.periods, &values).await
    }

    /// Folds on copies of the teams; gives them as the plan leaves them. No lot closes that waits for usage received
    /// before `settled_until`.
    pub(super) fn plan(
        &self,
        lines: &[Line],
        (last_of_holds, settled_until): (&[HoldId], Timestamp),
        stored: &[StoredTeam],
        (states, periods): (&[UsageState], &Periods),
        catalogue: &Catalogue,
        now: Timestamp,
    ) -> Result<(Plan, Vec<Team>), Error> {
        let mut teams: Vec<_> = stored.iter().map(|stored| stored.team.clone()).collect();
        let batch = Batch {
            lines,
            states,
            periods,
            prices: &catalogue.prices,
            settings: &self.settings,
            now,
            settled_until,
            last_of_holds,
        };
        let plan = fold_batch(&mut teams, &batch, ids::charge_ids())
            .map_err(|error: FoldError| Error::Broken(error.to_string()))?;
        Ok((plan, teams))
    }

    /// Puts the teams in the place of `stored`, as the plan left them, and finds what others are told.
    pub(super) fn note(
        &self,
        stored: &mut [StoredTeam],
        after: Vec<Team>,
        lines: &[Line],
        plan: &Plan,
        now: Timestamp,
    ) -> Noted {
        let at = plan.instant.unwrap_or(now);
        let mut noted = noting::advance(stored, after, plan, at, &self.notice_rules, &self.settings);
        noting::count(&mut noted, stored, lines, plan, None);
        noted
    }

    /// No lot closes before everything received before its close is settled (D55): what this batch
    /// brings was not settled until now, and the rest is given the allowance.
    pub(super) fn settled_until(&self, lines: &[Line], now: Timestamp) -> Timestamp {
        let received = lines.iter().map(|line| line.received_window).min().unwrap_or(now);
        now.checked_sub(self.settle_allowance).unwrap_or(Timestamp::MIN).min(received)
    }
}
