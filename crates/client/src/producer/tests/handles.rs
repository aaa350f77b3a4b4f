//! Events of series that were looked up.

use drawdown_types::ProducerId;

use super::{
    super::{SeriesUsage, WhenFull},
    fake::{Counts, Fake, nobody},
    *,
};

fn of(series: SeriesHandle, quantity: u64) -> SeriesUsage {
    let at = "2026-01-01T00:00:00Z".parse().unwrap();
    SeriesUsage { series, quantity, at }
}

#[tokio::test]
async fn they_count_as_events_by_names_do_and_over_a_new_start() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    let mut expected = Counts::new();
    for _ in 0..3 {
        let producer = open(options(dir.path(), id), &fake).await;
        let clients = ["client_a", "client_b", "client_c"];
        let handles = clients.map(|client| producer.series(&usage(client, 0)).unwrap());
        for round in 1..=50 {
            for (at, (client, series)) in clients.iter().zip(handles).enumerate() {
                let quantity = round + u64::try_from(at).unwrap();
                // A series that is prepared and used later than others, and by its names in between.
                if round < 10 * u64::try_from(at).unwrap() {
                    continue;
                }
                let taken = if round % 7 == 0 {
                    producer.append_many(&[usage(client, quantity)])
                } else {
                    producer.append_series(&[of(series, quantity)])
                };
                assert!(matches!(taken, (1, None)), "{taken:?}");
                let sum = expected.entry(format!("{client} web.call")).or_default();
                *sum = (sum.0 + 1, sum.1 + quantity);
            }
        }
        producer.await_settled().await.unwrap();
        producer.close().await.unwrap();
    }
    assert_eq!(fake.settled(), expected);
}

#[tokio::test]
async fn what_is_not_taken_is_said_and_nothing_behind_it_is_taken() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    let producer = open(options(dir.path(), id), &fake).await;
    let (other_id, other_dir) = (ProducerId::generate(), scratch());
    let other_fake = Fake::start(other_id).await;
    let other = open(options(other_dir.path(), other_id), &other_fake).await;
    let (own, foreign) =
        (producer.series(&usage("client_a", 0)).unwrap(), other.series(&usage("client_a", 0)).unwrap());
    for wrong in [of(foreign, 1), of(own, 1 << 50)] {
        let (taken, error) = producer.append_series(&[of(own, 1), wrong, of(own, 1)]);
        assert_eq!(taken, 1);
        assert!(matches!(error, Some(AppendError::Invalid(_))), "{error:?}");
    }
    producer.await_settled().await.unwrap();
    assert_eq!(fake.settled(), Counts::from([("client_a web.call".to_owned(), (2, 2))]));
}

#[tokio::test]
async fn what_is_shed_gives_a_series_no_number() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    let options = ProducerOptions {
        when_full: WhenFull::Shed,
        segment_bytes: 4 << 10,
        log_bytes_max: 16 << 10,
        ..options(dir.path(), id)
    };
    open(options.clone(), &fake).await.close().await.unwrap();
    let producer = Producer::open(options.clone(), nobody(), clock()).await.unwrap();
    let filling = producer.series(&usage("client_a", 0)).unwrap();
    let late = producer.series(&usage("client_b", 0)).unwrap();
    let mut taken = 0_u64;
    while producer.progress().shed == 0 {
        assert!(matches!(producer.append_series(&[of(filling, 1)]), (1, None)));
        producer.flush().await.unwrap();
        taken += 1;
    }
    // The log is full: of this one nothing was ever taken.
    assert!(matches!(producer.append_series(&[of(late, 1)]), (1, None)));
    assert_eq!(producer.progress().shed, 2);
    producer.close().await.unwrap();
    let producer = open(options, &fake).await;
    producer.await_settled().await.unwrap();
    let late = producer.series(&usage("client_b", 0)).unwrap();
    producer.ready().await.unwrap();
    assert!(matches!(producer.append_series(&[of(late, 5)]), (1, None)));
    producer.await_settled().await.unwrap();
    let expected = [("client_a web.call", (taken - 1, taken - 1)), ("client_b web.call", (1, 5))];
    assert_eq!(fake.settled(), Counts::from(expected.map(|(name, sum)| (name.to_owned(), sum))));
}
