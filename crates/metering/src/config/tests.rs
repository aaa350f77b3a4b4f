use drawdown_service::config::{Sources, load};

use super::*;

#[test]
fn the_documented_defaults_are_the_defaults() {
    let documented: Options = load(DEFAULTS_TOML, &Sources::none(), "metering").unwrap();
    assert_eq!(format!("{documented:?}"), format!("{:?}", Options::default()));
    assert!(documented.validate().is_ok());
}

#[test]
fn every_problem_is_named_at_once() {
    let mut options = Options { shard_count: Count::of(4096), ..Options::default() };
    options.older_maps = vec![MapOptions { version: Count::of(1), shard_count: Count::of(16) }];
    options.redis.namespace = "a{b}".to_owned();
    options.redis.url = "http://secret".into();
    options.ledger.endpoint = String::new();
    let nowhere = |number| CellOptions { number, ledger: ChannelOptions::to("") };
    options.cells = vec![nowhere(0), nowhere(3), nowhere(3)];
    options.ingest.lanes_per_shard_max = Count::of(5000);
    options.ingest.frame_bytes_max = Count::of(64 << 20);
    options.settle.interval_max_ms = Millis::from_millis(1);
    options.settle.post_lines_max = Count::of((1 << 16) + (1 << 16) - 1);
    options.settle.post_bytes_max = Count::of((64 << 20) + 1);
    let problems = options.validate().unwrap_err();
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "shard_count",
            "older_maps[0].version",
            "ingest.lanes_per_shard_max",
            "ingest.frame_bytes_max",
            "settle.interval_max_ms",
            "settle.post_lines_max",
            "settle.post_bytes_max",
            "redis.namespace",
            "redis.url",
            "ledger.endpoint",
            "cells[0].number",
            "cells[0].ledger.endpoint",
            "cells[1].ledger.endpoint",
            "cells[2].ledger.endpoint",
            "cells[2].number",
        ]
    );
    assert!(problems.iter().all(|problem| !problem.description.contains("secret")));
}

#[test]
fn each_way_to_redis_needs_its_own_settings() {
    use crate::redis::Servers;
    let check = |mode, urls: &[&str], master: &str| {
        let mut options = Options::default();
        options.redis.mode = mode;
        options.redis.urls = urls.iter().map(|url| (*url).into()).collect();
        master.clone_into(&mut options.redis.sentinel_master);
        let problems = |problems: Vec<Problem>| problems.into_iter().map(|problem| problem.field).collect();
        options.validate().map(|config| config.redis.servers).map_err(problems)
    };
    let (one, two) = ("redis://:x@h:1", "redis://:x@h:2");
    let urls = || vec![one.into(), two.into()];
    let url = || RedisOptions::default().url;
    let fields =
        |fields: &[&str]| Err::<Servers, Vec<String>>(fields.iter().map(|f| format!("redis.{f}")).collect());
    for (mode, given, master, expected) in [
        (RedisMode::Single, &[][..], "", Ok(Servers::Single { url: url() })),
        (RedisMode::Single, &[one], "m", fields(&["urls", "sentinel_master"])),
        (RedisMode::Cluster, &[one, two], "", Ok(Servers::Cluster { urls: urls() })),
        (RedisMode::Cluster, &[], "", fields(&["urls", "urls"])),
        (RedisMode::Cluster, &[one, "redis://:y@h:2"], "", fields(&["urls"])),
        (
            RedisMode::Sentinel,
            &[one, two],
            "m",
            Ok(Servers::Sentinel { urls: urls(), master: "m".to_owned(), login: url() }),
        ),
        (RedisMode::Sentinel, &[one], "", fields(&["sentinel_master"])),
    ] {
        assert_eq!(check(mode, given, master), expected, "{mode:?} {given:?}");
    }
}

#[test]
fn a_flush_is_followed_by_a_pause_as_long_as_its_counters_are_many() {
    let flush = FlushOptions::default();
    let millis = |counters| flush.pause(counters).as_millis();
    assert_eq!([0, 5_999, 6_000, 49_999, 50_000, usize::MAX].map(millis), [5, 5, 6, 49, 50, 50]);
}
