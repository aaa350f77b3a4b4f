//! Outcomes as statuses. Exhaustive on purpose: a new outcome has to be given its code here.

use drawdown_service::{Code, Refusal, refusal};
use tonic::Status;

use crate::{
    error::Error,
    metrics::Metrics,
    posting::{Fault, PostError},
};

/// A failed call. Refusals are the caller's; the rest is logged here, once.
pub(super) fn of(error: Error, metrics: &Metrics) -> Status {
    match error {
        Error::Refused(refusal) => Status::from(*refusal),
        error @ (Error::Transient(_) | Error::Peer { .. }) => {
            metrics.failure(&error);
            refusal::unavailable(error)
        }
        error @ (Error::Permanent(_) | Error::Stored { .. } | Error::Broken(_)) => refusal::internal(error),
    }
}

/// A post that did not happen.
pub(super) fn of_post(error: PostError, metrics: &Metrics) -> Status {
    match error {
        PostError::Refused(fault) => of_fault(&fault).into(),
        // The post was counted with its outcome already; a deadlock must not be counted twice.
        PostError::Failed(error @ (Error::Transient(_) | Error::Peer { .. })) => refusal::unavailable(error),
        PostError::Failed(error) => of(error, metrics),
    }
}

/// The gate's refusals. None of them says "try the same again": the worker reads anew and decides.
fn of_fault(fault: &Fault) -> Refusal {
    let code = match fault {
        Fault::TotalsMismatch { .. } => Code::InvalidArgument,
        Fault::ShardUnknown { .. }
        | Fault::Conflict { .. }
        | Fault::NotNext { .. }
        | Fault::GenerationStale
        | Fault::LaneUnknown(_)
        | Fault::LaneGap { .. }
        | Fault::LaneDiverged(_)
        | Fault::CellMismatch { .. } => Code::FailedPrecondition,
    };
    let refusal = Refusal::new(code, fault.reason(), fault.to_string());
    match fault {
        Fault::LaneUnknown(key) | Fault::LaneGap { key, .. } | Fault::LaneDiverged(key) => {
            refusal.metadata("producer_id", key.producer_id).metadata("map_version", key.map_version)
        }
        Fault::ShardUnknown { .. }
        | Fault::Conflict { .. }
        | Fault::NotNext { .. }
        | Fault::GenerationStale
        | Fault::CellMismatch { .. }
        | Fault::TotalsMismatch { .. } => refusal,
    }
}
