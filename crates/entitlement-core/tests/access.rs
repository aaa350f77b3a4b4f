//! Random facts and histories: decisions agree with a naive model that is written from the rules alone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "access_model/mod.rs"]
mod model;

use std::time::Duration;

use drawdown_entitlement_core::{
    ContractKind,
    access::{
        AccessRules, AccountStanding, Budget, Caller, Decision, Facts, Heard, Level, Meter, MeterTerm,
        Moment, Month, PriceBound, Pricing, Quota, Reason, Span, Step, TeamStanding, WhenStale, Who, decide,
    },
};
use drawdown_types::{AppId, PriceId, Timestamp, WindowSize};
use model::{BOUND, Deed, Gate, GateBudget, GateMeter, GateStep, Kind, MINUTE, SECOND, Team, Verdict, edge};
use proptest::prelude::*;

/// Half an hour before a month begins.
const START: i64 = 1_769_902_200_000_000;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

fn of_level(level: Option<Level>) -> &'static str {
    match level {
        None => "none",
        Some(Level::Trial) => "trial",
        Some(Level::Full) => "full",
        Some(Level::Grace) => "grace",
        Some(Level::Limited) => "limited",
        Some(Level::Suspended) => "suspended",
    }
}

/// The facts of the core, made of those of the model.
struct Made {
    who: Option<Who>,
    team: TeamStanding,
    account: AccountStanding,
    meter: Option<Meter>,
}

impl Made {
    fn of(gate: &Gate, now: i64) -> Self {
        let (app_id, price_id) = (AppId::generate(), PriceId::generate());
        let month = |month: i32| {
            let text = format!("{:04}-{:02}", month.div_euclid(12), month.rem_euclid(12) + 1);
            text.parse::<Month>().unwrap()
        };
        let budget = |budget: &GateBudget, app_id| Budget {
            app_id,
            month: month(budget.month),
            cap_micros: budget.cap,
            used_micros: budget.used,
            hard: budget.hard,
        };
        let step = |step: &GateStep| Step {
            from: at(step.from),
            available_micros: step.available,
            uncharged_micros: step.owed,
            grace_deadline: step.deadline.map(at),
        };
        let pricing = |kind| match kind {
            Kind::Unpriced => Pricing::Unpriced,
            Kind::Free => Pricing::Free,
            Kind::Charged => Pricing::Charged,
            Kind::FreeTierOnly => Pricing::FreeTierOnly,
        };
        let meter = gate.meter.as_ref().map(|meter: &GateMeter| Meter {
            hard: meter.hard,
            terms: [MeterTerm {
                contract_kind: ContractKind::Flex,
                from: at(0),
                pricing: pricing(meter.kind),
                price_id: Some(price_id),
                free_quota: meter.quota,
                bound: Some(PriceBound { micros: meter.price, per_units: 1, charged_unit: 0 }),
            }]
            .into(),
        });
        let who = gate.known.then_some(Who {
            app_id,
            has_team: gate.has_team,
            account_suspended: gate.account_suspended,
            team_suspended: gate.team_suspended,
            archived: gate.archived,
            in_trial: now < gate.trial_ends,
            may_use_tokens: gate.buyer,
            contract_kind: ContractKind::Flex,
            changes_at: if now < gate.trial_ends { at(gate.trial_ends) } else { Timestamp::MAX },
        });
        let quota = Quota { price_id, month: month(gate.quota_month), used_quantity: gate.quota_used };
        let app = gate.budgets[0].iter().map(|own| budget(own, Some(app_id)));
        let of_team = gate.budgets[1].iter().map(|own| budget(own, None));
        Self {
            who,
            team: TeamStanding {
                steps: gate.steps.iter().map(step).collect(),
                steps_until: None,
                budgets: app.chain(of_team).collect(),
                quotas: [quota].into(),
            },
            account: AccountStanding {
                no_grace: gate
                    .no_grace
                    .iter()
                    .map(|(from, to)| Span { from: at(*from), to: to.map(at) })
                    .collect(),
                budgets: gate.budgets[2].iter().map(|own| budget(own, None)).collect(),
            },
            meter,
        }
    }

    fn decide(&self, gate: &Gate, now: i64) -> Decision {
        let moment = Moment::at(at(now), WindowSize::MINUTE);
        let heard = |as_of| Heard { as_of: at(as_of), debt_limit_micros: gate.debt_limit };
        let facts = Facts {
            caller: self.who.map_or(Caller::Unknown, Caller::Known),
            directory_as_of: at(gate.directory_as_of),
            ledger: gate.ledger_as_of.map(heard),
            team: Some(&self.team),
            account: Some(&self.account),
            meter: self.meter.as_ref().filter(|_| gate.catalogue),
            catalogue_known: gate.catalogue,
            when_stale: WhenStale::ByLimit,
            quantity: gate.quantity,
        };
        decide(&moment, &facts, &AccessRules { age_max: Duration::from_micros(BOUND.unsigned_abs()) })
    }
}

/// Names of the core that the model knows too.
fn ways(decision: &Decision) -> Vec<&'static str> {
    let name = |reason| match reason {
        Reason::ClientUnknown => "ClientUnknown",
        Reason::ClientRevoked => "ClientRevoked",
        Reason::AccountSuspended => "AccountSuspended",
        Reason::TeamSuspended => "TeamSuspended",
        Reason::AppArchived => "AppArchived",
        Reason::MeterNotKnown => "MeterNotKnown",
        Reason::TeamMissing => "TeamMissing",
        Reason::ProductMissing => "ProductMissing",
        Reason::GraceOver => "GraceOver",
        Reason::AccountWithoutGrace => "AccountWithoutGrace",
        Reason::DebtLimitPassed => "DebtLimitPassed",
        Reason::BalanceTooLow => "BalanceTooLow",
        Reason::FreeQuotaUsedUp => "FreeQuotaUsedUp",
        Reason::AppBudgetReached => "AppBudgetReached",
        Reason::TeamBudgetReached => "TeamBudgetReached",
        Reason::AccountBudgetReached => "AccountBudgetReached",
        Reason::RefusedWhileStale => "RefusedWhileStale",
        _ => "allows",
    };
    decision.remedies().map(|remedy| name(remedy.reason)).collect()
}

fn verdict(decision: &Decision) -> Verdict {
    Verdict {
        allowed: decision.allowed(),
        level: of_level(decision.level),
        ways: ways(decision),
        balance: decision.balance_micros,
        deadline: decision.grace_deadline.map(Timestamp::as_micros),
        stale: decision.stale,
    }
}

// === random facts ===

/// Often on an edge, or one microsecond beside it.
fn near() -> impl Strategy<Value = i64> {
    let beside = prop_oneof![Just(0), Just(-1), Just(1), -30 * SECOND..30 * SECOND];
    (-40_i64..40, beside).prop_map(|(minutes, beside)| START + minutes * MINUTE + beside)
}

fn gate_budget() -> impl Strategy<Value = Option<GateBudget>> {
    let month = model::month(START);
    let some = (month - 1..=month + 1, prop::option::of(0_i64..100), 0_i64..120, any::<bool>())
        .prop_map(|(month, cap, used, hard)| GateBudget { month, cap, used, hard });
    prop::option::weighted(0.4, some)
}

/// A team owes something while its clock runs, and nothing otherwise.
fn steps() -> impl Strategy<Value = Vec<GateStep>> {
    let step = (near(), 0_i64..60, 1_i64..60, prop::option::weighted(0.6, near()));
    let step = step.prop_map(|(from, available, owed, deadline)| GateStep {
        from,
        available,
        owed: deadline.map_or(0, |_| owed),
        deadline: deadline.map(edge),
    });
    prop::collection::vec(step, 1..4).prop_map(|mut steps| {
        steps.sort_by_key(|step| step.from);
        steps.dedup_by_key(|step| step.from);
        steps
    })
}

fn no_grace() -> impl Strategy<Value = Vec<(i64, Option<i64>)>> {
    prop::collection::vec(near(), 0..4).prop_map(|mut instants| {
        instants.sort_unstable();
        instants.dedup();
        instants.chunks(2).map(|pair| (pair[0], pair.get(1).copied())).collect()
    })
}

fn gate_meter() -> impl Strategy<Value = Option<GateMeter>> {
    let kinds = [Kind::Unpriced, Kind::Free, Kind::Charged, Kind::Charged, Kind::Charged, Kind::FreeTierOnly];
    let meter = (any::<bool>(), prop::sample::select(kinds.to_vec()), 0_i64..30, 0_i64..10)
        .prop_map(|(hard, kind, quota, price)| GateMeter { hard, kind, quota, price });
    prop::option::weighted(0.95, meter)
}

fn gate() -> impl Strategy<Value = Gate> {
    let month = model::month(START);
    let flags = prop::array::uniform7(prop::bool::weighted(0.85));
    let ages = (near(), prop::option::weighted(0.9, near()), near());
    let money = (steps(), no_grace(), prop::option::weighted(0.3, 0_i64..40));
    let budgets = prop::array::uniform3(gate_budget());
    let used = (month - 1..=month, 0_i64..40, 1_u64..20);
    (flags, gate_meter(), ages, money, budgets, used).prop_map(
        |(flags, meter, (directory_as_of, ledger_as_of, trial), money, budgets, used)| {
            let [known, has_team, account, team, in_hub, buyer, catalogue] = flags;
            Gate {
                known,
                has_team,
                account_suspended: !account,
                team_suspended: !team,
                archived: !in_hub,
                buyer,
                catalogue,
                meter,
                trial_ends: edge(trial - 25 * MINUTE),
                directory_as_of,
                ledger_as_of,
                steps: money.0,
                no_grace: money.1,
                debt_limit: money.2,
                budgets,
                quota_month: used.0,
                quota_used: used.1,
                quantity: used.2,
            }
        },
    )
}

fn deed() -> impl Strategy<Value = (i64, Deed)> {
    let pause = prop_oneof![Just(0), 0..MINUTE, 0..30 * MINUTE];
    let deed = prop_oneof![
        2 => (1_i64..60, 1..40 * MINUTE).prop_map(|(amount, lasts)| Deed::Buys(amount, edge(lasts))),
        3 => (1_i64..40).prop_map(Deed::Uses),
    ];
    (pause, deed)
}

/// What a ledger would tell at `now`.
fn told(team: &Team, now: i64, grace: i64) -> Vec<GateStep> {
    let instants = [vec![now], team.expiries(now)].concat();
    let deadline = team.negative_since(now).map(|since| edge(since + grace));
    let step = |from: &i64| {
        let (available, owed) = team.balance(*from);
        GateStep { from: *from, available, owed, deadline }
    };
    instants.iter().map(step).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn decisions_are_those_of_the_model(gate in gate(), now in near()) {
        let decision = Made::of(&gate, now).decide(&gate, now);
        prop_assert_eq!(verdict(&decision), gate.answer(now));
        prop_assert_eq!(decision.allowed(), decision.in_the_way.first() != Some(decision.reason));
    }

    /// The instant that an answer names is never too late: until then time alone changes nothing but ages.
    #[test]
    fn an_answer_holds_until_it_says(gate in gate(), now in near(), later in near()) {
        let before = Made::of(&gate, now).decide(&gate, now);
        let later = later.max(now);
        prop_assume!(later < before.changes_at.as_micros());
        let mut fresh = gate;
        // ages are told apart from the answer
        fresh.directory_as_of += later - now;
        fresh.ledger_as_of = fresh.ledger_as_of.map(|as_of| as_of + later - now);
        let after = Made::of(&fresh, later).decide(&fresh, later);
        prop_assert_eq!((verdict(&after), after.reason), (verdict(&before), before.reason));
        prop_assert_eq!(after.budgets, before.budgets);
    }

    /// Full, below zero, grace, limited, partial top-ups, purchases; late usage and expiries in between: what a ledger
    /// told once gives the level of every later instant until something is posted (D58).
    #[test]
    fn levels_follow_a_team_through_time(
        deeds in prop::collection::vec(deed(), 1..12),
        probes in prop::collection::vec(0..60 * MINUTE, 1..4),
    ) {
        const GRACE: i64 = 14 * MINUTE;
        let mut now = edge(START);
        let mut team = Team::default();
        for (pause, deed) in deeds {
            now += pause;
            team.deeds.push((now, deed));
            let gate = Gate { steps: told(&team, now, GRACE), ..open_gate(now) };
            for probe in &probes {
                let later = now + probe;
                let decision = Made::of(&gate, later).decide(&gate, later);
                prop_assert_eq!(of_level(decision.level), team.level(later, GRACE));
                let (available, owed) = team.balance(later);
                prop_assert_eq!(decision.balance_micros, Some(available - owed));
                prop_assert_eq!(decision.allowed(), team.level(later, GRACE) != "limited");
            }
        }
    }
}

/// Nothing is in the way but money, of a soft meter.
fn open_gate(now: i64) -> Gate {
    Gate {
        known: true,
        has_team: true,
        account_suspended: false,
        team_suspended: false,
        archived: false,
        buyer: true,
        catalogue: true,
        meter: Some(GateMeter { hard: false, kind: Kind::Charged, quota: 0, price: 1 }),
        trial_ends: 0,
        directory_as_of: now,
        ledger_as_of: Some(now),
        steps: Vec::new(),
        no_grace: Vec::new(),
        debt_limit: None,
        budgets: [None; 3],
        quota_month: 0,
        quota_used: 0,
        quantity: 1,
    }
}
