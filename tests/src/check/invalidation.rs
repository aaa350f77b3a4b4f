//! How long after a commit the answer differs: an act in the ledger or in entitlement is answered once it is committed,
//! and from then on the gate is asked again and again until it says what the act made true.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use drawdown_client::{
    channel::Channel,
    clients::{entitlement, ledger},
};
use drawdown_proto::{
    entitlement::v1::{self as ent, AccessAnswer, AccessQuestion, CheckAccessRequest},
    ledger::v1 as led,
    scalar::timestamp_to_proto,
};
use drawdown_types::{Clock as _, SystemClock, Timestamp};

use super::data::{HARD, PRICE_MICROS};
use crate::platform::Channels;

/// Longer than this is not worth a figure.
const LIMIT: Duration = Duration::from_secs(30);

/// How long each change took to be in the answers.
#[derive(Debug, Default)]
pub struct Latencies {
    /// Changes in the ledger.
    pub ledger: Vec<Duration>,
    /// Changes in entitlement.
    pub entitlement: Vec<Duration>,
}

/// A team of its own, with one credential.
#[derive(Debug)]
struct Subject {
    account_id: String,
    team_id: String,
    client_id: String,
}

/// The value below which 99 of 100 lie, in ms.
///
/// # Errors
/// Where there is none.
pub fn p99_ms(latencies: &[Duration]) -> Result<f64> {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
    Ok(sorted.get(place).context("nothing was measured")?.as_secs_f64() * 1_000.0)
}

/// Makes changes one after the other, half of them in the ledger, and times each.
///
/// # Errors
/// Where something is refused, or an answer never differs.
pub async fn measure(channels: &Channels, changes: usize) -> Result<Latencies> {
    let subject = set_up(channels).await?;
    let mut latencies = Latencies::default();
    let mut quantity = 1;
    // Nothing is there yet: the first use can not be covered.
    until(&channels.entitlement, &subject, quantity, |answer| !answer.allowed).await?;
    for change in 0..changes {
        grant(channels, &subject, change).await?;
        latencies
            .ledger
            .push(until(&channels.entitlement, &subject, quantity, |answer| answer.allowed).await?);
        // The next one asks for more than there is.
        quantity += 1;
        until(&channels.entitlement, &subject, quantity, |answer| !answer.allowed).await?;
        quantity -= 1;
        for suspended in [true, false] {
            suspend(channels, &subject, suspended, change).await?;
            let took = until(&channels.entitlement, &subject, quantity, |answer| answer.allowed != suspended);
            latencies.entitlement.push(took.await?);
        }
        quantity += 1;
    }
    Ok(latencies)
}

/// Asks until the answer is as wanted; gives how long that took.
async fn until(
    channel: &Channel,
    subject: &Subject,
    quantity: u64,
    wanted: impl Fn(&AccessAnswer) -> bool,
) -> Result<Duration> {
    let begin = Instant::now();
    let mut service = entitlement::access(channel);
    loop {
        let question =
            AccessQuestion { client_id: subject.client_id.clone(), meter: HARD.to_owned(), quantity };
        let request = CheckAccessRequest { question: Some(question), with_billed_to: false };
        let answer = service.check_access(request).await?.into_inner().answer.context("no answer")?;
        let took = begin.elapsed();
        if wanted(&answer) {
            return Ok(took);
        }
        ensure!(took < LIMIT, "the answer is still {answer:?}");
    }
}

async fn grant(channels: &Channels, subject: &Subject, change: usize) -> Result<()> {
    let expires = SystemClock.now().checked_add(Duration::from_secs(86_400)).unwrap_or(Timestamp::MAX);
    let request = led::GrantTokensRequest {
        account_id: subject.account_id.clone(),
        team_id: subject.team_id.clone(),
        micros: PRICE_MICROS,
        pool_kind: led::PoolKind::Promotional.into(),
        expires_at: Some(timestamp_to_proto(expires)),
        note: "bench".to_owned(),
        request_id: format!("bench-grant-{change}"),
        ..led::GrantTokensRequest::default()
    };
    ledger::token(&channels.ledger).grant_tokens(request).await.context("grant")?;
    Ok(())
}

async fn suspend(channels: &Channels, subject: &Subject, suspended: bool, change: usize) -> Result<()> {
    let mut accounts = entitlement::accounts(&channels.entitlement);
    let (team_id, request_id) = (subject.team_id.clone(), format!("bench-suspend-{suspended}-{change}"));
    let (account_id, note) = (String::new(), "bench".to_owned());
    if suspended {
        accounts
            .suspend(ent::SuspendRequest { account_id, team_id, note, request_id })
            .await
            .context("suspend")?;
    } else {
        let request = ent::LiftSuspensionRequest { account_id, team_id, note, request_id };
        accounts.lift_suspension(request).await.context("lift")?;
    }
    Ok(())
}

async fn set_up(channels: &Channels) -> Result<Subject> {
    let founded = Timestamp::from_micros(SystemClock.now().as_micros() - 86_400_000_000)?;
    let founded = Some(timestamp_to_proto(founded));
    let request_id = |what: &str| format!("bench-subject-{what}");
    let mut hierarchy = entitlement::hierarchy(&channels.entitlement);
    let account = ent::CreateAccountRequest {
        name: "Subject".to_owned(),
        contract_kind: ent::ContractKind::Flex.into(),
        created_at: founded,
        commercial: true,
        cell: 0,
        request_id: request_id("account"),
    };
    let account = hierarchy.create_account(account).await.context("account")?.into_inner().account;
    let account_id = account.context("no account")?.account_id;
    let team = ent::CreateTeamRequest {
        account_id: account_id.clone(),
        name: "subject".to_owned(),
        created_at: founded,
        request_id: request_id("team"),
    };
    let team_id =
        hierarchy.create_team(team).await.context("team")?.into_inner().team.context("no team")?.team_id;
    let app = ent::CreateAppRequest {
        account_id: account_id.clone(),
        owner_user_id: String::new(),
        name: "subject".to_owned(),
        request_id: request_id("app"),
    };
    let app_id = hierarchy.create_app(app).await.context("app")?.into_inner().app.context("no app")?.app_id;
    let credential = ent::CreateCredentialRequest {
        app_id: app_id.clone(),
        created_at: founded,
        request_id: request_id("credential"),
    };
    let client_id =
        hierarchy.create_credential(credential).await.context("credential")?.into_inner().client_id;
    let assignment = ent::AssignAppRequest {
        app_id,
        team_id: team_id.clone(),
        from: founded,
        request_id: request_id("link"),
    };
    hierarchy.assign_app(assignment).await.context("assignment")?;
    Ok(Subject { account_id, team_id, client_id })
}
