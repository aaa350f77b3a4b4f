//! Statements of random journals: every cut ties, follows the one before, and is what a second way of
//! adding up gives; a changed amount is found.

use std::collections::BTreeMap;

use drawdown_ledger_core::{
    Book, Kind, Lot, LotSums, MovementSum, PoolKind, Position, StatementError, statement,
};
use drawdown_types::{LotId, MicroTokens};
use proptest::prelude::*;

use crate::world::{World, lot_id, on};

const LOTS: u64 = 3;

/// A row: kind, lot, as a reversal, earlier, and how much of what is there.
type Seed = (usize, u64, bool, bool, i64);

fn micros(amount: i64) -> MicroTokens {
    MicroTokens::from_micros(amount)
}

/// What lots and books hold, added up row by row: the naive way.
#[derive(Clone, Debug, Default)]
struct Naive {
    lots: BTreeMap<(LotId, &'static str), i64>,
    books: BTreeMap<&'static str, i64>,
    arrived: BTreeMap<LotId, i64>,
    left: BTreeMap<LotId, i64>,
}

impl Naive {
    fn lot(&self, lot: LotId, book: Book) -> i64 {
        self.lots.get(&(lot, book.as_str())).copied().unwrap_or_default()
    }

    fn book(&self, book: Book) -> i64 {
        self.books.get(book.as_str()).copied().unwrap_or_default()
    }

    fn post(&mut self, row: &MovementSum) {
        let amount = row.amount.as_micros();
        for (book, change) in [(row.debit, -amount), (row.credit, amount)] {
            *self.books.entry(book.as_str()).or_default() += change;
            if let Some(lot) = row.lot_id {
                *self.lots.entry((lot, book.as_str())).or_default() += change;
            }
        }
        if let Some(lot) = row.lot_id {
            *self.arrived.entry(lot).or_default() += if row.debit == Book::Moved { amount } else { 0 };
            *self.left.entry(lot).or_default() += if row.credit == Book::Moved { amount } else { 0 };
        }
    }

    fn sums(&self, lot: LotId) -> LotSums {
        let of = |book| self.lot(lot, book);
        LotSums {
            received: micros(self.arrived.get(&lot).unwrap_or(&0) - of(Book::Issued)),
            remaining: micros(of(Book::Lot)),
            held: micros(of(Book::Held)),
            used: micros(of(Book::Consumed) + of(Book::Uncharged)),
            expired: micros(of(Book::Expired)),
            void: micros(of(Book::Void)),
            moved: micros(self.left.get(&lot).copied().unwrap_or_default()),
        }
    }

    /// The row of a seed, if it can be posted: no lot gives more than it has, no debt is paid twice.
    fn row(&self, seed: &Seed) -> Option<MovementSum> {
        let kind = Kind::ALL[seed.0 % Kind::ALL.len()];
        let (mut debit, mut credit) = kind.books();
        let has_lot = kind != Kind::Uncharged;
        let can_swap = ![debit, credit].iter().any(|book| matches!(book, Book::Issued | Book::Moved));
        if seed.2 && can_swap {
            std::mem::swap(&mut debit, &mut credit);
        }
        let lot = has_lot.then(|| lot_id(1 + seed.1 % LOTS));
        let mut most = 5_000_000;
        if let Some(lot) = lot {
            let sums = self.sums(lot);
            let left = match debit {
                Book::Issued | Book::Moved => most,
                Book::Consumed | Book::Uncharged => sums.used.as_micros(),
                Book::Lot => sums.remaining.as_micros(),
                Book::Held => sums.held.as_micros(),
                Book::Expired => sums.expired.as_micros(),
                Book::Void => sums.void.as_micros(),
            };
            most = most.min(left);
        }
        if credit == Book::Uncharged {
            most = most.min(-self.book(Book::Uncharged));
        }
        let amount = 1 + seed.4 % most.max(1);
        let row = MovementSum {
            kind,
            debit,
            credit,
            lot_id: lot,
            earlier: seed.3,
            rows: 1,
            amount: micros(amount),
        };
        (most > 0).then_some(row)
    }
}

fn journal(seeds: &[Seed]) -> Vec<MovementSum> {
    let mut naive = Naive::default();
    let mut rows = Vec::new();
    for seed in seeds {
        if let Some(row) = naive.row(seed) {
            naive.post(&row);
            rows.push(row);
        }
    }
    rows
}

/// Added up as the database does, in any order.
fn added_up(rows: &[MovementSum]) -> Vec<MovementSum> {
    let mut groups: Vec<MovementSum> = Vec::new();
    for row in rows {
        let key = |sum: &MovementSum| (sum.kind, sum.debit, sum.credit, sum.lot_id, sum.earlier);
        match groups.iter_mut().find(|group| key(group) == key(row)) {
            Some(group) => {
                group.rows += row.rows;
                group.amount = group.amount.checked_add(row.amount).unwrap();
            }
            None => groups.insert(0, row.clone()),
        }
    }
    groups
}

fn position(rows: &[MovementSum]) -> Position {
    Position::default().after(&added_up(rows)).unwrap()
}

/// Lots of every state at noon and at midnight.
fn lots() -> Vec<Lot> {
    let mut world = World::new();
    let lives = [("00:00:00", "10:00:00"), ("11:00:00", "15:00:00"), ("13:00:00", "23:59:00")];
    for (number, (start, end)) in (1..).zip(lives) {
        world.give(number, PoolKind::Free, "1", (on(start), on(end)), on("00:00:00"));
    }
    world.team.lots
}

fn seeds() -> impl Strategy<Value = Vec<Seed>> {
    let kind = prop_oneof![1 => Just(0usize), 1 => Just(1), 4 => 0..Kind::ALL.len()];
    let seed = (kind, 0..LOTS, prop::bool::weighted(0.2), any::<bool>(), 0i64..5_000_000);
    prop::collection::vec(seed, 0..60)
}

proptest! {
    #[test]
    fn d54_every_cut_of_a_journal_ties(seeds in seeds(), cuts in (0usize..61, 0usize..61)) {
        let rows = journal(&seeds);
        let (a, b) = (cuts.0.min(cuts.1).min(rows.len()), cuts.0.max(cuts.1).min(rows.len()));
        let (period, lots) = ((on("12:00:00"), on("14:00:00")), lots());
        let opening = position(&rows[..a]);
        let other_side = position(&rows).before(&added_up(&rows[b..])).unwrap();
        let sums = added_up(&rows[a..b]);
        let made = statement(period, &opening, &sums, Some(&other_side), &lots).unwrap();
        prop_assert_eq!(&made, &statement(period, &opening, &sums, None, &lots).unwrap());
        let (mut before, mut after) = (Naive::default(), Naive::default());
        rows[..a].iter().for_each(|row| before.post(row));
        rows[..b].iter().for_each(|row| after.post(row));
        for (naive, balance) in [(&before, made.opening), (&after, made.closing)] {
            for book in Book::ALL {
                prop_assert_eq!(balance.books.get(book).as_micros(), naive.book(book));
            }
            prop_assert_eq!(balance.uncharged.as_micros(), -naive.book(Book::Uncharged));
        }
        let left = |naive: &Naive, number| naive.sums(lot_id(number)).remaining;
        prop_assert_eq!((made.opening.closing, made.closing.closing), (left(&before, 1), left(&after, 1)));
        prop_assert_eq!((made.opening.available, made.opening.scheduled), (left(&before, 2), left(&before, 3)));
        let open = left(&after, 2).checked_add(left(&after, 3)).unwrap();
        prop_assert_eq!((made.closing.available, made.closing.scheduled), (open, MicroTokens::ZERO));
        for line in &made.lots {
            let id = line.lot.lot_id;
            prop_assert_eq!((line.opening, line.closing), (before.sums(id), after.sums(id)));
        }
        let shown = |id: LotId| made.lots.iter().any(|line| line.lot.lot_id == id);
        for id in (1..=LOTS).map(lot_id).filter(|id| !shown(*id)) {
            prop_assert_eq!(before.sums(id), after.sums(id));
        }
        let moved: i64 = made.movements.iter().map(|movement| movement.rows).sum();
        prop_assert_eq!(moved, i64::try_from(b - a).unwrap());
    }

    #[test]
    fn a_changed_amount_does_not_tie(seeds in seeds(), which in any::<prop::sample::Index>()) {
        let rows = journal(&seeds);
        prop_assume!(!rows.is_empty());
        let whole = position(&rows);
        let mut changed = rows.clone();
        let row = &mut changed[which.index(rows.len())];
        row.amount = row.amount.checked_add(micros(1)).unwrap();
        let period = (on("12:00:00"), on("14:00:00"));
        let made = statement(period, &Position::default(), &added_up(&changed), Some(&whole), &lots());
        let found = matches!(made, Err(StatementError::NotTied { .. }));
        prop_assert!(found, "{:?}", made);
    }
}

#[test]
fn a_lot_that_is_not_there_and_sums_that_do_not_fit_are_named() {
    let row = MovementSum {
        kind: Kind::Grant,
        debit: Book::Issued,
        credit: Book::Lot,
        lot_id: Some(lot_id(9)),
        earlier: false,
        rows: 1,
        amount: micros(i64::MAX),
    };
    let period = (on("12:00:00"), on("14:00:00"));
    let one = statement(period, &Position::default(), std::slice::from_ref(&row), None, &lots());
    assert_eq!(one, Err(StatementError::UnknownLot(lot_id(9))));
    let two = statement(period, &Position::default(), &[row.clone(), row], None, &lots());
    assert_eq!(two, Err(StatementError::Overflow { what: "a book" }));
}
