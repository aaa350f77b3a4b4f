//! Bad input over the real wire: each fault has its own reason, and nothing valid beside it is lost.

use anyhow::{Context as _, Result, ensure};
use drawdown_client::{
    clients::{entitlement, ledger},
    reason_of,
};
use drawdown_metering_core::shard::shard_of;
use drawdown_proto::{entitlement::v1 as ent, ledger::v1 as led, metering::v1 as pb};
use drawdown_tests::{
    installation::{Installation, Settings},
    platform::{Platform, set_up},
    raw_stream::{LaneEnd, RawStream},
    replay::Trial,
    report::{charges, verify},
    scenario::EGRESS,
};
use drawdown_types::{Clock as _, SystemClock};
use prost::Message as _;
use std::num::NonZeroU32;

const SHARDS: NonZeroU32 = NonZeroU32::new(16).unwrap();
const DAY_MS: i64 = 86_400_000;

struct Bench {
    installation: Installation,
    platform: Platform,
    now_ms: i64,
}

impl Bench {
    async fn start() -> Result<Self> {
        let installation = Installation::start(&Settings::default()).await?;
        let trial = Trial::ending_at(SystemClock.now())?;
        let platform = set_up(installation.channels(), &trial.scenario).await?;
        Ok(Self { installation, platform, now_ms: SystemClock.now().as_millis() })
    }

    fn lane(&self) -> pb::Lane {
        let client = &self.platform.clients["files"];
        pb::Lane { map_version: 1, shard: shard_of(client, SHARDS) }
    }

    fn series(&self, number: u32, meter: &str) -> pb::SeriesDefinition {
        let series = pb::Series {
            client_id: self.platform.clients["files"].clone(),
            meter: meter.to_owned(),
            outcome: pb::Outcome::Succeeded.into(),
            dimensions: Vec::new(),
            hold_id: String::new(),
        };
        pb::SeriesDefinition { number, series: Some(series) }
    }

    /// A frame of `events`: series, quantity, time in ms.
    fn frame(&self, first: u64, events: &[(u32, u64, i64)]) -> pb::ColumnFrame {
        let mut last = self.now_ms;
        let deltas = events.iter().map(|(_, _, at)| {
            let delta = at - last;
            last = *at;
            delta
        });
        pb::ColumnFrame {
            lane: Some(self.lane()),
            first_sequence: first,
            event_count: u32::try_from(events.len()).unwrap_or(u32::MAX),
            received_at_unix_ms: self.now_ms,
            definitions: Vec::new(),
            base_time_unix_ms: self.now_ms,
            time_deltas_ms: deltas.collect(),
            series: events.iter().map(|(series, _, _)| *series).collect(),
            quantities: events.iter().map(|(_, quantity, _)| *quantity).collect(),
        }
    }

    async fn stream(&self) -> Result<RawStream> {
        let channel = &self.installation.channels().metering;
        let (mut stream, _) = RawStream::open(channel, &self.platform.producer, 0).await?;
        stream.attach(self.lane(), u64::MAX >> 12).await?;
        Ok(stream)
    }

    /// Sends one faulty frame on a stream of its own and tells why its lane was stopped.
    async fn stopped_by(&self, frame: &pb::ColumnFrame) -> Result<String> {
        self.stopped_by_bytes(frame.encode_to_vec()).await
    }

    async fn stopped_by_bytes(&self, body: Vec<u8>) -> Result<String> {
        let mut stream = self.stream().await?;
        stream.frame_bytes(body, 0).await?;
        match stream.lane_end(self.lane(), 1).await? {
            LaneEnd::Stopped { reason, fields } => {
                ensure!(!fields.is_empty(), "{reason} names no field");
                Ok(reason)
            }
            LaneEnd::Settled(refused) => anyhow::bail!("it was settled: {refused:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_frames_stop_their_lane_with_a_reason_and_a_field() -> Result<()> {
    let bench = Bench::start().await?;
    let good = bench.frame(1, &[(1, 5, bench.now_ms)]);
    let defined = |mut frame: pb::ColumnFrame| {
        frame.definitions = vec![bench.series(1, EGRESS)];
        frame
    };
    let mut other_shard = defined(good.clone());
    other_shard.lane = Some(pb::Lane { shard: bench.lane().shard, ..bench.lane() });
    let foreign = bench.platform.clients.values().find(|id| shard_of(id, SHARDS) != bench.lane().shard);
    let foreign = foreign.context("all clients share one shard")?;
    let mut definition = bench.series(1, EGRESS);
    definition.series.as_mut().unwrap().client_id.clone_from(foreign);
    other_shard.definitions = vec![definition];
    let mut bad_name = defined(good.clone());
    bad_name.definitions[0].series.as_mut().unwrap().client_id = "a b".to_owned();
    let mut uneven = defined(good.clone());
    uneven.quantities.push(1);
    let cases = [
        (
            "FRAME_EMPTY",
            pb::ColumnFrame {
                event_count: 0,
                series: vec![],
                quantities: vec![],
                time_deltas_ms: vec![],
                ..good.clone()
            },
        ),
        ("FRAME_TOO_LARGE", defined(bench.frame(1, &vec![(1, 1, bench.now_ms); 70_000]))),
        ("FRAME_MALFORMED", uneven),
        ("SERIES_UNKNOWN", good.clone()),
        ("SERIES_INVALID", bad_name),
        ("SHARD_MISMATCH", other_shard),
        ("LANE_OUT_OF_SEQUENCE", defined(bench.frame(7, &[(1, 5, bench.now_ms)]))),
        (
            "RECEIPT_IN_FUTURE",
            pb::ColumnFrame { received_at_unix_ms: bench.now_ms + 3 * DAY_MS, ..defined(good.clone()) },
        ),
    ];
    for (reason, frame) in cases {
        let found = bench.stopped_by(&frame).await.with_context(|| reason)?;
        ensure!(found == reason, "expected {reason}, found {found}");
    }
    // A name that is no UTF-8, which generated code cannot even write.
    let mut body = defined(good.clone()).encode_to_vec();
    let name = bench.platform.clients["files"].as_bytes();
    let at = body.windows(name.len()).position(|window| window == name).context("the name is not there")?;
    body[at] = 0xff;
    ensure!(bench.stopped_by_bytes(body).await? == "SERIES_INVALID", "a name that is no UTF-8 was taken");
    // After all of that the lane takes a good frame.
    let mut stream = bench.stream().await?;
    stream.frame(&defined(good), 0).await?;
    ensure!(stream.lane_end(bench.lane(), 1).await? == LaneEnd::Settled(vec![]));
    bench.installation.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_events_are_named_and_the_valid_ones_beside_them_are_charged() -> Result<()> {
    let bench = Bench::start().await?;
    let now = bench.now_ms;
    let mut frame = bench.frame(
        1,
        &[
            (1, 10, now),
            (2, 1, now),
            (1, (1 << 48) + 1, now),
            // What a negative number is as an unsigned one.
            (1, u64::MAX, now),
            (1, 1, now + 3 * DAY_MS),
            (1, 1, now - 500 * DAY_MS),
            (1, 32, now),
        ],
    );
    frame.definitions = vec![bench.series(1, EGRESS), bench.series(2, "no.such-meter")];
    let mut stream = bench.stream().await?;
    stream.frame(&frame, 0).await?;
    let LaneEnd::Settled(refused) = stream.lane_end(bench.lane(), 7).await? else {
        anyhow::bail!("the lane was stopped")
    };
    let reasons: Vec<_> = refused.iter().map(|(reason, count, _)| (reason.as_str(), *count)).collect();
    let expected = [
        ("EVENT_TIME_IN_FUTURE", 1),
        ("EVENT_TIME_TOO_OLD", 1),
        ("METER_UNKNOWN", 1),
        ("QUANTITY_TOO_LARGE", 2),
    ];
    ensure!(reasons == expected, "{refused:?}");
    ensure!(refused.iter().all(|(_, _, field)| !field.is_empty()), "{refused:?}");
    let charged = charges(bench.installation.channels(), &bench.platform.teams["imagery"]).await?;
    let sums = charged.iter().fold((0, 0), |sum, charge| (sum.0 + charge.events, sum.1 + charge.quantity));
    ensure!(sums == (2, 42), "{charged:?}");
    let (violations, sentences) = verify(bench.installation.channels()).await?;
    ensure!(violations == 0, "{sentences:?}");
    bench.installation.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_epochs_unknown_producers_and_silent_streams_are_refused() -> Result<()> {
    let bench = Bench::start().await?;
    let channel = &bench.installation.channels().metering;
    let unknown = "prod_01j2gv5gymfsfrn6rc3mq3yjjv";
    let refused =
        RawStream::open(channel, unknown, 0).await.err().context("an unknown producer was opened")?;
    ensure!(reason_of(&refused).as_deref() == Some("PRODUCER_UNKNOWN"), "{refused:?}");
    let refused = RawStream::open(channel, "nobody", 0).await.err().context("no id was opened")?;
    ensure!(reason_of(&refused).as_deref() == Some("ID_MALFORMED"), "{refused:?}");
    let (_first, epoch) = RawStream::open(channel, &bench.platform.producer, 0).await?;
    let (_second, raised) = RawStream::open(channel, &bench.platform.producer, epoch).await?;
    ensure!(raised > epoch, "the epoch did not rise");
    let mut stale = RawStream::with_epoch(channel, &bench.platform.producer, epoch).await?;
    let refused = stale.attach(bench.lane(), 1).await.err().context("an old epoch was attached")?;
    let status = refused.downcast_ref::<tonic::Status>().context("the stream ended without a status")?;
    ensure!(reason_of(status).as_deref() == Some("FENCED"), "{status:?}");
    bench.installation.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_purchases_and_foreign_teams_are_refused_and_change_nothing() -> Result<()> {
    let bench = Bench::start().await?;
    let channels = bench.installation.channels();
    let purchase = led::PurchaseTokensRequest {
        account_id: bench.platform.accounts["Northwind"].clone(),
        team_id: bench.platform.teams["imagery"].clone(),
        tokens: 99,
        purchased_at: None,
        request_id: "too-small".to_owned(),
        note: String::new(),
    };
    let mut tokens = ledger::token(&channels.ledger);
    let refused = tokens.purchase_tokens(purchase.clone()).await.err().context("99 tokens were sold")?;
    ensure!(reason_of(&refused).as_deref() == Some("PURCHASE_TOO_SMALL"), "{refused:?}");
    let elsewhere = bench.platform.accounts["Lakeside"].clone();
    let foreign = led::PurchaseTokensRequest { account_id: elsewhere, tokens: 100, ..purchase };
    let refused = tokens.purchase_tokens(foreign).await.err().context("a foreign team got tokens")?;
    ensure!(reason_of(&refused).as_deref() == Some("TEAM_NOT_OF_ACCOUNT"), "{refused:?}");
    let assignment = ent::AssignAppRequest {
        app_id: bench.platform.apps["files"].clone(),
        team_id: bench.platform.teams["blog"].clone(),
        from: None,
        request_id: "foreign".to_owned(),
    };
    let mut hierarchy = entitlement::hierarchy(&channels.entitlement);
    let refused = hierarchy.assign_app(assignment).await.err().context("a foreign team got the app")?;
    ensure!(reason_of(&refused).as_deref() == Some("APP_AND_TEAM_DIFFER"), "{refused:?}");
    let apps = hierarchy.list_apps(ent::ListAppsRequest::default()).await?.into_inner().apps;
    let files = apps.iter().find(|app| app.name == "files").context("no app")?;
    ensure!(files.team_id == bench.platform.teams["imagery"], "{files:?}");
    let lots = drawdown_tests::report::lots(channels, &bench.platform.teams["imagery"]).await?;
    ensure!(lots.is_empty(), "{lots:?}");
    bench.installation.stop().await
}
