//! Events by id over gRPC: each is answered by itself, when the ledger has it.

use std::{net::SocketAddr, sync::Arc};

use drawdown_proto::{
    io::cloudevents::v1::{
        CloudEvent, CloudEventBatch,
        cloud_event::{CloudEventAttributeValue, Data, cloud_event_attribute_value::Attr},
    },
    ledger::v1::Aggregation,
    metering::v1::{
        Dimension, RecordCloudEventsRequest, RecordOutcome, RecordUsageRequest, RecordedUsage, Series,
        UsageEvent, record_service_client::RecordServiceClient,
    },
    scalar::timestamp_to_proto,
};
use drawdown_service::config::{Count, Millis};
use tokio::sync::Semaphore;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    gate::{Gate, Mode},
    rig::{Rig, now, soon},
};

pub(crate) fn event(id: &str, meter: &str, quantity: u64) -> UsageEvent {
    let series = Series { client_id: "app".to_owned(), meter: meter.to_owned(), ..Series::default() };
    UsageEvent {
        source: "/test".to_owned(),
        id: id.to_owned(),
        series: Some(series),
        quantity,
        time: Some(timestamp_to_proto(now())),
    }
}

pub(crate) async fn record(address: SocketAddr, events: &[UsageEvent]) -> Result<Vec<RecordedUsage>, Status> {
    let mut client = RecordServiceClient::connect(format!("http://{address}")).await.unwrap();
    let request = RecordUsageRequest { events: events.to_vec() };
    Ok(soon("answers", client.record_usage(request)).await?.into_inner().answers)
}

pub(crate) fn outcomes(answers: &[RecordedUsage]) -> Vec<(RecordOutcome, bool)> {
    answers.iter().map(|answer| (answer.outcome(), answer.already_recorded)).collect()
}

pub(crate) fn reason(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    (status.code(), details.error_info().map(|info| info.reason.clone()).unwrap_or_default())
}

/// Callers at once.
pub(crate) const CALLERS: usize = 64;
pub(crate) const NEW: (RecordOutcome, bool) = (RecordOutcome::Recorded, false);
pub(crate) const AGAIN: (RecordOutcome, bool) = (RecordOutcome::Recorded, true);

#[tokio::test]
async fn the_same_event_again_by_any_instance_gets_the_same_answer() {
    let rig = Rig::new().await;
    let (one, other) = (rig.start().await, rig.start().await);
    let sent = [event("a", "web.byte", 7), event("b", "web.call", 1)];
    let first = record(one.address, &sent).await.unwrap();
    assert_eq!(outcomes(&first), [NEW; 2]);
    assert_eq!(first[0].charge_id, "chg_1");
    let again = record(other.address, &sent).await.unwrap();
    let expected = first.iter().map(|first| RecordedUsage { already_recorded: true, ..first.clone() });
    assert_eq!(again, expected.collect::<Vec<_>>());
    let other_content = [event("a", "web.byte", 8), event("c", "web.byte", 1)];
    let told = record(other.address, &other_content).await.unwrap();
    assert_eq!(outcomes(&told), [(RecordOutcome::Conflict, false), NEW]);
    assert_eq!((told[0].reason.as_str(), told[0].problems[0].field.as_str()), ("EVENT_ID_CONFLICT", "id"));
    let key = |meter: &str| ("app".to_owned(), meter.to_owned(), false);
    assert_eq!(rig.gate.book().sums, [(key("web.byte"), (2, 8)), (key("web.call"), (1, 1))].into());
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_lost_reply_is_made_good_by_the_same_call_again() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let sent = [event("a", "web.byte", 7)];
    rig.gate.set_mode(Mode::Down);
    assert_eq!(record(running.address, &sent).await.unwrap_err().code(), Code::Unavailable);
    assert!(rig.gate.book().sums.is_empty());
    rig.gate.set_mode(Mode::ReplyLost);
    assert_eq!(record(running.address, &sent).await.unwrap_err().code(), Code::Unavailable);
    rig.gate.set_mode(Mode::Open);
    assert_eq!(outcomes(&record(running.address, &sent).await.unwrap()), [AGAIN]);
    assert_eq!(rig.gate.book().sums.values().copied().collect::<Vec<_>>(), [(1, 7)]);
    running.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_one_event_costs_no_other_its_answer() {
    let rig = Rig::new().await;
    rig.gate.stranger("nobody");
    let running = rig.start().await;
    let good = event("good", "web.call", 1);
    let series = |change: &dyn Fn(&mut Series)| {
        let mut event = good.clone();
        change(event.series.as_mut().unwrap());
        event
    };
    let dimension = |name: &str| Dimension { name: name.to_owned(), value: "eu".to_owned() };
    let sent = [
        good.clone(),
        UsageEvent { id: String::new(), source: "a\0".to_owned(), quantity: (1 << 48) + 1, ..good.clone() },
        UsageEvent { id: "1".to_owned(), ..series(&|series| series.meter = "web.unknown".to_owned()) },
        UsageEvent { id: "2".to_owned(), ..series(&|series| series.dimensions = vec![dimension("zone")]) },
        UsageEvent { id: "3".to_owned(), series: None, ..good.clone() },
        UsageEvent { id: "4".to_owned(), ..series(&|series| series.client_id = "nobody".to_owned()) },
        UsageEvent {
            id: "5".to_owned(),
            time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
            ..good.clone()
        },
        UsageEvent { id: "6".to_owned(), ..series(&|series| series.dimensions = vec![dimension("region")]) },
    ];
    let answers = record(running.address, &sent).await.unwrap();
    let reasons: Vec<_> = answers.iter().map(|answer| answer.reason.as_str()).collect();
    let invalid = "EVENT_INVALID";
    assert_eq!(reasons, ["", invalid, "METER_UNKNOWN", "DIMENSION_UNKNOWN", invalid, "", invalid, ""]);
    let fields: Vec<_> = answers[1].problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["source", "id", "quantity"]);
    assert_eq!(answers[5].unattributed_reason, "unknown_client");
    assert_eq!(rig.gate.book().sums.values().map(|(events, _)| events).sum::<u64>(), 3);
    running.stop().await;
}

#[tokio::test]
async fn many_unknown_meters_cost_one_reading_and_nothing_beside_them_is_lost() {
    let rig = Rig::new().await;
    let mut options = rig.options();
    options.meters.refresh_pause_ms = Millis::from_millis(200);
    // Each of them by itself would take longer.
    options.record.wait_max_ms = Millis::from_millis(5_000);
    let running = rig.start_with(options).await;
    let before = rig.gate.readings();
    let mut sent: Vec<_> =
        (0..100).map(|at| event(&format!("id-{at}"), &format!("web.none-{at}"), 1)).collect();
    sent.push(event("known", "web.call", 1));
    let answers = record(running.address, &sent).await.unwrap();
    let (known, unknown) = answers.split_last().unwrap();
    assert_eq!(outcomes(std::slice::from_ref(known)), [NEW]);
    assert!(unknown.iter().all(|answer| answer.reason == "METER_UNKNOWN"), "{unknown:?}");
    assert_eq!(rig.gate.readings(), before + 1);
    // One that exists by now is known, whatever was asked for in vain a moment ago.
    rig.gate.meter("web.none-1", Aggregation::Sum, &[]);
    let answers = record(running.address, &[event("later", "web.none-1", 1)]).await.unwrap();
    assert_eq!(outcomes(&answers), [NEW]);
    running.stop().await;
}

#[tokio::test]
async fn an_event_far_ahead_does_not_choose_its_window() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let at = |secs| now().checked_add(std::time::Duration::from_secs(secs)).unwrap();
    let timed =
        |id: &str, secs| UsageEvent { time: Some(timestamp_to_proto(at(secs))), ..event(id, "web.call", 1) };
    let no_time = UsageEvent { time: None, ..event("none", "web.call", 1) };
    let sent = [timed("a", 0), timed("b", 300), timed("c", 301), no_time];
    let answers = record(running.address, &sent).await.unwrap();
    let windows: Vec<_> = answers.iter().map(|answer| answer.window_start.unwrap().seconds).collect();
    let own = now().as_millis() / 60_000 * 60;
    assert_eq!(windows, [own, own + 300, own, own]);
    running.stop().await;
}

#[tokio::test]
async fn more_than_may_wait_is_shed_at_once_with_a_hint() {
    let rig = Rig::new().await;
    let mut options = rig.options();
    options.record.events_waiting_max = Count::of(2);
    options.record.events_per_call_max = Count::of(2);
    options.record.wait_max_ms = Millis::from_millis(60_000);
    let running = rig.start_with(options).await;
    let held = Arc::new(Semaphore::new(0));
    rig.gate.book().held = Some(Arc::clone(&held));
    let address = running.address;
    let first = tokio::spawn(async move {
        record(address, &[event("a", "web.call", 1), event("b", "web.call", 1)]).await
    });
    // Until the first call has taken all the room, others get through and wait themselves.
    let more = [event("c", "web.call", 1), event("d", "web.call", 1)];
    let shed = loop {
        let call = record(address, &more);
        if let Ok(answer) = tokio::time::timeout(std::time::Duration::from_millis(200), call).await {
            break answer.unwrap_err();
        }
    };
    assert_eq!(reason(&shed), (Code::ResourceExhausted, "EVENTS_WAITING".to_owned()));
    assert!(shed.get_error_details().retry_info().is_some());
    held.add_permits(100);
    let first = first.await.unwrap();
    assert!(first.is_err() || outcomes(&first.unwrap()).len() == 2);
    rig.gate.book().held = None;
    // Calls that their callers gave up may hold their room until their post is answered.
    while let Err(shed) = record(address, &[event("c", "web.call", 1)]).await {
        assert_eq!(reason(&shed), (Code::ResourceExhausted, "EVENTS_WAITING".to_owned()));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_come_while_a_post_is_under_way_share_the_next() {
    let rig = Rig::new().await;
    let mut options = rig.options();
    options.record.events_waiting_max = Count::of(CALLERS);
    options.record.events_per_call_max = Count::of(1);
    options.record.wait_max_ms = Millis::from_millis(60_000);
    let running = rig.start_with(options).await;
    let mut callers = all_waiting(&rig.gate, running.address, |id| event(id, "web.byte", 1)).await;
    while let Some(answers) = callers.join_next().await {
        assert_eq!(outcomes(&answers.unwrap()), [NEW]);
    }
    let (sums, posts) = {
        let book = rig.gate.book();
        (book.sums.clone(), book.calls.clone())
    };
    let byte = ("app".to_owned(), "web.byte".to_owned(), false);
    assert_eq!(sums.get(&byte).map(|sum| sum.0), u64::try_from(CALLERS).ok());
    // Of each slot one that was under way and one with all the others; and those of callers whose place a probe had.
    assert!(posts.len() <= CALLERS / 4, "{posts:?}");
    running.stop().await;
}

/// Callers with an event each, whose posts `gate` holds back until so many events wait as may; then it lets them go.
pub(crate) async fn all_waiting(
    gate: &Gate,
    address: SocketAddr,
    event_of: impl Fn(&str) -> UsageEvent,
) -> tokio::task::JoinSet<Vec<RecordedUsage>> {
    let held = Arc::new(Semaphore::new(0));
    gate.book().held = Some(Arc::clone(&held));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let event = event_of(&format!("e-{caller}"));
        callers.spawn(async move {
            loop {
                match record(address, std::slice::from_ref(&event)).await {
                    Ok(answers) => return answers,
                    // A probe took the place.
                    Err(shed) => assert_eq!(shed.code(), Code::ResourceExhausted),
                }
            }
        });
    }
    // What gets through waits itself, until it gives up.
    let probe = [event("probe", "web.call", 1)];
    while let Err(_waits) =
        tokio::time::timeout(std::time::Duration::from_millis(50), record(address, &probe)).await
    {}
    held.add_permits(1000);
    callers
}

#[tokio::test]
async fn a_call_that_the_ledger_refuses_spoils_no_other() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    // Two calls of one slot, one of which the ledger refuses whenever it comes.
    let name =
        |id: &str| drawdown_types::EventName { source: "/test".parse().unwrap(), id: id.parse().unwrap() };
    let other = (0..).map(|n| format!("e-{n}")).find(|id| name(id).slot() == name("bad").slot()).unwrap();
    rig.gate.book().poison = Some("bad".to_owned());
    let held = Arc::new(Semaphore::new(0));
    rig.gate.book().held = Some(Arc::clone(&held));
    let address = running.address;
    let bad = tokio::spawn(async move { record(address, &[event("bad", "web.call", 1)]).await });
    let good = tokio::spawn(async move { record(address, &[event(&other, "web.call", 1)]).await });
    held.add_permits(100);
    assert_eq!(bad.await.unwrap().unwrap_err().code(), Code::Internal);
    assert_eq!(outcomes(&good.await.unwrap().unwrap()), [NEW]);
    running.stop().await;
}

#[tokio::test]
async fn a_call_has_as_many_events_as_it_may() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    for count in [0, 1001] {
        let events: Vec<_> = (0..count).map(|n| event(&n.to_string(), "web.call", 1)).collect();
        let refused = record(running.address, &events).await.unwrap_err();
        assert_eq!(reason(&refused), (Code::InvalidArgument, "EVENTS_COUNT".to_owned()), "{count}");
    }
    running.stop().await;
}

#[tokio::test]
async fn cloud_events_in_messages_are_the_same_events() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    record(running.address, &[event("a", "web.byte", 7)]).await.unwrap();
    let text = |text: &str| CloudEventAttributeValue { attr: Some(Attr::CeString(text.to_owned())) };
    let time = CloudEventAttributeValue { attr: Some(Attr::CeTimestamp(timestamp_to_proto(now()))) };
    let cloud = |id: &str, data: Data| CloudEvent {
        id: id.to_owned(),
        source: "/test".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "web.byte".to_owned(),
        attributes: [("subject".to_owned(), text("app")), ("time".to_owned(), time.clone())].into(),
        data: Some(data),
    };
    let events = vec![
        cloud("a", Data::TextData(r#"{"quantity": 7}"#.to_owned())),
        cloud("b", Data::BinaryData(br#"{"quantity": 2}"#.to_vec())),
        cloud("c", Data::ProtoData(prost_types::Any::default())),
    ];
    let mut client = RecordServiceClient::connect(format!("http://{}", running.address)).await.unwrap();
    let request = RecordCloudEventsRequest { batch: Some(CloudEventBatch { events }) };
    let answers = client.record_cloud_events(request).await.unwrap().into_inner().answers;
    assert_eq!(outcomes(&answers), [AGAIN, NEW, (RecordOutcome::Refused, false)]);
    assert_eq!(answers[2].problems[0].field, "data");
    running.stop().await;
}
