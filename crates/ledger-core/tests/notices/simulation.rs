//! Random transactions on one team, row by row: whatever moves tokens between books may happen here, also
//! what no command does today. Amounts are cut to what is there.

use drawdown_ledger_core::{Balance, Book, DebtInterval, JournalRow, Kind, Lot, LotState, PoolKind, Team};
use drawdown_types::{AccountId, LotId, MicroTokens, TeamId, Timestamp};
use proptest::prelude::*;

pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const DAY: i64 = 86_400 * SECOND;
const START: i64 = 1_780_000_000 * SECOND;

/// What a random history is made of.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Time goes on.
    Wait { micros: i64 },
    /// A job may look.
    Job,
    /// One transaction.
    Transaction(Vec<Move>),
}

#[derive(Clone, Debug)]
pub(crate) enum Move {
    /// A lot comes: size, start and life from now.
    Add { amount: i64, start: i64, life: i64, moved: bool },
    /// Tokens of a lot from one of its books to another.
    Lot { which: usize, from: Book, to: Book, amount: i64 },
    /// Debt opens or is cancelled.
    Debt { amount: i64 },
}

/// Steps of a history as the searches see them.
pub(crate) enum Step {
    Job(Timestamp),
    /// An index into the states.
    Transaction(usize),
}

pub(crate) struct Simulation {
    /// The state before anything, then after each transaction with its instant and rows.
    pub(crate) states: Vec<(Timestamp, Team, Vec<JournalRow>)>,
    pub(crate) steps: Vec<Step>,
    pub(crate) end: Timestamp,
}

pub(crate) fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(prefix: &str, number: u64) -> T {
    format!("{prefix}_{number:026}").parse().unwrap()
}

pub(crate) fn instant(at: i64) -> Timestamp {
    Timestamp::from_micros(at).unwrap()
}

fn moves() -> impl Strategy<Value = Move> {
    let edges = |days: std::ops::Range<i64>| days.prop_map(|days| days * DAY);
    let span = || prop_oneof![edges(0..120), (0..3_i64).prop_map(|minutes| minutes * 60 * SECOND)];
    let books = prop_oneof![
        8 => Just((Book::Lot, Book::Consumed)),
        3 => Just((Book::Lot, Book::Held)),
        3 => Just((Book::Held, Book::Lot)),
        2 => Just((Book::Held, Book::Consumed)),
        4 => Just((Book::Lot, Book::Uncharged)),
        1 => Just((Book::Lot, Book::Void)),
        1 => Just((Book::Lot, Book::Moved)),
        2 => Just((Book::Lot, Book::Expired)),
        1 => Just((Book::Issued, Book::Lot)),
        1 => Just((Book::Consumed, Book::Lot)),
    ];
    prop_oneof![
        2 => (1_i64..200, span(), span(), any::<bool>())
            .prop_map(|(amount, start, life, moved)| Move::Add { amount, start, life: life + 60 * SECOND, moved }),
        8 => (any::<usize>(), books, 1_i64..120)
            .prop_map(|(which, (from, to), amount)| Move::Lot { which, from, to, amount }),
        3 => (-60_i64..60).prop_map(|amount| Move::Debt { amount }),
    ]
}

pub(crate) fn history() -> impl Strategy<Value = Vec<Op>> {
    let waits = prop_oneof![
        (0_i64..90).prop_map(|seconds| seconds * 60 * SECOND),
        (1_i64..40).prop_map(|days| days * DAY),
        Just(0_i64),
    ];
    let op = prop_oneof![
        4 => proptest::collection::vec(moves(), 1..5).prop_map(Op::Transaction),
        3 => waits.prop_map(|micros| Op::Wait { micros }),
        1 => Just(Op::Job),
    ];
    proptest::collection::vec(op, 1..40)
}

fn plus(amount: &mut MicroTokens, by: i64) {
    *amount = MicroTokens::from_micros(amount.as_micros() + by);
}

struct Running {
    now: i64,
    team: Team,
    held: Vec<i64>,
    rows: Vec<JournalRow>,
}

impl Running {
    fn row(&mut self, debit: Book, credit: Book, amount: i64, lot: Option<usize>) {
        let balance = &mut self.team.balance;
        let debt = match (debit, credit) {
            (Book::Uncharged, _) => Some((balance.debt_opened, &mut balance.debt_opened)),
            (_, Book::Uncharged) => Some((balance.debt_paid, &mut balance.debt_paid)),
            _ => None,
        };
        let debt = debt.map(|(from, end)| {
            plus(end, amount);
            DebtInterval { from, to: *end }
        });
        balance.version += 1;
        self.rows.push(JournalRow {
            account_id: balance.account_id,
            team_id: balance.team_id,
            seq: balance.version,
            transaction: balance.transactions,
            // Nothing looks at it.
            kind: Kind::Charge,
            debit,
            credit,
            amount: MicroTokens::from_micros(amount),
            lot_id: lot.map(|index| self.team.lots[index].lot_id),
            lot_state: None,
            charge_id: None,
            price_id: None,
            hold_id: None,
            reverses: None,
            debt,
            window: None,
            posted_at: instant(self.now),
            effective_at: instant(self.now),
        });
    }

    fn apply(&mut self, wish: &Move) {
        match wish {
            Move::Add { amount, start, life, moved } => {
                let starts_at = instant(self.now + start);
                let number = self.team.lots.len() as u64 + 1;
                self.team.lots.push(lot(number, *amount, starts_at, instant(self.now + start + life)));
                self.held.push(0);
                let from = if *moved { Book::Moved } else { Book::Issued };
                self.row(from, Book::Lot, *amount, Some(self.team.lots.len() - 1));
            }
            Move::Debt { amount } if *amount > 0 => self.row(Book::Uncharged, Book::Consumed, *amount, None),
            Move::Debt { amount } => {
                let amount = amount.abs().min(self.team.balance.uncharged().as_micros());
                if amount > 0 {
                    self.row(Book::Consumed, Book::Uncharged, amount, None);
                }
            }
            Move::Lot { which, from, to, amount } => self.between(*which, *from, *to, *amount),
        }
    }

    fn between(&mut self, which: usize, from: Book, to: Book, amount: i64) {
        let Some(index) = which.checked_rem(self.team.lots.len()) else { return };
        let owed = self.team.balance.uncharged().as_micros();
        let lot = &mut self.team.lots[index];
        let state = lot.state_at(instant(self.now));
        let gone = lot.closed_at.is_some();
        if gone || (to == Book::Expired && state != LotState::Closing) {
            return;
        }
        let whole = matches!(to, Book::Expired | Book::Moved);
        let amount = match from {
            Book::Lot if whole => lot.remaining.as_micros(),
            Book::Lot if to == Book::Uncharged => amount.min(lot.remaining.as_micros()).min(owed),
            Book::Lot => amount.min(lot.remaining.as_micros()),
            Book::Held => amount.min(self.held[index]),
            _ => amount,
        };
        if amount <= 0 || (whole && self.held[index] > 0) {
            return;
        }
        match from {
            Book::Lot => plus(&mut lot.remaining, -amount),
            Book::Held => self.held[index] -= amount,
            Book::Issued => plus(&mut lot.granted, amount),
            _ => {}
        }
        match to {
            Book::Lot => plus(&mut lot.remaining, amount),
            Book::Held => self.held[index] += amount,
            // For the walk a lot that moved away is as gone as a closed one.
            Book::Expired | Book::Moved => lot.closed_at = Some(instant(self.now)),
            _ => {}
        }
        self.row(from, to, amount, Some(index));
    }

    /// D48, as the ledger keeps it.
    fn end(&mut self) {
        let at = instant(self.now);
        let open = self.team.lots.iter().filter(|lot| lot.state_at(at) == LotState::Open);
        let available: i64 = open.map(|lot| lot.remaining.as_micros()).sum();
        let balance = &mut self.team.balance;
        balance.posted_at = Some(at);
        if available < balance.uncharged().as_micros() {
            balance.negative_since.get_or_insert(at);
        } else {
            balance.negative_since = None;
        }
    }
}

fn lot(number: u64, amount: i64, starts_at: Timestamp, expires_at: Timestamp) -> Lot {
    Lot {
        lot_id: id::<LotId>("lot", number),
        account_id: id("acct", 1),
        team_id: id("team", 1),
        pool_kind: PoolKind::Promotional,
        original: MicroTokens::from_micros(amount),
        granted: MicroTokens::from_micros(amount),
        remaining: MicroTokens::from_micros(amount),
        held: MicroTokens::ZERO,
        consumed: MicroTokens::ZERO,
        expired: MicroTokens::ZERO,
        void: MicroTokens::ZERO,
        moved: MicroTokens::ZERO,
        purchased_at: starts_at,
        starts_at,
        valid_from: starts_at,
        expires_at,
        closes_at: expires_at,
        closed_at: None,
        leaves_older_debts: false,
        moved_to: None,
    }
}

impl Simulation {
    pub(crate) fn run(ops: &[Op]) -> Self {
        let balance = Balance::new(id::<AccountId>("acct", 1), id::<TeamId>("team", 1));
        let team = Team::new(balance.account_id, balance.team_id);
        let mut running = Running { now: START, team, held: Vec::new(), rows: Vec::new() };
        let mut states = vec![(instant(START), running.team.clone(), Vec::new())];
        let mut steps = Vec::new();
        for op in ops {
            match op {
                Op::Wait { micros } => running.now += micros,
                Op::Job => steps.push(Step::Job(instant(running.now))),
                Op::Transaction(moves) => {
                    running.team.balance.transactions += 1;
                    moves.iter().for_each(|wish| running.apply(wish));
                    let rows = std::mem::take(&mut running.rows);
                    if rows.is_empty() {
                        running.team.balance.transactions -= 1;
                        continue;
                    }
                    running.end();
                    steps.push(Step::Transaction(states.len()));
                    states.push((instant(running.now), running.team.clone(), rows));
                }
            }
        }
        Self { states, steps, end: instant(running.now + 400 * DAY) }
    }
}
