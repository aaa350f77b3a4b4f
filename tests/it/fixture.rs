//! What the fixture is known to hold, by the recount's own reader.

use drawdown_tests::{
    recount::{period, read_line, recount},
    scenario::Scenario,
};
use drawdown_types::Timestamp;

const LOG: &str = include_str!("../fixtures/apache_access.log");

#[test]
fn the_log_has_ten_thousand_lines_and_one_cut_one() {
    assert_eq!(LOG.lines().count(), 10_000);
    assert_eq!(LOG.lines().filter(|line| read_line(line).is_none()).count(), 1);
}

#[test]
fn every_line_is_counted_once() {
    let (first, last) = period(LOG).unwrap();
    let at = |secs| Timestamp::from_secs(secs).unwrap();
    let all = recount(LOG, 0, &Scenario::new(at(first), at(last)));
    assert_eq!(all.malformed + all.ignored + all.unattributed + all.settled, 10_000);
    assert!(all.settled >= 9_000 && all.unattributed > 0 && all.ignored > 0, "{all:?}");
    assert_eq!(
        all.usage.values().map(|usage| usage.events).sum::<i64>(),
        i64::try_from(all.settled).unwrap()
    );
}
