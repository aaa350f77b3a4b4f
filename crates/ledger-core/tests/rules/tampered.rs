//! A journal that was tampered with does not replay.

use drawdown_ledger_core::{JournalRow, Kind, PoolKind, Team, Violation, replay};
use drawdown_types::MicroTokens;

use crate::world::{World, at, lot_id, on};

/// A purchase, two grants of which one starts late, charges, debts, netting and an expiry.
fn story() -> World {
    let mut world = World::new();
    world.give(1, PoolKind::Promotional, "5", (on("12:00:00"), on("13:00:00")), on("12:00:00"));
    world.give(2, PoolKind::Credit, "5", (on("14:00:00"), on("16:00:00")), on("12:00:00"));
    world.spend(3, on("12:00:00"), on("12:01:00"));
    world.spend(4, on("13:00:00"), on("13:01:00"));
    world.buy(3, 100, on("15:00:00"));
    world.spend(7, on("15:00:00"), on("15:01:00"));
    world.job(at("2026-06-12T00:00:00Z"));
    world
}

fn check(change: impl FnOnce(&mut Vec<JournalRow>, &mut Team)) -> Result<(), Violation> {
    let World { mut team, mut journal, settings, .. } = story();
    change(&mut journal, &mut team);
    replay(&team, &journal, &settings)
}

fn first(journal: &[JournalRow], kind: Kind) -> usize {
    journal.iter().position(|row| row.kind == kind).unwrap()
}

#[test]
fn an_honest_journal_replays() {
    assert_eq!(check(|_, _| ()), Ok(()));
}

#[test]
fn another_lot_another_amount_or_another_debt_is_found_at_its_row() {
    let one = MicroTokens::from_micros(1);
    let at_row = |change: &dyn Fn(&mut JournalRow), kind| {
        let mut seq = 0;
        let found = check(|journal, _| {
            let place = first(journal, kind);
            seq = journal[place].seq;
            change(&mut journal[place]);
        });
        assert!(matches!(found, Err(Violation::Row { seq: at, .. }) if at == seq), "{kind:?} {found:?}");
    };
    at_row(&|row| row.lot_id = Some(lot_id(3)), Kind::Charge);
    at_row(&|row| row.amount = one, Kind::Expiry);
    at_row(&|row| row.debt = None, Kind::Uncharged);
    at_row(&|row| row.amount = one, Kind::Netting);
    at_row(&|row| row.posted_at = on("14:00:01"), Kind::Netting);
    at_row(&|row| row.lot_state = None, Kind::Charge);
}

#[test]
fn a_netting_that_is_left_out_is_found() {
    let found = check(|journal, _| {
        let place = first(journal, Kind::Netting);
        journal.remove(place);
    });
    assert!(matches!(found, Err(Violation::Row { expected: Some(row), .. }) if row.kind == Kind::Netting));
}

#[test]
fn an_end_that_is_left_out_shows_in_the_lots() {
    let found = check(|journal, _| {
        journal.pop();
    });
    assert_eq!(found, Err(Violation::LotAmounts(lot_id(1))));
}

#[test]
fn lots_closes_and_balances_are_compared() {
    let missing = check(|_, team| team.lots.retain(|lot| lot.lot_id != lot_id(3)));
    assert!(matches!(missing, Err(Violation::Lot { lot_id: Some(id), .. }) if id == lot_id(3)));
    let early = check(|journal, _| {
        let place = first(journal, Kind::Expiry);
        journal[place].posted_at = on("16:00:00");
    });
    assert!(matches!(early, Err(Violation::ClosedEarly { lot_id: id, .. }) if id == lot_id(1)));
    let balance = check(|_, team| team.balance.expired = MicroTokens::ZERO);
    assert!(matches!(balance, Err(Violation::Balance(_))));
}
