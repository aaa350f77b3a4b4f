//! A scrape page, read as Prometheus reads it.

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Pages are far smaller.
const PAGE_BYTES_MAX: u64 = 4 << 20;

/// The text of `<address>/metrics`, where the address is `http://host:port`.
///
/// # Errors
/// Where the page is not served.
pub async fn page(address: &str) -> Result<String> {
    let host = address.strip_prefix("http://").context("not an http address")?;
    let mut stream = TcpStream::connect(host).await.with_context(|| host.to_owned())?;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(PAGE_BYTES_MAX).read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the head")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    ensure!(!head.to_lowercase().contains("transfer-encoding"), "the page comes in chunks");
    Ok(body.to_owned())
}

/// The sum of a metric's values over all labels; `None` where the page has none.
#[must_use]
pub fn sum(page: &str, metric: &str) -> Option<f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let values = lines.filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let name = series.split('{').next()?;
        (name == metric).then(|| value.parse::<f64>().ok())?
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}
