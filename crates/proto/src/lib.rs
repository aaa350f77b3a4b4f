//! The contracts of `proto/`, generated, and the conversions of scalars that all of them share.
//!
//! Nothing here knows a rule: messages become checked values in the `decode` modules of the services.

/// Contracts of the metering service.
pub mod metering {
    /// Version 1.
    #[expect(
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::too_many_lines,
        reason = "generated"
    )]
    pub mod v1 {
        tonic::include_proto!("drawdown.metering.v1");
    }
}

/// Contracts of the ledger service.
pub mod ledger {
    /// Version 1.
    #[expect(
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::too_many_lines,
        reason = "generated"
    )]
    pub mod v1 {
        tonic::include_proto!("drawdown.ledger.v1");
    }
}

/// Contracts of the entitlement service.
pub mod entitlement {
    /// Version 1.
    #[expect(
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::too_many_lines,
        reason = "generated"
    )]
    pub mod v1 {
        tonic::include_proto!("drawdown.entitlement.v1");
    }
}

/// Contracts of CloudEvents, which others made.
pub mod io {
    /// CloudEvents.
    pub mod cloudevents {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("io.cloudevents.v1");
        }
    }
}

pub mod scalar;

/// All contracts with their comments, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));
