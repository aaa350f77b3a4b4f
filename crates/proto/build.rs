//! Compiles the contracts under `proto/` without protoc: protox parses, tonic-prost-build generates.

use std::{error::Error, path::PathBuf};

const FILES: &[&str] = &[
    "drawdown/entitlement/v1/access.proto",
    "drawdown/entitlement/v1/account.proto",
    "drawdown/entitlement/v1/credential.proto",
    "drawdown/entitlement/v1/hierarchy.proto",
    "drawdown/entitlement/v1/history.proto",
    "drawdown/entitlement/v1/hub.proto",
    "drawdown/entitlement/v1/import.proto",
    "drawdown/entitlement/v1/member.proto",
    "drawdown/entitlement/v1/principal.proto",
    "drawdown/entitlement/v1/resolution.proto",
    "drawdown/entitlement/v1/transfer.proto",
    "drawdown/ledger/v1/audit.proto",
    "drawdown/ledger/v1/budget.proto",
    "drawdown/ledger/v1/catalog.proto",
    "drawdown/ledger/v1/event.proto",
    "drawdown/ledger/v1/explain.proto",
    "drawdown/ledger/v1/filter.proto",
    "drawdown/ledger/v1/correction.proto",
    "drawdown/ledger/v1/hold.proto",
    "drawdown/ledger/v1/import.proto",
    "drawdown/ledger/v1/lot.proto",
    "drawdown/ledger/v1/notice.proto",
    "drawdown/ledger/v1/posting.proto",
    "drawdown/ledger/v1/report.proto",
    "drawdown/ledger/v1/review.proto",
    "drawdown/ledger/v1/settlement.proto",
    "drawdown/ledger/v1/standing.proto",
    "drawdown/ledger/v1/token.proto",
    "drawdown/ledger/v1/what_if.proto",
    "drawdown/metering/v1/ingest.proto",
    "drawdown/metering/v1/record.proto",
    "drawdown/metering/v1/usage.proto",
];
/// What others made and ours refer to.
const CLOUDEVENTS: &str = "io/cloudevents/v1/cloudevents.proto";

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.binpb"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .bytes(".drawdown.metering.v1.LaneFrame.body")
        .extern_path(".io.cloudevents.v1", "crate::io::cloudevents::v1")
        .compile_fds(compiler.file_descriptor_set())?;
    // By itself: the modules of ours do not begin with `drawdown`, so a path from one package to the other would not hold.
    let theirs = protox::compile([CLOUDEVENTS], [&root])?;
    tonic_prost_build::configure().compile_fds(theirs)?;
    Ok(())
}
