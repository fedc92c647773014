//! XRPC of `atrium-api` over our own network.

use std::error::Error as StdError;
use std::fmt::Debug;

use atrium_api::xrpc::http::{Request as HttpRequest, Response as HttpResponse};
use atrium_api::xrpc::types::AuthorizationToken;
use atrium_api::xrpc::{Error, HttpClient, OutputDataOrBytes, XrpcClient, XrpcRequest};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;
use zeroize::Zeroizing;

use super::{AccountError, PdsFault};
use crate::wallet::session::Session;
use atcomm_net::net::{Net, Priority, Request, Trust, XrpcError};
use atcomm_proto::syntax::Origin;

/// Longest answer, in bytes: a record with all that surrounds it, or a session with a DID document.
const MAX_ANSWER: usize = 256 * 1024;

/// The XRPC client of one PDS, with or without a session.
pub(super) struct Xrpc {
    net: Net,
    pds: Origin,
    /// Access and refresh token.
    tokens: Option<[Zeroizing<String>; 2]>,
}

impl Xrpc {
    pub(super) fn new(net: &Net, pds: &Origin, session: Option<&Session>) -> Self {
        Self {
            net: net.clone(),
            pds: pds.clone(),
            tokens: session.map(|session| [session.access.clone(), session.refresh.clone()]),
        }
    }

    async fn send(
        &self,
        request: HttpRequest<Vec<u8>>,
    ) -> Result<HttpResponse<Vec<u8>>, AccountError> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(PdsFault::Address)?;
        let mut headers = HeaderMap::new();
        // The network layer sets the media type of requests with a body.
        for (name, value) in parts
            .headers
            .iter()
            .filter(|(name, _)| *name != http::header::CONTENT_TYPE)
        {
            let mut value: HeaderValue = value.clone();
            value.set_sensitive(*name == http::header::AUTHORIZATION);
            headers.insert(name.clone(), value);
        }
        let request = Request {
            priority: Priority::Interactive,
            headers,
            ..Request::new(url, Trust::Untrusted, MAX_ANSWER)
        };
        let answer = match parts.method {
            Method::GET => self.net.get(&request).await,
            _ if body.is_empty() => self.net.post_nothing(&request).await,
            _ => {
                self.net
                    .post(&request, "application/json", Bytes::from(body))
                    .await
            }
        }?;
        if !answer.status.is_success() {
            return Err(XrpcError::of(&answer).into());
        }
        let mut response = HttpResponse::new(answer.body.to_vec());
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

impl HttpClient for Xrpc {
    async fn send_http(
        &self,
        request: HttpRequest<Vec<u8>>,
    ) -> Result<HttpResponse<Vec<u8>>, Box<dyn StdError + Send + Sync + 'static>> {
        Ok(self.send(request).await?)
    }
}

impl XrpcClient for Xrpc {
    fn base_uri(&self) -> String {
        self.pds.to_string()
    }

    async fn authorization_token(&self, is_refresh: bool) -> Option<AuthorizationToken> {
        let [access, refresh] = self.tokens.as_ref()?;
        let token = if is_refresh { refresh } else { access };
        Some(AuthorizationToken::Bearer(token.to_string()))
    }
}

/// Sends a query whose answer is read as `O`.
pub(super) async fn query<P, O>(xrpc: &Xrpc, nsid: &str, parameters: P) -> Result<O, AccountError>
where
    P: Serialize + Send + Sync,
    O: DeserializeOwned + Send + Sync,
{
    let request = XrpcRequest {
        method: Method::GET,
        nsid: nsid.to_owned(),
        parameters: Some(parameters),
        input: None,
        encoding: None,
    };
    let answer = xrpc
        .send_xrpc::<_, (), O, ()>(&request)
        .await
        .map_err(lifted)?;
    match answer {
        OutputDataOrBytes::Data(data) => Ok(data),
        OutputDataOrBytes::Bytes(_) => Err(PdsFault::NotJson.into()),
    }
}

/// Finds our own error under the library's.
pub(super) fn lifted<E: Debug>(error: Error<E>) -> AccountError {
    let fault = match error {
        Error::HttpClient(error) => match error.downcast::<AccountError>() {
            Ok(own) => return *own,
            Err(other) => PdsFault::Library(other.to_string()),
        },
        // The library's text may repeat a token.
        Error::SerdeJson(error) => PdsFault::Json {
            line: error.line(),
            column: error.column(),
        },
        Error::UnexpectedResponseType => PdsFault::NotJson,
        _ => PdsFault::Request,
    };
    fault.into()
}
