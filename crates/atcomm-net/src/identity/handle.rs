//! Resolving a handle to the DID that its owner names.
//!
//! Source: atproto handle specification, "Handle resolution".

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use url::Url;

use super::lookups::{ByteSize, Fetched};
use super::settings::IdentitySettings;
use crate::net::{DnsError, Net, NetError, Priority, Request, Trust};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::syntax::{Did, Handle, trimmed};

/// Longest body of the well-known page, in bytes: a DID of full length.
const MAX_WELL_KNOWN_LEN: usize = 2048;

/// Redirects followed for the well-known page, as the atproto handle specification allows.
const MAX_REDIRECTS: u8 = 3;

/// Errors of resolving a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// DNS and HTTPS answered, and neither names a DID.
    #[error("the handle names no account")]
    NotFound,
    /// DNS names several different DIDs.
    #[error("the handle names several accounts")]
    Ambiguous,
    /// No reliable answer came. A later look-up may succeed.
    #[error("the handle cannot be looked up now")]
    Unreachable,
    /// Its top-level domain is never resolved.
    #[error("handles under this top-level domain are not resolved")]
    NotResolvable,
}

/// The DID that a handle names, or the reason why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HandleAnswer {
    pub(super) named: Result<Did, HandleError>,
    /// When DNS and HTTPS were asked.
    pub(super) asked_at: Timestamp,
    /// The time to wait, where only a limit of ours, or a pause that the host asked for, kept the
    /// handle from being looked up. Nothing was found out about the handle then.
    pub(super) retry_after: Option<Duration>,
}

/// Asks DNS and HTTPS concurrently. DNS takes precedence, and its answer ends the wait for HTTPS.
pub(super) async fn resolve(
    net: &Net,
    clock: &Clock,
    handle: &Handle,
    priority: Priority,
) -> HandleAnswer {
    let asked_at = clock.now();
    let dns = pin!(by_dns(net, handle));
    let https = pin!(by_https(net, handle, priority));
    let (dns, https) = match select(dns, https).await {
        Either::Left((dns @ (Ok(_) | Err(HandleError::Ambiguous)), _)) => {
            return HandleAnswer {
                named: dns,
                asked_at,
                retry_after: None,
            };
        }
        Either::Left((dns, https)) => (dns, https.await),
        Either::Right((https, dns)) => (dns.await, https),
    };
    let (https, retry_after) = https;
    HandleAnswer {
        asked_at,
        retry_after: retry_after.filter(|_| dns == Err(HandleError::NotFound)),
        named: combine(dns, https),
    }
}

fn combine(
    dns: Result<Did, HandleError>,
    https: Result<Did, HandleError>,
) -> Result<Did, HandleError> {
    match (dns, https) {
        (Ok(did), _) | (Err(HandleError::NotFound | HandleError::Unreachable), Ok(did)) => Ok(did),
        (Err(HandleError::NotFound), Err(https)) => Err(https),
        (Err(dns), _) => Err(dns),
    }
}

async fn by_dns(net: &Net, handle: &Handle) -> Result<Did, HandleError> {
    match net.txt(&format!("_atproto.{handle}")).await {
        Ok(records) => read_txt(&records),
        Err(DnsError::NoRecords) => Err(HandleError::NotFound),
        Err(DnsError::Failed) => Err(HandleError::Unreachable),
    }
}

/// Returns the one DID that the records name. Records of other purposes are ignored. The same value
/// with and without white space or the quotes of a zone file is one value; a value that is no DID
/// still contradicts another one.
fn read_txt(records: &[String]) -> Result<Did, HandleError> {
    let unquoted = |record: &'_ String| -> String {
        let record = trimmed(record);
        let inner = record.strip_prefix('"').and_then(|r| r.strip_suffix('"'));
        trimmed(inner.unwrap_or(record)).to_owned()
    };
    let records: Vec<String> = records.iter().map(unquoted).collect();
    let mut named = records
        .iter()
        .filter_map(|record| record.strip_prefix("did="))
        .map(trimmed);
    let first = named.next().ok_or(HandleError::NotFound)?;
    if named.any(|other| other != first) {
        return Err(HandleError::Ambiguous);
    }
    Did::parse(first).map_err(|_| HandleError::NotFound)
}

/// Asks the well-known page. Returns with a failure the time to wait where the page was not asked
/// at all.
async fn by_https(
    net: &Net,
    handle: &Handle,
    priority: Priority,
) -> (Result<Did, HandleError>, Option<Duration>) {
    let port = net.https_port();
    let url = format!("https://{handle}:{port}/.well-known/atproto-did");
    let Ok(url) = Url::parse(&url) else {
        return (Err(HandleError::NotFound), None);
    };
    let request = Request {
        priority,
        accept: Some("text/plain"),
        redirects: MAX_REDIRECTS,
        ..Request::new(url, Trust::Untrusted, MAX_WELL_KNOWN_LEN)
    };
    let named = match net.get(&request).await {
        Ok(answer) if answer.status == 200 => read_page(&answer.body),
        // Overload and faults of the server say nothing about the handle.
        Ok(answer) if matches!(answer.status.as_u16(), 408 | 425 | 429 | 500..) => {
            Err(HandleError::Unreachable)
        }
        Ok(_)
        | Err(
            NetError::NoSuchHost
            | NetError::Refused(_)
            | NetError::TooLarge { .. }
            | NetError::Protocol(_),
        ) => Err(HandleError::NotFound),
        Err(NetError::HostBusy { retry_after }) => {
            return (Err(HandleError::Unreachable), Some(retry_after));
        }
        Err(_) => Err(HandleError::Unreachable),
    };
    (named, None)
}

/// Returns the DID on the first line of the well-known page, as other readers take it.
fn read_page(body: &[u8]) -> Result<Did, HandleError> {
    let text = std::str::from_utf8(body).map_err(|_| HandleError::NotFound)?;
    let first = trimmed(text).lines().next().unwrap_or_default();
    Did::parse(trimmed(first)).map_err(|_| HandleError::NotFound)
}

impl IdentitySettings {
    /// Adds the limits of age to the result of resolving a handle.
    pub(super) fn handles_age(&self, value: HandleAnswer) -> Fetched<HandleAnswer> {
        let ttl = match &value.named {
            Ok(_) => self.handle_ttl,
            // Half a minute spares a failing host and does not lock its accounts out for long. A
            // limit of ours passes sooner.
            Err(HandleError::Unreachable) => {
                let ttl = self.handle_ttl.min(Duration::from_secs(30));
                value.retry_after.map_or(ttl, |wait| wait.min(ttl))
            }
            Err(_) => self.handle_invalid_ttl,
        };
        Fetched {
            value,
            fresh: ttl,
            usable: ttl,
            transient: false,
        }
    }
}

impl ByteSize for HandleAnswer {
    fn bytes(&self) -> usize {
        self.named.as_ref().map_or(0, |did| did.as_str().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
    const B: &str = "did:plc:z72i7hdynmk6r22z27h6tvur";

    #[test]
    fn txt_names_one_did() {
        let read = |records: &[&str]| {
            let records: Vec<String> = records.iter().map(|r| (*r).to_owned()).collect();
            read_txt(&records).map(|did| did.to_string())
        };
        let (a, b) = (&*format!("did={A}"), &*format!("did={B}"));
        assert_eq!(read(&[a]).unwrap(), A);
        assert_eq!(read(&["v=spf1 -all", a, a]).unwrap(), A);
        assert_eq!(read(&[a, b]), Err(HandleError::Ambiguous));
        assert_eq!(read(&[a, "did=did:plc:x"]), Err(HandleError::Ambiguous));
        assert_eq!(read(&["did=did:key:z6Mk"]), Err(HandleError::NotFound));
        assert_eq!(read(&[A, "did=", "DID=x"]), Err(HandleError::NotFound));
        assert_eq!(read(&[]), Err(HandleError::NotFound));
        // One value in several spellings is one value.
        let quoted = format!("\"{a}\"");
        for other in [
            format!("{a} "),
            format!(" did= {A}\r\n"),
            format!("\u{feff}{a}\u{200b}"),
            quoted.clone(),
            format!("\" did={A}\t\""),
        ] {
            assert_eq!(read(&[&other]).as_deref(), Ok(A), "{other:?}");
            assert_eq!(read(&[a, &other, &quoted]).as_deref(), Ok(A), "{other:?}");
            assert_eq!(read(&[b, &other]), Err(HandleError::Ambiguous), "{other:?}");
        }
        // A DID keeps its letters: another case is another text.
        let shouted = format!("did={}", A.to_uppercase());
        assert_eq!(read(&[&shouted]), Err(HandleError::NotFound));
        assert_eq!(read(&[a, &shouted]), Err(HandleError::Ambiguous));
    }

    #[test]
    fn the_page_has_a_did_on_its_first_line() {
        let read = |page: &str| read_page(page.as_bytes()).map(|did| did.to_string());
        for page in [
            A.to_owned(),
            format!("{A}\n"),
            format!("\u{feff}{A}\r\n"),
            format!(" \n\t{A} \u{a0}\n\n"),
            format!("{A}\r\n# made by hand\r\n"),
        ] {
            assert_eq!(read(&page).as_deref(), Ok(A), "{page:?}");
        }
        for page in [
            String::new(),
            format!("did={A}"),
            format!("{A} {B}"),
            format!("# made by hand\n{A}"),
            A.to_uppercase(),
            format!("<html>{A}</html>"),
        ] {
            assert_eq!(read(&page), Err(HandleError::NotFound), "{page:?}");
        }
        assert_eq!(read_page(b"\xff"), Err(HandleError::NotFound));
    }

    #[test]
    fn dns_takes_precedence_and_a_failure_is_not_an_absence() {
        use HandleError::*;
        let (a, b) = (Did::parse(A).unwrap(), Did::parse(B).unwrap());
        assert_eq!(combine(Ok(a.clone()), Ok(b.clone())), Ok(a));
        assert_eq!(combine(Err(NotFound), Ok(b.clone())), Ok(b.clone()));
        assert_eq!(combine(Err(Unreachable), Ok(b.clone())), Ok(b.clone()));
        assert_eq!(combine(Err(Ambiguous), Ok(b)), Err(Ambiguous));
        assert_eq!(combine(Err(NotFound), Err(NotFound)), Err(NotFound));
        assert_eq!(combine(Err(Unreachable), Err(NotFound)), Err(Unreachable));
        assert_eq!(combine(Err(NotFound), Err(Unreachable)), Err(Unreachable));
    }
}
