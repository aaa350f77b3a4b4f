//! Events by id. The ledgers alone know which ones they have: with several cells the leading one is asked about all, and
//! says which are to be recorded in another.

use std::{collections::BTreeMap, sync::Arc};

use drawdown_client::{Channel, channel::Transport, ledger};
use drawdown_proto::ledger::v1::{
    EventAnswer, RecordEventsRequest, event_service_client::EventServiceClient,
};

use super::Error;

const PEER: &str = "ledger";
const CALL: &str = "RecordEvents";

/// The services of events by id: the leading ledger's, and those of other cells by number.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    leading: EventServiceClient<Transport>,
    others: Arc<BTreeMap<u8, EventServiceClient<Transport>>>,
}

impl Events {
    /// Over channels to all of them.
    #[must_use]
    pub(crate) fn new(leading: &Channel, others: &[(u8, Channel)]) -> Self {
        let others = others.iter().map(|(cell, channel)| (*cell, ledger::events(channel)));
        Self { leading: ledger::events(leading), others: Arc::new(others.collect()) }
    }

    /// The other cells, by number.
    pub(crate) fn cells(&self) -> impl Iterator<Item = u8> + '_ {
        self.others.keys().copied()
    }

    /// Records events with the leading ledger; one answer for each. An error says nothing about the outcome: the same
    /// call may come again.
    pub(crate) async fn record(&self, request: RecordEventsRequest) -> Result<Vec<EventAnswer>, Error> {
        record(&self.leading, request).await
    }

    /// Records events that the leading ledger claimed for another cell; the rest is as with that one.
    pub(crate) async fn record_in(
        &self,
        cell: u32,
        request: RecordEventsRequest,
    ) -> Result<Vec<EventAnswer>, Error> {
        let of_cell = u8::try_from(cell).ok().and_then(|cell| Some((cell, self.others.get(&cell)?)));
        let (cell, client) = of_cell
            .ok_or_else(|| Error::answer(PEER, CALL, format!("cell {cell} is not one of the settings")))?;
        record(client, request).await.map_err(Error::of_cell(cell))
    }
}

async fn record(
    client: &EventServiceClient<Transport>,
    request: RecordEventsRequest,
) -> Result<Vec<EventAnswer>, Error> {
    let count = request.events.len();
    let answer = client.clone().record_events(request).await.map_err(Error::call(PEER, CALL))?;
    let answers = answer.into_inner().answers;
    if answers.len() != count {
        return Err(Error::answer(PEER, CALL, format!("{} answers to {count} events", answers.len())));
    }
    Ok(answers)
}
