//! Under which names a service answers.
//!
//! A page from anywhere may point a name of its own at 127.0.0.1 and have a browser on this machine ask us (DNS
//! rebinding): for the browser that is the page's own origin, so the page reads what is answered. What it can't do is
//! to make the browser send another `Host` than that name. So a name that we were not told of is refused.

use axum::http::{Request, Version, header};

use super::problem::{Fault, Problem};

/// The names of the machine itself, at any port.
pub const LOCAL_HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// Refuses a request that is meant for somebody else.
///
/// # Errors
/// 400 without exactly one `Host` (RFC 9112 §3.2; HTTP/1.0 may have none), 421 with a name that is not in `allowed`,
/// also where the name stands in the target (§3.2.2).
pub(crate) fn check<B>(allowed: &[String], request: &Request<B>) -> Result<(), Problem> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() || (host.is_none() && request.version() >= Version::HTTP_11) {
        return Err(Problem::new(
            Fault::BadHeader,
            "a request has exactly one Host; nothing was done; send the host and port that it goes to",
        ));
    }
    let said = host.map(|host| host.to_str().unwrap_or_default());
    let target = request.uri().authority().map(|authority| authority.as_str());
    let is_ours = |authority: &str| {
        name(authority).is_some_and(|name| allowed.iter().any(|known| known.eq_ignore_ascii_case(name)))
    };
    if said.into_iter().chain(target).all(is_ours) {
        return Ok(());
    }
    Err(Problem::new(
        Fault::Misdirected,
        "the request is meant for a host that is not served here; nothing was done; use this service's own address, \
         or have the name added to the hosts that it is allowed to answer for",
    ))
}

/// The host of `host[:port]`, an address of IPv6 in its brackets; none when it is no such thing.
fn name(authority: &str) -> Option<&str> {
    let end = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (name, port) = authority.split_at(end);
    let port = port.strip_prefix(':').unwrap_or(port);
    (!name.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(uri: &str, version: Version, hosts: &[&str]) -> u16 {
        let allowed = LOCAL_HOSTS.map(str::to_owned);
        let mut request = Request::builder().uri(uri).version(version);
        for host in hosts {
            request = request.header("host", *host);
        }
        match check(&allowed, &request.body(()).unwrap()) {
            Ok(()) => 200,
            Err(problem) => problem.fault.row().status,
        }
    }

    #[test]
    fn the_machines_own_names_are_served_and_no_others() {
        for host in ["127.0.0.1", "127.0.0.1:7101", "localhost", "LocalHost:1", "[::1]", "[::1]:7101"] {
            assert_eq!(status("/", Version::HTTP_11, &[host]), 200, "{host}");
        }
        for host in [
            "",
            ":80",
            "evil.example",
            "evil.example:7101",
            "localhost.evil.example",
            "localhost.",
            "127.0.0.1.evil.example",
            "evil.example:127.0.0.1",
            "user@127.0.0.1",
            "127.0.0.1:80@evil.example",
            "127.0.0.1, evil.example",
            "[::1",
            "[::1]evil.example",
            "[::2]",
            "127.0.0.2",
        ] {
            assert_eq!(status("/", Version::HTTP_11, &[host]), 421, "{host}");
        }
    }

    #[test]
    fn there_is_one_host_and_the_target_names_no_other() {
        assert_eq!(status("/", Version::HTTP_11, &[]), 400);
        assert_eq!(status("/", Version::HTTP_10, &[]), 200, "before there were hosts");
        assert_eq!(status("/", Version::HTTP_10, &["evil.example"]), 421);
        assert_eq!(status("/", Version::HTTP_11, &["localhost", "localhost"]), 400);
        assert_eq!(status("http://evil.example/", Version::HTTP_11, &["localhost"]), 421);
        assert_eq!(status("http://localhost:7101/", Version::HTTP_11, &["localhost"]), 200);
    }
}
