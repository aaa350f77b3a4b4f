//! What the database would hold: only rows of plans, applied as a store applies them, and checked
//! as `ledger verify` checks them.

use std::collections::{BTreeMap, BTreeSet};

use drawdown_ledger_core::{
    Balance, Book, Charge, ChargeJournal, Corrected, DebtItem, DistinctValues, Hold, InForce, JournalRow,
    Kind, Line, Lot, LotJournal, PeriodKey, PeriodShrink, PeriodState, Periods, PeriodsWanted, Plan, Rated,
    SeenValue, StandingCharge, Team, Usage, UsageKey, UsageState,
};
use drawdown_types::{ChargeId, HoldId, LotId, MicroTokens, Quantity, TeamId, Timestamp};

/// A charge as stored: of a correction, everything is below zero.
#[derive(Clone, Debug)]
pub(crate) struct StoredCharge {
    pub(crate) charge_id: ChargeId,
    pub(crate) team_id: TeamId,
    pub(crate) window: Timestamp,
    pub(crate) rated: Rated,
    pub(crate) quantity: i64,
    pub(crate) amount: i64,
    pub(crate) uncharged: i64,
    /// The distinct values of its line.
    pub(crate) values: DistinctValues,
    /// The charge that it takes a part of back.
    pub(crate) corrects: Option<ChargeId>,
}

impl From<Charge> for StoredCharge {
    fn from(charge: Charge) -> Self {
        let Charge { charge_id, team_id, window, rated, .. } = charge;
        let (quantity, amount) = (charge.quantity.as_units(), charge.amount.as_micros());
        Self {
            charge_id,
            team_id,
            window,
            rated,
            quantity,
            amount,
            uncharged: charge.uncharged.as_micros(),
            values: DistinctValues::default(),
            corrects: None,
        }
    }
}

impl From<Corrected> for StoredCharge {
    fn from(corrected: Corrected) -> Self {
        let Corrected { charge_id, team_id, window, rated, .. } = corrected;
        let (quantity, amount) = (-corrected.quantity.as_units(), -corrected.amount.as_micros());
        Self {
            charge_id,
            team_id,
            window,
            rated,
            quantity,
            amount,
            uncharged: -corrected.cancelled.as_micros(),
            values: DistinctValues::default(),
            corrects: Some(corrected.corrects),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) balances: BTreeMap<TeamId, Balance>,
    pub(crate) lots: BTreeMap<(TeamId, LotId), Lot>,
    pub(crate) holds: BTreeMap<HoldId, Hold>,
    pub(crate) states: BTreeMap<UsageKey, UsageState>,
    pub(crate) journal: BTreeMap<TeamId, Vec<JournalRow>>,
    pub(crate) charges: Vec<StoredCharge>,
    pub(crate) periods: BTreeMap<PeriodKey, Quantity>,
    pub(crate) values: BTreeSet<SeenValue>,
}

impl Store {
    fn rows(&self, team_id: TeamId) -> &[JournalRow] {
        self.journal.get(&team_id).map_or(&[][..], Vec::as_slice)
    }

    /// Loads a team as the ledger does: its balance, every lot that lives there and is not closed, open
    /// holds, and of its debt what may matter.
    pub(crate) fn load(&self, team: &Team) -> Team {
        let team_id = team.balance.team_id;
        let balance = self.balances.get(&team_id).cloned().unwrap_or_else(|| team.balance.clone());
        let lots: Vec<Lot> =
            self.lots.values().filter(|lot| lot.team_id == team_id && lot.is_live()).cloned().collect();
        let holds = self.holds.values().filter(|hold| hold.team_id == team_id && hold.ended.is_none());
        let picky = |lot: &&Lot| lot.held.as_micros() > 0 || lot.leaves_older_debts;
        let picky: Vec<&Lot> = lots.iter().filter(picky).collect();
        let open = |row: &&JournalRow| row.debt.is_some_and(|debt| debt.to > balance.debt_paid);
        let item = |row: &JournalRow| Some(DebtItem { interval: row.debt?, window: row.window? });
        let items = self.rows(team_id).iter().filter(|row| row.debit == Book::Uncharged).filter(open);
        let items =
            items.filter_map(item).filter(|item| picky.iter().any(|lot| lot.is_valid_for(item.window)));
        let ahead = self.rows(team_id).iter().filter(|row| row.credit == Book::Uncharged).filter(open);
        let mut settled_ahead: Vec<_> = ahead.filter_map(|row| row.debt).collect();
        settled_ahead.sort_unstable_by_key(|debt| debt.from);
        Team { settled_ahead, items: items.collect(), holds: holds.cloned().collect(), balance, lots }
    }

    /// The same with every item of the debt: what a lot that comes may need.
    pub(crate) fn load_items(&self, team: &Team) -> Team {
        Team { items: self.load_whole(team).items, ..self.load(team) }
    }

    /// The same with a lot that is not live there: it moved away or closed.
    pub(crate) fn load_with(&self, team: &Team, lot_id: LotId) -> Team {
        let mut loaded = self.load(team);
        let lot = self.lots.get(&(team.balance.team_id, lot_id)).filter(|lot| !lot.is_live());
        loaded.lots.extend(lot.cloned());
        loaded
    }

    /// The same with every lot that ever was there and every item of the debt: what a correction may need.
    pub(crate) fn load_whole(&self, team: &Team) -> Team {
        let team_id = team.balance.team_id;
        let lots = self.lots.values().filter(|lot| lot.team_id == team_id).cloned().collect();
        let items = self.rows(team_id).iter().filter(|row| row.debit == Book::Uncharged);
        let item = |row: &JournalRow| Some(DebtItem { interval: row.debt?, window: row.window? });
        Team { lots, items: items.filter_map(item).collect(), ..self.load(team) }
    }

    /// The whole history of a team's charges.
    pub(crate) fn charge_journal(&self, team_id: TeamId) -> ChargeJournal {
        ChargeJournal { rows: self.rows(team_id).to_vec() }
    }

    /// The history of a lot in a team.
    pub(crate) fn lot_journal(&self, team_id: TeamId, lot_id: LotId) -> LotJournal {
        let of = |wanted: &dyn Fn(&JournalRow) -> bool| -> Vec<JournalRow> {
            self.rows(team_id).iter().filter(|row| wanted(row)).cloned().collect()
        };
        LotJournal {
            rows: of(&|row| row.lot_id == Some(lot_id)),
            items: of(&|row| row.debit == Book::Uncharged),
        }
    }

    /// What is stored of the periods that a batch needs.
    pub(crate) fn periods(&self, wanted: &PeriodsWanted) -> Periods {
        let state = |key: &PeriodKey| Some(PeriodState { key: *key, quantity: *self.periods.get(key)? });
        let values = wanted.values.iter().filter(|value| self.values.contains(value));
        Periods { states: wanted.keys.iter().filter_map(state).collect(), values: values.cloned().collect() }
    }

    /// The period of a line of `max` or `unique` without it, from the lines that stand.
    pub(crate) fn shrink(
        &self,
        corrected: &StandingCharge,
        price: &InForce,
        unique: bool,
    ) -> Option<PeriodShrink> {
        let period = price.period?;
        let start = period.start(corrected.window);
        let key = PeriodKey { team_id: corrected.team_id, price_id: price.price_id, start };
        let stands = |charge: &&StoredCharge| {
            let gone = |other: &StoredCharge| other.corrects == Some(charge.charge_id);
            charge.corrects.is_none() && !self.charges.iter().any(gone)
        };
        let same = |charge: &&StoredCharge| {
            let priced = charge.rated.price_id() == Some(price.price_id);
            priced && charge.team_id == key.team_id && period.start(charge.window) == start
        };
        let (own, others): (Vec<_>, Vec<_>) = (self.charges.iter().filter(same).filter(stands))
            .partition(|charge| charge.charge_id == corrected.charge_id);
        let values = |charges: &[&StoredCharge]| -> BTreeSet<Box<[u8]>> {
            charges.iter().flat_map(|charge| charge.values.as_slice().to_vec()).collect()
        };
        let seen = values(&others);
        let largest = others.iter().map(|charge| charge.quantity).max().unwrap_or_default();
        let after = if unique { i64::try_from(seen.len()).unwrap() } else { largest };
        let gone = values(&own).difference(&seen).cloned().collect::<Vec<_>>().into_iter();
        Some(PeriodShrink {
            key,
            // Usage of 0 leaves no row.
            before: self.periods.get(&key).copied().unwrap_or_default(),
            after: Quantity::new(after).unwrap(),
            gone: gone.map(|value| SeenValue { key, value }).collect(),
        })
    }

    /// `lines` are those of the plan's charges.
    pub(crate) fn apply(&mut self, plan: Plan, lines: &[Line]) {
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
            self.lots.insert((lot.team_id, lot.lot_id), lot);
        }
        for hold in plan.holds {
            self.holds.insert(hold.hold_id, hold);
        }
        for state in plan.states {
            self.states.insert(state.key, state);
        }
        self.periods.extend(plan.periods.states.into_iter().map(|state| (state.key, state.quantity)));
        for value in plan.periods.values {
            assert!(self.values.insert(value), "a value of a period is new once");
        }
        self.charges.extend(plan.charges.into_iter().map(|charge| {
            let values = match &lines[charge.line].usage {
                Usage::Unique(values) => values.clone(),
                Usage::Sum(_) | Usage::Count | Usage::Max(_) => DistinctValues::default(),
            };
            StoredCharge { values, ..charge.into() }
        }));
        teams.into_iter().for_each(|team_id| self.verify(team_id));
    }

    /// D52 and the invariants of one team.
    fn verify(&self, team_id: TeamId) {
        let balance = &self.balances[&team_id];
        let rows = self.rows(team_id);
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
        assert_eq!(book(Book::Held), micros(balance.held));
        assert_eq!(book(Book::Void), micros(balance.void));
        assert_eq!(book(Book::Moved), micros(balance.moved_out) - micros(balance.moved_in));
        assert_eq!(-book(Book::Uncharged), micros(balance.uncharged()));
        let lots: Vec<_> = self.lots.values().filter(|lot| lot.team_id == team_id).collect();
        assert_eq!(lots.iter().map(|lot| micros(lot.remaining)).sum::<i128>(), micros(balance.lot));
        let held = |lot: &Lot| {
            let parts =
                self.holds.values().filter(|hold| hold.team_id == team_id).flat_map(|hold| &hold.parts);
            parts.filter(|part| part.lot_id == lot.lot_id).map(|part| micros(part.remaining)).sum::<i128>()
        };
        for lot in lots {
            let out = [lot.remaining, lot.held, lot.consumed, lot.expired, lot.void, lot.moved];
            assert!(out.iter().all(|part| !part.is_negative()), "{lot:?}");
            assert_eq!(micros(lot.granted), out.iter().map(|part| micros(*part)).sum::<i128>(), "{lot:?}");
            assert!(lot.is_live() || (lot.remaining, lot.held) == (MicroTokens::ZERO, MicroTokens::ZERO));
            assert_eq!(held(lot), micros(lot.held), "held is what open holds hold");
            let in_time = lot.closed_at.is_none_or(|closed_at| closed_at >= lot.closes_at);
            assert!(in_time || lot.void > MicroTokens::ZERO, "only what is void closes early: {lot:?}");
            if let Some(at) = balance.posted_at
                && lot.state_at(at) == drawdown_ledger_core::LotState::Open
            {
                let owed = match lot.leaves_older_debts {
                    true => open_inside(rows, lot),
                    false => micros(balance.uncharged()),
                };
                assert!(lot.remaining.as_micros() == 0 || owed == 0, "unpaid debt");
            }
        }
        let mut left: BTreeMap<i64, i128> = rows.iter().map(|row| (row.seq, micros(row.amount))).collect();
        for row in rows {
            if let Some(reverses) = row.reverses {
                *left.get_mut(&reverses).unwrap() -= micros(row.amount);
            }
        }
        assert!(left.values().all(|left| *left >= 0), "no row is taken back beyond its amount");
        // D52.
        assert_eq!(
            micros(balance.issued) + micros(balance.moved_in) - micros(balance.moved_out),
            micros(balance.lot) + micros(balance.held) + micros(balance.consumed)
                - micros(balance.uncharged())
                + micros(balance.expired)
                + micros(balance.void)
        );
    }

    /// Which lot paid how much of which charge, by comparing positions of the running debt (D7); what was
    /// taken back is not paid.
    pub(crate) fn paid(&self, team_id: TeamId) -> BTreeMap<(Option<ChargeId>, LotId), i64> {
        let mut paid = BTreeMap::new();
        let lots = self.lots.keys().filter(|(team, _)| *team == team_id);
        for (_, lot_id) in lots {
            for payment in self.lot_journal(team_id, *lot_id).payments() {
                *paid.entry((payment.charge_id, *lot_id)).or_default() += payment.amount.as_micros();
            }
        }
        paid
    }
}

fn check_row(row: &JournalRow) {
    assert!(row.amount.as_micros() > 0 && row.debit != row.credit, "{row:?}");
    assert_eq!((row.debit, row.credit), row.kind.books());
    let debt = row.debit == Book::Uncharged || row.credit == Book::Uncharged;
    assert!(row.debt.is_some() == debt || row.kind == Kind::Reversal, "{row:?}");
    if let Some(debt) = row.debt {
        assert_eq!(debt.to.as_micros() - debt.from.as_micros(), row.amount.as_micros());
    }
    assert_eq!(
        row.lot_id.is_some(),
        !matches!(row.kind, Kind::Uncharged | Kind::PriorDebt | Kind::Cancellation),
        "{row:?}"
    );
    let charged = row.credit == Book::Consumed || row.debit == Book::Consumed;
    let charged = charged && row.kind != Kind::PriorDebt;
    assert_eq!(row.charge_id.is_some(), row.price_id.is_some(), "{row:?}");
    // A lot that is charged back may have paid usage from before an import.
    assert!(row.charge_id.is_some() == charged || row.kind == Kind::Chargeback, "{row:?}");
    let held = row.debit == Book::Held || row.credit == Book::Held;
    assert_eq!(row.hold_id.is_some(), held, "{row:?}");
    assert_eq!(row.reverses.is_some(), matches!(row.kind, Kind::Chargeback | Kind::Reversal), "{row:?}");
}

/// What is owed for usage of a lot's validity.
fn open_inside(rows: &[JournalRow], lot: &Lot) -> i128 {
    let (opened, settled): (Vec<_>, Vec<_>) =
        rows.iter().filter(|row| row.debt.is_some()).partition(|row| row.debit == Book::Uncharged);
    let inside = opened.into_iter().filter(|row| row.window.is_some_and(|window| lot.is_valid_for(window)));
    let mut open = 0_i128;
    for item in inside.filter_map(|row| row.debt) {
        open += i128::from(item.length().as_micros());
        for paid in settled.iter().filter(|row| row.credit == Book::Uncharged).filter_map(|row| row.debt) {
            let (from, to) = (paid.from.max(item.from), paid.to.min(item.to));
            open -= i128::from((to.as_micros() - from.as_micros()).max(0));
        }
    }
    open
}
