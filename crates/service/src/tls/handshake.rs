//! One handshake: over in time, or a reason.

use std::io;

use drawdown_tls::{
    Name, NameError, TlsAcceptor,
    rustls::{AlertDescription, CertificateError, Error, InvalidMessage},
    server::TlsStream,
};
use tokio::net::TcpStream;

use super::keeper::Tls;

/// Why there is no connection: a fixed list, since it labels a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// As many handshakes as may be were under way.
    TooMany,
    /// Not over in time.
    TimedOut,
    /// The other end went away in the middle.
    Truncated,
    /// Something else than TLS.
    NotTls,
    /// An older version of TLS, or nothing in common.
    Incompatible,
    /// No certificate where one is needed.
    NoCertificate,
    /// A certificate of an authority outside of the trust bundle.
    UnknownIssuer,
    /// A certificate that has expired.
    Expired,
    /// A certificate that does not hold yet.
    NotYetValid,
    /// A certificate that is wrong otherwise.
    BadCertificate,
    /// A trusted certificate without the one name that makes a peer.
    Nameless,
    /// The other end refused this one.
    Refused,
    /// Everything else.
    Other,
}

impl Failure {
    pub(super) const ALL: [Self; 13] = [
        Self::TooMany,
        Self::TimedOut,
        Self::Truncated,
        Self::NotTls,
        Self::Incompatible,
        Self::NoCertificate,
        Self::UnknownIssuer,
        Self::Expired,
        Self::NotYetValid,
        Self::BadCertificate,
        Self::Nameless,
        Self::Refused,
        Self::Other,
    ];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::TimedOut => "timed_out",
            Self::Truncated => "truncated",
            Self::NotTls => "not_tls",
            Self::Incompatible => "incompatible",
            Self::NoCertificate => "no_certificate",
            Self::UnknownIssuer => "unknown_issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::BadCertificate => "bad_certificate",
            Self::Nameless => "nameless",
            Self::Refused => "refused",
            Self::Other => "other",
        }
    }

    fn of(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Truncated;
        }
        let tls = error.get_ref().and_then(|source| source.downcast_ref::<Error>());
        match tls {
            None if error.kind() == io::ErrorKind::ConnectionReset => Self::Truncated,
            None => Self::Other,
            Some(error) => Self::of_tls(error),
        }
    }

    fn of_tls(error: &Error) -> Self {
        match error {
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::Incompatible,
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => Self::UnknownIssuer,
            Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => Self::Expired,
            Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            ) => Self::NotYetValid,
            Error::InvalidCertificate(_) => Self::BadCertificate,
            Error::AlertReceived(AlertDescription::CloseNotify) => Self::Truncated,
            Error::AlertReceived(_) => Self::Refused,
            _ => Self::Other,
        }
    }
}

/// Shakes hands over a stream: the connection and the name that came with it. A failure is counted before the stream is
/// closed.
pub(super) async fn shake(
    tls: &Tls,
    stream: TcpStream,
) -> Result<(TlsStream<TcpStream>, Option<Name>), Failure> {
    let failed = |failure: Failure| {
        tls.metrics.failed(failure);
        failure
    };
    let accepting = TlsAcceptor::from(tls.current()).accept(stream).into_fallible();
    let mut accepting = std::pin::pin!(accepting);
    let stream = match tokio::time::timeout(tls.config.handshake_time_max, &mut accepting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, stream))) => {
            tracing::debug!(%error, "handshake failed");
            let failure = failed(Failure::of(&error));
            drop(stream);
            return Err(failure);
        }
        Err(_) => return Err(failed(Failure::TimedOut)),
    };
    // Only a verified chain is here at all.
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let name = certificate.map(Name::of).transpose().map_err(|error: NameError| {
        tracing::debug!(%error, "a trusted certificate names nobody");
        failed(Failure::Nameless)
    })?;
    Ok((stream, name))
}
