use super::*;

#[test]
fn the_scrape_page_has_help_units_and_suffixes() {
    let telemetry = Telemetry::detached("ledger").unwrap();
    let meter = telemetry.meter();
    meter
        .u64_counter("ledger.posted.events")
        .with_description("events posted")
        .build()
        .add(3, &[KeyValue::new("kind", "sum")]);
    meter
        .f64_histogram("ledger.post.duration")
        .with_unit("s")
        .with_boundaries(vec![0.1, 1.0])
        .with_description("time a posting takes")
        .build()
        .record(0.25, &[]);
    insta::assert_snapshot!(telemetry.scrape().unwrap(), @r#"
    # HELP drawdown_build_info 1, with the version of this binary as a label
    # TYPE drawdown_build_info gauge
    drawdown_build_info{version="0.1.0"} 1
    # HELP drawdown_ledger_post_duration_seconds time a posting takes
    # TYPE drawdown_ledger_post_duration_seconds histogram
    drawdown_ledger_post_duration_seconds_bucket{le="0.1"} 0
    drawdown_ledger_post_duration_seconds_bucket{le="1"} 1
    drawdown_ledger_post_duration_seconds_bucket{le="+Inf"} 1
    drawdown_ledger_post_duration_seconds_sum 0.25
    drawdown_ledger_post_duration_seconds_count 1
    # HELP drawdown_ledger_posted_events_total events posted
    # TYPE drawdown_ledger_posted_events_total counter
    drawdown_ledger_posted_events_total{kind="sum"} 3
    "#);
}

#[test]
fn services_of_one_process_have_separate_pages() {
    let (ledger, metering) =
        (Telemetry::detached("ledger").unwrap(), Telemetry::detached("metering").unwrap());
    ledger.meter().u64_counter("only.here").with_description("x").build().add(1, &[]);
    assert!(ledger.scrape().unwrap().contains("only_here_total 1"));
    assert!(!metering.scrape().unwrap().contains("only_here"));
}

#[test]
fn the_documented_defaults_are_valid() {
    let options: TelemetryOptions =
        crate::config::load(DEFAULTS_TOML, &crate::config::Sources::none(), "telemetry").unwrap();
    assert_eq!(options.validate().map(|config| config.otlp_endpoint), Ok(None));
}

#[test]
fn bad_values_are_all_told() {
    let options = TelemetryOptions {
        log_format: LogFormat::Json,
        log_filter: "info,=,=".to_owned(),
        otlp_endpoint: "nowhere".to_owned(),
        trace_one_in: Count::of(1),
    };
    let problems = options.validate().unwrap_err();
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["log_filter", "otlp_endpoint"]);
}
