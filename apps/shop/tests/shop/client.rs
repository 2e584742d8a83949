//! A client that sends exactly the bytes it is told to, and looks at every answer against the document.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than any answer takes; a test that waits so long fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// One service, seen from outside.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) addr: SocketAddr,
    document: Arc<Value>,
}

#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, String::from_utf8_lossy(&self.body))
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn receipt(&self) -> &str {
        self.header("mainstay-receipt").expect("an answer that changes something has a receipt")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The last part of a problem's type.
    pub(crate) fn problem(&self) -> String {
        let body = self.json();
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{body}");
        assert_eq!(body["status"], self.status, "{body}");
        body["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
    }
}

impl Client {
    pub(crate) fn new(addr: SocketAddr, document: Value) -> Self {
        Self { addr, document: Arc::new(document) }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], None).await
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.call("POST", path, headers, Some(body.to_string().as_bytes())).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call("PUT", path, &[], Some(body.to_string().as_bytes())).await
    }

    /// One well-formed request on a connection of its own.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            head += &format!("host: {}\r\n", self.addr);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = body {
            if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                head += "content-type: application/json\r\n";
            }
            head += &format!("content-length: {}\r\n", body.len());
        }
        head += "\r\n";
        let answer = self.raw(&[head.as_bytes(), body.unwrap_or_default()].concat()).await;
        let answer = answer.unwrap_or_else(|| panic!("no answer to {method} {path}"));
        self.check(method, path, &answer);
        answer
    }

    /// Sends these bytes and reads until the service closes; none when nothing came.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Option<Answer> {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        // A service that refuses early may close before all is sent.
        let _ = stream.write_all(bytes).await;
        read(stream).await
    }

    /// Is the answer one that the document promises?
    fn check(&self, method: &str, path: &str, answer: &Answer) {
        let path = path.split('?').next().unwrap();
        let fits = |template: &str| {
            let (template, path) = (template.split('/'), path.split('/'));
            template.clone().count() == path.clone().count()
                && template.zip(path).all(|(part, given)| part.starts_with('{') || part == given)
        };
        let paths = self.document["paths"].as_object().unwrap();
        let found = paths.iter().find(|(template, _)| fits(template)).map(|(_, item)| item);
        let Some(operation) = found.and_then(|item| item.get(method.to_lowercase())) else {
            assert!(
                [404, 405].contains(&answer.status),
                "{method} {path} is not in the document: {answer:?}"
            );
            return;
        };
        let promised = &operation["responses"][answer.status.to_string()];
        assert!(promised.is_object(), "{method} {path} promises no {}: {:?}", answer.status, answer);
        for name in promised["headers"].as_object().into_iter().flat_map(|headers| headers.keys()) {
            // Not every problem of a status passes by itself.
            let is_there = name == "Retry-After" || answer.header(name).is_some();
            assert!(is_there, "{method} {path} has no header {name}: {answer:?}");
        }
        let (media, content) = promised["content"].as_object().unwrap().iter().next().unwrap();
        assert_eq!(answer.header("content-type"), Some(media.as_str()), "{method} {path}");
        if !media.contains("json") {
            return;
        }
        let mut schema = content["schema"].clone();
        schema["components"] = json!({ "schemas": self.document["components"]["schemas"] });
        let body = answer.json();
        if let Err(error) = jsonschema::validate(&schema, &body) {
            panic!("{method} {path}: {error}\n{body:#}");
        }
    }
}

/// Everything until the other side closes, as one answer.
pub(crate) async fn read(mut stream: TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    // A reset after the answer is a close; before it, there is no answer.
    let _ = read.expect("the service neither answered nor closed");
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Some(Answer { status, headers, body: bytes[end + 4..].to_vec() })
}
