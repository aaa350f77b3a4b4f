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
    options.redis.url = "http://secret".to_owned();
    options.ledger.endpoint = String::new();
    let nowhere = |number| CellOptions { number, ledger: ChannelOptions::to("") };
    options.cells = vec![nowhere(0), nowhere(3), nowhere(3)];
    options.ingest.lanes_per_shard_max = Count::of(5000);
    options.ingest.frame_bytes_max = Count::of(64 << 20);
    options.settle.interval_max_ms = Millis::from_millis(1);
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
