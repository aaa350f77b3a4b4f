//! Who pays, on the wire: one question is a batch of one.
//!
//! Cost: one statement a batch, which asks whether anything changed since the memory was read, then one look-up in
//! memory a question. So the answer is that of the database at the time of the call, whoever wrote last. Before the
//! memory is loaded, two statements a batch read what is asked for (`store/directory.rs`).

use std::collections::HashSet;

use drawdown_proto::entitlement::v1::{
    BatchResolveRequest, BatchResolveResponse, ClientInstant, Resolution, ResolveRequest, ResolveResponse,
    resolution_service_server::ResolutionService,
};
use drawdown_service::Violations;
use drawdown_types::{ClientId, Timestamp};
use tonic::{Request, Response, Status};

use super::{decode, encode};
use crate::{Parts, acts::Acts, metrics::Answers, reason};

/// Answers for `ResolutionService`.
#[derive(Clone)]
pub struct Resolutions {
    acts: Acts,
}

impl Resolutions {
    /// From the parts of the service.
    #[must_use]
    pub fn new(parts: &Parts) -> Self {
        Self { acts: parts.acts() }
    }

    async fn resolve_all(&self, queries: &[(ClientId, Timestamp)]) -> Result<Vec<Resolution>, Status> {
        if self.acts.memory.is_loaded() {
            return self.resolve_from_memory(queries).await;
        }
        let distinct: HashSet<&str> = queries.iter().map(|(client_id, _)| client_id.as_str()).collect();
        let distinct: Vec<String> = distinct.into_iter().map(str::to_owned).collect();
        let asked_at = tokio::time::Instant::now();
        let directory = self.acts.store.directory(&distinct).await?;
        let load = asked_at.elapsed();
        let rules = &self.acts.rules;
        let mut answers = Answers::default();
        let resolutions = queries
            .iter()
            .map(|(client_id, at)| {
                let resolution = directory.resolve(client_id, rules.window.window_of(*at), rules);
                answers.add(&resolution);
                encode::resolution(client_id.to_string(), &resolution)
            })
            .collect();
        self.acts.metrics.resolved(answers, load);
        Ok(resolutions)
    }

    async fn resolve_from_memory(
        &self,
        queries: &[(ClientId, Timestamp)],
    ) -> Result<Vec<Resolution>, Status> {
        let asked_at = tokio::time::Instant::now();
        let memory = &self.acts.memory;
        memory.catch_up().await?;
        let load = asked_at.elapsed();
        let mut answers = Answers::default();
        let resolutions = queries
            .iter()
            .map(|(client_id, at)| {
                let window = self.acts.rules.window.window_of(*at);
                let resolution = memory.resolve(client_id.as_str(), window);
                answers.add(&resolution);
                encode::resolution(client_id.to_string(), &resolution)
            })
            .collect();
        self.acts.metrics.resolved(answers, load);
        Ok(resolutions)
    }

    fn decode_all(&self, queries: &[ClientInstant]) -> Result<Vec<(ClientId, Timestamp)>, Status> {
        let mut violations = Violations::new();
        let queries_max = self.acts.limits.resolve_queries_max;
        if queries.is_empty() {
            violations.push("queries", "must hold at least 1");
        }
        if queries.len() > queries_max {
            let problem = format!("holds {}, at most {queries_max} are allowed", queries.len());
            violations.push_as(reason::BATCH_TOO_LARGE, "queries", problem);
            violations.check(reason::REQUEST_INVALID)?;
            return Ok(Vec::new());
        }
        let decoded: Vec<_> = queries
            .iter()
            .enumerate()
            .filter_map(|(index, query)| {
                let at = query.at.as_ref();
                // the path of a field is text: it is made where something is wrong only
                let plain = ClientId::new(&query.client_id)
                    .ok()
                    .zip(at.and_then(|at| drawdown_proto::scalar::timestamp_from_proto(at).ok()));
                plain.or_else(|| {
                    violations.within(&format!("queries[{index}]"), |inner| decode::query(inner, query))
                })
            })
            .collect();
        Ok(violations.finish(reason::REQUEST_INVALID, Some(decoded))?)
    }
}

#[tonic::async_trait]
impl ResolutionService for Resolutions {
    async fn resolve(&self, request: Request<ResolveRequest>) -> Result<Response<ResolveResponse>, Status> {
        let mut violations = Violations::new();
        let query = violations.require("query", request.get_ref().query.as_ref());
        let query = query.and_then(|query| violations.within("query", |inner| decode::query(inner, query)));
        let query = violations.finish(reason::REQUEST_INVALID, query)?;
        let resolution = self.resolve_all(&[query]).await?.pop();
        Ok(Response::new(ResolveResponse { resolution }))
    }

    async fn batch_resolve(
        &self,
        request: Request<BatchResolveRequest>,
    ) -> Result<Response<BatchResolveResponse>, Status> {
        let queries = self.decode_all(&request.get_ref().queries)?;
        let resolutions = self.resolve_all(&queries).await?;
        Ok(Response::new(BatchResolveResponse { resolutions }))
    }
}
