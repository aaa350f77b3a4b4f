//! Reads as of earlier instants: what the books said then, and of that what had taken effect by an instant of
//! usage. A final answer is given again for ever, byte for byte, whatever is posted afterwards.

use std::time::Duration;

use drawdown_ledger::{config::DueConfig, jobs::due::Due};
use drawdown_proto::ledger::v1::{
    AsOf, Balance, GetBalanceRequest, GetBalanceResponse, Line, ListLotsRequest, ListLotsResponse, LotState,
    ReserveTokensRequest, hold_service_server::HoldService, token_service_server::TokenService,
};
use drawdown_types::{Clock as _, Timestamp};
use prost::Message as _;
use std::sync::Arc;
use tonic::{Request, Status};

use crate::world::{Buyer, DAY, World, at, calls_at, proto, reason, refusal, request_id};

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn as_of(event: Option<Timestamp>, recorded: Option<Timestamp>) -> Option<AsOf> {
    Some(AsOf { event: event.and_then(proto), recorded: recorded.and_then(proto) })
}

impl World {
    pub(crate) async fn balance_then(
        &self,
        buyer: Buyer,
        as_of: Option<AsOf>,
    ) -> Result<GetBalanceResponse, Status> {
        let request = GetBalanceRequest { team_id: buyer.team.to_string(), as_of, ..Default::default() };
        Ok(self.tokens.get_balance(Request::new(request)).await?.into_inner())
    }

    async fn lots_then(&self, buyer: Buyer, as_of: Option<AsOf>) -> ListLotsResponse {
        let request = ListLotsRequest { team_id: buyer.team.to_string(), as_of, ..Default::default() };
        self.tokens.list_lots(Request::new(request)).await.unwrap().into_inner()
    }

    async fn books_then(&self, buyer: Buyer, asked: Option<AsOf>) -> (GetBalanceResponse, ListLotsResponse) {
        (self.balance_then(buyer, asked).await.unwrap(), self.lots_then(buyer, asked).await)
    }

    pub(crate) async fn hold(&self, buyer: Buyer, micros: i64, lasts: Duration) -> Result<(), Status> {
        let request = ReserveTokensRequest {
            account_id: buyer.account.to_string(),
            team_id: buyer.team.to_string(),
            micros,
            lasts_ms: i64::try_from(lasts.as_millis()).unwrap(),
            request_id: request_id(),
            ..Default::default()
        };
        self.hold_service.reserve_tokens(Request::new(request)).await.map(drop)
    }

    pub(crate) async fn close_due(&self) {
        let config = DueConfig { interval: MINUTE, teams_max: 10, rounds_max: 10 };
        Due::new(Arc::clone(&self.ledger), config).look().await.unwrap();
    }
}

/// What does not depend on whether a lot's close was posted already.
fn sums(balance: &Balance) -> [i64; 11] {
    [
        balance.balance_micros,
        balance.available_micros,
        balance.closing_micros + balance.expired_micros,
        balance.scheduled_micros,
        balance.held_micros,
        balance.uncharged_micros,
        balance.used_micros,
        balance.purchased_micros,
        balance.void_micros,
        balance.moved_in_micros,
        balance.moved_out_micros,
    ]
}

/// D52 at any two instants.
fn assert_ties(balance: &Balance) {
    let left = balance.purchased_micros + balance.moved_in_micros - balance.moved_out_micros;
    let right = balance.available_micros
        + balance.scheduled_micros
        + balance.closing_micros
        + balance.held_micros
        + balance.used_micros
        - balance.uncharged_micros
        + balance.expired_micros
        + balance.void_micros;
    assert_eq!(left, right, "{balance:?}");
}

fn late(buyer: Buyer, events: u64, window: Timestamp, received: Timestamp) -> Line {
    Line {
        window_start: proto(window),
        received_window_start: proto(received),
        ..calls_at(buyer, events, "2026-03-10T12:00:00Z")
    }
}

fn floor(at: Timestamp) -> Timestamp {
    drawdown_types::WindowSize::from_secs(60).unwrap().floor(at)
}

#[tokio::test]
async fn late_usage_is_told_apart_by_both_instants() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.purchase(buyer, 100, None).await.unwrap();
    world.settle(producer, vec![calls_at(buyer, 2, "2026-03-10T12:00:00Z")]).await;
    world.clock.set(at("2026-03-10T18:00:00Z"));
    let usage = late(buyer, 4, at("2026-03-10T12:05:00Z"), at("2026-03-10T17:59:00Z"));
    world.settle(producer, vec![usage]).await;
    world.clock.advance(DAY);
    let used = |event, recorded| {
        let asked = as_of(Some(at(event)), Some(at(recorded)));
        let world = &world;
        async move { world.balance_then(buyer, asked).await.unwrap().balance.unwrap().used_micros }
    };
    // (by event, by record)
    assert_eq!(used("2026-03-10T12:04:59Z", "2026-03-10T17:00:00Z").await, 1_000_000);
    assert_eq!(used("2026-03-10T12:06:00Z", "2026-03-10T17:00:00Z").await, 1_000_000);
    assert_eq!(used("2026-03-10T12:04:59Z", "2026-03-10T19:00:00Z").await, 1_000_000);
    assert_eq!(used("2026-03-10T12:06:00Z", "2026-03-10T19:00:00Z").await, 3_000_000);
    // What was recorded at an instant is in it, and so is the whole window of an event.
    assert_eq!(used("2026-03-10T12:05:00Z", "2026-03-10T18:00:00Z").await, 3_000_000);
    let before = world.balance_then(buyer, as_of(Some(at("2026-03-10T11:59:59Z")), None)).await.unwrap();
    assert_eq!(before.balance.unwrap().purchased_micros, 0);
    assert!(world.lots_then(buyer, as_of(Some(at("2026-03-10T11:59:59Z")), None)).await.lots.is_empty());
}

#[tokio::test]
async fn an_expiry_shows_from_its_instant_and_is_pending_until_it_is_posted() {
    let world = World::new().await;
    world.priced().await;
    let buyer = world.buyer();
    world.grant(buyer, 5_000_000, None, "2026-03-10T13:00:00Z").await.unwrap();
    world.clock.set(at("2026-03-12T00:00:00Z"));
    let state = |recorded: &str, event: Option<&str>| {
        let asked = as_of(event.map(at), Some(at(recorded)));
        let world = &world;
        async move {
            let (balance, lots) = world.books_then(buyer, asked).await;
            let extent = lots.as_of.unwrap();
            let b = balance.balance.unwrap();
            (lots.lots[0].state(), b.available_micros, b.closing_micros, b.expired_micros, extent.r#final)
        }
    };
    assert_eq!(state("2026-03-10T12:59:00Z", None).await, (LotState::Open, 5_000_000, 0, 0, true));
    assert_eq!(state("2026-03-10T13:00:00Z", None).await, (LotState::Closing, 0, 5_000_000, 0, true));
    assert_eq!(state("2026-03-11T14:00:00Z", None).await, (LotState::Closed, 0, 0, 5_000_000, false));
    world.close_due().await;
    assert_eq!(state("2026-03-10T13:00:00Z", None).await, (LotState::Closing, 0, 5_000_000, 0, true));
    assert_eq!(state("2026-03-11T14:00:00Z", None).await, (LotState::Closed, 0, 0, 5_000_000, true));
    // D3: the close takes effect at the expiry.
    let by = Some("2026-03-10T13:00:00Z");
    assert_eq!(state("2026-03-11T14:00:00Z", by).await, (LotState::Closed, 0, 0, 5_000_000, true));
    let by = Some("2026-03-10T12:59:00Z");
    assert_eq!(state("2026-03-11T14:00:00Z", by).await, (LotState::Open, 5_000_000, 0, 0, true));
}

#[tokio::test]
async fn instants_ahead_and_two_kinds_of_question_at_once_are_refused() {
    let world = World::new().await;
    let buyer = world.buyer();
    let ahead = Some(at("2026-03-10T12:00:31Z"));
    for (asked, field) in [
        (as_of(None, ahead), "as_of.recorded"),
        (as_of(ahead, None), "as_of.event"),
        (as_of(Some(at("2026-03-10T12:00:00Z")), Some(at("2026-03-10T11:00:00Z"))), "as_of.event"),
    ] {
        let (_, reason, fields) = refusal(&world.balance_then(buyer, asked).await.unwrap_err());
        assert_eq!((reason.as_str(), fields), ("INSTANT_IN_FUTURE", vec![field.to_owned()]));
    }
    let request = GetBalanceRequest {
        team_id: buyer.team.to_string(),
        at: proto(at("2026-03-10T12:00:30Z")),
        as_of: as_of(None, None),
        ..Default::default()
    };
    let outcome = world.tokens.get_balance(Request::new(request)).await;
    assert_eq!(refusal(&outcome.unwrap_err()).2, ["as_of"]);
    let stranger = Buyer { team: drawdown_types::TeamId::generate(), ..buyer };
    assert_eq!(reason(world.balance_then(stranger, as_of(None, None)).await), "TEAM_UNKNOWN");
    // A team that nothing was posted to has books, and they are empty.
    let (balance, lots) = world.books_then(buyer, as_of(None, Some(at("2026-03-10T11:00:00Z")))).await;
    assert_eq!(
        (balance.balance.unwrap().version, lots.lots.len(), lots.as_of.unwrap().r#final),
        (0, 0, true)
    );
}

/// Numbers that look random, the same for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        range.start + (z ^ (z >> 31)) % (range.end - range.start)
    }
}

/// Minutes.
fn minutes(count: u64) -> Duration {
    MINUTE * u32::try_from(count).unwrap()
}

/// One step of a random history of a team.
async fn step(world: &World, buyer: Buyer, producer: drawdown_types::ProducerId, dice: &mut Dice) {
    let now = floor(world.clock.now());
    let ago = |count: u64| now.checked_sub(minutes(count)).unwrap();
    match dice.roll(0..10) {
        0 => drop(world.purchase(buyer, 100, None).await.unwrap()),
        1 | 2 => {
            let expires = now.checked_add(minutes(dice.roll(5..300))).unwrap().to_string();
            let starts = now.checked_add(minutes(dice.roll(1..60))).unwrap().to_string();
            let starts = (dice.roll(0..10) < 3).then_some(starts).filter(|starts| *starts < expires);
            let micros = i64::try_from(dice.roll(1..20_000_000)).unwrap();
            world.grant(buyer, micros, starts.as_deref(), &expires).await.unwrap();
        }
        3 => {
            let (micros, lasts) = (dice.roll(1..3_000_000), minutes(dice.roll(1..90)));
            // Where less is left there is no hold.
            let _ = world.hold(buyer, micros.cast_signed(), lasts).await;
        }
        4 => world.close_due().await,
        _ => {
            let lines = (0..dice.roll(1..4)).map(|_| {
                let window = ago(dice.roll(0..1_400));
                late(buyer, dice.roll(1..30), window, now)
            });
            // A series comes once a window and receipt.
            let mut lines: Vec<_> = lines.collect();
            lines.dedup_by_key(|line| line.window_start);
            lines.sort_by_key(|line| line.window_start.unwrap().seconds);
            lines.dedup_by_key(|line| line.window_start);
            world.settle(producer, lines).await;
        }
    }
}

/// Three tests of two seeds each, because a seed takes some ten seconds and they can run beside each other.
#[tokio::test]
async fn a_final_answer_is_given_again_for_ever() {
    final_answers(0..2).await;
}

#[tokio::test]
async fn a_final_answer_is_given_again_for_ever_by_other_seeds() {
    final_answers(2..4).await;
}

#[tokio::test]
async fn a_final_answer_is_given_again_for_ever_by_further_seeds() {
    final_answers(4..6).await;
}

async fn final_answers(seeds: std::ops::Range<u64>) {
    let mut finals = 0;
    for seed in seeds {
        let mut dice = Dice(seed);
        let world = World::new().await;
        world.priced().await;
        let (buyer, producer) = (world.buyer(), world.producer().await);
        let begin = world.clock.now();
        let (mut answers, mut moments) = (Vec::new(), Vec::new());
        for _ in 0..40 {
            step(&world, buyer, producer, &mut dice).await;
            let (now, ordinary) = (world.clock.now(), world.balance(buyer).await);
            let here = world.balance_then(buyer, as_of(Some(now), Some(now))).await.unwrap();
            let told = Balance { negative_since: None, ..ordinary.clone() };
            assert_eq!((here.balance.as_ref(), here.as_of.unwrap().r#final), (Some(&told), false));
            moments.push((now, ordinary));
            world.clock.advance(minutes(dice.roll(0..50)));
            let past = |dice: &mut Dice, to: Timestamp| {
                let span = to.saturating_since(begin).as_secs();
                begin.checked_add(Duration::from_secs(dice.roll(0..span + 1))).unwrap()
            };
            let recorded = past(&mut dice, now);
            let event = (dice.roll(0..10) < 5).then(|| past(&mut dice, recorded));
            let asked = as_of(event, Some(recorded));
            let (balance, lots) = world.books_then(buyer, asked).await;
            assert_ties(balance.balance.as_ref().unwrap());
            assert_eq!(balance.as_of, lots.as_of);
            if balance.as_of.unwrap().r#final {
                answers.push((asked, balance.encode_to_vec(), lots.encode_to_vec()));
            }
        }
        world.clock.advance(DAY * 3);
        world.close_due().await;
        for (asked, balance, lots) in &answers {
            let again = world.books_then(buyer, *asked).await;
            assert_eq!(
                (again.0.encode_to_vec(), again.1.encode_to_vec()),
                (balance.clone(), lots.clone()),
                "{asked:?}"
            );
        }
        // What the books said at each moment is what they are said to have said.
        for (index, (moment, ordinary)) in moments.iter().enumerate() {
            // Of several at one moment the last counts.
            if moments.get(index + 1).is_some_and(|(next, _)| next == moment) {
                continue;
            }
            let then = world.balance_then(buyer, as_of(None, Some(*moment))).await.unwrap();
            assert!(then.as_of.unwrap().r#final);
            assert_eq!(sums(&then.balance.unwrap()), sums(ordinary), "seed {seed}, {moment}");
        }
        finals += answers.len();
        world.assert_clean().await;
    }
    assert!(finals > 20, "only {finals} answers were final");
}
