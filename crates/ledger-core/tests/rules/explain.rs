//! Charges explained: which lots were looked at, what each gave or why it gave nothing, what paid the debt, and how
//! the price came about.

use drawdown_ledger_core::{
    ExplainError, Explanation, LotJournal, OwedPart, PoolKind, RatingStory, Reservation, TermsDraft, Tier,
    TierPart, Verdict, charge_back, explain, explain_rating, reserve,
};
use drawdown_types::{ChargeId, HoldId, LotId, MicroTokens, Quantity};

use crate::world::{World, at, id, lot_id, on, tokens};

fn number(lot: LotId) -> String {
    lot.to_string().trim_start_matches("lot_").trim_start_matches('0').to_owned()
}

/// `1 Paid 2 · 4 NotNeeded | 0 to 18 | 6: 10 | open 8`: lots in order, then each part that was owed, what paid it,
/// and what is owed of it.
fn told(explained: &Explanation) -> String {
    let lots = explained.lots.iter().map(|considered| {
        let lot = number(considered.lot.lot_id);
        match considered.verdict {
            Verdict::Paid { amount, held } if held > MicroTokens::ZERO => {
                format!("{lot} Paid {amount}, {held} held")
            }
            Verdict::Paid { amount, .. } => format!("{lot} Paid {amount}"),
            reason => format!("{lot} {reason:?}"),
        }
    });
    let lots = lots.collect::<Vec<_>>().join(" · ");
    [lots].into_iter().chain(explained.debts.iter().map(owed)).collect::<Vec<_>>().join(" | ")
}

fn owed(part: &OwedPart) -> String {
    let paid = part
        .netted
        .iter()
        .map(|paid| format!("{}: {} at {}", number(paid.lot_id.unwrap()), paid.amount, paid.posted_at));
    let paid = paid.collect::<Vec<_>>().join(" · ");
    let back = part.taken_back.map(|lot| format!("back from {}: ", number(lot))).unwrap_or_default();
    format!("{back}{} to {} | {paid} | open {}", part.debt.from, part.debt.to, part.open)
}

fn story(world: &World, charge: ChargeId) -> String {
    told(&explain(&world.team, &world.journal, charge, &world.settings).unwrap())
}

#[test]
fn every_reason_is_told() {
    let mut world = World::new();
    let day = on("20:00:00");
    world.give(1, PoolKind::Free, "2", (on("08:00:00"), on("09:00:00")), on("08:00:00"));
    world.give(2, PoolKind::Enterprise, "3", (on("08:00:00"), day), on("08:00:00"));
    world.give(3, PoolKind::Promotional, "5", (on("15:00:00"), day), on("08:00:00"));
    world.buy(4, 100, on("08:00:00"));
    let first = world.spend(3, on("08:30:00"), on("08:31:00")).charge_id;
    let second = world.spend(1, on("08:30:00"), on("08:32:00")).charge_id;
    // This lot has been somewhere else before.
    world.give(5, PoolKind::Credit, "4", (on("10:00:00"), day), on("10:00:00"));
    let moved = world.team.lots.iter_mut().find(|lot| lot.lot_id == lot_id(5)).unwrap();
    moved.starts_at = on("09:00:00");
    world.give(6, PoolKind::Credit, "4", (on("10:00:00"), day), on("10:00:00"));
    let late = world.spend(4, on("09:59:00"), on("10:01:00")).charge_id;
    let third = world.spend(120, on("10:30:00"), on("10:31:00")).charge_id;
    assert_eq!(story(&world, first), "1 Paid 2 · 2 Paid 1 · 3 Scheduled · 4 NotNeeded");
    assert_eq!(story(&world, second), "1 Empty · 2 Paid 1 · 3 Scheduled · 4 NotNeeded");
    assert_eq!(
        story(&world, late),
        "1 Expired · 2 Paid 1 · 5 CameLater · 6 StartsLater · 3 Scheduled · 4 Paid 3"
    );
    assert_eq!(
        story(&world, third),
        "1 Expired · 2 Empty · 5 Paid 4 · 6 Paid 4 · 3 Scheduled · 4 Paid 97 | 0 to 15 |  | open 15"
    );
    // What was told does not change by what comes later, but for the debt.
    world.give(7, PoolKind::Credit, "10", (on("11:00:00"), day), on("11:00:00"));
    world.job(on("15:01:00"));
    let next_day = at("2026-06-12T00:00:00Z");
    world.job(next_day);
    world.buy(8, 100, next_day);
    let last = world.spend(1, next_day, at("2026-06-12T00:01:00Z")).charge_id;
    assert_eq!(story(&world, first), "1 Paid 2 · 2 Paid 1 · 3 Scheduled · 4 NotNeeded");
    assert_eq!(
        story(&world, third),
        "1 Expired · 2 Empty · 5 Paid 4 · 6 Paid 4 · 3 Scheduled · 4 Paid 97 | 0 to 15 | \
         7: 10 at 2026-06-10T11:00:00Z · 3: 5 at 2026-06-10T15:00:00Z | open 0"
    );
    let closed = story(&world, last);
    assert!(closed.starts_with("1 Closed · 2 Closed") && closed.ends_with("4 Empty · 8 Paid 1"), "{closed}");
}

#[test]
fn charges_of_one_transaction_are_told_apart() {
    let mut world = World::new();
    world.buy(1, 100, on("08:00:00"));
    let lines = [
        world.line("token", 60, on("08:30:00")),
        world.line("token", 60, on("08:31:00")),
        world.line("token", 5, on("08:32:00")),
    ];
    let charges = world.post(&lines, on("08:40:00")).charges;
    let stories: Vec<_> = charges.iter().map(|charge| story(&world, charge.charge_id)).collect();
    assert_eq!(stories, ["1 Paid 60", "1 Paid 40 | 0 to 20 |  | open 20", "1 Empty | 20 to 25 |  | open 5"]);
    // One row of netting pays parts of both debts, in their order.
    world.give(2, PoolKind::Free, "22", (on("09:00:00"), on("20:00:00")), on("09:00:00"));
    let stories: Vec<_> = charges.iter().skip(1).map(|charge| story(&world, charge.charge_id)).collect();
    assert_eq!(
        stories,
        [
            "1 Paid 40 | 0 to 20 | 2: 20 at 2026-06-10T09:00:00Z | open 0",
            "1 Empty | 20 to 25 | 2: 2 at 2026-06-10T09:00:00Z | open 3"
        ]
    );
    let whole = explain(&world.team, &world.journal, charges[1].charge_id, &world.settings).unwrap();
    assert_eq!(
        (whole.amount, whole.rows, whole.price_id),
        (tokens("60"), (3, 4), charges[1].rated.price_id())
    );
}

#[test]
fn what_can_not_be_explained_is_named() {
    let mut world = World::new();
    world.buy(1, 100, on("08:00:00"));
    let charge = world.spend(3, on("08:30:00"), on("08:31:00")).charge_id;
    let unknown: ChargeId = id("chg", 999);
    let explained = explain(&world.team, &world.journal, unknown, &world.settings);
    assert_eq!(explained, Err(ExplainError::NotInJournal(unknown)));
    world.journal[0].lot_id = Some(lot_id(9));
    let explained = explain(&world.team, &world.journal, charge, &world.settings);
    assert!(matches!(explained, Err(ExplainError::Journal(_))), "{explained:?}");
}

#[test]
fn d41_what_the_hold_of_the_usage_paid_is_told_apart() {
    let mut world = World::new();
    world.give(1, PoolKind::Free, "3", (on("08:00:00"), on("20:00:00")), on("08:00:00"));
    world.buy(2, 100, on("08:00:00"));
    let hold_id: HoldId = id("hold", 1);
    let amount = tokens("5");
    let wish = Reservation { hold_id, app_id: None, amount, at_least: None, expires_at: on("10:00:00") };
    let plan = reserve(&mut world.team, &wish, on("08:10:00"), on("08:10:00"), &world.settings).unwrap();
    world.journal.extend(plan.journal);
    // Usage of somebody else: what is set aside of lot 1 is not there for it.
    let other = world.spend(1, on("08:11:00"), on("08:12:00")).charge_id;
    let mut line = world.line("token", 7, on("08:11:00"));
    line.hold_id = Some(hold_id);
    let held = world.post(&[line], on("08:13:00")).charges.remove(0).charge_id;
    assert_eq!(story(&world, other), "1 Empty · 2 Paid 1");
    assert_eq!(story(&world, held), "1 Paid 3, 3 held · 2 Paid 4, 2 held");
    let explained = explain(&world.team, &world.journal, held, &world.settings).unwrap();
    assert_eq!((explained.hold_id, explained.amount), (Some(hold_id), tokens("7")));
    let explained = explain(&world.team, &world.journal, other, &world.settings).unwrap();
    assert_eq!(explained.hold_id, None);
}

#[test]
fn d44_what_a_chargeback_took_back_is_owed_again_and_told_with_the_charge() {
    let mut world = World::new();
    world.buy(1, 100, on("08:00:00"));
    let charge = world.spend(130, on("08:30:00"), on("08:31:00")).charge_id;
    world.buy(2, 100, on("09:00:00"));
    assert_eq!(story(&world, charge), "1 Paid 100 | 0 to 30 | 2: 30 at 2026-06-10T09:00:00Z | open 0");
    let of_lot = world.journal.iter().filter(|row| row.lot_id == Some(lot_id(1)));
    let lot_journal = LotJournal { rows: of_lot.cloned().collect(), items: Vec::new() };
    let mut teams = [(world.team.clone(), lot_journal)];
    let plan = charge_back(&mut teams, lot_id(1), on("10:00:00"), on("10:00:00"), &world.settings).unwrap();
    let [(team, _)] = teams;
    world.team = team;
    world.journal.extend(plan.journal);
    assert_eq!(
        story(&world, charge),
        "1 Paid 100 | 0 to 30 | 2: 30 at 2026-06-10T09:00:00Z | open 0 | back from 1: 30 to 130 | \
         2: 70 at 2026-06-10T10:00:00Z | open 30"
    );
    let explained = explain(&world.team, &world.journal, charge, &world.settings).unwrap();
    assert_eq!((explained.amount, explained.open), (tokens("130"), tokens("30")));
}

fn rated(draft: TermsDraft, month: (i64, i64), others: &[i64]) -> RatingStory {
    let units = |units: i64| Quantity::new(units).unwrap();
    let others: Vec<Quantity> = others.iter().copied().map(units).collect();
    explain_rating(&draft.check().unwrap(), (units(month.0), units(month.1)), &others).unwrap()
}

fn micros(story: &RatingStory) -> (i64, i64, i64, i64) {
    let (before, after) = (story.priced_before.as_units(), story.priced_after.as_units());
    (before, after, story.cost_before.as_micros(), story.cost_after.as_micros())
}

#[test]
fn d14_to_d17_a_price_of_each_shape_is_told_by_what_it_looks_at() {
    let flat = TermsDraft { micros: 10, per_units: 3, ..TermsDraft::default() };
    let story = rated(flat.clone(), (1, 5), &[7]);
    assert_eq!((micros(&story), story.tiers), ((1, 5, 3, 16), Vec::new()));
    let quota = TermsDraft { free_quota: 4, ..flat.clone() };
    assert_eq!(micros(&rated(quota.clone(), (1, 3), &[7])), (0, 0, 0, 0));
    assert_eq!(micros(&rated(quota, (3, 10), &[7])), (0, 6, 0, 20));
    let tiers = vec![Tier { above: 10, micros: 5 }, Tier { above: 20, micros: 1 }];
    let graduated = TermsDraft { per_units: 1, tiers, free_quota: 2, ..flat };
    let story = rated(graduated, (7, 24), &[]);
    assert_eq!(micros(&story), (5, 22, 50, 152));
    let part = |above, micros, units| TierPart { above, micros, units };
    assert_eq!(story.tiers, [part(0, 10, 5), part(10, 5, 10), part(20, 1, 2)]);
    // What the quota leaves of every month runs on: 3 and 8 of others, then 1 to 6 of this one.
    let units = TermsDraft { per_units: 1, charged_unit: Some(10), free_quota: 2, ..flat };
    let story = rated(units, (3, 8), &[5, 1, 10]);
    assert_eq!((micros(&story), story.month_before.as_units()), ((12, 17, 100, 100), 3));
    let unfit = TermsDraft { micros: i64::MAX, per_units: 1, ..TermsDraft::default() }.check().unwrap();
    let two = (Quantity::ZERO, Quantity::new(2).unwrap());
    assert_eq!(explain_rating(&unfit, two, &[]), None);
}

#[test]
fn d43_what_a_correction_took_back_is_told_with_the_charge_and_what_it_charged_instead() {
    let mut world = World::new();
    world.buy(1, 100, on("08:00:00"));
    let lines =
        [world.spend(90, on("08:30:00"), on("08:31:00")), world.spend(30, on("08:30:00"), on("08:31:00"))];
    world.give(2, PoolKind::Free, "15", (on("08:00:00"), on("20:00:00")), on("08:40:00"));
    assert_eq!(
        story(&world, lines[1].charge_id),
        "1 Paid 10 | 0 to 20 | 2: 15 at 2026-06-10T08:40:00Z | open 5"
    );
    // 5 are owed still, 15 paid by lot 2, of the rest 2 by lot 1; 8 are charged instead.
    let again = world.line("token", 8, on("08:30:00"));
    world.correct(&lines, 1, 22, Some(&again), on("09:00:00")).unwrap();
    let explained = explain(&world.team, &world.journal, lines[1].charge_id, &world.settings).unwrap();
    let back: Vec<_> = explained.taken_back.iter().map(|part| (part.lot_id, part.amount)).collect();
    let lots = [None, Some(lot_id(2)), Some(lot_id(1))];
    assert_eq!(back, lots.into_iter().zip([tokens("5"), tokens("15"), tokens("2")]).collect::<Vec<_>>());
    assert!(explained.taken_back.iter().all(|part| part.correction_id == Some(id("chg", 900))));
    assert_eq!((explained.open, explained.charged_again), (MicroTokens::ZERO, false));
    assert_eq!(told(&explained), "1 Paid 10 | 0 to 20 | 2: 15 at 2026-06-10T08:40:00Z | open 0");
    let explained = explain(&world.team, &world.journal, id("chg", 901), &world.settings).unwrap();
    assert!(explained.charged_again && explained.taken_back.is_empty());
    // What came back pays in the order in which it had paid.
    assert_eq!(told(&explained), "2 Paid 6 · 1 Paid 2");
}
