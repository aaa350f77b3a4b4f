//! Entering a platform with its original instants (D61).

use anyhow::{Result, ensure};
use drawdown_tests::{
    installation::{Installation, Service, Settings},
    platform::set_up,
    replay::Trial,
    report::{lots, verify},
};
use drawdown_types::{Clock as _, SystemClock};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_up_that_is_sent_twice_is_entered_once() -> Result<()> {
    let services = vec![Service::Ledger, Service::Entitlement];
    let installation = Installation::start(&Settings { services, ..Settings::default() }).await?;
    let trial = Trial::ending_at(SystemClock.now())?;
    let channels = installation.channels();
    let first = set_up(channels, &trial.scenario).await?;
    let second = set_up(channels, &trial.scenario).await?;
    ensure!(first == second, "{first:#?}\n{second:#?}");
    let web = lots(channels, &first.teams["web"]).await?;
    let states: Vec<_> = web.iter().map(|lot| (lot.note.as_str(), lot.state().as_str_name())).collect();
    let expected = [
        ("web, expiring inside", "LOT_STATE_CLOSING"),
        ("web, open", "LOT_STATE_OPEN"),
        ("web, expired before", "LOT_STATE_CLOSED"),
    ];
    ensure!(states == expected, "{states:?}");
    let (violations, sentences) = verify(channels).await?;
    ensure!(violations == 0, "{sentences:#?}");
    installation.stop().await
}
