//! Idle lanes leave the head, whatever comes late, twice or never.
//!
//! Lanes are retired here at any moment at which they are at rest: how long they have been is no matter of safety. What has
//! to hold: each event is charged once; and where Redis loses nothing, no event is applied twice and no shard is reset. The
//! same runs must find what goes wrong with each rule left out.

mod ledger;
mod redis;
mod world;

use drawdown_metering_core::shard::{Lane, Position};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};

use self::world::{INSTANCES, LANES, World};

/// What is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    None,
    /// `attach` does not compare the roll.
    AttachWithoutRoll,
    /// The roll is the one of the attach, not the one known before the ledger was asked.
    RollAtAttach,
    /// `retire_lanes` does not compare what is stored with what was seen.
    RetireWithoutBytes,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A producer's log grows.
    Append(u128, u64),
    /// A stream at an instance asks for a lane, or goes.
    Seat(usize, u128),
    Leave(usize, u128),
    /// An instance reads the head, asks the ledger, or sends a call.
    Look(usize),
    Ask(usize),
    Attach(usize, u128),
    Flush(usize, u64),
    /// An instance waits no longer for its answer.
    GiveUp(usize),
    Crash(usize),
    /// One of the calls under way arrives; a copy of it stays under way.
    Deliver(usize, bool),
    ReadCursor(usize),
    ReadHead(usize),
    /// A worker does what follows from cursor and head.
    Act(usize),
    RetireLanes(usize),
    /// All that an instance does for a lane, that a worker does, and a retirement, without a delay.
    Serve(usize, u128, u64),
    Work(usize),
    Retire(usize),
    /// Redis loses everything, is backed up, goes back.
    Empty,
    Keep,
    GoBack,
}

/// A position of a lane's only history.
fn at(lane: &Lane, sequence: u64) -> Position {
    let number = u64::try_from(lane.producer.as_uuid().as_u128()).unwrap();
    Position { sequence, chain: if sequence == 0 { 0 } else { number * 1000 + sequence } }
}

/// What goes wrong, if anything does, and how many lanes were retired.
fn run(steps: &[Step], rule: Rule, faults: bool) -> Result<usize, String> {
    let mut world = World::new(rule, faults);
    for step in steps {
        world.step(*step);
    }
    let finished = world.finish();
    if let Some(wrong) = world.wrong {
        return Err(wrong);
    }
    if !finished || world.charged().iter().any(|(charged, end)| charged != end) {
        return Err(format!("charged, and in the log: {:?}", world.charged()));
    }
    Ok(world.retired)
}

fn steps(faults: bool) -> impl Strategy<Value = Vec<Step>> {
    let of = || 0..INSTANCES;
    let number = || 1..=LANES;
    let work = prop_oneof![
        2 => (number(), 1_u64..4).prop_map(|(number, events)| Step::Append(number, events)),
        3 => (of(), number()).prop_map(|(of, number)| Step::Seat(of, number)),
        1 => (of(), number()).prop_map(|(of, number)| Step::Leave(of, number)),
        5 => of().prop_map(Step::Look),
        5 => of().prop_map(Step::Ask),
        5 => (of(), number()).prop_map(|(of, number)| Step::Attach(of, number)),
        4 => (of(), 1_u64..4).prop_map(|(of, events)| Step::Flush(of, events)),
        2 => of().prop_map(Step::GiveUp),
        1 => of().prop_map(Step::Crash),
        14 => (any::<usize>(), prop::bool::weighted(0.15)).prop_map(|(at, copy)| Step::Deliver(at, copy)),
        6 => of().prop_map(Step::ReadCursor),
        6 => of().prop_map(Step::ReadHead),
        6 => of().prop_map(Step::Act),
        3 => of().prop_map(Step::RetireLanes),
        10 => (of(), number(), 1_u64..4).prop_map(|(of, number, events)| Step::Serve(of, number, events)),
        12 => of().prop_map(Step::Work),
        5 => of().prop_map(Step::Retire),
    ];
    let fault = prop_oneof![Just(Step::Empty), Just(Step::Keep), Just(Step::GoBack)];
    vec(prop_oneof![40 => work, u32::from(faults) => fault], 20..120)
}

proptest! {
    #![proptest_config(Config { cases: 1000, ..Config::default() })]

    #[test]
    fn no_event_is_applied_twice_and_no_shard_is_reset(steps in steps(false)) {
        prop_assert_eq!(run(&steps, Rule::None, false).err(), None);
    }

    #[test]
    fn each_event_is_charged_once_though_redis_is_lost_or_goes_back(steps in steps(true)) {
        prop_assert_eq!(run(&steps, Rule::None, true).err(), None);
    }
}

/// What the same runs find with a rule left out.
fn found(rule: Rule) -> Option<String> {
    let config = Config { cases: 4000, failure_persistence: None, ..Config::default() };
    let same_runs = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let result = TestRunner::new_with_rng(config, same_runs).run(&steps(false), |steps| {
        prop_assert_eq!(run(&steps, rule, false).err(), None);
        Ok(())
    });
    match result {
        Ok(()) => None,
        Err(TestError::Fail(why, steps)) => Some(format!("{why}: {steps:?}")),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[test]
fn without_the_roll_the_same_runs_go_wrong() {
    for rule in [Rule::AttachWithoutRoll, Rule::RollAtAttach] {
        let found = found(rule).unwrap_or_else(|| panic!("{rule:?} changes nothing"));
        println!("{rule:?}: {found}");
    }
}

/// The shortest ways to it: a call is held up, and overtaken.
fn check(steps: &[Step], rule: Rule) {
    assert_eq!(run(steps, Rule::None, false), Ok(1));
    let wrong = run(steps, rule, false).unwrap_err();
    assert!(wrong.contains("were applied twice"), "{wrong}");
}

#[test]
fn an_attach_that_comes_after_the_retirement_is_refused() {
    use Step::{Append, Ask, Attach, Deliver, GiveUp, Leave, Look, Retire, Seat, Serve, Work};
    let held_up = [Append(1, 2), Seat(0, 1), Look(0), Ask(0), Attach(0, 1), GiveUp(0)];
    // The other instance is faster: the lane is attached and applied, sealed and settled, at rest and retired.
    let overtaken = [Seat(1, 1), Serve(1, 1, 2), Work(0), Work(0), Leave(1, 1), Retire(0)];
    // It arrives, and its instance sends what the log has.
    check(
        &[&held_up[..], &overtaken, &[Deliver(0, false), Serve(0, 1, 2)]].concat(),
        Rule::AttachWithoutRoll,
    );
}

#[test]
fn a_retirement_that_comes_after_the_lane_has_moved_leaves_it() {
    use Step::{Append, Deliver, ReadCursor, ReadHead, Retire, RetireLanes, Seat, Serve, Work};
    let at_rest = [Append(1, 2), Seat(0, 1), Serve(0, 1, 2), Work(0), Work(0)];
    let held_up = [ReadCursor(0), ReadHead(0), RetireLanes(0)];
    let moved = [Append(1, 1), Serve(0, 1, 1), Deliver(0, false), Serve(0, 1, 1)];
    let settled = [Work(0), Work(0), Retire(0)];
    check(&[&at_rest[..], &held_up, &moved, &settled].concat(), Rule::RetireWithoutBytes);
}
