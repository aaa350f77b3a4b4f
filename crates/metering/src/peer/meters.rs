//! The catalogue of meters, kept up to date.
//!
//! A refused event stays refused, so whoever meets a meter nobody knows waits until the catalogue was read once more,
//! after that event had come; once for all meters of a message. Such readings are shared and come at most every
//! `refresh_pause`, which nobody spends under the lock: a producer with wrong meters waits that long itself, and slows nobody else
//! down.

use std::sync::{Arc, PoisonError, RwLock};

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

/// All meters.
#[derive(Debug)]
pub(crate) struct Meters {
    catalog: CatalogServiceClient<Transport>,
    options: MeterOptions,
    table: RwLock<Arc<MeterTable>>,
    /// When the reading that gave the table began. Held while one is under way.
    read_at: AsyncMutex<Option<Instant>>,
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

    /// Makes sure that meters are known, or that the catalogue was read after this call began. Says whether the table may
    /// have changed.
    pub(crate) async fn learn<'a>(
        &self,
        slugs: impl IntoIterator<Item = &'a MeterSlug>,
    ) -> Result<bool, Error> {
        let (came, table) = (Instant::now(), self.table());
        if slugs.into_iter().all(|slug| table.knows(slug)) {
            return Ok(false);
        }
        self.read_since(came).await?;
        Ok(true)
    }

    /// Until a reading has ended that began at this instant or later.
    async fn read_since(&self, came: Instant) -> Result<(), Error> {
        loop {
            let mut read_at = self.read_at.lock().await;
            // Somebody else may have waited for the same reading.
            let Some(last) = *read_at else { return self.read(&mut read_at).await };
            if last >= came {
                return Ok(());
            }
            let due = last + self.options.refresh_pause_ms.duration();
            if due <= Instant::now() {
                return self.read(&mut read_at).await;
            }
            drop(read_at);
            tokio::time::sleep_until(due).await;
        }
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
