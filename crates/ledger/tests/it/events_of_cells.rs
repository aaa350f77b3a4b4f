//! Events by id where accounts are spread over two cells: each is recorded in one of them, and always in the same one.

use drawdown_proto::ledger::v1::{EventAnswer, EventOutcome, NamedUsage};
use tonic::Code;

use crate::{
    cells::Pair,
    events::{AGAIN, CONFLICT, NEW, REFUSED, one, outcomes},
    world::{DAY, World, at, calls, event, id_in, nobody, refusal},
};

const ELSEWHERE: (EventOutcome, bool) = (EventOutcome::Elsewhere, false);

/// An event whose money is the other cell's.
fn there(id: &str, content: u8, pair: &Pair) -> NamedUsage {
    NamedUsage { cell: 1, ..event(id, content, calls(pair.there, 1)) }
}

fn claimed(answers: &[EventAnswer]) -> Vec<NamedUsage> {
    answers.iter().filter_map(|answer| answer.claimed.clone()).collect()
}

async fn claims(world: &World) -> i64 {
    one(world, "select count(*) from ledger.event_claim").await
}

impl Pair {
    /// As metering does it: the leading cell, and then the other one about what is claimed for it.
    async fn record(&self, sent: &[NamedUsage]) -> Vec<EventAnswer> {
        let mut told = self.leading.record(sent).await.unwrap();
        let elsewhere = claimed(&told);
        if !elsewhere.is_empty() {
            let mut theirs = self.other.record(&elsewhere).await.unwrap().into_iter();
            let waiting = told.iter_mut().filter(|answer| answer.claimed.is_some());
            waiting.for_each(|answer| *answer = theirs.next().unwrap());
        }
        told
    }

    async fn used(&self) -> (i64, i64) {
        let (here, there) = (self.leading.balance(self.here).await, self.other.balance(self.there).await);
        (here.used_micros, there.used_micros)
    }

    async fn assert_clean(&self) {
        self.leading.assert_clean().await;
        self.other.assert_clean().await;
    }
}

async fn pair() -> Pair {
    let pair = Pair::new().await;
    pair.leading.purchase(pair.here, 100, None).await.unwrap();
    pair.other.purchase(pair.there, 100, None).await.unwrap();
    pair
}

#[tokio::test]
async fn each_event_is_recorded_in_the_cell_of_its_money_once() {
    let pair = pair().await;
    let here = event("a", 1, calls(pair.here, 1));
    let sent = [here, there("b", 1, &pair), there("c", 1, &pair)];
    let told = pair.leading.record(&sent).await.unwrap();
    assert_eq!(outcomes(&told), [NEW, ELSEWHERE, ELSEWHERE]);
    assert_eq!(claimed(&told), sent[1..]);
    assert_eq!(pair.used().await, (500_000, 0), "a claim is no charge");
    // The caller got no answer and asks again: what was claimed is recorded now.
    assert_eq!(outcomes(&pair.record(&sent).await), [AGAIN, NEW, NEW]);
    assert_eq!(outcomes(&pair.record(&sent).await), [AGAIN; 3]);
    assert_eq!(pair.used().await, (500_000, 1_000_000));
    assert_eq!((claims(&pair.leading).await, claims(&pair.other).await), (2, 0));
    assert_eq!(one(&pair.leading, "select count(*) from ledger.event").await, 1);
    pair.assert_clean().await;
}

#[tokio::test]
async fn d49_what_is_known_of_the_payer_later_moves_no_event_to_another_cell() {
    let pair = pair().await;
    // Nobody paid at first; by now the app has a team in the other cell.
    let nobodys = event("a", 1, nobody(calls(pair.there, 1), "no_team"));
    assert_eq!(outcomes(&pair.record(&[nobodys]).await), [NEW]);
    assert_eq!(outcomes(&pair.record(&[there("a", 1, &pair)]).await), [AGAIN]);
    // Claimed for the other cell; by now it would be this one's, or nobody's.
    let first = there("b", 1, &pair);
    let told = pair.leading.record(std::slice::from_ref(&first)).await.unwrap();
    assert_eq!(claimed(&told), std::slice::from_ref(&first));
    for later in
        [event("b", 1, calls(pair.here, 1)), event("b", 1, nobody(calls(pair.there, 1), "unknown_client"))]
    {
        let told = pair.leading.record(&[later]).await.unwrap();
        assert_eq!(claimed(&told), std::slice::from_ref(&first), "as it was sent first");
    }
    assert_eq!(outcomes(&pair.record(&[event("b", 1, calls(pair.here, 1))]).await), [NEW]);
    assert_eq!(pair.used().await, (0, 500_000));
    pair.assert_clean().await;
}

#[tokio::test]
async fn another_content_conflicts_whichever_cell_has_the_first() {
    let pair = pair().await;
    pair.record(&[event("a", 1, calls(pair.here, 1)), there("b", 1, &pair)]).await;
    let other = [there("a", 2, &pair), event("b", 2, calls(pair.here, 1)), there("b", 2, &pair)];
    let told = pair.leading.record(&other).await.unwrap();
    assert_eq!(outcomes(&told), [CONFLICT; 3]);
    assert!(told.iter().all(|answer| answer.recorded_at.is_some() && answer.claimed.is_none()), "{told:?}");
    // Ids that meet inside one call, of one slot: the first one counts.
    let (x, y) = (id_in(1, 0), id_in(1, 5_000));
    let sent = [
        there(&x, 1, &pair),
        event(&x, 2, calls(pair.here, 1)),
        event(&y, 1, calls(pair.here, 1)),
        there(&y, 2, &pair),
        there(&x, 1, &pair),
        there(&y, 1, &pair),
    ];
    assert_eq!(outcomes(&pair.record(&sent).await), [NEW, CONFLICT, NEW, CONFLICT, AGAIN, AGAIN]);
    assert_eq!(pair.used().await, (1_000_000, 1_000_000));
    pair.assert_clean().await;
}

#[tokio::test]
async fn times_are_judged_before_anything_is_claimed() {
    let pair = pair().await;
    let timed = |id: &str, text: &str| {
        let time = drawdown_proto::scalar::timestamp_to_proto(at(text));
        NamedUsage { time: Some(time), ..there(id, 1, &pair) }
    };
    let sent = [timed("old", "2026-01-29T12:00:29Z"), timed("ahead", "2026-03-11T12:00:31Z")];
    assert_eq!(outcomes(&pair.record(&sent).await), [REFUSED; 2]);
    assert_eq!(claims(&pair.leading).await, 0);
    pair.leading.clock.advance(DAY);
    pair.other.clock.advance(DAY);
    assert_eq!(outcomes(&pair.record(&sent[1..]).await), [NEW], "a refused id stays new");
}

#[tokio::test]
async fn claims_are_forgotten_as_events_are() {
    let pair = pair().await;
    let sent = [there("a", 1, &pair)];
    pair.record(&sent).await;
    for (now, left) in [("2026-05-11T23:59:59Z", 1), ("2026-05-12T00:00:00Z", 0)] {
        for world in [&pair.leading, &pair.other] {
            world.clock.set(at(now));
            world.months.look().await.unwrap();
        }
        let events = one(&pair.other, "select count(*) from ledger.event").await;
        assert_eq!((claims(&pair.leading).await, events), (left, left), "{now}");
    }
    let told = pair.record(&sent).await;
    assert_eq!((outcomes(&told)[0], told[0].refused_reason.as_str()), (REFUSED, "EVENT_TIME_TOO_OLD"));
    assert_eq!(pair.used().await, (0, 500_000));
}

#[tokio::test]
async fn a_cell_takes_its_own_events_only() {
    let pair = pair().await;
    let wrong = (Code::InvalidArgument, "REQUEST_INVALID".to_owned(), vec!["events[0].cell".to_owned()]);
    let unknown = NamedUsage { cell: 2, ..there("a", 1, &pair) };
    assert_eq!(refusal(&pair.leading.record(&[unknown]).await.unwrap_err()), wrong);
    let leading = event("a", 1, calls(pair.there, 1));
    assert_eq!(refusal(&pair.other.record(&[leading]).await.unwrap_err()), wrong);
    let alone = World::new().await;
    assert_eq!(refusal(&alone.record(&[there("a", 1, &pair)]).await.unwrap_err()), wrong);
}
