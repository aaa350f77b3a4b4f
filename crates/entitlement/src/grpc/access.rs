//! Access on the wire: every form answers from memory, at one instant a message.
//!
//! Cost: per question the two texts of the question and nothing else; an answer has no text unless it names who pays.
//! A stream answers a message when it is read: no queue, no task; a caller that does not read its answers is not read
//! either.

use std::sync::Arc;

use drawdown_proto::entitlement::v1::{
    AccessAnswer, AccessQuestion, BatchCheckAccessRequest, BatchCheckAccessResponse, CheckAccessRequest,
    CheckAccessResponse, StreamCheckAccessRequest, StreamCheckAccessResponse, WatchAccessRequest,
    WatchAccessResponse, access_service_server::AccessService,
};
use drawdown_service::{Code, Refusal, Violations, refusal::RETRY_AFTER_DEFAULT};
use futures::{StreamExt as _, stream::BoxStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{encode_access, watch::Watch};
use crate::{
    config::AccessLimits,
    memory::{Asked, Memory, View},
    reason,
};

/// Answers for `AccessService`.
#[derive(Clone)]
pub struct Access {
    memory: Arc<Memory>,
    limits: AccessLimits,
    watchers: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
}

pub(super) fn asked(question: &AccessQuestion) -> Asked<'_> {
    Asked { client_id: &question.client_id, meter: &question.meter, quantity: question.quantity.max(1) }
}

fn answer(memory: &Memory, view: &View, question: &AccessQuestion, with_billed_to: bool) -> AccessAnswer {
    encode_access::answer(&memory.decide(view, asked(question), with_billed_to))
}

/// The instant and what all answers share.
pub(super) fn view(memory: &Memory) -> Result<View, Status> {
    memory.view().ok_or_else(|| {
        let message = "the directory is not loaded yet";
        let reason = drawdown_service::reason::UNAVAILABLE;
        Refusal::new(Code::Unavailable, reason, message).retry_after(RETRY_AFTER_DEFAULT).into()
    })
}

fn too_many(questions: usize, questions_max: usize) -> Status {
    let problem = format!("holds {questions}, at most {questions_max} are allowed");
    Refusal::new(Code::InvalidArgument, reason::BATCH_TOO_LARGE, format!("questions {problem}"))
        .violation("questions", problem)
        .into()
}

impl Access {
    /// Over a memory; streams end when `stop` is cancelled.
    #[must_use]
    pub fn new(memory: Arc<Memory>, limits: AccessLimits, stop: CancellationToken) -> Self {
        let watchers = Arc::new(Semaphore::new(limits.watchers_max));
        let streams = Arc::new(Semaphore::new(limits.check_streams_max));
        Self { memory, limits, watchers, streams, stop }
    }

    fn answer_all(
        &self,
        questions: &[AccessQuestion],
        with_billed_to: bool,
    ) -> Result<Vec<AccessAnswer>, Status> {
        if questions.len() > self.limits.questions_max {
            return Err(too_many(questions.len(), self.limits.questions_max));
        }
        let view = view(&self.memory)?;
        Ok(questions.iter().map(|question| answer(&self.memory, &view, question, with_billed_to)).collect())
    }
}

#[tonic::async_trait]
impl AccessService for Access {
    type StreamCheckAccessStream = BoxStream<'static, Result<StreamCheckAccessResponse, Status>>;
    type WatchAccessStream = BoxStream<'static, Result<WatchAccessResponse, Status>>;

    async fn check_access(
        &self,
        request: Request<CheckAccessRequest>,
    ) -> Result<Response<CheckAccessResponse>, Status> {
        let request = request.get_ref();
        let mut violations = Violations::new();
        let question = violations.require("question", request.question.as_ref());
        let question = violations.finish(reason::REQUEST_INVALID, question)?;
        let view = view(&self.memory)?;
        let answer = answer(&self.memory, &view, question, request.with_billed_to);
        Ok(Response::new(CheckAccessResponse { answer: Some(answer) }))
    }

    async fn batch_check_access(
        &self,
        request: Request<BatchCheckAccessRequest>,
    ) -> Result<Response<BatchCheckAccessResponse>, Status> {
        let request = request.get_ref();
        if request.questions.is_empty() {
            let mut violations = Violations::new();
            violations.push("questions", "must hold at least 1");
            violations.check(reason::REQUEST_INVALID)?;
        }
        let answers = self.answer_all(&request.questions, request.with_billed_to)?;
        Ok(Response::new(BatchCheckAccessResponse { answers }))
    }

    async fn stream_check_access(
        &self,
        request: Request<Streaming<StreamCheckAccessRequest>>,
    ) -> Result<Response<Self::StreamCheckAccessStream>, Status> {
        view(&self.memory)?;
        let Ok(permit) = Arc::clone(&self.streams).try_acquire_owned() else {
            let message = "as many stream questions to this instance as may";
            return Err(Refusal::new(Code::ResourceExhausted, reason::STREAMS_EXHAUSTED, message)
                .metadata("check_streams_max", self.limits.check_streams_max)
                .retry_after(RETRY_AFTER_DEFAULT)
                .into());
        };
        let this = self.clone();
        let answers = request.into_inner().map(move |message| {
            // it is the stream's until that ends
            let _permit = &permit;
            let message = message?;
            let answers = this.answer_all(&message.questions, message.with_billed_to)?;
            Ok(StreamCheckAccessResponse { answers })
        });
        Ok(Response::new(answers.take_until(self.stop.clone().cancelled_owned()).boxed()))
    }

    async fn watch_access(
        &self,
        request: Request<WatchAccessRequest>,
    ) -> Result<Response<Self::WatchAccessStream>, Status> {
        let request = request.into_inner();
        let questions = request.questions.len();
        if questions == 0 {
            let mut violations = Violations::new();
            violations.push("questions", "must hold at least 1");
            violations.check(reason::REQUEST_INVALID)?;
        }
        if questions > self.limits.watch_questions_max {
            return Err(too_many(questions, self.limits.watch_questions_max));
        }
        view(&self.memory)?;
        let Ok(permit) = Arc::clone(&self.watchers).try_acquire_owned() else {
            let message = "as many watch access at this instance as may";
            return Err(Refusal::new(Code::ResourceExhausted, reason::WATCHERS_EXHAUSTED, message)
                .metadata("watchers_max", self.limits.watchers_max)
                .retry_after(RETRY_AFTER_DEFAULT)
                .into());
        };
        let watch = Watch::new(Arc::clone(&self.memory), self.limits, request, permit);
        let messages = watch.messages().take_until(self.stop.clone().cancelled_owned());
        Ok(Response::new(messages.boxed()))
    }
}
