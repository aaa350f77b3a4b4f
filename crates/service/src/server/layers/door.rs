//! Calls over HTTP become gRPC calls before every other layer, and their answers JSON after it.

use http::Request;
use tonic::body::Body;

use super::{Policy, Reply};
use crate::json::Door;

impl Policy for Door {
    fn apply(
        &self,
        request: Request<Body>,
        next: impl FnOnce(Request<Body>) -> Reply + Send + 'static,
    ) -> Reply {
        if Self::is_grpc(request.headers()) {
            return next(request);
        }
        let door = self.clone();
        Box::pin(async move { door.answer(request, next).await })
    }
}
