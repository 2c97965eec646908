//! The only place that names rusqlite: open, migrate, record, look up.
