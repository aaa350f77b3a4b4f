//! What every command on lots and holds does the same way: lock the teams by id, take the instant, load,
//! let the core plan, write, note who asked. One transaction; the answer is committed with it.

use drawdown_ledger_core::{LotView, Plan, Team};
use drawdown_types::{AccountId, HoldId, LotId, TeamId, Timestamp};
use sqlx::{Postgres, Transaction};

use crate::{
    audited,
    error::Error,
    noting,
    service::{Ledger, connection},
    store::{
        audit,
        teams::{self, StoredTeam, Wanted},
        write::{self, LotNote, PlanRows, TeamUsage},
    },
    tokens::{NotedLot, check_account},
};

/// A command under way: its teams are locked and loaded, the instant is taken.
pub(crate) struct Command {
    pub(crate) tx: Transaction<'static, Postgres>,
    /// In the order in which they were named.
    pub(crate) stored: Vec<StoredTeam>,
    pub(crate) now: Timestamp,
}

/// An act for the audit log.
pub(crate) struct Act {
    pub(crate) action: &'static str,
    pub(crate) subject: String,
    pub(crate) detail: serde_json::Value,
    /// What of its teams it made or changed.
    pub(crate) touched: Touched,
}

/// A thing in a team.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Touched {
    Lot(LotId),
    Hold(HoldId),
}

impl Act {
    /// Teams, and what it touched in each of them that has it.
    fn shows<'a>(&self, teams: impl Iterator<Item = &'a Team> + Clone) -> serde_json::Value {
        let books = teams.clone().map(|team| audited::books(&team.balance)).collect();
        match self.touched {
            Touched::Lot(lot_id) => {
                let lots = teams.flat_map(|team| &team.lots).filter(|lot| lot.lot_id == lot_id);
                audited::teams_with_lots(books, lots.map(audited::lot).collect())
            }
            Touched::Hold(hold_id) => {
                let hold = teams.flat_map(|team| &team.holds).find(|hold| hold.hold_id == hold_id);
                audited::teams_with_hold(books, hold)
            }
        }
    }

    /// The line of an act on these teams.
    fn line<'a>(
        self,
        before: impl Iterator<Item = &'a Team> + Clone,
        after: impl Iterator<Item = &'a Team> + Clone,
    ) -> audit::Line {
        let (before, after) = (Some(self.shows(before)), self.shows(after));
        audit::Line { action: self.action, subject: self.subject, detail: self.detail, before, after }
    }
}

// === impl Ledger ===

impl Ledger {
    /// Locks and loads `teams` of an account, with `lots` whatever their state.
    pub(crate) async fn begin_command(
        &self,
        account: AccountId,
        teams: &[TeamId],
        lots: &[LotId],
    ) -> Result<Command, Error> {
        let teams: Vec<_> = teams.iter().map(|team| (account, *team)).collect();
        self.begin_command_of(&teams, &Wanted { lots, ..Wanted::default() }).await
    }

    /// The same for teams of several accounts, with what else is wanted.
    pub(crate) async fn begin_command_of(
        &self,
        teams: &[(AccountId, TeamId)],
        wanted: &Wanted<'_>,
    ) -> Result<Command, Error> {
        let mut tx = self.begin().await?;
        teams::lock_in_tx(connection(&mut tx), teams.to_vec()).await?;
        let now = self.clock.now();
        let (loaded, _) = {
            let ids: Vec<TeamId> = teams.iter().map(|(_, team)| *team).collect();
            teams::load_wanted_in_tx(connection(&mut tx), &ids, wanted).await?
        };
        let mut stored = Vec::with_capacity(teams.len());
        for (account, team) in teams {
            let found = loaded.iter().find(|stored| stored.team.balance.team_id == *team).cloned();
            let found = found.ok_or_else(|| Error::Broken("a locked team is not there".to_owned()))?;
            check_account(found.team.balance.account_id, *account)?;
            stored.push(found);
        }
        let last = stored.iter().filter_map(|stored| stored.team.balance.posted_at).max();
        Ok(Command { tx, stored, now: last.map_or(now, |last| last.max(now)) })
    }

    /// Writes what the core planned for the teams of the command, which are `after` it. `note` is what new lots and holds say;
    /// `act` goes to the audit log.
    pub(crate) async fn write_command(
        &self,
        command: &mut Command,
        after: Vec<Team>,
        plan: &Plan,
        note: &LotNote,
        act: Option<Act>,
    ) -> Result<(), Error> {
        let line = act.map(|act| act.line(command.stored.iter().map(|stored| &stored.team), after.iter()));
        let noted = noting::advance(
            &mut command.stored,
            after,
            plan,
            command.now,
            &self.notice_rules,
            &self.settings,
        );
        let balances: Vec<_> = command
            .stored
            .iter()
            .map(|stored| {
                let StoredTeam { charges, last_window, watch, .. } = stored;
                let usage = TeamUsage { charges: *charges, last_window: *last_window, watch: *watch };
                (&stored.team.balance, usage)
            })
            .collect();
        let rows = PlanRows {
            batch: (0, 0),
            charges: &[],
            plan,
            balances: &balances,
            noted: &noted,
            note,
            sub_batch: self.limits.sub_batch_lines,
        };
        let tx = connection(&mut command.tx);
        write::write_in_tx(tx, &rows).await?;
        match line {
            Some(line) => audit::note_in_tx(tx, command.now, line).await,
            None => Ok(()),
        }
    }
}

impl Command {
    /// The rows of a lot in the teams of the command, as they are afterwards.
    pub(crate) fn lots(&self, lot_id: LotId, note: &LotNote) -> Vec<NotedLot> {
        let lots = self.stored.iter().flat_map(|stored| &stored.team.lots);
        lots.filter(|lot| lot.lot_id == lot_id)
            .map(|lot| {
                let view = LotView { state: lot.state_at(self.now), lot: lot.clone() };
                NotedLot { view, at: self.now, note: note.of(lot_id).note.clone() }
            })
            .collect()
    }
}
