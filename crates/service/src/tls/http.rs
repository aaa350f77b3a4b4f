//! The peer in the extensions of each request: of a gRPC call as of one over plain HTTP.

use axum::{
    Router,
    extract::connect_info::{ConnectInfo, Connected, IntoMakeServiceWithConnectInfo},
    serve::IncomingStream,
};
use http::Extensions;

use super::listener::{Connection, Listener};

impl Connected<IncomingStream<'_, Listener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.remote_addr().clone()
    }
}

/// Puts the [`super::Peer`] of the connection, where there is one, beside the [`Connection`] that the transport left.
pub fn reveal(extensions: &mut Extensions) {
    let left = extensions.get::<Connection>();
    let connection = left.or_else(|| extensions.get::<ConnectInfo<Connection>>().map(|info| &info.0));
    if let Some(peer) = connection.and_then(|connection| connection.peer.clone()) {
        extensions.insert(peer);
    }
}

/// Routes for `axum::serve` with a [`Listener`]: each request has its [`Connection`], and its [`super::Peer`] where
/// there is one.
pub fn make_service(router: Router) -> IntoMakeServiceWithConnectInfo<Router, Connection> {
    let revealed =
        router.layer(axum::middleware::map_request(|mut request: axum::extract::Request| async move {
            reveal(request.extensions_mut());
            request
        }));
    revealed.into_make_service_with_connect_info()
}
