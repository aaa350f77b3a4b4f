//! Calls over HTTP become gRPC calls before every other layer, and their answers JSON after it. As the outermost of the layers
//! this one notes when a call came.

use http::Request;
use tonic::body::Body;

use super::{
    Policy, Reply,
    deadline::{self, Arrived},
};
use crate::json::Door;

impl Policy for Door {
    fn apply(
        &self,
        mut request: Request<Body>,
        next: impl FnOnce(Request<Body>) -> Reply + Send + 'static,
    ) -> Reply {
        // here and not in the future below: the transport starts its timer as soon as this returns
        let arrived = Arrived::now();
        request.extensions_mut().insert(arrived);
        if Self::is_grpc(request.headers()) {
            return next(request);
        }
        let door = self.clone();
        let asked = deadline::asked(arrived, request.headers());
        Box::pin(async move {
            let answered = door.answer(request, next);
            let Some((due, limit)) = asked else { return answered.await };
            // the layer inside answers first; this is for the time after it, in which a long answer becomes JSON
            match tokio::time::timeout_at(due, answered).await {
                Ok(response) => response,
                Err(_) => door.refused(deadline::exceeded(limit)),
            }
        })
    }
}
