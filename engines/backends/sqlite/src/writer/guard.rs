//! What a user's closure may do, and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::schema::PREFIX;

/// Shared by the writer thread, the hooks inside SQLite, and whoever asks whether the writer is stuck.
#[derive(Debug)]
pub(crate) struct Guard {
    origin: Instant,
    /// Is the statement being prepared the user's?
    user: AtomicBool,
    /// When the running closure began, in nanoseconds since `origin`, plus one; 0 when none runs.
    began: AtomicU64,
    limit: Duration,
    /// Has the user's code made or altered a table since this was last asked?
    tables: AtomicBool,
}

/// Marks the statements prepared while it lives as the user's, or as the store's. They nest: a row of a user's
/// query may be handled by a call of the store, and that by another query.
pub(crate) struct Code<'a> {
    guard: &'a Guard,
    before: bool,
}

impl Drop for Code<'_> {
    fn drop(&mut self) {
        self.guard.user.store(self.before, Ordering::Relaxed);
    }
}

/// Marks a closure as running while it lives.
pub(crate) struct Running<'a>(&'a Guard);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.began.store(0, Ordering::Relaxed);
    }
}

impl Guard {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            origin: Instant::now(),
            user: AtomicBool::new(false),
            began: AtomicU64::new(0),
            limit,
            tables: AtomicBool::new(false),
        }
    }

    pub(crate) fn user_code(&self) -> Code<'_> {
        Code { guard: self, before: self.user.swap(true, Ordering::Relaxed) }
    }

    pub(crate) fn store_code(&self) -> Code<'_> {
        Code { guard: self, before: self.user.swap(false, Ordering::Relaxed) }
    }

    /// Has the user's code made or altered a table since this was last asked?
    pub(crate) fn tables_changed(&self) -> bool {
        self.tables.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn closure_runs(&self) -> Running<'_> {
        let now = self.origin.elapsed().as_nanos() as u64;
        self.began.store(now + 1, Ordering::Relaxed);
        Running(self)
    }

    /// How long the running closure has been at it.
    fn running_for(&self) -> Option<Duration> {
        let began = self.began.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.origin.elapsed().saturating_sub(Duration::from_nanos(began)))
    }

    /// Is the running closure past its limit? Its SQL is interrupted then.
    fn overdue(&self) -> bool {
        self.running_for().is_some_and(|ran| ran > self.limit)
    }

    /// For how long the running closure has been stuck in Rust: so long past its limit that no interrupted
    /// SQL explains it. Costs one load when no closure runs.
    pub(crate) fn stuck_for(&self) -> Option<Duration> {
        self.running_for().filter(|ran| *ran > self.limit + self.limit / 4)
    }

    /// Installs the hooks, once for each connection of the writer.
    pub(crate) fn install(self: &Arc<Self>, conn: &mut Connection) -> rusqlite::Result<()> {
        let guard = Arc::clone(self);
        // Each thousand steps of SQLite's machine: tens of microseconds apart, unmeasurable beside them.
        conn.progress_handler(1_000, Some(move || guard.overdue()))?;
        let guard = Arc::clone(self);
        conn.authorizer(Some(move |context: AuthContext<'_>| {
            if !guard.user.load(Ordering::Relaxed) {
                return Authorization::Allow;
            }
            if matches!(context.action, AuthAction::CreateTable { .. } | AuthAction::AlterTable { .. }) {
                guard.tables.store(true, Ordering::Relaxed);
            }
            if allowed(&context) { Authorization::Allow } else { Authorization::Deny }
        }))
    }
}

fn ours(name: &str) -> bool {
    // SQLite's names do not mind case.
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// What a user's statement may do. Whatever this build does not know is refused.
fn allowed(context: &AuthContext<'_>) -> bool {
    use AuthAction as A;
    match context.action {
        A::Select | A::Recursive | A::Read { .. } | A::Function { .. } => true,
        A::Insert { table_name }
        | A::Delete { table_name }
        | A::Update { table_name, .. }
        | A::CreateTable { table_name }
        | A::DropTable { table_name }
        | A::AlterTable { table_name, .. }
        | A::Analyze { table_name } => !ours(table_name),
        A::CreateIndex { table_name, index_name } | A::DropIndex { table_name, index_name } => {
            !ours(table_name) && !ours(index_name)
        }
        A::CreateTrigger { table_name, trigger_name } | A::DropTrigger { table_name, trigger_name } => {
            !ours(table_name) && !ours(trigger_name)
        }
        A::CreateView { view_name } | A::DropView { view_name } => !ours(view_name),
        A::Reindex { index_name } => !ours(index_name),
        // A virtual table may do anything its module can. A temporary object would outlive its transaction on the
        // writer's connection, be seen by everybody's closures, and be gone after the next reopening.
        _ => false,
    }
}
