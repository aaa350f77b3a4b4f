//! Who pays for the lines of a batch, asked at their windows.
//!
//! Only positive answers are remembered, and only for windows that have begun: every change of a link is
//! committed before the window it takes effect in, so such an answer does not change any more. That nobody
//! pays may change at any time (an app gets its team), so it is always asked again.

use std::{collections::HashMap, sync::Arc};

use drawdown_client::{Channel, channel::Transport, entitlement};
use drawdown_metering_core::cells::LEADING;
use drawdown_proto::{
    entitlement::v1::{
        BatchResolveRequest, ClientInstant, Resolution, UnresolvedReason, resolution::Answer,
        resolution_service_client::ResolutionServiceClient,
    },
    ledger::v1::{Payer, line::Attribution},
    scalar::timestamp_to_proto,
};
use drawdown_types::{ClientId, Clock, Timestamp};
use moka::future::Cache;

use super::Error;
use crate::config::SettleOptions;

const PEER: &str = "entitlement";
const CALL: &str = "BatchResolve";
/// Why nobody pays (D25), in the ledger's words.
const UNKNOWN_CLIENT: &str = "unknown_client";
const NO_TEAM: &str = "no_team";

/// A client id at a window.
pub(crate) type Question = (ClientId, Timestamp);

/// Who pays, and in which cell.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// Who, or why nobody.
    pub(crate) attribution: Attribution,
    /// Where the account lives; what nobody pays is the leading cell's.
    pub(crate) cell: u8,
}

impl Resolved {
    /// Whose app it is, where somebody pays.
    pub(crate) fn app_id(&self) -> Option<&str> {
        match &self.attribution {
            Attribution::Payer(payer) => Some(&payer.app_id),
            Attribution::UnattributedReason(_) => None,
        }
    }
}

/// Answers of entitlement.
pub(crate) struct Resolver {
    resolution: ResolutionServiceClient<Transport>,
    queries_max: usize,
    payers: Cache<Question, (Payer, u8)>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    /// Knows nothing yet.
    #[must_use]
    pub(crate) fn new(channel: &Channel, options: &SettleOptions, clock: Arc<dyn Clock>) -> Self {
        Self {
            resolution: entitlement::resolution(channel),
            queries_max: options.resolve_queries_max.get(),
            payers: Cache::builder()
                .max_capacity(u64::try_from(options.resolved_max.get()).unwrap_or(u64::MAX))
                .time_to_live(options.resolved_ttl_ms.duration())
                .build(),
            clock,
        }
    }

    /// Answers for each client id at each window; one question for each pair that is not remembered.
    pub(crate) async fn resolve(
        &self,
        questions: impl IntoIterator<Item = Question>,
    ) -> Result<HashMap<Question, Resolved>, Error> {
        let mut answers = HashMap::new();
        let mut asked: Vec<Question> = Vec::new();
        for question in questions {
            if answers.contains_key(&question) {
                continue;
            }
            // An empty place marks a question that is asked already.
            let known = self.payers.get(&question).await;
            if known.is_none() {
                asked.push(question.clone());
            }
            let known = known.map(|(payer, cell)| Resolved { attribution: Attribution::Payer(payer), cell });
            answers.insert(question, known);
        }
        for part in asked.chunks(self.queries_max) {
            self.ask(part, &mut answers).await?;
        }
        Ok(answers.into_iter().filter_map(|(question, answer)| Some((question, answer?))).collect())
    }

    async fn ask(
        &self,
        questions: &[Question],
        answers: &mut HashMap<Question, Option<Resolved>>,
    ) -> Result<(), Error> {
        let queries = questions.iter().map(|(client_id, at)| ClientInstant {
            client_id: client_id.to_string(),
            at: Some(timestamp_to_proto(*at)),
        });
        let request = BatchResolveRequest { queries: queries.collect() };
        let answer = self.resolution.clone().batch_resolve(request).await.map_err(Error::call(PEER, CALL))?;
        let resolutions = answer.into_inner().resolutions;
        if resolutions.len() != questions.len() {
            let detail = format!("{} answers to {} questions", resolutions.len(), questions.len());
            return Err(Error::answer(PEER, CALL, detail));
        }
        let now = self.clock.now();
        for (question, resolution) in questions.iter().zip(resolutions) {
            let resolved = resolved(&question.0, resolution)?;
            if let Attribution::Payer(payer) = &resolved.attribution
                && question.1 <= now
            {
                self.payers.insert(question.clone(), (payer.clone(), resolved.cell)).await;
            }
            answers.insert(question.clone(), Some(resolved));
        }
        Ok(())
    }
}

fn resolved(asked: &ClientId, resolution: Resolution) -> Result<Resolved, Error> {
    if resolution.client_id != asked.as_str() {
        return Err(Error::answer(PEER, CALL, "the answers are not in the order of the questions"));
    }
    let nobody = |reason: &str| {
        Ok(Resolved { attribution: Attribution::UnattributedReason(reason.to_owned()), cell: LEADING })
    };
    match resolution.answer {
        Some(Answer::BilledTo(billed)) => Ok(Resolved {
            cell: u8::try_from(billed.cell).map_err(|error| Error::answer(PEER, CALL, error))?,
            attribution: Attribution::Payer(Payer {
                contract_kind: contract_kind(billed.contract_kind)?.into(),
                account_id: billed.account_id,
                team_id: billed.team_id,
                app_id: billed.app_id,
                in_trial: billed.in_trial,
            }),
        }),
        Some(Answer::Unresolved(reason)) => match UnresolvedReason::try_from(reason) {
            Ok(UnresolvedReason::UnknownClient) => nobody(UNKNOWN_CLIENT),
            Ok(UnresolvedReason::NoTeam) => nobody(NO_TEAM),
            Ok(UnresolvedReason::Unspecified) | Err(_) => {
                Err(Error::answer(PEER, CALL, format!("reason {reason} is not known")))
            }
        },
        None => Err(Error::answer(PEER, CALL, "an answer is empty")),
    }
}

/// The two contracts name the kinds alike.
fn contract_kind(kind: i32) -> Result<drawdown_proto::ledger::v1::ContractKind, Error> {
    use drawdown_proto::{entitlement::v1::ContractKind as Theirs, ledger::v1::ContractKind as Ours};
    match Theirs::try_from(kind) {
        Ok(Theirs::Flex) => Ok(Ours::Flex),
        Ok(Theirs::Enterprise) => Ok(Ours::Enterprise),
        Ok(Theirs::Unspecified) | Err(_) => {
            Err(Error::answer(PEER, CALL, format!("contract kind {kind} is not known")))
        }
    }
}
