//! Moving here from another platform (D61): lots and debts of many teams by one request, all or none.
//!
//! One database transaction: the balances of all its teams are locked by team id, the instant is taken, each team is
//! planned by the core and is one transaction of its own there (D40). Who only validates does all the same and takes
//! it back, so what is answered is what would be written. The guard is that of every set-up: no usage of the windows
//! concerned is settled, under the same lock that a posting takes.

use std::collections::HashMap;

use drawdown_ledger_core::{
    BalanceView, Import, ImportFault, JournalRow, Lot, Plan, PoolKind, Team, balance_at, import,
};
use drawdown_service::{Code, Refusal};
use drawdown_types::{AccountId, LotId, OrderId, TeamId, Timestamp};
use sqlx::{Postgres, Transaction};

use crate::{
    audited,
    error::Error,
    reason,
    service::{Ledger, connection},
    store::{audit, lots, teams::Wanted, write::LotNote},
    tokens::{NotedLot, check_account, read_refusal, refuse},
};

/// A team to import, as decoded.
#[derive(Clone, Debug)]
pub(crate) struct TeamOrder {
    /// The team's account.
    pub(crate) account_id: AccountId,
    /// The team.
    pub(crate) team_id: TeamId,
    /// What moves here; its lots are named.
    pub(crate) import: Import,
    /// What each lot says beside its amounts.
    pub(crate) notes: HashMap<LotId, LotNote>,
}

/// Teams to import.
#[derive(Clone, Debug)]
pub(crate) struct ImportOrder {
    /// Each once.
    pub(crate) teams: Vec<TeamOrder>,
    /// Why.
    pub(crate) reason: String,
}

/// A team after its import.
#[derive(Clone, Debug)]
pub(crate) struct ImportedTeam {
    /// Its new lots, in the order of the request.
    pub(crate) lots: Vec<NotedLot>,
    /// The rows.
    pub(crate) rows: Vec<JournalRow>,
    /// Its balance.
    pub(crate) balance: BalanceView,
}

// === impl Ledger ===

impl Ledger {
    /// Imports teams. The open transaction is given back, to be committed with the answer or taken back.
    pub(crate) async fn import(
        &self,
        order: &ImportOrder,
    ) -> Result<(Transaction<'static, Postgres>, Vec<ImportedTeam>), Error> {
        for team in &order.teams {
            self.check_import(team).await?;
        }
        let named: Vec<_> = order.teams.iter().map(|team| (team.account_id, team.team_id)).collect();
        let mut command = self.begin_command_of(&named, &Wanted { items: true, ..Wanted::default() }).await?;
        self.check_windows(order, &command)?;
        self.check_orders(order, connection(&mut command.tx)).await?;
        let (now, until) = (command.now, self.settled_until(command.now));
        let mut after: Vec<Team> = command.stored.iter().map(|stored| stored.team.clone()).collect();
        let mut whole = Plan { instant: Some(now), ..Plan::default() };
        let mut faults = Vec::new();
        for (index, (team, wanted)) in after.iter_mut().zip(&order.teams).enumerate() {
            match import(team, &wanted.import, now, until, &self.settings) {
                Ok(Plan { journal, lots, new_lots, holds, balances, .. }) => {
                    whole.journal.extend(journal);
                    whole.lots.extend(lots);
                    whole.new_lots.extend(new_lots);
                    whole.holds.extend(holds);
                    whole.balances.extend(balances);
                }
                Err(found) => faults.extend(found.into_iter().map(|fault| (index, fault))),
            }
        }
        if !faults.is_empty() {
            return Err(import_refusal(&faults));
        }
        let each = order.teams.iter().flat_map(|team| team.notes.clone()).collect();
        let note = LotNote { each, ..LotNote::default() };
        let before: Vec<_> = command.stored.iter().map(|s| audited::books(&s.team.balance)).collect();
        self.write_command(&mut command, after, &whole, &note, None).await?;
        let mut imported = Vec::with_capacity(order.teams.len());
        for (stored, wanted) in command.stored.iter().zip(&order.teams) {
            let balance = balance_at(&stored.team, now, until, &self.settings).map_err(read_refusal)?;
            let rows = whole.journal.iter().filter(|row| row.team_id == wanted.team_id).cloned().collect();
            let lots = wanted.import.lots.iter();
            let lots = lots.flat_map(|lot| command.lots(lot.lot_id, &note)).collect();
            imported.push(ImportedTeam { lots, rows, balance });
        }
        for ((wanted, before), stored) in order.teams.iter().zip(before).zip(&command.stored) {
            let new = |lot: &&Lot| wanted.notes.contains_key(&lot.lot_id);
            let lots = stored.team.lots.iter().filter(new).map(audited::lot).collect();
            let line = audit::Line {
                action: "team.import",
                subject: wanted.team_id.to_string(),
                detail: detail(wanted, &order.reason),
                before: Some(audited::teams_with_lots(vec![before], Vec::new())),
                after: audited::teams_with_lots(vec![audited::books(&stored.team.balance)], lots),
            };
            audit::note_in_tx(connection(&mut command.tx), now, line).await?;
        }
        Ok((command.tx, imported))
    }

    /// The team is of the account, which was in no trial when it bought or used something: then it could have done
    /// neither (D20, D50).
    async fn check_import(&self, order: &TeamOrder) -> Result<(), Error> {
        let facts = self.team_facts(order.team_id).await?;
        check_account(facts.account_id, order.account_id)?;
        let bought = order.import.lots.iter().filter(|lot| lot.pool_kind == PoolKind::Flex);
        let used = order.import.debts.iter().map(|debt| debt.used_at);
        let mut instants = bought.map(|lot| lot.purchased_at).chain(used);
        if instants.any(|at| facts.in_trial(at)) {
            let why = format!("the account of {} was in its trial at an original instant", order.team_id);
            return Err(refuse(Code::FailedPrecondition, reason::TRIAL_ACTIVE, "teams", why));
        }
        Ok(())
    }

    /// Original instants are taken only while no usage of their windows is settled (D61).
    fn check_windows(&self, order: &ImportOrder, command: &crate::commands::Command) -> Result<(), Error> {
        let floor = |at: Timestamp| self.settings.window_size.floor(at);
        let why = "usage of the windows concerned is settled";
        let mut refusal = Refusal::new(Code::FailedPrecondition, reason::WINDOW_SETTLED, why);
        let mut settled = false;
        for (index, (stored, wanted)) in command.stored.iter().zip(&order.teams).enumerate() {
            let Some(last) = stored.last_window else { continue };
            let lots = wanted.import.lots.iter();
            let lots = lots.map(|lot| floor(lot.starts_at).max(floor(lot.purchased_at)));
            let lots = lots.enumerate().map(|(lot, from)| (format!("lots[{lot}].purchased_at"), from));
            let debts = wanted.import.debts.iter().map(|debt| floor(debt.used_at)).enumerate();
            let debts = debts.map(|(debt, from)| (format!("debts[{debt}].used_at"), from));
            for (field, from) in lots.chain(debts).filter(|(_, from)| *from <= last) {
                let why = format!("usage of the team from {from} on is settled already");
                refusal = refusal.violation(format!("teams[{index}].{field}"), why);
                settled = true;
            }
        }
        if settled { Err(refusal.into()) } else { Ok(()) }
    }

    /// An order bought one lot, here and in all requests before.
    async fn check_orders(&self, order: &ImportOrder, tx: &mut sqlx::PgConnection) -> Result<(), Error> {
        let notes = order.teams.iter().flat_map(|team| team.notes.values());
        let orders: Vec<OrderId> = notes.filter_map(|note| note.order_id).collect();
        match lots::known_order_in_tx(tx, &orders).await? {
            None => Ok(()),
            Some(known) => {
                let why = format!("{known} has bought a lot already");
                Err(refuse(Code::AlreadyExists, reason::ORDER_KNOWN, "teams", why))
            }
        }
    }
}

fn detail(order: &TeamOrder, why: &str) -> serde_json::Value {
    let lots = order.import.lots.iter().map(|lot| {
        serde_json::json!({
            "lot": lot.lot_id.to_string(),
            "original_micros": lot.original.as_micros(),
            "left_micros": lot.left.as_micros(),
        })
    });
    let debts = order.import.debts.iter().map(
        |debt| serde_json::json!({ "micros": debt.amount.as_micros(), "used_at": debt.used_at.to_string() }),
    );
    serde_json::json!({
        "reason": why,
        "lots": lots.collect::<Vec<_>>(),
        "debts": debts.collect::<Vec<_>>(),
        "negative_since": order.import.negative_since.map(|since| since.to_string()),
    })
}

/// Every fault with its place. What is wrong in itself comes before what does not tie.
fn import_refusal(faults: &[(usize, ImportFault)]) -> Error {
    let ties =
        |fault: &ImportFault| matches!(fault, ImportFault::NotTied { .. } | ImportFault::NotNegative(_));
    let overflow = |fault: &ImportFault| matches!(fault, ImportFault::Overflow);
    let all = |is: &dyn Fn(&ImportFault) -> bool| faults.iter().all(|(_, fault)| is(fault));
    let (code, reason, message) = match () {
        () if all(&ties) => {
            let message = "teams would not hold what they must";
            (Code::FailedPrecondition, reason::IMPORT_NOT_TIED, message)
        }
        () if all(&overflow) => {
            (Code::FailedPrecondition, reason::BALANCE_OVERFLOW, "the sums of a team would not fit")
        }
        () => (Code::InvalidArgument, reason::REQUEST_INVALID, "the import is invalid"),
    };
    let refusal = Refusal::new(code, reason, message);
    let refusal = faults.iter().fold(refusal, |refusal, (team, fault)| {
        refusal.violation(format!("teams[{team}]{}", field(fault)), fault)
    });
    refusal.into()
}

fn field(fault: &ImportFault) -> String {
    match fault {
        ImportFault::Nothing | ImportFault::Overflow => String::new(),
        ImportFault::LotEmpty { lot, .. } | ImportFault::LotLeftAboveOriginal { lot, .. } => {
            format!(".lots[{lot}].left_micros")
        }
        ImportFault::LotTooLarge { lot, .. } => format!(".lots[{lot}].original_micros"),
        ImportFault::LotExpiryNotAfterStart { lot, .. } => format!(".lots[{lot}].expires_at"),
        ImportFault::LotInFuture { lot, .. } => format!(".lots[{lot}].purchased_at"),
        ImportFault::DebtNotPositive { debt, .. } => format!(".debts[{debt}].amount_micros"),
        ImportFault::DebtInFuture { debt, .. } | ImportFault::DebtOutOfOrder { debt, .. } => {
            format!(".debts[{debt}].used_at")
        }
        ImportFault::SinceInFuture { .. } | ImportFault::NotNegative(_) => ".negative_since".to_owned(),
        ImportFault::NotTied { what, .. } => format!(".expected.{what}_micros"),
    }
}
