//! Events by id. The ledger alone knows which ones it has.

use drawdown_client::{Channel, channel::Transport, ledger};
use drawdown_proto::ledger::v1::{
    EventAnswer, RecordEventsRequest, event_service_client::EventServiceClient,
};

use super::Error;

const PEER: &str = "ledger";
const CALL: &str = "RecordEvents";

/// The ledger's service of events by id.
#[derive(Clone, Debug)]
pub(crate) struct Events(EventServiceClient<Transport>);

impl Events {
    /// Over a channel.
    #[must_use]
    pub(crate) fn new(channel: &Channel) -> Self {
        Self(ledger::events(channel))
    }

    /// Records events; one answer for each. An error says nothing about the outcome: the same call may come again.
    pub(crate) async fn record(&self, request: RecordEventsRequest) -> Result<Vec<EventAnswer>, Error> {
        let count = request.events.len();
        let answer = self.0.clone().record_events(request).await.map_err(Error::call(PEER, CALL))?;
        let answers = answer.into_inner().answers;
        if answers.len() != count {
            return Err(Error::answer(PEER, CALL, format!("{} answers to {count} events", answers.len())));
        }
        Ok(answers)
    }
}
