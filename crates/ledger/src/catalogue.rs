//! Meters and prices as this process remembers them.
//!
//! A posting locks the catalogue's version for its own length and compares it with what is remembered;
//! so a price that is published while batches are posted is either in force for all of a batch or for
//! none of it, and remembering costs no statement.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use drawdown_ledger_core::{Aggregation, PriceBook};
use drawdown_types::MeterSlug;
use sqlx::PgConnection;

use crate::{error::Error, store::catalog};

/// Meters and prices of one version.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// The version they are of; below zero for none.
    pub version: i64,
    /// All rate cards.
    pub prices: PriceBook,
    /// How each meter adds up.
    pub meters: HashMap<MeterSlug, Aggregation>,
}

/// The newest catalogue seen.
#[derive(Debug)]
pub struct Remembered(Mutex<Arc<Catalogue>>);

impl Default for Remembered {
    fn default() -> Self {
        Self(Mutex::new(Arc::new(Catalogue { version: -1, ..Catalogue::default() })))
    }
}

// === impl Remembered ===

impl Remembered {
    fn newest(&self) -> Arc<Catalogue> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The catalogue of `version`, which the transaction has locked.
    ///
    /// # Errors
    /// Where it has to be read and can not be.
    pub async fn of_version(&self, tx: &mut PgConnection, version: i64) -> Result<Arc<Catalogue>, Error> {
        let newest = self.newest();
        if newest.version == version {
            return Ok(newest);
        }
        let read = Arc::new(read_in_tx(tx, version).await?);
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.version < version {
            *newest = Arc::clone(&read);
        }
        Ok(read)
    }
}

/// Reads the catalogue, whose version the transaction has locked.
///
/// # Errors
/// Where it can not be read.
pub(crate) async fn read_in_tx(tx: &mut PgConnection, version: i64) -> Result<Catalogue, Error> {
    let meters = catalog::meters_in_tx(tx).await?;
    let meters: HashMap<_, _> = meters.into_iter().map(|meter| (meter.slug, meter.aggregation)).collect();
    let prices = PriceBook::with_meters(catalog::cards_in_tx(tx).await?, meters.clone());
    Ok(Catalogue { version, prices, meters })
}
