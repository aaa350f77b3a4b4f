//! What the database would hold: only rows of plans, applied as a store applies them, and checked
//! as `ledger verify` checks them.

use std::collections::BTreeMap;

use drawdown_ledger_core::{Balance, Book, Charge, JournalRow, Kind, Lot, Plan, Team, UsageKey, UsageState};
use drawdown_types::{ChargeId, LotId, TeamId, Timestamp};

#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) balances: BTreeMap<TeamId, Balance>,
    pub(crate) lots: BTreeMap<LotId, Lot>,
    pub(crate) states: BTreeMap<UsageKey, UsageState>,
    pub(crate) journal: BTreeMap<TeamId, Vec<JournalRow>>,
    /// With the number of their batch.
    pub(crate) charges: Vec<(usize, Charge)>,
}

impl Store {
    /// Loads a team as the ledger does: its balance and every lot that is not closed.
    pub(crate) fn load(&self, team: &Team) -> Team {
        let team_id = team.balance.team_id;
        let lots = self.lots.values().filter(|lot| lot.team_id == team_id && lot.closed_at.is_none());
        Team {
            balance: self.balances.get(&team_id).cloned().unwrap_or_else(|| team.balance.clone()),
            lots: lots.cloned().collect(),
        }
    }

    pub(crate) fn apply(&mut self, batch: usize, plan: Plan) {
        for row in plan.journal {
            let rows = self.journal.entry(row.team_id).or_default();
            assert_eq!(row.seq, i64::try_from(rows.len()).unwrap() + 1, "the sequence is gapless");
            if let Some(last) = rows.last() {
                assert!(last.posted_at <= row.posted_at, "instants never go back");
                let next = row.transaction - last.transaction;
                assert!(next == 1 || (next == 0 && last.posted_at == row.posted_at), "{last:?} {row:?}");
            } else {
                assert_eq!(row.transaction, 1);
            }
            check_row(&row);
            rows.push(row);
        }
        let teams: Vec<_> = plan.balances.iter().map(|balance| balance.team_id).collect();
        for balance in plan.balances {
            self.balances.insert(balance.team_id, balance);
        }
        for lot in plan.lots {
            self.lots.insert(lot.lot_id, lot);
        }
        for state in plan.states {
            self.states.insert(state.key, state);
        }
        self.charges.extend(plan.charges.into_iter().map(|charge| (batch, charge)));
        teams.into_iter().for_each(|team_id| self.verify(team_id));
    }

    /// D52 and the invariants of one team.
    fn verify(&self, team_id: TeamId) {
        let balance = &self.balances[&team_id];
        let rows = self.journal.get(&team_id).map_or(&[][..], Vec::as_slice);
        assert_eq!(balance.version, i64::try_from(rows.len()).unwrap());
        let book = |book: Book| -> i128 {
            let sign = |row: &JournalRow| i128::from(row.credit == book) - i128::from(row.debit == book);
            rows.iter().map(|row| sign(row) * i128::from(row.amount.as_micros())).sum()
        };
        let micros = |amount: drawdown_types::MicroTokens| i128::from(amount.as_micros());
        assert_eq!(Book::ALL.map(book).iter().sum::<i128>(), 0);
        assert_eq!(-book(Book::Issued), micros(balance.issued));
        assert_eq!(book(Book::Lot), micros(balance.lot));
        assert_eq!(book(Book::Consumed), micros(balance.consumed));
        assert_eq!(book(Book::Expired), micros(balance.expired));
        assert_eq!(-book(Book::Uncharged), micros(balance.uncharged()));
        let lots: Vec<_> = self.lots.values().filter(|lot| lot.team_id == team_id).collect();
        assert_eq!(lots.iter().map(|lot| micros(lot.remaining)).sum::<i128>(), micros(balance.lot));
        for lot in lots {
            assert_eq!(
                micros(lot.granted),
                micros(lot.remaining) + micros(lot.consumed) + micros(lot.expired)
            );
            assert!(lot.closed_at.is_none() || lot.remaining.as_micros() == 0);
            if let Some(at) = balance.posted_at
                && lot.state_at(at) == drawdown_ledger_core::LotState::Open
            {
                assert!(
                    lot.remaining.as_micros() == 0 || balance.uncharged().as_micros() == 0,
                    "unpaid debt"
                );
            }
        }
        assert_eq!(
            micros(balance.issued),
            micros(balance.lot) + micros(balance.consumed) - micros(balance.uncharged())
                + micros(balance.expired)
        );
    }

    /// Which lot paid how much of which charge, by comparing positions of the running debt (D7).
    pub(crate) fn payments(&self, team_id: TeamId) -> BTreeMap<(ChargeId, LotId), i64> {
        let rows = self.journal.get(&team_id).map_or(&[][..], Vec::as_slice);
        let mut paid = BTreeMap::new();
        let of = |kind| rows.iter().filter(move |row: &&JournalRow| row.kind == kind);
        for row in of(Kind::Charge) {
            *paid.entry((row.charge_id.unwrap(), row.lot_id.unwrap())).or_default() += row.amount.as_micros();
        }
        for item in of(Kind::Uncharged) {
            for netting in of(Kind::Netting) {
                let (a, b) = (item.debt.unwrap(), netting.debt.unwrap());
                let part = a.to.min(b.to).as_micros() - a.from.max(b.from).as_micros();
                if part > 0 {
                    *paid.entry((item.charge_id.unwrap(), netting.lot_id.unwrap())).or_default() += part;
                }
            }
        }
        paid
    }
}

fn check_row(row: &JournalRow) {
    assert!(row.amount.as_micros() > 0 && row.debit != row.credit, "{row:?}");
    let debt = matches!(row.kind, Kind::Uncharged | Kind::Netting);
    assert_eq!(row.debt.is_some(), debt, "{row:?}");
    if let Some(debt) = row.debt {
        assert_eq!(debt.to.as_micros() - debt.from.as_micros(), row.amount.as_micros());
    }
    assert_eq!(row.lot_id.is_some(), row.kind != Kind::Uncharged, "{row:?}");
    assert_eq!(row.charge_id.is_some(), matches!(row.kind, Kind::Charge | Kind::Uncharged), "{row:?}");
    let window: Option<Timestamp> = row.window;
    assert_eq!(window.is_some(), row.charge_id.is_some() && row.price_id.is_some());
}
