//! The catalogue of meters, kept up to date.
//!
//! A refused event stays refused, so a stream that meets a meter nobody knows waits until the catalogue was
//! read once more, after that event had come. Such readings are shared and come at most every
//! `refresh_pause`; a meter that was just asked for in vain is not asked for again at once, so that a producer
//! with wrong meters slows nobody down.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use drawdown_client::{Channel, channel::Transport, ledger};
use drawdown_metering_core::meter::{Aggregation, MeterFacts, MeterTable};
use drawdown_proto::ledger::v1::{
    Aggregation as WireAggregation, ListMetersRequest, Meter, catalog_service_client::CatalogServiceClient,
};
use drawdown_types::{DimensionName, MeterSlug};
use tokio::{sync::Mutex as AsyncMutex, time::Instant};

use super::Error;
use crate::config::MeterOptions;

const PEER: &str = "ledger";
const CALL: &str = "ListMeters";
/// Unknown slugs that are remembered as such.
const MISSED_MAX: usize = 1024;
/// For how long an unknown slug is not asked for again.
const MISSED_FOR: Duration = Duration::from_secs(2);

/// All meters.
#[derive(Debug)]
pub(crate) struct Meters {
    catalog: CatalogServiceClient<Transport>,
    options: MeterOptions,
    table: RwLock<Arc<MeterTable>>,
    /// When the reading that gave the table began. Held while one is under way.
    read_at: AsyncMutex<Option<Instant>>,
    missed: Mutex<HashMap<MeterSlug, Instant>>,
}

impl Meters {
    /// Nothing is known yet.
    #[must_use]
    pub(crate) fn new(channel: &Channel, options: MeterOptions) -> Self {
        Self {
            catalog: ledger::catalog(channel),
            options,
            table: RwLock::default(),
            read_at: AsyncMutex::new(None),
            missed: Mutex::default(),
        }
    }

    /// The meters as read last.
    #[must_use]
    pub(crate) fn table(&self) -> Arc<MeterTable> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the catalogue; says whether it was another one than before.
    pub(crate) async fn refresh(&self) -> Result<(), Error> {
        let mut read_at = self.read_at.lock().await;
        self.read(&mut read_at).await
    }

    /// Makes sure that a meter is known, or that the catalogue was read after this call began. Says whether
    /// the table may have changed.
    pub(crate) async fn learn(&self, slug: &MeterSlug) -> Result<bool, Error> {
        if self.table().knows(slug) {
            return Ok(false);
        }
        let came = Instant::now();
        let missed = |missed: &HashMap<MeterSlug, Instant>| {
            missed.get(slug).is_some_and(|at| came.saturating_duration_since(*at) < MISSED_FOR)
        };
        if missed(&self.missed.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(false);
        }
        let mut read_at = self.read_at.lock().await;
        // Another stream may have waited for the same reading.
        if read_at.is_none_or(|read_at| read_at < came) {
            if let Some(last) = *read_at {
                tokio::time::sleep_until(last + self.options.refresh_pause_ms.duration()).await;
            }
            self.read(&mut read_at).await?;
        }
        if !self.table().knows(slug) {
            let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
            if missed.len() >= MISSED_MAX {
                missed.clear();
            }
            missed.insert(slug.clone(), Instant::now());
        }
        Ok(true)
    }

    async fn read(&self, read_at: &mut Option<Instant>) -> Result<(), Error> {
        let began = Instant::now();
        let (mut meters, mut unsupported) = (Vec::new(), Vec::new());
        let mut page_token = String::new();
        loop {
            let request = ListMetersRequest {
                page_size: self.options.page_size.get_u32(),
                page_token: page_token.clone(),
            };
            let answer = self.catalog.clone().list_meters(request).await.map_err(Error::call(PEER, CALL))?;
            let page = answer.into_inner();
            for meter in page.meters {
                let (slug, facts) = facts(meter).map_err(|detail| Error::answer(PEER, CALL, detail))?;
                match facts {
                    Some(facts) => meters.push((slug, facts)),
                    None => unsupported.push(slug),
                }
            }
            if meters.len().saturating_add(unsupported.len()) > self.options.meters_max.get() {
                return Err(Error::answer(PEER, CALL, "there are more meters than meters_max"));
            }
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
        *self.table.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(MeterTable::new(meters).with_unsupported(unsupported));
        *read_at = Some(began);
        Ok(())
    }
}

/// A meter of an aggregation that this version can not do has no facts: its events are refused with that
/// reason, not counted wrongly.
fn facts(meter: Meter) -> Result<(MeterSlug, Option<MeterFacts>), String> {
    let slug = MeterSlug::new(&meter.slug).map_err(|error| format!("meter {:?} {error}", meter.slug))?;
    let aggregation = match meter.aggregation() {
        WireAggregation::Sum => Aggregation::Sum,
        WireAggregation::Count => Aggregation::Count,
        WireAggregation::Max => Aggregation::Max,
        WireAggregation::Unique => Aggregation::Unique,
        WireAggregation::Unspecified => return Ok((slug, None)),
    };
    let dimension = |name: &String| {
        DimensionName::new(name).map_err(|error| format!("dimension {name:?} of {slug} {error}"))
    };
    let dimensions = meter.dimensions.iter().map(dimension).collect::<Result<Vec<_>, _>>()?;
    let unique = Some(&meter.unique_dimension).filter(|_| aggregation == Aggregation::Unique);
    let unique_dimension = unique.filter(|name| !name.is_empty()).map(dimension).transpose()?;
    Ok((slug, Some(MeterFacts { aggregation, dimensions, unique_dimension })))
}
