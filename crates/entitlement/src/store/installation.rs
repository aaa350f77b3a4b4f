//! What has to be the same for every instance and every start of one installation.

use drawdown_types::WindowSize;

use super::Store;
use crate::{Error, secret::Pepper};

/// The configuration does not belong to this database.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// Every stored edge lies on the grid of the stored size.
    #[error("this database has windows of {stored} s, the configuration says {configured} s")]
    Window {
        /// As the database has it.
        stored: i32,
        /// As configured.
        configured: i32,
    },
    /// No stored secret would fit any more.
    #[error("this database was set up under another pepper")]
    Pepper,
    /// The database could not be asked.
    #[error("the database could not be asked for its settings")]
    Store(#[source] Error),
}

impl Store {
    /// Keeps the settings of the first start, and refuses others from then on.
    pub(crate) async fn check_installation(
        &self,
        window: WindowSize,
        pepper: &Pepper,
    ) -> Result<(), InstallationError> {
        let configured = i32::try_from(window.as_secs()).unwrap_or(i32::MAX);
        let mark = pepper.mark();
        let row = self.keep_installation(configured, &mark).await.map_err(InstallationError::Store)?;
        if row.0 != configured {
            return Err(InstallationError::Window { stored: row.0, configured });
        }
        if row.1 != mark {
            return Err(InstallationError::Pepper);
        }
        Ok(())
    }

    async fn keep_installation(&self, window_secs: i32, mark: &[u8]) -> Result<(i32, Vec<u8>), Error> {
        sqlx::query!(
            "INSERT INTO entitlement.installation (window_secs, pepper_mark) VALUES ($1, $2)
             ON CONFLICT DO NOTHING",
            window_secs,
            mark,
        )
        .execute(&self.pool)
        .await?;
        let row = sqlx::query!("SELECT window_secs, pepper_mark FROM entitlement.installation")
            .fetch_one(&self.pool)
            .await?;
        Ok((row.window_secs, row.pepper_mark))
    }
}
