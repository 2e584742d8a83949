//! A running `up`, and a client beside it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_mainstay");

/// Far past anything that takes its time here: a debug build on a busy machine included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The binary, run to its end.
pub(crate) fn mainstay(arguments: &[&str]) -> Output {
    mainstay_with(arguments, &[])
}

/// The same, with more in its environment. One that goes on instead, as an `up` does that should have been refused, is
/// told to end when it takes longer than our patience, and that shows in its code.
pub(crate) fn mainstay_with(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new("timeout");
    command.arg("--kill-after=30").arg(PATIENCE.as_secs().to_string()).arg(PROGRAM).args(arguments);
    command.envs(environment.iter().copied()).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asks until the answer is there.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let ends = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < ends, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `mainstay up --json` on free ports.
pub(crate) struct Up {
    child: Child,
    events: Receiver<Value>,
    /// Everything that was told so far.
    pub(crate) seen: Vec<Value>,
    /// What it said when it was up.
    pub(crate) greeting: Value,
}

impl Up {
    /// Starts it and waits until it is up.
    pub(crate) fn start(data: &Path) -> Self {
        let mut up = Self::spawn(data);
        up.greeting = up.until(|event| event["event"] == "up");
        up
    }

    pub(crate) fn spawn(data: &Path) -> Self {
        Self::spawn_by(Command::new(PROGRAM), data)
    }

    /// Started by a command that ends in the program.
    pub(crate) fn spawn_by(mut command: Command, data: &Path) -> Self {
        let mut child = command
            .args(["up", "--json", "--port-base", "0", "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (tell, events) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
                if tell.send(event).is_err() {
                    break;
                }
            }
        });
        Self { child, events, seen: Vec::new(), greeting: Value::Null }
    }

    /// Reads on until an event is as wanted.
    pub(crate) fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let ends = Instant::now() + PATIENCE;
        loop {
            match self.events.recv_timeout(ends.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    self.seen.push(event.clone());
                    if wanted(&event) {
                        return event;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("not within {PATIENCE:?}; told: {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended; told: {:#?}", self.seen),
            }
        }
    }

    pub(crate) fn url(&self, service: &str) -> String {
        self.greeting["urls"][service].as_str().unwrap().to_owned()
    }

    /// The process that a service runs in now, as far as was read.
    pub(crate) fn pid_of(&self, service: &str) -> u32 {
        let started = |event: &&Value| event["event"] == "started" && event["service"] == service;
        let event = self.seen.iter().rev().find(started).unwrap();
        u32::try_from(event["pid"].as_u64().unwrap()).unwrap()
    }

    pub(crate) fn kill(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    /// Waits for the end; what it said meanwhile is in `seen`.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = until("the end of `up`", || child.try_wait().unwrap());
        // The reading thread ends with the output, and that with the last process that holds it.
        while let Ok(event) = self.events.recv_timeout(PATIENCE) {
            self.seen.push(event);
        }
        status
    }

    /// The services in the order in which they told this.
    pub(crate) fn order_of(&self, event: &str) -> Vec<&str> {
        let told = self.seen.iter().filter(|told| told["event"] == event);
        told.filter_map(|told| told["service"].as_str()).collect()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Only a failed test leaves it running; its services end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// One request on a connection of its own; the answer's status, and its body as JSON. An error is one of the
/// connection: the service may be on its way up or down.
pub(crate) fn http(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> std::io::Result<(u16, Value)> {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_at(rest.find('/').unwrap());
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        request.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
    } else {
        request.push_str("\r\n");
    }
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let broken = || std::io::Error::other(format!("a broken answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

pub(crate) fn get(url: &str) -> Value {
    let (status, body) = http("GET", url, &[], None).unwrap();
    assert_eq!(status, 200, "{url}: {body}");
    body
}

/// Places an order for apples, trying again with the same key until it is answered, as a client would; the order.
pub(crate) fn place(up: &Up, key: &str, quantity: u32) -> Value {
    let url = format!("{}/orders", up.url("order"));
    let body = format!(r#"{{"customer":"alice","lines":[{{"sku":"apple","quantity":{quantity}}}]}}"#);
    until("an answer to the order", || match http("POST", &url, &[("Idempotency-Key", key)], Some(&body)) {
        Ok((201, order)) => Some(order),
        Ok((status, answer)) if status < 500 => panic!("{status}: {answer}"),
        _ => None,
    })
}

/// The order once its saga is over.
pub(crate) fn ended(up: &Up, order: &Value) -> Value {
    let url = format!("{}/orders/{}", up.url("order"), order["id"].as_str().unwrap());
    until("the end of the order", || match http("GET", &url, &[], None) {
        Ok((200, order)) if order["status"] != "PENDING" => Some(order),
        _ => None,
    })
}
