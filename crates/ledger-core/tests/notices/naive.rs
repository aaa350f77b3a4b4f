//! The facts once more, from the sequence of balances: at each point everything is added up anew from the
//! first row on, and each level has a memory of its own.

use std::collections::BTreeSet;

use drawdown_ledger_core::{Book, Fact, JournalRow, Lot, Notice};
use drawdown_types::{MicroTokens, Timestamp};

use crate::simulation::{DAY, SECOND, Simulation, instant};

const LEVELS: [(u8, i64); 4] = [(50, 50), (20, 20), (10, 10), (0, 0)];
const MARGIN: i64 = 5;
const DAYS: [i64; 3] = [7, 30, 90];
const GRACE: i64 = 14 * DAY;

pub(crate) struct Found {
    pub(crate) notices: Vec<Notice>,
    pub(crate) hits: Vec<&'static str>,
}

/// Everything that a point of the history shows.
struct Point {
    available: i64,
    granted: i64,
    owed: i64,
}

impl Point {
    fn reached(&self, percent: i64) -> bool {
        self.granted == 0 || self.available * 100 <= self.granted * percent
    }

    /// How much is left, for finding the lowest; no open lot is the least of all.
    fn lower_than(&self, other: &Self) -> bool {
        match (self.granted, other.granted) {
            (_, 0) => false,
            (0, _) => true,
            _ => self.available * other.granted < other.available * self.granted,
        }
    }
}

fn amount(row: &JournalRow) -> i64 {
    row.amount.as_micros()
}

fn of_lot(rows: &[JournalRow], lot: &Lot) -> impl Iterator<Item = JournalRow> {
    let lot_id = lot.lot_id;
    rows.iter().filter(move |row| row.lot_id == Some(lot_id)).cloned()
}

fn here(rows: &[JournalRow], lot: &Lot) -> bool {
    let came = of_lot(rows, lot).next().is_some();
    came && !of_lot(rows, lot).any(|row| matches!(row.credit, Book::Moved | Book::Expired))
}

fn in_book(rows: &[JournalRow], lot: &Lot, book: Book) -> i64 {
    let sum = |side: fn(&JournalRow) -> Book| -> i64 {
        of_lot(rows, lot).filter(|row| side(row) == book).map(|row| amount(&row)).sum()
    };
    sum(|row| row.credit) - sum(|row| row.debit)
}

fn point(lots: &[Lot], rows: &[JournalRow], at: Timestamp) -> Point {
    let open = lots.iter().filter(|lot| lot.starts_at <= at && at < lot.expires_at);
    // A closed lot still counts as granted while it would be open; no lot closes before its expiry.
    let open: Vec<&Lot> = open.filter(|lot| here(rows, lot)).collect();
    let granted = |lot: &Lot| -> i64 {
        let brought = of_lot(rows, lot).filter(|row| matches!(row.debit, Book::Issued | Book::Moved));
        brought.map(|row| amount(&row)).sum()
    };
    let owed = |book: fn(&JournalRow) -> Book| -> i64 {
        rows.iter().filter(|row| book(row) == Book::Uncharged).map(amount).sum()
    };
    Point {
        available: open.iter().map(|lot| in_book(rows, lot, Book::Lot)).sum(),
        granted: open.iter().map(|lot| granted(lot)).sum(),
        owed: owed(|row| row.debit) - owed(|row| row.credit),
    }
}

struct Search<'a> {
    simulation: &'a Simulation,
    lots: Vec<Lot>,
    rows: Vec<JournalRow>,
    armed: [bool; LEVELS.len()],
    told: BTreeSet<u8>,
    since: Option<Timestamp>,
    found: Found,
}

pub(crate) fn facts(simulation: &Simulation) -> Found {
    let lots = simulation.states.last().unwrap().1.lots.clone();
    let mut search = Search {
        simulation,
        lots,
        rows: Vec::new(),
        armed: [false; LEVELS.len()],
        told: BTreeSet::new(),
        since: None,
        found: Found { notices: Vec::new(), hits: Vec::new() },
    };
    let mut instants = BTreeSet::new();
    for lot in &search.lots {
        instants.extend([lot.starts_at, lot.expires_at]);
        instants.extend(DAYS.map(|days| instant(lot.expires_at.as_micros() - days * DAY)));
    }
    let transactions: Vec<_> = simulation.states.iter().skip(1).collect();
    let mut next = 0;
    for at in instants.into_iter().filter(|at| *at <= simulation.end) {
        while let Some((posted, _, rows)) = transactions.get(next).filter(|(posted, _, _)| *posted < at) {
            search.transaction(*posted, rows);
            next += 1;
        }
        search.time(at);
    }
    for (posted, _, rows) in &transactions[next..] {
        search.transaction(*posted, rows);
    }
    search.found
}

impl Search<'_> {
    fn tell(&mut self, at: Timestamp, fact: Fact) {
        self.found.hits.push(fact.kind());
        let balance = &self.simulation.states[0].1.balance;
        let (account_id, team_id, seq) = (balance.account_id, balance.team_id, self.rows.len() as i64);
        self.found.notices.push(Notice { account_id, team_id, occurred_at: at, seq, fact });
    }

    fn time(&mut self, at: Timestamp) {
        let mut started = false;
        let here = self.lots.iter().filter(|lot| here(&self.rows, lot));
        for lot in here.cloned().collect::<Vec<_>>() {
            let left = in_book(&self.rows, &lot, Book::Lot);
            for days in DAYS {
                if lot.expires_at.as_micros() - days * DAY == at.as_micros() && left > 0 {
                    let (lot_id, expires_at) = (lot.lot_id, lot.expires_at);
                    let left = MicroTokens::from_micros(left);
                    let days = u16::try_from(days).unwrap();
                    self.tell(at, Fact::LotExpiring { lot_id, days, left, expires_at });
                }
            }
            if lot.expires_at == at && left > 0 {
                let left = MicroTokens::from_micros(left);
                self.tell(at, Fact::LotExpired { lot_id: lot.lot_id, left, closes_at: lot.closes_at });
            }
            started |= lot.starts_at == at && left > 0;
        }
        let now = point(&self.lots, &self.rows, at);
        let before = self.found.notices.len();
        self.levels(&now, &now, started, at);
        if self.found.notices.len() > before {
            self.found.hits.push("a level reached by an expiry");
        }
    }

    fn transaction(&mut self, at: Timestamp, rows: &[JournalRow]) {
        let first = self.rows.len();
        self.rows.extend(rows.iter().cloned());
        let points: Vec<Point> =
            (first + 1..=self.rows.len()).map(|until| point(&self.lots, &self.rows[..until], at)).collect();
        let mut came = false;
        for (index, row) in rows.iter().enumerate() {
            let lot = self.lots.iter().find(|lot| Some(lot.lot_id) == row.lot_id).cloned();
            let Some(lot) = lot else { continue };
            let new = of_lot(&self.rows[..first + index], &lot).next().is_none();
            if new {
                came |= lot.starts_at <= at && at < lot.expires_at;
                let fact = Fact::LotAdded {
                    lot_id: lot.lot_id,
                    pool: lot.pool_kind,
                    amount: row.amount,
                    starts_at: lot.starts_at,
                    expires_at: lot.expires_at,
                    moved: row.debit == Book::Moved,
                };
                self.tell(at, fact);
            } else if row.credit == Book::Expired {
                let (lot_id, expired_at) = (lot.lot_id, lot.expires_at);
                self.tell(at, Fact::LotClosed { lot_id, forfeited: row.amount, expired_at });
            }
        }
        let end = points.last().unwrap();
        self.nettings(rows, end.owed, at);
        let lowest = points.iter().map(|point| point.available - point.owed).min().unwrap();
        self.zero(lowest, end.available - end.owed, at);
        let least =
            points.iter().rev().fold(end, |least, point| if least.lower_than(point) { least } else { point });
        self.levels(least, end, came, at);
    }

    fn nettings(&mut self, rows: &[JournalRow], owed: i64, at: Timestamp) {
        let paying = rows.iter().filter(|row| (row.debit, row.credit) == (Book::Lot, Book::Uncharged));
        let mut merged: Vec<JournalRow> = Vec::new();
        for row in paying {
            match merged.last_mut() {
                Some(last)
                    if last.lot_id == row.lot_id && last.debt.unwrap().to == row.debt.unwrap().from =>
                {
                    last.debt.as_mut().unwrap().to = row.debt.unwrap().to;
                }
                _ => merged.push(row.clone()),
            }
        }
        for row in merged {
            let (lot_id, debt) = (row.lot_id.unwrap(), row.debt.unwrap());
            let owed = MicroTokens::from_micros(owed);
            self.tell(at, Fact::DebtNetted { lot_id, from: debt.from, to: debt.to, owed });
        }
    }

    fn zero(&mut self, lowest: i64, balance: i64, at: Timestamp) {
        let micros = MicroTokens::from_micros;
        if self.since.is_none() && lowest < 0 {
            let minute = 60 * SECOND;
            let end = (at.as_micros() + GRACE + minute - 1).div_euclid(minute) * minute;
            let deadline = (balance < 0).then(|| instant(end));
            if deadline.is_none() {
                self.found.hits.push("a dip inside one transaction");
            }
            self.tell(at, Fact::BelowZero { lowest: micros(lowest), balance: micros(balance), deadline });
        }
        if let Some(since) = self.since.filter(|_| balance >= 0) {
            self.tell(at, Fact::BackAtZero { balance: micros(balance), since });
        }
        self.since = (balance < 0).then(|| self.since.unwrap_or(at));
    }

    fn levels(&mut self, least: &Point, end: &Point, came: bool, at: Timestamp) {
        for (place, (percent, level)) in LEVELS.into_iter().enumerate() {
            if self.armed[place] && least.reached(level) {
                self.armed[place] = false;
                if !self.told.insert(percent) {
                    self.found.hits.push("a level told again");
                }
                let (available, granted) =
                    (MicroTokens::from_micros(least.available), MicroTokens::from_micros(least.granted));
                self.tell(at, Fact::LevelReached { percent, available, granted });
            }
        }
        for (place, (_, level)) in LEVELS.into_iter().enumerate() {
            let margin = if came { 0 } else { MARGIN };
            self.armed[place] |= !end.reached(level + margin);
        }
    }
}
