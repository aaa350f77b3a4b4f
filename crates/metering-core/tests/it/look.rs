//! Every condition of the worker's look, and that progress in between is no damage.

use std::collections::BTreeMap;

use drawdown_metering_core::{
    look::{
        Cause, Cursor, Head, LaneApplied, LaneSettled, Remedy, ResetHistory, Trouble, Verdict, after_trouble,
        look,
    },
    shard::Position,
};

use crate::setup::lane;

const G: u64 = 7;

fn at(sequence: u64) -> Position {
    Position { sequence, chain: sequence }
}

fn cursor(generation: u64, last_batch: u64, settled: u64) -> Cursor {
    let lanes = BTreeMap::from([(lane(1), LaneSettled { epoch: 1, settled: at(settled) })]);
    Cursor { generation, last_batch, lanes }
}

/// Batch 4 is settled and retired, batch 5 is open and empty; the lane is applied and settled to 100.
fn idle() -> Head {
    let lanes = BTreeMap::from([(lane(1), LaneApplied { epoch: 1, applied: at(100) })]);
    let sealed = BTreeMap::new();
    Head { generation: G, roll: 0, open: 5, retired: 4, blobs: 0, open_length: 0, sealed, lanes }
}

fn changed(change: impl Fn(&mut Head)) -> Head {
    let mut head = idle();
    change(&mut head);
    head
}

fn applied(head: &mut Head, applied: Position) {
    head.lanes.insert(lane(1), LaneApplied { epoch: 1, applied });
}

/// Suspected after A alone, and damaged with an equal B.
fn check_damaged(head: Option<&Head>, expected: &Cause) {
    let a = cursor(G, 4, 100);
    assert_eq!(look(&a, head, None), Verdict::Confirm(expected.clone()));
    assert_eq!(look(&a, head, Some(&a)), Verdict::Damaged(expected.clone()));
}

#[test]
fn damage_is_suspected_first_and_then_named() {
    check_damaged(None, &Cause::HeadMissing);
    check_damaged(Some(&changed(|h| h.generation = 8)), &Cause::Generation { found: 8, expected: G });
    check_damaged(
        Some(&changed(|h| (h.retired, h.open) = (5, 6))),
        &Cause::RetiredAhead { retired: 5, last: 4 },
    );
    check_damaged(Some(&changed(|h| h.open = 4)), &Cause::OpenBehind { open: 4, retired: 4 });
    check_damaged(Some(&changed(|h| h.open = 6)), &Cause::SealMissing(5));
    check_damaged(Some(&changed(|h| h.open_length = 1)), &Cause::Length { found: 1, counted: 0 });
    check_damaged(Some(&changed(|h| h.blobs = 1)), &Cause::Length { found: 0, counted: 1 });
    check_damaged(
        Some(&changed(|h| applied(h, at(99)))),
        &Cause::AppliedBehind { lane: lane(1), applied: 99, settled: 100 },
    );
    check_damaged(
        Some(&changed(|h| applied(h, Position { sequence: 100, chain: 1 }))),
        &Cause::Chain { lane: lane(1), sequence: 100 },
    );
    check_damaged(
        Some(&changed(|h| applied(h, at(101)))),
        &Cause::Audit { lane: lane(1), applied: 101, settled: 100 },
    );
    let unknown = changed(|h| {
        h.lanes.insert(lane(2), LaneApplied { epoch: 1, applied: at(3) });
    });
    check_damaged(Some(&unknown), &Cause::Audit { lane: lane(2), applied: 3, settled: 0 });
}

#[test]
fn progress_in_between_is_no_damage() {
    let a = cursor(G, 4, 100);
    // Settled and retired by another worker after A was read.
    let head = changed(|h| {
        (h.retired, h.open) = (5, 6);
        applied(h, at(150));
    });
    assert!(matches!(look(&a, Some(&head), None), Verdict::Confirm(_)));
    assert_eq!(look(&a, Some(&head), Some(&cursor(G, 5, 150))), Verdict::Idle);
    // Reset by another worker after A was read.
    let head = changed(|h| h.generation = 9);
    assert_eq!(look(&a, Some(&head), Some(&cursor(9, 4, 100))), Verdict::Again);
    // A reset that was begun and not installed is damage at the next look, not at this one.
    assert_eq!(look(&a, Some(&idle()), Some(&cursor(9, 4, 100))), Verdict::Again);
    let next = Cause::Generation { found: G, expected: 9 };
    assert_eq!(look(&cursor(9, 4, 100), Some(&idle()), Some(&cursor(9, 4, 100))), Verdict::Damaged(next));
}

#[test]
fn without_damage_there_is_one_next_step() {
    let a = cursor(G, 4, 100);
    assert_eq!(look(&a, Some(&idle()), None), Verdict::Idle);
    let open = changed(|h| {
        (h.blobs, h.open_length) = (3, 3);
        applied(h, at(130));
    });
    assert_eq!(look(&a, Some(&open), None), Verdict::Seal { batch: 5 });
    let sealed = changed(|h| {
        h.open = 7;
        h.sealed = BTreeMap::from([(5, "3:ab".to_owned()), (6, "1:cd".to_owned())]);
        applied(h, at(130));
    });
    let settle = Verdict::Settle { batch: 5, seal: "3:ab".to_owned() };
    assert_eq!(look(&a, Some(&sealed), None), settle);
    // Posted already, and not retired: posted again for its receipt.
    assert_eq!(look(&cursor(G, 5, 120), Some(&sealed), None), settle);
    // A lane of the ledger that Redis does not know yet is attached later.
    let fresh = changed(|h| h.lanes.clear());
    assert_eq!(look(&a, Some(&fresh), None), Verdict::Idle);
}

#[test]
fn trouble_has_to_be_seen_twice() {
    let trouble = Trouble { generation: G, batch: 5, seal: "3:ab".to_owned() };
    assert_eq!(after_trouble(None, &trouble), Remedy::LookAgain);
    assert_eq!(after_trouble(Some(&trouble), &trouble), Remedy::Reset);
    for other in [
        Trouble { generation: 8, ..trouble.clone() },
        Trouble { batch: 6, ..trouble.clone() },
        Trouble { seal: "3:ac".to_owned(), ..trouble.clone() },
    ] {
        assert_eq!(after_trouble(Some(&other), &trouble), Remedy::LookAgain);
    }
}

#[test]
fn resets_without_progress_are_counted() {
    let mut history = ResetHistory::new();
    let counted: Vec<u32> = [(1, 10), (2, 10), (3, 10), (4, 20), (5, 20)]
        .map(|(generation, settled)| history.note(&cursor(generation, 4, settled)))
        .to_vec();
    assert_eq!(counted, [0, 1, 2, 0, 1]);
}
