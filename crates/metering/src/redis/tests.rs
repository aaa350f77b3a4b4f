//! Every numbered check of the functions against a real server, and that a refused call changes nothing: here what all of
//! these tests begin with.

mod apply;
mod attach;
mod batches;
mod heads;
mod lanes;
mod leases;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use drawdown_metering_core::{
    look::{Head, LaneApplied},
    shard::{Lane, Position},
};
use drawdown_types::ProducerId;
use redis::{AsyncCommands as _, aio::MultiplexedConnection, cmd};
use uuid::Uuid;

use super::*;

const SHARD: u32 = 3;
const GENERATION: u64 = 0xffff_ffff_ffff_fff1;
const DICTIONARY: u64 = 0xd1c7;
const BLOBS_MAX: u64 = 4;

struct Space {
    store: Store,
    keys: Keys,
    raw: MultiplexedConnection,
}

fn settings(url: &str, namespace: &str) -> Settings {
    Settings {
        servers: Servers::Single { url: url.into() },
        namespace: Namespace::new(namespace).unwrap(),
        connection_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(10),
        allow_unsafe: true,
    }
}

fn lane(number: u128) -> Lane {
    Lane { producer: ProducerId::from_uuid(Uuid::from_u128(number)), map_version: 1, shard: SHARD }
}

const fn at(sequence: u64, chain: u64) -> Position {
    Position { sequence, chain }
}

/// Extends lane 1 from its start to 10.
fn first() -> Apply {
    Apply {
        shard: SHARD,
        generation: GENERATION,
        batch: 1,
        blobs_max: BLOBS_MAX,
        blob: Bytes::from_static(b"blob"),
        checksum: 0xc0,
        dictionary: DICTIONARY,
        names_before: 0,
        names: 2,
        lanes: vec![ApplyLane { lane: lane(1), epoch: 5, before: at(0, 0), after: at(10, 0xaa) }],
    }
}

/// What may follow [`first`].
fn second() -> Apply {
    let part = ApplyLane { lane: lane(1), epoch: 5, before: at(10, 0xaa), after: at(12, 0xbb) };
    Apply { names_before: 2, names: 0, lanes: vec![part], ..first() }
}

fn install(seen: Option<u64>, generation: u64) -> Install {
    Install {
        shard: SHARD,
        seen,
        seen_batches: vec![1],
        generation,
        last_batch: 0,
        only: None,
        aside: Vec::new(),
    }
}

impl Space {
    async fn empty() -> Self {
        let space = drawdown_testkit::redis().await.unwrap();
        let store = Store::connect(&settings(&space.url, &space.namespace)).await.unwrap();
        let client = redis::Client::open(space.url.as_str()).unwrap();
        let raw = client.get_multiplexed_async_connection().await.unwrap();
        Self { store, keys: Keys::new(Namespace::new(&space.namespace).unwrap()), raw }
    }

    /// With two lanes that were attached.
    async fn installed() -> Self {
        let space = Self::empty().await;
        assert_eq!(space.store.install(&install(None, GENERATION)).await.unwrap(), Installed::Ok);
        let first = AttachLane { lane: lane(1), epoch: 5, settled: at(0, 0) };
        let second = AttachLane { lane: lane(2), epoch: 1 << 60, settled: at((1 << 53) - 1, u64::MAX) };
        assert!(matches!(space.attach(GENERATION, vec![first, second]).await, Attached::Ok(_)));
        space
    }

    /// With [`first`] in the open batch.
    async fn begun() -> Self {
        let space = Self::installed().await;
        assert_eq!(space.apply(first()).await, Applied::Ok(1));
        space
    }

    async fn apply(&self, apply: Apply) -> Applied {
        match self.store.write(&[Write::Apply(apply)]).await.pop().unwrap().unwrap() {
            Written::Applied(answer) => answer,
            Written::Attached(answer) => panic!("{answer:?}"),
        }
    }

    async fn attach(&self, generation: u64, lanes: Vec<AttachLane>) -> Attached {
        self.attach_under(Roll { generation, number: 0 }, lanes).await
    }

    async fn attach_under(&self, roll: Roll, lanes: Vec<AttachLane>) -> Attached {
        let attach = Attach { shard: SHARD, roll, lanes };
        match self.store.write(&[Write::Attach(attach)]).await.pop().unwrap().unwrap() {
            Written::Attached(answer) => answer,
            Written::Applied(answer) => panic!("{answer:?}"),
        }
    }

    async fn head(&self) -> Head {
        self.store.look(&[SHARD]).await.unwrap().pop().unwrap().unwrap()
    }

    fn list(&self, batch: u64) -> String {
        self.keys.batch(SHARD, GENERATION, batch)
    }

    /// Everything of the shard, byte for byte.
    async fn snapshot(&mut self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let head = self.keys.head(SHARD);
        let mut all = BTreeMap::new();
        let keys: Vec<String> = (1..=9).map(|batch| self.list(batch)).chain([head]).collect();
        for key in keys {
            let kind: String = cmd("TYPE").arg(&key).query_async(&mut self.raw).await.unwrap();
            let content: Vec<Vec<u8>> = match kind.as_str() {
                "list" => self.raw.lrange(&key, 0, -1).await.unwrap(),
                "hash" => {
                    let fields: BTreeMap<Vec<u8>, Vec<u8>> = self.raw.hgetall(&key).await.unwrap();
                    fields.into_iter().flat_map(|(field, value)| [field, value]).collect()
                }
                other => vec![other.as_bytes().to_vec()],
            };
            all.insert(key, content);
        }
        all
    }

    async fn set(&mut self, field: &str, value: &str) {
        let head = self.keys.head(SHARD);
        let _: () = self.raw.hset(head, field, value).await.unwrap();
    }

    async fn refuses(&mut self, apply: Apply, answer: Applied) {
        let before = self.snapshot().await;
        assert_eq!(self.apply(apply).await, answer);
        assert_eq!(self.snapshot().await, before, "{answer:?}");
    }

    async fn refuses_lane(&mut self, part: ApplyLane, refusal: LaneRefusal) {
        self.refuses(Apply { lanes: vec![part], ..second() }, Applied::Lanes(vec![(0, refusal)])).await;
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_transient_error() {
    let nowhere = Settings {
        connection_timeout: Duration::from_millis(200),
        response_timeout: Duration::from_millis(200),
        ..settings("redis://127.0.0.1:1", "nowhere")
    };
    let error = Store::connect(&nowhere).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}
