//! Calls over HTTP that a service reads itself, such as events in a form of others: inside of every layer they are calls of
//! the method that they stand for; here, innermost, they get their own path back.
//!
//! Their answers are given a status of gRPC, by which the layers count them; the door takes it off again.

use http::{HeaderValue, Request, header::HeaderName};
use tonic::body::Body;

use super::{Policy, Reply};
use crate::json::{OwnAnswer, OwnPath, grpc_code};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");

#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Own;

impl Policy for Own {
    fn apply(
        &self,
        mut request: Request<Body>,
        next: impl FnOnce(Request<Body>) -> Reply + Send + 'static,
    ) -> Reply {
        let Some(OwnPath(uri)) = request.extensions_mut().remove::<OwnPath>() else { return next(request) };
        *request.uri_mut() = uri;
        let answered = next(request);
        Box::pin(async move {
            let mut response = answered.await;
            let code = HeaderValue::from(i32::from(grpc_code(response.status())));
            response.headers_mut().insert(STATUS, code);
            response.extensions_mut().insert(OwnAnswer);
            response
        })
    }
}
