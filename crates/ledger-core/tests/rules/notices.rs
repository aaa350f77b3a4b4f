//! What others are told, by example.

use std::time::Duration;

use drawdown_ledger_core::{
    Batch, Book, Fact, Line, Notice, NoticeRules, NoticeRulesError, PoolKind, Reservation, Team, Told, Watch,
    fold_batch, notices, reserve,
};
use drawdown_types::{MicroTokens, Timestamp, WindowSize};

use crate::world::{World, at, id, lot_id, on, tokens};

/// A world in which somebody listens.
struct Heard {
    world: World,
    watch: Watch,
    before: Team,
    rows: usize,
}

impl Heard {
    fn new() -> Self {
        let world = World::new();
        let before = world.team.clone();
        Self { world, watch: Watch::default(), before, rows: 0 }
    }

    /// What is told at `now` of everything since the last time.
    fn told(&mut self, now: Timestamp) -> Vec<Notice> {
        let rows = &self.world.journal[self.rows..];
        let size = self.world.settings.window_size;
        let Told { notices, watch } =
            notices(&self.before, self.watch, &self.world.team, rows, now, &NoticeRules::default(), size);
        (self.before, self.rows, self.watch) = (self.world.team.clone(), self.world.journal.len(), watch);
        notices
    }

    fn kinds(&mut self, now: Timestamp) -> Vec<String> {
        let level = |fact: &Fact| match fact {
            Fact::LevelReached { percent, .. } => format!("{percent} %"),
            Fact::LotExpiring { days, .. } => format!("{days} days"),
            other => other.kind().to_owned(),
        };
        self.told(now).iter().map(|notice| level(&notice.fact)).collect()
    }
}

fn month(day: u32) -> Timestamp {
    at(&format!("2026-06-{day:02}T12:00:00Z"))
}

#[test]
fn d32_a_level_is_told_once_until_a_new_lot_arms_it() {
    let mut heard = Heard::new();
    heard.world.buy(1, 100, month(1));
    assert_eq!(heard.kinds(month(1)), ["lot_added"]);
    heard.world.spend(45, month(2), month(2));
    assert!(heard.kinds(month(2)).is_empty());
    heard.world.spend(36, month(3), month(3));
    assert_eq!(heard.kinds(month(3)), ["50 %", "20 %"]);
    heard.world.spend(1, month(4), month(4));
    assert!(heard.kinds(month(4)).is_empty(), "18 % is no new crossing");
    // 218 of 400 are left: every level is armed again.
    heard.world.buy(2, 300, month(5));
    assert_eq!(heard.kinds(month(5)), ["lot_added"]);
    heard.world.spend(318, month(6), month(6));
    assert_eq!(heard.kinds(month(6)), ["50 %", "20 %", "10 %", "0 %"]);
}

#[test]
fn d32_what_goes_and_comes_back_does_not_tell_a_level_again_and_again() {
    let (team, mut watch) = (&mut Heard::new().before, Watch::default());
    let mut world = World::new();
    world.buy(1, 100, month(1));
    *team = world.team.clone();
    watch.told_percent = None;
    let mut told = Vec::new();
    for amount in [82, -4, 4, -8, 8] {
        let before = team.clone();
        team.lots[0].remaining =
            MicroTokens::from_micros(team.lots[0].remaining.as_micros() - amount * 1_000_000);
        let mut row = world.journal[0].clone();
        row.amount = MicroTokens::from_micros(amount.abs() * 1_000_000);
        (row.debit, row.credit) = if amount > 0 { (Book::Lot, Book::Held) } else { (Book::Held, Book::Lot) };
        row.posted_at = month(2);
        let rules = NoticeRules::default();
        let found = notices(&before, watch, team, &[row], month(2), &rules, WindowSize::MINUTE);
        watch = found.watch;
        told.push(found.notices.len());
    }
    // 18 % tells two levels; 22 % is within the margin, 26 % is not.
    assert_eq!(told, [2, 0, 0, 0, 1]);
}

#[test]
fn d48_the_deadline_is_an_edge_and_the_way_back_is_told() {
    let mut heard = Heard::new();
    heard.world.buy(1, 100, on("10:00:00"));
    heard.told(on("10:00:00"));
    heard.world.spend(101, on("10:01:00"), on("10:02:03"));
    let told = heard.told(on("10:02:03"));
    let below = told.iter().find(|notice| notice.fact.kind() == "below_zero").unwrap();
    let deadline = Some(at("2026-06-24T10:03:00Z"));
    let (lowest, balance) = (tokens("-1"), tokens("-1"));
    assert_eq!(below.fact, Fact::BelowZero { lowest, balance, deadline });
    assert_eq!(below.occurred_at, on("10:02:03"));
    // Deeper is no new fact, and a part of the debt paid is no way back.
    heard.world.spend(150, on("10:03:00"), on("10:04:00"));
    assert!(heard.kinds(on("10:04:00")).is_empty());
    heard.world.buy(2, 100, on("10:05:00"));
    assert_eq!(heard.kinds(on("10:05:00")), ["lot_added", "debt_netted"]);
    heard.world.buy(3, 100, on("10:06:00"));
    let told = heard.told(on("10:06:00"));
    let (from, to, owed) = (tokens("100"), tokens("151"), MicroTokens::ZERO);
    assert_eq!(told[1].fact, Fact::DebtNetted { lot_id: lot_id(3), from, to, owed });
    assert_eq!(told[2].fact, Fact::BackAtZero { balance: tokens("49"), since: on("10:02:03") });
}

#[test]
fn d48_a_batch_that_dips_below_zero_and_recovers_tells_it_once_and_starts_no_clock() {
    let mut heard = Heard::new();
    heard.world.buy(1, 100, on("10:00:00"));
    let now = on("10:01:30");
    let hold_id = id("hold", 1);
    let (amount, expires_at) = (tokens("100"), on("11:00:00"));
    let wish = Reservation { hold_id, app_id: None, amount, at_least: None, expires_at };
    let settings = heard.world.settings.clone();
    let plan = reserve(&mut heard.world.team, &wish, now, now, &settings).unwrap();
    heard.world.journal.extend(plan.journal);
    assert_eq!(heard.kinds(now), ["lot_added", "50 %", "20 %", "10 %", "0 %"]);
    // Usage beside the hold is owed until the hold is captured: what it gives back pays.
    let beside = heard.world.line("token", 30, on("10:01:00"));
    let own =
        Line { hold_id: Some(hold_id), series: vec![1], ..heard.world.line("token", 20, on("10:01:00")) };
    let lines = [beside, own];
    let mut teams = [heard.world.team.clone()];
    let now = on("10:02:00");
    let batch = Batch {
        lines: &lines,
        states: &[],
        periods: &drawdown_ledger_core::Periods::default(),
        prices: &heard.world.prices,
        settings: &settings,
        now,
        settled_until: now,
        last_of_holds: &[hold_id],
    };
    let mut made = 0;
    let plan = fold_batch(&mut teams, &batch, || {
        made += 1;
        id("chg", made)
    })
    .unwrap();
    let [team] = teams;
    assert_eq!(team.balance.negative_since, None);
    heard.world.team = team;
    heard.world.journal.extend(plan.journal);
    let facts: Vec<Fact> = heard.told(now).into_iter().map(|notice| notice.fact).collect();
    let (none, from_zero) = (MicroTokens::ZERO, MicroTokens::ZERO);
    let netted = Fact::DebtNetted { lot_id: lot_id(1), from: from_zero, to: tokens("30"), owed: none };
    let below = Fact::BelowZero { lowest: tokens("-30"), balance: tokens("50"), deadline: None };
    assert_eq!(facts, [netted, below]);
}

#[test]
fn d3_what_time_alone_makes_true_has_its_own_instant_whenever_it_is_found() {
    let mut heard = Heard::new();
    let life = (month(1), at("2026-09-15T00:00:00Z"));
    heard.world.give(1, PoolKind::Promotional, "10", life, month(1));
    heard.told(month(1));
    // Nobody looked for months.
    let late = at("2026-12-24T00:00:00Z");
    let told = heard.told(late);
    let (lot_id, left) = (lot_id(1), tokens("10"));
    let expires_at = life.1;
    let days = |days, when: &str| (at(when), Fact::LotExpiring { lot_id, days, left, expires_at });
    let closes_at = at("2026-09-16T00:00:00Z");
    let none = MicroTokens::ZERO;
    let level = |percent| (expires_at, Fact::LevelReached { percent, available: none, granted: none });
    let expected = [
        days(90, "2026-06-17T00:00:00Z"),
        days(30, "2026-08-16T00:00:00Z"),
        days(7, "2026-09-08T00:00:00Z"),
        (expires_at, Fact::LotExpired { lot_id, left, closes_at }),
        level(50),
        level(20),
        level(10),
        level(0),
    ];
    assert_eq!(
        told.into_iter().map(|notice| (notice.occurred_at, notice.fact)).collect::<Vec<_>>(),
        expected
    );
    heard.world.job(late);
    let told = heard.told(late);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].fact, Fact::LotClosed { lot_id, forfeited: tokens("10"), expired_at: expires_at });
}

#[test]
fn d32_a_short_lot_is_not_told_to_expire_in_more_days_than_it_lives() {
    let mut heard = Heard::new();
    heard.world.give(1, PoolKind::Free, "10", (month(1), month(11)), month(1));
    assert_eq!(heard.kinds(month(2)), ["lot_added"]);
    assert_eq!(heard.kinds(month(5)), ["7 days"]);
    heard.world.spend(10, month(6), month(6));
    heard.told(month(6));
    assert!(heard.kinds(month(20)).is_empty(), "an empty lot forfeits nothing");
}

#[test]
fn rules_that_can_not_be_are_refused() {
    let grace = Duration::from_secs(60);
    for (levels, margin, days, fault) in [
        (&[10, 10][..], 5, &[7][..], NoticeRulesError::Levels),
        (&[20, 10], 5, &[7], NoticeRulesError::Levels),
        (&[100], 5, &[7], NoticeRulesError::Levels),
        (&[10], 100, &[7], NoticeRulesError::Margin),
        (&[10], 5, &[30, 7], NoticeRulesError::Days),
        (&[10], 5, &[0], NoticeRulesError::Days),
    ] {
        assert_eq!(NoticeRules::new(levels, margin, days, grace), Err(fault));
    }
    assert!(NoticeRules::new(&[], 0, &[], grace).is_ok());
}

/// Facts as they were stored once, a line each in order of their kinds: they must be read for ever.
const STORED: &str = r#"
{"kind":"lot_added","lot_id":"lot_00000000000000000000000001","pool":"flex","amount":15,"starts_at":"2026-06-10T10:00:00Z","expires_at":"2027-06-10T10:00:00Z","moved":false}
{"kind":"level_reached","percent":20,"available":15,"granted":75}
{"kind":"lot_expiring","lot_id":"lot_00000000000000000000000001","days":7,"left":15,"expires_at":"2026-06-10T10:00:00Z"}
{"kind":"lot_expired","lot_id":"lot_00000000000000000000000001","left":15,"closes_at":"2026-06-11T10:00:00Z"}
{"kind":"lot_closed","lot_id":"lot_00000000000000000000000001","forfeited":15,"expired_at":"2026-06-10T10:00:00Z"}
{"kind":"below_zero","lowest":-15,"balance":-14,"deadline":"2026-06-24T10:00:00Z"}
{"kind":"back_at_zero","balance":15,"since":"2026-06-10T10:00:00.000001Z"}
{"kind":"debt_netted","lot_id":"lot_00000000000000000000000001","from":15,"to":20,"owed":1}
{"kind":"budget_reached","budget_id":"budget_00000000000000000000000001","app_id":null,"month":"2026-06-01T00:00:00Z","percent":100,"used":15,"cap":14,"hard":true,"late":false}
"#;

#[test]
fn the_stored_form_of_facts_is_kept() {
    let lines: Vec<&str> = STORED.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), Fact::KINDS.len());
    for (kind, line) in Fact::KINDS.into_iter().zip(lines) {
        let fact: Fact = serde_json::from_str(line).unwrap();
        assert_eq!(fact.kind(), kind);
        assert_eq!(serde_json::to_string(&fact).unwrap(), line);
    }
}
