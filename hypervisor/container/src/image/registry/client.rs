//! Requests to one repository of one registry, who we are included.

use std::cell::RefCell;

use super::super::layer::shown;
use super::super::{Error, Reference, Result, spec};
use super::auth::{Access, Challenge, Token, is_credentials};
use super::http::{Body, Request, Response, send};
use super::url::Url;

/// How many addresses may point at one another.
const REDIRECTS: usize = 5;

/// One repository.
pub(super) struct Client<'a> {
    access: &'a Access,
    name: &'a Reference,
    base: Url,
    /// `pull`, or `pull,push`.
    actions: &'static str,
    /// The value of `Authorization`, once the registry has asked for it.
    authorization: RefCell<Option<String>>,
}

impl<'a> Client<'a> {
    pub(super) fn new(access: &'a Access, name: &'a Reference, actions: &'static str) -> Result<Self> {
        Ok(Self {
            access,
            name,
            base: access.base(name.registry())?,
            actions,
            authorization: RefCell::new(None),
        })
    }

    /// An address below the repository's.
    pub(super) fn url(&self, path: &str) -> Result<Url> {
        self.base.join(&format!("/v2/{}/{path}", self.name.repository()))
    }

    /// An error of this registry.
    pub(super) fn error(&self, why: impl Into<String>) -> Error {
        Error::Registry {
            host: self.name.registry().to_owned(),
            why: why.into(),
        }
    }

    /// Asks; answers a challenge, and goes where it is sent.
    pub(super) fn ask(&self, request: Request<'_>) -> Result<Response> {
        let mut request = request;
        let plain_headers = request.headers.len();
        let mut challenged = false;
        let mut redirects = 0;
        loop {
            self.access.check(&request.url)?;
            request.headers.truncate(plain_headers);
            // Who we are is this registry's to know alone.
            if let Some(authorization) = self.authorization.borrow().clone()
                && request.url.authority == self.base.authority
                && request.url.tls == self.base.tls
            {
                request.headers.push(("Authorization", authorization));
            }
            let response = send(&request)?;
            match response.status {
                401 if !challenged && request.url.authority == self.base.authority => {
                    challenged = true;
                    let authorization = self.answer(&response)?;
                    *self.authorization.borrow_mut() = Some(authorization);
                }
                301 | 302 | 303 | 307 | 308 if matches!(request.method, "GET" | "HEAD") && redirects < REDIRECTS => {
                    redirects += 1;
                    let location = response
                        .header("location")
                        .ok_or_else(|| self.error("it redirects to nowhere"))?;
                    let url = request.url.join(location)?;
                    if request.url.tls && !url.tls {
                        return Err(self.error(format!("it redirects to {}, without encryption", url.authority)));
                    }
                    request.url = url;
                }
                _ => return Ok(response),
            }
        }
    }

    /// Asks, and takes only these statuses for an answer.
    pub(super) fn expect(&self, request: Request<'_>, wanted: &[u16]) -> Result<Response> {
        let what = format!(
            "{} {}",
            request.method,
            request.url.path.split('?').next().unwrap_or_default()
        );
        let url = request.url.clone();
        let response = self.ask(request)?;
        if wanted.contains(&response.status) {
            return Ok(response);
        }
        let status = response.status;
        let said = response.document(&url).map(|bytes| reason(&bytes)).unwrap_or_default();
        let meaning = match status {
            401 => "it wants to know who you are: `docker login` or `skopeo login`, or --authfile",
            403 => "not with these credentials",
            404 => "there is no such thing",
            429 => "too many requests: try again later",
            _ => "not expected",
        };
        Err(self.error(format!("{what}: status {status}, {meaning}{said}")))
    }

    /// What to say to a registry that asks who we are.
    fn answer(&self, response: &Response) -> Result<String> {
        let challenge = response.headers("www-authenticate").find_map(Challenge::parse);
        let credentials = self.access.credentials(self.name.registry());
        if credentials.is_some_and(|text| !is_credentials(text)) {
            return Err(self.error("the credentials in the file of `docker login` are not user:password in base64"));
        }
        match (challenge, credentials) {
            (Some(Challenge::Basic), Some(credentials)) => Ok(format!("Basic {credentials}")),
            (Some(Challenge::Basic), None) => {
                Err(self.error("it wants a name and a password: `docker login` or `skopeo login` first, or --authfile"))
            }
            (Some(Challenge::Bearer { realm, service, scope }), credentials) => {
                let mut url = Url::parse(&realm)?;
                self.access.check(&url)?;
                if self.base.tls && !url.tls {
                    return Err(self.error("it wants a token to be asked for without encryption"));
                }
                if let Some(service) = service {
                    url = url.with("service", &service);
                }
                let ours = || format!("repository:{}:{}", self.name.repository(), self.actions);
                let url = url.with("scope", &scope.unwrap_or_else(ours));
                self.token(url, credentials)
            }
            (None, _) => Err(self.error("it asks who we are in a way that is not known here")),
        }
    }

    fn token(&self, url: Url, credentials: Option<&str>) -> Result<String> {
        let headers = credentials
            .map(|text| ("Authorization", format!("Basic {text}")))
            .into_iter()
            .collect();
        let request = Request {
            method: "GET",
            url: url.clone(),
            headers,
            body: Body::Empty,
        };
        let response = send(&request)?;
        if response.status != 200 {
            return Err(self.error(format!("{} gives no token: status {}", url.authority, response.status)));
        }
        let token: Token = spec::parse("the answer of the token server", &response.document(&url)?)?;
        let token = token
            .into_text()
            .ok_or_else(|| self.error("the token server's answer has no token"))?;
        Ok(format!("Bearer {token}"))
    }
}

/// What a registry says of an error (distribution specification 1.1, Error Codes).
fn reason(bytes: &[u8]) -> String {
    let text = serde_json::from_slice::<serde_json::Value>(bytes)
        .ok()
        .and_then(|answer| Some(answer.pointer("/errors/0/message")?.as_str()?.to_owned()));
    text.map_or_else(String::new, |text| format!(": {}", shown(text.as_bytes())))
}
