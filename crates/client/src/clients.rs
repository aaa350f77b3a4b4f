//! Generated clients over a [`Channel`], each with the same message limit in both directions.
//!
//! A limit set in one place: a client made elsewhere would fall back to 4 MiB and refuse the batches
//! that its peer may send.

/// Clients of the ledger.
pub mod ledger {
    use drawdown_proto::ledger::v1::{
        audit_service_client::AuditServiceClient, budget_service_client::BudgetServiceClient,
        catalog_service_client::CatalogServiceClient, correction_service_client::CorrectionServiceClient,
        event_service_client::EventServiceClient, explain_service_client::ExplainServiceClient,
        hold_service_client::HoldServiceClient, import_service_client::ImportServiceClient,
        lot_service_client::LotServiceClient, notice_service_client::NoticeServiceClient,
        posting_service_client::PostingServiceClient, report_service_client::ReportServiceClient,
        review_service_client::ReviewServiceClient, settlement_service_client::SettlementServiceClient,
        standing_service_client::StandingServiceClient, token_service_client::TokenServiceClient,
        what_if_service_client::WhatIfServiceClient,
    };

    use crate::channel::{Channel, MESSAGE_BYTES_MAX, Transport};

    /// What was done and by whom.
    #[must_use]
    pub fn audit(channel: &Channel) -> AuditServiceClient<Transport> {
        AuditServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Charges that are taken back.
    #[must_use]
    pub fn corrections(channel: &Channel) -> CorrectionServiceClient<Transport> {
        CorrectionServiceClient::new(channel.unary())
    }

    /// Events by id.
    #[must_use]
    pub fn events(channel: &Channel) -> EventServiceClient<Transport> {
        EventServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Tokens set aside ahead of use.
    #[must_use]
    pub fn hold(channel: &Channel) -> HoldServiceClient<Transport> {
        HoldServiceClient::new(channel.unary())
    }

    /// Lots and debts of another platform.
    #[must_use]
    pub fn import(channel: &Channel) -> ImportServiceClient<Transport> {
        ImportServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Lots after they were made.
    #[must_use]
    pub fn lot(channel: &Channel) -> LotServiceClient<Transport> {
        LotServiceClient::new(channel.unary())
    }

    /// Lots, balances, charges, journal.
    #[must_use]
    pub fn token(channel: &Channel) -> TokenServiceClient<Transport> {
        TokenServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Everything that was posted, from a cursor on.
    #[must_use]
    pub fn postings(channel: &Channel) -> PostingServiceClient<Transport> {
        PostingServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Why something in the books is as it is.
    #[must_use]
    pub fn explain(channel: &Channel) -> ExplainServiceClient<Transport> {
        ExplainServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Sums of usage, statements, forecasts.
    #[must_use]
    pub fn reports(channel: &Channel) -> ReportServiceClient<Transport> {
        ReportServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Long lists, without a deadline.
    #[must_use]
    pub fn report_streams(channel: &Channel) -> ReportServiceClient<Transport> {
        ReportServiceClient::new(channel.streaming())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What a gate has to know of teams, page by page: a page is as large as its rows.
    #[must_use]
    pub fn standings(channel: &Channel) -> StandingServiceClient<Transport> {
        StandingServiceClient::new(channel.unary()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The same as it changes: a stream without an end.
    #[must_use]
    pub fn standing_changes(channel: &Channel) -> StandingServiceClient<Transport> {
        StandingServiceClient::new(channel.streaming()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Decisions about usage that no team could be charged for.
    #[must_use]
    pub fn review(channel: &Channel) -> ReviewServiceClient<Transport> {
        ReviewServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Meters and rate cards.
    #[must_use]
    pub fn catalog(channel: &Channel) -> CatalogServiceClient<Transport> {
        CatalogServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Budgets of teams and apps.
    #[must_use]
    pub fn budget(channel: &Channel) -> BudgetServiceClient<Transport> {
        BudgetServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Lists of facts that others react to, under the channel's deadline.
    #[must_use]
    pub fn notice(channel: &Channel) -> NoticeServiceClient<Transport> {
        NoticeServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The stream of facts, without a deadline.
    #[must_use]
    pub fn notice_stream(channel: &Channel) -> NoticeServiceClient<Transport> {
        NoticeServiceClient::new(channel.streaming())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Past months by other prices.
    #[must_use]
    pub fn what_if(channel: &Channel) -> WhatIfServiceClient<Transport> {
        WhatIfServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Batches, cursors, producers.
    #[must_use]
    pub fn settlement(channel: &Channel) -> SettlementServiceClient<Transport> {
        SettlementServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// Clients of entitlement.
pub mod entitlement {
    use drawdown_proto::entitlement::v1::{
        access_service_client::AccessServiceClient, account_service_client::AccountServiceClient,
        credential_service_client::CredentialServiceClient, hierarchy_service_client::HierarchyServiceClient,
        history_service_client::HistoryServiceClient, hub_service_client::HubServiceClient,
        import_service_client::ImportServiceClient, member_service_client::MemberServiceClient,
        principal_service_client::PrincipalServiceClient, resolution_service_client::ResolutionServiceClient,
        transfer_service_client::TransferServiceClient,
    };

    use crate::channel::{Channel, MESSAGE_BYTES_MAX, Transport};

    /// Whether a client id may use a meter now, a call at a time.
    #[must_use]
    pub fn access(channel: &Channel) -> AccessServiceClient<Transport> {
        AccessServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The same as streams, which live as long as both sides want.
    #[must_use]
    pub fn access_streams(channel: &Channel) -> AccessServiceClient<Transport> {
        AccessServiceClient::new(channel.streaming())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Accounts, teams, users, apps, credentials.
    #[must_use]
    pub fn hierarchy(channel: &Channel) -> HierarchyServiceClient<Transport> {
        HierarchyServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Suspension, trial, contract.
    #[must_use]
    pub fn accounts(channel: &Channel) -> AccountServiceClient<Transport> {
        AccountServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Rotation and revocation.
    #[must_use]
    pub fn credentials(channel: &Channel) -> CredentialServiceClient<Transport> {
        CredentialServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// People, roles, product assignments.
    #[must_use]
    pub fn members(channel: &Channel) -> MemberServiceClient<Transport> {
        MemberServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Explanations, scheduled changes, corrections, the audit log.
    #[must_use]
    pub fn histories(channel: &Channel) -> HistoryServiceClient<Transport> {
        HistoryServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Hubs, and which app is in which.
    #[must_use]
    pub fn hubs(channel: &Channel) -> HubServiceClient<Transport> {
        HubServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Moving here from another platform.
    #[must_use]
    pub fn imports(channel: &Channel) -> ImportServiceClient<Transport> {
        ImportServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Programs that call, and their keys.
    #[must_use]
    pub fn principals(channel: &Channel) -> PrincipalServiceClient<Transport> {
        PrincipalServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Handing apps to other owners.
    #[must_use]
    pub fn transfers(channel: &Channel) -> TransferServiceClient<Transport> {
        TransferServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Who pays for a client id at an instant.
    #[must_use]
    pub fn resolution(channel: &Channel) -> ResolutionServiceClient<Transport> {
        ResolutionServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// Clients of metering.
pub mod metering {
    use drawdown_proto::metering::v1::{
        ingest_service_client::IngestServiceClient, record_service_client::RecordServiceClient,
        usage_service_client::UsageServiceClient,
    };

    use crate::channel::{Channel, MESSAGE_BYTES_MAX, Transport};

    /// `OpenProducer`, under the channel's deadline.
    #[must_use]
    pub fn producers(channel: &Channel) -> IngestServiceClient<Transport> {
        IngestServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The stream of frames, without a deadline.
    #[must_use]
    pub fn ingest(channel: &Channel) -> IngestServiceClient<Transport> {
        IngestServiceClient::new(channel.streaming())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Events by id, answered when they are settled.
    #[must_use]
    pub fn record(channel: &Channel) -> RecordServiceClient<Transport> {
        RecordServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Usage that is not settled yet, and the state of the shards.
    #[must_use]
    pub fn usage(channel: &Channel) -> UsageServiceClient<Transport> {
        UsageServiceClient::new(channel.unary())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The stream of changes of usage that is not settled, without a deadline.
    #[must_use]
    pub fn usage_stream(channel: &Channel) -> UsageServiceClient<Transport> {
        UsageServiceClient::new(channel.streaming())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}
