//! GET /orders and GET /orders/{id}: from the view, as it is stored.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use mainstay::store::{Cursor, IndexValue, ReadError, Rows, Scan, ScanBy, Store};
use serde::Deserialize;

use super::Orders;
use super::row::{BY_CUSTOMER, BY_STATUS};
use crate::domain::order::Status;
use crate::domain::{CustomerId, OrderId};
use crate::http::limits::{PAGE_ROWS, PAGE_ROWS_MAX};
use crate::http::problem::{Fault, Problem};
use crate::service::rows::decode;
use crate::service::{Call, json, page, path, query, read_problem};

/// How many rows one request looks at, at most, in search of those that match both filters.
const ROWS_LOOKED_AT_MAX: usize = 1_000;

/// How often one who waits looks without having been woken.
const RECHECK: Duration = Duration::from_secs(5);

/// One order.
pub(super) async fn one<S: Store>(
    State(orders): State<Orders<S>>,
    Call { cx }: Call,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let id: OrderId = path(id)?;
    let wait = prefer_wait(&headers).map(|wait| wait.min(orders.app.limits().prefer_wait));
    // Taken before the first look: an order that ends in between is then noticed.
    let mut place = wait.and_then(|_| orders.waiting.place(id));
    let until = cx.now() + wait.unwrap_or_default().min(cx.remaining().unwrap_or(Duration::MAX));
    loop {
        let row = orders.app.store().view_get(&orders.view, &id.to_string()).await;
        let Some(bytes) = row.map_err(|error| read_problem(&error))? else {
            return Err(Problem::new(Fault::NotFound, "there is no such order here"));
        };
        let Some(place) = &mut place else { return Ok(json(StatusCode::OK, bytes)) };
        let left = until.saturating_since(cx.now());
        let is_final = status(&bytes).map_err(|error| read_problem(&error))?.is_final();
        if is_final || left.is_zero() || orders.app.is_stopping() {
            return Ok(json(StatusCode::OK, bytes));
        }
        let _waits = orders.app.stats().waits();
        orders.app.or_stopping(place.woken(left.min(RECHECK))).await;
    }
}

/// `Prefer: wait=N` (RFC 7240 §4.3), in seconds. Anything else of the header is a preference that is not known
/// here, which the RFC lets a server pass over.
fn prefer_wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let preferences = values.flat_map(|value| value.split(','));
    let waits = preferences.filter_map(|one| {
        let (name, value) = one.split(';').next()?.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("wait")
            .then(|| value.trim().trim_matches('"').parse::<u32>().ok())?
    });
    // The first one counts (§2: a repeated preference is taken once).
    waits.take(1).map(|seconds| Duration::from_secs(seconds.into())).next()
}

#[derive(Deserialize)]
struct Peek {
    status: Status,
}

fn status(row: &[u8]) -> Result<Status, ReadError> {
    Ok(decode::<Peek>(row)?.status)
}

/// Which orders.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    customer: Option<CustomerId>,
    status: Option<Shown>,
    after: Option<String>,
    limit: Option<usize>,
}

/// The states that an order is shown in.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "UPPERCASE")]
enum Shown {
    Pending,
    Confirmed,
    Cancelled,
}

impl From<Shown> for Status {
    fn from(shown: Shown) -> Self {
        match shown {
            Shown::Pending => Self::Pending,
            Shown::Confirmed => Self::Confirmed,
            Shown::Cancelled => Self::Cancelled,
        }
    }
}

/// Orders, the oldest first.
pub(super) async fn list<S: Store>(
    State(orders): State<Orders<S>>,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    let which: Which = query(&uri)?;
    let limit = which.limit.unwrap_or(PAGE_ROWS);
    if !(1..=PAGE_ROWS_MAX).contains(&limit) {
        return Err(Problem::new(Fault::BadQuery, format!("limit is 1 to {PAGE_ROWS_MAX}")));
    }
    let after = which.after.as_deref().map(str::parse::<OrderId>).transpose();
    let after = after.map_err(|error| Problem::new(Fault::BadQuery, format!("after is {error}")))?;
    let (rows, next) = find(&orders, &which, after, limit).await.map_err(|error| read_problem(&error))?;
    Ok(json(StatusCode::OK, page("orders", &rows, next.as_deref())))
}

/// The next rows that match, and the key after which to go on; none at the end.
async fn find<S: Store>(
    orders: &Orders<S>,
    which: &Which,
    after: Option<OrderId>,
    limit: usize,
) -> Result<(Vec<Vec<u8>>, Option<String>), ReadError> {
    let (index, value) = match (&which.customer, which.status) {
        (Some(customer), _) => (BY_CUSTOMER, Some(customer.as_str().to_owned())),
        (None, Some(status)) => (BY_STATUS, Some(Status::from(status).as_str().to_owned())),
        (None, None) => ("", None),
    };
    let value = value.map(IndexValue::Text);
    let mut after = after.map(|id| Cursor { value: value.clone(), key: id.to_string() });
    // With both, one index finds and the other filter is looked at row by row.
    let mut search = Search::new(limit, which.customer.as_ref().and(which.status).map(Status::from));
    loop {
        let by = match &value {
            Some(value) => ScanBy::Index { index, from: value.clone(), to: value.clone() },
            None => ScanBy::Key { prefix: String::new() },
        };
        let scan = Scan { view: orders.view.clone(), by, after: after.take(), rows_max: search.rows_max() };
        let rows = orders.app.store().view_scan(&scan).await?;
        match search.take(rows)? {
            Step::On(cursor) => after = Some(cursor),
            Step::Done(next) => return Ok((search.found, next)),
        }
    }
}

/// One page being put together from scans.
struct Search {
    limit: usize,
    filter: Option<Status>,
    found: Vec<Vec<u8>>,
    looked_at: usize,
}

/// How a search stands after a scan.
#[derive(Debug, PartialEq)]
enum Step {
    /// Scan on from here.
    On(Cursor),
    /// The page is there; after this key the next one begins, if there is more.
    Done(Option<String>),
}

impl Search {
    fn new(limit: usize, filter: Option<Status>) -> Self {
        Self { limit, filter, found: Vec::new(), looked_at: 0 }
    }

    /// How many rows the next scan reads. Without a filter each row is one of the page; with one most may be none,
    /// and a scan for each row that is missing would cost more than the rows.
    fn rows_max(&self) -> usize {
        match self.filter {
            None => self.limit.saturating_sub(self.found.len()),
            Some(_) => PAGE_ROWS_MAX,
        }
    }

    fn take(&mut self, rows: Rows) -> Result<Step, ReadError> {
        let Rows { rows, next } = rows;
        let last = rows.len().saturating_sub(1);
        for (i, (key, bytes)) in rows.into_iter().enumerate() {
            self.looked_at += 1;
            if let Some(filter) = self.filter
                && status(&bytes)? != filter
            {
                continue;
            }
            self.found.push(bytes);
            if self.found.len() >= self.limit {
                let is_more = i < last || next.is_some();
                return Ok(Step::Done(is_more.then_some(key)));
            }
        }
        Ok(match next {
            Some(cursor) if self.looked_at >= ROWS_LOOKED_AT_MAX => Step::Done(Some(cursor.key)),
            Some(cursor) => Step::On(cursor),
            None => Step::Done(None),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_as_rfc_7240_writes_it() {
        for (text, wait) in [
            ("wait=10", Some(10)),
            ("respond-async, WAIT = 7; x=1", Some(7)),
            ("wait=1, wait=2", Some(1)),
            ("wait", None),
            ("wait=-1", None),
            ("wait=99999999999", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", text.parse().unwrap());
            assert_eq!(prefer_wait(&headers), wait.map(Duration::from_secs), "{text}");
        }
    }

    /// Rows `from` to `to`, every tenth confirmed, of a view with `all` rows.
    fn rows(from: usize, to: usize, all: usize) -> Rows {
        let key = |i: usize| format!("{i:04}");
        let row = |i: usize| {
            let status = if i % 10 == 9 { "CONFIRMED" } else { "PENDING" };
            (key(i), format!(r#"{{"status":"{status}"}}"#).into_bytes())
        };
        let to = to.min(all);
        let next = (to < all).then(|| Cursor { value: None, key: key(to - 1) });
        Rows { rows: (from..to).map(row).collect(), next }
    }

    /// A whole search; how many scans it took, how many rows it found, and after which key the next page begins.
    fn searched(limit: usize, filter: Option<Status>, all: usize) -> (usize, usize, Option<String>) {
        let (mut search, mut at, mut scans) = (Search::new(limit, filter), 0, 0);
        loop {
            let to = at + search.rows_max();
            scans += 1;
            match search.take(rows(at, to, all)).unwrap() {
                Step::On(cursor) => assert_eq!(cursor.key, format!("{:04}", to - 1)),
                Step::Done(next) => return (scans, search.found.len(), next),
            }
            at = to;
        }
    }

    #[test]
    fn a_filtered_page_takes_few_scans_and_the_next_one_begins_where_it_was_full() {
        let confirmed = Some(Status::Confirmed);
        assert_eq!(searched(1, confirmed, 5_000), (1, 1, Some("0009".into())));
        assert_eq!(searched(20, confirmed, 5_000), (1, 20, Some("0199".into())));
        assert_eq!(searched(25, confirmed, 5_000), (2, 25, Some("0249".into())));
        // Nothing matches: it ends after so many rows, and says where.
        assert_eq!(searched(1, Some(Status::Cancelled), 5_000), (5, 0, Some("0999".into())));
        assert_eq!(searched(1, Some(Status::Cancelled), 300), (2, 0, None));
        // Full with the very last row: there is no next page.
        assert_eq!(searched(2, confirmed, 20), (1, 2, None));
        assert_eq!(searched(1, confirmed, 20), (1, 1, Some("0009".into())));
        assert_eq!(searched(50, None, 5_000), (1, 50, Some("0049".into())));
        assert_eq!(searched(50, None, 50), (1, 50, None));
    }
}
