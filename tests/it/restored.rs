//! Postgres restored to a backup, through the whole system: real services, producers with logs, the operator's commands.
//!
//! Between the backup and the restore all producers settle more. One keeps what it has settled and loses nothing; two
//! free it at once, one of them running on through the restore and one started again after it. What they had freed has to be named
//! as lost, lane by lane and to the event; everything else has to be charged once. Both are compared with what was appended.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use drawdown_client::{
    ChannelOptions,
    clients::ledger,
    connect,
    producer::{LostRange, Outcome, Producer, ProducerOptions, Usage},
};
use drawdown_metering_core::shard::{Lane, shard_of};
use drawdown_proto::ledger::v1::CreateProducerRequest;
use drawdown_tests::{
    installation::{Installation, Service, Settings},
    load::{Bits, LoadSeries},
    load_platform::{self, LoadPlatform, LoadSize},
    process::wait_until,
    report::charges,
};
use drawdown_types::{Clock as _, ProducerId, SystemClock};
use sqlx::{Connection as _, PgConnection};

const SIZE: LoadSize = LoadSize { teams: 2, apps: 12, meters: 2 };
const SHARDS: u32 = 16;
const SETTLED_LIMIT: Duration = Duration::from_secs(60);
/// Events of a producer before the backup, after it, and around the restore.
const EVENTS: [u64; 3] = [2_000, 3_000, 400];
/// Events between two flushes, so that there are many frames and segments.
const GROUP: u64 = 100;

/// A series of the platform, by its index, and a quantity.
type Event = (usize, u64);

/// A producer with all that it ever appended, in the order of each lane.
struct Gateway {
    id: ProducerId,
    dir: PathBuf,
    forgetful: bool,
    producer: Option<Producer>,
    sent: BTreeMap<u32, Vec<Event>>,
    bits: Bits,
}

/// Events and quantity by client id and meter.
type Sums = BTreeMap<(String, String), (i64, i64)>;

impl Gateway {
    async fn register(installation: &Installation, name: &str, forgetful: bool) -> Result<Self> {
        let request = CreateProducerRequest { name: name.to_owned(), request_id: format!("restored-{name}") };
        let answer = ledger::settlement(&installation.channels().ledger).create_producer(request).await?;
        let (id, dir) = (answer.into_inner().producer_id.parse()?, installation.dir().join(name));
        let bits = Bits(name.bytes().map(u64::from).sum());
        let mut gateway = Self { id, dir, forgetful, producer: None, sent: BTreeMap::new(), bits };
        gateway.open(installation).await?;
        Ok(gateway)
    }

    async fn open(&mut self, installation: &Installation) -> Result<()> {
        let mut options = ProducerOptions { producer_id: Some(self.id), ..ProducerOptions::at(&self.dir) };
        if self.forgetful {
            options.retain_after_settled_ms = 0;
            options.segment_bytes = 8 << 10;
        }
        let channel = connect(&ChannelOptions::to(installation.endpoints().metering.clone()))?;
        self.producer = Some(Producer::open(options, channel, Arc::new(SystemClock)).await?);
        Ok(())
    }

    fn producer(&self) -> Result<&Producer> {
        self.producer.as_ref().context("the producer is closed")
    }

    async fn append(&mut self, series: &[LoadSeries], events: u64) -> Result<()> {
        let producer = self.producer.as_ref().context("the producer is closed")?;
        for n in 1..=events {
            let index = usize::try_from(self.bits.draw() % u64::try_from(series.len())?)?;
            let LoadSeries { client_id, meter, .. } = &series[index];
            let quantity = self.bits.draw() % 1_000;
            let (at, outcome) = (SystemClock.now(), Outcome::Succeeded);
            let usage = Usage { client_id, meter, quantity, at, outcome, dimensions: &[], hold_id: None };
            while let Err(error) = producer.append(&usage, None) {
                ensure!(error.is_transient(), "{error}");
                producer.ready().await?;
            }
            let shard = shard_of(client_id, SHARDS.try_into()?);
            self.sent.entry(shard).or_default().push((index, quantity));
            if n % GROUP == 0 {
                producer.flush().await?;
            }
        }
        Ok(())
    }

    async fn settled(&self) -> Result<()> {
        let waiting = tokio::time::timeout(SETTLED_LIMIT, self.producer()?.await_settled()).await;
        waiting.with_context(|| format!("not settled: {:?}", self.producer().map(Producer::progress)))??;
        Ok(())
    }

    /// Waits until everything is deleted that may be, and the producer says so: the active segment stays.
    async fn freed(&self) -> Result<BTreeMap<Lane, u64>> {
        let segments = |dir: &Path| -> Result<Vec<u64>> {
            let entries = std::fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
            let is_segment = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(".segment");
            let segments = entries.into_iter().filter(|entry| is_segment(&entry.file_name()));
            // One that goes while this looks has gone.
            Ok(segments.filter_map(|entry| entry.metadata().ok()).map(|segment| segment.len()).collect())
        };
        let producer = self.producer()?;
        // The files go before the producer tells where its lanes are freed.
        let is_told = || async {
            let sizes = segments(&self.dir)?;
            Ok(sizes.len() == 1 && producer.progress().kept_bytes == sizes[0])
        };
        wait_until("settled segments to go", SETTLED_LIMIT, is_told).await?;
        let lanes = producer.lanes();
        Ok(lanes.into_iter().map(|lane| (lane.lane, lane.freed_sequence)).collect())
    }
}

/// Where the database has settled each lane.
async fn settled_lanes(installation: &Installation) -> Result<BTreeMap<Lane, u64>> {
    let mut at = PgConnection::connect(installation.databases()[0]).await?;
    let sql = "select producer_id, map_version, shard, settled from ledger.lane_settled";
    let rows: Vec<(uuid::Uuid, i32, i32, i64)> = sqlx::query_as(sql).fetch_all(&mut at).await?;
    at.close().await?;
    let lane = |(producer, map_version, shard, settled): (uuid::Uuid, i32, i32, i64)| {
        let producer = ProducerId::from_uuid(producer);
        let lane = Lane { producer, map_version: map_version.try_into()?, shard: shard.try_into()? };
        Ok((lane, settled.try_into()?))
    };
    rows.into_iter().map(lane).collect()
}

/// What has to be lost: what was freed beyond the backup.
fn expected_lost(freed: &BTreeMap<Lane, u64>, backup: &BTreeMap<Lane, u64>) -> Vec<LostRange> {
    let range = |(lane, freed): (&Lane, &u64)| {
        let settled = backup.get(lane).copied().unwrap_or_default();
        (settled < *freed).then_some(LostRange {
            lane: *lane,
            from_sequence: settled + 1,
            to_sequence: *freed,
        })
    };
    freed.iter().filter_map(range).collect()
}

/// What the operator is told to be lost, sorted by lane.
fn named(installation: &Installation) -> Result<Vec<LostRange>> {
    let answer = installation.json(&["ledger", "lost-ranges"])?;
    let number = |row: &serde_json::Value, field: &str| row[field].as_u64().context(field.to_owned());
    let range = |row: &serde_json::Value| {
        let lane = Lane {
            producer: row["producer_id"].as_str().context("producer_id")?.parse()?,
            map_version: number(row, "map_version")?.try_into()?,
            shard: number(row, "shard")?.try_into()?,
        };
        let (from_sequence, to_sequence) = (number(row, "from_sequence")?, number(row, "to_sequence")?);
        anyhow::Ok(LostRange { lane, from_sequence, to_sequence })
    };
    let mut named: Vec<_> =
        answer["lost"].as_array().context("no list")?.iter().map(range).collect::<Result<_>>()?;
    named.sort_by_key(|range| range.lane);
    Ok(named)
}

/// Everything that was appended and is not lost.
fn expected(gateways: &[Gateway], series: &[LoadSeries], lost: &[LostRange]) -> Sums {
    let mut sums = Sums::new();
    for gateway in gateways {
        for (shard, events) in &gateway.sent {
            let gone = |sequence: u64| {
                lost.iter().any(|range| {
                    (range.lane.producer, range.lane.shard) == (gateway.id, *shard)
                        && (range.from_sequence..=range.to_sequence).contains(&sequence)
                })
            };
            for (sequence, (index, quantity)) in (1..).zip(events) {
                if !gone(sequence) {
                    let LoadSeries { client_id, meter, .. } = &series[*index];
                    let sum = sums.entry((client_id.to_string(), meter.to_string())).or_default();
                    *sum = (sum.0 + 1, sum.1 + quantity.cast_signed());
                }
            }
        }
    }
    sums
}

async fn charged(installation: &Installation, platform: &LoadPlatform) -> Result<Sums> {
    let mut sums = Sums::new();
    for team in &platform.teams {
        for charge in charges(installation.channels(), team).await? {
            let sum = sums.entry((charge.client_id, charge.meter)).or_default();
            *sum = (sum.0 + charge.events, sum.1 + charge.quantity);
        }
    }
    Ok(sums)
}

fn take_down(installation: &mut Installation) -> Result<()> {
    let services = [Service::Metering, Service::Ledger, Service::Entitlement];
    services.into_iter().try_for_each(|service| installation.kill_service(service))
}

/// Postgres goes back to the backup, and what has to be done before anything connects is done.
async fn restore(installation: &mut Installation) -> Result<()> {
    tokio::task::block_in_place(|| {
        let postgres = installation.sandbox().postgres();
        postgres.stop()?;
        postgres.restore()?;
        postgres.start()
    })?;
    installation.start_service(Service::Ledger).await?;
    installation.json(&["ledger", "reset-shards", "--cause", "a backup was restored"])?;
    installation.start_service(Service::Entitlement).await?;
    installation.start_service(Service::Metering).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restored_backup_what_is_lost_is_named_to_the_event_and_the_rest_is_charged_once()
-> Result<()> {
    let mut installation = Installation::start(&Settings::default()).await?;
    let platform = load_platform::set_up(installation.channels(), SIZE).await?;
    let mut gateways = Vec::new();
    for (name, forgetful) in [("keeping", false), ("running", true), ("restarted", true)] {
        gateways.push(Gateway::register(&installation, name, forgetful).await?);
    }
    for gateway in &mut gateways {
        gateway.append(&platform.series, EVENTS[0]).await?;
    }
    for gateway in &gateways {
        gateway.settled().await?;
    }
    let backup = settled_lanes(&installation).await?;
    tokio::task::block_in_place(|| {
        let postgres = installation.sandbox().postgres();
        postgres.stop()?;
        postgres.back_up()?;
        postgres.start()
    })?;
    for gateway in &mut gateways {
        gateway.append(&platform.series, EVENTS[1]).await?;
    }
    let mut freed = BTreeMap::new();
    for gateway in &gateways {
        gateway.settled().await?;
        if gateway.forgetful {
            freed.extend(gateway.freed().await?);
        }
    }
    ensure!(charged(&installation, &platform).await? == expected(&gateways, &platform.series, &[]));
    gateways[2].producer.take().context("closed before")?.close().await?;
    take_down(&mut installation)?;
    gateways[0].append(&platform.series, EVENTS[2]).await?;
    restore(&mut installation).await?;
    gateways[2].open(&installation).await?;
    gateways[2].append(&platform.series, EVENTS[2]).await?;
    // Until it hears of the restore it believes that what it has is settled, and would free more of it.
    let running = gateways[1].producer()?.clone();
    let noticed = || async { Ok(!running.progress().lost.is_empty()) };
    wait_until("the restore to be noticed", SETTLED_LIMIT, noticed)
        .await
        .with_context(|| installation.logs())?;
    drop(running);
    gateways[1].append(&platform.series, EVENTS[2]).await?;
    for gateway in &gateways {
        gateway.settled().await.with_context(|| installation.logs())?;
    }

    let lost = expected_lost(&freed, &backup);
    ensure!(lost.len() > 10, "hardly anything was freed: {lost:?}");
    let of = |gateway: &Gateway| {
        lost.iter().copied().filter(|range| range.lane.producer == gateway.id).collect::<Vec<_>>()
    };
    ensure!(named(&installation)? == lost, "{:?}\n{lost:?}", named(&installation)?);
    for gateway in &gateways {
        let told = gateway.producer()?.progress().lost;
        ensure!(told == of(gateway), "{:?} was told {told:?}, not {:?}", gateway.dir, of(gateway));
        ensure!(gateway.forgetful != told.is_empty(), "{:?}: {told:?}", gateway.dir);
    }
    let (charged, expected) =
        (charged(&installation, &platform).await?, expected(&gateways, &platform.series, &lost));
    ensure!(charged == expected, "charged {charged:?}\nexpected {expected:?}");
    let verified = installation.json(&["ledger", "verify"])?;
    let invariants = verified["invariants"].as_array().context("no invariants")?;
    ensure!(
        !invariants.is_empty() && invariants.iter().all(|one| one["violations"].as_u64().unwrap_or(0) == 0)
    );
    for gateway in &mut gateways {
        gateway.producer.take().context("open")?.close().await?;
    }
    installation.stop().await
}
