//! A naive ledger, catalogue and entitlement in one, as tests hold it: what it knows, and how it misbehaves.
//!
//! What is committed, and the checks that come before, are in `state`; the calls that metering makes are in `services`.

mod services;
mod state;

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use drawdown_proto::{
    entitlement::v1::resolution_service_server::ResolutionServiceServer,
    ledger::v1::{
        Aggregation, Meter, catalog_service_server::CatalogServiceServer,
        event_service_server::EventServiceServer, settlement_service_server::SettlementServiceServer,
    },
};
use drawdown_types::ProducerId;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;

pub(crate) use self::state::{Booked, Series, State, Sums};
use crate::book::Book;

/// How posts are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As specified.
    #[default]
    Open,
    /// Not answered.
    Down,
    /// Nothing at all is answered.
    Gone,
    /// Committed, and the reply is lost.
    ReplyLost,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    mode: Mutex<Mode>,
    /// Producers whose ranges are refused, whatever they are.
    poison: Mutex<HashSet<String>>,
    resets: Mutex<u64>,
    posts: Mutex<u64>,
    /// Readings of the catalogue.
    readings: Mutex<u64>,
    /// Lanes of the last answer with cursors.
    lanes_told: Mutex<usize>,
    posted: Notify,
    book: Mutex<Book>,
}

/// The fake; a clone is the same one.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Shared>);

impl Gate {
    /// Serves at a free port.
    pub(crate) async fn serve(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(SettlementServiceServer::new(self.clone()).max_decoding_message_size(64 << 20))
            .add_service(CatalogServiceServer::new(self.clone()))
            .add_service(EventServiceServer::new(self.clone()))
            .add_service(ResolutionServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        *self.0.mode.lock().unwrap() = mode;
    }

    pub(crate) fn mode(&self) -> Mode {
        *self.0.mode.lock().unwrap()
    }

    /// How often the catalogue was read.
    pub(crate) fn readings(&self) -> u64 {
        *self.0.readings.lock().unwrap()
    }

    /// What is known of events by id.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap()
    }

    pub(crate) fn poison(&self, producer: ProducerId) {
        self.0.poison.lock().unwrap().insert(producer.to_string());
    }

    pub(crate) fn meter(&self, slug: &str, aggregation: Aggregation, dimensions: &[&str]) {
        let meter = Meter {
            slug: slug.to_owned(),
            aggregation: aggregation.into(),
            dimensions: dimensions.iter().map(|name| (*name).to_owned()).collect(),
            ..Meter::default()
        };
        self.0.state.lock().unwrap().meters.insert(slug.to_owned(), meter);
    }

    /// A meter that counts the distinct values of a dimension.
    pub(crate) fn unique_meter(&self, slug: &str, dimensions: &[&str], unique: &str) {
        self.meter(slug, Aggregation::Unique, dimensions);
        let mut state = self.0.state.lock().unwrap();
        if let Some(meter) = state.meters.get_mut(slug) {
            meter.unique_dimension = unique.to_owned();
        }
    }

    pub(crate) fn stranger(&self, client_id: &str) {
        self.0.state.lock().unwrap().strangers.insert(client_id.to_owned());
    }

    /// The app that a client id is of.
    pub(crate) fn app(&self, client_id: &str, app_id: &str) {
        self.0.state.lock().unwrap().apps.insert(client_id.to_owned(), app_id.to_owned());
    }

    /// Becomes a cell: the leading one of `others`, or another one.
    pub(crate) fn become_cell(&self, cell: u32, others: &[u32]) {
        let mut state = self.0.state.lock().unwrap();
        (state.cell, state.others) = (cell, others.to_vec());
    }

    /// The account of a client id lives in this cell.
    pub(crate) fn lives_in(&self, client_id: &str, cell: u32) {
        let mut state = self.0.state.lock().unwrap();
        state.strangers.remove(client_id);
        state.elsewhere.insert(client_id.to_owned(), cell);
    }

    pub(crate) fn producer(&self) -> ProducerId {
        let id = ProducerId::generate();
        self.0.state.lock().unwrap().producers.insert(id.to_string(), 0);
        id
    }

    /// What is committed.
    pub(crate) fn state(&self) -> State {
        self.0.state.lock().unwrap().clone()
    }

    /// Back to an older state, as after a restore: every shard gets a new generation first.
    pub(crate) fn restore(&self, mut state: State) {
        state.renew();
        *self.0.state.lock().unwrap() = state;
    }

    pub(crate) fn resets(&self) -> u64 {
        *self.0.resets.lock().unwrap()
    }

    pub(crate) fn lanes_told(&self) -> usize {
        *self.0.lanes_told.lock().unwrap()
    }

    pub(crate) fn posts(&self) -> u64 {
        *self.0.posts.lock().unwrap()
    }

    /// Waits until a post was asked for.
    pub(crate) async fn asked(&self) {
        self.0.posted.notified().await;
    }
}
