//! Days left, the red mark, and forecasts computed by hand and by properties.

use drawdown_ledger_core::{
    BurnRate, Forecast, LotForecast, PoolKind, TRAILING_DAYS_MAX, forecast, trailing_days,
};
use drawdown_types::{MicroTokens, Timestamp};
use proptest::prelude::*;

use crate::world::{World, at, lot_id, on, tokens};

const NOON: &str = "2026-06-10T12:00:00Z";

fn day(number: u32, time: &str) -> Timestamp {
    at(&format!("2026-06-{number:02}T{time}Z"))
}

fn rate(amount: &str, days: u32) -> BurnRate {
    BurnRate::new(tokens(amount), days).unwrap()
}

fn look(world: &World, rate: BurnRate) -> Forecast {
    let now = at(NOON);
    forecast(&world.team, now, now, rate, &world.settings).unwrap()
}

fn lot(forecast: &Forecast, number: u64) -> &LotForecast {
    forecast.lots.iter().find(|lot| lot.lot_id == lot_id(number)).unwrap()
}

#[test]
fn d30_days_left_are_whole_days() {
    let mut world = World::new();
    world.give(1, PoolKind::Free, "1", (on("00:00:00"), at("2026-06-13T12:00:00Z")), on("00:00:00"));
    let lot = &world.team.lots[0];
    for (text, days) in [
        ("2026-06-10T12:00:00Z", 3),
        ("2026-06-10T12:00:00.000001Z", 2),
        ("2026-06-12T12:00:00Z", 1),
        ("2026-06-12T12:00:01Z", 0),
        ("2026-06-13T12:00:00Z", 0),
        ("2027-06-13T12:00:00Z", 0),
    ] {
        assert_eq!(lot.days_left_at(at(text)), days, "{text}");
    }
}

#[test]
fn d52_a_fifth_left_is_red() {
    let mut world = World::new();
    let red = |world: &World| {
        let now = at(NOON);
        let view = drawdown_ledger_core::balance_at(&world.team, now, now, &world.settings).unwrap();
        view.is_red()
    };
    assert!(red(&world), "nothing is left of nothing");
    world.give(1, PoolKind::Free, "10", (on("00:00:00"), day(20, "00:00:00")), on("00:00:00"));
    assert!(!red(&world));
    let use_up = |world: &mut World, units| {
        let line = world.line("cent", units, on("11:00:00"));
        world.post(&[line], on("11:30:00"));
    };
    use_up(&mut world, 799);
    assert!(!red(&world), "2.01 of 10");
    use_up(&mut world, 1);
    assert!(red(&world), "2 of 10");
}

#[test]
fn d35_a_lot_lasts_as_long_as_it_is_divided_by_the_rate() {
    let mut world = World::new();
    world.give(1, PoolKind::Promotional, "10", (on("00:00:00"), day(30, "12:00:00")), on("00:00:00"));
    // 28 tokens in 28 days: one a day.
    let found = look(&world, rate("28", 28));
    assert_eq!(lot(&found, 1).empty_at, Some(day(20, "12:00:00")));
    assert_eq!((lot(&found, 1).used, found.unused), (tokens("10"), tokens("0")));
    assert_eq!(found.runs_out_at, day(20, "12:00:00"));
}

#[test]
fn d35_what_usage_does_not_reach_before_an_expiry_is_lost() {
    let mut world = World::new();
    // Free tokens are drawn first, then the lot that expires first: 2 and 10 tokens, one a day.
    world.give(1, PoolKind::Promotional, "10", (on("00:00:00"), day(16, "12:00:00")), on("00:00:00"));
    world.give(2, PoolKind::Free, "2", (on("00:00:00"), day(30, "12:00:00")), on("00:00:00"));
    let found = look(&world, rate("1", 1));
    assert_eq!(found.lots.iter().map(|lot| lot.lot_id).collect::<Vec<_>>(), [lot_id(2), lot_id(1)]);
    assert_eq!((lot(&found, 2).empty_at, lot(&found, 2).unused), (Some(day(12, "12:00:00")), tokens("0")));
    // Two days are paid by the free lot, four by the other, of which six tokens are lost.
    assert_eq!((lot(&found, 1).used, lot(&found, 1).unused), (tokens("4"), tokens("6")));
    assert_eq!((lot(&found, 1).empty_at, found.unused), (None, tokens("6")));
    assert_eq!(found.runs_out_at, day(16, "12:00:00"));
}

#[test]
fn d42_a_scheduled_lot_pays_what_was_owed_until_it_starts() {
    let mut world = World::new();
    world.give(1, PoolKind::Free, "1", (on("00:00:00"), day(30, "12:00:00")), on("00:00:00"));
    world.give(2, PoolKind::Free, "5", (day(14, "12:00:00"), day(30, "12:00:00")), on("00:00:00"));
    let found = look(&world, rate("1", 1));
    assert_eq!(lot(&found, 1).empty_at, Some(day(11, "12:00:00")));
    // Three tokens are owed when it starts, two days are left of it.
    assert_eq!(lot(&found, 2).empty_at, Some(day(16, "12:00:00")));
    assert_eq!(lot(&found, 2).used, tokens("5"));
    assert_eq!(found.runs_out_at, day(11, "12:00:00"));
    // At five tokens a day it is empty the moment it starts.
    let found = look(&world, rate("5", 1));
    assert_eq!((lot(&found, 2).empty_at, lot(&found, 2).used), (Some(day(14, "12:00:00")), tokens("5")));
}

#[test]
fn a_team_that_owes_has_run_out_and_one_that_uses_nothing_does_when_its_lots_expire() {
    let mut world = World::new();
    assert_eq!(look(&world, rate("1", 1)).runs_out_at, at(NOON));
    world.give(1, PoolKind::Free, "3", (on("00:00:00"), day(12, "00:00:00")), on("00:00:00"));
    // A lot that starts at the very instant leaves no gap.
    world.give(2, PoolKind::Free, "3", (day(12, "00:00:00"), day(13, "00:00:00")), on("00:00:00"));
    let found = look(&world, rate("0", 28));
    assert_eq!((found.runs_out_at, found.unused), (day(13, "00:00:00"), tokens("6")));
    let line = world.line("token", 4, on("11:00:00"));
    world.post(&[line], on("11:30:00"));
    let found = look(&world, rate("0", 28));
    assert_eq!((found.runs_out_at, found.lots.len(), found.unused), (at(NOON), 1, tokens("2")));
}

#[test]
fn d35_the_rate_looks_back_on_whole_days_since_the_first_charge() {
    let today = at("2026-06-10T12:00:00Z");
    let days = |first: &str| trailing_days(Some(at(first)), today);
    assert_eq!(
        days("2026-01-01T05:00:00Z"),
        Some((at("2026-05-13T00:00:00Z"), at("2026-06-10T00:00:00Z"), TRAILING_DAYS_MAX))
    );
    assert_eq!(
        days("2026-06-08T23:59:00Z"),
        Some((at("2026-06-08T00:00:00Z"), at("2026-06-10T00:00:00Z"), 2))
    );
    assert_eq!(days("2026-06-10T00:00:00Z"), None);
    assert_eq!(trailing_days(None, today), None);
    assert_eq!(BurnRate::new(tokens("-1"), 1), None);
    assert_eq!(BurnRate::new(tokens("1"), 0), None);
}

/// Lots by pool, amount, first day, length and hour of the end, and tokens used before.
type Seeds = (Vec<(PoolKind, i64, u32, u32, u32)>, i64);

fn seeds() -> impl Strategy<Value = Seeds> {
    let pool = prop::sample::select(PoolKind::ALL.to_vec());
    let grant = (pool, 1i64..40_000_000, 0u32..6, 1u32..9, 0u32..24);
    (prop::collection::vec(grant, 0..6), prop_oneof![2 => Just(0i64), 1 => 1i64..60])
}

/// Lots of a few days around noon, some of them scheduled, some tied.
fn built((grants, used): Seeds) -> World {
    let mut world = World::new();
    for (number, (pool, amount, start, length, hour)) in (1..).zip(grants) {
        if pool == PoolKind::Flex {
            continue;
        }
        let start = if start < 3 { on("00:00:00") } else { day(8 + start, "06:00:00") };
        let end = day(11 + length, &format!("{hour:02}:00:00")).max(day(14, "06:00:00"));
        let amount = MicroTokens::from_micros(amount).to_string();
        world.give(number, pool, &amount, (start, end), on("00:00:00"));
    }
    if used > 0 {
        let line = world.line("token", used, on("11:00:00"));
        world.post(&[line], on("11:30:00"));
    }
    world
}

proptest! {
    #[test]
    fn a_forecast_uses_what_is_there_once_and_a_higher_rate_never_leaves_more(
        seeds in seeds(),
        micros in 0i64..60_000_000,
        more in 1i64..30_000_000,
        days in 1u32..29,
    ) {
        let world = built(seeds);
        let of = |micros| BurnRate::new(MicroTokens::from_micros(micros), days).unwrap();
        let (slow, fast) = (look(&world, of(micros)), look(&world, of(micros + more)));
        for found in [&slow, &fast] {
            for lot in &found.lots {
                prop_assert_eq!(lot.used.checked_add(lot.unused), Some(lot.remaining));
                prop_assert!(lot.used >= MicroTokens::ZERO && lot.unused >= MicroTokens::ZERO);
                let empty = lot.unused == MicroTokens::ZERO;
                prop_assert_eq!(lot.empty_at.is_some(), empty);
                prop_assert!(lot.empty_at.is_none_or(|at| at <= lot.expires_at));
            }
        }
        prop_assert!(fast.unused <= slow.unused);
        // A micro-token is never cut: each expiry may take a started one along, and no more.
        let one = i64::from(days) * 86_400_000_000 / micros.max(1) + 1;
        let slack = one.saturating_mul(i64::try_from(slow.lots.len()).unwrap());
        let slow_end = slow.runs_out_at.as_micros().saturating_add(slack);
        prop_assert!(fast.runs_out_at.as_micros() <= slow_end);
        // The same rate in other words is the same forecast.
        let double = BurnRate::new(MicroTokens::from_micros(2 * micros), 2 * days).unwrap();
        let same = look(&world, double);
        prop_assert_eq!((same.lots, same.runs_out_at), (slow.lots.clone(), slow.runs_out_at));
    }

    #[test]
    fn a_forecast_is_what_small_steps_would_come_to(seeds in seeds(), tokens_a_day in 1i64..30) {
        let world = built(seeds);
        // Whole tokens a day over steps of an hour: 1/24 token, so amounts of 24 micro-tokens are whole.
        let a_day = tokens_a_day * 24_000_000;
        let found = look(&world, BurnRate::new(MicroTokens::from_micros(a_day), 1).unwrap());
        let hour = 3_600_000_000;
        let mut left: Vec<i64> = found.lots.iter().map(|lot| lot.remaining.as_micros()).collect();
        let lots: Vec<_> = found
            .lots
            .iter()
            .map(|lot| world.team.lots.iter().find(|other| other.lot_id == lot.lot_id).unwrap())
            .collect();
        let now = at(NOON).as_micros();
        let mut owed = world.team.balance.uncharged().as_micros();
        for step in 0..24 * 12 {
            let from = now + step * hour;
            owed += if step == 0 { 0 } else { a_day / 24 };
            // The usage of the hour before is paid by lots that were open in it; debts by those open now.
            let open = |lot: &drawdown_ledger_core::Lot, at: i64| {
                lot.starts_at.as_micros() <= at && at < lot.expires_at.as_micros()
            };
            for instant in if step == 0 { vec![from] } else { vec![from - hour, from] } {
                for (_, left) in lots.iter().zip(&mut left).filter(|(lot, _)| open(lot, instant)) {
                    let given = owed.min(*left);
                    *left -= given;
                    owed -= given;
                }
            }
        }
        let expected: Vec<_> = found.lots.iter().map(|lot| lot.unused.as_micros()).collect();
        prop_assert_eq!(left, expected);
    }
}
