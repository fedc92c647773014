//! DNS: TXT records of handles, and the addresses of hosts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError as HickoryError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use tokio::sync::Semaphore;

use super::address;
use super::error::{DnsError, NetError, Refusal, SettingsError};
use super::policy::{self, Trust};

/// Time limit of one question to one name server, which is asked twice.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(3);

/// Time limit of a whole look-up, including all servers and attempts.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(7);

/// Concurrent questions. Further ones wait within [`LOOKUP_TIMEOUT`].
const MAX_QUESTIONS: usize = 128;

/// Most TXT records of one name; more are a failure. Reading only some of them could hide that they
/// contradict each other.
const MAX_TXT_RECORDS: usize = 64;

/// Longest TXT value read, in bytes: a DID of full length with room to spare.
const MAX_TXT_LEN: usize = 4096;

/// Wait for IPv6 addresses after IPv4 addresses have come. RFC 8305 section 3 with the families
/// swapped, since most servers have IPv4.
const SECOND_FAMILY_DELAY: Duration = Duration::from_millis(50);

/// Most addresses of one name.
const MAX_ADDRESSES: usize = 16;

/// Looks up names. Caches nothing: a new record must be seen at once, and the system's name server
/// caches by time to live already.
#[derive(Clone)]
pub(super) struct DnsResolver {
    resolver: TokioResolver,
    questions: Arc<Semaphore>,
    development: bool,
}

impl DnsResolver {
    pub(super) fn bind(
        name_server: Option<SocketAddr>,
        development: bool,
    ) -> Result<Self, SettingsError> {
        let (config, mut options) = match name_server {
            Some(address) => (one_server(address), Default::default()),
            // Without `resolv.conf` this machine, like the C library.
            None => read_system_conf().unwrap_or_else(|_| {
                let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
                (one_server(local), Default::default())
            }),
        };
        options.timeout = QUESTION_TIMEOUT;
        options.attempts = 1;
        options.cache_size = 0;
        options.max_active_requests = MAX_QUESTIONS;
        // An entry of the machine's hosts file would hide the answer of the configured server.
        if name_server.is_some() {
            options.use_hosts_file = ResolveHosts::Never;
        }
        let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(SettingsError::NameServer)?;
        Ok(Self {
            resolver,
            questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
            development,
        })
    }

    /// Returns the TXT records of `name`, the character strings of each joined.
    pub(super) async fn txt(&self, name: &str) -> Result<Vec<String>, DnsError> {
        let lookup = async {
            let _permit = self.questions.acquire().await.ok();
            self.resolver.txt_lookup(absolute(name)).await
        };
        let answer = match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) if e.is_no_records_found() => return Err(DnsError::NoRecords),
            Ok(Err(_)) | Err(_) => return Err(DnsError::Failed),
        };
        let mut records = Vec::new();
        for record in answer.answers() {
            let RData::TXT(txt) = &record.data else {
                continue;
            };
            if records.len() == MAX_TXT_RECORDS {
                return Err(DnsError::Failed);
            }
            let joined = txt.txt_data.concat();
            match String::from_utf8(joined) {
                Ok(text) if text.len() <= MAX_TXT_LEN => records.push(text),
                _ => {}
            }
        }
        if records.is_empty() {
            return Err(DnsError::NoRecords);
        }
        Ok(records)
    }

    /// Returns the addresses of `host` that may be dialled under `trust`; never an empty list.
    /// Connections must use exactly these: another look-up could return others.
    pub(super) async fn addresses(
        &self,
        host: &str,
        trust: Trust,
    ) -> Result<Vec<IpAddr>, NetError> {
        let host = host.trim_end_matches('.');
        let found = if policy::is_localhost(host) {
            // IPv4 first: most servers for this machine alone listen there.
            vec![
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ]
        } else {
            match trust {
                Trust::Configured => system_lookup(host).await?,
                Trust::Untrusted => self.lookup(host).await?,
            }
        };
        if found.is_empty() {
            return Err(NetError::NoSuchHost);
        }
        if trust == Trust::Configured {
            return Ok(found);
        }
        let allowed: Vec<IpAddr> = found
            .into_iter()
            .filter(|ip| address::is_allowed(*ip, self.development))
            .collect();
        if allowed.is_empty() {
            return Err(NetError::Refused(Refusal::Address));
        }
        Ok(allowed)
    }

    /// Looks up addresses of both families. The host has no address only where both answers say
    /// so; a failed answer leaves it open.
    async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, NetError> {
        let both = async {
            let _permit = self.questions.acquire().await.ok();
            let v4 = self.resolver.lookup(absolute(host), RecordType::A);
            let v6 = self.resolver.lookup(absolute(host), RecordType::AAAA);
            match select(Box::pin(v4), Box::pin(v6)).await {
                // IPv4 suffices: a name server that is slow with the other family must not delay
                // the connection.
                Either::Left((Ok(v4), v6)) => {
                    let v6 = tokio::time::timeout(SECOND_FAMILY_DELAY, v6).await;
                    (Ok(v4), v6.unwrap_or(Err(HickoryError::Timeout)))
                }
                Either::Left((v4, v6)) => (v4, v6.await),
                Either::Right((v6, v4)) => (v4.await, v6),
            }
        };
        let (v4, v6) = tokio::time::timeout(LOOKUP_TIMEOUT, both)
            .await
            .map_err(|_| NetError::Timeout)?;
        let mut found = Vec::new();
        let mut failed = false;
        for answer in [v4, v6] {
            match answer {
                Ok(answer) => found.extend(
                    answer
                        .answers()
                        .iter()
                        .filter_map(|record| record.data.ip_addr()),
                ),
                Err(e) => failed |= !e.is_no_records_found(),
            }
        }
        found.truncate(MAX_ADDRESSES);
        match (found.is_empty(), failed) {
            (false, _) => Ok(found),
            (true, false) => Err(NetError::NoSuchHost),
            (true, true) => Err(NetError::Connect),
        }
    }
}

/// Looks up a configured name by the system: the name may stand in a hosts file or be known to a
/// container's resolver only.
async fn system_lookup(host: &str) -> Result<Vec<IpAddr>, NetError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    tokio::net::lookup_host((host, 0))
        .await
        .map(|found| found.take(MAX_ADDRESSES).map(|a| a.ip()).collect())
        .map_err(|_| NetError::NoSuchHost)
}

/// Appends a dot, so that the machine's search list is not applied to names that others chose.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

fn one_server(address: SocketAddr) -> ResolverConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
        .into_iter()
        .map(|mut connection| {
            connection.port = address.port();
            connection
        })
        .collect();
    ResolverConfig::from_name_servers(vec![NameServerConfig::new(address.ip(), true, connections)])
}
