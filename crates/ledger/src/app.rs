//! Builds the service and owns the order of start and drain: settings that must fit the database are
//! compared first, ports are bound next, calls are taken last. On the signal to stop the server drains
//! its calls, then the jobs end, then the pool closes.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use drawdown_proto::ledger::v1::{
    audit_service_server::AuditServiceServer, budget_service_server::BudgetServiceServer,
    catalog_service_server::CatalogServiceServer, correction_service_server::CorrectionServiceServer,
    event_service_server::EventServiceServer, explain_service_server::ExplainServiceServer,
    hold_service_server::HoldServiceServer, import_service_server::ImportServiceServer,
    lot_service_server::LotServiceServer, notice_service_server::NoticeServiceServer,
    posting_service_server::PostingServiceServer, report_service_server::ReportServiceServer,
    review_service_server::ReviewServiceServer, settlement_service_server::SettlementServiceServer,
    standing_service_server::StandingServiceServer, token_service_server::TokenServiceServer,
    what_if_service_server::WhatIfServiceServer,
};
use drawdown_service::{Context, Jobs, Server, identity::Sources};
use sqlx::PgPool;

use crate::{
    config::Config,
    directory::Entitlement,
    grpc::{
        Audit, Budgets, Catalog, Corrections, Events, Explain, Holds, Imports, Lots, Notices, Postings,
        Reports, Review, Settlement, Standings, Tokens, WhatIf,
    },
    identity,
    jobs::{
        adopt::Adopt, compact::Compact, due::Due, feed::FeedSweep, months::Months, relay::Relay, skew::Skew,
    },
    metrics::Metrics,
    service::{Ledger, Parts},
    store::{
        installation::{self, Installation},
        pool,
    },
};

/// Brings the schema `ledger` of a database up to date, and the rights of its roles. Harmless where it is.
///
/// # Errors
/// Where the database does not answer, or was migrated by a newer version.
pub async fn migrate(pool: &PgPool) -> Result<(), sqlx::migrate::MigrateError> {
    sqlx::migrate!().run(pool).await?;
    // What is new since the roles were made has its rights from here.
    sqlx::query("select ledger.apply_roles()").execute(pool).await?;
    Ok(())
}

/// Serves until the context's signal to stop.
///
/// # Errors
/// Where the configuration does not fit the database, a port is taken, or the server fails.
pub async fn run(config: Config, context: Context) -> anyhow::Result<()> {
    let pool = pool::pool(&config.database);
    let ours = Installation::of(&config.settings, &config.cells);
    let noted =
        installation::note(&pool, &ours).await.context("can not start on this database; was it migrated?")?;
    ensure!(noted == ours, "the database was used with {noted}; the configuration says {ours}",);
    let channel = drawdown_client::connect(&config.entitlement).context("no channel to entitlement")?;
    let server = Server::bind(&config.server, &context).await?;
    let server = server.identify(identity::sources(Sources::remote(channel.unary()), pool.clone()));
    let ledger = Arc::new(Ledger::new(Parts {
        pool: pool.clone(),
        clock: Arc::clone(&context.clock),
        settings: config.settings,
        notice_rules: config.notices.rules,
        limits: config.limits,
        events: config.growth.events,
        cells: config.cells,
        directory: Arc::new(Entitlement::new(channel)),
        metrics: Metrics::new(&context.telemetry.meter()),
    }));
    let mut jobs = Jobs::of(&context);
    jobs.start("closes lots", |stop| Due::new(Arc::clone(&ledger), config.due).run(stop));
    jobs.start("adopts usage", |stop| Adopt::new(Arc::clone(&ledger), config.adoption).run(stop));
    jobs.start("compares clocks", |stop| Skew::new(Arc::clone(&ledger), config.skew).run(stop));
    let months = Months::new(Arc::clone(&ledger), config.growth.months);
    months.attempt().await;
    jobs.start("makes partitions", |stop| months.run(stop));
    jobs.start("rolls usage up", |stop| Compact::new(Arc::clone(&ledger), config.growth.compact).run(stop));
    jobs.start("relays notices", |stop| Relay::new(Arc::clone(&ledger), config.notices.relay).run(stop));
    let feed = FeedSweep::new(Arc::clone(&ledger), config.standings.sweep);
    jobs.start("forgets which teams changed", |stop| feed.run(stop));
    let standings =
        Standings::new(Arc::clone(&ledger), config.standings.feed, context.shutdown.child_token());
    let notices = Notices::new(Arc::clone(&ledger), config.notices.watch, context.shutdown.child_token());
    let server = server.add_service(
        StandingServiceServer::new(standings).max_decoding_message_size(config.server.message_bytes_max),
    );
    let served = with_services(server, ledger, notices, config.server.message_bytes_max).serve().await;
    jobs.end().await?;
    pool.close().await;
    Ok(served?)
}

/// Every service, with one limit on what a message may weigh.
fn with_services(server: Server, ledger: Arc<Ledger>, notices: Notices, bytes_max: usize) -> Server {
    macro_rules! limited {
        ($server:ident, $handler:ident) => {
            $server::new($handler::new(Arc::clone(&ledger))).max_decoding_message_size(bytes_max)
        };
    }
    server
        .add_service(limited!(AuditServiceServer, Audit))
        .add_service(limited!(BudgetServiceServer, Budgets))
        .add_service(limited!(CatalogServiceServer, Catalog))
        .add_service(limited!(CorrectionServiceServer, Corrections))
        .add_service(limited!(EventServiceServer, Events))
        .add_service(limited!(ExplainServiceServer, Explain))
        .add_service(limited!(HoldServiceServer, Holds))
        .add_service(limited!(LotServiceServer, Lots))
        .add_service(
            ImportServiceServer::new(Imports::new(Arc::clone(&ledger))).max_decoding_message_size(bytes_max),
        )
        .add_service(NoticeServiceServer::new(notices).max_decoding_message_size(bytes_max))
        .add_service(limited!(PostingServiceServer, Postings))
        .add_service(limited!(ReportServiceServer, Reports))
        .add_service(limited!(ReviewServiceServer, Review))
        .add_service(limited!(SettlementServiceServer, Settlement))
        .add_service(limited!(TokenServiceServer, Tokens))
        .add_service(limited!(WhatIfServiceServer, WhatIf))
}
